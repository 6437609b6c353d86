"""The steps of a descent: what each one was, and its judgement at the engine's own numbers.

Of each step, with the numbers that the engine had before it taken as exact: the loss and the gradients (the
same check as of any point), the gradient that the optimizer saw (zeroed before, or the sum of several
backwards), the optimizer's state, and the updated parameters by its documented rule. Each is tight however
long the run; if every step holds, the trajectory is the rule's up to rounding, by induction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flint import arb

from .. import causes as because
from .. import display
from ..assertions import assert_gradients
from ..dtypes import DType
from ..engines.descent import Arrays, Happened, Replay, learning_options
from ..errors import InputError
from ..judging.judge import Judge
from ..judging.likeness import Clues, likeness
from ..judging.verdicts import judge_sum, ulp_of
from ..language.files import Problem
from ..oracle import check
from ..proof.arithmetic import Arithmetic, exact, rounding
from ..proof.balls import NOUGHT, Balls, as_float, balls, centres, entry, floats, precision
from ..proof.enclosure import START_BITS
from ..proof.graph import Shape
from ..report import Report
from ..verdict import Finding, Judgement, Verdict, as_finding, bare_finding, worst
from .optimizers import ADAM, ADAMW, Rule
from .trajectory import (
    Curvature,
    Slope,
    Trajectory,
    Update,
    curvature,
    documented,
    slope,
    trajectory,
    update_of,
)
from .witness import States, clues, less, witness_of


@dataclass(frozen=True)
class Distance:
    """How far the engine's updated parameters are from the exact trajectory's, at the farthest entry."""

    ulp: float
    relative: float | None


@dataclass(frozen=True, eq=False)
class Step:
    """One step. The engine's numbers first, then those of the exact trajectory (None where it is lost).

    `steepest` is a proved upper bound of the magnitudes in the exact gradient at the engine's parameters.
    """

    number: int
    parameters: Arrays
    loss: float | None
    gradients: Mapping[str, np.ndarray | None]
    updated: Arrays
    findings: tuple[Finding, ...]
    steepest: float
    exact_loss: float | None = None
    exact_gradients: Mapping[str, np.ndarray] | None = None
    exact_updated: Mapping[str, np.ndarray] | None = None
    distance: Distance | None = None

    @property
    def verdict(self) -> Verdict:
        return worst([finding.verdict for finding in self.findings])


@dataclass(frozen=True, eq=False)
class DescentReport:
    """A descent, step by step; `notes` are what there is to say of the whole."""

    title: str
    target: str
    engine: str
    dtype: str
    optimizer: str
    rule: Rule
    settings: Mapping[str, Any]
    lines: tuple[str, ...]
    asked: int
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    curvatures: Mapping[str, Curvature]
    bits: int
    seconds: float
    problem: Problem
    interrupted: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all steps, in order."""
        return tuple(finding for step in self.steps for finding in step.findings)

    @property
    def verdict(self) -> Verdict:
        """The worst of all steps."""
        return worst([step.verdict for step in self.steps])

    @property
    def ok(self) -> bool:
        return self.verdict.passes

    @property
    def failing(self) -> tuple[tuple[Step, Finding], ...]:
        """What does not pass, each with its step; what is inherited from another finding is left out where
        there is one."""
        bad = [
            (step, finding) for step in self.steps for finding in step.findings if not finding.verdict.passes
        ]
        return tuple(pair for pair in bad if not pair[1].inherited) or tuple(bad)

    def to_text(self) -> str:
        return self._rendered("text")

    def to_markdown(self) -> str:
        return self._rendered("markdown")

    def to_html(self) -> str:
        return self._rendered("html")

    def to_json(self) -> str:
        return self._rendered("json")

    def to_csv(self) -> str:
        return self._rendered("csv")

    def _rendered(self, form: str) -> str:
        return display.telling().of_descent(self, form)


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
        switches: bool = False,
    ) -> None:  # fmt: skip
        self.problem = problem
        self.graph = problem.graph
        self.batches = batches
        self.dtype = dtype
        self.rule = rule
        self.accumulate = accumulate
        self.reduction = reduction
        self.switches = (
            switches  # whether the optimizer's own settings may say that it is another of its family
        )
        self.rounding: Arithmetic = rounding(dtype)
        self.shapes: dict[str, Shape] = {leaf.name: leaf.shape for leaf in self.graph.parameters}
        self.since = dict.fromkeys(self.shapes, 1)  # the first step whose gradient is still in .grad
        self.last: dict[str, np.ndarray] = {}  # gradients that a trajectory from anywhere had before
        self.states = States(dtype)
        self.updates: list[dict[str, Callable[..., dict[str, Balls]]]] = []
        self.settings: dict[str, Any] = {}
        self.lines: tuple[str, ...] = ()
        self.steps: list[Step] = []
        self.slopes: list[Slope] = []
        self.notes: list[str] = []
        self.reached = False  # whether the gradient was proved to be as small as was asked for

    # One step

    def step(self, number: int, happened: Happened, before: Slope, loss: float | None = None) -> Slope:
        """Judge a step; the exact gradient after it is returned."""
        findings: list[Finding] = []
        after = before
        if not self.settings:
            update = self._update_of(happened, next(iter(self.shapes)))
            self.settings = {"lr": update.lr, **update.options}
            self.lines = documented(update.lines, update.rule)
        with precision(START_BITS):
            if happened.traces:
                for n, (part, trace) in enumerate(zip(self.batches, happened.traces, strict=False), 1):
                    findings += self._checked(n, part, trace, happened)
                    output = trace.values.get(part.graph.output.name)
                    loss = loss if output is None else (loss or 0.0) + float(output)
            elif not happened.failure:
                findings += self._asserted(happened, loss, before)
            if happened.failure and not any(
                f.verdict in (Verdict.FAILED, Verdict.UNSUPPORTED) for f in findings
            ):
                findings.append(
                    bare_finding(
                        "update", self.graph.output.name, Verdict.FAILED, because.Raised(happened.failure)
                    )
                )
            if not happened.failure:
                if len(self.batches) > 1:
                    findings += self._micro(happened, before)
                findings += self._recorded(number, happened)
                findings += self._updated(number, happened)
                findings += self._afterwards(happened)
            findings = self._overflown(findings, before, happened)
            there = happened.end or happened.after
            after = slope_at(self.problem, there) if self._finite(there) else before
        gradients = dict(happened.recorded)
        self.steps.append(
            Step(
                number,
                happened.before,
                loss,
                gradients,
                happened.after,
                tuple(findings),
                as_float(before.largest),
            )
        )
        return after

    @staticmethod
    def _finite(arrays: Mapping[str, np.ndarray | None]) -> bool:
        return all(array is None or np.isfinite(array).all() for array in arrays.values())

    def over(self, after: Slope, until: float | None) -> bool:
        """Whether the loop ends here: at a minimum, beyond the dtype's numbers, or because something was
        raised."""
        done = self.steps[-1]
        if any(finding.verdict is Verdict.FAILED for finding in done.findings):
            return True
        if not (self._finite(done.updated) and self._finite(done.gradients)) or (
            done.loss is not None and not np.isfinite(done.loss)
        ):
            self.notes.append(f"Stopped after step {done.number}: its numbers are beyond {self.dtype.name}.")
            return True
        largest = after.largest
        if until is not None and largest < until:
            self.reached = True
            self.notes.append(
                f"Stopped after step {done.number}: at the engine's parameters every entry of the exact "
                "gradient is proved "
                f"below {until:g} (at most {as_float(largest):.3g})."
            )
            return True
        if largest.is_zero():
            self.notes.append(
                f"Stopped after step {done.number}: at the engine's parameters the exact gradient is 0, "
                "proved."
            )
            return True
        return False

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
        loose = slope(self.graph, self._leaves(happened.before), self.rounding)
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

    def _leaves(self, parameters: Mapping[str, np.ndarray]) -> dict[str, Balls]:
        return {name: balls(value) for name, value in {**self.problem.point, **parameters}.items()}

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
                why = because.ByOtherHands(
                    "the parameter was changed after the optimizer's step, outside of it"
                )
                found.append(bare_finding("update", name, Verdict.WRONG, why))
        return found

    # The gradient that the optimizer saw

    def _recorded(self, number: int, happened: Happened) -> list[Finding]:
        """Is `.grad` what this step's backwards gave, and nothing else?"""
        found = []
        for name in self.shapes if happened.traces else ():
            recorded, carried = happened.recorded[name], happened.carried.get(name)
            left = carried is not None and bool(np.any(carried))
            if not left:
                self.since[name] = number
            arrived = [trace.gradients.get(name) for trace in happened.traces]
            fresh = [gradient for gradient in arrived if gradient is not None]
            if recorded is None and not fresh:
                continue
            if recorded is None or not fresh:
                why = because.ByOtherHands(
                    "the backward gave a gradient, but .grad has none"
                    if fresh
                    else ".grad has numbers of no backward"
                )
                found.append(bare_finding("recorded", name, Verdict.WRONG, why))
                continue
            if not all(np.isfinite(gradient).all() for gradient in (recorded, *fresh)):
                broken = because.NotFiniteAlready("the gradient")
                found.append(bare_finding("recorded", name, Verdict.UNDECIDED, broken, inherited=True))
                continue
            sums = [balls(gradient) for gradient in fresh]
            whole = [balls(carried), *sums] if carried is not None and left else sums
            expected = whole if self.accumulate else sums
            judged = judge_sum(recorded, expected, self.dtype)
            zeroed = because.NotZeroed(self.since[name], number, meant=self.accumulate)
            passes = judged.verdict.passes
            all_of_them = left and not passes and judge_sum(recorded, whole, self.dtype).verdict.passes
            if all_of_them or (left and self.accumulate and passes):
                judged = replace(judged, causes=(zeroed,))
            elif not passes:
                looks = likeness(recorded, exact().add_all(expected), Clues(self.dtype))
                changed = "it was changed between the backward and the optimizer's step"
                told = (*judged.causes, *looks) or (because.ByOtherHands(changed),)
                judged = replace(judged, causes=told)
            parts = f"{len(fresh)} backwards" if len(fresh) > 1 else "this step's backward"
            formula = f"what was there + {parts}" if self.accumulate else parts
            found.append(as_finding("recorded", name, None, formula, judged))
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
            value = centres(total)
            judged = Judgement(
                Verdict.EXACT if same else Verdict.WRONG,
                *_farthest(centres(whole), value),
                None,
                None,
                (),
                (told,),
                entries=int(value.size),
                refuted=0 if same else int(value.size),
            )
            found.append(as_finding("micro-batches", name, None, "sum over the micro-batches", judged))
        return found

    # The update

    def _updated(self, number: int, happened: Happened) -> list[Finding]:
        found: list[Finding] = []
        updates: dict[str, Callable[..., dict[str, Balls]]] = {}
        for name, shape in self.shapes.items():
            update = self._update_of(happened, name)
            self.states.begin(name, update, shape)
            updates[name] = update
            if not happened.stepped:
                found.append(bare_finding("update", name, Verdict.WRONG, because.NoStep()))
                updates[name] = _unmoved
            elif happened.recorded.get(name) is None:
                # torch's optimizers pass by what has no gradient.
                still = np.array_equal(happened.before[name], happened.after[name])
                verdict = Verdict.EXACT if still else Verdict.WRONG
                found.append(bare_finding("update", name, verdict, because.NoStep(moved=not still)))
                updates[name] = _unmoved
            else:
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
        self.states.follow(update, taken)
        found = []
        count = happened.state_after.get(name, {}).get("step")
        if count is not None and "step" in update.rule.state and float(count) != number:
            counts = because.Counter(float(count), number)
            found.append(bare_finding("state", f"{name}.step", Verdict.WRONG, counts))
        witness = witness_of(update, taken, self.dtype, clues(update, taken, self.dtype))
        return [*found, *Judge(witness).judged().findings]

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
            if wrong or (
                infinite and finding.verdict.passes
            ):  # an infinity may be right; a descent is over there
                finding = replace(finding, verdict=Verdict.UNDECIDED)
            found.append(finding)
        return found

    # The whole

    def report(
        self, engine: str, optimizer: str, asked: int, until: float | None, seconds: float
    ) -> DescentReport:
        """The report, with the exact trajectory beside the engine's."""
        whole = trajectory(
            self.graph, self._start(), self.updates, self.states.first, accumulate=self.accumulate
        )
        steps = tuple(
            self._beside(step, whole, n) if n < len(whole.steps) else step for n,
                step in enumerate(self.steps)
        )  # fmt: skip
        curvatures = self._curvatures()
        lr = float(self.settings.get("lr", 0.0))
        notes = [
            *self.notes,
            *self._said(steps, curvatures, lr),
            *([whole.lost.capitalize() + "."] if whole.lost else []),
        ]
        if until is not None and not self.reached:
            last = (
                as_float(slope_at(self.problem, self.steps[-1].updated).largest)
                if self._finite(steps[-1].updated)
                else None
            )
            told = "it is not finite" if last is None else f"its largest entry is still {last:.3g}"
            notes.append(
                f"The exact gradient was not proved below {until:g} within {len(steps)} steps: {told}."
            )
        return DescentReport(
            self.problem.title, self.problem.target, engine, self.dtype.name, optimizer, self.rule,
                self.settings, self.lines,
            asked, steps, tuple(notes), curvatures, whole.bits, seconds, self.problem,
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
            relative = max(
                relative,
                float(np.max(np.divide(away, size, out=np.zeros_like(away), where=size > 0), initial=0.0)),
            )
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

    def _said(self, steps: Sequence[Step], curvatures: Mapping[str, Curvature], lr: float) -> list[str]:
        found = []
        # The exact losses, where they are known: at a minimum an engine's may grow in their last digits.
        known = steps[-1].exact_loss is not None
        losses = [
            loss for loss in (step.exact_loss if known else step.loss for step in steps) if loss is not None
        ]
        if len(losses) > 1 and not (losses[-1] <= losses[0]) and not self.settings.get("maximize"):
            found.append(
                f"The descent diverges: the loss grew from {losses[0]:.6g} to {losses[-1]:.6g} in "
                f"{len(losses) - 1} steps."
            )
        if self.accumulate:
            found.append(
                "The gradient is not zeroed, as asked: what the optimizer sees at step n is the sum of the "
                "gradients of steps "
                "1 to n, and no gradient of the loss."
            )
        apart = [step.distance for step in steps if step.distance is not None]
        if apart:
            far = max(apart, key=lambda distance: distance.ulp)
            relative = f", relative {far.relative:.2g}" if far.relative else ""
            found.append(
                f"The engine's trajectory and the exact one are at most {far.ulp:.3g} ulp apart{relative}."
            )
        for where, curved in curvatures.items():
            found += _conditioning(curved, where, self.dtype)
        if (start := curvatures.get("start")) and (
            bound := _stable(self.rule, self.settings, start)
        ) is not None:
            verdict = "above" if lr > bound else "below"
            near = "" if start.quadratic else "Near the start, "
            found.append(
                f"{near}{'l' if near else 'L'}earning rates below {bound:.6g} are stable (from λmax); {lr:g} "
                f"is {verdict}."
            )
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


def _farthest(exact_: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    at = int(np.argmax(np.abs(exact_ - value)))
    return float(exact_.reshape(-1)[at]), float(value.reshape(-1)[at])


def _conditioning(curved: Curvature, where: str, dtype: DType) -> list[str]:
    """What the Hessian's eigenvalues mean for digits and steps."""
    shown = f"Hessian at the {where}: eigenvalues from {curved.smallest:.6g} to {curved.largest:.6g}"
    if curved.smallest == curved.largest:
        shown = f"Hessian at the {where}: every eigenvalue is {curved.largest:.6g}"
    if curved.smallest < 0:
        return [f"{shown}; negative, so the loss is not convex there."]
    if curved.smallest == 0:
        return [f"{shown}: singular, there is a direction in which the loss does not curve."]
    condition, unit = curved.condition, dtype.unit_roundoff
    told = f"{shown}, condition {condition:.3g}"
    if condition * unit**0.5 <= 1:
        return [f"{told}."]
    # A relative error u of the gradient moves the point where it vanishes by up to condition * u, relative.
    digits = max(0.0, -np.log10(condition * unit))
    left = f"to {digits:.0f} of its {-np.log10(unit):.0f} digits" if digits >= 0.5 else "to no digit at all"
    steps = condition * np.log(10) / 2
    return [
        f"{told}: ill-conditioned. {np.log10(condition):.0f} digits are lost: gradients in {dtype.name} "
        "determine the "
        f"minimum's parameters, in the worst direction, {left}; and plain gradient descent, at the best "
        "learning rate, takes "
        f"some {steps:.1e} steps for each digit."
    ]


def _stable(rule: Rule, settings: Mapping[str, Any], curved: Curvature) -> float | None:
    """The learning rate above which gradient descent on the quadratic leaves: 2/λmax, and more with momentum.

    From the roots of the recurrence along the steepest eigenvector (Polyak, 1964, for the heavy ball).
    """
    if rule.name != "sgd" or curved.largest <= 0 or curved.smallest < 0 or settings.get("maximize"):
        return None
    steep = curved.largest + float(settings.get("weight_decay", 0.0))
    momentum = float(settings.get("momentum", 0.0))
    if settings.get("nesterov"):
        return (2 + 2 * momentum) / (1 + 2 * momentum) / steep
    kept = 1 - float(settings.get("dampening", 0.0)) if momentum else 1.0
    return 2 * (1 + momentum) / (kept * steep) if kept > 0 else None
