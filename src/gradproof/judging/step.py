"""One step of a witness beside the reference: its value, its own Jacobian, what it passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

import numpy as np
from flint import ctx

from .. import causes as because
from ..causes import Cause
from ..dtypes import ANY_SUM, DType
from ..proof.arithmetic import Arithmetic
from ..proof.balls import NOUGHT, UNIT, Balls, balls, centres, finite, fold, full, hull, lift, numbers
from ..proof.enclosure import MAX_SIDES, Enclosures, NoValuesError, Pulled, Run
from ..proof.graph import Node, size
from ..proof.section import HEAVY, section_of_cotangent, section_of_value
from ..proof.tangents import WAY, along, dot
from ..proof.walk import Values, evaluate, singular
from ..verdict import Finding, Judgement, Numbers, Verdict, as_finding, bare_finding
from .likeness import ANOTHER, CONJUGATE, MAX_USES, Clues, Tried, likeness, uses
from .sieve import Sieve, work_of
from .together import astray, explained, judge_pulled, sums_in
from .verdicts import Comparison, absent, judge, numbers_of
from .witness import Arrays, Pass, Step

LAYOUTS = ("apart", "turned", "expanded")  # of the cotangents of later passes
TOO_MANY = 8_000_000  # entries of all domains together that balls are asked for

_hull = lift(hull, 2)


@dataclass(frozen=True, eq=False)
class Part:
    """What a step should pass to a value, and the same by a kernel of another rounding."""

    step: str
    pulled: Pulled
    by: Callable[[Enclosures], Pulled]


@dataclass(frozen=True, eq=False)
class Seen:
    """What came of a step: findings; by input, what it should pass on where that is not shown, and by how
    much what it passed on is off; its outputs that are an infinity, and right; its Jacobians; and why what
    lies before it cannot be judged through it."""

    findings: list[Finding] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    astray: dict[str, Balls | None] = field(default_factory=dict)
    infinite: set[str] = field(default_factory=set)
    local: dict[str, Numbers] = field(default_factory=dict)
    blind: Cause | None = None


class Work:
    """A step with the balls of its numbers, evaluated once for all of its outputs; `complete` where what it
    received is told elsewhere."""

    def __init__(self, step: Step, *, complete: bool = False) -> None:
        self.step = step = step.widened()
        self.complete = complete
        self.seen = Seen()
        self.enclosures = Enclosures(step.dtype)
        floats = step.loose is None and not step.also  # what is known no better has no inner radius
        self.sieve = Sieve(step.nodes if floats else (), step.given, step.wanted, step.dtype)
        self._held: dict[int, Values] = {}

    @cached_property
    def given(self) -> Values:
        return {n: x if x.dtype == object else balls(x) for n, x in self.step.given.items()}

    def evaluated(self, arithmetic: Arithmetic) -> Values:
        step, sharp = self.step, arithmetic is self.enclosures.exact
        held = self.given if sharp else step.loose or self.given
        if sharp or not step.also:
            return evaluate(step.nodes, held, arithmetic)
        for node in step.nodes:
            ways = [evaluate(way, held, arithmetic) for way in ((node,), *step.also.get(node, ()))]
            held = {**held, node.name: fold(_hull, [way[node.name] for way in ways])}
        return held

    def exact(self) -> Values:
        """The values at the precision that is set."""
        bits: int = ctx.prec
        if bits not in self._held:
            self._held[bits] = evaluate(self.step.nodes, self.given, self.enclosures.exact)
        return self._held[bits]

    @cached_property
    def rounded(self) -> Values:
        return self.evaluated(self.enclosures.rounding)

    def without_unknown(
        self, name: str, value: np.ndarray, sharp: Balls, loose: Balls
    ) -> tuple[np.ndarray, Balls, Balls]:
        """NaN that was there before (memory not yet written to) and only moved is no value to judge."""
        given = {n: held for n, held in self.step.given.items() if held.dtype != object}
        if not np.isnan(value).any() or not any(np.isnan(held).any() for held in given.values()):
            return value, sharp, loose

        def filled(number: float) -> Balls:
            held = self.given | {n: balls(np.nan_to_num(x, nan=number)) for n, x in given.items()}
            return centres(evaluate(self.step.nodes, held, self.enclosures.exact)[name])

        unknown = np.isnan(value) & (filled(0.0) != filled(1.0))
        value, sharp, loose = value.copy(), sharp.copy(), loose.copy()
        value[unknown], sharp[unknown], loose[unknown] = 0.0, NOUGHT, NOUGHT
        return value, sharp, loose

    def singular(self) -> Cause | None:
        """The operation that has no value or no derivative here."""
        return singular(self.step.nodes, self.exact(), self.enclosures.exact)

    def with_reason(self, judged: Judgement) -> Judgement:
        """Name the operation behind a number that does not exist, or that the engine could not compute."""
        broken = judged.verdict is Verdict.UNDECIDED or (
            judged.value is not None and not np.isfinite(judged.value)
        )
        small = work_of(self.step.nodes) <= TOO_MANY
        why = self.singular() if broken and small and not judged.verdict.passes else None
        return replace(judged, causes=(*judged.causes, why)) if why else judged

    def run(self, outputs: Sequence[str]) -> Run:
        return Run(self.step.nodes, tuple(outputs), self.step.inputs, self.step.wanted)

    def passed_on(self, received: Mapping[str, Balls]) -> dict[str, Balls]:
        """What calculus makes of cotangents of the outputs, by input."""
        rows = {name: row[None] for name, row in received.items()}
        run = self.run(tuple(rows))
        return run.split(run.pull(self.given, self.enclosures.exact, rows)[0])

    def passed_numbers(self) -> dict[str, Numbers]:
        """All entries of what was passed on in the first pass, beside what should be."""
        first = next(iter(self.step.passes), None)
        if first is None or first.unusable is not None or not first.received or not self.step.inputs:
            return {}
        pulls = Pulls(self, [first])
        return {
            name: numbers_of(pulls.row(name, 0), _only(first.passed.get(name)), dtype, probed=True)
            for name in self.step.inputs
            if (dtype := self.step.dtypes[name]) is not None
        }

    def judged(self) -> Seen:
        """All that the step shows."""
        found = [f for name in self.step.values if (f := self._value(name)) is not None]
        found += self._cotangents()
        if any(f.verdict is Verdict.WRONG for f in found) and self.step.assumed:
            found = [
                bare_finding(
                    "local", self.step.name, Verdict.UNSUPPORTED, because.Uncovered(self.step.assumed)
                )
            ]
        self.seen.findings[:] = (
            [replace(f, place=self.step.place) for f in found] if self.step.place else found
        )
        return self.seen

    def _value(self, name: str) -> Finding | None:
        step, dtype, value = self.step, self.step.dtypes.get(name), self.step.values[name]
        if dtype is None or not value.size:
            return None
        quick = self._by_floats(name, value, dtype)
        if quick is not None:
            quick = self._if_held(name, value, quick)
            return as_finding("forward", step.name, None, step.text(None), quick)
        if work_of(step.nodes) > TOO_MANY:
            return bare_finding(
                "forward", step.name, Verdict.UNDECIDED, because.TooLarge(work_of(step.nodes))
            )
        loose = self.rounded[name]
        sharp = self.enclosures.settled(lambda: self.exact()[name], loose)
        value, sharp, loose = self.without_unknown(name, value, sharp, loose)
        kinks = None
        if step.moved:
            sharp, loose, kinks = self._at_kinks(name, sharp, loose)
        judged = judge(Comparison(value, sharp, loose, kinks), dtype)

        def by(held: Enclosures) -> Pulled:
            return Pulled(sharp, self.evaluated(held.rounding)[name], np.zeros(sharp.shape, bool))

        if step.loose is None:  # what has other roundings before it is no kernel's
            judged = explained(judged, value, by, dtype, sums=sums_in(step.nodes, dtype, back=False))
        if judged.verdict is Verdict.EXACT and not np.isfinite(value).all():
            self.seen.infinite.add(name)
        judged = self._if_held(name, value, judged)
        if step.moved and judged.verdict is Verdict.WRONG:
            looks = self._tangent_looks(name, value, sharp)
            told = (because.Convention(step.convention),) if step.convention else ()
            judged = replace(judged, causes=(*judged.causes, *told, *looks))
        if step.looks is None:
            judged = self.with_reason(judged)
        elif judged.verdict is Verdict.WRONG:
            judged = replace(judged, causes=(*judged.causes, *step.looks(sharp)))
        return as_finding(step.kind, step.name, None, step.text(None), judged)

    def _at_kinks(self, name: str, sharp: Balls, loose: Balls) -> tuple[Balls, Balls, np.ndarray | None]:
        """A tangent, and which of its entries are at a kink: there it is looked at from both sides, along
        the tangents of the inputs."""
        open_ = np.flatnonzero(self.enclosures.unsettled(sharp, loose).reshape(-1))
        output = next((node for node in self.step.nodes if dot(node.name) == name), None)
        if not len(open_) or output is None:
            return sharp, loose, None
        sharp, loose = sharp.copy(), loose.copy()
        kinks = np.zeros(sharp.size, bool)
        kinks[open_[MAX_SIDES:]] = finite(sharp.reshape(-1)[open_[MAX_SIDES:]])
        open_ = open_[:MAX_SIDES]
        units = np.zeros((len(open_), sharp.size))
        units[np.arange(len(open_)), open_] = 1.0
        nodes = along([node for node in self.step.nodes if node.moving is None], self.step.moved)
        wanted = self.step.wanted.union([WAY], (node.name for node in nodes)) - self.step.moved.keys()
        run = Run(nodes, (output.name,), {WAY: ()}, wanted)
        rows = {output.name: balls(units.reshape(-1, *sharp.shape))}
        found = self.enclosures.pulled(run, {**self.given, WAY: balls(np.zeros(()))}, rows)[WAY]
        sharp.reshape(-1)[open_], loose.reshape(-1)[open_] = found.exact, found.rounding
        kinks[open_] = found.kinks
        return sharp, loose, kinks.reshape(sharp.shape)

    def _tangent_looks(self, name: str, value: np.ndarray, sharp: Balls) -> tuple[Cause, ...]:
        """What a wrong tangent looks like: a factor, or what one of the inputs adds to it, alone or left
        out."""
        right, tried = centres(sharp), []
        for moved in self.step.moved if len(self.step.moved) > 1 else ():
            still = {**self.given, dot(moved): balls(np.zeros(self.step.moved[moved]))}
            without = centres(evaluate(self.step.nodes, still, self.enclosures.exact)[name])
            rest = tuple(other for other in self.step.moved if other != moved)
            tried += [(because.OnlyPart(moved, rest), right - without)]
            tried += [(because.OnlyPart(" and ".join(rest), (moved,)), without)]
        extents = tuple(dict.fromkeys(n for shape in (value.shape, *self.step.moved.values()) for n in shape))
        return likeness(value, sharp, Clues(self.step.dtype, extents, tuple(tried)))

    def _if_held(self, name: str, value: np.ndarray, judged: Judgement) -> Judgement:
        """The judgement, with the cause where a wrong value is right for a sum that was held in 16 bits."""
        if judged.verdict is not Verdict.WRONG or self._patient is None or self.step.loose is not None:
            return judged
        sharp, loose = (self.evaluated(how)[name] for how in (self.enclosures.exact, self._patient.rounding))
        if not judge(Comparison(value, sharp, loose), self.step.dtype).verdict.passes:
            return judged
        return replace(judged, causes=(because.HeldIn(self.step.dtype.name), *judged.causes))

    def _by_floats(self, name: str, value: np.ndarray, dtype: DType) -> Judgement | None:
        """A value's judgement by floats, and by balls where these must look."""
        expected = self.sieve.value(name)
        if expected is None:
            return None

        def look(entries: np.ndarray, held: Enclosures | None = None, heavy: int = HEAVY) -> Comparison:
            by, known = held or self.enclosures, self.sieve.known(held)
            section = section_of_value(
                self.step.nodes, self.step.given, name, entries, known, most=self.sieve.most, heavy=heavy
            )
            given = {n: balls(x) for n, x in section.of(self.step.given).items()}
            loose = section.run.evaluate(given, by.rounding)[name]
            sharp = by.settled(
                lambda: section.run.evaluate(given, by.exact)[name], loose, section.run.blurred
            )
            return Comparison(value.reshape(-1)[entries], sharp, loose)

        return self.sieve.judged(value, expected, dtype, look, back=False)

    def _passed_by_floats(self, trip: Pass) -> list[Finding] | None:
        """What was passed on, by input; None where balls must look at all of it."""
        step = self.step
        if len(next(iter(trip.received.values()))) != 1:
            return None
        received = {name: rows[0] for name, rows in trip.received.items()}
        expected = self.sieve.pulled(received, step.inputs)
        if expected is None:
            return None
        run = self.run(tuple(received))
        found = []
        for name, shape in step.inputs.items():
            value, dtype = _only(trip.passed.get(name)), step.dtypes[name]
            if dtype is None or name not in expected or not size(shape):
                return None
            look = partial(self._look_at_passed, run, trip.received, name)
            quick = (
                self.sieve.absent(expected[name], partial(look, np.zeros(shape)))
                if value is None
                else self.sieve.judged(value, expected[name], dtype, partial(look, value), back=True)
            )
            if quick is None:
                return None
            looks: tuple[Cause, ...] = ()
            if quick.verdict is Verdict.WRONG and value is not None:
                self.seen.astray.setdefault(name, self.sieve.astray(value, expected[name]))
                extents = tuple({n for each in (shape, *(x.shape for x in received.values())) for n in each})
                looks = likeness(value, balls(expected[name].v.astype(float)), Clues(dtype, extents))
            found.append(self._told(name, quick, looks))
        return found

    def _look_at_passed(
        self,
        run: Run,
        received: Arrays,
        name: str,
        value: np.ndarray,
        entries: np.ndarray,
        held: Enclosures | None = None,
        heavy: int = HEAVY,
    ) -> Comparison:
        """Balls of some entries of what should be passed on to an input."""

        def pulled(values: bool) -> Pulled:
            known = None if values else self.sieve.known(held)
            section = section_of_cotangent(
                run, self.step.given, name, entries, known,
                values=values, most=self.sieve.most, heavy=heavy,
            )  # fmt: skip
            given = {n: balls(x) for n, x in section.of(self.step.given).items()}
            rows = {n: balls(x) for n, x in section.rows(received).items()}
            return (held or self.enclosures).pulled(section.run, given, rows)[name].row(0)

        try:
            found = pulled(values=False)
        except NoValuesError:  # at a kink
            found = pulled(values=True)
        return Comparison(value.reshape(-1)[entries], found.exact, found.rounding, found.kinks)

    def _cotangents(self) -> list[Finding]:
        """What the step passed on: of the probes, and of what it really received, first and again."""
        step = self.step
        found: list[Finding] = []
        first = step.passes[0] if step.passes else None
        if first is not None and first.unusable is not None:
            self.seen = replace(self.seen, blind=first.unusable)
            if not self.complete:  # else what arrived there is told itself
                found.append(
                    bare_finding("local", step.name, Verdict.UNDECIDED, first.unusable, inherited=True)
                )
            first = None
        trips = [trip for trip in (step.probes, first) if trip is not None and trip.received]
        if not trips or not step.inputs:
            return found
        if step.probes is None and first is not None and first.passed:
            quick = self._passed_by_floats(first)
            if quick is not None:
                return [*found, *quick, *self._again()]
        if (terms := work_of(step.nodes)) > TOO_MANY:
            return [*found, bare_finding("local", step.name, Verdict.UNDECIDED, because.TooLarge(terms))]
        pulls = Pulls(self, trips)
        if step.probes is not None:
            found += self._probed(pulls, step.probes)
        if first is None:
            return found
        at = pulls.count - 1
        if not first.passed:
            for name in step.inputs:
                self.seen.parts[name] = Part(step.name, pulls.row(name, at), partial(pulls.row, name, at))
            return found
        found += self._passed(pulls, first, at)
        return found + self._again()

    def _probed(self, pulls: Pulls, probes: Pass) -> list[Finding]:
        """The step's own Jacobian, entry by entry or through one random cotangent."""
        step = self.step
        (output,) = probes.received
        count, shape = len(probes.received[output]), probes.received[output].shape[1:]
        whole = count == size(shape)
        expected = {name: pulls.first(name, count) for name in step.inputs}
        dtypes = dict.fromkeys(step.inputs, step.dtype)
        together = judge_pulled({name: probes.passed.get(name) for name in step.inputs}, expected, dtypes)
        found = []
        for name, right in expected.items():
            value = probes.passed.get(name)
            entries = (*shape, *step.inputs[name]) if whole else step.inputs[name]
            self.seen.local[name] = numbers_of(right, value, step.dtype, entries, probed=not whole)
            judged = together.get(name)
            if value is None or judged is None:
                if step.broken is not None:
                    broken = bare_finding("local", step.name, verdict_of(step.broken), step.broken)
                    found.append(replace(broken, wrt=name, formula=step.text(name)))
                    continue
                judged = absent(right.exact)
            elif value.shape == right.exact.shape:
                judged = explained(judged, value, partial(pulls.first, name, count), step.dtype)
            looks = self._looks(name, value, right.exact, judged, probes)
            if judged.index and whole:
                row = tuple(int(n) for n in np.unravel_index(judged.index[0], shape)) if shape else ()
                judged = replace(judged, index=row + judged.index[1:])
            elif judged.index:
                judged = replace(judged, index=judged.index[1:], causes=judged.causes or (because.Probed(),))
            judged = self.with_reason(judged)
            judged = replace(judged, causes=(*judged.causes, *looks))
            found.append(as_finding("local", step.name, name, step.text(name), judged))
        return found

    def _passed(self, pulls: Pulls, trip: Pass, at: int) -> list[Finding]:
        """What was really passed on, beside the derivative times what was received."""
        step = self.step
        single = {name: pulls.row(name, at) for name in step.inputs}
        dtypes = {name: dtype for name in step.inputs if (dtype := step.dtypes[name]) is not None}
        passed = {name: _only(trip.passed.get(name)) for name in dtypes}
        together = judge_pulled(passed, single, dtypes)
        found = []
        for name, right in single.items():
            if name not in dtypes:
                found.append(
                    bare_finding(
                        "local", step.name, Verdict.UNSUPPORTED, because.Uncovered(f"the dtype of {name}")
                    )
                )
                continue
            value = passed[name]
            if not size(step.inputs[name]):
                continue
            if value is None:
                judged = absent(right.exact, passed=True)
            else:
                by = partial(pulls.row, name, at)
                judged = explained(
                    together[name], value, by, dtypes[name], sums=sums_in(step.nodes, dtypes[name], back=True)
                )
            looks = self._looks(name, value, right.exact, judged, trip)
            if judged.verdict is Verdict.WRONG and value is not None:
                self.seen.astray.setdefault(name, astray(value, right, dtypes[name]))
            found.append(self._told(name, judged, looks))
        return found

    def _told(self, name: str, judged: Judgement, looks: tuple[Cause, ...]) -> Finding:
        text = "" if judged.verdict.passes else self.step.text(name)
        judged = self.with_reason(judged)
        if judged.verdict is Verdict.WRONG and self._passes_held(name):
            looks = (because.HeldIn(self.step.dtype.name), *looks)
        if judged.verdict is Verdict.WRONG and self.step.convention:
            looks = (because.Convention(self.step.convention), *looks)
        judged = replace(judged, causes=(*judged.causes, *looks))
        return as_finding("local", self.step.name, name, text, judged)

    @cached_property
    def _patient(self) -> Enclosures | None:
        """By what sums are explained that were held in 16 bits; None where that is no matter."""
        dtype = ANY_SUM.get(self.step.dtype.name, self.step.dtype)
        other = self.step.dtype.additions not in (None, dtype.additions)
        return Enclosures(dtype) if other and work_of(self.step.nodes) <= TOO_MANY else None

    def _passes_held(self, name: str) -> bool:
        """Whether what was passed on first is right for a sum that was held in 16 bits."""
        first = next(iter(self.step.passes), None)
        if self._patient is None or first is None or not first.received:
            return False
        if (value := _only(first.passed.get(name))) is None or (dtype := self.step.dtypes[name]) is None:
            return False
        found = Pulls(self, [first]).row(name, 0, self._patient)
        held = Comparison(value, found.exact, found.rounding, found.kinks)
        return judge(held, dtype).verdict.passes

    def _looks(
        self, name: str, value: np.ndarray | None, right: Balls, judged: Judgement, trip: Pass
    ) -> tuple[Cause, ...]:
        """What a wrong cotangent looks like."""
        if judged.verdict is not Verdict.WRONG or value is None:
            return ()
        return likeness(
            value, right, Attempts(self, name, trip).clues(value.ndim > len(self.step.inputs[name]))
        )

    def _again(self) -> list[Finding]:
        """The second pass must repeat the first; the others, of -2 times the cotangent, be -2 times as much,
        or pass themselves."""
        step = self.step
        if len(step.passes) < 3:
            return []
        first, second, *others = step.passes
        found = []
        again = second.times != 1 and _times(first.received, second.received, 1)
        if again and not _times(first.passed, second.passed, 1):
            found.append(bare_finding("local", step.name, Verdict.FAILED, because.NoRepeat()))
        for n, other in enumerate(others):
            bad = [finding for finding in self._of_other(first, other) if not finding.verdict.passes]
            if bad:
                cause = because.OtherCotangent(LAYOUTS[n])
                return found + [replace(finding, causes=(*finding.causes, cause)) for finding in bad]
        return found

    def _of_other(self, first: Pass, other: Pass) -> list[Finding]:
        """What a step passed on of another cotangent, where that is not -2 times what it passed on before."""
        step = self.step
        alike = _times(first.received, other.received, -2) and _times(first.passed, other.passed, -2)
        if other.times == -2 or alike:
            return []
        if other.unusable is not None:
            return [bare_finding("local", step.name, Verdict.UNDECIDED, other.unusable, inherited=True)]
        return self._passed(Pulls(self, [other]), other, 0)


