"""Verdicts and findings: plain records, which need nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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
        return list(Verdict).index(self)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of them; of nothing it is undecided, because nothing compared is not a pass."""
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.UNDECIDED)


@dataclass(frozen=True)
class Finding:
    """One comparison, told by its worst entry.

    `kind` is "forward" (the line's value), "local" (the line's own gradient by one parent) or "gradient" (the
    chained gradient that arrived at a name). `exact` and `value` are the reference's and the engine's number
    at `index`; `ulp` is their distance and `allowed_ulp` the distance that rounding explains, both in units
    in the last place of the dtype at `exact`. `error` is the relative distance; for a gradient, that to the
    exact gradient from the leaves. `sensitivity` is the smallest relative error that would have been caught
    in every entry that is not zero by cancellation. `place` is the user's file and line, where a function was
    recorded.
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
    note: str = ""
    error: float | None = None
    sensitivity: float | None = None
    entries: int = 1
    refuted: int = 0
    cancelled: int = 0
    inherited: bool = False
    place: str = ""


@dataclass(frozen=True)
class Judgement:
    """The outcome of a comparison; the numbers are those of the worst entry."""

    verdict: Verdict
    exact: float | None
    value: float | None
    ulp: float | None
    allowed_ulp: float | None
    index: tuple[int, ...]
    note: str = ""
    error: float | None = None
    sensitivity: float | None = None
    entries: int = 0
    refuted: int = 0
    cancelled: int = 0


def bare_finding(kind: str, node: str, verdict: Verdict, note: str, *, inherited: bool = False) -> Finding:
    """A finding without numbers."""
    return Finding(kind, node, None, "", None, None, None, None, (), verdict, note, inherited=inherited)


def as_finding(kind: str, node: str, wrt: str | None, formula: str, judged: Judgement) -> Finding:
    """A judgement as a finding."""
    return Finding(
        kind, node, wrt, formula, judged.exact, judged.value, judged.ulp, judged.allowed_ulp, judged.index,
        judged.verdict, judged.note, judged.error, judged.sensitivity, judged.entries, judged.refuted, judged.cancelled,
    )  # fmt: skip
