"""Linear systems: elimination with row interchanges, determinants, Cholesky's factors."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from .plain import Definitions, NotDefinedError, plainly

MAX_ORDER = 16  # rows of a matrix that is unrolled
MAX_PRODUCT = 256  # ... of one that products alone are taken of
MAX_CONDITION = 1e7  # ... beside which Newton's steps to its inverse would leave something out


def sizable(*matrices: Tensor, most: int = MAX_ORDER) -> None:
    if any(max(matrix.shape[-2:], default=0) > most for matrix in matrices):
        raise NotDefinedError(f"a matrix of more than {most} rows or columns")


def sharp(matrix: Tensor, most: int) -> int:
    """How many rows of a matrix are looked at: in float32 rounding would hide what is wrong in many."""
    return most if torch.finfo(matrix.dtype).eps < 1e-10 else MAX_ORDER


def symmetric(matrix: Tensor, upper: bool) -> Tensor:
    """Torch reads one triangle and gives a symmetric gradient: that of the function of the symmetric part."""
    whole = completed(matrix, upper)
    if whole is None:
        return (matrix + matrix.mH) / 2
    moved = moved_by(matrix)
    return whole + (moved + moved.mH) / 2


def completed(matrix: Tensor, upper: bool) -> Tensor | None:
    """The matrix that one triangle tells, as numbers; None where the other one says the same, up to
    rounding."""
    with plainly():
        rounding = 64 * torch.finfo(matrix.dtype).eps * matrix.abs().amax() if matrix.numel() else 0.0
        if bool(((matrix - matrix.mH).abs() <= rounding).all()):
            return None
        half = matrix.triu() if upper else matrix.tril()
        return torch.where(half != 0, half, half.mH)


def moved_by(matrix: Tensor) -> Tensor:
    """0, with the derivative of the matrix."""
    with plainly():
        here = matrix.clone()
    return matrix - here


def wide(matrix: Tensor) -> Tensor:
    """In twice the precision of float32, real or complex."""
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


def _pivots(matrix: Tensor) -> Tensor:
    """Row interchanges that keep the elimination stable, as torch would choose them."""
    with plainly():
        _, pivots, info = torch.linalg.lu_factor_ex(wide(matrix))
        if bool((info > 0).any()):
            raise NotDefinedError("a singular matrix")
        return pivots


def _rows(pivots: Tensor, count: int) -> Tensor:
    """The permutation of the rows that LAPACK's interchanges make."""
    with plainly():
        order = torch.arange(count).expand(*pivots.shape[:-1], count).clone()
        for n in range(pivots.shape[-1]):
            other = (pivots[..., n : n + 1] - 1).long()
            here, there = order[..., n : n + 1].clone(), order.gather(-1, other)
            order.scatter_(-1, other, here)
            order[..., n : n + 1] = there
        return order


def _permuted(matrix: Tensor, order: Tensor) -> Tensor:
    """Row `order[n]` of each matrix as its row n."""
    lead = torch.broadcast_shapes(matrix.shape[:-2], order.shape[:-1])
    matrix = matrix.expand(*lead, *matrix.shape[-2:])
    index = order.expand(*lead, order.shape[-1]).unsqueeze(-1)
    return matrix.gather(-2, index.expand(*lead, order.shape[-1], matrix.shape[-1]))


def _inverse_order(order: Tensor) -> Tensor:
    with plainly():
        return order.argsort(-1)


