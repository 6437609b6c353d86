"""The net alone, over kinds that a recording can miss; backwards within a backward; compiled code;
staircases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from net_cases import KINDS, Checkpoint, Checkpointed, Missed, compiled, deaf, drawn, reentrant
from torch import Tensor, nn

from gradproof import Report, Verdict, check_function
from gradproof.judging.judge import Judge

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of what is beta or deprecated

F64, F32 = torch.float64, torch.float32


def told(report: Report) -> str:
    return "; ".join(f"{f.node} {f.note}" for f in report.findings if not f.verdict.passes)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_net_alone_catches_a_kind(kind: Missed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "_losses", lambda self: [])
    assert not check_function(kind.wrong, drawn(kind.shape)).ok


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_net_leaves_its_right_twin_alone(kind: Missed) -> None:
    plain, netted = (check_function(kind.right, drawn(kind.shape), net=net) for net in (False, True))
    assert netted.verdict is plain.verdict, told(netted)


def half(module: nn.Module, x: Tensor) -> Tensor:
    """Its parameters get half of what is theirs."""
    return 0.5 * Checkpoint.apply(module, False, x) + 0.5 * deaf(module, x)


# Of a module whose parameters are inside of a checkpoint; whether the gradients are right.
NESTED: dict[str, tuple[Callable[..., Tensor], bool]] = {
    "torch's own": (reentrant, True),
    "one by hand": (lambda module, x: Checkpoint.apply(module, False, x), True),
    "one after another": (lambda module, x: reentrant(module, reentrant(module, x)), True),
    "beside a use outside": (lambda module, x: module(x.sin()) + reentrant(module, x), True),
    "that drops them": (deaf, False),
    "that drops them, beside a use outside": (lambda module, x: module(x.sin()) + deaf(module, x), False),
    "that gives half of them": (half, False),
}


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NESTED)
def test_parameters_inside_of_a_reentrant_checkpoint_are_judged_by_what_arrives(
    name: str, dtype: torch.dtype
) -> None:
    run, right = NESTED[name]
    report = check_function(Checkpointed(run).to(dtype), drawn((2, 4), dtype))
    assert report.ok == right, told(report)
    assert right or report.verdict is Verdict.WRONG
    assert not right or {f.node for f in report.findings if f.kind == "gradient"} >= {
        "inner.0.weight",
        "inner.0.bias",
    }


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [(1.0, "ok"), (1 + 2.0**-52, "ok"), (1 + 1e-6, Verdict.WRONG), (0.5, Verdict.WRONG)],
)
def test_compiled_code_may_round_otherwise_and_no_more(scale: float, verdict: Any) -> None:
    report = check_function(compiled(scale), drawn((4,)))
    assert report.ok if verdict == "ok" else report.verdict is verdict, told(report)


# Right, though the function changes in steps.
STAIRS: dict[str, Callable[[Tensor], Tensor]] = {
    "one entry in bfloat16 inside": lambda x: (x[0].to(torch.bfloat16) * 2).to(x.dtype),
    "squares in bfloat16 inside": lambda x: (x[:2].to(torch.bfloat16) ** 2).to(x.dtype),
    "many cubes in bfloat16 inside": lambda x: (x.to(torch.bfloat16) ** 3).to(x.dtype).sum(),
    "float32 inside": lambda x: x.float().tanh().to(x.dtype).sum(),
}


@pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", STAIRS)
def test_a_coarser_dtype_inside_is_no_contradiction(name: str, dtype: torch.dtype) -> None:
    report = check_function(STAIRS[name], drawn((50,), dtype))
    assert report.ok, told(report)


@pytest.mark.parametrize("stop", [True, False], ids=["detached", "not detached"])
def test_a_parameter_that_got_no_gradient_is_moved_as_well(
    stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "_losses", lambda self: [])
    weight = drawn((3,))
    report = check_function(lambda x: (x * (weight.detach() if stop else weight)).sum(), drawn((3,)))
    assert report.ok is not stop
    assert not stop or "something was not seen" in told(report)
