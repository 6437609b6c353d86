"""Layers whose kernels compute in a way of their own: recurrent, normalised, attending; and steps that torch
drew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .plain import Definitions, NotDefinedError, plainly
from .reductions import safe_softmax


def _lstm_layer(
    input: Tensor,
    weight0: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    weight3: Tensor,
    hx_: Tensor,
    cx_: Tensor,
    reverse: bool,
    mode: int,
    has_biases: bool,
    outs: Sequence[Tensor],
) -> Any:
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
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    eps: float,
    outs: Sequence[Tensor],
) -> Any:
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


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,
    attn_mask: Tensor | None,
    scale: float | None,
    outs: Sequence[Tensor],
) -> Any:
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
    return safe_softmax(scores, -1, None) @ value, outs[1]


def _grouped_mm(self: Tensor, mat2: Tensor, offs: Tensor | None, bias: Tensor | None) -> Tensor:
    """Products of matrices, a group after the other: of both operands' batches, or of the rows, columns or
    summed places up to each offset."""
    if bias is not None:
        raise NotDefinedError("bias=")
    if offs is None:
        return self @ mat2
    with plainly():
        stops = [0, *offs.tolist()]
    groups = list(enumerate(pairwise(stops)))
    if self.ndim == 2 and mat2.ndim == 2:
        return torch.stack([self[:, a:b] @ mat2[a:b] for _, (a, b) in groups])
    if self.ndim == 2:
        made = torch.cat([self[a:b] @ mat2[n] for n, (a, b) in groups])
        missing = len(self) - len(made)
    else:
        made = torch.cat([self[n] @ mat2[:, a:b] for n, (a, b) in groups], -1)
        missing = mat2.shape[-1] - made.shape[-1]
    if missing:
        raise NotDefinedError("offsets that leave some of it out")
    return made


DEFINITIONS: Definitions = {
    "_grouped_mm": _grouped_mm,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "mkldnn_rnn_layer": _lstm_layer,
    "frexp": _frexp,
    "nextafter": _nextafter,
    "rrelu_with_noise": _rrelu,
    "native_layer_norm": _layer_norm,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
}
