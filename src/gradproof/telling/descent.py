"""A descent as a page, and as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from . import machine, of_pages
from .checked import comparison
from .page import Amount, Cell, Comparison, Faults, Listing, Notes, Page, Part, Picture, Table, Verdict
from .plot import Series, plot
from .words import counted, place

if TYPE_CHECKING:
    from ..descent.report import DescentReport, Step
    from ..verdict import Finding

HEAD, TAIL, BAD = 6, 3, 6  # steps shown: the first, the last, and those that do not pass
FEW = 1  # entries of all parameters; more are told by the largest of them
DRAWN = 6  # parameters in a plot
LONG = 200  # steps in a table of a page
TOLD = 8  # findings in full

KINDS = {
    "forward": "value of {}", "local": "local gradient of {} by {}", "gradient": "gradient of {}",
    "recorded": "gradient of {}, as the optimizer saw it",
    "micro-batches": "gradient of {}, over the micro-batches", "state": "state {}", "update": "update of {}",
}  # fmt: skip


def render(report: DescentReport, form: str, images: Sequence[str] = ()) -> str:
    """The descent in one of `FORMS`; `images` are the names of files of the plots, for a Markdown page beside
    them."""
    if form in FORMS:
        return FORMS[form](report)
    return of_pages([page_of(report, images, whole=form != "text")], form)


def page_of(report: DescentReport, images: Sequence[str] = (), *, whole: bool = False) -> Page:
    """The descent's page: what does not pass, the steps, what there is to say of them; a `whole` one has
    plots."""
    parts: list[Part] = []
    if failing := _failing(report):
        parts.append(failing)
    parts.append(_table(report, _chosen(report, *((LONG, TAIL) if whole else (HEAD, TAIL)))))
    if notes := tuple(note for note in (*report.notes, _sensitivity(report)) if note):
        parts.append(Notes("", notes))
    drawn = plots(report) if whole else {}
    caption = f"Wide lines: the exact trajectory ({report.bits} bits). Dashed: {report.engine}."
    for (name, svg), file in zip(drawn.items(), images or [""] * len(drawn), strict=True):
        parts.append(Picture(name, partial(str, svg), caption=caption, file=file))
    parts.append(_rule(report))
    beside = "Each step is judged at the engine's own numbers; beside it goes the exact trajectory."
    return Page(
        report.title,
        tuple(parts),
        beside,
        verdict=Verdict(report.verdict.value, report.ok),
        headline=headline(report),
        target=report.target,
        run=settings(report),
        engine=report.engine,
    )


# Words


def headline(report: DescentReport) -> str:
    """The verdict in one sentence."""
    steps = f"{len(report.steps)} step{'s' if len(report.steps) != 1 else ''}"
    if report.ok:
        return f"verified: {steps}, {counted([finding.verdict for finding in report.findings])}"
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


def _option(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " and ".join(f"{part:g}" for part in value) if isinstance(value, tuple | list) else f"{value:g}"


def _failing(report: DescentReport) -> Faults | None:
    """What does not pass, in full as far as it is new: the same in many steps is told once."""
    first: dict[tuple[str, str, str], Comparison] = {}
    for step, finding in report.failing:
        key = (finding.kind, finding.node, finding.wrt or "")
        if key not in first:
            about = f"step {step.number}: {named(finding)}"
            first[key] = comparison(finding, report.ok, report.dtype, about)
    told = tuple(first.values())[:TOLD]
    more = len(report.failing) - len(told)
    rest = (f"and {more:,} more that do not pass",) if more else ()
    return Faults("What does not pass", told, rest) if told else None


def _rule(report: DescentReport) -> Listing:
    source = f"torch.optim.{report.rule.torch}, as documented: p is the parameter, g its gradient"
    return Listing("Update", (source, *(f"  {line}" for line in report.lines)))


def _sensitivity(report: DescentReport) -> str:
    caught = [finding.sensitivity for finding in report.findings if finding.sensitivity is not None]
    if not (report.ok and caught):
        return ""
    half = f"a relative error above {median(caught):.2g} would have been caught in half of the comparisons"
    return f"Sensitivity: {half}, above {max(caught):.2g} in each."


# Tables


def _table(report: DescentReport, steps: Sequence[Step | None]) -> Table:
    """A row a step; None is a gap. One parameter is shown by its numbers, several by the largest of the
    gradient."""
    engine = report.engine
    names = [leaf.name for leaf in report.problem.graph.parameters]
    output = report.problem.graph.output.name
    few = sum(array.size for array in report.steps[0].parameters.values()) <= FEW
    told: tuple[str, ...] = ("largest |gradient|, exact", engine)
    if few:
        told = (f"∂{output}/∂{names[0]}, exact", engine, f"new {names[0]}, exact", engine)
    head = ("step", f"{output}, exact", engine, *told, "apart (ulp)", "verdict")
    rows: list[tuple[Cell, ...]] = []
    for step in steps:
        if step is None:
            rows.append(("…",) * len(head))
            continue
        shown = _only if few else _largest
        pairs = [step.exact_loss, step.loss, shown(step.exact_gradients), shown(step.gradients)]
        pairs += [_only(step.exact_updated), _only(step.updated)] if few else []
        apart = Amount(step.distance.ulp if step.distance else None, 3)
        verdict = Verdict(step.verdict.value, step.verdict.passes)
        rows.append((str(step.number), *map(Amount, pairs), apart, verdict))
    return Table("Each step: the exact number beside the engine's", head, tuple(rows))


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


def machine_readable(report: DescentReport) -> str:
    """One JSON object, `schema` 1; numbers that JSON cannot hold are texts, as in the report of a check."""
    verdicts = Counter(step.verdict.value for step in report.steps)
    hessian = {
        where: {
            "smallest": curved.smallest,
            "largest": curved.largest,
            "condition": machine.plain(curved.condition),
        }
        for where, curved in report.curvatures.items()
    }
    findings = [{"step": step.number, **machine.row(one, report.dtype)} for step, one in report.failing]
    descent = {
        "target": report.target, "title": report.title, "engine": report.engine, "dtype": report.dtype,
        "optimizer": report.optimizer, "rule": report.rule.name,
        "settings": {name: list(x) if isinstance(x, tuple) else x for name, x in report.settings.items()},
        "update": list(report.lines), "verdict": report.verdict.value, "ok": report.ok, "asked": report.asked,
        "notes": list(report.notes), "bits": report.bits, "hessian": hessian,
        "steps": [_step(step) for step in report.steps], "findings": findings,
        "seconds": round(report.seconds, 4),
    }  # fmt: skip
    whole = {"schema": 2, "descent": descent, "ok": report.ok, "counts": dict(sorted(verdicts.items()))}
    return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)


def _step(step: Step) -> machine.Json:
    verdicts: dict[str, str] = {}
    for finding in sorted(step.findings, key=lambda f: f.verdict.severity):
        verdicts[finding.kind] = finding.verdict.value
    apart = step.distance
    return {
        "step": step.number, "verdict": step.verdict.value, "verdicts": dict(sorted(verdicts.items())),
        "loss": machine.plain(step.loss), "exact_loss": machine.plain(step.exact_loss),
        "parameters": _arrays(step.parameters), "gradients": _arrays(step.gradients),
        "exact_gradients": _arrays(step.exact_gradients), "updated": _arrays(step.updated),
        "exact_updated": _arrays(step.exact_updated), "steepest": machine.plain(step.steepest),
        "ulp": machine.plain(apart.ulp if apart else None),
        "relative": machine.plain(apart.relative if apart else None),
    }  # fmt: skip


def _arrays(arrays: Mapping[str, np.ndarray | None] | None) -> machine.Json | None:
    if arrays is None:
        return None
    return {name: None if array is None else machine.nested(array) for name, array in arrays.items()}


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
        row: list[object] = [step.number, step.exact_loss, step.loss]
        for _, name, at in entries:
            for arrays in (step.exact_gradients, step.gradients, step.exact_updated, step.updated):
                array = arrays[name] if arrays else None
                row.append(None if array is None else float(array.reshape(-1)[at]))
        apart = step.distance
        writer.writerow(
            [*row, apart.ulp if apart else None, apart.relative if apart else None, step.verdict.value]
        )
    return file.getvalue().rstrip("\n")


FORMS: dict[str, Callable[[DescentReport], str]] = {"json": machine_readable, "csv": csv_table}
