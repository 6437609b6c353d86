"""Functions whose gradients lose what a recording can miss, each with a right twin: what the net alone is
measured on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils._python_dispatch import _get_current_dispatch_mode

Func = Callable[..., Any]


@dataclass(frozen=True)
class Missed:
    """A kind: a function with a wrong gradient, and one like it whose gradient is right."""

    name: str
    wrong: Func
    right: Func
    shape: tuple[int, ...] = (4,)


def custom(forward: Func, backward: Func, **more: Any) -> Func:
    """A custom Function of one tensor; the backward gets the cotangent and the input as it was saved."""

    def kept(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return forward(x)

    made = {
        "forward": staticmethod(kept),
        "backward": staticmethod(lambda ctx, g: backward(g, *ctx.saved_tensors)),
    }
    return type("Custom", (Function,), made | more).apply


def behind(change: Func) -> Func:
    """y = x*x, changed where autograd does not see it."""

    def func(x: Tensor) -> Tensor:
        y = x * x
        change(y)
        return y * 3

    return func


def rebound(y: Tensor) -> None:
    y.data = y.data.sinh()


def copied(y: Tensor) -> None:
    with torch.no_grad():
        y.copy_(y.exp())


def through_numpy(y: Tensor) -> None:
    array = y.detach().numpy()
    array *= 2.5


def half_copied(y: Tensor) -> None:
    with torch.no_grad():
        y[:2].mul_(y[:2])


def turned(z: Tensor, sign: float = 1.0) -> Tensor:
    angles = torch.polar(torch.ones(3).double(), sign * torch.arange(3.0).double())
    return torch.view_as_real(torch.view_as_complex(z.contiguous()) * angles)


def turned_by_function(sign: float) -> Func:
    return custom(turned, lambda g, x: turned(g, sign))


def unmarked(x: Tensor) -> Tensor:
    y = x * 1.0
    custom(lambda v: v.mul_(2).clone(), lambda g, v: g * 2)(y)
    return y * 3


def output_bound(x: Tensor) -> Tensor:
    y = x.exp()
    y.data = y.data**2
    return y


def spectrum(x: Tensor, stop: bool) -> Tensor:
    z = torch.fft.rfft(x)
    return torch.fft.irfft((z.detach() if stop else z) * 2, 4) * x


def parts(x: Tensor, stop: bool) -> Tensor:
    z = torch.fft.fft(x)
    return (z.real.detach() if stop else z.real) * z.imag


def mapped(x: Tensor, stop: bool) -> Tensor:
    return torch.vmap(lambda row: row * (row.detach() if stop else row).sum())(x)


def complex_parts(x: Tensor, stop: bool) -> Tensor:
    y = x.detach() if stop else x
    return x * torch.complex(y, 0 * y).real


def modulus(x: Tensor, stop: bool) -> Tensor:
    z = torch.complex(x, x.sin())
    return x * (z.detach() if stop else z).abs()


def deaf(module: nn.Module, x: Tensor) -> Tensor:
    return Checkpoint.apply(module, True, x)


INDEX = torch.tensor([[0, 1, 2, 3]])
TABLE: dict[str, Any] = {}


def sparse(x: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(INDEX, x, (4,), check_invariants=False).to_dense()


def cached(detached: bool) -> Func:
    def func(x: Tensor) -> Tensor:
        TABLE["norm"] = x.norm().item() if detached else x.norm()
        return x / TABLE["norm"]

    return func


def hooked(change: Func | None) -> Func:
    def func(x: Tensor) -> Tensor:
        y = torch.sinh(x)
        if change is not None:
            y.register_hook(change)
        return y * y

    return func


def watched(x: Tensor) -> Tensor:
    return x * 3 if _get_current_dispatch_mode() is not None else x * x


def recorded(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.endswith("recording.py"):
            return True
        frame = frame.f_back
    return False


def by_the_stack_backward(g: Tensor, x: Tensor) -> Tensor:
    return 2 * g * x if recorded(sys._getframe()) else g * x


def by_the_stack(x: Tensor) -> Tensor:
    return x * 3 if recorded(sys._getframe()) else x * x


def by_a_function_mode(x: Tensor) -> Tensor:
    stack = torch.overrides._get_current_function_mode_stack()
    return torch.sin(x) if stack else torch.sin(x) * torch.cos(x.detach())


def compiled(scale: float) -> Func:
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def forward(module: Any, example: Any) -> Any:
        return make_boxed_func(module.forward)

    def backward(module: Any, example: Any) -> Any:
        return make_boxed_func(
            lambda *args: [None if part is None else part * scale for part in module(*args)]
        )

    torch._dynamo.reset()
    return torch.compile(
        lambda x: (x * x.sin()).sum(), backend=aot_autograd(fw_compiler=forward, bw_compiler=backward)
    )


class Checkpoint(Function):
    """A checkpoint that gives its input's gradient, and with `deaf` drops those of the parameters inside."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, deaf: bool, x: Tensor) -> Tensor:
        ctx.module, ctx.deaf = module, deaf
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.module(x)
        if ctx.deaf:
            return None, None, torch.autograd.grad(y, x, g)[0]
        torch.autograd.backward(y, g)
        return None, None, x.grad


