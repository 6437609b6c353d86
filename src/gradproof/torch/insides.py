"""All that depends on torch's insides, so that a torch which nobody has tried is looked at in one place.

`missing` tries each entry out; what it names is gone, and no function can be recorded with such a torch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import CO_VARARGS
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

try:
    from torch._decomp import decomposition_table
    from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
except ImportError:  # told by `missing`
    TorchDispatchMode, decomposition_table, _disable_current_modes = object, {}, None

TRIED = ("2.13", "2.15")  # the oldest and the newest torch that was tried


def without_modes() -> AbstractContextManager[Any]:
    """Within it no dispatch mode sees what runs."""
    return _disable_current_modes()


def with_conjugates() -> AbstractContextManager[Any]:
    """Within it what an operation calls resolves conjugates and negatives, as without a mode: below one torch
    takes what lies in memory for the numbers (`linalg.pinv` of complex matrices is wrong there)."""
    core = torch._C
    kept = core._dispatch_tls_local_exclude_set()
    for key in (core.DispatchKey.Conjugate, core.DispatchKey.Negative):
        kept = kept.remove(key) if kept.has(key) else kept
    return core._ForceDispatchKeyGuard(core._dispatch_tls_local_include_set(), kept)


def without_functions() -> AbstractContextManager[Any]:
    """Within it no class's or mode's `__torch_function__` is asked."""
    return torch._C.DisableTorchFunction()


def set_grad_enabled(enabled: bool) -> None:
    """Also where a function has left a mode of its own on."""
    torch._C._set_grad_enabled(enabled)


@contextmanager
def tangents() -> Iterator[None]:
    """Within it tensors may have tangents, which torch moves forward beside them."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # its own decompositions are such
        yield


def give_tangent(tensor: Tensor, tangent: Tensor) -> None:
    """Give a tensor a tangent, in place: a leaf stays one, as parameters of modules must."""
    with torch.no_grad():
        tensor.copy_(forward_ad.make_dual(tensor.detach().clone(), tangent))


def without_cotangent(tensor: Tensor) -> Tensor:
    """The tensor, whose cotangent will be None."""
    return torch._C._functions.UndefinedGrad()(tensor)


def tangent_of(tensor: Tensor) -> Tensor | None:
    """A copy of the tangent that torch has for a tensor, also asked from below autograd."""
    core = torch._C
    included, nothing = core._dispatch_tls_local_include_set(), core.DispatchKeySet.from_raw_repr(0)
    with (
        _disable_current_modes(),
        without_functions(),
        torch.no_grad(),
        core._ForceDispatchKeyGuard(included, nothing),
        forward_ad._set_fwd_grad_enabled(True),
    ):
        tangent = forward_ad.unpack_dual(tensor).tangent
        return None if tangent is None else tangent.detach().clone()


def next_number() -> int:
    """What the next autograd node will be numbered."""
    return torch._C._autograd._get_sequence_nr()


def number_of(node: Any) -> int:
    """The place of an autograd node in the order in which they were made."""
    return int(node._sequence_nr())


def leaf_of(node: Any) -> Any:
    """The tensor of an accumulator; any other node itself."""
    return getattr(node, "variable", node)


def storage_of(tensor: Tensor) -> tuple[int, Any]:
    """The tensor's memory, by its address, and what keeps it alive."""
    storage = tensor.untyped_storage()
    return storage._cdata, storage


def address_of(tensor: Tensor) -> int:
    """What tells a tensor from any other that lives."""
    return tensor._cdata


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor that autograd has this one as a view of."""
    return tensor._base if tensor._is_view() else None


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor is one of torch.func's, under a transform."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor below torch.func's transforms; of a batch under vmap the first one."""
    core = torch._C._functorch
    while core.is_functorch_wrapped_tensor(tensor):
        inner = core.get_unwrapped(tensor)
        tensor = inner.select(core.maybe_get_bdim(tensor), 0) if core.is_batchedtensor(tensor) else inner
    return tensor


def class_called(frame: FrameType | None, classes: Sequence[Any]) -> Any:
    """Which of the Functions with one forward a transform calls: its frames say."""
    while len(classes) > 1 and frame is not None:
        called = frame.f_locals.get("autograd_function")
        if called in classes:
            return called
        frame = frame.f_back
    return classes[0]


def has_jvp(apply: Callable[..., Any]) -> bool:
    """Whether a custom Function, by its `apply`, has a rule of its own for forward mode; what torch generates
    has one that asks for it."""
    rule = getattr(apply, "__self__", Function).jvp
    return rule is not Function.jvp and not rule.__module__.startswith("torch.")


def is_differentiated(frame: FrameType | None) -> bool:
    """Whether what runs in the frame is differentiated by one of torch.func's transforms (grad, vjp, jvp): by
    custom Functions' backwards that are no nodes of the outer graph."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(_TRANSFORMS):
            return True
        frame = frame.f_back
    return False


_TRANSFORMS = str(Path("torch", "_functorch", "eager_transforms.py"))


def has_own_rules(tensor: Tensor) -> bool:
    """Whether the tensor's class computes by itself: a wrapper, a nested tensor."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def is_jagged(tensor: Tensor) -> bool:
    """Whether a tensor is rows of unequal lengths, one behind the other."""
    kind = type(tensor)
    known = kind.__name__ == "NestedTensor" and kind.__module__.startswith("torch.nested._internal")
    return known and getattr(tensor, "_ragged_idx", 0) == 1 and tensor.lengths() is None


