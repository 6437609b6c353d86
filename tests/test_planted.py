"""The tester tested: every planted fault is refuted at its node, and its right twin passes."""

from __future__ import annotations

import pytest

from faults import PLANTED, Planted
from gradproof import Report, check

CASES = [pytest.param(fault, dtype, id=f"{fault.name}, {dtype}") for fault in PLANTED for dtype in fault.dtypes]


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


def test_what_follows_a_fault_is_called_inherited() -> None:
    fault = PLANTED[0]
    report = check(fault.problem(), engine=fault.wrong)
    wrong = {(f.kind, f.node): f.inherited for f in report.findings if f.verdict == "wrong"}
    assert wrong == {("local", "s"): False, ("gradient", "a"): True, ("gradient", "w"): True}
