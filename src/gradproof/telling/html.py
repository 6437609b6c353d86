"""Reports as pages: one file each, that needs nothing from elsewhere and can be read without its script.

Jinja escapes every text; what is markup already (MathML, drawings) comes from modules that escape every name
themselves. The script sorts tables and searches the index. A page allows this script by its hash, and nothing
else.
"""

from __future__ import annotations

import base64
import hashlib
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..proof.slopes import written
from . import Failure, number
from . import explained as explanation
from .drawing import drawing
from .mathml import mathml
from .templates import rendered, source
from .words import (
    KINDS,
    STYLES,
    SYMBOLS,
    chained_error,
    headline,
    name_of,
    node_rows,
    place,
    sensitivity,
    shortened,
)

if TYPE_CHECKING:
    from sympy import Expr

    from ..report import Report
    from ..verdict import Finding

TITLE = "gradproof reports"
MAX_EXPLAINED = 60  # nodes; beyond, nobody reads the chain rule step by step
MAX_FORMULA = 60  # operations that MathML is made of
LIBRARIES = ("gradproof", "sympy", "python-flint", "numpy")


@dataclass(frozen=True)
class Table:
    """A table that sorts; a cell is a text, markup, or a verdict."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """A verdict in a cell: a symbol and a word, so that nothing hangs on the colour."""

    word: str
    ok: bool

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.word]

    @property
    def colour(self) -> str:
        """Of a style: what is not as it should be, what is told, what is fine."""
        return "bad" if not self.ok else "told" if STYLES[self.word] == "bad" else STYLES[self.word]


@dataclass(frozen=True)
class Fault:
    """What does not pass, in full."""

    name: str
    place: str
    verdict: Verdict
    expected: str
    got: str
    distance: str
    formula: str
    note: str


@dataclass(frozen=True)
class View:
    """One report, as the template shows it."""

    anchor: str
    title: str
    teaches: str
    verdict: Verdict
    headline: str
    run: str
    picture: Markup
    faults: tuple[Fault, ...]
    sections: tuple[explanation.Section, ...]
    tables: tuple[Table, ...]
    remarks: tuple[str, ...]


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
    views = [_view(report, f"report-{n}") for n, report in enumerate(reports, 1)]
    if len(views) == 1 and not errors:
        return _page(views[0].title, views)
    entries = [_entry(report, f"#{view.anchor}") for report, view in zip(reports, views, strict=True)]
    return _page(TITLE, views, entries, errors)


def page(report: Report) -> str:
    """One report."""
    return render([report])


def index(entries: Sequence[tuple[Report, str]], errors: Sequence[Failure] = ()) -> str:
    """The list of reports, each with the name of its page."""
    return listing([_entry(report, link) for report, link in entries], errors)


def listing(entries: Sequence[Entry], errors: Sequence[Failure] = (), title: str = TITLE) -> str:
    """An index of pages that are there already; what is not as it should be comes first."""
    return _page(title, (), sorted(entries, key=lambda entry: entry.verdict.ok), errors)


def _page(
    title: str, views: Sequence[View], entries: Sequence[Entry] = (), errors: Sequence[Failure] = ()
) -> str:
    script = source("page.js")
    counts = Counter(entry.verdict.word for entry in entries)
    return rendered(
        "page.html.jinja",
        title=title, views=views, entries=entries, errors=errors, script=Markup(script), hash=_hash(script),
        counts=[(SYMBOLS[word], word, counts[word]) for word in SYMBOLS if counts[word]],
        fine=sum(entry.verdict.ok for entry in entries), equation=explanation.equation,
        environment=_environment({view.run.split()[1].rstrip(",") for view in views}),
        is_verdict=lambda cell: isinstance(cell, Verdict),
    )  # fmt: skip


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _entry(report: Report, link: str) -> Entry:
    about = report.problem.teaches if report.problem else ""
    return Entry(link, shortened(report.title), Verdict(report.verdict.value, report.ok), _run(report), about)


def _run(report: Report) -> str:
    return f"engine {report.engine}, {report.dtype} · {report.target}"


def _view(report: Report, anchor: str) -> View:
    problem, derivation = report.problem, report.derivation
    if derivation is None or len(derivation.graph.nodes) > MAX_EXPLAINED:
        problem = None
    return View(
        anchor=anchor,
        title=shortened(report.title),
        teaches=report.problem.teaches if report.problem else "",
        verdict=Verdict(report.verdict.value, report.ok),
        headline=shortened(headline(report)),
        run=_run(report),
        picture=Markup(drawing(problem, report) if problem else ""),
        faults=tuple(
            _fault(finding, report) for finding in _ordered(report.findings) if not finding.verdict.passes
        ),
        sections=explanation.told(problem).sections[1:] if problem else (),
        tables=tuple(_tables(report)),
        remarks=tuple(_remarks(report)),
    )


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    """What does not pass comes first, and of that what is not inherited."""
    return sorted(findings, key=lambda finding: (finding.verdict.passes, finding.inherited))


def _fault(finding: Finding, report: Report) -> Fault:
    off = (
        f"off by {number(finding.ulp, 3)} ulp, allowed {number(finding.allowed_ulp, 3)}"
        if finding.ulp is not None
        else ""
    )
    return Fault(
        name=shortened(name_of(finding) + place(finding.index)),
        place=finding.place,
        verdict=Verdict(finding.verdict.value, report.ok),
        expected=number(finding.exact, 17),
        got=number(finding.value, 17),
        distance=off,
        formula=shortened(finding.formula),
        note=finding.note + ("; inherited" if finding.inherited and "inherited" not in finding.note else ""),
    )


def _tables(report: Report) -> Iterator[Table]:
    if report.derivation is None:
        columns = ("node", "line", "forward", "backward", "ulp", "allowed ulp")
        yield Table(f"Autograd nodes, each at {report.engine}'s own numbers", columns, tuple(
            (shortened(row.node), row.place, _cell(row.forward, report), _cell(row.backward, report),
             number(row.worst.ulp, 3), number(row.worst.allowed_ulp, 3))
            for row in node_rows(report)
        ))  # fmt: skip
    formulas = _formulas(report)
    for kind, title in KINDS if report.derivation is not None else KINDS[2:]:
        findings = [finding for finding in _ordered(report.findings) if finding.kind == kind]
        if findings:
            head = ("of", "verdict", "formula", "exact", "engine", "ulp", "allowed ulp")
            yield Table(title, head, tuple(_row(finding, formulas, report) for finding in findings))


def _row(
    finding: Finding, formulas: dict[tuple[str, str, str | None], Expr], report: Report
) -> tuple[Any, ...]:
    formula = formulas.get((finding.kind, finding.node, finding.wrt))
    drawn = formula is not None and formula.count_ops() <= MAX_FORMULA
    return (
        shortened(name_of(finding).removeprefix("chained gradient of ")),
        _cell(finding.verdict.value, report),
        _math(formula) if drawn and formula is not None else _code(finding.formula),
        number(finding.exact),
        number(finding.value),
        number(finding.ulp, 3),
        number(finding.allowed_ulp, 3),
    )


def _cell(word: str, report: Report) -> Verdict | str:
    """A verdict that does not pass is still as it should be where the file expects it."""
    return Verdict(word, report.ok or word in ("exact", "rounding", "kink")) if word in SYMBOLS else word


def _formulas(report: Report) -> dict[tuple[str, str, str | None], Expr]:
    """The findings' formulas, where there is a derivation that has them."""
    derivation = report.derivation
    if derivation is None:
        return {}
    found: dict[tuple[str, str, str | None], Expr] = {}
    for node in derivation.graph.nodes:
        found["forward", node.name, None] = written(node)[1]
    for gradient in derivation.locals:
        found["local", gradient.node, gradient.wrt] = gradient.formula
    for adjoint in derivation.adjoints:
        found["gradient", adjoint.name, None] = adjoint.formula
    return found | {("gradient", name, None): formula for name, formula in derivation.closed.items()}


def _math(formula: Expr) -> Markup:
    return Markup(f'<span class="whole"><math>{mathml(formula)}</math></span>')  # mathml() escapes every name


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(shortened(text)) if text else Markup("")


def _remarks(report: Report) -> Iterator[str]:
    yield from chained_error(report)
    yield from sensitivity(report)
    for finding in report.findings:
        if finding.note and finding.verdict.passes:
            yield shortened(f"{name_of(finding)}{place(finding.index)}: {finding.note}")


def _environment(engines: set[str]) -> list[tuple[str, str]]:
    """Versions of what took part, and the platform."""
    names = [*LIBRARIES, *sorted({engine.split("-")[0] for engine in engines})]
    found = [(name, told) for name in names if (told := _version(name))]
    return [*found, ("Python", platform.python_version()), ("platform", platform.platform(terse=True))]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
