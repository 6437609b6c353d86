"""The terminal's report: short enough to read, wrong rows told in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from .. import notation
from . import Failure, number
from .words import KINDS, headline, name_of, place, sensitivity

if TYPE_CHECKING:
    from ..oracle import Report
    from ..verdicts import Finding

WIDTH = 38  # of a formula in a table
ROWS = 24  # of a table; the rest is counted


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """One report in full; of several, a line each, and in full those that do not pass."""
    if len(reports) == 1 and not errors:
        return _full(reports[0])
    parts = []
    failing = [report for report in reports if not report.ok]
    if reports:
        rows = [[_mark(report), report.verdict.value, report.target, report.title, len(report.findings)] for report in reports]
        parts.append(_table(rows, ["", "verdict", "file", "title", "compared"]))
    parts += [_full(report) for report in failing]
    counted = f"{len(reports) - len(failing)} of {len(reports)} as they should be"
    parts.append(counted + (f", {len(errors)} could not be read" if errors else ""))
    return "\n\n".join(parts)


def _mark(report: Report) -> str:
    return "ok" if report.ok else "NOT OK"


def _full(report: Report) -> str:
    head = [report.title, f"{report.target}: {headline(report)}", f"engine {report.engine}, {report.dtype}"]
    parts = ["\n".join(dict.fromkeys(head))]
    for kind, title in KINDS:
        findings = [finding for finding in report.findings if finding.kind == kind]
        if findings:
            parts.append(f"{title}\n{_findings(findings)}")
    if chain := _chain(report):
        parts.append("\n".join(chain))
    notes = [f"  {name_of(f)}{place(f.index)}: {f.verdict.value}: {f.note}" + _numbers(f) for f in report.findings if f.note]
    if notes:
        parts.append("Notes\n" + "\n".join(notes[:ROWS]))
    parts.append("\n".join(sensitivity(report)))
    return "\n\n".join(part for part in parts if part)


def _numbers(finding: Finding) -> str:
    if finding.verdict.passes or finding.exact is None or finding.value is None:
        return ""
    return f" (exact {number(finding.exact, 17)}, engine {number(finding.value, 17)})"


def _findings(findings: Sequence[Finding]) -> str:
    order = sorted(findings, key=lambda f: (f.verdict.passes, f.inherited)) if len(findings) > ROWS else findings
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
    first = "gradient of" if findings[0].kind == "gradient" else "node" if findings[0].kind == "forward" else "local"
    table = _table(rows, [first, "formula", "exact", "engine", "ulp", "allowed", "verdict"])
    return table + (f"\n  and {len(order) - ROWS} more, all passing" if len(order) > ROWS else "")


def _chain(report: Report) -> list[str]:
    """The chain rule in symbols: each adjoint, then the closed form where it stays short."""
    derivation = report.derivation
    if derivation is None:
        return []
    adjoints = derivation.adjoints[1:]
    if len(adjoints) > ROWS:
        return []
    scalars = {f.node: f.exact for f in report.findings if f.kind == "gradient" and not f.index and f.exact is not None}
    lines = ["Chain rule"]
    for adjoint in adjoints:
        shared = f"   ({adjoint.uses} uses, added)" if adjoint.uses > 1 else ""
        value = f" = {number(scalars[adjoint.name])}" if adjoint.name in scalars and adjoint.formula.free_symbols else ""
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
