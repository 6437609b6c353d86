"""Orthogonal matrices and what is made of them: QR, reflections, pseudo-inverses; and the exponential of a
matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .matrices import (
    MAX_ORDER,
    MAX_PRODUCT,
    completed,
    identity,
    inverted,
    large_cholesky,
    moved_by,
    sharp,
    sizable,
    substituted,
    wide,
)
from .plain import Definitions, NotDefinedError, plainly


def _length(column: Tensor) -> Tensor:
    if not column.is_complex():
        return (column * column).sum(-2, keepdim=True).sqrt()
    parts = torch.view_as_real(column)
    return (parts * parts).sum((-3, -1)).unsqueeze(-2).sqrt()


def _orthogonalised(matrix: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Q and R of as many columns as rows at most, by Gram and Schmidt's modified method; `signs` are R's
    diagonal's."""
    sizable(matrix)
    rows, columns = matrix.shape[-2:]
    order = min(rows, columns)
    rest, found, upper = matrix, [], []
    for n in range(order):
        column = rest[..., :, :1]
        length = _length(column)
        if signs is not None:
            length = length * signs[..., n, None, None]
        unit = column / length
        rest = rest[..., :, 1:]
        row = unit.mH @ rest
        found.append(unit)
        upper.append(torch.cat([row.new_zeros(*row.shape[:-2], 1, n), length, row], -1))
        rest = rest - unit * row
    return torch.cat(found, -1), torch.cat(upper, -2)


