"""Who is to blame for a wrong number, and what the mistake looks like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..dtypes import DTYPES, DType
from ..proof.arithmetic import Balls, centres
from ..proof.graph import Graph, Node, lines
from ..verdict import Finding, Judgement, Verdict


def chained(step: Judgement, whole: Judgement) -> Judgement:
    """A gradient's judgement: its own step's verdict, beside the exact gradient from the leaves.

    A step that holds while the whole is wrong is inherited, or a kink that cancels: every piece has a
    derivative that convention allows, and the function is smooth with another one.
    """
    if step.verdict in (Verdict.WRONG, Verdict.FAILED):
        return step
    if (
        step.verdict is Verdict.KINK
        and whole.exact is None
        and whole.value is not None
        and np.isfinite(whole.value)
    ):
        # Not smooth as a whole either; where several kinks meet, the one-sided derivatives do not span all
        # there is.
        return step
    if whole.verdict is Verdict.WRONG:
        cancels = (
            "the pieces have kinks here, but the whole function is smooth"
            if step.verdict is Verdict.KINK
            else ""
        )
        note = "; ".join(part for part in (whole.note, cancels) if part)
        return replace(whole, sensitivity=step.sensitivity, note=note)
    if step.verdict is Verdict.KINK:
        return whole if whole.verdict in (Verdict.EXACT, Verdict.ROUNDING) else step
    if step.verdict is Verdict.UNDECIDED:
        return whole if whole.verdict.passes else step
    if whole.verdict is Verdict.UNDECIDED:
        return step
    # The step decides; `exact` means correctly rounded against the leaves.
    verdict = Verdict.EXACT if whole.verdict is Verdict.EXACT else Verdict.ROUNDING
    return replace(whole, verdict=verdict, sensitivity=step.sensitivity, cancelled=step.cancelled, refuted=0)


def with_origins(findings: list[Finding], graph: Graph) -> list[Finding]:
    """Mark what is inherited: a gradient that is off although its own step holds, or whose reader is to
    blame."""
    wrong = {f.node for f in findings if f.verdict is Verdict.WRONG}
    below: dict[str, str] = {}
    for line in reversed(lines(graph)):
        source = line.name if line.name in wrong else below.get(line.name)
        if source:
            for parent in line.parents:
                below.setdefault(parent, source)
    forward = next((f.node for f in findings if f.kind == "forward" and f.verdict is Verdict.WRONG), None)
    reader = {(f.verdict, f.wrt): f.node for f in findings if f.kind == "local"}
    marked = []
    for finding in findings:
        origin = None
        if finding.kind == "gradient" and not finding.inherited and finding.verdict in _INHERITABLE:
            origin = reader.get((finding.verdict, finding.node))
            if origin is None and finding.verdict is Verdict.WRONG:
                origin = below.get(finding.node) or forward
        if origin is not None:
            told = f"inherited from {origin}" if finding.verdict is Verdict.WRONG else ""
            note = "; ".join(part for part in (finding.note, told) if part)
            finding = replace(finding, inherited=True, note=note)
        marked.append(finding)
    if wrong and all(f.inherited for f in marked if f.verdict is Verdict.WRONG):
        # What it is inherited from is no fault of its own: a singular point. Then it is told here.
        marked = [replace(f, inherited=False) if f.verdict is Verdict.WRONG else f for f in marked]
    return marked


_INHERITABLE = (Verdict.WRONG, Verdict.UNDECIDED, Verdict.KINK)


def lost_use(gradient: np.ndarray, parts: Sequence[tuple[str, Balls]]) -> str:
    """Whether a gradient is what one child passed, and the others' parts are missing."""
    if len(parts) < 2:
        return ""
    for name, part in parts:
        if (
            gradient.shape == part.shape
            and np.allclose(gradient, centres(part), rtol=1e-3, atol=0)
            and gradient.any()
        ):
            others = ", ".join(other for other, _ in parts if other != name)
            return f"only the part from {name} arrived; that from {others} is lost or overwritten"
    return ""


MAX_USES = 8  # of a name that are told apart
ANOTHER = "another"  # the name of one use, apart from the others

Tried = Iterator[tuple[str, np.ndarray]]  # a mistake in words, and the cotangent that it would have given


@dataclass(frozen=True, eq=False)
class Clues:
    """What a mistake may have come from: the extents of the tensors around, and what the derivative may be
    mistaken for.

    `candidates` are arrays with the words for them: what would have come out if a known mistake had been
    made.
    """

    dtype: DType | None = None
    extents: tuple[int, ...] = ()
    candidates: tuple[tuple[str, np.ndarray], ...] = ()


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
        yield f"one of {len(places)} uses is lost, or overwritten: {where}", pulled(parted, name)
        only = f"of {len(places)} uses only one arrived, the others are lost or overwritten: {where}"
        yield only, pulled(parted, ANOTHER)


