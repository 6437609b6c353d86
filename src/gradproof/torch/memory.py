"""Which node's entry lies where: a tensor's storage as a map from places to (node, entry).

So views, strides and writes in place need nothing of their own: a write puts the new node's entries where
they go, and a tensor reads whatever lies where it looks. Where a tensor overlaps itself (an expanded one) its
places do not tell its entries apart; so the tensors that operations gave are known by their geometry as well,
until their storage is written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Protocol

import numpy as np
from sympy import Expr, Integer

from ..proof.graph import Shape, free, lookup, open_axes, size, strided, unravelled


class Located(Protocol):
    """A tensor in memory, as `tape.Region` is."""

    @property
    def storage(self) -> int: ...

    @property
    def extent(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def edge(self) -> tuple[int, int] | None: ...

    @property
    def positions(self) -> np.ndarray: ...

    @property
    def turned(self) -> tuple[bool, bool]: ...

    @property
    def key(self) -> tuple[Any, ...]: ...  # ends with the dtype


@dataclass(frozen=True, eq=False)
class Content:
    """For each entry of a tensor, which node it comes from (-1: unknown) and which of that node's entries it
    is.

    Of an `alien` one some entries lie there as numbers of another dtype (complex ones seen as real): only
    `who` is known then.
    """

    who: np.ndarray
    where: np.ndarray
    alien: bool = False

    @classmethod
    def unknown(cls, shape: Shape) -> Content:
        """Entries of no node."""
        return cls(np.broadcast_to(np.int32(-1), shape), np.broadcast_to(np.int64(0), shape))

    def at(self, places: np.ndarray) -> Content:
        """The content of a tensor whose entries are these, by their flat places."""
        return Content(self.who.reshape(-1)[places], self.where.reshape(-1)[places], self.alien)

    def seen(self, start: int, steps: Sequence[int], shape: Shape) -> Content:
        """Another look at these entries, by places in their own order."""
        return self.at(strided(start, steps, shape))

    @cached_property
    def sources(self) -> list[int]:
        return [int(n) for n in np.unique(self.who)]

    def known(self) -> bool:
        """Whether every entry comes from a node."""
        return not (self.who < 0).any()

    def same(self, other: Content) -> bool:
        """Whether all entries are those of the other."""
        return self is other or bool(
            np.array_equal(self.who, other.who) and np.array_equal(self.where, other.where)
        )


class Lying(Content):
    """Entries of one node, so many places apart along each axis: arrays are made when they are asked for."""

    def __init__(self, number: int, shape: Shape, start: int, steps: tuple[int, ...]) -> None:
        vars(self).update(number=number, shape=shape, start=start, steps=steps, alien=False)

    number: int
    shape: Shape
    start: int
    steps: tuple[int, ...]

    @property
    def geometry(self) -> tuple[int, ...]:
        """What tells its entries from those of another of its shape."""
        moves = (step if extent > 1 else 0 for step, extent in zip(self.steps, self.shape, strict=True))
        return self.number, self.start, *moves

    def same(self, other: Content) -> bool:
        if not isinstance(other, Lying) or self.shape != other.shape:
            return super().same(other)
        return self.geometry == other.geometry

    @cached_property
    def who(self) -> np.ndarray:
        return np.full(self.shape, self.number, np.int32)

    @cached_property
    def where(self) -> np.ndarray:
        return strided(self.start, self.steps, self.shape)

    @property
    def sources(self) -> list[int]:
        return [self.number] if size(self.shape) else []

    def known(self) -> bool:
        return True

    def index(self, parent: Shape) -> tuple[Expr, ...]:
        """The map into the node's axes: affine along each of them, or else the axes of the flat place."""
        if not size(self.shape):
            return (Integer(0),) * len(parent)
        found = _affine_moves(self.start, self.steps, self.shape, parent)
        if found is None:
            moves = (step * free(n) for n, step in enumerate(self.steps) if self.shape[n] > 1)
            return unravelled(sum(moves, Integer(self.start)), parent)
        begins, moves_of = found
        return tuple(
            sum((move * free(n) for n, move in enumerate(moves) if move), Integer(begin))
            for begin, moves in zip(begins, moves_of, strict=True)
        )

    def seen(self, start: int, steps: Sequence[int], shape: Shape) -> Content:
        extents, apart = _merged(self.shape, self.steps)
        found = _affine_moves(start, steps, shape, extents) if size(shape) else None
        if found is None:
            return super().seen(start, steps, shape)
        begins, moves_of = found
        first = self.start + sum(begin * step for begin, step in zip(begins, apart, strict=True))
        through = [
            sum(moves[n] * step for moves, step in zip(moves_of, apart, strict=True))
            for n in range(len(shape))
        ]
        return Lying(self.number, shape, first, tuple(through))


