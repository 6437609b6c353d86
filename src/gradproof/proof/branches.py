"""Branches in three-valued logic, and the slopes of what has kinks.

A condition is 1 where it is proved, 0 where it is disproved and 0.5 where it is neither: a comparison of
balls is true only when proved.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from flint import arb

from .balls import APART, NOUGHT, ZERO, Ball, Operand, ball, hull, is_ball, lift, same

Truth = float | np.ndarray

_YES, MAYBE, _NO = 1.0, 0.5, 0.0


def _decide(a: Ball, b: Ball, strict: bool, at_tie: float | None) -> float:
    a, b = ball(a), ball(b)
    if a < b:
        return _YES
    if a > b:
        return _NO
    if at_tie is not None:
        return at_tie
    if strict:
        return _NO if a >= b else MAYBE
    return _YES if a <= b else MAYBE


def _equal(a: Ball, b: Ball, at_tie: float | None) -> float:
    a, b = ball(a), ball(b)
    if not a.overlaps(b):
        return _NO
    if at_tie is not None:
        return at_tie
    return _YES if a == b else MAYBE


def _met(relation: str, a: Ball, b: Ball) -> float:
    """A relation beside the point, where nothing is tied that anything moves: what still is so is equal."""
    a, b = arb(ball(a)), arb(ball(b))
    if not (a.is_exact() and b.is_exact()) and same(a, b):
        return _NO if relation == "<" else _YES
    return _equal(a, b, None) if relation == "==" else _decide(a, b, relation == "<", None)


def compare(relation: str, at_tie: float | None, a: Operand, b: Operand, beside: bool = False) -> Truth:
    """Relations of balls, or of plain indices, which are always decided."""
    if not is_ball(a) and not is_ball(b):
        plain = {"<": np.less, "<=": np.less_equal, "==": np.equal}[relation]
        return np.asarray(plain(a, b), dtype=float)
    if beside:
        return lift(partial(_met, relation), 2)(a, b)
    if relation == "==":
        return lift(partial(_equal, at_tie=at_tie), 2)(a, b)
    return lift(partial(_decide, strict=relation == "<", at_tie=at_tie), 2)(a, b)


def _choose(condition: float, a: Ball, b: Ball) -> Ball:
    if condition == _YES:
        return a
    return b if condition == _NO else hull(a, b)


def piecewise(*pieces: tuple[Operand, Truth]) -> Operand:
    (result, _), *rest = reversed(pieces)
    for value, condition in rest:
        result = lift(_choose, 3)(condition, value, result)
    return result


def step(x: arb) -> Ball:
    """The slope of max(x, 0): 0 or 1, and at a kink everything between."""
    if x > 0:
        return arb(1)
    return ZERO if x < 0 else arb(0.5, 0.5)


def unmoved_step(x: arb) -> Ball:
    """The slope of max(x, 0) where x is 0 all around, as far as can be told: two operands that stay equal
    share one."""
    return arb(0.5) if x.contains(NOUGHT) and x.rad() < APART else step(x)


def sign(x: arb) -> arb:
    if x > 0:
        return arb(1)
    if x < 0:
        return arb(-1)
    return arb(0) if x.is_zero() else arb(0, 1)


def slope_of_abs(x: arb) -> arb:
    return arb(1) if x > 0 else arb(-1) if x < 0 else arb(0, 1)


def dirac(x: arb) -> Ball:
    """The slope of a jump: none where the jump is."""
    return arb("nan") if x.contains(arb(0)) else ZERO
