"""Contractions: sums of products of two factors, `Σ a*b`, as products of matrices of balls."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from flint import arb_mat

from .balls import NOUGHT, Balls, full
from .graph import Shape

Add = Callable[[np.ndarray, int], np.ndarray]


class Contraction:
    """Σ a*b as a product of matrices for each index of a batch: what part each axis of the domain has in it.

    `batch` axes are kept and in both factors, `columns` kept and in the second alone, `rows` are the others
    that are kept; `inner` axes are summed and in both, `alone` ones are summed and in one factor at most.
    """

    def __init__(self, a: Shape, b: Shape, axes: tuple[int, ...], domain: Shape) -> None:
        self.count = prod(domain[n] for n in axes)
        kept = [n for n in range(len(domain)) if n not in axes]
        both = [n for n in range(len(domain)) if a[n] > 1 and b[n] > 1]
        self.batch = [n for n in kept if n in both]
        self.columns = [n for n in kept if n not in both and b[n] > 1]
        self.rows = [n for n in kept if n not in self.batch + self.columns]
        self.inner = [n for n in axes if n in both]
        self.alone = [n for n in axes if n not in both]
        self.repeats = prod(domain[n] for n in self.alone if a[n] == b[n] == 1)
        self.extents = np.broadcast_shapes(a, b)

    def balls(self, a: Balls, b: Balls) -> Balls:
        """The sums as (batch, rows, columns), without any rounding but the working precision's."""
        a, b = self.first(a), self.second(b)
        a = a * self.repeats if self.repeats > 1 else a
        (batch, rows, inner), columns = a.shape, b.shape[2]
        if batch * rows * inner * columns <= 2 * (a.size + b.size):
            return np.add.reduce(a[:, :, :, None] * b[:, None, :, :], axis=2)
        out = full((batch, rows * columns), NOUGHT)
        for n, (left, right) in enumerate(
            zip(a.reshape(batch, -1).tolist(), b.reshape(batch, -1).tolist(), strict=True)
        ):
            out[n] = (arb_mat(rows, inner, left) * arb_mat(inner, columns, right)).entries()
        return out.reshape(batch, rows, columns)

    def first(self, a: np.ndarray, add: Add | None = None) -> np.ndarray:
        """The first factor as a batch of matrices; `add` sums over an axis and keeps it."""
        return self._arranged(a, self.rows, self.inner, add)

    def second(self, b: np.ndarray, add: Add | None = None) -> np.ndarray:
        """The second factor as a batch of matrices."""
        return self._arranged(b, self.inner, self.columns, add)

    def numbers(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The same sums of plain numbers."""
        return np.matmul(self.first(a.astype(float)), self.second(b.astype(float))) * self.repeats

    def _arranged(
        self,
        side: np.ndarray,
        first: list[int],
        second: list[int],
        add: Add | None = None,
    ) -> np.ndarray:
        """A factor as a batch of matrices; what stands alone is summed first."""
        for n in self.alone:
            if side.shape[n] > 1:
                side = add(side, n) if add else np.add.reduce(side, axis=n, keepdims=True)
        order = self.batch + first + second
        shape = [prod(side.shape[n] for n in part) for part in (self.batch, first, second)]
        return side.transpose(order + [n for n in range(side.ndim) if n not in order]).reshape(shape)

    def unfolded(self, result: np.ndarray) -> np.ndarray:
        """The products of matrices as an array over the axes that were kept, in their order."""
        order = self.batch + self.rows + self.columns
        return result.reshape([self.extents[n] for n in order]).transpose(np.argsort(order))


def section(side: Balls, at: np.ndarray, axes: tuple[int, ...]) -> Balls:
    """The part of a factor that one entry of the sum is made of: its axes are those summed over."""
    kept = iter(at)
    return side[
        tuple(
            slice(None) if n in axes else min(next(kept), extent - 1) for n, extent in enumerate(side.shape)
        )
    ]
