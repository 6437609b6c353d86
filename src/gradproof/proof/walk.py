"""The reference: values and pullbacks of a graph's nodes in ball arithmetic. Never torch, never JAX.

One walk forward and one back, over any run of nodes in evaluation order, in any arithmetic: exact or
rounding. A pullback carries a batch of cotangents, so that all rows of a Jacobian cost one walk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np
import sympy
from flint import arb
from sympy import S

from ..causes import Singular
from .arithmetic import Arithmetic, exact
from .balls import ZERO, Ball, Balls, as_float, ball, hull
from .formulas import compiled
from .functions import second_slope
from .graph import Node, Shape, open_axes, slot, still
from .places import Places, places
from .slopes import partials

Values = dict[str, Balls]
Array = Any  # an arithmetic's own: of balls, or of midpoints beside radii
Algebra = Any  # Arithmetic, or what has its operations: `Fast`


class Site:
    """A node where it is evaluated: over its whole domain."""

    ready: Callable[[Algebra], Array] | None = None  # its values, where they are known without its terms

    def __init__(self, node: Node) -> None:
        self.node = node
        self.domain = node.domain
        self.outer = len(node.shape)  # how many of the domain's axes are the value's

    @cached_property
    def axes(self) -> dict[sympy.Symbol, np.ndarray]:
        """Each index's range, open over the others."""
        return dict(zip(self.node.indices, open_axes(self.domain), strict=True))

    @property
    def shape(self) -> Shape:
        return self.domain[: self.outer]

    @property
    def summed(self) -> tuple[int, ...]:
        """The axes that are reduced over."""
        return tuple(range(self.outer, len(self.domain)))

    def where(self, n: int, values: Mapping[str, Array]) -> Places:
        """Where the n-th read goes, in its parent's values."""
        read = self.node.reads[n]
        return places(read.index, self.node.indices, self.domain, values[read.parent].shape)

    def target(self, n: int, values: Mapping[str, Array]) -> Places:
        """Where a cotangent goes that is passed to the n-th read's parent."""
        return self.where(n, values)

    def reads(self, symbols: Collection[sympy.Symbol]) -> bool:
        """Whether it knows where the slots among these symbols go."""
        return True

    def spread(self, cotangent: Array) -> Array:
        """A cotangent of the node's, batch first, over the domain."""
        return cotangent.reshape(cotangent.shape + (1,) * len(self.node.over))


def _over(
    site: Site,
    formula: sympy.Expr,
    values: Mapping[str, Array],
    arithmetic: Algebra,
    mode: str = "values",
    wanted: Collection[str] | None = None,
) -> Array:
    """The formula over the node's domain: an array that broadcasts to it. A slope is told what gradients
    move, `wanted`."""
    node, used = site.node, formula.free_symbols
    symbols = tuple(s for s in (*node.slots, *node.indices) if s in used)
    slots = {z: n for n, z in enumerate(node.slots)}
    arrays = [
        site.axes[symbol]
        if (n := slots.get(symbol)) is None
        else arithmetic.read(values[node.reads[n].parent], site.where(n, values), node.reads[n].fill)
        for symbol in symbols
    ]
    if wanted is not None:
        still = tuple(
            n for n, read in enumerate(node.reads) if read.parent not in wanted and slot(n) in symbols
        )
        formula, symbols = _settled(formula, symbols, still)
    return arithmetic.applied(compiled(formula, symbols, arithmetic, mode), arrays)


@lru_cache(maxsize=4096)
def _settled(
    formula: sympy.Expr, symbols: tuple[sympy.Symbol, ...], still_ones: tuple[int, ...]
) -> tuple[sympy.Expr, tuple[sympy.Symbol, ...]]:
    """The formula with the slots named as given that no gradient moves, so that conditions on them are
    decided."""
    names = {slot(n): still(n) for n in still_ones}
    return formula.xreplace(names), tuple(names.get(symbol, symbol) for symbol in symbols)


