"""torch autograd, eager and in reverse mode: the engine that most people ask about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from math import pi
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..dtypes import DType
from ..errors import said
from ..syntax import Affine, Span, Statement, Term
from . import Task, Trace

Operand = Any  # a tensor, or a Python number where the line has a constant


def _tensor(x: Operand, like: torch.dtype) -> torch.Tensor:
    return x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=like)


def _gamma(x: torch.Tensor) -> torch.Tensor:
    """torch has no gamma function; exp(lgamma) is the way to write one, with the sign for negative arguments."""
    negative = (x < 0) & (torch.floor(x) % 2 != 0)
    return torch.exp(torch.lgamma(x)) * torch.where(negative, -1.0, 1.0).to(x.dtype)


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


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b if a.ndim and b.ndim else a * b


# Each function of the language with tensors for operands.
FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "exp": torch.exp, "log": torch.log, "log1p": torch.log1p, "expm1": torch.expm1, "sqrt": torch.sqrt,
    "abs": torch.abs, "sign": torch.sign, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin,
    "acos": torch.acos, "atan": torch.atan, "atan2": torch.atan2, "sinh": torch.sinh, "cosh": torch.cosh,
    "tanh": torch.tanh, "asinh": torch.asinh, "acosh": torch.acosh,
    "atanh": torch.atanh,
    "log2": torch.log2, "log10": torch.log10, "erfc": torch.erfc, "erf": torch.erf,
    "gamma": _gamma, "lgamma": torch.lgamma, "sigmoid": torch.sigmoid,
    # The threshold is where log(1 + exp(x)) and x are the same number in every dtype; torch's own 20 is not, in float64.
    "softplus": lambda x: F.softplus(x, threshold=40.0),
    "relu": torch.relu, "gelu": F.gelu, "silu": F.silu,
    "leaky_relu": lambda x, negative_slope=0.01: F.leaky_relu(x, negative_slope),
    "elu": lambda x, alpha=1.0: F.elu(x, alpha),
    "maximum": torch.maximum, "minimum": torch.minimum,
    "clip": lambda x, low, high: torch.clamp(*torch.broadcast_tensors(x, low, high)),
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
}  # fmt: skip

# Operators work on Python numbers too, so that a constant part of a line is computed as Python does.
OPERATORS: dict[str, Callable[..., Operand]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "neg": lambda a: -a, "pos": lambda a: a,
    "and": lambda *conditions: reduce(torch.logical_and, map(torch.as_tensor, conditions)),
    "or": lambda *conditions: reduce(torch.logical_or, map(torch.as_tensor, conditions)),
    "not": lambda condition: torch.logical_not(torch.as_tensor(condition)),
}  # fmt: skip

COMPARE: dict[str, Callable[[Operand, Operand], Any]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip


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
            name: torch.tensor(value, dtype=kind, requires_grad=name in task.parameters) for name, value in task.point.items()
        }
        locals_: dict[tuple[str, str], np.ndarray | None] = {}
        failures: dict[str, str] = {}
        for statement in task.statements:
            try:
                tensors[statement.name] = value = self._line(statement, tensors, kind)
                if value.requires_grad:
                    value.retain_grad()
            except (RuntimeError, TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError) as error:
                failures[statement.name] = said(error)
                return Trace(_numbers(tensors), locals_, {}, failures)
            try:
                locals_ |= self._local(statement, tensors, kind, task)
            except (RuntimeError, TypeError, ValueError) as error:
                failures[statement.name] = said(error)
        output = tensors[task.statements[-1].name]
        try:
            if output.requires_grad:
                output.backward()
        except RuntimeError as error:
            failures[""] = said(error)
        gradients = {name: _number(t.grad) if t.is_leaf or t.requires_grad else None for name, t in tensors.items()}
        return Trace(_numbers(tensors), locals_, gradients, failures)

    def _local(
        self, statement: Statement, tensors: Mapping[str, torch.Tensor], kind: torch.dtype, task: Task
    ) -> dict[tuple[str, str], np.ndarray | None]:
        """The line's own vjp at its probes, with its parents detached from everything before them."""
        name = statement.name
        parents = task.parents.get(name, ())
        if not parents or name not in task.probes:
            return {}
        read = {term.value for term in statement.terms if term.op == "name"}
        alone = {key: tensors[key].detach() for key in read if key in tensors}
        for parent in parents:
            alone[parent] = alone[parent].clone().requires_grad_(True)
        value = self._line(statement, alone, kind)
        rows: dict[str, list[np.ndarray | None]] = {parent: [] for parent in parents}
        for probe in task.probes[name]:
            cotangent = torch.tensor(probe, dtype=kind).reshape(value.shape)
            if value.requires_grad:
                grads: Sequence[torch.Tensor | None] = torch.autograd.grad(
                    value, [alone[parent] for parent in parents], cotangent, retain_graph=True, allow_unused=True
                )
            else:
                grads = [None] * len(parents)
            for parent, grad in zip(parents, grads, strict=True):
                rows[parent].append(_number(grad))
        found: dict[tuple[str, str], np.ndarray | None] = {}
        for parent, items in rows.items():
            arrays = [item for item in items if item is not None]
            found[name, parent] = np.stack(arrays) if len(arrays) == len(items) else None
        return found

    def _line(self, statement: Statement, tensors: Mapping[str, torch.Tensor], kind: torch.dtype) -> torch.Tensor:
        labels = _Labels(statement, tensors)
        values: list[Operand] = []
        for term in statement.terms:
            values.append(self._term(term, [values[n] for n in term.args], tensors, labels, statement, kind))
        value = labels.arranged(_tensor(values[-1], kind))
        # A line `y = x` is a node of its own, with a gradient of its own.
        names = {term.value for term in statement.terms if term.op == "name"}
        return value.view_as(value) if any(value is tensors.get(name) for name in names) else value

    def _term(
        self,
        term: Term,
        args: list[Operand],
        tensors: Mapping[str, torch.Tensor],
        labels: _Labels,
        statement: Statement,
        kind: torch.dtype,
    ) -> Operand:
        match term.op:
            case "number":
                return float(term.value) if isinstance(term.value, Fraction) or abs(term.value) >= 2**63 else term.value
            case "name":
                return tensors[term.value] if term.value in tensors else {"pi": pi}[term.value]
            case "index":
                if any(isinstance(item, Affine) for item in term.value):
                    return labels.read(args[0], term)
                return _sliced(args[0], term.value)
            case "compare":
                pairs = zip(term.value, args, args[1:], strict=False)
                result, *rest = (COMPARE[op](a, b) for op, a, b in pairs)
                return reduce(torch.logical_and, map(torch.as_tensor, rest), torch.as_tensor(result))
            case "where":
                condition, a, b = args
                return torch.where(torch.as_tensor(condition), _tensor(a, kind), _tensor(b, kind))
            case "concatenate" | "stack":
                function = torch.cat if term.op == "concatenate" else torch.stack
                return function([_tensor(arg, kind) for arg in args], dim=term.options.get("axis", 0))
        if term.op in self.operators:
            result = self.operators[term.op](*args)
            # torch takes no integer beyond 64 bits.
            return float(result) if isinstance(result, int) and abs(result) >= 2**63 else result
        operands = [_tensor(arg, kind) for arg in args]
        options = {k: float(v) if isinstance(v, Fraction) else v for k, v in term.options.items() if k != "over"}
        if labels.order and (over := term.options.get("over")):
            options["axis"] = tuple(labels.order.index(label) for label in over)
            options["keepdims"] = True
            operands = [labels.expanded(operand, over) for operand in operands]
        return self.functions[term.op](*operands, **options)


