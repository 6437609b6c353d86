"""What a notebook shows of a report, a problem and a graph: a piece of a page, and nobody's text is markup in
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ..language.files import Problem
from ..proof.graph import Graph
from ..proof.slopes import fused, written
from ..report import Report
from . import notation, number
from .drawing import drawing
from .mathml import mathml
from .templates import rendered
from .words import KINDS, STYLES, headline, name_of, place, sensitivity, shortened

if TYPE_CHECKING:
    from ..proof.graph import Node
    from ..verdict import Finding

ROWS = 24  # of a table; what does not pass comes first
HEAD = ("formula", "exact", "engine", "ulp", "allowed", "verdict")


@dataclass(frozen=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def shown(thing: Report | Problem | Graph, form: str) -> str | None:
    """Whichever it is, in a notebook's format."""
    if isinstance(thing, Report):
        told = {"html": of_report, "markdown": Report.to_markdown, "text": Report.to_text}
        return told[form](thing) if form in told else None
    if isinstance(thing, Problem):
        told_of = {"html": of_problem, "markdown": markdown, "latex": lambda p: latex(p.graph)}
        return plain(thing.graph, thing.title) if form == "text" else told_of[form](thing)
    forms = {"html": of_graph, "latex": latex, "text": plain}
    return forms[form](thing) if form in forms else None


def of_report(report: Report) -> str:
    """The headline, a table for each kind of finding, and the notes."""
    lines = [headline(report), f"{report.engine}, {report.dtype}"]
    tables = []
    for kind, title in KINDS:
        findings = sorted(
            (finding for finding in report.findings if finding.kind == kind),
            key=lambda finding: (finding.verdict.passes, finding.inherited),
        )
        if findings:
            tables.append(Table((title, *HEAD), tuple(map(_row, findings[:ROWS]))))
    notes = [f"{name_of(f)}{place(f.index)}: {f.note}" for f in report.findings if f.note][:ROWS]
    return _page(
        report.title,
        lines,
        drawing(report.problem, report) if report.problem else "",
        tables,
        [*notes, *sensitivity(report)],
    )


def _row(finding: Finding) -> tuple[str, ...]:
    where = f" ({finding.place})" if finding.place else ""
    return (
        shortened(name_of(finding).removeprefix("chained gradient of ") + where),
        shortened(finding.formula),
        number(finding.exact),
        number(finding.value),
        number(finding.ulp, 3),
        number(finding.allowed_ulp, 3),
        finding.verdict.value,
    )


def of_problem(problem: Problem) -> str:
    """The title, the lines in index notation, and the point."""
    tables = [_lines(problem.graph), Table((), tuple(_point(problem)))]
    return _page(problem.title, [problem.teaches] if problem.teaches else [], drawing(problem), tables, ())


def of_graph(graph: Graph) -> str:
    leaves = tuple(
        (leaf.name, _shape(leaf.shape), "given" if leaf.given else "learned") for leaf in graph.leaves
    )
    return _page("", (), drawing(graph), [_lines(graph), Table((), leaves)], ())


def latex(graph: Graph) -> str:
    """The lines as one display of LaTeX."""
    lines = [r" &= ".join(map(notation.latex, written(node))) for node in fused(graph).nodes]
    return "$$\n\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}\n$$"


def markdown(problem: Problem) -> str:
    """A problem as Markdown with math."""
    from .markdown import escape, table

    rows = [[escape(name), escape(value), word] for name, value, word in _point(problem)]
    parts = [
        f"**{escape(problem.title)}**",
        escape(problem.teaches),
        latex(problem.graph),
        table(rows, ["", "", ""]),
    ]
    return "\n\n".join(part for part in parts if part)


def plain(graph: Graph, title: str = "") -> str:
    """The lines as text."""
    lines = [" = ".join(map(notation.text, written(node))) for node in fused(graph).nodes]
    return "\n".join([*([title] if title else []), *(f"  {line}" for line in lines)])


def _lines(graph: Graph) -> Table:
    return Table((), tuple((_equation(node),) for node in fused(graph).nodes))


def _equation(node: Node) -> Markup:
    left, right = written(node)
    return Markup(f"<math>{mathml(left)}<mo>=</mo>{mathml(right)}</math>")  # mathml() escapes every name


def _point(problem: Problem) -> list[tuple[str, str, str]]:
    """Each leaf with its value, or the first of its entries."""
    rows = []
    for leaf in problem.graph.leaves:
        value = problem.point[leaf.name]
        shown = (
            number(float(value))
            if value.ndim == 0
            else np.array2string(value, precision=6, separator=", ", threshold=12)
        )
        rows.append((leaf.name, " ".join(shown.split()), "given" if leaf.given else "learned"))
    return rows


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _page(
    title: str, lines: Sequence[str], picture: str, tables: Sequence[Table], notes: Sequence[str]
) -> str:
    shown, told = [shortened(line) for line in lines], [shortened(note) for note in notes]
    return rendered(
        "fragment.html.jinja",
        title=shortened(title),
        lines=shown,
        picture=picture,
        tables=tables,
        notes=told,
        colours=STYLES,
    )
