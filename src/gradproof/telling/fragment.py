"""What a notebook shows of a report, a problem and a graph: a piece of a page, and nobody's text is markup in
it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from ..language.files import Problem
from ..proof.graph import Graph, Node
from ..proof.slopes import fused, written
from ..report import Report
from . import nested, notation, number
from .checked import page_of
from .drawing import drawing
from .markdown import escape, table
from .mathml import mathml
from .page import Faults, Notes, Table
from .templates import rendered
from .words import STYLES, shortened

ROWS = 24  # of a table; what does not pass comes first
WHOLE = 12  # entries of a leaf


def shown(thing: Report | Problem | Graph, form: str) -> str | None:
    """Whichever it is, in a notebook's format."""
    if isinstance(thing, Report):
        told = {"html": of_report, "markdown": Report.to_markdown, "text": Report.to_text}
        return told[form](thing) if form in told else None
    if isinstance(thing, Problem):
        told_of: dict[str, Callable[[Problem], str]] = {
            "html": of_problem,
            "markdown": markdown,
            "latex": lambda p: latex(p.graph),
        }
        return plain(thing.graph, thing.title) if form == "text" else told_of[form](thing)
    forms = {"html": of_graph, "latex": latex, "text": plain}
    return forms[form](thing) if form in forms else None


def of_report(report: Report) -> str:
    """The headline, the answer, what does not pass, the tables, and the notes."""
    page = page_of(report)
    notes = [line for part in page.parts if isinstance(part, Notes) for line in part.lines]
    faults = [one for part in page.parts if isinstance(part, Faults) for one in part.own]
    lines = [page.headline, page.run, *(one.line for one in faults[:ROWS])]
    tables = [part.cut(ROWS) for part in page.parts if isinstance(part, Table)]
    picture = drawing(report.problem, report) if report.problem else ""
    return _fragment(page.title, lines, picture, tables, notes[:ROWS])


def of_problem(problem: Problem) -> str:
    """The title, the lines in index notation, and the point."""
    tables = [_lines(problem.graph), Table("", (), tuple(_point(problem)))]
    return _fragment(
        problem.title, [problem.teaches] if problem.teaches else [], drawing(problem), tables, ()
    )


def of_graph(graph: Graph) -> str:
    leaves = tuple(
        (leaf.name, " × ".join(map(str, leaf.shape)) or "scalar", "given" if leaf.given else "learned")
        for leaf in graph.leaves
    )
    return _fragment("", (), drawing(graph), [_lines(graph), Table("", (), leaves)], ())


def latex(graph: Graph) -> str:
    """The lines as one display of LaTeX."""
    lines = [r" &= ".join(map(notation.latex, written(node))) for node in fused(graph).nodes]
    return "$$\n\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}\n$$"


def markdown(problem: Problem) -> str:
    """A problem as Markdown with math."""
    rows = [[escape(name), escape(value), word] for name, value, word in _point(problem)]
    head = [f"**{escape(problem.title)}**", escape(problem.teaches), latex(problem.graph)]
    return "\n\n".join(part for part in [*head, table(rows, ["", "", ""])] if part)


def plain(graph: Graph, title: str = "") -> str:
    """The lines as text."""
    lines = [" = ".join(map(notation.text, written(node))) for node in fused(graph).nodes]
    return "\n".join([*([title] if title else []), *(f"  {line}" for line in lines)])


def _lines(graph: Graph) -> Table:
    return Table("", (), tuple((_equation(node),) for node in fused(graph).nodes))


def _equation(node: Node) -> Markup:
    left, right = written(node)
    return Markup(f"<math>{mathml(left)}<mo>=</mo>{mathml(right)}</math>")  # mathml() escapes every name


def _point(problem: Problem) -> list[tuple[str, str, str]]:
    """Each leaf with its value, or the first of its entries."""
    rows = []
    for leaf in problem.graph.leaves:
        value = np.asarray(problem.point[leaf.name], dtype=float)
        told = nested(value)
        if value.size > WHOLE:
            told = f"[{', '.join(number(float(x)) for x in value.reshape(-1)[:3])}, …], shape {value.shape}"
        rows.append((leaf.name, told, "given" if leaf.given else "learned"))
    return rows


def _fragment(
    title: str, lines: Sequence[str], picture: str, tables: Sequence[Table], notes: Sequence[str]
) -> str:
    def short(cell: object) -> str:
        return cell if isinstance(cell, Markup) else shortened(str(cell))

    return rendered(
        "fragment.html.jinja",
        title=shortened(title),
        lines=list(map(shortened, lines)),
        picture=Markup(picture),
        tables=tables,
        notes=list(map(shortened, notes)),
        colours=STYLES,
        short=short,
    )
