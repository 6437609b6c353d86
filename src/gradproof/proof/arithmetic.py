"""Arithmetics: what the operations of a formula mean on arrays of balls.

A formula is lambdified once for each arithmetic: SymPy prints it as calls of `add`, `mul`, `power`, ..., and
the arithmetic is the table that those names come from. There are two:

* the exact one, in which a ball encloses the true real number (python-flint's Arb), and
* the rounding one of a dtype, in which every operation may round as the dtype does, `b ± (c*u*|b| + smallest subnormal)`;
  a sum of n terms gets `γ(n)*Σ|terms|` with the probabilistic `γ(n) = min(n, λ√n)*u` of Higham and Mary (A New Approach to
  Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41(5), 2019).

Balls live in NumPy object arrays. The working precision is Arb's own and is set by `with precision(bits):`.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from math import prod, sqrt
from typing import Any

import numpy as np
import sympy
from flint import arb, arb_mat, ctx, fmpq
from sympy.printing.str import StrPrinter

from ..dtypes import DTYPES, DType
from .graph import STILL, Shape

Balls = Any  # an object array of arb and ZERO, or a single one of them

FEW = 64  # products: fewer are not worth a matrix
LAMBDA = 6.0  # γ(n) fails with probability at most 2*exp(-λ²/2) = 3e-8 (Higham and Mary, theorem 2.4)


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


class _Zero:
    """The zero of a derivative that cannot be otherwise: the branch not taken, the entry not read.

    Unlike the number 0 it stays zero beside an infinity: where the function does not depend on a value at
    all, it does not matter that the value has no derivative.
    """

    def _self(self, *_: Any) -> _Zero:
        return self

    def _other(self, other: Any) -> Any:
        return other

    __mul__ = __rmul__ = __truediv__ = __neg__ = __abs__ = _self
    __add__ = __radd__ = __rsub__ = _other

    def __sub__(self, other: Any) -> Any:
        return -other

    def __rtruediv__(self, other: Any) -> Any:
        return other / arb(0)

    def __pow__(self, other: Any) -> Any:
        return arb(0) ** other

    def __lt__(self, other: Any) -> bool:
        return arb(0) < other

    def __gt__(self, other: Any) -> bool:
        return arb(0) > other

    def __repr__(self) -> str:
        return "ZERO"


ZERO = _Zero()
NOUGHT, UNIT, NOWHERE = arb(0), arb(1), arb("nan")


def ball(x: Any) -> arb:
    """The number as a ball; `ZERO` is 0."""
    return arb(0) if x is ZERO else x


def lift(function: Callable[..., Any], arity: int = 1) -> Callable[..., Any]:
    """A function of balls, entry by entry over object arrays; a scalar is an array without axes."""
    each = np.frompyfunc(function, arity, 1)

    def over(*arrays: Any) -> Any:
        with np.errstate(all="ignore"):  # a NaN is an answer here, not an accident
            return np.asarray(each(*arrays), dtype=object)

    return over


# Arb's own methods as loops in C: a lambda for each entry costs ten times as much.
_ball_of, _is, _is_finite = (
    np.frompyfunc(arb, 1, 1),
    np.frompyfunc(operator.is_, 2, 1),
    np.frompyfunc(arb.is_finite, 1, 1),
)
_is_zero, _radius = np.frompyfunc(arb.is_zero, 1, 1), np.frompyfunc(arb.rad, 1, 1)
_magnitude = np.frompyfunc(arb.abs_upper, 1, 1)
accuracy_bits = np.frompyfunc(arb.rel_accuracy_bits, 1, 1)


def balls(array: Any) -> Balls:
    """Floats as balls."""
    return np.asarray(_ball_of(np.asarray(array, dtype=float)), dtype=object)


def is_strong(array: Balls) -> np.ndarray:
    """Where the entries are `ZERO`."""
    return np.asarray(_is(array, full((), ZERO)), dtype=bool)


def numbers(array: Balls) -> Balls:
    """The array with 0 for each `ZERO`."""
    return np.where(is_strong(array), full((), NOUGHT), array)


def _numbers(array: Balls) -> Balls:
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


def ends(whole: Any) -> tuple[float, float]:
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
    array = _numbers(array)
    middle = np.asarray(floats(array))
    # A ball with a correct bit is finite where its midpoint is, and does not hold 0 unless it is 0.
    unsure = ~(np.isfinite(middle) & np.asarray(accuracy_bits(array) > 0, dtype=bool))
    if unsure.any():
        middle[unsure] = [_centre(x) for x in array[unsure]]
    return middle


def radii(array: Balls) -> np.ndarray:
    """The balls' radii as floats; infinite for one that is not finite."""
    array = _numbers(array)
    radius = np.asarray(_radius(array), dtype=object).astype(float)
    return np.where(np.asarray(_is_finite(array), dtype=bool), radius, np.inf)


def finite(array: Balls) -> np.ndarray:
    """Whether each ball is there: also one beyond the range of floats."""
    return np.asarray(_is_finite(_numbers(array)), dtype=bool)


def is_infinity(x: Any) -> bool:
    """Whether the ball is one of the two infinities, and not a range that reaches there."""
    # An infinite midpoint with a finite radius, as -inf plus a ball has, is that infinity alone.
    return (
        x is not ZERO
        and not x.is_finite()
        and not x.is_nan()
        and not x.mid().is_finite()
        and bool(x.rad().is_finite())
    )


