"""Enclosures of what a run of nodes gives: exact balls narrow enough to judge by, and the sets that rounding
explains.

Where a derivative does not settle, because formulas branch there or have no finite slope, the run is looked
at from both sides of the point: it is a kink, a limit, or there is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from flint import arb

from ..dtypes import DType
from .arithmetic import Arithmetic, exact, rounding
from .balls import (
    NOUGHT,
    NOWHERE,
    UNIT,
    Ball,
    Balls,
    accuracy_bits,
    as_float,
    ball,
    balls,
    centres,
    entry,
    finite,
    full,
    is_infinity,
    lift,
    numbers,
    precision,
    radii,
)
from .graph import Node, Shape, size
from .walk import FAR, OneSided, Site, Values, evaluate, one_sided, pullback, replaced, tied

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
    ties: Ties | None = None  # of all targets together, where entries are at a kink
    at: int | None = None  # which of the cotangents, of a single row

    def row(self, n: int) -> Pulled:
        """What one of the cotangents gives."""
        magnitude = None if self.magnitude is None else numbers(self.magnitude[n])
        kinks = np.asarray(self.kinks[n])
        at = n % len(self.exact)
        return Pulled(
            numbers(self.exact[n]), numbers(self.rounding[n]), kinks, self.parts, magnitude, self.ties, at
        )


@dataclass(frozen=True, eq=False)
class Run:
    """A run of nodes from its inputs to its outputs, and the targets whose cotangents are asked for; `at`
    says where each node is evaluated, `use` where each of its slopes is (None: nowhere). Of a `blurred` one
    floats tell a part, with their own error, which no precision makes sharper."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    targets: Mapping[str, Shape]
    wanted: frozenset[str]
    at: Callable[[Node], Site | None] = Site
    use: Callable[[Node, int], Site | None] = lambda node, n: Site(node)
    told: Mapping[str, Callable[[Arithmetic], Balls]] = field(default_factory=dict)  # cotangents on the way
    blurred: bool = False  # whether floats tell a part of it, with their own error

    def evaluate(self, given: Values, arithmetic: Arithmetic) -> Values:
        """The nodes' values, beside those given."""
        return evaluate(self.nodes, given, arithmetic, self.at)

    def tied(self, values: Values) -> bool:
        """Whether a branch's condition stands at its boundary where gradients flow: see `tied`."""
        return tied(self.nodes, values, self.wanted | set(self.targets), self._sites)

    def _sites(self, node: Node) -> list[Site]:
        if self.at is Site:
            return [Site(node)]
        places = (self.at(node), *(self.use(node, n) for n in range(len(node.reads))))
        return [site for site in places if site is not None]

    def pull(
        self,
        given: Values,
        arithmetic: Arithmetic,
        rows: Cotangents,
        tally: dict[str, tuple[int, Balls]] | None = None,
        mode: str = "slopes",
    ) -> Balls:
        """The cotangents of all targets side by side, one row for each row of the outputs' cotangents."""
        values = self.evaluate(given, arithmetic)
        back = pullback(self.nodes, values, rows, self.wanted, arithmetic, tally, mode, self.use, self.told)
        count = count_of(rows) if rows else 1
        parts = [back[t] if t in back else full((count, *shape), NOUGHT) for t, shape in self.targets.items()]
        return np.concatenate([part.reshape(count, -1) for part in parts], axis=1)

    def split(self, pulled: Balls) -> dict[str, Balls]:
        """What was pulled, a row for each of the outputs' cotangents or a single one, by target."""
        found, start = {}, 0
        for target, shape in self.targets.items():
            found[target] = pulled[..., start : start + size(shape)].reshape((*pulled.shape[:-1], *shape))
            start += size(shape)
        return found

    def places(self) -> list[tuple[str, int]]:
        """Each column of what is pulled: its target, and the entry of it."""
        return [(target, n) for target, shape in self.targets.items() for n in range(size(shape))]

    def moving(self, given: Values) -> list[str]:
        """The inputs that gradients flow to: all that a kink can be moved by."""
        return [name for name in given if name in self.wanted or name in self.targets]


class NoValuesError(Exception):
    """A section without its outputs' values cannot be looked at from both sides."""


LEAN = arb(2) ** -100  # of a step: what the other inputs are moved by, where ties go along with the step


