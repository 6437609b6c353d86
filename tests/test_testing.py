"""The mixin for classes of `unittest`."""

from __future__ import annotations

import unittest
from collections.abc import Callable

import pytest
import torch

from gradproof.testing import GradientTests


class Right(GradientTests, unittest.TestCase):
    gradient_options = {"mode": "both"}  # noqa: RUF012 - as people write it


def cube(times: float) -> Callable[..., torch.Tensor]:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(x)
            ctx.save_for_forward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return 3 * g * ctx.saved_tensors[0] ** 2

        @staticmethod
        def jvp(ctx, t):  # type: ignore[no-untyped-def]
            return times * t * ctx.saved_tensors[0] ** 2

    return Cube.apply


def test_assertions_fail_with_the_report() -> None:
    case, x = Right(), torch.tensor([0.5, -2.0], dtype=torch.float64).requires_grad_()
    report = case.assertGradients(cube(3.0), x)
    assert report.exercised == ("reverse mode, first order", "forward mode")
    with pytest.raises(AssertionError, match="CubeBackward"):
        case.assertGradients(cube(2.0), x)
    case.assertGradients(cube(2.0), x, mode="reverse")
    case.assertGradcheck(cube(2.0), (x,))
    case.assertGradgradcheck(cube(3.0), (x,))
    with pytest.raises(AssertionError, match="tangent"):
        case.assertGradcheck(cube(2.0), (x,), check_forward_ad=True)
