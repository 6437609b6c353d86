"""Enclosures of what a run of nodes gives: exact balls narrow enough to judge by, and the sets that rounding explains.

Where a derivative does not settle, because formulas branch there or have no finite slope, the run is looked at from both
sides of the point: it is a kink, a limit, or there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb

from .arithmetic import (
    NOUGHT,
    NOWHERE,
    UNIT,
    Arithmetic,
    Balls,
    as_float,
    ball,
    centres,
    exact,
    full,
    is_infinity,
    lift,
    numbers,
    precision,
    radii,
    rounding,
)
from .dtypes import DType
from .graph import Node, Shape, size
from .reference import FAR, OneSided, Values, evaluate, one_sided, pullback, replaced, tied

START_BITS, LIMIT_BITS = 128, 2048
SMALL = 1_000  # entries; up to here every exact number is shown to its last digit
LARGE = 100_000  # entries; above, precision is not raised beyond 4 * START_BITS
MAX_SIDES = 64  # entries of one pullback that are looked at from both sides

Cotangents = Mapping[str, Balls]  # of the outputs, by name: arrays of shape (rows, *shape)

_magnitude = lift(lambda x: as_float(abs(ball(x)).mid()) if ball(x).is_finite() else float("inf"))


def count_of(rows: Cotangents) -> int:
    """How many rows of cotangents there are."""
    return len(next(iter(rows.values())))


@dataclass(frozen=True, eq=False)
class Pulled:
    """Cotangents that a line passes to one parent: exact, with rounding, and which entries are at a kink."""

    exact: Balls
    rounding: Balls
    kinks: np.ndarray
    parts: int = 0  # how many were added up
    magnitude: Balls | None = None  # the sum of the parts' magnitudes

    def row(self, n: int) -> Pulled:
        """What one of the cotangents gives."""
        magnitude = None if self.magnitude is None else numbers(self.magnitude[n])
        return Pulled(numbers(self.exact[n]), numbers(self.rounding[n]), np.asarray(self.kinks[n]), self.parts, magnitude)


@dataclass(frozen=True, eq=False)
class Run:
    """A run of nodes from its inputs to its outputs, and the targets whose cotangents are asked for."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    targets: Mapping[str, Shape]
    wanted: frozenset[str]

    def pull(
        self, given: Values, arithmetic: Arithmetic, rows: Cotangents, tally: dict[str, tuple[int, Balls]] | None = None
    ) -> Balls:
        """The cotangents of all targets side by side, one row for each row of the outputs' cotangents."""
        values = evaluate(self.nodes, given, arithmetic)
        back = pullback(self.nodes, values, rows, self.wanted, arithmetic, tally)
        count = count_of(rows)
        parts = [back[t] if t in back else full((count, *shape), NOUGHT) for t, shape in self.targets.items()]
        return np.concatenate([part.reshape(count, -1) for part in parts], axis=1)


class Sides:
    """A run seen from both sides of one entry of one of its inputs; `column` is that entry's place among the targets."""

    def __init__(self, run: Run, given: Values, rows: Cotangents, name: str, entry: int, column: int) -> None:
        self.run, self.given, self.rows = run, given, rows
        self.name, self.entry, self.column = name, entry, column
        self.memory: dict[Any, Balls] = {}

    def _at(self, step: Any) -> Values:
        values = self.given[self.name]
        return {**self.given, self.name: replaced(values, self.entry, values.reshape(-1)[self.entry] + step)}

    def moved(self, step: Any, arithmetic: Arithmetic) -> Balls:
        """The entry's cotangents, one for each row, with the entry moved by `step`."""
        key = (str(step), arithmetic.dtype)
        if key not in self.memory:
            self.memory[key] = self.run.pull(self._at(step), arithmetic, self.rows)[:, self.column]
        return self.memory[key]

    def slopes(self, arithmetic: Arithmetic, row: int) -> OneSided:
        with precision(LIMIT_BITS):
            return one_sided(lambda step: self.moved(step, arithmetic)[row])

    def _values(self, step: Any, arithmetic: Arithmetic) -> Balls:
        values = evaluate(self.run.nodes, self._at(step), arithmetic)
        return np.concatenate([values[output].reshape(-1) for output in self.run.outputs])

    @property
    def scale(self) -> float:
        """The size of the input's entries, at least 1."""
        return max(1.0, float(np.max(_magnitude(self.given[self.name]).astype(float))))

    def jumps(self, arithmetic: Arithmetic, least: float) -> bool:
        """Whether the value differs here and on the two sides: no derivative, and no subdifferential.

        Not where it differs by less than `least`, relative: in a format where softplus is linear from 20 on, that is no jump.
        """
        with precision(LIMIT_BITS):
            right, here, left = (self._values(step, arithmetic) for step in (FAR, NOUGHT, -FAR))
            pairs = (*zip(right, here, strict=True), *zip(left, here, strict=True))
            return any(abs(a - b) > (abs(a) + abs(b)) * least + 2.0**-40 for a, b in pairs)


