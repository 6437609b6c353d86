"""Wrong `autograd.Function`s beside their right twins, modelled on reports of real bugs.

Both of a pair have the same forward; only the backward differs. `error` is the relative error of the wrong gradient, about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Inputs = Callable[[torch.dtype], tuple[Any, ...]]


@dataclass(frozen=True)
class FunctionFault:
    """`wrong` and `right` are called with `inputs(dtype)`; the node that is wrong has `blamed` in its name."""

    name: str
    kind: str
    wrong: Callable[..., Any]
    right: Callable[..., Any]
    inputs: Inputs
    error: float
    blamed: str = "Custom"
    note: str = ""


def leaves(*shapes: tuple[int, ...], positive: bool = False) -> Inputs:
    """Leaves of these shapes, generic numbers."""

    def made(dtype: torch.dtype) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(len(shapes) + sum(map(len, shapes)))
        found = []
        for shape in shapes:
            values = torch.randn(shape, generator=generator, dtype=torch.float64)
            values = values.abs() + 0.25 if positive else values
            found.append(values.to(dtype).requires_grad_())
        return tuple(found)

    return made


def function(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """A custom function; the backward gets the cotangents and then the inputs, and gives a cotangent for each of those."""

    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.inputs = inputs
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor) -> Any:
            return backward(*cotangents, *ctx.inputs)

    return Custom.apply


def scale(factor: float) -> Callable[..., Any]:
    return lambda g, x: g * torch.exp(x) * factor


def swish_like(constant: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * torch.sigmoid(constant * x)


def swish_slope(constant: float) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        s = torch.sigmoid(constant * x)
        return g * (s + constant * x * s * (1 - s))

    return backward


K = math.sqrt(2 / math.pi)


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(K * (x + 0.044715 * x**3)))


def gelu_slope(k: float, c: float, three: float = 3.0) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        t = torch.tanh(k * (x + c * x**3))
        return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + three * c * x * x))

    return backward


def layer_norm(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, correction=0, keepdim=True) + 1e-5)


def layer_norm_back(mean: bool = True, spread: bool = True, correction: int = 0, eps: float = 1e-5) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        n = x.shape[-1]
        sigma = torch.sqrt(x.var(-1, correction=0, keepdim=True) + eps)
        hat = (x - x.mean(-1, keepdim=True)) / sigma
        out = g
        if mean:
            out = out - g.mean(-1, keepdim=True)
        if spread:
            out = out - hat * (g * hat).sum(-1, keepdim=True) / (n - correction)
        return out / sigma

    return backward


def rms_norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def rms_back(n: int) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        r = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
        return g * r - x * r**3 * (g * x).sum(-1, keepdim=True) / n

    return backward


def softmax_back(summed: bool) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        p = torch.softmax(x, -1)
        return p * (g - ((g * p).sum(-1, keepdim=True) if summed else g * p))

    return backward


TARGET = torch.tensor([1, 0, 3])


def cross_entropy(x: Tensor) -> Tensor:
    return -torch.log_softmax(x, -1)[torch.arange(3), TARGET].mean()


def cross_entropy_back(count: float = 3.0, smoothed: float = 0.0, scaled: bool = True) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        hot = F.one_hot(TARGET, 4).to(x.dtype) * (1 - smoothed) + smoothed / 4
        return (g if scaled else 1.0) * (torch.softmax(x, -1) - hot) / count

    return backward


def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w.T + b


def linear_back(
    x_part: Callable[..., Tensor] | None = None, w_part: Callable[..., Tensor] | None = None,
    b_part: Callable[..., Tensor] | None = None,
) -> Callable[..., Any]:  # fmt: skip
    def backward(g: Tensor, x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            x_part(g, x, w) if x_part else g @ w,
            w_part(g, x, w) if w_part else g.T @ x,
            b_part(g, x, w) if b_part else g.sum(0),
        )

    return backward


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), -1) @ v


def attention_back(scaled: bool = True, transposed: bool = False) -> Callable[..., Any]:
    def backward(g: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        root = math.sqrt(q.shape[-1])
        p = torch.softmax(q @ k.T / root, -1)
        dp = g @ v.T
        ds = p * (dp - (dp * p).sum(-1, keepdim=True))
        ds = ds / root if scaled else ds
        return ds @ k, (ds if transposed else ds.T) @ q, p.T @ g

    return backward


ROWS = torch.tensor([0, 2, 2, 1])


def embedding_back(overwrite: bool) -> Callable[..., Any]:
    def backward(g: Tensor, w: Tensor) -> Tensor:
        out = torch.zeros_like(w)
        for n, row in enumerate(ROWS):
            if overwrite:
                out[row] = g[n]
            else:
                out[row] += g[n]
        return out

    return backward


def conv_back(groups_seen: int, flipped: bool = False) -> Callable[..., Any]:
    def backward(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        dx = F.conv_transpose1d(g, w.flip(-1) if flipped else w, groups=2)
        dw = torch.nn.grad.conv1d_weight(x, w.shape, g, groups=2)
        if groups_seen < 2:
            dw = torch.cat([dw[:2], torch.zeros_like(dw[2:])])
        return dx, dw

    return backward


def mini_engine(overwrite: bool) -> Callable[..., Any]:
    """A small engine of one's own inside a custom forward: x is used twice."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        grads: dict[str, Tensor] = {}

        def give(name: str, part: Tensor) -> None:
            grads[name] = part if overwrite or name not in grads else grads[name] + part

        s = torch.sin(x)
        give("x", g * s)  # x * s by x
        give("s", g * x)
        give("x", grads["s"] * torch.cos(x))
        return grads["x"]

    return backward


