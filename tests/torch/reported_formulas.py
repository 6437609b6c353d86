"""Custom functions that compute something else: formulas, signs, factors, precision.

In every row the forward is right by definition, and the backward of the wrong one is not its derivative; most
are modelled on what was once filed as a bug. The inputs are ordinary numbers, special points only where the
fault needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from faulty import (
    CHANNELS,
    LAYER_NORM,
    NORM_INPUTS,
    POSITIVE,
    Backward,
    FunctionFault,
    M,
    batch_norm,
    beside,
    between,
    cross_entropy,
    dropout,
    function,
    layer_norm,
    normal,
    of_input,
    of_output,
    pair,
    values,
    within,
)
from torch import Tensor
from torch.autograd import Function

# Formulas, elementwise

ROOT = math.sqrt(2 / math.pi)


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x**3)))


def gelu_tanh_slope(root: float, cubic: float) -> Backward:
    def slope(x: Tensor) -> Tensor:
        t = torch.tanh(root * (x + cubic * x**3))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * cubic * x**2)

    return slope


def gelu_erf(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x * math.sqrt(0.5)))


def gelu_erf_slope(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x * math.sqrt(0.5))) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def swish_slope(beta: float) -> Backward:
    def slope(x: Tensor) -> Tensor:
        s = torch.sigmoid(beta * x)
        return s + beta * x * s * (1 - s)

    return slope


def mish_slope(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    return t + x * (1 - t * t) * torch.sigmoid(x)


def mish_without_the_inner(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    return t + x * (1 - t * t)


def taylor_cosine(x: Tensor) -> Tensor:
    """To x^14: right near zero, not at 3.5."""
    return sum((-1) ** k * x ** (2 * k) / math.factorial(2 * k) for k in range(8))


def tanh_slope_by_pade(x: Tensor) -> Tensor:
    y = x * (27 + x * x) / (27 + 9 * x * x)
    return 1 - y * y


def elu(slope: Callable[[Tensor, float], Tensor]) -> Any:
    """The slope of the negative side from the output; alpha is no tensor."""

    class Elu(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, alpha: float) -> Tensor:
            ctx.alpha = alpha
            y = torch.where(x > 0, x, alpha * torch.expm1(x))
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (y,) = ctx.saved_tensors
            return torch.where(y > 0, g, g * slope(y, ctx.alpha)), None

    return lambda x: Elu.apply(x, 1.5)


def clamp(inside: Callable[[Tensor, float, float], Tensor]) -> Any:
    class Clamp(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
            ctx.save_for_backward(x)
            ctx.bounds = low, high
            return x.clamp(low, high)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return g * inside(x, *ctx.bounds), None, None

    return lambda x: Clamp.apply(x, -0.5, 0.75)


def a_factor(epsilon: str) -> FunctionFault:
    name = f"a sine's gradient is off by a factor of 1 + {epsilon}"
    number = 1 + float(epsilon)
    made = of_input("Scaled", torch.sin, lambda x: torch.cos(x) * number, torch.cos)
    return FunctionFault(name, "factor", *made, normal((3, 4)), float(epsilon), "Scaled", "digits")


# Norms and statistics


def through_the_mean(d: Tensor, normed: Tensor) -> Tensor:
    return d - d.mean(-1, keepdim=True)


def rms_norm(inverse: Callable[[Tensor, float], Tensor]) -> Any:
    """`inverse` gives 1 / rms from the mean square and eps, in the backward."""

    class RMSNorm(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
            ctx.save_for_backward(x)
            ctx.eps = eps
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            r = inverse(x.square().mean(-1, keepdim=True), ctx.eps)
            return r * g - x * r**3 * (g * x).mean(-1, keepdim=True), None

    return lambda x: RMSNorm.apply(x, 1e-3)


# Losses


def focal(through: bool) -> Backward:
    """-(1 - p)² log p with p = sigmoid(x)."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        p = torch.sigmoid(x)
        slope = -((1 - p) ** 3)
        return g * (slope + 2 * (1 - p) ** 2 * p * F.logsigmoid(x) if through else slope)

    return backward