class Pulls:
    """What arrives at a step's inputs, of all trips in one go."""

    def __init__(self, work: Work, trips: Sequence[Pass]) -> None:
        step = work.step
        outputs = tuple(trips[0].received)
        received = {name: np.concatenate([trip.received[name] for trip in trips]) for name in outputs}
        self.count = len(received[outputs[0]])
        rows = {name: balls(array) for name, array in received.items()}
        run = work.run(outputs)
        self.pulled = work.enclosures.pulled(run, work.given, rows)
        if step.loose is not None:
            wide = run.split(run.pull(step.loose, work.enclosures.rounding, rows))
            self.pulled = {
                name: replace(each, rounding=np.where(each.kinks, each.rounding, numbers(wide[name])))
                for name, each in self.pulled.items()
            }
        self._by = lru_cache(lambda held: held.pulled(run, work.given, rows))

    def row(self, name: str, at: int, held: Enclosures | None = None) -> Pulled:
        """What one of the cotangents gives, or would give by a kernel of another rounding."""
        return (self.pulled if held is None else self._by(held))[name].row(at)

    def first(self, name: str, count: int, held: Enclosures | None = None) -> Pulled:
        """What the first of the cotangents give."""
        each = (self.pulled if held is None else self._by(held))[name]
        return replace(
            each, exact=each.exact[:count], rounding=each.rounding[:count], kinks=each.kinks[:count]
        )