def likeness(value: np.ndarray | None, expected: Balls, clues: Clues | None = None) -> str:
    """Known mistakes that a wrong array looks like, in words; empty for none."""
    if value is None or not np.isfinite(value).all():
        return ""
    right = centres(expected)
    if right.shape != value.shape or not np.isfinite(right).all() or not right.any():
        return ""
    if not value.any():
        return "it is zero"
    clues = clues or Clues()
    near = 1e-3 if clues.dtype is None else max(1e-3, 64 * clues.dtype.unit_roundoff)
    if right.ndim >= 2 and right.shape[-1] == right.shape[-2]:
        turned = np.swapaxes(right, -1, -2)
        if _alike(value, turned, near) and not _alike(value, right, near):
            return "it is transposed"
    found = [_factor(value, right, clues)]
    for words, candidate in clues.candidates:
        fits = candidate.shape == value.shape and candidate.any() and _alike(value, candidate, near)
        if fits and not _alike(candidate, right, near):
            # A factor that means nothing is a coincidence then.
            found = [*(factor for factor in found if factor.endswith((")", "wrong"))), words]
            break
    return "; or ".join(part for part in found if part) or _lower_precision(value, right, clues.dtype)


def _alike(a: np.ndarray, b: np.ndarray, near: float) -> bool:
    """Whether two arrays are the same, but for rounding at the scale of the larger entries."""
    return bool(np.allclose(a, b, rtol=near, atol=near * 1e-3 * float(np.abs(b).max())))


def _factor(value: np.ndarray, right: np.ndarray, clues: Clues) -> str:
    at = np.abs(right) > 1e-6 * np.abs(right).max()
    ratios = value[at] / right[at]
    ratio = float(np.median(ratios))
    rounding = 1e-6 if clues.dtype is None else max(1e-6, 64 * clues.dtype.unit_roundoff)
    even = min(rounding, 0.05 * abs(ratio - 1))  # as much the same in every entry as it differs from 1
    if ratio == 0 or not np.allclose(ratios, ratio, rtol=even, atol=0):
        return ""
    if abs(ratio + 1) < rounding:
        return "the sign is wrong"
    if abs(ratio - 1) < (1e-12 if clues.dtype is None else 64 * clues.dtype.unit_roundoff):
        return ""  # some ulp are no factor
    digits = 10 if clues.dtype is None or clues.dtype.precision > 24 else 6
    told = (
        f"a factor of {ratio:.{digits}g}"
        if abs(ratio - 1) > 1e-5
        else f"a factor of 1 {'+' if ratio > 1 else '-'} {abs(ratio - 1):.2g}"
    )
    if abs(ratio - 1) < 1e-2:
        return f"{told}: a constant with too few digits, or one that is not quite right"
    meaning = next(
        (words for words, number in _constants(clues.extents) if abs(ratio / number - 1) < rounding), ""
    )
    return f"{told}{f' ({meaning})' if meaning else ''}"


def _constants(extents: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Numbers that people forget, or put in twice."""
    yield "1/2", 0.5
    plain = [("π", math.pi), ("2π", 2 * math.pi), ("1/π", 1 / math.pi), ("√2", math.sqrt(2)),
             ("1/√2", math.sqrt(0.5)), ("√π", math.sqrt(math.pi)), ("log 2", math.log(2)), ("1/log 2", 1 / math.log(2)),
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


def _lower_precision(value: np.ndarray, right: np.ndarray, dtype: DType | None) -> str:
    """Whether every number fits a coarser format, and is off by that format's rounding."""
    if dtype is None or value.size < 2:
        return ""
    for other in DTYPES.values():
        if other.precision >= dtype.precision:
            continue
        mantissa, _ = np.frexp(value)
        scaled = mantissa * 2.0**other.precision
        if not np.array_equal(scaled, np.round(scaled)):
            continue
        if np.allclose(value, right, rtol=64 * other.unit_roundoff, atol=0):
            return f"every entry is a number of {other.name}: computed in a lower precision"
    near, nearer = (np.allclose(value, right, rtol=2.0**-bits, atol=0) for bits in (20, 32))
    if near and not nearer and dtype.precision > 24:
        return "it is right to some seven digits: computed in float32, or with a constant of too few digits"
    return ""
