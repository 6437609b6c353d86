"""How a custom function is made wrong on purpose, with a right twin that differs in little else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

Backward = Callable[..., Any]
Inputs = Callable[[torch.dtype], tuple[Any, ...]]

Backward = Callable[..., Any]

Inputs = Callable[[torch.dtype], tuple[Any, ...]]


@dataclass(frozen=True)
class FunctionFault:
    """A wrong function and its right twin.

    `error` is the largest difference beside the largest entry, of the worst gradient, in float64, over some
    cotangents: 1 for a gradient that is missing, zero or NaN, 2 for a sign. `blamed` is a part of the name of
    the node that is wrong, `note` a part of what a good checker says about it.
    """

    name: str
    kind: str
    wrong: Callable[..., Any]
    right: Callable[..., Any]
    inputs: Inputs
    error: float
    blamed: str
    note: str = ""


# Inputs


def _leaf(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    return numbers.to(dtype).requires_grad_()


def normal(*shapes: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> Inputs:
    def inputs(dtype: torch.dtype) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            _leaf(scale * torch.randn(shape, generator=generator, dtype=torch.float64), dtype)
            for shape in shapes
        )

    return inputs


def between(low: float, high: float, *shapes: tuple[int, ...], seed: int = 0) -> Inputs:
    def inputs(dtype: torch.dtype) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        return tuple(_leaf(low + (high - low) * numbers, dtype) for numbers in drawn)

    return inputs


def values(*numbers: Any) -> Inputs:
    return lambda dtype: tuple(_leaf(torch.tensor(number, dtype=torch.float64), dtype) for number in numbers)


def beside(inputs: Inputs, *given: Any) -> Inputs:
    """The leaves, then what is given: integers and masks as they are, numbers in the dtype."""

    def both(dtype: torch.dtype) -> tuple[Any, ...]:
        tensors = [torch.tensor(value) for value in given]
        return (*inputs(dtype), *(t.to(dtype) if t.is_floating_point() else t for t in tensors))

    return both


# Making functions


def function(name: str, forward: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    """An `autograd.Function` called `name`; `backward(g, *inputs)` gives one gradient for each input."""

    def run(ctx: Any, *inputs: Any) -> Any:
        ctx.save_for_backward(*inputs)
        return forward(*inputs)

    def pull(ctx: Any, *g: Tensor) -> Any:
        return backward(*g, *ctx.saved_tensors)

    return type(name, (Function,), {"forward": staticmethod(run), "backward": staticmethod(pull)}).apply


def custom(forward: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    """One whose name is of no matter."""
    return function("Custom", forward, backward)


def transformable(name: str, forward: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    """The same, as torch.func's transforms take them."""
    members = {
        "generate_vmap_rule": True,
        "forward": staticmethod(forward),
        "setup_context": staticmethod(lambda ctx, inputs, output: ctx.save_for_backward(*inputs)),
        "backward": staticmethod(lambda ctx, *g: backward(*g, *ctx.saved_tensors)),
    }
    return type(name, (Function,), members).apply


def pair(name: str, forward: Callable[..., Any], wrong: Backward, right: Backward) -> tuple[Any, Any]:
    return function(name, forward, wrong), function(name, forward, right)


def of_input(
    name: str, forward: Callable[[Tensor], Tensor], wrong: Backward, right: Backward
) -> tuple[Any, Any]:
    """Elementwise, with a derivative from the input."""
    return pair(name, forward, lambda g, x: g * wrong(x), lambda g, x: g * right(x))


def of_output(
    name: str, forward: Callable[[Tensor], Tensor], wrong: Backward, right: Backward
) -> tuple[Any, Any]:
    """Elementwise, with a derivative from the output, which is what is saved."""

    def make(slope: Backward) -> Any:
        class Saved(Function):
            @staticmethod
            def forward(x: Tensor) -> Tensor:
                return forward(x)

            @staticmethod
            def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
                ctx.save_for_backward(output)

            @staticmethod
            def backward(ctx: Any, g: Tensor) -> Tensor:
                (y,) = ctx.saved_tensors
                return g * slope(y)

        return type(name, (Saved,), {}).apply

    return make(wrong), make(right)


