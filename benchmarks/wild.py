"""Functions, losses and layers of public packages through `gradproof.check_function`, as they are installed.

Who writes a backward by hand writes it once, and seldom looks again. Here stand custom autograd Functions
that packages ship, and losses and layers of theirs whose gradients are torch's own, each on a few small
random numbers. None of these packages is needed by this project and nothing of them is copied: what is
installed is imported, and what is not is said and left out.

    python benchmarks/wild.py
    python benchmarks/wild.py --only 'entmax|timm'
    python benchmarks/wild.py --write

A row is a package, a name in it, and what makes `(func, inputs)` of what has that name. Each is checked in a
process of its own, with 60 s: a package may change torch for all that come after it. Where a gradient is not
that of the forward and the package says so (a surrogate, a straight-through estimator), or where it was
looked into, the row has a remark. `--write` puts the table into reports/wild.md, above what was found. The
exit status is 1 where something is wrong or failed and has no remark: it is to be looked into.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from gradproof import check_function
from gradproof.errors import GradproofError
from gradproof.progress import tracked
from gradproof.worker import Limits, alone

LIMIT = 60.0  # seconds, with the import of the package
SHORT = 60  # characters of a cause in the table
WIDTH = 130  # of a line of the report
REPORT = Path(__file__).parent.parent / "reports" / "wild.md"
HEAD = ("package", "version", "function", "verdict", "node", "first cause")

Case = tuple[Callable[..., Any], tuple[Any, ...]]

SURROGATE = "stand-in: a surrogate for a step's gradient"
STRAIGHT = "stand-in: straight-through"
TANGENT = "stand-in: a group's gradient is in its tangent space"
IMPLICIT = "open: a root by halving; the implicit gradient is right"
HELD = "stand-in: a weight held constant, by a detach or no_grad"
PADDING = "finding: what was padded is left out"
TRUST = {"stops": "trust"}  # they are meant, as the package says
ONCE = {"passes": 1}  # a backward that uses up what it was given


@dataclass(frozen=True)
class Row:
    """`name` is `module:attribute`; `case` makes `(func, inputs)` of it. `dtype` is what the package's own
    numbers and ours are in. `remark` says why it does not pass, where that is known."""

    package: str
    name: str
    case: Callable[[Any], Case]
    remark: str = ""
    dtype: str = "float64"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the check
    how: str = ""  # which case of it, where there are several

    @property
    def told(self) -> str:
        """The name as the package's users write it."""
        name = self.name.partition(":")[2]
        return f"{name} ({self.how})" if self.how else name


@dataclass(frozen=True)
class Outcome:
    """What came of a row, as text; `verdict` is "not installed" where the package is not here."""

    verdict: str
    node: str = ""
    cause: str = ""

    @property
    def passes(self) -> bool:
        return self.verdict in ("exact", "rounding", "kink", "not installed")


# What the rows are made of


def x(*shape: int) -> torch.Tensor:
    """Normal numbers that a gradient is asked of."""
    return torch.randn(*shape).requires_grad_()


def positive(*shape: int) -> torch.Tensor:
    """Between 0.1 and 0.9, with a gradient."""
    return (0.1 + 0.8 * torch.rand(*shape)).requires_grad_()


def given(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def classes(count: int, *shape: int) -> torch.Tensor:
    return torch.randint(count, shape)


def mask(*shape: int) -> torch.Tensor:
    return torch.randint(2, shape).to(torch.get_default_dtype())


def definite(n: int) -> torch.Tensor:
    """A symmetric positive definite matrix, with a gradient."""
    root = torch.randn(n, n)
    return (root @ root.mT + n * torch.eye(n)).requires_grad_()


def unit(*shape: int) -> torch.Tensor:
    """Vectors of length one, with a gradient."""
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1).requires_grad_()


def plain(*inputs: Callable[[], Any]) -> Callable[[Any], Case]:
    """A function, called with these."""
    return lambda f: (f, tuple(make() for make in inputs))


def applied(*inputs: Callable[[], Any]) -> Callable[[Any], Case]:
    """An autograd Function, applied to these."""
    return lambda f: (f.apply, tuple(make() for make in inputs))


def built(*inputs: Callable[[], Any], **options: Any) -> Callable[[Any], Case]:
    """A class (a loss, a layer), made with the options and called with these."""
    return lambda f: (f(**options), tuple(make() for make in inputs))


def just(value: Any) -> Callable[[], Any]:
    return lambda: value


def of(make: Callable[..., torch.Tensor], *shape: int) -> Callable[[], torch.Tensor]:
    return lambda: make(*shape)


def first(f: Any) -> Callable[..., Any]:
    """The first of what it gives."""
    return lambda *inputs: f(*inputs)[0]


def elementwise(package: str, module: str, names: str, remark: str = "", *more: Any) -> list[Row]:
    """Functions of one module that take numbers one by one."""
    case = plain(of(x, 7), *(just(value) for value in more))
    return [Row(package, f"{module}:{name}", case, remark) for name in names.split()]


def functions(package: str, module: str, names: str, remark: str = "", *more: Any) -> list[Row]:
    """Autograd Functions of one module that take numbers one by one."""
    case = applied(of(x, 7), *(just(value) for value in more))
    return [Row(package, f"{module}:{name}", case, remark) for name in names.split()]


def reversible(f: Any) -> Case:
    """Two couplings whose backward runs them the other way, of a package's sequence of `(f, g)`."""
    halves = [torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()) for _ in range(2)]
    return f(torch.nn.ModuleList([torch.nn.ModuleList(halves)])), (x(1, 3, 4),)


def flow(f: Any) -> Case:
    """The log-determinant of a residual block, with as many terms as its first ones: nothing is drawn but
    what is then given."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())
    noise = given(3, 2)

    def series(g: Any, z: Any, terms: int, vector: Any, weight: Any, training: bool) -> Any:
        return (torch.autograd.grad(g, z, noise, create_graph=True)[0] * noise).sum(1, keepdim=True)

    def func(z: torch.Tensor) -> Any:
        return f.apply(series, net, z, 1, noise, None, True, *net.parameters())

    return func, (x(3, 2),)


def preference(f: Any, **options: Any) -> Case:
    """Two chosen and two rejected sequences, a linear layer and its loss in one."""
    loss = f(compiled=False, **options)
    targets = classes(5, 4, 3)
    return (lambda weight, states, bias: loss(weight, states, targets, bias)[0]), (x(5, 4), x(4, 3, 4), x(5))


def distillation(f: Any) -> Case:
    loss, teacher, weight = f(compiled=False), given(4, 3), given(5, 3)
    targets = classes(5, 4)
    return (lambda states, own: loss(states, own, teacher, weight, targets)), (x(4, 2), x(5, 2))


def policy(f: Any, kind: str) -> Case:
    loss = f(compiled=False, use_ref_model=False, beta=0.0, loss_type=kind, max_completion_length=3)
    tokens, advantages, old = classes(5, 2, 3), given(2), given(2, 3)
    return (
        lambda states, weight: loss(
            states, weight, tokens, torch.ones(2, 3), advantages, old_per_token_logps=old
        )[0]
    ), (x(2, 3, 4), x(5, 4))


def covariance(f: Any, *more: Any) -> Case:
    """A kernel's values between given points, by its lengthscale."""
    left, right = given(3, 2), given(4, 2)

    def func(length: torch.Tensor) -> torch.Tensor:
        return f.apply(left, right, length, *more)

    return func, (positive(1, 1),)


def squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.unsqueeze(-2) - b.unsqueeze(-3)).pow(2).sum(-1)


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return squared(a, b).sqrt()


def of_operator(call: Callable[..., Any]) -> Callable[[Any], Case]:
    """Of a dense symmetric matrix as a linear operator, and a right-hand side."""

    def case(f: Any) -> Case:
        from linear_operator.operators import DenseLinearOperator

        return (lambda a, b: call(f, DenseLinearOperator((a + a.mT) / 2), b)), (definite(3), x(3, 2))

    return case


def solved(f: Any) -> Case:
    """An ODE with a parameter, integrated in four steps and differentiated by its adjoint."""

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return -self.rate * y

    field = Field()
    times = torch.linspace(0, 1, 5)

    class Solution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = field

        def forward(self, y: torch.Tensor) -> torch.Tensor:
            return f(self.field, y, times, method="rk4")

    return Solution(), (x(2),)


def warped(f: Any) -> Case:
    """Soft dynamic time warping of a matrix of distances."""
    lengths = torch.tensor([[3, 4]])
    return (lambda d: f.apply(d, lengths, 1.0, 0.0)), ((torch.rand(1, 3, 4) + 0.1).requires_grad_(),)


def lognormal(f: Any) -> Case:
    """Without the validation of torch.distributions, which asks its arguments by an operation of its own."""
    torch.distributions.Distribution.set_default_validate_args(False)
    return f, (torch.tensor([-4.0, -1.5, -1.05, -0.5, -0.1, 0.1, 1.5]).requires_grad_(),)


def wavelet(wave: str, mode: str, length: int = 8) -> Callable[[Any], Case]:
    def case(f: Any) -> Case:
        transform = f(wave=wave, mode=mode)

        def func(values: torch.Tensor) -> torch.Tensor:
            low, high = transform(values)
            return torch.cat([low, *high], -1)

        return func, (x(1, 1, length),)

    return case


def bands(transform: Any) -> Callable[..., Any]:
    """The low band and the high ones of an image."""

    def func(image: torch.Tensor) -> Any:
        low, high = transform(image)
        return (low, *high)

    return func


def synthesis(f: Any) -> Case:
    transform = f(wave="db2", mode="periodization")
    return (lambda low, high: transform((low, [high]))), (x(1, 1, 4), x(1, 1, 4))


class With(torch.nn.Module):
    """A module that takes a second, given argument; its parameters are looked at too."""

    def __init__(self, module: torch.nn.Module, second: torch.Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("second", second)

    def forward(self, values: torch.Tensor) -> Any:
        return self.module(values, self.second)


class Dense(torch.nn.Module):
    """A kernel's matrix, with its parameters."""

    def __init__(self, kernel: torch.nn.Module) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, points: torch.Tensor) -> Any:
        return self.kernel(points).to_dense()


def classes_once(count: int, *shape: int) -> torch.Tensor:
    """The same classes in every call, one after the other."""
    return torch.arange(torch.Size(shape).numel()).remainder(count).reshape(shape)


def ball(*shape: int) -> torch.Tensor:
    """Inside of the unit ball, with a gradient."""
    return (0.3 * torch.randn(*shape)).clamp(-0.5, 0.5).requires_grad_()


def boxes(v: torch.Tensor) -> torch.Tensor:
    """Corners of boxes, from any four numbers."""
    return torch.cat([v[:, :2], v[:, :2] + v[:, 2:].exp()], 1)


def normalized(f: Any) -> Case:
    layer, steps, labels = f(4, 3), torch.tensor([1]), torch.tensor([0])
    return (lambda v: layer(v, steps, labels, hidden_dtype=v.dtype)[0]), (x(1, 2, 4),)


def masked(f: Any) -> Case:
    keep = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    return (lambda v: f.apply(v, keep, -1)), (x(3, 5),)


def sorted_back(f: Any) -> Case:
    order = torch.tensor([[[2, 0, 3, 1]]])
    back = order.argsort(-1)
    return (lambda v, logits: f.apply(v, logits, order, back)), (x(1, 1, 4, 2), x(1, 1, 4))


def cumulated(f: Any) -> Case:
    keep, config = torch.ones(1, 3), {"hash_code_len": 4}
    return (lambda q, k, v: f.apply(keep, keep, q, k, v, config)), (unit(1, 3, 4), unit(1, 3, 4), x(1, 3, 2))


def gated(f: Any) -> Case:
    """As its router calls it: the chosen expert's gate, times a mask."""
    one = torch.ones(3, 1)

    def func(scores: torch.Tensor) -> torch.Tensor:
        gates = scores.softmax(-1)
        chosen = scores.argmax(-1, keepdim=True)
        return f.apply(scores, gates.gather(1, chosen), chosen, gates, one)

    return func, (x(3, 4),)


def input_only(f: Any) -> Case:
    layer = torch.nn.Linear(3, 2).requires_grad_(False)
    return (lambda v: f.apply(v, lambda a: torch.tanh(layer(a)))), (x(4, 3),)


def to(loss: Any, target: torch.Tensor, *more: Any) -> Callable[..., Any]:
    """The loss against a given target."""
    return lambda v: loss(v, target, *more)


def probable(loss: Any, target: torch.Tensor) -> Callable[..., Any]:
    """The same, of a probability."""
    return lambda v: loss(v.sigmoid(), target)


def half() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())


def doubled(f: Any) -> Case:
    pair = torch.nn.ModuleList([half(), half()])
    return f(torch.nn.ModuleList([pair])), (x(1, 3, 2),)


def revnet(f: Any) -> Case:
    import revtorch

    blocks = [revtorch.ReversibleBlock(half(), half(), split_along_dim=1) for _ in range(2)]
    return f(torch.nn.ModuleList(blocks)), (x(3, 4),)


def coupled(f: Any) -> Case:
    return f(half(), half()), (x(3, 4),)


def affine(f: Any) -> Case:
    """By a backward of its own, which inverts it."""
    import memcnn

    layer = f(half(), half(), adapter=memcnn.AffineAdapterNaive, implementation_fwd=1, implementation_bwd=1)
    return layer, (x(3, 4),)


def wrapped(f: Any) -> Case:
    import memcnn

    return f(memcnn.AdditiveCoupling(half(), half()), keep_input=True), (x(3, 4),)


