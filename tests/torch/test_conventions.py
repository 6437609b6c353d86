"""What torch gives on purpose in place of a derivative is told as such, and what it only approximates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gradproof import Report, Verdict, check_function
from gradproof.causes import Convention, NoEffect


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()


def ctc(log_probs: Tensor) -> Tensor:
    return functional.ctc_loss(log_probs, torch.tensor([[1, 2]]), (5,), (2,))


PER_CHANNEL = torch.tensor([0.1, 0.2]), torch.tensor([2, 3], dtype=torch.int32)
STEPS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "the logarithms of a CTC loss": (ctc, drawn(5, 1, 4).log_softmax(-1).detach().requires_grad_()),
    "quantisation": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 2, 0, 15),
                     drawn(5, dtype=torch.float32)),
    "quantisation by channel": (lambda x: torch.fake_quantize_per_channel_affine(x, *PER_CHANNEL, 1, 0, 15),
                                drawn(3, 2, dtype=torch.float32)),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_convention_is_wrong_and_told(name: str) -> None:
    function, x = STEPS[name]
    report = check_function(function, x)
    assert report.verdict is Verdict.WRONG
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert any(isinstance(cause, Convention) for cause in finding.causes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_the_convention_has_no_effect_it_passes(dtype: torch.dtype) -> None:
    report = check_function(lambda x: ctc(x.log_softmax(-1)), drawn(5, 1, 4, dtype=dtype))
    assert report.ok, report.to_text()
    assert any(isinstance(cause, NoEffect) for f in report.findings for cause in f.causes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("loss", ["none", "sum", "mean"])
def test_of_a_long_sequence_with_sure_guesses_too(loss: str, dtype: torch.dtype) -> None:
    """Whose probabilities are exponentials of sums of some hundred: as exact as these are."""
    generator = torch.Generator().manual_seed(0)
    x = ((torch.rand(50, 2, 20, generator=generator) * 18 - 9).to(dtype)).requires_grad_()
    labels = torch.randint(1, 20, (2, 30), generator=generator)

    def of(scale: float) -> Report:
        return check_function(
            lambda x: functional.ctc_loss(
                scale * x.log_softmax(-1), labels, (50, 45), (25, 12), reduction=loss
            ).sum(),
            x,
        )

    right = of(1.0)
    assert right.ok, right.to_text()
    assert of(1.001).verdict is Verdict.WRONG


def test_a_part_that_does_not_cancel_is_no_convention_s() -> None:
    """Beside a use of the logarithms of their own the error is not taken away by `log_softmax`."""
    halves = check_function(lambda x: ctc(x.log_softmax(-1) / 2), drawn(5, 1, 4))
    assert halves.verdict is Verdict.WRONG


def test_what_a_draw_moves_by_is_the_derivative_of_its_distribution_s() -> None:
    shape = torch.tensor([1.5, 3.0], dtype=torch.float64).requires_grad_()

    def gamma(shape: Tensor) -> Tensor:
        torch.manual_seed(0)
        return torch._standard_gamma(shape)

    report = check_function(gamma, shape)
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert finding.error is None or finding.error < 1e-2
    assert finding.exact == pytest.approx(finding.value, rel=1e-2)
