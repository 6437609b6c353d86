"""torch.func in reverse mode: `vjp`, over several cotangents at once by `vmap`, which is what `jacrev` is
made of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..dtypes import DType
from .functional import Function, FunctionEngine, Rows
from .torch import FUNCTIONS, OPERATORS


class TorchFunctions(FunctionEngine):
    """torch through its functional transforms."""

    def array(self, value: ArrayLike, dtype: DType) -> torch.Tensor:
        return torch.tensor(value, dtype=getattr(torch, dtype.name))

    def numbers(self, array: torch.Tensor) -> np.ndarray:
        return array.detach().to(torch.float64).numpy().copy()

    def pull(
        self, function: Function, inputs: Sequence[torch.Tensor], rows: np.ndarray, dtype: DType
    ) -> Rows:
        _, pullback = torch.func.vjp(function, *inputs)
        cotangents = self.array(rows, dtype)
        if len(rows) > 1:
            return [self.numbers(found) for found in torch.func.vmap(pullback)(cotangents)]
        return [self.numbers(found)[None] for found in pullback(cotangents[0])]

    def scope(self) -> AbstractContextManager[object]:
        # vmap tells where it takes one row at a time; that costs time and no more.
        return warnings.catch_warnings(action="ignore")


ENGINE = TorchFunctions("torch-func", FUNCTIONS, OPERATORS)
