"""A check leaves no trace: whatever a function may change is kept before it runs and put back afterwards, bit
by bit.

That is the memory of every tensor that it is given or holds, the tensors' gradients, the attributes of its
modules, and the states of random generators.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import BuiltinFunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from .insides import set_grad_enabled
from .names import holdings

DEPTH = 8  # of containers within objects within functions
COUNT = 100_000  # objects that are looked at


@contextmanager
def untouched(func: Callable[..., Any], *inputs: Any) -> Iterator[State]:
    """What the function is given and holds, and the random states, are as before when the block ends, however
    it ends."""
    state = State(func, *inputs)
    enabled = torch.is_grad_enabled()
    try:
        yield state
    finally:
        set_grad_enabled(enabled)
        state.restore()


def eager() -> AbstractContextManager[Any]:
    """Within it, compiled functions run as they are written, and stay compiled.

    Under a dispatch mode a compiler would remember that it is to skip the function, for good.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


class State:
    """What was there before; `restore` puts it back, as often as it is called."""

    def __init__(self, func: Callable[..., Any], *inputs: Any) -> None:
        self._undo: list[Callable[[], None]] = [_random_states()]
        self.tensors: list[torch.Tensor] = []  # all that are given and held
        memory: dict[tuple[torch.device, int], None] = {}
        for value in _held([func, *inputs]):
            self._undo += _kept(value, memory)
            if isinstance(value, torch.nn.Module):
                self.tensors += [*value.parameters(), *value.buffers()]
            elif isinstance(value, torch.Tensor):
                self.tensors.append(value)

    def restore(self) -> None:
        """Everything as it was when the state was taken."""
        for undo in self._undo:
            undo()


def _held(roots: Sequence[Any]) -> Iterator[Any]:
    """The tensors, modules and generators that can be reached, each once."""
    seen: dict[int, Any] = {}
    stack = [(root, DEPTH) for root in roots]
    while stack and len(seen) < COUNT:
        value, depth = stack.pop()
        if id(value) in seen or isinstance(value, _PLAIN):
            continue
        seen[id(value)] = value  # kept alive, so that no other object gets its id
        if isinstance(value, _STATEFUL):
            yield value
        if depth:
            stack += [(part, depth - 1) for part in _parts(value)]


_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type,
    ModuleType,
    BuiltinFunctionType,
    torch.dtype,
    torch.device,
)
_STATEFUL = (torch.Tensor, torch.nn.Module, torch.Generator, np.ndarray, np.random.Generator, random.Random)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield from _inner(value)
        if (value.is_leaf or value.retains_grad) and value.grad is not None:
            yield value.grad
    elif isinstance(value, torch.nn.Module):
        for part in value.modules():
            yield from vars(part).values()
    elif isinstance(value, Mapping):
        with suppress(Exception):
            yield from list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from list(value)
    elif callable(value):
        yield from (part for _, part in holdings(value))
    if not isinstance(value, torch.Tensor | torch.nn.Module) and isinstance(
        getattr(value, "__dict__", None), dict
    ):
        yield from list(vars(value).values())


def _inner(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that a wrapper, a sparse one for example, is made of."""
    if tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        yield tensor.values().detach()
    elif hasattr(tensor, "__tensor_flatten__"):
        yield from (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])


def _kept(value: Any, memory: dict[tuple[torch.device, int], None]) -> list[Callable[[], None]]:
    """What puts one object back."""
    if isinstance(value, torch.nn.Module):
        return [_module(part) for part in value.modules()]
    if isinstance(value, torch.Tensor):
        return _tensor(value, memory)
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return [lambda: value.set_state(state) and None]
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        return [lambda: setattr(value.bit_generator, "state", bits)]
    if isinstance(value, random.Random):
        drawn = value.getstate()
        return [lambda: value.setstate(drawn)]
    return [_array(value)] if value.flags.writeable and not value.dtype.hasobject else []


def _array(array: np.ndarray) -> Callable[[], None]:
    before = array.copy()

    def undo() -> None:
        if array.flags.writeable:
            array[...] = before

    return undo


def _module(module: torch.nn.Module) -> Callable[[], None]:
    """The names that a module binds: its attributes, parameters and buffers."""
    tables = [vars(module), *(vars(module).get(name, {}) for name in ("_parameters", "_buffers", "_modules"))]
    before = [dict(table) for table in tables]
    kind = type(module)

    def undo() -> None:
        if type(module) is not kind:  # a lazy module has become what it stands for: that is no state
            return
        for table, old in zip(tables, before, strict=True):
            for name in [name for name in table if name not in old]:
                del table[name]
            for name, value in old.items():
                if name not in table or table[name] is not value:
                    table[name] = value

    return undo


def _tensor(tensor: torch.Tensor, memory: dict[tuple[torch.device, int], None]) -> list[Callable[[], None]]:
    """A tensor's memory, once for all its views, and what its name is bound to: its place there, history and
    gradient."""
    if isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin):
        return []
    undo = [_binding(tensor)]
    with suppress(Exception):  # no memory of its own: a sparse tensor, a wrapper, one of another compiler
        storage = tensor.untyped_storage()
        key = (tensor.device, storage.data_ptr())
        if tensor.device.type != "meta" and storage.nbytes() and key not in memory:
            copy = storage.clone()
            memory[key] = None

            def filled() -> None:
                if storage.nbytes() != copy.nbytes():  # it was freed, or made larger
                    storage.resize_(copy.nbytes())
                storage.copy_(copy)

            undo.insert(0, filled)
    return undo


def _binding(tensor: torch.Tensor) -> Callable[[], None]:
    alias = tensor.detach()
    leaf, needed = tensor.grad_fn is None, tensor.requires_grad
    grad = tensor.grad if leaf or tensor.retains_grad else None

    def undo() -> None:
        if leaf and tensor.grad_fn is not None:  # written in place by something with a history
            tensor.detach_()
        if leaf and tensor.requires_grad is not needed:
            tensor.requires_grad_(needed)
        if tensor.layout is torch.strided and not _same(tensor, alias):
            tensor.data = alias
        if (leaf or tensor.retains_grad) and tensor.grad is not grad:
            tensor.grad = grad

    def undone() -> None:
        with suppress(RuntimeError):  # a view, or a tensor of a kind that cannot be bound anew
            undo()

    return undone


def _same(tensor: torch.Tensor, alias: torch.Tensor) -> bool:
    """Whether a tensor lies where it lay."""
    with suppress(Exception):
        lies = tensor.data_ptr() == alias.data_ptr()
        return (
            lies
            and tensor.shape == alias.shape
            and tensor.stride() == alias.stride()
            and tensor.dtype == alias.dtype
        )
    return True


def _random_states() -> Callable[[], None]:
    python, legacy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def undo() -> None:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(torch_cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return undo
