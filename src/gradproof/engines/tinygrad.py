"""tinygrad: its gradient rules, on the device that DEV names, or else on its own interpreter, which needs no
compiler."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike
from tinygrad import Context, Tensor, dtypes

from ..dtypes import DType
from .functional import Function, FunctionEngine, Rows
from .interpreter import ARITHMETIC, Array, Axis, Functions, scalars

DEVICE = os.environ.get("DEV") or "PYTHON"


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduced(x: Tensor, axis: Axis = None, keepdims: bool = False, **options: object) -> Tensor:
        return function(x, axis, keepdim=keepdims, **options) if x.shape else x

    return reduced


def _condition(x: Array) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(np.asarray(x, dtype=bool), device=DEVICE)


FUNCTIONS: Functions = {
    **scalars(Tensor, ("tinygrad",), (Tensor,)),
    "sum": _reduction(Tensor.sum), "mean": _reduction(Tensor.mean), "max": _reduction(Tensor.max),
    "min": _reduction(Tensor.min), "logsumexp": _reduction(Tensor.logsumexp), "prod": _reduction(Tensor.prod),
    "var": lambda x, axis=None, keepdims=False, ddof=0: x.var(axis, keepdim=keepdims, correction=ddof),
    "std": lambda x, axis=None, keepdims=False, ddof=0: x.std(axis, keepdim=keepdims, correction=ddof),
    "softmax": lambda x, axis=-1: x.softmax(axis), "log_softmax": lambda x, axis=-1: x.log_softmax(axis),
    "cumsum": lambda x, axis=0: x.cumsum(axis),
    "dot": lambda a, b: a.dot(b) if a.ndim and b.ndim else a * b, "@": Tensor.matmul,
    "transpose": lambda x, axes=None: x.permute(tuple(axes or reversed(range(x.ndim)))),
    "reshape": lambda x, shape: x.reshape(shape),
    "where": lambda condition, a, b: _condition(condition).where(a, b),
    "concatenate": lambda parts, axis: Tensor.cat(*parts, dim=axis),
    "stack": lambda parts, axis: Tensor.stack(*parts, dim=axis),
    "take": lambda x, positions: x[tuple(Tensor(p.astype(np.int32), device=DEVICE) for p in positions)],
    "slice": lambda x, index: x[index],
    "expand": lambda x, shape: x.expand(shape),
}  # fmt: skip

OPERATORS: Functions = {
    **ARITHMETIC,
    "and": lambda *conditions: reduce(lambda a, b: a & b, map(_condition, conditions)),
    "or": lambda *conditions: reduce(lambda a, b: a | b, map(_condition, conditions)),
    "not": lambda condition: _condition(condition).logical_not(),
}


def held(x: Tensor) -> Tensor:
    """The numbers in memory; a constant has none, and would be put on a CPU device that may need a
    compiler."""
    return x.detach().cast(dtypes.float64).clone()


class TinyEngine(FunctionEngine):
    """tinygrad's Tensor, in reverse mode."""

    def array(self, value: ArrayLike, dtype: DType) -> Tensor:
        # Every leaf needs memory of its own: equal constants are one node in tinygrad.
        data = np.asarray(value, dtype=np.float64)
        flat = Tensor(data.reshape(-1), device=DEVICE).cast(getattr(dtypes, dtype.name)).realize()
        return flat.reshape(data.shape)

    def numbers(self, array: Tensor) -> np.ndarray:
        return np.array(held(array).numpy(), dtype=np.float64)

    def scope(self) -> AbstractContextManager[object]:
        # Plain kernels, made in this process: the gradient rules are the same, and what is computed is soon
        # done.
        return Context(DEV=DEVICE, NOOPT=1, PARALLEL=0)

    def bound(self, value: Tensor) -> Tensor:
        return value.clone().realize()

    def pull(self, function: Function, inputs: Sequence[Tensor], rows: np.ndarray, dtype: DType) -> Rows:
        value = function(*inputs)
        found = []
        for row in rows:
            cotangent = self.array(row.reshape(value.shape), dtype)
            found.append([held(grad) for grad in value.gradient(*inputs, gradient=cotangent)])
        Tensor.realize(*(grad for row in found for grad in row))  # in one go: most of the time is scheduling
        return [
            np.stack([np.array(row[n].numpy(), dtype=np.float64) for row in found])
            for n in range(len(inputs))
        ]


ENGINE = TinyEngine("tinygrad", FUNCTIONS, OPERATORS)
