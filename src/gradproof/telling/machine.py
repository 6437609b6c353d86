"""JSON for machines: one object, `schema` 1, described in docs/report.schema.json."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import Failure

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """The reports as one JSON object; numbers that JSON cannot hold are the texts "nan", "inf" and "-inf"."""
    counts = Counter(report.verdict.value for report in reports)
    whole = {
        "schema": 1,
        "reports": [_report(report) for report in reports],
        "errors": [{"target": target, "message": message} for target, message in errors],
        "ok": bool(reports) and not errors and all(report.ok for report in reports),
        "counts": dict(sorted(counts.items())),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)


def _report(report: Report) -> dict[str, Any]:
    expect = report.expected
    return {
        "target": report.target,
        "title": report.title,
        "engine": report.engine,
        "dtype": report.dtype,
        "verdict": report.verdict.value,
        "ok": report.ok,
        "expected": None if expect is None else {"verdict": expect.verdict, "node": expect.node},
        "sensitivity": report.sensitivity,
        "findings": [row(finding) for finding in report.findings],
        "exercised": list(report.exercised),
        "not_exercised": list(report.not_exercised),
        "remarks": list(report.remarks),
        "traceback": report.traceback,
        "seconds": round(report.seconds, 4),
    }


def row(finding: Finding) -> dict[str, Any]:
    """A finding, every field by its name."""
    return {
        "kind": finding.kind,
        "node": finding.node,
        "wrt": finding.wrt,
        "formula": finding.formula,
        "exact": plain(finding.exact),
        "value": plain(finding.value),
        "ulp": plain(finding.ulp),
        "allowed_ulp": plain(finding.allowed_ulp),
        "error": plain(finding.error),
        "index": list(finding.index),
        "verdict": finding.verdict.value,
        "note": finding.note,
        "inherited": finding.inherited,
        "entries": finding.entries,
        "refuted": finding.refuted,
        "cancelled": finding.cancelled,
        "sensitivity": plain(finding.sensitivity),
        "place": finding.place,
    }


def plain(value: float | None) -> float | str | None:
    """A number as JSON holds it; one that it cannot hold is a text."""
    if value is None:
        return None
    return value if math.isfinite(value) else str(value)