def _eliminated(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss' L (unit diagonal) and U of a matrix whose rows are in order already."""
    rows, columns = matrix.shape[-2:]
    order = min(rows, columns)
    lower, upper = [], []
    rest = matrix
    for n in range(order):
        row = rest[..., :1, :]
        column = rest[..., :, :1] * row[..., :, :1].reciprocal()  # as LAPACK scales a column
        one = torch.ones_like(column[..., :1, :])
        above = column.new_zeros(*column.shape[:-2], n, 1)
        lower.append(torch.cat([above, one, column[..., 1:, :]], -2))
        left = row.new_zeros(*row.shape[:-2], 1, n)
        upper.append(torch.cat([left, row], -1))
        rest = rest[..., 1:, 1:] - column[..., 1:, :] * row[..., :, 1:]
    return torch.cat(lower, -1), torch.cat(upper, -2)


def substituted(matrix: Tensor, right: Tensor, *, upper: bool, unit: bool = False) -> Tensor:
    """X with `matrix @ X = right`, for a triangular matrix of which only that triangle is read."""
    order = matrix.shape[-1]
    rows: list[Tensor] = []
    for n in reversed(range(order)) if upper else range(order):
        row = right[..., n : n + 1, :]
        if rows:
            known = torch.cat(rows[::-1] if upper else rows, -2)
            part = matrix[..., n : n + 1, n + 1 :] if upper else matrix[..., n : n + 1, :n]
            row = row - part @ known
        rows.append(row if unit else row * matrix[..., n : n + 1, n : n + 1].reciprocal())
    return torch.cat(rows[::-1] if upper else rows, -2) if rows else right


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """X with `matrix @ X = right`, by elimination with row interchanges; of a large one by its inverse."""
    if matrix.shape[-1] > MAX_ORDER and matrix.numel() and right.numel():
        return (inverted(matrix) @ right.to(inverted_dtype(matrix))).to(matrix.dtype)
    sizable(matrix)
    if not matrix.numel() or not right.numel():
        lead = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
        return right.expand(*lead, *right.shape[-2:])
    order = _rows(_pivots(matrix), matrix.shape[-2])
    lower, upper = _eliminated(_permuted(matrix, order))
    return substituted(upper, substituted(lower, _permuted(right, order), upper=False, unit=True), upper=True)


def inverted_dtype(matrix: Tensor) -> torch.dtype:
    return torch.complex128 if matrix.is_complex() else torch.float64


def inverted(matrix: Tensor) -> Tensor:
    """The inverse by one of Newton's steps, `X + X (1 - A X)`, in twice the precision of float32.

    It squares what the start is off by, and its derivative is right as far as the start is: so that is held
    in two numbers an entry, of which the second is worked out in long doubles.
    """
    sizable(matrix, most=MAX_PRODUCT)
    a = wide(matrix)
    start = _start_of_inverse(a)
    return start + start @ (identity(a) - a @ start)


def _start_of_inverse(a: Tensor) -> Tensor:
    """The inverse as numbers, to about 100 bits."""
    with plainly():
        if bool((torch.linalg.cond(a) > MAX_CONDITION).any()):
            raise NotDefinedError("a large matrix that is nearly singular")
        first = torch.linalg.inv(a)
        second = _rest_of_inverse(a, first)
    return a.mT * 0 + first + second


def _rest_of_inverse(a: Tensor, first: Tensor) -> Tensor:
    """What an inverse in float64 lacks, by Newton's steps in long doubles."""
    kind = np.clongdouble if a.is_complex() else np.longdouble
    matrix, start = a.numpy().astype(kind), first.numpy().astype(kind)
    made = start
    for _ in range(2):
        made = made + np.matmul(made, np.eye(matrix.shape[-1], dtype=kind) - np.matmul(matrix, made))
    return torch.from_numpy(np.asarray(made - start).astype(first.numpy().dtype))


def _solve(A: Tensor, B: Tensor, left: bool, outs: Sequence[Tensor]) -> Any:
    vector = A.ndim - 1 == B.ndim or (B.ndim >= 1 and B.ndim + 1 == A.ndim and B.shape == A.shape[:-1])
    right = B.unsqueeze(-1) if vector else B
    x = solved(A, right) if left else solved(A.mT, right.mT).mT
    return (x.squeeze(-1) if vector else x, *outs[1:])


def identity(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand(matrix.shape)


def _inverse(A: Tensor, outs: Sequence[Tensor]) -> Any:
    if A.shape[-1] > MAX_ORDER and A.numel():
        return (inverted(A).to(A.dtype), *outs[1:])
    return (solved(A, identity(A)), *outs[1:])


def _minors(matrix: Tensor) -> Tensor:
    """The determinant by Laplace's expansion, row after row: a polynomial, so that a singular matrix has one,
    too."""
    order = matrix.shape[-1]
    if order > 8:
        raise NotDefinedError("a singular matrix of more than 8 rows")
    found = matrix.new_ones(*matrix.shape[:-2], 1)
    places: dict[tuple[int, ...], int] = {(): 0}
    for n in range(order):
        chosen = list(combinations(range(order), n + 1))
        total: Any = 0
        for k in range(n + 1):
            entry = matrix[..., n, :].index_select(-1, torch.tensor([c[k] for c in chosen]))
            minor = found.index_select(-1, torch.tensor([places[c[:k] + c[k + 1 :]] for c in chosen]))
            total = total + entry * minor if (n + k) % 2 == 0 else total - entry * minor
        found, places = total, {c: p for p, c in enumerate(chosen)}
    return found[..., 0]


def _parity(order: Tensor) -> Tensor:
    with plainly():
        eye = torch.eye(order.shape[-1], dtype=torch.float64)
        return torch.linalg.det(eye[order]).round()


def _diagonal_of_elimination(matrix: Tensor) -> tuple[Tensor, Tensor]:
    order = _rows(_pivots(matrix), matrix.shape[-2])
    return _eliminated(_permuted(matrix, order))[1].diagonal(dim1=-2, dim2=-1), _parity(order).to(
        matrix.dtype
    )


def _of_large(matrix: Tensor, logarithm: bool) -> Tensor:
    """The determinant of a large matrix, or the logarithm of its size: a number, and beside it
    `det(1 + E) = 1 + tr E + (tr² E - tr E²)/2 + …`: there `1 + E` is the matrix times the inverse of what it
    is here, so that E is 0 but for its derivatives; all up to the second are right."""
    sizable(matrix, most=sharp(matrix, MAX_PRODUCT))
    a = wide(matrix)
    rest = _start_of_inverse(a) @ a - identity(a)
    trace = rest.diagonal(dim1=-2, dim2=-1).sum(-1)
    squared = (rest * rest.mT).sum((-2, -1))
    with plainly():
        first, second = _numbers_of_determinant(a, logarithm)
    if logarithm:
        return (first + (second + (trace - squared / 2))).to(matrix.dtype)
    return ((first + second) * (1 + trace + (trace * trace - squared) / 2)).to(matrix.dtype)


def _numbers_of_determinant(a: Tensor, logarithm: bool) -> tuple[Tensor, Tensor]:
    """Each determinant, or the logarithm of its size, as two floats: the exact product of U's diagonal, and
    what elimination in float64 has left out of it, by the remainder in long doubles."""
    rows = [_told(matrix, logarithm) for matrix in a.reshape(-1, *a.shape[-2:])]
    told = torch.tensor(rows, dtype=torch.complex128).reshape(*a.shape[:-2], 2)
    told = told if a.is_complex() and not logarithm else told.real
    return told[..., 0], told[..., 1]


def _told(matrix: Tensor, logarithm: bool) -> tuple[complex, complex]:
    matrix = matrix.detach()
    order, lower, upper = torch.linalg.lu(matrix)
    kind = np.clongdouble if matrix.is_complex() else np.longdouble
    p, low, up, whole = (x.numpy().astype(kind) for x in (order, lower, upper, matrix))
    inverse = torch.linalg.inv(lower @ upper).numpy().astype(kind)
    rest = np.matmul(inverse, np.matmul(p.T, whole) - np.matmul(low, up))
    trace = np.trace(rest)
    moved = complex(trace + (trace * trace - np.trace(np.matmul(rest, rest))) / 2)
    sign = Fraction(round(complex(torch.linalg.det(order)).real))
    found = sign * (1 + Fraction(moved.real)), sign * Fraction(moved.imag)
    for factor in map(complex, upper.diagonal().tolist()):
        x, y = Fraction(factor.real), Fraction(factor.imag)
        found = found[0] * x - found[1] * y, found[0] * y + found[1] * x
    real, imaginary = found
    if logarithm:
        with mpmath.workdps(60):
            square = real**2 + imaginary**2
            size = (mpmath.log(square.numerator) - mpmath.log(square.denominator)) / 2
            return float(size), float(size - float(size))
    try:
        near = complex(float(real), float(imaginary))
    except OverflowError:
        near = complex(0.0)
    if abs(near) < 1e-280:
        raise NotDefinedError("a determinant that is no float64")
    return near, complex(float(real - Fraction(near.real)), float(imaginary - Fraction(near.imag)))


def determinant(matrix: Tensor) -> Tensor:
    if not matrix.shape[-1]:
        return matrix.new_ones(matrix.shape[:-2])
    if matrix.shape[-1] > MAX_ORDER and matrix.numel():
        return _of_large(matrix, logarithm=False)
    try:
        sizable(matrix)
        diagonal, sign = _diagonal_of_elimination(matrix)
    except NotDefinedError:
        return _minors(matrix)
    return diagonal.prod(-1) * sign


def _det(A: Tensor, outs: Sequence[Tensor]) -> Any:
    return (determinant(A), *outs[1:])


def _slogdet(A: Tensor, outs: Sequence[Tensor]) -> Any:
    if not A.shape[-1]:
        return outs
    if A.shape[-1] > MAX_ORDER and A.numel() and not A.is_complex():
        return (outs[0], _of_large(A, logarithm=True), *outs[2:])
    sizable(A)
    diagonal, parity = _diagonal_of_elimination(A)
    sign = diagonal.sgn().prod(-1) * parity if A.is_complex() else outs[0]
    return (sign, diagonal.abs().log().sum(-1), *outs[2:])


def _packed(lower: Tensor, upper: Tensor) -> Tensor:
    """L below the diagonal and U from there on, in one matrix of torch's shape."""
    rows, columns = lower.shape[-2], upper.shape[-1]
    order = min(rows, columns)
    lead = upper.shape[:-2]
    wide = torch.cat([lower.tril(-1), lower.new_zeros(*lead, rows, columns - order)], -1)
    tall = torch.cat([upper, upper.new_zeros(*lead, rows - order, columns)], -2)
    return wide + tall


def _lu_factor(A: Tensor, outs: Sequence[Tensor]) -> Any:
    sizable(A)
    if not A.numel():
        return outs
    lower, upper = _eliminated(_permuted(A, _rows(outs[1], A.shape[-2])))
    return (_packed(lower, upper), *outs[1:])


def _lu(A: Tensor, outs: Sequence[Tensor]) -> Any:
    sizable(A)
    if not A.numel():
        return outs
    with plainly():
        order = outs[0].abs().argmax(-2) if outs[0].numel() else torch.arange(A.shape[-2])
    lower, upper = _eliminated(_permuted(A, order))
    return outs[0], lower, upper


def _lu_unpack(LU_data: Tensor, outs: Sequence[Tensor]) -> Any:
    rows, columns = LU_data.shape[-2:]
    order = min(rows, columns)
    if not outs[1].numel():
        return outs
    lower = LU_data[..., :, :order].tril(-1) + torch.eye(rows, order, dtype=LU_data.dtype)
    return outs[0], lower, LU_data[..., :order, :].triu()


def _lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, left: bool, adjoint: bool) -> Tensor:
    """`op(P L U) X = B`, or `X op(P L U) = B`: the latter is the former transposed."""
    sizable(LU)
    if not left:
        B, adjoint = B.mH, not adjoint
    order = _rows(pivots, LU.shape[-2])
    if not adjoint:
        x = substituted(LU, _permuted(B, order), upper=False, unit=True)
        x = substituted(LU, x, upper=True)
    else:
        x = substituted(LU.mH, B, upper=False)
        x = _permuted(substituted(LU.mH, x, upper=True, unit=True), _inverse_order(order))
    return x if left else x.mH


def _lu_solve_old(self: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    return _lu_solve(LU_data, LU_pivots, self, left=True, adjoint=False)


def _solve_triangular(self: Tensor, B: Tensor, upper: bool, left: bool, unitriangular: bool) -> Tensor:
    sizable(self)
    if left:
        return substituted(self, B, upper=upper, unit=unitriangular)
    return substituted(self.mT, B.mT, upper=not upper, unit=unitriangular).mT


def _triangular_solve(
    self: Tensor, A: Tensor, upper: bool, transpose: bool, unitriangular: bool, outs: Sequence[Tensor]
) -> Any:
    sizable(A)
    matrix = A.mT if transpose else A
    return substituted(matrix, self, upper=upper != transpose, unit=unitriangular), A.expand(
        outs[1].shape
    ).clone()


def _choleskied(matrix: Tensor) -> Tensor:
    """Cholesky's L of a symmetric or Hermitian matrix, column by column; of a large one beside what it is
    here."""
    if matrix.shape[-1] > MAX_ORDER and matrix.numel():
        return large_cholesky(matrix).to(matrix.dtype)
    sizable(matrix)
    order = matrix.shape[-1]
    rest, columns = matrix, []
    for n in range(order):
        pivot = rest[..., :1, :1].sqrt()
        column = torch.cat([pivot, rest[..., 1:, :1] / pivot], -2)
        columns.append(torch.cat([matrix.new_zeros(*matrix.shape[:-2], n, 1), column], -2))
        rest = rest[..., 1:, 1:] - column[..., 1:, :] * column[..., 1:, :].mH
    return torch.cat(columns, -1) if columns else matrix


def large_cholesky(matrix: Tensor) -> Tensor:
    """`A = L (1 + E) L*` of a factor L that is as good as float64 is, so that E is tiny; and with F of
    `F + F* = E - F F*` the factor is `L (1 + F)`. What that leaves out goes with the third power of E."""
    sizable(matrix, most=sharp(matrix, MAX_PRODUCT))
    a = wide(matrix)
    with plainly():
        lower, info = torch.linalg.cholesky_ex(a)
        if bool((info > 0).any()):
            raise NotDefinedError("a matrix that is not positive definite")
    start = _start_of_inverse(lower)
    rest = start @ a @ start.mH - identity(a)
    factor = _lower_half(rest)
    factor = _lower_half(rest - factor @ factor.mH)
    return lower + lower @ factor


def _lower_half(matrix: Tensor) -> Tensor:
    """The triangle X with `X + X*` the matrix."""
    return matrix.tril(-1) + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1) / 2)


