"""Custom functions with right numbers in wrong places: shapes, uses, memory, indices.

In every row the forward is right by definition, and the backward of the wrong one is not its derivative; most
are modelled on what was once filed as a bug. The inputs are ordinary numbers, special points only where the
fault needs them.
"""

from __future__ import annotations

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
    layer_norm,
    normal,
    of_input,
    of_output,
    pair,
    through_both,
    values,
    within,
)
from torch import Tensor
from torch.autograd import Function
from torch.nn import grad as convolution

# Formulas, elementwise


def in_one_entry(epsilon: float) -> Backward:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        gradient = g * torch.exp(x)
        gradient[2, 1] *= 1 + epsilon
        return gradient

    return backward


def average_pairs(y: Tensor) -> Tensor:
    return y.reshape(*y.shape[:-1], -1, 2).mean(-1)


# Broadcasting, products, linear maps


def linear(
    weight: Callable[[Tensor, Tensor], Tensor], bias: Callable[[Tensor], Tensor], turned: bool = False
) -> Any:
    """`turned` takes the weight for its transpose in the gradient of x."""

    class Linear(Function):
        @staticmethod
        def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
            return x @ w.T + b

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
            x, w, _ = inputs
            ctx.save_for_backward(x, w)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, w = ctx.saved_tensors
            gx = gw = gb = None
            if ctx.needs_input_grad[0]:
                gx = g @ (w.T if turned else w)
            if ctx.needs_input_grad[1]:
                gw = weight(g, x)
            if ctx.needs_input_grad[2]:
                gb = bias(g)
            return gx, gw, gb

    return Linear.apply


def right_weight(g: Tensor, x: Tensor) -> Tensor:
    return g.T @ x


def right_bias(g: Tensor) -> Tensor:
    return g.sum(0)


LINEAR = linear(right_weight, right_bias)


