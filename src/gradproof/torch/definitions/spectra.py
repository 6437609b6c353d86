"""Spectra: Newton's steps from torch's own numbers to what solves the defining equations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .matrices import sharp, sizable, solved, symmetric, wide
from .plain import Definitions, NotDefinedError, plainly

MAX_PAIRS = 32  # rows of a matrix, for each pair of which one larger system is solved


def _apart(values: Tensor) -> None:
    """Raises `NotDefinedError` where two eigenvalues are close."""
    with plainly():
        found = wide(values)
        between = (found.unsqueeze(-1) - found.unsqueeze(-2)).abs()
        between = between + torch.diag_embed(torch.full_like(found, torch.inf).abs())
        if bool((between < 1e-3 * found.abs().amax(-1, True).unsqueeze(-1)).any()):
            raise NotDefinedError("eigenvalues that are close to each other")


def _eigenpairs(matrix: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's steps for `A v = λ v, |v|² = 1`, each pair by itself; `values` (..., n) and `vectors` (..., n,
    n) are starts. Of complex ones the start's phase is kept: `v₀* v = 1`, which keeps the length, too.

    The derivative of what a step gives is right as soon as its start is: it does not depend on the start's
    own.
    """
    sizable(matrix, most=sharp(matrix, MAX_PAIRS))
    order = matrix.shape[-1]
    if order > 1:
        _apart(values)
    a = matrix.unsqueeze(-3)
    v, x = vectors.mT.unsqueeze(-1).to(matrix.dtype), values[..., None, None].to(matrix.dtype)
    start = v.mH if matrix.is_complex() else None
    eye = torch.eye(order, dtype=matrix.dtype)
    for _ in range(2):
        length = ((v * v).sum(-2, keepdim=True) - 1) / 2 if start is None else start @ v - 1
        residual = torch.cat([a @ v - x * v, length], -2)
        top = torch.cat([(a - x * eye).expand(*v.shape[:-2], order, order), -v], -1)
        bottom = v.mT if start is None else start
        bottom = torch.cat([bottom, torch.zeros_like(x).expand(*v.shape[:-2], 1, 1)], -1)
        step = solved(torch.cat([top, bottom], -2), residual)
        v, x = v - step[..., :order, :], x - step[..., order:, :]
    return x[..., 0, 0], v[..., 0].mT


def _eig(self: Tensor, outs: Sequence[Tensor]) -> Any:
    if not self.numel():
        return outs
    with plainly():
        vectors = outs[1] if len(outs) > 1 and outs[1].numel() else torch.linalg.eig(self)[1]
    matrix = self if self.is_complex() else torch.complex(self, torch.zeros_like(self))
    values, made = _eigenpairs(matrix, outs[0], vectors)
    return (values, made) if len(outs) > 1 else values


def _eigh(A: Tensor, UPLO: str, compute_v: bool, outs: Sequence[Tensor]) -> Any:
    if not A.numel():
        return outs
    matrix = symmetric(A, UPLO.upper() == "U")
    with plainly():
        starts = outs[1] if compute_v else torch.linalg.eigh(matrix)[1]
    values, vectors = _eigenpairs(matrix, outs[0], starts)
    values = values.real if A.is_complex() else values
    return values, (vectors if compute_v else outs[1])


def _svd(A: Tensor, full_matrices: bool, compute_uv: bool, outs: Sequence[Tensor]) -> Any:
    """Newton's steps for `A v = s u, A* u = s v, |u|² + |v|² = 2`, each triple by itself."""
    if not A.numel():
        return outs
    rows, columns = A.shape[-2:]
    if full_matrices and rows != columns and compute_uv:
        raise NotDefinedError(
            "full_matrices=True of a matrix that is not square: part of it is not determined"
        )
    u, s, vh = outs
    with plainly():
        if not compute_uv:
            u, _, vh = torch.linalg.svd(A, full_matrices=False)
        size = s.double().amax(-1, True)
        if bool((s < 1e-3 * size).any() or (s.double().diff(dim=-1).abs() < 1e-3 * size).any()):
            raise NotDefinedError("a singular value of nearly 0, or two that are close to each other")
    order = min(rows, columns)
    sizable(A, most=sharp(A, MAX_PAIRS))
    a, at = A.unsqueeze(-3), A.mH.unsqueeze(-3)
    left, right = u[..., :order].mT.unsqueeze(-1), vh[..., :order, :].mH.mT.unsqueeze(-1)
    x = s[..., None, None].to(A.dtype)
    starts = (left.mH, right.mH) if A.is_complex() else None
    lead = left.shape[:-2]
    top, bottom = torch.eye(rows, dtype=A.dtype), torch.eye(columns, dtype=A.dtype)
    for _ in range(2):
        if starts is None:
            norms = ((left * left).sum(-2, keepdim=True) + (right * right).sum(-2, keepdim=True)) / 2 - 1
        else:
            norms = starts[0] @ left + starts[1] @ right - 2
        residual = torch.cat([a @ right - x * left, at @ left - x * right, norms], -2)
        one = torch.cat([-(x * top).expand(*lead, rows, rows), a.expand(*lead, rows, columns), -left], -1)
        two = torch.cat(
            [at.expand(*lead, columns, rows), -(x * bottom).expand(*lead, columns, columns), -right], -1
        )
        three = torch.cat([*(starts or (left.mT, right.mT)), torch.zeros_like(x)], -1)
        step = solved(torch.cat([one, two, three], -2), residual)
        left, right = left - step[..., :rows, :], right - step[..., rows:-1, :]
        x = x - step[..., -1:, :]
    values = x[..., 0, 0].real if A.is_complex() else x[..., 0, 0]
    return (left[..., 0].mT, values, right[..., 0].mT.mH) if compute_uv else (outs[0], values, outs[2])


DEFINITIONS: Definitions = {
    "_linalg_eigh": _eigh,
    "_linalg_svd": _svd,
    "linalg_eig": _eig,
    "_linalg_eigvals": _eig,
    "linalg_eigvals": _eig,
}
