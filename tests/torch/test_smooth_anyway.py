"""Gradients that are no finite numbers where the function is smooth, and where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradproof import Report, Verdict, check_function


def root(a: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag(values.sqrt()) @ vectors.mT


def polar(a: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(a)
    return u @ vh


def logarithm(a: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag(values.log()) @ vectors.mT


def at(function: Callable[[Tensor], Tensor], point: Tensor) -> Report:
    return check_function(function, point.double().requires_grad_())


@pytest.mark.parametrize("function", [root, polar, logarithm])
def test_a_smooth_function_of_a_matrix_has_a_gradient_where_its_spectrum_is_degenerate(
    function: Callable[[Tensor], Tensor],
) -> None:
    report = at(function, 2 * torch.eye(3))
    (wrong,) = (f for f in report.findings if f.verdict is Verdict.WRONG)
    assert (wrong.kind, wrong.node) == ("gradient", "a")
    assert "smooth here" in wrong.note


@pytest.mark.parametrize("function", [root, polar, logarithm])
def test_beside_it_the_same_functions_pass(function: Callable[[Tensor], Tensor]) -> None:
    assert at(function, torch.diag(torch.tensor([1.0, 2.0, 4.0])) + 0.1).ok


NOT_SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "a largest eigenvector": lambda a: torch.linalg.eigh(a)[1][:, -1],
    "a root that ends there": lambda a: (a - 2).sqrt().sum(),
    "x log x at its end": lambda a: (a * a.log()).sum(),
}


@pytest.mark.parametrize("name", NOT_SMOOTH)
def test_a_function_that_is_not_smooth_is_not_blamed_for_it(name: str) -> None:
    report = at(NOT_SMOOTH[name], 2 * torch.eye(3))
    assert all("smooth here" not in finding.note for finding in report.findings)
    assert not report.ok
