"""Cotangents judged: each entry by itself, and the entries at a kink together.

The one way from what was pulled back to verdicts, for every door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from flint import arb

from ..causes import NoSubgradient
from ..dtypes import DTYPES, DType
from ..proof.arithmetic import rounding
from ..proof.balls import UNIT, Balls, balls, centres, radii
from ..proof.enclosure import Enclosures, Pulled, Ties, count_of
from ..proof.graph import Lookup, Node, size, slot
from ..verdict import Judgement, Rung, Verdict
from .verdicts import Comparison, judge

Arrays = Mapping[str, np.ndarray]


def judge_pulled(
    values: Mapping[str, np.ndarray | None], pulled: Mapping[str, Pulled], dtypes: Mapping[str, DType]
) -> dict[str, Judgement]:
    """The judgement of each target's cotangent that there is; an array has the shape of what was pulled for
    it.

    Entries at a kink are also judged as one vector, over all targets: both sides of a tie may get any shares
    of one, and not one each.
    """
    here = {name: value for name, value in values.items() if value is not None}
    found = {
        name: judge(
            Comparison(value, pulled[name].exact, pulled[name].rounding, pulled[name].kinks), dtypes[name]
        )
        for name, value in here.items()
    }
    ties = next((pulled[name].ties for name in found if pulled[name].ties is not None), None)
    if ties is None or not any(judged.verdict is Verdict.KINK for judged in found.values()):
        return found
    if any(value.shape != pulled[name].exact.shape for name, value in here.items()):
        return found
    at = next(pulled[name].at for name in found)
    if at is not None:
        return _together(found, ties, at, here, pulled, dtypes)
    count = min(count_of(ties.rows), *(len(pulled[name].exact) for name in found))
    for row in range(count):
        single = {name: pulled[name].row(row) for name in here}
        found = _together(
            found, ties, row, {name: value[row] for name, value in here.items()}, single, dtypes
        )
    return found


def _together(
    found: dict[str, Judgement],
    ties: Ties,
    row: int,
    values: Arrays,
    pulled: Mapping[str, Pulled],
    dtypes: Mapping[str, DType],
) -> dict[str, Judgement]:
    """The judgements, with those wrong whose entries are no subgradient together."""
    vector, reach, start = np.zeros(len(ties.places)), np.zeros(len(ties.places)), 0
    for name, shape in ties.run.targets.items():
        part, start = slice(start, start + size(shape)), start + size(shape)
        if name in values:
            expected = pulled[name]
            vector[part] = values[name].reshape(-1)
            reach[part] = _reach(expected, dtypes[name]).reshape(-1)
        elif ties.kinks[row, part].any():
            return found  # what is not known may make up for the rest
    refuted = ties.refuted(row, vector, reach) if np.isfinite(vector).all() else None
    if refuted is None:
        return found
    columns, along, most = refuted
    why = NoSubgradient(len(columns), along, most)
    names = {ties.places[column][0] for column in columns}
    return {
        name: replace(judged, verdict=Verdict.WRONG, causes=(why,), refuted=len(columns))
        if name in names and judged.verdict.passes
        else judged
        for name, judged in found.items()
    }


FEW_OPERATIONS = 2  # a product of matrices and what is added to it
FUSED = DTYPES["float32"]  # what kernels for 16 bits compute in, from end to end, before they round once


@lru_cache
def kernels(dtype: DType) -> tuple[Enclosures, ...]:
    return Enclosures(dtype, FUSED), Enclosures(FUSED)


def sums_in(nodes: Sequence[Node], dtype: DType, *, back: bool) -> int:
    """Of how many operations a value that is a sum of 16-bit numbers is made, or with `back` what is passed
    on; 0 where it is none."""
    found = dtype.additions is not None and any(_adds(node, back) for node in nodes)
    return sum(node.formula is not slot(0) or bool(node.over) for node in nodes) or 1 if found else 0


def _adds(node: Node, back: bool) -> bool:
    if node.reduce == "sum" and size(node.over) > 1:
        return True
    for read in node.reads if back else ():
        used = {symbol for index in read.index for symbol in index.free_symbols}
        spread = zip(node.indices, node.domain, strict=True)
        if any(extent > 1 and symbol not in used for symbol, extent in spread):
            return True
        if any(index.has(Lookup) for index in read.index):
            return True
    return False


def explained(
    judged: Judgement,
    value: np.ndarray,
    by: Callable[[Enclosures], Pulled],
    dtype: DType,
    *,
    sums: int = 0,
) -> Judgement:
    """The judgement, or a better one by a kernel of 16 bits; `by` gives what is expected of the value by some
    rounding. Of `sums` of so many operations it is told how well they were taken.

    Operation by operation in 16 bits anything may come out of a formula. Kernels compute their sums in
    float32, or all of it, and then round once: what they give is explained all the same.
    """
    if dtype.precision >= FUSED.precision:
        return judged
    for held in kernels(dtype):
        if judged.verdict is not Verdict.UNDECIDED:
            break
        narrow = _rounded_once(value, by(held), dtype)
        judged = narrow if narrow.verdict.passes else judged
    return replace(judged, rung=_rung(judged, value, by, dtype, sums)) if sums else judged


def _rung(
    judged: Judgement, value: np.ndarray, by: Callable[[Enclosures], Pulled], dtype: DType, sums: int
) -> Rung | None:
    """How well a sum was taken. What several operations have rounded in 16 bits may be no sum's fault, and of
    many (a softmax's, a layer's) none is told by the result."""
    if judged.verdict is Verdict.EXACT:
        return Rung.CORRECT
    if judged.verdict is not Verdict.ROUNDING or sums > FEW_OPERATIONS:
        return None
    if _rounded_once(value, by(kernels(dtype)[1]), dtype).verdict.passes:
        return Rung.WELL
    return Rung.HALF if sums == 1 else None


def _rounded_once(value: np.ndarray, inner: Pulled, dtype: DType) -> Judgement:
    """The judgement of what a kernel has computed so, and then rounded once."""
    once = np.asarray(rounding(dtype).multiply(inner.rounding, UNIT), object)
    return judge(Comparison(value, inner.exact, once, inner.kinks), dtype)


MADE_OF = 64  # units of roundoff: what the numbers between two steps have, as logarithms of probabilities
FAR = 1000  # times the rounding: an error beside which rounding is of no account


def astray(value: np.ndarray, expected: Pulled, dtype: DType) -> Balls | None:
    """By how much each entry is off, up to rounding; None where that is not known."""
    middle, centre, reach = centres(expected.exact), centres(expected.rounding), radii(expected.rounding)
    known = [np.isfinite(part).all() for part in (value, middle, centre, reach)]
    if not all(known) or value.shape != middle.shape or (expected.kinks is not None and expected.kinks.any()):
        return None
    passes = np.abs(value - centre) <= reach
    return error_of(value - middle, reach + np.abs(centre - middle), passes, dtype)


def error_of(off: np.ndarray, reach: np.ndarray, passes: np.ndarray, dtype: DType) -> Balls | None:
    """An error and the rounding that is in it, and in the numbers that it is made of. Where it is not far
    more than that, it is taken as it is, and what rounding explains for none."""
    if not (np.isfinite(off).all() and np.isfinite(reach).all()):
        return None
    if FAR * float(np.max(reach, initial=0.0)) <= float(np.max(np.abs(off), initial=0.0)):
        reach = reach + MADE_OF * dtype.unit_roundoff * np.abs(off)
        return np.asarray(balls(off) + balls(reach) * arb(0, 1), object)
    return balls(np.where(passes, 0.0, off))


def _reach(expected: Pulled, dtype: DType) -> np.ndarray:
    """What rounding allows each entry beside its set of one-sided derivatives."""
    with np.errstate(invalid="ignore"):
        middle, width = centres(expected.exact), radii(expected.exact)
        slack = np.abs(centres(expected.rounding) - middle) + radii(expected.rounding) - width
        least = 64 * dtype.unit_roundoff * (np.abs(middle) + width)
    return np.maximum(np.where(np.isfinite(slack), slack, 0.0), np.where(np.isfinite(least), least, 0.0))
