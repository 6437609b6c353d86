"""JAX in reverse mode: `jax.vjp`, operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
from numpy.typing import ArrayLike

from ..dtypes import XLA, DType
from .functional import Function, FunctionEngine, Rows
from .interpreter import Array
from .numpy_like import functions_of, operators_of

FUNCTIONS = {
    **functions_of(jnp, jax.scipy.special, ("jax", "numpy"), nn=jax.nn),
    "softmax": lambda x, axis=-1: jax.nn.softmax(x, axis=axis),  # JAX's own
    "log_softmax": lambda x, axis=-1: jax.nn.log_softmax(x, axis=axis),
}


class JaxEngine(FunctionEngine):
    """JAX on its default device."""

    formats = XLA

    def array(self, value: ArrayLike, dtype: DType) -> Array:
        return jnp.asarray(np.asarray(value, dtype=np.float64), dtype=getattr(jnp, dtype.name))

    def numbers(self, array: Array) -> np.ndarray:
        return np.asarray(array).astype(np.float64)

    def pull(self, function: Function, inputs: Sequence[Array], rows: np.ndarray, dtype: DType) -> Rows:
        value, pullback = jax.vjp(function, *inputs)
        # Row by row: vmap would have XLA compile each operation once more, for another shape.
        found = [pullback(self.array(row.reshape(value.shape), dtype)) for row in rows]
        return [np.stack([self.numbers(row[n]) for row in found]) for n in range(len(inputs))]

    def hessian(
        self, function: Function, inputs: Sequence[Array], first: int, second: int, dtype: DType
    ) -> np.ndarray | None:
        found = jax.jacrev(jax.grad(function, argnums=first), argnums=second)(*inputs)
        return self.numbers(found)

    def scope(self) -> AbstractContextManager[object]:
        # float64 is off in JAX until it is asked for, and stays as it was after the run.
        return jax.enable_x64(True)


ENGINE = JaxEngine("jax", FUNCTIONS, operators_of(jnp))
