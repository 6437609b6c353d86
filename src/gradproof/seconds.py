"""Second derivatives of an expression file, by name: calculus beside an engine's.

The tangent of the gradient along one entry of a parameter is a column of the Hessian: the graph with its
tangents is pulled back from the output's tangent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy

from .causes import Cause, Raised, Uncovered
from .dtypes import DType
from .engines import Engine, Task
from .errors import UnsupportedError, said, where
from .judging.verdicts import Comparison, absent, judge
from .language.files import Problem
from .proof.balls import UNIT, balls, full, precision
from .proof.enclosure import START_BITS, Enclosures, Run
from .proof.graph import Graph, size
from .proof.tangents import dot, with_tangents
from .proof.walk import Values
from .telling import notation
from .telling.derivation import Derivation
from .verdict import Finding, Verdict, as_finding, bare_finding

LONG = 80  # characters of a formula that people still read


def second_derivatives(
    problem: Problem,
    engine: Engine,
    task: Task,
    values: dict[str, np.ndarray],
    dtype: DType,
    text: Derivation,
) -> Iterator[Finding]:
    """A finding for each that the problem asks for; `values` are the leaves' as the engine holds them."""
    for name, (first, second) in problem.hessian.items():
        formula = _formula(problem.graph, text, first, second)
        if any(leaf.name not in values for leaf in problem.graph.leaves):
            yield bare_finding("hessian", name, Verdict.UNSUPPORTED, Uncovered("the engine did not run"))
            continue
        given = {leaf.name: balls(values[leaf.name]) for leaf in problem.graph.leaves}
        with precision(START_BITS):
            compared = _exact(problem.graph, given, first, second, dtype)
        try:
            value = _of_engine(engine, task, first, second, dtype)
        except UnsupportedError as error:
            yield _bare(name, formula, Verdict.UNSUPPORTED, Uncovered(str(error)))
            continue
        except Exception as error:
            yield _bare(name, formula, Verdict.FAILED, Raised(f"{said(error)}{where(error)}"))
            continue
        judged = absent(compared[0]) if value is None else judge(Comparison(value, *compared), dtype)
        yield as_finding("hessian", name, None, formula, judged)


def _bare(name: str, formula: str, verdict: Verdict, cause: Cause) -> Finding:
    found = bare_finding("hessian", name, verdict, cause)
    return Finding(**{**vars(found), "formula": formula})


def _exact(graph: Graph, given: Values, first: str, second: str, dtype: DType) -> tuple[Any, Any, np.ndarray]:
    """Exact balls, rounding sets and kinks, of the first parameter's shape and then the second's."""
    shapes, output = graph.shapes, graph.output.name
    nodes = with_tangents(graph.nodes, {second})
    count, shape = size(shapes[second]), (*shapes[first], *shapes[second])
    if dot(output) not in {node.name for node in nodes}:
        none = balls(np.zeros(shape))
        return none, none, np.zeros(shape, bool)
    wanted = graph.active | {node.name for node in nodes if node.moving is not None}
    run = Run(nodes, (dot(output),), {first: shapes[first]}, wanted)
    enclosures, columns = Enclosures(dtype), []
    for entry in range(count):
        along = balls(np.eye(count)[entry].reshape(shapes[second]))
        pulled = enclosures.pulled(run, {**given, dot(second): along}, {dot(output): full((1,), UNIT)})
        columns.append(pulled[first].row(0))
    parts = [[each.exact for each in columns], [each.rounding for each in columns]]
    exact, rounded = (np.stack(list(part), -1).reshape(shape) for part in parts)
    kinks = np.stack([each.kinks for each in columns], -1).reshape(shape)
    return exact, rounded, kinks


def _of_engine(engine: Any, task: Task, first: str, second: str, dtype: DType) -> np.ndarray | None:
    if not hasattr(engine, "second"):
        raise UnsupportedError(f"{engine.name} is asked for no second derivatives here")
    found: np.ndarray | None = engine.second(task, first, second, dtype)
    return found


def _formula(graph: Graph, text: Derivation, first: str, second: str) -> str:
    """`∂²loss/∂w∂w`, and the closed form of scalars where it is short."""
    output = graph.output.name
    told = f"∂²{output}/∂{first}∂{second}"
    closed, shapes = text.closed.get(first), graph.shapes
    if closed is None or shapes[first] or shapes[second]:
        return told
    symbol = next((s for s in closed.free_symbols if s.name == second), None)
    slope = sympy.S.Zero if symbol is None else sympy.diff(closed, symbol)
    words = notation.text(slope)
    return f"{told} = {words}" if len(words) <= LONG else told
