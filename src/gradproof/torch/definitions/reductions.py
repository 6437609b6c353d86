"""Sums, means and extremes of a shape of their own: windows, distances, logarithms of sums of
exponentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .plain import Definitions, plainly


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


def _middle(self: Tensor, outs: Sequence[Tensor]) -> Any:
    """The entry that torch gave; tied ones may share its cotangent, as those of a maximum. Along an axis
    torch names the places."""
    if len(outs) > 1:
        return NotImplemented
    with plainly():
        places = ((self == outs[0]) | (self.isnan() & outs[0].isnan())).reshape(-1).nonzero()[:, 0]
    return self.reshape(-1)[places[0]] if len(places) == 1 else self.reshape(-1)[places].amax()


def safe_softmax(self: Tensor, dim: int, dtype: Any) -> Tensor:
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


DEFINITIONS: Definitions = {
    "_cdist_forward": _cdist,
    "_pdist_forward": _pdist,
    "_trilinear": _trilinear,
    "_adaptive_avg_pool3d": _adaptive_average,
    "_adaptive_avg_pool2d": _adaptive_average,
    "median": _middle,
    "nanmedian": _middle,
    "_safe_softmax": safe_softmax,
    "logsumexp": _logsumexp,
    "logaddexp": _logaddexp,
    "logcumsumexp": _logcumsumexp,
    "_logcumsumexp": _logcumsumexp,
}