def frozen_linear(asked: int) -> Any:
    """Asks whether input `asked` needs a gradient before it works out that of the weight, input 1."""

    class Linear(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, w = ctx.saved_tensors
            gx = g @ w.T if ctx.needs_input_grad[0] else None
            gw = x.T @ g if ctx.needs_input_grad[asked] else None
            return gx, gw

    return lambda w, x: Linear.apply(x, w)


def prelu_of_channels(below: Callable[[Tensor], Tensor]) -> Backward:
    def backward(g: Tensor, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(x > 0, g, g * a), (g * below(x)).sum(0)

    return backward


def autoencode(encoder: bool) -> Backward:
    """x W Wᵀ: the weight is used twice."""

    def backward(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        decoded = g.T @ (x @ w)
        return g @ w @ w.T, decoded + x.T @ (g @ w) if encoder else decoded

    return backward


# Norms and statistics


def through_neither(d: Tensor, normed: Tensor) -> Tensor:
    return d


def through_one_less(d: Tensor, normed: Tensor) -> Tensor:
    return d - d.mean(-1, keepdim=True) - normed * (d * normed).sum(-1, keepdim=True) / (d.shape[-1] - 1)


def weight_norm(detached: bool) -> Backward:
    def backward(g: Tensor, v: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        length = v.norm(dim=1, keepdim=True)
        unit = v / length
        along = (g * unit).sum(1, keepdim=True)
        return size * (g if detached else g - along * unit) / length, along

    return backward


def cosine(projected: bool) -> Backward:
    def backward(g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        na, nb = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
        ua, ub, g = a / na, b / nb, g[..., None]
        c = (ua * ub).sum(-1, keepdim=True) if projected else 0.0
        return g * (ub - c * ua) / na, g * (ua - c * ub) / nb

    return backward


# Convolution, pooling, indices


def conv1d(groups: int, weight: Callable[[Tensor], Tensor] = torch.clone) -> Any:
    class Conv1d(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return F.conv1d(x, w, padding=1, groups=groups)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, w = ctx.saved_tensors
            gx = convolution.conv1d_input(x.shape, w, g, padding=1, groups=groups)
            return gx, weight(convolution.conv1d_weight(x, w.shape, g, padding=1, groups=groups))

    return Conv1d.apply


def only_the_first_group(gw: Tensor) -> Tensor:
    half = len(gw) // 2
    return torch.cat([gw[:half], torch.zeros_like(gw[half:])])


def flipping(flip: bool) -> Backward:
    """The input's gradient as a correlation with the kernel, which must be flipped."""

    def backward(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        turned = w.transpose(0, 1)
        gx = F.conv1d(g, turned.flip(-1) if flip else turned, padding=1)
        return gx, convolution.conv1d_weight(x, w.shape, g, padding=1)

    return backward


def embedding(adds: bool) -> Any:
    class Embedding(Function):
        @staticmethod
        def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
            ctx.save_for_backward(index)
            ctx.rows = len(table)
            return table[index]

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            (index,) = ctx.saved_tensors
            gradient = g.new_zeros(ctx.rows, g.shape[-1])
            for row, i in zip(g, index.tolist(), strict=True):
                if adds:
                    gradient[i] += row
                else:
                    gradient[i] = row
            return gradient, None

    return Embedding.apply


def gathering(adds: bool) -> Backward:
    def backward(g: Tensor, x: Tensor, index: Tensor) -> tuple[Tensor, None]:
        zeros = torch.zeros_like(x)
        return zeros.scatter_add(1, index, g) if adds else zeros.scatter(1, index, g), None

    return backward


def scattering(index_of: Callable[[Tensor], Tensor]) -> Backward:
    def backward(g: Tensor, x: Tensor, source: Tensor, index: Tensor) -> tuple[Tensor, Tensor, None]:
        return g, g.gather(1, index_of(index)), None

    return backward


def windows(adds: bool) -> Backward:
    """Twice the sums over overlapping windows of three, put back."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        gradient = torch.zeros_like(x)
        for start in range(g.shape[-1]):
            if adds:
                gradient[..., start : start + 3] += g[..., start : start + 1] * 2
            else:
                gradient[..., start : start + 3] = g[..., start : start + 1] * 2
        return gradient

    return backward


def largest(axis: int) -> Any:
    """The largest of each row, with its place, which is not differentiable."""

    class Largest(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
            top, place = x.max(1)
            ctx.save_for_backward(place)
            ctx.shape = x.shape
            ctx.mark_non_differentiable(place)
            return top, place

        @staticmethod
        def backward(ctx: Any, g: Tensor, _: Tensor) -> Tensor:
            (place,) = ctx.saved_tensors
            return g.new_zeros(ctx.shape).scatter(axis, place.unsqueeze(axis), g.unsqueeze(axis))

    return lambda x: Largest.apply(x)[0]


def sorted_rows(restore: Callable[[Tensor], Tensor]) -> Any:
    class Sort(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ordered, ctx.order = x.sort(dim=1)
            return ordered

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g.gather(1, restore(ctx.order))

    return Sort.apply


def tied(share: Callable[[Tensor], Tensor]) -> Backward:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        top = (x == x.amax(1, keepdim=True)).to(x.dtype)
        return g[:, None] * share(top)

    return backward


# Attention and positions


def one_key_for_two_heads(adds: bool) -> Backward:
    """Scores of two query heads that share one key head."""

    def backward(g: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        gk = torch.zeros_like(k)
        for head in range(2):
            part = g[head].mT @ q[head]
            gk = gk + part if adds else part
        return g @ k, gk

    return backward


# What is used twice: uses, outputs, small engines


def put(gradients: dict[str, Tensor], name: str, part: Tensor) -> None:
    gradients[name] = part


def add(gradients: dict[str, Tensor], name: str, part: Tensor) -> None:
    gradients[name] = gradients[name] + part if name in gradients else part


Tape = list[tuple[str, list[tuple[str, Tensor]]]]


def engine(
    arrive: Callable[[dict[str, Tensor], str, Tensor], None],
    order: Callable[[Tape], Tape] = lambda t: t[::-1],
) -> Any:
    """A small engine of one's own: a tape of local gradients, and a walk back. h is read by three lines."""

    class Engine(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            x, w = x.detach(), w.detach()
            h = x * w
            a, b = torch.sin(h), torch.exp(h)
            ctx.tape = [
                ("h", [("x", w), ("w", x)]),
                ("a", [("h", torch.cos(h))]),
                ("b", [("h", b)]),
                ("c", [("a", b), ("b", a)]),
                ("y", [("c", torch.ones_like(h)), ("h", torch.ones_like(h))]),
            ]
            return a * b + h

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            gradients = {"y": g}
            for name, parents in order(ctx.tape):
                for parent, slope in parents:
                    arrive(gradients, parent, gradients[name] * slope)
            return gradients["x"], gradients["w"]

    return Engine.apply


def breadth_first(tape: Tape) -> Tape:
    """h goes before b has passed on what it has."""
    by_name = dict(tape)
    return [(name, by_name[name]) for name in ("y", "c", "a", "h", "b")]


def lstm_cell(through_output: bool) -> Any:
    """c' = sigmoid(f) c + sigmoid(i) tanh(u), h' = sigmoid(o) tanh(c'): c' is read by h', too."""

    class Cell(Function):
        @staticmethod
        def forward(ctx: Any, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            i, f, o, u = gates.chunk(4, 1)
            i, f, o, u = i.sigmoid(), f.sigmoid(), o.sigmoid(), u.tanh()
            state = f * c + i * u
            t = state.tanh()
            ctx.save_for_backward(i, f, o, u, c, t)
            return o * t, state

        @staticmethod
        def backward(ctx: Any, gh: Tensor, gc: Tensor) -> Any:
            i, f, o, u, c, t = ctx.saved_tensors
            if through_output:
                gc = gc + gh * o * (1 - t * t)
            parts = gc * u * i * (1 - i), gc * c * f * (1 - f), gh * t * o * (1 - o), gc * i * (1 - u * u)
            return torch.cat(parts, 1), gc * f

    return Cell.apply


def polar(angle: bool) -> Any:
    class Polar(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            ctx.save_for_backward(x, y)
            return torch.sqrt(x * x + y * y), torch.atan2(y, x)

        @staticmethod
        def backward(ctx: Any, gr: Tensor, ga: Tensor) -> Any:
            x, y = ctx.saved_tensors
            r = torch.sqrt(x * x + y * y)
            gx, gy = gr * x / r, gr * y / r
            if angle:
                gx, gy = gx - ga * y / r**2, gy + ga * x / r**2
            return gx, gy

    return Polar.apply


def blending(new_state: bool) -> Backward:
    """n + z (h - n), with z = sigmoid(a)."""

    def backward(g: Tensor, a: Tensor, h: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.sigmoid(a)
        return g * (h - n) * z * (1 - z), g * z, g * (1 - z) if new_state else g

    return backward


def gated(swapped: bool) -> Backward:
    """x[:, :2] sigmoid(x[:, 2:])."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, 1)
        s = torch.sigmoid(gate)
        parts = g * s, g * value * s * (1 - s)
        return torch.cat(parts[::-1] if swapped else parts, 1)

    return backward


# Saved tensors, aliasing, layout


class Remembered:
    """Where a careless function keeps what it must not forget."""

    x: Tensor


def last_call(kept: Callable[[Any], Any]) -> Any:
    class Square(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            kept(ctx).x = x
            return x * x

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 2 * g * kept(ctx).x

    return lambda x: Square.apply(x + 1) * Square.apply(x - 2)


def changed_by_the_caller(keep: Callable[[Tensor], Tensor]) -> Any:
    class Cube(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.x = keep(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 3 * g * ctx.x**2

    def func(x: Tensor) -> Tensor:
        buffer = x * 1.0
        y = Cube.apply(buffer)
        buffer.data.mul_(0.5)
        return y

    return func


def changed_in_its_forward(scale: Callable[[Tensor, Tensor], Tensor]) -> Any:
    class Gain(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, gain: Tensor) -> Tensor:
            y = torch.tanh(x)
            ctx.y, ctx.gain = y, gain
            return scale(y, gain)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return g * ctx.gain * (1 - ctx.y**2), (g * ctx.y).sum(0)

    return Gain.apply


def exponential_in_place(slope: Callable[[Tensor], Tensor]) -> Any:
    """After the forward the input's memory holds the output."""

    class Exponential(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            x.exp_()
            ctx.save_for_backward(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return g * slope(x)

    return lambda x: Exponential.apply(x * 1.0)


def multiplied_in_place(g: Tensor, x: Tensor) -> Tensor:
    return g.mul_(torch.cos(x))


def doubled_in_place(g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    ga = g
    ga *= 2
    return ga, g


def workspace(fresh: bool) -> Any:
    """A buffer for the gradient, allocated once: the next call writes over what the last one passed on."""
    buffers: dict[torch.dtype, Tensor] = {}

    class Workspace(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return torch.exp(x)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            out = torch.empty_like(x) if fresh else buffers.setdefault(x.dtype, torch.empty_like(x))
            return torch.mul(g, torch.exp(x), out=out)

    def func(x: Tensor, w: Tensor) -> Tensor:
        a, b = x * 2, w * 3
        return Workspace.apply(a) + Workspace.apply(b)

    return func


def zeroing(copy: bool) -> Backward:
    """The forward does not read entry 0."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        g = g.clone() if copy else g
        g[0] = 0
        return g * 2 * x

    return backward


def in_one_piece(t: Tensor) -> Tensor:
    """The memory as it lies, taken for row after row."""
    return torch.as_strided(t, t.shape, (t.shape[1], 1))


# Precision


def newton_reciprocal(x: Tensor) -> Tensor:
    """One step from a guess in half precision."""
    guess = (1 / x).half().to(x.dtype)
    return guess * (2 - x * guess)


def difference(x: Tensor) -> Tensor:
    h = 1e-6
    return (torch.tanh(x + h) - torch.tanh(x - h)) / (2 * h)


def in_float32(slope: Callable[[Tensor], Tensor]) -> Backward:
    return lambda x: slope(x.float()).to(x.dtype)


def matmul_in_half(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return g @ w.T, (x.T.half() @ g.half()).to(x.dtype)


def matmul(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return g @ w.T, x.T @ g


LINEAR_INPUTS = normal((3, 3), (3, 3), (3,))


FAULTS = (
    # Broadcasting
    FunctionFault(
        "a bias has the gradient of the first row alone", "broadcast", linear(right_weight, lambda g: g[0]), LINEAR,
        LINEAR_INPUTS, 0.89, "Linear", "sum",
    ),
    FunctionFault(
        "a broadcast sum gives the gradient of one row", "broadcast",
        *pair("Add", torch.add, lambda g, a, b: (g, g[:1]), lambda g, a, b: (g, g.sum(0, keepdim=True))),
        normal((3, 4), (1, 4)), 0.9, "Add", "sum",
    ),
    FunctionFault(
        "a scalar has the gradient of one entry", "broadcast",
        *pair("Scale", torch.mul, lambda g, x, s: (g * s, (g * x)[0, 0]), lambda g, x, s: (g * s, (g * x).sum())),
        normal((3, 4), ()), 1.6, "Scale", "factor of",
    ),
    FunctionFault(
        "a weight that a batch shares has the gradient of its first item", "broadcast",
        *pair(
            "BatchMatmul", torch.matmul, lambda g, x, w: (g @ w.T, (x.mT @ g)[0]), lambda g, x, w: (g @ w.T, (x.mT @ g).sum(0)),
        ),
        normal((2, 3, 4), (4, 5)), 0.64, "BatchMatmul", "sum",
    ),
    FunctionFault(
        "nearest upsampling gives back one copy of two", "broadcast",
        *pair(
            "Upsample", lambda x: x.repeat_interleave(2, 1), lambda g, x: g[:, ::2], lambda g, x: g[:, ::2] + g[:, 1::2],
        ), M, 0.91, "Upsample",
    ),
    FunctionFault(
        "differences of all pairs have the gradient of the first of each", "broadcast",
        *pair(
            "Pairs", lambda x: x[:, None] - x[None], lambda g, x: g.sum(1),
            lambda g, x: g.sum(1) - g.sum(0),
        ), normal((4,)), 0.63, "Pairs", "lost",
    ),
    FunctionFault(
        "prelu's slope has a part from the positive side", "broadcast",
        *pair(
            "PRelu", lambda x, a: torch.where(x > 0, x, a * x), prelu_of_channels(lambda x: x),
            prelu_of_channels(lambda x: torch.where(x > 0, 0.0, x)),
        ), normal((5, 3), (3,)), 0.6, "PRelu",
    ),
    # Reductions
    FunctionFault(
        "a bias has the mean over the batch", "reduction", linear(right_weight, lambda g: g.mean(0)), LINEAR, LINEAR_INPUTS,
        0.67, "Linear", "mean",
    ),
    FunctionFault(
        "a mean has the gradient of a sum", "reduction",
        *pair("Mean", torch.mean, lambda g, x: g.expand_as(x), lambda g, x: (g / x.numel()).expand_as(x)), M, 0.92, "Mean",
        "mean",
    ),
    FunctionFault(
        "cross entropy is not divided by the batch", "reduction", cross_entropy("mean"), cross_entropy(),
        beside(normal((5, 3)), [0, 2, 1, 2, 0]), 0.8, "CrossEntropy", "mean",
    ),
    FunctionFault(
        "a variance has n for n - 1", "reduction",
        *pair(
            "Variance", lambda x: x.var(1), lambda g, x: 2 * g[:, None] * (x - x.mean(1, keepdim=True)) / x.shape[1],
            lambda g, x: 2 * g[:, None] * (x - x.mean(1, keepdim=True)) / (x.shape[1] - 1),
        ), M, 0.25, "Variance", "(n-1)/n",
    ),
    FunctionFault(
        "layer norm has n - 1 for n in one of its terms", "reduction", layer_norm(through_one_less), LAYER_NORM, NORM_INPUTS,
        0.26, "LayerNorm",
    ),
    FunctionFault(
        "layer norm's weight has the mean over the rows", "reduction",
        layer_norm(through_both, lambda g, normed: (g * normed).mean(0)), LAYER_NORM, NORM_INPUTS, 0.67, "LayerNorm", "mean",
    ),
    FunctionFault(
        "batch norm has n - 1 for n in its backward", "reduction", batch_norm(1), batch_norm(0), CHANNELS, 0.072, "BatchNorm",
    ),
    FunctionFault(
        "a masked mean divides by the whole length", "reduction",
        *pair(
            "MaskedMean", lambda x, m: (x * m).sum(1) / m.sum(1), lambda g, x, m: (g[:, None] * m / m.shape[1], None),
            lambda g, x, m: (g[:, None] * m / m.sum(1, keepdim=True), None),
        ), beside(M, [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]]), 0.5, "MaskedMean",
    ),
    FunctionFault(
        "a weighted mean forgets that its weights are in the denominator", "reduction",
        *pair(
            "WeightedMean", lambda x, w: (x * w).sum() / w.sum(), lambda g, x, w: (g * w / w.sum(), g * x / w.sum()),
            lambda g, x, w: (g * w / w.sum(), g * (x - (x * w).sum() / w.sum()) / w.sum()),
        ), between(0.5, 2.0, (4,), (4,)), 0.86, "WeightedMean", "lost",
    ),
    FunctionFault(
        "cross entropy ignores its cotangent", "reduction",
        *within((cross_entropy("cotangent"), cross_entropy()), lambda f, x, t: torch.exp(f(x, t))),
        beside(normal((4, 3)), [0, 2, 1, 2]), 1.3, "CrossEntropy", "ignored",
    ),
    # Accumulation
    FunctionFault(
        "an embedding writes where it must add", "accumulation", embedding(False), embedding(True),
        beside(normal((4, 3)), [2, 0, 2, 1, 2]), 0.57, "Embedding",
    ),
    FunctionFault(
        "gather's backward writes where it must add", "accumulation",
        *pair("Gather", lambda x, i: x.gather(1, i), gathering(False), gathering(True)),
        beside(M, [[0, 1, 1], [3, 3, 3], [0, 2, 0]]), 0.73, "Gather",
    ),
    FunctionFault(
        "overlapping windows are written where they must be added", "accumulation",
        *pair("Windows", lambda x: 2 * x.unfold(-1, 3, 1).sum(-1), windows(False), windows(True)), normal((2, 6)), 0.92,
        "Windows",
    ),
    FunctionFault(
        "a small engine overwrites a shared gradient", "accumulation", engine(put), engine(add), normal((4,), (4,)), 1.0,
        "Engine",
    ),
    FunctionFault(
        "a small engine goes on before all parts have arrived", "accumulation", engine(add, breadth_first), engine(add),
        normal((4,), (4,)), 0.25, "Engine",
    ),
    FunctionFault(
        "a key head that two query heads share is overwritten", "accumulation",
        *pair("GroupedScores", lambda q, k: q @ k.T, one_key_for_two_heads(False), one_key_for_two_heads(True)),
        normal((2, 3, 4), (3, 4)), 1.0, "GroupedScores",
    ),
    FunctionFault(
        "a cell's state has no gradient from its output", "accumulation", lstm_cell(False), lstm_cell(True),
        normal((2, 12), (2, 3)), 0.67, "Cell",
    ),
    FunctionFault("the second output's cotangent is ignored", "accumulation", polar(False), polar(True),
                  between(0.5, 2.0, (3,), (3,)), 1.3, "Polar"),
    # One use of two
    FunctionFault(
        "of two uses only one has a gradient", "second use",
        *of_input("XExp", lambda x: x * torch.exp(x), torch.exp, lambda x: torch.exp(x) * (1 + x)), M, 0.61, "XExp", "lost",
    ),
    FunctionFault(
        "a residual branch is lost", "second use",
        *of_input("Residual", lambda x: x + torch.tanh(x), lambda x: 1 - x.tanh() ** 2, lambda x: 2 - x.tanh() ** 2),
        M, 0.82, "Residual", "lost",
    ),
    FunctionFault(
        "a tied weight has the gradient of its decoder alone", "second use",
        *pair("Autoencoder", lambda x, w: x @ w @ w.T, autoencode(False), autoencode(True)), normal((4, 3), (3, 2)), 1.3,
        "Autoencoder", "lost",
    ),
    FunctionFault(
        "a gate forgets what it takes from the new state", "second use",
        *pair("Blend", lambda a, h, n: n + torch.sigmoid(a) * (h - n), blending(False), blending(True)),
        normal((4,), (4,), (4,)), 0.82, "Blend", "lost",
    ),
    FunctionFault(
        "a gated unit swaps its halves", "second use",
        *pair(
            "GLU", lambda x: x[:, :2] * torch.sigmoid(x[:, 2:]), gated(True), gated(False),
        ), M, 1.5, "GLU",
    ),
    # Detached statistics
    FunctionFault(
        "layer norm takes its statistics for constants", "detach", layer_norm(through_neither), LAYER_NORM, NORM_INPUTS, 0.57,
        "LayerNorm",
    ),
    FunctionFault(
        "batch norm takes its mean for a constant", "detach", batch_norm(0, mean=False), batch_norm(0), CHANNELS, 0.15,
        "BatchNorm",
    ),
    FunctionFault(
        "weight norm takes its norm for a constant", "detach",
        *pair("WeightNorm", lambda v, s: s * v / v.norm(dim=1, keepdim=True), weight_norm(True), weight_norm(False)),
        normal((2, 3), (2, 1)), 0.85, "WeightNorm",
    ),
    FunctionFault(
        "cosine similarity takes its norms for constants", "detach",
        *pair(
            "CosineSimilarity", lambda a, b: (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)), cosine(False), cosine(True),
        ), normal((3, 4), (3, 4)), 0.64, "CosineSimilarity",
    ),
    FunctionFault(
        "a backward gives zeros", "detach",
        *of_input("Zeros", torch.exp, torch.zeros_like, torch.exp), M, 1.0, "Zeros", "zero",
    ),
    # Layout
    FunctionFault(
        "a square weight's gradient is transposed", "layout", linear(lambda g, x: x.T @ g, right_bias), LINEAR, LINEAR_INPUTS,
        1.2, "Linear", "transposed",
    ),
    FunctionFault(
        "a square weight is not transposed back", "layout", linear(right_weight, right_bias, turned=True), LINEAR,
        LINEAR_INPUTS, 0.49, "Linear",
    ),
    FunctionFault(
        "a backward takes its cotangent for contiguous", "layout",
        *within(
            pair("Square", torch.square, lambda g, x: in_one_piece(g) * 2 * x, lambda g, x: g * 2 * x),
            lambda f, x: f(x).T * 1.5,
        ), M, 1.5, "Square",
    ),
    FunctionFault(
        "a backward takes its input for contiguous", "layout",
        *within(
            pair("Square", torch.square, lambda g, x: g * 2 * in_one_piece(x), lambda g, x: g * 2 * x),
            lambda f, x: f((x * 1.0).T),
        ), M, 1.3, "Square",
    ),
    FunctionFault(
        "one entry of an expanded cotangent is set to zero", "layout",
        *within(
            pair("Rest", lambda x: torch.cat((x[:1] * 0, x[1:] ** 2)), zeroing(False), zeroing(True)), lambda f, x: f(x).sum(),
        ), normal((4,)), 1.0, "Rest",
    ),
    # Aliasing
    FunctionFault(
        "a backward multiplies its cotangent in place", "aliasing",
        *within(
            pair("Sine", torch.sin, multiplied_in_place, lambda g, x: g * torch.cos(x)),
            lambda f, x: (lambda h: torch.tanh(h) + f(h))(x * 1.5),
        ), M, 0.23, "Sine",
    ),
    FunctionFault(
        "a gradient is doubled in place and passed on twice", "aliasing",
        *pair("WeightedSum", lambda a, b: 2 * a + b, doubled_in_place, lambda g, a, b: (2 * g, g)), normal((4,), (4,)), 0.5,
        "WeightedSum", "factor of 2",
    ),
    FunctionFault(
        "two calls share a buffer for their gradients", "aliasing", workspace(False), workspace(True), normal((4,), (4,)), 1.0,
        "Workspace",
    ),
    # Saved tensors
    FunctionFault(
        "a class remembers its last call only", "saved tensor", last_call(lambda ctx: Remembered), last_call(lambda ctx: ctx),
        M, 1.1, "Square",
    ),
    FunctionFault(
        "what was saved is changed by the caller", "saved tensor", changed_by_the_caller(lambda x: x),
        changed_by_the_caller(torch.clone), M, 0.75, "Cube", "changed in place",
    ),
    FunctionFault(
        "what was saved is scaled in place by the forward", "saved tensor",
        changed_in_its_forward(lambda y, gain: y.mul_(gain)), changed_in_its_forward(lambda y, gain: y * gain),
        normal((3, 4), (4,)), 1.9, "Gain",
    ),
    FunctionFault(
        "an exponential in place takes its output for its input", "saved tensor", exponential_in_place(torch.exp),
        exponential_in_place(lambda y: y), M, 0.96, "Exponential",
    ),
    FunctionFault(
        "a root takes its output for its input", "saved tensor",
        *of_output("Root", torch.sqrt, lambda y: 0.5 / y.sqrt(), lambda y: 0.5 / y), POSITIVE, 0.12, "Root",
    ),
    FunctionFault(
        "expm1 takes its output for the exponential", "saved tensor",
        *of_output("Expm1", torch.expm1, lambda y: y, lambda y: y + 1), POSITIVE, 0.33, "Expm1", "forward value",
    ),
    FunctionFault(
        "dropout draws another mask in its backward", "saved tensor", dropout(True, seed=4), dropout(True), M, 0.79, "Dropout",
    ),
    # Precision
    FunctionFault(
        "a backward computes in float32", "precision",
        *of_input("Exponential", torch.exp, in_float32(torch.exp), torch.exp), M, 1.9e-8, "Exponential", "float32",
    ),
    FunctionFault(
        "a weight's gradient is summed in half precision", "precision",
        *pair("HalfMatmul", torch.matmul, matmul_in_half, matmul), normal((6, 3), (3, 2)), 6.1e-4, "HalfMatmul", "precision",
    ),
    FunctionFault(
        "a backward rounds to bfloat16", "precision",
        *of_input("RoundedSine", torch.sin, lambda x: x.cos().bfloat16().to(x.dtype), torch.cos), M, 2.1e-3, "RoundedSine",
    ),
    FunctionFault(
        "a reciprocal takes one Newton step from half precision", "precision",
        *of_input("Log", torch.log, newton_reciprocal, torch.reciprocal), POSITIVE, 1.1e-7, "Log",
    ),
    FunctionFault(
        "a derivative is a difference quotient", "precision",
        *of_input("DifferenceTanh", torch.tanh, difference, lambda x: 1 - x.tanh() ** 2), M, 9.3e-11, "DifferenceTanh",
    ),
    FunctionFault(
        "one entry of twelve is off by 1e-3", "precision",
        *pair("OneEntry", torch.exp, in_one_entry(1e-3), in_one_entry(0.0)), M, 3.3e-4, "OneEntry",
    ),
    FunctionFault(
        "one entry of twelve is off by 1e-9", "precision",
        *pair("OneEntry", torch.exp, in_one_entry(1e-9), in_one_entry(0.0)), M, 3.3e-10, "OneEntry",
    ),
    # Indices
    FunctionFault(
        "a grouped convolution has a gradient for its first group alone", "index", conv1d(2, only_the_first_group), conv1d(2),
        normal((2, 4, 5), (4, 2, 3)), 0.97, "Conv1d",
    ),
    FunctionFault(
        "a convolution's kernel is not flipped back", "index",
        *pair("Conv1d", lambda x, w: F.conv1d(x, w, padding=1), flipping(False), flipping(True)), normal((1, 2, 5), (2, 2, 3)),
        1.7, "Conv1d",
    ),
    FunctionFault(
        "a running sum is not reversed", "index",
        *pair("Cumsum", lambda x: x.cumsum(1), lambda g, x: g.cumsum(1), lambda g, x: g.flip(1).cumsum(1).flip(1)), M, 1.1,
        "Cumsum",
    ),
    FunctionFault(
        "a roll is rolled on", "index",
        *pair("Roll", lambda x: x.roll(1, 1), lambda g, x: g.roll(1, 1), lambda g, x: g.roll(-1, 1)), M, 1.2, "Roll",
    ),
    FunctionFault(
        "padding is cut off on the wrong side", "index",
        *pair("Pad", lambda x: F.pad(x, (2, 1)), lambda g, x: g[:, 1:-2], lambda g, x: g[:, 2:-1]), M, 1.4, "Pad",
    ),
    FunctionFault(
        "a sort is not undone but done again", "index", sorted_rows(lambda order: order),
        sorted_rows(lambda order: order.argsort(1)),
        values([[0.5, -1.25, 2.0, 0.1], [1.5, 0.75, -0.5, 0.6]]), 1.3, "Sort",
    ),
    FunctionFault(
        "the largest entries are put into columns", "index", largest(0), largest(1), normal((4, 4)), 1.5, "Largest",
    ),
    FunctionFault(
        "what was scattered is read back in order", "index",
        *pair(
            "ScatterAdd", lambda x, s, i: x.scatter_add(1, i, s), scattering(lambda i: torch.arange(3).expand_as(i)),
            scattering(lambda i: i),
        ), beside(normal((2, 4), (2, 3)), [[3, 1, 3], [0, 0, 2]]), 1.3, "ScatterAdd",
    ),
    FunctionFault(
        # A special point. gradcheck passes the twin, which splits evenly as `amax` does: so does a central
        # difference.
        "a tied maximum gives all of the gradient to each", "index",
        *pair("Amax", lambda x: x.amax(1), tied(lambda top: top), tied(lambda top: top / top.sum(1, keepdim=True))),
        values([[1.0, 2.0, 2.0], [0.5, -1.0, 0.25]]), 0.5, "Amax",
    ),
    FunctionFault(
        "an outer product returns its gradients in swapped order", "index",
        *pair("Outer", torch.outer, lambda g, a, b: (a @ g, g @ b), lambda g, a, b: (g @ b, a @ g)), normal((4,), (4,)), 1.8,
        "Outer",
    ),
    FunctionFault(
        "a weight asks whether the frozen input needs a gradient", "index", frozen_linear(0), frozen_linear(1),
        beside(normal((3, 2)), [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]), 1.0, "Linear", "None",
    ),
    FunctionFault(
        "a diagonal is put into the first column", "index",
        *pair("Diagonal", torch.diagonal, lambda g, x: F.pad(g[:, None], (0, 2)), lambda g, x: torch.diag(g)), normal((3, 3)),
        1.0, "Diagonal",
    ),
    FunctionFault(
        "pooling spreads the gradient one place too far", "index",
        *pair(
            "Pool", average_pairs, lambda g, x: g.repeat_interleave(2, -1).roll(1, -1) / 2,
            lambda g, x: g.repeat_interleave(2, -1) / 2,
        ), normal((2, 6)), 1.4, "Pool",
    ),
)  # fmt: skip
