"""Where reads go: a read's index map over a node's domain, as places in its parent's memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from itertools import product

import numpy as np
import sympy
from sympy import S

from .graph import Lookup, Shape, open_axes, size

MAX_LOOPS = 128  # strided additions that one scatter is made of; beyond, one addition an entry


@dataclass(frozen=True, eq=False)
class Strides:
    """An affine map: where it begins, and how far each axis of the domain moves it, in entries of the parent
    after that has been padded, by axis, on both sides."""

    start: int
    steps: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    padded: Shape


@dataclass(frozen=True, eq=False)
class Places:
    """A read's index map over a domain: arrays are open over the axes that it does not depend on."""

    index: tuple[sympy.Expr, ...]
    indices: tuple[sympy.Symbol, ...]
    domain: Shape
    parent: Shape

    @cached_property
    def _found(self) -> tuple[np.ndarray, np.ndarray | None]:
        axes = dict(zip(self.indices, open_axes(self.domain), strict=True))
        positions = [position(expression, axes) for expression in self.index]
        flat, inside = flattened(positions, self.parent, len(self.domain))
        return (flat.astype(np.int32) if size(self.parent) < 2**31 else flat), inside  # it is kept

    @property
    def flat(self) -> np.ndarray:
        """Flat positions in the parent; 0 for those outside."""
        return self._found[0]

    @property
    def inside(self) -> np.ndarray | None:
        """Which of them are in the parent; None: all."""
        return self._found[1]

    @cached_property
    def read(self) -> tuple[bool, ...]:
        """Which axes of the domain the read depends on."""
        used = {symbol for expression in self.index for symbol in expression.free_symbols}
        return tuple(
            symbol in used and extent > 1 for symbol, extent in zip(self.indices, self.domain, strict=True)
        )

    @cached_property
    def strides(self) -> Strides | None:
        """The map as strides, where it is affine."""
        return _strides(self.index, self.indices, self.domain, self.parent)

    @cached_property
    def scatter(self) -> Scatter:
        """Its transpose."""
        return Scatter(self)

    @property
    def whole(self) -> bool:
        """Whether each entry of the parent is read once, in its order: the identity."""
        return (
            self.domain == self.parent
            and len(self.index) == len(self.indices)
            and all(
                e is symbol or (extent == 1 and e is S.Zero)
                for e, symbol, extent in zip(self.index, self.indices, self.domain, strict=True)
            )
        )


@lru_cache(maxsize=4096)
def places(
    index: tuple[sympy.Expr, ...], indices: tuple[sympy.Symbol, ...], domain: Shape, parent: Shape
) -> Places:
    """The read's index map over the domain, as positions in the parent's memory."""
    return Places(index, indices, domain, parent)