def _triangularised(matrix: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Q and R by Householder's reflections, as LAPACK does; `signs` are those of R's diagonal. Of a large one
    R is a factor of Cholesky's of A* A, and Q is A R⁻¹."""
    sizable(matrix, most=sharp(matrix, MAX_PRODUCT))
    rows, columns = matrix.shape[-2:]
    if min(rows, columns) > MAX_ORDER and matrix.numel():
        return _of_gram(matrix, signs)
    order = min(rows, columns)
    rest, upper = matrix, []
    reflections: list[tuple[Tensor, Tensor]] = []
    for n in range(order):
        column = rest[..., :, :1]
        lead = column.shape[:-2]
        if n == rows - 1 and not rest.is_complex():  # whose last entry of R is made real, too
            upper.append(torch.cat([rest.new_zeros(*lead, 1, n), rest], -1))
            break
        head = signs[..., n, None, None] * _length(column)
        v = torch.cat(
            [torch.ones_like(head), column[..., 1:, :] * (column[..., :1, :] - head).reciprocal()], -2
        )
        tau = (head - column[..., :1, :]) / head
        reflections.append((v, tau))
        others = rest[..., :, 1:]
        others = others - tau.conj() * v @ (v.mH @ others)
        upper.append(torch.cat([rest.new_zeros(*lead, 1, n), head, others[..., :1, :]], -1))
        rest = others[..., 1:, :]
    q = torch.eye(rows, order, dtype=matrix.dtype).expand(*matrix.shape[:-2], rows, order)
    for n, (v, tau) in reversed(list(enumerate(reflections))):
        below = q[..., n:, :]
        q = torch.cat([q[..., :n, :], below - tau * v @ (v.mH @ below)], -2)
    return q, torch.cat(upper, -2)


def _of_gram(matrix: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = matrix.shape[-2:]
    a = wide(matrix)
    square = a[..., :, :rows]  # of a wide one, whose other columns follow
    r = large_cholesky(square.mH @ square).mH * signs.to(a.dtype).unsqueeze(-1)
    q = square @ inverted(r)
    if columns > rows:
        r = torch.cat([r, q.mH @ a[..., :, rows:]], -1)
    return q.to(matrix.dtype), r.to(matrix.dtype)


def _qr(A: Tensor, mode: str, outs: Sequence[Tensor]) -> Any:
    q, r = outs
    rows, columns = A.shape[-2:]
    if not A.numel():
        return outs
    if mode == "complete" and rows > columns:
        raise NotDefinedError("mode='complete' of a tall matrix, whose Q is not determined")
    with plainly():
        diagonal = r.diagonal(dim1=-2, dim2=-1)
        signs, sizes = diagonal.sgn(), diagonal.abs()  # real ones, also of complex matrices
        least = 64 * max(rows, columns) * torch.finfo(A.dtype).eps * sizes.amax(-1, True)
        if bool((sizes <= least).any()):  # whose last columns of Q are made of rounding
            raise NotDefinedError("a matrix of linearly dependent columns")
    made_q, made_r = _triangularised(A, signs)
    return (made_q if q.numel() else q), made_r


def _reflections(input: Tensor, tau: Tensor) -> list[Tensor]:
    """Householder's `1 - tau v v*` for each column."""
    rows = input.shape[-2]
    made = []
    for n in range(tau.shape[-1]):
        column = input[..., n + 1 :, n : n + 1]
        lead = column.shape[:-2]
        v = torch.cat([column.new_zeros(*lead, n, 1), column.new_ones(*lead, 1, 1), column], -2)
        made.append(torch.eye(rows, dtype=input.dtype) - tau[..., n, None, None] * (v * v.mH))
    return made


def _householder_product(input: Tensor, tau: Tensor) -> Tensor:
    sizable(input)
    rows, columns = input.shape[-2:]
    q = torch.eye(rows, columns, dtype=input.dtype).expand(*input.shape[:-2], rows, columns)
    for reflection in reversed(_reflections(input, tau)):
        q = reflection @ q
    return q


def _ormqr(self: Tensor, input2: Tensor, input3: Tensor, left: bool, transpose: bool) -> Tensor:
    """`op(Q) C` or `C op(Q)`, Q the product of reflections."""
    sizable(self, input3)
    found = _reflections(self, input2)
    found = [reflection.mH for reflection in found] if transpose and self.is_complex() else found
    for reflection in reversed(found) if left != transpose else found:
        input3 = reflection @ input3 if left else input3 @ reflection
    return input3


def _pseudo_inverse(matrix: Tensor, least: Any = 0.0) -> Tensor:
    """Of a matrix of full rank: R⁻¹Q*; `least` is the relative size below which singular values are taken to
    be 0."""
    if not matrix.numel():
        return matrix.mT
    rows, columns = matrix.shape[-2:]
    with plainly():
        singular = torch.linalg.svdvals(wide(matrix))
        if bool(
            (singular <= singular.amax(-1, True) * torch.as_tensor(least).unsqueeze(-1).clamp(min=1e-6)).any()
        ):
            raise NotDefinedError("a matrix that is not of full rank, beside which the rank jumps")
    if rows < columns:
        return _pseudo_inverse(matrix.mT, least).mT
    if MAX_ORDER < columns <= sharp(matrix, columns):  # of full rank, so that there is the inverse of A* A
        return (inverted(matrix.mH @ matrix) @ wide(matrix).mH).to(matrix.dtype)
    q, r = _orthogonalised(matrix)
    return substituted(r, q.mH, upper=True)


def _pinv(self: Tensor, rtol: Any, atol: Any, hermitian: bool) -> Tensor:
    """`hermitian=True` reads one triangle, and gives the gradient of the general function, not of its
    symmetric part."""
    whole = completed(self, upper=False) if hermitian else None
    if whole is not None:
        self = whole + moved_by(self)
    if atol is not None and bool((torch.as_tensor(atol) > 0).any()):
        raise NotDefinedError("atol > 0")
    return _pseudo_inverse(self, 0.0 if rtol is None else rtol)


def _lstsq(self: Tensor, b: Tensor, outs: Sequence[Tensor]) -> Any:
    vector = b.ndim == self.ndim - 1
    right = b.unsqueeze(-1) if vector else b
    x = _pseudo_inverse(self) @ right
    apart = self @ x - right
    squares = apart.real**2 + apart.imag**2 if apart.is_complex() else apart**2
    residuals = squares.sum(-2) if outs[1].numel() else outs[1]
    return (x.squeeze(-1) if vector else x), residuals, *outs[2:]


def _matrix_exp(self: Tensor) -> Tensor:
    """Taylor's series of A/2ˢ, squared s times; what it leaves out is below 2⁻¹³⁰ of what it gives."""
    sizable(self, most=sharp(self, MAX_PRODUCT))
    with plainly():
        size = float(self.abs().double().sum(-1).max()) if self.numel() else 0.0
    halvings = max(0, math.ceil(math.log2(size)) + 2) if size else 0
    small = self / 2**halvings
    total = identity(self)
    for n in range(26, 0, -1):
        total = identity(self) + small @ total / n
    for _ in range(halvings):
        total = total @ total
    return total


DEFINITIONS: Definitions = {
    "linalg_qr": _qr,
    "linalg_householder_product": _householder_product,
    "ormqr": _ormqr,
    "linalg_pinv": _pinv,
    "linalg_lstsq": _lstsq,
    "linalg_matrix_exp": _matrix_exp,
}
