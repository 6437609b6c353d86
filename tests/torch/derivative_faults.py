"""Functions whose first derivative in reverse is right and another is not, each with its right twin: a `jvp`,
a double backward, a rule for vmap; and what breaks a clause of a backward's contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from faulty import Inputs, M, between, function, normal
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Map = Callable[..., Any]
THREE = normal((3,))


@dataclass(frozen=True)
class Fault:
    """A wrong function and its right twin; `blamed` is a part of the name of the node that is wrong."""

    name: str
    wrong: Map
    right: Map
    inputs: Inputs
    options: dict[str, Any] = field(default_factory=dict)
    blamed: str = ""


# Forward mode


def forward_too(forward: Map, backward: Map, jvp: Map) -> Map:
    """A Function `Both` with a rule for each mode; `jvp(tangents, *inputs)`."""

    def run(ctx: Any, *inputs: Tensor) -> Any:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)
        return forward(*inputs)

    def push(ctx: Any, *tangents: Tensor) -> Any:
        return jvp(tangents, *ctx.saved_tensors)

    def pull(ctx: Any, *g: Tensor) -> Any:
        return backward(*g, *ctx.saved_tensors)

    members = {"forward": run, "backward": pull, "jvp": push}
    return type("Both", (Function,), {name: staticmethod(rule) for name, rule in members.items()}).apply


def unary(name: str, f: Map, slope: Map, wrong: Map, inputs: Inputs = M) -> Fault:
    """Elementwise; `wrong(t, x)` is the wrong tangent."""
    right = forward_too(f, lambda g, x: g * slope(x), lambda t, x: t[0] * slope(x))
    made = forward_too(f, lambda g, x: g * slope(x), lambda t, x: wrong(t[0], x))
    return Fault(name, made, right, inputs, {"mode": "forward"}, "Both")


def several(name: str, f: Map, pull: Map, right: Map, wrong: Map, inputs: Inputs) -> Fault:
    return Fault(
        name, forward_too(f, pull, wrong), forward_too(f, pull, right), inputs, {"mode": "forward"}, "Both"
    )


def _product(wrong: Map, name: str) -> Fault:
    return several(
        name,
        lambda a, b: a * b,
        lambda g, a, b: (g * b, g * a),
        lambda t, a, b: t[0] * b + t[1] * a,
        wrong,
        normal((3,), (3,)),
    )


def _matmul(wrong: Map, name: str) -> Fault:
    return several(
        name,
        lambda a, b: a @ b,
        lambda g, a, b: (g @ b.mT, a.mT @ g),
        lambda t, a, b: t[0] @ b + a @ t[1],
        wrong,
        normal((3, 3), (3, 3)),
    )


def _softmax_tangent(t: Tensor, x: Tensor) -> Tensor:
    y = x.softmax(-1)
    return y * (t - (y * t).sum(-1, keepdim=True))


def _softmax(wrong: Map, name: str) -> Fault:
    return several(
        name,
        lambda x: x.softmax(-1),
        lambda g, x: _softmax_tangent(g, x),
        lambda t, x: _softmax_tangent(t[0], x),
        wrong,
        normal((3, 4)),
    )


JVPS = (
    unary("a power's factor", lambda x: x**3, lambda x: 3 * x**2, lambda t, x: 2 * t * x**2),
    unary("the sign of cos", torch.cos, lambda x: -x.sin(), lambda t, x: t * x.sin()),
    unary("the value in place of the slope", torch.sin, torch.cos, lambda t, x: t * x.sin()),
    unary("the tangent unchanged", torch.tanh, lambda x: 1 - x.tanh() ** 2, lambda t, x: t.clone()),
    unary("the slope without the tangent", torch.exp, torch.exp, lambda t, x: x.exp()),
    unary("the inverse of the slope", torch.log, lambda x: 1 / x, lambda t, x: t * x, between(0.5, 2, (4,))),
    unary(
        "a constant cut short",
        lambda x: x * 0.7978845608028654,
        lambda x: torch.full_like(x, 0.7978845608028654),
        lambda t, x: t * 0.797885,
    ),
    unary(
        "one entry left out", torch.exp, torch.exp, lambda t, x: torch.cat([(t * x.exp())[:-1], 0 * t[-1:]])
    ),
    unary("half of it, in some", torch.exp, torch.exp, lambda t, x: torch.where(x > 0, t, t / 2) * x.exp()),
    unary("the tangents in reverse", torch.exp, torch.exp, lambda t, x: t.flip(0) * x.exp()),
    _product(lambda t, a, b: t[0] * b, "one of two parts"),
    _product(lambda t, a, b: t[0] * a + t[1] * b, "factors exchanged"),
    _matmul(lambda t, a, b: t[0] @ b + t[1] @ a, "a product from the other side"),
    _matmul(lambda t, a, b: t[0] @ b.mT + a @ t[1], "a factor transposed"),
    _softmax(
        lambda t, x: x.softmax(-1) * (t[0] - t[0].mean(-1, keepdim=True)), "the plain mean of a softmax"
    ),
    _softmax(lambda t, x: x.softmax(-1) * t[0], "without the sum of a softmax"),
)


# The backward again


def twice(forward: Map, pull: Map, again: Map) -> Map:
    """A Function whose backward is a Function, `Inner`, with a backward of its own: `again(gg, g, x)` gives
    the gradients by the cotangent and by the input."""
    inner = function("Inner", pull, again)
    return function("Outer", forward, lambda g, *inputs: inner(g, *inputs))


def doubly(name: str, f: Map, slope: Map, bend: Map, wrong: Map, inputs: Inputs = M) -> Fault:
    """Elementwise; `wrong(gg, g, x)` are the wrong gradients of the backward."""

    def pull(g: Tensor, x: Tensor) -> Tensor:
        return g * slope(x)

    right = twice(f, pull, lambda gg, g, x: (gg * slope(x), gg * g * bend(x)))
    return Fault(name, twice(f, pull, wrong), right, inputs, {"order": 2}, "Inner")


def _cut(name: str, wrong: Map, right: Map, inputs: Inputs = THREE, blamed: str = "") -> Fault:
    return Fault(name, wrong, right, inputs, {"order": 2}, blamed)


def _cube(backward: Map) -> Map:
    return function("Cube", lambda x: x**3, backward)


def _kept(through: bool) -> Map:
    """A value that the forward keeps for itself has no history; what is saved has one."""

    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.square = x**2
        return x**3

    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * g * (x**2 if through else ctx.square)

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Cube", (Function,), members).apply


CUBE = _cube(lambda g, x: 3 * g * x**2)
SECONDS = (
    doubly(
        "a factor of the second slope",
        lambda x: x**3,
        lambda x: 3 * x**2,
        lambda x: 6 * x,
        lambda gg, g, x: (gg * 3 * x**2, gg * g * 5 * x),
    ),
    doubly(
        "the sign of the second slope",
        torch.sin,
        torch.cos,
        lambda x: -x.sin(),
        lambda gg, g, x: (gg * x.cos(), gg * g * x.sin()),
    ),
    doubly(
        "the cotangent left out",
        torch.exp,
        torch.exp,
        torch.exp,
        lambda gg, g, x: (gg * x.exp(), gg * x.exp()),
    ),
    doubly("nothing by the input", torch.exp, torch.exp, torch.exp, lambda gg, g, x: (gg * x.exp(), 0 * x)),
    doubly("None by the input", torch.exp, torch.exp, torch.exp, lambda gg, g, x: (gg * x.exp(), None)),
    doubly(
        "nothing by the cotangent",
        torch.exp,
        torch.exp,
        torch.exp,
        lambda gg, g, x: (0 * g, gg * g * x.exp()),
    ),
    doubly(
        "the first slope twice",
        torch.tanh,
        lambda x: 1 - x.tanh() ** 2,
        lambda x: -2 * x.tanh() * (1 - x.tanh() ** 2),
        lambda gg, g, x: (gg * (1 - x.tanh() ** 2), gg * g * (1 - x.tanh() ** 2)),
    ),
    doubly("exchanged", torch.exp, torch.exp, torch.exp, lambda gg, g, x: (gg * g * x.exp(), gg * x.exp())),
    doubly(
        "a second slope of 0 of a square",
        torch.square,
        lambda x: 2 * x,
        lambda x: torch.full_like(x, 2.0),
        lambda gg, g, x: (gg * 2 * x, gg * g),
    ),
    doubly(
        "one row left out",
        torch.exp,
        torch.exp,
        torch.exp,
        lambda gg, g, x: (gg * x.exp(), torch.cat([(gg * g * x.exp())[:-1], 0 * x[-1:]])),
    ),
    _cut("cut by detach", _cube(lambda g, x: 3 * g * x.detach() ** 2), CUBE),
    _cut("cut by NumPy", _cube(lambda g, x: g * torch.from_numpy(3 * x.detach().numpy() ** 2)), CUBE),
    _cut("cut by no_grad", _cube(torch.no_grad()(lambda g, x: 3 * g * x**2)), CUBE),
    _cut("once differentiable", function("Cube", lambda x: x**3, lambda g, x: 3 * g * x**2), CUBE),
    _cut("a value kept for itself", _kept(False), _kept(True)),
)


class Once(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * g * ctx.saved_tensors[0] ** 2


SECONDS = tuple(
    Fault(f.name, Once.apply, f.right, f.inputs, f.options) if f.name == "once differentiable" else f
    for f in SECONDS
)


# In batches


def with_rule(rule: Map, forward: Map = lambda x: x.sin(), slope: Map = lambda x: x.cos()) -> Map:
    """A Function with a rule for vmap of its own, `rule(apply, info, in_dims, *inputs)`."""
    made: dict[str, Any] = {}

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def pull(ctx: Any, g: Tensor) -> Any:
        return g * slope(*ctx.saved_tensors)

    def batched(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return rule(made["apply"], info, in_dims, *inputs)

    members = {"forward": forward, "setup_context": setup, "backward": pull, "vmap": batched}
    kind = type("Ruled", (Function,), {name: staticmethod(each) for name, each in members.items()})
    made["apply"] = kind.apply
    return kind.apply


def _first(info: Any, in_dims: Any, x: Tensor) -> Tensor:
    return x.movedim(in_dims[0], 0)


RIGHT_RULE = with_rule(lambda apply, info, dims, x: (apply(_first(info, dims, x)), 0))


def rule(name: str, wrong: Map) -> Fault:
    return Fault(name, with_rule(wrong), RIGHT_RULE, normal((3, 3)), {"contract": ["under vmap"]})


RULES = (
    rule("rows in reverse", lambda apply, info, dims, x: (apply(_first(info, dims, x)).flip(0), 0)),
    rule(
        "the first row for all",
        lambda apply, info, dims, x: (apply(_first(info, dims, x)[:1].expand_as(x)), 0),
    ),
    rule("another axis", lambda apply, info, dims, x: (apply(_first(info, dims, x)), 1)),
    rule("another function", lambda apply, info, dims, x: (_first(info, dims, x).cos(), 0)),
    rule("a factor", lambda apply, info, dims, x: (2 * apply(_first(info, dims, x)), 0)),
    rule(
        "the mean of the rows added",
        lambda apply, info, dims, x: (apply(_first(info, dims, x)) + 0.1 * _first(info, dims, x).mean(0), 0),
    ),
    rule("cut off", lambda apply, info, dims, x: (apply(_first(info, dims, x).detach()), 0)),
)

DERIVATIVES = (*JVPS, *SECONDS, *RULES)


# The contract


def clause(name: str, wrong: Map, right: Map, inputs: Inputs) -> Fault:
    return Fault(name, wrong, right, inputs, {"contract": [name]})


def _flat(read: Map) -> Map:
    """A backward that reads its cotangent's memory by `read`."""
    return function("Flat", lambda x: 2 * x, lambda g, x: 2 * read(g))


