"""The net: what the recording does not see is not passed, and what is right is not held up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from gradproof import Report, Verdict, check_function
from gradproof.judging.judge import Judge

F64 = torch.float64
PLACES = torch.tensor([[0, 2, 2]])


def leaf(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=F64).to(dtype).requires_grad_()
    )


def by_data(v: Tensor) -> Tensor:
    y = v * 1.0
    y.data = y.data * y.data
    return y * 3


def clamped_by_data(v: Tensor) -> Tensor:
    y = v * 1.0
    y.data.clamp_(-0.1, 0.1)
    return y * v


def copied_under_no_grad(v: Tensor) -> Tensor:
    y = v * 1.0
    with torch.no_grad():
        y.copy_(torch.ones_like(y))
    return y * 3


def written_by_numpy(v: Tensor) -> Tensor:
    y = v * 1.0
    y.detach().numpy()[:] = 2.0
    return y * 3


def by_numpy(v: Tensor) -> Tensor:
    return v * (torch.from_numpy(v.detach().numpy() ** 2) + 0)


def by_the_mode(v: Tensor) -> Tensor:
    return v * 2 if _get_current_dispatch_mode() is not None else v * 3


def by_the_stack(v: Tensor) -> Tensor:
    return v * 2 if any("recording" in frame.filename for frame in inspect.stack()) else v * 3


# a function that is wrong, and its right twin
PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "item and arithmetic": (
        lambda v: v.sum() * (2 * v.square().sum().item()),
        lambda v: v.sum() * (2 * v.square().sum()),
    ),
    "one over a norm by item": (lambda v: v / (v.norm().item() + 1e-6), lambda v: v / (v.norm() + 1e-6)),
    "alpha=": (lambda v: torch.add(v, v, alpha=float(v[0].detach()) * 2), lambda v: v + v * v[0] * 2),
    "an exponent": (lambda v: (v * v + 1) ** (1 + v[0].item()), lambda v: (v * v + 1) ** (1 + v[0])),
    "tolist": (lambda v: v * torch.tensor([2 * x for x in v.tolist()], dtype=v.dtype), lambda v: v * (2 * v)),
    "NumPy": (by_numpy, lambda v: v**3),
    "y.data =": (by_data, lambda v: (v * v) * 3),
    "y.data.clamp_": (clamped_by_data, lambda v: v.clamp(-0.1, 0.1) * v),
    "copy_ under no_grad": (copied_under_no_grad, lambda v: v * 0 + 3),
    "memory written by NumPy": (written_by_numpy, lambda v: v * 0 + 6),
    "by the mode": (by_the_mode, lambda v: v * 3),
    "by the stack": (by_the_stack, lambda v: v * 2),
    "a detached factor": (lambda v: v * v.detach(), lambda v: v * v),
}


RUNS = [
    pytest.param(name, dtype, id=f"{name}-{dtype}")
    for name in PAIRS
    for dtype in (F64, torch.float32, torch.bfloat16)
    if not ("NumPy" in name and dtype is torch.bfloat16)  # which NumPy does not have
]


@pytest.mark.parametrize(("name", "dtype"), RUNS)
def test_what_is_not_seen_does_not_pass(name: str, dtype: torch.dtype) -> None:
    wrong, right = PAIRS[name]
    x = leaf(3, dtype=dtype)
    assert not told(wrong, x).ok
    assert told(right, x).ok


@pytest.mark.parametrize("name", [name for name in PAIRS if not name.startswith("by the")])
def test_the_net_alone_catches_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "_losses", lambda self: [])
    report = told(PAIRS[name][0], leaf(3))
    assert report.verdict is Verdict.UNDECIDED
    assert "something was not seen" in report.findings[-1].note


def test_without_the_net_it_is_not_caught() -> None:
    assert check_function(by_the_mode, leaf(3), net=False).ok


def told(func: Callable[..., Any], x: Tensor) -> Report:
    return check_function(func, x)


def noisy(v: Tensor) -> Tensor:
    return torch.nn.functional.dropout(v, 0.5) * 2


# Right, and hard on differences.
RIGHT: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "a random function": (noisy, leaf(20)),
    "kinks all over": (lambda v: (v.relu() - v.abs()).sum(), torch.zeros(5, dtype=F64, requires_grad=True)),
    "beside a pole": (lambda v: 1 / v, torch.tensor([1e-15, 3.0, 1e10], dtype=F64, requires_grad=True)),
    "a saturated function": (torch.tanh, torch.tensor([20.0, -100.0], requires_grad=True)),
    "a staircase": (lambda v: v.round() + v, leaf(5)),
    "a number that is only logged": (lambda v: (float(v.detach().sum()), v * 2)[1], leaf(5)),
    "a mean that cancels": (
        lambda v: v.var(),
        (leaf(50, dtype=torch.float32).detach() * 1e-2 + 1e4).requires_grad_(),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name: str) -> None:
    func, x = RIGHT[name]
    report = check_function(func, x)
    assert report.ok, report.to_text()
