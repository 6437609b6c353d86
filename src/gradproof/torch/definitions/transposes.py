"""The backward operations that torch has kernels for: each is linear in the cotangent, the transpose of its
forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .plain import Definitions, plainly


def _convolution(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    groups: int,
    output_mask: Sequence[bool],
) -> list[Tensor]:
    """By the input the other kind of convolution; by the weight one of input and cotangent, a group after the
    other, in which stride and dilation change places."""
    axes = input.ndim - 2
    extents = (padding, stride, dilation)
    padding, stride, dilation = ([*each] * axes if len(each) == 1 else [*each] for each in extents)
    found = []
    if output_mask[0]:
        zeros = [0] * axes
        if not transposed:
            for n in range(axes):
                reached = (grad_output.shape[n + 2] - 1) * stride[n] - 2 * padding[n]
                zeros[n] = input.shape[n + 2] - reached - dilation[n] * (weight.shape[n + 2] - 1) - 1
        more = (stride, padding, dilation, not transposed, zeros, groups)
        found.append(torch.convolution(grad_output, weight, None, *more))
    if output_mask[1]:
        over, under = (grad_output, input) if transposed else (input, grad_output)
        pairs = zip(over.chunk(groups, 1), under.chunk(groups, 1), strict=True)
        swapped = (dilation, padding, stride, False, [0] * axes, 1)
        parts = [
            torch.convolution(a.transpose(0, 1), b.transpose(0, 1), None, *swapped).transpose(0, 1)
            for a, b in pairs
        ]
        whole = torch.cat(parts, 0)
        for n, extent in enumerate(weight.shape[2:], 2):
            whole = whole.narrow(n, 0, extent)
        found.append(whole)
    if output_mask[2]:
        found.append(grad_output.sum((0, *range(2, grad_output.ndim))))
    return found


def _average(axes: int) -> Callable[..., Tensor]:
    """Each window's cotangent, divided by what its sum was, added up at the entries that the window has."""

    def backward(
        grad_output: Tensor,
        self: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Tensor:
        kernel, step, edge = ([*x] * axes if len(x) == 1 else [*x] for x in (kernel_size, stride, padding))
        step = step or kernel
        with plainly():
            windows, counted = [], torch.ones((), dtype=self.dtype)
            for n in range(axes):
                size, extent = self.shape[n - axes], grad_output.shape[n - axes]
                starts = [k * step[n] - edge[n] for k in range(extent)]
                whole = [(start, min(start + kernel[n], size + edge[n])) for start in starts]
                inside = [(max(a, 0), min(b, size)) for a, b in whole]
                windows.append(_windows(inside, size))
                terms = [b - a for a, b in (whole if count_include_pad else inside)]
                counted = counted[..., None] * torch.tensor(terms, dtype=self.dtype)
        shared = grad_output / (counted if divisor_override is None else divisor_override)
        return _spread(shared, windows, axes)

    return backward


def _adaptive(axes: int) -> Callable[..., Tensor]:
    """The same of windows from ⌊i n/m⌋ to ⌈(i + 1) n/m⌉."""

    def backward(grad_output: Tensor, self: Tensor) -> Tensor:
        with plainly():
            windows, counted = [], torch.ones((), dtype=self.dtype)
            for n in range(self.ndim - axes, self.ndim):
                size, extent = self.shape[n], grad_output.shape[n]
                inside = [[i * size // extent, -(-(i + 1) * size // extent)] for i in range(extent)]
                windows.append(_windows(inside, size))
                counted = counted[..., None] * torch.tensor([b - a for a, b in inside], dtype=self.dtype)
        return _spread(grad_output / counted, windows, axes)

    return backward


def _windows(inside: Sequence[Sequence[int]], size: int) -> Tensor:
    """A row of ones and zeros for each window."""
    at = torch.arange(size)
    return torch.stack([((at >= a) & (at < b)).double() for a, b in inside])


def _spread(shared: Tensor, windows: Sequence[Tensor], axes: int) -> Tensor:
    for n, window in enumerate(windows, shared.ndim - axes):
        shared = torch.movedim(torch.movedim(shared, n, -1) @ window.to(shared.dtype), -1, n)
    return shared


def _at_indices(axes: int) -> Callable[..., Tensor]:
    """Each cotangent at the entry that was the largest of its window."""

    def backward(grad_output: Tensor, self: Tensor, indices: Tensor) -> Tensor:
        lead = self.shape[:-axes]
        flat = torch.zeros((*lead, _size(self.shape[-axes:])), dtype=self.dtype)
        moved = flat.scatter_add(-1, indices.reshape(*lead, -1), grad_output.reshape(*lead, -1))
        return moved.reshape(self.shape)

    return backward


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def _replicated(grad_output: Tensor, self: Tensor, padding: Sequence[int]) -> Tensor:
    """Each cotangent at the entry that its place was a copy of."""
    with plainly():
        numbers = torch.arange(self.numel(), dtype=torch.float64).reshape(self.shape)
        places = functional.pad(numbers, tuple(padding), mode="replicate").long()
    return _gathered(grad_output, places, self.shape)


def _nearest(name: str) -> Callable[..., Tensor]:
    """Each cotangent at the entry that was nearest to its place."""
    forward = getattr(torch.ops.aten, name).default

    def backward(
        grad_output: Tensor,
        output_size: Sequence[int],
        input_size: Sequence[int],
        scales: float | None = None,
        scales_d: float | None = None,
        scales_h: float | None = None,
        scales_w: float | None = None,
    ) -> Tensor:
        every = {"scales": scales, "scales_d": scales_d, "scales_h": scales_h, "scales_w": scales_w}
        given = {key: scale for key, scale in every.items() if scale is not None}
        with plainly():
            numbers = torch.arange(_size(input_size), dtype=torch.float64).reshape(tuple(input_size))
            places = forward(numbers, output_size, **given).long()
        return _gathered(grad_output, places, input_size)

    return backward


def _gathered(grad_output: Tensor, places: Tensor, shape: Sequence[int]) -> Tensor:
    flat = torch.zeros(_size(shape), dtype=grad_output.dtype)
    return flat.scatter_add(0, places.reshape(-1), grad_output.reshape(-1)).reshape(tuple(shape))


DEFINITIONS: Definitions = {
    "convolution_backward": _convolution,
    "avg_pool2d_backward": _average(2),
    "avg_pool3d_backward": _average(3),
    "_adaptive_avg_pool2d_backward": _adaptive(2),
    "_adaptive_avg_pool3d_backward": _adaptive(3),
    "adaptive_max_pool2d_backward": _at_indices(2),
    "adaptive_max_pool3d_backward": _at_indices(3),
    "fractional_max_pool2d_backward": _at_indices(2),
    "fractional_max_pool3d_backward": _at_indices(3),
    "max_pool3d_with_indices_backward": _at_indices(3),
    **{f"replication_pad{n}d_backward": _replicated for n in (1, 2, 3)},
    **{
        f"{name}{n}d_backward": _nearest(f"{name}{n}d")
        for name in ("upsample_nearest", "_upsample_nearest_exact")
        for n in (1, 2, 3)
    },
}
