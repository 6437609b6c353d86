"""Numbers from anywhere: is this gradient right? One line of a test, for any autograd code there is.

Where only the final gradients are known, there are no steps to judge. The ball from the leaves judges, where
it is narrow; where it has grown too wide with depth, a statistical rounding set does: the spread of the
reference under many random roundings in the dtype. What is too wide for both is undecided. The report says
which of them judged.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from flint import arb
from tabulate import tabulate

from .dtypes import DType, dtype_named
from .errors import InputError, did_you_mean
from .judging.judge import Comparison, judge, missing
from .judging.likeness import Clues, likeness
from .judging.together import judge_pulled
from .language.files import Problem, parse
from .oracle import remarks_on
from .proof.arithmetic import UNIT, Balls, Sampling, balls, centres, exact, full, numbers, precision, radii
from .proof.enclosure import START_BITS, Enclosures, Run
from .proof.graph import Line, lines, size
from .proof.walk import evaluate
from .report import Report
from .telling import number
from .telling.derivation import Derivation, derive
from .telling.words import name_of, place
from .verdict import Finding, Verdict, as_finding, bare_finding

RUNS = 24  # of the reference under random roundings
SIGMAS = 6.0  # of their spread that explain a number: with 24 runs a right one falls outside less than once in a million
NARROW = 2.0**10  # units of roundoff: up to this relative width the ball from the leaves judges alone

BALL = "judged by the ball from the leaves"
STATISTICAL = f"judged by a statistical rounding set ({RUNS} runs under random roundings)"


def assert_gradients(
    problem: Problem | str,
    point: Mapping[str, Any] | None,
    gradients: Mapping[str, Any],
    *,
    dtype: str = "float64",
    values: Mapping[str, Any] | None = None,
    local: Mapping[tuple[str, str], Any] | None = None,
) -> Report:
    """Assert that these gradients of a problem, computed in `dtype` by whatever it was, are right.

    `problem` is a problem or a graph's text; `point` its numbers by name (None: the problem's own). Of a
    text, the names of `gradients` are the parameters and the rest is given. `gradients` may be of any subset
    of the parameters. `values` are those of lines, by name; `local` are Jacobians by (line, parent), of the
    line's shape followed by the parent's. Numbers are Python's, or of any array that has `tolist` or
    `__array__` (NumPy, torch, JAX, tinygrad).

    Silent when all pass: the report is returned. Raises `AssertionError` with the table of what does not
    pass, and `InputError` for names, shapes and numbers that do not fit.
    """
    start = time.perf_counter()
    format_ = dtype_named(dtype)
    whole = _problem(problem, point, gradients, format_)
    assertion = _Assertion(whole, format_)
    findings = tuple(assertion.findings(gradients, values or {}, local or {}))
    seconds = time.perf_counter() - start
    title, target, derivation = whole.title, whole.target, assertion.derivation
    report = Report(
        title,
        target,
        "given numbers",
        format_.name,
        findings,
        seconds,
        whole,
        derivation,
        remarks=remarks_on(whole.graph),
    )
    if not report.verdict.passes:
        error = AssertionError(_table(report))
        error.report = report  # type: ignore[attr-defined] # for whoever catches it: the pytest plugin's page
        raise error
    return report


def as_numbers(name: str, value: Any) -> np.ndarray:
    """The numbers of anything that holds some, in float64.

    Raises `InputError` for what holds none.
    """
    try:
        if hasattr(value, "tolist") and not isinstance(value, np.ndarray):
            value = value.tolist()
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}: expected numbers, got {type(value).__name__} ({str(error).splitlines()[0]})"
        ) from None


def _problem(
    problem: Problem | str, point: Mapping[str, Any] | None, gradients: Mapping[str, Any], dtype: DType
) -> Problem:
    """The problem at the point, as the dtype holds its numbers."""
    if not gradients:
        raise InputError("there is no gradient to compare")
    held = {name: as_numbers(name, value) for name, value in (point or {}).items()}
    if isinstance(problem, Problem):
        for name, value in held.items():
            if name not in problem.point:
                raise InputError(f"the problem has no {name!r}{did_you_mean(name, problem.point)}")
            if value.shape != problem.point[name].shape:
                raise InputError(f"{name!r} has shape {value.shape}, expected {problem.point[name].shape}")
        whole = replace(problem, point={**problem.point, **held}, expect={})
    else:
        parameters = {name: held[name] for name in gradients if name in held}
        for name in gradients:
            if name not in held:
                raise InputError(
                    f"the point has no {name!r}{did_you_mean(name, held)}; a gradient needs the number it is "
                    "by"
                )
        given = {name: value for name, value in held.items() if name not in parameters}
        whole = parse(problem, given=given, parameters=parameters)
    return replace(whole, point={name: rounded(value, dtype) for name, value in whole.point.items()})


def rounded(values: np.ndarray, dtype: DType) -> np.ndarray:
    """The nearest numbers of a dtype; infinite beyond its largest."""
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(values)
        step = np.ldexp(1.0, np.maximum(exponent - 1, dtype.emin) - dtype.precision + 1)
        near = np.where(np.isfinite(values), np.rint(values / step) * step, values)
        return np.where(np.abs(near) > dtype.largest, np.copysign(np.inf, values), near)


class _Assertion:
    """The comparisons of one assertion."""

    def __init__(self, problem: Problem, dtype: DType) -> None:
        self.problem = problem
        self.graph = problem.graph
        self.dtype = dtype
        self.enclosures = Enclosures(dtype)
        self.derivation: Derivation = derive(problem.graph)
        self.leaves = {name: balls(value) for name, value in problem.point.items()}

    def findings(
        self, gradients: Mapping[str, Any], values: Mapping[str, Any], local: Mapping[tuple[str, str], Any]
    ) -> list[Finding]:
        with precision(START_BITS):
            found = [self._value(name, value) for name, value in values.items()]
            found += [self._local(name, parent, value) for (name, parent), value in local.items()]
            return found + self._gradients(gradients)

    def _line(self, name: str) -> Line:
        known = {line.name: line for line in lines(self.graph)}
        if name not in known:
            raise InputError(f"the graph has no line {name!r}{did_you_mean(name, known)}")
        return known[name]

    def _value(self, name: str, value: Any) -> Finding:
        self._line(name)
        loose = evaluate(self.graph.nodes, self.leaves, self.enclosures.rounding)[name]
        sharp = self.enclosures.settled(lambda: evaluate(self.graph.nodes, self.leaves, exact())[name], loose)
        judged = judge(Comparison(as_numbers(name, value), sharp, loose), self.dtype)
        return as_finding("forward", name, None, self.derivation.formula("forward", name), judged)

    def _local(self, name: str, parent: str, value: Any) -> Finding:
        line = self._line(name)
        if parent not in line.parents:
            raise InputError(f"line {name!r} does not read {parent!r}{did_you_mean(parent, line.parents)}")
        jacobian = as_numbers(f"local gradient of {name} by {parent}", value)
        count, shape = size(line.shape), self.graph.shapes[parent]
        formula = self.derivation.local_text(name, parent)
        if jacobian.shape != (*line.shape, *shape):
            note = f"shape {jacobian.shape}, expected {(*line.shape, *shape)}"
            return as_finding("local", name, parent, formula, missing((*line.shape, *shape), None, note))
        rows = {name: balls(np.eye(count).reshape(count, *line.shape))}
        run = Run(line.nodes, (name,), {parent: shape}, self.graph.active)
        sharp = {n: numbers(v) for n, v in evaluate(self.graph.nodes, self.leaves, exact()).items()}
        loose = evaluate(self.graph.nodes, self.leaves, self.enclosures.rounding)
        given = {n: sharp[n] for n in line.parents}
        pulled = self.enclosures.pulled(run, given, rows)[parent]
        wide = run.pull({n: loose[n] for n in line.parents}, self.enclosures.rounding, rows).reshape(
            pulled.exact.shape
        )
        judged = judge_pulled(
            {parent: jacobian.reshape(pulled.exact.shape)},
            {parent: replace(pulled, rounding=np.where(pulled.kinks, pulled.rounding, numbers(wide)))},
            {parent: self.dtype},
        )[parent]
        return as_finding("local", name, parent, formula, judged)

    def _gradients(self, gradients: Mapping[str, Any]) -> list[Finding]:
        parameters = {leaf.name: leaf.shape for leaf in self.graph.parameters}
        for name in gradients:
            if name not in parameters:
                what = "given: it has no gradient" if name in self.problem.point else "no parameter"
                raise InputError(f"{name!r} is {what}{did_you_mean(name, parameters)}")
        found = []
        output = self.graph.output.name
        targets = {name: parameters[name] for name in gradients}
        run = Run(self.graph.nodes, (output,), targets, self.graph.active)
        rows = {output: full((1,), UNIT)}
        pulled = self.enclosures.pulled(run, self.leaves, rows)
        spread: dict[str, Balls] | None = None
        single = {name: whole.row(0) for name, whole in pulled.items()}
        arrays = {
            name: None if value is None else as_numbers(f"gradient of {name}", value)
            for name, value in gradients.items()
        }
        fitting = {
            n: array if array is not None and array.shape == parameters[n] else None
            for n, array in arrays.items()
        }
        together = judge_pulled(fitting, single, dict.fromkeys(gradients, self.dtype))
        for name, array in arrays.items():
            expected = single[name]
            formula = self.derivation.formula("gradient", name)
            if array is None:
                found.append(bare_finding("gradient", name, Verdict.WRONG, "no gradient (None)"))
                continue
            if array.shape != parameters[name]:
                judged = missing(
                    parameters[name], expected.exact, f"shape {array.shape}, expected {parameters[name]}"
                )
                found.append(as_finding("gradient", name, None, formula, judged))
                continue
            judged, note = together[name], BALL
            if judged.verdict in (Verdict.ROUNDING, Verdict.UNDECIDED) and not self._narrow(
                expected.exact, expected.rounding
            ):
                spread = self._spread(run, rows) if spread is None else spread
                if np.isfinite(radii(spread[name])).all():  # at a removable point no run has a number
                    judged = judge(
                        Comparison(array, expected.exact, spread[name], expected.kinks), self.dtype
                    )
                    note = STATISTICAL
            looks = (
                likeness(array, expected.exact, Clues(self.dtype, self._extents()))
                if not judged.verdict.passes
                else ""
            )
            told = "; ".join(part for part in (judged.note, looks, note) if part)
            found.append(as_finding("gradient", name, None, formula, replace(judged, note=told)))
        return found

    def _extents(self) -> tuple[int, ...]:
        return tuple({n for shape in self.graph.shapes.values() for n in (*shape, size(shape))})

    def _narrow(self, sharp: Balls, loose: Balls) -> bool:
        """Whether the ball would have caught an error that matters, in every entry."""
        reach = radii(loose)
        scale = np.maximum(np.abs(centres(sharp)), self.dtype.smallest_normal)
        return bool(np.all(reach <= NARROW * self.dtype.unit_roundoff * scale))

    def _spread(self, run: Run, rows: Mapping[str, Balls]) -> dict[str, Balls]:
        """The exact gradients with what many runs under random roundings spread over."""
        random = np.random.default_rng(0)
        samples = [centres(run.pull(self.leaves, Sampling(self.dtype, random), rows)) for _ in range(RUNS)]
        middle, deviation = np.mean(samples, axis=0)[0], np.std(samples, axis=0, ddof=1)[0]
        least = np.maximum(np.abs(middle) * self.dtype.unit_roundoff * 2, self.dtype.smallest)
        reach = SIGMAS * np.maximum(deviation, least)
        return run.split(np.asarray(balls(middle) + balls(reach) * arb(0, 1), dtype=object))


def _table(report: Report) -> str:
    """What does not pass, short enough to read in a terminal."""

    def named(finding: Finding) -> str:
        return name_of(finding).removeprefix("chained ") + place(finding.index)

    bad = [finding for finding in report.findings if not finding.verdict.passes]
    rows = [
        [
            named(finding), finding.verdict.value, f"{finding.refuted} of {finding.entries}",
            number(finding.exact, 9), number(finding.value, 9), number(finding.ulp, 3), number(finding.allowed_ulp, 3),
        ]
        for finding in bad[:20]
    ]  # fmt: skip
    head = ["what", "verdict", "wrong entries", "expected", "got", "off by (ulp)", "allowed (ulp)"]
    notes = [f"  {named(finding)}: {finding.note}" for finding in bad[:20] if finding.note]
    more = [f"  and {len(bad) - 20} more"] if len(bad) > 20 else []
    title = f"{len(bad)} of {len(report.findings)} do not pass, {report.dtype}: {report.title.splitlines()[0][:80]}"
    return "\n".join([title, tabulate(rows, headers=head, disable_numparse=True), *notes, *more])
