"""What floats decide, so that balls look only at what is left: see `proof.fast`.

Most entries of a large tensor are surely explained by rounding. The balls judge the others, entry by entry,
and those that a report tells: the one that is furthest off, and the one at which the largest error would
pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Protocol

import numpy as np

from .. import causes as because
from ..dtypes import DType
from ..errors import UnsupportedError
from ..proof.balls import balls
from ..proof.enclosure import Enclosures, Pulled
from ..proof.fast import Fast, LeftError, Pair, fast
from ..proof.graph import Node, size
from ..proof.walk import evaluate, pullback, tied
from ..verdict import Judgement, Verdict
from .together import explained
from .verdicts import Comparison, absent, compared_sum, judge, ulp_of
from .witness import Arrays

FEW = 600  # entries of all domains together: up to here balls alone are as quick
MANY = 500_000  # ... beyond which they are not asked for all of them
MOST = 4_000  # entries that are looked at one by one
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


class Sieve:
    """The fast arithmetic over one step; nothing where it is not worth it, or has no table."""

    def __init__(self, nodes: tuple[Node, ...], given: Arrays, wanted: frozenset[str], dtype: DType) -> None:
        self.nodes, self.given, self.wanted = nodes, given, wanted
        self.table: Fast | None = None
        if _USED.get() and work_of(nodes) > FEW and all(x.dtype != object for x in given.values()):
            self.table = fast(dtype)
        self._values: dict[str, Pair] | None = None
        self._failed = False

    def values(self) -> Mapping[str, Pair] | None:
        """The nodes' values; None where an operation has no fast form."""
        if self.table is None or self._failed:
            return None
        if self._values is None:
            try:
                with np.errstate(all="ignore"):
                    given = {name: self.table.of(x) for name, x in self.given.items()}
                    self._values = evaluate(self.nodes, given, self.table)
            except LeftError:
                self._failed = True
        return self._values

    def pulled(self, received: Arrays) -> Mapping[str, Pair] | None:
        """What arrives at each name, of one row of cotangents of the outputs."""
        values = self.values()
        if values is None or self.table is None:
            return None
        finite = all(np.isfinite(values[name].v).all() for name in received)
        if not finite:  # a value that does not exist has no derivative: balls tell
            return None
        try:
            with np.errstate(all="ignore"):
                if tied(self.nodes, values, self.wanted, arithmetic=self.table):
                    return None  # a formula may jump there, whatever its slopes are
                rows = {name: self.table.of(x[None]) for name, x in received.items()}
                back = pullback(self.nodes, values, rows, self.wanted, self.table)
        except LeftError:
            return None
        return {name: each.reshape(each.shape[1:]) for name, each in back.items()}

    def absent(self, expected: Pair, look: Look) -> Judgement | None:
        """No gradient, beside the entry that is largest."""
        at = int(np.argmax(np.abs(np.nan_to_num(expected.v.reshape(-1).astype(float)))))
        judged = absent(look(np.array([at])).exact, passed=True)
        return replace(judged, index=(0,) * expected.ndim) if judged.verdict is Verdict.WRONG else None

    def astray(self, value: np.ndarray, expected: Pair) -> np.ndarray | None:
        """By how much each entry is off where rounding does not explain it, and 0 where it does."""
        assert self.table is not None
        off = np.where(self.table.passes(value, expected), 0.0, (value - expected.v).astype(float))
        return off if np.isfinite(off).all() else None

    def judged(self, value: np.ndarray, expected: Pair, dtype: DType, look: Look) -> Judgement | None:
        assert self.table is not None
        return judged(value, expected, dtype, self.table, look, work_of(self.nodes) <= MANY)


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
    entries = np.unique(np.concatenate([np.array(sorted(asked)), several, left]).astype(int))
    try:
        compared = look(entries)
    except UnsupportedError:
        if affordable:
            return None
        raise
    found = judge(compared, dtype)
    found = explained(found, compared.value, lambda held: _expected(look(entries, held)), dtype)
    if (affordable and not found.verdict.passes) or found.verdict is Verdict.KINK:
        return None
    if found.verdict.passes and left.size < open_.size:
        found = replace(
            found, verdict=Verdict.UNDECIDED, causes=(because.LeftOpen(int(open_.size - left.size)),)
        )
    at = entries[found.index[0]] if found.index else 0
    others = np.ones(flat.size, bool)
    others[entries] = False
    return replace(
        found,
        index=tuple(int(n) for n in np.unravel_index(at, shape)),
        entries=int(value.size),
        cancelled=found.cancelled + int(((relative >= 1) & others).sum()),
    )


def _expected(compared: Comparison) -> Pulled:
    kinks = np.zeros(compared.exact.shape, bool) if compared.kinks is None else compared.kinks
    return Pulled(compared.exact, compared.rounding, kinks)


def _last_largest(numbers: np.ndarray) -> int:
    return int(len(numbers) - 1 - np.argmax(numbers[::-1]))
