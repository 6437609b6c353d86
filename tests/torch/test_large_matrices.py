"""Linear algebra of more rows than are unrolled: by inverses, which a step of Newton's tells from numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from faulty import function
from torch import Tensor

from gradproof import Verdict, check_function


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(shape, dtype=dtype, generator=generator)
    return (made + 6 * torch.eye(*shape, dtype=dtype)).requires_grad_()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a solution": lambda a: torch.linalg.solve(a, torch.ones(20, 2).to(a)),
    "an inverse": torch.linalg.inv,
    "a pseudo-inverse": lambda a: torch.linalg.pinv(a[:, :18]),
    "an exponential": lambda a: torch.linalg.matrix_exp(a / 8),
    "eigenvalues": lambda a: torch.linalg.eigvalsh(a + a.mT),
    "a determinant": torch.linalg.det,
    "its logarithm": torch.logdet,
    "a factor of Cholesky's": lambda a: torch.linalg.cholesky(a @ a.mT),
    "Q and R of a tall matrix": lambda a: torch.cat(torch.linalg.qr(a[:, :18])),
    "Q and R of a wide matrix": lambda a: torch.cat(torch.linalg.qr(a[:18]), 1),
}


def scaled(times: float) -> Callable[[Tensor], Tensor]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        inverse = torch.linalg.inv(x)
        return -times * inverse.mH @ g @ inverse.mH

    return function("Scaled", torch.linalg.inv, backward)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_large_matrix_is_judged(name: str) -> None:
    report = check_function(FUNCTIONS[name], drawn(20, 20), net=False)
    assert report.ok, report.to_text()
    assert report.sensitivity is not None and report.sensitivity < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_a_wrong_inverse_is_refuted(dtype: torch.dtype) -> None:
    report = check_function(scaled(1 + 1e-6), drawn(20, 20, dtype=dtype), net=False)
    assert {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited} == {
        "ScaledBackward"
    }
    assert check_function(scaled(1.0), drawn(20, 20, dtype=dtype), net=False).ok


def of_determinant(times: float) -> Callable[[Tensor], Tensor]:
    return function(
        "Determinant",
        torch.linalg.det,
        lambda g, x: times * g * torch.linalg.det(x).conj() * torch.linalg.inv(x).mH,
    )


def of_cholesky(times: float) -> Callable[[Tensor], Tensor]:
    """By Murray's formula, Differentiation of the Cholesky decomposition, 2016."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        lower = torch.linalg.cholesky(x)
        half = (lower.mH @ g).tril()
        half = half - torch.diag(torch.diagonal(half)) / 2
        inverse = torch.linalg.inv(lower)
        made = inverse.mH @ half @ inverse
        return times * (made + made.mH) / 2

    return function("Cholesky", torch.linalg.cholesky, backward)


@pytest.mark.parametrize("make", [of_determinant, of_cholesky])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_a_wrong_gradient_of_a_large_one_is_refuted(
    make: Callable[[float], Callable[[Tensor], Tensor]], dtype: torch.dtype
) -> None:
    x = drawn(20, 20, dtype=dtype).detach()
    x = x @ x.mH if make is of_cholesky else x
    for times in (1.0, 1 + 1e-7):
        report = check_function(make(times), x.clone().requires_grad_(), net=False)
        assert report.ok == (times == 1.0), report.to_text()


def test_what_rounding_would_hide_is_refused_by_name() -> None:
    report = check_function(FUNCTIONS["eigenvalues"], drawn(20, 20, dtype=torch.float32), net=False)
    assert report.verdict is Verdict.UNSUPPORTED
    singular = check_function(torch.linalg.inv, (drawn(20, 20) * 0 + 1).detach().requires_grad_(), net=False)
    assert not singular.ok
