"""Discrete Fourier transforms as the sums that define them.

Along each axis `X[k] = Σ_j x[j] exp(∓2πi jk/n)`, one product with a table of cosines and sines, which are
formulas of the two indices and no numbers: π is exact. Whatever way an implementation adds up is near that.
Which entries a real transform of n numbers keeps (⌊n/2⌋ + 1), and that its inverse counts those between the
first and the one in the middle twice, is the definition of `torch.fft.rfft` and `irfft`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sympy
from sympy import Expr, Integer, Piecewise, Rational

from ..errors import UnsupportedError
from ..proof.graph import Read, Shape, bound, free, size, slot
from .tape import Event, Region
from .writing import Writing

ROOT, ALL = 1, 2  # torch's codes: a transform is divided by the root of its size, or by its size


class _Axis:
    """One axis of a transform: how many entries it reads and writes, of which period, and its direction."""

    def __init__(self, period: int, forward: bool) -> None:
        self.period, self.sign = period, -1 if forward else 1

    def table(self, lowering: Writing, out: Shape, into: Shape) -> str:
        """The factors over `(k, part of X, j, part of x)`; an axis of parts is missing where that is real."""
        n, half = self.period, self.period // 2
        jk = np.arange(out[0])[:, None] * np.arange(into[0])
        parts = lowering.constant((jk + half) % n - half)  # angles of at most π have the least rounding
        reads = [Read(parts, (free(0), free(len(out))))]
        cosine, sine = (f(2 * sympy.pi * slot(0) / n) for f in (sympy.cos, sympy.sin))
        turned = self.sign * sine
        formula: Expr = _either(free(len(out) + 1), cosine, -turned) if len(into) == 2 else cosine
        if len(out) == 2:
            lower = _either(free(3), turned, cosine) if len(into) == 2 else turned
            formula = _either(free(1), formula, lower)
        else:
            times = np.full(into[0], 2.0)  # each stands for its conjugate too, but for these
            times[[0, *([half] if n % 2 == 0 and half < into[0] else [])]] = 1.0
            reads.append(Read(lowering.constant(times), (free(1),)))
            formula = slot(1) * formula
        return lowering.emit(formula, tuple(reads), (*out, *into), source="exp(2*pi*i*j*k/n)")


def _either(part: Expr, first: Expr, second: Expr) -> Expr:
    return Piecewise((first, part < sympy.S.Half), (second, True))


def _along(
    lowering: Writing,
    name: str,
    shape: Shape,
    axis: int,
    pair_in: bool,
    pair_out: bool,
    transform: _Axis,
    count: int,
) -> tuple[str, Shape]:
    """The transform along an axis of a node, whose last axis has the parts where it is of pairs."""
    n = shape[axis]
    into = (n, 2) if pair_in else (n,)
    out = (count, 2) if pair_out else (count,)
    table = transform.table(lowering, out, into)
    lead = len(shape) - (1 if pair_in else 0)
    made = (*shape[:axis], count, *shape[axis + 1 : lead], *((2,) if pair_out else ()))
    mine = [free(d) for d in range(lead)]
    k, j = mine[axis], bound(0)
    mine[axis] = j
    index = (*mine, *((bound(1),) if pair_in else ()))
    parts_out = (free(lead),) if pair_out else ()
    parts_in = (bound(1),) if pair_in else ()
    reads = (Read(name, index), Read(table, (k, *parts_out, j, *parts_in)))
    node = lowering.emit(slot(0) * slot(1), reads, made, over=into, reduce="sum", source="Fourier sum")
    return node, made


def _scaled(lowering: Writing, name: str, shape: Shape, count: int, how: int) -> str:
    if how not in (ROOT, ALL) or count == 1:
        return name
    factor = 1 / sympy.sqrt(Integer(count)) if how == ROOT else Rational(1, count)
    return lowering.emit(
        slot(0) * factor, (Read(name, tuple(map(free, range(len(shape))))),), shape, source="scale"
    )


def _start(lowering: Writing, region: Region) -> tuple[str, Shape]:
    name = lowering.copy(region)
    return name, region.shape


def _c2c(lowering: Writing, event: Event, targets: list[Region]) -> None:
    a = event.arguments
    source = a["self"]
    name, shape = _start(lowering, source)
    rank = len(shape) - 1
    axes = [d % rank for d in a["dim"]]
    for axis in axes:
        transform = _Axis(shape[axis], a["forward"])
        name, shape = _along(lowering, name, shape, axis, True, True, transform, shape[axis])
    count = size(tuple(shape[axis] for axis in axes))
    lowering.write(targets[0], _scaled(lowering, name, shape, count, a["normalization"]))


def _r2c(lowering: Writing, event: Event, targets: list[Region]) -> None:
    a = event.arguments
    name, shape = _start(lowering, a["self"])
    axes = [d % len(shape) for d in a["dim"]]
    total = size(tuple(shape[axis] for axis in axes))
    *others, last = axes
    n = shape[last]
    kept = n // 2 + 1 if a["onesided"] else n
    name, shape = _along(lowering, name, shape, last, False, True, _Axis(n, True), kept)
    for axis in others:
        name, shape = _along(lowering, name, shape, axis, True, True, _Axis(shape[axis], True), shape[axis])
    lowering.write(targets[0], _scaled(lowering, name, shape, total, a["normalization"]))


def _c2r(lowering: Writing, event: Event, targets: list[Region]) -> None:
    a = event.arguments
    name, shape = _start(lowering, a["self"])
    rank, n = len(shape) - 1, int(a["last_dim_size"])
    *others, last = [d % rank for d in a["dim"]]
    for axis in others:
        name, shape = _along(lowering, name, shape, axis, True, True, _Axis(shape[axis], False), shape[axis])
    if shape[last] < n // 2 + 1:
        raise UnsupportedError("an inverse real transform of fewer entries than its length asks for")
    name, shape = _along(lowering, name, shape, last, True, False, _Axis(n, False), n)
    total = size(tuple(shape[axis] for axis in (*others, last)))
    lowering.write(targets[0], _scaled(lowering, name, shape, total, a["normalization"]))


TRANSFORMS: dict[str, Callable[[Writing, Event, list[Region]], None]] = {
    "_fft_c2c": _c2c,
    "_fft_r2c": _r2c,
    "_fft_c2r": _c2r,
}
