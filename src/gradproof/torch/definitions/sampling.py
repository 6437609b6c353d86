"""Samples of images at places between their entries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .plain import Definitions, plainly


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


DEFINITIONS: Definitions = {
    "grid_sampler_2d": _grid_sampler,
    "grid_sampler_3d": _grid_sampler,
}