def within(functions: tuple[Any, Any], use: Callable[..., Any]) -> tuple[Any, Any]:
    """Both twins inside a larger function: `use(f, *inputs)`."""
    wrong, right = functions
    return lambda *inputs: use(wrong, *inputs), lambda *inputs: use(right, *inputs)


# Norms and statistics


def layer_norm(
    project: Callable[[Tensor, Tensor], Tensor], gamma: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Any:
    """`project` takes the normalised cotangent through the mean and the variance of the last axis."""

    class LayerNorm(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
            centred = x - x.mean(-1, keepdim=True)
            scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
            normed = centred * scale
            ctx.save_for_backward(normed, scale, weight)
            return normed * weight + bias

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            normed, scale, weight = ctx.saved_tensors
            gx = project(g * weight, normed) * scale
            gw = (g * normed).sum(0) if gamma is None else gamma(g, normed)
            return gx, gw, g.sum(0), None

    return lambda x, weight, bias: LayerNorm.apply(x, weight, bias, 1e-5)


def through_both(d: Tensor, normed: Tensor) -> Tensor:
    return d - d.mean(-1, keepdim=True) - normed * (d * normed).mean(-1, keepdim=True)


LAYER_NORM = layer_norm(through_both)


def batch_norm(ddof: int, eps: float = 1e-5, mean: bool = True) -> Any:
    """Training mode over batch and length; the backward has its own idea of the variance, of eps, and of the
    mean."""

    class BatchNorm(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            centred = x - x.mean((0, 2), keepdim=True)
            variance = centred.square().mean((0, 2), keepdim=True)
            return centred * torch.rsqrt(variance + 1e-5) * weight[:, None] + bias[:, None]

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, weight = ctx.saved_tensors
            axes, n = (0, 2), x.shape[0] * x.shape[2]
            centred = x - x.mean(axes, keepdim=True)
            scale = torch.rsqrt(centred.square().sum(axes, keepdim=True) / (n - ddof) + eps)
            normed, d = centred * scale, g * weight[:, None]
            gx = d - normed * (d * normed).mean(axes, keepdim=True)
            if mean:
                gx = gx - d.mean(axes, keepdim=True)
            return gx * scale, (g * normed).sum(axes), g.sum(axes)

    return BatchNorm.apply


# Losses


def cross_entropy(mistake: str = "", smoothing: float = 0.0) -> Any:
    """The mean over the rows; a mistake of the backward: no "smoothing", no "cotangent", no "mean"."""

    class CrossEntropy(Function):
        @staticmethod
        def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
            logs = torch.log_softmax(logits, 1)
            ctx.save_for_backward(logs, target)
            picked = logs.gather(1, target[:, None])[:, 0]
            return -((1 - smoothing) * picked + smoothing * logs.mean(1)).mean()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            logs, target = ctx.saved_tensors
            hot = F.one_hot(target, logs.shape[1]).to(logs.dtype)
            if mistake != "smoothing":
                hot = (1 - smoothing) * hot + smoothing / logs.shape[1]
            gradient = logs.exp() - hot
            if mistake != "mean":
                gradient = gradient / len(target)
            return gradient if mistake == "cotangent" else gradient * g, None

    return CrossEntropy.apply


# Random masks


def dropout(scaled: bool, seed: int = 3) -> Any:
    """p = 0.5; the mask of seed 3 in the forward, drawn again in the backward."""

    def mask(x: Tensor, seed: int) -> Tensor:
        return (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5).to(x.dtype)

    class Dropout(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * mask(x, 3) * 2.0

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * mask(g, seed) * (2.0 if scaled else 1.0)

    return Dropout.apply


# Precision

M = normal((3, 4))

POSITIVE = between(0.5, 2.0, (3, 4))

NORM_INPUTS = normal((3, 5), (5,), (5,))

CHANNELS = normal((2, 3, 4), (3,), (3,))
