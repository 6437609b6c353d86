"""The exact gradient of a problem, by the calculus alone: no engine runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import DTYPES
from .language.files import Problem
from .proof.balls import UNIT, ball, balls, centres, ends, full, lift, precision
from .proof.enclosure import START_BITS, Enclosures, Run

MOST_DIGITS = 30


@dataclass(frozen=True, eq=False)
class ExactGradient:
    """By one parameter: `values` are the nearest floats, `decimals` the numbers to as many digits as are
    proved, up to 30.

    Both have the parameter's shape. Where there is no derivative the value is NaN, and the text says what the
    one-sided ones span, or that there is none.
    """

    values: np.ndarray
    decimals: np.ndarray


def gradients(problem: Problem) -> dict[str, ExactGradient]:
    """The derivative of the output by each parameter, at the binary numbers that float64 holds."""
    graph = problem.graph
    targets = {leaf.name: leaf.shape for leaf in graph.parameters}
    run = Run(graph.nodes, (graph.output.name,), targets, graph.active)
    with precision(2 * START_BITS):
        leaves = {name: balls(value) for name, value in problem.point.items()}
        pulled = Enclosures(DTYPES["float64"]).pulled(run, leaves, {graph.output.name: full((1,), UNIT)})
        found = {}
        for name, each in pulled.items():
            row = each.row(0)
            decimals = lift(decimal, 1)(row.exact)
            values = centres(row.exact)
            if row.kinks.any():
                decimals = np.where(row.kinks, lift(span, 1)(row.exact), decimals)
                values = np.where(row.kinks, np.nan, values)
            found[name] = ExactGradient(np.asarray(values), np.asarray(decimals, dtype=object))
    return found


def decimal(x: Any) -> str:
    """A ball's number to as many digits as it proves.

    >>> from flint import arb
    >>> decimal(arb(1) / 4), decimal(arb(0)), decimal(arb("nan"))
    ('0.25', '0', 'there is none')
    """
    x = ball(x)
    if x != x or not x.is_finite():
        infinite = not x.is_nan() and (x > 0 or x < 0)
        return ("inf" if x > 0 else "-inf") if infinite else "there is none"
    if x == 0:
        return "0"
    if x.is_exact() and float(x) == x and len(repr(float(x))) < 20:
        return repr(float(x)).removesuffix(".0")
    bits = x.rel_accuracy_bits()
    digits = min(MOST_DIGITS, math.floor(bits * math.log10(2)))
    return x.str(digits, radius=False) if digits > 0 else "0"


def span(x: Any) -> str:
    """The one-sided derivatives at a kink."""
    low, high = ends(ball(x))
    return f"no derivative, one-sided {low:g} to {high:g}"
