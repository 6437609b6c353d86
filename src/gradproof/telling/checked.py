"""A check's report as a page.

The answer comes first, then what does not pass, then the story: what was compared, the chain rule, every
entry, notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import sympy

from ..proof.slopes import written
from . import number
from .drawing import drawing, mermaid
from .explained import story
from .page import (
    Amount,
    Cell,
    Comparison,
    Entries,
    Faults,
    Listing,
    Notes,
    Page,
    Part,
    Picture,
    Table,
    Tensor,
    Term,
    Verdict,
)
from .pieces import Formula, Number, Partial, Piece, Row, Section
from .words import SYMBOLS, headline, ladder, name_of, place, rank_words, ranked, sensitivity, shortened

if TYPE_CHECKING:
    from ..report import Numbers, Report
    from ..verdict import Finding

WHOLE, ALL_WHOLE = 12, 24  # entries of one parameter, and of all, that stand in the answer
CHAIN = 24  # adjoints that are written out
MAX_EXPLAINED = 60  # nodes; beyond, nobody reads the chain rule step by step
COMPARED = (
    ("forward", "Forward: each line's value", "node"),
    ("local", "Local gradients: each line alone", "local"),
    ("gradient", "Chained gradients: from the output back", "gradient of"),
    ("hessian", "Second derivatives, by name", "name"),
)
KINDS = {"forward": "forward", "local": "backward", "tangent": "tangent"}  # of an autograd node's findings
PROBED = "probed: with one random cotangent, where the Jacobian is too large to compare every entry"
WORST = "Where a table tells one entry of a tensor, it is the one that is furthest off."


def page_of(report: Report, *, whole: bool = False) -> Page:
    """A report's page; a `whole` one has pictures and the derivation step by step."""
    compared = [comparison(finding, report.ok, report.dtype) for finding in report.findings]
    return Page(
        title=report.title,
        parts=tuple(_parts(report, compared, whole)),
        teaches=report.problem.teaches if report.problem else "",
        verdict=Verdict(report.verdict.value, report.ok),
        headline=headline(report),
        target=report.target,
        run=f"engine {report.engine}, {report.dtype}",
        engine=report.engine,
        comparisons=tuple(compared),
    )


def _parts(report: Report, compared: Sequence[Comparison], whole: bool) -> Iterator[Part]:
    small = _small(report)
    yield from _answer(report, small)
    yield from faults(compared, "What does not pass" + (", as the file expects" if report.ok else ""))
    derivation = report.derivation
    problem = report.problem if whole else None
    if derivation is None or len(derivation.graph.nodes) > MAX_EXPLAINED:
        problem = None
    if problem is not None and derivation is not None:
        marks = {c.node: c.verdict.word for c in sorted(compared, key=_severity) if not c.inherited}
        yield Picture("The graph", partial(drawing, problem, report), partial(mermaid, derivation, marks))
    yield from compared_tables(report) if derivation is not None else _nodes(report)
    if problem is not None:
        yield from story(problem)
    elif derivation is not None and 1 < len(derivation.adjoints) <= CHAIN + 1:
        yield _chain(report)
    if tensors := tuple(_tensors(report, small, whole)):
        yield Entries("Every entry", tensors)
    if notes := tuple(f"{c.name}: {c.verdict}: {c.note}" for c in compared if c.note and c.passes):
        yield Notes("Notes", notes)
    remarks = [WORST] * any(finding.index for finding in report.findings) + [
        *ladder(report),
        *sensitivity(report),
    ]
    if remarks:
        yield Notes("", tuple(remarks))
    if report.traceback:
        yield Listing("Traceback", tuple(report.traceback.rstrip().splitlines()))


def _severity(compared: Comparison) -> int:
    return list(SYMBOLS).index(compared.verdict.word)


# Findings in words


def comparison(finding: Finding, ok: bool, dtype: str, about: str = "") -> Comparison:
    """A finding in words; `about` says what it is about, where that is no line and no gradient."""
    at = place(finding.index)
    what = {"local": f"gradient by {finding.wrt}" if finding.wrt else "gradient", "forward": "value"}
    what |= {"tangent": "tangent", "contract": "contract", "hessian": "second derivative"}
    count = f"{finding.refuted} of {finding.entries} entries are wrong" if finding.refuted else ""
    off = [f"off by {number(finding.ulp, 3)} ulp, allowed {number(finding.allowed_ulp, 3)}"] * (
        finding.ulp is not None
    )
    distance = ": ".join([*off, *([rank] if (rank := rank_words(ranked(finding, dtype))) else [])])
    left = f"∂{finding.node}/∂{finding.wrt} = " if finding.kind == "local" and finding.formula else ""
    where = f"{finding.node}{f' ({finding.place})' if finding.place else ''}"
    error = f"{'inherited' if finding.inherited else 'its own'} error"
    told = about or f"{where}: {what.get(finding.kind, 'gradient')}{at}, {error}"
    return Comparison(
        finding.kind,
        finding.node,
        subject=name_of(finding).removeprefix("chained gradient of "),
        name=about or name_of(finding) + at,
        told=told,
        place=finding.place,
        verdict=Verdict(finding.verdict.value, ok or finding.verdict.passes),
        passes=finding.verdict.passes,
        inherited=finding.inherited,
        expected=number(finding.exact, 17),
        got=number(finding.value, 17),
        distance="; ".join(part for part in (distance, count) if part),
        formula=f"{left}{finding.formula}",
        note=finding.note,
    )


