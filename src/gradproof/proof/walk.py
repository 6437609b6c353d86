"""The reference: values and pullbacks of a graph's nodes in ball arithmetic. Never torch, never JAX.

One walk forward and one back, over any run of nodes in evaluation order, in any arithmetic: exact or
rounding. A pullback carries a batch of cotangents, so that all rows of a Jacobian cost one walk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
import sympy
from flint import arb
from sympy import S

from ..causes import Singular
from .arithmetic import Arithmetic, exact
from .balls import NOUGHT, ZERO, Ball, Balls, as_float, ball, full, hull, lift, numbers, same
from .formulas import compiled
from .functions import second_slope
from .graph import Lookup, Node, Read, Shape, open_axes, size, slot, still
from .slopes import partials

Values = dict[str, Balls]


@dataclass(frozen=True, eq=False)
class Places:
    """Where a read goes: flat positions in the parent, open over the axes it does not depend on."""

    flat: np.ndarray
    inside: np.ndarray | None  # None: everywhere


@lru_cache(maxsize=4096)
def places(
    index: tuple[sympy.Expr, ...], indices: tuple[sympy.Symbol, ...], domain: Shape, parent: Shape
) -> Places:
    """The read's index map over the domain, as positions in the parent's memory."""
    axes = dict(zip(indices, open_axes(domain), strict=True))
    flat = np.zeros((1,) * len(domain), dtype=np.int64)
    inside: np.ndarray | None = None
    for expression, extent in zip(index, parent, strict=True):
        position = _position(expression, axes)
        outside = (position < 0) | (position >= extent)
        if outside.any():
            inside = ~outside if inside is None else inside & ~outside
            position = np.where(outside, 0, position)
        flat = flat * extent + position
    return Places(flat, inside)


def _position(expression: sympy.Expr, axes: Mapping[sympy.Symbol, np.ndarray]) -> np.ndarray:
    if expression.is_Symbol:
        return axes[expression]
    if expression.is_Integer:
        return np.asarray(int(expression))
    if isinstance(expression, Lookup):
        table = expression.func.table
        return (
            table[tuple(_position(argument, axes) for argument in expression.args)] if table.ndim else table
        )
    if isinstance(expression, sympy.floor):
        # In integers: a quotient in floating point can round across the next one.
        over, under = sympy.fraction(sympy.together(expression.args[0]))
        return _position(sympy.expand(over), axes) // int(under)
    if isinstance(expression, sympy.Mod):
        return _position(expression.args[0], axes) % int(expression.args[1])
    parts = [_position(part, axes) for part in expression.args]
    return reduce(np.add if expression.is_Add else np.multiply, parts)


def _read(node: Node, read: Read, values: Mapping[str, Balls]) -> Balls:
    parent = values[read.parent]
    where = places(read.index, node.indices, node.domain, parent.shape)
    got = parent.reshape(-1)[where.flat]
    return got if where.inside is None else np.where(where.inside, got, full((), arb(read.fill)))


def _arguments(
    node: Node, formula: sympy.Expr, values: Mapping[str, Balls]
) -> tuple[tuple[sympy.Symbol, ...], list[np.ndarray]]:
    """The symbols that the formula uses and their arrays over the node's domain."""
    used = formula.free_symbols
    axes = dict(zip(node.indices, open_axes(node.domain), strict=True))
    symbols = [s for s in (*node.slots, *node.indices) if s in used]
    reads = dict(zip(node.slots, node.reads, strict=True))
    return tuple(symbols), [axes[s] if s in axes else _read(node, reads[s], values) for s in symbols]


def _over(
    node: Node,
    formula: sympy.Expr,
    values: Mapping[str, Balls],
    arithmetic: Arithmetic,
    mode: str = "values",
    wanted: Collection[str] | None = None,
) -> Balls:
    """The formula over the node's domain: an array that broadcasts to it. A slope is told what gradients
    move, `wanted`."""
    symbols, arrays = _arguments(node, formula, values)
    if wanted is not None:
        still = tuple(
            n for n, read in enumerate(node.reads) if read.parent not in wanted and slot(n) in symbols
        )
        formula, symbols = _settled(formula, symbols, still)
    return np.asarray(compiled(formula, symbols, arithmetic, mode)(*arrays), dtype=object)


