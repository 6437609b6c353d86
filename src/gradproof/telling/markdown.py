"""Markdown for GitHub: tables, formulas in its math, the graph as a Mermaid picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from . import Failure, nested, notation
from .checked import page_of
from .page import Cell, Entries, Faults, Listing, Notes, Page, Part, Picture, Table, Tensor, Term
from .pieces import MAX_ENTRIES, Section, as_latex

if TYPE_CHECKING:
    from ..report import Report

MAX_FORMULA = 60  # operations that are set as math


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """The reports below each other; before several of them, an index."""
    made = [page(report) for report in reports]
    if len(reports) == 1 and not errors:
        return made[0]
    return "\n".join([index([(report, "") for report in reports], errors), *made])


def index(entries: Sequence[tuple[Report, str]], errors: Sequence[Failure] = ()) -> str:
    """The list of reports; each comes with the name of its page, or without one."""
    ok = sum(report.ok for report, _ in entries)
    rows = [
        [
            "✓" if report.ok else "✗",
            report.verdict.value,
            f"[{escape(report.title)}]({link})" if link else escape(report.title),
            escape(report.problem.teaches if report.problem else ""),
        ]
        for report, link in entries
    ]
    parts = ["# gradproof reports\n", f"{ok} of {len(entries)} as they should be.\n"]
    parts.append(table(rows, ["", "verdict", "expression file", "what it teaches"]))
    if errors:
        parts.append("\n## Could not be checked\n")
        parts.append(table([list(map(escape, error)) for error in errors], ["file", "why"]))
    return "\n".join(parts) + "\n"


def page(report: Report) -> str:
    """One report."""
    return pages([page_of(report, whole=True)])


def pages(pages: Sequence[Page]) -> str:
    return "\n".join(map(_page, pages))


def _page(page: Page) -> str:
    head = [f"# {escape(page.title)}"] + [escape(page.teaches)] * bool(page.teaches)
    if page.verdict is not None:
        head.append(f"**{escape(page.headline)}** · {escape(page.run)}")
    return "\n\n".join([*head, *(told for part in page.parts for told in _part(part) if told)]) + "\n"


def _part(part: Part) -> Iterator[str]:
    if not isinstance(part, Picture | Faults) and part.title:
        yield f"## {escape(part.title)}"
    match part:
        case Table():
            yield table([list(map(_cell, row)) for row in part.rows], part.head)
            yield "\n".join(map(escape, part.notes))
        case Faults():
            yield f"## {escape(part.title)}"
            rows = []
            for one in part.own:
                name = escape(one.name + (f" ({one.place})" if one.place else ""))
                wrong = escape("; ".join(text for text in (one.distance, one.note) if text))
                rows.append([name, one.verdict.word, one.expected, one.got, wrong])
            yield table(rows, ["", "verdict", "exact", "engine", "what is wrong"])
            yield "\n".join(f"* {escape(line)}" for line in part.inherited)
        case Section():
            told = [
                [f"$`{math(' = '.join(map(as_latex, row.sides)))}`$", escape(row.remark)] for row in part.rows
            ]
            yield table(told, ["", ""]) if told else ""
            yield "\n\n".join(map(escape, part.words))
        case Notes():
            yield "\n".join(f"* {escape(line)}" for line in part.lines)
        case Listing():
            yield "\n".join(["```text", *(line.replace("```", "'''") for line in part.lines), "```"])
        case Entries():
            yield table([list(_tensor(tensor)) for tensor in part.tensors], ["", "exact", "engine"])
        case Picture():
            yield from _picture(part)


def _cell(cell: Cell) -> str:
    if not isinstance(cell, Term):
        return escape(cell) if isinstance(cell, str) else str(cell)
    if cell.expression is not None and cell.expression.count_ops() <= MAX_FORMULA:
        return f"$`{math(notation.latex(cell.expression))}`$"
    return _code(cell.text)


def _tensor(tensor: Tensor) -> Iterator[str]:
    yield escape(f"{tensor.name}{f' ({tensor.remark})' if tensor.remark else ''}")
    if tensor.exact.size > MAX_ENTRIES:
        yield from (escape(tensor.told), "")
    else:
        yield escape(nested(tensor.exact))
        yield "the same" if tensor.alike else "–" if tensor.engine is None else escape(nested(tensor.engine))


def _picture(picture: Picture) -> Iterator[str]:
    yield f"## {escape(picture.title)}"
    if picture.file:
        yield f"![{escape(picture.title)}]({f'<{picture.file}>' if ' ' in picture.file else picture.file})"
    elif picture.mermaid is not None:
        yield f"```mermaid\n{picture.mermaid()}\n```"
    else:
        yield picture.svg()
    yield escape(picture.caption)


def _code(text: str) -> str:
    """A formula as code in a table's cell, in one line and without what would end either."""
    return f"`` {' '.join(text.split()).replace('|', '∣').replace('`', 'ˋ')} ``" if text else ""


def math(tex: str) -> str:
    """Math inside a table cell: no bar, no backtick, no line break."""
    tex = tex.replace(r"\left|", r"\left\vert ").replace(r"\right|", r"\right\vert ").replace("|", r"\vert ")
    return tex.replace("`", "'").replace("\n", " ")


def escape(text: str) -> str:
    """A user's text as Markdown that is only text.

    >>> escape("a|b <script> $x$ `y`")
    'a\\\\|b &lt;script&gt; \\\\$x\\\\$ \\\\`y\\\\`'
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|$~])", r"\\\1", text)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
