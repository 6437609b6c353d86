"""The fast arithmetic beside the balls, entry by entry: at the edge of what passes, and its own error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from flint import arb

from gradproof.dtypes import DType
from gradproof.judging.verdicts import Comparison, judge
from gradproof.proof.arithmetic import exact, rounding
from gradproof.proof.balls import Balls, balls, full, numbers, precision
from gradproof.proof.enclosure import START_BITS
from gradproof.proof.fast import Fast, LeftError, Pair, fast
from gradproof.proof.graph import Node
from gradproof.proof.walk import evaluate, pullback

FACTORS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.999, 1.0, 1.001, 1.01, 1.1, 2.0)
OWN = 0.9999  # of what the fast arithmetic itself says that it passes
SHARP = 320  # bits of the exact numbers that its own error is measured by
SHARPER = 1400  # ... in float64: exp of its largest number has 1024 bits before the point


@dataclass
class Tally:
    """What came of probes: how many there were, those that passed, those that should not have, those that
    passed beside a ball that is not finite, and entries whose own error is more than κ of the radius."""

    probes: int = 0
    passed: int = 0
    inside: int = 0  # probes at up to 0.97 of the radius, on entries that are finite
    decided: int = 0  # those of them that passed
    measured: int = 0
    left: int = 0  # graphs that have no fast form
    worst: float = 0.0  # own error, in κ·r
    passing: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    endless: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.probes + other.probes, self.passed + other.passed, self.inside + other.inside,
            self.decided + other.decided, self.measured + other.measured, self.left + other.left,
            max(self.worst, other.worst), self.passing + other.passing, self.loose + other.loose,
            self.endless + other.endless,
        )  # fmt: skip


def holds(ball: arb, value: float) -> bool:
    return bool(ball.is_finite() and ball.contains(value))


def edge(label: str, rounded: Balls, sharp: Balls, pair: Pair, table: Fast, dtype: DType) -> Tally:
    """Probes of one array: at parts of the balls' radius, at its own edge, and what is no number."""
    tally = Tally()
    rounded, sharp = (numbers(np.asarray(x, object)).reshape(-1) for x in (rounded, sharp))
    shape = pair.shape
    r = None if pair.r is None else np.broadcast_to(pair.r, shape).reshape(-1)
    flat = Pair(np.broadcast_to(pair.v, shape).reshape(-1), r, pair.loss)
    there = np.array([x.is_finite() for x in rounded], bool)
    middle = np.array([float(x.mid()) if ok else np.nan for x, ok in zip(rounded, there, strict=True)])
    radius = np.array([float(x.rad()) if ok else np.nan for x, ok in zip(rounded, there, strict=True)])
    kappa = table.kappa(flat.loss) + 2.0**-11
    with np.errstate(all="ignore"):
        own = flat.radius * (1 - kappa) * OWN
        near = flat.v.astype(float)
        probes = [(f, middle + sign * radius * f) for f in FACTORS for sign in (-1, 1)]
        probes += [(None, near), (None, near + own), (None, near - own)]
        probes += [(None, np.full(near.shape, x)) for x in (0.0, np.nan, np.inf, -np.inf)]
    for factor, values in probes:
        passes = np.broadcast_to(table.passes(values, flat), values.shape)
        tally.probes += values.size
        tally.passed += int(passes.sum())
        if factor is not None and factor <= 0.97:
            tally.inside += int(there.sum())
            tally.decided += int((passes & there).sum())
        for n in np.flatnonzero(passes):
            if not holds(rounded[n], float(values[n])) and not allowed(
                values[n], sharp[n], rounded[n], dtype
            ):
                (tally.passing if there[n] else tally.endless).append(
                    f"{label}[{n}] of {shape}: {values[n]!r} passes beside {flat.v[n]!r} "
                    f"± {flat.radius[n]!r}, balls have {rounded[n]}, exactly {sharp[n].str(20)}"
                )
                break
    own_error(label, sharp, flat, table, tally)
    return tally


def allowed(value: float, sharp: arb, rounded: arb, dtype: DType) -> bool:
    """Whether the judge lets a number pass by more than the rounding set: where that has no end, what is
    correctly rounded, and the infinity that it is exactly."""
    if rounded.is_finite() and np.isfinite(value):
        return False
    one = [np.array([x], object) for x in (sharp, rounded)]
    return judge(Comparison(np.array([value]), *one), dtype).verdict.passes


def own_error(label: str, sharp: Balls, flat: Pair, table: Fast, tally: Tally) -> None:
    """|v - exact| beside κ·r, where r is a number and the exact number is known."""
    kappa = table.kappa(flat.loss)
    for n in np.flatnonzero(flat.radius > 0):  # else the number alone passes, and it is in the set
        v, r, e = flat.v[n], flat.radius[n], sharp[n]
        if np.isinf(v):
            if e.is_finite():
                tally.loose.append(f"{label}[{n}]: {v!r} ± {r!r}, exactly {e.str(20)}")
            continue
        if not e.is_finite():
            continue
        high = float(v)
        with precision(SHARP):
            off = float(abs(arb(high) + arb(float(v - high)) - e).lower())
        tally.measured += 1
        if off > kappa * r:
            tally.loose.append(f"{label}[{n}]: {v!r} ± {r!r} is {off} off {e.str(20)}, κ {kappa}")
            return
        if r:
            tally.worst = max(tally.worst, off / (kappa * r))


def compare(
    label: str,
    nodes: tuple[Node, ...],
    given: Mapping[str, np.ndarray],
    cotangents: Mapping[str, np.ndarray],
    wanted: frozenset[str],
    dtype: DType,
) -> Tally:
    """All probes of a run of nodes: of each node's values and of every cotangent."""
    table, tally, sharper = fast(dtype), Tally(), SHARP if dtype.precision <= 24 else SHARPER
    assert table is not None
    loose, pairs = rounding(dtype), {name: table.of(x) for name, x in given.items()}
    point = {name: balls(x) for name, x in given.items()}
    found: Iterator[tuple[str, Balls, Balls, Pair]]
    with np.errstate(all="ignore"):
        try:
            values = evaluate(nodes, pairs, table)
        except LeftError:
            tally.left = 1
            return tally
        with precision(START_BITS):
            widened = evaluate(nodes, point, loose)
        with precision(sharper):
            sharp = evaluate(nodes, point, exact())
        found = ((node.name, widened[node.name], sharp[node.name], values[node.name]) for node in nodes)
        for name, a, b, pair in found:
            tally += edge(f"{label} {name}", a, b, pair, table, dtype)
        try:
            rows = {name: table.of(x[None]) for name, x in cotangents.items()}
            back = pullback(nodes, values, rows, wanted, table)
        except LeftError:
            tally.left = 1
            return tally
        rows = {name: balls(x)[None] for name, x in cotangents.items()}
        with precision(START_BITS):
            widened = pullback(nodes, widened, rows, wanted, loose)
        with precision(sharper):
            sharp = pullback(nodes, sharp, rows, wanted, exact())
        for name, pair in back.items():
            some = full((), arb(0))
            tally += edge(
                f"{label} ∂{name}", widened.get(name, some), sharp.get(name, some), pair, table, dtype
            )
    return tally