class _Labels:
    """Index notation in torch: one axis for each label of the line, in the order of their appearance.

    A read `X[i, k]` becomes a tensor with X's entries along the axes of i and k and extent 1 along the others.
    """

    def __init__(self, statement: Statement, tensors: Mapping[str, torch.Tensor]) -> None:
        self.statement = statement
        self.extents = {label: extent for label, extent in statement.labels if extent is not None}
        order = [label for label, _ in statement.labels]
        shifted: list[tuple[Affine, int]] = []
        for term in statement.terms:
            if term.op != "index":
                continue
            shape = tensors[statement.terms[term.args[0]].value].shape if _names_tensor(statement, term) else ()
            for item, extent in zip(term.value, shape, strict=False):
                if isinstance(item, Affine):
                    order += [label for label, _ in item.labels]
                    if item.plain is not None:
                        self.extents.setdefault(item.plain, extent)
                    else:
                        shifted.append((item, extent))
        self.order = list(dict.fromkeys(order))
        for item, extent in shifted:
            for label, coefficient in item.labels:
                if label not in self.extents:
                    others = [c * (self.extents[other] - 1) for other, c in item.labels if other != label]
                    if coefficient > 0:
                        room = extent - 1 - item.constant - sum(max(step, 0) for step in others)
                    else:
                        room = item.constant + sum(min(step, 0) for step in others)
                    self.extents[label] = room // abs(coefficient) + 1

    def read(self, tensor: torch.Tensor, term: Term) -> torch.Tensor:
        rank = len(self.order)
        positions: list[torch.Tensor] = []
        inside = torch.ones((1,) * rank, dtype=torch.bool)
        for item, extent in zip(term.value, tensor.shape, strict=True):
            position = torch.zeros((1,) * rank, dtype=torch.long)
            if isinstance(item, int):
                position = position + item % extent
            else:
                position = position + item.constant
                for label, coefficient in item.labels:
                    shape = [1] * rank
                    shape[self.order.index(label)] = -1
                    position = position + coefficient * torch.arange(self.extents[label]).reshape(shape)
            inside = inside & (position >= 0) & (position < extent)
            positions.append(position.clamp(0, extent - 1))
        got = tensor[tuple(positions)]
        return got if bool(inside.all()) else torch.where(inside, got, torch.zeros((), dtype=tensor.dtype))

    def expanded(self, tensor: torch.Tensor, over: tuple[str, ...]) -> torch.Tensor:
        """A reduction counts every value of its index, also where the operand does not depend on it."""
        if tensor.ndim < len(self.order):
            tensor = tensor.reshape((1,) * (len(self.order) - tensor.ndim) + tuple(tensor.shape))
        shape = [self.extents[label] if label in over else -1 for label in self.order]
        return tensor.expand(shape)

    def arranged(self, tensor: torch.Tensor) -> torch.Tensor:
        """The line's value: the axes on the left, in their order; those summed over have extent 1 and go."""
        if not self.order:
            return tensor
        left = [label for label, _ in self.statement.labels]
        tensor = tensor.reshape((1,) * (len(self.order) - tensor.ndim) + tuple(tensor.shape))
        kept = [self.order.index(label) for label in left]
        rest = [n for n in range(len(self.order)) if n not in kept]
        shape = [self.extents[label] for label in left]
        tensor = tensor.permute(*kept, *rest)
        tensor = tensor.reshape(tensor.shape[: len(kept)])
        return tensor.expand(shape)


def _names_tensor(statement: Statement, term: Term) -> bool:
    return statement.terms[term.args[0]].op == "name"


def _sliced(tensor: torch.Tensor, items: tuple[Any, ...]) -> torch.Tensor:
    """NumPy's basic indexing; torch has no negative step, so such an axis is flipped first."""
    index: list[Any] = []
    for n, item in enumerate(items):
        axis = n - items[:n].count(None)
        if isinstance(item, Span) and (item.step or 1) < 0:
            positions = torch.tensor(range(tensor.shape[axis])[slice(item.start, item.stop, item.step)])
            tensor = torch.index_select(tensor, axis, positions)
            item = Span(None, None, None)
        index.append(slice(item.start, item.stop, item.step) if isinstance(item, Span) else item)
    return tensor[tuple(index)]


def _number(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().to(torch.float64).numpy().copy()


def _numbers(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().to(torch.float64).numpy().copy() for name, tensor in tensors.items()}


ENGINE = TorchEngine()
