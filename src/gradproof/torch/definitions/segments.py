"""Rows that indices choose, and what is reduced over bags and segments of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .plain import Definitions, NotDefinedError, plainly


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
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool,
    mode: int,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int,
    outs: Sequence[Tensor],
) -> Any:
    if scale_grad_by_freq:
        raise NotDefinedError("scale_grad_by_freq=True: what it passes on is not the derivative")
    with plainly():
        starts = offsets.tolist()
        ends = [*starts[1:], len(indices)]
        if include_last_offset:
            starts, ends = starts[:-1], starts[1:]
        places = indices.tolist()
        padding = padding_idx % len(weight) if padding_idx >= 0 else None
        kept = [[n for n in range(a, b) if places[n] != padding] for a, b in zip(starts, ends, strict=True)]
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
    made = []
    for a, b in pairwise(ends):
        part = data[a:b]
        if initial is not None and b > a:
            if reduce == "mean":
                made.append((part.sum(0) + initial) / (b - a))
                continue
            part = torch.cat([data.new_full((1, *rest), initial), part], 0)
        made.append(_bagged([part], reduce, data.new_full(rest, start))[0])
    return torch.stack(made, 0)


def _embedding(weight: Tensor, indices: Tensor, padding_idx: int) -> Any:
    """The row of `padding_idx` is not learned: its entries are constants, by torch's own definition."""
    if padding_idx < 0:
        return NotImplemented
    with plainly():
        constant = weight[padding_idx].clone()
    rows = torch.cat([weight[:padding_idx], constant.unsqueeze(0), weight[padding_idx + 1 :]])
    return rows.index_select(0, indices.reshape(-1)).reshape(*indices.shape, *weight.shape[1:])


DEFINITIONS: Definitions = {
    "_embedding_bag": _embedding_bag,
    "_embedding_bag_forward_only": _embedding_bag,
    "segment_reduce": _segment_reduce,
    "embedding": _embedding,
}
