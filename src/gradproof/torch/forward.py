"""Forward mode: a run whose leaves have tangents, as a witness of what torch made of them, node by node.

Every value that an autograd node gives, with the tangent beside it: a step whose nodes are the tangents'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sympy import S

from .. import causes as because
from ..dtypes import DTYPES
from ..errors import InputError, UnsupportedError
from ..judging import witness as record
from ..judging.step import Work
from ..proof.graph import Node
from ..proof.tangents import dot, with_tangents
from ..verdict import Judgement, as_judgement
from . import insides, runs
from .operations import CONVENTIONS
from .outputs import flat
from .recorder import Recorder
from .recording import cotangents_of, numbers_of
from .tape import Edge, Event, Region, Step, Tape
from .witness import (
    MAX_WHOLE,
    Formats,
    Lowered,
    dtype_of,
    format_of,
    lower,
    names_of,
    nothing,
    regions_of,
    stopped,
    text_of,
    titled,
)

UP_TO_A_PHASE = {"linalg_eig", "_linalg_eigh", "_linalg_svd"}
WHOLE = "the function"
REFUSED = "forward AD"  # what torch says of where it has no formula


class Moving(Recorder):
    """Sees every operation on leaves that are given tangents, and the tangents of what has a history.

    A tangent is there when an operation is over: it is kept as it is when the value is read, or given back.
    """

    kept = False  # whether tangents are kept now

    def run(self, func: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        leaves = [node for node in self.nodes if isinstance(node, torch.Tensor)]
        with insides.tangents():
            for leaf, tangent in zip(leaves, tangents_of(leaves), strict=True):
                if any(
                    step == 0 for step, extent in zip(leaf.stride(), leaf.shape, strict=True) if extent > 1
                ):
                    raise UnsupportedError(
                        "entries of a leaf share memory: they have no tangents of their own"
                    )
                insides.give_tangent(leaf, tangent)
            self.kept = True
            result = super().run(func, inputs)
            outputs = [self.region(out) for out in flat(result)]
            self.kept = False
        self.events = needed(self.events, outputs)
        return result

    def settle(self) -> None:
        kept, self.kept = self.kept, False  # the tangents of what it gave are not there yet
        super().settle()
        self.kept = kept

    def region(self, tensor: torch.Tensor) -> Region:
        found = super().region(tensor)
        if self.kept and found.edge is not None and not found.opaque:
            self.tangents[found.edge] = insides.tangent_of(tensor)
        return found


def tangents_of(leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The leaves' tangents, the same each time: random numbers, exact in every dtype."""
    return [tangent[0] for tangent in cotangents_of([leaf.detach()[None] for leaf in leaves])]


def needed(events: Sequence[Event], outputs: Iterable[Region]) -> list[Event]:
    """The operations that the outputs are made of: those of tangents are not among them."""
    wanted = {region.storage for region in outputs}
    kept: list[Event] = []
    for event in reversed(events):
        if any(region.storage in wanted for region in (*event.outs, *event.side, *event.written)):
            wanted |= {region.storage for region in event.regions}
            kept.append(event)
    return kept[::-1]


def witness_of(
    tape: Tape, *, trusting: bool, guard: Callable[[Exception], because.Cause], formats: Formats = DTYPES
) -> record.Witness:
    """What torch moved forward: a step for each autograd node, and one for the whole, where it is small."""
    if tape.trouble:
        refused = REFUSED in tape.trouble
        return stopped(replace(tape, supported=False) if refused else tape)
    names = names_of(tape)
    used = {edge for step in tape.steps for edge in step.edges} | {out.edge for out in tape.outputs}
    steps: list[record.Step] = []
    troubles: list[record.Trouble] = []
    for step in tape.steps:
        place = str(step.place) if step.place.file else ""
        try:
            made = _step(step, names, tape, used, formats)
            steps += [made] if made is not None else []
        except UnsupportedError as error:
            cause = because.Uncovered(str(error))
            troubles.append(record.Trouble("tangent", titled(step), cause, place))
        except InputError:
            raise
        except Exception as error:
            troubles.append(record.Trouble("tangent", "the function", guard(error)))
    dtype = dtype_of([leaf.region for leaf in tape.leaves], formats)
    whole = [] if trusting and steps else _whole(tape, formats)
    return replace(nothing(*troubles), steps=(*steps, *whole), dtype=dtype)