class _Saved(torch.autograd.Function):
    """y = x**2, its saved tensor in the hands of others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, copied: bool) -> Tensor:
        ctx.x = x.clone() if copied else x
        return x * x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return 2 * g * ctx.x, None


def saved(copied: bool) -> Callable[[Tensor], Tensor]:
    def func(x: Tensor) -> Tensor:
        y = x * 1.5
        z = _Saved.apply(y, copied)
        with torch.no_grad():
            y.data += 0.25  # reuses the buffer
        return z

    return func


class _Two(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, both: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        ctx.both = both
        return torch.sin(x), torch.exp(x)

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return a * torch.cos(x) + (b * torch.exp(x) if ctx.both else 0), None


class _Setup(torch.autograd.Function):
    """Written in the newer style, with `setup_context`."""

    @staticmethod
    def forward(x: Tensor, power: int, given: int) -> Tensor:
        return x**power

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.power, ctx.given = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return g * ctx.given * x ** (ctx.power - 1), None, None


def in_place_on_cotangent(corrupts: bool) -> Callable[[Tensor], Tensor]:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        return g.mul_(2) if corrupts else g * 2

    double = function(lambda x: 2 * x, backward)

    def func(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        return double(y) + y  # both get the same cotangent

    return func


def row(
    name: str, kind: str, forward: Callable[..., Any], right: Callable[..., Any], wrong: Callable[..., Any], inputs: Inputs,
    error: float, note: str = "", after: Callable[[Any], Any] | None = None,
) -> FunctionFault:  # fmt: skip
    """A pair with one forward and two backwards; `after` is what the function goes on with."""

    def whole(backward: Callable[..., Any]) -> Callable[..., Any]:
        made = function(forward, backward)
        return made if after is None else lambda *x: after(made(*x))

    return FunctionFault(name, kind, whole(wrong), whole(right), inputs, error, note=note)


X, SQUARE, POSITIVE = leaves((3, 4)), leaves((3, 3)), leaves((3, 4), positive=True)
LINEAR = leaves((3, 3), (3, 3), (3,))

SMALL = tuple(
    row(f"a factor of 1 + {error:.0e}", "factor", torch.exp, scale(1), scale(1 + error), X, error, "factor" if error > 1e-9 else "")
    for error in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11)
)  # fmt: skip

FAULTS: tuple[FunctionFault, ...] = (
    *SMALL,
    # formula
    row("swish without the inner derivative", "formula", swish_like(1), swish_slope(1),
        lambda g, x: g * torch.sigmoid(x), X, 0.9),
    row("swish without the factor 1 - s", "formula", swish_like(1), swish_slope(1),
        lambda g, x: g * (torch.sigmoid(x) + x * torch.sigmoid(x)), X, 1.0),
    row("quick gelu with 1.7 for 1.702 in the backward", "formula", swish_like(1.702), swish_slope(1.702),
        swish_slope(1.7), X, 1e-3),
    row("gelu with two for three in the cubic's derivative", "formula", gelu_tanh, gelu_slope(K, 0.044715),
        gelu_slope(K, 0.044715, 2.0), X, 2e-2),
    row("gelu with 0.7979 for the square root of 2/pi", "formula", gelu_tanh, gelu_slope(K, 0.044715),
        gelu_slope(0.7979, 0.044715), X, 2e-5),
    row("gelu with 0.0447 for 0.044715", "formula", gelu_tanh, gelu_slope(K, 0.044715), gelu_slope(K, 0.0447), X, 3e-5),
    row("tanh by its input instead of its output", "formula", torch.tanh, lambda g, x: g * (1 - torch.tanh(x) ** 2),
        lambda g, x: g * (1 - x**2), X, 1.0),
    row("log1p as log", "formula", torch.log1p, lambda g, x: g / (1 + x), lambda g, x: g / x, POSITIVE, 1.0),
    row("the chain's inner derivative forgotten", "formula", lambda x: torch.sin(x**2), lambda g, x: g * 2 * x * torch.cos(x**2),
        lambda g, x: g * torch.cos(x**2), X, 1.0),
    row("the power rule without the power", "formula", lambda x: x**3, lambda g, x: 3 * g * x**2, lambda g, x: g * x**2, X, 0.7,
        "factor of 0.333333"),
    row("softplus' with log 2 of six digits", "formula", lambda x: torch.log(1 + torch.exp(x)) / math.log(2),
        lambda g, x: g * torch.sigmoid(x) / math.log(2), lambda g, x: g * torch.sigmoid(x) / 0.693147, X, 3e-7, "digits"),
    row("mish without one term", "formula", F.mish,
        lambda g, x: g * (torch.tanh(F.softplus(x)) + x * (1 - torch.tanh(F.softplus(x)) ** 2) * torch.sigmoid(x)),
        lambda g, x: g * torch.tanh(F.softplus(x)), X, 0.9),
    row("softmax with its own term for the sum", "formula", lambda x: torch.softmax(x, -1), softmax_back(True),
        softmax_back(False), X, 1.0),
    row("the gradient of a norm not divided by it", "formula", lambda x: x.norm(), lambda g, x: g * x / x.norm(),
        lambda g, x: g * x, X, 2.0),
    row("cosine similarity without its radial part", "formula", lambda x: x / x.norm(),
        lambda g, x: (g - x * (g * x).sum() / x.norm() ** 2) / x.norm(), lambda g, x: g / x.norm(), X, 1.0),
    row("an error in one entry", "formula", lambda x: x**2, lambda g, x: 2 * g * x,
        lambda g, x: 2 * g * x + torch.eye(3, 4, dtype=x.dtype)[[0, 2, 2]] * 1e-3, X, 1e-3),
    row("the tail of erf's derivative cut", "formula", torch.erf, lambda g, x: g * 2 / math.sqrt(math.pi) * torch.exp(-x * x),
        lambda g, x: g * 2 / math.sqrt(math.pi) * torch.exp(-x * x) * (x.abs() < 1), X, 1.0),
    # sign
    row("the sign of the quotient rule", "sign", lambda a, b: a / b, lambda g, a, b: (g / b, -g * a / b**2),
        lambda g, a, b: (g / b, g * a / b**2), leaves((4,), (4,), positive=True), 2.0, "sign"),
    row("the sign of the cosine", "sign", torch.cos, lambda g, x: -g * torch.sin(x), lambda g, x: g * torch.sin(x), X, 2.0, "sign"),
    row("a rotation turned back the same way", "sign",
        lambda x: torch.stack([x[0] * 0.6 - x[1] * 0.8, x[0] * 0.8 + x[1] * 0.6]),
        lambda g, x: torch.stack([g[0] * 0.6 + g[1] * 0.8, g[1] * 0.6 - g[0] * 0.8]),
        lambda g, x: torch.stack([g[0] * 0.6 - g[1] * 0.8, g[1] * 0.6 + g[0] * 0.8]), leaves((2, 3)), 1.0),
    # factor
    row("half of the square's derivative", "factor", lambda x: x**2, lambda g, x: 2 * g * x, lambda g, x: g * x, X, 0.5, "1/2"),
    row("twice a mean squared error", "factor", lambda x: (x**2).mean(), lambda g, x: 2 * g * x / x.numel(),
        lambda g, x: 4 * g * x / x.numel(), X, 1.0, "factor of 2"),
    row("pi as 3.1416", "factor", lambda x: torch.sin(math.pi * x), lambda g, x: g * math.pi * torch.cos(math.pi * x),
        lambda g, x: g * 3.1416 * torch.cos(math.pi * x), X, 2e-6, "digits"),
    row("attention's scale forgotten", "factor", attention, attention_back(), attention_back(scaled=False),
        leaves((3, 4), (5, 4), (5, 2)), 1.0, "factor of 2"),
    row("dropout's scale forgotten", "factor", lambda x: x * torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=x.dtype) / 0.75,
        lambda g, x: g * torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=x.dtype) / 0.75,
        lambda g, x: g * torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=x.dtype), X, 0.25, "factor of 0.75"),
    row("a cross entropy that ignores its cotangent", "factor", cross_entropy, cross_entropy_back(),
        cross_entropy_back(scaled=False), leaves((3, 4)), 2.0, "ignored", after=lambda loss: 3.0 * loss),
    # reduction
    row("a sum for a mean", "reduction", lambda x: x.mean(0), lambda g, x: (g / 3).expand(3, 4), lambda g, x: g.expand(3, 4), X,
        2.0, "n = 3"),
    row("n - 1 for n in a variance", "reduction", lambda x: x.var(correction=0), lambda g, x: 2 * g * (x - x.mean()) / 12,
        lambda g, x: 2 * g * (x - x.mean()) / 11, X, 0.1, "n = 12"),
    row("cross entropy over the wrong count", "reduction", cross_entropy, cross_entropy_back(), cross_entropy_back(4.0),
        leaves((3, 4)), 0.25, "factor of 0.75"),
    row("label smoothing in the forward alone", "reduction",
        lambda x: -(0.9 * torch.log_softmax(x, -1)[torch.arange(3), TARGET] + 0.1 * torch.log_softmax(x, -1).mean(-1)).mean(),
        cross_entropy_back(smoothed=0.1), cross_entropy_back(), leaves((3, 4)), 0.3),
    row("layer norm without the mean's part", "reduction", layer_norm, layer_norm_back(), layer_norm_back(mean=False), X, 1.0),
    row("layer norm without the variance's part", "reduction", layer_norm, layer_norm_back(), layer_norm_back(spread=False), X, 1.0),
    row("layer norm with n - 1", "reduction", layer_norm, layer_norm_back(), layer_norm_back(correction=1), X, 0.3),
    row("layer norm with another eps", "reduction", layer_norm, layer_norm_back(), layer_norm_back(eps=1e-6), X, 1e-5),
    row("rms norm over the wrong n", "reduction", rms_norm, rms_back(4), rms_back(3), X, 0.3),
    row("the maximum's gradient to all", "reduction", lambda x: x.amax(-1),
        lambda g, x: g[:, None] * (x == x.amax(-1, keepdim=True)), lambda g, x: g[:, None] * torch.ones_like(x), X, 1.0),
    # broadcast
    row("a bias' gradient of one row alone", "broadcast", linear, linear_back(), linear_back(b_part=lambda g, x, w: g[0]), LINEAR,
        1.0, "sum is missing"),
    row("a bias' gradient averaged over the batch", "broadcast", linear, linear_back(),
        linear_back(b_part=lambda g, x, w: g.mean(0)), LINEAR, 0.7, "1/n with n = 3"),
    row("a broadcast scalar's gradient not summed", "broadcast", lambda x, s: x * s, lambda g, x, s: (g * s, (g * x).sum()),
        lambda g, x, s: (g * s, (g * x)[0, 0]), leaves((3, 4), ()), 1.0),
    row("a column's gradient summed along the other axis", "broadcast", lambda x, c: x + c,
        lambda g, x, c: (g, g.sum(1, keepdim=True)), lambda g, x, c: (g, g.sum(0)[:, None]), leaves((3, 3), (3, 1)), 1.0),
    # index, transposition
    row("a weight's gradient transposed", "index", linear, linear_back(), linear_back(w_part=lambda g, x, w: x.T @ g), LINEAR, 1.0,
        "transposed"),
    row("an input's gradient by the transposed weight", "index", linear, linear_back(),
        linear_back(x_part=lambda g, x, w: g @ w.T), LINEAR, 1.0),
    row("the gradients in swapped order", "index", lambda a, b: a * b, lambda g, a, b: (g * b, g * a),
        lambda g, a, b: (g * a, g * b), leaves((4,), (4,)), 1.0),
    row("the keys' gradient not transposed", "index", attention, attention_back(), attention_back(transposed=True),
        leaves((3, 4), (3, 4), (3, 2)), 1.0),
    row("a cumulative sum turned back the wrong way", "index", lambda x: x.cumsum(-1),
        lambda g, x: g.flip(-1).cumsum(-1).flip(-1), lambda g, x: g.cumsum(-1), X, 1.0),
    row("a convolution's kernel not flipped", "index", lambda x, w: F.conv1d(x, w, groups=2), conv_back(2),
        conv_back(2, flipped=True), leaves((2, 4, 6), (4, 2, 3)), 1.0),
    row("a roll turned the same way again", "index", lambda x: x.roll(1, -1), lambda g, x: g.roll(-1, -1),
        lambda g, x: g.roll(1, -1), X, 1.0),
    # accumulation
    row("= for += at a repeated row", "accumulation", lambda w: w[ROWS], embedding_back(False), embedding_back(True), leaves((4, 3)),
        1.0),
    row("a grouped convolution's first group alone", "accumulation", lambda x, w: F.conv1d(x, w, groups=2), conv_back(2),
        conv_back(1), leaves((2, 4, 6), (4, 2, 3)), 1.0),
    row("a mini engine that overwrites", "accumulation", lambda x: x * torch.sin(x), mini_engine(False), mini_engine(True), X, 0.8,
        "lost"),
    # second use
    row("one of two uses lost", "second use", lambda x: x * torch.exp(x), lambda g, x: g * (1 + x) * torch.exp(x),
        lambda g, x: g * torch.exp(x), X, 1.0, "lost"),
    row("the residual's gradient lost", "second use", lambda x: x + torch.tanh(x), lambda g, x: g * (2 - torch.tanh(x) ** 2),
        lambda g, x: g * (1 - torch.tanh(x) ** 2), X, 0.9, "lost"),
    FunctionFault("one of two outputs ignored", "second use", lambda x: _Two.apply(x, False), lambda x: _Two.apply(x, True), X, 1.0,
                  "_Two", "lost"),
    # detach
    row("None for a gradient", "detach", lambda a, b: a * b, lambda g, a, b: (g * b, g * a), lambda g, a, b: (g * b, None),
        leaves((4,), (4,)), 1.0, "None"),
    row("zero for a gradient", "detach", lambda a, b: a * b, lambda g, a, b: (g * b, g * a),
        lambda g, a, b: (g * b, torch.zeros_like(b)), leaves((4,), (4,)), 1.0, "zero"),
    row("a straight-through estimator", "detach", lambda x: torch.tanh(x), lambda g, x: g * (1 - torch.tanh(x) ** 2),
        lambda g, x: g, X, 1.0, "cotangent itself"),
    # precision
    row("computed in float32", "precision", torch.exp, lambda g, x: g * torch.exp(x),
        lambda g, x: (g.float() * torch.exp(x.float())).to(x.dtype), X, 5e-8, "lower precision"),
    row("computed in bfloat16", "precision", torch.exp, lambda g, x: g * torch.exp(x),
        lambda g, x: (g.bfloat16() * torch.exp(x.bfloat16())).to(x.dtype), X, 4e-3, "lower precision"),
    row("a finite difference", "precision", torch.sin, lambda g, x: g * torch.cos(x),
        lambda g, x: g * (torch.sin(x + 1e-3) - torch.sin(x - 1e-3)) / 2e-3, X, 2e-7),
    row("a series cut off", "precision", torch.exp, lambda g, x: g * torch.exp(x),
        lambda g, x: g * sum(x**n / math.factorial(n) for n in range(12)), X, 1e-6),
    # saved tensors and aliasing
    FunctionFault("a saved tensor changed in place", "saved tensor", saved(False), saved(True), X, 0.3, "_Saved", "changed in place"),
    row("the output saved for the input", "saved tensor", lambda x: x**2, lambda g, x: 2 * g * x, lambda g, x: 2 * g * x**2, X, 1.0),
    row("the forward's value for its derivative", "saved tensor", torch.tanh, lambda g, x: g * (1 - torch.tanh(x) ** 2),
        lambda g, x: g * torch.tanh(x), X, 1.0, "forward value"),
    FunctionFault("a cotangent changed in place under another branch", "aliasing", in_place_on_cotangent(True),
                  in_place_on_cotangent(False), X, 1.0, ""),
    FunctionFault("a wrong power in setup_context style", "saved tensor", lambda x: _Setup.apply(x, 3, 2),
                  lambda x: _Setup.apply(x, 3, 3), X, 0.3, "_Setup", "factor of 0.66666"),
    # layout
    row("a cotangent read as if it lay in one piece", "layout", lambda x: 2 * x, lambda g, x: 2 * g,
        lambda g, x: 2 * torch.as_strided(g, g.shape, x.stride()), X, 1.0),
    row("a transposed cotangent read by its memory", "layout", lambda x: 2 * x, lambda g, x: 2 * g,
        lambda g, x: 2 * torch.as_strided(g, g.shape, x.stride()), SQUARE, 1.0, after=lambda y: y.T * torch.arange(3, dtype=y.dtype)),
)  # fmt: skip


M = normal((3, 4))
POSITIVE = between(0.5, 2.0, (3, 4))
SQUARES = normal((3, 3), (3, 3))
LINEAR_INPUTS = normal((3, 3), (3, 3), (3,))
NORM_INPUTS = normal((3, 5), (5,), (5,))
CHANNELS = normal((2, 3, 4), (3,), (3,))
HEADS = normal((3, 4), (3, 4), (3, 4))

FAULTS = (
    # Formulas
    FunctionFault(
        "swish forgets the derivative of its sigmoid", "formula",
        *of_input("Swish", lambda x: x * torch.sigmoid(x), torch.sigmoid, swish_slope(1.0)), M, 0.0, "Swish", "lost",
    ),
    FunctionFault(
        "swish with beta forgets the inner derivative", "formula",
        *of_input(
            "SwishBeta", lambda x: x * torch.sigmoid(1.5 * x),
            lambda x: torch.sigmoid(1.5 * x) + x * torch.sigmoid(1.5 * x) * torch.sigmoid(-1.5 * x), swish_slope(1.5),
        ), M, 0.0, "SwishBeta",
    ),
    FunctionFault(
        "quick gelu has 1.7 for 1.702 in its backward", "precision",
        *of_input("QuickGelu", lambda x: x * torch.sigmoid(1.702 * x), swish_slope(1.7), swish_slope(1.702)),
        M, 0.0, "QuickGelu",
    ),
    FunctionFault(
        "gelu by tanh has 0.0447 for 0.044715 in its backward", "precision",
        *of_input("TanhGelu", gelu_tanh, gelu_tanh_slope(ROOT, 0.0447), gelu_tanh_slope(ROOT, 0.044715)), M, 0.0, "TanhGelu",
    ),
    FunctionFault(
        "gelu by tanh has 0.7978 for the root of 2/pi", "precision",
        *of_input("TanhGelu", gelu_tanh, gelu_tanh_slope(0.7978, 0.044715), gelu_tanh_slope(ROOT, 0.044715)),
        M, 0.0, "TanhGelu",
    ),
    FunctionFault(
        "gelu by erf has the backward of gelu by tanh", "formula",
        *of_input("Gelu", gelu_erf, gelu_tanh_slope(ROOT, 0.044715), gelu_erf_slope), M, 0.0, "Gelu",
    ),
    FunctionFault(
        "mish forgets the derivative of its softplus", "formula",
        *of_input("Mish", lambda x: x * torch.tanh(F.softplus(x)), mish_without_the_inner, mish_slope), M, 0.0, "Mish",
    ),
    FunctionFault(
        "tanh forgets to square", "formula",
        *of_output("Tanh", torch.tanh, lambda y: 1 - y, lambda y: 1 - y * y), M, 0.0, "Tanh",
    ),
    FunctionFault(
        "softplus has the derivative of a rectifier", "formula",
        *of_input("Softplus", F.softplus, lambda x: (x > 0).to(x.dtype), torch.sigmoid), M, 0.0, "Softplus",
    ),
    FunctionFault(
        "log1p has the derivative of log", "formula",
        *of_input("Log1p", torch.log1p, lambda x: 1 / x, lambda x: 1 / (1 + x)), POSITIVE, 0.0, "Log1p",
    ),
    FunctionFault(
        "a power keeps its exponent", "formula",
        *of_input("Power", lambda x: x**3.5, lambda x: 3.5 * x**3.5, lambda x: 3.5 * x**2.5), POSITIVE, 0.0, "Power",
    ),
    FunctionFault(
        "the inverse root has the exponent of the root", "formula",
        *of_input("Rsqrt", torch.rsqrt, lambda x: -0.5 * x**-0.5, lambda x: -0.5 * x**-1.5), POSITIVE, 0.0, "Rsqrt",
    ),
    FunctionFault(
        "the arcsine forgets its root", "formula",
        *of_input("Arcsin", torch.asin, lambda x: 1 / (1 - x * x), lambda x: (1 - x * x) ** -0.5),
        between(-0.9, 0.9, (3, 4)), 0.0, "Arcsin",
    ),
    FunctionFault(
        "softsign forgets to square", "formula",
        *of_input("Softsign", lambda x: x / (1 + x.abs()), lambda x: 1 / (1 + x.abs()), lambda x: (1 + x.abs()) ** -2),
        M, 0.0, "Softsign",
    ),
    FunctionFault(
        "hard swish forgets the 2 in front of x", "formula",
        *of_input("HardSwish", lambda x: x * (x + 3).clamp(0, 6) / 6, lambda x: (x + 3) / 6, lambda x: (2 * x + 3) / 6),
        M, 0.0, "HardSwish",
    ),
    FunctionFault(
        "leaky relu has another slope in its backward", "formula",
        *of_input(
            "LeakyRelu", lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: torch.where(x > 0, 1.0, 0.01),
            lambda x: torch.where(x > 0, 1.0, 0.1),
        ), M, 0.0, "LeakyRelu",
    ),
    FunctionFault(
        "elu forgets alpha", "formula", elu(lambda y, alpha: y + 1), elu(lambda y, alpha: y + alpha), M, 0.0, "Elu",
    ),
    FunctionFault(
        "clamp lets the gradient through above its upper bound", "formula",
        clamp(lambda x, low, high: x >= low), clamp(lambda x, low, high: (x >= low) & (x <= high)), M, 0.0, "Clamp",
    ),
    FunctionFault(
        "the quadratic form takes its matrix for symmetric", "formula",
        *pair(
            "Quadratic", lambda x, a: x @ a @ x, lambda g, x, a: (g * 2 * (a @ x), g * torch.outer(x, x)),
            lambda g, x, a: (g * (a @ x + x @ a), g * torch.outer(x, x)),
        ), normal((4,), (4, 4)), 0.0, "Quadratic",
    ),
    FunctionFault(
        "the norm gives back its input", "formula",
        *pair("Norm", lambda x: x.square().sum().sqrt(), lambda g, x: g * x, lambda g, x: g * x / x.square().sum().sqrt()),
        M, 0.0, "Norm", "factor of",
    ),
    FunctionFault(
        "a product with a zero divides by it", "formula",
        *pair("Product", lambda x: x.prod(1), products(by_division), products(one_by_one)),
        values([[1.5, 0.0, -2.0], [0.5, 3.0, 1.25]]), 1.0, "Product",
    ),
    FunctionFault(
        "a backward clips the cotangent", "formula",
        *twice(
            pair("Clipped", torch.sin, lambda g, x: g.clamp(-1, 1) * x.cos(), lambda g, x: g * x.cos()),
            lambda f, x: 5 * f(x),
        ), M, 0.0, "Clipped",
    ),
    FunctionFault(
        "a small argument is taken for a straight line", "formula",
        *of_input(
            "Sinc", lambda x: torch.sin(x) / x, lambda x: torch.where(x.abs() < 0.5, -x / 3, (x * x.cos() - x.sin()) / x**2),
            lambda x: (x * x.cos() - x.sin()) / x**2,
        ), values([0.4, 0.8, -0.45, 1.5]), 0.0, "Sinc",
    ),
    FunctionFault(
        "the cosine in a sine's backward is a Taylor polynomial", "formula",
        *of_input("TaylorSine", torch.sin, taylor_cosine, torch.cos), values([0.1, -0.5, 1.0, 3.5]), 0.0, "TaylorSine",
    ),
    FunctionFault(
        "tanh's backward has a rational approximation", "formula",
        *of_input("PadeTanh", torch.tanh, tanh_slope_by_pade, lambda x: 1 - torch.tanh(x) ** 2),
        values([0.1, -0.5, 1.0, 2.0]), 0.0, "PadeTanh",
    ),
    FunctionFault(
        "focal loss takes its modulating factor for a constant", "detach",
        *pair("Focal", lambda x: -((1 - torch.sigmoid(x)) ** 2) * F.logsigmoid(x), focal(False), focal(True)), M, 0.0, "Focal",
    ),
    FunctionFault(
        "dice loss forgets the derivative of its denominator", "formula",
        *pair("Dice", lambda p, t: 1 - 2 * (p * t).sum() / (p + t).sum(), dice(False), dice(True)),
        beside(between(0.1, 0.9, (4,)), [1.0, 0.0, 1.0, 0.0]), 0.0, "Dice",
    ),
    FunctionFault(
        "huber loss forgets delta on its linear side", "formula", huber(1.0), huber(1.5), normal((3, 4), scale=3.0), 0.0, "Huber",
    ),
    FunctionFault(
        "kl divergence forgets that its target has a gradient of two parts", "formula",
        *pair(
            "KLDiv", lambda x, t: (t * (t.log() - x)).sum(), lambda g, x, t: (-g * t, g * (t.log() - x)),
            lambda g, x, t: (-g * t, g * (t.log() - x + 1)),
        ), between(0.2, 0.9, (3, 4), (3, 4)), 0.0, "KLDiv",
    ),
    FunctionFault(
        "label smoothing is forgotten in the backward", "formula", cross_entropy(True, 0.1), cross_entropy(False, 0.1),
        beside(normal((4, 3)), [0, 2, 1, 2]), 0.0, "CrossEntropy",
    ),
    FunctionFault(
        "the weight of positive examples is forgotten", "formula",
        *pair(
            "WeightedBCE", positive_weight, lambda g, x, t: (g * (torch.sigmoid(x) - t), None),
            lambda g, x, t: (g * ((1 - t) * torch.sigmoid(x) - 3 * t * torch.sigmoid(-x)), None),
        ), beside(normal((4,)), [1.0, 0.0, 0.0, 1.0]), 0.0, "WeightedBCE",
    ),
    FunctionFault(
        "softmax forgets that its outputs sum to one", "formula",
        *pair(
            "Softmax", lambda x: torch.softmax(x, 1), lambda g, x: g * torch.softmax(x, 1) * (1 - torch.softmax(x, 1)),
            lambda g, x: torch.softmax(x, 1) * (g - (g * torch.softmax(x, 1)).sum(1, keepdim=True)),
        ), M, 0.0, "Softmax",
    ),
    FunctionFault(
        "log-softmax takes the cotangent for one that sums to one", "formula",
        *pair(
            "LogSoftmax", lambda x: torch.log_softmax(x, 1), lambda g, x: g - torch.softmax(x, 1),
            lambda g, x: g - torch.softmax(x, 1) * g.sum(1, keepdim=True),
        ), M, 0.0, "LogSoftmax",
    ),
    FunctionFault(
        "attention forgets what its softmax takes off", "formula",
        attention(delta=lambda p, gp: p * gp), ATTENTION, HEADS, 0.0, "Attention",
    ),
    FunctionFault(
        "rms norm has eps outside its root", "formula",
        rms_norm(lambda ms, eps: 1 / (ms.sqrt() + eps)), rms_norm(lambda ms, eps: torch.rsqrt(ms + eps)), M, 0.0, "RMSNorm",
    ),
    FunctionFault(
        "rms norm forgets eps in its backward", "formula",
        rms_norm(lambda ms, eps: torch.rsqrt(ms)), rms_norm(lambda ms, eps: torch.rsqrt(ms + eps)), M, 0.0, "RMSNorm",
    ),
    FunctionFault(
        "batch norm forgets eps in its backward", "formula", batch_norm(0, eps=0.0), batch_norm(0), CHANNELS, 0.0, "BatchNorm",
    ),
    FunctionFault(
        "layer norm forgets its variance", "formula", layer_norm(through_the_mean), LAYER_NORM, NORM_INPUTS, 0.0, "LayerNorm",
    ),
    # Signs
    FunctionFault(
        "a cosine's gradient has the sign of a sine's", "sign",
        *of_input("Cosine", torch.cos, torch.sin, lambda x: -torch.sin(x)), M, 0.0, "Cosine", "sign",
    ),
    FunctionFault(
        "the quotient rule has a plus", "sign",
        *pair("Quotient", torch.div, lambda g, a, b: (g / b, g * a / b**2), lambda g, a, b: (g / b, -g * a / b**2)),
        between(0.5, 2.0, (3, 4), (3, 4)), 0.0, "Quotient", "sign",
    ),
    FunctionFault(
        "log-sigmoid has a sign inside", "sign",
        *of_input("LogSigmoid", F.logsigmoid, torch.sigmoid, lambda x: torch.sigmoid(-x)), M, 0.0, "LogSigmoid",
    ),
    FunctionFault(
        "sigmoid's backward adds its output", "sign",
        *of_output("Sigmoid", torch.sigmoid, lambda y: y * (1 + y), lambda y: y * (1 - y)), M, 0.0, "Sigmoid",
    ),
    FunctionFault(
        "absolute error is taken from the other side", "sign",
        *pair(
            "AbsoluteError", lambda x, t: (x - t).abs().mean(), lambda g, x, t: (g * (t - x).sign() / x.numel(), None),
            lambda g, x, t: (g * (x - t).sign() / x.numel(), None),
        ), beside(normal((4,)), [0.3, -0.2, 0.9, 0.1]), 0.0, "AbsoluteError", "sign",
    ),
    FunctionFault(
        "a temperature's gradient has the wrong sign", "sign",
        *pair(
            "Tempered", lambda x, t: x / t, lambda g, x, t: (g / t, (g * x).sum() / t**2),
            lambda g, x, t: (g / t, -(g * x).sum() / t**2),
        ), lambda dtype: (*M(dtype), *values(0.7)(dtype)), 0.0, "Tempered", "sign",
    ),
    FunctionFault("rotary positions turn on in the backward", "sign", rotary(+1), rotary(-1), M, 0.0, "Rotary"),
    FunctionFault(
        "a reversal is not reversed", "sign",
        *pair("Identity", torch.clone, lambda g, x: -g, lambda g, x: g), M, 0.0, "Identity", "sign",
    ),
    # Factors and constants
    FunctionFault(
        "a square's gradient forgets its 2", "factor",
        *of_input("Square", lambda x: x * x, lambda x: x, lambda x: 2 * x), M, 0.0, "Square", "factor of 0.5",
    ),
    FunctionFault(
        "a square's gradient has its 2 twice", "factor",
        *of_input("Square", lambda x: x * x, lambda x: 4 * x, lambda x: 2 * x), M, 0.0, "Square", "factor of 2",
    ),
    FunctionFault(
        "a cube's gradient forgets its 3", "factor",
        *of_input("Cube", lambda x: x**3, lambda x: x * x, lambda x: 3 * x * x), M, 0.0, "Cube", "1/3",
    ),
    FunctionFault("an angle in degrees keeps its gradient in radians", "factor", *of_input(
        "Degrees", lambda x: torch.sin(x * (math.pi / 180)), lambda x: torch.cos(x * (math.pi / 180)),
        lambda x: torch.cos(x * (math.pi / 180)) * (math.pi / 180),
    ), normal((3, 4), scale=60.0), 0.0, "Degrees", "factor of 57.29"),
    FunctionFault(
        "an angle in degrees has 3.1416 for pi", "precision", *of_input(
            "Degrees", lambda x: torch.sin(x * (math.pi / 180)), lambda x: torch.cos(x * (math.pi / 180)) * (3.1416 / 180),
            lambda x: torch.cos(x * (math.pi / 180)) * (math.pi / 180),
        ), normal((3, 4), scale=60.0), 0.0, "Degrees", "digits",
    ),
    FunctionFault(
        "a power of two has 0.693147 for log 2", "precision",
        *of_output("Exp2", torch.exp2, lambda y: y * 0.693147, lambda y: y * math.log(2)), M, 0.0, "Exp2", "digits",
    ),
    FunctionFault(
        "log10 has 2.3026 for log 10", "precision",
        *of_input("Log10", torch.log10, lambda x: 1 / (2.3026 * x), lambda x: 1 / (math.log(10) * x)),
        POSITIVE, 0.0, "Log10", "digits",
    ),
    FunctionFault(
        "erf has 1.128 for two over the root of pi", "precision",
        *of_input(
            "Erf", torch.erf, lambda x: 1.128 * torch.exp(-x * x), lambda x: 2 / math.sqrt(math.pi) * torch.exp(-x * x),
        ), M, 0.0, "Erf", "digits",
    ),
    FunctionFault(
        "attention forgets the root of d for its keys", "factor", attention(to_key=2.0), ATTENTION, HEADS, 0.0, "Attention",
        "factor of 2",
    ),
    FunctionFault(
        "dropout forgets to scale its gradient", "factor", dropout(False), dropout(True), M, 0.0, "Dropout", "factor of 0.5",
    ),
    a_factor("1e-3"), a_factor("1e-4"), a_factor("1e-5"), a_factor("1e-6"), a_factor("1e-7"), a_factor("1e-8"),
    a_factor("1e-9"), a_factor("1e-10"), a_factor("1e-11"),
    # Broadcasting
    FunctionFault(
        "a bias has the gradient of the first row alone", "broadcast", linear(right_weight, lambda g: g[0]), LINEAR,
        LINEAR_INPUTS, 0.0, "Linear", "sum",
    ),
    FunctionFault(
        "a broadcast sum gives the gradient of one row", "broadcast",
        *pair("Add", torch.add, lambda g, a, b: (g, g[:1]), lambda g, a, b: (g, g.sum(0, keepdim=True))),
        normal((3, 4), (1, 4)), 0.0, "Add", "sum",
    ),
    FunctionFault(
        "a scalar has the gradient of one entry", "broadcast",
        *pair("Scale", torch.mul, lambda g, x, s: (g * s, (g * x)[0, 0]), lambda g, x, s: (g * s, (g * x).sum())),
        normal((3, 4), ()), 0.0, "Scale", "sum",
    ),
    FunctionFault(
        "a weight that a batch shares has the gradient of its first item", "broadcast",
        *pair("BatchMatmul", torch.matmul, lambda g, x, w: (g @ w.T, (x.mT @ g)[0]), lambda g, x, w: (g @ w.T, (x.mT @ g).sum(0))),
        normal((2, 3, 4), (4, 5)), 0.0, "BatchMatmul", "sum",
    ),
    FunctionFault(
        "nearest upsampling gives back one copy of two", "broadcast",
        *pair(
            "Upsample", lambda x: x.repeat_interleave(2, 1), lambda g, x: g[:, ::2], lambda g, x: g[:, ::2] + g[:, 1::2],
        ), M, 0.0, "Upsample",
    ),
    FunctionFault(
        "differences of all pairs have the gradient of the first of each", "broadcast",
        *pair(
            "Pairs", lambda x: x[:, None] - x[None], lambda g, x: g.sum(1),
            lambda g, x: g.sum(1) - g.sum(0),
        ), normal((4,)), 0.0, "Pairs", "lost",
    ),
    FunctionFault(
        "prelu's slope has a part from the positive side", "broadcast",
        *pair(
            "PRelu", lambda x, a: torch.where(x > 0, x, a * x), prelu_of_channels(lambda x: x),
            prelu_of_channels(lambda x: torch.where(x > 0, 0.0, x)),
        ), normal((5, 3), (3,)), 0.0, "PRelu",
    ),
    # Reductions
    FunctionFault(
        "a bias has the mean over the batch", "reduction", linear(right_weight, lambda g: g.mean(0)), LINEAR, LINEAR_INPUTS,
        0.0, "Linear", "mean",
    ),
    FunctionFault(
        "a mean has the gradient of a sum", "reduction",
        *pair("Mean", torch.mean, lambda g, x: g.expand_as(x), lambda g, x: (g / x.numel()).expand_as(x)), M, 0.0, "Mean", "mean",
    ),
    FunctionFault(
        "cross entropy is not divided by the batch", "reduction", cross_entropy(True), cross_entropy(False),
        beside(normal((5, 3)), [0, 2, 1, 2, 0]), 0.0, "CrossEntropy", "mean",
    ),
    FunctionFault(
        "a variance has n for n - 1", "reduction",
        *pair(
            "Variance", lambda x: x.var(1), lambda g, x: 2 * g[:, None] * (x - x.mean(1, keepdim=True)) / x.shape[1],
            lambda g, x: 2 * g[:, None] * (x - x.mean(1, keepdim=True)) / (x.shape[1] - 1),
        ), M, 0.0, "Variance", "(n-1)/n",
    ),
    FunctionFault(
        "layer norm has n - 1 for n in one of its terms", "reduction", layer_norm(through_one_less), LAYER_NORM, NORM_INPUTS, 0.0,
        "LayerNorm",
    ),
    FunctionFault(
        "layer norm's weight has the mean over the rows", "reduction",
        layer_norm(through_both, lambda g, normed: (g * normed).mean(0)), LAYER_NORM, NORM_INPUTS, 0.0, "LayerNorm", "mean",
    ),
    FunctionFault(
        "batch norm has n - 1 for n in its backward", "reduction", batch_norm(1), batch_norm(0), CHANNELS, 0.0, "BatchNorm",
    ),
    FunctionFault(
        "a masked mean divides by the whole length", "reduction",
        *pair(
            "MaskedMean", lambda x, m: (x * m).sum(1) / m.sum(1), lambda g, x, m: (g[:, None] * m / m.shape[1], None),
            lambda g, x, m: (g[:, None] * m / m.sum(1, keepdim=True), None),
        ), beside(M, [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]]), 0.0, "MaskedMean",
    ),
    FunctionFault(
        "a weighted mean forgets that its weights are in the denominator", "reduction",
        *pair(
            "WeightedMean", lambda x, w: (x * w).sum() / w.sum(), lambda g, x, w: (g * w / w.sum(), g * x / w.sum()),
            lambda g, x, w: (g * w / w.sum(), g * (x - (x * w).sum() / w.sum()) / w.sum()),
        ), between(0.5, 2.0, (4,), (4,)), 0.0, "WeightedMean", "lost",
    ),
    FunctionFault(
        "cross entropy ignores its cotangent", "reduction",
        *twice((cross_entropy(True, ignores=True), cross_entropy(False)), lambda f, x, t: torch.exp(f(x, t))),
        beside(normal((4, 3)), [0, 2, 1, 2]), 0.0, "CrossEntropy", "factor of",
    ),
    # Accumulation
    FunctionFault(
        "an embedding writes where it must add", "accumulation", embedding(False), embedding(True),
        beside(normal((4, 3)), [2, 0, 2, 1, 2]), 0.0, "Embedding",
    ),
    FunctionFault(
        "gather's backward writes where it must add", "accumulation",
        *pair("Gather", lambda x, i: x.gather(1, i), gathering(False), gathering(True)),
        beside(M, [[0, 1, 1], [3, 3, 3], [0, 2, 0]]), 0.0, "Gather",
    ),
    FunctionFault(
        "overlapping windows are written where they must be added", "accumulation",
        *pair("Windows", lambda x: 2 * x.unfold(-1, 3, 1).sum(-1), windows(False), windows(True)), normal((2, 6)), 0.0, "Windows",
    ),
    FunctionFault(
        "a small engine overwrites a shared gradient", "accumulation", engine(put), engine(add), normal((4,), (4,)), 0.0,
        "Engine",
    ),
    FunctionFault(
        "a small engine goes on before all parts have arrived", "accumulation", engine(add, breadth_first), engine(add),
        normal((4,), (4,)), 0.0, "Engine",
    ),
    FunctionFault(
        "a key head that two query heads share is overwritten", "accumulation",
        *pair("GroupedScores", lambda q, k: q @ k.T, one_key_for_two_heads(False), one_key_for_two_heads(True)),
        normal((2, 3, 4), (3, 4)), 0.0, "GroupedScores",
    ),
    FunctionFault(
        "a cell's state has no gradient from its output", "accumulation", lstm_cell(False), lstm_cell(True),
        normal((2, 12), (2, 3)), 0.0, "Cell",
    ),
    FunctionFault("the second output's cotangent is ignored", "accumulation", polar(False), polar(True),
                  between(0.5, 2.0, (3,), (3,)), 0.0, "Polar"),
    # One use of two
    FunctionFault(
        "of two uses only one has a gradient", "second use",
        *of_input("XExp", lambda x: x * torch.exp(x), torch.exp, lambda x: torch.exp(x) * (1 + x)), M, 0.0, "XExp", "lost",
    ),
    FunctionFault(
        "a residual branch is lost", "second use",
        *of_input("Residual", lambda x: x + torch.tanh(x), lambda x: 1 - x.tanh() ** 2, lambda x: 2 - x.tanh() ** 2),
        M, 0.0, "Residual", "lost",
    ),
    FunctionFault(
        "a tied weight has the gradient of its decoder alone", "second use",
        *pair("Autoencoder", lambda x, w: x @ w @ w.T, autoencode(False), autoencode(True)), normal((4, 3), (3, 2)), 0.0,
        "Autoencoder", "lost",
    ),
    FunctionFault(
        "a gate forgets what it takes from the new state", "second use",
        *pair("Blend", lambda a, h, n: n + torch.sigmoid(a) * (h - n), gru_blend(False), gru_blend(True)),
        normal((4,), (4,), (4,)), 0.0, "Blend", "lost",
    ),
    FunctionFault(
        "a gated unit swaps its halves", "second use",
        *pair(
            "GLU", lambda x: x[:, :2] * torch.sigmoid(x[:, 2:]),
            lambda g, x: torch.cat((g * x[:, :2] * torch.sigmoid(x[:, 2:]) * torch.sigmoid(-x[:, 2:]), g * x[:, 2:].sigmoid()), 1),
            lambda g, x: torch.cat((g * x[:, 2:].sigmoid(), g * x[:, :2] * torch.sigmoid(x[:, 2:]) * torch.sigmoid(-x[:, 2:])), 1),
        ), M, 0.0, "GLU",
    ),
    # Detached statistics
    FunctionFault(
        "layer norm takes its statistics for constants", "detach", layer_norm(through_neither), LAYER_NORM, NORM_INPUTS, 0.0,
        "LayerNorm",
    ),
    FunctionFault(
        "batch norm takes its mean for a constant", "detach", batch_norm(0, mean=False), batch_norm(0), CHANNELS, 0.0,
        "BatchNorm",
    ),
    FunctionFault(
        "weight norm takes its norm for a constant", "detach",
        *pair("WeightNorm", lambda v, s: s * v / v.norm(dim=1, keepdim=True), weight_norm(True), weight_norm(False)),
        normal((2, 3), (2, 1)), 0.0, "WeightNorm",
    ),
    FunctionFault(
        "cosine similarity takes its norms for constants", "detach",
        *pair(
            "CosineSimilarity", lambda a, b: (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)), cosine(False), cosine(True),
        ), normal((3, 4), (3, 4)), 0.0, "CosineSimilarity",
    ),
    FunctionFault(
        "a backward gives zeros", "detach",
        *of_input("Zeros", torch.exp, torch.zeros_like, torch.exp), M, 0.0, "Zeros", "zero",
    ),
    # Layout
    FunctionFault(
        "a square weight's gradient is transposed", "layout", linear(lambda g, x: x.T @ g, right_bias), LINEAR, LINEAR_INPUTS,
        0.0, "Linear", "transposed",
    ),
    FunctionFault(
        "a square weight is not transposed back", "layout", linear(right_weight, right_bias, square=True), LINEAR,
        LINEAR_INPUTS, 0.0, "Linear",
    ),
    FunctionFault(
        "a backward takes its cotangent for contiguous", "layout",
        *twice(
            pair("Square", torch.square, lambda g, x: in_one_piece(g) * 2 * x, lambda g, x: g * 2 * x), lambda f, x: f(x).T * 1.5,
        ), M, 0.0, "Square",
    ),
    FunctionFault(
        "a backward takes its input for contiguous", "layout",
        *twice(
            pair("Square", torch.square, lambda g, x: g * 2 * in_one_piece(x), lambda g, x: g * 2 * x), lambda f, x: f((x * 1.0).T),
        ), M, 0.0, "Square",
    ),
    FunctionFault(
        "one entry of an expanded cotangent is set to zero", "layout",
        *twice(
            pair("Rest", lambda x: torch.cat((x[:1] * 0, x[1:] ** 2)), zeroing(False), zeroing(True)), lambda f, x: f(x).sum(),
        ), normal((4,)), 0.0, "Rest",
    ),
    # Aliasing
    FunctionFault(
        "a backward multiplies its cotangent in place", "aliasing",
        *twice(
            pair("Sine", torch.sin, multiplied_in_place, lambda g, x: g * torch.cos(x)), lambda f, x: (1.5 * x).tanh() + f(x * 2),
        ), M, 0.0, "Sine",
    ),
    FunctionFault(
        "a gradient is doubled in place and passed on twice", "aliasing",
        *pair("WeightedSum", lambda a, b: 2 * a + b, doubled_in_place, lambda g, a, b: (2 * g, g)), normal((4,), (4,)), 0.0,
        "WeightedSum", "factor of 2",
    ),
    FunctionFault(
        "two calls share a buffer for their gradients", "aliasing", workspace(False), workspace(True), normal((4,), (4,)), 0.0,
        "Workspace",
    ),
    # Saved tensors
    FunctionFault(
        "a class remembers its last call only", "saved tensor", last_call(lambda ctx: Remembered), last_call(lambda ctx: ctx), M,
        0.0, "Square",
    ),
    FunctionFault(
        "what was saved is changed by the caller", "saved tensor", changed_by_the_caller(lambda x: x),
        changed_by_the_caller(torch.clone), M, 0.0, "Cube", "changed in place",
    ),
    FunctionFault(
        "what was saved is scaled in place by the forward", "saved tensor", changed_in_its_forward(lambda y, gain: y.mul_(gain)),
        changed_in_its_forward(lambda y, gain: y * gain), normal((3, 4), (4,)), 0.0, "Gain",
    ),
    FunctionFault(
        "an exponential in place takes its output for its input", "saved tensor", exponential_in_place(torch.exp),
        exponential_in_place(lambda y: y), M, 0.0, "Exponential",
    ),
    FunctionFault(
        "a root takes its output for its input", "saved tensor",
        *of_output("Root", torch.sqrt, lambda y: 0.5 / y.sqrt(), lambda y: 0.5 / y), POSITIVE, 0.0, "Root",
    ),
    FunctionFault(
        "expm1 takes its output for the exponential", "saved tensor",
        *of_output("Expm1", torch.expm1, lambda y: y, lambda y: y + 1), POSITIVE, 0.0, "Expm1", "forward value",
    ),
    FunctionFault(
        "dropout draws another mask in its backward", "saved tensor", dropout(True, seed=4), dropout(True), M, 0.0, "Dropout",
    ),
    # Precision
    FunctionFault(
        "a backward computes in float32", "precision",
        *of_input("Exponential", torch.exp, in_float32(torch.exp), torch.exp), M, 0.0, "Exponential", "float32",
    ),
    FunctionFault(
        "a weight's gradient is summed in half precision", "precision",
        *pair("HalfMatmul", torch.matmul, one_by_one_in_half, matmul), normal((6, 3), (3, 2)), 0.0, "HalfMatmul", "precision",
    ),
    FunctionFault(
        "a backward rounds to bfloat16", "precision",
        *of_input("RoundedSine", torch.sin, lambda x: x.cos().bfloat16().to(x.dtype), torch.cos), M, 0.0, "RoundedSine",
    ),
    FunctionFault(
        "a reciprocal takes one Newton step from half precision", "precision",
        *of_input("Log", torch.log, newton_reciprocal, torch.reciprocal), POSITIVE, 0.0, "Log",
    ),
    FunctionFault(
        "a derivative is a difference quotient", "precision",
        *of_input("DifferenceTanh", torch.tanh, difference, lambda x: 1 - x.tanh() ** 2), M, 0.0, "DifferenceTanh",
    ),
    FunctionFault(
        "one entry of twelve is off by 1e-3", "precision",
        *pair("OneEntry", torch.exp, in_one_entry(1e-3), in_one_entry(0.0)), M, 0.0, "OneEntry",
    ),
    FunctionFault(
        "one entry of twelve is off by 1e-9", "precision",
        *pair("OneEntry", torch.exp, in_one_entry(1e-9), in_one_entry(0.0)), M, 0.0, "OneEntry",
    ),
    # Indices
    FunctionFault(
        "a grouped convolution has a gradient for its first group alone", "index", conv1d(2, only_the_first_group), conv1d(2),
        normal((2, 4, 5), (4, 2, 3)), 0.0, "Conv1d",
    ),
    FunctionFault(
        "a convolution's kernel is not flipped back", "index",
        *pair("Conv1d", lambda x, w: F.conv1d(x, w, padding=1), flipping(False), flipping(True)), normal((1, 2, 5), (2, 2, 3)),
        0.0, "Conv1d",
    ),
    FunctionFault(
        "a running sum is not reversed", "index",
        *pair("Cumsum", lambda x: x.cumsum(1), lambda g, x: g.cumsum(1), lambda g, x: g.flip(1).cumsum(1).flip(1)), M, 0.0,
        "Cumsum",
    ),
    FunctionFault(
        "a roll is rolled on", "index",
        *pair("Roll", lambda x: x.roll(1, 1), lambda g, x: g.roll(1, 1), lambda g, x: g.roll(-1, 1)), M, 0.0, "Roll",
    ),
    FunctionFault(
        "padding is cut off on the wrong side", "index",
        *pair("Pad", lambda x: F.pad(x, (2, 1)), lambda g, x: g[:, 1:-2], lambda g, x: g[:, 2:-1]), M, 0.0, "Pad",
    ),
    FunctionFault(
        "a sort is not undone but done again", "index", sorted_rows(same), sorted_rows(inverse),
        values([[0.5, -1.25, 2.0, 0.1], [1.5, 0.75, -0.5, 0.6]]), 0.0, "Sort",
    ),
    FunctionFault(
        "the largest entries are put into columns", "index", largest(0), largest(1), normal((4, 4)), 0.0, "Largest",
    ),
    FunctionFault(
        "what was scattered is read back in order", "index",
        *pair(
            "ScatterAdd", lambda x, s, i: x.scatter_add(1, i, s), scattering(lambda i: torch.arange(3).expand_as(i)),
            scattering(lambda i: i),
        ), beside(normal((2, 4), (2, 3)), [[3, 1, 3], [0, 0, 2]]), 0.0, "ScatterAdd",
    ),
    FunctionFault(
        # A special point: gradcheck rejects the twin, too, which splits evenly as `amax` does.
        "a tied maximum gives all of the gradient to each", "index",
        *pair("Amax", lambda x: x.amax(1), tied(lambda top: top), tied(lambda top: top / top.sum(1, keepdim=True))),
        values([[1.0, 2.0, 2.0], [0.5, -1.0, 0.25]]), 0.0, "Amax",
    ),
    FunctionFault(
        "an outer product returns its gradients in swapped order", "index",
        *pair("Outer", torch.outer, lambda g, a, b: (a @ g, g @ b), lambda g, a, b: (g @ b, a @ g)), normal((4,), (4,)), 0.0,
        "Outer",
    ),
    FunctionFault(
        "a weight asks whether the frozen input needs a gradient", "index", frozen_linear(0), frozen_linear(1),
        beside(normal((3, 2)), [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), 1.0, "Linear", "None",
    ),
    FunctionFault(
        "a diagonal is put into the first column", "index",
        *pair("Diagonal", torch.diagonal, lambda g, x: F.pad(g[:, None], (0, 2)), lambda g, x: torch.diag(g)), normal((3, 3)),
        0.0, "Diagonal",
    ),
    FunctionFault(
        "pooling spreads the gradient one place too far", "index",
        *pair(
            "Pool", average_pairs, lambda g, x: g.repeat_interleave(2, -1).roll(1, -1) / 2,
            lambda g, x: g.repeat_interleave(2, -1) / 2,
        ), normal((2, 6)), 0.0, "Pool",
    ),
)  # fmt: skip