class Sides:
    """A run seen from both sides of one entry of one of its inputs; `column` is that entry's place among the
    targets."""

    def __init__(self, run: Run, given: Values, rows: Cotangents, name: str, entry: int, column: int) -> None:
        self.run, self.given, self.rows = run, given, rows
        self.name, self.entry, self.column = name, entry, column
        self.memory: dict[tuple[str, DType | None, int], Balls] = {}
        self.gradients: list[Balls] = []  # of all targets, on the two sides

    def _at(self, step: arb, lean: int = 0) -> Values:
        given = _leaning(self.run, self.given, step * LEAN * lean) if lean else self.given
        values = given[self.name]
        return {**given, self.name: replaced(values, self.entry, values.reshape(-1)[self.entry] + step)}

    def moved(self, step: arb, arithmetic: Arithmetic, lean: int = 0) -> Balls:
        """The entry's cotangents, one for each row, with the entry moved by `step`, and all others by a
        little to one side."""
        key = (str(step), arithmetic.dtype, lean)
        if key not in self.memory:
            whole = self.run.pull(self._at(step, lean), arithmetic, self.rows, mode="beside")
            if arithmetic.dtype is None and step in (FAR, -FAR):
                self.gradients.append(whole)
            self.memory[key] = whole[:, self.column]
        return self.memory[key]

    def _entry(self, arithmetic: Arithmetic, row: int, lean: int, step: arb) -> arb:
        return entry(self.moved(step, arithmetic, lean), (row,))

    def slopes(self, arithmetic: Arithmetic, row: int) -> OneSided:
        """The limits from both sides. Operands that stay equal along the way (`maximum(x + t, y + t)`, by t)
        leave it open which of them counts: then both sides of their tie are looked at."""
        with precision(LIMIT_BITS):
            found = one_sided(partial(self._entry, arithmetic, row, 0))
            if not found.wide:
                return found
            a, b = (one_sided(partial(self._entry, arithmetic, row, lean)) for lean in (1, -1))
            if not (a.ball.is_finite() and b.ball.is_finite()):
                return found
            apart = abs(a.ball - b.ball) > (abs(a.ball) + abs(b.ball)) * arb(2) ** -50 + arb(2) ** -150
            return OneSided(a.ball.union(b.ball), smooth=a.smooth and b.smooth and not apart)

    def _values(self, step: arb, arithmetic: Arithmetic) -> Balls:
        values = self.run.evaluate(self._at(step), arithmetic)
        return np.concatenate([values[output].reshape(-1) for output in self.run.outputs])

    @property
    def scale(self) -> float:
        """The size of the input's entries, at least 1."""
        return max(1.0, float(np.max(_magnitude(self.given[self.name]).astype(float))))

    def jumps(self, arithmetic: Arithmetic, least: float) -> bool:
        """Whether the value differs here and on the two sides: no derivative, and no subdifferential.

        Not where it differs by less than `least`, relative: in a format where softplus is linear from 20 on,
        that is no jump.
        """
        with precision(LIMIT_BITS):
            right, here, left = (self._values(step, arithmetic) for step in (FAR, NOUGHT, -FAR))
            pairs = (*zip(right, here, strict=True), *zip(left, here, strict=True))
            return any(abs(a - b) > (abs(a) + abs(b)) * least + 2.0**-40 for a, b in pairs)


def _leaning(run: Run, given: Values, amount: arb) -> Values:
    """The inputs moved by up to twice the amount, each entry its own way."""
    random = np.random.default_rng(0)
    leaning = dict(given)
    for name in run.moving(given):
        drawn = random.choice([-1.0, 1.0], given[name].shape) * random.uniform(1, 2, given[name].shape)
        leaning[name] = np.asarray(given[name] + balls(drawn) * amount, object)
    return leaning


MAX_VERTICES = (
    60  # gradients beside the point that are looked at for one set of entries, and 4 more for each entry
)
MAX_STEPS = 5000  # of the search for the nearest point of their hull