def is_contraction(node: Node) -> bool:
    """Whether it sums products of two reads, as a product of matrices or a convolution does."""
    return node.reduce == "sum" and len(node.reads) == 2 and node.formula == sympy.Mul(*node.slots)


def evaluate(
    nodes: Iterable[Node],
    values: Mapping[str, Array],
    arithmetic: Algebra,
    at: Callable[[Node], Site | None] = Site,
) -> dict[str, Array]:
    """The nodes' values, beside those given; every array has its node's shape, or that of where it is
    evaluated, `at` (None: nowhere)."""
    known = dict(values)
    for node in nodes:
        site = at(node)
        if site is None:
            continue
        if site.ready is not None:
            known[node.name] = arithmetic.settle(site.ready(arithmetic))
            continue
        if is_contraction(node):
            a, b = (
                arithmetic.read(known[read.parent], site.where(n, known), read.fill)
                for n, read in enumerate(node.reads)
            )
            total = arithmetic.contract(a, b, site.summed, site.domain)
            known[node.name] = arithmetic.settle(arithmetic.broadcast(total, site.shape))
            continue
        mode = "values" if node.moving is None else "slopes"
        terms = _over(site, node.formula, known, arithmetic, mode, node.moving)
        if node.other is not None and arithmetic.dtype is not None:
            terms = arithmetic.either(terms, _over(site, node.other, known, arithmetic, mode, node.moving))
        if node.weighs is not None:
            weighed = _over(site, node.weighs.formula, known, arithmetic)
            terms = arithmetic.multiply(terms, arithmetic.weights(weighed, node.weighs, mode))
        terms = arithmetic.broadcast(terms, site.domain)
        match node.reduce:
            case "sum":
                terms = arithmetic.sum(terms, site.summed)
            case "prod":
                terms = arithmetic.product(terms, site.summed)
            case "max" | "min":
                terms = arithmetic.extreme(terms, site.summed, node.reduce == "max")
        known[node.name] = arithmetic.settle(arithmetic.array(terms))
    return known


def pullback(
    nodes: Sequence[Node],
    values: Mapping[str, Array],
    cotangents: Mapping[str, Array],
    wanted: Collection[str],
    arithmetic: Algebra,
    tally: dict[str, tuple[int, Array]] | None = None,
    mode: str = "slopes",
    use: Callable[[Node, int], Site | None] = lambda node, n: Site(node),
    told: Mapping[str, Callable[[Algebra], Array]] | None = None,
) -> dict[str, Array]:
    """The cotangents that the nodes pass on: `Σ Jᵀ·cotangent` for each name wanted, all uses added.

    `values` holds the nodes' own values too; `cotangents` maps a node to an array of shape (batch, *shape).
    Only names in `wanted` receive anything; a name that nothing reaches is absent. The nodes' own cotangents
    are in the result too. A `tally` receives, for each name from outside, how many parts were added and the
    sum of their magnitudes. With `mode` "beside" the values are those of a point that was moved off its
    kinks: see `Arithmetic`. Of nodes whose cotangent is `told`, it is not made of what reads them.
    """
    arriving: dict[str, list[Array]] = {name: [cotangent] for name, cotangent in cotangents.items()}
    arriving |= {name: [tell(arithmetic)] for name, tell in (told or {}).items()}
    arrived: dict[str, Array] = {}
    for node in reversed(nodes):
        if node.shift or node.name not in arriving:
            continue
        cotangent = arrived[node.name] = arithmetic.settle(arithmetic.add_all(arriving.pop(node.name)))
        slopes = partials(node.formula, len(node.reads), textbook=arithmetic.dtype is not None)
        for n, (read, slope) in enumerate(zip(node.reads, slopes, strict=True)):
            site = None if slope is S.Zero or read.parent not in wanted else use(node, n)
            if site is not None:
                terms, factor = _passed(site, slope, cotangent, values, wanted, arithmetic, mode)
                terms = _scattered(terms, factor, site, site.target(n, values), arithmetic)
                arriving.setdefault(read.parent, []).append(terms)
    if tally is not None:
        tally |= {name: (len(terms), reduce(np.add, map(np.abs, terms))) for name, terms in arriving.items()}
    return arrived | {name: arithmetic.settle(arithmetic.add_all(terms)) for name, terms in arriving.items()}


