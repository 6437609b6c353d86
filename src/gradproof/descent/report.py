"""The report of a descent: plain records, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from .. import display
from ..engines.descent import Arrays
from ..language.files import Problem
from ..verdict import Finding, Verdict, worst
from .optimizers import Rule
from .trajectory import Curvature


class End(Enum):
    """Why a descent ended early: its numbers are beyond the dtype's, or at the engine's parameters the exact
    gradient is proved to be as small as was asked for, or 0."""

    BEYOND = auto()
    SMALL = auto()
    ZERO = auto()


@dataclass(frozen=True)
class Distance:
    """How far the engine's updated parameters are from the exact trajectory's, at the farthest entry."""

    ulp: float
    relative: float | None


@dataclass(frozen=True, eq=False)
class Step:
    """One step. The engine's numbers first, then those of the exact trajectory (None where it is lost).

    `steepest` is a proved upper bound of the magnitudes in the exact gradient at the engine's parameters.
    """

    number: int
    parameters: Arrays
    loss: float | None
    gradients: Mapping[str, np.ndarray | None]
    updated: Arrays
    findings: tuple[Finding, ...]
    steepest: float
    exact_loss: float | None = None
    exact_gradients: Mapping[str, np.ndarray] | None = None
    exact_updated: Mapping[str, np.ndarray] | None = None
    distance: Distance | None = None

    @property
    def verdict(self) -> Verdict:
        return worst([finding.verdict for finding in self.findings])


@dataclass(frozen=True, eq=False)
class DescentReport:
    """A descent, step by step.

    `end` says why it ended before all steps that were `asked` for; with `until`, `largest` bounds the exact
    gradient at its last parameters, None where that is not finite. `lost` says why the exact trajectory ended
    early, at the precision `bits`.
    """

    title: str
    target: str
    engine: str
    dtype: str
    optimizer: str
    rule: Rule
    settings: Mapping[str, Any]
    lines: tuple[str, ...]
    asked: int
    steps: tuple[Step, ...]
    curvatures: Mapping[str, Curvature]
    bits: int
    lost: str
    seconds: float
    problem: Problem
    accumulate: bool = False
    end: End | None = None
    until: float | None = None
    largest: float | None = None
    interrupted: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all steps, in order."""
        return tuple(finding for step in self.steps for finding in step.findings)

    @property
    def verdict(self) -> Verdict:
        """The worst of all steps."""
        return worst([step.verdict for step in self.steps])

    @property
    def ok(self) -> bool:
        return self.verdict.passes

    @property
    def failing(self) -> tuple[tuple[Step, Finding], ...]:
        """What does not pass, each with its step; what is inherited from another finding is left out where
        there is one."""
        bad = [
            (step, finding) for step in self.steps for finding in step.findings if not finding.verdict.passes
        ]
        return tuple(pair for pair in bad if not pair[1].inherited) or tuple(bad)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of the whole."""
        told: tuple[str, ...] = display.telling().of_whole_descent(self)
        return told

    def to_text(self) -> str:
        return self._rendered("text")

    __str__ = to_text

    def to_markdown(self) -> str:
        return self._rendered("markdown")

    def to_html(self) -> str:
        return self._rendered("html")

    def to_json(self) -> str:
        return self._rendered("json")

    def to_csv(self) -> str:
        return self._rendered("csv")

    def _rendered(self, form: str) -> str:
        return display.telling().of_descent(self, form)
