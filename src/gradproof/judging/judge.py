"""The one judge: what a witness saw, step by step, beside the reference.

With the engine's own numbers at a step taken as exact,

* forward: is its value within the rounding of its nodes?
* local: is what it passed on the derivative, times what it received? Of probes: is it the derivative itself?
* gradient: is what arrived at a value the sum of what its uses passed on?

Each is tight at any depth and names the step that is wrong. If every one holds, the gradients are the chain
rule up to rounding, by induction from the output back. The whole run from its leaves is looked at beside
that: always where the steps are all that the engine did, else where they leave something open.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from flint import arb

from .. import causes as because
from ..causes import Cause
from ..dtypes import DType
from ..errors import UnsupportedError
from ..proof.arithmetic import exact, rounding
from ..proof.balls import NOUGHT, UNIT, Balls, balls, centres, full, numbers, precision
from ..proof.enclosure import START_BITS, Pulled
from ..proof.graph import Shape, size
from ..proof.walk import evaluate
from ..verdict import Finding, Judgement, Numbers, Verdict, as_finding, bare, bare_finding
from .likeness import likeness, lost_use
from .sieve import sieve_sum
from .step import Part, Work, verdict_of
from .together import explained, judge_pulled
from .verdicts import Comparison, absent, judge, judge_sum, missing, numbers_of
from .whole import FromLeaves, chained, in_every_entry, tight
from .witness import Arrival, Key, Loss, Losses, Step, Trouble, Witness

OPEN = (Verdict.KINK, Verdict.UNDECIDED)
MAX_TOLD = 2_000  # entries of all lines of a recorded function, up to which every number of it is told
K = TypeVar("K", bound=Hashable)
FROM_LEAVES = "the whole function, from its leaves"


@dataclass(frozen=True, eq=False)
class Judged:
    """What the judge found, with all entries of the gradients, from the leaves, and of local gradients."""

    findings: tuple[Finding, ...]
    gradients: Mapping[str, Numbers]
    local: Mapping[tuple[str, str], Numbers]


class Later(Mapping[K, Numbers]):
    """Numbers that nobody needs for a verdict: worked out when they are first asked for."""

    def __init__(self, work: Callable[[], Mapping[K, Numbers]]) -> None:
        self._work = work

    @cached_property
    def _found(self) -> dict[K, Numbers]:
        with precision(START_BITS):
            return dict(self._work())

    def __getitem__(self, key: K) -> Numbers:
        return self._found[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __getstate__(self) -> dict[str, object]:
        return {"_found": self._found}


class Judge:
    """One judgement of one witness. A part that breaks down, which is a fault of ours, is a finding."""

    def __init__(self, witness: Witness, guard: Callable[[Exception], Cause] | None = None) -> None:
        self.witness = witness
        self.guard = guard
        self.leaves = FromLeaves(witness)
        self.by_step: list[list[Finding]] = []
        self.reached: dict[Key, list[Part]] = {}  # what steps should pass on, where that is not shown
        self.blind: dict[Key, Cause] = {}  # values whose reader cannot be judged
        self.blamed: dict[Key, str] = {}  # values that got something wrong, and from which step
        self.astray: dict[tuple[int, str], Balls | None] = {}  # by how much what was passed on is off
        self.beyond: set[Key] = set()  # values that are an infinity, and right
        self.gradients: dict[str, Numbers] = {}
        self.local: dict[tuple[str, str], Numbers] = {}
        self.put_back = False
        self.missed: dict[str, str] = {}  # leaves that miss what a stop keeps back, and at which

    def judged(self) -> Judged:
        """All that is found: step by step, then what arrived, then the whole."""
        with precision(START_BITS):
            found = self._findings()
        if self.witness.complete:
            return Judged(tuple(found), self.gradients, self.local)
        if sum(value.size for step in self.witness.steps for value in step.values.values()) > MAX_TOLD:
            return Judged(tuple(found), {}, {})  # numbers told later on would hold all of the run until then
        return Judged(tuple(found), Later(self._from_leaves), Later(self._at_steps))

    def _from_leaves(self) -> Mapping[str, Numbers]:
        """Every gradient of a function that is small enough, exact from the leaves."""
        whole = self.leaves.run
        if whole is None or sum(size(node.domain) for node in whole.run.nodes) > MAX_TOLD:
            return {}
        return {
            at.name: numbers_of(self.leaves.pulled[at.name], at.value, at.dtype)
            for at in self.witness.arrivals
            if at.dtype is not None and at.name in self.leaves.pulled
        }

    def _at_steps(self) -> Mapping[tuple[str, str], Numbers]:
        """What each step passed on, beside what it should pass."""
        return {
            (step.name, name): numbers
            for step in self.witness.steps
            for name, numbers in Work(step).passed_numbers().items()
        }

    def _findings(self) -> list[Finding]:
        witness = self.witness
        held = [f for name, pair in witness.held.items() for f in self._held(name, *pair)]
        self.by_step = [self._guarded(partial(self._step, step)) for step in witness.steps]
        self._blame()
        found = [*held, *(finding for findings in self.by_step for finding in findings)]
        told = {f.node for f in found if f.verdict in (Verdict.FAILED, Verdict.UNSUPPORTED)}
        found += [of_trouble(t) for t in witness.troubles if not (t.kind == "forward" and t.node in told)]
        at_steps = {finding.verdict for finding in found} & set(OPEN)
        found += [finding for at in witness.arrivals for finding in self._arrived(at, at_steps)]
        found += [self._stray(name, gradient) for name, gradient in witness.strays.items()]
        if witness.complete:
            judged = self.leaves.judged if witness.arrivals else {}
            leaves = [whole for name, whole in judged.items() if name in self._parameters]
            if leaves and not witness.final and all(tight(whole) for whole in leaves):
                found = [_settled(finding) for finding in found]
            return self._with_origins(found)
        return self._with_the_whole(found)

    def _guarded(self, part: Callable[[], list[Finding]], before: Sequence[Finding] = ()) -> list[Finding]:
        try:
            return part()
        except Exception as error:
            if self.guard is None:
                raise
            return [*before, bare_finding("local", "the function", Verdict.UNSUPPORTED, self.guard(error))]

    # One step

    def _held(self, name: str, point: np.ndarray, value: np.ndarray) -> list[Finding]:
        """A finding where the engine holds other numbers than the point's, as rounded to its dtype."""
        dtype = self.witness.dtype
        assert dtype is not None
        there = balls(point)
        once = numbers(rounding(dtype).values["mul"](there, UNIT))
        judged = judge(Comparison(value, there, np.asarray(once, object)), dtype)
        if judged.verdict is not Verdict.WRONG or not np.isfinite(value).all():
            return []  # an overflow is told where it is read
        return [as_finding("forward", name, None, name, replace(judged, causes=(because.OtherPoint(),)))]

    def _step(self, step: Step) -> list[Finding]:
        broken = self._broken(step)
        if broken:
            return [self._behind(step, broken)]
        seen = Work(step, complete=self.witness.complete).judged()
        for name, part in seen.parts.items():
            self.reached.setdefault(step.sources.get(name, name), []).append(part)
        if seen.blind is not None:
            self._blinded(step, seen.blind)
        self.beyond |= {step.results.get(name, name) for name in seen.infinite}
        self.local |= {(step.name, name): numbers_ for name, numbers_ in seen.local.items()}
        self.astray |= {(id(step), name): off for name, off in seen.astray.items()}
        return seen.findings

    def _broken(self, step: Step) -> list[str]:
        """What a step reads that is not finite, of a run that is known from its leaves: there it is
        judged."""
        if not self.witness.complete or self.witness.final:
            return []
        return [name for name, value in step.given.items() if not np.isfinite(value).all()]

    def _why_broken(self, name: str) -> Cause:
        dtype = self.witness.dtype
        if name not in self.witness.held or dtype is None:
            return because.NotFiniteAlready(name)
        point, _ = self.witness.held[name]
        return because.Beyond(name, float(np.max(np.abs(point))), dtype.name, dtype.largest)

    def _blinded(self, step: Step, why: Cause) -> None:
        self.blind |= dict.fromkeys((step.sources.get(name, name) for name in step.inputs), why)

    def _behind(self, step: Step, broken: Sequence[str]) -> Finding:
        """Behind an infinity that is right a step cannot be judged alone. The infinity that its own number is
        rounded to is right, and one where the number is representable is wrong."""
        why = self._why_broken(broken[0])
        self._blinded(step, why)
        told = bare_finding("forward", step.name, Verdict.UNDECIDED, why, inherited=True)
        whole = self.leaves.run
        if not self.beyond.issuperset(broken) or whole is None:
            return replace(told, formula=step.text(None))
        ((output, value),) = step.values.items()
        sharp = evaluate(whole.run.nodes, whole.given, exact())[output]
        once = np.asarray(rounding(step.dtype).multiply(sharp, UNIT), object)
        judged = judge(Comparison(value, sharp, once), step.dtype)
        if judged.verdict is Verdict.EXACT and not np.isfinite(value).all():
            self.beyond.add(step.results.get(output, output))
        at_infinity = (
            judged.verdict is Verdict.WRONG and judged.value is not None and not np.isfinite(judged.value)
        )
        if judged.verdict is Verdict.EXACT or at_infinity:
            judged = replace(judged, causes=(*judged.causes, why))
            return as_finding("forward", step.name, None, step.text(None), judged)
        return replace(told, formula=step.text(None))

    # Who is to blame

    def _blame(self) -> None:
        """From the outputs back: whoever reads what a wrong step passed on, in turn."""
        for n in range(len(self.witness.steps) - 1, -1, -1):
            step, found = self.witness.steps[n], self.by_step[n]
            harmless = {
                f.wrt for f in found if is_wrong_local(f) and f.wrt is not None and self._harmless(n, f.wrt)
            }
            self.by_step[n] = found = [
                replace(f, verdict=Verdict.ROUNDING, causes=(*f.causes, because.NoEffect()))
                if is_wrong_local(f) and f.wrt in harmless
                else f
                for f in found
            ]
            wrong = {f.wrt for f in found if is_wrong_local(f)}
            origin = next((self.blamed[key] for key in step.results.values() if key in self.blamed), None)
            for name in step.inputs:
                if name in wrong or origin is not None:
                    told = step.name if name in wrong else origin
                    assert told is not None
                    self.blamed.setdefault(step.sources.get(name, name), told)

    def _harmless(self, n: int, name: str) -> bool:
        """Whether the error in what a step passed on reaches no parameter, by the calculus of what lies
        between, and up to the rounding in it."""
        step = self.witness.steps[n]
        error = self.astray.get((id(step), name))
        if error is None:
            return False
        if step.convention:  # as `ctc_loss`: an exponential of four logarithms as large as its values
            size = 4 * max(float(np.max(np.abs(v), initial=0.0)) for v in step.values.values())
            largest = float(np.max(np.abs(centres(error)), initial=0.0))
            error = np.asarray(error + arb(0, step.dtype.unit_roundoff * size * largest), object)
        arriving: dict[Key, Balls] = {step.sources.get(name, name): error}
        for between in reversed(self.witness.steps[:n]):
            mine = {out: arriving.pop(key) for out, key in between.results.items() if key in arriving}
            if not mine:
                continue
            for other, part in Work(between).passed_on(mine).items():
                key = between.sources.get(other, other)
                if not _may_be_none(part):
                    arriving[key] = np.asarray(part + arriving[key], object) if key in arriving else part
        return all(map(_may_be_none, arriving.values()))

    # What arrived

    def _arrived(self, at: Arrival, at_steps: set[Verdict]) -> list[Finding]:
        at = at.widened()
        finding = replace(self._arrival(at, at_steps), kind=at.kind)
        if at.silent and finding.verdict.passes:
            return []
        finding = replace(finding, place=at.place) if at.place and not finding.verdict.passes else finding
        if not self.witness.complete and finding.verdict.passes and not at.silent and at.key in self.blamed:
            finding = _inheriting(finding, self.blamed[at.key])
        return [finding]

    def _arrival(self, at: Arrival, at_steps: set[Verdict]) -> Finding:
        whole = self.leaves.judged.get(at.name) if self.witness.complete else None
        if self.witness.complete and at.name in self.leaves.pulled and at.dtype is not None:
            self.gradients[at.name] = numbers_of(self.leaves.pulled[at.name], at.value, at.dtype)
        if isinstance(at.reason, because.Nested):
            return self._nested(at)
        if at.reason is not None:
            unseen = isinstance(at.reason, because.Unseen | because.NotFiniteAlready)
            verdict = Verdict.UNDECIDED if unseen else Verdict.UNSUPPORTED
            return bare_finding("gradient", at.name, verdict, at.reason, inherited=unseen)
        if at.dtype is None:
            return bare_finding(
                "gradient", at.name, Verdict.UNSUPPORTED, because.Uncovered(f"the dtype of {at.name}")
            )
        if at.value is None:
            return self._no_gradient(at)
        if not at.value.size and not self.witness.complete:
            return bare_finding("gradient", at.name, Verdict.EXACT, because.NoEntries())
        if at.parts is not None:
            return self._sum(at, at.value, at.dtype)
        assert whole is not None
        if at.key in self.blind or self.witness.final:
            return self._by_the_whole(at, whole, at_steps)
        return self._chained(at, whole)

    def _nested(self, at: Arrival) -> Finding:
        """A leaf that a backward within the backward gave a part of its gradient: the whole function tells
        it."""
        whole = self.leaves.judged.get(at.name)
        if whole is None or (self.witness.trusting and not whole.verdict.passes):  # the whole knows no stops
            return bare_finding("gradient", at.name, Verdict.UNSUPPORTED, because.Nested(judged=False))
        if whole.verdict.passes and not tight(whole):
            whole = replace(whole, verdict=Verdict.UNDECIDED)
        told = replace(whole, causes=(*whole.causes, because.Nested(judged=True)))
        return as_finding("gradient", at.name, None, FROM_LEAVES, told)

    def _no_gradient(self, at: Arrival) -> Finding:
        if self.witness.complete:
            judged = absent(self.leaves.pulled[at.name].exact)
            if self.witness.final:
                judged = (
                    bare(judged.verdict, because.NoGradient()) if judged.verdict is Verdict.WRONG else judged
                )
            return as_finding("gradient", at.name, None, at.text, judged)
        if any(part.any() for part in at.parts or ()):
            return bare_finding("gradient", at.name, Verdict.WRONG, because.NoGradient())
        return bare_finding("gradient", at.name, Verdict.EXACT, because.NothingPassed())

    def _sum(self, at: Arrival, value: np.ndarray, dtype: DType) -> Finding:
        """The parts of its uses, added up."""
        assert at.parts is not None
        parts = at.parts or (np.zeros(at.shape),)
        if not all(np.isfinite(part).all() for part in parts):
            why = because.NotFiniteAlready("a part")
            return bare_finding("gradient", at.name, Verdict.UNDECIDED, why, inherited=True)
        if any(part.shape != value.shape for part in parts):
            why_not = because.PartsOfShapes(tuple(part.shape for part in parts), value.shape)
            return bare_finding("gradient", at.name, Verdict.WRONG, why_not)
        judged = sieve_sum(value, parts, dtype) or judge_sum(value, [balls(part) for part in parts], dtype)
        if at.looks is not None:
            judged = replace(judged, causes=at.looks(judged))
        elif judged.verdict is Verdict.WRONG and not judged.causes:
            writers = tuple(step.name for step in self.witness.steps if step.changes)
            judged = replace(judged, causes=(because.NotTheSum(at.uses, writers),))
        text = f"sum of {len(parts)} uses" if len(parts) != 1 else "what its one use passed on"
        return as_finding("gradient", at.name, None, at.text or text, judged)

    def _chained(self, at: Arrival, whole: Judgement) -> Finding:
        """Beside what the steps that read it should pass on, and beside the exact gradient from the
        leaves."""
        assert at.value is not None and at.dtype is not None
        readers = self.reached.get(at.key, [])
        parts = self._together(at.shape, readers)
        step = self._of_one_step.get(at.key) or judge(
            Comparison(at.value, numbers(parts.exact), numbers(parts.rounding), parts.kinks), at.dtype
        )
        if len(readers) == 1 and at.value.shape == at.shape:
            step = explained(step, at.value, readers[0].by, at.dtype)
        judged = chained(step, whole)
        looks: tuple[Cause, ...] = ()
        if judged.verdict is Verdict.WRONG:
            right = parts.exact if step.verdict is Verdict.WRONG else self.leaves.pulled[at.name].exact
            only = lost_use(at.value, [(part.step, part.pulled.exact) for part in readers])
            looks = (only,) if only else likeness(at.value, right)
        if judged.verdict is Verdict.UNDECIDED or not np.isfinite(at.value).all():
            reasons = (self._singular(part.step) for part in readers)
            looks = next(((why,) for why in reasons if why), looks)
        return as_finding(
            "gradient", at.name, None, at.text, replace(judged, causes=(*judged.causes, *looks))
        )

    def _singular(self, name: str) -> Cause | None:
        step = next(step for step in self.witness.steps if step.name == name)
        return Work(step).singular()

    def _together(self, shape: Shape, readers: Sequence[Part]) -> Pulled:
        """What the steps that read a value pass to it, added in an order of the engine's own."""
        if not readers:
            zero = full(shape, NOUGHT)
            return Pulled(zero, zero, np.zeros(shape, bool))
        dtype = self.witness.dtype
        assert dtype is not None
        parts = [reader.pulled for reader in readers]
        slack = rounding(dtype).gamma(sum(part.parts for part in parts), apart=True)
        magnitudes = [part.magnitude for part in parts if part.magnitude is not None]
        spread = np.asarray(sum(magnitudes) * arb(0, slack), object)
        return Pulled(
            exact().add_all([part.exact for part in parts]),
            np.asarray(sum(part.rounding for part in parts) + spread, object),
            np.any([part.kinks for part in parts], axis=0),
        )

    @cached_property
    def _of_one_step(self) -> dict[Key, Judgement]:
        """The gradients that one step alone passes on, where it has kinks: entries of several are judged
        together."""
        found: dict[Key, Judgement] = {}
        values = {at.key: at for at in self.witness.arrivals}
        for step in self.witness.steps:
            keys = {step.sources.get(name, name) for name in step.inputs}
            alone = {key: self.reached[key][0].pulled for key in keys if len(self.reached.get(key, ())) == 1}
            single = {
                str(key): part for key, part in alone.items() if part.ties is not None and key in values
            }
            if any(part.kinks.any() for part in single.values()):
                told = {name: values[name].value for name in single}
                fitting = {
                    n: v if v is not None and v.shape == values[n].shape else None for n, v in told.items()
                }
                dtypes = {name: values[name].dtype or step.dtype for name in single}
                found.update(judge_pulled(fitting, single, dtypes))
        return found

    def _by_the_whole(self, at: Arrival, whole: Judgement, at_steps: set[Verdict]) -> Finding:
        """No step tells, because none is shown or because it broke off; the exact gradient from the leaves
        may still."""
        assert at.value is not None and at.dtype is not None
        if at.value.shape != at.shape:
            judged = missing(
                at.shape, self.leaves.pulled[at.name].exact, because.WrongShape(at.value.shape, at.shape)
            )
            return as_finding("gradient", at.name, None, at.text, judged)
        why = self.blind.get(at.key)
        if why is not None and not isinstance(why, because.Unseen):
            judged = replace(whole, causes=(*whole.causes, why))
            return replace(as_finding("gradient", at.name, None, at.text, judged), inherited=True)
        judged, by = self.leaves.spread_if_wide(at, whole)
        looks = (
            ()
            if judged.verdict.passes
            else likeness(at.value, self.leaves.pulled[at.name].exact, self.leaves.clues(at.dtype))
        )
        told = (by,) if self.witness.final else ()
        judged = replace(judged, causes=(*judged.causes, *looks, *told))
        finding = as_finding("gradient", at.name, None, at.text, judged)
        # Nothing broke off: the engine is one that shows no more. A kink or a singular point is told at its
        # step.
        return replace(finding, inherited=not self.witness.final and whole.verdict in at_steps)

    @staticmethod
    def _stray(name: str, gradient: np.ndarray) -> Finding:
        most = float(np.max(np.abs(gradient))) if gradient.size else 0.0
        told = bare_finding("gradient", name, Verdict.WRONG, because.GivenGradient())
        return replace(told, formula="given: no gradient", value=most, refuted=1)

    # The whole

    @cached_property
    def _parameters(self) -> frozenset[Key]:
        """The names that no step gives."""
        given = {key for step in self.witness.steps for key in (*step.values, *step.results.values())}
        return frozenset(at.name for at in self.witness.arrivals if at.key not in given)

    # Complete: every arrival was judged by the whole

    def _with_origins(self, found: list[Finding]) -> list[Finding]:
        """Mark what is inherited: a gradient that is off although its own step holds, or whose reader is to
        blame."""
        wrong = {f.node for f in found if f.verdict is Verdict.WRONG}
        below: dict[str, str] = {}
        for step in reversed(self.witness.steps):
            source = step.name if step.name in wrong else below.get(step.name)
            if source:
                for name in step.given:
                    below.setdefault(name, source)
        forward = next((f.node for f in found if f.kind == "forward" and f.verdict is Verdict.WRONG), None)
        reader = {(f.verdict, f.wrt): f.node for f in found if f.kind == "local"}
        marked = []
        for finding in found:
            origin = None
            inheritable = (Verdict.WRONG, *OPEN)
            if finding.kind == "gradient" and not finding.inherited and finding.verdict in inheritable:
                origin = reader.get((finding.verdict, finding.node))
                if origin is None and finding.verdict is Verdict.WRONG:
                    origin = below.get(finding.node) or forward
            if origin is not None:
                told = (because.Inherited(origin),) if finding.verdict is Verdict.WRONG else ()
                finding = replace(finding, inherited=True, causes=(*finding.causes, *told))
            marked.append(finding)
        if wrong and all(f.inherited for f in marked if f.verdict is Verdict.WRONG):
            # What it is inherited from is no fault of its own: a singular point. Then it is told here.
            marked = [replace(f, inherited=False) if f.verdict is Verdict.WRONG else f for f in marked]
        return marked

    # Not complete: the whole is asked where steps leave something open, and for what autograd does not see

    def _with_the_whole(self, found: list[Finding]) -> list[Finding]:
        lost = self._guarded(self._losses)
        found = [_missing(finding, self.missed) for finding in found]
        found = self._made_up_for(found, lost)
        bounds = self.witness.boundaries
        if not lost and (bounds or any(f.verdict in OPEN or f.inherited for f in found)):
            found = self._guarded(partial(self._end_to_end, found), found)
        if any(map(overflows, found)):
            found += self._guarded(self._overflowed)
        return found

    def _losses(self) -> list[Finding]:
        """What is lost where autograd stops and the function does not."""
        try:
            losses: Losses = self.witness.losses()
        except UnsupportedError as error:
            return [
                bare_finding(
                    "gradient",
                    "a value without its history",
                    Verdict.UNSUPPORTED,
                    because.Uncovered(str(error)),
                )
            ]
        self.put_back = losses.put_back
        self.missed = {leaf: loss.node for loss in losses.found for leaf in loss.leaves}
        return [*map(of_trouble, losses.unseen), *(f for loss in losses.found for f in self._loss(loss))]

    @staticmethod
    def _loss(loss: Loss) -> list[Finding]:
        expected = np.asarray(loss.lost + balls(loss.arrived), object)
        # What is less than the gradient's own rounding is not lost.
        once = rounding(loss.dtype).multiply(expected, UNIT)
        judged = judge(Comparison(loss.arrived, expected, once), loss.dtype)
        if judged.verdict.passes:
            return []
        judged = replace(judged, causes=(loss.cause,))
        kind = "gradient" if loss.wrt is None else "local"
        told = as_finding(kind, loss.node, loss.wrt, "with what autograd does not see", judged)
        return [replace(told, place=loss.place)]

    def _made_up_for(self, before: list[Finding], lost: Sequence[Finding]) -> list[Finding]:
        """What a stop loses a hook may add: of an implicit layer, all gradients are right from the leaves."""
        found = [*before, *lost]
        bad = [f for f in found if not f.verdict.passes]
        if not bad or self.blamed or self.put_back:
            return found
        if any(f.kind != "gradient" or f.verdict is not Verdict.WRONG for f in bad):
            return found
        names = {at.name for at in self.witness.arrivals if not at.silent}
        if any(f.node not in names for f in lost) or any(f.verdict is Verdict.KINK for f in before):
            return found  # at a kink the whole is a span, which tells little
        judged = self.leaves.judged
        if not names <= judged.keys() or not all(in_every_entry(judged[name]) for name in names):
            return found
        return [
            replace(
                as_finding("gradient", f.node, None, FROM_LEAVES, judged[f.node]),
                causes=(because.MadeUpFor(),),
            )
            if f in bad and f.node in names
            else replace(f, verdict=Verdict.ROUNDING, causes=(*f.causes, because.WholeIsRight(proved=True)))
            if f in bad
            else f
            for f in found
        ]

    def _end_to_end(self, found: list[Finding]) -> list[Finding]:
        """Where a step has a kink or cannot be judged alone, the whole function is looked at from its leaves.

        So it is where a condition stands at its boundary: a node takes its mask as given. The function may be
        smooth although its pieces have kinks; then only the one value is right. And a cotangent of 0 may have
        met a slope without end: then the function tells what the piece cannot.
        """
        bounds = self.witness.boundaries
        leaves = {at.name for at in self.witness.arrivals if not at.silent}
        judged = {name: each for name, each in self.leaves.judged.items() if name in leaves}
        if not judged:
            told = bare_finding("local", "the function", Verdict.KINK, because.AtBoundary(unseen=True))
            return found + [replace(told, place=place) for place in bounds[:1]]
        settled = all(tight(whole) for whole in judged.values())
        found = [self._cancelled(finding, judged) for finding in found]
        found = [_settled(finding) if settled else _inherited(finding) for finding in found]
        for at in self.witness.arrivals:
            whole = judged.get(at.name)
            causes = self._reason(at, whole, found) if whole else ()
            if whole is not None and causes:
                named = as_finding("gradient", at.name, None, FROM_LEAVES, replace(whole, causes=causes))
                found = [f for f in found if not (f.kind == "gradient" and f.node == at.name)] + [named]
        return found

    def _reason(self, at: Arrival, whole: Judgement, found: Sequence[Finding]) -> tuple[Cause, ...]:
        """Why a leaf's gradient is wrong as a whole, or at a kink; nothing where its steps tell."""
        if whole.verdict is Verdict.KINK and bounds_alone(self.witness.boundaries, found):
            return whole.causes
        if whole.verdict is not Verdict.WRONG:
            return ()
        if at.value is None or not np.isfinite(at.value).all():
            first = next((f for f in found if f.kind == "local" and not_finite(f)), None)
            return (*whole.causes, *((because.ComesFrom(first.node, first.place),) if first else ()))
        kinks = tuple(dict.fromkeys(f.place or f.node for f in found if f.verdict is Verdict.KINK))
        if kinks and whole.exact is not None:
            return (because.SmoothTogether(kinks),)
        if bounds_alone(self.witness.boundaries, found):
            return (because.AtBoundary(self.witness.boundaries),)
        return ()

    def _cancelled(self, finding: Finding, judged: Mapping[str, Judgement]) -> Finding:
        """A leaf below a wrong node may be right all the same, where the error has no effect on it."""
        whole = judged.get(finding.node)
        if not (finding.inherited and finding.kind == "gradient" and whole is not None and tight(whole)):
            return finding
        origin = next((cause.origin for cause in finding.causes if isinstance(cause, because.Inherited)), "")
        causes: tuple[Cause, ...] = (because.Cancels(origin),) if origin else (because.WholeIsRight(),)
        return as_finding("gradient", finding.node, None, FROM_LEAVES, replace(whole, causes=causes))

    def _overflowed(self) -> list[Finding]:
        """An infinity on the way may be right, and what the function makes of it not: its values, from the
        leaves."""
        dtype = self.witness.dtype
        if dtype is None:
            return []
        try:
            whole = self.witness.whole()
        except UnsupportedError as error:
            why = because.Uncovered(str(error))
            return [
                bare_finding("forward", "the function", Verdict.UNDECIDED, because.OverflowOnTheWay(), why)
            ]
        values = evaluate(whole.run.nodes, whole.given, exact())
        found = []
        for name, value in self.witness.values.items():
            sharp = values[whole.outputs[int(name)]]
            judged = judge(Comparison(value, sharp, rounding(dtype).multiply(sharp, UNIT)), dtype)
            if not np.isfinite(value).all() and judged.verdict is Verdict.WRONG:
                judged = replace(judged, causes=(*judged.causes, because.OverflowOnTheWay()))
                found.append(as_finding("forward", "the function", None, "from its leaves", judged))
        return found