def faults(compared: Sequence[Comparison], title: str = "What does not pass") -> Iterator[Faults]:
    """What does not pass, own errors first; where all are inherited, they are told in full."""
    bad = [one for one in compared if not one.passes]
    own = [one for one in bad if not one.inherited] or bad
    if bad:
        yield Faults(title, tuple(own), tuple(f"inherited: {one.line}" for one in bad if one not in own))


# The answer


def _small(report: Report) -> set[str]:
    """The parameters whose entries all stand in the answer."""
    found, left = set(), ALL_WHOLE
    for leaf in report.problem.graph.parameters if report.problem else ():
        numbers = report.gradients.get(leaf.name)
        if numbers is not None and numbers.exact.size <= min(WHOLE, left):
            found.add(leaf.name)
            left -= numbers.exact.size
    return found


def _answer(report: Report, small: set[str]) -> Iterator[Table]:
    """Each parameter with its gradient."""
    findings = {finding.node: finding for finding in report.findings if finding.kind == "gradient"}
    if report.problem is None:
        names, title = list(findings), "Gradients: the sum of what the uses passed on"
    else:
        names = [leaf.name for leaf in report.problem.graph.parameters]
        title = f"The gradient of {report.problem.graph.output.name}"
    rows = [row for name in names for row in _answer_rows(report, name, findings.get(name), name in small)]
    head: tuple[str, ...] = ("parameter", "value", "exact gradient", "engine's", "ulp", "verdict")
    if report.problem is None:
        head, rows = (head[0], *head[2:]), [(row[0], *row[2:]) for row in rows]
    if rows:
        yield Table(title, head, tuple(rows))


def _answer_rows(
    report: Report, name: str, finding: Finding | None, small: bool
) -> Iterator[tuple[Cell, ...]]:
    """A row an entry of a small parameter; of a large one the worst entry. The verdict stands at the entry
    that was found wrong, or first."""
    verdict: Cell = "–"
    if finding is not None:
        verdict = Verdict(finding.verdict.value, report.ok or finding.verdict.passes)
    numbers = report.gradients.get(name)
    value = (
        np.asarray(report.problem.point[name]) if report.problem and name in report.problem.point else None
    )
    if numbers is None:
        at = finding.index if finding else ()
        exact, got, ulp = (finding.exact, finding.value, finding.ulp) if finding else (None, None, None)
        yield name + place(at), _value(value, ()), Amount(exact), Amount(got), Amount(ulp, 3), verdict
        return
    every = list(np.ndindex(numbers.exact.shape))
    worst = Tensor(name, numbers.exact, numbers.engine, numbers.ulp).worst or (0,) * numbers.exact.ndim
    marked = finding.index if finding and not finding.verdict.passes and finding.index in every else None
    first = every[0] if every and marked is None else marked
    for at in every if small else [marked or worst] if every else []:
        told = verdict if at == first or not small else ""
        yield (name + place(at), _value(value, at if small else ()), *_amounts(numbers, at), told)


def _value(value: np.ndarray | None, at: tuple[int, ...]) -> Cell:
    if value is None or len(at) != value.ndim:
        return "–" if value is None else f"shape {' × '.join(map(str, value.shape))}"
    return Amount(float(value[at]))


def _amounts(numbers: Numbers, at: tuple[int, ...]) -> tuple[Cell, Cell, Cell]:
    """The exact number, the engine's and their distance; nothing where there is none."""
    exact = float(numbers.exact[at])
    engine = None if numbers.engine is None else float(numbers.engine[at])
    ulp = None if numbers.ulp is None or np.isnan(numbers.ulp[at]) else float(numbers.ulp[at])
    return Amount(None if np.isnan(exact) else exact), Amount(engine), Amount(ulp, 3)


# The story


def compared_tables(report: Report) -> Iterator[Table]:
    """A table for each kind of finding."""
    formulas = _formulas(report)
    for kind, title, first in COMPARED:
        findings = [finding for finding in report.findings if finding.kind == kind]
        if findings:
            yield findings_table(findings, title, first, report, formulas)


Formulas = Mapping[tuple[str, str, str | None], sympy.Expr]


