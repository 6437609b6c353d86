"""The steps of a descent: what each one was, and its judgement at the engine's own numbers.

Of each step, with the numbers that the engine had before it taken as exact: the loss and the gradients (the
same check as of any point), the gradient that the optimizer saw (zeroed before, or the sum of several
backwards), the optimizer's state, and the updated parameters by its documented rule. Each is tight however
long the run; if every step holds, the trajectory is the rule's up to rounding, by induction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from flint import arb

from .. import causes as because
from ..assertions import assert_gradients
from ..dtypes import DType
from ..engines.descent import Happened, Replay, learning_options
from ..errors import InputError
from ..judging.judge import Judge
from ..judging.verdicts import judge_sum, ulp_of
from ..language.files import Problem
from ..oracle import check
from ..proof.arithmetic import exact, rounding
from ..proof.balls import NOUGHT, Balls, as_float, balls, centres, entry, floats, precision
from ..proof.enclosure import START_BITS
from ..proof.graph import Shape
from ..report import Report
from ..verdict import Finding, Verdict, as_finding, bare_finding
from .gradients import UNTREATED, Treatment
from .optimizers import ADAM, ADAMW, Rule
from .report import DescentReport, Distance, End, Step
from .trajectory import (
    Curvature,
    Slope,
    Trajectory,
    Update,
    curvature,
    documented,
    first_state,
    slope,
    trajectory,
    update_of,
)
from .witness import States, less, sum_of


def slope_at(problem: Problem, parameters: Mapping[str, np.ndarray]) -> Slope:
    """The exact loss and gradient at these parameters."""
    with precision(2 * START_BITS):
        leaves = {name: balls(value) for name, value in {**problem.point, **parameters}.items()}
        return slope(problem.graph, leaves, exact())


# The judgement


class Descent:
    """One descent: each step is judged at the engine's own numbers, and what it leaves is kept."""

    def __init__(
        self, problem: Problem, batches: Sequence[Problem], dtype: DType, rule: Rule, accumulate: bool,
            reduction: str, *,
        switches: bool = False, treatment: Treatment = UNTREATED,
    ) -> None:  # fmt: skip
        self.problem = problem
        self.graph = problem.graph
        self.batches = batches
        self.dtype = dtype
        self.rule = rule
        self.accumulate = accumulate
        self.reduction = reduction
        self.treatment = treatment
        self.scale = 1.0  # of the step's loss
        self.switches = switches  # whether its own settings may say that it is another of its family
        self.shapes: dict[str, Shape] = {leaf.name: leaf.shape for leaf in self.graph.parameters}
        self.since = dict.fromkeys(self.shapes, 1)  # the first step whose gradient is still in .grad
        self.last: dict[str, np.ndarray] = {}  # gradients that a trajectory from anywhere had before
        self.states = States(dtype)
        self.updates: list[dict[str, Callable[..., dict[str, Balls]]]] = []
        self.settings: dict[str, Any] = {}
        self.lines: tuple[str, ...] = ()
        self.steps: list[Step] = []
        self.end: End | None = None
        self.largest: float | None = None  # of the exact gradient at the end, where it is as small as asked

    # One step

    def step(self, number: int, happened: Happened, before: Slope, loss: float | None = None) -> Slope:
        """Judge a step; the exact gradient after it is returned."""
        if not self.settings:
            update = self._update_of(happened, next(iter(self.shapes)))
            self.settings = {"lr": update.lr, **update.options}
            self.lines = documented(update.lines, update.rule)
        last = self.graph.output.name
        unscaled = [self.treatment.unscaled(trace, last) for trace in happened.traces]
        self.scale = max((scale for _, scale in unscaled), default=1.0)
        happened = replace(happened, traces=[trace for trace, _ in unscaled])
        with precision(START_BITS):
            findings = self._found(number, happened, before, loss)
            findings = self._overflown(findings, before, happened)
            there = happened.end or happened.after
            after = slope_at(self.problem, there) if self._finite(there) else before
        for part, trace in zip(self.batches, happened.traces, strict=False):
            output = trace.values.get(part.graph.output.name)
            loss = loss if output is None else (loss or 0.0) + float(output)
        recorded, steepest = dict(happened.recorded), as_float(before.largest)
        step = Step(number, happened.before, loss, recorded, happened.after, tuple(findings), steepest)
        self.steps.append(step)
        return after

    def _found(self, number: int, happened: Happened, before: Slope, loss: float | None) -> list[Finding]:
        found: list[Finding] = []
        if not happened.traces and not happened.failure:
            found += self._asserted(happened, loss, before)
        for n, (part, trace) in enumerate(zip(self.batches, happened.traces, strict=False), 1):
            found += self._checked(n, part, trace, happened)
        if happened.failure:
            if any(f.verdict in (Verdict.FAILED, Verdict.UNSUPPORTED) for f in found):
                return found
            raised = because.Raised(happened.failure)
            return [*found, bare_finding("update", self.graph.output.name, Verdict.FAILED, raised)]
        if len(self.batches) > 1:
            found += self._micro(happened, before)
        found += self._recorded(number, happened)
        found += self._updated(number, happened)
        return found + self._afterwards(happened)

    @staticmethod
    def _finite(arrays: Mapping[str, np.ndarray | None]) -> bool:
        return all(array is None or np.isfinite(array).all() for array in arrays.values())

    def over(self, after: Slope, until: float | None) -> bool:
        """Whether the loop ends here: at a minimum, beyond the dtype's numbers, or because something was
        raised."""
        done = self.steps[-1]
        if any(finding.verdict is Verdict.FAILED for finding in done.findings):
            return True
        finite = self._finite(done.updated) and self._finite(done.gradients)
        largest = after.largest
        if not finite or (done.loss is not None and not np.isfinite(done.loss)):
            self.end = End.BEYOND
        elif until is not None and largest < until:
            self.end, self.largest = End.SMALL, as_float(largest)
        elif largest.is_zero():
            self.end = End.ZERO
        return self.end is not None

    def _checked(self, n: int, part: Problem, trace: Any, happened: Happened) -> list[Finding]:
        """The check of one point: every line, local gradient and chained gradient of one backward."""
        at = replace(part, point={**part.point, **happened.before})
        report = check(at, engine=Replay("torch", trace), dtype=self.dtype.name)
        if len(self.batches) == 1:
            return list(report.findings)
        return [replace(f, causes=(because.MicroBatch(n), *f.causes)) for f in report.findings]

    def _asserted(self, happened: Happened, loss: float | None, before: Slope) -> list[Finding]:
        """A step from anywhere: loss and gradients by the ball from the leaves."""
        values = {} if loss is None else {self.graph.output.name: loss}
        report = _assertion(self.problem, happened, values, self.dtype)
        findings = list(report.findings)
        carried = dict(self.last)
        self.last = {name: np.asarray(g) for name, g in happened.recorded.items()}
        if not carried:
            return findings
        leaves = {name: balls(value) for name, value in {**self.problem.point, **happened.before}.items()}
        loose = slope(self.graph, leaves, rounding(self.dtype))
        found = []
        for finding in findings:
            if finding.kind == "gradient" and (self.accumulate or finding.verdict is Verdict.WRONG):
                name = finding.node
                there = balls(carried[name])
                both = [[there, at.gradients[name]] for at in (before, loose)]
                judged = judge_sum(self.last[name], both[0], self.dtype, both[1])
                told = because.NotZeroed(self.since[name], len(self.steps) + 1, meant=self.accumulate)
                if self.accumulate:
                    judged = replace(judged, causes=(*judged.causes, told))
                    finding = as_finding("gradient", name, None, finding.formula, judged)
                elif judged.verdict.passes:
                    finding = replace(finding, causes=(told,))
            found.append(finding)
        return found

    def _afterwards(self, happened: Happened) -> list[Finding]:
        """What the optimizer has nothing to do with: parts of the data left out, parameters changed by other
        hands."""
        found = []
        used, parts = len(happened.traces), len(self.batches)
        if happened.traces and used < parts:
            left_out = because.LeftOut(used, parts)
            found.append(bare_finding("micro-batches", self.graph.output.name, Verdict.WRONG, left_out))
        for name, end in happened.end.items():
            if not np.array_equal(end, happened.after[name], equal_nan=True):
                what = "the parameter was changed after the optimizer's step, outside of it"
                found.append(bare_finding("update", name, Verdict.WRONG, because.ByOtherHands(what)))
        return found

    # The gradient that the optimizer saw

    def _recorded(self, number: int, happened: Happened) -> list[Finding]:
        """Is `.grad` what this step's backwards gave, and nothing else?"""
        found: list[Finding] = []
        if self.treatment.clips or self.scale != 1:
            return self._treated(happened)
        for name in self.shapes if happened.traces else ():
            recorded, carried = happened.recorded[name], happened.carried.get(name)
            left = carried is not None and bool(np.any(carried))
            if not left:
                self.since[name] = number
            arrived = [trace.gradients.get(name) for trace in happened.traces]
            fresh = tuple(gradient for gradient in arrived if gradient is not None)
            if recorded is not None and fresh:
                zeroed = because.NotZeroed(self.since[name], number, meant=self.accumulate)
                witness = sum_of(name, recorded, carried if left else None, fresh, zeroed, self.dtype)
                found += Judge(witness).judged().findings
            elif recorded is not None or fresh:
                lost = "the backward gave a gradient, but .grad has none"
                why = because.ByOtherHands(lost if fresh else ".grad has numbers of no backward")
                found.append(bare_finding("recorded", name, Verdict.WRONG, why))
        return found

    def _treated(self, happened: Happened) -> list[Finding]:
        """The same of gradients that are unscaled or clipped on the way."""
        parts: dict[str, tuple[np.ndarray, ...]] = {}
        for name in self.shapes:
            arrived = [trace.gradients.get(name) for trace in happened.traces]
            carried = happened.carried.get(name) if self.accumulate else None
            fresh = tuple(gradient for gradient in (carried, *arrived) if gradient is not None)
            if fresh:
                parts[name] = fresh
        found: list[Finding] = []
        for name in parts:
            recorded = happened.recorded[name]
            finite = recorded is not None and np.isfinite(recorded).all()
            if not finite or not all(np.isfinite(array).all() for each in parts.values() for array in each):
                why = because.NotFiniteAlready("the gradient")
                found.append(bare_finding("recorded", name, Verdict.UNDECIDED, why, inherited=True))
                continue
            assert recorded is not None
            witness = self.treatment.witness(name, recorded, parts, self.scale, self.dtype)
            found += Judge(witness).judged().findings
        return found

    def _micro(self, happened: Happened, before: Slope) -> list[Finding]:
        """Do the micro-batches' exact gradients add up to the full batch's?"""
        with precision(2 * START_BITS):
            parts = [slope_at(part, happened.before) for part in self.batches]
        found = []
        for name in self.shapes:
            whole = before.gradients[name]
            with precision(2 * START_BITS):
                total = exact().add_all([part.gradients[name] for part in parts])
            same = all(x.overlaps(y) for x, y in zip(total.reshape(-1), whole.reshape(-1), strict=True))
            factor = None if same else _factor(total, whole)
            told = because.Accumulated(len(parts), same, factor, self.reduction)
            right, value = centres(whole).reshape(-1), centres(total).reshape(-1)
            at, entries = int(np.argmax(np.abs(right - value))), value.size
            finding = bare_finding("micro-batches", name, Verdict.EXACT if same else Verdict.WRONG, told)
            finding = replace(finding, formula="sum over the micro-batches", entries=entries)
            finding = replace(finding, exact=float(right[at]), value=float(value[at]))
            found.append(finding if same else replace(finding, refuted=entries))
        return found

    # The update

    def _updated(self, number: int, happened: Happened) -> list[Finding]:
        found: list[Finding] = []
        updates: dict[str, Callable[..., dict[str, Balls]]] = {}
        for name, shape in self.shapes.items():
            update = self._update_of(happened, name)
            self.states.first.setdefault(name, first_state(update.rule, update.options, shape))
            updates[name] = _unmoved
            if not happened.stepped:
                found.append(bare_finding("update", name, Verdict.WRONG, because.NoStep()))
            elif happened.recorded.get(name) is None:
                # torch's optimizers pass by what has no gradient.
                still = np.array_equal(happened.before[name], happened.after[name])
                verdict = Verdict.EXACT if still else Verdict.WRONG
                found.append(bare_finding("update", name, verdict, because.NoStep(moved=not still)))
            else:
                updates[name] = update
                found += self._judged_update(number, name, happened, update)
        self.updates.append(updates)
        return found

    def _update_of(self, happened: Happened, name: str) -> Update:
        settings = happened.settings[name]
        # In torch, AdamW is Adam with a switch.
        other = self.switches and self.rule is ADAM and settings.get("decoupled_weight_decay")
        rule = ADAMW if other else self.rule
        if "lr" not in settings:
            raise InputError(f"the optimizer's settings have no 'lr', which the rule {rule.name!r} needs")
        options = learning_options(settings, rule.options)
        lr = float(options.pop("lr"))
        return update_of(rule, rule.with_defaults(options), lr)

    def _judged_update(self, number: int, name: str, happened: Happened, update: Update) -> list[Finding]:
        taken = self.states.taken(name, number, happened, update)
        if taken is None:
            why = because.NotFiniteAlready("its gradient")
            return [bare_finding("update", name, Verdict.UNDECIDED, why, inherited=True)]
        self.states.follow(taken)
        found = []
        count = happened.state_after.get(name, {}).get("step")
        if count is not None and "step" in update.rule.state and float(count) != number:
            counts = because.Counter(float(count), number)
            found.append(bare_finding("state", f"{name}.step", Verdict.WRONG, counts))
        return [*found, *Judge(taken.witness()).judged().findings]

    def _overflown(self, findings: list[Finding], before: Slope, happened: Happened) -> list[Finding]:
        """Where the exact numbers themselves are beyond the dtype, nothing can be judged: the descent has
        diverged."""
        largest = arb(self.dtype.largest)
        beyond = abs(before.loss[()]) > largest or any(
            abs(x) > largest for gradient in before.gradients.values() for x in gradient.reshape(-1)
        )
        finite = self._finite(happened.after) and self._finite(happened.recorded)
        if not beyond and finite:
            return findings
        found = []
        for finding in findings:
            over = finding.exact is not None and abs(finding.exact) > self.dtype.largest
            infinite = finding.value is not None and not np.isfinite(finding.value)
            wrong = finding.verdict is Verdict.WRONG and (over or (beyond and infinite))
            # An infinity may be right; a descent is over there.
            if wrong or (infinite and finding.verdict.passes):
                finding = replace(finding, verdict=Verdict.UNDECIDED)
            found.append(finding)
        return found

    # The whole

    def report(
        self, engine: str, optimizer: str, asked: int, until: float | None, seconds: float
    ) -> DescentReport:
        """The report, with the exact trajectory beside the engine's."""
        first = self.states.first
        whole = trajectory(
            self.graph, self._start(), self.updates, first,
            accumulate=self.accumulate, treated=self.treatment.of,
        )  # fmt: skip
        known = len(whole.steps)
        steps = [self._beside(step, whole, n) for n, step in enumerate(self.steps[:known])]
        last = self.steps[-1].updated
        if until is not None and self.end is not End.SMALL and self._finite(last):
            self.largest = as_float(slope_at(self.problem, last).largest)
        return DescentReport(
            title=self.problem.title, target=self.problem.target, engine=engine, dtype=self.dtype.name,
            optimizer=optimizer, rule=self.rule, settings=self.settings, lines=self.lines, asked=asked,
            steps=(*steps, *self.steps[known:]), curvatures=self._curvatures(), bits=whole.bits,
            lost=whole.lost, seconds=seconds, problem=self.problem, accumulate=self.accumulate, end=self.end,
            until=until, largest=self.largest,
        )  # fmt: skip

    def _start(self) -> dict[str, np.ndarray]:
        return {**self.problem.point, **self.steps[0].parameters}

    def _beside(self, step: Step, whole: Trajectory, n: int) -> Step:
        mine = whole.steps[n]
        far, relative = 0.0, 0.0
        for name, there in mine.updated.items():
            value = step.updated[name]
            if not np.isfinite(value).all():
                return replace(step, exact_loss=as_float(entry(mine.loss)))
            with precision(whole.bits):
                away = np.abs(floats(less(there, balls(value))))
            middle = floats(there)
            far = max(far, float(np.max(away / ulp_of(middle, self.dtype), initial=0.0)))
            size = np.abs(middle)
            apart = np.divide(away, size, out=np.zeros_like(away), where=size > 0)
            relative = max(relative, float(np.max(apart, initial=0.0)))
        return replace(
            step,
            exact_loss=as_float(entry(mine.loss).mid()),
            exact_gradients={name: floats(g) for name, g in mine.gradients.items()},
            exact_updated={name: floats(p) for name, p in mine.updated.items()},
            distance=Distance(far, relative),
        )

    def _curvatures(self) -> dict[str, Curvature]:
        found = {}
        if start := curvature(self.graph, self._start()):
            found["start"] = start
        last = self.steps[-1].updated
        moved = any(not np.array_equal(last[name], value) for name, value in self.steps[0].parameters.items())
        if moved and self._finite(last) and not (start and start.quadratic):
            end = curvature(self.graph, {**self.problem.point, **last})
            found |= {"end": end} if end else {}
        return found


def _unmoved(p: Balls, *_: Any) -> dict[str, Balls]:
    return {"p": p}


def _assertion(problem: Problem, happened: Happened, values: Mapping[str, Any], dtype: DType) -> Report:
    try:
        return assert_gradients(problem, happened.before, happened.recorded, dtype=dtype.name, values=values)
    except AssertionError as error:
        report: Report = error.report  # type: ignore[attr-defined] # assert_gradients puts it there
        return report


def _factor(total: Balls, whole: Balls) -> float | None:
    """By which factor all entries differ, where it is one and the same; entries that are 0 in both do not
    count."""
    ratios = []
    for x, y in zip(total.reshape(-1), whole.reshape(-1), strict=True):
        if y.contains(NOUGHT):
            if not x.contains(NOUGHT):
                return None
            continue
        ratios.append(x / y)
    if not ratios or not all(ratio.overlaps(ratios[0]) for ratio in ratios):
        return None
    return as_float(ratios[0].mid())
