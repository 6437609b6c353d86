"""A large tensor as two pictures: its numbers, and how far the engine's are off. SVG, of which style and
colours are the page's; a text says what is seen."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from . import number
from .page import Tensor
from .words import place

MAX_CELLS = 48  # along a side; a larger one is told by the worst entry of each block
LEVELS = 5
PIXELS = 320


def pictures(tensor: Tensor) -> Iterator[tuple[str, str]]:
    """A caption and a drawing: the exact numbers, and the distances where there are some."""
    largest = float(np.max(np.abs(tensor.exact), initial=0, where=np.isfinite(tensor.exact)))
    yield f"exact numbers; the darkest are ±{number(largest, 3)}", _drawn(tensor, _signed(tensor.exact))
    if tensor.ulp is not None and tensor.worst is not None:
        apart = float(tensor.ulp[tensor.worst])
        at = f"{number(apart, 3)} ulp" if math.isfinite(apart) else "no number"
        yield (
            f"distance in ulp; the worst, {at}, is marked at {place(tensor.worst)}",
            _drawn(tensor, _apart(tensor)),
        )


def _signed(array: np.ndarray) -> np.ndarray:
    """From -1 to 1, by the largest; NaN where there is no number."""
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(array), initial=0, where=np.isfinite(array))) or 1.0
        return np.where(np.isnan(array), np.nan, np.clip(np.nan_to_num(array, nan=0.0) / largest, -1, 1))


def _apart(tensor: Tensor) -> np.ndarray:
    """From 0 to 1 on a logarithmic scale; what is no number is 1, what has no exact number is NaN."""
    ulp = np.asarray(tensor.ulp, dtype=float)
    with np.errstate(all="ignore"):
        scale = np.log1p(np.max(ulp, initial=0, where=np.isfinite(ulp))) or 1.0
        found = np.where(np.isfinite(ulp), np.log1p(np.nan_to_num(ulp)) / scale, 1.0)
    return np.where(np.isnan(tensor.exact), np.nan, found)


def grid(array: np.ndarray) -> np.ndarray:
    """Two axes: of several the first go down and the last across, so that it is nearly a square; a long
    vector is broken into lines, the rest of the last one is NaN."""
    if array.ndim > 1:
        down = [math.prod(array.shape[:n]) for n in range(1, array.ndim)]
        rows = min(down, key=lambda rows: abs(rows * rows - array.size))
        return array.reshape(rows, -1) if rows else array.reshape(0, 1)
    width = array.size if array.size <= MAX_CELLS else math.ceil(math.sqrt(array.size))
    rest = -array.size % max(width, 1)
    return np.concatenate([array.reshape(-1), np.full(rest, np.nan)]).reshape(-1, max(width, 1))


def blocks(cells: np.ndarray) -> np.ndarray:
    """At most `MAX_CELLS` along each side: of each block the entry of the largest magnitude."""
    for axis in (0, 1):
        if cells.shape[axis] > MAX_CELLS:
            parts = np.array_split(cells, MAX_CELLS, axis=axis)
            cells = np.stack([_largest(part, axis) for part in parts], axis=axis)
    return cells


def _largest(part: np.ndarray, axis: int) -> np.ndarray:
    at = np.expand_dims(np.argmax(np.nan_to_num(np.abs(part), nan=-1.0), axis=axis), axis)
    return np.take_along_axis(part, at, axis).squeeze(axis)


def _drawn(tensor: Tensor, values: np.ndarray) -> str:
    cells = blocks(grid(values))
    rows, columns = cells.shape
    levels = np.where(np.isnan(cells), 0, np.sign(cells) * np.ceil(np.abs(np.nan_to_num(cells)) * LEVELS))
    paths = []
    for level in sorted({int(n) for n in levels.reshape(-1)} - {0}):
        places = "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(levels == level))
        paths.append(
            f'<path class="{"minus" if level < 0 else "plus"}" fill-opacity="{abs(level) / LEVELS}" '
            f'd="{places}"/>'
        )
    missing = "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(np.isnan(cells)))
    paths += [f'<path class="none" d="{missing}"/>'] * bool(missing)
    mark = ""
    if tensor.worst is not None:
        full = grid(values).shape
        flat = int(np.ravel_multi_index(tensor.worst, tensor.exact.shape))
        y, x = (_block(n, extent) for n, extent in zip(divmod(flat, full[1]), full, strict=True))
        mark = f'<rect class="worst" x="{x}" y="{y}" width="1" height="1"/>'
    side = max(2, min(16, PIXELS // max(rows, columns)))
    return (
        '<svg class="heat" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="-.2 -.2 {columns + 0.4} {rows + 0.4}" '
        f'width="{columns * side}" height="{rows * side}" aria-hidden="true">'
        f'<rect class="ground" width="{columns}" height="{rows}"/>{"".join(paths)}{mark}</svg>'
    )


def _block(n: int, extent: int) -> int:
    """The block of `np.array_split` that holds the n-th of so many."""
    if extent <= MAX_CELLS:
        return n
    small, more = divmod(extent, MAX_CELLS)
    return n // (small + 1) if n < more * (small + 1) else more + (n - more * (small + 1)) // small
