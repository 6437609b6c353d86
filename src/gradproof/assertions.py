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
from tabulate import tabulate

from .dtypes import DType, dtype_named
from .errors import InputError, did_you_mean
from .judging.judge import Judge
from .judging.verdicts import rounded
from .judging.witness import Arrival, Pass, Step, Witness
from .language.files import Problem, parse
from .oracle import report_of, whole_of
from .proof.arithmetic import exact, rounding
from .proof.balls import balls, numbers, precision
from .proof.enclosure import START_BITS
from .proof.graph import Line, lines, size
from .proof.walk import evaluate
from .report import Report
from .telling import number
from .telling.derivation import Derivation, derive
from .telling.words import name_of, place
from .verdict import Finding


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
    derivation = derive(whole.graph)
    judged = Judge(_witness(whole, format_, derivation, gradients, values or {}, local or {})).judged()
    report = report_of(whole, derivation, "given numbers", format_, judged, start)
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


def _witness(
    problem: Problem,
    dtype: DType,
    text: Derivation,
    gradients: Mapping[str, Any],
    values: Mapping[str, Any],
    local: Mapping[tuple[str, str], Any],
) -> Witness:
    """Numbers of which no step is known: each beside the run from the leaves."""
    graph = problem.graph
    parameters = {leaf.name: leaf.shape for leaf in graph.parameters}
    for name in gradients:
        if name not in parameters:
            what = "given: it has no gradient" if name in problem.point else "no parameter"
            raise InputError(f"{name!r} is {what}{did_you_mean(name, parameters)}")
    arrays = {
        name: None if value is None else as_numbers(f"gradient of {name}", value)
        for name, value in gradients.items()
    }
    steps = [_value(problem, dtype, text, name, value) for name, value in values.items()]
    steps += [_local(problem, dtype, text, name, parent, value) for (name, parent), value in local.items()]
    arrivals = [
        Arrival(name, name, parameters[name], array, dtype, text=text.formula("gradient", name))
        for name, array in arrays.items()
    ]
    return Witness(
        steps=tuple(steps),
        arrivals=tuple(arrivals),
        whole=lambda: whole_of(graph, problem.point, {name: parameters[name] for name in gradients}),
        dtype=dtype,
        complete=True,
        final=True,
    )


def _line(problem: Problem, name: str) -> Line:
    known = {line.name: line for line in lines(problem.graph)}
    if name not in known:
        raise InputError(f"the graph has no line {name!r}{did_you_mean(name, known)}")
    return known[name]


def _value(problem: Problem, dtype: DType, text: Derivation, name: str, value: Any) -> Step:
    _line(problem, name)
    return Step(
        name,
        problem.graph.nodes,
        problem.point,
        {name: as_numbers(name, value)},
        {},
        {name: dtype},
        dtype,
        frozenset(),
        text=lambda wrt: text.formula("forward", name),
    )


def _local(problem: Problem, dtype: DType, text: Derivation, name: str, parent: str, value: Any) -> Step:
    """A line's Jacobian, at the exact numbers before it, and at those with all their rounding."""
    line, graph = _line(problem, name), problem.graph
    if parent not in line.parents:
        raise InputError(f"line {name!r} does not read {parent!r}{did_you_mean(parent, line.parents)}")
    jacobian = as_numbers(f"local gradient of {name} by {parent}", value)
    count, shape = size(line.shape), graph.shapes[parent]
    if jacobian.shape == (*line.shape, *shape):
        jacobian = jacobian.reshape(count, *shape)
    with precision(START_BITS):
        leaves = {leaf: balls(there) for leaf, there in problem.point.items()}
        sharp, loose = (evaluate(graph.nodes, leaves, how) for how in (exact(), rounding(dtype)))
    return Step(
        name,
        line.nodes,
        {n: numbers(sharp[n]) for n in line.parents},
        {},
        {parent: shape},
        {parent: dtype},
        dtype,
        graph.active,
        probes=Pass({name: np.eye(count).reshape(count, *line.shape)}, {parent: jacobian}),
        text=lambda wrt: text.local_text(name, parent),
        loose={n: loose[n] for n in line.parents},
    )


def _table(report: Report) -> str:
    """What does not pass, short enough to read in a terminal."""

    def named(finding: Finding) -> str:
        return name_of(finding).removeprefix("chained ") + place(finding.index)

    bad = [finding for finding in report.findings if not finding.verdict.passes]
    rows = [
        [
            named(finding),
            finding.verdict.value,
            f"{finding.refuted} of {finding.entries}",
            number(finding.exact, 9),
            number(finding.value, 9),
            number(finding.ulp, 3),
            number(finding.allowed_ulp, 3),
        ]
        for finding in bad[:20]
    ]
    head = ["what", "verdict", "wrong entries", "expected", "got", "off by (ulp)", "allowed (ulp)"]
    notes = [f"  {named(finding)}: {finding.note}" for finding in bad[:20] if finding.note]
    more = [f"  and {len(bad) - 20} more"] if len(bad) > 20 else []
    named_so = report.title.splitlines()[0][:80]
    title = f"{len(bad)} of {len(report.findings)} do not pass, {report.dtype}: {named_so}"
    return "\n".join([title, tabulate(rows, headers=head, disable_numparse=True), *notes, *more])
