"""A descent in every form: text, Markdown, HTML, JSON, CSV. A new form is one function and one line of
`FORMS`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

from . import machine, number
from .plot import Series, plot
from .templates import rendered
from .words import place

if TYPE_CHECKING:
    from ..descent.steps import DescentReport, Step
    from ..verdict import Finding

HEAD, TAIL, BAD = 6, 3, 6  # steps shown: the first, the last, and those that do not pass
FEW = 1  # entries of all parameters; more are told by the largest of them
DRAWN = 6  # parameters in a plot
LONG = 200  # steps in a table of a page
TOLD = 8  # findings in full

KINDS = {
    "forward": "value of {}", "local": "local gradient of {} by {}", "gradient": "gradient of {}",
    "recorded": "gradient of {}, as the optimizer saw it", "micro-batches": "gradient of {}, over the "
                                                                            "micro-batches",
    "state": "state {}", "update": "update of {}",
}  # fmt: skip


def render(report: DescentReport, form: str, images: Sequence[str] = ()) -> str:
    """The descent in one of `FORMS`; `images` are the names of files of the plots, for a Markdown page beside
    them."""
    if form == "markdown":
        return markdown(report, images)
    return FORMS[form](report)


# Words


def headline(report: DescentReport) -> str:
    """The verdict in one sentence."""
    count = sum(len(step.findings) for step in report.steps)
    steps = f"{len(report.steps)} step{'s' if len(report.steps) != 1 else ''}"
    if report.ok:
        return f"{report.verdict.value}: {steps} verified, all {count:,} comparisons pass"
    bad = [step for step in report.steps if not step.verdict.passes]
    step, finding = report.failing[0]
    return f"{report.verdict.value}: step {step.number}, {named(finding)}; {len(bad)} of {steps} do not pass"


def named(finding: Finding) -> str:
    """What a finding is about, in words."""
    return KINDS[finding.kind].format(finding.node, finding.wrt or "a parent") + place(finding.index)


def settings(report: DescentReport) -> str:
    """The engine, the optimizer and what is set."""
    lr = report.settings.get("lr")
    said = {
        name: value
        for name, value in report.settings.items()
        if name != "lr" and value != report.rule.options.get(name)
    }
    parts = [f"{report.optimizer}, learning rate {lr:g}" if lr is not None else report.optimizer]
    parts += [f"{name.replace('_', ' ')} {_option(value)}" for name, value in said.items()]
    return f"engine {report.engine}, {report.dtype}: " + ", ".join(parts)


def _option(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " and ".join(f"{part:g}" for part in value) if isinstance(value, tuple | list) else f"{value:g}"


def told(step: Step, finding: Finding) -> list[str]:
    """One finding in full."""
    lines = [f"{finding.verdict.value.upper()} step {step.number}: {named(finding)}"]
    if finding.exact is not None or finding.value is not None:
        off = (
            ""
            if finding.ulp is None
            else f": off by {number(finding.ulp, 3)} ulp, allowed {number(finding.allowed_ulp, 3)}"
        )
        count = (
            f"; {finding.refuted} of {finding.entries} entries are wrong"
            if finding.refuted and finding.entries > 1
            else ""
        )
        lines.append(f"  expected {number(finding.exact, 17)}, got {number(finding.value, 17)}{off}{count}")
    if finding.formula:
        lines.append(f"  {finding.formula}")
    if finding.note:
        lines.append(f"  {finding.note}")
    return lines


def _failing(report: DescentReport) -> list[str]:
    """What does not pass, in full as far as it is new: the same in many steps is told once."""
    lines: list[str] = []
    kinds: Counter[tuple[str, str, str]] = Counter()
    for step, finding in report.failing:
        key = (finding.kind, finding.node, finding.wrt or "")
        kinds[key] += 1
        if kinds[key] == 1 and len(kinds) <= TOLD:
            lines += told(step, finding)
    more = sum(kinds.values()) - min(len(kinds), TOLD)
    return [*lines, f"and {more:,} more that do not pass"] if more else lines


def _rule(report: DescentReport) -> list[str]:
    source = f"torch.optim.{report.rule.torch}, as documented: p is the parameter, g its gradient"
    return [source, *(f"  {line}" for line in report.lines)]


def _sensitivity(report: DescentReport) -> str:
    caught = [finding.sensitivity for finding in report.findings if finding.sensitivity is not None]
    if not (report.ok and caught):
        return ""
    return (
        f"Sensitivity: a relative error above {median(caught):.2g} would have been caught in half of the "
        "comparisons, above "
        f"{max(caught):.2g} in each."
    )


# Tables


def _table(report: DescentReport, steps: Sequence[Step | None]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows; None is a gap. One parameter is shown by its numbers, several by the largest of the
    gradient."""
    engine = report.engine
    names = [leaf.name for leaf in report.problem.graph.parameters]
    entries = sum(array.size for array in report.steps[0].parameters.values())
    output = report.problem.graph.output.name
    gradient = f"∂{output}/∂{names[0]}"
    few = entries <= FEW
    shown = (
        [f"{gradient}, exact", engine, f"new {names[0]}, exact", engine]
        if few
        else ["largest |gradient|, exact", engine]
    )
    heads = ["step", f"{output}, exact", engine, *shown, "apart (ulp)", "verdict"]
    rows = []
    for step in steps:
        if step is None:
            rows.append(["…"] * len(heads))
            continue
        pairs: list[float | None] = [step.exact_loss, step.loss]
        if few:
            pairs += [
                _only(step.exact_gradients),
                _only(step.gradients),
                _only(step.exact_updated),
                _only(step.updated),
            ]
        else:
            pairs += [_largest(step.exact_gradients), _largest(step.gradients)]
        apart = step.distance.ulp if step.distance else None
        rows.append([str(step.number), *(number(x) for x in pairs), number(apart, 3), step.verdict.value])
    return heads, rows


