"""Samples of images at places between their entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .plain import Definitions, plainly


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


@dataclass(frozen=True, eq=False)
class _Image:
    """An image's entries by their places, and what lies beyond its edge: 0, the edge, or its reflection."""

    entries: Tensor  # the channels last
    extents: Sequence[int]  # x, y, z
    padding: int
    align_corners: bool

    def places(self, grid: Tensor) -> list[Tensor]:
        """The grid's places from -1 to 1, as numbers of entries."""
        if self.align_corners:
            return [(grid[..., n] + 1) / 2 * (extent - 1) for n, extent in enumerate(self.extents)]
        return [((grid[..., n] + 1) * extent - 1) / 2 for n, extent in enumerate(self.extents)]

    def inside(self, places: Sequence[Tensor]) -> list[Tensor]:
        """The places, moved inside where that is the padding."""
        return [self._inside(x, extent) for x, extent in zip(places, self.extents, strict=True)]

    def _inside(self, x: Tensor, extent: int) -> Tensor:
        if self.padding == 2 and self.align_corners:
            x = _reflected(x, 0, 2 * (extent - 1))
        elif self.padding == 2:
            x = _reflected(x, -1, 2 * extent - 1)
        return x.clamp(0, extent - 1) if self.padding else x

    def at(self, places: Sequence[Tensor]) -> Tensor:
        """The entries at whole places, 0 beyond the edge."""
        batch = torch.arange(len(self.entries)).reshape(-1, *(1,) * len(places))
        with plainly():
            pairs = list(zip(places, self.extents, strict=True))
            there = torch.stack([(x >= 0) & (x < extent) for x, extent in pairs]).all(0)
            index = [x.clamp(0, extent - 1).long() for x, extent in pairs]
        return torch.where(there.unsqueeze(-1), self.entries[(batch, *reversed(index))], 0)


def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """Bilinear (0), nearest (1) or bicubic (2) samples of an image of two or three axes at the grid's
    places."""
    image = _Image(input.movedim(1, -1), input.shape[:1:-1], padding_mode, align_corners)
    cubic = interpolation_mode == 2
    places = image.places(grid)
    if not cubic:
        places = image.inside(places)
    with plainly():
        floors = [x.round() if interpolation_mode == 1 else x.floor() for x in places]
    if interpolation_mode == 1:
        return image.at(floors).movedim(-1, 1)
    parts = [x - start for x, start in zip(places, floors, strict=True)]
    weights = [
        keys(t) if cubic else [start + 1 - x, t] for t, x, start in zip(parts, places, floors, strict=True)
    ]
    taps, first = len(weights[0]), -1 if cubic else 0
    total: Any = 0
    for corner in product(range(taps), repeat=len(places)):
        with plainly():
            at = [start + first + k for start, k in zip(floors, corner, strict=True)]
            at = image.inside(at) if cubic else at
        weight = math.prod((weights[n][k] for n, k in enumerate(corner)), start=1)
        total = total + image.at(at) * weight.unsqueeze(-1)
    return total.movedim(-1, 1)


def keys(t: Any, a: Any = -0.75) -> list[Any]:
    """Keys' cubic convolution, a = -3/4, at the four places around: of tensors, or of formulas."""

    def near(x: Any) -> Any:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Any) -> Any:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


DEFINITIONS: Definitions = {
    "grid_sampler_2d": _grid_sampler,
    "grid_sampler_3d": _grid_sampler,
}
