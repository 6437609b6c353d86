"""What was lowered from a tape, in the reference's terms: a run of nodes, and the numbers of its leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedError
from ..proof.balls import balls
from ..proof.enclosure import Cotangents, Run
from ..proof.graph import Shape, size
from ..proof.walk import Values
from .lowering import Lowering
from .tape import Region, Tape
from .writing import Writing


def run_of(lowering: Writing, outputs: Iterable[str], targets: Mapping[str, Shape]) -> Run:
    """The run of the lowered nodes, from its leaves to the outputs; cotangents are asked for the targets."""
    return Run(tuple(lowering.nodes), tuple(outputs), targets, frozenset(lowering.active))


def given_of(lowering: Writing) -> Values:
    """The leaves' numbers, torch's own."""
    return {name: balls(values) for name, values in lowering.numbers.items()}


@dataclass(frozen=True, eq=False)
class Whole:
    """A tape from its leaves to its outputs: the run, its leaves' numbers, and the outputs' cotangents of the
    first pass."""

    run: Run
    given: Values
    rows: Cotangents


def whole(tape: Tape, leaves: Mapping[str, Region], most: int, cut: Collection[int] = ()) -> Whole:
    """The whole tape as one run. Where a region in `cut` (by identity) is read, it is a constant.

    Raises `UnsupportedError` for an operation without a formula, for domains of more than `most` entries
    together, and where there is nothing to pull back.
    """
    lowering = Lowering("whole")
    for name, region in leaves.items():
        lowering.enter(name, region, given=False)
    for event in tape.events:
        for region in event.regions:
            if id(region) in cut:
                lowering.disown(region)
        lowering.event(event)
    rows = {}
    # A value that is an output twice has both of its cotangents in one seed.
    for edge, region in {region.edge: region for region in tape.outputs}.items():
        seeds = tape.seeds[0] if tape.seeds else {}
        if edge is not None and (edge in seeds or not tape.seeds):  # of a tape without passes, no row is read
            rows[lowering.copy(region)] = balls(seeds.get(edge, np.zeros(region.shape)))[None]
    if sum(size(node.domain) for node in lowering.nodes) > most:
        raise UnsupportedError("the whole run is too large")
    if not rows:
        raise UnsupportedError("no output has a cotangent")
    targets = {name: region.shape for name, region in leaves.items()}
    return Whole(run_of(lowering, rows, targets), given_of(lowering), rows)
