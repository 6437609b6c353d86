"""Definitions of torch's operations in terms of simpler ones, where neither a formula nor torch's own
decomposition tells.

Each is a plain torch function that takes the operation's arguments by their names in torch's schema, and
`outs`, the results that torch gave, where a choice is read off them (the signs of a QR). It is recorded like
any other code, so it says only what the operation computes: its derivative comes from calculus. Textbook
algorithms stand here for what has no formula for each entry; which algorithm computes a function does not
matter to its derivative, and its rounding is a good one's. Choices that no derivative depends on (pivots,
which places repeat) are made with plain numbers, outside of the recording.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations, pairwise, product
from typing import Any

import torch
from torch import Tensor

from .insides import without_modes

MAX_ORDER = 16  # rows of a matrix that is unrolled


class NotDefinedError(Exception):
    """The arguments are such that the operation has no definition here; the message says which."""


@contextmanager
def plainly() -> Iterator[None]:
    """Numbers looked at for a choice; nothing in here is recorded."""
    with without_modes():
        yield


def _sizable(*matrices: Tensor) -> None:
    if any(max(matrix.shape[-2:], default=0) > MAX_ORDER for matrix in matrices):
        raise NotDefinedError(f"a matrix of more than {MAX_ORDER} rows or columns")


def _symmetric(matrix: Tensor, upper: bool) -> Tensor:
    """Torch reads one triangle and gives a symmetric gradient: that of the function of the symmetric part."""
    whole = _completed(matrix, upper)
    if whole is None:
        return (matrix + matrix.mT) / 2
    moved = _moved_by(matrix)
    return whole + (moved + moved.mT) / 2


def _completed(matrix: Tensor, upper: bool) -> Tensor | None:
    """The matrix that one triangle tells, as numbers; None where the other one says the same, up to
    rounding."""
    with plainly():
        rounding = 64 * torch.finfo(matrix.dtype).eps * matrix.abs().amax() if matrix.numel() else 0.0
        if bool(((matrix - matrix.mT).abs() <= rounding).all()):
            return None
        half = matrix.triu() if upper else matrix.tril()
        return torch.where(half != 0, half, half.mT)


def _moved_by(matrix: Tensor) -> Tensor:
    """0, with the derivative of the matrix."""
    with plainly():
        here = matrix.clone()
    return matrix - here


# Elimination


def _pivots(matrix: Tensor) -> Tensor:
    """Row interchanges that keep the elimination stable, as torch would choose them."""
    with plainly():
        _, pivots, info = torch.linalg.lu_factor_ex(matrix.double())
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


def _substituted(matrix: Tensor, right: Tensor, *, upper: bool, unit: bool = False) -> Tensor:
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
    """X with `matrix @ X = right`, by elimination with row interchanges."""
    _sizable(matrix)
    if not matrix.numel() or not right.numel():
        lead = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
        return right.expand(*lead, *right.shape[-2:])
    order = _rows(_pivots(matrix), matrix.shape[-2])
    lower, upper = _eliminated(_permuted(matrix, order))
    return _substituted(
        upper, _substituted(lower, _permuted(right, order), upper=False, unit=True), upper=True
    )


def _solve(A: Tensor, B: Tensor, left: bool, outs: Sequence[Tensor]) -> Any:
    vector = A.ndim - 1 == B.ndim or (B.ndim >= 1 and B.ndim + 1 == A.ndim and B.shape == A.shape[:-1])
    right = B.unsqueeze(-1) if vector else B
    x = solved(A, right) if left else solved(A.mT, right.mT).mT
    return (x.squeeze(-1) if vector else x, *outs[1:])


def _identity(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand(matrix.shape)


def _inverse(A: Tensor, outs: Sequence[Tensor]) -> Any:
    return (solved(A, _identity(A)), *outs[1:])


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


def determinant(matrix: Tensor) -> Tensor:
    if not matrix.shape[-1]:
        return matrix.new_ones(matrix.shape[:-2])
    try:
        _sizable(matrix)
        diagonal, sign = _diagonal_of_elimination(matrix)
    except NotDefinedError:
        return _minors(matrix)
    return diagonal.prod(-1) * sign


def _det(A: Tensor, outs: Sequence[Tensor]) -> Any:
    return (determinant(A), *outs[1:])


def _slogdet(A: Tensor, outs: Sequence[Tensor]) -> Any:
    if not A.shape[-1]:
        return outs
    _sizable(A)
    diagonal, _ = _diagonal_of_elimination(A)
    return (outs[0], diagonal.abs().log().sum(-1), *outs[2:])


def _packed(lower: Tensor, upper: Tensor) -> Tensor:
    """L below the diagonal and U from there on, in one matrix of torch's shape."""
    rows, columns = lower.shape[-2], upper.shape[-1]
    order = min(rows, columns)
    lead = upper.shape[:-2]
    wide = torch.cat([lower.tril(-1), lower.new_zeros(*lead, rows, columns - order)], -1)
    tall = torch.cat([upper, upper.new_zeros(*lead, rows - order, columns)], -2)
    return wide + tall


