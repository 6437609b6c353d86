"""Functions that are tricky but right, functions that lose part of their gradient, and real nets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Inputs = Callable[[torch.dtype], tuple[Any, ...]]
Built = tuple[Callable[..., Any], tuple[Any, ...]]

F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
BOTH = (F64, F32)
ALL = (F64, F32, BF16)
TERMS = 100_000  # of the long sum


@dataclass(frozen=True)
class Case:
    """A function, its inputs in a dtype, and the dtypes it is checked in; `blamed` is a part of the name of
    what is wrong."""

    name: str
    func: Callable[..., Any]
    inputs: Inputs
    dtypes: tuple[torch.dtype, ...] = BOTH
    blamed: str = ""
    note: str = ""


# Inputs


def normal(*shapes: tuple[int, ...], seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Inputs:
    def inputs(dtype: torch.dtype) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        drawn = [shift + scale * torch.randn(shape, generator=generator, dtype=F64) for shape in shapes]
        return tuple(numbers.to(dtype).requires_grad_() for numbers in drawn)

    return inputs


def values(*numbers: Any) -> Inputs:
    return lambda dtype: tuple(
        torch.tensor(number, dtype=F64).to(dtype).requires_grad_() for number in numbers
    )


def beside(inputs: Inputs, *given: Any) -> Inputs:
    """The leaves, then integers and masks."""
    return lambda dtype: (*inputs(dtype), *(torch.tensor(value) for value in given))


M = normal((3, 4))
V = normal((4,))
KINKS = values([-1.0, 0.0, 1.0, 0.0, 2.5])


# Tricky but right


def shifted_log_sum_exp(x: Tensor) -> Tensor:
    shift = x.detach().max()
    return shift + torch.log(torch.exp(x - shift).sum())


def stable_softplus(x: Tensor) -> Tensor:
    """Pieces with kinks at 0, where no input is."""
    return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))


def double_where(x: Tensor) -> Tensor:
    positive = x > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, 1.0)), 0.0)


def hilbert(x: Tensor) -> Tensor:
    n = torch.arange(1.0, 1 + len(x), dtype=F64)
    return x @ (1 / (n[:, None] + n - 1)).to(x.dtype) @ x


def large_difference(x: Tensor) -> Tensor:
    return (x + 1e4) ** 2 - 1e8


def slices_in_place(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1] = y[:, 0].exp()
    y[0] *= x[1]
    y[1:].add_(1.0)
    return y * y


def recurrence_in_place(x: Tensor) -> Tensor:
    states = torch.zeros(len(x) + 1, dtype=x.dtype)
    for n in range(len(x)):
        states[n + 1] = torch.tanh(0.5 * states[n].clone() + x[n])
    return states


def overlapping_views(x: Tensor) -> Tensor:
    """Windows of two over a row, the same memory read twice."""
    return torch.as_strided(x, (3, 2), (1, 1)).prod(1)


def pieces(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    a, b, c = (first * second).unbind(0)
    left, right = torch.split(torch.stack((a, b, c)).t(), [1, 1])
    return left * right.exp()


def turned(x: Tensor) -> Tensor:
    return (x.flip(0).roll(1, 1).transpose(0, 1) @ x.narrow(1, 1, 3)).diagonal() * x.mT[:3].diagonal()


def statistics_kept_aside(x: Tensor) -> Tensor:
    running = torch.zeros(x.shape[1], dtype=x.dtype)
    with torch.no_grad():
        running.mul_(0.9).add_(x.mean(0), alpha=0.1)
    return (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5)


def control_flow(x: Tensor) -> Tensor:
    y = x
    for n in range(3):
        y = y.sin() if float(y.detach().sum()) > 0 else y * (n + 1.5)
    return y


def newton_root(x: Tensor) -> Tensor:
    y = torch.ones_like(x)
    for _ in range(5):
        y = 0.5 * (y + x / y)
    return y


def dropped(x: Tensor) -> Tensor:
    torch.manual_seed(5)
    return F.dropout(x, 0.4, training=True) * x


def padded_table(table: Tensor, index: Tensor) -> Tensor:
    return F.embedding(index, table, padding_idx=0).tanh()


def put_back(x: Tensor, y: Tensor) -> Tensor:
    return x.index_put((torch.tensor([0, 2, 0]),), y, accumulate=True).sin()


def masked_softmax(x: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(x.masked_fill(mask, -torch.inf), -1) @ x.T


def ignoring(x: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(x, target, ignore_index=-100)


def batch_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.batch_norm(x, torch.zeros(4, dtype=x.dtype), torch.ones(4, dtype=x.dtype), w, b, training=True)


def tied(x: Tensor, w: Tensor) -> Tensor:
    return torch.tanh(x @ w) @ w.T


def checkpointed(x: Tensor, w: Tensor) -> Tensor:
    return checkpoint(lambda h: torch.tanh(h @ w), x, use_reentrant=False).exp()


def listed(*tensors: Tensor) -> list[Tensor]:
    total = sum(t.sum() for t in tensors)
    return [total * t for t in tensors]


def in_a_closure() -> Callable[[Tensor], Tensor]:
    """Captures a parameter: float64, and the function casts it."""
    scale = torch.tensor([0.5, -1.25, 2.0, 0.75], dtype=F64, requires_grad=True)
    return lambda x: torch.tanh(x * scale.to(x.dtype))


def sigmoid_of_both_signs(x: Tensor) -> Tensor:
    decay = torch.exp(-x.abs())
    return torch.where(x >= 0, 1 / (1 + decay), decay / (1 + decay))


def constant_shift(x: Tensor) -> Tensor:
    """A detached mean that softmax does not see."""
    return torch.softmax(x - x.mean(-1, keepdim=True).detach(), -1)


def loops_over_columns(x: Tensor) -> Tensor:
    total = torch.zeros(len(x), dtype=x.dtype)
    for column in x.unbind(1):
        total += column * column
    return total.sqrt()


RIGHT = (
    # Saturation and range
    Case("a sigmoid far out", torch.sigmoid, values([-100.0, -20.0, 0.0, 18.0, 90.0]), ALL),
    Case("a tanh far out", torch.tanh, values([-30.0, -9.5, 1e-20, 9.0, 25.0]), ALL),
    Case("a softmax that is nearly one-hot", lambda x: torch.softmax(x, -1),
         values([[80.0, 0.0, -30.0], [1e4, 1.0, -1e4]]), ALL),
    Case("a log-softmax of huge logits", lambda x: torch.log_softmax(x, -1), values([[1e4, 9e3, -1e4]]), ALL),
    Case("logsumexp of huge logits", lambda x: torch.logsumexp(x, -1), values([[1e30, 9e29, -1e30], [800.0, 801.0, 0.0]]), ALL),
    Case("a sum of very many terms", torch.sum, normal((TERMS,)), (F32,)),
    Case("a variance with a large mean", lambda x: x.var(-1), normal((2, 8), scale=1e-2, shift=1e3)),
    Case("a reciprocal beside its pole", torch.reciprocal, values([1e-18, -1e-9, 3.0]), ALL),
    Case("a tangent beside its pole", torch.tan, values([1.5707, -1.5708, 0.3])),
    Case("a logarithm beside zero", torch.log, values([1e-37, 1e-20, 1.0]), ALL),
    Case("a logarithm beside one", torch.log, values([1 + 2**-20, 1 - 2**-20])),
    Case("denormal numbers", lambda x: x * x.new_tensor(0.5), values([1e-40, -3e-42, 1.0]), (F32,)),
    Case("denormal numbers in float64", lambda x: x * 0.5 + x, values([1e-310, -3e-320]), (F64,)),
    Case("log1p and expm1 of tiny numbers", lambda x: torch.log1p(x) * torch.expm1(x), values([1e-12, -1e-9, 1e-5])),
    Case("an ill-conditioned quadratic form", hilbert, values([1.0, -6.0, 15.0, -20.0, 15.0, -6.0])),
    Case("a difference of large numbers", large_difference, values([0.125, -0.25, 3.0])),
    Case("a sigmoid written for both signs", sigmoid_of_both_signs, values([-30.0, -0.5, 0.5, 30.0]), ALL),
    Case("a softplus of pieces, off its kinks", stable_softplus, values([-20.0, -0.5, 0.5, 30.0])),
    Case("a root by Newton's method", newton_root, values([0.5, 2.0, 3.0])),
    Case("a norm of tiny numbers", lambda x: torch.linalg.vector_norm(x), values([3e-12, -4e-12])),
    Case("a bfloat16 chain", lambda x: torch.tanh(x * 1.5 + 0.25).exp() / (1 + x * x), M, ALL),
    # Kinks and ties
    Case("relu at zero", torch.relu, KINKS, ALL),
    Case("abs at zero", torch.abs, KINKS, ALL),
    Case("clamp at its bounds", lambda x: x.clamp(-1, 1), KINKS, ALL),
    Case("hardtanh at its bounds", F.hardtanh, KINKS, ALL),
    Case("leaky relu at zero", lambda x: F.leaky_relu(x, 0.1), KINKS, ALL),
    Case("maximum of two that are equal", torch.maximum, values([1.0, 2.0, -1.0], [1.0, 0.5, -1.0]), ALL),
    Case("minimum with itself", lambda x: torch.minimum(x, x), M),
    Case("amax with ties", lambda x: x.amax(1), values([[2.0, 2.0, 1.0], [0.0, 3.0, 3.0]]), ALL),
    Case("max with ties, by index", lambda x: x.max(1).values, values([[2.0, 2.0, 1.0], [0.0, 3.0, 3.0]]), ALL),
    Case("amin over all with ties", lambda x: x.amin(), values([1.0, 1.0, 1.0, 2.0])),
    Case("the median of an even number", lambda x: x.median(), values([3.0, 1.0, 2.0, 5.0]), ALL),
    Case("max pooling with ties", lambda x: F.max_pool1d(x, 2), values([[[1.0, 1.0, 0.5, 2.0]]])),
    Case("a double where at zero", double_where, values([0.0, -1.0, 2.0]), ALL),
    Case("a huber loss at its joint", lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"), KINKS),
    Case("sign and round, flat on both sides", lambda x: x * x.sign() + x.round(), values([-1.2, 0.3, 2.7])),
    # Stops that lose nothing
    Case("a detached shift in a log-sum-exp", shifted_log_sum_exp, V, ALL),
    Case("a detached mean that softmax cancels", constant_shift, M),
    Case("running statistics aside", statistics_kept_aside, normal((5, 3))),
    Case("python's own control flow", control_flow, V),
    # In place, views
    Case("slices written in place", slices_in_place, M, ALL),
    Case("a recurrence in place", recurrence_in_place, V),
    Case("a running total in place", loops_over_columns, M),
    Case("an in-place relu", lambda x: F.relu(x * 2, inplace=True) * 3, M, ALL),
    Case("windows that overlap in memory", overlapping_views, V),
    Case("chunk, split and unbind", pieces, M, ALL),
    Case("flip, roll, narrow, diagonal and transposes", turned, M, ALL),
    Case("an expanded input", lambda x: x.expand(3, 4) * torch.arange(12.0).reshape(3, 4).to(x.dtype), normal((1, 4))),
    Case("a leaf that is expanded already", lambda x: x.exp(), lambda d: (torch.tensor([[0.5], [1.5]], dtype=d).expand(2, 3)
                                                                         .requires_grad_(),)),
    Case("a leaf that is transposed already", lambda x: x @ x.T, lambda d: (M(d)[0].detach().t().requires_grad_(),)),
    Case("an output that is a view of the input", lambda x: x.view(2, 6), M),
    Case("a write into a view shows in its base", lambda x: (lambda y: (y[0].mul_(x[1]), y)[1])(x * 1.0), M),
    # Indices
    Case("gather with repeated indices", lambda x, i: x.gather(1, i), beside(M, [[0, 0, 3], [1, 1, 1], [2, 0, 2]]), ALL),
    Case("rows taken twice", lambda x, i: x[i].square(), beside(M, [0, 2, 0, 0]), ALL),
    Case("index_put that accumulates", put_back, normal((4,), (3,)), ALL),
    Case("scatter_add with repeated indices", lambda x, i: torch.zeros(3, 5, dtype=x.dtype).scatter_add(1, i, x).exp(),
         beside(M, [[0, 0, 0, 4], [1, 2, 1, 2], [3, 3, 0, 0]]), ALL),
    Case("an embedding with padding", padded_table, beside(normal((4, 3)), [[0, 2, 2], [1, 0, 3]]), ALL),
    Case("a boolean mask", lambda x, m: x[m].prod(), beside(V, [True, False, True, True])),
    Case("where with a comparison", lambda x, y: torch.where(x > y, x * y, x - y), normal((3, 4), (3, 4)), ALL),
    Case("a running sum", lambda x: x.cumsum(1).exp(), M, ALL),
    Case("a running product with a zero", lambda x: x.cumprod(0), values([1.5, 0.0, -2.0, 3.0])),
    Case("a product with a zero", lambda x: x.prod(), values([1.5, 0.0, -2.0]), ALL),
    Case("a product with two zeros", lambda x: x.prod(0), values([0.0, 1.5, 0.0])),
    Case("sort and topk", lambda x: x.sort(1).values[:, :3] * x.topk(3, 1).values, M, ALL),
    Case("kthvalue and median", lambda x: x.kthvalue(2, 1).values * x.median(1).values, M),
    Case("a triangle of a product", lambda x: torch.tril(x @ x.T).sum(0), M),
    # Structure
    Case("a checkpoint", checkpointed, normal((3, 4), (4, 2))),
    Case("a list of tensors", listed, normal((2,), (3,), ())),
    Case("a captured parameter", in_a_closure(), V),
    Case("a tied weight", tied, normal((3, 4), (4, 2)), ALL),
    Case("dropout with its seed", dropped, M, ALL),
    Case("batch norm in training", batch_norm, normal((6, 4), (4,), (4,))),
    Case("a masked softmax", masked_softmax,
         beside(normal((3, 3)), [[False, True, True], [False, False, True], [False] * 3]), ALL),
    Case("cross entropy that ignores rows", ignoring, beside(normal((4, 3)), [0, -100, 2, 1]), ALL),
    Case("several outputs", lambda x: (x.sin(), (x * x).sum(), x[0]), M),
    Case("an output without one of the inputs", lambda x, y: (x.exp(), x * y), normal((3,), (3,))),
    Case("an input that is not used", lambda x, y: x.exp(), normal((3,), (3,))),
    Case("whole numbers beside", lambda x, n: x * n + n, beside(V, [1, 2, 3, 4]), ALL),
    Case("numbers without axes", lambda a, b: a * torch.exp(b) - a / b, values(0.75, -1.5), ALL),
    Case("axes of extent one", lambda x, y: (x * y).sum((0, 2), keepdim=True).squeeze(), normal((1, 3, 1), (1, 1, 1)), ALL),
    Case("an empty part", lambda x: torch.cat((x[:0], x.exp())), V),
    Case("the same tensor everywhere", lambda x: x * x + x / (x * x + 1) - x, M, ALL),
    Case("einsum over three", lambda a, b, c: torch.einsum("ij,jk,ki->i", a, b, c), normal((2, 3), (3, 4), (4, 2))),
    Case("attention with a root in it", lambda q, k: torch.softmax(q @ k.mT / math.sqrt(4), -1) @ k,
         normal((3, 4), (3, 4)), ALL),
    Case("a gradient of a gradient", lambda x: torch.autograd.grad((x.exp() * x).sum(), x, create_graph=True)[0], V),
)  # fmt: skip


# Wrong as they stand


def detached_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), -1).detach()
    return weights @ v + q.sum() + k.sum()


def partly_without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.square().mean().sqrt()
    return x / scale


def detached_statistics(x: Tensor) -> Tensor:
    mean, var = x.mean(0).detach(), x.var(0, correction=0).detach()
    return (x - mean) / torch.sqrt(var + 1e-5)


def scaled_by_an_item(x: Tensor) -> Tensor:
    return x * x.norm().item()


def detached_residual(x: Tensor) -> Tensor:
    return torch.tanh(x) + x.detach() ** 2


def made_anew(x: Tensor) -> Tensor:
    return torch.sin(x) * torch.exp(x).clone().detach()


def tensor_of_a_number(x: Tensor) -> Tensor:
    return x * torch.tensor([float(number) for number in x.detach()], dtype=x.dtype)


def detached_tie(x: Tensor, w: Tensor) -> Tensor:
    return torch.tanh(x @ w) @ w.T.detach()


def overwriting_engine(x: Tensor) -> Tensor:
    """x · sin(x), with a small engine that sets where it must add."""

    class Engine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.x = x.detach()
            return ctx.x * torch.sin(ctx.x)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            gradients = {}
            gradients["x"] = g * torch.sin(ctx.x)
            gradients["x"] = g * ctx.x * torch.cos(ctx.x)
            return gradients["x"]

    return Engine.apply(x)


def rounded_through(x: Tensor) -> Tensor:
    """The straight-through trick, which is not the function's gradient."""
    return x + (torch.round(x) - x).detach()