def of_trouble(trouble: Trouble) -> Finding:
    """What broke, or is not covered, as a finding."""
    verdict = verdict_of(trouble.cause)
    found = bare_finding(trouble.kind, trouble.node, verdict, trouble.cause, inherited=trouble.inherited)
    return replace(found, place=trouble.place, wrt=trouble.wrt)


def is_wrong_local(finding: Finding) -> bool:
    return finding.kind == "local" and finding.verdict is Verdict.WRONG


def bounds_alone(boundaries: Sequence[str], found: Sequence[Finding]) -> bool:
    """Whether a condition's boundary is all that a step may have missed: each takes its mask as given."""
    told = all(f.verdict.passes for f in found) and not any(
        f.verdict is Verdict.KINK and f.kind != "gradient" for f in found
    )
    return bool(boundaries) and told


def overflows(finding: Finding) -> bool:
    """Whether an infinity passes that stands for a number; a mask's stands for itself."""
    infinite = finding.verdict.passes and finding.value is not None and np.isinf(finding.value)
    return bool(infinite) and finding.exact is not None and np.isfinite(finding.exact)


def not_finite(finding: Finding) -> bool:
    return finding.value is not None and not np.isfinite(finding.value)


def _may_be_none(part: Balls) -> bool:
    return all(x.is_finite() and x.contains(0) for x in numbers(part).reshape(-1))


def _missing(finding: Finding, missed: Mapping[str, str]) -> Finding:
    """A leaf that got the sum of what was passed on, and not what a stop keeps back."""
    if finding.kind != "gradient" or finding.node not in missed or not finding.verdict.passes:
        return finding
    return _inheriting(finding, missed[finding.node])


def _inheriting(finding: Finding, origin: str) -> Finding:
    """What is right by itself, and wrong by the error of another: its exact number is not known here."""
    told = (because.Inherited(origin),)
    return replace(finding, verdict=Verdict.WRONG, exact=None, ulp=None, inherited=True, causes=told)


def _settled(finding: Finding) -> Finding:
    """What a step cannot tell alone, the whole function has told."""
    if finding.verdict is not Verdict.UNDECIDED or (finding.wrt is None and not finding.inherited):
        return finding
    causes = (*finding.causes, because.WholeIsRight())
    return replace(finding, verdict=Verdict.ROUNDING, causes=causes, inherited=False)


def _inherited(finding: Finding) -> Finding:
    told = finding.kind == "local" and finding.verdict is Verdict.UNDECIDED and not_finite(finding)
    return replace(finding, inherited=True) if told else finding
