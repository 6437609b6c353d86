"""Numbers that are drawn, as functions of the parameters that they are drawn by, and what is rounded to few.

A draw moves with its parameter so that its distribution function stays as it is: the implicit
reparametrisation of Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, NeurIPS 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .matrices import moved_by
from .plain import Definitions, NotDefinedError, plainly

MAX_TERMS = 400


def _standard_gamma(self: Tensor, outs: Sequence[Tensor]) -> Tensor:
    """One Newton's step from the draw x to where `P(a, x)` is what it was; P by its series
    `x^a e^-x Σ x^n / Γ(a + n + 1)`, of which is left out less than 2⁻¹⁰⁰."""
    (x,) = outs
    with plainly():
        most = float(x.max()) if x.numel() else 0.0
        terms = math.ceil(math.e * most + 80)
        if terms > MAX_TERMS or bool((x <= 0).any()):
            raise NotDefinedError("a draw of 0, or a large one")
        n = torch.arange(terms, dtype=x.dtype)
    a, log = self.unsqueeze(-1), torch.log(x).unsqueeze(-1)
    share = torch.exp((a + n) * log - x.unsqueeze(-1) - torch.lgamma(a + n + 1)).sum(-1)
    density = torch.exp((self - 1) * torch.log(x) - x - torch.lgamma(self))
    return x - moved_by(share) / density


def _quantized(self: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Tensor:
    steps = torch.round(self / scale) + zero_point
    return (steps.clamp(quant_min, quant_max) - zero_point) * scale


def _fake_quantize(
    self: Tensor, scale: Any, zero_point: Any, quant_min: int, quant_max: int, outs: Sequence[Tensor]
) -> Any:
    """What it computes; torch passes on what a clamp alone would."""
    return _quantized(self, scale, zero_point, quant_min, quant_max), *outs[1:]


def _fake_quantize_by_channel(
    self: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
    outs: Sequence[Tensor],
) -> Any:
    shape = [-1 if d == axis % self.ndim else 1 for d in range(self.ndim)]
    steps = _quantized(self, scale.reshape(shape), zero_point.reshape(shape), quant_min, quant_max)
    return steps, *outs[1:]


DEFINITIONS: Definitions = {
    "_standard_gamma": _standard_gamma,
    "fake_quantize_per_tensor_affine_cachemask": _fake_quantize,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _fake_quantize,
    "fake_quantize_per_channel_affine_cachemask": _fake_quantize_by_channel,
}