def _only(arrays: Mapping[str, np.ndarray | None] | None) -> float | None:
    first = next(iter(arrays.values())) if arrays else None
    return None if first is None else float(first.reshape(-1)[0])


def _largest(arrays: Mapping[str, np.ndarray | None] | None) -> float | None:
    if not arrays:
        return None
    return max(
        (float(np.max(np.abs(array))) for array in arrays.values() if array is not None and array.size),
        default=None,
    )


def _chosen(report: DescentReport, head: int, tail: int) -> list[Step | None]:
    """The first steps, the last, and those that do not pass; a gap where steps are left out."""
    count = len(report.steps)
    bad = [n for n, step in enumerate(report.steps) if not step.verdict.passes][:BAD]
    kept = sorted({*range(min(head, count)), *range(max(0, count - tail), count), *bad})
    found: list[Step | None] = []
    for before, n in zip([-1, *kept], kept, strict=False):
        if n > before + 1:
            found.append(None)
        found.append(report.steps[n])
    return found


# Plots


def plots(report: DescentReport) -> dict[str, str]:
    """The plots as SVG: the loss, on a logarithmic scale where it is positive, and the parameters."""
    engine, output = report.engine, report.problem.graph.output.name
    losses = [step.loss for step in report.steps]
    known = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    positive = bool(known) and min(known) >= 0 and max(known) > 0
    exact_losses = tuple(step.exact_loss for step in report.steps)
    title = f"{output}, by step" + (", logarithmic" if positive else "")
    found = {}
    if known:
        lines = [
            Series(f"{output}, exact", exact_losses),
            Series(f"{output}, {engine}", tuple(losses), 1, dashed=True),
        ]
        found["loss"] = plot(title, lines, log=positive)
    lines = []
    entries = list(_entries(report.steps[0].parameters))
    for n, (label, name, at) in enumerate(entries[:DRAWN]):
        mine = [float(step.updated[name].reshape(-1)[at]) for step in report.steps]
        theirs = [
            None if s.exact_updated is None else float(s.exact_updated[name].reshape(-1)[at])
            for s in report.steps
        ]
        start = float(report.steps[0].parameters[name].reshape(-1)[at])
        lines.append(Series(f"{label}, exact", (start, *theirs), n, label=label))
        lines.append(Series(f"{label}, {engine}", (start, *mine), n, dashed=True))
    shown = ", ".join(label for label, _, _ in entries[:DRAWN]) + (
        f" of {len(entries)}" if len(entries) > DRAWN else ""
    )
    found["parameters"] = plot(f"parameters: {shown}", lines, first=0)
    return found


def _entries(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, int]]:
    """The label, the parameter and the position of each number."""
    for name, array in arrays.items():
        for at in range(array.size):
            yield name + place(tuple(int(n) for n in np.unravel_index(at, array.shape))), name, at


# Forms


def text(report: DescentReport) -> str:
    """Short enough to read: the first steps, the last, and what does not pass."""
    head = list(dict.fromkeys([report.title, f"{report.target}: {headline(report)}", settings(report)]))
    heads, rows = _table(report, _chosen(report, HEAD, TAIL))
    table = tabulate(rows, headers=heads, tablefmt="simple", disable_numparse=True)
    parts = [
        "\n".join(head),
        "\n".join(_rule(report)),
        "\n".join("  " + line.rstrip() for line in table.splitlines()),
    ]
    parts.append("\n".join(_failing(report)))
    parts.append("\n".join([*report.notes, _sensitivity(report)]).strip())
    return "\n\n".join(part for part in parts if part)


