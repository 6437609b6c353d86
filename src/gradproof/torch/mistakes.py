"""Known mistakes: what would have come out of a backward if one had been made.

Tried only where something is wrong, so that the report can say what it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from ..dtypes import DType
from ..judging.likeness import ANOTHER, Clues, Tried, uses
from ..proof.arithmetic import UNIT, Balls, balls, centres, full
from ..proof.enclosure import Enclosures, Run
from ..proof.graph import Node, size
from ..proof.walk import Values
from .lowering import Lowering
from .recording import Edge, Region, Step, Tape


class Checked(Protocol):
    """What is looked at of a node: its operations, numbers and cotangents."""

    step: Step
    tape: Tape
    lowering: Lowering
    outputs: dict[int, str]
    given: Values
    enclosures: Enclosures


class _Attempts:
    """What one node would have passed on to one of its inputs, under mistakes."""

    def __init__(self, check: Checked, edge: Edge, name: str, rows: Mapping[str, Balls]) -> None:
        region = check.step.inputs[edge]
        assert region is not None
        self.check, self.name, self.rows, self.region = check, name, rows, region
        self.nodes: Sequence[Node] = check.lowering.nodes

    def pulled(
        self, nodes: Sequence[Node], given: Values, rows: Mapping[str, Balls], wrt: str = ""
    ) -> np.ndarray:
        wrt = wrt or self.name
        run = Run(
            tuple(nodes), tuple(rows), {wrt: self.region.shape}, frozenset({*self.check.lowering.active, wrt})
        )
        return centres(run.pull(given, self.check.enclosures.exact, rows)[0]).reshape(self.region.shape)

    def uses(self) -> Tried:
        given = {**self.check.given, ANOTHER: self.check.given[self.name]}
        return uses(self.nodes, self.name, lambda nodes, wrt: self.pulled(nodes, given, self.rows, wrt))

    def cotangents(self) -> Tried:
        """The cotangent not used, not multiplied, or not summed."""
        values = {output: self.check.step.outputs[nr].values for nr, output in self.check.outputs.items()}
        for output, row in self.rows.items():
            cotangent = centres(row[0])
            if cotangent.shape == self.region.shape:
                yield "it is the cotangent itself, passed on unchanged", cotangent
                with np.errstate(all="ignore"):
                    yield "it is the forward value times the cotangent", values[output] * cotangent
            ones = {output: full(row.shape, UNIT)}
            yield "the cotangent that it received is ignored", self.pulled(self.nodes, self.check.given, ones)
            for axis, extent in enumerate(cotangent.shape):
                for place, words in ((0, "first"), (extent - 1, "last")) if extent > 1 else ():
                    at = tuple(place if n == axis else slice(None) for n in range(cotangent.ndim))
                    part = np.zeros_like(cotangent)
                    part[at] = cotangent[at]
                    rows = {**self.rows, output: balls(part)[None]}
                    told = (
                        f"only the {words} entry along axis {axis} of the cotangent counts: a sum is missing"
                    )
                    yield told, self.pulled(self.nodes, self.check.given, rows)

    def later(self) -> Tried:
        """The gradient at numbers that the input's memory held later on."""
        for when, values in _later(self.check.tape, self.region):
            given = {**self.check.given, self.name: balls(values)}
            told = f"it is the gradient at the numbers that {self.name} has after {when}: changed in place"
            yield told, self.pulled(self.nodes, given, self.rows)


def clues(check: Checked, edge: Edge, name: str, rows: Mapping[str, Balls], dtype: DType) -> Clues:
    """What would have come out for one input if a known mistake had been made."""
    attempts = _Attempts(check, edge, name, rows)
    shapes = [attempts.region.shape, *(check.step.outputs[nr].shape for nr in check.outputs)]
    extents = tuple({n for shape in shapes for n in (*shape, size(shape))})
    return Clues(dtype, extents, (*attempts.uses(), *attempts.cotangents(), *attempts.later()))


def _later(tape: Tape, region: Region) -> list[tuple[str, np.ndarray]]:
    found = []
    for event in tape.events:
        for seen in (*event.regions, *event.outs):
            if seen is not None and seen.key == region.key and not np.array_equal(seen.values, region.values):
                found.append((f"{event.name} at {event.place}", seen.values))
    return found[-2:]