class Ties:
    """The entries of all targets at a kink, taken together: the Clarke subdifferential is a set of vectors.

    It is the convex hull of the gradients beside the point. Where a vector leaves it, there is a direction in
    which every gradient beside the point gives less than the vector: it is looked for from the point of the
    hull that is nearest to the vector, whose hull grows by the gradients beside the point in that direction.
    """

    def __init__(
        self,
        run: Run,
        given: Values,
        rows: Cotangents,
        arithmetic: Arithmetic,
        kinks: np.ndarray,
        seen: Sequence[Balls],
    ) -> None:
        self.run, self.given, self.rows, self.arithmetic, self.kinks = run, given, rows, arithmetic, kinks
        self.places = run.places()
        self.seen = [
            centres(gradients) for gradients in seen
        ]  # on the two sides of each entry, to begin with

    def columns(self, row: int) -> np.ndarray:
        """The columns at a kink that the run's own inputs can be moved by."""
        return np.array(
            [c for c in np.flatnonzero(self.kinks[row]) if self.places[c][0] in self.given], dtype=int
        )

    def _gradients(self, columns: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """The gradients beside the point in that direction, one for each row; nan where there are none."""
        with precision(LIMIT_BITS):
            moved = _leaning(self.run, self.given, FAR * LEAN)
            scale = max(float(np.abs(direction).max()), 1e-300)
            for column, step in zip(columns, direction / scale, strict=True):
                if step:
                    name, entry = self.places[column]
                    moved[name] = replaced(
                        moved[name], entry, moved[name].reshape(-1)[entry] + FAR * float(step)
                    )
            return centres(self.run.pull(moved, self.arithmetic, self.rows, mode="beside"))

    def groups(self, columns: np.ndarray) -> list[np.ndarray]:
        """Columns that belong together: those whose gradients change when one of them goes another way."""
        rows = np.flatnonzero(self.kinks[:, columns].any(axis=1))
        label = np.arange(len(columns))
        base = np.random.default_rng(1).uniform(0.5, 1.5, len(columns)) * (-1.0) ** np.arange(len(columns))
        for n in range(len(columns)):
            seen = [self._gradients(columns, np.where(np.arange(len(columns)) == n, far, base))[np.ix_(rows,
                columns)]
                    for far in (8.0, -4.0, 0.05)]  # fmt: skip
            changed = np.ptp(seen, axis=0) > 1e-9 * np.abs(seen).max(axis=0)
            for m in np.flatnonzero(changed.any(axis=0)):
                label[label == label[m]] = label[n]
        return [np.flatnonzero(label == one) for one in np.unique(label)]

    @cached_property
    def _grouped(self) -> dict[bytes, list[np.ndarray]]:
        return {}

    def refuted(
        self, row: int, vector: np.ndarray, reach: np.ndarray
    ) -> tuple[np.ndarray, float, float] | None:
        """The columns that are no subgradient together, what they give along a direction, and the function's
        slope there at most; None where they may be.

        `vector` and `reach`, what rounding allows each entry, are over all columns of the row.
        """
        columns = self.columns(row)
        if len(columns) < 2:
            return None
        everything = np.arange(len(columns))
        if not self._outside(row, columns, everything, vector, reach):
            return None
        key = columns.tobytes()
        if key not in self._grouped:
            self._grouped[key] = self.groups(columns) if len(columns) <= MAX_SIDES else [everything]
        for group in self._grouped[key]:
            if len(group) > 1 and (slopes := self._outside(row, columns, group, vector, reach)):
                return columns[group], *slopes
        return None

    def _outside(
        self, row: int, columns: np.ndarray, group: np.ndarray, vector: np.ndarray, reach: np.ndarray
    ) -> tuple[float, float] | None:
        """What these entries give along a direction, and the function's slope there at most, where they are
        outside of the hull of the gradients beside the point; None where they may be inside."""
        here, allowed = vector[columns[group]], np.maximum(reach[columns[group]], 1e-300)
        known = [one for one in (seen[row, columns[group]] for seen in self.seen) if np.isfinite(one).all()]

        def look(direction: np.ndarray) -> None:
            for sign in (1.0, -1.0):
                whole = np.zeros(len(columns))
                whole[group] = sign * direction
                gradient = self._gradients(columns, whole)[row, columns[group]]
                if np.isfinite(gradient).all():
                    known.append(gradient)

        random = np.random.default_rng(2)
        for direction in (here, np.ones(len(group)), random.normal(size=len(group))):
            if direction.any():
                look(direction)
        if not known:
            return None
        spread = np.maximum(np.ptp(known, axis=0), allowed)
        while True:
            nearest = _nearest((np.array(known) - here) / spread)
            if (np.abs(nearest) * spread <= allowed).all():
                return None
            before, along = len(known), -nearest / spread
            along = along / np.abs(along).max()
            look(along)
            look(along + random.normal(size=len(group)) * 0.1)
            most = max(float(vertex @ along) for vertex in known)
            if float(here @ along) > most + float(allowed @ np.abs(along)):
                break
            if len(known) == before or before > MAX_VERTICES + 4 * len(group):
                return None  # it would need more of them to tell
        return float(here @ along), most


def _nearest(points: np.ndarray) -> np.ndarray:
    """The point nearest to 0 of the hull of some points, weight handed from the worst of them to the best.

    Mitchell, Demyanov and Malozemov, Finding the point of a polyhedron closest to the origin, SIAM J. Control
    12, 1974.
    """
    weights = np.full(len(points), 1 / len(points))
    nearest = weights @ points
    for _ in range(MAX_STEPS):
        reached = points @ nearest
        best = int(np.argmin(reached))
        used = np.flatnonzero(weights > 0)
        worst = int(used[np.argmax(reached[used])])
        gap, step = reached[worst] - reached[best], points[best] - points[worst]
        length = float(step @ step)
        if gap <= 1e-16 * abs(reached[worst]) or not length:
            break
        share = min(weights[worst], gap / length)
        weights[best] += share
        weights[worst] = max(weights[worst] - share, 0.0)
        nearest = weights @ points
    return nearest


def _told(tally: Mapping[str, tuple[int, Balls]], target: str) -> tuple[int, Balls | None]:
    return tally.get(target, (0, None))


def _nowhere(values: Values, rows: Cotangents, count: int) -> np.ndarray:
    """Which rows ask for the derivative of a value that does not exist; values that are not there are looked
    at elsewhere."""
    nowhere = np.zeros(count, bool)
    for output, cotangents in rows.items():
        if output in values and values[output].size * count == cotangents.size:
            lost = ~finite(values[output]).reshape(-1)
            lost[lost] = [not is_infinity(x) for x in values[output].reshape(-1)[lost]]
            if lost.any():
                nowhere |= ((centres(cotangents).reshape(count, -1) != 0) & lost).any(axis=1)
    return nowhere


class Enclosures:
    """Enclosures for one dtype."""

    def __init__(self, dtype: DType, accumulator: DType | None = None) -> None:
        self.dtype = dtype
        self.exact: Arithmetic = exact()
        self.rounding: Arithmetic = rounding(dtype, accumulator)

    def unsettled(self, exact_balls: Balls, rounded: Balls, blurred: bool = False) -> np.ndarray:
        """Entries whose exact ball is too wide to judge by, in itself and beside the rounding set; a
        `blurred` one is made of what floats know."""
        radius = radii(exact_balls)
        with np.errstate(invalid="ignore"):
            narrow = radius <= np.abs(centres(exact_balls)) * self.dtype.unit_roundoff / 4096
            narrow |= radius <= self.dtype.smallest / 4096
            if (blurred or radius.size > SMALL) and not narrow.all():
                slack = radii(rounded)
                narrow |= np.isfinite(slack) & (radius <= slack / 2**20)
        beyond = np.isinf(radius)  # of the floats' range, if there at all
        if beyond.any():
            sharp = np.asarray(accuracy_bits(exact_balls) > self.dtype.precision + 12, dtype=bool)
            narrow = np.where(beyond, finite(exact_balls) & sharp, narrow)
        return ~narrow

    def settled(self, compute: Callable[[], Balls], rounded: Balls, blurred: bool = False) -> Balls:
        """Exact balls, at a precision that doubles until they are narrow or stop getting narrower."""
        bits, found = START_BITS, numbers(np.asarray(compute(), object))
        limit = LIMIT_BITS if found.size <= LARGE else 4 * START_BITS
        open_ = self.unsettled(found, rounded, blurred)
        while open_.any() and bits < limit:
            bits *= 2
            with precision(bits):
                better = numbers(np.asarray(compute(), object))
            before, after = radii(found)[open_], radii(better)[open_]
            found = better
            if not (after < before / 2).any():
                bits = max(
                    bits, limit // 2
                )  # an argument of a sine has bits before the point: one look with all there are
            open_ = self.unsettled(found, rounded, blurred)
        return found

    def pulled(self, run: Run, given: Values, rows: Cotangents) -> dict[str, Pulled]:
        """What arrives at each target for each row of cotangents."""
        tally: dict[str, tuple[int, Balls]] = {}
        rounded = numbers(run.pull(given, self.rounding, rows, tally))
        found = self.settled(lambda: run.pull(given, self.exact, rows), rounded, run.blurred)
        kinks = np.zeros(found.shape, bool)
        seen = self._from_both_sides(run, given, rows, found, rounded, kinks)
        ties = Ties(run, given, rows, self.exact, kinks, seen) if (kinks.sum(axis=1) > 1).any() else None
        mine, loose, bent = (run.split(array) for array in (found, rounded, kinks))
        return {
            target: Pulled(mine[target], loose[target], bent[target], *_told(tally, target), ties)
            for target in mine
        }

    def _from_both_sides(
        self, run: Run, given: Values, rows: Cotangents, found: Balls, rounded: Balls, kinks: np.ndarray
    ) -> list[Balls]:
        """Where a derivative did not settle, look at it from both sides: kink, limit, or nothing there. In
        place.

        The gradients that were seen on the two sides of entries at a kink are given back.
        """
        seen: list[Balls] = []
        values = run.evaluate(given, self.exact)
        nowhere = _nowhere(values, rows, len(found))
        if nowhere.any():
            found[nowhere] = NOWHERE
        open_ = self.unsettled(found, rounded, run.blurred)
        look = open_ | run.tied(values)
        look[nowhere] = False
        if not look.any():
            return seen
        if run.blurred or any(output not in values for output in rows):
            raise NoValuesError
        broken = ~finite(found)
        places = run.places()
        columns = [int(column) for column in np.flatnonzero(look.any(axis=0)) if places[column][0] in given]
        for column in columns[:MAX_SIDES]:
            side = Sides(run, given, rows, *places[column], column)
            self._column(side, look, open_, found, rounded, kinks)
            if kinks[:, column].any():
                seen += side.gradients
            # Beside an entry without a derivative, 0 times infinity is no number either.
            gone = broken[:, column] & ~finite(found[:, column])
            if gone.any():
                found[broken[:, column], column] = NOWHERE
        looked = set(columns[:MAX_SIDES])
        unseen = [column for column in range(found.shape[1]) if column not in looked]
        kinks[:, unseen] |= open_[:, unseen] & ~broken[:, unseen]
        return seen

    def _column(
        self,
        side: Sides,
        look: np.ndarray,
        open_: np.ndarray,
        found: Balls,
        rounded: Balls,
        kinks: np.ndarray,
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
            before, found[row, column] = found[row, column], sides.ball
            kinks[row, column] = not sides.smooth and sides.ball.is_finite()
            if kinks[row, column]:
                rounded[row, column] = self._blurred(sides.ball, before, rounded[row, column])
                # What rounding hides either way is no kink that anyone sees.
                kinks[row, column] = not sides.ball.rad() * 2 < rounded[row, column].rad()
            if sides.smooth:
                # Not where the formula's branches meet, but beside it: there rounding does not change
                # branches.
                unit = self.dtype.unit_roundoff
                step = UNIT * (16 * unit * side.scale)
                here = sides.ball * arb(1, 64 * unit)
                near = self._near(side, int(row), step, here)
                rounded[row, column] = here.union(near[0]).union(near[-1]) if near else NOWHERE

    def _near(self, side: Sides, row: int, step: arb, here: arb) -> list[arb]:
        """What rounding makes of the derivative a step beside the point; where that step is too near to tell,
        how much it makes of it at a wider one."""
        near = [
            x for x in (entry(side.moved(s, self.rounding), (row,)) for s in (step, -step)) if x.is_finite()
        ]
        limit, scale = abs(here).upper() * 2.0**-10, side.scale
        wider = step
        while near and max(x.rad() for x in near) > limit and (wider := wider * 2**14) < scale * 2.0**-10:
            sides = [entry(side.moved(s, self.rounding), (row,)) for s in (wider, -wider)]
            radius = max((x.rad() for x in sides if x.is_finite()), default=None)
            if radius is not None and radius < max(x.rad() for x in near):
                near = [here + arb(0, 1) * radius]
        return near

    def _blurred(self, span: arb, exact_ball: Ball, rounded: Ball) -> arb:
        """The span of one-sided derivatives, its ends allowed what rounding adds to all that the branches
        give."""
        blur = arb(0, 16 * self.dtype.unit_roundoff) * abs(span).upper() + arb(0, self.dtype.smallest)
        inner, outer = ball(exact_ball), ball(rounded)
        if inner.is_finite() and outer.is_finite():
            more = max(outer.upper() - inner.upper(), inner.lower() - outer.lower(), key=as_float)
            blur = blur + arb(0, 1) * more.max(NOUGHT).upper()
        return span + blur
