"""A softmax about a detached maximum loses nothing that its dtype could tell; and more is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradproof import Verdict, check_function

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def averaged(x: Tensor, values: Tensor, more: float) -> Tensor:
    e = (x - x.detach().max()).exp()
    return (e / (e.sum() + more)) @ values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_a_small_number_in_the_denominator_is_no_loss(dtype: torch.dtype, seed: int) -> None:
    values = (drawn(8, 3, dtype=torch.float64, seed=seed + 9) + 100).to(dtype).detach()
    x = drawn(8, dtype=dtype, seed=seed)
    report = check_function(lambda x: averaged(x, values, 1e-16), x, net=False)
    assert report.ok, report.to_text()
    assert check_function(lambda x: averaged(x, values, 0.5), x, net=False).verdict is Verdict.WRONG


def test_what_float64_can_tell_is_told_there_alone() -> None:
    for dtype, verdict in ((torch.float64, False), (torch.float32, True)):
        values = drawn(8, dtype=dtype, seed=1).detach() + 100
        assert check_function(lambda x: averaged(x, values, 1e-12), drawn(8, dtype=dtype)).ok is verdict  # noqa: B023


def attention(a: Tensor, b: Tensor, rows: Tensor, more: float) -> Tensor:
    """Where all scores are positive, `b` only shifts them, and its gradient is nothing but rounding."""
    scores = torch.nn.functional.leaky_relu((rows @ a)[None, :] + (rows @ b)[:, None], 0.2)
    e = (scores - scores.detach().amax(1, keepdim=True)).exp()
    return e / (e.sum(1, keepdim=True) + more) @ rows


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("more", [0.0, 1e-16])
def test_a_gradient_that_is_rounding_alone_loses_nothing(dtype: torch.dtype, more: float) -> None:
    for seed in range(25):
        a, b = drawn(3, dtype=dtype, seed=seed), drawn(3, dtype=dtype, seed=seed + 50)
        rows = drawn(3, 3, dtype=dtype, seed=seed + 99).detach()
        report = check_function(lambda a, b: attention(a, b, rows, more), a, b, net=False)  # noqa: B023
        assert report.ok, report.to_text()


@pytest.mark.parametrize("count", [100, 40_000])
def test_a_condition_on_what_no_parameter_reaches_is_no_kink(count: int) -> None:
    def masked(x: Tensor) -> Tensor:
        places = torch.arange(4.0)
        return (x + places.masked_fill(places == 0, -100.0)).softmax(-1)

    assert check_function(masked, drawn(count, 4, dtype=torch.float32)).verdict is Verdict.ROUNDING
