"""CSV: a row a finding, or, in full, a row an entry of every gradient."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from . import Failure
from .machine import decimals_of

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Numbers

HEAD = ("target", "engine", "dtype", "kind", "node", "wrt", "index")
FINDING = ("exact", "value", "ulp", "allowed_ulp", "verdict", "note")
ENTRY = ("exact", "value", "ulp", "decimals", "probed")

Row = tuple[object, ...]


def render(reports: Sequence[Report], errors: Sequence[Failure] = (), *, full: bool = False) -> str:
    """A heading and rows; floats to their last digit, an index's numbers with spaces between them. What could
    not be checked is a row with its message for a note, or is left out of the full entries."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*HEAD, *(ENTRY if full else FINDING)))
    for report in reports:
        writer.writerows(map(_plain, _entries(report) if full else _findings(report)))
    if not full:
        empty = [""] * (len(HEAD) - 1 + len(FINDING) - 2)
        writer.writerows([target, *empty, "not checked", message] for target, message in errors)
    return out.getvalue().rstrip("\n")


def _plain(row: Row) -> list[str]:
    return [repr(x) if isinstance(x, float) else "" if x is None else str(x) for x in row]


def _findings(report: Report) -> Iterator[Row]:
    for f in report.findings:
        index = " ".join(map(str, f.index))
        told = (f.exact, f.value, f.ulp, f.allowed_ulp, f.verdict, f.note)
        yield (report.target, report.engine, report.dtype, f.kind, f.node, f.wrt, index, *told)


def _entries(report: Report) -> Iterator[Row]:
    decimals = decimals_of(report)
    of = (report.target, report.engine, report.dtype)
    for name, numbers in report.gradients.items():
        yield from _rows((*of, "gradient", name, None), numbers, decimals.get(name))
    for (node, wrt), numbers in report.local.items():
        yield from _rows((*of, "local", node, wrt), numbers, None)


def _rows(head: Row, numbers: Numbers, decimals: np.ndarray | None) -> Iterator[Row]:
    for index in np.ndindex(numbers.exact.shape):
        shown = [
            None if array is None else float(array[index])
            for array in (numbers.exact, numbers.engine, numbers.ulp)
        ]
        text = None if decimals is None else decimals[index]
        yield (*head, " ".join(map(str, index)), *shown, text, "yes" if numbers.probed else "no")