def findings_table(
    findings: Sequence[Finding], title: str, first: str, report: Report, formulas: Formulas
) -> Table:
    rows, probed = [], False
    for finding in findings:
        numbers = report.local.get((finding.node, finding.wrt or ""))
        mark = "probed" if finding.kind == "local" and numbers is not None and numbers.probed else ""
        probed |= bool(mark)
        row = (
            shortened(name_of(finding).removeprefix("chained gradient of ") + place(finding.index)),
            Amount(finding.exact, remark=mark),
            Amount(finding.value),
            Amount(finding.ulp, 3),
            Amount(finding.allowed_ulp, 3),
            Verdict(finding.verdict.value, report.ok or finding.verdict.passes),
            Term(finding.formula, formulas.get((finding.kind, finding.node, finding.wrt))),
        )
        rows.append(row)
    head = (first, "exact", "engine", "ulp", "allowed", "verdict", "formula")
    return Table(title, head, tuple(rows), (PROBED,) if probed else ())


def _formulas(report: Report) -> Formulas:
    """The findings' formulas, where there is a derivation that has them."""
    derivation = report.derivation
    if derivation is None:
        return {}
    found: dict[tuple[str, str, str | None], sympy.Expr] = {}
    for node in derivation.graph.nodes:
        found["forward", node.name, None] = written(node)[1]
    for gradient in derivation.locals:
        found["local", gradient.node, gradient.wrt] = gradient.formula
    for adjoint in derivation.adjoints:
        found["gradient", adjoint.name, None] = adjoint.formula
    return found | {("gradient", name, None): formula for name, formula in derivation.closed.items()}


def _nodes(report: Report) -> Iterator[Table]:
    """A recorded function: a row an autograd node, with the verdict of its value, that of all it passed on,
    and its worst numbers; what does not pass comes first."""
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if finding.kind not in ("gradient", "contract"):
            groups.setdefault(finding.node, []).append(finding)
    found = []
    there = {finding.kind for findings in groups.values() for finding in findings}
    kinds = [kind for kind in KINDS if kind in there or kind != "tangent"]
    for node, findings in groups.items():
        verdicts: dict[str, Cell] = {}
        for finding in sorted(findings, key=lambda f: f.verdict.severity):
            verdicts[finding.kind] = Verdict(finding.verdict.value, report.ok or finding.verdict.passes)
        worst = max(findings, key=lambda f: (f.verdict.severity, not f.inherited, f.ulp or 0.0))
        row = (
            shortened(node),
            findings[0].place,
            *(verdicts.get(kind, "–") for kind in kinds),
            Amount(worst.ulp, 3),
            Amount(worst.allowed_ulp, 3),
        )
        found.append((worst.verdict.passes, worst.inherited, row))
    rows = tuple(row for _, _, row in sorted(found, key=lambda one: one[:2]))
    if rows:
        head = ("node", "line", *(KINDS[kind] for kind in kinds), "ulp", "allowed")
        yield Table(f"Autograd nodes, each at {report.engine}'s own numbers", head, rows)


def _chain(report: Report) -> Section:
    """The chain rule in symbols: each adjoint, then the closed form where it stays short."""
    derivation = report.derivation
    assert derivation is not None
    scalars = {
        f.node: f.exact
        for f in report.findings
        if f.kind == "gradient" and not f.index and f.exact is not None
    }
    rows = []
    for adjoint in derivation.adjoints[1:]:
        sides: list[Piece] = [Formula(adjoint.left), Formula(adjoint.formula)]
        if adjoint.name in scalars and adjoint.formula.free_symbols:
            sides.append(Number(scalars[adjoint.name]))
        rows.append(Row(tuple(sides), f"{adjoint.uses} uses, added" if adjoint.uses > 1 else ""))
    output = derivation.graph.output.name
    for name, formula in derivation.closed.items():
        left = Partial(sympy.Symbol(output), sympy.Symbol(name))
        rows.append(Row((left, Formula(formula)), "in the leaves"))
    return Section("Chain rule", tuple(rows))


def _tensors(report: Report, small: set[str], whole: bool) -> Iterator[Tensor]:
    """Every derivative of more than one entry that does not stand whole in the answer; of a recorded function
    a short page has the gradients alone, where these are few numbers."""
    if report.problem is None and not whole:
        if sum(f.entries for f in report.findings if f.kind == "gradient") > ALL_WHOLE:
            return
        report = replace(report, local={})
    told = "" if report.problem else ", from the leaves"
    gradients = reversed(list(report.gradients.items()))
    named = [(f"gradient of {name}{told}", numbers) for name, numbers in gradients if name not in small]
    named += [(f"∂{node}/∂{wrt}", numbers) for (node, wrt), numbers in report.local.items()]
    for name, numbers in named:
        if numbers.exact.size > 1:
            yield Tensor(name, numbers.exact, numbers.engine, numbers.ulp, "probed" if numbers.probed else "")