def dice(quotient: bool) -> Backward:
    def backward(g: Tensor, p: Tensor, t: Tensor) -> tuple[Tensor, None]:
        top, bottom = 2 * (p * t).sum(), (p + t).sum()
        return -g * (2 * t / bottom - (top / bottom**2 if quotient else 0.0)), None

    return backward


def huber(slope: float) -> Any:
    """delta = 1.5; `slope` is that of the linear side in the backward."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        return g * torch.where(x.abs() <= 1.5, x, slope * x.sign())

    def forward(x: Tensor) -> Tensor:
        return torch.where(x.abs() <= 1.5, 0.5 * x * x, 1.5 * (x.abs() - 0.75))

    return function("Huber", forward, backward)


def positive_weight(x: Tensor, t: Tensor) -> Tensor:
    return -(3 * t * F.logsigmoid(x) + (1 - t) * F.logsigmoid(-x))


# Convolution, pooling, indices


def products(others: Callable[[Tensor], Tensor]) -> Backward:
    return lambda g, x: g[:, None] * others(x)


def by_division(x: Tensor) -> Tensor:
    return x.prod(1, keepdim=True) / x


def one_by_one(x: Tensor) -> Tensor:
    columns = range(x.shape[1])
    return torch.stack(
        [x[:, [other for other in columns if other != column]].prod(1) for column in columns], 1
    )


# Attention and positions


def attention(to_key: float = 1.0, delta: Callable[[Tensor, Tensor], Tensor] | None = None) -> Any:
    """softmax(q kᵀ / √d) v. `to_key` scales the key's gradient, `delta` is what the softmax takes off its
    cotangent."""

    class Attention(Function):
        @staticmethod
        def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            p = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
            ctx.save_for_backward(q, k, v, p)
            return p @ v

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            q, k, v, p = ctx.saved_tensors
            gp = g @ v.mT
            off = (p * gp).sum(-1, keepdim=True) if delta is None else delta(p, gp)
            gs = p * (gp - off) / math.sqrt(q.shape[-1])
            return gs @ k, to_key * gs.mT @ q, p.mT @ g

    return Attention.apply


ATTENTION = attention()


def rotated(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def rotary(sign: int) -> Any:
    class Rotary(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            half = x.shape[-1] // 2
            turn = torch.arange(1.0, 1 + x.shape[0])[:, None] / torch.arange(1.0, 1 + half)
            turn = torch.cat((turn, turn), -1).to(x.dtype)
            ctx.cos, ctx.sin = turn.cos(), turn.sin()
            return x * ctx.cos + rotated(x) * ctx.sin

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * ctx.cos + sign * rotated(g * ctx.sin)

    return Rotary.apply


# Precision

HEADS = normal((3, 4), (3, 4), (3, 4))


FAULTS = (
    # Formulas
    FunctionFault(
        "swish forgets the derivative of its sigmoid", "formula",
        *of_input("Swish", lambda x: x * torch.sigmoid(x), torch.sigmoid, swish_slope(1.0)), M, 0.68, "Swish", "lost",
    ),
    FunctionFault(
        "swish with beta forgets the inner derivative", "formula",
        *of_input(
            "SwishBeta", lambda x: x * torch.sigmoid(1.5 * x),
            lambda x: torch.sigmoid(1.5 * x) + x * torch.sigmoid(1.5 * x) * torch.sigmoid(-1.5 * x), swish_slope(1.5),
        ), M, 0.18, "SwishBeta",
    ),
    FunctionFault(
        "quick gelu has 1.7 for 1.702 in its backward", "precision",
        *of_input("QuickGelu", lambda x: x * torch.sigmoid(1.702 * x), swish_slope(1.7), swish_slope(1.702)),
        M, 6.7e-4, "QuickGelu",
    ),
    FunctionFault(
        "gelu by tanh has 0.0447 for 0.044715 in its backward", "precision",
        *of_input("TanhGelu", gelu_tanh, gelu_tanh_slope(ROOT, 0.0447), gelu_tanh_slope(ROOT, 0.044715)), M, 2.1e-5, "TanhGelu",
    ),
    FunctionFault(
        "gelu by tanh has 0.7978 for the root of 2/pi", "precision",
        *of_input("TanhGelu", gelu_tanh, gelu_tanh_slope(0.7978, 0.044715), gelu_tanh_slope(ROOT, 0.044715)),
        M, 6.1e-5, "TanhGelu",
    ),
    FunctionFault(
        "gelu by erf has the backward of gelu by tanh", "formula",
        *of_input("Gelu", gelu_erf, gelu_tanh_slope(ROOT, 0.044715), gelu_erf_slope), M, 8.2e-4, "Gelu",
    ),
    FunctionFault(
        "mish forgets the derivative of its softplus", "formula",
        *of_input("Mish", lambda x: x * torch.tanh(F.softplus(x)), mish_without_the_inner, mish_slope), M, 0.96, "Mish",
    ),
    FunctionFault(
        "tanh forgets to square", "formula",
        *of_output("Tanh", torch.tanh, lambda y: 1 - y, lambda y: 1 - y * y), M, 0.89, "Tanh",
    ),
    FunctionFault(
        "softplus has the derivative of a rectifier", "formula",
        *of_input("Softplus", F.softplus, lambda x: (x > 0).to(x.dtype), torch.sigmoid), M, 0.92, "Softplus",
    ),
    FunctionFault(
        "log1p has the derivative of log", "formula",
        *of_input("Log1p", torch.log1p, lambda x: 1 / x, lambda x: 1 / (1 + x)), POSITIVE, 0.52, "Log1p",
    ),
    FunctionFault(
        "a power keeps its exponent", "formula",
        *of_input("Power", lambda x: x**3.5, lambda x: 3.5 * x**3.5, lambda x: 3.5 * x**2.5), POSITIVE, 0.49, "Power",
    ),
    FunctionFault(
        "the inverse root has the exponent of the root", "formula",
        *of_input("Rsqrt", torch.rsqrt, lambda x: -0.5 * x**-0.5, lambda x: -0.5 * x**-1.5), POSITIVE, 0.41, "Rsqrt",
    ),
    FunctionFault(
        "the arcsine forgets its root", "formula",
        *of_input("Arcsin", torch.asin, lambda x: 1 / (1 - x * x), lambda x: (1 - x * x) ** -0.5),
        between(-0.9, 0.9, (3, 4)), 0.47, "Arcsin",
    ),
    FunctionFault(
        "softsign forgets to square", "formula",
        *of_input("Softsign", lambda x: x / (1 + x.abs()), lambda x: 1 / (1 + x.abs()), lambda x: (1 + x.abs()) ** -2),
        M, 0.55, "Softsign",
    ),
    FunctionFault(
        "hard swish forgets the 2 in front of x", "formula",
        *of_input("HardSwish", lambda x: x * (x + 3).clamp(0, 6) / 6, lambda x: (x + 3) / 6, lambda x: (2 * x + 3) / 6),
        M, 0.8, "HardSwish",
    ),
    FunctionFault(
        "leaky relu has another slope in its backward", "formula",
        *of_input(
            "LeakyRelu", lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: torch.where(x > 0, torch.ones_like(x), 0.01),
            lambda x: torch.where(x > 0, torch.ones_like(x), 0.1),
        ), M, 0.24, "LeakyRelu",
    ),
    FunctionFault(
        # Between two Python numbers `where` is float32. This was our own twin of the row above; gradcheck
        # passes it.
        "leaky relu has a slope in float32 by accident", "precision",
        *of_input(
            "LeakyRelu", lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: torch.where(x > 0, 1.0, 0.1),
            lambda x: torch.where(x > 0, torch.ones_like(x), 0.1),
        ), M, 4e-9, "LeakyRelu", "float32",
    ),
    FunctionFault(
        "elu forgets alpha", "formula", elu(lambda y, alpha: y + 1), elu(lambda y, alpha: y + alpha), M, 0.91, "Elu",
    ),
    FunctionFault(
        "clamp lets the gradient through above its upper bound", "formula",
        clamp(lambda x, low, high: x >= low), clamp(lambda x, low, high: (x >= low) & (x <= high)), M, 1.0, "Clamp",
    ),
    FunctionFault(
        "the quadratic form takes its matrix for symmetric", "formula",
        *pair(
            "Quadratic", lambda x, a: x @ a @ x, lambda g, x, a: (g * 2 * (a @ x), g * torch.outer(x, x)),
            lambda g, x, a: (g * (a @ x + x @ a), g * torch.outer(x, x)),
        ), normal((4,), (4, 4)), 0.97, "Quadratic",
    ),
    FunctionFault(
        "the norm gives back its input", "formula",
        *pair("Norm", lambda x: x.square().sum().sqrt(), lambda g, x: g * x, lambda g, x: g * x / x.square().sum().sqrt()),
        M, 0.72, "Norm", "factor of",
    ),
    FunctionFault(
        "a product with a zero divides by it", "formula",
        *pair("Product", lambda x: x.prod(1), products(by_division), products(one_by_one)),
        values([[1.5, 0.0, -2.0], [0.5, 3.0, 1.25]]), 1.0, "Product",
    ),
    FunctionFault(
        "a backward clips the cotangent", "formula",
        *within(
            pair("Clipped", torch.sin, lambda g, x: g.clamp(-1, 1) * x.cos(), lambda g, x: g * x.cos()),
            lambda f, x: 5 * f(x),
        ), M, 0.94, "Clipped",
    ),
    FunctionFault(
        "a small argument is taken for a straight line", "formula",
        *of_input(
            "Sinc", lambda x: torch.sin(x) / x, lambda x: torch.where(x.abs() < 0.5, -x / 3, (x * x.cos() - x.sin()) / x**2),
            lambda x: (x * x.cos() - x.sin()) / x**2,
        ), values([0.4, 0.8, -0.45, 1.5]), 0.016, "Sinc",
    ),
    FunctionFault(
        "the cosine in a sine's backward is a Taylor polynomial", "formula",
        *of_input("TaylorSine", torch.sin, taylor_cosine, torch.cos), values([0.1, -0.5, 1.0, 3.5]), 1.6e-5, "TaylorSine",
    ),
    FunctionFault(
        "tanh's backward has a rational approximation", "formula",
        *of_input("PadeTanh", torch.tanh, tanh_slope_by_pade, lambda x: 1 - torch.tanh(x) ** 2),
        values([0.1, -0.5, 1.0, 2.0]), 0.029, "PadeTanh",
    ),
    FunctionFault(
        "focal loss takes its modulating factor for a constant", "detach",
        *pair("Focal", lambda x: -((1 - torch.sigmoid(x)) ** 2) * F.logsigmoid(x), focal(False), focal(True)), M, 0.55, "Focal",
    ),
    FunctionFault(
        "dice loss forgets the derivative of its denominator", "formula",
        *pair("Dice", lambda p, t: 1 - 2 * (p * t).sum() / (p + t).sum(), dice(False), dice(True)),
        beside(between(0.1, 0.9, (4,)), [1.0, 0.0, 1.0, 0.0]), 0.28, "Dice",
    ),
    FunctionFault(
        "huber loss forgets delta on its linear side", "formula", huber(1.0), huber(1.5), normal((3, 4), scale=3.0), 0.33,
        "Huber",
    ),
    FunctionFault(
        "kl divergence forgets a part of its target's gradient", "formula",
        *pair(
            "KLDiv", lambda x, t: (t * (t.log() - x)).sum(), lambda g, x, t: (-g * t, g * (t.log() - x)),
            lambda g, x, t: (-g * t, g * (t.log() - x + 1)),
        ), between(0.2, 0.9, (3, 4), (3, 4)), 0.55, "KLDiv",
    ),
    FunctionFault(
        "label smoothing is forgotten in the backward", "formula", cross_entropy("smoothing", 0.1), cross_entropy("", 0.1),
        beside(normal((4, 3)), [0, 2, 1, 2]), 0.074, "CrossEntropy",
    ),
    FunctionFault(
        "the weight of positive examples is forgotten", "formula",
        *pair(
            "WeightedBCE", positive_weight, lambda g, x, t: (g * (torch.sigmoid(x) - t), None),
            lambda g, x, t: (g * ((1 - t) * torch.sigmoid(x) - 3 * t * torch.sigmoid(-x)), None),
        ), beside(normal((4,)), [1.0, 0.0, 0.0, 1.0]), 0.67, "WeightedBCE",
    ),
    FunctionFault(
        "softmax forgets that its outputs sum to one", "formula",
        *pair(
            "Softmax", lambda x: torch.softmax(x, 1), lambda g, x: g * torch.softmax(x, 1) * (1 - torch.softmax(x, 1)),
            lambda g, x: torch.softmax(x, 1) * (g - (g * torch.softmax(x, 1)).sum(1, keepdim=True)),
        ), M, 0.93, "Softmax",
    ),
    FunctionFault(
        "log-softmax takes the cotangent for one that sums to one", "formula",
        *pair(
            "LogSoftmax", lambda x: torch.log_softmax(x, 1), lambda g, x: g - torch.softmax(x, 1),
            lambda g, x: g - torch.softmax(x, 1) * g.sum(1, keepdim=True),
        ), M, 1.3, "LogSoftmax",
    ),
    FunctionFault(
        "attention forgets what its softmax takes off", "formula",
        attention(delta=lambda p, gp: p * gp), ATTENTION, HEADS, 0.75, "Attention",
    ),
    FunctionFault(
        "rms norm has eps outside its root", "formula",
        rms_norm(lambda ms, eps: 1 / (ms.sqrt() + eps)), rms_norm(lambda ms, eps: torch.rsqrt(ms + eps)), M, 9.5e-4, "RMSNorm",
    ),
    FunctionFault(
        "rms norm forgets eps in its backward", "formula",
        rms_norm(lambda ms, eps: torch.rsqrt(ms)), rms_norm(lambda ms, eps: torch.rsqrt(ms + eps)), M, 6.2e-3, "RMSNorm",
    ),
    FunctionFault(
        "batch norm forgets eps in its backward", "formula", batch_norm(0, eps=0.0), batch_norm(0), CHANNELS, 9.3e-6,
        "BatchNorm",
    ),
    FunctionFault(
        "layer norm forgets its variance", "formula", layer_norm(through_the_mean), LAYER_NORM, NORM_INPUTS, 0.77, "LayerNorm",
    ),
    # Signs
    FunctionFault(
        "a cosine's gradient has the sign of a sine's", "sign",
        *of_input("Cosine", torch.cos, torch.sin, lambda x: -torch.sin(x)), M, 2.0, "Cosine", "sign",
    ),
    FunctionFault(
        "the quotient rule has a plus", "sign",
        *pair("Quotient", torch.div, lambda g, a, b: (g / b, g * a / b**2), lambda g, a, b: (g / b, -g * a / b**2)),
        between(0.5, 2.0, (3, 4), (3, 4)), 2.0, "Quotient", "sign",
    ),
    FunctionFault(
        "log-sigmoid has a sign inside", "sign",
        *of_input("LogSigmoid", F.logsigmoid, torch.sigmoid, lambda x: torch.sigmoid(-x)), M, 0.75, "LogSigmoid",
    ),
    FunctionFault(
        "sigmoid's backward adds its output", "sign",
        *of_output("Sigmoid", torch.sigmoid, lambda y: y * (1 + y), lambda y: y * (1 - y)), M, 0.9, "Sigmoid",
    ),
    FunctionFault(
        "absolute error is taken from the other side", "sign",
        *pair(
            "AbsoluteError", lambda x, t: (x - t).abs().mean(), lambda g, x, t: (g * (t - x).sign() / x.numel(), None),
            lambda g, x, t: (g * (x - t).sign() / x.numel(), None),
        ), beside(normal((4,)), [0.3, -0.2, 0.9, 0.1]), 2.0, "AbsoluteError", "sign",
    ),
    FunctionFault(
        "a temperature's gradient has the wrong sign", "sign",
        *pair(
            "Tempered", lambda x, t: x / t, lambda g, x, t: (g / t, (g * x).sum() / t**2),
            lambda g, x, t: (g / t, -(g * x).sum() / t**2),
        ), lambda dtype: (*M(dtype), *values(0.7)(dtype)), 2.0, "Tempered", "sign",
    ),
    FunctionFault("rotary positions turn on in the backward", "sign", rotary(+1), rotary(-1), M, 2.0, "Rotary"),
    FunctionFault(
        "a copy turns its gradient around", "sign",
        *pair("Identity", torch.clone, lambda g, x: -g, lambda g, x: g), M, 2.0, "Identity", "sign",
    ),
    # Factors and constants
    FunctionFault(
        "a square's gradient forgets its 2", "factor",
        *of_input("Square", lambda x: x * x, lambda x: x, lambda x: 2 * x), M, 0.5, "Square", "factor of 0.5",
    ),
    FunctionFault(
        "a square's gradient has its 2 twice", "factor",
        *of_input("Square", lambda x: x * x, lambda x: 4 * x, lambda x: 2 * x), M, 0.5, "Square", "factor of 2",
    ),
    FunctionFault(
        "a cube's gradient forgets its 3", "factor",
        *of_input("Cube", lambda x: x**3, lambda x: x * x, lambda x: 3 * x * x), M, 0.67, "Cube", "factor of 0.333",
    ),
    FunctionFault("an angle in degrees keeps its gradient in radians", "factor", *of_input(
        "Degrees", lambda x: torch.sin(x * (math.pi / 180)), lambda x: torch.cos(x * (math.pi / 180)),
        lambda x: torch.cos(x * (math.pi / 180)) * (math.pi / 180),
    ), normal((3, 4), scale=60.0), 0.98, "Degrees", "factor of 57.29"),
    FunctionFault(
        "an angle in degrees has 3.1416 for pi", "precision", *of_input(
            "Degrees", lambda x: torch.sin(x * (math.pi / 180)), lambda x: torch.cos(x * (math.pi / 180)) * (3.1416 / 180),
            lambda x: torch.cos(x * (math.pi / 180)) * (math.pi / 180),
        ), normal((3, 4), scale=60.0), 2.3e-6, "Degrees", "digits",
    ),
    FunctionFault(
        "a power of two has 0.693147 for log 2", "precision",
        *of_output("Exp2", torch.exp2, lambda y: y * 0.693147, lambda y: y * math.log(2)), M, 2.6e-7, "Exp2", "digits",
    ),
    FunctionFault(
        "log10 has 2.3026 for log 10", "precision",
        *of_input("Log10", torch.log10, lambda x: 1 / (2.3026 * x), lambda x: 1 / (math.log(10) * x)),
        POSITIVE, 6.5e-6, "Log10", "digits",
    ),
    FunctionFault(
        "erf has 1.128 for two over the root of pi", "precision",
        *of_input(
            "Erf", torch.erf, lambda x: 1.128 * torch.exp(-x * x), lambda x: 2 / math.sqrt(math.pi) * torch.exp(-x * x),
        ), M, 3.4e-4, "Erf", "digits",
    ),
    FunctionFault(
        "attention forgets the root of d for its keys", "factor", attention(to_key=2.0), ATTENTION, HEADS, 0.5, "Attention",
        "factor of 2",
    ),
    FunctionFault(
        "dropout forgets to scale its gradient", "factor", dropout(False), dropout(True), M, 0.5, "Dropout", "factor of 0.5",
    ),
    a_factor("1e-3"), a_factor("1e-4"), a_factor("1e-5"), a_factor("1e-6"), a_factor("1e-7"), a_factor("1e-8"),
    a_factor("1e-9"), a_factor("1e-10"), a_factor("1e-11"),
)  # fmt: skip
