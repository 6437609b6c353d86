"""The tester tested: every planted fault is refuted at its node, and its right twin passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from faults import PLANTED, Changed, Planted, sine

from gradproof import Report, check
from gradproof.engines import Task, Trace

CASES = [
    pytest.param(fault, dtype, id=f"{fault.name}, {dtype}") for fault in PLANTED for dtype in fault.dtypes
]


def blamed(report: Report) -> set[tuple[str, str]]:
    return {(f.kind, f.node) for f in report.findings if f.verdict == "wrong" and not f.inherited}


@pytest.mark.parametrize(("fault", "dtype"), CASES)
def test_a_planted_fault_is_refuted(fault: Planted, dtype: str) -> None:
    report = check(fault.problem(), engine=fault.wrong, dtype=dtype)
    assert report.verdict == "wrong"
    assert not report.ok
    assert blamed(report) == {(fault.kind, fault.node)}
    notes = " / ".join(finding.note for finding in report.findings)
    assert fault.note in notes


@pytest.mark.parametrize(("fault", "dtype"), CASES)
def test_its_right_twin_passes(fault: Planted, dtype: str) -> None:
    report = check(fault.problem(), engine=fault.right, dtype=dtype)
    assert report.ok, [finding for finding in report.findings if not finding.verdict.passes]


MALFORMED: dict[str, Callable[[Trace], Trace]] = {
    "a leaf without a value": lambda t: replace(t, values={k: v for k, v in t.values.items() if k != "x"}),
    "a line without a value": lambda t: replace(t, values={k: v for k, v in t.values.items() if k != "s"}),
    "a value of another shape": lambda t: replace(t, values={**t.values, "s": np.zeros((3, 1))}),
    "a failure told beside the numbers": lambda t: replace(t, failures={"s": "ValueError: boom"}),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_an_engine_that_fails_is_no_pass(case: str) -> None:
    report = check(sine(), engine=Changed(lambda task, trace: MALFORMED[case](trace)))
    assert report.verdict == "failed"
    assert any(finding.note for finding in report.findings if finding.verdict == "failed")


def test_lists_do_for_arrays() -> None:
    def as_lists(task: Task, trace: Trace) -> Trace:
        return replace(trace, values={name: value.tolist() for name, value in trace.values.items()})

    assert check(sine(), engine=Changed(as_lists)).ok


def test_what_follows_a_fault_is_called_inherited() -> None:
    fault = PLANTED[0]
    report = check(fault.problem(), engine=fault.wrong)
    wrong = {(f.kind, f.node): f.inherited for f in report.findings if f.verdict == "wrong"}
    assert wrong == {("local", "s"): False, ("gradient", "a"): True, ("gradient", "w"): True}