@lru_cache(maxsize=4096)
def _settled(
    formula: sympy.Expr, symbols: tuple[sympy.Symbol, ...], still_ones: tuple[int, ...]
) -> tuple[sympy.Expr, tuple[sympy.Symbol, ...]]:
    """The formula with the slots named as given that no gradient moves, so that conditions on them are
    decided."""
    names = {slot(n): still(n) for n in still_ones}
    return formula.xreplace(names), tuple(names.get(symbol, symbol) for symbol in symbols)


def _summed_axes(node: Node) -> tuple[int, ...]:
    return tuple(range(len(node.shape), len(node.domain)))


def _is_contraction(node: Node) -> bool:
    """Whether the terms are products of two reads, as in a product of matrices or a convolution."""
    return len(node.reads) == 2 and node.formula == sympy.Mul(*node.slots)


def evaluate(nodes: Iterable[Node], values: Mapping[str, Balls], arithmetic: Arithmetic) -> Values:
    """The nodes' values, beside those given; every array has its node's shape."""
    known = dict(values)
    for node in nodes:
        if node.reduce == "sum" and _is_contraction(node):
            a, b = (_read(node, read, known) for read in node.reads)
            total = arithmetic.contract(a, b, _summed_axes(node), node.domain)
            known[node.name] = arithmetic.settle(np.broadcast_to(total, node.shape))
            continue
        terms = np.broadcast_to(_over(node, node.formula, known, arithmetic), node.domain)
        match node.reduce:
            case "sum":
                terms = arithmetic.sum(terms, _summed_axes(node))
            case "prod":
                terms = arithmetic.product(terms, _summed_axes(node))
            case "max" | "min":
                terms = arithmetic.extreme(terms, _summed_axes(node), node.reduce == "max")
        known[node.name] = arithmetic.settle(np.asarray(terms, dtype=object))
    return known


def pullback(
    nodes: Sequence[Node],
    values: Mapping[str, Balls],
    cotangents: Mapping[str, Balls],
    wanted: Collection[str],
    arithmetic: Arithmetic,
    tally: dict[str, tuple[int, Balls]] | None = None,
    mode: str = "slopes",
) -> Values:
    """The cotangents that the nodes pass on: `Σ Jᵀ·cotangent` for each name wanted, all uses added.

    `values` holds the nodes' own values too; `cotangents` maps a node to an array of shape (batch, *shape).
    Only names in `wanted` receive anything; a name that nothing reaches is absent. The nodes' own cotangents
    are in the result too. A `tally` receives, for each name from outside, how many parts were added and the
    sum of their magnitudes. With `mode` "beside" the values are those of a point that was moved off its
    kinks: see `Arithmetic`.
    """
    arriving: dict[str, list[Balls]] = {name: [cotangent] for name, cotangent in cotangents.items()}
    arrived: Values = {}
    for node in reversed(nodes):
        if node.shift or node.name not in arriving:
            continue
        cotangent = arrived[node.name] = arithmetic.settle(arithmetic.add_all(arriving.pop(node.name)))
        batch = cotangent.shape[0]
        spread = cotangent.reshape(cotangent.shape + (1,) * len(node.over))
        weight: Balls | None = None
        slopes = partials(node.formula, len(node.reads), textbook=arithmetic.dtype is not None)
        for read, slope in zip(node.reads, slopes, strict=True):
            if slope is S.Zero or read.parent not in wanted:
                continue
            terms, factor = spread, None
            if node.reduce in ("prod", "max", "min"):
                weight = _weights(node, values, arithmetic, mode) if weight is None else weight
                terms = arithmetic.multiply(terms, weight)
            if slope is S.NegativeOne:
                terms = np.negative(terms)
            elif slope is not S.One:
                factor = _over(node, slope, values, arithmetic, mode, wanted)
                if (
                    arithmetic.dtype is not None
                    and (other := second_slope(node.formula, slot(0))) is not None
                ):
                    factor = _either(factor, _over(node, other, values, arithmetic, mode, wanted))
            parent = values[read.parent].shape
            where = places(read.index, node.indices, node.domain, parent)
            arriving.setdefault(read.parent, []).append(
                _scattered(terms, factor, (batch, *node.domain), where, parent, arithmetic)
            )
    if tally is not None:
        tally |= {name: (len(terms), reduce(np.add, map(np.abs, terms))) for name, terms in arriving.items()}
    return arrived | {name: arithmetic.settle(arithmetic.add_all(terms)) for name, terms in arriving.items()}


