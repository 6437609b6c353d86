"""What floats decide, so that balls look only at what is left: see `proof.fast`.

Most entries of a large tensor are surely explained by rounding. The balls judge the others, entry by entry,
and those that a report tells: the one that is furthest off, and the one at which the largest error would
pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np

from .. import causes as because
from ..dtypes import DType
from ..errors import UnsupportedError
from ..proof.balls import Balls, balls
from ..proof.enclosure import Enclosures, Pulled
from ..proof.fast import Fast, LeftError, Pair, Told, balls_of, fast
from ..proof.graph import Node, Shape, size, slot
from ..proof.section import HEAVY, LIGHT, MAX_TERMS, Known
from ..proof.walk import evaluate, is_contraction, pullback, tied
from ..verdict import Judgement, Verdict
from .together import FUSED, error_of, explained, kernels, sums_in
from .verdicts import Comparison, absent, compared_sum, judge, last_largest, ulp_of, unrounded
from .witness import Arrays

FEW = 600  # entries of all domains together: up to here balls alone are as quick
MANY = 500_000  # ... beyond which they are not asked for all of them
LONG, SMALL_NODE = 50, 1_000  # nodes of a long run, and entries of each that are few
SMALL = 5_000  # terms of a section that are soon looked at
MOST = 4_000  # entries that are looked at one by one
SHARP = 2.0**-20  # of the rounding set: an own error that is of no account
PROVED = 64  # of more than can be looked at, those that are furthest off
BLOCK = 2**15  # entries that are looked at together: they stay in the processor's cache
TOLD = 16  # of those that may be furthest off, floats cannot tell which


class Look(Protocol):
    """What balls say of some entries, by their places in a flat array; or would, by a kernel of another
    rounding. What is made of more than `heavy` terms on the way floats may tell."""

    def __call__(
        self, entries: np.ndarray, held: Enclosures | None = None, heavy: int = HEAVY
    ) -> Comparison: ...


_USED: ContextVar[bool] = ContextVar("used", default=os.environ.get("GRADPROOF_BALLS_ALONE", "") in ("", "0"))


@contextmanager
def without_floats() -> Iterator[None]:
    """Balls alone judge, as if there were no fast arithmetic."""
    token = _USED.set(False)
    try:
        yield
    finally:
        _USED.reset(token)


def work_of(nodes: Sequence[Node]) -> int:
    """Entries of all domains together."""
    return sum(size(node.domain) for node in nodes)


def is_worth_it(nodes: Sequence[Node]) -> bool:
    """Whether floats, and balls for some entries, cost less than balls for all of them: always where entries
    are only moved; else not for few entries, nor for long recurrences of small tensors, where some entries
    are made of nearly all nodes."""
    if all(node.reduce is None and node.formula is slot(0) for node in nodes):
        return True
    values = sum(size(node.shape if is_contraction(node) else node.domain) for node in nodes)
    return work_of(nodes) > FEW and (len(nodes) <= LONG or values > SMALL_NODE * len(nodes))


class _Way:
    """One rounding's table over a step, and what it gives; a `failed` one has no form of an operation."""

    def __init__(self, nodes: tuple[Node, ...], given: Arrays, wanted: frozenset[str], table: Fast) -> None:
        self.nodes, self.given, self.wanted, self.table = nodes, given, wanted, table
        self.affordable = work_of(nodes) <= MANY
        self.failed = False
        self.cotangents: Mapping[str, Pair] = {}

    @cached_property
    def values(self) -> Mapping[str, Pair]:
        try:
            with np.errstate(all="ignore"):
                given = {name: self.table.of(x) for name, x in self.given.items()}
                return evaluate(self.nodes, given, self.table)
        except LeftError:
            self.failed = True
            return {}

    def pull(self, received: Arrays) -> Mapping[str, Pair]:
        """What arrives at each name, of one row of cotangents of the outputs."""
        values = self.values
        # A value that does not exist has no derivative: balls tell.
        if self.failed or not all(np.isfinite(values[name].v).all() for name in received):
            self.failed = True
            return {}
        try:
            with np.errstate(all="ignore"):
                if self.affordable and tied(self.nodes, values, self.wanted, arithmetic=self.table):
                    return {}  # a formula may jump there, whatever its slopes are
                rows = {name: self.table.of(x[None]) for name, x in received.items()}
                back = pullback(self.nodes, values, rows, self.wanted, self.table)
        except LeftError:
            self.failed = True
            return {}
        self.cotangents = {name: each.reshape(each.shape[1:]) for name, each in back.items()}
        return self.cotangents

    def known(self, name: str, entries: np.ndarray) -> Told | None:
        """Some entries of a value, or of a cotangent (`∂name`), with their own error, where that is far
        below what rounding makes."""
        held = self.cotangents if name.startswith("∂") else {} if self.failed else self.values
        pair = held.get(name.removeprefix("∂"))
        if pair is None or self.table.kappa(pair.loss) > SHARP:
            return None
        told = self.table.told(pair, entries)
        return told if all(np.isfinite(numbers).all() for numbers in told) else None


