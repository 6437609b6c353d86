"""The fast arithmetic: the same formulas over floats, a midpoint and an inner radius of the rounding set.

It says only *passes*. A `Pair` (v, r) stands for the set [v - r, v + r], which lies in the ball that the
rounding arithmetic gives: each operation returns what its operands' sets come to on the shorter side, and
balls are inclusion isotone. So what is near enough to v is explained by rounding, and whatever is not (at the
edge, not finite, a kink, a tie, a wide set: r is NaN there) is left to the balls.

Its own error needs no third array: the table rounds as the model does, with a smaller unit, so it is at most
κ·r. An operation whose shorter side is g times shorter than its plain first-order radius makes κ at most g
times larger: of each array that `loss` is kept, and what would be too much is NaN. κ is measured
against balls in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial, reduce
from math import prod
from typing import Any

import numpy as np
from flint import arb

from ..dtypes import DType
from ..functions import FUNCTIONS, Function
from .arithmetic import Table
from .balls import Balls, Operand, as_float, balls, precision
from .contraction import Contraction
from .graph import Node, Shape, size
from .places import Places, gathered
from .roundings import Roundings

Radius = np.ndarray | None  # None: exact
Each = Callable[[np.ndarray], np.ndarray]
Told = tuple[np.ndarray, np.ndarray, np.ndarray]  # midpoints, their own error, inner radii

WIDE = 0.25  # of a divisor's relative radius
MARGIN = 2.0**-11  # of the radius: what the radii's own float arithmetic may be off by
SINGLE = 2**15  # terms of a sum of magnitudes up to which float32 is enough for it
WIDE = 0.25  # part of a divisor that its radius may be: the ball may hold 0 from there on
LEAST = 2.0**-1040  # a radius that is smaller has lost its last digits, and those of v: NaN
FLOAT32_LEAST = 2.0**-125
SLICES = 6  # of a matrix of long doubles: at most
BLOCK = 2**16  # entries that a formula goes over at once
LONG = np.finfo(np.longdouble).nmant >= 63


@dataclass(frozen=True, eq=False)
class Pair:
    """Midpoints, and inner radii in float64 of the same shape; `loss` is by how much κ has grown."""

    v: np.ndarray
    r: Radius = None
    loss: float = 1.0

    @property
    def shape(self) -> Shape:
        return self.v.shape

    @property
    def ndim(self) -> int:
        return self.v.ndim

    @property
    def size(self) -> int:
        return int(self.v.size)

    def reshape(self, *shape: Any) -> Pair:
        return self._each(lambda x: x.reshape(*shape))

    def __neg__(self) -> Pair:
        return Pair(-self.v, self.r, self.loss)

    def broadcast(self, shape: Shape) -> Pair:
        return self if self.shape == shape else self._each(lambda x: np.broadcast_to(x, shape))

    def _each(self, change: Each) -> Pair:
        return Pair(change(self.v), None if self.r is None else change(self.r), self.loss)

    @property
    def radius(self) -> np.ndarray:
        return np.zeros(self.shape) if self.r is None else self.r


def _plain(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.float64 else x.astype(np.float64)


def _size(x: np.ndarray) -> np.ndarray:
    return np.abs(_plain(x))


def _wide(x: Pair) -> np.ndarray:
    return x.radius > _size(x.v)


def _sum(*radii: Radius) -> Radius:
    there = [r for r in radii if r is not None]
    return reduce(np.add, there) if there else None


def balls_of(told: Told) -> tuple[Balls, Balls]:
    """What floats know, as exact balls and as what rounding explains."""
    middle, error, reach = map(balls, told)
    around = arb(0, 1)
    return np.asarray(middle + error * around, object), np.asarray(middle + reach * around, object)


class LeftError(Exception):
    """What this arithmetic has no operation for: left to the balls."""


class Fast:
    """The table for one dtype; `wide` is what midpoints are held in."""

    def __init__(self, dtype: DType, accumulator: DType | None = None) -> None:
        self.dtype = dtype
        self.model = Roundings(dtype, accumulator)
        self.gamma = self.model.gamma
        self.u = dtype.unit_roundoff
        self.half = self.model.half
        self.wide: type = np.float64 if dtype.precision <= 24 else np.longdouble
        self.unit = 2.0**-53 if self.wide is np.float64 else 2.0**-64
        # How many times a shorter side may be shorter than the plain radius: so many that κ stays small.
        self.most = max(8.0, min(2.0**16, 2.0**-15 / self.kappa(1.0)))
        self.tables = {mode: self._table(mode) for mode in ("values", "slopes")}

    def of(self, array: np.ndarray) -> Pair:
        """Numbers as they are."""
        return Pair(np.asarray(array, self.wide))

    def kappa(self, loss: float) -> float:
        """How large the own error is at most, beside the radius.

        Functions of NumPy's are good to 4 ulp in float64, of the C library to 1 ulp in long doubles; the
        model allows them 2 at least.
        """
        return 4 * self.unit / self.u * loss

    # What passes

    def passes(self, value: np.ndarray, expected: Pair) -> np.ndarray:
        """Where a number is surely in the rounding set; False where this arithmetic cannot tell."""
        with np.errstate(all="ignore"):
            if expected.r is None:
                return np.asarray(value == expected.v)
            apart = _size(np.asarray(value, self.wide) - expected.v)
            apart = np.where(value == expected.v, 0.0, apart)
            return self.holds(apart, expected.r, expected.loss)

    def holds(self, apart: np.ndarray, r: np.ndarray, loss: float) -> np.ndarray:
        """The same of the distance from the midpoint."""
        inside = apart < r * (1 - self.kappa(loss) - MARGIN)
        if not r.max(initial=0.0) < self.dtype.largest:
            inside &= r < self.dtype.largest
        return np.asarray(inside if inside.all() else inside | ((r == 0) & (apart == 0)))

    def told(self, pair: Pair, entries: np.ndarray) -> Told:
        """What is known of some entries, by their places in a flat array."""
        middle, reach = (x.reshape(-1)[entries].astype(float) for x in (pair.v, pair.radius))
        return middle, reach * self.kappa(pair.loss), reach

    # Arrays

    def array(self, computed: Operand) -> Pair:
        return computed if isinstance(computed, Pair) else Pair(np.asarray(computed, self.wide))

    def applied(self, formula: Callable[..., Operand], operands: Sequence[Operand]) -> Pair:
        """A formula of operands that broadcast together: of large ones a block after the other, which stays
        in the processor's cache."""
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        if size(shape) <= 2 * BLOCK:
            return self.array(formula(*operands))
        v: np.ndarray = np.empty(shape, self.wide)
        r: Radius = None
        loss = 1.0
        for block in _blocks(shape):
            part = self.array(formula(*(_part(operand, block, len(shape)) for operand in operands)))
            v[block], loss = part.v, max(loss, part.loss)
            if part.r is not None:
                r = np.zeros(shape) if r is None else r
                r[block] = part.r
        return Pair(v, r, loss)

    def read(self, parent: Pair, where: Places, fill: float) -> Pair:
        v = gathered(parent.v, where, fill)
        return Pair(v, None if parent.r is None else gathered(parent.r, where, 0.0), parent.loss)

    def near_zero(self, array: Pair) -> bool:
        return bool((~(_size(array.v) > 2 * array.radius)).any())

    def broadcast(self, array: Operand, shape: Shape) -> Pair:
        return self.array(array).broadcast(shape)

    def settle(self, array: Pair) -> Pair:
        return array

    def either(self, a: Pair, b: Pair) -> Pair:
        """One of two forms: the wider set, of the same midpoint."""
        if a.r is None or b.r is None:
            return a if b.r is None else b
        return Pair(a.v, np.where(np.isnan(a.r), np.nan, np.fmax(a.r, b.r)), max(a.loss, b.loss))

    def weights(self, terms: Pair, node: Node, mode: str) -> Pair:
        raise LeftError(node.reduce)

    def scatter(self, terms: Pair, where: Places) -> Pair:
        """The terms, batch first, added up at the places that they were read from."""
        batch = terms.shape[0]
        if where.whole:
            return terms
        adding = where.scatter
        shape = (batch, *adding.left)

        def added(array: np.ndarray) -> np.ndarray:
            rows = array.reshape(shape)
            return adding.sums(rows[0])[None] if batch == 1 else np.stack([adding.sums(row) for row in rows])

        v = added(terms.v)
        r = None if terms.r is None else added(terms.r)
        if adding.one_to_one:
            return Pair(v, r, terms.loss)
        several, which = np.unique(adding.counts, return_inverse=True)
        gamma = np.array([self.gamma(int(count)) for count in several])[which].reshape(adding.counts.shape)
        sizes = added(_size(terms.v))
        r = sizes * gamma if r is None else sizes * gamma + r * (1 - gamma)
        return self._bounded(Pair(v, r, terms.loss))

    # Reductions

    def sum(self, terms: Pair, axes: tuple[int, ...]) -> Pair:
        if not axes:
            return terms
        gamma = self.gamma(prod(terms.shape[axis] for axis in axes))
        v = self._added(terms.v, axes)
        moved = None if terms.r is None else terms.r.sum(axis=axes)
        r = None if moved is None else moved * (1 - gamma)
        if gamma:
            sizes = _size(terms.v).sum(axis=axes) * gamma
            r = _sum(sizes, r)
            if gamma > 0.1 and r is not None and moved is not None:
                return self._bounded(self._shorter(v, r, sizes + moved, terms.loss))
        return self._bounded(Pair(v, r, terms.loss))

    def _added(self, v: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        if v.dtype == np.float64:
            return np.asarray(v.sum(axis=axes))
        # Pairwise, which NumPy does along the last axis alone.
        kept = [n for n in range(v.ndim) if n not in axes]
        flat = np.ascontiguousarray(v.transpose([*kept, *axes]))
        return np.asarray(flat.reshape([v.shape[n] for n in kept] + [-1]).sum(axis=-1))

    def contract(self, a: Pair, b: Pair, axes: tuple[int, ...], domain: Shape) -> Pair:
        """Σ a*b by products of matrices; a factor common to a sum multiplies the sum."""
        plan = Contraction(a.shape, b.shape, axes, domain)
        left, right = plan.first(a.v, self._alone), plan.second(b.v, self._alone)
        gamma = self.gamma(plan.count)
        slack = self.u * (1 + gamma) + gamma
        single = plan.count <= SINGLE and self.u >= 2.0**-24

        def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            found = _single_product(x, y) if single else None
            return np.matmul(x, y) if found is None else found

        sizes = product(plan.first(_size(a.v)), plan.second(_size(b.v)))
        v, known = self._product(left, right, sizes)
        v, sizes = v * plan.repeats, sizes * plan.repeats
        moved, plain = self._moved(plan, a, b, (left, right), product)
        r = sizes * slack
        if moved is not None:
            r = r + moved * (plan.repeats * (1 - slack))
        sound = known & (sizes < self.dtype.largest / 4) & ((r >= LEAST) | (sizes == 0))
        r = plan.unfolded(np.where(sound, r, np.nan))
        v, loss = plan.unfolded(v), max(a.loss, b.loss)
        if moved is None or (plain is None and slack <= 0.1):
            return Pair(v, r, loss)
        whole = sizes * slack + (moved if plain is None else plain) * plan.repeats
        return self._shorter(v, r, plan.unfolded(whole), loss)

    def _moved(
        self,
        plan: Contraction,
        a: Pair,
        b: Pair,
        sides: tuple[np.ndarray, np.ndarray],
        product: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What the factors' own sets make of the sums, on the shorter side; and the plain radius, where that
        may be much more."""
        left, right = (np.abs(_plain(side)) for side in sides)
        if a.r is None:
            return (None if b.r is None else product(left, plan.second(b.r))), None
        ra = plan.first(a.r)
        moved = product(ra, right)
        if b.r is None:
            return moved, None
        rb = plan.second(b.r)
        plain = None
        if _wide(a).any() and _wide(b).any():
            plain = moved + product(left, rb) + product(ra, rb) * self.kappa(max(a.loss, b.loss))
        return moved + product(np.maximum(left - ra, 0), rb), plain

    def _alone(self, side: np.ndarray, axis: int) -> np.ndarray:
        return np.expand_dims(self._added(side, (axis,)), axis)

    def _product(self, a: np.ndarray, b: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The product of matrices, and where it is good to the unit of what midpoints are held in, beside the
        product of their sizes."""
        if a.dtype == np.float64 and b.dtype == np.float64:
            return np.matmul(a, b), np.ones((), bool)
        return _sliced_product(a, b, sizes)

    def product(self, factors: Pair, axes: tuple[int, ...]) -> Pair:
        raise LeftError("a product")

    def extreme(self, values: Pair, axes: tuple[int, ...], largest: bool) -> Pair:
        """The extreme of the midpoints; its set goes from the extreme of the lower ends to that of the
        upper."""
        v = values.v if largest else -values.v
        top = v.max(axis=axes)
        if values.r is not None:
            blur = values.r
            r = np.maximum(_plain(top - (v - blur).max(axis=axes)), 0.0)
            reaching = v + blur >= np.expand_dims(top, axes)  # any of these may be the exact extreme
            plain = (blur * reaching).max(axis=axes)
            return self._shorter(np.asarray(top if largest else -top), np.asarray(r), plain, values.loss)
        return Pair(np.asarray(top if largest else -top))

    def add_all(self, terms: Sequence[Pair]) -> Pair:
        return terms[0] if len(terms) == 1 else self.applied(lambda *blocks: self._total(blocks), terms)

    def _total(self, terms: Sequence[Pair]) -> Pair:
        loss = max(t.loss for t in terms)
        gamma = self.gamma(len(terms), apart=True)
        v = reduce(np.add, (t.v for t in terms))
        sizes = reduce(np.add, (_size(t.v) for t in terms)) * gamma
        r = _sum(sizes, *(None if t.r is None else t.r * (1 - gamma) for t in terms))
        return self._bounded(Pair(v, r, loss))

    def multiply(self, a: Pair, b: Pair) -> Pair:
        return self.applied(lambda x, y: self.widened(self._times(x, y), 1), (a, b))

    # Operations

    def widened(self, x: Pair, roundings: float, masked: Callable[[], np.ndarray] | None = None) -> Pair:
        """What so many roundings make of it; NaN where it may overflow. `masked` says where it is a mask's
        infinity, which is no overflow."""
        relative, v = roundings * self.u, x.v
        size = _size(v)
        r = size * relative
        least, most = (size.min(), size.max()) if size.size else (1.0, 1.0)
        if x.r is not None:
            r = r + x.r * (1 - relative)
        if least < max(self.dtype.smallest_normal, LEAST / self.u):
            absolute = self.dtype.underflow * max(1.0, roundings / 2)
            r = np.where(size > 0, r + absolute, r)
            r = np.where((size > 0) & (r < LEAST), np.nan, r)
            if v.dtype != np.float64:
                v = np.where(size > 0, v, 0)  # below all numbers that a radius may be
        largest = self.dtype.largest / 4
        if not most < largest or (x.r is not None and r.size and not most + r.max() < largest):
            r = np.where(size + r < largest, r, np.nan)
            if masked is not None:
                r = np.where(masked() & np.isinf(v), 0.0, r)
        return Pair(v, r, x.loss)

    def _bounded(self, x: Pair) -> Pair:
        if x.r is None:
            return x
        size, largest = _size(x.v), self.dtype.largest / 4
        if not x.size or (size.max() + x.r.max() < largest and x.r.min() >= LEAST):
            return x
        sound = (size + x.r < largest) & ((x.r >= LEAST) | (x.r == 0))
        return x if sound.all() else Pair(x.v, np.where(sound, x.r, np.nan), x.loss)

    def _shorter(self, v: np.ndarray, short: np.ndarray, plain: np.ndarray, loss: float) -> Pair:
        """With the shorter side, where it is not too short for the own error to stay κ of it."""
        held = short * self.most >= plain
        if not held.all():
            short = np.where(held, short, np.nan)
        times = np.fmax.reduce((plain / short).reshape(-1), initial=1.0)  # 0/0 is no number, and no loss
        return Pair(v, short, loss * float(times))

    def _times(self, a: Pair, b: Pair) -> Pair:
        v, loss = a.v * b.v, max(a.loss, b.loss)
        if a.r is None and b.r is None:
            return Pair(v, None, loss)
        if a.r is None or b.r is None:
            one, other = (a, b) if b.r is None else (b, a)
            assert one.r is not None
            return Pair(v, _size(other.v) * one.r, loss)
        x, y = _size(a.v), _size(b.v)
        plain = x * b.r + y * a.r
        # The shorter side is at least either of these.
        one = np.maximum(x - a.r, 0) * b.r + y * a.r
        other = x * b.r + np.maximum(y - b.r, 0) * a.r
        return self._shorter(v, np.maximum(one, other), plain, loss)

    def _inverse(self, y: Pair) -> Pair:
        v = 1 / y.v
        if y.r is None:
            return Pair(v, None, y.loss)
        size = _size(v)
        part = size * y.r  # first: the square may be too small for a float
        plain = size * part
        return self._shorter(v, np.where(part < WIDE, plain / (1 + part), np.nan), plain, y.loss)

    def _quotient(self, a: Pair, b: Pair) -> Pair:
        v, loss = a.v / b.v, max(a.loss, b.loss)
        if b.r is None:
            return Pair(v, None if a.r is None else a.r / _size(b.v), loss)
        under = 1 / _size(b.v)
        part = under * b.r
        plain = _size(v) * part
        if a.r is not None:
            plain = plain + under * a.r
        return self._shorter(v, np.where(part < WIDE, plain / (1 + part), np.nan), plain, loss)

    def _power(self, x: Pair, n: int) -> Pair:
        if n == 0:
            return Pair(np.ones_like(x.v), None, x.loss)
        v = x.v * x.v if n == 2 else x.v**n
        if x.r is None:
            return Pair(v, None, x.loss)
        size = _size(x.v)
        if n == 2:
            short = np.where(x.r < size, (2 * size - x.r) * x.r, size * size)
            return self._shorter(v, short, (2 * size + x.r * self.kappa(x.loss)) * x.r, x.loss)
        plain = n * size ** (n - 1) * x.r
        # |x|^n - (|x| - r)^n, the shorter side, is at least this.
        short = plain * (1 - (n - 1) * x.r / np.maximum(size, 1e-300))
        return self._shorter(v, short, plain, x.loss)

    def _function(self, row: Function) -> Callable[..., Pair]:
        floats = row.floats
        half = self.half and not row.stepwise
        if half and row.in_half:
            return self._function(FUNCTIONS[row.in_half])
        roundings, exact = 1.25 if half else row.roundings, row.ball or getattr(arb, row.name)

        def of(operand: Operand) -> Pair:
            x = self.array(operand)
            if floats is None or not (floats.wide or self.wide is np.float64):
                v = self._by_balls(row, x.v)
            else:
                v = np.asarray(floats.value(np, x.v))
            plain, last = self.widened(Pair(v, None, x.loss), roundings), 1 - roundings * self.u
            if (
                row.magnitude is not None and floats is not None
            ):  # of an error that does not shrink with the value
                unit = row.roundings * (2.0**-24 if half else self.u)
                more = np.asarray(row.magnitude(_plain(x.v), _plain(v))) * unit
                plain = Pair(plain.v, plain.radius + more * last, plain.loss)
            if x.r is not None:
                if floats is None:
                    raise LeftError(f"{row.name} of what is rounded")
                bend = np.asarray(floats.bend(np, _plain(x.v), _plain(v))) * x.r * x.r / 2
                first = np.abs(floats.slope(np, _plain(x.v), _plain(v))) * x.r
                near = x.r <= floats.within(np, _plain(x.v)) if floats.within is not None else True
                short = np.maximum(first - bend, 0.0) * last + plain.radius
                whole = np.where(near, first + bend + plain.radius, np.inf)
                plain = self._shorter(plain.v, short, whole, plain.loss)
            known = np.isfinite(v)
            ends = (math.inf, -math.inf) if np.isinf(x.v).any() else ()
            for infinity in ends:  # a mask's: balls know some functions' limits there
                if (x.v == infinity).any() and not exact(arb(infinity)).is_finite():
                    known = known & (x.v != infinity)
            return plain if known.all() else Pair(plain.v, np.where(known, plain.radius, np.nan), plain.loss)

        return of

    def _by_balls(self, row: Function, x: np.ndarray) -> np.ndarray:
        """The function's values where no library has them in this format: midpoints of balls."""
        exact = row.ball or getattr(arb, row.name)

        def of(number: np.floating) -> np.floating:
            near = float(number)
            found = exact(arb(near) + arb(float(number - near)))
            high = as_float(found.mid())
            sharp = math.isfinite(high) and found.rel_accuracy_bits() > 70
            return self.wide(high) + self.wide(as_float((found - high).mid())) if sharp else self.wide("nan")

        with precision(96):
            return np.asarray(np.frompyfunc(of, 1, 1)(x), dtype=self.wide)

    def _less(self, a: Operand, b: Operand, equal: bool, tie: bool) -> np.ndarray:
        """1, 0, or where that is open 0.5."""
        if not isinstance(a, Pair) and not isinstance(b, Pair):
            return np.asarray(np.less_equal(a, b) if equal else np.less(a, b), float)
        x, y = self.array(a), self.array(b)
        if x.r is None and y.r is None:
            at = 0.5 if tie else float(equal)
            return np.where(x.v < y.v, 1.0, np.where(x.v > y.v, 0.0, np.where(x.v == y.v, at, 0.5)))
        apart, reach = _plain(x.v - y.v), 2 * (x.radius + y.radius)
        return np.where(apart < -reach, 1.0, np.where(apart > reach, 0.0, 0.5))

    def _equal(self, a: Operand, b: Operand, tie: bool) -> np.ndarray:
        if not isinstance(a, Pair) and not isinstance(b, Pair):
            return np.asarray(np.equal(a, b), float)
        x, y = self.array(a), self.array(b)
        reach = 2 * (x.radius + y.radius)
        apart = np.abs(_plain(x.v - y.v))
        exactly = (x.r is None and y.r is None) and not tie
        return np.where(apart > reach, 0.0, np.where((apart == 0) & exactly, 1.0, 0.5))

    def _piecewise(self, *pieces: tuple[Operand, Operand]) -> Pair:
        (last, _), *rest = reversed(pieces)
        result = self.array(last)
        for value, condition in rest:
            one, yes = self.array(value), np.asarray(condition) == 1
            open_ = np.asarray(condition) == 0.5
            v = np.where(yes, one.v, result.v)
            r: Radius = None
            if one.r is not None or result.r is not None or open_.any():
                r = np.where(yes, one.radius, result.radius)
                r = np.where(open_, np.nan, r) if open_.any() else r
            result = Pair(v, None if r is None else np.broadcast_to(r, v.shape), max(one.loss, result.loss))
        return result

    def _extreme_of(self, pick: Callable[..., np.ndarray], operands: Sequence[Operand]) -> Pair:
        found, *rest = map(self.array, operands)
        for other in rest:
            v: np.ndarray = pick(found.v, other.v)
            r: Radius = None
            if found.r is not None or other.r is not None:
                first = v == found.v
                apart = np.abs(_plain(found.v - other.v))
                near = ~(apart > 2 * (found.radius + other.radius))
                r = np.where(first, found.radius, other.radius)
                r = np.where(near, np.nan, r) if near.any() else r
            found = Pair(v, r, max(found.loss, other.loss))
        return found

    def _jumps(self, operand: Operand, function: Each, tie: bool) -> Pair:
        """A function that is constant but for its jump at 0."""
        x = self.array(operand)
        v: np.ndarray = np.asarray(function(x.v), self.wide)
        near = ~(_size(x.v) > 2 * x.radius) if tie or x.r is not None else np.isnan(v)
        return Pair(v, np.where(near, np.nan, 0.0) if near.any() else None, x.loss)

    def _number(self, p: int, q: int) -> Pair:
        if max(abs(p), q).bit_length() > 1000:
            raise LeftError("a number out of range")
        v = np.asarray(self.wide(p) / self.wide(q))
        held = (q & (q - 1)) == 0 and abs(p).bit_length() <= self.dtype.precision
        return Pair(v) if held or p == 0 else self.widened(Pair(v), 1)

    def _table(self, mode: str) -> Table:  # long because it is a table: one entry an operation
        slopes = mode == "slopes"
        arr, widened = self.array, self.widened
        four, quotient = (1.25, 1.25) if self.half else (4.0, 2.0)

        def add(*terms: Operand) -> Pair:
            pairs = [arr(t) for t in terms]
            if len(pairs) > 2:
                return widened(self._total(pairs), 1)
            a, b = pairs

            def masked() -> np.ndarray:
                return (np.isinf(a.v) & (a.radius == 0)) | (np.isinf(b.v) & (b.radius == 0))

            return widened(Pair(a.v + b.v, _sum(a.r, b.r), max(a.loss, b.loss)), 1, masked)

        def mul(*factors: Operand) -> Pair:
            return reduce(lambda a, b: widened(self._times(a, arr(b)), 1), factors[1:], arr(factors[0]))

        def power(x: Operand, n: int) -> Pair:
            return widened(self._power(arr(x), n), 1 if n <= 2 else 2 if n == 3 else four)

        def pi() -> Pair:
            return widened(Pair(np.asarray(4 * np.arctan(self.wide(1)))), 1)

        def jump(
            function: Callable[[np.ndarray], np.ndarray], tie: bool = slopes
        ) -> Callable[[Operand], Pair]:
            return lambda x: self._jumps(x, function, tie)

        def absolute(x: Operand) -> Pair:
            return Pair(np.abs(arr(x).v), arr(x).r, arr(x).loss)

        heaviside, flat = (lambda v: v > 0), (lambda v: v * 0)
        table: Table = {
            "add": add, "mul": mul, "neg": lambda x: -arr(x),
            "div": lambda a, b: widened(self._quotient(arr(a), arr(b)), quotient),
            "inverse": lambda b: widened(self._inverse(arr(b)), 1), "power": power, "number": self._number,
            "pi": pi, "e": lambda: widened(Pair(np.asarray(np.exp(self.wide(1)))), 1), "abs": absolute,
            "sign": jump(np.sign), "step": jump(heaviside, True), "dirac": jump(flat, True),
            "sure_sign": jump(np.sign, False), "sure_step": jump(heaviside, True),
            "maximum": lambda *xs: self._extreme_of(np.maximum, xs),
            "minimum": lambda *xs: self._extreme_of(np.minimum, xs),
            "less": lambda a, b: self._less(a, b, False, slopes),
            "less_equal": lambda a, b: self._less(a, b, True, slopes),
            "equal": lambda a, b: self._equal(a, b, slopes),
            "sure_less": lambda a, b: self._less(a, b, False, False),
            "sure_less_equal": lambda a, b: self._less(a, b, True, False),
            "sure_equal": lambda a, b: self._equal(a, b, False),
            "both": lambda *cs: reduce(np.minimum, cs), "either": lambda *cs: reduce(np.maximum, cs),
            "negate": lambda c: 1.0 - c, "true": 1.0, "false": 0.0, "piecewise": self._piecewise,
            "pow": partial(_no_operation, "pow"), "powlog": partial(_no_operation, "powlog"),
        }  # fmt: skip

        def logaddexp(a: Operand, b: Operand) -> Pair:
            less = -absolute(add(a, -arr(b)))
            return add(table["maximum"](a, b), table["log1p"](table["exp"](less)))

        table["logaddexp"] = logaddexp
        for row in FUNCTIONS.values():
            if row.roundings and row.operands == 1:
                table[row.name] = self._function(row)
            elif row.roundings or row.steps:
                table[row.name] = partial(_no_operation, row.name)
        return table


def _blocks(shape: Shape) -> Iterator[tuple[slice, ...]]:
    """Parts of an array that lie together, of some `BLOCK` entries each."""
    axis = next(n for n in range(len(shape)) if prod(shape[n + 1 :]) <= BLOCK)
    rows = max(1, BLOCK // max(1, prod(shape[axis + 1 :])))
    for before in np.ndindex(*shape[:axis]):
        lead = tuple(slice(n, n + 1) for n in before)
        for start in range(0, shape[axis], rows):
            yield (*lead, slice(start, start + rows))


def _part(operand: Operand, block: tuple[slice, ...], rank: int) -> Operand:
    """What an operand has there: all of an axis along which it does not change."""
    missing = rank - operand.ndim
    here = tuple(
        slice(None) if operand.shape[n - missing] == 1 else at for n, at in enumerate(block) if n >= missing
    )
    return operand._each(lambda x: x[here]) if isinstance(operand, Pair) else operand[here]


def _no_operation(name: str, *operands: Operand) -> Pair:
    raise LeftError(name)


def _single_product(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """The product of matrices of sizes by float32; None where one of its numbers is so small there that it
    has lost digits. What is too small even for that only makes sums smaller, what is too large is infinite.
    """
    x, y = x.astype(np.float32), y.astype(np.float32)
    if _is_tiny(x, FLOAT32_LEAST) or _is_tiny(y, FLOAT32_LEAST):
        return None
    found = np.matmul(x, y)
    return None if _is_tiny(found, 2.0**-100) else found.astype(np.float64)


def _is_tiny(sizes: np.ndarray, least: float) -> bool:
    return bool(((sizes > 0) & (sizes < least)).any())


def _sliced_product(a: np.ndarray, b: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A product of matrices of long doubles, and where it is good to their unit beside `sizes`, the product
    of their sizes: each is cut into slices so short that their products are exact in float64, and these are
    added up.

    Ozaki, Ogita, Oishi and Rump, Error-free transformations of matrix multiplication, Numer. Algorithms 59,
    2012.
    """
    count = max(a.shape[-1], 1)
    bits = (53 - math.ceil(math.log2(max(count, 2)))) // 2
    left, right = _slices(a, -1, bits), _slices(b, -2, bits)
    tops = _plain(np.abs(a).max(axis=-1, keepdims=True, initial=0)) * count
    tops = tops * _plain(np.abs(b).max(axis=-2, keepdims=True, initial=0))
    # Beside an entry that is much larger than the others of its row, theirs begin slices later.
    depth = 72
    while not (known := tops * 2.0 ** (3 - depth) <= sizes * 2.0**-64).all() and depth < SLICES * bits:
        depth += bits
    total = np.zeros((*a.shape[:-1], b.shape[-1]), np.longdouble)
    pairs = [(i, j) for i in range(len(left)) for j in range(len(right)) if (i + j) * bits < depth]
    for i, j in sorted(pairs, key=lambda at: -sum(at)):
        total += np.matmul(left[i], right[j])
    return total, known


def _slices(a: np.ndarray, axis: int, bits: int) -> list[np.ndarray]:
    """The matrix as a sum: each slice has at most so many bits beside the largest of its row or column."""
    found: list[np.ndarray] = []
    rest = a
    while len(found) < SLICES and (rest.any() or not found):
        top = _plain(np.abs(rest).max(axis=axis, keepdims=True))
        unit = np.ldexp(1.0, np.frexp(top)[1] - bits)
        part = np.rint(rest / unit) * unit
        found.append(_plain(part))
        rest = rest - part
    return found


@cache
def fast(dtype: DType, accumulator: DType | None = None) -> Fast | None:
    """The fast arithmetic for a dtype, its sums held in `accumulator`; None where this machine has no wider
    format to hold midpoints in."""
    return None if dtype.precision > 24 and not LONG else Fast(dtype, accumulator)
