"""torch autograd, eager and in reverse mode: the engine that most people ask about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import numpy as np
import torch

from ..dtypes import DType
from ..errors import UnsupportedError, said
from ..language.syntax import Statement
from . import Task, Trace
from .interpreter import ARITHMETIC, Functions, Library, Operand, line, names, scalars


def _reduction(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def reduce(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
        dims = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
        if not dims:
            return torch.abs(x) if function is _norm else x
        return function(x, dims, keepdims)

    return reduce


def _norm(x: torch.Tensor, dims: tuple[int, ...], keepdims: bool) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=dims, keepdim=keepdims)


def _prod(x: torch.Tensor, dims: tuple[int, ...], keepdims: bool) -> torch.Tensor:
    for dim in sorted((d % x.ndim for d in dims), reverse=True):
        x = torch.prod(x, dim, keepdim=keepdims)
    return x


def _var(x: torch.Tensor, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> torch.Tensor:
    return torch.var(x, dim=axis, correction=ddof, keepdim=keepdims)


def _std(x: torch.Tensor, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> torch.Tensor:
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
    "transpose": lambda x, axes=None: x.permute(axes if axes is not None else tuple(reversed(range(x.ndim)))),
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


class TorchEngine:
    """Eager torch on the CPU; `functions` and `operators` are what the lines are made of."""

    def __init__(
        self,
        name: str = "torch",
        functions: Mapping[str, Callable[..., torch.Tensor]] = FUNCTIONS,
        operators: Mapping[str, Callable[..., Operand]] = OPERATORS,
    ) -> None:
        self.name = name
        self.functions = functions
        self.operators = operators

    def run(self, task: Task, dtype: DType) -> Trace:
        """Run the lines, pull each probe back through its own line, and the output through all of them."""
        kind = getattr(torch, dtype.name)
        tensors = {
            name: torch.tensor(value, dtype=kind, requires_grad=name in task.parameters)
            for name, value in task.point.items()
        }
        trace = self.forward(task, tensors, kind)
        output = tensors.get(task.statements[-1].name)
        if output is None:
            return trace
        failures, unsupported = dict(trace.failures), dict(trace.unsupported)
        try:
            if output.requires_grad:
                output.backward()
        except NotImplementedError as error:
            unsupported[""] = said(error)
        except RuntimeError as error:
            failures[""] = said(error)
        return replace(trace, gradients=gradients_of(tensors), failures=failures, unsupported=unsupported)

    def forward(self, task: Task, tensors: dict[str, torch.Tensor], kind: torch.dtype) -> Trace:
        """Run the lines over the leaves' tensors, and each line's probes through it alone; no gradients yet.

        The lines' tensors are added to `tensors`, as far as they could be computed.
        """
        locals_: dict[tuple[str, str], np.ndarray | None] = {}
        failures: dict[str, str] = {}
        unsupported: dict[str, str] = {}
        for statement in task.statements:
            try:
                tensors[statement.name] = value = self._line(statement, tensors, kind)
                if value.requires_grad:
                    value.retain_grad()
            except (NotImplementedError, UnsupportedError) as error:
                return Trace(_numbers(tensors), locals_, {}, failures, {statement.name: said(error)})
            except (
                RuntimeError,
                TypeError,
                ValueError,
                IndexError,
                OverflowError,
                ZeroDivisionError,
            ) as error:
                failures[statement.name] = said(error)
                return Trace(_numbers(tensors), locals_, {}, failures)
            try:
                locals_ |= self._local(statement, tensors, kind, task)
            except NotImplementedError as error:
                unsupported[statement.name] = said(error)
            except (RuntimeError, TypeError, ValueError) as error:
                failures[statement.name] = said(error)
        return Trace(_numbers(tensors), locals_, {}, failures, unsupported)

    def _local(
        self, statement: Statement, tensors: Mapping[str, torch.Tensor], kind: torch.dtype, task: Task
    ) -> dict[tuple[str, str], np.ndarray | None]:
        """The line's own vjp at its probes, with its parents detached from everything before them."""
        name = statement.name
        parents = task.parents.get(name, ())
        if not parents or name not in task.probes:
            return {}
        alone = {key: tensors[key].detach() for key in names(statement) if key in tensors}
        for parent in parents:
            alone[parent] = alone[parent].clone().requires_grad_(True)
        value = self._line(statement, alone, kind)
        rows: dict[str, list[np.ndarray | None]] = {parent: [] for parent in parents}
        for probe in task.probes[name]:
            cotangent = torch.tensor(probe, dtype=kind).reshape(value.shape)
            if value.requires_grad:
                grads: Sequence[torch.Tensor | None] = torch.autograd.grad(
                    value,
                    [alone[parent] for parent in parents],
                    cotangent,
                    retain_graph=True,
                    allow_unused=True,
                )
            else:
                grads = [None] * len(parents)
            for parent, grad in zip(parents, grads, strict=True):
                rows[parent].append(number_of(grad))
        found: dict[tuple[str, str], np.ndarray | None] = {}
        for parent, items in rows.items():
            arrays = [item for item in items if item is not None]
            found[name, parent] = np.stack(arrays) if len(arrays) == len(items) else None
        return found

    def _line(
        self, statement: Statement, tensors: Mapping[str, torch.Tensor], kind: torch.dtype
    ) -> torch.Tensor:
        value = line(
            statement,
            tensors,
            Library("torch", self.functions, self.operators, partial(torch.tensor, dtype=kind)),
        )
        # A line `y = x` is a node of its own, with a gradient of its own.
        return value.view_as(value) if any(value is tensors.get(name) for name in names(statement)) else value


def gradients_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray | None]:
    """What `.grad` holds of every leaf and every line that needs a gradient."""
    return {name: number_of(t.grad) if t.is_leaf or t.requires_grad else None for name, t in tensors.items()}


def number_of(tensor: torch.Tensor | None) -> np.ndarray | None:
    """A copy of a tensor's numbers in float64, which holds those of every dtype exactly."""
    return None if tensor is None else tensor.detach().to(torch.float64).numpy().copy()


def _numbers(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().to(torch.float64).numpy().copy() for name, tensor in tensors.items()}


ENGINE = TorchEngine()