def frozen_temperature(x: Tensor, t: Tensor) -> Tensor:
    return torch.softmax(x / t.data, -1) * t


def detached_shift_that_stays(x: Tensor) -> Tensor:
    """The shift of a log-sum-exp, and not added back."""
    return torch.log(torch.exp(x - x.detach().max()).sum())


REFUTED = (
    Case("attention weights are detached", detached_attention, normal((3, 4), (3, 4), (3, 4)), ALL, "", "detach"),
    Case(".data is read in the middle", lambda x: x * torch.tanh(x).data, M, ALL, "x"),
    Case("a parameter is read as .data", frozen_temperature, lambda d: (*M(d), *values(0.75)(d)), ALL, "t"),
    Case("a scale is worked out without grad", partly_without_grad, V, BOTH, "x"),
    Case("batch norm's statistics are detached", detached_statistics, normal((5, 3)), BOTH, "x"),
    Case("a number leaves by item and comes back", scaled_by_an_item, V, BOTH, "x", "item"),
    Case("a residual is detached", detached_residual, V, ALL, "x"),
    Case("a tensor is cloned and detached in the middle", made_anew, V, ALL, "x"),
    Case("a tensor is made of another one's numbers", tensor_of_a_number, V, BOTH),
    Case("one use of a tied weight is detached", detached_tie, normal((3, 4), (4, 2)), ALL, "w"),
    Case("rounding goes straight through", rounded_through, values([0.3, 1.2, -2.7]), ALL, "x"),
    Case("a log-sum-exp loses its shift", detached_shift_that_stays, V, BOTH, "x"),
    Case("softplus of pieces at its kink", stable_softplus, values([0.0, 1.0]), ALL, "x"),
    Case("where and sqrt at zero", lambda x: torch.where(x > 0, torch.sqrt(x), 0.0), values([0.0, 4.0]), ALL),
    Case("where and a reciprocal at zero", lambda x: torch.where(x == 0, 1.0, torch.sin(x) / x), values([0.0, 2.0]), ALL),
    Case("the root of a sum of squares at zero", lambda x: x.square().sum().sqrt(), values([0.0, 0.0]), ALL),
    Case("a product with a log that is never used", lambda x: torch.where(x > 0, x * x.log(), 0.0), values([0.0, 2.0])),
    Case("a small engine overwrites a shared gradient", overwriting_engine, V, BOTH, "Engine"),
    Case("a sum of squares overflows before its root", lambda x: x.square().sum().sqrt(), values([1e30, 1.0]), (F32,)),
)  # fmt: skip


