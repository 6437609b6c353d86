"""Who is to blame for a wrong number, and what the mistake looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .arithmetic import Balls, centres
from .graph import Graph, lines
from .verdicts import Finding, Judgement, Verdict


def chained(step: Judgement, whole: Judgement) -> Judgement:
    """A gradient's judgement: its own step's verdict, beside the exact gradient from the leaves.

    A step that holds while the whole is wrong is inherited, or a kink that cancels: every piece has a derivative that
    convention allows, and the function is smooth with another one.
    """
    if step.verdict in (Verdict.WRONG, Verdict.FAILED):
        return step
    if step.verdict is Verdict.KINK and whole.exact is None and whole.value is not None and np.isfinite(whole.value):
        # Not smooth as a whole either; where several kinks meet, the one-sided derivatives do not span all there is.
        return step
    if whole.verdict is Verdict.WRONG:
        cancels = "the pieces have kinks here, but the whole function is smooth" if step.verdict is Verdict.KINK else ""
        note = "; ".join(part for part in (whole.note, cancels) if part)
        return replace(whole, sensitivity=step.sensitivity, note=note)
    if step.verdict is Verdict.KINK:
        return whole if whole.verdict in (Verdict.EXACT, Verdict.ROUNDING) else step
    if step.verdict is Verdict.UNDECIDED:
        return whole if whole.verdict.passes else step
    if whole.verdict is Verdict.UNDECIDED:
        return step
    # The step decides; `exact` means correctly rounded against the leaves.
    verdict = Verdict.EXACT if whole.verdict is Verdict.EXACT else Verdict.ROUNDING
    return replace(whole, verdict=verdict, sensitivity=step.sensitivity, cancelled=step.cancelled, refuted=0)


def with_origins(findings: list[Finding], graph: Graph) -> list[Finding]:
    """Mark what is inherited: a gradient that is off although its own step holds, or whose reader is to blame."""
    wrong = {f.node for f in findings if f.verdict is Verdict.WRONG}
    below: dict[str, str] = {}
    for line in reversed(lines(graph)):
        source = line.name if line.name in wrong else below.get(line.name)
        if source:
            for parent in line.parents:
                below.setdefault(parent, source)
    forward = next((f.node for f in findings if f.kind == "forward" and f.verdict is Verdict.WRONG), None)
    reader = {(f.verdict, f.wrt): f.node for f in findings if f.kind == "local"}
    marked = []
    for finding in findings:
        origin = None
        if finding.kind == "gradient" and not finding.inherited and finding.verdict in _INHERITABLE:
            origin = reader.get((finding.verdict, finding.node))
            if origin is None and finding.verdict is Verdict.WRONG:
                origin = below.get(finding.node) or forward
        if origin is not None:
            told = f"inherited from {origin}" if finding.verdict is Verdict.WRONG else ""
            note = "; ".join(part for part in (finding.note, told) if part)
            finding = replace(finding, inherited=True, note=note)
        marked.append(finding)
    if wrong and all(f.inherited for f in marked if f.verdict is Verdict.WRONG):
        # What it is inherited from is no fault of its own: a singular point. Then it is told here.
        marked = [replace(f, inherited=False) if f.verdict is Verdict.WRONG else f for f in marked]
    return marked


_INHERITABLE = (Verdict.WRONG, Verdict.UNDECIDED, Verdict.KINK)


def lost_use(gradient: np.ndarray, parts: Sequence[tuple[str, Balls]]) -> str:
    """Whether a gradient is what one child passed, and the others' parts are missing."""
    if len(parts) < 2:
        return ""
    for name, part in parts:
        if gradient.shape == part.shape and np.allclose(gradient, centres(part), rtol=1e-3, atol=0) and gradient.any():
            others = ", ".join(other for other, _ in parts if other != name)
            return f"only the part from {name} arrived; that from {others} is lost or overwritten"
    return ""


def likeness(value: np.ndarray | None, expected: Balls) -> str:
    """Known mistakes that a wrong array looks like."""
    if value is None or not np.isfinite(value).all():
        return ""
    right = centres(expected)
    if right.shape != value.shape or not np.isfinite(right).all() or not right.any():
        return ""
    if not value.any():
        return "it is zero"
    if right.ndim >= 2 and right.shape[-1] == right.shape[-2]:
        turned = np.swapaxes(right, -1, -2)
        if np.allclose(value, turned, rtol=1e-3) and not np.allclose(value, right, rtol=1e-3):
            return "it is transposed"
    at = np.abs(right) > 1e-6 * np.abs(right).max()
    ratios = value[at] / right[at]
    ratio = float(np.median(ratios))
    if not np.allclose(ratios, ratio, rtol=1e-6, atol=0) or ratio == 0:
        return ""
    if abs(ratio + 1) < 1e-6:
        return "the sign is wrong"
    return f"a factor of {ratio:.10g}" if abs(ratio - 1) > 1e-12 else ""