EDGES = torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 3, 0]])


class Graph(torch.nn.Module):
    """A layer over a fixed graph of four nodes."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, v: torch.Tensor) -> Any:
        return self.layer(v, EDGES)


def graph(f: Any, *sizes: int, **options: Any) -> torch.nn.Module:
    return Graph(f(*sizes, **options))


def grouped(f: Any) -> Case:
    from torch_geometric.nn import SAGEConv

    return Graph(f(SAGEConv(2, 2), num_groups=2)), (x(4, 4),)


def spmm(f: Any) -> Case:
    from torch_geometric import EdgeIndex

    index = EdgeIndex(EDGES[:, EDGES[0].argsort(stable=True)], sort_order="row", sparse_size=(4, 4))
    weights = given(5)
    return (lambda v: f.apply(index, v, weights, "sum", False)), (x(4, 2),)


def operator_applied(f: Any) -> Callable[..., Any]:
    from linear_operator.operators import DenseLinearOperator

    def func(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        operator = DenseLinearOperator(a)
        return f.apply(operator.representation_tree(), b, *operator.representation())

    return func


def bisected(f: Any) -> Case:
    """The inverse of a monotone function with a parameter."""

    def func(y: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return f(lambda v: v**3 + a * v, y, -10.0, 10.0, n=60, phi=(a,))

    return func, (x(3), positive(1))


def integrated(f: Any) -> Case:
    def func(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return f(lambda v: c * v**2 + v, a, b, n=3, phi=(c,))

    return func, (x(2), x(2), x(1))


# The rows

ACTIVATIONS = [
    Row(
        "transformers",
        "transformers.models.bloom.modeling_bloom:GeLUFunction",
        applied(of(x, 7)),
        remark="finding: a constant cut short",
    ),
    Row(
        "transformers",
        "transformers.models.recurrent_gemma.modeling_recurrent_gemma:SqrtBoundDerivative",
        applied(of(positive, 5)),
    ),
    *functions("timm", "timm.layers.activations_me", "SwishAutoFn MishAutoFn HardSigmoidAutoFn"),
    *functions("timm", "timm.layers.activations_me", "HardSwishAutoFn HardMishAutoFn"),
    Row("monai", "monai.networks.blocks.activation:SwishImplementation", applied(of(x, 7))),
    Row("monai", "monai.networks.blocks.activation:Mish", built(of(x, 7))),
    Row("e3nn", "e3nn.math._soft_unit_step:_SoftUnitStep", applied(of(x, 7))),
    Row(
        "e3nn",
        "e3nn.math:soft_one_hot_linspace",
        lambda f: (
            lambda v: f(v, -2.0, 2.0, 4, basis="smooth_finite", cutoff=True),
            (x(5),),
        ),
    ),
    Row("e3nn", "e3nn.o3:spherical_harmonics", lambda f: (lambda v: f([0, 1, 2], v, True), (x(3, 3),))),
    Row("pytorch-tabnet", "pytorch_tabnet.sparsemax:SparsemaxFunction", applied(of(x, 3, 5), just(-1))),
    Row("pytorch-tabnet", "pytorch_tabnet.sparsemax:Entmax15Function", applied(of(x, 3, 5), just(-1))),
    Row("pytorch-tabnet", "pytorch_tabnet.sparsemax:Entmoid15", applied(of(x, 7))),
    Row("entmax", "entmax:sparsemax", plain(of(x, 3, 5))),
    Row("entmax", "entmax:entmax15", plain(of(x, 3, 5))),
    Row("entmax", "entmax:sparsemax_bisect", plain(of(x, 3, 5)), remark=IMPLICIT),
    Row(
        "entmax",
        "entmax:entmax_bisect",
        plain(of(x, 3, 5), of(lambda: torch.tensor(1.3).requires_grad_())),
        remark=IMPLICIT,
    ),
    Row("entmax", "entmax.root_finding:NormmaxBisectFunction", applied(of(x, 3, 5)), remark=IMPLICIT),
    Row("entmax", "entmax.root_finding:BudgetBisectFunction", applied(of(x, 3, 5)), remark=IMPLICIT),
    Row("entmax", "entmax:sparsemax_loss", plain(of(x, 3, 5), of(classes, 5, 3))),
    Row("entmax", "entmax:entmax15_loss", plain(of(x, 3, 5), of(classes, 5, 3))),
    Row("entmax", "entmax:entmax_bisect_loss", plain(of(x, 3, 5), of(classes, 5, 3))),
    Row("sparsemax", "sparsemax:Sparsemax", built(of(x, 3, 5), dim=-1)),
    Row("transformers", "transformers.activations:LaplaceActivation", built(of(x, 7))),
    Row("transformers", "transformers.activations:XIELUActivation", built(of(x, 7)), dtype="float32"),
    Row("diffusers", "diffusers.models.activations:GEGLU", built(of(x, 3, 4), dim_in=4, dim_out=3)),
    Row("diffusers", "diffusers.models.normalization:AdaLayerNormZero", lambda f: normalized(f)),
    Row("diffusers", "diffusers.models.activations:GELU", built(of(x, 3, 4), dim_in=4, dim_out=3)),
    Row("transformers", "transformers.models.sew_d.modeling_sew_d:XSoftmax", lambda f: masked(f)),
    Row("transformers", "transformers.models.sew_d.modeling_sew_d:XDropout", applied(of(x, 3, 5), just(0.5))),
    Row(
        "transformers", "transformers.models.reformer.modeling_reformer:ReverseSort", lambda f: sorted_back(f)
    ),
    Row(
        "transformers",
        "transformers.models.yoso.modeling_yoso:YosoCumulation",
        lambda f: cumulated(f),
        remark="stand-in: half the code length times the value, for the slope",
    ),
    Row(
        "transformers",
        "transformers.models.phimoe.modeling_phimoe:PhimoeMultiplier",
        lambda f: gated(f),
        remark="stand-in: gives the gate's gradient to its scores",
    ),
    Row("transformers", "transformers.loss.loss_lsd:_InputOnlyGrad", lambda f: input_only(f), options=ONCE),
    Row(
        "transformers",
        "transformers.models.ibert.quant_modules:SymmetricQuantFunction",
        applied(of(x, 3, 4), just(8), just(False), lambda: torch.full((3,), 0.1)),
        "stand-in: straight-through, of a quantised value",
    ),
    *functions("transformers", "transformers.models.ibert.quant_modules", "floor_ste round_ste", STRAIGHT),
]

ADAPTERS = [
    Row(
        "peft",
        "peft.tuners.loha.layer:HadaWeight",
        applied(of(x, 3, 2), of(x, 2, 4), of(x, 3, 2), of(x, 2, 4)),
    ),
    Row(
        "peft",
        "peft.tuners.loha.layer:HadaWeightCP",
        applied(of(x, 2, 2, 3, 3), of(x, 2, 4), of(x, 2, 5), of(x, 2, 2, 3, 3), of(x, 2, 4), of(x, 2, 5)),
        remark="finding: two factors' gradients use each other's",
    ),
    Row(
        "peft",
        "peft.tuners.c3a.utils:BlockCircularConvolution",
        applied(of(x, 2, 6), of(x, 2, 2, 3)),
        remark="finding: the gradient by x is turned round",
    ),
    Row("peft", "peft.tuners.c3a.utils:get_circulant_fast", plain(of(x, 2, 2, 3))),
    Row(
        "peft",
        "peft.tuners.randlora.layer:UniqueBaseGrad",
        applied(of(given, 2, 1, 4), of(x, 2, 3), of(x, 3, 4)),
    ),
    Row(
        "peft",
        "peft.tuners.lora.velora:VeloraFunction",
        applied(of(x, 3, 4), of(x, 2, 4), of(x, 2), of(given, 2), just(2), just(1.0)),
        "stand-in: the weight's gradient from compressed activations",
    ),
    Row(
        "optimum-quanto",
        "optimum.quanto.tensor.function:QuantizedLinearFunction",
        applied(of(x, 3, 4), of(x, 2, 4), of(x, 2)),
    ),
    Row(
        "speechbrain",
        "speechbrain.lobes.models.beats:GradMultiply",
        applied(of(x, 5), just(0.5)),
        "stand-in: scales the gradient, as its name says",
    ),
    Row(
        "pytorch-revgrad",
        "pytorch_revgrad:RevGrad",
        built(of(x, 5)),
        "stand-in: reverses the gradient, as its name says",
    ),
    Row(
        "speechbrain",
        "speechbrain.nnet.quaternion_networks.q_ops:QuaternionLinearCustomBackward",
        applied(of(x, 3, 8), *(of(x, 2, 1) for _ in range(4)), of(x, 4)),
    ),
    Row(
        "fairscale",
        "fairscale.nn:checkpoint_wrapper",
        lambda f: (f(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh())), (x(4, 3),)),
    ),
    Row("x-transformers", "x_transformers.belief_state_wrapper:DetachMultiple", applied(of(x, 3), of(x, 2))),
    Row("x-transformers", "x_transformers:Attention", lambda f: (f(8, heads=2, dim_head=4), (x(1, 3, 8),))),
    Row(
        "local-attention",
        "local_attention:LocalAttention",
        lambda f: (f(window_size=2, causal=True, dim=4), (x(1, 4, 4), x(1, 4, 4), x(1, 4, 4))),
    ),
    Row(
        "rotary-embedding-torch",
        "rotary_embedding_torch:RotaryEmbedding",
        lambda f: (f(dim=4).rotate_queries_or_keys, (x(1, 2, 3, 4),)),
    ),
    Row("performer-pytorch", "performer_pytorch.reversible:ReversibleSequence", lambda f: doubled(f)),
    Row("reformer-pytorch", "reformer_pytorch.reversible:ReversibleSequence", reversible),
    Row("revtorch", "revtorch:ReversibleSequence", lambda f: revnet(f), options=ONCE),
    Row("memcnn", "memcnn:AdditiveCoupling", lambda f: coupled(f)),
    Row(
        "memcnn",
        "memcnn:AffineCoupling",
        lambda f: (f(half(), half(), adapter=at("memcnn:AffineAdapterSigmoid")), (x(3, 4),)),
    ),
    Row(
        "memcnn",
        "memcnn:AffineCoupling",
        affine,
        how="implementation 1",
        remark="finding: a factor forgotten in the second half",
    ),
    Row(
        "memcnn",
        "memcnn:InvertibleModuleWrapper",
        lambda f: wrapped(f),
        options=ONCE,
        remark="finding: the gradient of an input of the user's counts twice",
    ),
    Row(
        "torch_geometric",
        "torch_geometric.nn:GroupAddRev",
        lambda f: grouped(f),
        options=ONCE,
    ),
    Row(
        "vector-quantize-pytorch",
        "vector_quantize_pytorch:FSQ",
        lambda f: (first(f([5, 5])), (x(1, 3, 2),)),
        STRAIGHT,
        options=TRUST,
    ),
    Row(
        "vector-quantize-pytorch",
        "vector_quantize_pytorch:SimVQ",
        lambda f: (first(f(dim=2, codebook_size=4)), (x(1, 3, 2),)),
        "stand-in: the rotation trick",
        dtype="float32",
    ),
]

GRAPHS_AND_KERNELS = [
    Row(
        "torch_geometric",
        "torch_geometric.utils.cross_entropy:sparse_cross_entropy",
        lambda f: (lambda v, w: f(v, torch.tensor([[0, 1, 1, 2], [1, 0, 3, 2]]), w), (x(3, 4), None)),
    ),
    Row("torch_geometric", "torch_geometric.nn:GATConv", lambda f: (graph(f, 3, 2, heads=2), (x(4, 3),))),
    Row("torch_geometric", "torch_geometric.nn:GCNConv", lambda f: (graph(f, 3, 2), (x(4, 3),))),
    Row("torch_geometric", "torch_geometric.edge_index:_TorchSPMM", lambda f: spmm(f)),
    Row(
        "torch_geometric",
        "torch_geometric.utils:softmax",
        lambda f: (lambda v: f(v, torch.tensor([0, 0, 1, 1, 1])), (x(5),)),
    ),
    Row("gpytorch", "gpytorch.functions:RBFCovariance", lambda f: covariance(f, squared)),
    Row("gpytorch", "gpytorch.functions:MaternCovariance", lambda f: covariance(f, 1.5, distance)),
    Row(
        "gpytorch",
        "gpytorch.functions:MaternCovariance",
        lambda f: covariance(f, 2.5, distance),
        how="ν = 5/2",
    ),
    Row("gpytorch", "gpytorch.functions:log_normal_cdf", lognormal, remark="finding: three digits at -1"),
    Row(
        "gpytorch",
        "gpytorch.variational.large_batch_variational_strategy:QuadFormDiagonal",
        lambda f: (lambda a, b: f.apply(a @ a.mT, b), (x(3, 3), x(3, 4))),
    ),
    Row(
        "gpytorch",
        "gpytorch.variational.natural_variational_distribution:_NaturalToMuVarSqrt",
        lambda f: (lambda m, c: f.apply(m, -0.5 * (c + c.mT)), (x(3), definite(3))),
        "stand-in: natural gradients",
    ),
    Row(
        "gpytorch",
        "gpytorch.kernels:RBFKernel",
        lambda f: (Dense(f()), (x(3, 2),)),
    ),
    Row(
        "linear-operator",
        "linear_operator.functions._inv_quad:InvQuad",
        lambda f: (operator_applied(f), (definite(3), x(3, 2))),
    ),
    Row("linear-operator", "linear_operator:inv_quad", of_operator(lambda f, a, b: f(a, b))),
    Row("linear-operator", "linear_operator:solve", of_operator(lambda f, a, b: f(a, b))),
    Row(
        "linear-operator",
        "linear_operator:inv_quad_logdet",
        of_operator(lambda f, a, b: f(a, inv_quad_rhs=b, logdet=True)),
    ),
    Row("linear-operator", "linear_operator.functions:sqrt_inv_matmul", of_operator(lambda f, a, b: f(a, b))),
    Row("linear-operator", "linear_operator:pivoted_cholesky", of_operator(lambda f, a, b: f(a, 3))),
    Row(
        "linear-operator",
        "linear_operator:diagonalization",
        of_operator(lambda f, a, b: f(a, method="symeig")[0]),
    ),
    Row("botorch", "botorch.utils.rounding:RoundSTE", applied(of(x, 5)), STRAIGHT),
    Row("botorch", "botorch.utils.rounding:OneHotArgmaxSTE", applied(of(x, 2, 3)), STRAIGHT),
    Row("botorch", "botorch.utils.safe_math:logmeanexp", plain(of(x, 5), just(-1))),
    Row("botorch", "botorch.utils.safe_math:log_fatplus", plain(of(x, 5))),
    Row("botorch", "botorch.utils.safe_math:fatmax", plain(of(x, 3, 5), just(-1))),
    Row("botorch", "botorch.utils.probability.utils:log_ndtr", plain(of(x, 5))),
    Row("botorch", "botorch.utils.probability.utils:log_phi", plain(of(x, 5))),
    Row("botorch", "botorch.acquisition.analytic:_log_ei_helper", plain(of(x, 5))),
    Row(
        "geomloss",
        "geomloss:SamplesLoss",
        built(of(x, 3, 2), of(x, 4, 2), loss="gaussian", blur=0.5),
        remark="stand-in: DoubleGrad doubles a gradient",
    ),
    Row(
        "geomloss",
        "geomloss._legacy.kernel_samples:DoubleGrad",
        applied(of(x, 5)),
        "stand-in: doubles the gradient, as its name says",
    ),
    Row(
        "geomloss",
        "geomloss:SamplesLoss",
        built(of(x, 3, 2), of(x, 4, 2), loss="energy"),
        remark="stand-in: DoubleGrad doubles a gradient",
        how="energy",
    ),
    Row(
        "POT", "ot.gaussian:bures_wasserstein_distance", lambda f: (f, (x(2), x(2), definite(2), definite(2)))
    ),
    Row(
        "POT",
        "ot:emd2",
        lambda f: (lambda m: f(torch.full((3,), 1 / 3), torch.full((3,), 1 / 3), m), (positive(3, 3),)),
    ),
    Row(
        "POT",
        "ot:sinkhorn2",
        lambda f: (
            lambda m: f(torch.full((3,), 1 / 3), torch.full((3,), 1 / 3), m, 1.0, numItermax=5, warn=False),
            (positive(3, 3),),
        ),
    ),
    Row("pysdtw", "pysdtw.sdtw_cpu:SoftDTWcpu", warped),
    Row("pypose", "pypose:so3", lambda f: (lambda v: f(v).Exp().tensor(), (x(2, 3),)), remark=TANGENT),
    Row(
        "pypose", "pypose:so3", lambda f: (lambda v: f(v).matrix(), (x(2, 3),)), how="matrix", remark=TANGENT
    ),
    Row("pypose", "pypose:se3", lambda f: (lambda v: f(v).Exp().tensor(), (x(2, 6),)), remark=TANGENT),
    Row("pypose", "pypose:sim3", lambda f: (lambda v: f(v).Exp().tensor(), (x(2, 7),)), remark=TANGENT),
    Row("pypose", "pypose:rxso3", lambda f: (lambda v: f(v).Exp().tensor(), (x(2, 4),)), remark=TANGENT),
    Row("pypose", "pypose.lietensor.operation:so3_Exp", applied(of(x, 2, 3)), remark=TANGENT),
    Row(
        "pypose",
        "pypose.lietensor.operation:SO3_Act",
        applied(of(unit, 2, 4), of(x, 2, 3)),
        TANGENT,
    ),
    Row(
        "pypose",
        "pypose.lietensor.operation:SO3_Log",
        applied(of(unit, 2, 4)),
        TANGENT,
    ),
    *[
        Row("geoopt", f"geoopt.manifolds.stereographic.math:{name}", case)
        for name, case in {
            "mobius_add": lambda f: (lambda a, b: f(a, b, k=torch.tensor(-1.0)), (ball(2, 3), ball(2, 3))),
            "expmap0": lambda f: (lambda a: f(a, k=torch.tensor(-1.0)), (ball(2, 3),)),
            "logmap0": lambda f: (lambda a: f(a, k=torch.tensor(-1.0)), (ball(2, 3),)),
            "dist": lambda f: (lambda a, b: f(a, b, k=torch.tensor(-1.0)), (ball(2, 3), ball(2, 3))),
        }.items()
    ],
    Row("torch-harmonics", "torch_harmonics:RealSHT", lambda f: (f(4, 8), (x(4, 8),))),
    Row("torch-dct", "torch_dct:dct", plain(of(x, 2, 5))),
    Row("torch-dct", "torch_dct:idct", plain(of(x, 2, 5))),
    Row("torch-dct", "torch_dct:dct1", plain(of(x, 2, 5))),
    Row("pytorch-wavelets", "pytorch_wavelets:DWT1DForward", wavelet("db2", "zero"), how="db2, zero"),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWT1DForward",
        wavelet("db2", "symmetric"),
        how="db2, symmetric",
        remark=PADDING,
    ),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWT1DForward",
        wavelet("db2", "periodization"),
        how="db2, periodization",
    ),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWT1DForward",
        wavelet("db2", "reflect"),
        how="db2, reflect",
        remark=PADDING,
    ),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWT1DForward",
        wavelet("db2", "periodic"),
        how="db2, periodic",
        remark=PADDING,
    ),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWT1DForward",
        wavelet("db2", "periodization", 7),
        how="db2, periodization, odd",
        remark=PADDING,
    ),
    Row("pytorch-wavelets", "pytorch_wavelets:DWT1DForward", wavelet("bior2.2", "zero"), how="bior2.2, zero"),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWTForward",
        lambda f: (bands(f(J=1, wave="db2", mode="symmetric")), (x(1, 1, 6, 6),)),
        how="db2, symmetric",
        remark=PADDING,
    ),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DWTForward",
        lambda f: (bands(f(J=1, wave="db2", mode="zero")), (x(1, 1, 6, 6),)),
        how="db2, zero",
    ),
    Row("pytorch-wavelets", "pytorch_wavelets:DTCWTForward", lambda f: (bands(f(J=2)), (x(1, 1, 8, 8),))),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets:DTCWTInverse",
        lambda f: (lambda low, high: f()((low, [high])), (x(1, 1, 8, 8), x(1, 1, 6, 4, 4, 2))),
    ),
    Row("pytorch-wavelets", "pytorch_wavelets:ScatLayer", lambda f: (f(), (x(1, 1, 8, 8),))),
    Row("pytorch-wavelets", "pytorch_wavelets:DWT1DInverse", synthesis),
    Row(
        "pytorch-wavelets",
        "pytorch_wavelets.scatternet.lowlevel:SmoothMagFn",
        applied(of(x, 5), of(x, 5), just(0.1)),
    ),
]

FLOWS_AND_SOLVERS = [
    Row(
        "torchdiffeq",
        "torchdiffeq:odeint_adjoint",
        solved,
        remark="stand-in: the adjoint equation, solved by itself",
    ),
    Row("torchdiffeq", "torchdiffeq:odeint", solved),
    Row("torchcde", "torchcde:hermite_cubic_coefficients_with_backward_differences", plain(of(x, 1, 4, 2))),
    Row("torchcde", "torchcde:natural_cubic_coeffs", plain(of(x, 1, 4, 2))),
    Row("zuko", "zuko.utils:bisection", lambda f: bisected(f), remark=IMPLICIT),
    Row("zuko", "zuko.utils:gauss_legendre", lambda f: integrated(f)),
    Row(
        "zuko",
        "zuko.transforms:MonotonicRQSTransform",
        lambda f: (lambda w, h, d, v: f(w, h, d).call_and_ladj(v), (x(4), x(4), x(3), x(5))),
    ),
    Row(
        "zuko",
        "zuko.transforms:SOSPolynomialTransform",
        lambda f: (lambda a, v: f(a).call_and_ladj(v), (x(2, 3), x(1))),
    ),
    Row(
        "nflows",
        "nflows.transforms.splines.rational_quadratic:rational_quadratic_spline",
        lambda f: (lambda v, w, h, d: f(v, w, h, d), (positive(3), x(3, 4), x(3, 4), x(3, 5))),
    ),
    Row("nflows", "nflows.transforms:LULinear", lambda f: (f(3), (x(2, 3),))),
    Row(
        "normflows",
        "normflows.flows.residual:MemoryEfficientLogDetEstimator",
        flow,
        options=ONCE,
        remark="finding: every row gets the first row's cotangent",
    ),
    Row("normflows", "normflows.flows:Planar", lambda f: (f((2,)), (x(3, 2),))),
    Row("normflows", "normflows.flows:Radial", lambda f: (f((2,)), (x(3, 2),))),
]

LOSSES = [
    *[
        Row("liger-kernel", f"liger_kernel.chunked_loss:LigerFusedLinear{name}Loss", preference)
        for name in ("ORPO", "CPO", "SimPO")
    ],
    Row(
        "liger-kernel",
        "liger_kernel.chunked_loss:LigerFusedLinearDPOLoss",
        lambda f: preference(f, use_ref_model=False),
    ),
    Row("liger-kernel", "liger_kernel.chunked_loss:LigerFusedLinearJSDLoss", distillation),
    Row(
        "liger-kernel",
        "liger_kernel.chunked_loss:LigerFusedLinearCosineSimilarityLoss",
        distillation,
        dtype="float32",
    ),
    Row(
        "liger-kernel",
        "liger_kernel.chunked_loss:LigerFusedLinearGRPOLoss",
        lambda f: policy(f, "dapo"),
        how="dapo",
    ),
    Row(
        "liger-kernel",
        "liger_kernel.chunked_loss:LigerFusedLinearGRPOLoss",
        lambda f: policy(f, "dr_grpo"),
        how="dr_grpo",
    ),
    Row(
        "kornia",
        "kornia.losses:focal_loss",
        lambda f: (lambda v: f(v, classes_once(3, 2, 2, 2), 0.5, 2.0, "mean"), (x(2, 3, 2, 2),)),
    ),
    Row(
        "kornia",
        "kornia.losses:binary_focal_loss_with_logits",
        lambda f: (to(f, mask(2, 1, 3), 0.25, 2.0, "mean"), (x(2, 1, 3),)),
    ),
    Row(
        "kornia",
        "kornia.losses:dice_loss",
        lambda f: (lambda v: f(v, classes_once(3, 2, 2, 2)), (x(2, 3, 2, 2),)),
    ),
    Row(
        "kornia",
        "kornia.losses:tversky_loss",
        lambda f: (lambda v: f(v, classes_once(3, 2, 2, 2), 0.3, 0.7), (x(2, 3, 2, 2),)),
    ),
    Row(
        "kornia",
        "kornia.losses:lovasz_softmax_loss",
        lambda f: (lambda v: f(v, classes_once(3, 1, 2, 2)), (x(1, 3, 2, 2),)),
    ),
    Row(
        "kornia",
        "kornia.losses:lovasz_hinge_loss",
        lambda f: (lambda v: f(v, classes_once(2, 1, 3, 3)), (x(1, 1, 3, 3),)),
    ),
    Row(
        "kornia",
        "kornia.losses:ssim_loss",
        lambda f: (lambda a, b: f(a, b, 3), (positive(1, 1, 5, 5), positive(1, 1, 5, 5))),
    ),
    *[
        Row("kornia", f"kornia.losses:{name}", plain(of(x, 3, 2), of(x, 3, 2)))
        for name in ("charbonnier_loss", "welsch_loss", "cauchy_loss", "geman_mcclure_loss")
    ],
    Row("kornia", "kornia.losses:js_div_loss_2d", plain(of(positive, 1, 1, 2, 3), of(positive, 1, 1, 2, 3))),
    Row("kornia", "kornia.losses:total_variation", plain(of(x, 1, 3, 3))),
    Row(
        "kornia",
        "kornia.geometry.epipolar.essential:_NullSpaceBasis",
        lambda f: (lambda v: (lambda b: b @ b.mT)(f.apply(v)[0]), (x(1, 5, 9),)),
    ),
    Row("kornia", "kornia.color:rgb_to_lab", plain(of(positive, 1, 3, 2, 2))),
    Row("kornia", "kornia.color:rgb_to_hsv", plain(of(positive, 1, 3, 2, 2))),
    Row("kornia", "kornia.geometry.conversions:axis_angle_to_rotation_matrix", plain(of(x, 2, 3))),
    Row(
        "kornia",
        "kornia.geometry.conversions:rotation_matrix_to_axis_angle",
        lambda f: (lambda v: f(torch.matrix_exp(v - v.mT)), (positive(1, 3, 3),)),
    ),
    Row(
        "monai",
        "monai.losses:DiceLoss",
        lambda f: (to(f(sigmoid=True), mask(2, 1, 3, 3)), (x(2, 1, 3, 3),)),
    ),
    Row("monai", "monai.losses:FocalLoss", lambda f: (to(f(), mask(2, 1, 3)), (x(2, 1, 3),))),
    Row(
        "monai",
        "monai.losses:TverskyLoss",
        lambda f: (to(f(sigmoid=True), mask(2, 1, 3)), (x(2, 1, 3),)),
    ),
    Row(
        "monai",
        "monai.losses:LocalNormalizedCrossCorrelationLoss",
        lambda f: (f(spatial_dims=2, kernel_size=3), (x(1, 1, 4, 4), x(1, 1, 4, 4))),
    ),
    Row(
        "monai",
        "monai.losses:GlobalMutualInformationLoss",
        lambda f: (f(num_bins=4), (positive(1, 1, 3, 3), positive(1, 1, 3, 3))),
    ),
    Row("monai", "monai.losses:BendingEnergyLoss", lambda f: (f(), (x(1, 2, 6, 6),))),
    *[
        Row("timm", f"timm.loss:{name}", case)
        for name, case in {
            "AsymmetricLossMultiLabel": lambda f: (to(f(), mask(3, 4)), (x(3, 4),)),
            "LabelSmoothingCrossEntropy": lambda f: (lambda v: f()(v, classes_once(4, 3)), (x(3, 4),)),
            "BinaryCrossEntropy": lambda f: (to(f(), mask(3, 4)), (x(3, 4),)),
        }.items()
    ],
    *[
        Row("segmentation_models_pytorch", f"segmentation_models_pytorch.losses:{name}", case)
        for name, case in {
            "DiceLoss": lambda f: (to(f("binary"), mask(2, 1, 3, 3)), (x(2, 1, 3, 3),)),
            "JaccardLoss": lambda f: (to(f("binary"), mask(2, 1, 3, 3)), (x(2, 1, 3, 3),)),
            "FocalLoss": lambda f: (to(f("binary"), mask(2, 1, 3)), (x(2, 1, 3),)),
            "MCCLoss": lambda f: (probable(f(), mask(2, 1, 3)), (x(2, 1, 3),)),
            "SoftBCEWithLogitsLoss": lambda f: (to(f(), mask(2, 3)), (x(2, 3),)),
        }.items()
    ],
    Row(
        "segmentation_models_pytorch",
        "segmentation_models_pytorch.losses:LovaszLoss",
        lambda f: (to(f("binary"), mask(1, 3, 3)), (x(1, 3, 3),)),
        dtype="float32",
    ),
    *[
        Row(
            "pytorch-metric-learning",
            f"pytorch_metric_learning.losses:{name}",
            lambda f: (to(f(), torch.tensor([0, 0, 1, 1, 2, 2])), (x(6, 3),)),
            HELD if name == "CircleLoss" else "",
        )
        for name in "ContrastiveLoss TripletMarginLoss NTXentLoss CircleLoss MultiSimilarityLoss AngularLoss "
        "SupConLoss NPairsLoss LiftedStructureLoss FastAPLoss SmoothAPLoss TupletMarginLoss NCALoss".split()
    ],
    *[
        Row(
            "pytorch-metric-learning",
            f"pytorch_metric_learning.losses:{name}",
            lambda f: (With(f(3, 3), torch.tensor([0, 0, 1, 1, 2, 2])), (x(6, 3),)),
        )
        for name in ("ArcFaceLoss", "CosFaceLoss", "SphereFaceLoss", "ProxyAnchorLoss", "SoftTripleLoss")
    ],
    Row(
        "pytorch-msssim",
        "pytorch_msssim:ssim",
        lambda f: (
            lambda a, b: f(a, b, data_range=1.0, win_size=3),
            (positive(1, 1, 5, 5), positive(1, 1, 5, 5)),
        ),
    ),
    Row(
        "piqa",
        "piqa:SSIM",
        lambda f: (f(window_size=3, n_channels=1), (positive(1, 1, 5, 5), positive(1, 1, 5, 5))),
        dtype="float32",
    ),
    Row("piqa", "piqa:TV", lambda f: (f(), (x(1, 1, 3, 3),))),
    Row("piqa", "piqa:PSNR", lambda f: (f(), (positive(1, 1, 3, 3), positive(1, 1, 3, 3)))),
    Row("piqa", "piqa:GMSD", lambda f: (f(), (positive(1, 3, 8, 8), positive(1, 3, 8, 8)))),
    Row("piqa", "piqa:HaarPSI", lambda f: (f(), (positive(1, 3, 16, 16), positive(1, 3, 16, 16)))),
    Row(
        "focal-loss-torch",
        "focal_loss.focal_loss:FocalLoss",
        lambda f: (lambda v: f(gamma=2.0)(v.softmax(-1), classes_once(4, 3)), (x(3, 4),)),
    ),
    Row("auraloss", "auraloss.time:SISDRLoss", lambda f: (f(), (x(1, 1, 8), x(1, 1, 8)))),
    Row("auraloss", "auraloss.time:LogCoshLoss", lambda f: (f(), (x(1, 1, 8), x(1, 1, 8)))),
    Row(
        "auraloss",
        "auraloss.freq:STFTLoss",
        lambda f: (f(fft_size=8, hop_size=4, win_length=8), (x(1, 1, 16), given(1, 1, 16))),
    ),
    Row("asteroid", "asteroid.losses:singlesrc_neg_sisdr", plain(of(x, 2, 8), of(x, 2, 8))),
    Row(
        "asteroid",
        "asteroid.losses:SinkPITLossWrapper",
        lambda f: (
            f(importlib.import_module("asteroid.losses").pairwise_neg_sisdr, n_iter=3),
            (x(1, 2, 6), given(1, 2, 6)),
        ),
    ),
    Row("speechbrain", "speechbrain.nnet.losses:cal_si_snr", plain(of(x, 6, 1, 2), of(given, 6, 1, 2))),
    Row(
        "torchmetrics",
        "torchmetrics.functional.image:structural_similarity_index_measure",
        lambda f: (
            lambda a, b: f(a, b, sigma=0.5, kernel_size=3),
            (positive(1, 1, 8, 8), positive(1, 1, 8, 8)),
        ),
    ),
    Row(
        "torchmetrics",
        "torchmetrics.functional.audio:scale_invariant_signal_distortion_ratio",
        plain(of(x, 2, 6), of(x, 2, 6)),
    ),
    Row("torchmetrics", "torchmetrics.functional:pearson_corrcoef", plain(of(x, 6), of(x, 6))),
    Row("torchmetrics", "torchmetrics.functional.image:total_variation", plain(of(x, 1, 1, 3, 3))),
    Row(
        "pytorch-crf",
        "torchcrf:CRF",
        lambda f: (lambda crf: (With(crf, torch.tensor([[0, 1], [1, 2], [2, 0]])), (x(3, 2, 3),)))(f(3)),
    ),
    Row("lightly", "lightly.loss:NTXentLoss", lambda f: (f(), (x(3, 4), x(3, 4)))),
    Row("lightly", "lightly.loss:BarlowTwinsLoss", lambda f: (f(), (x(3, 4), x(3, 4)))),
    Row("lightly", "lightly.loss:VICRegLoss", lambda f: (f(), (x(3, 4), x(3, 4)))),
    Row("lightly", "lightly.loss:DCLLoss", lambda f: (f(), (x(3, 4), x(3, 4)))),
    Row("neuraloperator", "neuralop.losses:LpLoss", lambda f: (f(d=1), (x(2, 1, 5), x(2, 1, 5)))),
    Row("neuraloperator", "neuralop.losses:H1Loss", lambda f: (f(d=1), (x(2, 1, 5), x(2, 1, 5)))),
    Row(
        "torchvision",
        "torchvision.ops:sigmoid_focal_loss",
        lambda f: (to(f, mask(3, 2)), (x(3, 2),)),
    ),
    Row(
        "torchvision",
        "torchvision.ops:generalized_box_iou_loss",
        lambda f: (lambda a, b: f(boxes(a), boxes(b)), (x(2, 4), x(2, 4))),
    ),
    Row(
        "torchvision",
        "torchvision.ops:complete_box_iou_loss",
        lambda f: (lambda a, b: f(boxes(a), boxes(b)), (x(2, 4), x(2, 4))),
        remark=HELD,
    ),
    Row(
        "torchaudio",
        "torchaudio.functional:amplitude_to_DB",
        lambda f: (lambda v: f(v, 10.0, 1e-10, 0.0), (positive(2, 5),)),
    ),
]

SURROGATES = [
    *functions("snntorch", "snntorch.surrogate", "StraightThroughEstimator", STRAIGHT),
    *functions("snntorch", "snntorch.surrogate", "FastSigmoid ATan Sigmoid", SURROGATE, 2.0),
    *functions("norse", "norse.torch.functional.threshold", "HeaviErfc HeaviTanh Logistic", SURROGATE, 2.0),
    *functions("norse", "norse.torch.functional.superspike", "SuperSpike", SURROGATE, 2.0),
    *functions("spikingjelly", "spikingjelly.activation_based.surrogate", "sigmoid atan erf", SURROGATE, 2.0),
    *functions("spikingjelly", "spikingjelly.activation_based.quantize", "RoundATGF FloorATGF", STRAIGHT),
    *functions("spikingjelly", "spikingjelly.activation_based.quantize", "ClampATGF", "", -0.5, 0.5),
    *elementwise("brevitas", "brevitas.function.ops_ste", "round_ste floor_ste binary_sign_ste", STRAIGHT),
    *elementwise("brevitas", "brevitas.function.ops_ste", "scalar_clamp_ste", STRAIGHT, -0.5, 0.5),
    *elementwise("brevitas", "brevitas.function.ops_ste", "abs_binary_sign_grad"),
    *functions("torchao", "torchao.quantization.quant_primitives", "_Round", STRAIGHT),
    Row(
        "compressai",
        "compressai.ops:LowerBound",
        lambda f: (f(0.1), (x(7),)),
        "stand-in: lets through what leads back above the bound",
    ),
    Row(
        "compressai",
        "compressai.layers:QReLU",
        applied(of(x, 7), just(8), just(100)),
        "stand-in: a smooth clamp's gradient",
    ),
    Row("compressai", "compressai.layers:GDN", lambda f: (f(2), (x(1, 2, 2, 2),))),
]

ROWS: list[Row] = [*ACTIVATIONS, *ADAPTERS, *GRAPHS_AND_KERNELS, *FLOWS_AND_SOLVERS, *LOSSES, *SURROGATES]


# A run


def at(name: str) -> Any:
    """What stands in a module under a name."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def judged(n: int) -> tuple[str, str, str]:
    """A row's verdict, node and first cause; in a process of its own."""
    row = ROWS[n]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, row.dtype))
    torch.manual_seed(zlib.crc32(row.name.encode()))
    func, inputs = row.case(at(row.name))
    report = check_function(func, *inputs, **row.options)
    own = [f for f in report.findings if f.verdict == report.verdict and not f.inherited]
    if report.ok or not own:
        return str(report.verdict), "", ""
    finding = own[0]
    wrt = f" by {finding.wrt}" if finding.wrt else ""
    return str(report.verdict), f"{finding.node}{wrt}", finding.note


