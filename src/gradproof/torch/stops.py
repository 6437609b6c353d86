"""Where autograd stops and the function does not: `detach`, `.data`, `no_grad`, `item()`.

Every autograd node can be right and the gradient still not the function's. So each value that an operation
reads without its history, although a parameter reaches it, is looked at: the cotangent that would have gone
there is worked out, at the engine's own numbers, and followed back through whatever computed it. All of it
may cancel (the shift in a log-sum-exp), or meet a derivative of zero (a rounded value); what arrives at a
parameter is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import torch

from ..dtypes import DType
from ..errors import Place, UnsupportedError
from ..proof.arithmetic import Arithmetic
from ..proof.balls import NOUGHT, ZERO, Balls, as_float, balls, full, numbers, precision, radii
from ..proof.enclosure import LIMIT_BITS, START_BITS, Enclosures
from .lowering import Lowering
from .memory import Content, Memory
from .runs import given_of, run_of, whole
from .tape import NOWHERE, Edge, Event, Region, Step, Tape, whole_numbers

TINY = 2.0**-7  # of the rounding of a leaf's gradient: what is lost and is less than that is nothing
MAX_DOMAIN = 1_000_000  # entries of the whole run
MAX_FINE = 2_000  # ... that are worked out in thousands of bits
_WRITTEN = "numbers are written into it from outside of torch"
STOPS = ("detach", "detach_", "_local_scalar_dense", "alias")


@dataclass(eq=False)
class Stop:
    """A value that is read without its history, or for another than it is: where, and by what.

    `credited` is what autograd takes it for, where it was overwritten and autograd does not know.
    """

    region: Region
    content: Content
    place: Place
    step: Step | None  # None at the function's end
    credited: Content | None = None


@dataclass(frozen=True)
class Outside:
    """A value whose way from the parameters was not seen: why, and where it comes in."""

    why: str
    place: Place


@dataclass(frozen=True, eq=False)
class Loss:
    """What the stops keep from a leaf: a cotangent of its shape, and the places of the stops it is lost
    at."""

    leaf: int
    region: Region
    lost: Balls
    places: tuple[Place, ...]


@dataclass(eq=False)
class _Cotangent:
    """What would arrive at a value: exact, and with rounding."""

    exact: Balls
    rounding: Balls
    places: list[Place] = field(default_factory=list)


Lost = dict[str, _Cotangent]  # by value


class Stops:
    """The stops of a tape, and what they lose.

    One rule for every operation: what a parameter reaches goes on into each of its results, but for integers
    and flags, which change in steps alone. Whether there is a formula, or a place in memory, matters only on
    the way back: there `unseen` says what cannot be followed, and where. Stops at the places `meant`
    (`model.py:12`) lose nothing.
    """

    def __init__(self, tape: Tape, dtype: DType, meant: Sequence[str] = ()) -> None:
        self.tape = tape
        self.enclosures = Enclosures(dtype)
        self.step_of = {id(event): step for step in tape.steps for event in step.events}
        self.flow = Lowering("flow")
        self.believed = Memory()  # what lies where as autograd has it: without what was written past it
        self.written: set[int] = set()  # storages that were written to past autograd
        self.born: dict[Edge, Content] = {}  # what each of autograd's values was at first
        self.home: dict[str, Event | int | Outside] = {}  # of a value: its event, or the number of its leaf
        self.regions: dict[str, Region] = {}
        self.before: dict[int, Content] = {}  # what each argument held when it was read
        self.stops: list[Stop] = []
        self.ends: list[Stop] = []  # outputs that are not what autograd takes them for
        self.numbers: list[tuple[Step, Outside]] = []  # numbers of Python's that a step read
        self.put_back = False  # whether numbers of `item()` came back as a tensor
        self.unseen: list[Outside] = []  # what cannot be followed back
        self.left = ""  # how numbers left torch last
        self.last_stop: dict[int, Place] = {}  # of each storage
        self.inside: dict[int, set[int]] = {}  # the values that a call of a custom Function knows
        self._find()
        if meant:
            self.stops = [stop for stop in self.stops if not str(stop.place).endswith(tuple(meant))]

    # Finding them

    def _find(self) -> None:
        """Follow every value through memory, and note what is read without its history."""
        exports = {export.position: f"{export.call}() at {export.place}" for export in self.tape.exports}
        for region in self.tape.given:
            self._enter(region)
        for position, event in enumerate(self.tape.events):
            step = self.step_of.get(id(event))
            self.left = exports.get(position, self.left)
            self._enter_operands(event, position)
            if event.is_item:
                self.left = f"item() at {event.place}"
            if event.call is not None and event.call not in self.inside:
                self.inside[event.call] = self._sources_of_call(step)
            if event.name in STOPS:
                self.last_stop |= {region.storage: event.place for region in event.regions}
            if not event.is_view:
                self._read_operands(event, position, step)
            moved = self._came_back(event) if position in self.tape.trail.numbers else None
            if moved is not None and step is not None:
                self.numbers.append((step, moved))
            self._advance(event, position, moved if step is None else None)
            if position in self.tape.trail.lifted:
                self._put_back(event, self.tape.trail.lifted[position])
        for region in self.tape.outputs:
            self._read_output(region)

    def _enter_operands(self, event: Event, position: int) -> None:
        """Leaves, and numbers that come from outside of torch."""
        moved = self.tape.trail.moved
        for n, region in enumerate(event.regions):
            self._enter(region)
            if region.changed and event.call is None and region.edge in self.born:
                self._from_outside(region, Outside(_WRITTEN, event.place))
            elif (position, n) in moved:
                self._from_outside(region, self._came_back(event), moved[position, n])

    def _read_operands(self, event: Event, position: int, step: Step | None) -> None:
        """What an operation reads; a stop, where it has no history, or is another than autograd takes it
        for."""
        for n, region in enumerate(event.regions):
            item = self.tape.trail.known.get((position, n))
            content = self.flow.memory.read(region) if item is None else self._item(item)
            self.before[id(region)] = content
            reached = self._reached(content)
            believed = content if event.call is not None else self._taken_for(region, content)
            carried = step is not None and region.edge is None and region.key in step.carried
            if step is None or carried or self._belongs(region, event, content, believed):
                continue
            if reached or believed is not content:
                credited = believed if region.edge is not None and believed is not content else None
                place = self._stopped_at(region, content, event.place)
                self.stops.append(Stop(region, content, place, step, credited))

    def _read_output(self, region: Region) -> None:
        if region.changed:
            self._from_outside(region, Outside(_WRITTEN, NOWHERE))
        content = self.flow.memory.read(region)
        believed = self._taken_for(region, content)
        if believed is not content:
            place = self._stopped_at(region, content, NOWHERE)
            self.ends.append(Stop(region, content, place, None, believed))

    def _stopped_at(self, region: Region, content: Content, read: Place) -> Place:
        """The line of the stop, or that which computed the value, or else that which reads it."""
        homes = [self.home.get(self.flow.memory.names[n]) for n in content.sources if n >= 0]
        makers = (home.place for home in homes if isinstance(home, Event) and home.place.file)
        return self.last_stop.get(region.storage) or next(makers, read)

    def _came_back(self, event: Event) -> Outside:
        left = f"left torch by {self.left} come back" if self.left else "move with the parameters come in"
        return Outside(f"numbers that {left}, as an operand of {event.name}", event.place)

    def _item(self, position: int) -> Content:
        """What `item()` read."""
        (region,) = self.tape.events[position].regions
        return self.before[id(region)]

    def _put_back(self, event: Event, items: Sequence[int]) -> None:
        """The new tensor's entries are those that the numbers came from."""
        region = event.regions[0]
        own = self.flow.memory.read(region)
        who, where = own.who.reshape(-1).copy(), own.where.reshape(-1).copy()
        for entry, item in enumerate(items):
            if item >= 0:
                content = self._item(item)
                who[entry], where[entry] = content.who.reshape(-1)[0], content.where.reshape(-1)[0]
        self.flow.memory.put(region, Content(who.reshape(region.shape), where.reshape(region.shape)))
        self.put_back = True

    def _from_outside(self, region: Region, outside: Outside, moved: np.ndarray | None = None) -> None:
        """The tensor came from outside; or those of its entries that moved, and that nobody knows
        otherwise."""
        content = self.flow.memory.read(region)
        unknown = (
            np.ones(region.shape, bool)
            if moved is None
            else (content.who < 0) & moved.reshape(content.who.shape)
        )
        if not unknown.any():
            return
        name = f"outside {len(self.home)}"
        self._value(name, region, outside)
        own = self.flow.memory.all_of(name, region.shape)
        who, where = (
            np.where(unknown, new, old) for new, old in ((own.who, content.who), (own.where, content.where))
        )
        self.flow.memory.put(region, Content(who, where, content.alien))

    def _sources_of_call(self, step: Step | None) -> set[int]:
        """The values that a custom Function was given."""
        found: set[int] = set()
        for region in step.inputs.values() if step is not None else ():
            if region is not None:
                self._enter(region)
                found.update(self.flow.memory.read(region).sources)
        return found

    def _reached(self, content: Content) -> bool:
        return any(n >= 0 and self.flow.memory.names[n] in self.flow.active for n in content.sources)

    def _belongs(self, region: Region, event: Event, content: Content, believed: Content) -> bool:
        """Whether autograd follows the value: it has its history, or it is computed inside the same custom
        Function."""
        if event.call is not None:
            return set(content.sources) <= self.inside[event.call] | {-1}
        return region.edge is not None and region.edge[0] not in self.tape.inner and believed is content

    def _taken_for(self, region: Region, content: Content) -> Content:
        """What autograd takes the tensor for: the content itself, unless it was written to where autograd
        does not see it."""
        if region.edge is None:
            return content
        born = self.born.get(region.edge)
        if born is None:
            hidden = region.storage in self.written and any(map(self._past_autograd, content.sources))
            born = self.born[region.edge] = self.believed.read(region) if hidden else content
        return content if born.same(content) else born

    def _past_autograd(self, source: int) -> bool:
        """Whether the entries of a source were written in place by an operation that autograd did not see."""
        home = self.home.get(self.flow.memory.names[source]) if source >= 0 else None
        return source < 0 or (isinstance(home, Event) and bool(home.written) and self._unowned(home))

    def _unowned(self, event: Event) -> bool:
        return id(event) not in self.step_of and event.call is None

    def _enter(self, region: Region) -> None:
        """A leaf, when it is first seen."""
        leaf = (
            region.edge is not None
            and region.edge[0] in self.tape.names
            and region.edge[0] not in self.tape.inner
        )
        if region.edge is None or not leaf or region.edge in self.born:
            return
        name = f"leaf {region.edge[0]}"
        self._value(name, region, region.edge[0])
        self.flow.memory.enter(region, name)
        self.born[region.edge] = self.flow.memory.read(region)
        self.believed.put(region, self.born[region.edge])

    def _value(self, name: str, region: Region, home: Event | int | Outside) -> None:
        """A value that a parameter reaches, from now on."""
        self.home[name] = home
        self.regions[name] = region
        self.flow.shapes[name] = region.shape
        self.flow.active.add(name)

    def _advance(self, event: Event, position: int, outside: Outside | None) -> None:
        """What the operation's results are."""
        if event.rebinds:
            return
        reached = [region for region in event.regions if self.flow.is_active(region)]
        if event.turns:  # the same memory, and another value
            for n, region in enumerate(event.outs if reached else ()):
                name = f"value {position}.{n}"
                self._value(name, region, event)
                self.flow.memory.know(region, self.flow.memory.all_of(name, region.shape))
                self._first_seen(region)
            return
        hidden = event.is_view and any(region.opaque for region in (*event.regions, *event.outs))
        if event.is_view and not hidden:
            with suppress(UnsupportedError):  # memory seen as another dtype: what lies there tells
                self.flow.view(event)
        # Those of a number, which go on in integers.
        bits = any(whole_numbers(region.dtype) for region in reached)
        past = bool(event.written) and self._unowned(event)
        for n, region in enumerate((*event.outs, *event.side)):
            if event.is_view and not (hidden and reached and not self.flow.is_active(region)):
                self._first_seen(region)
                continue
            steps = (
                whole_numbers(region.dtype)
                and not region.opaque
                and not (bits and region.dtype != torch.bool)
            )
            if not (reached or outside) or steps:
                self.flow.forget(region)
            else:
                name = f"value {position}.{n}"
                self._value(name, region, outside or event)
                self.flow.memory.write(region, name)
                if event.call is not None:
                    self.inside[event.call].add(len(self.flow.memory.names) - 1)
            if past:
                self.written.add(region.storage)
            else:
                self.believed.put(region, self.flow.memory.read(region))
            self._first_seen(region)

    def _first_seen(self, region: Region) -> None:
        if region.edge is not None and region.edge not in self.born:
            self._taken_for(region, self.flow.memory.read(region))

    # What they lose

    def losses(self) -> list[Loss]:
        """What is lost at each leaf; none where everything cancels or has no derivative.

        What cannot be followed is `unseen`.
        """
        lost: Lost = {}
        self._start_at_steps(lost)
        self._start_at_ends(lost)
        self.unseen += [outside for step, outside in self.numbers if _received(step)]
        self._follow_back(lost)
        found = []
        for name, cotangent in lost.items():
            home = self.home[name]
            if _vanishes(cotangent) or isinstance(home, Event):
                continue
            if isinstance(home, Outside):
                self.unseen.append(home)
                continue
            places = tuple(dict.fromkeys(cotangent.places))
            found.append(Loss(home, self.regions[name], cotangent.exact, places))
        if self.unseen and any(stop.credited is not None for stop in (*self.stops, *self.ends)):
            return []  # what autograd gave to the wrong one is known, and what it should have given is not
        return found

    def _start_at_steps(self, lost: Lost) -> None:
        of_step: dict[int, tuple[Step, list[Stop]]] = {}
        for stop in self.stops:
            if stop.step is not None:
                of_step.setdefault(stop.step.number, (stop.step, []))[1].append(stop)
        for step, stops in of_step.values():
            rows = _received(step)
            if rows:
                with self._or_unseen(stops[0].place):
                    self._start(step, stops, rows, lost)

    def _start_at_ends(self, lost: Lost) -> None:
        for stop in self.ends if self.tape.seeds else ():
            assert stop.region.edge is not None
            seed = balls(self.tape.seeds[0][stop.region.edge]).reshape(-1)
            with self._or_unseen(stop.place):
                self._scatter(stop.content, seed, seed, lost, [stop.place])
                self._credit(stop, -seed, lost)

    def _follow_back(self, lost: Lost) -> None:
        """From each value that an operation computed to what it was computed from, the last ones first."""
        for position in range(len(self.tape.events) - 1, -1, -1):
            if not lost:
                break
            event = self.tape.events[position]
            names = (f"value {position}.{n}" for n in range(len(event.outs) + len(event.side)))
            mine = {
                n: lost.pop(name)
                for n, name in enumerate(names)
                if name in lost and isinstance(self.home[name], Event)
            }
            if mine:
                with self._or_unseen(event.place):
                    self._follow(event, mine, lost)

    @contextmanager
    def _or_unseen(self, place: Place) -> Iterator[None]:
        """What has no formula within the block is not seen."""
        try:
            yield
        except UnsupportedError as error:
            self.unseen.append(Outside(f"a value without its history goes through {error}", place))

    def vanishing(self) -> frozenset[int]:
        """The leaves that lose nothing by the exact calculus of the whole run, from the leaves, with the
        stops and without.

        What cancels there need not cancel in the engine's own numbers: the shift by a mean, before a softmax.
        """
        if self.put_back or self.ends or any(stop.credited is not None for stop in self.stops):
            return frozenset()  # the calculus of the run does not know of it
        found: frozenset[int] = frozenset()
        # Operands that are equal in two ways of computing are told so by thousands of bits alone.
        for bits, most in ((START_BITS, MAX_DOMAIN), (LIMIT_BITS, MAX_FINE)):
            try:
                with precision(bits):
                    found |= self._vanishing(most)
            except UnsupportedError:
                break
        return found

    def _vanishing(self, most: int) -> frozenset[int]:
        sharp, loose = self.enclosures.exact, self.enclosures.rounding
        flowing, cut = self._gradients(most, sharp, cut=False), self._gradients(most, sharp, cut=True)
        rounded = self._gradients(most, loose, cut=False)
        found = set()
        for leaf, gradient in flowing.items():
            scale = max(
                (abs(x) for x in numbers(np.concatenate([gradient, cut[leaf]]))), default=NOUGHT, key=as_float
            )
            own = scale * (self.enclosures.dtype.unit_roundoff * TINY)
            reach = np.nan_to_num(radii(rounded[leaf]), nan=0.0, posinf=0.0) * TINY
            entries = zip(numbers(gradient - cut[leaf]), numbers(gradient), reach.tolist(), strict=True)
            # Where the gradient itself is nothing but rounding, so may be what is lost.
            if all(abs(x) <= own or (abs(x) <= r and abs(own_one) <= r) for x, own_one, r in entries):
                found.add(leaf)
        return frozenset(found)

    def _gradients(self, most: int, arithmetic: Arithmetic, *, cut: bool) -> dict[int, Balls]:
        """The gradients of all leaves, as if the stops were none, or with what they keep back."""
        leaves = {name: self.regions[name] for name, home in self.home.items() if isinstance(home, int)}
        run = whole(self.tape, leaves, most, {id(stop.region) for stop in self.stops} if cut else ())
        pulled = run.run.split(run.run.pull(run.given, arithmetic, run.rows, mode="beside")[0])
        return {home: pulled[name].reshape(-1) for name, home in self.home.items() if isinstance(home, int)}

    def _credit(self, stop: Stop, cotangent: Balls, lost: Lost) -> None:
        """Autograd gave it to whom the value belonged before. Of what came from outside nobody knows whom it
        belongs to."""
        names = [self.flow.memory.names[n] for n in stop.content.sources if n >= 0]
        if stop.credited is not None and not any(isinstance(self.home.get(name), Outside) for name in names):
            self._scatter(stop.credited, cotangent, cotangent, lost, [stop.place])

    def _start(
        self, step: Step, stops: Sequence[Stop], received: Mapping[int, np.ndarray], lost: Lost
    ) -> None:
        """What the stops' reader would have passed to them, of the cotangent that it really had."""
        lowering = Lowering(step.name)
        for n, region in enumerate(r for r in step.inputs.values() if r is not None):
            lowering.enter(f"input {n}", region, given=True)
        # A node may take the same tensor twice: what it would pass to both is passed once.
        distinct = {(stop.region.key, stop.region.edge): stop for stop in stops}
        contents = {f"stop {n}": stop.content for n, stop in enumerate(distinct.values())}
        for name, stop in zip(contents, distinct.values(), strict=True):
            lowering.enter(name, stop.region, given=False)
        lowering.run(step.events)
        rows = {
            lowering.copy(region): balls(received[nr])[None]
            for nr, region in step.outputs.items()
            if nr in received
        }
        pulled = self._pulled(lowering, contents, rows, rows)
        for stop, (exact, rounding) in zip(distinct.values(), pulled, strict=True):
            passed = _passed(step, stop) if stop.credited is not None else None
            if passed is not None:  # it went where it does not belong, and at a tie that is known
                exact = rounding = passed
            self._scatter(stop.content, exact, rounding, lost, [stop.place])
            self._credit(stop, -exact, lost)

    def _follow(self, event: Event, cotangents: dict[int, _Cotangent], lost: Lost) -> None:
        """Back through one operation."""
        if all(_vanishes(cotangent) for cotangent in cotangents.values()):
            return
        if max(cotangents) >= len(event.outs):
            raise UnsupportedError(f"{event.op}, which writes it into an operand")
        lowering = Lowering("operation")
        contents: dict[str, Content] = {}
        for n, region in enumerate(event.regions):
            # Those of views are not kept.
            content = self.before.get(id(region)) or self.flow.memory.read(region)
            if self._reached(content):
                if whole_numbers(region.dtype):
                    raise UnsupportedError(f"{event.op}: {region.opaque or 'the bits of a number'}")
                contents[f"input {n}"] = content
                lowering.enter(f"input {n}", region, given=False)
        lowering.run([event])
        exact: dict[str, Balls] = {}
        rounding: dict[str, Balls] = {}
        places: list[Place] = []
        for n, cotangent in cotangents.items():
            name = lowering.copy(event.outs[n])
            exact[name], rounding[name] = cotangent.exact[None], cotangent.rounding[None]
            places += cotangent.places
        for content, (sharp, loose) in zip(
            contents.values(), self._pulled(lowering, contents, exact, rounding), strict=True
        ):
            self._scatter(content, sharp, loose, lost, places)

    def _pulled(
        self,
        lowering: Lowering,
        contents: Mapping[str, Content],
        exact: dict[str, Balls],
        rounding: dict[str, Balls],
    ) -> Iterator[tuple[Balls, Balls]]:
        """What arrives at each of the contents, exact and with rounding, from cotangents of both kinds."""
        run = run_of(lowering, exact, {name: lowering.shapes[name] for name in contents})
        given = given_of(lowering)
        # Where operands are equal, one way to share between them: a span would hold 0, and lose nothing.
        sharp = run.split(run.pull(given, self.enclosures.exact, exact, mode="beside")[0])
        loose = run.split(run.pull(given, self.enclosures.rounding, rounding, mode="beside")[0])
        for name in contents:
            yield sharp[name].reshape(-1), loose[name].reshape(-1)

    def _scatter(
        self, content: Content, exact: Balls, rounding: Balls, lost: Lost, places: Sequence[Place]
    ) -> None:
        if content.alien:
            raise UnsupportedError("memory that is seen as numbers of another dtype")
        who, where = content.who.reshape(-1), content.where.reshape(-1)
        for source in content.sources:
            name = self.flow.memory.names[source] if source >= 0 else ""
            if name not in self.flow.active:
                continue
            shape = self.flow.shapes[name]
            entry = lost.setdefault(name, _Cotangent(full(shape, NOUGHT), full(shape, NOUGHT)))
            entry.places += places
            at = np.flatnonzero(who == source)
            np.add.at(entry.exact.reshape(-1), where[at], numbers(exact[at]))
            np.add.at(entry.rounding.reshape(-1), where[at], numbers(rounding[at]))


def _passed(step: Step, stop: Stop) -> Balls | None:
    """What the reader of a stop really passed on to what autograd takes it for."""
    parts = zip(step.edges, step.passed[0] if step.passed else (), strict=False)
    mine = [part for edge, part in parts if edge == stop.region.edge and part is not None]
    fits = mine and all(part.shape == stop.region.shape and np.isfinite(part).all() for part in mine)
    return balls(sum(mine[1:], mine[0])).reshape(-1) if fits else None


def _received(step: Step) -> dict[int, np.ndarray]:
    """The cotangents that a step received, by output, but for those that are 0 or not finite."""
    parts = enumerate(step.received[0] if step.received else ())
    return {nr: part for nr, part in parts if part is not None and part.any() and np.isfinite(part).all()}


def _vanishes(cotangent: _Cotangent) -> bool:
    """Whether rounding explains all of it: every entry may be 0, and is 0 but for rounding."""
    exact, rounding = cotangent.exact.reshape(-1), cotangent.rounding.reshape(-1)
    return all(x is ZERO or y.contains(0) for x, y in zip(exact, rounding, strict=True))
