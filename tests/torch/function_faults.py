"""Wrong `autograd.Function`s beside their right twins, modelled on reports of real bugs.

Both of a pair have the same forward; only the backward differs. `error` is the relative error of the wrong
gradient, about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from faulty import FunctionFault, Inputs
from torch import Tensor
from torch.nn import functional as F


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
    """A custom function; the backward gets the cotangents and then the inputs, and gives a cotangent for each
    of those."""

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


def layer_norm_back(
    mean: bool = True, spread: bool = True, correction: int = 0, eps: float = 1e-5
) -> Callable[..., Any]:
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

    return FunctionFault(name, kind, whole(wrong), whole(right), inputs, error, "Custom", note)


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