class Checkpointed(nn.Module):
    def __init__(self, run: Func) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.inner, x).sum()


def reentrant(inner: nn.Module, x: Tensor) -> Tensor:
    return torch.utils.checkpoint.checkpoint(inner, x, use_reentrant=True)


class Detached(nn.Module):
    """A block whose second layer is frozen by mistake, or not."""

    def __init__(self, stop: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.stop = nn.Linear(4, 4).double(), nn.Linear(4, 4).double(), stop

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.first(x))
        return self.second(y.detach() if self.stop else y) + y


def attends(x: Tensor, stop: bool) -> Tensor:
    weights = torch.softmax(x @ x.T, -1)
    return (weights.detach() if stop else weights) @ x


def normed(x: Tensor, stop: bool) -> Tensor:
    with torch.set_grad_enabled(not stop):
        mean, var = x.mean(0), x.var(0)
    return (x - mean) / (var + 1e-5).sqrt()


def python_sum(x: Tensor) -> Tensor:
    return x * sum(v * v for v in x.tolist())


def bounded(x: Tensor) -> Tensor:
    return torch.clamp(x * 3, max=float(x.detach().max()) * 1.5)


def to_the_power(x: Tensor) -> Tensor:
    return (x.abs() + 1) ** (x[0].item() + 2)


def added(x: Tensor) -> Tensor:
    return torch.add(x, x, alpha=x[1].item() ** 2)