def _passed(
    site: Site,
    slope: sympy.Expr,
    cotangent: Array,
    values: Mapping[str, Array],
    wanted: Collection[str],
    arithmetic: Algebra,
    mode: str,
) -> tuple[Array, Array | None]:
    """A cotangent over a node's domain, and the slope that it is multiplied with, where that is not 1 or
    -1."""
    node, terms = site.node, site.spread(cotangent)
    if node.reduce in ("prod", "max", "min"):
        weight = arithmetic.weights(_over(site, node.formula, values, arithmetic), node, mode)
        terms = arithmetic.multiply(terms, weight)
    if slope is S.NegativeOne:
        return -terms, None
    return terms, None if slope is S.One else _factor(site, slope, values, wanted, arithmetic, mode)


def _factor(
    site: Site,
    slope: sympy.Expr,
    values: Mapping[str, Array],
    wanted: Collection[str],
    arithmetic: Algebra,
    mode: str,
) -> Array:
    """A slope over the domain; with rounding, in each form that implementations use."""
    factor = _over(site, slope, values, arithmetic, mode, wanted)
    other = None if arithmetic.dtype is None else second_slope(site.node.formula, slot(0))
    if other is None:
        return factor
    return arithmetic.either(factor, _over(site, other, values, arithmetic, mode, wanted))


def _scattered(terms: Array, factor: Array | None, site: Site, where: Places, arithmetic: Algebra) -> Array:
    """Add the terms, times the factor, up at the places they were read from: the transpose of the read.

    Terms begin with the batch; the factor has no such axis.
    """
    domain = (terms.shape[0], *site.domain)
    # Axes that the read does not depend on are sums; what is left is mostly one to one.
    unread = tuple(
        n for n, (extent, read) in enumerate(zip(site.domain, where.read, strict=True), 1)
        if not read and extent > 1
    )  # fmt: skip
    if factor is not None:
        factor = factor.reshape((1,) * (len(domain) - factor.ndim) + factor.shape)
        terms = (
            arithmetic.contract(terms, factor, unread, domain)
            if unread
            else arithmetic.multiply(terms, factor)
        )
    elif unread:
        terms = arithmetic.sum(arithmetic.broadcast(terms, domain), unread)
    left = tuple(extent for n, extent in enumerate(domain) if n not in unread)
    return arithmetic.scatter(arithmetic.broadcast(terms, left), where)


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
            if not _all_finite(_over(Site(node), slope, values, arithmetic, "slopes")):
                found = Singular(node.expression, True, _operand(node, values, slope, arithmetic, "slopes"))
    return found


def tied(
    nodes: Sequence[Node],
    values: Mapping[str, Array],
    wanted: Collection[str],
    sites: Callable[[Node], Iterable[Site]] = lambda node: (Site(node),),
    arithmetic: Algebra | None = None,
) -> bool:
    """Whether a branch's condition stands at its boundary, or a sign at 0, and something `wanted` is in it:
    there a formula may jump."""
    arithmetic = arithmetic or exact()
    for node in nodes:
        moved = tuple(z for z, read in zip(node.slots, node.reads, strict=True) if read.parent in wanted)
        for edge in _edges(node.formula, moved):
            for site in sites(node):
                if site.reads(edge.free_symbols) and arithmetic.near_zero(
                    _over(site, edge, values, arithmetic)
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
    site, (read,) = Site(node), node.reads
    result = np.broadcast_to(_over(site, formula, values, arithmetic, mode), node.domain).reshape(-1)
    got = arithmetic.read(values[read.parent], site.where(0, values), read.fill)
    operand = np.broadcast_to(got, node.domain).reshape(-1)
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