class Enclosures:
    """Enclosures for one dtype."""

    def __init__(self, dtype: DType, accumulator: DType | None = None) -> None:
        self.dtype = dtype
        self.exact: Arithmetic = exact()
        self.rounding: Arithmetic = rounding(dtype, accumulator)

    def unsettled(self, exact_balls: Balls, rounded: Balls) -> np.ndarray:
        """Entries whose exact ball is too wide to judge by, in itself and beside the rounding set."""
        radius = radii(exact_balls)
        with np.errstate(invalid="ignore"):
            narrow = radius <= np.abs(centres(exact_balls)) * self.dtype.unit_roundoff / 4096
            narrow |= radius <= self.dtype.smallest / 4096
            if radius.size > SMALL and not narrow.all():
                slack = radii(rounded)
                narrow |= np.isfinite(slack) & (radius <= slack / 2**20)
        return ~(np.isfinite(radius) & narrow)

    def settled(self, compute: Callable[[], Any], rounded: Balls) -> Balls:
        """Exact balls, at a precision that doubles until they are narrow or stop getting narrower."""
        bits, found = START_BITS, numbers(np.asarray(compute(), object))
        limit = LIMIT_BITS if found.size <= LARGE else 4 * START_BITS
        open_ = self.unsettled(found, rounded)
        while open_.any() and bits < limit:
            bits *= 2
            with precision(bits):
                better = numbers(np.asarray(compute(), object))
            before, after = radii(found)[open_], radii(better)[open_]
            found = better
            if not (after < before / 2).any():
                break
            open_ = self.unsettled(found, rounded)
        return found

    def pulled(self, run: Run, given: Values, rows: Cotangents) -> dict[str, Pulled]:
        """What arrives at each target for each row of cotangents."""
        tally: dict[str, tuple[int, Balls]] = {}
        rounded = numbers(run.pull(given, self.rounding, rows, tally))
        found = self.settled(lambda: run.pull(given, self.exact, rows), rounded)
        kinks = np.zeros(found.shape, bool)
        self._from_both_sides(run, given, rows, found, rounded, kinks)
        result: dict[str, Pulled] = {}
        start = 0
        for target, shape in run.targets.items():
            part = slice(start, start + size(shape))
            mine, loose, bent = (array[:, part].reshape(count_of(rows), *shape) for array in (found, rounded, kinks))
            result[target] = Pulled(mine, loose, bent, *tally.get(target, (0, None)))
            start = part.stop
        return result

    def _from_both_sides(
        self, run: Run, given: Values, rows: Cotangents, found: Balls, rounded: Balls, kinks: np.ndarray
    ) -> None:
        """Where a derivative did not settle, look at it from both sides: kink, limit, or nothing there. In place."""
        values = evaluate(run.nodes, given, self.exact)
        count = count_of(rows)
        nowhere = np.zeros(count, bool)
        for output, cotangents in rows.items():
            lost = ~np.isfinite(radii(values[output])).reshape(-1)
            lost[lost] = [not is_infinity(x) for x in values[output].reshape(-1)[lost]]
            if lost.any():  # a value that does not exist has no derivative
                nowhere |= ((centres(cotangents).reshape(count, -1) != 0) & lost).any(axis=1)
        if nowhere.any():
            found[nowhere] = NOWHERE
        open_ = self.unsettled(found, rounded)
        look = open_ | tied(run.nodes, values)
        look[nowhere] = False
        if not look.any():
            return
        broken = ~np.isfinite(radii(found))
        places = [(target, n) for target, shape in run.targets.items() for n in range(size(shape))]
        columns = [int(column) for column in np.flatnonzero(look.any(axis=0)) if places[column][0] in given]
        for column in columns[:MAX_SIDES]:
            self._column(Sides(run, given, rows, *places[column], column), look, open_, found, rounded, kinks)
            # Beside an entry without a derivative, 0 times infinity is no number either.
            gone = broken[:, column] & ~np.isfinite(radii(found[:, column]))
            if gone.any():
                found[broken[:, column], column] = NOWHERE
        seen = set(columns[:MAX_SIDES])
        unseen = [column for column in range(found.shape[1]) if column not in seen]
        kinks[:, unseen] |= open_[:, unseen] & ~broken[:, unseen]

    def _column(
        self, side: Sides, look: np.ndarray, open_: np.ndarray, found: Balls, rounded: Balls, kinks: np.ndarray
    ) -> None:
        """One entry of an input, from both of its sides."""
        column = side.column
        jumps = side.jumps(self.exact, max(2.0**-40, self.dtype.unit_roundoff))
        for row in np.flatnonzero(look[:, column]):
            if jumps:
                found[row, column] = NOWHERE
                continue
            sides = side.slopes(self.exact, int(row))
            if sides.smooth and not open_[row, column] and found[row, column].overlaps(sides.ball):
                continue  # the tie is another entry's
            found[row, column] = sides.ball
            kinks[row, column] = not sides.smooth and sides.ball.is_finite()
            if sides.smooth:
                # Not where the formula's branches meet, but beside it: there rounding does not change branches.
                unit = self.dtype.unit_roundoff
                step = UNIT * (16 * unit * side.scale)
                near = [ball(side.moved(s, self.rounding)[row]) for s in (step, -step)]
                near = [x for x in near if x.is_finite()]
                here = sides.ball * arb(1, 64 * unit)
                rounded[row, column] = here.union(near[0]).union(near[-1]) if near else NOWHERE
