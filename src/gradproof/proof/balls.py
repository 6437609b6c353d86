"""Balls: real numbers with a proved error bound (python-flint's Arb), alone and in NumPy object arrays.

The working precision is Arb's own and is set by `with precision(bits):`.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from flint import arb, ctx
from numpy.typing import ArrayLike, NDArray

from .graph import Shape, wide

Balls = NDArray[np.object_]  # of arb and ZERO; a single one is an array without axes
T = TypeVar("T")
Each = Callable[..., Balls]  # a function of arrays, entry by entry


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Work with `bits` bits; what was set before comes back, whatever happens.

    Flint has one precision for all threads: one thread at a time works with its own.
    """
    with _ONE_THREAD:
        before = ctx.prec
        ctx.prec = bits
        try:
            yield
        finally:
            ctx.prec = before


_ONE_THREAD = threading.RLock()


class Zero:
    """The zero of a derivative that cannot be otherwise: the branch not taken, the entry not read.

    Unlike the number 0 it stays zero beside an infinity: where the function does not depend on a value at
    all, it does not matter that the value has no derivative.
    """

    def _self(self, *_: object) -> Zero:
        return self

    def _other(self, other: Ball) -> Ball:
        return other

    __mul__ = __rmul__ = __truediv__ = __neg__ = __abs__ = _self
    __add__ = __radd__ = __rsub__ = _other

    def __sub__(self, other: Ball) -> Ball:
        return -other

    def __rtruediv__(self, other: arb) -> arb:
        return other / NOUGHT

    def __pow__(self, other: arb) -> arb:
        return NOUGHT**other

    def __lt__(self, other: Ball) -> bool:
        return ball(other) > NOUGHT

    def __gt__(self, other: Ball) -> bool:
        return ball(other) < NOUGHT

    def __repr__(self) -> str:
        return "ZERO"


Ball = arb | Zero
Operand = Any  # of a formula: a ball, an array of them, or indices; NumPy's own types know no ball
ZERO = Zero()
NOUGHT, UNIT, NOWHERE = arb(0), arb(1), arb("nan")


def ball(x: Ball) -> arb:
    """The number as a ball; `ZERO` is 0."""
    return NOUGHT if isinstance(x, Zero) else x


def lift(function: Callable[..., object], arity: int = 1) -> Each:
    """A function of balls, entry by entry over object arrays; a scalar is an array without axes."""
    each = np.frompyfunc(function, arity, 1)

    def over(*arrays: ArrayLike) -> Balls:
        with np.errstate(all="ignore"):  # a NaN is an answer here; and Python may collect garbage meanwhile
            return np.asarray(each(*arrays), dtype=object)

    return over


# Arb's own methods as loops in C: a lambda for each entry costs ten times as much.
_ball_of, _is = lift(arb), lift(operator.is_, 2)
is_finite, is_zero = lift(arb.is_finite), lift(arb.is_zero)
_radius, magnitude = lift(arb.rad), lift(arb.abs_upper)
accuracy_bits = lift(arb.rel_accuracy_bits)


def balls(array: ArrayLike) -> Balls:
    """Floats as balls."""
    return _ball_of(np.asarray(wide(np.asarray(array)), dtype=float))


def is_strong(array: Balls) -> np.ndarray:
    """Where the entries are `ZERO`."""
    return np.asarray(_is(array, full((), ZERO)), dtype=bool)


def numbers(array: Balls) -> Balls:
    """The array with 0 for each `ZERO`."""
    return np.where(is_strong(array), full((), NOUGHT), array)


def plain(array: Balls) -> Balls:
    """The array itself where it has no `ZERO`."""
    array = np.asarray(array, dtype=object)
    return numbers(array) if is_strong(array).any() else array


def as_float(x: arb) -> float:
    """The nearest float; Arb itself would write out a number of a billion digits."""
    if abs(x) < _TINY:
        return 0.0
    if abs(x) > _HUGE:
        return float("inf") if x > 0 else float("-inf")
    return float(x)