def _either(a: Balls, b: Balls) -> Balls:
    """What one form gives or the other; a form that has no value here is no way to compute it."""
    return lift(lambda x, y: x.union(y) if x.is_finite() and y.is_finite() else x, 2)(numbers(a), numbers(b))


def _scattered(
    terms: Balls, factor: Balls | None, domain: Shape, where: Places, parent: Shape, arithmetic: Arithmetic
) -> Balls:
    """Add the terms, times the factor, up at the places they were read from: the transpose of the read.

    The domain begins with the batch; the factor has no such axis.
    """
    batch = domain[0]
    # Axes that the read does not depend on are sums; what is left is mostly one to one.
    unread = tuple(n for n, extent in enumerate(where.flat.shape, 1) if extent == 1 and domain[n] > 1)
    if factor is not None:
        factor = factor.reshape((1,) * (len(domain) - factor.ndim) + factor.shape)
        terms = (
            arithmetic.contract(terms, factor, unread, domain)
            if unread
            else arithmetic.multiply(terms, factor)
        )
    elif unread:
        terms = arithmetic.sum(np.broadcast_to(terms, domain), unread)
    left = tuple(extent for n, extent in enumerate(domain) if n not in unread)
    terms = np.broadcast_to(np.asarray(terms, dtype=object), left).reshape(batch, -1)
    positions = where.flat.reshape(-1)
    if where.inside is not None:
        chosen = np.flatnonzero(np.broadcast_to(where.inside, where.flat.shape))
        positions, terms = positions[chosen], terms[:, chosen]
    out = full((batch, size(parent)), ZERO)
    order = np.argsort(positions, kind="stable")
    targets, starts, counts = np.unique(positions[order], return_index=True, return_counts=True)
    if len(targets) == len(positions):
        out[:, positions] = terms
    elif len(targets):
        sorted_terms = terms[:, order]
        sums = np.add.reduceat(sorted_terms, starts, axis=1)
        slack = np.array([arb(0, arithmetic.gamma(int(count))) for count in counts], dtype=object)
        if arithmetic.dtype is not None:
            sums = sums + np.add.reduceat(np.abs(sorted_terms), starts, axis=1) * slack
        out[:, targets] = sums
    return out.reshape(batch, *parent)


def _weights(node: Node, values: Mapping[str, Balls], arithmetic: Arithmetic, mode: str) -> Balls:
    """The derivative of a product or an extreme by its terms, over the domain."""
    terms = np.broadcast_to(_over(node, node.formula, values, arithmetic), node.domain)
    reduced = size(node.over)
    flat = terms.reshape(*node.shape, reduced)
    weights = (
        _others(flat, arithmetic) if node.reduce == "prod" else _attaining(flat, node.reduce == "max", mode)
    )
    return weights.reshape(node.domain)


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


def singular(nodes: Sequence[Node], values: Mapping[str, Balls], arithmetic: Arithmetic) -> Singular | None:
    """Where a run leaves the numbers: the first operation without a finite value, or without a finite
    derivative; None if there is none."""
    found = None
    for node in nodes:
        used = [read for read in node.reads if read.parent in values]
        if any(not _all_finite(values[read.parent]) for read in used):
            continue
        if not _all_finite(values[node.name]):
            return Singular(node.expression, False, _operand(node, values, node.formula, arithmetic))
        for slope in partials(node.formula, len(node.reads), textbook=False):
            if found or node.shift or not slope.free_symbols:
                continue
            if not _all_finite(_over(node, slope, values, arithmetic, "slopes")):
                found = Singular(node.expression, True, _operand(node, values, slope, arithmetic, "slopes"))
    return found