def _lu_factor(A: Tensor, outs: Sequence[Tensor]) -> Any:
    _sizable(A)
    if not A.numel():
        return outs
    lower, upper = _eliminated(_permuted(A, _rows(outs[1], A.shape[-2])))
    return (_packed(lower, upper), *outs[1:])


def _lu(A: Tensor, outs: Sequence[Tensor]) -> Any:
    _sizable(A)
    if not A.numel():
        return outs
    with plainly():
        order = outs[0].argmax(-2) if outs[0].numel() else torch.arange(A.shape[-2])
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
    _sizable(LU)
    if not left:
        B, adjoint = B.mT, not adjoint
    order = _rows(pivots, LU.shape[-2])
    if not adjoint:
        x = _substituted(LU, _permuted(B, order), upper=False, unit=True)
        x = _substituted(LU, x, upper=True)
    else:
        x = _substituted(LU.mT, B, upper=False)
        x = _permuted(_substituted(LU.mT, x, upper=True, unit=True), _inverse_order(order))
    return x if left else x.mT


def _lu_solve_old(self: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    return _lu_solve(LU_data, LU_pivots, self, left=True, adjoint=False)


def _solve_triangular(self: Tensor, B: Tensor, upper: bool, left: bool, unitriangular: bool) -> Tensor:
    _sizable(self)
    if left:
        return _substituted(self, B, upper=upper, unit=unitriangular)
    return _substituted(self.mT, B.mT, upper=not upper, unit=unitriangular).mT


def _triangular_solve(
    self: Tensor, A: Tensor, upper: bool, transpose: bool, unitriangular: bool, outs: Sequence[Tensor]
) -> Any:
    _sizable(A)
    matrix = A.mT if transpose else A
    return _substituted(matrix, self, upper=upper != transpose, unit=unitriangular), A.expand(
        outs[1].shape
    ).clone()


# Cholesky


def _choleskied(matrix: Tensor) -> Tensor:
    """Cholesky's L of a symmetric matrix, column by column."""
    _sizable(matrix)
    order = matrix.shape[-1]
    rest, columns = matrix, []
    for n in range(order):
        pivot = rest[..., :1, :1].sqrt()
        column = torch.cat([pivot, rest[..., 1:, :1] / pivot], -2)
        columns.append(torch.cat([matrix.new_zeros(*matrix.shape[:-2], n, 1), column], -2))
        rest = rest[..., 1:, 1:] - column[..., 1:, :] * column[..., 1:, :].mT
    return torch.cat(columns, -1) if columns else matrix


def _cholesky(self: Tensor, upper: bool, outs: Sequence[Tensor]) -> Any:
    lower = _choleskied(_symmetric(self, upper))
    return (lower.mT if upper else lower, *outs[1:])


def _cholesky_old(self: Tensor, upper: bool) -> Tensor:
    lower = _choleskied(_symmetric(self, upper))
    return lower.mT if upper else lower


def _cholesky_solve(self: Tensor, input2: Tensor, upper: bool) -> Tensor:
    """Torch's gradient is that of `(L Lᵀ)⁻¹ B` for any L; the other triangle is not read, unless it holds
    zeros anyway.

    It is computed by products with the inverse, whose rounding goes with the condition of `L Lᵀ`.
    """
    _sizable(input2)
    factor = input2.mT if upper else input2
    with plainly():
        whole = not bool(factor.triu(1).any())
    if not whole or not factor.numel():
        return _substituted(factor.mT, _substituted(factor, self, upper=False), upper=True)
    return solved(factor @ factor.mT, self)


def _cholesky_inverse(self: Tensor, upper: bool) -> Tensor:
    return _cholesky_solve(_identity(self), self, upper)


# Orthogonal matrices


def _orthogonalised(matrix: Tensor, signs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Q and R of as many columns as rows at most, by Gram and Schmidt's modified method; `signs` are R's
    diagonal's."""
    _sizable(matrix)
    rows, columns = matrix.shape[-2:]
    order = min(rows, columns)
    rest, found, upper = matrix, [], []
    for n in range(order):
        column = rest[..., :, :1]
        length = (column * column).sum(-2, keepdim=True).sqrt()
        if signs is not None:
            length = length * signs[..., n, None, None]
        unit = column / length
        rest = rest[..., :, 1:]
        row = unit.mT @ rest
        found.append(unit)
        upper.append(torch.cat([row.new_zeros(*row.shape[:-2], 1, n), length, row], -1))
        rest = rest - unit * row
    return torch.cat(found, -1), torch.cat(upper, -2)


def _triangularised(matrix: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Q and R by Householder's reflections, as LAPACK does; `signs` are those of R's diagonal."""
    _sizable(matrix)
    rows, columns = matrix.shape[-2:]
    order = min(rows, columns)
    rest, upper = matrix, []
    reflections: list[tuple[Tensor, Tensor]] = []
    for n in range(order):
        column = rest[..., :, :1]
        lead = column.shape[:-2]
        if n == rows - 1:
            upper.append(torch.cat([rest.new_zeros(*lead, 1, n), rest], -1))
            break
        head = signs[..., n, None, None] * (column * column).sum(-2, keepdim=True).sqrt()
        v = torch.cat(
            [torch.ones_like(head), column[..., 1:, :] * (column[..., :1, :] - head).reciprocal()], -2
        )
        tau = (head - column[..., :1, :]) / head
        reflections.append((v, tau))
        others = rest[..., :, 1:]
        others = others - tau * v @ (v.mT @ others)
        upper.append(torch.cat([rest.new_zeros(*lead, 1, n), head, others[..., :1, :]], -1))
        rest = others[..., 1:, :]
    q = torch.eye(rows, order, dtype=matrix.dtype).expand(*matrix.shape[:-2], rows, order)
    for n, (v, tau) in reversed(list(enumerate(reflections))):
        below = q[..., n:, :]
        q = torch.cat([q[..., :n, :], below - tau * v @ (v.mT @ below)], -2)
    return q, torch.cat(upper, -2)


def _qr(A: Tensor, mode: str, outs: Sequence[Tensor]) -> Any:
    q, r = outs
    rows, columns = A.shape[-2:]
    if not A.numel():
        return outs
    if mode == "complete" and rows > columns:
        raise NotDefinedError("mode='complete' of a tall matrix, whose Q is not determined")
    with plainly():
        signs = r.diagonal(dim1=-2, dim2=-1).sign()
        if bool((signs == 0).any()):
            raise NotDefinedError("a matrix of linearly dependent columns")
    made_q, made_r = _triangularised(A, signs)
    return (made_q if q.numel() else q), made_r


def _reflections(input: Tensor, tau: Tensor) -> list[Tensor]:
    """Householder's `1 - tau v vᵀ` for each column."""
    rows = input.shape[-2]
    made = []
    for n in range(tau.shape[-1]):
        column = input[..., n + 1 :, n : n + 1]
        lead = column.shape[:-2]
        v = torch.cat([column.new_zeros(*lead, n, 1), column.new_ones(*lead, 1, 1), column], -2)
        made.append(torch.eye(rows, dtype=input.dtype) - tau[..., n, None, None] * (v * v.mT))
    return made


def _householder_product(input: Tensor, tau: Tensor) -> Tensor:
    _sizable(input)
    rows, columns = input.shape[-2:]
    q = torch.eye(rows, columns, dtype=input.dtype).expand(*input.shape[:-2], rows, columns)
    for reflection in reversed(_reflections(input, tau)):
        q = reflection @ q
    return q


def _ormqr(self: Tensor, input2: Tensor, input3: Tensor, left: bool, transpose: bool) -> Tensor:
    """`op(Q) C` or `C op(Q)`, Q the product of reflections, each of which is symmetric."""
    _sizable(self, input3)
    found = _reflections(self, input2)
    for reflection in reversed(found) if left != transpose else found:
        input3 = reflection @ input3 if left else input3 @ reflection
    return input3


def _pseudo_inverse(matrix: Tensor, least: Any = 0.0) -> Tensor:
    """Of a matrix of full rank: R⁻¹Qᵀ; `least` is the relative size below which singular values are taken to
    be 0."""
    if not matrix.numel():
        return matrix.mT
    rows, columns = matrix.shape[-2:]
    with plainly():
        singular = torch.linalg.svdvals(matrix.double())
        if bool(
            (singular <= singular.amax(-1, True) * torch.as_tensor(least).unsqueeze(-1).clamp(min=1e-6)).any()
        ):
            raise NotDefinedError("a matrix that is not of full rank, beside which the rank jumps")
    if rows < columns:
        return _pseudo_inverse(matrix.mT, least).mT
    q, r = _orthogonalised(matrix)
    return _substituted(r, q.mT, upper=True)


def _pinv(self: Tensor, rtol: Any, atol: Any, hermitian: bool) -> Tensor:
    """`hermitian=True` reads one triangle, and gives the gradient of the general function, not of its
    symmetric part."""
    whole = _completed(self, upper=False) if hermitian else None
    if whole is not None:
        self = whole + _moved_by(self)
    if atol is not None and bool((torch.as_tensor(atol) > 0).any()):
        raise NotDefinedError("atol > 0")
    return _pseudo_inverse(self, 0.0 if rtol is None else rtol)


def _lstsq(self: Tensor, b: Tensor, outs: Sequence[Tensor]) -> Any:
    vector = b.ndim == self.ndim - 1
    right = b.unsqueeze(-1) if vector else b
    x = _pseudo_inverse(self) @ right
    residuals = ((self @ x - right) ** 2).sum(-2) if outs[1].numel() else outs[1]
    return (x.squeeze(-1) if vector else x), residuals, *outs[2:]


def _matrix_exp(self: Tensor) -> Tensor:
    """Taylor's series of A/2ˢ, squared s times; what it leaves out is below 2⁻¹³⁰ of what it gives."""
    _sizable(self)
    with plainly():
        size = float(self.double().abs().sum(-1).max()) if self.numel() else 0.0
    halvings = max(0, math.ceil(math.log2(size)) + 2) if size else 0
    small = self / 2**halvings
    total = _identity(self)
    for n in range(26, 0, -1):
        total = _identity(self) + small @ total / n
    for _ in range(halvings):
        total = total @ total
    return total


# Spectra: Newton's steps from torch's own numbers to what solves the defining equations


def _eigenpairs(matrix: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's steps for `A v = λ v, |v|² = 1`, each pair by itself; `values` (..., n) and `vectors` (..., n,
    n) are starts.

    The derivative of what a step gives is right as soon as its start is: it does not depend on the start's
    own.
    """
    _sizable(matrix)
    order = matrix.shape[-1]
    with plainly():
        if order > 1 and bool(
            (values.double().diff(dim=-1).abs() < 1e-3 * values.double().abs().amax(-1, True)).any()
        ):
            raise NotDefinedError("eigenvalues that are close to each other")
    a = matrix.unsqueeze(-3)
    v, x = vectors.mT.unsqueeze(-1).to(matrix.dtype), values[..., None, None]
    eye = torch.eye(order, dtype=matrix.dtype)
    for _ in range(2):
        residual = torch.cat([a @ v - x * v, ((v * v).sum(-2, keepdim=True) - 1) / 2], -2)
        top = torch.cat([(a - x * eye).expand(*v.shape[:-2], order, order), -v], -1)
        bottom = torch.cat([v.mT, torch.zeros_like(x).expand(*v.shape[:-2], 1, 1)], -1)
        step = solved(torch.cat([top, bottom], -2), residual)
        v, x = v - step[..., :order, :], x - step[..., order:, :]
    return x[..., 0, 0], v[..., 0].mT


def _eigh(A: Tensor, UPLO: str, compute_v: bool, outs: Sequence[Tensor]) -> Any:
    if not A.numel():
        return outs
    matrix = _symmetric(A, UPLO.upper() == "U")
    with plainly():
        starts = outs[1] if compute_v else torch.linalg.eigh(matrix)[1]
    values, vectors = _eigenpairs(matrix, outs[0], starts)
    return values, (vectors if compute_v else outs[1])


def _svd(A: Tensor, full_matrices: bool, compute_uv: bool, outs: Sequence[Tensor]) -> Any:
    """Newton's steps for `A v = s u, Aᵀ u = s v, |u|² + |v|² = 2`, each triple by itself."""
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
    _sizable(A)
    a, at = A.unsqueeze(-3), A.mT.unsqueeze(-3)
    left, right, x = u[..., :order].mT.unsqueeze(-1), vh[..., :order, :].unsqueeze(-1), s[..., None, None]
    lead = left.shape[:-2]
    top, bottom = torch.eye(rows, dtype=A.dtype), torch.eye(columns, dtype=A.dtype)
    for _ in range(2):
        norms = ((left * left).sum(-2, keepdim=True) + (right * right).sum(-2, keepdim=True)) / 2 - 1
        residual = torch.cat([a @ right - x * left, at @ left - x * right, norms], -2)
        one = torch.cat([-(x * top).expand(*lead, rows, rows), a.expand(*lead, rows, columns), -left], -1)
        two = torch.cat(
            [at.expand(*lead, columns, rows), -(x * bottom).expand(*lead, columns, columns), -right], -1
        )
        three = torch.cat([left.mT, right.mT, torch.zeros_like(x)], -1)
        step = solved(torch.cat([one, two, three], -2), residual)
        left, right = left - step[..., :rows, :], right - step[..., rows:-1, :]
        x = x - step[..., -1:, :]
    return (left[..., 0].mT, x[..., 0, 0], right[..., 0]) if compute_uv else (outs[0], x[..., 0, 0], outs[2])


# Distances


def _pairwise(difference: Tensor, p: float) -> Tensor:
    return torch.linalg.vector_norm(difference, p, -1)


def _cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: int | None) -> Tensor:
    rows = max(x1.shape[-2], x2.shape[-2])
    if p == 2 and (compute_mode == 1 or (compute_mode in (None, 0) and rows > 25)):
        # Torch takes |x|² + |y|² - 2xy there, which cancels.
        squares = (x1 * x1).sum(-1).unsqueeze(-1) + (x2 * x2).sum(-1).unsqueeze(-2) - 2 * (x1 @ x2.mT)
        return squares.clamp(min=0).sqrt()
    return _pairwise(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def _pdist(self: Tensor, p: float) -> Tensor:
    first, second = torch.triu_indices(self.shape[0], self.shape[0], 1)
    return _pairwise(self[first] - self[second], p)


# Windows, bags and segments


def _trilinear(
    i1: Tensor,
    i2: Tensor,
    i3: Tensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
) -> Tensor:
    spread = []
    for operand, dims in ((i1, expand1), (i2, expand2), (i3, expand3)):
        for dim in sorted(dims):
            operand = operand.unsqueeze(dim)
        spread.append(operand)
    whole = spread[0] * spread[1] * spread[2]
    return whole.sum(tuple(sumdim)) if sumdim else whole


def _adaptive_average(self: Tensor, output_size: Sequence[int]) -> Tensor:
    """Means over windows from ⌊i n/m⌋ to ⌈(i + 1) n/m⌉, axis by axis."""
    for n, extent in enumerate(output_size, self.ndim - len(output_size)):
        size = self.shape[n]
        windows = [(i * size // extent, -(-(i + 1) * size // extent)) for i in range(extent)]
        self = torch.stack([self.narrow(n, start, end - start).mean(n) for start, end in windows], n)
    return self


def _bagged(parts: Sequence[Tensor], mode: str, empty: Tensor, dim: int = 0) -> Tensor:
    """Each part reduced over the axis and stacked; `empty` is what nothing gives."""
    made = []
    for part in parts:
        if not part.shape[dim]:
            made.append(empty)
        elif mode == "max":
            made.append(part.amax(dim))
        elif mode == "min":
            made.append(part.amin(dim))
        elif mode == "prod":
            made.append(part.prod(dim))
        else:
            made.append(part.sum(dim) if mode == "sum" else part.mean(dim))
    return torch.stack(made, dim)


def _embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool, mode: int,
    per_sample_weights: Tensor | None, include_last_offset: bool, padding_idx: int, outs: Sequence[Tensor],
) -> Any:  # fmt: skip
    if scale_grad_by_freq:
        raise NotDefinedError("scale_grad_by_freq=True: what it passes on is not the derivative")
    with plainly():
        starts = offsets.tolist()
        ends = [*starts[1:], len(indices)]
        if include_last_offset:
            starts, ends = starts[:-1], starts[1:]
        places = indices.tolist()
        kept = [[n for n in range(a, b) if places[n] != padding_idx % len(weight) or padding_idx < 0] for a, b in
                zip(starts, ends, strict=True)]  # fmt: skip
    rows = weight.index_select(0, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    parts = [rows.index_select(0, torch.tensor(bag, dtype=torch.int64)) for bag in kept]
    return _bagged(parts, ("sum", "mean", "max")[mode], weight.new_zeros(weight.shape[1])), *outs[1:]


def _segment_reduce(
    data: Tensor,
    reduce: str,
    lengths: Tensor | None,
    offsets: Tensor | None,
    axis: int,
    initial: float | None,
) -> Tensor:
    axis %= data.ndim
    if lengths is not None:
        with plainly():
            zero = lengths.new_zeros(*lengths.shape[:-1], 1)
            offsets = torch.cat([zero, lengths.cumsum(-1)], -1)
    assert offsets is not None
    empty = {"sum": 0.0, "mean": math.nan, "prod": 1.0, "max": -math.inf, "min": math.inf}
    start = initial if initial is not None else empty[reduce]
    return _segments(data, reduce, offsets, axis, start, initial)


def _segments(
    data: Tensor, reduce: str, offsets: Tensor, axis: int, start: float, initial: float | None
) -> Tensor:
    if offsets.ndim > 1:
        parts = [
            _segments(data[n], reduce, offsets[n], axis - 1, start, initial) for n in range(len(offsets))
        ]
        return torch.stack(parts, 0)
    with plainly():
        ends = offsets.tolist()
    rest = data.shape[1:]
    parts = []
    for a, b in pairwise(ends):
        part = data[a:b]
        if initial is not None and b > a:
            extra = data.new_full((1, *rest), initial)
            if reduce == "mean":
                parts.append((part.sum(0) + initial) / (b - a))
                continue
            part = torch.cat([extra, part], 0)
        parts.append(part)
    made = [p if p.shape == rest and reduce == "mean" and initial is not None else
            _bagged([p], reduce, data.new_full(rest, start))[0] for p in parts]  # fmt: skip
    return torch.stack(made, 0)


# Choices


def _lstm_layer(
    input: Tensor, weight0: Tensor, weight1: Tensor, weight2: Tensor, weight3: Tensor, hx_: Tensor, cx_: Tensor,
    reverse: bool, mode: int, has_biases: bool, outs: Sequence[Tensor],
) -> Any:  # fmt: skip
    """One layer and one direction of an LSTM (mode 2), its gates in torch's order: input, forget, cell,
    output."""
    if mode != 2:
        return NotImplemented
    hidden, cell = hx_.reshape(hx_.shape[-2:]), cx_.reshape(cx_.shape[-2:])
    states: dict[int, Tensor] = {}
    steps = range(input.shape[0])
    for t in reversed(steps) if reverse else steps:
        gates = input[t] @ weight0.t() + hidden @ weight1.t()
        gates = gates + weight2 + weight3 if has_biases else gates
        enter, forget, new, leave = gates.chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
        states[t] = hidden
    whole = torch.stack([states[t] for t in steps])
    return whole, hidden.reshape(outs[1].shape), cell.reshape(outs[2].shape), torch.empty_like(outs[3])


def _embedding(weight: Tensor, indices: Tensor, padding_idx: int) -> Any:
    """The row of `padding_idx` is not learned: its entries are constants, by torch's own definition."""
    if padding_idx < 0:
        return NotImplemented
    with plainly():
        constant = weight[padding_idx].clone()
    rows = torch.cat([weight[:padding_idx], constant.unsqueeze(0), weight[padding_idx + 1 :]])
    return rows.index_select(0, indices.reshape(-1)).reshape(*indices.shape, *weight.shape[1:])


def _middle(self: Tensor, outs: Sequence[Tensor]) -> Any:
    """The entry that torch gave; tied ones may share its cotangent, as those of a maximum. Along an axis
    torch names the places."""
    if len(outs) > 1:
        return NotImplemented
    with plainly():
        places = ((self == outs[0]) | (self.isnan() & outs[0].isnan())).reshape(-1).nonzero()[:, 0]
    return self.reshape(-1)[places[0]] if len(places) == 1 else self.reshape(-1)[places].amax()


def _frexp(self: Tensor, outs: Sequence[Tensor]) -> Any:
    with plainly():
        scale = torch.exp2(-outs[1].to(self.dtype))
    return self * scale, outs[1]


def _nextafter(self: Tensor, outs: Sequence[Tensor]) -> Tensor:
    """A step, of a size that is taken as it is."""
    with plainly():
        step = outs[0] - self
    return self + step


def _rrelu(self: Tensor, lower: float, upper: float, training: bool, outs: Sequence[Tensor]) -> Tensor:
    """The noise is what torch drew: its result by its operand, known to one rounding."""
    if not training:
        return torch.where(self > 0, self, self * ((lower + upper) / 2))
    with plainly():
        result, operand = outs[0].clone(), torch.where(self == 0, 1, self).clone()
    return torch.where(self > 0, self, self * _ratio(result, operand))


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return a / b


# Softmax and its kin where entries are infinite


def _safe_softmax(self: Tensor, dim: int, dtype: Any) -> Tensor:
    """0 all over where every entry is -inf."""
    self = self if dtype is None else self.to(dtype)
    with plainly():
        masked = self.isneginf().all(dim, keepdim=True)
    return torch.where(masked, 0, torch.softmax(torch.where(masked, 0, self), dim))


def _logsumexp(self: Tensor, dim: Sequence[int], keepdim: bool) -> Any:
    """Infinite where an infinity is the largest entry: there it is the largest entry. Finite ones have a
    formula."""
    dims = tuple(dim) or tuple(range(self.ndim))
    with plainly():
        infinite = self.amax(dims, keepdim=True).isinf()
    if not bool(infinite.any()):
        return NotImplemented
    finite = torch.where(infinite, 0, self)
    total = torch.where(infinite, self.amax(dims, keepdim=True), finite.exp().sum(dims, keepdim=True).log())
    return total if keepdim else total.squeeze(dims)


def _logaddexp(self: Tensor, other: Tensor) -> Any:
    """Infinite where both are the same infinity. Other numbers have a formula."""
    with plainly():
        infinite = (self == other) & self.isinf()
    if not bool(infinite.any()):
        return NotImplemented
    finite = torch.logaddexp(torch.where(infinite, 0, self), torch.where(infinite, 1, other))
    return torch.where(infinite, torch.maximum(self, other), finite)


def _logcumsumexp(self: Tensor, dim: int) -> Tensor:
    """Each entry a logsumexp of those up to it."""
    if not self.ndim or not self.numel():
        return self.clone()
    dim %= self.ndim
    return torch.stack([self.narrow(dim, 0, n + 1).logsumexp(dim) for n in range(self.shape[dim])], dim)


# Norms


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Any:
    """With `x*s - m*s`, s = 1/sqrt(var + eps), as torch's kernels compute it: it cancels where `(x - m)*s`
    does not."""
    dims = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    mean = input.mean(dims, keepdim=True)
    scale = (input.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    out = input * scale - mean * scale
    out = out if weight is None else out * weight
    return (out if bias is None else out + bias), mean, scale


def _batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, eps: float, outs: Sequence[Tensor],
) -> Any:  # fmt: skip
    """With `x*a + (b - m*a)`, a = w/sqrt(var + eps), as torch's kernels compute it: it cancels where `(x -
    m)*a` does not."""
    dims = tuple(n for n in range(input.ndim) if n != 1)
    shape = [-1 if n == 1 else 1 for n in range(input.ndim)]
    if training or running_mean is None or running_var is None:
        mean, variance = input.mean(dims), input.var(dims, correction=0)
    else:
        mean, variance = running_mean, running_var
    scale = (variance + eps).rsqrt()
    alpha = scale if weight is None else scale * weight
    shift = -(mean * alpha) if bias is None else bias - mean * alpha
    out = input * alpha.reshape(shape) + shift.reshape(shape)
    saved = [
        mean if outs[1].numel() else torch.empty_like(outs[1]),
        scale if outs[2].numel() else torch.empty_like(outs[2]),
    ]
    return out.to(outs[0].dtype), saved[0].to(outs[1].dtype), saved[1].to(outs[2].dtype)


def _cross_entropy_with_logits(
    self: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: int
) -> Tensor:
    """`(1 - t) x + w softplus(-x)` with w = 1 + (p - 1) t; torch's slope is taken of sigmoid(x), not of
    sigmoid(-x)."""
    tail = torch.nn.functional.softplus(self) - self
    loss = (1 - target) * self + (tail if pos_weight is None else ((pos_weight - 1) * target + 1) * tail)
    loss = loss if weight is None else loss * weight
    return loss if reduction == 0 else loss.mean() if reduction == 1 else loss.sum()


def _linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, linear_bias: Tensor | None, weight: Tensor | None,
    reduction: str | None, ignore_index: int, label_smoothing: float | None, outs: Sequence[Tensor],
) -> Any:  # fmt: skip
    """The loss; the other results are the gradients, which torch stores in the forward."""
    loss = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(input, linear_weight, linear_bias), target, weight, ignore_index=ignore_index,
        reduction=reduction or "none", label_smoothing=label_smoothing or 0.0)  # fmt: skip
    return (loss, *outs[1:])


def _attention(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float, is_causal: bool, attn_mask: Tensor | None,
    scale: float | None, outs: Sequence[Tensor],
) -> Any:  # fmt: skip
    """`softmax(q kᵀ s + mask) v`, 0 where all is masked; groups of query heads share keys."""
    if dropout_p:
        raise NotDefinedError("dropout inside")
    if key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
    scores = (query @ key.mT) * factor
    if is_causal:
        with plainly():
            later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if attn_mask is not None:
        scores = (
            scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        )
    return _safe_softmax(scores, -1, None) @ value, outs[1]


# Samples of images


def _unnormalised(x: Tensor, extent: int, align_corners: bool) -> Tensor:
    return (x + 1) / 2 * (extent - 1) if align_corners else ((x + 1) * extent - 1) / 2


def _reflected(x: Tensor, low2: int, high2: int) -> Tensor:
    """Folded into [low2/2, high2/2]."""
    if low2 == high2:
        return torch.zeros_like(x)
    low, span = low2 / 2, (high2 - low2) / 2
    distance = (x - low).abs()
    with plainly():
        flips = (distance / span).floor()
    rest = distance - flips * span
    with plainly():
        even = flips % 2 == 0
    return torch.where(even, rest + low, span - rest + low)


def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """Bilinear (0), nearest (1) or bicubic (2) samples of an image of two or three axes at the grid's
    places."""
    extents = input.shape[:1:-1]  # x, y, z
    axes = len(extents)
    cubic = interpolation_mode == 2

    def inside(x: Tensor, extent: int) -> Tensor:
        if padding_mode == 2:
            x = _reflected(x, 0, 2 * (extent - 1)) if align_corners else _reflected(x, -1, 2 * extent - 1)
        return x.clamp(0, extent - 1) if padding_mode else x

    places = [_unnormalised(grid[..., n], extent, align_corners) for n, extent in enumerate(extents)]
    if not cubic:
        places = [inside(x, extent) for x, extent in zip(places, extents, strict=True)]
    batch = torch.arange(len(input)).reshape(-1, *(1,) * axes)
    channels_last = input.movedim(1, -1)

    def entries(corner: Sequence[Tensor]) -> Tensor:
        with plainly():
            corner = (
                [inside(c, extent) for c, extent in zip(corner, extents, strict=True)] if cubic else corner
            )
            there = torch.stack(
                [(c >= 0) & (c < extent) for c, extent in zip(corner, extents, strict=True)]
            ).all(0)
            index = [c.clamp(0, extent - 1).long() for c, extent in zip(corner, extents, strict=True)]
        return torch.where(there.unsqueeze(-1), channels_last[(batch, *reversed(index))], 0)

    with plainly():
        floors = [x.round() if interpolation_mode == 1 else x.floor() for x in places]
    if interpolation_mode == 1:
        return entries(floors).movedim(-1, 1)
    parts = [x - start for x, start in zip(places, floors, strict=True)]
    weights = [
        keys(t) if cubic else [start + 1 - x, t] for t, x, start in zip(parts, places, floors, strict=True)
    ]
    taps, first = len(weights[0]), -1 if cubic else 0
    total: Any = 0
    for corner in product(range(taps), repeat=axes):
        with plainly():
            at = [start + first + k for start, k in zip(floors, corner, strict=True)]
        weight = math.prod((weights[n][k] for n, k in enumerate(corner)), start=1)
        total = total + entries(at) * weight.unsqueeze(-1)
    return total.movedim(-1, 1)


def keys(t: Any, a: Any = -0.75) -> list[Any]:
    """Keys' cubic convolution, a = -3/4, at the four places around: of tensors, or of formulas."""

    def near(x: Any) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


# Connectionist temporal classification


def _ctc(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    outs: Sequence[Tensor],
) -> Any:
    """The sum over all alignments, by Graves' forward variables.

    Torch's gradient is that of the loss of `log_softmax(log_probs)`: it holds where the logarithms are of
    probabilities that add up to 1, and that function is meant there.
    """
    with plainly():
        times = input_lengths.tolist() if isinstance(input_lengths, Tensor) else list(input_lengths)
        counts = target_lengths.tolist() if isinstance(target_lengths, Tensor) else list(target_lengths)
        rows, start = [], 0
        for n, count in enumerate(counts):
            rows.append(
                (targets[n, :count] if targets.ndim == 2 else targets[start : start + count]).tolist()
            )
            start += count
    with plainly():
        normalised = bool((log_probs.logsumexp(-1).abs() < 1e-3).all())
    if normalised:
        log_probs = log_probs - log_probs.logsumexp(-1, keepdim=True)
    longest = 2 * max(counts, default=0) + 1
    states = [[blank, *(s for label in labels for s in (label, blank))] for labels in rows]
    states = [[*row, *[blank] * (longest - len(row))] for row in states]
    skips = torch.tensor(
        [[float(k > 1 and s != blank and s != row[k - 2]) for k, s in enumerate(row)] for row in states]
    )
    probs = log_probs.gather(-1, torch.tensor(states).expand(len(log_probs), len(rows), longest)).exp()
    skips = skips.to(probs.dtype)
    paths = [probs[0] * (torch.arange(longest) < 2).to(probs.dtype)]
    halvings = [torch.zeros(len(rows), 1, dtype=probs.dtype)]
    for t in range(1, max(times)):
        # Scaled by powers of two, so that nothing underflows.
        with plainly():
            small = paths[-1].amax(-1, keepdim=True).log2().floor()
            halvings.append(halvings[-1] + small)
            scale = torch.exp2(-small)
        wide = torch.nn.functional.pad(paths[-1] * scale, (2, 0))
        paths.append((wide[:, 2:] + wide[:, 1:-1] + skips * wide[:, :-2]) * probs[t])
    losses = []
    for n, count in enumerate(counts):
        last = paths[times[n] - 1][n]
        total = last[max(2 * count - 1, 0) : 2 * count + 1].sum()
        losses.append(
            -(total.log() + torch.xlogy(0 * total + halvings[times[n] - 1][n, 0], 2.0))
        )  # log(2), exactly
    return torch.stack(losses), outs[1]


DEFINITIONS: dict[str, Callable[..., Any]] = {
    "_linalg_solve_ex": _solve, "linalg_inv_ex": _inverse, "_linalg_det": _det, "_linalg_slogdet": _slogdet,
    "linalg_lu_factor_ex": _lu_factor, "linalg_lu": _lu, "lu_unpack": _lu_unpack, "linalg_lu_solve": _lu_solve,
    "lu_solve": _lu_solve_old, "linalg_solve_triangular": _solve_triangular, "triangular_solve": _triangular_solve,
    "linalg_cholesky_ex": _cholesky, "cholesky": _cholesky_old, "cholesky_solve": _cholesky_solve,
    "cholesky_inverse": _cholesky_inverse, "linalg_qr": _qr, "linalg_householder_product": _householder_product,
    "ormqr": _ormqr, "linalg_pinv": _pinv, "linalg_lstsq": _lstsq, "linalg_matrix_exp": _matrix_exp,
    "_linalg_eigh": _eigh, "_linalg_svd": _svd,
    "_cdist_forward": _cdist, "_pdist_forward": _pdist, "_trilinear": _trilinear,
    "_adaptive_avg_pool3d": _adaptive_average, "_adaptive_avg_pool2d": _adaptive_average,
    "_embedding_bag": _embedding_bag, "_embedding_bag_forward_only": _embedding_bag, "segment_reduce": _segment_reduce,
    "native_batch_norm": _batch_norm, "_native_batch_norm_legit": _batch_norm, "mkldnn_rnn_layer": _lstm_layer,
    "embedding": _embedding,
    "median": _middle, "nanmedian": _middle, "frexp": _frexp, "nextafter": _nextafter, "rrelu_with_noise": _rrelu,
    "_safe_softmax": _safe_softmax, "logsumexp": _logsumexp, "logaddexp": _logaddexp,
    "logcumsumexp": _logcumsumexp, "_logcumsumexp": _logcumsumexp,
    "native_layer_norm": _layer_norm, "binary_cross_entropy_with_logits": _cross_entropy_with_logits,
    "torch_nn::_linear_cross_entropy_batch_chunked": _linear_cross_entropy,
    "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction": _linear_cross_entropy,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "grid_sampler_2d": _grid_sampler, "grid_sampler_3d": _grid_sampler, "_ctc_loss": _ctc,
}  # fmt: skip
