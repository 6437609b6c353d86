"""What floats decide, so that balls look only at what is left: see `proof.fast`.

Most entries of a large tensor are surely explained by rounding. The balls judge the others, entry by entry,
and those that a report tells: the one that is furthest off, and the one at which the largest error would
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from flint import arb

from .. import causes as because
from ..dtypes import DType
from ..errors import UnsupportedError
from ..proof.balls import balls
from ..proof.enclosure import Enclosures, Pulled
from ..proof.fast import Fast, LeftError, Pair, fast
from ..proof.graph import Node, Shape, size
from ..proof.section import Known
from ..proof.walk import evaluate, pullback, tied
from ..verdict import Judgement, Verdict
from .together import FUSED, explained, kernels
from .verdicts import Comparison, absent, compared_sum, judge, ulp_of
from .witness import Arrays

FEW = 600  # entries of all domains together: up to here balls alone are as quick
MANY = 500_000  # ... beyond which they are not asked for all of them
MOST = 4_000  # entries that are looked at one by one
SHARP = 2.0**-20  # of the rounding set: an own error that is of no account
PROVED = 64  # of more than can be looked at, those that are furthest off
TOLD = 64  # of those that may be furthest off, floats cannot tell which


class Look(Protocol):
    """What balls say of some entries, by their places in a flat array; or would, by a kernel of another
    rounding."""

    def __call__(self, entries: np.ndarray, held: Enclosures | None = None) -> Comparison: ...


_USED: ContextVar[bool] = ContextVar("used", default=True)


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


class _Way:
    """One rounding's table over a step, and what it gives; a `failed` one has no form of an operation."""

    def __init__(self, nodes: tuple[Node, ...], given: Arrays, wanted: frozenset[str], table: Fast) -> None:
        self.nodes, self.given, self.wanted, self.table = nodes, given, wanted, table
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
                small = work_of(self.nodes) <= MANY
                if small and tied(self.nodes, values, self.wanted, arithmetic=self.table):
                    return {}  # a formula may jump there, whatever its slopes are
                rows = {name: self.table.of(x[None]) for name, x in received.items()}
                back = pullback(self.nodes, values, rows, self.wanted, self.table)
        except LeftError:
            self.failed = True
            return {}
        self.cotangents = {name: each.reshape(each.shape[1:]) for name, each in back.items()}
        return self.cotangents

    def known(self, name: str, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Some entries of a value, or of a cotangent (`∂name`), with their own error, where that is far
        below what rounding makes."""
        held = self.cotangents if name.startswith("∂") else {} if self.failed else self.values
        pair = held.get(name.removeprefix("∂"))
        if pair is None or self.table.kappa(pair.loss) > SHARP:
            return None
        middle, reach = (x.reshape(-1)[entries].astype(float) for x in (pair.v, pair.radius))
        error = reach * self.table.kappa(pair.loss)
        return (middle, error, reach) if np.isfinite(middle).all() and np.isfinite(reach).all() else None


class Sieve:
    """The fast arithmetic over one step; nothing where it is not worth it, or has no table.

    Of 16 bits there are several ways: where anything may come out of a formula operation by operation,
    kernels are looked at that compute its sums in float32, or all of it, and round once: see `explained`.
    """

    def __init__(self, nodes: tuple[Node, ...], given: Arrays, wanted: frozenset[str], dtype: DType) -> None:
        self.nodes, self.dtype = nodes, dtype
        self.ways: list[_Way] = []
        if _USED.get() and work_of(nodes) > FEW and all(x.dtype != object for x in given.values()):
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

    def astray(self, value: np.ndarray, expected: Pair) -> np.ndarray | None:
        """By how much each entry is off where rounding does not explain it, and 0 where it does."""
        off = np.where(self.ways[0].table.passes(value, expected), 0.0, (value - expected.v).astype(float))
        return off if np.isfinite(off).all() else None

    def judged(self, value: np.ndarray, expected: Pair, dtype: DType, look: Look) -> Judgement | None:
        affordable = work_of(self.nodes) <= MANY
        return judged(value, expected, dtype, self.ways[0].table, look, affordable)


def sieve_sum(value: np.ndarray, terms: Sequence[np.ndarray], dtype: DType) -> Judgement | None:
    """An array beside the sum of arrays of floats."""
    table = fast(dtype) if _USED.get() and value.size > FEW else None
    if table is None:
        return None

    def look(entries: np.ndarray, held: Enclosures | None = None) -> Comparison:
        return compared_sum(value.reshape(-1)[entries], [balls(t.reshape(-1)[entries]) for t in terms], dtype)

    with np.errstate(all="ignore"):
        return judged(value, table.add_all([table.of(term) for term in terms]), dtype, table, look, True)


def judged(
    value: np.ndarray, expected: Pair, dtype: DType, table: Fast, look: Look, affordable: bool
) -> Judgement | None:
    """The judgement of an array by the entries that balls must look at; None where they must look at all of
    them, and may."""
    if value.shape != expected.shape or np.isnan(value).any():
        return None
    shape, flat = value.shape, value.reshape(-1)
    near = Pair(expected.v.reshape(-1), None if expected.r is None else expected.radius.reshape(-1),
                expected.loss)  # fmt: skip
    if near.r is None and np.array_equal(flat, near.v):
        at = _last_largest(np.isinf(flat))  # a mask's infinity is told before a number
        return _found(judge(look(np.array([at])), dtype), at, shape, 0)
    passes = table.passes(flat, near)
    open_ = np.flatnonzero(~passes)
    if open_.size > MOST and affordable:
        return None
    with np.errstate(all="ignore"):
        middle = near.v.astype(np.float64)
        apart = np.where(flat == near.v, 0.0, np.abs((flat - near.v).astype(np.float64)))
        ulp = ulp_of(middle, dtype)
        off, slack = np.where(np.isinf(flat), np.inf, apart / ulp), table.kappa(near.loss) * near.radius
        rounded = passes & (apart > ulp / 2 + slack)
        unsure = passes & ~rounded & ~(apart <= ulp / 2 - slack)
        relative = np.where(middle != 0, near.radius / np.abs(middle), np.nan)
        among, reach = np.where(rounded if rounded.any() else passes, off, -1.0), slack / ulp
        furthest = np.flatnonzero(among + reach >= np.max(among - reach, initial=-1.0, where=among >= 0))
        furthest = furthest[np.argsort(among[furthest], kind="stable")[-TOLD:]]
    asked = {_last_largest(among), *furthest.tolist()}
    asked.add(_last_largest(np.where(relative < 1, relative, -1.0)))
    several = np.flatnonzero(unsure) if not rounded.any() else np.zeros(0, int)
    if several.size > MOST:
        several = several[np.argsort(-apart[several] / ulp[several])[:MOST]]
    left = open_
    if open_.size > MOST:
        left = open_[np.argsort(-np.nan_to_num(off[open_], nan=np.inf))[:PROVED]]
    told = np.array(sorted(asked))
    entries = np.unique(np.concatenate([told, several, left]).astype(int))
    try:
        compared = look(entries)
        found = judge(compared, dtype)
        found = explained(found, compared.value, lambda held: _expected(look(entries, held)), dtype)
    except UnsupportedError:
        if affordable:
            return None
        left, entries = np.zeros(0, int), told
        found = judge(_by_floats(flat, near, table, told), dtype)
    if affordable and (not found.verdict.passes or found.verdict is Verdict.KINK):
        return None
    if found.verdict.passes and left.size < open_.size:
        found = replace(
            found, verdict=Verdict.UNDECIDED, causes=(because.LeftOpen(int(open_.size - left.size)),)
        )
    at = entries[found.index[0]] if found.index else 0
    others = np.ones(flat.size, bool)
    others[entries] = False
    return _found(found, int(at), shape, int(((relative >= 1) & others).sum()))


def _found(judged: Judgement, at: int, shape: Shape, cancelled: int) -> Judgement:
    """What was judged of some entries as the judgement of all of them."""
    index = tuple(int(n) for n in np.unravel_index(at, shape))
    return replace(judged, index=index, entries=size(shape), cancelled=judged.cancelled + cancelled)


def _by_floats(value: np.ndarray, near: Pair, table: Fast, entries: np.ndarray) -> Comparison:
    """Entries that are made of too much for balls: what floats know of them, with their own error."""
    middle, reach = balls(near.v[entries].astype(float)), near.radius[entries]
    around = arb(0, 1)
    error = balls(reach * table.kappa(near.loss)) * around
    return Comparison(
        value[entries], np.asarray(middle + error, object), np.asarray(middle + balls(reach) * around, object)
    )


def _expected(compared: Comparison) -> Pulled:
    kinks = np.zeros(compared.exact.shape, bool) if compared.kinks is None else compared.kinks
    return Pulled(compared.exact, compared.rounding, kinks)


def _last_largest(numbers: np.ndarray) -> int:
    return int(len(numbers) - 1 - np.argmax(numbers[::-1]))
