"""torch.compile: the forward and the backward that its compiler makes of the lines."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from ..dtypes import DType
from ..errors import EngineError
from . import Task, Trace
from .functional import Function, Rows
from .torch import FUNCTIONS, OPERATORS, pulled
from .torch_func import TorchFunctions


@cache
def _compiler() -> str:
    """Why there is none that works, or nothing."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        return "no C++ compiler (g++, clang++) is there"
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(2))
    except Exception as error:  # of the compiler, the linker, the loader or torch
        return f"torch.compile fails on x * 2 + 1: {str(error).strip().splitlines()[0]}"
    return ""


class TorchCompiled(TorchFunctions):
    """torch.compile, then torch's own backward through what was compiled."""

    def pull(
        self, function: Function, inputs: Sequence[torch.Tensor], rows: np.ndarray, dtype: DType
    ) -> Rows:
        leaves = [x.detach().clone().requires_grad_(True) for x in inputs]
        # A line is a function of its own; none is to be compiled anew for another's sake.
        torch._dynamo.reset()
        value = torch.compile(function, dynamic=False)(*leaves)
        return pulled(value, leaves, [self.array(row, dtype) for row in rows])

    def run(self, task: Task, dtype: DType) -> Trace:
        with self.scope():
            why = _compiler()
        if why:
            raise EngineError(f"engine {self.name!r} cannot be used: {why}")
        return super().run(task, dtype)


ENGINE = TorchCompiled("torch-compile", FUNCTIONS, OPERATORS)