def full(shape: Shape, value: Any) -> Balls:
    """An object array of one value."""
    out = np.empty(shape, dtype=object)
    out[...] = value
    return out


# Three-valued logic: 1 proved, 0 disproved, 0.5 neither. A comparison of balls is true only when proved.
_YES, _MAYBE, _NO = 1.0, 0.5, 0.0


def _decide(a: Any, b: Any, strict: bool, at_tie: float | None) -> float:
    a, b = ball(a), ball(b)
    if a < b:
        return _YES
    if a > b:
        return _NO
    if at_tie is not None:
        return at_tie
    if strict:
        return _NO if a >= b else _MAYBE
    return _YES if a <= b else _MAYBE


def _equal(a: Any, b: Any, at_tie: float | None) -> float:
    a, b = ball(a), ball(b)
    if not a.overlaps(b):
        return _NO
    if at_tie is not None:
        return at_tie
    return _YES if a == b else _MAYBE


def same(a: Any, b: Any) -> bool:
    """Whether two numbers are equal as far as a working precision of thousands of bits tells: computed in two
    ways, not two."""
    return bool(a == b) or (bool(a.overlaps(b)) and bool((a - b).rad() < (abs(a) + abs(b)) * _APART))


_APART = arb(2) ** -1500


def _met(relation: str, a: Any, b: Any) -> float:
    """A relation beside the point, where nothing is tied that anything moves: what still is so is equal."""
    a, b = arb(ball(a)), arb(ball(b))
    if not (a.is_exact() and b.is_exact()) and same(a, b):
        return _NO if relation == "<" else _YES
    return _equal(a, b, None) if relation == "==" else _decide(a, b, relation == "<", None)


def _compare(relation: str, at_tie: float | None, a: Any, b: Any, beside: bool = False) -> Any:
    """Relations of balls, or of plain indices, which are always decided."""
    if not _is_object(a) and not _is_object(b):
        plain = {"<": np.less, "<=": np.less_equal, "==": np.equal}[relation]
        return plain(a, b).astype(float)
    if beside:
        return lift(partial(_met, relation), 2)(a, b)
    if relation == "==":
        return lift(partial(_equal, at_tie=at_tie), 2)(a, b)
    return lift(partial(_decide, strict=relation == "<", at_tie=at_tie), 2)(a, b)


def _is_object(a: Any) -> bool:
    return isinstance(a, arb | _Zero) or (isinstance(a, np.ndarray) and a.dtype == object)


def hull(a: Any, b: Any) -> arb:
    """The smallest ball around both."""
    a, b = ball(a), ball(b)
    return a.union(b) if a.is_finite() and b.is_finite() else arb("nan")


def _choose(condition: float, a: Any, b: Any) -> Any:
    if condition == _YES:
        return a
    return b if condition == _NO else hull(a, b)


def _piecewise(*pieces: tuple[Any, Any]) -> Any:
    (result, _), *rest = reversed(pieces)
    for value, condition in rest:
        result = lift(_choose, 3)(condition, value, result)
    return result


def _step(x: arb) -> Any:
    """The slope of max(x, 0): 0 or 1, and at a kink everything between."""
    if x > 0:
        return arb(1)
    return ZERO if x < 0 else arb(0.5, 0.5)


def _unmoved_step(x: arb) -> Any:
    """The slope of max(x, 0) where x is 0 all around, as far as can be told: two operands that stay equal
    share one."""
    return arb(0.5) if x.contains(NOUGHT) and x.rad() < _APART else _step(x)


def _sign(x: arb) -> arb:
    if x > 0:
        return arb(1)
    if x < 0:
        return arb(-1)
    return arb(0) if x.is_zero() else arb(0, 1)


def _slope_of_abs(x: arb) -> arb:
    return arb(1) if x > 0 else arb(-1) if x < 0 else arb(0, 1)


def _dirac(x: arb) -> Any:
    """The slope of a jump: none where the jump is."""
    return arb("nan") if x.contains(arb(0)) else ZERO


def _lgamma(x: arb) -> arb:
    return x.lgamma() if x > 0 else abs(x.gamma()).log()


def _sqrt(x: arb) -> arb:
    """The square root; of a ball around 0 that of its nonnegative part, where the root has values at all."""
    if not (x.is_finite() and x.contains(NOUGHT) and x.upper() > 0):
        return x.sqrt()
    return NOUGHT.union(x.upper().sqrt())


def _power(x: Any, n: int) -> arb:
    """x**n by squaring; Arb's own power of a ball around 0 is not finite."""
    result, square = UNIT, ball(x)
    if n % 2 == 0 and square.contains(NOUGHT):
        square = abs(square)  # an even power is not negative
    while n:
        if n & 1:
            result = result * square
        n >>= 1
        if n:
            square = square * square
    return result


def _power_log(x: Any, y: Any) -> arb:
    """x**y * log(x), the slope of x**y by y; at x = 0 its limit, which is 0 where y is positive."""
    x, y = ball(x), ball(y)
    return NOUGHT if x.is_zero() and y > 0 else x**y * x.log()