def _cholesky(self: Tensor, upper: bool, outs: Sequence[Tensor]) -> Any:
    lower = _choleskied(symmetric(self, upper))
    return (lower.mH if upper else lower, *outs[1:])


def _cholesky_old(self: Tensor, upper: bool) -> Tensor:
    lower = _choleskied(symmetric(self, upper))
    return lower.mH if upper else lower


def _cholesky_solve(self: Tensor, input2: Tensor, upper: bool) -> Tensor:
    """Torch's gradient is that of `(L Lᵀ)⁻¹ B` for any L; the other triangle is not read, unless it holds
    zeros anyway.

    It is computed by products with the inverse, whose rounding goes with the condition of `L Lᵀ`.
    """
    sizable(input2)
    factor = input2.mH if upper else input2
    with plainly():
        whole = not bool(factor.triu(1).any())
    if not whole or not factor.numel():
        return substituted(factor.mH, substituted(factor, self, upper=False), upper=True)
    return solved(factor @ factor.mH, self)


def _cholesky_inverse(self: Tensor, upper: bool) -> Tensor:
    return _cholesky_solve(identity(self), self, upper)


DEFINITIONS: Definitions = {
    "_linalg_solve_ex": _solve,
    "linalg_inv_ex": _inverse,
    "_linalg_det": _det,
    "_linalg_slogdet": _slogdet,
    "linalg_lu_factor_ex": _lu_factor,
    "linalg_lu": _lu,
    "lu_unpack": _lu_unpack,
    "linalg_lu_solve": _lu_solve,
    "lu_solve": _lu_solve_old,
    "linalg_solve_triangular": _solve_triangular,
    "triangular_solve": _triangular_solve,
    "linalg_cholesky_ex": _cholesky,
    "cholesky": _cholesky_old,
    "cholesky_solve": _cholesky_solve,
    "cholesky_inverse": _cholesky_inverse,
}
