"""Arithmetics: what the operations of a formula mean on arrays of balls.

A formula is lambdified once for each arithmetic: SymPy prints it as calls of `add`, `mul`, `power`, ..., and
the arithmetic is the table that those names come from. There are two:

* the exact one, in which a ball encloses the true real number (python-flint's Arb), and
* the rounding one of a dtype, in which every operation may round as the dtype does (see `roundings`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from flint import arb, fmpq

from ..dtypes import DType
from ..functions import FUNCTIONS, power
from .balls import (
    NOUGHT,
    ZERO,
    Ball,
    Balls,
    Operand,
    accuracy_bits,
    ball,
    fold,
    full,
    is_finite,
    is_strong,
    is_zero,
    lift,
    magnitude,
    numbers,
    plain,
    reduced,
    same,
)
from .branches import MAYBE, compare, dirac, piecewise, sign, slope_of_abs, step, unmoved_step
from .contraction import Contraction, section
from .graph import Node, Shape, size
from .places import Places
from .roundings import Roundings

Table = dict[str, Any]  # of operations, by the names that formulas are printed with


class Arithmetic:
    """Tables of operations on balls, for values and for slopes; with a dtype, every operation may round.

    The slope tables differ where a formula has branches. In `slopes`, at a boundary itself both branches
    count, so that a derivative there is the ball of all that they give. In `beside`, for a point that was
    moved off its boundaries, what still stands exactly at one was not moved and is decided as the value is. A
    condition on what is given is decided in every table: nothing that is differentiated moves it.
    """

    def __init__(self, dtype: DType | None = None, accumulator: DType | None = None) -> None:
        self.dtype = dtype
        self.model = Roundings(dtype, accumulator)
        self.gamma = self.model.gamma
        self._one_rounding = self.model.widened(1)
        self.tables = {mode: self._table(mode) for mode in ("values", "slopes", "beside")}
        self.values = self.tables["values"]

    def settle(self, array: Balls) -> Balls:
        """What a node's value, or a cotangent, is from here on: as it was computed."""
        return array

    # Arrays

    def applied(self, formula: Callable[..., Operand], operands: Sequence[Operand]) -> Balls:
        """A formula of operands that broadcast together."""
        return self.array(formula(*operands))

    def array(self, computed: Operand) -> Balls:
        return np.asarray(computed, dtype=object)

    def read(self, parent: Balls, where: Places, fill: float) -> Balls:
        """The entries that a read delivers, open over the axes that it does not depend on."""
        got = parent.reshape(-1)[where.flat]
        return got if where.inside is None else np.where(where.inside, got, full((), arb(fill)))

    def near_zero(self, array: Balls) -> bool:
        """Whether one of the numbers may be 0."""
        return any(x is not ZERO and x.contains(NOUGHT) for x in array.reshape(-1))

    def broadcast(self, array: Balls, shape: Shape) -> Balls:
        return np.broadcast_to(np.asarray(array, dtype=object), shape)

    def scatter(self, terms: Balls, where: Places) -> Balls:
        """The terms, batch first, added up at the places that they were read from."""
        batch = terms.shape[0]
        terms = terms.reshape(batch, -1)
        positions = where.flat.reshape(-1)
        if where.inside is not None:
            chosen = np.flatnonzero(np.broadcast_to(where.inside, where.flat.shape))
            positions, terms = positions[chosen], terms[:, chosen]
        out = full((batch, size(where.parent)), ZERO)
        order = np.argsort(positions, kind="stable")
        targets, starts, counts = np.unique(positions[order], return_index=True, return_counts=True)
        if len(targets) == len(positions):
            out[:, positions] = terms
        elif len(targets):
            sorted_terms = terms[:, order]
            sums = np.add.reduceat(sorted_terms, starts, axis=1)
            slack = np.array([arb(0, self.gamma(int(count))) for count in counts], dtype=object)
            if self.dtype is not None:
                sums = sums + np.add.reduceat(np.abs(sorted_terms), starts, axis=1) * slack
            out[:, targets] = sums
        return out.reshape(batch, *where.parent)

    def either(self, a: Balls, b: Balls) -> Balls:
        """What one form gives or the other; a form that has no value here is no way to compute it."""
        return lift(lambda x, y: x.union(y) if x.is_finite() and y.is_finite() else x, 2)(
            numbers(a), numbers(b)
        )

    def weights(self, terms: Balls, node: Node, mode: str) -> Balls:
        """The derivative of a product or an extreme by its terms, over the domain."""
        flat = np.broadcast_to(terms, node.domain).reshape(*node.shape, size(node.over))
        found = _others(flat, self) if node.reduce == "prod" else _attaining(flat, node.reduce == "max", mode)
        return found.reshape(node.domain)

    # Reductions

    def sum(self, terms: Balls, axes: tuple[int, ...], *, apart: bool = False) -> Balls:
        """The sum over the axes, in any order of addition; see `Roundings.gamma`."""
        return self.model.total(reduced(np.add, terms, axes), terms, axes, apart=apart)

    def contract(self, a: Balls, b: Balls, axes: tuple[int, ...], domain: Shape) -> Balls:
        """Σ a*b over the axes of the domain, by products of matrices: `sum` of `multiply`, in any order of
        addition.

        `a` and `b` have extent 1 along the axes they do not depend on, and nothing as large as the domain is
        built. The result keeps the other axes, with the extents of `a` and `b` together.
        """
        plan = Contraction(a.shape, b.shape, axes, domain)
        strong, sides = [is_strong(side) for side in (a, b)], [plain(side) for side in (a, b)]
        known = [np.asarray(is_finite(side), dtype=bool) for side in sides]
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
            terms = self.multiply(section(a, at, axes), section(b, at, axes))
            total[tuple(at)] = np.asarray(self.sum(np.broadcast_to(terms, summed), everything), dtype=object)[
                ()
            ]
        return total

    def _contracted(self, plan: Contraction, total: Balls, a: Balls, b: Balls) -> tuple[Balls, np.ndarray]:
        """The totals, widened by one rounding of each product and those of the sum; and where they may
        overflow."""
        assert self.dtype is not None
        gamma = self.gamma(plan.count)
        slack, absolute = self.dtype.unit_roundoff * (1 + gamma) + gamma, self.dtype.underflow * (1 + gamma)
        there = [~np.asarray(is_zero(side), dtype=bool) for side in (a, b)]
        terms = plan.numbers(*there)
        several, which = np.unique(terms, return_inverse=True)
        underflow = np.array([arb(0, absolute * count) for count in several], dtype=object)[
            which.reshape(terms.shape)
        ]
        magnitudes = plan.balls(*(magnitude(side) for side in (a, b)))
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
        result = reduced(np.multiply, factors, axes)
        count = int(np.prod([factors.shape[axis] for axis in axes], dtype=int))
        return self.model.widened(count - 1)(result) if count > 1 else result

    def extreme(self, values: Balls, axes: tuple[int, ...], largest: bool) -> Balls:
        return reduced(np.frompyfunc(arb.max if largest else arb.min, 2, 1), values, axes)

    def add_all(self, terms: Sequence[Balls]) -> Balls:
        """The sum of several arrays of one shape, an array also where that has no axes."""
        total = (
            terms[0] if len(terms) == 1 else self.sum(np.stack(np.broadcast_arrays(*terms)), (0,), apart=True)
        )
        return np.asarray(total, dtype=object)

    def multiply(self, a: Balls, b: Operand) -> Balls:
        return self._one_rounding(np.multiply(a, b))

    # Tables

    def _table(self, mode: str) -> Table:  # long because it is a table: one entry an operation
        slopes = mode != "values"
        once = self._one_rounding
        four = self.model.widened(1.25 if self.model.half else 4)
        cubed = self.model.widened(2)  # x*x*x, in any format
        # Compilers and kernels divide by multiplying with the reciprocal: two roundings. In 16 bits they are
        # in float32.
        quotient = self.model.widened(1.25 if self.model.half else 2)
        at_tie = MAYBE if mode == "slopes" else None

        def add(*terms: Operand) -> Balls:
            return (
                once(np.add(*terms))
                if len(terms) == 2
                else once(self.add_all([np.asarray(t, object) for t in terms]))
            )

        def mul(*factors: Operand) -> Operand:
            result = factors[0]
            for factor in factors[1:]:
                result = once(np.multiply(result, factor))
            return result

        def powered(base: Operand, exponent: int) -> Balls:
            return (once if exponent == 2 else cubed if exponent == 3 else four)(
                lift(lambda x: power(ball(x), exponent))(base)
            )

        def number(p: int, q: int) -> Operand:
            if p == 0:
                return ZERO if slopes else arb(0)
            exact = arb(fmpq(p, q))
            held = (q & (q - 1)) == 0 and (self.dtype is None or abs(p).bit_length() <= self.dtype.precision)
            return exact if held else once(exact)

        table: Table = {
            "add": add,
            "mul": mul,
            "neg": np.negative,
            "div": lambda a, b: quotient(lift(lambda x, y: x / ball(y), 2)(a, b)),
            "inverse": lambda b: once(lift(lambda y: 1 / ball(y))(b)),
            "power": powered,
            "powlog": lambda a, b: once(four(four(lift(_power_log, 2)(a, b)))),
            "pow": lambda a, b: four(lift(lambda x, y: ball(x) ** ball(y), 2)(a, b)),
            "number": number,
            "pi": lambda: once(arb.pi()),
            "e": lambda: once(arb.const_e()),
            "abs": lambda x: np.abs(x),
            "sign": lift(lambda x: (slope_of_abs if mode == "slopes" else sign)(ball(x))),
            "step": lift(lambda x: unmoved_step(ball(x)) if mode == "beside" else step(ball(x))),
            "dirac": lift(
                lambda x: ZERO if mode == "beside" and x is not ZERO and x.is_zero() else dirac(ball(x))
            ),
            "maximum": lambda *xs: fold(lift(lambda a, b: ball(a).max(ball(b)), 2), xs),
            "minimum": lambda *xs: fold(lift(lambda a, b: ball(a).min(ball(b)), 2), xs),
            "less": partial(compare, "<", at_tie, beside=mode == "beside"),
            "less_equal": partial(compare, "<=", at_tie, beside=mode == "beside"),
            "equal": partial(compare, "==", at_tie, beside=mode == "beside"),
            "sure_less": partial(compare, "<", None),
            "sure_less_equal": partial(compare, "<=", None),
            "sure_equal": partial(compare, "==", None),
            "sure_sign": lift(lambda x: sign(ball(x))),
            "sure_step": lift(lambda x: unmoved_step(ball(x))),
            "both": lambda *cs: fold(np.minimum, cs),
            "either": lambda *cs: fold(np.maximum, cs),
            "negate": lambda c: 1.0 - c,
            "true": 1.0,
            "false": 0.0,
            "piecewise": piecewise,
        }

        def logaddexp(a: Operand, b: Operand) -> Balls:
            less = np.negative(np.abs(add(a, np.negative(b))))
            return add(table["maximum"](a, b), table["log1p"](table["exp"](less)))

        table["logaddexp"] = logaddexp
        rounded = [row for row in FUNCTIONS.values() if row.roundings or row.steps]
        table |= {row.name: self.model.function(row) for row in rounded}
        return table


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