def _memory(g: Tensor) -> Tensor:
    """As a kernel reads it that takes all tensors for contiguous ones."""
    return g.as_strided(g.shape, torch.empty(g.shape).stride())


def _both(frozen: bool) -> Map:
    class Mul(Function):
        @staticmethod
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            a, b = ctx.saved_tensors
            if ctx.needs_input_grad[0] or frozen:
                return g * b, g * a
            return None, g * b

    return Mul.apply


def _pairs(materialize: bool) -> Map:
    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            ctx.set_materialize_grads(materialize)
            ctx.save_for_backward(x)
            return x.sin(), x.cos()

        @staticmethod
        def backward(ctx: Any, s: Tensor | None, c: Tensor | None) -> Any:
            (x,) = ctx.saved_tensors
            if s is None or c is None:
                return x.clone()
            return s * x.cos() - c * x.sin()

    return Two.apply


def _writing(writes: bool) -> Map:
    def backward(g: Tensor, x: Tensor) -> Tensor:
        slope = 3 * x**2 * g
        if writes:
            x.detach().mul_(1.0)
            x.detach().add_(1e-3)
        return slope

    return function("Writing", lambda x: x**3, backward)


def _as_float32(wrong: bool) -> Map:
    kind = torch.float32 if wrong else torch.float64
    return function("Cast", lambda x: 2 * x, lambda g, x: 2 * g.to(kind))


