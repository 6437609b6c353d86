"""Pages: one file each, that needs nothing from elsewhere and can be read without its script.

Jinja escapes every text; what is markup already (MathML, drawings) comes from modules that escape every name
themselves. The script sorts tables and searches the index. A page allows this script by its hash, and nothing
else.
"""

from __future__ import annotations

import base64
import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from . import Failure, number
from .checked import page_of
from .heat import grid, pictures
from .mathml import mathml
from .page import Cell, Page, Tensor, Term, Verdict
from .pieces import MAX_ENTRIES, Row, equation
from .templates import rendered, source
from .words import SYMBOLS, shortened

if TYPE_CHECKING:
    from ..report import Report

TITLE = "gradproof reports"
MAX_FORMULA = 60  # operations that MathML is made of
LIBRARIES = ("gradproof", "sympy", "python-flint", "numpy")


@dataclass(frozen=True)
class Entry:
    """A row of an index."""

    link: str
    title: str
    verdict: Verdict
    run: str
    about: str


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """The reports below each other; before several of them, an index."""
    made = [page_of(report, whole=True) for report in reports]
    if len(made) == 1 and not errors:
        return pages(made)
    entries = [_entry(report, f"#page-{n}") for n, report in enumerate(reports, 1)]
    return _rendered(TITLE, made, entries, errors)


def page(report: Report) -> str:
    """One report."""
    return render([report])


def pages(pages: Sequence[Page]) -> str:
    return _rendered(shortened(pages[0].title) if len(pages) == 1 else "Derivations", pages)


def index(entries: Sequence[tuple[Report, str]], errors: Sequence[Failure] = ()) -> str:
    """The list of reports, each with the name of its page."""
    return listing([_entry(report, link) for report, link in entries], errors)


def listing(entries: Sequence[Entry], errors: Sequence[Failure] = (), title: str = TITLE) -> str:
    """An index of pages that are there already; what is not as it should be comes first."""
    return _rendered(title, (), sorted(entries, key=lambda entry: entry.verdict.ok), errors)


def _entry(report: Report, link: str) -> Entry:
    about = report.problem.teaches if report.problem else ""
    run = f"engine {report.engine}, {report.dtype} · {report.target}"
    return Entry(link, shortened(report.title), Verdict(report.verdict.value, report.ok), run, about)


def _rendered(
    title: str, pages: Sequence[Page], entries: Sequence[Entry] = (), errors: Sequence[Failure] = ()
) -> str:
    script = source("page.js") if entries or any(page.comparisons for page in pages) else ""
    counts = Counter(entry.verdict.word for entry in entries)
    engines = {page.engine.split("-")[0] for page in pages if page.engine}
    return rendered(
        "page.html.jinja",
        title=title,
        pages=pages,
        entries=entries,
        errors=errors,
        script=Markup(script),
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        counts=[(SYMBOLS[word], word, counts[word]) for word in SYMBOLS if counts[word]],
        fine=sum(entry.verdict.ok for entry in entries),
        short=shortened,
        cell=_cell,
        equation=_equation,
        grids=_grids,
        pictures=pictures,
        markup=Markup,
        environment=_environment(engines) if entries or engines else [],
    )


def _cell(cell: Cell) -> str:
    """A cell as markup, every text in it escaped."""
    match cell:
        case Verdict():
            told = '<span class="whole {}"><span aria-hidden="true">{}</span> {}</span>'
            return Markup(told).format(cell.colour, cell.symbol, cell.word)
        case Term() if cell.expression is not None and cell.expression.count_ops() <= MAX_FORMULA:
            # mathml() escapes every name
            return Markup(f'<span class="whole"><math>{mathml(cell.expression)}</math></span>')
        case Term():
            return Markup("<code>{}</code>").format(shortened(cell.text)) if cell.text else Markup("")
        case _:
            return Markup("{}").format(str(cell))


def _equation(row: Row) -> str:
    return Markup(equation(row))


def _grids(tensor: Tensor) -> list[tuple[str, list[list[tuple[str, bool]]]]]:
    """A small tensor as tables of numbers, the worst entry marked; one table where both sides print the same.
    Of a large one there are pictures."""
    if tensor.exact.size > MAX_ENTRIES or not tensor.exact.size:
        return []
    flags = np.zeros(tensor.exact.shape, dtype=bool)
    if tensor.worst is not None and not tensor.alike:
        flags[tensor.worst] = True
    told = [("exact, and the engine's" if tensor.alike else "exact", tensor.exact)]
    told += [("engine's", tensor.engine)] if tensor.engine is not None and not tensor.alike else []

    def marked(array: np.ndarray) -> list[list[tuple[str, bool]]]:
        rows = zip(grid(array), grid(flags), strict=True)
        return [[(number(float(x)), bool(f)) for x, f in zip(xs, fs, strict=True)] for xs, fs in rows]

    return [(what, marked(array)) for what, array in told]


def _environment(engines: set[str]) -> list[tuple[str, str]]:
    """Versions of what took part, and the platform."""
    found = [(name, told) for name in (*LIBRARIES, *sorted(engines)) if (told := _version(name))]
    return [*found, ("Python", platform.python_version()), ("platform", platform.platform(terse=True))]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
