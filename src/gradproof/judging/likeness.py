"""What a wrong number looks like: known mistakes, tried one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..causes import (
    Cause,
    Conjugated,
    Either,
    Factor,
    FactorInSome,
    LostUse,
    LowerPrecision,
    OnlyPart,
    Transposed,
    Zero,
)
from ..dtypes import DTYPES, DType
from ..proof.balls import Balls, centres
from ..proof.graph import Node


def lost_use(gradient: np.ndarray, parts: Sequence[tuple[str, Balls]]) -> OnlyPart | None:
    """Whether a gradient is what one child passed, and the others' parts are missing."""
    if len(parts) < 2:
        return None
    for name, part in parts:
        if (
            gradient.shape == part.shape
            and np.allclose(gradient, centres(part), rtol=1e-3, atol=0)
            and gradient.any()
        ):
            return OnlyPart(name, tuple(other for other, _ in parts if other != name))
    return None


MAX_USES = 8  # of a name that are told apart
CONJUGATE = np.array([1.0, -1.0])  # of the two parts of a complex number
ANOTHER = "another"  # the name of one use, apart from the others

Tried = Iterator[tuple[Cause, np.ndarray]]  # a mistake, and the cotangent that it would have given


@dataclass(frozen=True, eq=False)
class Clues:
    """What a mistake may have come from: the extents of the tensors around, and what the derivative may be
    mistaken for.

    `candidates` are arrays with the words for them: what would have come out if a known mistake had been
    made.
    """

    dtype: DType | None = None
    extents: tuple[int, ...] = ()
    candidates: tuple[tuple[Cause, np.ndarray], ...] = ()


def uses(nodes: Sequence[Node], name: str, pulled: Callable[[Sequence[Node], str], np.ndarray]) -> Tried:
    """One use of a name alone, and all of its uses but one: what comes of `grad =` where `grad +=` is meant.

    `pulled` gives the cotangent of a name, of nodes in which one use reads `ANOTHER` in its place.
    """
    places = [
        (n, k) for n, node in enumerate(nodes) for k, read in enumerate(node.reads) if read.parent == name
    ]
    if not 1 < len(places) <= MAX_USES:
        return
    for n, k in places:
        used = nodes[n]
        reads = tuple(replace(read, parent=ANOTHER) if j == k else read for j, read in enumerate(used.reads))
        parted = [replace(used, reads=reads) if m == n else node for m, node in enumerate(nodes)]
        where = f"that in {used.source}" if used.source else f"use {n}"
        yield LostUse(len(places), where, only=False), pulled(parted, name)
        yield LostUse(len(places), where, only=True), pulled(parted, ANOTHER)


def likeness(value: np.ndarray | None, expected: Balls, clues: Clues | None = None) -> tuple[Cause, ...]:
    """Known mistakes that a wrong array looks like: one of them, or either; empty for none."""
    if value is None or not np.isfinite(value).all():
        return ()
    right = centres(expected)
    if right.shape != value.shape or not np.isfinite(right).all() or not right.any():
        return ()
    if not value.any():
        return (Zero(),)
    clues = clues or Clues()
    near = 1e-3 if clues.dtype is None else max(1e-3, 64 * clues.dtype.unit_roundoff)
    if right.ndim >= 2 and right.shape[-1] == right.shape[-2]:
        turned = np.swapaxes(right, -1, -2)
        if _alike(value, turned, near) and not _alike(value, right, near):
            return (Transposed(),)
    if right.shape[-1:] == (2,) and _alike(value, right * CONJUGATE, near) and right[..., 1].any():
        return (Conjugated(),)
    factor = _factor(value, right, clues)
    for mistake, candidate in clues.candidates:
        fits = candidate.shape == value.shape and candidate.any() and _alike(value, candidate, near)
        if fits and not _alike(candidate, right, near):
            # A factor that means nothing is a coincidence then.
            return (
                (Either(factor, mistake),)
                if factor and (factor.meaning or factor.ratio == -1)
                else (mistake,)
            )
    return (factor,) if factor else _in_some(value, right) or _lower_precision(value, right, clues.dtype)


