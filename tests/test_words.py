"""What a report says, what a call may ask for, and that a check leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from gradproof.tape.state import untouched

D = torch.float64


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


def snapshot(module: nn.Module) -> dict[str, bytes]:
    return {name: bits(value) for name, value in module.state_dict().items()}


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Counting(nn.Module):
    """Holds a number, a tensor without a name and a buffer that it binds anew."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.seen = torch.zeros(2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.seen.add_(1)
        self.mean = self.mean + x.detach().mean()
        return (x * torch.rand_like(x)).sum() + random.random() + np.random.rand()


NETS = {
    "batch norm": (lambda: nn.BatchNorm1d(3), lambda: torch.randn(4, 3, requires_grad=True)),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
        lambda: torch.randn(4, 3, requires_grad=True),
    ),
    "the older spectral norm": (
        lambda: nn.utils.spectral_norm(nn.Linear(3, 2)),
        lambda: torch.randn(4, 3, requires_grad=True),
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout()), lambda: torch.randn(4, 3, requires_grad=True)),
    "an embedding that renorms": (lambda: nn.Embedding(5, 3, max_norm=0.1), lambda: torch.tensor([1, 2, 1])),
    "its own state": (Counting, lambda: torch.randn(2, requires_grad=True)),
}


@pytest.mark.parametrize("name", NETS)
def test_state_is_put_back(name):
    net, x = NETS[name][0](), NETS[name][1]()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, grads, given = snapshot(net), [p.grad for p in net.parameters()], bits(x)
    attributes = {key: value for key, value in vars(net).items() if isinstance(value, int)}
    rng = torch.get_rng_state()
    with untouched(net, x) as state:
        net(x).sum().backward()
        first = net(x).sum().item()
        state.restore()
        net(x)
        assert net(x).sum().item() == first
    assert snapshot(net) == before
    assert bits(x) == given
    assert all(p.grad is g and (g == 1).all() for p, g in zip(net.parameters(), grads, strict=True))
    assert {key: value for key, value in vars(net).items() if isinstance(value, int)} == attributes
    assert torch.equal(torch.get_rng_state(), rng)