# Nets


class Faulty(torch.autograd.Function):
    """The identity, with a factor in its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * ctx.factor, None


class Residual(nn.Module):
    """h + W₂ tanh(W₁ norm(h)); a fault sits behind the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.down(torch.tanh(self.up(self.norm(h))))


class Stack(nn.Module):
    """Layers in a row; behind layer `fault[0]` the backward multiplies by `fault[1]`."""

    def __init__(self, layers: list[nn.Module], fault: tuple[int, float] | None) -> None:
        super().__init__()
        self.layers, self.fault = nn.ModuleList(layers), fault

    def forward(self, h: Tensor) -> Tensor:
        for n, layer in enumerate(self.layers):
            h = layer(h)
            if self.fault and self.fault[0] == n:
                h = Faulty.apply(h, self.fault[1])
        return h


class ResNetBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(x + self.norms[1](self.second(h)))


class LanguageModel(nn.Module):
    """The head is the embedding's own weight."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(words, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, target: Tensor) -> Tensor:
        logits = torch.tanh(self.mix(self.table(tokens))) @ self.table.weight.T
        return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def module(make: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Callable[[torch.dtype], Built]:
    """A module with weights of seed 0, and leaves of these shapes."""

    def build(dtype: torch.dtype) -> Built:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = make().to(dtype)
        return net, normal(*shapes, seed=1)(dtype)

    return build


def encoder(dropout: float) -> Callable[[torch.dtype], Built]:
    make = module(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True), (2, 3, 8))

    def build(dtype: torch.dtype) -> Built:
        net, inputs = make(dtype)

        def seeded(x: Tensor) -> Tensor:
            torch.manual_seed(7)
            return net(x)

        return (seeded if dropout else net), inputs

    return build


def attention(masked: bool) -> Callable[[torch.dtype], Built]:
    make = module(lambda: nn.MultiheadAttention(8, 2, batch_first=True), (2, 3, 8), (2, 4, 8))

    def build(dtype: torch.dtype) -> Built:
        net, inputs = make(dtype)
        mask = torch.ones(3, 4, dtype=torch.bool).triu(2) if masked else None
        return lambda q, k: net(q, k, k, attn_mask=mask, need_weights=masked)[0], inputs

    return build


def smoothed_cross_entropy(dtype: torch.dtype) -> Built:
    target = torch.tensor([0, 2, -100, 1, 1])
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=-100)
    return lambda x: loss(x, target), normal((5, 3))(dtype)


def language_model(dtype: torch.dtype) -> Built:
    net, _ = module(lambda: LanguageModel(7, 4))(dtype)
    return net, (torch.tensor([[1, 4, 1], [0, 6, 2]]), torch.tensor([[4, 1, 5], [6, 2, 2]]))


def residual_net(dtype: torch.dtype, fault: tuple[int, float] | None = None) -> Built:
    """24 residual layers of width 6."""
    return module(lambda: Stack([Residual(6) for _ in range(24)], fault), (3, 6))(dtype)


def transformer(dtype: torch.dtype, fault: tuple[int, float] | None = None) -> Built:
    """24 encoder layers of width 4."""
    return module(
        lambda: Stack([nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True) for _ in range(24)], fault),
        (1, 3, 4),
    )(dtype)


NETS: dict[str, Callable[[torch.dtype], Built]] = {
    "a transformer's encoder layer": encoder(0.0),
    "a transformer's encoder layer with dropout": encoder(0.1),
    "a residual block with batch norm": module(lambda: ResNetBlock(4), (2, 4, 5, 5)),
    "an LSTM cell": module(lambda: nn.LSTMCell(4, 3), (2, 4)),
    "an LSTM": module(lambda: nn.LSTM(4, 3), (3, 2, 4)),
    "a GRU cell": module(lambda: nn.GRUCell(4, 3), (2, 4)),
    "a GRU": module(lambda: nn.GRU(4, 3), (3, 2, 4)),
    "multi-head attention": attention(False),
    "multi-head attention with a mask": attention(True),
    "cross entropy with smoothing and ignored rows": smoothed_cross_entropy,
    "a perceptron with gelu and layer norm": module(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)), (3, 4)
    ),
    "convolutions with group norm": module(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        (2, 2, 4, 4),
    ),
    "a language model with tied weights": language_model,
    "a residual net of 24 layers": residual_net,
    "a transformer of 24 layers": transformer,
}
DEEP = {
    "a residual net of 24 layers": residual_net,
    "a transformer of 24 layers": transformer,
}  # with `fault=(layer, factor)`