def _atan2(y: arb, x: arb) -> arb:
    """Across the branch cut an implementation's zero has a sign, which a ball's has not."""
    return arb.atan2(y, x) if x > 0 or not y.contains(NOUGHT) else arb(0, 1) * arb.pi()


def _sigmoid(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


def _softplus(x: arb) -> arb:
    """log(1 + exp(x)), written so that no huge number appears."""
    return (-x).exp().log1p() + x if x > 0 else x.exp().log1p()


def _besseli(order: Any, x: Any) -> arb:
    return ball(x).bessel_i(ball(order))


def _polygamma(order: Any, x: Any) -> arb:
    """ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n + 1, x) for n > 0; Arb's ζ is for x > 0, below there are the terms (x + k)⁻ⁿ⁻¹
    more."""
    s, x = int(float(ball(order).mid())) + 1, ball(x)
    terms = NOUGHT
    while not x > 0 and x > -1000:
        terms, x = terms + 1 / _power(x, s), x + 1
    return (1 if s % 2 == 0 else -1) * arb(s).gamma() * (terms + arb(s).zeta(x))


def _erfcx(x: arb) -> arb:
    return (x * x).exp() * x.erfc()


def _ndtri(p: arb) -> arb:
    return -arb(2).sqrt() * (2 * p).erfcinv()


def _trunc(x: arb) -> arb:
    return x.floor() if x > 0 else x.ceil() if x < 0 else x.floor().union(x.ceil())


def _nearest(x: arb) -> arb:
    """Half to even: below and above a tie it is one of the two ways of rounding that only there differ."""
    up, down = (x + 0.5).floor(), (x - 0.5).ceil()
    if not (up.is_exact() and down.is_exact()) or up == down:
        return up.union(down)
    return up if (up / 2).is_integer() else down


# Functions whose values are exact.
_STEPS: dict[str, Callable[[arb], arb]] = {
    "floor": arb.floor,
    "ceil": arb.ceil,
    "trunc": _trunc,
    "nearest": _nearest,
}

# name: (function, roundings of a good implementation, in units of u): 4, that is 2 ulp, is what vector math
# libraries state at most. A square root is correctly rounded by IEEE 754, but torch's vector code is not (0.7
# ulp seen).
_FUNCTIONS: dict[str, tuple[Callable[..., arb], int]] = {
    "sqrt": (_sqrt, 2),
    "exp": (arb.exp, 4),
    "log": (arb.log, 4),
    "log1p": (arb.log1p, 4),
    "expm1": (arb.expm1, 4),
    "sin": (arb.sin, 4),
    "cos": (arb.cos, 4),
    "tan": (arb.tan, 4),
    "asin": (arb.asin, 4),
    "acos": (arb.acos, 4),
    "atan": (arb.atan, 4),
    "sinh": (arb.sinh, 4),
    "cosh": (arb.cosh, 4),
    "tanh": (arb.tanh, 4),
    "asinh": (arb.asinh, 4),
    "acosh": (arb.acosh, 4),
    "atanh": (arb.atanh, 4),
    "erf": (arb.erf, 4),
    "erfc": (arb.erfc, 4),
    "gelu_erf": (arb.erf, 10),
    "sigmoid": (_sigmoid, 8),
    "softplus": (_softplus, 8),
    "loggamma": (_lgamma, 8),
    "gamma": (arb.gamma, 8),
    "digamma": (arb.digamma, 8),
    "erfinv": (arb.erfinv, 8),
    "erfcx": (_erfcx, 8),
    "ndtr": (lambda x: (-x / arb(2).sqrt()).erfc() / 2, 4),
    "log_ndtr": (lambda x: ((-x / arb(2).sqrt()).erfc() / 2).log(), 4),
    "ndtri": (_ndtri, 8),
    # Cephes, which engines use: peak relative errors of 5.8e-16 (I0) and 2.0e-15 (I1), in float32 of 4.0e-7
    # and 1.5e-6.
    "i0e": (lambda x: (-abs(x)).exp() * x.bessel_i(0), 8),
    "i1e": (lambda x: (-abs(x)).exp() * x.bessel_i(1), 26),
}

# Functions whose error does not shrink with their value (near a zero, or as exp of a logarithm): the
# magnitude that the roundings are relative to, in place of |f(x)|.
_MAGNITUDE: dict[str, Callable[[arb, arb], arb]] = {
    "gamma": lambda x, value: abs(value) * (2 + abs(_lgamma(x))),
    # Lanczos' formula adds terms of magnitude 8 about the zeros at 1 and 2.
    "loggamma": lambda x, value: abs(value) + 4,
    "gelu_erf": lambda x, value: abs(value) + 1,
    # exp(x - log(2)): the difference is rounded before it goes into the exponential.
    "sinh": lambda x, value: abs(value * x) / 4,
    "cosh": lambda x, value: abs(value * x) / 4,
    # x*x is rounded before it goes into an exponential.
    "erfc": lambda x, value: abs(value) * (1 + x * x if x > 0 else 1),
    "erfcx": lambda x, value: abs(value) * (1 if x > 0 else 1 + x * x),
    "ndtr": lambda x, value: abs(value) * (1 if x > 0 else 1 + x * x / 2),
    "log_ndtr": lambda x, value: abs(value) * (1 + x * x / 2 if x > 0 else 1),
    "digamma": lambda x, value: (
        abs(value) + 1 + (abs(1 / x) if x > 0 else (x * arb.pi()).cot() ** 2 * abs(x))
    ),
}


class Arithmetic:
    """Tables of operations on balls, for values and for slopes; with a dtype, every operation may round.

    The slope tables differ where a formula has branches. In `slopes`, at a boundary itself both branches
    count, so that a derivative there is the ball of all that they give. In `beside`, for a point that was
    moved off its boundaries, what still stands exactly at one was not moved and is decided as the value is. A
    condition on what is given is decided in every table: nothing that is differentiated moves it.
    """

    def __init__(self, dtype: DType | None = None, accumulator: DType | None = None) -> None:
        self.dtype = dtype
        self.accumulator = accumulator or dtype  # what sums are held in, before they round once to `dtype`
        self._half = dtype is not None and dtype.precision < 24 and not dtype.stepwise
        self._one_rounding = self._rounded(1)
        self._within = self._bounded()
        self.tables = {mode: self._table(mode) for mode in ("values", "slopes", "beside")}
        self.values = self.tables["values"]

    def settle(self, array: Balls) -> Balls:
        """What a node's value, or a cotangent, is from here on: as it was computed."""
        return array

    # Rounding

    def _rounded(self, roundings: float = 1) -> Callable[[Any], Any]:
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

        def widen(x: Any) -> Any:
            if x is ZERO or x.is_zero() or is_infinity(x):  # a mask's -inf is no overflow
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

    def _bounded(self) -> Callable[[Any], Any]:
        """Sums: what is beyond the dtype's largest number is an infinity there, and what follows may be
        anything."""
        if self.dtype is None:
            return lambda x: x
        largest = arb(self.dtype.largest)
        return lift(lambda x: x if x is ZERO or abs(x) < largest or is_infinity(x) else NOWHERE)

    def gamma(self, terms: int) -> float:
        """γ(n) for a sum of n terms, relative to the sum of their magnitudes; 0 in the exact arithmetic."""
        additions = terms - 1
        if self.dtype is None or self.accumulator is None or additions <= 0:
            return 0.0
        held = min(additions, LAMBDA * sqrt(additions)) * self.accumulator.unit_roundoff
        return held if self.accumulator is self.dtype else held + self.dtype.unit_roundoff

    # Reductions

    def sum(self, terms: Balls, axes: tuple[int, ...]) -> Balls:
        """The sum over the axes, in any order of addition."""
        total = _reduce(np.add, terms, axes)
        count = int(np.prod([terms.shape[axis] for axis in axes], dtype=int))
        slack = self.gamma(count)
        if not slack:
            return total
        magnitudes = _reduce(np.add, np.abs(terms), axes)
        blurred = _blurred(total, magnitudes, slack)
        within = self._within(blurred)
        if self.dtype is not None and not finite(within).all():
            # Beside the largest number, a mask's, all the rest may be too small to be seen.
            largest, rest = arb(self.dtype.largest), arb(self.dtype.largest) * self.dtype.unit_roundoff / 4
            most = _reduce(np.frompyfunc(arb.max, 2, 1), lift(ball)(np.abs(terms)), axes)
            hidden = lift(lambda w, t, m, a: _cut(t, largest) if _hides(w, t, m, a, largest, rest) else w, 4)
            return hidden(within, blurred, most, magnitudes)
        return within

    def contract(self, a: Balls, b: Balls, axes: tuple[int, ...], domain: Shape) -> Balls:
        """Σ a*b over the axes of the domain, by products of matrices: `sum` of `multiply`, in any order of
        addition.

        `a` and `b` have extent 1 along the axes they do not depend on, and nothing as large as the domain is
        built. The result keeps the other axes, with the extents of `a` and `b` together.
        """
        if prod(domain) < FEW:
            open_ = np.broadcast_shapes(a.shape, b.shape)
            extents = tuple(domain[n] if n in axes else extent for n, extent in enumerate(open_))
            return np.asarray(self.sum(np.broadcast_to(self.multiply(a, b), extents), axes), dtype=object)
        plan = _Contraction(a.shape, b.shape, axes, domain)
        strong, sides = [is_strong(side) for side in (a, b)], [_numbers(side) for side in (a, b)]
        known = [np.asarray(_is_finite(side), dtype=bool) for side in sides]
        sides = [np.where(there, side, full((), NOUGHT)) for there, side in zip(known, sides, strict=True)]
        total = plan.balls(*sides)
        lost = np.zeros(total.shape, bool)
        if self.dtype is not None:
            total, lost = self._contracted(plan, total, *sides)
        if strong[0].any() or strong[1].any():
            total[plan.numbers(~strong[0], ~strong[1]) == 0] = ZERO
        if not (known[0].all() and known[1].all()):
            everywhere = np.ones(a.shape, bool), np.ones(b.shape, bool)
            lost |= plan.numbers(~known[0], everywhere[1]) + plan.numbers(everywhere[0], ~known[1]) > 0
        total, lost = plan.unfolded(total), plan.unfolded(lost)
        # What is beyond the numbers, or may be, is left to the operations themselves, one entry after the
        # other.
        everything, summed = tuple(range(len(axes))), tuple(domain[n] for n in axes)
        for at in np.argwhere(lost):
            terms = self.multiply(_section(a, at, axes), _section(b, at, axes))
            total[tuple(at)] = np.asarray(self.sum(np.broadcast_to(terms, summed), everything), dtype=object)[
                ()
            ]
        return total

    def _contracted(self, plan: _Contraction, total: Balls, a: Balls, b: Balls) -> tuple[Balls, np.ndarray]:
        """The totals, widened by one rounding of each product and those of the sum; and where they may
        overflow."""
        assert self.dtype is not None
        gamma = self.gamma(plan.count)
        slack, absolute = self.dtype.unit_roundoff * (1 + gamma) + gamma, self.dtype.underflow * (1 + gamma)
        there = [~np.asarray(_is_zero(side), dtype=bool) for side in (a, b)]
        terms = plan.numbers(*there)
        several, which = np.unique(terms, return_inverse=True)
        underflow = np.array([arb(0, absolute * count) for count in several], dtype=object)[
            which.reshape(terms.shape)
        ]
        magnitudes = plan.balls(_magnitude(a), _magnitude(b))
        wide = (accuracy_bits(total) < 8) & (total != 0)
        widened = total + magnitudes * arb(0, slack) + underflow
        if wide.any():
            # Of a wide sum of terms of one sign the ends are rounded: around its midpoint it would grow to
            # hold 0.
            signs = plan.numbers(*((side > 0).astype(float) - (side < 0).astype(float) for side in (a, b)))
            wide &= np.abs(signs) == terms
            widened[wide] = [
                (t.lower() * relative).union(t.upper() * relative) + u
                for relative in [arb(1, slack)]
                for t, u in zip(total[wide], underflow[wide], strict=True)
            ]
        bound = magnitudes * arb(1, slack) + underflow
        return widened, ~np.asarray(bound < arb(self.dtype.largest), dtype=bool)

    def product(self, factors: Balls, axes: tuple[int, ...]) -> Balls:
        result = _reduce(np.multiply, factors, axes)
        count = int(np.prod([factors.shape[axis] for axis in axes], dtype=int))
        return self._rounded(count - 1)(result) if count > 1 else result

    def extreme(self, values: Balls, axes: tuple[int, ...], largest: bool) -> Balls:
        return _reduce(np.frompyfunc(arb.max if largest else arb.min, 2, 1), values, axes)

    def add_all(self, terms: Sequence[Balls]) -> Balls:
        """The sum of several arrays of one shape, an array also where that has no axes."""
        total = terms[0] if len(terms) == 1 else self.sum(np.stack(np.broadcast_arrays(*terms)), (0,))
        return np.asarray(total, dtype=object)

    def multiply(self, a: Balls, b: Balls) -> Balls:
        return self._one_rounding(np.multiply(a, b))

    # Tables

    def _table(self, mode: str) -> dict[str, Any]:
        slopes = mode != "values"
        once = self._one_rounding
        four = self._rounded(1.25 if self._half else 4)
        cubed = self._rounded(2)  # x*x*x, in any format
        # Compilers and kernels divide by multiplying with the reciprocal: two roundings. In 16 bits they are
        # in float32.
        quotient = self._rounded(1.25 if self._half else 2)
        at_tie = _MAYBE if mode == "slopes" else None

        def add(*terms: Any) -> Any:
            return (
                once(np.add(*terms))
                if len(terms) == 2
                else once(self.add_all([np.asarray(t, object) for t in terms]))
            )

        def mul(*factors: Any) -> Any:
            result = factors[0]
            for factor in factors[1:]:
                result = once(np.multiply(result, factor))
            return result

        def power(base: Any, exponent: int) -> Any:
            return (once if exponent == 2 else cubed if exponent == 3 else four)(
                lift(lambda x: _power(x, exponent))(base)
            )

        def number(p: int, q: int) -> Any:
            if p == 0:
                return ZERO if slopes else arb(0)
            exact = arb(fmpq(p, q))
            held = (q & (q - 1)) == 0 and (self.dtype is None or abs(p).bit_length() <= self.dtype.precision)
            return exact if held else once(exact)

        table: dict[str, Any] = {
            "add": add,
            "mul": mul,
            "neg": np.negative,
            "div": lambda a, b: quotient(lift(lambda x, y: x / ball(y), 2)(a, b)),
            "inverse": lambda b: once(lift(lambda y: 1 / ball(y))(b)),
            "power": power,
            "powlog": lambda a, b: once(four(four(lift(_power_log, 2)(a, b)))),
            "pow": lambda a, b: four(lift(lambda x, y: ball(x) ** ball(y), 2)(a, b)),
            "atan2": lambda y, x: four(lift(_atan2 if self.dtype else arb.atan2, 2)(numbers(y), numbers(x))),
            "number": number,
            "pi": lambda: once(arb.pi()),
            "e": lambda: once(arb.const_e()),
            "abs": lambda x: np.abs(x),
            "sign": lift(lambda x: (_slope_of_abs if mode == "slopes" else _sign)(ball(x))),
            "step": lift(lambda x: _unmoved_step(ball(x)) if mode == "beside" else _step(ball(x))),
            "dirac": lift(
                lambda x: ZERO if mode == "beside" and x is not ZERO and x.is_zero() else _dirac(ball(x))
            ),
            "maximum": lambda *xs: _fold(lift(lambda a, b: ball(a).max(ball(b)), 2), xs),
            "minimum": lambda *xs: _fold(lift(lambda a, b: ball(a).min(ball(b)), 2), xs),
            "less": partial(_compare, "<", at_tie, beside=mode == "beside"),
            "less_equal": partial(_compare, "<=", at_tie, beside=mode == "beside"),
            "equal": partial(_compare, "==", at_tie, beside=mode == "beside"),
            "sure_less": partial(_compare, "<", None),
            "sure_less_equal": partial(_compare, "<=", None),
            "sure_equal": partial(_compare, "==", None),
            "sure_sign": lift(lambda x: _sign(ball(x))),
            "sure_step": lift(lambda x: _unmoved_step(ball(x))),
            "both": lambda *cs: _fold(np.minimum, cs),
            "either": lambda *cs: _fold(np.maximum, cs),
            "negate": lambda c: 1.0 - c,
            "true": 1.0,
            "false": 0.0,
            "piecewise": _piecewise,
        }

        def logaddexp(a: Any, b: Any) -> Any:
            less = np.negative(np.abs(add(a, np.negative(b))))
            return add(table["maximum"](a, b), table["log1p"](table["exp"](less)))

        table["logaddexp"] = logaddexp
        bessel, eight = self._rounded(26), self._rounded(8)
        table["besseli"] = lambda n, x: bessel(lift(_besseli, 2)(n, x))
        table["polygamma"] = lambda n, x: eight(lift(_polygamma, 2)(n, x))
        for name, step in _STEPS.items():
            table[name] = lift(lambda x, step=step: step(ball(x)))
        for name, (function, roundings) in _FUNCTIONS.items():
            table[name] = self._function(name, function, roundings)
        return table

    def _function(self, name: str, function: Callable[..., arb], roundings: int) -> Callable[[Any], Any]:
        if self.dtype is None:
            return lift(lambda z: function(ball(z)))
        if name == "sigmoid":
            # Where exp(-x) overflows, 1/(1 + exp(-x)) is 0; 16 bits are computed in float32.
            floor, inner = arb(0, 1 / max(self.dtype.largest, DTYPES["float32"].largest)), function

            def function(z: arb) -> arb:
                return inner(z) + floor

        # In 16 bits a function is computed in float32 and rounded once; gamma is exp(lgamma(x)), two
        # functions, and Cephes' series for i0e is summed in 16 bits where a kernel takes one number at a time
        # (3.4 ulp off, measured).
        half = self._half and name not in ("gamma", "i0e")
        if half and name == "erf":
            name, roundings = "gelu_erf", 10  # the same approximation there
        widen = self._rounded(1.25 if half else roundings)
        if name not in _MAGNITUDE:
            return lambda x: widen(lift(lambda z: function(ball(z)))(x))
        magnitude = _MAGNITUDE[name]
        unit = arb(0, roundings * (2.0**-24 if half else self.dtype.unit_roundoff))

        def widened(z: Any) -> arb:
            z = ball(z)
            value = function(z)
            return value + magnitude(z, value) * unit

        return lambda x: widen(lift(widened)(x))


class Sampling(Arithmetic):
    """One implementation out of those that a dtype allows: of each node's rounding set one point, drawn at
    random.

    Monte Carlo arithmetic (Parker, Monte Carlo Arithmetic, UCLA 1997) at the grain of nodes: where balls grow
    with depth without use, the spread of many such runs is what rounding really does.
    """

    def __init__(self, dtype: DType, random: np.random.Generator) -> None:
        super().__init__(dtype)
        self.random = random

    def settle(self, array: Balls) -> Balls:
        array = np.asarray(array, dtype=object)
        drawn = self.random.uniform(-1, 1, array.shape)
        return np.asarray(_drawn(array, drawn), dtype=object)


_drawn = lift(lambda x, r: x if x is ZERO or not x.is_finite() else arb((x.mid() + x.rad() * r).mid()), 2)


def _hides(within: Any, total: Any, most: arb, magnitude: Any, largest: arb, rest: arb) -> bool:
    """Whether a sum is one number of the largest there are, and others below half its last place."""
    there = not ball(within).is_finite() and ball(total).is_finite()
    return bool(there and most <= largest and ball(magnitude) - most < rest)


def _cut(x: arb, largest: arb) -> arb:
    """What of a ball lies within the numbers."""
    return x.lower().max(-largest).union(x.upper().min(largest))


def _blurred(total: Balls, magnitudes: Balls, slack: float) -> Balls:
    """Sums, widened by `slack` of their terms' magnitudes; of a wide sum of terms of one sign, the ends."""
    around, relative = arb(0, slack), arb(1, slack)

    def blur(t: Any, a: Any) -> Any:
        if t is ZERO or is_infinity(t):
            return t
        if t.rel_accuracy_bits() < 8 and not t.contains(NOUGHT) and abs(t).lower() == ball(a).lower():
            return (t.lower() * relative).union(t.upper() * relative)
        return t + a * around

    return lift(blur, 2)(total, magnitudes)


class _Contraction:
    """Σ a*b as a product of matrices for each index of a batch: what part each axis of the domain has in it.

    `batch` axes are kept and in both factors, `columns` kept and in the second alone, `rows` are the others
    that are kept; `inner` axes are summed and in both, `alone` ones are summed and in one factor at most.
    """

    def __init__(self, a: Shape, b: Shape, axes: tuple[int, ...], domain: Shape) -> None:
        self.count = prod(domain[n] for n in axes)
        kept = [n for n in range(len(domain)) if n not in axes]
        both = [n for n in range(len(domain)) if a[n] > 1 and b[n] > 1]
        self.batch = [n for n in kept if n in both]
        self.columns = [n for n in kept if n not in both and b[n] > 1]
        self.rows = [n for n in kept if n not in self.batch + self.columns]
        self.inner = [n for n in axes if n in both]
        self.alone = [n for n in axes if n not in both]
        self.repeats = prod(domain[n] for n in self.alone if a[n] == b[n] == 1)
        self.extents = np.broadcast_shapes(a, b)

    def balls(self, a: Balls, b: Balls) -> Balls:
        """The sums as (batch, rows, columns), without any rounding but the working precision's."""
        a, b = self._arranged(a, self.rows, self.inner), self._arranged(b, self.inner, self.columns)
        a = a * self.repeats if self.repeats > 1 else a
        (batch, rows, inner), columns = a.shape, b.shape[2]
        if batch * rows * inner * columns <= 2 * (a.size + b.size):
            return np.add.reduce(a[:, :, :, None] * b[:, None, :, :], axis=2)
        out = full((batch, rows * columns), NOUGHT)
        for n, (left, right) in enumerate(
            zip(a.reshape(batch, -1).tolist(), b.reshape(batch, -1).tolist(), strict=True)
        ):
            out[n] = (arb_mat(rows, inner, left) * arb_mat(inner, columns, right)).entries()
        return out.reshape(batch, rows, columns)

    def numbers(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The same sums of plain numbers."""
        a, b = (
            self._arranged(a.astype(float), self.rows, self.inner),
            self._arranged(b.astype(float), self.inner, self.columns),
        )
        return np.matmul(a, b) * self.repeats

    def _arranged(self, side: Any, first: list[int], second: list[int]) -> Any:
        """A factor as a batch of matrices; what stands alone is summed first."""
        for n in self.alone:
            side = np.add.reduce(side, axis=n, keepdims=True)
        order = self.batch + first + second
        shape = [prod(side.shape[n] for n in part) for part in (self.batch, first, second)]
        return side.transpose(order + [n for n in range(side.ndim) if n not in order]).reshape(shape)

    def unfolded(self, result: Any) -> Any:
        """The products of matrices as an array over the axes that were kept, in their order."""
        order = self.batch + self.rows + self.columns
        return result.reshape([self.extents[n] for n in order]).transpose(np.argsort(order))


def _section(side: Balls, at: np.ndarray, axes: tuple[int, ...]) -> Balls:
    """The part of a factor that one entry of the sum is made of: its axes are those summed over."""
    kept = iter(at)
    return side[
        tuple(
            slice(None) if n in axes else min(next(kept), extent - 1) for n, extent in enumerate(side.shape)
        )
    ]


def _fold(function: Callable[[Any, Any], Any], items: Sequence[Any]) -> Any:
    result = items[0]
    for item in items[1:]:
        result = function(result, item)
    return result


def _reduce(function: Any, values: Balls, axes: tuple[int, ...]) -> Balls:
    for axis in sorted(axes, reverse=True):
        values = function.reduce(values, axis=axis)
    return values


@cache
def exact() -> Arithmetic:
    """The arithmetic of enclosures."""
    return Arithmetic()


@cache
def rounding(dtype: DType, accumulator: DType | None = None) -> Arithmetic:
    """The arithmetic of everything that an implementation in this dtype may produce; its sums held in
    `accumulator`."""
    return Arithmetic(dtype, accumulator)


class _Printer(StrPrinter):
    """Prints a formula as calls of the arithmetic's operations, one call an operation that rounds."""

    def _call(self, name: str, args: Sequence[Any]) -> str:
        return f"{name}({', '.join(map(self._print, args))})"

    def _print_Add(self, expr: sympy.Add) -> str:
        return self._call("add", expr.args)

    def _print_Mul(self, expr: sympy.Mul) -> str:
        for log in (factor for factor in expr.args if isinstance(factor, sympy.log)):
            for power in (factor for factor in expr.args if factor.is_Pow and factor.base == log.args[0]):
                if not power.exp.is_number:
                    rest = [factor for factor in expr.args if factor not in (log, power)]
                    both = self._call("powlog", power.args)
                    return f"mul({', '.join([both, *map(self._print, rest)])})" if rest else both
        if expr.args[0] is sympy.S.NegativeOne:
            return f"neg({self._print(sympy.Mul(*expr.args[1:], evaluate=False) if len(expr.args) > 2 else expr.args[1])})"
        over: list[sympy.Expr] = []
        under: list[sympy.Expr] = []
        for factor in expr.args:
            if factor.is_Pow and factor.exp.is_Rational and factor.exp < 0:
                under.append(sympy.Pow(factor.base, -factor.exp))
            elif factor.is_Rational and factor.p in (1, -1) and factor.q != 1:
                under.append(sympy.Integer(factor.p * factor.q))
            else:
                over.append(factor)
        if not under:
            return self._call("mul", over)
        if not any(factor.free_symbols for factor in over):
            # Engines divide a number by a tensor as the number times the tensor's reciprocal.
            bottom = self._call("mul", under) if len(under) > 1 else self._print(under[0])
            return f"mul({', '.join([*map(self._print, over), f'inverse({bottom})'])})"
        top = self._call("mul", over) if len(over) > 1 else self._print(over[0])
        # The slope of a/b is -a/b**2. Engines divide twice, so b**2 is not there to overflow, underflow or
        # hold 0.
        squared = [factor.base for factor in under if factor.is_Pow and factor.exp == 2]
        rest = [factor for factor in under if not (factor.is_Pow and factor.exp == 2)]
        for base in (base for base in squared for _ in range(2)):
            top = f"div({top}, {self._print(base)})"
        if not rest:
            return top
        return f"div({top}, {self._call('mul', rest) if len(rest) > 1 else self._print(rest[0])})"

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.base, expr.exp
        if exponent.is_Integer and exponent >= 0:
            return f"power({self._print(base)}, {int(exponent)})"
        if base.is_Integer and exponent.could_extract_minus_sign() and not exponent.is_number:
            # In products SymPy turns 0.1**x into 10**(-x).
            return f"pow(number(1, {int(base)}), {self._print(-exponent)})"
        if exponent.is_Integer:
            # The slope of 1/x is the square of what was computed as 1/x.
            return f"power(inverse({self._print(base)}), {-int(exponent)})"
        if exponent.is_Rational and exponent < 0:
            return f"inverse({self._print(sympy.Pow(base, -exponent))})"
        if exponent is sympy.S.Half:
            return self._call("sqrt", [base])
        return self._call("pow", [base, exponent])

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return f"number({expr.p}, {expr.q})"

    _print_Integer = _print_Zero = _print_One = _print_NegativeOne = _print_Half = _print_Rational

    def _print_Pi(self, expr: sympy.Expr) -> str:
        return "pi()"

    def _print_Exp1(self, expr: sympy.Expr) -> str:
        return "e()"

    def _print_Function(self, expr: sympy.Function) -> str:
        if isinstance(expr, sympy.polygamma) and expr.args[0] == 0:
            return self._call("digamma", expr.args[1:])
        name = _CALLS.get(type(expr).__name__, type(expr).__name__)
        if name in ("sign", "step"):
            return self._call(_sure(expr) + name, expr.args[:1])
        return self._call(name, expr.args)

    _print_Abs = _print_sign = _print_Max = _print_Min = _print_Heaviside = _print_DiracDelta = (
        _print_Function
    )
    _print_exp = _print_ExpBase = _print_Function

    def _print_Piecewise(self, expr: sympy.Piecewise) -> str:
        pieces = [f"({self._print(value)}, {self._print(condition)})" for value, condition in expr.args]
        return f"piecewise({', '.join(pieces)})"

    def _print_Relational(self, expr: sympy.Rel) -> str:
        a, b = self._side(expr.lhs), self._side(expr.rhs)
        sure = _sure(expr)
        return {
            "<": f"{sure}less({a}, {b})", "<=": f"{sure}less_equal({a}, {b})", "==": f"{sure}equal({a}, {b})",
            ">": f"{sure}less({b}, {a})", ">=": f"{sure}less_equal({b}, {a})", "!=": f"negate({sure}equal({a}, {b}))",
        }[expr.rel_op]  # fmt: skip

    def _side(self, expr: sympy.Expr) -> str:
        """One side of a relation; indices and the integers beside them stay plain."""
        return str(int(expr)) if expr.is_Integer else self._print(expr)

    def _print_And(self, expr: sympy.And) -> str:
        return self._call("both", expr.args)

    def _print_Or(self, expr: sympy.Or) -> str:
        return self._call("either", expr.args)

    def _print_Not(self, expr: sympy.Not) -> str:
        return self._call("negate", expr.args)

    def _print_BooleanTrue(self, expr: sympy.Expr) -> str:
        return "true"

    def _print_BooleanFalse(self, expr: sympy.Expr) -> str:
        return "false"


def _sure(condition: sympy.Basic) -> str:
    """`sure_` for what is a matter of given numbers alone, which nothing that is differentiated moves."""
    still = all(symbol.name.startswith(STILL) or symbol.is_integer for symbol in condition.free_symbols)
    return "sure_" if still and condition.free_symbols else ""


_CALLS = {"Abs": "abs", "Max": "maximum", "Min": "minimum", "Heaviside": "step", "DiracDelta": "dirac"}


@cache
def compiled(
    formula: sympy.Expr, args: tuple[sympy.Symbol, ...], arithmetic: Arithmetic, mode: str
) -> Callable[..., Any]:
    """The formula as a function of arrays, lambdified for one arithmetic; `mode` names one of its tables."""
    return sympy.lambdify(args, formula, modules=[arithmetic.tables[mode]], printer=_Printer, cse=True)
