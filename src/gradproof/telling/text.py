"""The terminal's report: short enough to read, wrong rows told in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from . import Failure, notation, number
from .words import KINDS, headline, name_of, node_rows, sensitivity
from .words import place as place_of

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding

WIDTH = 38  # of a formula in a table
ROWS = 24  # of a table; the rest is counted
BRIEF = 4  # findings in full under a failing test


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """One report in full; of several, a line each, and in full those that do not pass."""
    if len(reports) == 1 and not errors:
        return _full(reports[0])
    parts = []
    failing = [report for report in reports if not report.ok]
    if reports:
        rows = [
            [_mark(report), report.verdict.value, report.target, report.title, len(report.findings)]
            for report in reports
        ]
        parts.append(_table(rows, ["", "verdict", "file", "title", "compared"]))
    parts += [_full(report) for report in failing]
    counted = f"{len(reports) - len(failing)} of {len(reports)} as they should be"
    parts.append(counted + (f", {len(errors)} could not be checked" if errors else ""))
    return "\n\n".join(parts)


def _mark(report: Report) -> str:
    return "ok" if report.ok else "NOT OK"


def _full(report: Report) -> str:
    head = [report.title, f"{report.target}: {headline(report)}", f"engine {report.engine}, {report.dtype}"]
    parts = ["\n".join(dict.fromkeys(head))]
    if report.problem is None:
        return "\n\n".join(part for part in (*parts, *_function(report)) if part)
    for kind, title in KINDS:
        findings = [finding for finding in report.findings if finding.kind == kind]
        if findings:
            parts.append(f"{title}\n{findings_table(findings)}")
    if chain := _chain(report):
        parts.append("\n".join(chain))
    notes = [
        f"  {name_of(f)}{place_of(f.index)}: {f.verdict.value}: {f.note}" + _numbers(f)
        for f in report.findings
        if f.note
    ]
    if notes:
        parts.append("Notes\n" + "\n".join(notes[:ROWS]))
    parts.append("\n".join(sensitivity(report)))
    return "\n\n".join(part for part in parts if part)


def _function(report: Report) -> list[str]:
    """A recorded function: a row an autograd node, and in full what does not pass."""
    parts = []
    rows = node_rows(report)
    if rows:
        table = [
            [
                row.node,
                row.place,
                row.forward,
                row.backward,
                number(row.worst.ulp, 3),
                number(row.worst.allowed_ulp, 3),
            ]
            for row in rows[:ROWS]
        ]
        passing = all(row.worst.verdict.passes for row in rows[ROWS:])
        more = f"\n  and {len(rows) - ROWS} more" + (", all passing" if passing else "")
        head = ["node", "line", "forward", "backward", "ulp", "allowed"]
        caption = f"Autograd nodes, each at {report.engine}'s own numbers"
        parts.append(f"{caption}\n{_table(table, head)}" + (more if len(rows) > ROWS else ""))
    bad = [finding for finding in report.findings if not finding.verdict.passes]
    own = [finding for finding in bad if not finding.inherited] or bad
    parts += ["\n".join(told(finding)) for finding in own[:ROWS]]
    if len(own) > ROWS:
        parts.append(f"and {len(own) - ROWS} more that do not pass")
    gradients = [finding for finding in report.findings if finding.kind == "gradient"]
    if gradients:
        parts.append(f"Gradients: the sum of what the uses passed on\n{findings_table(gradients)}")
    parts.append("\n".join(sensitivity(report)))
    parts.append(report.traceback)
    return parts


def brief(report: Report, findings: Sequence[Finding]) -> str:
    """For a failing test: what is wrong and where, a table of these findings, and the first of them in
    full."""
    own = [finding for finding in findings if not finding.inherited] or findings
    first = f"{own[0].verdict.value}: {name_of(own[0])}{place_of(own[0].index)}" if own else headline(report)
    if report.expected:
        first = headline(report)
    parts = [f"{first}\n{report.target}: {report.title}\nengine {report.engine}, {report.dtype}"]
    for kind, title in KINDS:
        if rows := [finding for finding in findings if finding.kind == kind]:
            parts.append(f"{title}\n{findings_table(rows)}")
    parts += ["\n".join(told(finding)) for finding in own[:BRIEF]]
    if len(own) > BRIEF:
        parts.append(f"and {len(own) - BRIEF} more that do not pass")
    return "\n\n".join(parts)


def told(finding: Finding) -> list[str]:
    """One finding in full."""
    what = {
        "forward": "value",
        "local": f"gradient by {finding.wrt}" if finding.wrt else "gradient",
        "gradient": "gradient",
    }
    place = f" ({finding.place})" if finding.place else ""
    origin = "inherited" if finding.inherited else "its own"
    lines = [
        f"{finding.verdict.value.upper()} {finding.node}{place}: "
        f"{what[finding.kind]}{place_of(finding.index)}, {origin} error"
    ]
    if finding.exact is not None or finding.value is not None:
        count = f"; {finding.refuted} of {finding.entries} entries are wrong" if finding.refuted else ""
        lines.append(f"  expected {number(finding.exact, 17)}, got {number(finding.value, 17)}: "
                     f"off by {number(finding.ulp, 3)} ulp, allowed "
                     f"{number(finding.allowed_ulp, 3)}{count}")  # fmt: skip
    if finding.formula:
        shown = finding.formula if len(finding.formula) <= 300 else finding.formula[:299] + "…"
        left = f"∂{finding.node}/∂{finding.wrt} = " if finding.kind == "local" else ""
        lines.append(f"  {left}{shown}")
    if finding.note:
        lines.append(f"  {finding.note}")
    return lines


def _numbers(finding: Finding) -> str:
    if finding.verdict.passes or finding.exact is None or finding.value is None:
        return ""
    return f" (exact {number(finding.exact, 17)}, engine {number(finding.value, 17)})"


def findings_table(findings: Sequence[Finding]) -> str:
    """Findings of one kind as a table; where there are too many, those that do not pass."""
    order = (
        sorted(findings, key=lambda f: (f.verdict.passes, f.inherited)) if len(findings) > ROWS else findings
    )
    rows = [
        [
            name_of(finding).removeprefix("chained gradient of "),
            _short(finding.formula),
            number(finding.exact),
            number(finding.value),
            number(finding.ulp, 3),
            number(finding.allowed_ulp, 3),
            finding.verdict.value,
        ]
        for finding in order[:ROWS]
    ]
    first = (
        "gradient of"
        if findings[0].kind == "gradient"
        else "node"
        if findings[0].kind == "forward"
        else "local"
    )
    table = _table(rows, [first, "formula", "exact", "engine", "ulp", "allowed", "verdict"])
    if len(order) <= ROWS:
        return table
    passing = all(finding.verdict.passes for finding in order[ROWS:])
    return f"{table}\n  and {len(order) - ROWS} more" + (", all passing" if passing else "")


def _chain(report: Report) -> list[str]:
    """The chain rule in symbols: each adjoint, then the closed form where it stays short."""
    derivation = report.derivation
    if derivation is None:
        return []
    adjoints = derivation.adjoints[1:]
    if len(adjoints) > ROWS:
        return []
    scalars = {
        f.node: f.exact
        for f in report.findings
        if f.kind == "gradient" and not f.index and f.exact is not None
    }
    lines = ["Chain rule"]
    for adjoint in adjoints:
        shared = f"   ({adjoint.uses} uses, added)" if adjoint.uses > 1 else ""
        value = (
            f" = {number(scalars[adjoint.name])}"
            if adjoint.name in scalars and adjoint.formula.free_symbols
            else ""
        )
        lines.append(f"  {notation.text(adjoint.left)} = {notation.text(adjoint.formula)}{value}{shared}")
    output = derivation.graph.output.name
    for name, formula in derivation.closed.items():
        lines.append(f"  in the leaves: ∂{output}/∂{name} = {notation.text(formula)}")
    return lines


def _short(formula: str) -> str:
    formula = " ".join(formula.split())
    return formula if len(formula) <= WIDTH else formula[: WIDTH - 1] + "…"


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    return "\n".join("  " + line.rstrip() for line in table.splitlines())
