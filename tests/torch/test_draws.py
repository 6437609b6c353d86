"""Draws as functions of the parameters that they are drawn by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet

from gradproof import Report, Verdict, check_function

PLACES = (0.7, 1.5, 3.0)


class Drawn(torch.autograd.Function):
    """A draw of Dirichlet's, whose gradient is torch's own or so many times as much."""

    times = 1.0

    @staticmethod
    def forward(ctx, a):
        x = torch._sample_dirichlet(a)
        ctx.save_for_backward(x, a)
        return x

    @staticmethod
    def backward(ctx, g):
        x, a = ctx.saved_tensors
        moved = torch._dirichlet_grad(x, a, a.sum(-1, keepdim=True).expand_as(a))
        return Drawn.times * moved * (g - (x * g).sum(-1, keepdim=True))


def drawn(function: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> Report:
    torch.manual_seed(0)
    return check_function(function, torch.tensor(PLACES, dtype=dtype, requires_grad=True))


@pytest.mark.parametrize(
    "function", [lambda a: Dirichlet(a).rsample(), lambda a: Beta(a, a.flip(0)).rsample()]
)
def test_torch_s_draws_are_right_in_float32(function: Callable[[Tensor], Tensor]) -> None:
    report = drawn(function)
    assert report.ok, report.to_text()


def test_in_float64_they_are_right_to_eleven_digits() -> None:
    report = drawn(lambda a: Dirichlet(a).rsample(), torch.float64)
    assert report.verdict is Verdict.WRONG
    assert max(f.error for f in report.findings if f.error is not None) < 1e-10


@pytest.mark.parametrize("times", [1.0, 1.001])
def test_a_gradient_of_a_draw_is_judged(times: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawn, "times", times)
    report = drawn(lambda a: Drawn.apply(a))
    assert report.ok == (times == 1.0), report.to_text()
