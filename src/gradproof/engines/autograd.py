"""HIPS autograd: NumPy with gradients, in reverse mode."""

from __future__ import annotations

from collections.abc import Sequence

import autograd.numpy as anp
import autograd.scipy.special
import numpy as np
from autograd.core import make_vjp
from numpy.typing import ArrayLike

from ..dtypes import DType
from .functional import Function, FunctionEngine, Rows
from .interpreter import Array
from .numpy_like import functions_of, operators_of


class HipsEngine(FunctionEngine):
    """autograd.numpy; NumPy has no bfloat16, and no special functions in float16."""

    dtypes = ("float64", "float32")

    def array(self, value: ArrayLike, dtype: DType) -> Array:
        return np.asarray(value, dtype=dtype.name)

    def numbers(self, array: Array) -> np.ndarray:
        return np.asarray(array, dtype=np.float64)

    def pull(self, function: Function, inputs: Sequence[Array], rows: np.ndarray, dtype: DType) -> Rows:
        pullback, value = make_vjp(lambda inputs: function(*inputs), tuple(inputs))
        found = [pullback(self.array(row.reshape(value.shape), dtype)) for row in rows]
        return [np.stack([self.numbers(row[n]) for row in found]) for n in range(len(inputs))]


FUNCTIONS = functions_of(anp, autograd.scipy.special)
ENGINE = HipsEngine("autograd", FUNCTIONS, operators_of(anp))
