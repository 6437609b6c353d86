"""Markdown for GitHub: tables, formulas in its math, the graph as a Mermaid picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from ..proof.graph import Node
from ..proof.slopes import written
from . import Failure, notation, number
from .words import KINDS, chained_error, headline, name_of, node_rows, place, sensitivity

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding
    from .derivation import Derivation

COLOURS = {
    "exact": "#d3f0d8,stroke:#1a7f37", "rounding": "#d3f0d8,stroke:#1a7f37", "kink": "#fff3c4,stroke:#9a6700",
    "wrong": "#ffd7d5,stroke:#cf222e", "failed": "#ffd7d5,stroke:#cf222e", "undecided": "#e8e8e8,stroke:#57606a",
    "unsupported": "#e8e8e8,stroke:#57606a",
}  # fmt: skip
MAX_PICTURE = 60  # nodes that people can still look at
MAX_LABEL = 34


def render(reports: Sequence[Report], errors: Sequence[Failure] = ()) -> str:
    """The reports below each other; before several of them, an index."""
    pages = [page(report) for report in reports]
    if len(reports) == 1 and not errors:
        return pages[0]
    return "\n".join([index([(report, "") for report in reports], errors), *pages])


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
        parts.append(
            table([[escape(target), escape(message)] for target, message in errors], ["file", "why"])
        )
    return "\n".join(parts) + "\n"


def page(report: Report) -> str:
    """One report."""
    derivation = report.derivation
    parts = [f"# {escape(report.title)}\n"]
    if report.problem is not None and report.problem.teaches:
        parts.append(f"{escape(report.problem.teaches)}\n")
    parts.append(f"**{escape(headline(report))}** · engine {escape(report.engine)} · {report.dtype}\n")
    wrong = [finding for finding in report.findings if not finding.verdict.passes]
    if wrong:
        rows = [
            [
                escape(name_of(f) + place(f.index) + (f" ({f.place})" if f.place else "")),
                f.verdict.value,
                number(f.exact, 17),
                number(f.value, 17),
                escape(f.note),
            ]
            for f in wrong
        ]
        parts.append(table(rows, ["what does not pass", "verdict", "exact", "engine", "note"]) + "\n")
    if derivation is None:
        parts.append("## Autograd nodes\n")
        nodes = [
            [
                escape(row.node),
                escape(row.place),
                row.forward,
                row.backward,
                number(row.worst.ulp, 3),
                number(row.worst.allowed_ulp, 3),
            ]
            for row in node_rows(report)
        ]
        parts.append(table(nodes, ["node", "line", "forward", "backward", "ulp", "allowed ulp"]) + "\n")
    elif len(derivation.graph.nodes) <= MAX_PICTURE:
        parts.append("## The graph\n")
        parts.append(_picture(report, derivation))
        parts.append("## Nodes\n")
        rows = [[f"$`{_equation(node)}`$"] for node in derivation.graph.nodes]
        parts.append(table(rows, ["node, in index notation"]) + "\n")
        parts.append("## The chain rule\n")
        parts += _chain(derivation)
    for kind, title in KINDS if derivation is not None else KINDS[2:]:
        findings = [finding for finding in report.findings if finding.kind == kind]
        if findings:
            parts.append(f"## {title}\n")
            parts.append(_findings(findings) + "\n")
    told = [f"* {escape(line)}" for line in (*chained_error(report), *sensitivity(report))]
    notes = [
        f"* {escape(name_of(f) + place(f.index))}: {escape(f.note)}"
        for f in report.findings
        if f.note and f.verdict.passes
    ]
    if told or notes:
        parts.append("## Remarks\n")
        parts.append("\n".join([*told, *notes]) + "\n")
    return "\n".join(parts)


def _equation(node: Node) -> str:
    left, right = written(node)
    return f"{math(notation.latex(left))} = {math(notation.latex(right))}"


def _chain(derivation: Derivation) -> list[str]:
    rows = []
    for gradient in derivation.locals:
        left = rf"\frac{{\partial {notation.latex(gradient.left[0])}}}{{\partial {notation.latex(gradient.left[1])}}}"
        rows.append([f"$`{math(left)}`$", f"$`{math(notation.latex(gradient.formula))}`$"])
    parts = [table(rows, ["local gradient", "formula"]) + "\n"]
    rows = []
    for adjoint in derivation.adjoints:
        equation = f"{notation.latex(adjoint.left)} = {notation.latex(adjoint.formula)}"
        rows.append([f"$`{math(equation)}`$", f"{adjoint.uses} uses, added" if adjoint.uses > 1 else ""])
    parts.append(table(rows, ["adjoint, from the output back", ""]) + "\n")
    if derivation.closed:
        output = notation.latex_name(derivation.graph.output.name)
        rows = []
        for name, formula in derivation.closed.items():
            left = rf"\frac{{\partial {output}}}{{\partial {notation.latex_name(name)}}}"
            rows.append([f"$`{math(f'{left} = {notation.latex(formula)}')}`$"])
        parts.append(table(rows, ["closed in the leaves"]) + "\n")
    return parts


def _findings(findings: Sequence[Finding]) -> str:
    rows = [
        [
            escape(name_of(finding).removeprefix("chained gradient of ")),
            _code(finding.formula),
            number(finding.exact),
            number(finding.value),
            number(finding.ulp, 3),
            number(finding.allowed_ulp, 3),
            finding.verdict.value,
        ]
        for finding in findings
    ]
    return table(rows, ["", "formula", "exact", "engine", "ulp", "allowed ulp", "verdict"])


def _code(text: str) -> str:
    """A formula as code in a table's cell, in one line and without what would end either."""
    return f"`` {' '.join(text.split()).replace('|', '∣').replace('`', 'ˋ')} ``" if text else ""


