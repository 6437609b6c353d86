"""Torch functions that are tricky but right, mistakes in users' own code, and real nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from reported_cases import ALL, Case, Inputs
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

ONE = (torch.float32,)


def numbers(*values: Any) -> Inputs:
    """Leaves of these numbers."""
    return lambda dtype: tuple(torch.tensor(value, dtype=dtype, requires_grad=True) for value in values)


def leaves(*shapes: tuple[int, ...], at: float = 0.0, spread: float = 1.0) -> Inputs:
    """Leaves of these shapes, generic numbers around `at`."""

    def made(dtype: torch.dtype) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(7)
        drawn = (
            torch.randn(shape, generator=generator, dtype=torch.float64) * spread + at for shape in shapes
        )
        return tuple(values.to(dtype).requires_grad_() for values in drawn)

    return made


def shifted(x: Tensor) -> Tensor:
    peak = x.max(-1, keepdim=True).values.detach()
    return ((x - peak).exp().sum(-1, keepdim=True).log() + peak).sum()


def written_in_slices(x: Tensor) -> Tensor:
    out = torch.empty(3, 4, dtype=x.dtype)
    for n in range(3):
        out[n] = x * n
    out[:, 1:3] *= 2
    out.t()[0].zero_()
    return out.exp()


def added_in_place(x: Tensor) -> Tensor:
    out = torch.zeros(4, dtype=x.dtype)
    for n in range(5):
        out = out + x * n
        out[n % 4] += x[0]
    return out


def with_statistics(x: Tensor) -> Tensor:
    running = torch.zeros(4, dtype=x.dtype)
    with torch.no_grad():
        running.mul_(0.9).add_(x.mean(0), alpha=0.1)
    return torch.tanh(x)


def branched(x: Tensor) -> Tensor:
    return x.sin().sum() if x.sum() > 0 else x.cos().sum()


def penalised(x: Tensor, w: Tensor) -> Tensor:
    y = (x @ w).tanh().sum()
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    return y + (slope**2).sum()


HILBERT = 1 / (torch.arange(6.0)[:, None] + torch.arange(6.0) + 1)
MASK = torch.tensor([[True, False, True, False], [False, False, True, True], [False, True, False, False]])
WEIGHT = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
AT_0 = numbers([0.0, 1.0, -2.0])

MANY_AT_0 = numbers([n / 8 - 60 for n in range(1000)])
RIGHT = (
    # saturation, overflow, cancellation
    Case("a saturated sigmoid and tanh", lambda x: torch.sigmoid(x) + torch.tanh(x), numbers([100.0, -100.0, 20.0, -88.0]), ALL),
    Case("a saturated softmax", lambda x: torch.softmax(x, 0), numbers([1000.0, 0.0, -1000.0]), ALL),
    Case("logsumexp of huge logits", lambda x: torch.logsumexp(x, 0), numbers([1e30, 3e38, -1e30]), ONE),
    Case("cross entropy of huge logits", lambda x: F.cross_entropy(x * 1e4, torch.tensor([0, 1])), leaves((2, 3))),
    Case("a sum of a hundred thousand terms", lambda x: x.sum(), leaves((100_000,)), ONE),
    Case("a mean of many squares", lambda x: (x * x).mean(), leaves((10_000,)), ONE),
    Case("a variance with a large mean", lambda x: x.var(), leaves((100,), at=1e4, spread=1e-2)),
    Case("the difference of large numbers", lambda x: (x + 1e8) - 1e8, leaves((5,))),
    Case("an ill-conditioned quadratic form", lambda x: x @ HILBERT.to(x.dtype) @ x, leaves((6,))),
    Case("an ill-conditioned solve", lambda x: torch.linalg.solve(HILBERT.double(), x), leaves((6,)), (torch.float64,)),
    Case("beside a pole", lambda x: 1 / x, numbers([1e-15, -3e-10, 1e10])),
    Case("the tangent beside its pole", torch.tan, numbers([1.5707963, -1.57])),
    Case("denormal numbers", lambda x: x * 0.5, numbers([1e-40, 3e-45]), ONE),
    Case("the tails of gelu", F.gelu, numbers([-5.0, -10.0, -3.0, 0.0, 1e-10]), ALL),
    Case("the tails of softplus", F.softplus, numbers([-50.0, 21.0, 19.0, -90.0]), ONE),
    Case("the tails of logsigmoid", F.logsigmoid, numbers([-50.0, 100.0, 20.0, -90.0]), ALL),
    Case("log of exp", lambda x: x.exp().log(), numbers([80.0, -80.0, 0.0])),
    Case("a loop of logistic maps", lambda x: [x := 3.7 * x * (1 - x) for _ in range(8)][-1], numbers([0.3, 0.71])),
    # kinks, ties, limits
    *(Case(f"{name} at its kinks", func, AT_0, ALL) for name, func in (
        ("relu", torch.relu), ("abs", torch.abs), ("clamp", lambda x: x.clamp(-2, 1)), ("hardtanh", F.hardtanh),
        ("leaky relu", F.leaky_relu), ("relu6", F.relu6), ("softshrink", lambda x: F.softshrink(x, 1.0)), ("elu", F.elu),
        ("maximum", lambda x: torch.maximum(x, -x)), ("huber", lambda x: F.huber_loss(x, x.detach() * 0)),
    )),
    *(Case(f"{name} of very many entries, some at its kinks", func, MANY_AT_0) for name, func in (
        ("relu", torch.relu), ("abs", torch.abs), ("clamp", lambda x: x.clamp(-2, 1)), ("hardtanh", F.hardtanh),
    )),
    Case("two ways of very many entries", lambda x: torch.where(x > 0, x + 1, x), leaves((5000,)), ONE),
    Case("the layer norm of many long rows", lambda x, w: F.layer_norm(x, (1024,), w), leaves((64, 1024), (1024,)), ONE),
    Case("a maximum with a tie", torch.max, numbers([1.0, 1.0, 0.0]), ALL),
    Case("amax with a tie", torch.amax, numbers([1.0, 1.0, 0.0]), ALL),
    Case("maximum along an axis with a tie", lambda x: x.max(0).values, numbers([1.0, 1.0, 0.0]), ALL),
    Case("a norm at 0", lambda x: x.norm(), numbers([0.0, 0.0])),
    Case("a standard deviation of a constant", lambda x: x.std(), numbers([1.0, 1.0, 1.0])),
    Case("normalize at 0", lambda x: F.normalize(x, dim=0), numbers([0.0, 0.0])),
    Case("a product with zeros", torch.prod, numbers([1.0, 0.0, 0.0, 3.0])),
    Case("a cumulative product with a zero", lambda x: x.cumprod(0), numbers([1.0, 0.0, 2.0, 3.0])),
    Case("x**2.0 at 0 and below", lambda x: x**2.0, numbers([0.0, 4.0, -1.0])),
    Case("the double where", lambda x: torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0), AT_0),
    Case("a mask by multiplication", lambda x: x * (x > 0), AT_0),
    # stops that lose nothing
    Case("a detached shift in a log-sum-exp", shifted, leaves((3, 4)), ALL),
    Case("running statistics under no_grad", with_statistics, leaves((3, 4)), ALL),
    Case("a number logged by item", lambda x: (x * (1.0 if x.detach().mean().item() > 9 else 2.0)).sum(), leaves((3,))),
    Case("a count under no_grad", lambda x: x.sum() / (x.detach() > 0).sum(), leaves((9,))),
    # memory
    Case("writes into slices", written_in_slices, leaves((4,)), ALL),
    Case("additions in place", added_in_place, leaves((4,)), ALL),
    Case("relu in place", lambda x: F.relu(x * 2, inplace=True) * 3, leaves((4,)), ALL),
    Case("views of views", lambda x: x.t().chunk(2)[1].unsqueeze(1).expand(2, 3, 3).diagonal(dim1=1, dim2=2).flip(0), leaves((3, 4))),
    Case("split, unbind and stack", lambda x: torch.stack([a * n for n, a in enumerate(x.split(2, 1)[0].unbind(0))]), leaves((3, 4))),
    Case("an as_strided that overlaps", lambda x: torch.as_strided(x, (2, 2), (1, 1)).pow(2), leaves((4,))),
    Case("an expanded operand in a product", lambda x: x.expand(3, 4).t() @ x.expand(3, 4), leaves((4,))),
    Case("windows", lambda x: x.unfold(0, 3, 2).prod(-1), leaves((7,))),
    Case("roll, flip and tril", lambda x: x.roll(1, 0).flip(1).tril().exp(), leaves((3, 4))),
    Case("an expanded input", lambda x: x.sum(0), lambda dtype: (torch.randn(1, 4).to(dtype).expand(3, 4).requires_grad_(),)),
    Case("a strided input", lambda x: x.exp(), lambda dtype: (torch.arange(6.0).to(dtype)[::2].requires_grad_(),)),
    Case("an output that is a view of the input", lambda x: x.T, leaves((3, 2))),
    Case("an output that is the input", lambda x: x, leaves((3,))),
    # indices
    Case("gather, repeated", lambda x: x.gather(0, torch.tensor([[0, 0, 1, 2], [0, 1, 1, 1]])).exp(), leaves((3, 4)), ALL),
    Case("a repeated row", lambda x: x[torch.tensor([0, 0, 1])].exp(), leaves((3, 4)), ALL),
    Case("a boolean mask", lambda x: x[MASK].exp(), leaves((3, 4)), ALL),
    Case("an accumulating index_put", lambda x, y: x.index_put((torch.tensor([0, 0, 2]),), y, accumulate=True), leaves((4,), (3,))),
    Case("scatter_add, repeated", lambda x, y: x.scatter_add(0, torch.tensor([0, 1, 1]), y).exp(), leaves((4,), (3,)), ALL),
    Case("an embedding with padding", lambda w: F.embedding(torch.tensor([1, 2, 1, 0]), w, padding_idx=0).exp(), leaves((3, 2)), ALL),
    Case("sorted, the largest, and the middle", lambda x: x.sort().values.cumsum(0)[1:] * x.topk(3).values * x.median(), leaves((4,))),
    # structure
    Case("two outputs in a dictionary", lambda x: {"a": x * 2, "b": [x.sum(), x[0]]}, leaves((3,))),
    Case("an output without one of the inputs", lambda x, y: x.exp(), leaves((3,), (3,))),
    Case("the same tensor twice", lambda x: x * x @ x, leaves((3, 3)), ALL),
    Case("a captured parameter", lambda x: (x * WEIGHT).sum(), leaves((3,)), (torch.float64,)),
    Case("a list of tensors", lambda xs: torch.cat(xs).prod(), lambda dtype: (list(leaves((2,), (3,))(dtype)),)),
    Case("a branch of the program", branched, leaves((4,)), ALL),
    Case("numbers without axes", lambda a, b: a * torch.exp(b) / (a + 2), leaves((), ()), ALL),
    Case("axes of extent 1", lambda x: x.squeeze(1).unsqueeze(0) * x.mean(1, keepdim=True), leaves((3, 1, 2))),
    Case("a checkpoint", lambda x, w: checkpoint(lambda a: (a @ w).tanh(), x, use_reentrant=False), leaves((2, 3), (3, 3)), ALL),
    Case("a gradient penalty", penalised, leaves((2, 3), (3, 3))),
    Case("vmap of a function", lambda x: torch.vmap(lambda row: (row * row).sum())(x), leaves((3, 2))),
    Case("the gradient of a gradient", lambda x: torch.func.grad(lambda a: (a**3).sum())(x), leaves((3,))),
    Case("einsum", lambda x, y: torch.einsum("bij,bkj->bik", x, y), leaves((2, 3, 4), (2, 2, 4)), ALL),
    Case("mixed dtypes", lambda x: (x.double() * 3).to(x.dtype).float().sum(), leaves((4,)), ALL),
    Case("a mask of minus infinity", lambda x: torch.softmax(x.masked_fill(MASK, -torch.inf), -1), leaves((3, 4)), ALL),
    Case("a causal attention", lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), leaves((1, 2, 3, 4)), ALL),
    Case("a sampled normal", lambda x: torch.distributions.Normal(x, 1.0).rsample(), leaves((3,))),
)  # fmt: skip


def attends_detached(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax(x @ w @ x.T, -1).detach() @ x


def normalised_by_detached(x: Tensor) -> Tensor:
    with torch.no_grad():
        mean, deviation = x.mean(0), x.std(0)
    return (x - mean) / deviation


def written_behind(x: Tensor) -> Tensor:
    y = x * 2
    y.data.mul_(3)
    return y.tanh()


REFUTED = (
    Case("attention weights detached by mistake", attends_detached, leaves((3, 4), (4, 4)), ALL),
    Case(".data in the user's code", lambda x, w: x @ w.data, leaves((2, 3), (3, 2)), ALL),
    Case("statistics under no_grad", normalised_by_detached, leaves((4, 3))),
    Case("one of two tied weights detached", lambda x, w: (x @ w).tanh() @ w.T.detach(), leaves((2, 3), (3, 3)), ALL),
    Case("a residual detached", lambda x: torch.tanh(x) + x.detach(), leaves((3,)), ALL),
    Case("clone and detach in the middle", lambda x: x.exp().clone().detach() * x, leaves((3,)), ALL),
    Case("a number by item", lambda x: x * x[0].item(), numbers([0.3, 0.7])),
    Case("a leaf made anew", lambda x: x * x.detach().requires_grad_(), leaves((3,)), ALL),
    Case("numbers changed behind autograd", written_behind, leaves((3,)), ALL),
    Case("a straight-through estimator, by its forward", lambda x: x + (x.round() - x).detach(), leaves((3,))),
    Case("softplus from relu and abs, at 0", lambda x: torch.relu(x) + torch.log1p(torch.exp(-x.abs())), AT_0, ALL),
    Case("softplus from where and abs, at 0", lambda x: torch.where(x > 0, x, 0.0) + torch.log1p(torch.exp(-x.abs())), AT_0),
    Case("the where trap", lambda x: torch.where(x > 0, x.sqrt(), 0.0), numbers([0.0, 4.0]), ALL),
    Case("the root of a sum of squares at 0", lambda x: (x**2).sum().sqrt(), numbers([0.0, 0.0])),
    Case("a naive softmax that overflows", lambda x: x.exp() / x.exp().sum(), numbers([1000.0, 0.0])),
)  # fmt: skip


class Block(nn.Module):
    """A residual block with batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Tied(nn.Module):
    """A language model's head with the embedding's own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix(self.embedding(tokens)) @ self.embedding.weight.T


def net(
    make: Callable[[], nn.Module], *shapes: tuple[int, ...]
) -> Callable[[torch.dtype], tuple[Any, tuple[Any, ...]]]:
    def built(dtype: torch.dtype) -> tuple[Any, tuple[Any, ...]]:
        torch.manual_seed(0)
        return make().to(dtype), leaves(*shapes)(dtype)

    return built


def classified(dtype: torch.dtype) -> tuple[Any, tuple[Any, ...]]:
    target = torch.tensor([1, 2, -100, 0])
    return lambda x: F.cross_entropy(x, target, label_smoothing=0.1, ignore_index=-100), leaves((4, 5))(dtype)


def masked_attention(dtype: torch.dtype) -> tuple[Any, tuple[Any, ...]]:
    layer, (x,) = net(lambda: nn.MultiheadAttention(8, 2, batch_first=True), (2, 3, 8))(dtype)
    mask = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)
    return lambda x: layer(x, x, x, attn_mask=mask, need_weights=False)[0], (x,)


def tokens(dtype: torch.dtype) -> tuple[Any, tuple[Any, ...]]:
    model, _ = net(Tied)(dtype)
    return model, (torch.tensor([[1, 2, 1], [0, 6, 3]]),)


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


NETS: dict[str, Callable[[torch.dtype], tuple[Any, tuple[Any, ...]]]] = {
    "a transformer encoder layer": net(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), (2, 3, 8)),
    "with dropout": net(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), (2, 3, 8)),
    "a transformer decoder layer": net(lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0), (3, 2, 8), (3, 2, 8)),
    "a residual block with batch norm": net(lambda: Block(4), (2, 4, 5, 5)),
    "a residual block in evaluation": net(lambda: Block(4).eval(), (2, 4, 5, 5)),
    "an LSTM cell": net(lambda: nn.LSTMCell(4, 6), (3, 4)),
    "an LSTM": net(lambda: nn.LSTM(4, 6), (5, 3, 4)),
    "a bidirectional LSTM of two layers": net(lambda: nn.LSTM(3, 2, num_layers=2, bidirectional=True), (3, 2, 3)),
    "a GRU cell": net(lambda: nn.GRUCell(4, 6), (3, 4)),
    "a GRU": net(lambda: nn.GRU(4, 6), (5, 3, 4)),
    "a multi-head attention": net(lambda: nn.MultiheadAttention(8, 2), (3, 2, 8), (3, 2, 8), (3, 2, 8)),
    "a masked attention": masked_attention,
    "cross entropy with smoothing and ignore_index": classified,
    "a perceptron with layer norm": net(lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)), (3, 4)),
    "a convolutional net with group norm": net(conv_net, (2, 1, 6, 6)),
    "a tied embedding": tokens,
}  # fmt: skip
