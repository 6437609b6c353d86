"""What there is to say of a whole descent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..descent.report import End
from ..descent.trajectory import stable
from ..dtypes import DType, dtype_named

if TYPE_CHECKING:
    from ..descent.report import DescentReport
    from ..descent.trajectory import Curvature


def notes(report: DescentReport) -> tuple[str, ...]:
    """How it ended, where it went, and what the Hessian has to do with it."""
    return (*_end(report), *_course(report), *_hessian(report), *_missing(report))


def _end(report: DescentReport) -> Iterator[str]:
    stopped = f"Stopped after step {report.steps[-1].number}"
    if report.end is End.BEYOND:
        yield f"{stopped}: its numbers are beyond {report.dtype}."
    if report.end is End.SMALL:
        proved = f"proved below {report.until:g} (at most {report.largest:.3g})"
        yield f"{stopped}: at the engine's parameters every entry of the exact gradient is {proved}."
    if report.end is End.ZERO:
        yield f"{stopped}: at the engine's parameters the exact gradient is 0, proved."


def _course(report: DescentReport) -> Iterator[str]:
    steps = report.steps
    # The exact losses, where they are known: at a minimum an engine's may grow in their last digits.
    known = steps[-1].exact_loss is not None
    all_of_them = (step.exact_loss if known else step.loss for step in steps)
    losses = [loss for loss in all_of_them if loss is not None]
    if len(losses) > 1 and not (losses[-1] <= losses[0]) and not report.settings.get("maximize"):
        grew = f"from {losses[0]:.6g} to {losses[-1]:.6g} in {len(losses) - 1} steps"
        yield f"The descent diverges: the loss grew {grew}."
    if report.accumulate:
        sees = "the sum of the gradients of steps 1 to n, and no gradient of the loss"
        yield f"The gradient is not zeroed, as asked: what the optimizer sees at step n is {sees}."
    apart = [step.distance for step in steps if step.distance is not None]
    if apart:
        far = max(apart, key=lambda distance: distance.ulp)
        relative = f", relative {far.relative:.2g}" if far.relative else ""
        yield f"The engine's trajectory and the exact one are at most {far.ulp:.3g} ulp apart{relative}."


def _hessian(report: DescentReport) -> Iterator[str]:
    for where, curved in report.curvatures.items():
        yield _conditioning(curved, where, dtype_named(report.dtype))
    start = report.curvatures.get("start")
    bound = None if start is None else stable(report.rule, report.settings, start)
    if start is not None and bound is not None:
        lr = float(report.settings["lr"])
        rates = "Learning rates" if start.quadratic else "Near the start, learning rates"
        verdict = "above" if lr > bound else "below"
        yield f"{rates} below {bound:.6g} are stable (from λmax); {lr:g} is {verdict}."


def _missing(report: DescentReport) -> Iterator[str]:
    if report.lost:
        yield f"{report.lost.capitalize()}."
    if report.until is not None and report.end is not End.SMALL:
        last = report.largest
        told = "it is not finite" if last is None else f"its largest entry is still {last:.3g}"
        asked = f"below {report.until:g} within {len(report.steps)} steps"
        yield f"The exact gradient was not proved {asked}: {told}."


def _conditioning(curved: Curvature, where: str, dtype: DType) -> str:
    """What the Hessian's eigenvalues mean for digits and steps."""
    shown = f"Hessian at the {where}: eigenvalues from {curved.smallest:.6g} to {curved.largest:.6g}"
    if curved.smallest == curved.largest:
        shown = f"Hessian at the {where}: every eigenvalue is {curved.largest:.6g}"
    if curved.smallest < 0:
        return f"{shown}; negative, so the loss is not convex there."
    if curved.smallest == 0:
        return f"{shown}: singular, there is a direction in which the loss does not curve."
    condition, unit = curved.condition, dtype.unit_roundoff
    told = f"{shown}, condition {condition:.3g}"
    if condition * unit**0.5 <= 1:
        return f"{told}."
    # A relative error u of the gradient moves the point where it vanishes by up to condition * u, relative.
    digits = max(0.0, -np.log10(condition * unit))
    left = f"to {digits:.0f} of its {-np.log10(unit):.0f} digits" if digits >= 0.5 else "to no digit at all"
    steps = condition * np.log(10) / 2
    return (
        f"{told}: ill-conditioned. {np.log10(condition):.0f} digits are lost: gradients in {dtype.name} "
        f"determine the minimum's parameters, in the worst direction, {left}; and plain gradient descent, at "
        f"the best learning rate, takes some {steps:.1e} steps for each digit."
    )
