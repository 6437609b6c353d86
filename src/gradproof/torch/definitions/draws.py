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


def _sample_dirichlet(self: Tensor, outs: Sequence[Tensor]) -> Tensor:
    """Of a draw x the entry i has by itself the distribution Beta(a, b) of its own parameter a and the sum b
    of the others, which stays: so that it moves as of the one draw from a gamma distribution that a is the
    parameter of, and the others make room for it in proportion."""
    (x,) = outs
    moved = _beta_moved(self, x)
    return x + moved - x * ((moved / (1 - x)).sum(-1, keepdim=True) - moved / (1 - x))


def _beta_moved(a: Tensor, x: Tensor) -> Tensor:
    """0, with the derivative of Beta(a, b)'s draws x by a: `-∂I(x; a, b)/∂a` over the density. The share I is
    `x^a (1 - x)^b Σ x^n Γ(a + b + n)/(Γ(b) Γ(a + n + 1))` (DLMF 8.17); for x beyond 1/2 it is 1 less that of
    1 - x, with a and b exchanged."""
    with plainly():
        b = a.sum(-1, keepdim=True) - a
        if bool(((x <= 0) | (x >= 1)).any()):
            raise NotDefinedError("a draw of 0 or 1")
        near = x <= 0.5
        low = torch.where(near, x, 1 - x).unsqueeze(-1)
        n = torch.arange(150 + 4 * math.ceil(float((a + b).max())), dtype=x.dtype)
        if len(n) > MAX_TERMS:
            raise NotDefinedError("a draw of large parameters")
        log, rest, still = torch.log(low), torch.log1p(-low), b.unsqueeze(-1)
        density = torch.exp(
            torch.lgamma(a + b)
            - torch.lgamma(a)
            - torch.lgamma(b)
            + (a - 1) * x.log()
            + (b - 1) * (-x).log1p()
        )
    p = a.unsqueeze(-1)
    one, other = torch.where(near.unsqueeze(-1), p, still), torch.where(near.unsqueeze(-1), still, p)
    terms = (one + n) * log + other * rest + torch.lgamma(one + other + n)
    share = torch.exp(terms - torch.lgamma(other) - torch.lgamma(one + n + 1)).sum(-1)
    return -moved_by(torch.where(near, share, -share)) / density


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
    "_sample_dirichlet": _sample_dirichlet,
    "_standard_gamma": _standard_gamma,
    "fake_quantize_per_tensor_affine_cachemask": _fake_quantize,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _fake_quantize,
    "fake_quantize_per_channel_affine_cachemask": _fake_quantize_by_channel,
}