def ends(whole: arb) -> tuple[float, float]:
    """The ends of a hull, to seven digits: a ball's radius is rounded up, in its ninth digit."""
    size = as_float(abs(whole).upper())
    low, high = (as_float(end) for end in (whole.lower(), whole.upper()))
    return _snapped(low, size), _snapped(high, size)


def _snapped(end: float, size: float) -> float:
    return 0.0 if abs(end) < 1e-7 * size else float(f"{end:.7g}")


_TINY, _HUGE = arb(2) ** -1100, arb(2) ** 1100


def floats(array: Balls) -> np.ndarray:
    """The balls' midpoints as floats, whatever their radii; beyond the range of floats 0 or an infinity."""
    return array.astype(float) + 0.0  # no minus zero


def _centre(x: arb) -> float:
    if not x.is_finite():
        return float("nan")
    return 0.0 if x.contains(NOUGHT) else as_float(x.mid())


def centres(array: Balls) -> np.ndarray:
    """The balls' midpoints as floats; 0 for a ball that holds 0, nan for one that is not finite."""
    array = plain(array)
    middle = np.asarray(floats(array))
    # A ball with a correct bit is finite where its midpoint is, and does not hold 0 unless it is 0.
    unsure = ~(np.isfinite(middle) & np.asarray(accuracy_bits(array) > 0, dtype=bool))
    if unsure.any():
        middle[unsure] = [_centre(x) for x in array[unsure]]
    return middle


def radii(array: Balls) -> np.ndarray:
    """The balls' radii as floats; infinite for one that is not finite."""
    array = plain(array)
    radius = _radius(array).astype(float)
    return np.where(np.asarray(is_finite(array), dtype=bool), radius, np.inf)


def finite(array: Balls) -> np.ndarray:
    """Whether each ball is there: also one beyond the range of floats."""
    return np.asarray(is_finite(plain(array)), dtype=bool)


def is_infinity(x: Ball) -> bool:
    """Whether the ball is one of the two infinities, and not a range that reaches there."""
    # An infinite midpoint with a finite radius, as -inf plus a ball has, is that infinity alone.
    return (
        not isinstance(x, Zero)
        and not x.is_finite()
        and not x.is_nan()
        and not x.mid().is_finite()
        and bool(x.rad().is_finite())
    )


def is_ball(x: object) -> bool:
    """Whether it is a ball or an array of them, and no plain index."""
    return isinstance(x, arb | Zero) or (isinstance(x, np.ndarray) and x.dtype == object)


def entry(array: Balls, at: tuple[int, ...] = ()) -> arb:
    """One entry as a ball; of an array without axes, the one."""
    return ball(array.item(at))


def full(shape: Shape, value: Ball | None) -> Balls:
    """An object array of one value."""
    out = np.empty(shape, dtype=object)
    out[...] = value
    return out


def same(a: arb, b: arb) -> bool:
    """Whether two numbers are equal as far as a working precision of thousands of bits tells: computed in two
    ways, not two."""
    return bool(a == b) or (bool(a.overlaps(b)) and bool((a - b).rad() < (abs(a) + abs(b)) * APART))


APART = arb(2) ** -1500


def hull(a: Ball, b: Ball) -> arb:
    """The smallest ball around both."""
    a, b = ball(a), ball(b)
    return a.union(b) if a.is_finite() and b.is_finite() else arb("nan")


def fold(function: Callable[[T, T], T], items: Sequence[T]) -> T:
    """From the left, two at a time."""
    result = items[0]
    for item in items[1:]:
        result = function(result, item)
    return result


def reduced(function: np.ufunc, values: Balls, axes: tuple[int, ...]) -> Balls:
    """A NumPy function of two, over some of the axes."""
    for axis in sorted(axes, reverse=True):
        values = function.reduce(values, axis=axis)
    return values
