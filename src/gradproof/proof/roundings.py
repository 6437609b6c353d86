"""The rounding model: what implementations of an operation may give in a dtype.

Every operation may round as the dtype does, `b ± (c*u*|b| + smallest subnormal)`; a sum of n terms gets
`γ(n)*Σ|terms|` with the probabilistic `γ(n) = min(n, λ√n)*u` of Higham and Mary (A New Approach to
Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41(5), 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

import numpy as np
from flint import arb

from ..dtypes import DType
from ..functions import FUNCTIONS, Function
from .balls import (
    NOUGHT,
    NOWHERE,
    Ball,
    Balls,
    Each,
    Zero,
    ball,
    finite,
    is_infinity,
    lift,
    precision,
    reduced,
)

LAMBDA = 6.0  # γ(n) fails with probability at most 2*exp(-λ²/2) = 3e-8 (Higham and Mary, theorem 2.4)


class Roundings:
    """What one dtype may make of exact numbers, sums being held in `accumulator`; without a dtype,
    nothing."""

    def __init__(self, dtype: DType | None = None, accumulator: DType | None = None) -> None:
        self.dtype = dtype
        self.accumulator = accumulator or dtype  # what sums are held in, before they round once to `dtype`
        self.half = dtype is not None and dtype.precision < 24 and not dtype.stepwise
        self.within = self._bounded()

    def widened(self, roundings: float = 1) -> Each:
        """Widens an array by so many roundings; the exact arithmetic leaves it as it is."""
        if self.dtype is None:
            return lambda x: x
        relative = arb(1, roundings * self.dtype.unit_roundoff)
        absolute = arb(0, self.dtype.underflow * max(1, roundings / 2))
        largest, nowhere = arb(self.dtype.largest), arb("nan")
        # From half an ulp beyond the largest number on, a result is rounded to infinity.
        unit = self.dtype.unit_roundoff
        with precision(128):  # the table is kept, whatever the precision was when it was made
            edge = largest * (1 + arb(unit) / 2) / (1 + max(0, roundings - 1) * unit)

        def widen(x: Ball) -> Ball:
            if isinstance(x, Zero) or x.is_zero() or is_infinity(x):  # a mask's -inf is no overflow
                return x
            if not abs(x) < edge:  # the implementation holds an infinity, and what follows may be anything
                return nowhere
            if x.rel_accuracy_bits() < 8 and not x.contains(NOUGHT):
                # Of a wide ball the ends are rounded: around its midpoint it would grow to hold 0.
                x = (x.lower() * relative).union(x.upper() * relative) + absolute
            else:
                x = x * relative + absolute
            return x if abs(x) <= largest else _cut(x, largest)

        return lift(widen)

    def total(self, total: Balls, terms: Balls, axes: tuple[int, ...], *, apart: bool = False) -> Balls:
        """The sum of the terms over the axes, in any order of addition; `total` is what it is exactly. What
        comes from several operations is added `apart`."""
        slack = self.gamma(int(np.prod([terms.shape[axis] for axis in axes], dtype=int)), apart=apart)
        if not slack:
            return total
        magnitudes = reduced(np.add, np.abs(terms), axes)
        blurred = _blurred(total, magnitudes, slack)
        within = self.within(blurred)
        if self.dtype is not None and not finite(within).all():
            # Beside the largest number, a mask's, all the rest may be too small to be seen.
            largest, rest = arb(self.dtype.largest), arb(self.dtype.largest) * self.dtype.unit_roundoff / 4
            most = reduced(np.frompyfunc(arb.max, 2, 1), lift(ball)(np.abs(terms)), axes)
            hidden = lift(lambda w, t, m, a: _cut(t, largest) if _hides(w, t, m, a, largest, rest) else w, 4)
            return hidden(within, blurred, most, magnitudes)
        return within

    def of_total(self, total: Balls, magnitudes: Balls, terms: int) -> Balls:
        """A sum of so many terms by what it is exactly, and the sum of their magnitudes."""
        slack = self.gamma(terms)
        return self.within(_blurred(total, magnitudes, slack)) if slack else total

    def _bounded(self) -> Each:
        """Sums: what is beyond the dtype's largest number is an infinity there, and what follows may be
        anything."""
        if self.dtype is None:
            return lambda x: x
        largest = arb(self.dtype.largest)
        return lift(lambda x: x if isinstance(x, Zero) or abs(x) < largest or is_infinity(x) else NOWHERE)

    def gamma(self, terms: int, *, apart: bool = False) -> float:
        """γ(n) for a sum of n terms, relative to the sum of their magnitudes; 0 in the exact arithmetic. One
        operation's sum is expected to be taken well, what several give is added `apart`."""
        additions = terms - 1
        if self.dtype is None or self.accumulator is None or additions <= 0:
            return 0.0
        most = self.accumulator.additions
        grown = min(additions, LAMBDA * sqrt(additions) if apart or most is None else most)
        held = grown * self.accumulator.unit_roundoff
        return held if self.accumulator is self.dtype else held + self.dtype.unit_roundoff

    def function(self, row: Function) -> Each:
        """What implementations of the function give, of arrays."""
        exact = row.ball or getattr(arb, row.name)
        if self.dtype is None or row.steps:
            return _of_balls(exact, row.operands)
        implemented = partial(row.implemented, dtype=self.dtype) if row.implemented else exact
        # In 16 bits a function is computed in float32 and rounded once.
        half = self.half and not row.stepwise
        row = FUNCTIONS[row.in_half] if half and row.in_half else row
        widen, magnitude = self.widened(1.25 if half else row.roundings), row.magnitude
        if magnitude is None:
            function = _of_balls(implemented, row.operands)
            return lambda *operands: widen(function(*operands))
        unit = arb(0, row.roundings * (2.0**-24 if half else self.dtype.unit_roundoff))

        def of_one(z: Ball) -> arb:
            x = ball(z)
            value: arb = implemented(x)
            return value + magnitude(x, value) * unit

        return lambda x: widen(lift(of_one)(x))


def _of_balls(function: Callable[..., arb], operands: int) -> Each:
    if operands == 1:
        return lift(lambda x: function(ball(x)))
    return lift(lambda x, y: function(ball(x), ball(y)), 2)


def _hides(within: Ball, total: Ball, most: arb, magnitude: Ball, largest: arb, rest: arb) -> bool:
    """Whether a sum is one number of the largest there are, and others below half its last place."""
    there = not ball(within).is_finite() and ball(total).is_finite()
    return bool(there and most <= largest and ball(magnitude) - most < rest)


def _cut(x: arb, largest: arb) -> arb:
    """What of a ball lies within the numbers."""
    return x.lower().max(-largest).union(x.upper().min(largest))


def _blurred(total: Balls, magnitudes: Balls, slack: float) -> Balls:
    """Sums, widened by `slack` of their terms' magnitudes; of a wide sum of terms of one sign, the ends."""
    around, relative = arb(0, slack), arb(1, slack)

    def blur(t: Ball, a: Ball) -> Ball:
        if isinstance(t, Zero) or is_infinity(t):
            return t
        if t.rel_accuracy_bits() < 8 and not t.contains(NOUGHT) and abs(t).lower() == ball(a).lower():
            return (t.lower() * relative).union(t.upper() * relative)
        return t + a * around

    return lift(blur, 2)(total, magnitudes)
