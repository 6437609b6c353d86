"""Operations on sparse tensors as what they are to dense ones; what stands where there is no value is 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .plain import Definitions


def _same(self: Tensor, *_: Any, **__: Any) -> Tensor:
    return self * 1


def _addmm(self: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return torch.addmm(self, mat1, mat2, beta=beta, alpha=alpha)


def _product(self: Tensor, other: Tensor) -> Tensor:
    return self @ other


def _sum(self: Tensor, dim: Any = None, **_: Any) -> Tensor:
    return self.sum() if dim is None else self.sum(dim)


SPARSE: Definitions = {
    **dict.fromkeys(
        """_to_dense to_dense _coalesce coalesce _to_sparse _to_sparse_csr _to_sparse_csc sparse_mask
        _sparse_mask""".split(),
        _same,
    ),
    "_sparse_sparse_matmul": _product,
    **dict.fromkeys(("_sparse_addmm", "addmm"), _addmm),
    **dict.fromkeys(("_sparse_sum", "sum"), _sum),
}
