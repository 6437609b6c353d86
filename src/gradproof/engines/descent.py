"""What a training loop did in one step, whatever library it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..dtypes import DType
from . import Task, Trace

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class Happened:
    """One step of a loop; every number in float64.

    `before` and `after` are the parameters. `traces` has one trace for each micro-batch, with the gradients
    as they arrived; `carried` is what `.grad` held before them and `recorded` what it held when the optimizer
    took its step. `settings` and the states are by parameter; a state holds what the optimizer shows of it.
    `end` is what the parameters were when all of the step was over, where that is known. `failure` is what
    was raised.
    """

    before: Arrays
    traces: list[Trace] = field(default_factory=list)
    carried: dict[str, np.ndarray | None] = field(default_factory=dict)
    recorded: dict[str, np.ndarray | None] = field(default_factory=dict)
    after: Arrays = field(default_factory=dict)
    state_before: dict[str, Arrays] = field(default_factory=dict)
    state_after: dict[str, Arrays] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: Arrays = field(default_factory=dict)
    stepped: bool = False
    failure: str = ""


@dataclass(eq=False)
class Replay:
    """An engine that has run already: what it did is looked at by the same check as any engine's run."""

    name: str
    trace: Trace

    def run(self, task: Task, dtype: DType) -> Trace:
        return self.trace


def learning_options(settings: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's own settings by the names in `known` and `lr`, as Python numbers; what it lacks is as in
    `known`."""
    found = {}
    for key in ("lr", *known):
        value = settings.get(key, known.get(key))
        value = value.item() if hasattr(value, "item") else value
        found[key] = tuple(float(part) for part in value) if isinstance(value, tuple | list) else value
    return found