def _picture(report: Report, derivation: Derivation) -> str:
    """The graph, its nodes coloured by the worst verdict on them, its edges carrying the local gradients."""
    graph = derivation.graph
    names = [leaf.name for leaf in graph.leaves] + [node.name for node in graph.nodes]
    ids = {name: f"n{n}" for n, name in enumerate(names)}
    verdicts: dict[str, str] = {}
    for finding in sorted(report.findings, key=lambda f: f.verdict.severity):
        if not finding.inherited:
            verdicts[finding.node] = finding.verdict.value
    lines = ["```mermaid", "graph LR"]
    for leaf in graph.leaves:
        shape = ('(["', '"])') if leaf.given else ('(("', '"))')
        lines.append(f"  {ids[leaf.name]}{shape[0]}{_label(leaf.name)}{shape[1]}")
    for node in graph.nodes:
        lines.append(f'  {ids[node.name]}["{_label(node.name)}"]')
    slopes = {(g.node, g.wrt): notation.text(g.formula) for g in derivation.locals}
    for node in graph.nodes:
        for parent in dict.fromkeys(read.parent for read in node.reads):
            label = slopes.get((node.name, parent))
            arrow = f'-- "{_label(label)}" -->' if label else "-->"
            lines.append(f"  {ids[parent]} {arrow} {ids[node.name]}")
    used = sorted(set(verdicts.values()))
    lines += [f"  classDef {verdict} fill:{COLOURS[verdict]},color:#1f2328" for verdict in used]
    for verdict in used:
        members = [ids[name] for name in names if verdicts.get(name) == verdict]
        if members:
            lines.append(f"  class {','.join(members)} {verdict}")
    lines += [
        "```",
        "",
        "Round: parameters; stadium: given; boxes: nodes, coloured by verdict. On the edges: local "
        "gradients.",
        "",
    ]
    return "\n".join(lines)


def _label(text: str) -> str:
    """A text inside Mermaid's quotes: nothing of it is markup."""
    short = text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"
    return "".join(c if c.isalnum() or c in " _.,=+-/^" or ord(c) > 127 else f"#{ord(c)};" for c in short)


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