class Sieve:
    """The fast arithmetic over one step; nothing where it is not worth it, or has no table.

    Of 16 bits there are several ways: where anything may come out of a formula operation by operation,
    kernels are looked at that compute its sums in float32, or all of it, and round once: see `explained`.
    """

    def __init__(self, nodes: tuple[Node, ...], given: Arrays, wanted: frozenset[str], dtype: DType) -> None:
        self.work, self.dtype = work_of(nodes), dtype
        self.whole = self.work + sum(x.size for x in given.values())  # what all balls would cost
        self.ways: list[_Way] = []
        if _USED.get() and is_worth_it(nodes) and all(x.dtype != object for x in given.values()):
            half = dtype.precision < FUSED.precision
            roundings = [(dtype, None), (dtype, FUSED), (FUSED, None)] if half else [(dtype, None)]
            tables = [table for of in roundings if (table := fast(*of)) is not None]
            self.ways = [_Way(nodes, given, wanted, table) for table in tables]

    def value(self, name: str) -> Pair | None:
        """What is expected of a value; None where an operation has no fast form."""
        if not self.ways or not self.ways[0].values:
            return None
        return self._merged(self.ways[0].values[name], lambda way: way.values.get(name))

    def pulled(self, received: Arrays, names: Collection[str]) -> Mapping[str, Pair] | None:
        """What is expected to arrive at the names, of one row of cotangents of the outputs."""
        found = self.ways[0].pull(received) if self.ways else {}
        if not found:
            return None
        others: dict[int, Mapping[str, Pair]] = {}

        def other(way: _Way, name: str) -> Pair | None:
            if id(way) not in others:
                others[id(way)] = way.pull(received)
            return others[id(way)].get(name)

        return {name: self._merged(found[name], partial(other, name=name)) for name in names if name in found}

    def _merged(self, first: Pair, of: Callable[[_Way], Pair | None]) -> Pair:
        """A kernel's radius, rounded once, where operation by operation there is none."""
        for way in self.ways[1:]:
            if first.r is None or not np.isnan(first.r).any():
                break
            other = of(way)
            if other is None:
                continue
            with np.errstate(all="ignore"):
                once = self.ways[0].table.widened(other, 1)
                radius = np.where(np.isnan(first.r), once.radius, first.r)
            first = Pair(first.v, radius, max(first.loss, once.loss))
        return first

    @property
    def most(self) -> int:
        """Terms of some entries, beyond which balls look at all entries instead, where they may."""
        return max(SMALL, self.whole // 8) if self.work <= MANY else MAX_TERMS

    def known(self, held: Enclosures | None = None) -> Known | None:
        """What floats know on the way to some entries, by one of the roundings."""
        if not self.ways:
            return None
        return self.ways[0 if held is None else 1 + kernels(self.dtype).index(held)].known

    def absent(self, expected: Pair, look: Look) -> Judgement | None:
        """No gradient, beside the entry that is largest."""
        at = int(np.argmax(np.abs(np.nan_to_num(expected.v.reshape(-1).astype(float)))))
        judged = absent(look(np.array([at])).exact, passed=True)
        return replace(judged, index=(0,) * expected.ndim) if judged.verdict is Verdict.WRONG else None

    def astray(self, value: np.ndarray, expected: Pair) -> Balls | None:
        """By how much each entry is off, up to rounding; see `together.astray`."""
        off = (value - expected.v).astype(float)
        return error_of(
            off, expected.radius.astype(float), self.ways[0].table.passes(value, expected), self.dtype
        )

    def judged(
        self, value: np.ndarray, expected: Pair, dtype: DType, look: Look, *, back: bool
    ) -> Judgement | None:
        way, affordable = self.ways[0], self.work <= MANY
        sums = sums_in(way.nodes, dtype, back=back)
        return judged(value, expected, dtype, way.table, look, affordable, sums=sums)


def sieve_sum(value: np.ndarray, terms: Sequence[np.ndarray], dtype: DType) -> Judgement | None:
    """An array beside the sum of arrays of floats."""
    table = fast(dtype) if _USED.get() and value.size > FEW else None
    if table is None:
        return None

    def look(entries: np.ndarray, held: Enclosures | None = None, heavy: int = HEAVY) -> Comparison:
        return compared_sum(value.reshape(-1)[entries], [balls(t.reshape(-1)[entries]) for t in terms], dtype)

    with np.errstate(all="ignore"):
        return judged(value, table.add_all([table.of(term) for term in terms]), dtype, table, look, True)


def judged(
    value: np.ndarray,
    expected: Pair,
    dtype: DType,
    table: Fast,
    look: Look,
    affordable: bool,
    *,
    sums: int = 0,
) -> Judgement | None:
    """The judgement of an array by the entries that balls must look at; None where they must look at all of
    them, and may."""
    if value.shape != expected.shape:
        return None
    shape, flat = value.shape, value.reshape(-1)
    near = expected.broadcast(shape).reshape(-1)
    if near.r is None and np.array_equal(flat, near.v):
        return unrounded(value)
    seen = _Scan(flat, near, dtype, table)
    if seen.broken or (seen.open.size > MOST and affordable):
        return None
    left = seen.open if seen.open.size <= MOST else seen.open[np.argsort(-seen.off)[:PROVED]]
    told = seen.asked()
    entries = np.unique(np.concatenate([told, seen.unsure, left]))
    try:
        compared = look(entries, heavy=LIGHT)
        found = judge(compared, dtype)
        if not found.verdict.passes:  # nothing is refuted by what floats say
            compared = look(entries)
            found = judge(compared, dtype)
        found = explained(
            found, compared.value, lambda held: _expected(look(entries, held, LIGHT)), dtype, sums=sums
        )
    except UnsupportedError:
        if affordable:
            return None
        left, entries = np.zeros(0, int), told
        found = judge(Comparison(flat[told], *balls_of(table.told(near, told))), dtype)  # what floats know
    if affordable and (not found.verdict.passes or found.verdict is Verdict.KINK):
        return None
    if left.size < seen.open.size:
        if found.verdict.passes:
            why = because.LeftOpen(int(seen.open.size - left.size))
            found = replace(found, verdict=Verdict.UNDECIDED, causes=(why,))
        else:
            told_of = because.LookedAt(int(left.size), int(seen.open.size))
            found = replace(found, causes=(*found.causes, told_of))
    at = int(entries[found.index[0]]) if found.index else 0
    return _found(found, at, shape, seen.cancelled - int(seen.is_cancelled(entries).sum()))


class _Scan:
    """What floats tell of every entry, a block after the other: those that they leave open, with how far
    `off` they are, those that may be the one that is furthest off, or the most sensitive one."""

    def __init__(self, flat: np.ndarray, near: Pair, dtype: DType, table: Fast) -> None:
        self.near, self.dtype, self.table = near, dtype, table
        self.kappa = table.kappa(near.loss)
        self.broken = False  # whether there is NaN among the values
        self.cancelled = 0  # entries that would pass with an error as large as themselves
        self.rounded = False  # whether one is surely not correctly rounded
        self.bound, self.contenders = -1.0, np.zeros((0, 3))  # places, how far off they may be, and seem
        self.sensitive = (-1.0, 0)
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        with np.errstate(all="ignore"):
            for start in range(0, flat.size, BLOCK):
                parts.append(self._block(start, flat[start : start + BLOCK]))
        self.open, self.off, unsure = map(np.concatenate, zip(*parts, strict=True))
        self.unsure = np.zeros(0, int) if self.rounded else unsure[:MOST]

    def _block(self, start: int, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        stop = start + value.size
        v = self.near.v[start:stop]
        r = np.zeros(value.size) if self.near.r is None else self.near.r[start:stop]
        middle = v.astype(np.float64, copy=False)
        apart = np.abs(value - v).astype(np.float64, copy=False)
        finite = bool(np.isfinite(apart).all())
        if not finite:
            apart = np.where(value == v, 0.0, apart)
            self.broken |= bool(np.isnan(value).any())
        passes = self.table.holds(apart, r, self.near.loss)
        ulp = ulp_of(middle, self.dtype)
        off, reach = apart / ulp, self.kappa * r / ulp
        if not finite:
            off = np.where(np.isinf(value), np.inf, off)
        rounded = passes & (off > 0.5 + reach)
        exact = passes & (off <= 0.5 - reach)
        self._contend(start, off, reach, passes, rounded, exact)
        self._most_sensitive(start, r, middle)
        open_ = np.flatnonzero(~passes)
        unsure = np.zeros(0, int) if self.rounded else np.flatnonzero(passes & ~rounded & ~exact)
        return open_ + start, np.nan_to_num(off[open_], nan=np.inf), unsure + start

    def _contend(
        self,
        start: int,
        off: np.ndarray,
        reach: np.ndarray,
        passes: np.ndarray,
        rounded: np.ndarray,
        exact: np.ndarray,
    ) -> None:
        """Keep those that may be further off than all others; one that is surely not correctly rounded
        outweighs those that are."""
        first = not self.rounded and bool(rounded.any())
        if first:
            self.rounded, self.bound = True, -1.0
        most = off + reach
        if not first and float(np.max(most, initial=-1.0)) < self.bound:
            return
        sure, may = (rounded, passes & ~exact) if self.rounded else (passes, passes)
        self.bound = max(self.bound, float(np.max(off - reach, initial=-1.0, where=sure)))
        most = np.where(may, most, -1.0)
        places = np.flatnonzero(most >= self.bound)
        if len(places) > TOLD and bool((off[places] == self.bound).all()):
            places = places[-TOLD:]  # all alike: the last of them is told
        found = np.stack([places + float(start), most[places], off[places]], 1)
        self.contenders = _furthest(
            np.concatenate([self.contenders, _furthest(found, self.bound)]), self.bound
        )

    def _most_sensitive(self, start: int, r: np.ndarray, middle: np.ndarray) -> None:
        relative = r / np.abs(middle)  # infinite or NaN where the midpoint is 0
        sensible = relative < 1
        if sensible.all():
            at = int(np.argmax(relative))
        else:
            self.cancelled += int(((relative >= 1) & (middle != 0)).sum())
            relative = np.where(sensible, relative, -1.0)
            at = last_largest(relative)
        if relative[at] >= self.sensitive[0]:
            self.sensitive = float(relative[at]), start + at

    def is_cancelled(self, entries: np.ndarray) -> np.ndarray:
        middle, r = self.near.v[entries].astype(float), self.near.radius[entries]
        with np.errstate(all="ignore"):
            return (r / np.abs(middle) >= 1) & (middle != 0)

    def asked(self) -> np.ndarray:
        """The entries that a report tells."""
        return np.unique(np.array([*self.contenders[:, 0], self.sensitive[1]], dtype=int))


def _furthest(contenders: np.ndarray, bound: float) -> np.ndarray:
    """Of places in order those that may be furthest off, and those that seem to be."""
    found = contenders[contenders[:, 1] >= bound]
    if len(found) <= TOLD:
        return found
    return found[np.unique(np.concatenate([_largest(found[:, 1]), _largest(found[:, 2])]))]


def _largest(numbers: np.ndarray) -> np.ndarray:
    """The places of the `TOLD` largest numbers; of equal ones the last."""
    most = np.flatnonzero(numbers == numbers.max())
    if len(most) >= TOLD:  # all may be alike
        return most[-TOLD:]
    over = np.flatnonzero(numbers > 0)
    if len(over) < TOLD:
        return np.concatenate([over, np.flatnonzero(numbers <= 0)[len(over) - TOLD :]])
    least = np.partition(numbers[over], -TOLD)[-TOLD]
    above = np.flatnonzero(numbers > least)
    return np.concatenate([above, np.flatnonzero(numbers == least)[len(above) - TOLD :]])


def _found(judged: Judgement, at: int, shape: Shape, cancelled: int) -> Judgement:
    """What was judged of some entries as the judgement of all of them."""
    index = tuple(int(n) for n in np.unravel_index(at, shape))
    return replace(judged, index=index, entries=size(shape), cancelled=judged.cancelled + cancelled)


def _expected(compared: Comparison) -> Pulled:
    kinks = np.zeros(compared.exact.shape, bool) if compared.kinks is None else compared.kinks
    return Pulled(compared.exact, compared.rounding, kinks)