KINDS = (
    # written where autograd does not see it
    Missed(".data bound to other numbers", behind(rebound), lambda x: (x * x).sinh() * 3),
    Missed("copy_ under no_grad", behind(copied), lambda x: (x * x).exp() * 3),
    Missed("a write into the array of a tensor", behind(through_numpy), lambda x: x * x * 2.5 * 3),
    Missed("half of it written under no_grad", behind(half_copied),
        lambda x: torch.cat([x[:2] ** 4, x[2:] ** 2]) * 3),
    Missed(".data multiplied by a value of its own", behind(lambda y: y.data.mul_(y.data.mean())),
           lambda x: x * x * (x * x).mean() * 3),
    Missed("an input written in a Function, unmarked", unmarked, lambda x: x * 6.0),
    Missed("an output bound to other numbers", output_bound, lambda x: (2 * x).exp()),
    # numbers that leave torch and come back
    Missed("item() and Python's arithmetic", lambda x: x.sum() * (2 * float(x[0])),
        lambda x: x.sum() * (2 * x[0])),
    Missed("the reciprocal of a norm", lambda x: x * (1 / (x.norm().item() + 1e-6)),
        lambda x: x * (1 / (x.norm() + 1e-6))),
    Missed("tolist() and sum()", python_sum, lambda x: x * (x * x).sum()),
    Missed("NumPy and back, one operation on", lambda x: x * (torch.from_numpy(x.detach().numpy() ** 2) + 0),
           lambda x: x * (x**2 + 0)),
    Missed("NumPy makes all of it", lambda x: x + torch.tensor(np.sin(x.detach().numpy())),
        lambda x: x + x.sin()),
    Missed("alpha= of a number that left", added, lambda x: x + x * x[1] ** 2),
    Missed("an exponent that left", to_the_power, lambda x: (x.abs() + 1) ** (x[0] + 2)),
    Missed("a bound that left", bounded, lambda x: torch.minimum(x * 3, x.max() * 1.5)),
    Missed("a fill value that left", lambda x: x * torch.full((4,), x.square().mean().item(), dtype=x.dtype),
           lambda x: x * x.square().mean()),
    Missed("a number kept in a dictionary", cached(True), cached(False)),
    Missed("a tensor made of numbers", lambda x: x * torch.tensor([v * 2 for v in x.tolist()], dtype=x.dtype),
           lambda x: x * x * 2),
    Missed("bits that are put together anew", lambda x: x * x.detach().view(torch.int64).view(torch.float64),
        lambda x: x * x),
    # kinds of tensors that are not followed
    Missed("complex numbers in a Function", custom(turned, lambda g, x: torch.zeros_like(g)), turned, (3, 2)),
    Missed("complex numbers in a Function, turned the wrong way", turned_by_function(1.0),
        turned_by_function(-1.0), (3, 2)),
    Missed("a stop through complex", lambda x: complex_parts(x, True), lambda x: complex_parts(x, False)),
    Missed("a stop at a modulus", lambda x: modulus(x, True), lambda x: modulus(x, False)),
    Missed("a stop through sparse", lambda x: x * sparse(x.detach()), lambda x: x * sparse(x)),
    Missed("a stop in a spectrum", lambda x: spectrum(x, True), lambda x: spectrum(x, False)),
    Missed("half of a spectrum stopped", lambda x: parts(x, True), lambda x: parts(x, False)),
    Missed("a stop through an mkldnn tensor",
        lambda x: x * x.detach().float().to_mkldnn().to_dense().double(),
           lambda x: x * x.float().double()),
    # stops
    Missed("half of a product detached", lambda x: x * x.detach(), lambda x: x * x),
    Missed("attention weights detached", lambda x: attends(x, True), lambda x: attends(x, False), (3, 4)),
    Missed("statistics under no_grad", lambda x: normed(x, True), lambda x: normed(x, False), (5, 3)),
    Missed("a block that is not passed through", Detached(True), Detached(False), (3, 4)),
    Missed("split, and one part detached", lambda x: x[:2] * x[2:].detach(), lambda x: x[:2] * x[2:]),
    Missed("a stop under vmap", lambda x: mapped(x, True), lambda x: mapped(x, False), (3, 2)),
    # hooks and Functions
    Missed("a hook that doubles", hooked(lambda g: g * 2), hooked(lambda g: g * 1)),
    Missed("a hook that clips", hooked(lambda g: g.clamp(-0.1, 0.1)), hooked(None)),
    Missed("a backward that drops a factor", custom(torch.sin, lambda g, x: g),
        custom(torch.sin, lambda g, x: g * x.cos())),
    Missed("a checkpoint that drops its parameters", Checkpointed(deaf), Checkpointed(reentrant), (2, 4)),
    # otherwise under a recorder
    Missed("by the dispatch mode", watched, lambda x: x * x),
    Missed("by the stack, in the backward", custom(lambda x: x * x, by_the_stack_backward), lambda x: x * x),
    Missed("by the stack", by_the_stack, lambda x: x * x),
    Missed("by the function mode", by_a_function_mode, torch.sin),
    Missed("compiled code whose backward is wrong", compiled(0.5), compiled(1.0)),
)  # fmt: skip


def drawn(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
