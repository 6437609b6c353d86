"""Networks of the sizes that people train, in plain torch modules: each is `(func, inputs)` in a dtype."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Case = tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]


class Residual(nn.Module):
    """ResNet's basic block: two convolutions, and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
        )
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        around = (nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.around = nn.Sequential(*(around if stride != 1 or before != after else ()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.second(self.first(x)) + self.around(x))


def resnet18() -> nn.Module:
    """As it is published, for 1,000 classes."""
    widths = (64, 64, 128, 256, 512)
    stages = [
        block
        for n, (before, after) in enumerate(pairwise(widths))
        for block in (Residual(before, after, 2 if n else 1), Residual(after, after, 1))
    ]
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class GPTBlock(nn.Module):
    """A block of GPT-2: attention under a causal mask, and two linear layers around a gelu."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.register_buffer("ahead", torch.ones(length, length, dtype=torch.bool).triu(1))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.queries(x).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        weights = scores.masked_fill(self.ahead, float("-inf")).softmax(dim=3)
        return self.attended((weights @ v).transpose(1, 2).reshape(batch, length, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.before_attention(x))
        return x + self.mlp(self.before_mlp(x))


def transformer_layer(width: int, dtype: torch.dtype) -> nn.Module:
    return nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, dtype=dtype)


def transformer(width: int, batch: int, length: int, dtype: torch.dtype) -> Case:
    return transformer_layer(width, dtype), (torch.randn(batch, length, width, dtype=dtype),)


def training_step(layers: int, width: int, dtype: torch.dtype) -> Case:
    """The loss of a stack of transformer layers: what one step of training differentiates."""
    stack = nn.Sequential(*(transformer_layer(width, dtype) for _ in range(layers)))
    x, y = (torch.randn(8, 64, width, dtype=dtype) for _ in range(2))
    return Loss(stack, y), (x,)


class Loss(nn.Module):
    def __init__(self, net: nn.Module, wanted: torch.Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("wanted", wanted)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.mse_loss(self.net(x), self.wanted)


def resnet(dtype: torch.dtype) -> Case:
    return resnet18().to(dtype), (torch.randn(2, 3, 64, 64, dtype=dtype),)


def gpt(dtype: torch.dtype) -> Case:
    return GPTBlock(768, 12, 128).to(dtype), (torch.randn(1, 128, 768, dtype=dtype),)


def cross_entropy(dtype: torch.dtype) -> Case:
    classes = torch.randint(1000, (4096,))
    x = torch.randn(4096, 1000, dtype=dtype, requires_grad=True)
    return partial(functional.cross_entropy, target=classes), (x,)


def tanh(size: int, dtype: torch.dtype) -> Case:
    """`sum(tanh(x)*w)` of two inputs of that size."""

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(x) * w).sum()

    x, w = (torch.randn(size, dtype=dtype, requires_grad=True) for _ in range(2))
    return function, (x, w)


# By name, from a dtype; so many entries for `tanh`.
NETWORKS: dict[str, Callable[[torch.dtype], Case]] = {
    "transformer layer": lambda dtype: transformer(256, 8, 64, dtype),
    "small transformer layer": lambda dtype: transformer(32, 2, 8, dtype),
    "24 transformer layers": lambda dtype: training_step(24, 128, dtype),
    "cross entropy": cross_entropy,
    "ResNet-18": resnet,
    "GPT-2 block": gpt,
    **{f"tanh {size}": partial(tanh, size) for size in (10**2, 10**3, 10**4, 10**6)},
}


def built(name: str, dtype: str) -> Case:
    """The same numbers in every process."""
    torch.manual_seed(0)
    return NETWORKS[name](getattr(torch, dtype))


def forward_backward(func: Callable[..., torch.Tensor], inputs: Any) -> None:
    """One run of the network, and its gradients, as a training step has them."""
    leaves = [x for x in inputs if x.requires_grad]
    leaves += list(func.parameters()) if isinstance(func, nn.Module) else []
    for leaf in leaves:
        leaf.grad = None
    func(*inputs).sum().backward()