def _merged(shape: Shape, steps: Sequence[int]) -> tuple[Shape, list[int]]:
    """The axes, those that go on where the next one ends taken together."""
    extents: list[int] = []
    apart: list[int] = []
    for extent, step in zip(shape, steps, strict=True):
        if extent == 1:
            continue
        if extents and apart[-1] == extent * step:
            extents[-1], apart[-1] = extents[-1] * extent, step
        else:
            extents, apart = [*extents, extent], [*apart, step]
    return tuple(extents), apart


def _affine_moves(
    start: int, steps: Sequence[int], shape: Shape, parent: Shape
) -> tuple[list[int], list[list[int]]] | None:
    """For each axis of the parent where a tensor of such places in it begins, and how far each axis of the
    tensor moves there; None where that depends on the others.

    What the first entry and its neighbours say holds for all where it never leaves the parent's axes: the
    places are then the same, and a place has one index.
    """
    apart = row_major(parent)

    def at(place: int) -> list[int]:
        index = []
        for step in apart:
            index.append(place // step)
            place %= step
        return index

    begins = at(start)
    beside = [at(start + step) if extent > 1 else begins for extent, step in zip(shape, steps, strict=True)]
    moves = [[each[d] - begin for each in beside] for d, begin in enumerate(begins)]
    for begin, extent, mine in zip(begins, parent, moves, strict=True):
        ends = [move * (many - 1) for move, many in zip(mine, shape, strict=True)]
        if begin + sum(min(0, end) for end in ends) < 0:
            return None
        if begin + sum(max(0, end) for end in ends) >= extent:
            return None
    return begins, moves


def row_major(shape: Shape) -> list[int]:
    """How far each axis of a tensor without gaps moves."""
    steps, step = [], 1
    for extent in reversed(shape):
        steps.append(step)
        step *= extent
    return steps[::-1]


class Memory:
    """The nodes whose entries lie in the storages."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.shapes: list[Shape] = []
        self._storages: dict[int, dict[Any, tuple[np.ndarray, np.ndarray]]] = {}  # by dtype
        self._known: dict[tuple[Any, ...], tuple[int, Content]] = {}
        self._writes: dict[int, int] = {}
        self._pending: dict[int, list[tuple[Located, Content]]] = {}  # what no map has yet

    def all_of(self, name: str, shape: Shape) -> Content:
        """A node's entries, each in its own place."""
        number = len(self.names)
        self.names.append(name)
        self.shapes.append(shape)
        return Lying(number, shape, 0, tuple(row_major(shape)))

    def enter(self, region: Located, name: str) -> None:
        """The tensor comes from outside. Several may lie in the same memory; then autograd's edges tell them
        apart."""
        content = self.all_of(name, region.shape)
        self._lay(region, content)
        self.know(region, content)

    def write(self, region: Located, name: str) -> None:
        """The node's entries lie in the region from now on."""
        self.put(region, self.all_of(name, region.shape))

    def put(self, region: Located, content: Content) -> None:
        """The content lies in the region from now on."""
        self._lay(region, content)
        self._writes[region.storage] = self._writes.get(region.storage, 0) + 1
        self.know(region, content)

    def know(self, region: Located, content: Content) -> None:
        """What a tensor of this geometry holds, as long as its storage is not written to."""
        entry = (self._writes.get(region.storage, 0), content)
        self._known[region.key, region.turned, region.edge] = entry
        self._known[region.key, region.turned, None] = entry

    def known(self, region: Located) -> Content | None:
        """What a tensor of this geometry is known to hold."""
        for edge in (region.edge, None):
            known = self._known.get((region.key, region.turned, edge))
            if known is not None and known[0] == self._writes.get(region.storage, 0):
                return known[1]
        return None

    def read(self, region: Located) -> Content:
        """What lies there; of a turned one, without its sign."""
        known = self.known(region)
        if known is not None:
            return known
        lying = self._alone(region)
        if lying is not None:
            return lying
        who, where = self._storage(region)
        content = Content(who[region.positions], where[region.positions])
        for other, places in self._otherwise(region):
            lying = other[places].max(axis=-1, initial=-1)
            if (lying >= 0).any():
                content = Content(np.where(content.who < 0, lying, content.who), content.where, alien=True)
        return content

    def _alone(self, region: Located) -> Lying | None:
        """The content where one tensor without gaps is all that lies in the storage, and holds the region."""
        pending = self._pending.get(region.storage, [])
        if len(pending) != 1 or region.storage in self._storages:
            return None
        whole, content = pending[0]
        if not isinstance(content, Lying) or whole.key[-1] != region.key[-1]:
            return None
        _, begin, shape, stride, _ = whole.key
        plain = tuple(content.steps) == tuple(row_major(content.shape)) and content.start == 0
        gaps = any(n > 1 and s != r for n, s, r in zip(shape, stride, row_major(shape), strict=True))
        if not plain or gaps or content.shape != shape:
            return None
        _, offset, own, steps, _ = region.key
        far = sum(step * (extent - 1) for extent, step in zip(own, steps, strict=True))
        inside = begin <= offset and offset + far < begin + size(shape)
        if not inside or not size(own) or any(step < 0 for step in steps):
            return None
        return Lying(content.number, own, offset - begin, tuple(steps))

    def _lay(self, region: Located, content: Content) -> None:
        self._pending.setdefault(region.storage, []).append((region, content))

    def _laid(self, region: Located, content: Content) -> None:
        who, where = self._map(region)
        positions = region.positions.reshape(-1)
        who[positions], where[positions] = content.who.reshape(-1), content.where.reshape(-1)
        for other, places in self._otherwise(region):
            other[places] = -1

    def _storage(self, region: Located) -> tuple[np.ndarray, np.ndarray]:
        for before, content in self._pending.pop(region.storage, []):
            self._laid(before, content)
        return self._map(region)

    def _map(self, region: Located) -> tuple[np.ndarray, np.ndarray]:
        maps = self._storages.setdefault(region.storage, {})
        kind = region.key[-1]
        if kind not in maps:
            maps[kind] = (np.full(region.extent, -1, np.int32), np.zeros(region.extent, np.int64))
        return maps[kind]

    def _otherwise(self, region: Located) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same memory as numbers of other dtypes: which nodes lie there, and for each entry the places
        that it covers."""
        maps = self._storages[region.storage]
        own = region.key[-1]
        for dtype, (who, _) in maps.items() if len(maps) > 1 else ():
            if dtype != own:
                covered = max(1, own.itemsize // dtype.itemsize)
                first = region.positions[..., None] * own.itemsize // dtype.itemsize
                yield who, np.minimum(first + np.arange(covered), max(0, who.size - 1))


_numbers = count(1)


def index_of(content: Content, parent: Shape) -> tuple[Expr, ...]:
    """The parent's indices at a content that comes from one node, as formulas of the reader's."""
    return content.index(parent) if isinstance(content, Lying) else index_map(content.where, parent)


def index_map(where: np.ndarray, parent: Shape) -> tuple[Expr, ...]:
    """The parent's indices as formulas of the reader's: entry `where[i0, i1, ...]`, or -1 for outside of the
    parent.

    Affine where it can be, through a quotient and a remainder for a reshape, and through a table otherwise.
    """
    if not parent:
        return ()
    outside = where < 0
    if not outside.any():
        flat = _affine(where)
        parts = np.unravel_index(where, parent) if where.size else [where] * len(parent)
        affine = [_affine(part) for part in parts]
        if all(expression is not None for expression in affine):
            return tuple(expression for expression in affine if expression is not None)
        if flat is not None:
            return unravelled(flat, parent)
    else:
        parts = [
            np.where(outside, -1, part) for part in np.unravel_index(np.where(outside, 0, where), parent)
        ]
    return tuple(_table(part) for part in parts)


def _affine(values: np.ndarray) -> Expr | None:
    if not values.size:
        return Integer(0)
    start = values[(0,) * values.ndim]
    total: Any = start
    formula: Expr = Integer(int(start))
    for n, axis in enumerate(open_axes(values.shape)):
        if axis.size == 1:
            continue
        step = values[tuple(1 if m == n else 0 for m in range(values.ndim))] - start
        if step:
            total = total + step * axis
            formula = formula + int(step) * free(n)
    return formula if np.array_equal(np.broadcast_to(total, values.shape), values) else None


def _table(values: np.ndarray) -> Expr:
    """A lookup over the axes that the values depend on."""
    affine = _affine(values) if (values >= 0).all() else None
    if affine is not None:
        return affine
    axes = [
        n
        for n, extent in enumerate(values.shape)
        if extent > 1 and (values != values.take([0], axis=n)).any()
    ]
    kept = values[tuple(slice(None) if n in axes else 0 for n in range(values.ndim))]
    return lookup(f"index{next(_numbers)}", np.ascontiguousarray(kept))(*(free(n) for n in axes))


def table(values: np.ndarray, axes: Mapping[int, Expr] | None = None) -> Expr:
    """An integer array as an index: affine if it is, else a lookup; its n-th axis at `axes[n]`."""
    expression = _table(np.asarray(values, dtype=np.int64))
    return expression if axes is None else expression.xreplace({free(n): axis for n, axis in axes.items()})
