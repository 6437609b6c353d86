"""Interpolation of images, axis by axis: `y[..., i, ...] = Σ_k w[i, k] x[..., p[i] + k, ...]`.

The weights are formulas of the output's index, and not numbers: an implementation rounds the place `i*ratio`
that they are taken at, and rounds it absolutely, which weighs the more the farther from the image's edge the
place is.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from sympy import Abs, Expr, Max, Piecewise, Rational, S

from ..proof.graph import Read, bound, free, slot
from .definitions.sampling import keys
from .memory import table
from .tape import Event, Region
from .writing import Writing

CUBIC = Rational(-3, 4)  # the a of Keys' cubic convolution that torch takes for images


@dataclass(frozen=True)
class _Axis:
    """One axis: input and output extents, and the place of output i, `ratio*(i + half) - half`."""

    before: int
    after: int
    ratio: Fraction
    half: Fraction

    def place(self, i: int) -> Fraction:
        return self.ratio * (i + self.half) - self.half

    @property
    def formula(self) -> Expr:
        half = Rational(self.half)
        return Rational(self.ratio) * (free(0) + half) - half


def _axis(before: int, after: int, align_corners: bool, scale: float | None) -> _Axis:
    if align_corners:
        return _Axis(
            before, after, Fraction(before - 1, after - 1) if after > 1 else Fraction(0), Fraction(0)
        )
    ratio = 1 / Fraction(scale) if scale else Fraction(before, after)
    return _Axis(before, after, ratio, Fraction(1, 2))


def _linear(self: Writing, axis: _Axis) -> tuple[str, np.ndarray]:
    """1 - t and t at the places below and above, t the part behind the point; before the first entry it is
    0."""
    starts = np.array([floor(max(axis.place(i), Fraction(0))) for i in range(axis.after)])
    t = Max(axis.formula, 0) - slot(0)
    both = Piecewise((1 - t, free(1) < 1), (t, True))
    return self.emit(both, _starts(self, starts), (axis.after, 2), source="weight"), starts


def _starts(self: Writing, starts: np.ndarray) -> tuple[Read, ...]:
    return (Read(self.constant(starts), (free(0),)),)


def _cubic(self: Writing, axis: _Axis) -> tuple[str, np.ndarray]:
    """Keys' four weights."""
    starts = np.array([floor(axis.place(i)) for i in range(axis.after)])
    part = self.emit(axis.formula - slot(0), _starts(self, starts), (axis.after,), source="part")

    k = free(1)
    formula = Piecewise(*zip(keys(slot(0), CUBIC), (k < 1, k < 2, k < 3, True), strict=True))
    return self.emit(formula, (Read(part, (free(0),)),), (axis.after, 4), source="weight"), starts - 1


def _triangle(self: Writing, axis: _Axis) -> tuple[str, np.ndarray]:
    """Antialiased: a triangle as wide as one output's share of the input, its weights made to add up to 1."""
    wide = max(axis.ratio, Fraction(1))
    centres = [axis.ratio * (i + Fraction(1, 2)) for i in range(axis.after)]
    starts = np.array([max(floor(c - wide + Fraction(1, 2)), 0) for c in centres])
    ends = np.array([min(floor(c + wide + Fraction(1, 2)), axis.before) for c in centres])
    taps = int((ends - starts).max())
    used = (np.arange(taps) < (ends - starts)[:, None]).astype(float)
    x = (slot(0) + free(1) - Rational(axis.ratio) * (free(0) + S.Half) + S.Half) / Rational(wide)
    reads = (*_starts(self, starts), Read(self.constant(used), (free(0), free(1))))
    shape = (axis.after, taps)
    raw = self.emit(Max(1 - Abs(x), 0) * slot(1), reads, shape, source="triangle")
    total = self.emit(
        slot(0), (Read(raw, (free(0), bound(0))),), (axis.after,), over=(taps,), reduce="sum", source="total"
    )
    both = (Read(raw, (free(0), free(1))), Read(total, (free(0),)))
    return self.emit(slot(0) / slot(1), both, shape, source="weight"), starts


_WEIGHTS: dict[str, tuple[Any, int]] = {
    "upsample_linear1d": (_linear, 1),
    "upsample_bilinear2d": (_linear, 2), "_upsample_bilinear2d_aa": (_triangle, 2),
    "upsample_trilinear3d": (_linear, 3),
    "upsample_bicubic2d": (_cubic, 2),
}  # fmt: skip


def interpolated(self: Writing, event: Event, targets: list[Region]) -> bool:
    arguments = event.arguments
    weights, axes = _WEIGHTS[event.name]
    source: Region = arguments["self"] if "self" in arguments else arguments["input"]
    (target,) = targets
    scales = arguments.get("scale_factors") or [
        arguments.get(name) for name in ("scales_d", "scales_h", "scales_w")[-axes:]
    ]
    if axes == 1 and not arguments.get("scale_factors"):
        scales = [arguments.get("scales")]
    operand = self.operand(source)
    name, index, shape = operand.node, operand.index, source.shape
    lead = len(shape) - axes
    for d in range(lead, len(shape)):
        axis = _axis(source.shape[d], target.shape[d], arguments["align_corners"], scales[d - lead])
        weight, starts = weights(self, axis)
        taps = self.shapes[weight][1]
        at = np.clip(starts[:, None] + np.arange(taps), 0, axis.before - 1)
        place = table(at, {0: free(d), 1: bound(0)})
        shape = (*shape[:d], axis.after, *shape[d + 1 :])
        moved = tuple(e.xreplace({free(d): place}) for e in index)
        reads = (Read(name, moved), Read(weight, (free(d), bound(0))))
        name = self.emit(slot(0) * slot(1), reads, shape, over=(taps,), reduce="sum", source="interpolated")
        index = tuple(map(free, range(len(shape))))
    self.write(target, name)
    return True


NAMES = tuple(_WEIGHTS)
