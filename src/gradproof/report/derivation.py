"""`gradproof explain`: the derivation alone, without an engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import notation
from ..arithmetic import UNIT, balls, centres, exact, full, precision
from ..calculus import written
from ..derivation import derive
from ..files import Problem
from ..graph import Graph
from ..reference import evaluate, pullback
from . import number


def explain(problem: Problem) -> str:
    """Nodes, local gradients, the chain rule in symbols and in numbers, from the reference alone.

    The numbers are exact ones, rounded to eight digits; of a tensor the first entry is shown.
    """
    derivation = derive(problem.graph)
    graph = derivation.graph
    values, adjoints = _numbers(graph, problem)
    output = graph.output.name
    parts = [problem.title]
    if problem.teaches:
        parts[0] += f"\n{problem.teaches}"
    parts.append(_section("The graph, in index notation", [
        f"{_equation(written(node))}{_value(values, node.name)}" for node in graph.nodes
    ]))  # fmt: skip
    parts.append(_section("Local gradients: each node by what it reads", [
        f"∂{notation.text(g.left[0])}/∂{notation.text(g.left[1])} = {notation.text(g.formula)}" for g in derivation.locals
    ]))  # fmt: skip
    rule = []
    for adjoint in derivation.adjoints[1:]:
        shared = f"   ({adjoint.uses} uses: their parts are added)" if adjoint.uses > 1 else ""
        shown = _value(adjoints, adjoint.name) if adjoint.formula.free_symbols else ""
        rule.append(f"{notation.text(adjoint.left)} = {notation.text(adjoint.formula)}{shown}{shared}")
    parts.append(_section(f"The chain rule, from {output} back (v̄ is ∂{output}/∂v)", rule))
    closed = [f"∂{output}/∂{name} = {notation.text(formula)}" for name, formula in derivation.closed.items()]
    if closed:
        parts.append(_section("Closed in the leaves", closed))
    parts.append(_section("Gradients", [
        f"∂{output}/∂{leaf.name}{_value(adjoints, leaf.name, whole=True)}" for leaf in graph.parameters
    ]))  # fmt: skip
    given = [leaf.name for leaf in graph.leaves if leaf.given]
    if given:
        parts.append(f"Given, so nothing is learned from a gradient and none is taken: {', '.join(given)}.")
    return "\n\n".join(parts)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _equation(sides: tuple[object, object]) -> str:
    left, right = sides
    return f"{notation.text(left)} = {notation.text(right)}"


def _numbers(graph: Graph, problem: Problem) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every value and every adjoint of the graph, exact, as floats."""
    with precision(256):
        leaves = {name: balls(value) for name, value in problem.point.items()}
        values = evaluate(graph.nodes, leaves, exact())
        back = pullback(graph.nodes, values, {graph.output.name: full((1,), UNIT)}, graph.active, exact())
    floats = {name: centres(value) for name, value in values.items()}
    return floats, {name: centres(value[0]) for name, value in back.items()}


def _value(values: dict[str, np.ndarray], name: str, *, whole: bool = False) -> str:
    value = values.get(name)
    if value is None:
        return " = 0" if whole else ""
    flat = value.reshape(-1)
    if value.ndim == 0:
        return f" = {number(float(flat[0]))}"
    if whole and flat.size <= 12:
        return f" = {np.array2string(value, precision=8, separator=', ', max_line_width=100)}"
    return f"   (first entry {number(float(flat[0]))})"
