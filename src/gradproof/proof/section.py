"""Sections: the part of a run that some of its entries are made of, as a run of its own.

What one entry of a value, or of a cotangent, is made of is a small part of a large run: the places that its
reads go to, and so on back to the leaves. Each node keeps its formula and its axes of summation, over these
places alone; so the walk, and every arithmetic, gives of a section what it gives of the whole at these
entries.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import frexp, inf, isfinite, prod
from typing import Any

import numpy as np
import sympy
from flint import arb

from ..errors import UnsupportedError
from .balls import Balls, balls
from .enclosure import Run
from .fast import Told, balls_of
from .functions import second_slope
from .graph import Node, Shape, open_axes, size, slot
from .places import flattened, gathered, position
from .slopes import partials
from .walk import Site

MAX_GRID = 30_000_000  # places that are looked through for those that an entry was read from
MAX_TERMS = 3_000_000  # of a section
LONG = 200  # terms of a sum that is added up in floats
# Terms of some entries of a value, beyond which floats tell them where they are sharp enough: at any time,
# and where nothing is refuted by it.
HEAVY, LIGHT = 20_000, 200


Known = Callable[[str, np.ndarray], Told | None]  # of some entries of a value, where floats are sharp enough


@dataclass(frozen=True, eq=False)
class Listed:
    """Places of a read in a list of a parent's entries; see `Places`."""

    flat: np.ndarray
    inside: np.ndarray | None
    parent: Shape
    read: tuple[bool, ...]
    strides: None = None
    whole: bool = False


class Part(Site):
    """A node over some places of its domain: its indices there, and where each read goes in its parent's
    list."""

    def __init__(self, node: Node, domain: Shape, outer: int, axes: dict[sympy.Symbol, np.ndarray]) -> None:
        self.node, self.domain, self.outer = node, domain, outer
        self.indices = axes
        self.found: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self.listed: dict[int, Listed] = {}
        self.own: np.ndarray | None = None  # of a use: the node's own entries
        self.passed: Listed | None = None  # and where its terms are added up

    @property
    def axes(self) -> dict[sympy.Symbol, np.ndarray]:
        return self.indices

    def where(self, n: int, values: object) -> Listed:  # type: ignore[override]
        return self.listed[n]

    def target(self, n: int, values: object) -> Listed:  # type: ignore[override]
        assert self.passed is not None
        return self.passed

    def reads(self, symbols: Collection[sympy.Symbol]) -> bool:
        return all(z not in symbols or n in self.listed for n, z in enumerate(self.node.slots))

    def spread(self, cotangent: object) -> object:
        assert self.own is not None
        return cotangent.reshape(cotangent.shape[0], -1)[:, self.own]  # type: ignore[attr-defined]

    def find(self, n: int, shape: Shape) -> np.ndarray:
        """Where the n-th read goes in the whole parent: those places of it that are needed."""
        positions = [position(e, self.indices) for e in self.node.reads[n].index]
        flat, inside = flattened(positions, shape, len(self.domain))
        self.found[n] = flat, inside
        return (flat if inside is None else flat[np.broadcast_to(inside, flat.shape)]).reshape(-1)