def tied(nodes: Sequence[Node], values: Mapping[str, Balls], wanted: Collection[str]) -> bool:
    """Whether a branch's condition stands at its boundary, or a sign at 0, and something `wanted` is in it:
    there a formula may jump."""
    arithmetic = exact()
    for node in nodes:
        moved = tuple(z for z, read in zip(node.slots, node.reads, strict=True) if read.parent in wanted)
        for edge in _edges(node.formula, moved):
            if any(
                x is not ZERO and x.contains(NOUGHT)
                for x in _over(node, edge, values, arithmetic).reshape(-1)
            ):
                return True
    return False


@lru_cache(maxsize=1024)
def _edges(formula: sympy.Expr, slots: tuple[sympy.Symbol, ...]) -> tuple[sympy.Expr, ...]:
    """The expressions of these slots whose zeros are the boundaries of a formula's branches."""
    relations = [r.lhs - r.rhs for r in formula.atoms(sympy.core.relational.Relational)]
    signs = [call.args[0] for call in formula.atoms(sympy.sign)]
    return tuple(e for e in (*relations, *signs) if not e.free_symbols.isdisjoint(slots))


def _all_finite(array: Balls) -> bool:
    return all(x is ZERO or x.is_finite() for x in array.reshape(-1))


def _operand(
    node: Node, values: Mapping[str, Balls], formula: sympy.Expr, arithmetic: Arithmetic, mode: str = "values"
) -> float | None:
    """The operand of the entry that is not finite, where the operation has one."""
    if len(node.reads) != 1:
        return None
    result = np.broadcast_to(_over(node, formula, values, arithmetic, mode), node.domain).reshape(-1)
    operand = np.broadcast_to(_read(node, node.reads[0], values), node.domain).reshape(-1)
    broken = (x for x, y in zip(operand, result, strict=True) if not (y is ZERO or y.is_finite()))
    return next((as_float(x.mid()) + 0.0 for x in broken), None)


def replaced(values: Balls, position: int, value: Ball) -> Balls:
    """The array with one entry changed."""
    changed = values.copy()
    changed.reshape(-1)[position] = value
    return changed


NEAR, FAR = arb(2) ** -400, arb(2) ** -300  # steps to the side of a point


@dataclass(frozen=True)
class OneSided:
    """The derivative on the two sides of an entry: `ball` spans both; nan where there is none."""

    ball: arb
    smooth: bool
    wide: bool = False  # a tie went along with the step


def one_sided(slope_at: Callable[[arb], Ball]) -> OneSided:
    """The limits of a derivative from both sides of a point, given the derivative at a small distance from
    it.

    Taken at two distances far below any working precision: a limit exists where they agree. Where one side is
    outside of the function's domain, the other is the derivative there. A kink that goes along with the step
    stays a wide ball.
    """
    sides = []
    wide = False
    for sign in (1, -1):
        near, far = (ball(slope_at(sign * step)) for step in (NEAR, FAR))
        if not (near.is_finite() and far.is_finite()):
            sides.append(arb("nan"))
        elif near.rad() > abs(near) * arb(2) ** -60 + arb(2) ** -200:
            wide = True
            sides.append(near)
        else:
            # Absolutely too: a limit of 0 is reached as slowly as the root of the step.
            settled = abs(near - far) < (abs(near) + abs(far)) * arb(2) ** -60 + arb(2) ** -90
            sides.append(near if settled else arb("+inf"))
    right, left = sides
    if right.is_nan() != left.is_nan():
        return OneSided(left if right.is_nan() else right, smooth=True)
    if not (right.is_finite() and left.is_finite()):
        return OneSided(arb("nan"), smooth=False)
    if wide:
        return OneSided(hull(left, right), smooth=False, wide=True)
    together = abs(right - left) < (abs(right) + abs(left)) * arb(2) ** -50 + arb(2) ** -150
    return OneSided(hull(left, right), smooth=bool(together))