def _alike(a: np.ndarray, b: np.ndarray, near: float) -> bool:
    """Whether two arrays are the same, but for rounding at the scale of the larger entries."""
    return bool(np.allclose(a, b, rtol=near, atol=near * 1e-3 * float(np.abs(b).max())))


def _factor(value: np.ndarray, right: np.ndarray, clues: Clues) -> Factor | None:
    at = np.abs(right) > 1e-6 * np.abs(right).max()
    ratios = value[at] / right[at]
    ratio = float(np.median(ratios))
    rounding = 1e-6 if clues.dtype is None else max(1e-6, 64 * clues.dtype.unit_roundoff)
    even = min(rounding, 0.05 * abs(ratio - 1))  # as much the same in every entry as it differs from 1
    if ratio == 0 or not np.allclose(ratios, ratio, rtol=even, atol=0):
        return None
    if abs(ratio + 1) < rounding:
        return Factor(-1.0)
    if abs(ratio - 1) < (1e-12 if clues.dtype is None else 64 * clues.dtype.unit_roundoff):
        return None  # some ulp are no factor
    digits = 10 if clues.dtype is None or clues.dtype.precision > 24 else 6
    if abs(ratio - 1) < 1e-2:
        return Factor(ratio, digits=digits)
    near = (words for words, number in _constants(clues.extents) if abs(ratio / number - 1) < rounding)
    return Factor(ratio, next(near, ""), digits)


def _in_some(value: np.ndarray, right: np.ndarray) -> tuple[Cause, ...]:
    """Whether several entries are so many times the right ones, or a part of that, and the others right."""
    at = np.abs(right) > 1e-6 * np.abs(right).max()
    ratios = np.where(at, value, 1.0) / np.where(at, right, 1.0)
    off = np.abs(ratios - 1) > 1e-6
    if not 1 < int(off.sum()) < int(at.sum()):
        return ()
    ratio = float(np.median(ratios[off]))
    plain = 1 / round(1 / ratio) if 1e-300 < abs(ratio) <= 0.5 else float(round(ratio))
    if not plain or not np.allclose(ratios[off], plain, rtol=1e-6, atol=0):
        return ()
    return (FactorInSome(plain, int(off.sum()), value.size),)


def _constants(extents: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Numbers that people forget, or put in twice."""
    yield "1/2", 0.5
    plain = [("π", math.pi), ("2π", 2 * math.pi), ("1/π", 1 / math.pi), ("√2", math.sqrt(2)),
             ("1/√2", math.sqrt(0.5)), ("√π", math.sqrt(math.pi)), ("log 2", math.log(2)),
                 ("1/log 2", 1 / math.log(2)),
             ("log 10", math.log(10)), ("1/log 10", 1 / math.log(10)), ("e", math.e), ("1/3", 1 / 3),
             ("2/3", 2 / 3)]  # fmt: skip
    for n in sorted(set(extents)):
        if n > 2:
            yield f"n = {n}: the sum in place of the mean, or the reverse", float(n)
            yield f"1/n with n = {n}: the mean in place of the sum, or the reverse", 1 / n
            yield f"n/(n-1) with n = {n}", n / (n - 1)
            yield f"(n-1)/n with n = {n}", (n - 1) / n
            yield f"√n with n = {n}", math.sqrt(n)
            yield f"1/√n with n = {n}", 1 / math.sqrt(n)
    for words, number in plain:
        yield words, number
        yield f"-{words}", -number


def _lower_precision(value: np.ndarray, right: np.ndarray, dtype: DType | None) -> tuple[Cause, ...]:
    """Whether every number fits a coarser format, and is off by that format's rounding."""
    if dtype is None or value.size < 2:
        return ()
    for other in DTYPES.values():
        if other.precision >= dtype.precision:
            continue
        mantissa, _ = np.frexp(value)
        scaled = mantissa * 2.0**other.precision
        if not np.array_equal(scaled, np.round(scaled)):
            continue
        if np.allclose(value, right, rtol=64 * other.unit_roundoff, atol=0):
            return (LowerPrecision(other.name),)
    near, nearer = (np.allclose(value, right, rtol=2.0**-bits, atol=0) for bits in (20, 32))
    return (LowerPrecision(),) if near and not nearer and dtype.precision > 24 else ()
