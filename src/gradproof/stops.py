"""Where autograd stops and the function does not: `detach`, `.data`, `no_grad`, `item()`.

Every autograd node can be right and the gradient still not the function's. So each value that an operation reads without
its history, although a parameter reaches it, is looked at: the cotangent that would have gone there is worked out, at the
engine's own numbers, and followed back through whatever computed it. All of it may cancel (the shift in a log-sum-exp), or
meet a derivative of zero (a rounded value); what arrives at a parameter is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flint import arb

from .arithmetic import NOUGHT, ZERO, Balls, as_float, balls, full, numbers, precision
from .dtypes import DType
from .enclosure import LIMIT_BITS, START_BITS, Enclosures
from .errors import Place, UnsupportedError
from .graph import size
from .lowered import given_of, run_of, whole
from .tape.lowering import Lowering
from .tape.memory import Content
from .tape.recording import Edge, Event, Region, Step, Tape

TINY = arb(2) ** -60  # relative: far above what 128 bits leave, far below any format's rounding
MAX_DOMAIN = 1_000_000  # entries of the whole run
MAX_FINE = 2_000  # ... that are worked out in thousands of bits
STOPS = ("detach", "detach_", "_local_scalar_dense", "alias")


@dataclass(eq=False)
class Stop:
    """A value that is read without its history: where, and by what."""

    region: Region
    content: Content
    place: Place
    step: Step | None
    edge: Edge | None = None  # of a value that was overwritten where autograd does not see it: whom it credits


@dataclass(frozen=True, eq=False)
class Loss:
    """What the stops keep from a leaf: a cotangent of its shape, and the places of the stops it is lost at."""

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


class Stops:
    """The stops of a tape, and what they lose."""

    def __init__(self, tape: Tape, dtype: DType) -> None:
        self.tape = tape
        self.enclosures = Enclosures(dtype)
        self.step_of = {id(event): step for step in tape.steps for event in step.events}
        self.flow = Lowering("flow")
        self.home: dict[str, Any] = {}  # a value's name: its event, or the number of its leaf
        self.regions: dict[str, Region] = {}
        self.edge_of: dict[Edge, str] = {}
        self.before: dict[int, Content] = {}  # what each argument held when it was read
        self.stops: list[Stop] = []
        self.foreign: dict[str, Place] = {}  # values that came from outside after numbers had left
        self.put_back = False  # whether numbers of `item()` came back as a tensor
        self.unseen: list[tuple[str, Place]] = []  # where such a value is used
        self._find()

    # Finding them

    def _find(self) -> None:
        """Follow every value through memory, and note what is read without its history."""
        last_stop: dict[int, Place] = {}
        inside: dict[int, set[int]] = {}
        exports = list(self.tape.exports)
        left: str = ""
        for position, event in enumerate(self.tape.events):
            step = self.step_of.get(id(event))
            for region in event.regions:
                self._enter(region)
            while exports and exports[0].position <= position:
                export = exports.pop(0)
                self._enter(export.region)
                if event.call is None and self.flow.is_active(export.region):
                    left = left or f"{export.call}() at {export.place}"
            if event.call is not None and event.call not in inside:
                inside[event.call] = self._sources_of_call(step)
            if event.name in STOPS:
                for region in event.regions:
                    last_stop[region.storage] = event.place
            if not event.is_view:
                for region in event.regions:
                    self.before[id(region)] = self.flow.memory.read(region)
                    if region.floating and self.flow.is_active(region) and not self._belongs(region, event, inside):
                        content = self.before[id(region)]
                        place = last_stop.get(region.storage) or self._maker(content) or event.place
                        credited = region.edge if self._overwritten(region) else None
                        self.stops.append(Stop(region, content, place, step, credited))
            self._advance(event, position, inside)
            if self._came_back(event):
                self._put_back(event)
            elif left and event.call is None:
                self._from_outside(event, step, position, left)

    def _came_back(self, event: Event) -> bool:
        """Whether a new tensor is made of nothing but numbers that `item()` handed out."""
        if not (event.name.startswith("lift") and event.regions and event.regions[0].floating and self.tape.scalars):
            return False
        values = event.regions[0].values.reshape(-1).tolist()
        return bool(values) and all(value in self.tape.scalars for value in values)

    def _put_back(self, event: Event) -> None:
        """The new tensor's entries are those that the numbers came from."""
        region = event.regions[0]
        contents = [self.flow.memory.read(self.tape.scalars[value]) for value in region.values.reshape(-1).tolist()]
        who = np.array([content.who.reshape(-1)[0] for content in contents], np.int32).reshape(region.shape)
        where = np.array([content.where.reshape(-1)[0] for content in contents], np.int64).reshape(region.shape)
        self.flow.memory.put(region, Content(who, where))
        self.put_back = True

    def _from_outside(self, event: Event, step: Step | None, position: int, left: str) -> None:
        """Numbers that come back from NumPy and the like may depend on those that went there."""
        if event.name.startswith("lift") and event.regions and event.regions[0].floating:
            name = f"foreign {position}"
            self.flow.shapes[name] = event.regions[0].shape
            self.foreign[name] = event.place
            self.flow.memory.write(event.regions[0], name)
        elif step is not None:
            for region in event.regions:
                names = (
                    {self.flow.memory.names[n] for n in self.before[id(region)].sources if n >= 0} if region.floating else set()
                )
                for name in sorted(names & self.foreign.keys()):
                    self.unseen.append((f"numbers that left torch by {left} come back at {self.foreign[name]}", event.place))

    def _sources_of_call(self, step: Step | None) -> set[int]:
        """The values that a custom Function was given."""
        found: set[int] = set()
        for region in step.inputs.values() if step is not None else ():
            if region is not None:
                self._enter(region)
                found.update(self.flow.memory.read(region).sources)
        return found

    def _belongs(self, region: Region, event: Event, inside: dict[int, set[int]]) -> bool:
        """Whether autograd follows the value: it has its history, or it is computed inside the same custom Function."""
        if event.call is not None:
            return set(self.flow.memory.read(region).sources) <= inside[event.call] | {-1}
        return region.edge is not None and region.edge[0] not in self.tape.inner and not self._overwritten(region)

    def _overwritten(self, region: Region) -> bool:
        """Whether the numbers were written in place by an operation that autograd did not see."""
        homes = [self.home.get(self.flow.memory.names[n]) for n in self.before[id(region)].sources if n >= 0]
        return any(isinstance(home, Event) and id(home) not in self.step_of and home.call is None and home.written
                   for home in homes)  # fmt: skip

    def _maker(self, content: Content) -> Place | None:
        """The line that computed a value."""
        homes = [self.home.get(self.flow.memory.names[n]) for n in content.sources if n >= 0]
        return next((home.place for home in homes if isinstance(home, Event) and home.place.file), None)

    def _enter(self, region: Region) -> None:
        """A leaf, when it is first seen."""
        leaf = region.edge is not None and region.edge[0] in self.tape.names and region.edge[0] not in self.tape.inner
        if region.edge is None or not leaf or region.edge in self.edge_of:
            return
        name = f"leaf {region.edge[0]}"
        self._value(name, region, region.edge[0])
        self.flow.memory.enter(region, name)

    def _value(self, name: str, region: Region, home: Event | int) -> None:
        """A value that a parameter reaches, from now on."""
        self.home[name] = home
        self.regions[name] = region
        self.flow.shapes[name] = region.shape
        self.flow.active.add(name)
        if region.edge is not None:
            self.edge_of.setdefault(region.edge, name)

    def _advance(self, event: Event, position: int, inside: dict[int, set[int]]) -> None:
        if event.is_view:
            self.flow.view(event)
            return
        reached = any(region.floating and self.flow.is_active(region) for region in event.regions)
        for n, region in enumerate(event.outs):
            if region is None:
                continue
            if not (reached and region.floating):
                self.flow.forget(region)
                continue
            name = f"value {position}.{n}"
            self._value(name, region, event)
            self.flow.memory.write(region, name)
            if event.call is not None:
                inside[event.call].add(len(self.flow.memory.names) - 1)

    # What they lose

    def losses(self) -> list[Loss]:
        """What is lost at each leaf; none where everything cancels or has no derivative.

        Raises `UnsupportedError` where a value without its history went through an operation without a formula.
        """
        lost: dict[str, _Cotangent] = {}
        for stop in self.stops:
            if stop.step is not None and stop.step.received and any(part is not None for part in stop.step.received[0]):
                self._start(stop, lost)
        if not lost:
            return []
        for position in range(len(self.tape.events) - 1, -1, -1):
            event = self.tape.events[position]
            mine = {n: f"value {position}.{n}" for n in range(len(event.outs)) if f"value {position}.{n}" in lost}
            if mine:
                self._follow(event, {n: lost.pop(name) for n, name in mine.items()}, lost)
        found = []
        for name, cotangent in lost.items():
            if not _vanishes(cotangent):
                found.append(Loss(self.home[name], self.regions[name], cotangent.exact, tuple(dict.fromkeys(cotangent.places))))
        return found

    def vanishing(self) -> frozenset[int]:
        """The leaves that lose nothing by the exact calculus of the whole run, from the leaves, with the stops and without.

        What cancels there need not cancel in the engine's own numbers: the shift by a mean, before a softmax.
        """
        if self.put_back:
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
        flowing, cut = self._gradients(most, cut=False), self._gradients(most, cut=True)
        found = set()
        for leaf, gradient in flowing.items():
            scale = max((abs(x) for x in numbers(np.concatenate([gradient, cut[leaf]]))), default=NOUGHT, key=as_float)
            if all(abs(x) <= scale * TINY for x in numbers(gradient - cut[leaf])):
                found.add(leaf)
        return frozenset(found)

    def _gradients(self, most: int, *, cut: bool) -> dict[int, Balls]:
        """The exact gradients of all leaves, as if the stops were none, or with what they keep back."""
        leaves = {name: region for name, region in self.regions.items() if name.startswith("leaf ")}
        run = whole(self.tape, leaves, most, {id(stop.region) for stop in self.stops} if cut else ())
        pulled = run.run.pull(run.given, self.enclosures.exact, run.rows, mode="beside")[0]
        found, start = {}, 0
        for name, region in leaves.items():
            found[self.home[name]] = pulled[start : start + size(region.shape)]
            start += size(region.shape)
        return found

    def _start(self, stop: Stop, lost: dict[str, _Cotangent]) -> None:
        """What the stop's reader would have passed to it, of the cotangent that it really had."""
        step = stop.step
        assert step is not None
        lowering = Lowering(step.name)
        for n, region in enumerate(r for r in step.inputs.values() if r is not None):
            lowering.enter(f"input {n}", region, given=True)
        lowering.enter("stop", stop.region, given=False)
        lowering.run(step.events)
        rows: dict[str, Balls] = {}
        for nr, region in step.outputs.items():
            cotangent = step.received[0][nr] if nr < len(step.received[0]) else None
            name = lowering.copy(region)
            if cotangent is not None and np.isfinite(cotangent).all():
                rows[name] = balls(cotangent)[None]
        if rows:
            self._pull(lowering, {"stop": stop.content}, rows, rows, lost, [stop.place])
            if stop.edge in self.edge_of:
                # Autograd gave it to whom the value belonged before.
                number = self.flow.memory.names.index(self.edge_of[stop.edge])
                shape = stop.region.shape
                own = Content(np.full(shape, number, np.int32), np.arange(stop.content.who.size).reshape(shape))
                back = {name: -rows[name] for name in rows}
                self._pull(lowering, {"stop": own}, back, back, lost, [stop.place])

    def _follow(self, event: Event, cotangents: dict[int, _Cotangent], lost: dict[str, _Cotangent]) -> None:
        """Back through one operation."""
        if all(_vanishes(cotangent) for cotangent in cotangents.values()):
            return
        lowering = Lowering("operation")
        contents: dict[str, Content] = {}
        for n, region in enumerate(event.regions):
            content = self.before[id(region)]
            if region.floating and any(s >= 0 and self.flow.memory.names[s] in self.flow.active for s in content.sources):
                contents[f"input {n}"] = content
                lowering.enter(f"input {n}", region, given=False)
        lowering.run([event])
        exact: dict[str, Balls] = {}
        rounding: dict[str, Balls] = {}
        places: list[Place] = []
        for n, cotangent in cotangents.items():
            out = event.outs[n]
            assert out is not None
            name = lowering.copy(out)
            exact[name], rounding[name] = cotangent.exact[None], cotangent.rounding[None]
            places += cotangent.places
        self._pull(lowering, contents, exact, rounding, lost, places)

    def _pull(
        self, lowering: Lowering, contents: dict[str, Content], exact: dict[str, Balls], rounding: dict[str, Balls],
        lost: dict[str, _Cotangent], places: Sequence[Place],
    ) -> None:  # fmt: skip
        targets = {name: lowering.shapes[name] for name in contents}
        run, given = run_of(lowering, exact, targets), given_of(lowering)
        sharp = run.pull(given, self.enclosures.exact, exact)
        loose = run.pull(given, self.enclosures.rounding, rounding)
        start = 0
        for content in contents.values():
            count = content.who.size
            self._scatter(content, sharp[0, start : start + count], loose[0, start : start + count], lost, places)
            start += count

    def _scatter(
        self, content: Content, exact: Balls, rounding: Balls, lost: dict[str, _Cotangent], places: Sequence[Place]
    ) -> None:
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


def _vanishes(cotangent: _Cotangent) -> bool:
    """Whether rounding explains all of it: every entry may be 0, and is 0 but for rounding."""
    exact, rounding = cotangent.exact.reshape(-1), cotangent.rounding.reshape(-1)
    return all(x is ZERO or y.contains(0) for x, y in zip(exact, rounding, strict=True))
