"""The summary of a CI step: counts, and a table of what is not as it should be, in GitHub's Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import Failure
from .markdown import escape, table
from .words import headline

if TYPE_CHECKING:
    from ..report import Report

ROWS = 50  # GitHub shows a megabyte; people read less
LENGTH = 300  # of a cell


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """Counts of all reports; a row for each that does not pass, and for what could not be checked."""
    bad = [report for report in reports if not report.ok]
    counts = Counter(report.verdict.value for report in reports)
    told = [f"{count} {verdict}" for verdict, count in sorted(counts.items())]
    told += [f"{len(errors)} could not be checked"] if errors else []
    parts = [f"### gradproof: {len(reports) - len(bad)} of {len(reports) + len(errors)} as they should be\n"]
    parts.append(f"{' · '.join(told) or 'nothing was checked'}\n")
    rows = []
    for report in bad:
        cells = (report.target, f"{report.engine}, {report.dtype}", f"{report.title}: {headline(report)}")
        rows.append([report.verdict.value, *map(_cell, cells)])
    rows += [["not checked", _cell(target), "", _cell(message)] for target, message in errors]
    if rows:
        parts.append(table(rows[:ROWS], ["verdict", "target", "engine", "what"]) + "\n")
    if len(rows) > ROWS:
        parts.append(f"and {len(rows) - ROWS} more\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return escape(text if len(text) <= LENGTH else text[: LENGTH - 1] + "…")