def _another_value(wrong: bool) -> Map:
    def run(x: Tensor) -> Tensor:
        return x.sin() if torch.is_grad_enabled() or not wrong else x.sin() + 1e-9

    return run


class Copied(torch.nn.Module):
    def __init__(self, kept: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, 2.0], dtype=torch.float64))
        self.kept = kept
        self.scale = 3.0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "scale": 3.0 if self.kept else 1.0}

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.weight * x


def _accumulating(wrong: bool) -> Map:
    """A hook on the leaf that sets what should be added."""

    def run(x: Tensor) -> Tensor:
        if wrong:

            def put(leaf: Tensor) -> None:
                leaf.grad = torch.full_like(leaf, 2.0) * torch.arange(1.0, 4.0, dtype=leaf.dtype)

            x.register_post_accumulate_grad_hook(put)
        return (2 * torch.arange(1.0, 4.0, dtype=x.dtype) * x).sum()

    return run


def _scaled_zero(wrong: bool) -> Map:
    """A cotangent that is divided by its own size."""

    def backward(g: Tensor, x: Tensor) -> Tensor:
        norm = g.abs().max()
        return (torch.ones_like(g) if wrong and norm == 0 else g) * 2

    return function("Scaled", lambda x: 2 * x, backward)


def _now_and_then(wrong: bool) -> Map:
    """A backward that drops what comes at each eighth call."""
    calls = [0]

    def backward(g: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        return 0 * g if wrong and calls[0] % 8 == 0 else 2 * g

    return function("Drops", lambda x: 2 * x, backward)


def _in_batches(wrong: bool, tangents: bool) -> Map:
    """A rule for vmap that is wrong only where its own batch is that of cotangents, or of tangents."""

    def scale(t: Tensor) -> Tensor:
        return Scaled.apply(t)

    class Scaled(Function):
        @staticmethod
        def forward(t: Tensor) -> Tensor:
            return 2 * t

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 2 * g

        @staticmethod
        def jvp(ctx: Any, t: Tensor) -> Tensor:
            return 2 * t

        @staticmethod
        def vmap(info: Any, in_dims: Any, t: Tensor) -> Any:
            return (2 * t.flip(in_dims[0]) if wrong else 2 * t), in_dims[0]

    class Doubled(Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 2 * g if tangents else scale(g)

        @staticmethod
        def jvp(ctx: Any, t: Tensor) -> Tensor:
            return scale(t) if tangents else 2 * t

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
            return 2 * x, in_dims[0]

    return Doubled.apply


CLAUSES: Sequence[Fault] = (
    clause("layouts of cotangents", _flat(_memory), _flat(Tensor.contiguous), normal((2, 3))),
    clause(
        "layouts of inputs",
        function("Reads", lambda x: 2 * x, lambda g, x: 2 * g if x.is_contiguous() else g),
        function("Reads", lambda x: 2 * x, lambda g, x: 2 * g),
        normal((2, 3)),
    ),
    clause("zero cotangents", _scaled_zero(True), _scaled_zero(False), normal((3,))),
    clause("undefined cotangents", _pairs(False), _pairs(True), normal((3,))),
    clause("frozen inputs", _both(False), _both(True), normal((3,), (3,))),
    clause(
        "the same tensor twice",
        lambda a, b: torch.where(torch.tensor(a is b), a * b.detach(), a * b),
        lambda a, b: a * b,
        normal((3,), (3,)),
    ),
    clause("accumulation", _accumulating(True), _accumulating(False), normal((3,))),
    clause("nothing is written to", _writing(True), _writing(False), normal((3,))),
    clause("gradients as declared", _as_float32(True), _as_float32(False), normal((3,))),
    clause("value without grad mode", _another_value(True), _another_value(False), normal((3,))),
    clause("copies", Copied(False), Copied(True), normal((2,))),
    clause("repeatable", _now_and_then(True), _now_and_then(False), normal((3,))),
    clause("batched gradients", _in_batches(True, False), _in_batches(False, False), normal((3,))),
    clause("batched tangents", _in_batches(True, True), _in_batches(False, True), normal((3,))),
    clause(
        "under vmap",
        with_rule(lambda apply, info, dims, x: (apply(_first(info, dims, x)).flip(0), 0)),
        RIGHT_RULE,
        normal((3,)),
    ),
    clause(
        "batch invariance", lambda x: x - x.mean(0), lambda x: x - x.mean(1, keepdim=True), normal((4, 3))
    ),
)