def markdown(report: DescentReport, images: Sequence[str] = ()) -> str:
    """A page; the plots are the files named, or stand in it as SVG."""
    heads, rows = _table(report, _chosen(report, LONG, TAIL))
    drawn = plots(report)
    if images:
        shown = [f"![{name}]({_link(image)})" for name, image in zip(drawn, images, strict=True)]
    else:
        shown = list(drawn.values())
    parts = [f"# {_plain(report.title)}", f"**{_plain(headline(report))}**", _plain(settings(report))]
    parts.append("\n".join(["```text", *_rule(report), "```"]))
    parts.append("\n".join(f"* {_plain(note)}" for note in [*report.notes, _sensitivity(report)] if note))
    if failing := _failing(report):
        parts.append("\n".join(["## What does not pass", "", "```text", *failing, "```"]))
    parts.append(
        f"## Plots\n\nWide lines: the exact trajectory ({report.bits} bits). Dashed: {report.engine}."
    )
    parts += shown
    table = tabulate(
        [[_cell(x) for x in row] for row in rows],
        headers=list(map(_cell, heads)),
        tablefmt="github",
        disable_numparse=True,
    )
    parts.append(f"## Steps\n\n{table}")
    return "\n\n".join(part for part in parts if part)


def _cell(cell: str) -> str:
    return cell.replace("|", "\\|")


def _plain(words: str) -> str:
    """A text that holds nothing of Markdown's or HTML's."""
    escaped = "".join(f"\\{c}" if c in "\\`*_{}[]#|" else c for c in words)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def _link(image: str) -> str:
    return f"<{image}>" if " " in image else image


def html(report: DescentReport) -> str:
    """One page that needs nothing else."""
    heads, rows = _table(report, _chosen(report, LONG, TAIL))
    notes = [note for note in [*report.notes, _sensitivity(report)] if note]
    return rendered(
        "descent.html.jinja",
        title=report.title, headline=headline(report), settings=settings(report), ok=report.ok, lines=_rule(report),
        notes=notes, failing=_failing(report), images=list(plots(report).values()), heads=heads, rows=rows,
        engine=report.engine, bits=report.bits,
    )  # fmt: skip


def machine_readable(report: DescentReport) -> str:
    """One JSON object, `schema` 1; numbers that JSON cannot hold are texts, as in the report of a check."""
    verdicts = Counter(step.verdict.value for step in report.steps)
    whole = {
        "schema": 1,
        "descent": {
            "target": report.target, "title": report.title, "engine": report.engine, "dtype": report.dtype,
            "optimizer": report.optimizer, "rule": report.rule.name, "settings": _plain_values(report.settings),
            "update": list(report.lines), "verdict": report.verdict.value, "ok": report.ok, "asked": report.asked,
            "notes": list(report.notes), "bits": report.bits,
            "hessian": {
                where: {"smallest": curved.smallest, "largest": curved.largest, "condition": machine.plain(curved.condition)}
                for where, curved in report.curvatures.items()
            },
            "steps": [_step(step) for step in report.steps],
            "findings": [{"step": step.number, **machine.row(finding)} for step, finding in report.failing],
            "seconds": round(report.seconds, 4),
        },
        "ok": report.ok,
        "counts": dict(sorted(verdicts.items())),
    }  # fmt: skip
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)


def _step(step: Step) -> dict[str, Any]:
    verdicts: dict[str, str] = {}
    for finding in sorted(step.findings, key=lambda f: f.verdict.severity):
        verdicts[finding.kind] = finding.verdict.value
    return {
        "step": step.number,
        "verdict": step.verdict.value,
        "verdicts": dict(sorted(verdicts.items())),
        "loss": machine.plain(step.loss),
        "exact_loss": machine.plain(step.exact_loss),
        "parameters": _arrays(step.parameters),
        "gradients": _arrays(step.gradients),
        "exact_gradients": _arrays(step.exact_gradients),
        "updated": _arrays(step.updated),
        "exact_updated": _arrays(step.exact_updated),
        "steepest": machine.plain(step.steepest),
        "ulp": machine.plain(step.distance.ulp if step.distance else None),
        "relative": machine.plain(step.distance.relative if step.distance else None),
    }


def _arrays(arrays: Mapping[str, np.ndarray | None] | None) -> dict[str, Any] | None:
    if arrays is None:
        return None
    return {name: None if array is None else _listed(array.tolist()) for name, array in arrays.items()}


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list) else machine.plain(value)


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def csv_table(report: DescentReport) -> str:
    """A row for each step, every number to its last digit; nothing where there is none."""
    output = report.problem.graph.output.name
    entries = list(_entries(report.steps[0].parameters))
    heads = ["step", f"{output} exact", output]
    for label, _, _ in entries:
        heads += [f"gradient {label} exact", f"gradient {label}", f"new {label} exact", f"new {label}"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heads, "ulp", "relative", "verdict"])
    for step in report.steps:
        row: list[Any] = [step.number, step.exact_loss, step.loss]
        for _, name, at in entries:
            for arrays in (step.exact_gradients, step.gradients, step.exact_updated, step.updated):
                array = arrays[name] if arrays else None
                row.append(None if array is None else float(array.reshape(-1)[at]))
        apart = step.distance
        writer.writerow(
            [*row, apart.ulp if apart else None, apart.relative if apart else None, step.verdict.value]
        )
    return file.getvalue().rstrip("\n")


FORMS: dict[str, Callable[[DescentReport], str]] = {
    "text": text, "markdown": markdown, "html": html, "json": machine_readable, "csv": csv_table,
}  # fmt: skip
