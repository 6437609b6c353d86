"""Several engines side by side: a row for each file, a column for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from ..causes import AllAlike
from ..oracle import wrong_alike
from . import Failure
from .causes import words
from .words import headline

if TYPE_CHECKING:
    from ..report import Report


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """The verdicts; then, a line each, what is not as it should be, and where the formula is to be
    suspected."""
    engines = list(dict.fromkeys(report.engine for report in reports))
    files: dict[str, dict[str, Report]] = {}
    for report in reports:
        files.setdefault(report.target, {})[report.engine] = report
    rows = [[target, *(_cell(found.get(engine)) for engine in engines)] for target, found in files.items()]
    table = tabulate(rows, headers=["file", *engines], tablefmt="simple", disable_numparse=True)
    parts = ["\n".join(line.rstrip() for line in table.splitlines())] if rows else []
    other = [f"{r.target}: {r.engine}, {r.dtype}: {_why(r)}" for r in reports if not r.ok]
    alike = {target: sorted(wrong_alike(list(found.values()))) for target, found in files.items()}
    suspected = [
        f"{target}: {', '.join(nodes)}: {words(AllAlike())}" for target, nodes in alike.items() if nodes
    ]
    parts += ["\n".join(lines) for lines in (other, suspected) if lines]
    unread = f", {len(errors)} files could not be checked" if errors else ""
    fine = f"{len(reports) - len(other)} of {len(reports)} as they should be{unread}"
    return "\n\n".join([*parts, f"{fine}; * marks those that are not"])


def _cell(report: Report | None) -> str:
    return "–" if report is None else report.verdict.value + ("" if report.ok else " *")


def _why(report: Report) -> str:
    notes = [f.note for f in report.findings if f.verdict == report.verdict and f.note and not f.inherited]
    return headline(report) + (f" ({notes[0]})" if notes else "")