@dataclass
class _Needs:
    """Entries that are needed, by name: positions, in the order of their lists."""

    first: dict[str, np.ndarray] = field(default_factory=dict)
    more: dict[str, list[np.ndarray]] = field(default_factory=dict)
    lists: dict[str, np.ndarray] = field(default_factory=dict)
    orders: dict[str, np.ndarray] = field(default_factory=dict)  # of each list, what sorts it

    def add(self, name: str, positions: np.ndarray) -> None:
        self.more.setdefault(name, []).append(positions.reshape(-1))

    def list(self, name: str) -> np.ndarray:
        """The entries in order, those asked for first."""
        if name not in self.lists:
            first = self.first.get(name)
            rest = np.unique(np.concatenate(self.more.get(name, [np.zeros(0, np.int64)])))
            if first is None and not rest.size:
                rest = np.zeros(1, np.int64)  # all reads go beyond its edge
            self.lists[name] = rest if first is None else np.concatenate([first, np.setdiff1d(rest, first)])
        return self.lists[name]

    def placed(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Positions in the whole as positions in the list."""
        mine = self.list(name)
        if name not in self.orders:
            self.orders[name] = np.argsort(mine, kind="stable")
        order = self.orders[name]
        found = np.searchsorted(mine, positions.reshape(-1), sorter=order)
        return order[np.minimum(found, len(mine) - 1)].reshape(positions.shape)


@dataclass(frozen=True, eq=False)
class Section:
    """A run over some entries, and what it is given: of each name a list of entries."""

    run: Run
    entries: Mapping[str, np.ndarray]

    def of(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The lists of the entries of these arrays that are needed."""
        needed = {name: array for name, array in arrays.items() if name in self.entries}
        return {name: array.reshape(-1)[self.entries[name]] for name, array in needed.items()}

    def rows(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same of cotangents of the outputs that are needed, rows first."""
        return {
            name: array.reshape(len(array), -1)[:, self.entries[f"∂{name}"]]
            for name, array in arrays.items()
            if f"∂{name}" in self.entries
        }


class _Maker:
    def __init__(
        self,
        nodes: Sequence[Node],
        given: Mapping[str, np.ndarray],
        known: Known | None = None,
        *,
        moving: bool = False,
        most: int = MAX_TERMS,
        heavily: int = HEAVY,
    ) -> None:
        self.most, self.heavily = most, heavily
        self.nodes, self.given, self.known = nodes, given, known
        self.moving = moving  # whether the given numbers will be moved: then no sum of theirs is ready
        self.shapes = {name: array.shape for name, array in given.items()}
        self.shapes |= {node.name: node.shape for node in nodes}
        self.values, self.cotangents = _Needs(), _Needs()
        self.parts: dict[str, Part] = {}
        self.uses: dict[tuple[str, int], Part] = {}
        self.told: dict[str, Callable[[Any], Balls]] = {}
        self.terms = 0
        self.blurred = False  # whether floats tell a part of it

    def counted(self, part: Part) -> Part:
        self.terms += prod(part.domain)
        if self.terms > self.most:
            raise UnsupportedError("it is made of too many terms")
        return part

    def needed_values(self) -> None:
        """From the last node back: what each value that is needed reads."""
        for node in reversed(self.nodes):
            if node.name not in self.values.more and node.name not in self.values.first:
                continue
            if (ready := self.long_sum(node) or self.heavy(node)) is not None:
                self.parts[node.name] = ready
                continue
            at = np.unravel_index(self.values.list(node.name), node.shape) if node.shape else ()
            domain = (len(self.values.list(node.name)), *node.over)
            entries, *over = open_axes(domain)
            places = [*(index.reshape(entries.shape) for index in at), *over]
            part = self.counted(Part(node, domain, 1, dict(zip(node.indices, places, strict=True))))
            self.parts[node.name] = part
            for n, read in enumerate(node.reads):
                self.values.add(read.parent, part.find(n, self.shapes[read.parent]))

    def long_sum(self, node: Node) -> Part | None:
        """A sum of very many numbers that are given: floats add them up exactly."""
        if self.moving or node.reduce != "sum" or node.formula != slot(0) or size(node.over) < LONG:
            return None
        array = self.given.get(node.reads[0].parent)
        if array is None or array.dtype == object or not np.isfinite(array).all():
            return None
        where = Site(node).where(0, self.given)
        terms = np.broadcast_to(gathered(array, where, node.reads[0].fill), node.domain)
        rows = terms.reshape(-1, size(node.over))[self.values.list(node.name)]
        totals = np.array([sum(map(arb, exact_sum(row)), arb(0)) for row in rows], dtype=object)
        sizes = np.asarray(balls(np.abs(rows).sum(axis=1)) * arb(1, 2.0**-53 * size(node.over)), object)
        part = Part(node, (len(rows),), 1, {})
        part.ready = lambda arithmetic: arithmetic.model.of_total(totals, sizes, size(node.over))
        return part

    def heavy(self, node: Node) -> Part | None:
        """Entries that would be made of very many terms, as floats know them: the exact ball has the floats'
        own error for its radius, the rounding one their inner radius."""
        entries = self.values.list(node.name)
        asked = node.name in self.values.first
        if self.known is None or asked or len(entries) * size(node.over) <= self.heavily:
            return None
        found = self.known(node.name, entries)
        if found is None:
            return None
        sharp, wide = balls_of(found)
        self.blurred = True
        part = Part(node, (len(entries),), 1, {})
        part.ready = lambda arithmetic: sharp if arithmetic.dtype is None else wide
        return part

    def needed_cotangents(self, wanted: frozenset[str]) -> None:
        """From the first node on: which of its cotangents each parent's come from, and what its slopes
        read."""
        for node in self.nodes:
            if node.shift:
                continue
            slopes = partials(node.formula, len(node.reads), textbook=False)
            symbols = [
                a.free_symbols
                | b.free_symbols
                | ({slot(0)} if second_slope(node.formula, slot(0)) else set())
                for a, b in zip(slopes, partials(node.formula, len(node.reads), textbook=True), strict=True)
            ]
            for n, read in enumerate(node.reads):
                here = read.parent in self.cotangents.first or read.parent in self.cotangents.more
                if not here or read.parent not in wanted or slopes[n] is sympy.S.Zero:
                    continue
                if self.is_told(node, read.parent):
                    continue
                if node.reduce in ("prod", "max", "min"):
                    raise UnsupportedError(f"a {node.reduce} is looked at as a whole")
                part = self.counted(_preimage(node, n, self.cotangents.list(read.parent), self.shapes))
                self.uses[node.name, n] = part
                own = [part.indices[symbol] for symbol in node.indices[: len(node.shape)]]
                part.own, _ = flattened(own, node.shape, len(part.domain))
                self.cotangents.add(node.name, part.own)
                for k, mine in enumerate(node.reads):
                    if slot(k) in symbols[n]:
                        self.values.add(mine.parent, part.find(k, self.shapes[mine.parent]))

    def is_told(self, node: Node, parent: str) -> bool:
        """Whether floats know these entries of the parent's cotangent, which would be made of very many
        terms."""
        if self.known is None or parent in self.cotangents.first or parent in self.told:
            return parent in self.told
        entries = self.cotangents.list(parent)
        if len(entries) * size(node.domain) <= self.heavily * max(1, size(self.shapes[parent])):
            return False
        found = self.known(f"∂{parent}", entries)
        if found is None:
            return False
        sharp, wide = balls_of(found)
        self.blurred = True
        self.told[parent] = lambda arithmetic: (sharp if arithmetic.dtype is None else wide)[None]
        return True

    def placed(self) -> None:
        """Each read's places in the lists."""
        for part in [*self.parts.values(), *self.uses.values()]:
            for n, (flat, inside) in part.found.items():
                name = part.node.reads[n].parent
                mine = self.values.placed(name, flat)
                read = tuple(
                    extent > 1 for extent in np.broadcast_shapes(mine.shape, (1,) * len(part.domain))
                )
                part.listed[n] = Listed(mine, inside, (len(self.values.list(name)),), read)
            if part.own is not None:
                part.own = self.cotangents.placed(part.node.name, part.own)


def exact_sum(numbers: np.ndarray) -> list[float]:
    """A few floats whose sum is that of all these, exactly.

    Beside a power of two that is larger than the sum of their sizes, the leading bits of all of them add up
    without rounding; what is left of each is the next round's. Rump, Ogita and Oishi, Accurate floating-point
    summation, SIAM J. Sci. Comput. 31(1), 2008.
    """
    parts: list[float] = []
    rest = numbers
    while (top := float(np.max(np.abs(rest), initial=0.0))) > 0:
        beyond = 2.0 ** (frexp(top)[1] + len(numbers).bit_length() + 1) if top < 1e280 else inf
        if len(parts) > 8 or not isfinite(beyond) or beyond < 1e-250:
            return [*parts, *rest.tolist()]
        leading = (rest + beyond) - beyond
        parts.append(float(leading.sum()))
        rest = rest - leading
    return parts


def section_of_value(
    nodes: Sequence[Node],
    given: Mapping[str, np.ndarray],
    name: str,
    entries: np.ndarray,
    known: Known | None = None,
    *,
    most: int = MAX_TERMS,
    heavy: int = HEAVY,
) -> Section:
    """The section of a value's entries; floats may know what more than `heavy` terms come to. Raises
    `UnsupportedError` where it is made of more than so many terms."""
    maker = _Maker(nodes, given, known, most=most, heavily=heavy)
    maker.values.first[name] = entries
    maker.needed_values()
    maker.placed()
    needed = tuple(node for node in nodes if node.name in maker.parts)
    run = Run(
        needed, (name,), {}, frozenset(), at=lambda node: maker.parts.get(node.name), blurred=maker.blurred
    )
    return Section(run, {leaf: maker.values.list(leaf) for leaf in given if leaf in maker.values.more})


def section_of_cotangent(
    run: Run,
    given: Mapping[str, np.ndarray],
    name: str,
    entries: np.ndarray,
    known: Known | None = None,
    *,
    values: bool = False,
    most: int = MAX_TERMS,
    heavy: int = HEAVY,
) -> Section:
    """The section of the entries of what arrives at one of the run's targets; with `values` the outputs'
    own too, which a look from both sides of a kink asks for. Raises `UnsupportedError` where it is too large.
    """
    maker = _Maker(run.nodes, given, known, moving=values, most=most, heavily=heavy)
    maker.cotangents.first[name] = entries
    maker.values.first[name] = entries
    maker.needed_cotangents(run.wanted)
    for output in run.outputs if values else ():
        if output in maker.cotangents.more:
            maker.values.add(output, maker.cotangents.list(output))
    maker.needed_values()
    maker.placed()
    used = {name for name, _ in maker.uses} | set(maker.parts)
    nodes = tuple(node for node in run.nodes if node.name in used)
    entries_of = {
        leaf: maker.values.list(leaf) for leaf in given if leaf in maker.values.more or leaf == name
    }
    needed = [output for output in run.outputs if output not in maker.told]
    outputs = tuple(output for output in needed if output in maker.cotangents.more)
    entries_of |= {f"∂{output}": maker.cotangents.list(output) for output in outputs}
    part_of = Run(
        nodes,
        outputs,
        {name: (len(entries),)},
        run.wanted,
        at=lambda node: maker.parts.get(node.name),
        use=lambda node, n: maker.uses.get((node.name, n)),
        told=maker.told,
        blurred=maker.blurred,
    )
    return Section(part_of, entries_of)


def _preimage(node: Node, n: int, entries: np.ndarray, shapes: Mapping[str, Shape]) -> Part:
    """The places of the node's domain whose n-th read is one of these entries of its parent.

    The first axis is that of the entries. Indices that the read's map ties together share an axis, which
    lists the places that give an entry; an index that the map does not depend on keeps its own.
    """
    places, valid, here = _places_that_give(node, n, entries, shapes[node.reads[n].parent])
    extents, count = dict(zip(node.indices, node.domain, strict=True)), len(entries)
    used = {symbol for index in places for symbol in index}
    unread = [symbol for symbol in node.indices if symbol not in used]
    several = [k for k, fits in enumerate(valid) if fits.shape[1] > 1]
    listed = (count, *(valid[k].shape[1] for k in several))
    domain = (*listed, *(extents[symbol] for symbol in unread))
    first, *ranges = open_axes(domain)
    axes = dict(zip(unread, ranges[len(several) :], strict=True))
    inside = here.reshape(first.shape)
    for k, index in enumerate(places):
        shape = list(first.shape)
        if k in several:
            shape[1 + several.index(k)] = valid[k].shape[1]
            inside = inside & valid[k].reshape(shape)
        axes |= {symbol: at.reshape(shape) for symbol, at in index.items()}
    part = Part(node, domain, 0, axes)
    open_ = (*listed, *(1,) * len(unread))
    read = (*(extent > 1 for extent in listed), *(False,) * len(unread))
    fits = None if inside.all() else np.broadcast_to(inside, open_)
    part.passed = Listed(np.broadcast_to(first, open_), fits, (count,), read)
    return part


def _places_that_give(
    node: Node, n: int, entries: np.ndarray, parent: Shape
) -> tuple[list[dict[sympy.Symbol, np.ndarray]], list[np.ndarray], np.ndarray]:
    """For each group of indices that are tied together their places, a row for each entry, and which of them
    there are; and for which entries there are any."""
    goal = np.unravel_index(entries, parent) if parent else ()
    extents = dict(zip(node.indices, node.domain, strict=True))
    valid: list[np.ndarray] = []
    places: list[dict[sympy.Symbol, np.ndarray]] = []
    here = np.ones((len(entries), 1), bool)
    for symbols, dims in _tied_together(node.reads[n].index):
        wanted = [goal[d] for d in dims]
        expressions = [node.reads[n].index[d] for d in dims]
        if not symbols:
            for e, at in zip(expressions, wanted, strict=True):
                here &= (position(e, {}) == at)[:, None]
            continue
        if len(dims) == 1 and expressions[0].is_Symbol:
            found, fits = wanted[0][:, None], (wanted[0] < extents[symbols[0]])[:, None]
            index = {symbols[0]: np.where(fits, found, 0)}
        else:
            ranges = [extents[s] for s in symbols]
            index, fits = _solved(symbols, ranges, expressions, wanted, [parent[d] for d in dims])
        if fits.shape[1] == 1:
            here &= fits
            fits = np.ones((1, 1), bool)
        places.append(index)
        valid.append(fits)
    return places, valid, here


def _tied_together(
    index: Sequence[sympy.Expr],
) -> list[tuple[list[sympy.Symbol], list[int]]]:
    """The axes of a parent in groups that share no index, and each group's indices."""
    groups: list[tuple[set[sympy.Symbol], list[int]]] = []
    for d, expression in enumerate(index):
        symbols, dims = set(expression.free_symbols), [d]
        apart = []
        for other, others in groups:
            if symbols & other:
                symbols, dims = symbols | other, others + dims
            else:
                apart.append((other, others))
        groups = [*apart, (symbols, dims)]
    return [(sorted(symbols, key=str), dims) for symbols, dims in groups]


def _solved(
    symbols: Sequence[sympy.Symbol],
    extents: Sequence[int],
    expressions: Sequence[sympy.Expr],
    wanted: Sequence[np.ndarray],
    parent: Sequence[int],
) -> tuple[dict[sympy.Symbol, np.ndarray], np.ndarray]:
    """Every place in the ranges of some indices at which expressions have the wanted values: a row for each,
    and which entries of it there are."""
    if prod(extents) > MAX_GRID:
        raise UnsupportedError("an index map that is too large to turn about")
    grid = np.unravel_index(np.arange(prod(extents)), tuple(extents))
    axes = dict(zip(symbols, grid, strict=True))
    places = [np.broadcast_to(position(e, axes), grid[0].shape) for e in expressions]
    flat, inside = flattened(places, tuple(parent), 1)
    keys, _ = flattened(wanted, tuple(parent), 1)
    if inside is not None:
        flat = np.where(inside, flat, -1)
    if len(keys) <= 8:
        rows = [np.flatnonzero(flat == key) for key in keys]
    else:
        order = np.argsort(flat, kind="stable")
        low, high = (np.searchsorted(flat, keys, side, sorter=order) for side in ("left", "right"))
        rows = [order[a:b] for a, b in zip(low, high, strict=True)]
    most = max(1, max(map(len, rows)))
    at, fits = np.zeros((len(keys), most), np.int64), np.zeros((len(keys), most), bool)
    for n, row in enumerate(rows):
        at[n, : len(row)], fits[n, : len(row)] = row, True
    return {symbol: axis[at] for symbol, axis in zip(symbols, grid, strict=True)}, fits
