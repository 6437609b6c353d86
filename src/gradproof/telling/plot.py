"""A plot of a few lines over the steps, as SVG: light and dark by itself, readable without colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .templates import rendered

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 72, 30, 36
SIZES = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "top": TOP}
SIZES |= {"right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM}
MAX_POINTS = 600  # of one line; more are no finer on a screen
TICKS = 6


@dataclass(frozen=True)
class Series:
    """A line: values by step (None or not finite: a gap), its place among the colours; `label` stands at its
    end."""

    name: str
    values: tuple[float | None, ...]
    colour: int = 0
    dashed: bool = False
    label: str = ""


@dataclass(frozen=True)
class _Frame:
    """Where steps and values lie on the page."""

    low: float
    high: float
    count: int  # of steps

    def x(self, n: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * n / (self.count - 1), 1)

    def y(self, value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low), 1)

    def line(self, one: Series, values: Sequence[float | None]) -> dict[str, object]:
        """Its runs from gap to gap, and its label."""
        stride = max(1, len(values) // MAX_POINTS)
        runs: list[list[str]] = [[]]
        for n, value in enumerate(values):
            if value is None:
                runs.append([])
            elif n % stride == 0 or n == len(values) - 1:
                runs[-1].append(f"{self.x(n)},{self.y(value)}")
        shown = [" ".join(run if len(run) > 1 else run * 2) for run in runs if run]
        ends = [(n, value) for n, value in enumerate(values) if value is not None][-1:] if one.label else []
        label = [{"x": self.x(n) + 5, "y": self.y(value) + 4, "text": one.label} for n, value in ends]
        return {
            "name": one.name,
            "runs": shown,
            "colour": one.colour % 6,
            "dashed": one.dashed,
            "label": label,
        }


def plot(title: str, series: Sequence[Series], *, log: bool = False, first: int = 1) -> str:
    """The lines over the steps from `first` on; `log` is for values that are all positive, others are left
    out there."""
    drawn = [_cleaned(one, log) for one in series]
    numbers = [y for one in drawn for y in one if y is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        pad = max(abs(low), abs(high)) * 0.1 or 1.0
        low, high = low - pad, high + pad
    count = max(2, max((len(one) for one in drawn), default=2))
    frame = _Frame(low, high, count)
    lines = [frame.line(one, values) for one, values in zip(series, drawn, strict=True)]
    marks = [{"y": frame.y(at), "label": _power(at) if log else f"{at:.4g}"} for at in _ticks(low, high, log)]
    shown = sorted({round((count - 1) * k / 4) for k in range(5)})
    steps = [{"x": frame.x(n), "label": first + n} for n in shown]
    return rendered("plot.svg.jinja", title=title, lines=lines, marks=marks, steps=steps, **SIZES).strip()


def _cleaned(one: Series, log: bool) -> list[float | None]:
    """What can be drawn: finite numbers, and their logarithms to base 10."""

    def clean(value: float | None) -> float | None:
        if value is None or not math.isfinite(value) or abs(value) > 1e300 or (log and value <= 0):
            return None
        return math.log10(value) if log else value

    return [clean(value) for value in one.values]


def _ticks(low: float, high: float, log: bool) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= TICKS)
    if log and high - low >= 1:
        step = max(1.0, round(step))
    return [n * step + 0.0 for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _power(at: float) -> str:
    return f"1e{at:.0f}" if at == round(at) else f"{10**at:.3g}"