def flattened(
    positions: Sequence[np.ndarray], parent: Shape, rank: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions by axis as flat ones, and which of them are inside of the parent (None: all)."""
    flat = np.zeros((1,) * rank, dtype=np.int64)
    inside: np.ndarray | None = None
    for place, extent in zip(positions, parent, strict=True):
        outside = (place < 0) | (place >= extent)
        if outside.any():
            inside = ~outside if inside is None else inside & ~outside
            place = np.where(outside, 0, place)
        flat = flat * extent + place
    return flat, inside


def position(expression: sympy.Expr, axes: Mapping[sympy.Symbol, np.ndarray]) -> np.ndarray:
    """An index expression over arrays of indices."""
    if expression.is_Symbol:
        return axes[expression]
    if expression.is_Integer:
        return np.asarray(int(expression))
    if isinstance(expression, Lookup):
        table = expression.func.table
        return table[tuple(position(argument, axes) for argument in expression.args)] if table.ndim else table
    if isinstance(expression, sympy.floor):
        # In integers: a quotient in floating point can round across the next one.
        over, under = sympy.fraction(sympy.together(expression.args[0]))
        return position(sympy.expand(over), axes) // int(under)
    if isinstance(expression, sympy.Mod):
        return position(expression.args[0], axes) % int(expression.args[1])
    parts = [position(part, axes) for part in expression.args]
    return reduce(np.add if expression.is_Add else np.multiply, parts)


def _strides(
    index: tuple[sympy.Expr, ...], indices: tuple[sympy.Symbol, ...], domain: Shape, parent: Shape
) -> Strides | None:
    axes = {symbol: n for n, symbol in enumerate(indices)}
    rows: list[tuple[int, dict[int, int]]] = []
    padding, padded = [], []
    for expression, extent in zip(index, parent, strict=True):
        constant, row, low, high = 0, {}, 0, 0
        for symbol, coefficient in expression.as_coefficients_dict().items():
            if not coefficient.is_Integer or not (symbol is S.One or symbol in axes):
                return None
            step = int(coefficient)
            if symbol is S.One:
                constant = step
            else:
                row[axes[symbol]] = step
                far = step * (domain[axes[symbol]] - 1)
                low, high = low + min(far, 0), high + max(far, 0)
        if size(domain) == 0:
            return None
        before, after = max(0, -(low + constant)), max(0, high + constant - extent + 1)
        rows.append((constant + before, row))
        padding.append((before, after))
        padded.append(extent + before + after)
    start, steps, step = 0, [0] * len(domain), 1
    for (constant, row), extent in zip(reversed(rows), reversed(padded), strict=True):
        start += constant * step
        for axis, times in row.items():
            steps[axis] += times * step
        step *= extent
    return Strides(start, tuple(steps), tuple(padding), tuple(padded))


def gathered(array: np.ndarray, where: Places, fill: float) -> np.ndarray:
    """The read's entries of an array of plain numbers, open over the axes that it does not depend on: a view
    where the map is affine."""
    strides = where.strides
    if strides is None:
        got = array.reshape(-1)[where.flat]
        return got if where.inside is None else np.where(where.inside, got, fill)
    if any(before or after for before, after in strides.padding):
        array = np.pad(array, strides.padding, constant_values=fill)
    flat = np.ascontiguousarray(array).reshape(-1)
    shape = tuple(extent if step else 1 for extent, step in zip(where.domain, strides.steps, strict=True))
    apart = tuple(step * flat.itemsize for step in strides.steps)
    return np.lib.stride_tricks.as_strided(flat[strides.start :], shape, apart, writeable=False)


class Scatter:
    """Adding arrays of plain numbers up at the places that they were read from: the transpose of a read.

    `left` are the axes of the domain that the read depends on; terms have their extents.
    """

    def __init__(self, where: Places) -> None:
        self.where = where
        self.left = tuple(extent for extent, read in zip(where.domain, where.read, strict=True) if read)
        strides = where.strides
        steps = () if strides is None else strides.steps
        self.steps = [step for step, read in zip(steps, where.read, strict=False) if read]
        # Axes that go one after the other, so that no two terms meet; None: each entry goes alone.
        self.alone = None if strides is None else self._alone()

    def _alone(self) -> tuple[int, ...] | None:
        """What moves least is the loop, a kernel's offsets and not the image's; where that is too much, the
        axes of small extent."""
        alone = self._meeting(range(len(self.left)))
        order = sorted(range(len(self.left)), key=lambda n: self.left[n])
        for small in (order[:count] for count in range(1, len(order) + 1)):
            if size(tuple(self.left[n] for n in alone)) <= MAX_LOOPS:
                return tuple(sorted(alone))
            alone = [*small, *self._meeting(n for n in order if n not in small)]
        return None

    def _meeting(self, axes: Iterable[int]) -> list[int]:
        """Those of the axes along which terms meet the terms of others."""
        reach, meeting = 0, []
        for axis in sorted(axes, key=lambda n: (abs(self.steps[n]), -self.left[n])):
            if abs(self.steps[axis]) <= reach:
                meeting.append(axis)
            else:
                reach += abs(self.steps[axis]) * (self.left[axis] - 1)
        return meeting

    @cached_property
    def one_to_one(self) -> bool:
        """Whether no two terms meet."""
        if self.alone is not None:
            return not self.alone
        return int(self.counts.max(initial=0)) <= 1

    @cached_property
    def counts(self) -> np.ndarray:
        """How many terms meet at each entry of the parent."""
        counts = np.rint(self.sums(np.ones((), np.float64)))
        return counts.astype(np.min_scalar_type(int(counts.max(initial=0))))  # they are kept

    def sums(self, terms: np.ndarray) -> np.ndarray:
        """The terms' sums, in the parent's shape."""
        terms = np.broadcast_to(terms, self.left)
        return self._one_by_one(terms) if self.alone is None else self._by_strides(terms, self.alone)

    def _by_strides(self, terms: np.ndarray, alone: tuple[int, ...]) -> np.ndarray:
        strides = self.where.strides
        assert strides is not None
        filled = not alone and size(self.left) == size(strides.padded)  # each place once
        out = (np.empty if filled else np.zeros)(size(strides.padded), terms.dtype)
        kept = [n for n in range(len(self.left)) if n not in alone]
        shape = tuple(self.left[n] for n in kept)
        apart = tuple(self.steps[n] * out.itemsize for n in kept)
        for at in product(*(range(self.left[n]) for n in alone)):
            start = strides.start + sum(k * self.steps[n] for k, n in zip(at, alone, strict=True))
            here: list[slice | int] = [slice(None)] * len(self.left)
            for k, n in zip(at, alone, strict=True):
                here[n] = k
            view = np.lib.stride_tricks.as_strided(out[start:], shape, apart)
            if alone:
                view += terms[tuple(here)]
            else:
                view[...] = terms
        whole = out.reshape(strides.padded)
        return whole[
            tuple(
                slice(before, extent - after)
                for (before, after), extent in zip(strides.padding, strides.padded, strict=True)
            )
        ]

    def _one_by_one(self, terms: np.ndarray) -> np.ndarray:
        where, count = self.where, size(self.where.parent)
        positions, terms = where.flat.reshape(-1), terms.reshape(-1)
        if where.inside is not None:
            chosen = np.flatnonzero(np.broadcast_to(where.inside, where.flat.shape))
            positions, terms = positions[chosen], terms[chosen]
        if terms.dtype == np.float64:
            return np.bincount(positions, weights=terms, minlength=count).reshape(where.parent)
        out = np.zeros(count, terms.dtype)
        np.add.at(out, positions, terms)
        return out.reshape(where.parent)