def outcome(n: int) -> Outcome:
    if version(ROWS[n].package) is None:
        return Outcome("not installed")
    told = alone(n, Limits(LIMIT), judged, str(Path(__file__).parent))
    return Outcome("error", "", str(told)) if isinstance(told, GradproofError) else Outcome(*told)


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"


def line(row: Row, came: Outcome) -> list[str]:
    """A row of the table: what the package says about it, where there is something, for the cause."""
    cause = "" if came.passes else row.remark or came.cause
    return [row.package, version(row.package) or "", row.told, came.verdict, short(came.node), short(cause)]


def page(cells: Sequence[str]) -> str:
    """A row of the report's table: without the node, which the printed one has, and no wider than a line."""
    *named, _, cause = cells
    told = f"| {' | '.join(named)} | "
    room = WIDTH - len(told) - 2
    return f"{told}{cause if len(cause) <= room else cause[: room - 1] + '…'} |"


def write(lines: Sequence[Sequence[str]]) -> None:
    """In place of the table in the report; what stands around it stays."""
    text = REPORT.read_text()
    found = re.search(r"^\| package .*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"{REPORT} has no table that begins with | package")
    rows = [page(HEAD), "|---" * (len(HEAD) - 1) + "|", *(page(cells) for cells in lines)]
    REPORT.write_text(text[: found.start()] + "\n".join(rows) + text[found.end() :])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="only rows whose package or name has this"
    )
    parser.add_argument("--write", action="store_true", help="put the table into reports/wild.md")
    wanted = parser.parse_args()
    chosen = [n for n, row in enumerate(ROWS) if re.search(wanted.only, f"{row.package} {row.name}")]
    came = [
        (ROWS[n], outcome(n))
        for n in tracked(chosen, len(chosen), lambda n: f"{ROWS[n].package} {ROWS[n].told}")
    ]
    lines = [line(*pair) for pair in came]
    print(tabulate(lines, HEAD, disable_numparse=True))
    counts = Counter(result.verdict for _, result in came)
    packages = {row.package for row, result in came if result.verdict != "not installed"}
    print(
        f"\n{len(packages)} packages; " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    )
    if wanted.write:
        write(lines)
    named = ("unsupported", "undecided")  # with what it is that is not judged
    return 1 if any(not (r.passes or row.remark or r.verdict in named) for row, r in came) else 0


if __name__ == "__main__":
    sys.exit(main())
