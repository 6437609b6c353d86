"""Functions where a parameter reaches a value by a way that a recording does not follow, each with a right
twin."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from net_cases import KINDS, Missed, custom
from torch import Tensor
from torch.autograd import Function
from torch.utils._python_dispatch import _disable_current_modes

library = torch.library.Library("taint", "DEF")
library.define("odd(Tensor x) -> Tensor")
library.impl("odd", lambda x: x**3, "CompositeExplicitAutograd")
INDEX = torch.arange(4)[None]


class Wrapped(Tensor):
    """A tensor that computes by rules of its own."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [arg.inner if isinstance(arg, Wrapped) else arg for arg in args]
        return Wrapped(func(*plain, **(kwargs or {})))


def overwritten(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def func(x: Tensor) -> Tensor:
        y = x * 2
        with torch.no_grad():
            change(y)
        return y * x

    return func


def clamped_first(x: Tensor) -> Tensor:
    x.data.clamp_(-0.5, 0.5)
    return x * x


def rounded_first(x: Tensor) -> Tensor:
    x.data = (x.data * 8).round() / 8
    return x * 3


def a_view_of_it(x: Tensor) -> Tensor:
    y = x * 2
    view = y[:2]
    with torch.no_grad():
        y.mul_(3)
    return view * 1


class HalfSeen(Function):
    """Two results, of which one is declared to have no gradient, and has one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.mark_non_differentiable(other := x.sin())
        return x * 2, other

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Tensor:
        return g * 2


def undifferentiated(x: Tensor) -> Tensor:
    a, b = HalfSeen.apply(x)
    return a * b


def in_a_thread(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return x * pool.submit(lambda: x.detach().sin()).result()


def unrecorded(x: Tensor) -> Tensor:
    with _disable_current_modes():
        y = x.detach().sin()
    return x * y


def saved(x: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(x.detach() * 2, file)
    file.seek(0)
    return x * torch.load(file, weights_only=True)


def by_its_storage(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    y.untyped_storage().copy_(x.detach().clone().untyped_storage())
    return x * y


def between(low: Any, high: Any) -> Tensor:
    return torch.linspace(float(low), float(high), 4, dtype=torch.float64)


def exact_lerp(x: Tensor) -> Tensor:
    return torch.lerp(x, 2 * x, x.mean().sigmoid())


def outside(x: Tensor) -> Tensor:
    return torch.from_numpy(np.tanh(x.detach().numpy())) + 0


# A stop through anything: the wrong one multiplies by a detached value, the right one by the value.
THROUGH: dict[str, Callable[[Tensor], Tensor]] = {
    "an operation that nobody knows": torch.ops.taint.odd,
    "a dtype of 8 bits": lambda x: x.to(torch.float8_e4m3fn).to(x.dtype),
    "a wrapper": lambda x: Wrapped(x * 2).inner,
    "a wrapper's arithmetic": lambda x: (Wrapped(x) * 2).inner,
    "rows of a sparse matrix": lambda x: x[:, None].to_sparse_csr().to_dense()[:, 0] if x.dim() == 1 else x,
    "a sparse product": lambda x: torch.sparse.mm(
        torch.sparse_coo_tensor(INDEX.expand(2, 4), x, (4, 4)), x[:, None]
    )[:, 0],
    "a nested tensor": lambda x: (
        torch.nested.as_nested_tensor([x[:2], x[2:]], layout=torch.jagged).sin().values()
    ),
    "a quantized tensor": lambda x: (
        torch.quantize_per_tensor(x.float(), 0.01, 0, torch.qint32).dequantize().double()
    ),
    "a phase": lambda x: torch.complex(x, x.cos()).angle(),
    "a polar form": lambda x: torch.polar(x.abs() + 1, x).real,
    "two dimensions of a spectrum": lambda x: torch.fft.fft2(x.reshape(2, 2)).imag.reshape(-1) + x,
    "a complex matrix": lambda x: (
        torch.linalg.eigvals(x.reshape(2, 2) + 3 * torch.eye(2).double()).abs().sum()
    ),
    "the bits of a number": lambda x: ((x.view(torch.int64) >> 2) << 2).view(torch.float64),
    "bits of half the size": lambda x: x.view(torch.int32).clone().view(torch.float64),
    "a deep copy": lambda x: copy.deepcopy(x) if not x.requires_grad else x.clone(),
    "another library's view": lambda x: torch.from_dlpack(x) if not x.requires_grad else x.clone(),
}


def told(through: Callable[[Tensor], Tensor]) -> Missed:
    return Missed("", lambda x: x * through(x.detach()), lambda x: x * through(x))


def number(name: str, wrong: Callable[[Tensor], Tensor], right: Callable[[Tensor], Tensor]) -> Missed:
    return Missed(name, wrong, right)


TAINT = [
    *(Missed(f"a stop through {name}", told(way).wrong, told(way).right) for name, way in THROUGH.items()),
    # Torch's view of a tensor as another dtype passes nothing on; its view as complex numbers does.
    Missed("a stop through float32 as complex64",
           lambda x: x * x.float().view(torch.complex64).abs().double().sum(),
           lambda x: x * torch.view_as_complex(x.float().reshape(2, 2)).abs().double().sum()),
    # values that are overwritten where autograd does not see it
    Missed("constants copied over it", overwritten(lambda y: y.copy_(torch.ones(4))), lambda x: x),
    Missed("a part of it set to a constant", overwritten(lambda y: y[1:].fill_(3.0)),
           lambda x: torch.cat([x[:1] * 2, torch.full((3,), 3.0)]) * x),
    Missed("something else written over it", overwritten(lambda y: y.copy_(y.tanh() * 5)),
        lambda x: (x * 2).tanh() * 5 * x),
    Missed("added to, which is right", lambda x: overwritten(lambda y: y.mul_(1.5))(x),
        overwritten(lambda y: y.add_(1.5))),
    Missed("a parameter clamped before it is used", clamped_first, lambda x: x.clamp(-0.5, 0.5) ** 2),
    Missed("a parameter bound to other numbers before it is used", lambda x: rounded_first(x),
        lambda x: x * 3),
    Missed("a list of tensors written at once", overwritten(lambda y: torch._foreach_mul_([y], [3.0])),
        lambda x: 6 * x * x),
    Missed("an output that is not to be differentiated", undifferentiated, lambda x: 2 * x * x.sin()),
    Missed("seen through a view of it", a_view_of_it, lambda x: x[:2] * 6),
    # what torch does not see
    Missed("another thread", in_a_thread, lambda x: x * x.sin()),
    Missed("modes turned off", unrecorded, lambda x: x * x.sin()),
    Missed("a file", saved, lambda x: x * x * 2),
    Missed("its storage", by_its_storage, lambda x: x * x.clone()),
    Missed("NumPy in a Function", custom(outside, lambda g, x: torch.zeros_like(g)), torch.tanh),
    # numbers
    Missed("math", lambda x: x * math.sqrt(abs(x[0]) + 1), lambda x: x * (x[0].abs() + 1).sqrt()),
    Missed("a number that is a short one", lambda x: (x * 0 + 2) * (x * 0 + 2).sum().item() + x[0].item() * x,
           lambda x: (x * 0 + 2) * (x * 0 + 2).sum() + x[0] * x),
    Missed("a mean that fills", lambda x: x * torch.full_like(x, float(x.mean()) * 2),
        lambda x: x * (x.mean() * 2)),
    Missed("the end of a range", lambda x: x * between(0, x.max() * 2),
        lambda x: x * x.max() * 2 * between(0, 1)),
    Missed("a masked fill", lambda x: x.masked_fill(torch.arange(4) < 2, x.std().item() * 3),
           lambda x: torch.where(torch.arange(4) < 2, x.std() * 3, x)),
    Missed("a threshold's value", lambda x: F.threshold(x, -9.0,
        float(x.sum()) + 1) + x * (1 + x.sum().item()),
           lambda x: x + x * (1 + x.sum())),
    Missed("a weight of lerp", lambda x: torch.lerp(x, 2 * x, 1 / (1 + math.exp(-x.mean()))), exact_lerp),
    Missed("value= of addcmul", lambda x: torch.addcmul(x, x, x, value=2 * x.norm().item()),
           lambda x: x + 2 * x.norm() * x * x),
    Missed("a sum in Python", lambda x: x * sum(v**2 for v in x.tolist()), lambda x: x * (x**2).sum()),
    Missed("eval of its text", lambda x: x * float(repr(x[1].item() * 3)), lambda x: x * x[1] * 3),
    Missed("an array of numbers and one more", lambda x: x * torch.tensor([*(2 * x[:3]).tolist(), 1.0],
        dtype=x.dtype),
           lambda x: x * torch.cat([2 * x[:3], x.new_ones(1)])),
]  # fmt: skip
# Those where the way is followed by nothing but a plain run, or that lie in the backward alone, are no matter
# of taint.
BESIDE = ("by the", "compiled", "a hook", "a backward that", "a checkpoint that")
ALL = [*(kind for kind in KINDS if not kind.name.startswith(BESIDE)), *TAINT]