@cache
def exact() -> Arithmetic:
    """The arithmetic of enclosures."""
    return Arithmetic()


@cache
def rounding(dtype: DType, accumulator: DType | None = None) -> Arithmetic:
    """The arithmetic of everything that an implementation in this dtype may produce; its sums held in
    `accumulator`."""
    return Arithmetic(dtype, accumulator)


def _power_log(x: Ball, y: Ball) -> arb:
    """x**y * log(x), the slope of x**y by y; at x = 0 its limit, which is 0 where y is positive."""
    x, y = ball(x), ball(y)
    return NOUGHT if x.is_zero() and y > 0 else x**y * x.log()


def _others(factors: Balls, arithmetic: Arithmetic) -> Balls:
    """The product of the other factors along the last axis: prefix times suffix, so that zeros do no harm."""
    ones = full((*factors.shape[:-1], 1), arb(1))
    before = np.concatenate([ones, np.multiply.accumulate(factors[..., :-1], axis=-1)], axis=-1)
    after = np.multiply.accumulate(factors[..., :0:-1], axis=-1)[..., ::-1]
    after = np.concatenate([after, ones], axis=-1)
    result = np.multiply(before, after)
    # Some divide the whole product by the factor: two roundings more.
    for _ in range(factors.shape[-1] + 1 if arithmetic.dtype else 0):
        result = arithmetic.multiply(result, arb(1))
    return result


def _attaining(values: Balls, largest: bool, mode: str) -> Balls:
    """1 for the one entry that attains the extreme, ZERO for those that do not; at a tie, all from 0 to 1.

    Beside the point, entries that are exactly tied still are so all around, and share one.
    """
    pick = np.frompyfunc(arb.max if largest else arb.min, 2, 1)
    extreme = np.asarray(pick.reduce(values, axis=-1), dtype=object)[..., None]
    beaten = lift((lambda v, m: v < m) if largest else (lambda v, m: v > m), 2)(values, extreme).astype(bool)
    count = np.broadcast_to((~beaten).sum(axis=-1, keepdims=True), values.shape)
    out = full(values.shape, arb(0.5, 0.5))
    if mode == "beside":
        exactly = lift(lambda v, m: v is ZERO or same(v, m), 2)(values, extreme).astype(bool)
        shared = (exactly | beaten).all(axis=-1, keepdims=True) & ~beaten
        out[shared] = [1 / arb(int(n)) for n in count[shared]]
    out[beaten] = ZERO
    out[~beaten & (count == 1)] = arb(1)
    return out
