"""Verdicts: what a number of the engine's is, beside the exact ball and the set of what rounding explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flint import arb

from ..causes import (
    AnyNumber,
    Cause,
    Kink,
    NoGradient,
    NoReference,
    NotFinite,
    NothingToCompare,
    Overflow,
    Underflow,
    WrongShape,
)
from ..dtypes import DType
from ..proof.arithmetic import exact as arithmetic_exact
from ..proof.arithmetic import rounding as rounding_of
from ..proof.balls import (
    UNIT,
    Balls,
    accuracy_bits,
    ball,
    centres,
    ends,
    floats,
    is_infinity,
    lift,
    numbers,
    radii,
)
from ..proof.enclosure import Pulled
from ..proof.graph import Shape
from ..verdict import Judgement, Numbers, Verdict, bare


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was compared: the engine's array, exact balls and rounding balls of one shape.

    `kinks` marks entries where the exact ball spans the one-sided derivatives.
    """

    value: np.ndarray
    exact: Balls
    rounding: Balls
    kinks: np.ndarray | None = None


def _distances(balls: Balls, values: np.ndarray) -> np.ndarray:
    """|value - midpoint| as floats rounded from the balls, finite ones."""
    return np.abs(floats(balls - values))


def _holds(rounding: Balls, values: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Whether each ball, of that radius, is finite and holds the value."""
    distance = _distances(rounding, values)
    with np.errstate(all="ignore"):
        # Both floats are right to 2 ulp or 2**-1074: only what is nearer to the edge than that is asked of
        # Arb.
        slack = (distance + radius) * 2.0**-48 + 2.0**-1000
        held, outside = distance + slack < radius, distance - slack > radius
    unsure = np.isfinite(values) & ~held & ~outside
    if unsure.any():
        asked = zip(rounding[unsure], values[unsure].tolist(), strict=True)
        held[unsure] = [x.is_finite() and x.contains(v) for x, v in asked]
    return held


def _narrow(exact: Balls, middle: np.ndarray, ulp: np.ndarray, dtype: DType) -> np.ndarray:
    """Whether each ball's radius is at most 1/64 ulp of the dtype; only where it is finite."""
    # Beyond the dtype's largest number, the ulp is that of the largest.
    narrow = np.asarray(accuracy_bits(exact) > dtype.precision + 8, dtype=bool) & (
        np.abs(middle) <= dtype.largest
    )
    unsure = ~narrow
    narrow[unsure] = radii(exact[unsure]) <= ulp[unsure] / 64
    return narrow


def ulp_of(x: np.ndarray, dtype: DType) -> np.ndarray:
    """The unit in the last place of the dtype at each |x|; below the normal numbers, the smallest number."""
    x = np.asarray(x, dtype=np.float64)
    # The bits of the exponent alone are the power of two at or below a number.
    bits = np.atleast_1d(x).view(np.int64) & EXPONENT
    power = bits.view(np.float64).reshape(x.shape)
    ulp: np.ndarray = np.clip(power, 2.0**dtype.emin, 2.0**dtype.emax) * 2.0 ** (1 - dtype.precision)
    if np.isfinite(x).all():
        return ulp
    return np.where(np.isnan(x), np.nan, np.where(np.isinf(x), 2.0 ** (1 - dtype.precision), ulp))


EXPONENT = np.int64(0x7FF0000000000000)


def rounded(values: np.ndarray, dtype: DType) -> np.ndarray:
    """The nearest numbers of a dtype; infinite beyond its largest."""
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(values)
        step = np.ldexp(1.0, np.maximum(exponent - 1, dtype.emin) - dtype.precision + 1)
        near = np.where(np.isfinite(values), np.rint(values / step) * step, values)
        return np.where(np.abs(near) > dtype.largest, np.copysign(np.inf, values), near)


def judge(compared: Comparison, dtype: DType) -> Judgement:
    """The verdict on an array, entry by entry; the worst entry is the one told.

    Raises nothing: arrays of no entries are undecided, because nothing was compared.
    """
    shape = np.shape(compared.value)
    if shape != compared.exact.shape:
        return missing(compared.exact.shape, compared.exact, WrongShape(shape, compared.exact.shape))
    if not compared.exact.size:
        return bare(Verdict.UNDECIDED, NothingToCompare())
    return _Beside(compared, dtype).judged(shape)


def unrounded(value: np.ndarray) -> Judgement:
    """Of numbers that are what they should be, and that nothing has rounded."""
    flat = value.reshape(-1)
    at = last_largest(np.isinf(flat))  # a mask's infinity is told before a number
    told = float(flat[at])
    nothing = 0.0 if np.isfinite(told) else None  # of what there is no distance to
    relative = nothing if told else None
    return Judgement(
        verdict=Verdict.EXACT,
        exact=None if nothing is None else _plain(told),
        value=told,
        ulp=nothing,
        allowed_ulp=nothing,
        index=tuple(int(n) for n in np.unravel_index(at, value.shape)),
        error=relative,
        sensitivity=relative,
        entries=value.size,
    )


def last_largest(numbers: np.ndarray) -> int:
    """The place of the largest; of equal ones the last."""
    return int(len(numbers) - 1 - np.argmax(numbers[::-1]))


class _Beside:
    """The entries of a comparison, flat: the engine's numbers beside the midpoints and radii of the balls."""

    def __init__(self, compared: Comparison, dtype: DType) -> None:
        self.dtype = dtype
        self.value = np.asarray(compared.value, dtype=np.float64).reshape(-1)
        self.exact = numbers(compared.exact.reshape(-1))
        self.rounding = numbers(compared.rounding.reshape(-1))
        size = self.value.size
        self.kinks = np.zeros(size, bool) if compared.kinks is None else compared.kinks.reshape(-1)
        self.middle, self.reach = centres(self.exact), radii(self.rounding)
        self.ulp = ulp_of(self.middle, dtype)
        self.exists, self.number = ~np.isnan(self.middle), np.isfinite(self.value)
        there = self.exists & self.number
        self.distance = np.where(there, _distances(self.exact, self.value), np.nan)

    def severities(self) -> np.ndarray:
        """Each entry's verdict, by its severity; what stands later outweighs what stands before."""
        there, bounded = self.exists & self.number, np.isfinite(self.reach)
        inside = _holds(self.rounding, self.value, self.reach)
        told = np.full(self.value.size, Verdict.WRONG.severity)
        told[inside & bounded] = Verdict.ROUNDING.severity
        told[~inside & ~bounded & self.number] = Verdict.UNDECIDED.severity
        at = self.kinks
        if at.any():
            near = _near_hull(self.exact[at], self.value[at], self.dtype) | (inside & bounded)[at]
            told[at] = np.where(there[at] & near, Verdict.KINK.severity, Verdict.WRONG.severity)
        known = _narrow(self.exact, self.middle, self.ulp, self.dtype)
        told[there & known & ~at & (self.distance <= self.ulp * 0.5)] = Verdict.EXACT.severity
        told[~self.exists] = Verdict.UNDECIDED.severity
        self._infinities(told)
        return told

    def _infinities(self, told: np.ndarray) -> None:
        """A mask's -inf is a number like any other; another one may be what the exact number overflows to."""
        infinite = np.isinf(self.value)
        if not infinite.any():
            return
        pairs = zip(self.exact[infinite], self.value[infinite], strict=True)
        same = infinite.copy()
        same[infinite] = [is_infinity(x) and (x > 0) == (v > 0) for x, v in pairs]
        told[same] = Verdict.EXACT.severity
        for n in np.flatnonzero(infinite & ~same & self.exists & ~self.kinks):
            over = _overflow(self.exact[n], self.rounding[n], float(self.value[n]), self.dtype)
            told[n] = over.severity

    def judged(self, shape: Shape) -> Judgement:
        """The worst verdict, told by the entry that is furthest off among those that have it."""
        told = self.severities()
        with np.errstate(all="ignore"):
            off = np.where(np.isnan(self.distance), np.inf, self.distance / self.ulp)
            allowed = (np.abs(centres(self.rounding) - self.middle) + self.reach) / self.ulp
            relative = np.where(self.middle != 0, (allowed * self.ulp) / np.abs(self.middle), np.nan)
        worst_told = np.flatnonzero(told == told.max())[::-1]
        at = int(worst_told[np.argmax(off[worst_told])])
        verdict, kink = list(Verdict)[int(told[at])], bool(self.kinks[at])
        middle, value, bounded = self.middle[at], self.value[at], bool(np.isfinite(self.reach[at]))
        judged = self.exists & ~self.kinks & np.isfinite(relative)
        sensible = judged & (relative < 1)
        measured = self.exists[at] and middle and self.number[at]
        return Judgement(
            verdict=verdict,
            exact=_plain(middle) if self.exists[at] and not kink else None,
            value=float(value),
            ulp=float(off[at]) if np.isfinite(off[at]) and not kink else None,
            allowed_ulp=float(allowed[at]) if np.isfinite(allowed[at]) and not kink else None,
            index=tuple(int(n) for n in np.unravel_index(at, shape)),
            causes=_causes(verdict, value, middle, bounded, self.exact[at], kink, self.dtype),
            error=float(self.distance[at] / abs(middle)) if measured else None,
            sensitivity=float(relative[sensible].max()) if sensible.any() else None,
            entries=int(self.value.size),
            refuted=int((told == Verdict.WRONG.severity).sum()),
            cancelled=int((judged & ~sensible).sum()),
        )


def _overflow(exact_ball: Any, rounded: Any, value: float, dtype: DType) -> Verdict:
    """What an infinity is worth where the exact number is finite.

    From half an ulp beyond the largest number on, infinity is what the exact number rounds to; nearer, a
    rounding may have led there; up to the largest, the exact number is representable.
    """
    sign = 1 if value > 0 else -1
    exact_ball, rounded = sign * ball(exact_ball), sign * ball(rounded)
    edge = arb(dtype.largest) + arb(float(ulp_of(np.asarray(dtype.largest), dtype))) / 2
    if exact_ball >= edge:
        return Verdict.EXACT
    if exact_ball > dtype.largest:
        return Verdict.WRONG if rounded < edge else Verdict.ROUNDING
    return Verdict.WRONG if exact_ball <= dtype.largest else Verdict.UNDECIDED


def _plain(x: float) -> float:
    """No minus zero in a report."""
    return float(x) + 0.0


def _near_hull(exact: Balls, values: np.ndarray, dtype: DType) -> np.ndarray:
    """Whether each value lies between the one-sided derivatives, rounding of the ends allowed."""
    slack = 16 * dtype.unit_roundoff

    def near(x: Any, v: float) -> bool:
        x = ball(x)
        if not x.is_finite() or v != v or abs(v) == float("inf"):
            return False
        return bool(abs(x.mid() - v) <= x.rad() * (1 + slack) + abs(x.mid()) * slack + dtype.smallest)

    return lift(near, 2)(exact, values).astype(bool)


def _causes(
    verdict: Verdict, value: float, exact: float, bounded: bool, exact_ball: Any, kink: bool, dtype: DType
) -> tuple[Cause, ...]:
    """What people ask first: where a number is not finite, too large, too small, or has no derivative."""
    if np.isnan(exact):
        # log(inf), at an operand that overflowed, is right all the same
        return () if verdict is Verdict.EXACT else (NoReference(),)
    if kink:
        low, high = ends(exact_ball)
        return (Kink(low, high, between=verdict is Verdict.KINK),)
    if not np.isfinite(value):
        if abs(ball(exact_ball)) > dtype.largest:
            return (Overflow(ball(exact_ball).str(3, radius=False), dtype.name, dtype.largest),)
        return (NotFinite(float(value), dtype.name, formula=not bounded),)
    if verdict is Verdict.UNDECIDED:
        return (AnyNumber(dtype.name),)
    if value == 0 and exact != 0 and abs(exact) < dtype.smallest:
        return (Underflow(float(exact), dtype.name, dtype.smallest),)
    return ()


def judge_sum(
    value: np.ndarray, terms: Sequence[Balls], dtype: DType, loose: Sequence[Balls] | None = None
) -> Judgement:
    """An array beside the sum of its terms, added in whatever order; `loose` are the terms with the rounding
    that they have already. A single one is no sum: nothing is rounded."""
    return judge(compared_sum(value, terms, dtype, loose), dtype)


def compared_sum(
    value: np.ndarray, terms: Sequence[Balls], dtype: DType, loose: Sequence[Balls] | None = None
) -> Comparison:
    """What `judge_sum` compares."""
    held = terms if loose is None else loose
    if len(terms) == 1:
        return Comparison(value, numbers(terms[0]), numbers(held[0]))
    sharp, wide = arithmetic_exact().add_all(terms), rounding_of(dtype).add_all(held)
    return Comparison(value, numbers(sharp), numbers(wide))


def missing(shape: Shape, exact: Balls | None, cause: Cause) -> Judgement:
    """No number where there should be one: wrong."""
    middle = float("nan") if exact is None else float(np.nanmax(np.abs(centres(exact)), initial=0.0))
    at = (0,) * len(shape)
    return Judgement(
        Verdict.WRONG, None if np.isnan(middle) else middle, None, None, None, at, (cause,), refuted=1
    )


def absent(exact: Balls, *, passed: bool = False) -> Judgement:
    """None for a gradient: right where the derivative is identically zero; `passed` where a node passed it
    on."""
    if not np.isfinite(radii(exact)).all():
        return bare(Verdict.UNDECIDED, NoGradient("none", passed))
    judged = missing(exact.shape, numbers(exact), NoGradient("not zero", passed))
    if judged.exact == 0:
        return replace(judged, verdict=Verdict.EXACT, causes=(NoGradient("zero", passed),), refuted=0)
    return judged


def numbers_of(
    expected: Pulled,
    value: np.ndarray | None,
    dtype: DType,
    shape: Shape | None = None,
    *,
    probed: bool = False,
) -> Numbers:
    """The entries of a derivative, in their shape or another one of as many entries."""
    exact_ = centres(expected.exact)
    exact_ = np.where(expected.kinks, np.nan, exact_)
    fits = value is not None and value.shape == exact_.shape
    shape = exact_.shape if shape is None else shape
    if not fits or value is None:
        return Numbers(exact_.reshape(shape), None, None, probed)
    with np.errstate(all="ignore"):
        apart = np.where(
            expected.kinks, np.nan, np.abs(floats(np.asarray(expected.exact - value, object)))
        ) / ulp_of(exact_, dtype)
    return Numbers(exact_.reshape(shape), value.reshape(shape), apart.reshape(shape), probed)


def within_one_rounding(value: np.ndarray, exact: Balls, dtype: DType) -> bool:
    """Whether an array is what exact numbers may be rounded to once."""
    once = np.asarray(rounding_of(dtype).multiply(exact, UNIT), object)
    return judge(Comparison(value, exact, once), dtype).verdict.passes
