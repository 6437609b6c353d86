"""Sentences that every report says alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import number

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding

KINDS = (
    ("forward", "Forward: each line's value"),
    ("local", "Local gradients: each line alone"),
    ("gradient", "Chained gradients: from the output back"),
)


# A verdict's symbol, so that nothing hangs on a colour, and its style.
SYMBOLS = {
    "exact": "✓",
    "rounding": "✓",
    "kink": "◇",
    "wrong": "✗",
    "failed": "✗",
    "undecided": "?",
    "unsupported": "–",
}
STYLES = {
    "exact": "good", "rounding": "good", "kink": "told", "undecided": "told", "unsupported": "told", "wrong": "bad",
    "failed": "bad",
}  # fmt: skip
MAX_TEXT = 300  # characters of a cell


@dataclass(frozen=True)
class NodeRow:
    """An autograd node in one row: its value's verdict, that of all it passed on, and its worst finding."""

    node: str
    place: str
    forward: str
    backward: str
    worst: Finding


def node_rows(report: Report) -> list[NodeRow]:
    """A recorded function's nodes, in the order in which they ran; those that do not pass come first."""
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        if finding.kind != "gradient":
            groups.setdefault(finding.node, []).append(finding)
    rows = []
    for node, findings in groups.items():
        verdicts: dict[str, str] = {}
        for finding in sorted(findings, key=lambda f: f.verdict.severity):
            verdicts[finding.kind] = finding.verdict.value
        worst = max(findings, key=lambda f: (f.verdict.severity, not f.inherited, f.ulp or 0.0))
        rows.append(
            NodeRow(node, findings[0].place, verdicts.get("forward", "–"), verdicts.get("local", "–"), worst)
        )
    return sorted(rows, key=lambda row: (row.worst.verdict.passes, row.worst.inherited))


def headline(report: Report) -> str:
    """The verdict in one sentence."""
    verdict = report.verdict.value
    if report.expected:
        expect = report.expected
        where = f" at {expect.node}" if expect.node else ""
        if report.ok:
            return f"{verdict}{where}, as the file expects"
        return f"{verdict}, but the file expects {expect.verdict}{where}"
    bad = [finding for finding in report.findings if not finding.verdict.passes and not finding.inherited]
    if not bad:
        return f"{verdict}: all {len(report.findings)} comparisons pass"
    places = ", ".join(dict.fromkeys(name_of(finding) for finding in bad[:3]))
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"{verdict}: {places}{more}"


def name_of(finding: Finding) -> str:
    """What a finding is about: `l`, `∂loss/∂l` or `∂loss/∂w (chained)`."""
    if finding.kind == "local" and finding.wrt is None:
        return finding.node
    if finding.kind == "local":
        return f"∂{finding.node}/∂{finding.wrt}"
    return finding.node if finding.kind == "forward" else f"chained gradient of {finding.node}"


def sensitivity(report: Report) -> list[str]:
    """What the check could have seen, and what it could not judge."""
    lines = []
    if report.sensitivity is not None and report.verdict.passes:
        lines.append(
            f"Sensitivity: a relative error above {report.sensitivity:.2g} in any step would have been "
            "caught."
        )
    blurred = [finding for finding in report.findings if finding.cancelled and finding.verdict.passes]
    if blurred:
        count = sum(finding.cancelled for finding in blurred)
        names = ", ".join(name_of(finding) for finding in blurred[:4]) + (" …" if len(blurred) > 4 else "")
        entries = "entry" if count == 1 else "entries"
        lines.append(
            f"Not told apart from 0 by their size alone: {count} {entries} where rounding is as large as the "
            f"number ({names})."
        )
    given = [leaf.name for leaf in report.problem.graph.leaves if leaf.given] if report.problem else []
    wrong = {finding.node for finding in report.findings if finding.formula == "given: no gradient"}
    free = [name for name in given if name not in wrong]
    if free:
        lines.append(f"Given, and without a gradient, as it should be: {', '.join(free)}.")
    lines += report.remarks
    if report.not_exercised:
        lines.append(f"Exercised: {', '.join(report.exercised)}; not: {', '.join(report.not_exercised)}.")
    return lines


def chained_error(report: Report) -> list[str]:
    """The end-to-end error of every parameter's gradient, in ulp and relative."""
    lines = []
    parameters = {leaf.name for leaf in report.problem.graph.parameters} if report.problem else set()
    for finding in report.findings:
        if finding.kind == "gradient" and finding.node in parameters and finding.ulp is not None:
            relative = f", {finding.error:.2g} relative" if finding.error is not None else ""
            lines.append(
                f"gradient of {finding.node}: off by {number(finding.ulp, 3)} ulp{relative} from the leaves"
            )
    return lines


def place(index: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, index))}]" if index else ""


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """A text in one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
