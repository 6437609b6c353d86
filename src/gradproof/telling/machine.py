"""JSON for machines: one object, `schema` 2, described in docs/report.schema.json."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import exact
from ..causes import plain as cause_of
from ..dtypes import DTYPES
from ..judging.verdicts import rounded
from . import Failure
from .words import ranked

if TYPE_CHECKING:
    from ..report import Numbers, Report
    from ..verdict import Finding

Json = dict[str, Any]  # one object of JSON
Nested = Any  # numbers, or lists of them, nested


FIELDS = (
    "kind", "node", "wrt", "formula", "exact", "value", "ulp", "allowed_ulp", "error", "index", "verdict",
    "note", "inherited", "entries", "refuted", "cancelled", "sensitivity", "place", "rung",
)  # fmt: skip


def render(reports: Sequence[Report], errors: Sequence[Failure] = (), *, full: bool = False) -> str:
    """The reports as one JSON object; numbers that JSON cannot hold are the texts "nan", "inf" and "-inf".

    With `full`, every report has `gradients` and `local` with all entries, and of parameters the exact
    gradient as texts too.
    """
    counts = Counter(report.verdict.value for report in reports)
    whole = {
        "schema": 2,
        "reports": [{**_report(report), **(_entries(report) if full else {})} for report in reports],
        "errors": [{"target": target, "message": message} for target, message in errors],
        "ok": bool(reports) and not errors and all(report.ok for report in reports),
        "counts": dict(sorted(counts.items())),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)


def _report(report: Report) -> Json:
    expect = report.expected
    return {
        "target": report.target, "title": report.title, "engine": report.engine, "dtype": report.dtype,
        "verdict": report.verdict.value, "ok": report.ok,
        "expected": None if expect is None else {"verdict": expect.verdict, "node": expect.node},
        "sensitivity": report.sensitivity,
        "findings": [row(finding, report.dtype) for finding in report.findings],
        "exercised": list(report.exercised), "not_exercised": list(report.not_exercised),
        "remarks": list(report.remarks), "traceback": report.traceback, "seconds": round(report.seconds, 4),
    }  # fmt: skip


def _entries(report: Report) -> Json:
    decimals = decimals_of(report)
    return {
        "gradients": {
            name: {**_numbers(numbers), "decimals": decimals[name].tolist() if name in decimals else None}
            for name, numbers in report.gradients.items()
        },
        "local": [
            {"node": node, "wrt": wrt, **_numbers(numbers)} for (node, wrt), numbers in report.local.items()
        ],
    }


def decimals_of(report: Report) -> dict[str, np.ndarray]:
    """Of each parameter the exact gradient as texts, to as many digits as are proved, at the numbers that the
    dtype holds."""
    if report.problem is None or not report.gradients or report.dtype not in DTYPES:
        return {}
    point = {name: rounded(value, DTYPES[report.dtype]) for name, value in report.problem.point.items()}
    found = exact.gradients(replace(report.problem, point=point))
    return {name: each.decimals for name, each in found.items()}


def _numbers(numbers: Numbers) -> Json:
    arrays = {"exact": numbers.exact, "engine": numbers.engine, "ulp": numbers.ulp}
    return {**{key: None if a is None else nested(a) for key, a in arrays.items()}, "probed": numbers.probed}


def nested(array: np.ndarray) -> object:
    """An array as JSON's lists."""
    flat = np.array([plain(float(x)) for x in array.reshape(-1)], dtype=object)
    return flat.reshape(array.shape).tolist() if array.ndim else flat[0]


def row(finding: Finding, dtype: str) -> dict[str, Any]:
    """A finding, every field by its name; of a wrong number how wrong it is, and to how many digits it is
    right."""
    rank, digits = ranked(finding, dtype) or (None, None)
    told = {name: getattr(finding, name) for name in FIELDS}
    causes = [cause_of(cause) for cause in finding.causes]
    return _holdable(told | {"causes": causes, "rank": rank, "digits": digits})


def _holdable(thing: Any) -> Any:
    """As JSON holds it."""
    if isinstance(thing, dict):
        return {key: _holdable(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [_holdable(value) for value in thing]
    return plain(thing) if isinstance(thing, float) else thing


def plain(value: float | None) -> float | str | None:
    """A number as JSON holds it; one that it cannot hold is a text."""
    if value is None:
        return None
    return value if math.isfinite(value) else str(value)