class Attempts:
    """What a step would have passed on to one of its inputs, under mistakes."""

    def __init__(self, work: Work, name: str, trip: Pass) -> None:
        self.work, self.name, self.step = work, name, work.step
        self.shape = work.step.inputs[name]
        self.rows = {output: balls(array) for output, array in trip.received.items()}
        self.count = len(next(iter(self.rows.values())))

    def pulled(
        self, nodes: Sequence[Node], given: Values, rows: Mapping[str, Balls], wrt: str = ""
    ) -> np.ndarray:
        wrt = wrt or self.name
        run = Run(tuple(nodes), tuple(rows), {wrt: self.shape}, self.step.wanted | {wrt})
        found = centres(run.pull(given, self.work.enclosures.exact, rows))
        return found.reshape(self.count, *self.shape)

    def clues(self, jacobian: bool) -> Clues:
        shapes = [self.shape, *(rows.shape[1:] for rows in self.rows.values())]
        extents = tuple({n for shape in shapes for n in (*shape, size(shape))})
        given = {**self.work.given, ANOTHER: self.work.given[self.name]}
        tried = [
            *uses(self.step.nodes, self.name, lambda nodes, wrt: self.pulled(nodes, given, self.rows, wrt))
        ]
        if not jacobian:
            tried += [*self._not_conjugated(), *self._spectra(), *self._cotangents(), *self._later()]
        return Clues(
            self.step.dtype,
            extents,
            tuple((cause, array if jacobian else array[0]) for cause, array in tried),
        )

    def _cotangents(self) -> Tried:
        """The cotangent not used, not multiplied, or not summed."""
        for output, rows in self.rows.items():
            cotangent = centres(rows)
            if cotangent.shape[1:] == self.shape:
                yield because.PassedUnchanged(), cotangent
                if output in self.step.values:  # else it is what was declared, and has no value
                    with np.errstate(all="ignore"):
                        yield because.ValueTimesCotangent(), self.step.values[output] * cotangent
            ones = {output: full(rows.shape, UNIT)}
            yield because.CotangentIgnored(), self.pulled(self.step.nodes, self.work.given, ones)
            for axis, extent in enumerate(cotangent.shape[1:]):
                for place, words in ((0, "first"), (extent - 1, "last")) if extent > 1 else ():
                    at = tuple(place if n == axis + 1 else slice(None) for n in range(cotangent.ndim))
                    part = np.zeros_like(cotangent)
                    part[at] = cotangent[at]
                    changed = {**self.rows, output: balls(part)}
                    yield (
                        because.SumMissing(axis, words),
                        self.pulled(self.step.nodes, self.work.given, changed),
                    )

    def _not_conjugated(self) -> Tried:
        """The derivative times the cotangent, in place of its conjugate times that."""
        pairs = self.step.pairs
        if not pairs or self.name not in pairs or not pairs.issuperset(self.rows):
            return
        turned = {output: balls(centres(rows) * CONJUGATE) for output, rows in self.rows.items()}
        found = self.pulled(self.step.nodes, self.work.given, turned)
        yield because.Conjugated(factor=True), found * CONJUGATE

    def _spectra(self) -> Tried:
        """Through complex numbers to a real one, as a product of spectra: the other factor's conjugate left
        out, or the cotangent's taken, by which a transform gives its result the other way round."""
        nodes, pairs = self.step.nodes, self.step.pairs
        if self.name in pairs or pairs.isdisjoint(node.name for node in nodes):
            return
        moved = {self.name}
        for node in nodes:
            if any(read.parent in moved for read in node.reads):
                moved.add(node.name)
        if pairs.isdisjoint(moved):
            return
        factors = [node for node in nodes if node.name in pairs and node.name not in moved]
        for factor in factors[:MAX_USES]:
            turned = balls(centres(self.work.exact()[factor.name]) * CONJUGATE)
            others = tuple(node for node in nodes if node is not factor)
            given = {**self.work.given, factor.name: turned}
            yield because.Conjugated(factor=True, spectrum=True), self.pulled(others, given, self.rows)
        right = self.pulled(nodes, self.work.given, self.rows)
        axes = [(axis,) for axis, extent in enumerate(right.shape) if axis and extent > 2]
        for at in [*axes, *([axes[-2] + axes[-1]] if len(axes) > 1 else [])]:
            yield because.Conjugated(spectrum=True), np.roll(np.flip(right, at), [1] * len(at), at)

    def _later(self) -> Tried:
        """The gradient at numbers that the input's memory held later on."""
        for after, values in self.step.later(self.name):
            given = {**self.work.given, self.name: balls(values)}
            yield because.ChangedInPlace(self.name, after), self.pulled(self.step.nodes, given, self.rows)


def _only(rows: np.ndarray | None) -> np.ndarray | None:
    return None if rows is None else rows[0]


def _times(a: Mapping[str, np.ndarray | None], b: Mapping[str, np.ndarray | None], factor: float) -> bool:
    """Whether the numbers of b are so many times those of a, bit for bit."""
    if a.keys() != b.keys():
        return False
    return all(
        (x is None) == (y is None)
        and (x is None or y is None or np.array_equal(factor * x, y, equal_nan=True))
        for x, y in ((a[name], b[name]) for name in a)
    )


def verdict_of(cause: Cause) -> Verdict:
    """What broke is failed, what leads nowhere is undecided, all else is not covered."""
    if isinstance(cause, because.Raised):
        return Verdict.FAILED
    return Verdict.UNDECIDED if isinstance(cause, because.Unreached) else Verdict.UNSUPPORTED
