"""Every way a derivative is taken: forward mode, the backward again, batches; what a backward promises."""

from __future__ import annotations

import pytest
import torch
from derivative_faults import CLAUSES, CUBE, DERIVATIVES, JVPS, Fault

from gradproof import InputError, Verdict, check_function

NAMES = {"ids": lambda fault: fault.name}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", DERIVATIVES, **NAMES)
def test_a_wrong_derivative_is_refuted_where_it_is_wrong(fault: Fault) -> None:
    first = check_function(fault.wrong, *fault.inputs(torch.float64))
    assert first.ok, first.to_text()  # in reverse, first order, nothing is wrong
    report = check_function(fault.wrong, *fault.inputs(torch.float64), **fault.options)
    assert report.verdict in (Verdict.WRONG, Verdict.FAILED), report.to_text()
    blamed = {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited}
    assert not fault.blamed or all(fault.blamed in node for node in blamed), report.to_text()
    twin = check_function(fault.right, *fault.inputs(torch.float64), **fault.options)
    assert twin.ok, twin.to_text()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("fault", [fault for fault in JVPS if "constant" not in fault.name], **NAMES)
def test_tangents_are_judged_in_every_dtype(fault: Fault, dtype: str) -> None:
    inputs = fault.inputs(getattr(torch, dtype))
    assert check_function(fault.wrong, *inputs, mode="forward").verdict is Verdict.WRONG
    twin = check_function(fault.right, *inputs, mode="forward")
    assert twin.ok, twin.to_text()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", CLAUSES, **NAMES)
def test_a_broken_clause_is_named(fault: Fault) -> None:
    report = check_function(fault.wrong, *fault.inputs(torch.float64), **fault.options)
    (name,) = fault.options["contract"]
    bad = [f for f in report.findings if not f.verdict.passes]
    assert ("contract", name) in {(f.kind, f.node) for f in bad}, report.to_text()
    twin = check_function(fault.right, *fault.inputs(torch.float64), **fault.options)
    assert twin.ok and f"contract: {name}" in twin.exercised, twin.to_text()
    every = check_function(fault.right, *fault.inputs(torch.float64), contract=True)
    assert every.ok, every.to_text()


def test_third_order_is_judged() -> None:
    report = check_function(CUBE, torch.tensor([0.3, -0.7], dtype=torch.float64).requires_grad_(), order=3)
    assert report.ok and "third order" in report.exercised


def test_both_modes_and_what_was_not_exercised_are_told() -> None:
    x = torch.linspace(0.1, 1, 4).requires_grad_()
    report = check_function(lambda x: torch.tanh(x).sum(), x, mode="both", order=2)
    assert report.exercised == ("reverse mode, first order", "forward mode", "double backward")
    assert set(report.not_exercised) == {"third order", "contract"}
    assert "Exercised: reverse mode, first order, forward mode, double backward; not:" in report.to_text()


@pytest.mark.parametrize(
    "option", [{"mode": "backward"}, {"order": 4}, {"contract": ["frozen"]}, {"mode": "both", "formula": "x"}]
)
def test_bad_options_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(InputError):
        check_function(torch.sin, torch.ones(2, requires_grad=True), **option)  # type: ignore[arg-type]