def values_of_jagged(tensor: Any) -> tuple[Tensor, Tensor]:
    """Its rows in one tensor, and where each begins."""
    return tensor._values, tensor._offsets


def is_composite(op: Any) -> bool:
    """Whether an operation is made of others, by torch's own account."""
    return bool(op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd))


def module_of(frame: FrameType) -> Any:
    """The module whose call a frame is, None for any other frame."""
    return frame.f_locals.get("self") if frame.f_code is _MODULE_CALL else None


_MODULE_CALL = getattr(getattr(torch.nn.Module, "_call_impl", None), "__code__", None)


# Custom Functions


@dataclass(frozen=True, eq=False)
class Forward:
    """A running forward of a custom Function: its class (one of them, where several share the code), its
    arguments, and its autograd node, where the forward is given a context."""

    classes: tuple[Any, ...]
    arguments: tuple[Any, ...]
    node: Any


class Forwards:
    """The forwards of all custom Functions that there are, told by their code.

    Up to torch 2.13 `Function.apply` is Python and stands on the stack, from 2.14 on it is C and does not:
    the forward does in all of them.
    """

    def __init__(self) -> None:
        self._classes: dict[CodeType, list[Any]] = {}
        self._count = -1

    def __contains__(self, code: CodeType) -> bool:
        return code in self._classes

    def of(self, frame: FrameType) -> Forward | None:
        """The forward that a frame is."""
        classes = self._classes.get(frame.f_code)
        if classes is None:
            return None
        values = _arguments(frame)
        if values and isinstance(values[0], torch._C._FunctionBase):
            return Forward((forward_class(values[0]),), tuple(values[1:]), values[0])
        return Forward(tuple(classes), tuple(values), None)

    def refresh(self) -> None:
        """Look for classes that were made since."""
        count = len(Function.__subclasses__())
        if count == self._count:
            return
        self._count = count
        stack = list(Function.__subclasses__())
        while stack:
            kind = stack.pop()
            stack += kind.__subclasses__()
            code = getattr(getattr(kind, "forward", None), "__code__", None)  # its own, or inherited
            if code is not None and kind not in self._classes.setdefault(code, []):
                self._classes[code].append(kind)


def forward_class(node: Any) -> Any:
    """The custom Function that an autograd node belongs to, None for one of torch's own."""
    return getattr(node, "_forward_cls", None)


def _arguments(frame: FrameType) -> list[Any]:
    code, there = frame.f_code, frame.f_locals
    values = [there.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & CO_VARARGS:
        values += there.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
    return values


# Whether it is all there


class _Probe(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def _probes() -> dict[str, Callable[[], object]]:
    x = torch.ones(2, requires_grad=True)
    y = x * 2

    def entered(context: Callable[[], AbstractContextManager[Any]]) -> bool:
        with context():
            return True

    return {
        "dispatch modes": lambda: entered(without_modes) and TorchDispatchMode is not object,
        "function modes": lambda: entered(without_functions),
        "conjugates below a mode": lambda: entered(with_conjugates),
        "numbers of autograd nodes": lambda: next_number() > number_of(y.grad_fn) >= 0,
        "leaves of accumulators": lambda: leaf_of(y.grad_fn.next_functions[0][0]) is x,
        "addresses of memory": lambda: (
            storage_of(x)[0] != storage_of(y)[0] and storage_of(x)[0] == storage_of(x.detach())[0]
        ),
        "addresses of tensors": lambda: address_of(x) != address_of(y),
        "bases of views": lambda: base_of(y[:1]) is y and base_of(y) is None,
        "transforms": lambda: not is_transformed(x) and not is_differentiated(sys._getframe()),
        "tensors below transforms": lambda: (
            unwrapped(x) is x and torch._C._functorch.maybe_get_bdim is not None
        ),
        "derivatives of transforms": lambda: _seen_by_grad(x),
        "classes of tensors": lambda: not has_own_rules(x) and not has_own_rules(torch.nn.Parameter(x)),
        "decompositions": lambda: (
            len(decomposition_table) > 0 and not is_composite(torch.ops.aten.mul.Tensor)
        ),
        "calls of modules": lambda: _MODULE_CALL is not None,
        "classes of custom Functions": lambda: forward_class(_Probe.apply(x).grad_fn) is _Probe,
    }


def _seen_by_grad(x: Tensor) -> bool:
    seen = []

    def func(x: Tensor) -> Tensor:
        seen.append(is_differentiated(sys._getframe()))
        return x.sum()

    torch.func.grad(func)(x.detach())
    return seen == [True]


@lru_cache(maxsize=1)
def missing() -> tuple[str, ...]:
    """What of torch's insides is not as it was with the versions that were tried, in words."""
    gone = []
    with torch.enable_grad():
        for name, probe in _probes().items():
            try:
                there = bool(probe())
            except Exception:
                there = False
            if not there:
                gone.append(name)
    return tuple(gone)
