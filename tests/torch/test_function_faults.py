"""Planted faults in torch functions: every wrong one is refuted at its node, every right twin passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tables import FAULTS, NETS, REFUTED, RIGHT

from gradproof import Report, Verdict, check_function

FLOAT32_SEES = 1e-5  # the relative error from which a fault must be found in float32


def told(report: Report) -> str:
    return "; ".join(f"{f.node} {f.note}" for f in report.findings if not f.verdict.passes)


def refutable() -> list[pytest.param]:
    """Every fault in float64, and in float32 those that it can tell."""
    told_apart = {"float64": FAULTS, "float32": [fault for fault in FAULTS if fault.error > FLOAT32_SEES]}
    return [
        pytest.param(fault, getattr(torch, dtype), id=f"{fault.name}, {dtype}")
        for dtype in told_apart
        for fault in told_apart[dtype]
    ]


@pytest.mark.parametrize(("fault", "dtype"), refutable())
def test_a_planted_fault_is_refuted(fault: Any, dtype: torch.dtype) -> None:
    report = check_function(fault.wrong, *fault.inputs(dtype))
    assert report.verdict is Verdict.WRONG, report.to_text()
    own = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert any(fault.blamed in f.node or fault.blamed in f.note for f in own), told(report)
    assert not fault.note or any(fault.note in f.note for f in own), told(report)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["float64", "float32", "bfloat16"]
)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_its_right_twin_passes(fault: Any, dtype: torch.dtype) -> None:
    report = check_function(fault.right, *fault.inputs(dtype))
    assert report.ok, told(report)


def cases(table: tuple[Any, ...]) -> list[pytest.param]:
    return [
        pytest.param(case, dtype, id=f"{case.name}, {str(dtype)[6:]}")
        for case in table
        for dtype in case.dtypes
    ]


@pytest.mark.parametrize(("case", "dtype"), cases(RIGHT))
def test_a_tricky_function_passes(case: Any, dtype: torch.dtype) -> None:
    report = check_function(case.func, *case.inputs(dtype))
    assert report.ok, told(report)


@pytest.mark.parametrize(("case", "dtype"), cases(REFUTED))
def test_a_mistake_in_the_users_own_code_is_refuted(case: Any, dtype: torch.dtype) -> None:
    report = check_function(case.func, *case.inputs(dtype))
    assert report.verdict is Verdict.WRONG, told(report)


def every_net() -> list[pytest.param]:
    """Every net in every dtype; the deep ones in one (`benchmarks/deep.py` has the others)."""
    dtypes = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
    return [
        pytest.param(net, dtype, id=f"{net}-{name}")
        for net in NETS
        for name, dtype in dtypes.items()
        if "24 layers" not in net or name == "bfloat16"
    ]


@pytest.mark.parametrize(("name", "dtype"), every_net())
def test_a_real_net_is_verified_at_every_node(name: str, dtype: torch.dtype) -> None:
    func, inputs = NETS[name](dtype)
    report = check_function(func, *inputs)
    assert report.ok, told(report)
