"""Functions for `gradproof check docs/examples.py:NAME`; each returns `(func, inputs)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Case = tuple[Callable[..., Any], tuple[torch.Tensor, ...]]


class Swish(torch.autograd.Function):
    """x * sigmoid(x), with a mistake in its backward: the sigmoid's own derivative lacks the factor 1 - s."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * (s + x * s)


def swish() -> Case:
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    return lambda x: Swish.apply(x).sum(), (x,)


def attention() -> Case:
    """The weights are detached by mistake: every node is right, and the gradient is not the function's."""
    query = torch.tensor([[1.0, 0.0], [0.5, -1.0]], requires_grad=True)

    def attend(query: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(query @ query.T, dim=-1)
        return (weights.detach() @ query).sum()

    return attend, (query,)


def encoder() -> Case:
    """A layer of torch's, as it is."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, dropout=0.1, batch_first=True)
    return layer, (torch.randn(2, 3, 8),)
