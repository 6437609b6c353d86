"""Losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .plain import Definitions, plainly


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
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    reduction: str | None,
    ignore_index: int,
    label_smoothing: float | None,
    outs: Sequence[Tensor],
) -> Any:
    """The loss; the other results are the gradients, which torch stores in the forward."""
    loss = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(input, linear_weight, linear_bias),
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction or "none",
        label_smoothing=label_smoothing or 0.0,
    )
    return (loss, *outs[1:])


def _ctc(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    outs: Sequence[Tensor],
) -> Any:
    """The sum over all alignments, by Graves' forward variables."""
    with plainly():
        times, counts = _listed(input_lengths), _listed(target_lengths)
        pieces = targets if targets.ndim == 2 else targets[: sum(counts)].split(counts)
        rows = [piece[:count].tolist() for piece, count in zip(pieces, counts, strict=True)]
    longest = 2 * max(counts, default=0) + 1
    states = [[blank, *(s for label in labels for s in (label, blank))] for labels in rows]
    states = [[*row, *[blank] * (longest - len(row))] for row in states]
    skips = torch.tensor(
        [[float(k > 1 and s != blank and s != row[k - 2]) for k, s in enumerate(row)] for row in states]
    )
    probs = log_probs.gather(-1, torch.tensor(states).expand(len(log_probs), len(rows), longest)).exp()
    paths, halvings = _alignments(probs, skips.to(probs.dtype), max(times))
    losses = []
    for n, count in enumerate(counts):
        total = paths[times[n] - 1][n][max(2 * count - 1, 0) : 2 * count + 1].sum()
        two = torch.xlogy(0 * total + halvings[times[n] - 1][n, 0], 2.0)  # log(2), exactly
        losses.append(-(total.log() + two))
    return torch.stack(losses), outs[1]


def _listed(lengths: Any) -> list[int]:
    return lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)


def _alignments(probs: Tensor, skips: Tensor, times: int) -> tuple[list[Tensor], list[Tensor]]:
    """The forward variables at each time, scaled by powers of two, so that nothing underflows; and those
    powers."""
    first = (torch.arange(probs.shape[-1]) < 2).to(probs.dtype)
    paths = [probs[0] * first]
    halvings = [torch.zeros(probs.shape[1], 1, dtype=probs.dtype)]
    for t in range(1, times):
        with plainly():
            small = paths[-1].amax(-1, keepdim=True).log2().floor()
            halvings.append(halvings[-1] + small)
            scale = torch.exp2(-small)
        wide = torch.nn.functional.pad(paths[-1] * scale, (2, 0))
        paths.append((wide[:, 2:] + wide[:, 1:-1] + skips * wide[:, :-2]) * probs[t])
    return paths, halvings


DEFINITIONS: Definitions = {
    "binary_cross_entropy_with_logits": _cross_entropy_with_logits,
    "torch_nn::_linear_cross_entropy_batch_chunked": _linear_cross_entropy,
    "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction": _linear_cross_entropy,
    "_ctc_loss": _ctc,
}
