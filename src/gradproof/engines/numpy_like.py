"""The tables of a library that is written as NumPy is: JAX, HIPS autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from types import SimpleNamespace
from typing import Any

from .interpreter import ARITHMETIC, Array, Axis, Functions, axes_of, expanded, scalars

Module = Any  # a library, as NumPy's is


def functions_of(xp: Module, special: Module, kinds: Sequence[str] = ("numpy",), **more: Module) -> Functions:
    """What `xp` (as numpy) and `special` (as scipy.special) have under the names of the language, and how
    else to say it: rows that tell of one of the `kinds` may use `more` of the library."""
    # The body is one table, and how its rows are made of the library.

    def reduction(function: Callable[..., Array]) -> Callable[..., Array]:
        """Over several axes at once, or none."""
        return lambda x, axis=None, keepdims=False: (
            function(x, axis=axes_of(x, axis), keepdims=keepdims) if x.shape else x
        )

    def norm(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        axes = axes_of(x, axis)
        if not keepdims and len(axes) in (1, 2):
            return xp.linalg.norm(x, axis=axes[0] if len(axes) == 1 else axes)
        return xp.sqrt(xp.sum(x * x, axis=axes, keepdims=keepdims)) if x.shape else xp.abs(x)

    def prod(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
        for n in sorted(axes_of(x, axis), reverse=True):
            x = xp.prod(x, axis=n, keepdims=keepdims)
        return x

    def spread(function: Callable[..., Array]) -> Callable[..., Array]:
        return lambda x, axis=None, keepdims=False, ddof=0: function(
            x, axis=axes_of(x, axis), keepdims=keepdims, ddof=ddof
        )

    def log_softmax(x: Array, axis: int = -1) -> Array:
        return x - special.logsumexp(x, axis=axis, keepdims=True)

    library = SimpleNamespace(np=xp, special=special, **more)
    return {
        **scalars(library, kinds, (xp, special)),
        **{name: getattr(xp, name) for name in ("outer", "trace", "reshape", "where")},
        "sum": reduction(xp.sum), "mean": reduction(xp.mean), "prod": prod,
        "max": reduction(xp.max), "min": reduction(xp.min), "logsumexp": reduction(special.logsumexp),
        "norm": norm, "var": spread(xp.var), "std": spread(xp.std),
        "softmax": lambda x, axis=-1: xp.exp(log_softmax(x, axis)), "log_softmax": log_softmax,
        "cumsum": lambda x, axis=0: xp.cumsum(x, axis=axis),
        "dot": lambda a, b: a @ b if len(a.shape) and len(b.shape) else a * b, "@": xp.matmul,
        "transpose": lambda x, axes=None: xp.transpose(x, axes),
        "concatenate": lambda parts, axis: xp.concatenate(parts, axis=axis),
        "stack": lambda parts, axis: xp.stack(parts, axis=axis),
        "take": lambda x, positions: x[positions],
        "slice": lambda x, index: x[index],
        "expand": lambda x, shape: xp.broadcast_to(x, expanded(x, shape)),
    }  # fmt: skip


def operators_of(xp: Module) -> Functions:
    return {
        **ARITHMETIC,
        "and": lambda *conditions: reduce(xp.logical_and, conditions),
        "or": lambda *conditions: reduce(xp.logical_or, conditions),
        "not": lambda condition: xp.logical_not(condition),
    }
