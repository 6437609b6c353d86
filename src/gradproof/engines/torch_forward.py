"""torch in forward mode: one `torch.func.jvp` for each entry of a parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..dtypes import DType
from .functional import Function, Rows, basis, contracted
from .torch import FUNCTIONS, OPERATORS
from .torch_func import TorchFunctions


class TorchForward(TorchFunctions):
    """torch.func.jvp; the Jacobian comes by columns."""

    why_unseen = "forward mode has no gradient at the lines: judged from end to end"

    def pull(
        self, function: Function, inputs: Sequence[torch.Tensor], rows: np.ndarray, dtype: DType
    ) -> Rows:
        found: Rows = []
        for n, x in enumerate(inputs):
            columns = []
            for tangent in basis(x.shape):
                tangents = [torch.zeros_like(other) for other in inputs]
                tangents[n] = self.array(tangent, dtype)
                _, column = torch.func.jvp(function, tuple(inputs), tuple(tangents))
                columns.append(self.numbers(column))
            found.append(contracted(rows, np.stack(columns)).reshape(len(rows), *x.shape))
        return found


ENGINE = TorchForward("torch-forward", FUNCTIONS, OPERATORS)