def _step(
    step: Step, names: Mapping[Edge, str], tape: Tape, used: set[Edge | None], formats: Formats
) -> record.Step | None:
    outputs = {nr: region for nr, region in step.outputs.items() if (step.number, nr) in used}
    if not outputs:
        return None
    dtype = dtype_of(regions_of(step), formats)
    if dtype is None:
        raise UnsupportedError(f"{step.name} works in no dtype that is covered")
    if step.declared:
        raise UnsupportedError(f"{step.name}: its gradient is declared, its tangent is not")
    turning = {event.name for event in step.events} & UP_TO_A_PHASE
    vectors = [region for region in outputs.values() if region.complex and len(region.shape) > 2]
    if turning and any(region.shape[-2] == region.shape[-3] for region in vectors):
        raise UnsupportedError(
            f"{turning.pop()} gives vectors up to a phase, and their tangents up to its own"
        )
    lowered = lower(step, names, tape)
    lowering, named = lowered.lowering, lowered.outputs
    tangents = {name: _tangent(tape, edge, step.inputs[edge]) for edge, name in lowered.inputs.items()}
    values = {named[nr]: _tangent(tape, (step.number, nr), region) for nr, region in outputs.items()}
    return moved_step(
        titled(step),
        lowering.nodes,
        lowering.numbers,
        tangents,
        {name: np.zeros(lowering.shapes[name]) if value is None else value for name, value in values.items()},
        dtypes={dot(named[nr]): format_of(region.dtype, formats) for nr, region in outputs.items()},
        dtype=dtype,
        wanted=frozenset(lowering.active),
        place=str(step.place) if step.place.file else "",
        text=partial(_text, lowered),
        convention=next((CONVENTIONS[e.name] for e in step.events if e.name in CONVENTIONS), ""),
    )


def judged_tangents(
    tape: Tape, tangents: Sequence[np.ndarray], moved: Mapping[str, np.ndarray], formats: Formats
) -> list[Judgement]:
    """What the calculus of the whole function says of tangents of its outputs, where the leaves that are
    `moved` have these. Raises `UnsupportedError` where it is too large or not covered."""
    steps = _whole(tape, formats, moved)
    distinct = {region.edge: n for n, region in enumerate(tape.outputs) if region.edge is not None}
    found: list[Judgement] = []
    for step in steps:
        pairs = zip(step.values, distinct.values(), strict=True)
        values = {name: tangents[n] for name, n in pairs}
        found += [as_judgement(finding) for finding in Work(replace(step, values=values)).judged().findings]
    if not found:
        raise UnsupportedError("the whole function is too large")
    return found


def _whole(tape: Tape, formats: Formats, moved: Mapping[str, np.ndarray] | None = None) -> list[record.Step]:
    """The whole function from its leaves, where it is small, in the coarsest dtype on the way: what stops
    keep back is missing in its tangent."""
    regions = [region for event in tape.events for region in (*event.regions, *event.outs)]
    dtype = dtype_of([*regions, *(leaf.region for leaf in tape.leaves)], formats)
    if dtype is None:
        return []
    try:
        whole = runs.whole(tape, {leaf.name: leaf.region for leaf in tape.leaves}, MAX_WHOLE)
    except UnsupportedError:
        return []
    distinct = {region.edge: region for region in tape.outputs if region.edge is not None}
    outputs = dict(zip(whole.rows, distinct.values(), strict=True))
    values = {
        name: np.zeros(region.shape) if (value := _tangent(tape, edge, region)) is None else value
        for (name, region), edge in zip(outputs.items(), distinct, strict=True)
    }
    every = {leaf.name: _tangent(tape, leaf.edge, leaf.region) for leaf in tape.leaves}
    tangents = every if moved is None else {name: moved.get(name) for name in every}
    dtypes = {dot(name): format_of(region.dtype, formats) for name, region in outputs.items()}
    run = whole.run
    return [
        moved_step(
            WHOLE, run.nodes, whole.given, tangents, values, dtypes=dtypes, dtype=dtype, wanted=run.wanted
        )
    ]


def _tangent(tape: Tape, edge: Edge, region: Region | None) -> np.ndarray | None:
    return numbers_of(region, tape.tangents.get(edge))


def _text(lowered: Lowered, wrt: str | None) -> str:
    return f"the tangent of {text_of(lowered, None)}"


def moved_step(
    name: str,
    nodes: Sequence[Node],
    given: Mapping[str, np.ndarray],
    tangents: Mapping[str, np.ndarray | None],
    values: Mapping[str, np.ndarray],
    **more: Any,
) -> record.Step:
    """The tangents of some values, of a run of nodes whose inputs have tangents; None is 0."""
    moved = {name: tangent for name, tangent in tangents.items() if tangent is not None}
    both = with_tangents(nodes, moved)
    there = {node.name for node in both}
    still = (Node(dot(out), x.shape, S.Zero, ()) for out, x in values.items() if dot(out) not in there)
    return record.Step(
        name,
        (*both, *still),
        {**given, **{dot(name): tangent for name, tangent in moved.items()}},
        {dot(name): value for name, value in values.items()},
        {},
        kind="tangent",
        moved={name: tangent.shape for name, tangent in moved.items()},
        **more,
    )
