"""torch autograd, eager and in reverse mode: the engine that most people ask about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..dtypes import DType
from ..language.syntax import Statement
from . import Task
from .functional import Function, FunctionEngine, Rows, stacked
from .interpreter import ARITHMETIC, Axis, Functions, Library, Operand, axes_of, line, names, scalars


def _reduction(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def reduce(x: torch.Tensor, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
        dims = axes_of(x, axis)
        if not dims:
            return torch.abs(x) if function is _norm else x
        return function(x, dims, keepdims)

    return reduce


def _norm(x: torch.Tensor, dims: tuple[int, ...], keepdims: bool) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=dims, keepdim=keepdims)


def _prod(x: torch.Tensor, dims: tuple[int, ...], keepdims: bool) -> torch.Tensor:
    for dim in sorted(dims, reverse=True):
        x = torch.prod(x, dim, keepdim=keepdims)
    return x


def _var(x: torch.Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> torch.Tensor:
    return torch.var(x, dim=axis, correction=ddof, keepdim=keepdims)


def _std(x: torch.Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> torch.Tensor:
    return torch.std(x, dim=axis, correction=ddof, keepdim=keepdims)


def _sliced(x: torch.Tensor, index: tuple[Any, ...]) -> torch.Tensor:
    """torch has no negative step, so such an axis is flipped first."""
    taken: list[Any] = []
    for n, item in enumerate(index):
        axis = n - index[:n].count(None)
        if isinstance(item, slice) and (item.step or 1) < 0:
            x = torch.index_select(x, axis, torch.tensor(range(x.shape[axis])[item]))
            item = slice(None)
        taken.append(item)
    return x[tuple(taken)]


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if a.ndim and b.ndim else a * b


# Each function of the language with tensors for operands.
FUNCTIONS: Functions = {
    **scalars(torch, ("torch",), (torch, torch.special)),
    "sum": _reduction(lambda x, dims, keep: torch.sum(x, dims, keepdim=keep)),
    "mean": _reduction(lambda x, dims, keep: torch.mean(x, dims, keepdim=keep)),
    "max": _reduction(lambda x, dims, keep: torch.amax(x, dims, keepdim=keep)),
    "min": _reduction(lambda x, dims, keep: torch.amin(x, dims, keepdim=keep)),
    "norm": _reduction(_norm),
    "logsumexp": _reduction(lambda x, dims, keep: torch.logsumexp(x, dims, keepdim=keep)),
    "prod": _reduction(_prod), "var": _var, "std": _std,
    "softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "log_softmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "cumsum": lambda x, axis=0: torch.cumsum(x, axis),
    "dot": _dot, "@": torch.matmul, "outer": torch.outer, "trace": torch.trace,
    "transpose": lambda x, axes=None: x.permute(tuple(axes or reversed(range(x.ndim)))),
    "reshape": lambda x, shape: x.reshape(shape),
    "where": lambda condition, a, b: torch.where(torch.as_tensor(condition), a, b),
    "concatenate": lambda parts, axis: torch.cat(parts, dim=axis),
    "stack": lambda parts, axis: torch.stack(parts, dim=axis),
    "take": lambda x, positions: x[tuple(map(torch.from_numpy, positions))],
    "slice": _sliced,
    "expand": lambda x, shape: x.expand(shape),
}  # fmt: skip

OPERATORS: dict[str, Callable[..., Operand]] = {
    **ARITHMETIC,
    "and": lambda *conditions: reduce(torch.logical_and, map(torch.as_tensor, conditions)),
    "or": lambda *conditions: reduce(torch.logical_or, map(torch.as_tensor, conditions)),
    "not": lambda condition: torch.logical_not(torch.as_tensor(condition)),
}


class TorchEngine(FunctionEngine):
    """Eager torch on the CPU: its own backward, through the lines as they were run."""

    def __init__(
        self, name: str = "torch", functions: Functions = FUNCTIONS, operators: Functions = OPERATORS
    ) -> None:
        super().__init__(name, functions, operators)

    def array(self, value: ArrayLike, dtype: DType) -> torch.Tensor:
        return torch.tensor(value, dtype=getattr(torch, dtype.name))

    def numbers(self, array: torch.Tensor) -> np.ndarray:
        return array.detach().to(torch.float64).numpy().copy()

    def leaf(self, value: ArrayLike, dtype: DType, is_parameter: bool) -> torch.Tensor:
        return self.array(value, dtype).requires_grad_(is_parameter)

    def line(
        self, statement: Statement, arrays: Mapping[str, torch.Tensor], library: Library
    ) -> torch.Tensor:
        value = line(statement, arrays, library)
        # A line `y = x` is a node of its own, with a gradient of its own.
        return value.view_as(value) if any(value is arrays.get(name) for name in names(statement)) else value

    def bound(self, value: torch.Tensor) -> torch.Tensor:
        if value.requires_grad:
            value.retain_grad()
        return value

    def pull(
        self, function: Function, inputs: Sequence[torch.Tensor], rows: np.ndarray, dtype: DType
    ) -> Rows:
        leaves = [x.detach().clone().requires_grad_(True) for x in inputs]
        return pulled(function(*leaves), leaves, [self.array(row, dtype) for row in rows])

    def hessian(
        self, function: Function, inputs: Sequence[torch.Tensor], first: int, second: int, dtype: DType
    ) -> np.ndarray | None:
        leaves = [x.detach().clone().requires_grad_(True) for x in inputs]
        (slope,) = torch.autograd.grad(function(*leaves), leaves[first], create_graph=True, allow_unused=True)
        if slope is None:
            return None
        shape = (*slope.shape, *leaves[second].shape)
        if not slope.requires_grad:
            return np.zeros(shape)
        rows = [
            torch.autograd.grad(each, leaves[second], retain_graph=True, allow_unused=True)[0]
            for each in slope.reshape(-1)
        ]
        none = torch.zeros_like(leaves[second])
        found = torch.stack([none if row is None else row for row in rows])
        return number_of(found.reshape(shape))

    def chained(
        self, task: Task, arrays: Mapping[str, torch.Tensor], library: Library, dtype: DType
    ) -> dict[str, np.ndarray | None]:
        output = arrays[task.statements[-1].name]
        if output.requires_grad:
            output.backward()
        return gradients_of(arrays)


def pulled(value: torch.Tensor, leaves: Sequence[torch.Tensor], rows: Sequence[torch.Tensor]) -> Rows:
    """Each cotangent, pulled back from the value to the leaves; None where none of them gets there."""
    if not value.requires_grad:
        return [None for _ in leaves]
    found: list[list[np.ndarray | None]] = [[] for _ in leaves]
    for row in rows:
        grads = torch.autograd.grad(
            value, leaves, row.reshape(value.shape), retain_graph=True, allow_unused=True
        )
        for kept, grad in zip(found, grads, strict=True):
            kept.append(number_of(grad))
    return [stacked(kept) for kept in found]


def gradients_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray | None]:
    """What `.grad` holds of every leaf and every line that needs a gradient."""
    return {name: number_of(t.grad) if t.is_leaf or t.requires_grad else None for name, t in tensors.items()}


def number_of(tensor: torch.Tensor | None) -> np.ndarray | None:
    """A copy of a tensor's numbers in float64, which holds those of every dtype exactly."""
    return None if tensor is None else tensor.detach().to(torch.float64).numpy().copy()


ENGINE = TorchEngine()
