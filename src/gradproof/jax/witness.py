"""The third door: a recorded JAX function as a witness, an equation a step.

Each `custom_vjp` and `custom_jvp` call is one step: its primal is the specification of its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import causes as because
from ..dtypes import XLA
from ..errors import UnsupportedError
from ..judging import witness as record
from ..judging.verdicts import within_one_rounding
from ..proof.arithmetic import exact
from ..proof.balls import Balls, balls, centres, numbers
from ..proof.enclosure import Run
from ..proof.graph import Read, size, slot
from ..proof.tangents import dot
from ..torch.forward import WHOLE, moved_step
from ..torch.runs import given_of
from ..torch.stops import MAX_DOMAIN
from ..torch.tape import Edge, Step, Tape
from ..torch.witness import (
    MAX_WHOLE,
    Lowered,
    arrivals_of,
    boundaries,
    delivered_of,
    dtype_of,
    entered,
    format_of,
    names_of,
    nothing,
    output_of,
    step_of,
)
from .lowering import EquationLowering
from .recording import STOP, EquationStep, Recording, pushed


def witness_of(
    recording: Recording, *, trusting: bool, guard: Callable[[Exception], because.Cause]
) -> record.Witness:
    """What was recorded. With `trusting`, every `stop_gradient` is meant; `guard` makes a cause of a fault of
    ours."""
    tape = recording.tape
    if tape.trouble:
        broke = because.Raised(tape.trouble) if tape.supported else because.Uncovered(tape.trouble)
        return nothing(record.Trouble("forward", "the function", broke))
    if not tape.leaves:
        return _unreached("no argument holds floating-point numbers, so there is nothing to differentiate")
    if not any(region.edge is not None for region in tape.outputs):
        return _unreached("no output in floating point depends on the arguments that are differentiated")
    names, delivered = names_of(tape), delivered_of(tape)
    equations = [step for step in tape.steps if isinstance(step, EquationStep)]
    made = [_step(step, names, tape, guard) for step in equations]
    troubles = [each for each in made if isinstance(each, record.Trouble)]
    broken = next((step for step in equations if step.failure or step.unsupported), None)
    if broken is not None:  # where the run broke down there are no gradients to add up
        told = f"nothing arrived, because of {broken.name}"
        why = because.Unreached(told) if broken.failure else because.Uncovered(told)
        troubles += [record.Trouble("gradient", leaf.name, why, inherited=True) for leaf in tape.leaves]
    dtype = dtype_of([leaf.region for leaf in tape.leaves], XLA)
    whole = _Whole(recording)
    return record.Witness(
        steps=tuple(each for each in made if isinstance(each, record.Step)),
        arrivals=() if broken is not None else tuple(arrivals_of(tape, names, delivered, XLA, set())),
        whole=lambda: whole.within(MAX_WHOLE, cut=trusting),
        dtype=dtype,
        troubles=tuple(troubles),
        losses=record.Losses
        if trusting or dtype is None or broken is not None
        else lambda: _losses(whole, names),
        boundaries=boundaries(recording.equations),
        trusting=trusting,
        values={str(n): out.values for n, out in enumerate(tape.outputs) if out.floating},
    )


def tangents_of(
    recording: Recording, *, trusting: bool, guard: Callable[[Exception], because.Cause]
) -> record.Witness:
    """What `jax.jvp` makes of tangents, equation by equation; and of the whole, where it is small."""
    tape = recording.tape
    if tape.trouble:
        return witness_of(recording, trusting=trusting, guard=guard)
    names = names_of(tape)
    tangents, failures = pushed(recording)
    steps: list[record.Step] = []
    troubles: list[record.Trouble] = []
    for step in recording.steps:
        place = str(step.place) if step.place.file else ""
        if step.number in failures:
            refused = "custom_vjp" in failures[step.number]
            cause = because.Uncovered if refused else because.Raised
            troubles.append(record.Trouble("tangent", step.name, cause(failures[step.number]), place))
            continue
        try:
            steps += _tangent_step(step, names, tape, tangents)
        except UnsupportedError as error:
            troubles.append(record.Trouble("tangent", step.name, because.Uncovered(str(error)), place))
        except Exception as error:
            troubles.append(record.Trouble("tangent", "the function", guard(error)))
    whole = [] if trusting and steps else _tangent_of_whole(recording, tangents)
    dtype = dtype_of([leaf.region for leaf in tape.leaves], XLA)
    return replace(nothing(*troubles), steps=(*steps, *whole), dtype=dtype)


def _tangent_step(
    step: EquationStep, names: Mapping[Edge, str], tape: Tape, tangents: Mapping[Edge, np.ndarray]
) -> list[record.Step]:
    if step.primitive == STOP:
        return []
    lowered = _lower(step, names, tape)
    lowering, outputs = lowered.lowering, lowered.outputs
    values = {
        outputs[nr]: tangents.get((step.number, nr), np.zeros(region.shape))
        for nr, region in step.outputs.items()
    }
    dtype = dtype_of([*(r for r in step.inputs.values() if r is not None), *step.outputs.values()], XLA)
    if dtype is None:
        raise UnsupportedError(f"{step.name} works in no dtype that is covered")
    made = moved_step(
        step.name,
        lowering.nodes,
        lowering.numbers,
        {name: tangents.get(edge) for edge, name in lowered.inputs.items()},
        values,
        dtypes={dot(outputs[nr]): format_of(region.dtype, XLA) for nr, region in step.outputs.items()},
        dtype=dtype,
        wanted=frozenset(lowering.active),
        place=str(step.place) if step.place.file else "",
        text=lambda wrt: f"the tangent of {step.name}",
    )
    return [made]


def _tangent_of_whole(recording: Recording, tangents: Mapping[Edge, np.ndarray]) -> list[record.Step]:
    tape, whole = recording.tape, _Whole(recording)
    try:
        whole.within(MAX_WHOLE, cut=False)
    except UnsupportedError:
        return []
    regions = {region.edge: region for region in tape.outputs if region.edge is not None}
    every = [*(leaf.region for leaf in tape.leaves), *(out for e in recording.equations for out in e.outs)]
    dtype = dtype_of(every, XLA)
    if dtype is None:
        return []
    values = {name: tangents.get(edge, np.zeros(regions[edge].shape)) for edge, name in whole.outputs.items()}
    lowering = whole.lowering
    made = moved_step(
        WHOLE,
        lowering.nodes,
        whole.given,
        {leaf.name: tangents.get(leaf.edge) for leaf in tape.leaves},
        values,
        dtypes={dot(name): format_of(regions[edge].dtype, XLA) for edge, name in whole.outputs.items()},
        dtype=dtype,
        wanted=frozenset(lowering.active),
    )
    return [made]


def _unreached(why: str) -> record.Witness:
    return nothing(record.Trouble("gradient", "the function", because.Unreached(why)))


def _step(
    step: EquationStep, names: Mapping[Edge, str], tape: Tape, guard: Callable[[Exception], because.Cause]
) -> record.Step | record.Trouble | None:
    """One equation, or one custom call; `stop_gradient` is looked at as what it loses."""
    place = str(step.place) if step.place.file else ""
    if not step.received or (step.primitive == STOP and not (step.failure or step.unsupported)):
        return None
    if step.failure or step.unsupported:
        why = because.Raised(step.failure) if step.failure else because.Uncovered(step.unsupported)
        return record.Trouble("local", step.name, why, place)
    inside: list[Any] = list(step.events)
    for equation in inside:
        inside += equation.body
    inputs = [region for region in step.inputs.values() if region is not None]
    regions = [*inputs, *step.outputs.values(), *(out for e in inside for out in e.outs)]
    try:
        return step_of(step, step.name, _lower(step, names, tape), regions, XLA, tape)
    except UnsupportedError as error:
        return record.Trouble("local", step.name, because.Uncovered(str(error)), place)
    except Exception as error:
        return record.Trouble("local", "the function", guard(error))


def _lower(step: Step, names: Mapping[Edge, str], tape: Tape) -> Lowered:
    lowering = EquationLowering(step.name)
    inputs = {
        edge: entered(lowering, edge, region, names)
        for edge, region in step.inputs.items()
        if region is not None
    }
    equations: Any = step.events
    lowering.equations(equations)
    outputs = {nr: output_of(step, nr, region, lowering, tape) for nr, region in sorted(step.outputs.items())}
    return Lowered(lowering, inputs, outputs)


@dataclass(eq=False)
class _Whole:
    """The whole run from its leaves, as nodes."""

    recording: Recording

    @cached_property
    def lowering(self) -> EquationLowering:
        """Raises `UnsupportedError` where it is not covered, or too large."""
        lowering = EquationLowering("whole")
        for leaf in self.recording.tape.leaves:
            lowering.enter(leaf.name, leaf.region, given=False)
        lowering.equations(self.recording.equations)
        return lowering

    @cached_property
    def outputs(self) -> dict[Edge, str]:
        """The node of each output, once."""
        found: dict[Edge, str] = {}
        for region in self.recording.tape.outputs:
            if (
                region.edge is not None
                and region.edge in self.recording.tape.seeds[0]
                and region.edge not in found
            ):
                operand = self.lowering.operand(region)
                reads = (Read(operand.node, operand.index),)
                found[region.edge] = self.lowering.emit(slot(0), reads, region.shape)
        return found

    @cached_property
    def given(self) -> dict[str, Balls]:
        return dict(given_of(self.lowering))

    @cached_property
    def rows(self) -> dict[str, Balls]:
        seeds = self.recording.tape.seeds[0]
        return {name: balls(seeds[edge])[None] for edge, name in self.outputs.items()}

    def within(self, most: int, *, cut: bool) -> record.Whole:
        """Raises `UnsupportedError` beyond that many entries of all domains together."""
        rows = self.rows
        if sum(size(node.domain) for node in self.lowering.nodes) > most or not rows:
            raise UnsupportedError("the whole run is too large")
        outs = [out for out in self.recording.tape.outputs if out.edge in self.outputs]
        names = tuple(self.outputs[out.edge] for out in outs if out.edge is not None)
        return record.Whole(self.run(cut=cut), self.given, rows, names)

    def run(self, *, cut: bool, outputs: tuple[str, ...] = ()) -> Run:
        """From the leaves to the outputs, or to others; with `cut`, nothing passes a stop."""
        targets = {leaf.name: leaf.region.shape for leaf in self.recording.tape.leaves}
        stopped = frozenset(self.lowering.stops.values()) if cut else frozenset()
        wanted = frozenset(self.lowering.active) - stopped
        return Run(tuple(self.lowering.nodes), outputs or tuple(self.rows), targets, wanted)

    def gradients(self, *, cut: bool) -> dict[str, Balls]:
        run = self.run(cut=cut)
        return run.split(run.pull(self.given, exact(), self.rows)[0])


def _losses(whole: _Whole, names: Mapping[Edge, str]) -> record.Losses:
    """What does not pass each `stop_gradient`, where leaves miss it: by the exact calculus of the whole
    run."""
    tape = whole.recording.tape
    stops = [s for s in tape.steps if isinstance(s, EquationStep) and s.primitive == STOP and s.received]
    if not stops:
        return record.Losses()
    try:
        whole.within(MAX_DOMAIN, cut=False)
    except UnsupportedError as error:
        why = f"whether this stop loses part of the gradient is not known: {error}"
        unknown = [record.Trouble("local", s.name, because.Unreached(why), str(s.place)) for s in stops]
        return record.Losses(unseen=unknown)
    full, kept = whole.gradients(cut=False), whole.gradients(cut=True)
    lossy = [
        leaf.name for leaf in tape.leaves if _differ(full[leaf.name], kept[leaf.name], leaf.region.dtype)
    ]
    found = []
    for step in stops if lossy else ():
        name, shape = whole.lowering.stops.get(id(step.events[0])), step.outputs[0].shape
        own = format_of(step.outputs[0].dtype, XLA)
        if name is None or own is None:
            continue
        run = whole.run(cut=False)
        here = Run(run.nodes, run.outputs, {name: shape}, run.wanted)
        cotangent = here.split(here.pull(whole.given, exact(), whole.rows)[0])[name]
        back = whole.run(cut=False, outputs=(name,))
        passed = back.split(back.pull(whole.given, exact(), {name: cotangent[None]})[0])
        leaves = tuple(leaf for leaf in lossy if _some(passed[leaf]))
        if not leaves or not _some(cotangent):
            continue
        ((edge, _),) = step.inputs.items()
        place = str(step.place) if step.place.file else ""
        cause = because.LostAtStop((place or step.name,), STOP, leaves)
        found.append(
            record.Loss(step.name, np.zeros(shape), cotangent, own, cause, place, names[edge], leaves)
        )
    return record.Losses(found)


def _differ(full: Balls, kept: Balls, dtype: Any) -> bool:
    """Whether what is kept back is more than one rounding of the gradient."""
    own = format_of(dtype, XLA)
    if not full.size or not _some(np.asarray(full - kept, object)):
        return False
    return own is None or not within_one_rounding(centres(kept), full, own)


def _some(array: Balls) -> bool:
    """Whether any entry is proved not to be 0, or is no number."""
    return any(not x.contains(0) for x in numbers(array.reshape(-1)))
