"""The terminal's report: short enough to read, what does not pass in full."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tabulate import tabulate

from . import Failure, nested
from .checked import compared_tables, comparison, faults, page_of
from .page import Comparison, Entries, Faults, Listing, Notes, Page, Part, Picture, Table, Term
from .pieces import MAX_LINE, Section, lines

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding

SHORTEST = 24  # columns that a formula has at least
ROWS = 24  # of a table; the rest is counted
BRIEF = 4  # findings in full under a failing test
FORMULA = 300  # characters of one that is told in full
FEW = 12  # entries of a tensor that stands whole


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """One report in full; of several, a line each, and in full those that do not pass."""
    if len(reports) == 1 and not errors:
        return pages([page_of(reports[0])])
    failing = [report for report in reports if not report.ok]
    rows = [
        (
            "ok" if report.ok else "NOT OK",
            report.verdict.value,
            report.target,
            report.title,
            str(len(report.findings)),
        )
        for report in reports
    ]
    parts = [_table(rows, ("", "verdict", "file", "title", "compared"))] if rows else []
    counted = f"{len(reports) - len(failing)} of {len(reports)} as they should be"
    counted += f", {len(errors)} could not be checked" if errors else ""
    return "\n\n".join([*parts, *(pages([page_of(report)]) for report in failing), counted])


def pages(pages: Sequence[Page]) -> str:
    return "\n\n".join(map(_page, pages))


def _page(page: Page) -> str:
    head = [page.title, f"{page.target}: {page.headline}" if page.headline else page.teaches, page.run]
    parts = ["\n".join(dict.fromkeys(line for line in head if line))]
    return "\n\n".join([*parts, *(told for part in page.parts if (told := "\n".join(_part(part))))])


def _part(part: Part) -> Iterator[str]:
    match part:
        case Table():
            cut = part.cut(ROWS)
            yield part.title
            yield _table([[str(cell) for cell in row] for row in _fitting(cut)], part.head)
            yield from (f"  {note}" for note in cut.notes)
        case Faults():
            yield "\n\n".join("\n".join(told(one)) for one in part.own[:ROWS])
            if len(part.own) > ROWS:
                yield f"and {len(part.own) - ROWS} more that do not pass"
            yield from part.inherited[:ROWS]
        case Section():
            yield from lines(part)
        case Notes():
            yield from [part.title] * bool(part.title)
            yield from (f"  {line}" if part.title else line for line in part.lines[:ROWS])
        case Listing():
            yield from part.lines
        case Entries():
            yield from _entries(part)
        case Picture():
            return


def _fitting(table: Table) -> list[list[object]]:
    """The rows, with their formulas as short as the line asks for."""
    columns = [[head, *map(str, column)] for head, *column in zip(table.head, *table.rows, strict=True)]
    last = bool(table.rows) and isinstance(table.rows[0][-1], Term)
    left = MAX_LINE - sum(max(map(len, column)) + 2 for column in columns[: -1 if last else None])
    return [
        [_short(str(cell), max(SHORTEST, left)) if isinstance(cell, Term) else cell for cell in row]
        for row in table.rows
    ]


def _entries(part: Entries) -> Iterator[str]:
    """Small tensors whole, a line each where both sides print the same; large ones are counted."""
    small = [tensor for tensor in part.tensors if tensor.exact.size <= FEW]
    found = []
    for tensor in small:
        name = f"{tensor.name}{f' ({tensor.remark})' if tensor.remark else ''}"
        engine = "none" if tensor.engine is None else nested(tensor.engine)
        found.append(f"{name} = {nested(tensor.exact)}" + ("" if tensor.alike else f", engine {engine}"))
    if found:
        yield part.title
        for line in found[:ROWS]:
            wrapped = textwrap.wrap(line, MAX_LINE - 2, subsequent_indent="  ", break_long_words=False)
            yield from (f"  {part}" for part in wrapped)
    if found and (more := len(part.tensors) - len(found[:ROWS])):
        yield f"  and {more} larger: in a page (--format html), and whole in JSON (--full)"


def told(one: Comparison) -> list[str]:
    """One comparison in full."""
    found = [f"{one.verdict.word.upper()} {one.told}"]
    if (one.expected, one.got) != ("–", "–"):
        found.append(f"  expected {one.expected}, got {one.got}: {one.distance}")
    return (
        found
        + [f"  {_short(text, FORMULA)}" for text in (one.formula,) if text]
        + [f"  {one.note}"] * bool(one.note)
    )


def brief(report: Report, findings: Sequence[Finding]) -> str:
    """For a failing test: what is wrong and where, a table of these findings, and the first of them in
    full."""
    page = page_of(report)
    compared = [comparison(finding, report.ok, report.dtype) for finding in findings]
    own = next((part.own for part in faults(compared)), ())
    first = f"{own[0].verdict}: {own[0].name}" if own and not report.expected else page.headline
    parts = [f"{first}\n{report.target}: {report.title}\n{page.run}"]
    parts += ["\n".join(_part(part)) for part in compared_tables(replace(report, findings=tuple(findings)))]
    parts += ["\n".join(told(one)) for one in own[:BRIEF]]
    if len(own) > BRIEF:
        parts.append(f"and {len(own) - BRIEF} more that do not pass")
    return "\n\n".join(parts)


def _short(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    table = tabulate(rows, headers=head, tablefmt="simple", disable_numparse=True)
    return "\n".join("  " + line.rstrip() for line in table.splitlines())
