"""JAX in forward mode: `jax.jvp` for each entry of a parameter, over all of them at once by `vmap`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..dtypes import DType
from .functional import Function, Rows, basis, contracted
from .interpreter import Array
from .jax import FUNCTIONS, JaxEngine
from .numpy_like import operators_of


class JaxForward(JaxEngine):
    """jax.jvp; the Jacobian comes by columns."""

    why_unseen = "forward mode has no gradient at the lines: judged from end to end"

    def pull(self, function: Function, inputs: Sequence[Array], rows: np.ndarray, dtype: DType) -> Rows:
        _, push = jax.linearize(function, *inputs)
        found: Rows = []
        for n, x in enumerate(inputs):
            columns = []
            for tangent in basis(x.shape):
                tangents = [
                    self.array(tangent, dtype) if m == n else jnp.zeros_like(x) for m, x in enumerate(inputs)
                ]
                columns.append(self.numbers(push(*tangents)))
            found.append(contracted(rows, np.stack(columns)).reshape(len(rows), *x.shape))
        return found


ENGINE = JaxForward("jax-forward", FUNCTIONS, operators_of(jnp))
