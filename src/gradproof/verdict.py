"""Verdicts and findings: plain records, which need nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

from . import display
from .causes import Cause

if TYPE_CHECKING:
    import numpy as np


class Verdict(StrEnum):
    """From best to worst."""

    EXACT = "exact"
    ROUNDING = "rounding"
    KINK = "kink"
    UNSUPPORTED = "unsupported"
    UNDECIDED = "undecided"
    WRONG = "wrong"
    FAILED = "failed"

    @property
    def passes(self) -> bool:
        return self in (Verdict.EXACT, Verdict.ROUNDING, Verdict.KINK)

    @property
    def severity(self) -> int:
        return _SEVERITIES[self]


_SEVERITIES = {verdict: severity for severity, verdict in enumerate(Verdict)}


class Rung(StrEnum):
    """How well a sum of 16-bit numbers was taken, from best to worst."""

    CORRECT = "correctly rounded"
    WELL = "held in float32 and rounded once"
    HALF = "held in 16 bits"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them; of nothing it is undecided, because nothing compared is not a pass."""
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.UNDECIDED)


@dataclass(frozen=True)
class Finding:
    """One comparison, told by its worst entry.

    `kind` is "forward" (the line's value), "local" (the line's own gradient by one parent), "gradient" (the
    chained gradient that arrived at a name) "tangent" (what forward mode made of a
    node's value) or "contract" (a clause of what a backward promises, which is the node then). `exact`
    and `value` are the reference's and the engine's number at `index`; `ulp` is their distance and
    `allowed_ulp` the distance that rounding explains, both in units
    in the last place of the dtype at `exact`. `error` is the relative distance; for a gradient, that to the
    exact gradient from the leaves. `sensitivity` is the smallest relative error that would have been caught
    in every entry that is not zero by cancellation. `place` is the user's file and line, where a function was
    recorded. `rung` is of sums of 16-bit numbers that pass.
    """

    kind: str
    node: str
    wrt: str | None
    formula: str
    exact: float | None
    value: float | None
    ulp: float | None
    allowed_ulp: float | None
    index: tuple[int, ...]
    verdict: Verdict
    causes: tuple[Cause, ...] = ()
    error: float | None = None
    sensitivity: float | None = None
    entries: int = 1
    refuted: int = 0
    cancelled: int = 0
    inherited: bool = False
    place: str = ""
    rung: Rung | None = None

    @property
    def note(self) -> str:
        """The causes in words."""
        return display.telling().said(self.causes) if self.causes else ""


@dataclass(frozen=True)
class Judgement:
    """The outcome of a comparison; the numbers are those of the worst entry."""

    verdict: Verdict
    exact: float | None
    value: float | None
    ulp: float | None
    allowed_ulp: float | None
    index: tuple[int, ...]
    causes: tuple[Cause, ...] = ()
    error: float | None = None
    sensitivity: float | None = None
    entries: int = 0
    refuted: int = 0
    cancelled: int = 0
    rung: Rung | None = None


def bare_finding(kind: str, node: str, verdict: Verdict, *causes: Cause, inherited: bool = False) -> Finding:
    """A finding without numbers."""
    return Finding(kind, node, None, "", None, None, None, None, (), verdict, causes, inherited=inherited)


def bare(verdict: Verdict, *causes: Cause) -> Judgement:
    """A judgement without numbers."""
    return Judgement(verdict, None, None, None, None, (), causes)


def as_finding(kind: str, node: str, wrt: str | None, formula: str, judged: Judgement) -> Finding:
    """A judgement as a finding."""
    return Finding(kind, node, wrt, formula, **{f.name: getattr(judged, f.name) for f in fields(judged)})


def as_judgement(finding: Finding) -> Judgement:
    """A finding's judgement."""
    return Judgement(**{f.name: getattr(finding, f.name) for f in fields(Judgement)})


@dataclass(frozen=True, eq=False)
class Numbers:
    """All entries of a derivative, in arrays of one shape.

    `exact` are the floats nearest to the exact numbers, NaN where there is none; `engine` what the engine
    gave, None where it gave nothing that fits; `ulp` their distance in units in the last place of the dtype.
    A local gradient has the line's axes and then the parent's; where it was `probed`, it is the gradient of
    the line's contraction with one cotangent, in the parent's shape: a random one, or the one that arrived
    there, of a recorded function.
    """

    exact: np.ndarray
    engine: np.ndarray | None
    ulp: np.ndarray | None
    probed: bool = False
