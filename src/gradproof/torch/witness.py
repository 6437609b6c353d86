"""The second door: a recorded torch function as a witness, an autograd node a step.

The forward is the specification of the backward: of each node, built-in or custom, the operations that it ran
are put into index notation, beside torch's own numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from .. import causes as because
from ..dtypes import DTYPES, DType
from ..errors import GradproofError, InputError, Place, UnsupportedError
from ..judging import witness as record
from ..proof.graph import Graph, wide
from ..telling.derivation import derive
from . import runs
from .declared import as_declared
from .lowering import Lowering
from .operations import CONVENTIONS
from .stops import Stops
from .tape import HIDDEN, Edge, Region, Step, Tape
from .writing import Writing

Formats = Mapping[str, DType]

MAX_WHOLE = 20_000  # entries of all domains: beyond, the whole is not looked at from both sides
COMPARISONS = frozenset("eq ne lt le gt ge".split())
AUTOGRAD = "autograd"  # what stops it may be a detach, .data, no_grad or item()


def dtype_of(regions: Sequence[Region], formats: Formats = DTYPES) -> DType | None:
    """The coarsest of the tensors' formats."""
    found = [format_of(region.dtype, formats) for region in regions if region.floating]
    known = [dtype for dtype in found if dtype is not None]
    return max(known, key=lambda dtype: dtype.unit_roundoff, default=None)


def format_of(dtype: torch.dtype, formats: Formats = DTYPES) -> DType | None:
    return formats.get(str(dtype).removeprefix("torch."))


def names_of(tape: Tape) -> dict[Edge, str]:
    """The name of every value that autograd passes a cotangent to."""
    names = {leaf.edge: leaf.name for leaf in tape.leaves}
    for step in tape.steps:
        for nr in step.outputs:
            names[step.number, nr] = step.name if len(step.outputs) == 1 else f"{step.name}[{nr}]"
    return names


def witness_of(
    tape: Tape,
    *,
    trusting: bool,
    guard: Callable[[Exception], because.Cause],
    formats: Formats = DTYPES,
    meant: Sequence[str] = (),
) -> record.Witness:
    """What was recorded. With `trusting`, every stop is meant, else those at the places `meant`; `guard`
    makes a cause of a fault of ours."""
    if tape.trouble:
        return stopped(tape)
    names, delivered = names_of(tape), delivered_of(tape)
    steps: list[record.Step] = []
    troubles: list[record.Trouble] = []
    unhooked: set[Edge] = set()
    if not tape.leaves:
        why = (
            tape.unmarked
            or "no tensor that needs a gradient reaches the output; mark inputs with requires_grad_()"
        )
        troubles.append(record.Trouble("gradient", "the function", because.Unreached(why)))
    for step in tape.steps:
        if step.received and not step.received[0]:
            unhooked |= {each for each in step.edges if each is not None}
        made = _step(step, names, tape, delivered, guard, formats)
        if isinstance(made, record.Step):
            steps += as_declared(made, step) if step.declared else [made]
        elif made is not None:
            troubles.append(made)
    dtype = dtype_of([leaf.region for leaf in tape.leaves], formats)
    return record.Witness(
        steps=tuple(steps),
        arrivals=tuple(arrivals_of(tape, names, delivered, formats, unhooked)),
        whole=partial(whole_of, tape),
        dtype=dtype,
        troubles=tuple(troubles),
        losses=record.Losses if trusting or dtype is None else partial(_losses, tape, dtype, meant),
        boundaries=boundaries(_moved_by(tape)),
        trusting=trusting,
        values={str(n): out.kept for n, out in enumerate(tape.outputs) if not out.opaque},
    )


def stopped(tape: Tape) -> record.Witness:
    """A witness of a run that came to no end."""
    broke = because.Raised(tape.trouble) if tape.supported else because.Uncovered(tape.trouble)
    return nothing(record.Trouble("forward", "the function", broke))


def nothing(*troubles: record.Trouble) -> record.Witness:
    """A witness of a run that gave nothing to judge."""

    def none() -> record.Whole:
        raise UnsupportedError("nothing was recorded")

    return record.Witness((), (), none, None, troubles=troubles)


def delivered_of(tape: Tape) -> dict[Edge, list[np.ndarray]]:
    """What each value's uses passed to it in the first pass, the seeds among them."""
    arrived = {out: [seed] for out, seed in tape.seeds[0].items()} if tape.seeds else {}
    for step in tape.steps if tape.seeds else ():
        for edge, part in zip(step.edges, step.passed[0], strict=False):
            if edge is not None and part is not None:
                arrived.setdefault(edge, []).append(part)
    return arrived


def arrivals_of(
    tape: Tape,
    names: Mapping[Edge, str],
    delivered: Mapping[Edge, Sequence[np.ndarray]],
    formats: Formats,
    unhooked: set[Edge],
) -> Iterator[record.Arrival]:
    """What arrived at each leaf; and at each value in between, which is told where it is wrong."""
    givers: dict[Edge, list[str]] = {}
    for step in tape.steps:
        for edge in dict.fromkeys(step.edges):
            if edge is not None:
                givers.setdefault(edge, []).append(step.name)

    def arrival(
        name: str, edge: Edge, region: Region, value: np.ndarray | None, **more: Any
    ) -> record.Arrival:
        parts = tuple(delivered.get(edge, ()))
        reason: because.Cause | None = because.Unseen() if edge in unhooked else None
        if any(part is HIDDEN for part in (value, *parts)):
            reason = because.Uncovered("a part of it is no plain tensor")
        uses = tuple(givers.get(edge, ()))
        dtype = format_of(region.dtype, formats)
        more = {"reason": reason, **more}
        return record.Arrival(name, edge, region.shape, value, dtype, parts, uses=uses, **more)

    for leaf in tape.leaves:
        nested: dict[str, Any] = {"reason": because.Nested(judged=False)} if leaf.nested else {}
        yield arrival(leaf.name, leaf.edge, leaf.region, leaf.gradients[0], **nested)
    for step in tape.steps:
        received = step.received[0] if step.received else ()
        for nr, region in step.outputs.items() if received else ():
            value = received[nr] if nr < len(received) else None
            edge = step.number, nr
            yield arrival(names[edge], edge, region, value, place=str(step.place), silent=True)


def whole_of(tape: Tape) -> record.Whole:
    """The whole run from its leaves. Raises `UnsupportedError` where it is too large or not covered."""
    if any(step.declared for step in tape.steps):
        raise UnsupportedError("a gradient is declared to be another than the function's")
    if not tape.seeds:
        raise UnsupportedError("no backward ran")
    run = runs.whole(tape, {leaf.name: leaf.region for leaf in tape.leaves}, MAX_WHOLE)
    distinct = {region.edge: region for region in tape.outputs if region.edge in tape.seeds[0]}
    names = dict(zip(distinct, run.rows, strict=True))
    outputs = tuple(names[region.edge] for region in tape.outputs if region.edge in names)
    return record.Whole(run.run, run.given, run.rows, outputs)


def boundaries(ran: Iterable[Any]) -> tuple[str, ...]:
    """The places of comparisons of floating-point numbers that are equal somewhere."""
    found = []
    for event in ran:
        if event.name in COMPARISONS and any(region.floating for region in event.regions):
            if len({region.key for region in event.regions}) < len(event.regions):
                continue  # whether it is NaN
            a, b = (getattr(operand, "values", operand) for operand in event.args[:2])
            if np.any(a == b):
                found.append(str(event.place))
    return tuple(dict.fromkeys(found))


def _moved_by(tape: Tape) -> Iterator[Any]:
    """The operations that something reads which a parameter reaches, whether autograd follows it or not."""
    reached = {leaf.region.storage for leaf in tape.leaves} | tape.unseen | tape.foreign
    for event in tape.events:
        if any(region.storage in reached for region in event.regions):
            reached |= {region.storage for region in (*event.outs, *event.side, *event.written)}
            yield event


def _losses(tape: Tape, dtype: DType, meant: Sequence[str]) -> record.Losses:
    """What is lost where autograd stops and the function does not."""
    stops = Stops(tape, dtype, meant)
    losses = stops.losses()
    if losses:
        harmless = stops.vanishing()
        # Those of a nested backward are judged from the leaves, with what arrived otherwise.
        nested = {leaf.edge[0] for leaf in tape.leaves if leaf.nested}
        losses = [loss for loss in losses if loss.leaf not in harmless | nested]
    gradients = {leaf.edge[0]: leaf.gradients[0] for leaf in tape.leaves}
    found = []
    for loss in losses:
        value = gradients.get(loss.leaf)
        value = np.zeros(loss.region.shape) if value is None else value
        places = tuple(map(str, loss.places))
        own, place = format_of(loss.region.dtype) or dtype, places[0] if places else ""
        name = tape.names.get(loss.leaf, f"leaf{loss.leaf}")
        found.append(record.Loss(name, value, loss.lost, own, because.LostAtStop(places, AUTOGRAD), place))
    unseen = [
        record.Trouble("gradient", "the function", because.NotFollowed(seen.why), str(seen.place))
        for seen in dict.fromkeys(stops.unseen)
    ]
    return record.Losses(found, unseen, stops.put_back)


# One autograd node


@dataclass(frozen=True, eq=False)
class Lowered:
    """A node's operations as nodes, with the names of its inputs and outputs there."""

    lowering: Writing
    inputs: dict[Edge, str]
    outputs: dict[int, str]


def _step(
    step: Step,
    names: Mapping[Edge, str],
    tape: Tape,
    delivered: Mapping[Edge, Any],
    guard: Callable[[Exception], because.Cause],
    formats: Formats,
) -> record.Step | record.Trouble | None:
    title, place = titled(step), str(step.place) if step.place.file else ""
    if not step.received:
        return None
    if not step.received[0]:
        cause = because.Uncovered("a cotangent was passed to it, and its hook was not called")
        reached = any(edge[0] == step.number for edge in delivered)
        return record.Trouble("local", title, cause, place) if reached else None
    try:
        made = step_of(step, title, lower(step, names, tape), regions_of(step), formats, tape)
    except UnsupportedError as error:
        return record.Trouble("local", title, because.Uncovered(str(error)), place)
    except InputError:
        raise
    except Exception as error:
        return record.Trouble("local", "the function", guard(error))
    return made


def titled(step: Step) -> str:
    """The node's name, behind that of the module that it is part of."""
    return f"{step.module}: {step.name}" if step.module else step.name


def regions_of(step: Step) -> list[Region]:
    """The tensors that a node reads and gives, and those on the way."""
    regions = [*(r for r in step.inputs.values() if r is not None), *step.outputs.values()]
    return regions + [region for event in step.events for region in (*event.regions, *event.outs)]


def step_of(
    step: Step, title: str, lowered: Lowered, regions: Sequence[Region], formats: Formats, tape: Tape
) -> record.Step:
    """A node beside its numbers. Raises `UnsupportedError` where none of its dtypes is covered."""
    dtype = dtype_of(regions, formats)
    if dtype is None:
        raise UnsupportedError(f"{step.name} works in {', '.join(sorted({str(r.dtype) for r in regions}))}")
    lowering, inputs, outputs = lowered.lowering, lowered.inputs, lowered.outputs
    seen = {name: step.inputs[edge] for edge, name in inputs.items()}
    shapes = {name: region.shape for name, region in seen.items() if region is not None}
    dtypes = {name: format_of(region.dtype, formats) for name, region in seen.items() if region is not None}
    dtypes |= {name: format_of(step.outputs[nr].dtype, formats) for nr, name in outputs.items()}
    known = [edge for edge, name in inputs.items() if dtypes[name] is not None]
    return record.Step(
        name=title,
        nodes=tuple(lowering.nodes),
        given=lowering.numbers,
        values={name: step.outputs[nr].kept for nr, name in outputs.items()},
        inputs=shapes,
        dtypes=dtypes,
        dtype=dtype,
        wanted=frozenset(lowering.active),
        passes=tuple(_pass(step, n, lowered, known) for n in range(len(step.received))),
        place=str(step.place) if step.place.file else "",
        sources={name: edge for edge, name in inputs.items()},
        results={name: (step.number, nr) for nr, name in outputs.items()},
        text=partial(text_of, lowered),
        later=lambda name: _later(tape, seen[name]),
        changes=step.changes,
        convention=next((CONVENTIONS[event.name] for event in step.events if event.name in CONVENTIONS), ""),
        pairs=_of_pairs(lowered, step, regions),
        assumed="" if step.events or step.by_function else "no operation of it was seen",
    )


def _of_pairs(lowered: Lowered, step: Step, regions: Sequence[Region]) -> frozenset[str]:
    """The names whose last axis has real and imaginary parts; on the way, where there are complex numbers,
    whatever has two."""
    if not any(region.complex for region in regions):
        return frozenset()
    edges = {name: step.inputs[edge] for edge, name in lowered.inputs.items()}
    edges |= {name: step.outputs[nr] for nr, name in lowered.outputs.items()}
    between = {node.name for node in lowered.lowering.nodes if node.shape[-1:] == (2,)}
    there = {name for name, region in edges.items() if region is not None and region.complex}
    return frozenset(between - edges.keys() | there)


def lower(step: Step, names: Mapping[Edge, str], tape: Tape) -> Lowered:
    """Raises `UnsupportedError` for an operation without a formula."""
    lowering = Lowering(step.name)
    inputs: dict[Edge, str] = {}
    for edge, region in step.inputs.items():
        if region is None:
            raise UnsupportedError(f"{step.name}: an input that the recording did not see")
        inputs[edge] = entered(lowering, edge, region, names)
    for event in step.events:
        for region in event.regions if event.call is None else ():
            if region.edge is None and region.floating and region.key not in step.carried:
                # The same memory as an input's perhaps, but not the same value to autograd: a detached one.
                lowering.disown(region)
    if step.formula:
        _by_formula(step, lowering)
    else:
        lowering.run([*step.saved, *step.events])
    outputs = {nr: output_of(step, nr, region, lowering, tape) for nr, region in sorted(step.outputs.items())}
    return Lowered(lowering, inputs, outputs)


def entered(lowering: Writing, edge: Edge, region: Region, names: Mapping[Edge, str]) -> str:
    """An input as a leaf, under a name of its own."""
    name = names.get(edge, f"node{edge[0]}")
    while name in lowering.leaves:
        name += "'"
    lowering.enter(name, region, given=False)
    return name


def _by_formula(step: Step, lowering: Lowering) -> None:
    """The value by the user's formula."""
    if sorted(step.outputs) != [0]:
        raise UnsupportedError(f"{step.name}: a formula tells one output, and it has {len(step.outputs)}")
    try:
        value = lowering.text(step.formula, step.arguments, step.outputs[0].shape)
    except InputError as error:
        raise InputError(f"formula of {step.name}: {error.message}", Place("formula")) from None
    lowering.write(step.outputs[0], value)


def output_of(step: Step, nr: int, region: Region, lowering: Writing, tape: Tape) -> str:
    """The output as a node of its own."""
    content = lowering.memory.read(region)
    if region.shape and not np.prod(region.shape):
        return lowering.constant(region.kept)
    if not content.known():
        made = {out.storage for event in step.events for out in event.outs}
        fresh = any(event.name.startswith("lift") for event in step.events)
        if region.storage not in made or fresh or region.storage in tape.unseen:
            why = "the recording cannot see how its value is computed (outside of torch's operations)"
            raise UnsupportedError(f"{step.name}: {why}; say it with formula=")
    name = step.name if nr == min(step.outputs) else f"{step.name}[{nr}]"
    return lowering.copy(region, name=name, source=name)


def _pass(step: Step, number: int, lowered: Lowered, known: Sequence[Edge]) -> record.Pass:
    """One pass: the cotangents of the outputs, 0 where none arrived, and what was passed on to each input by
    all edges that lead there."""
    times = step.times[number] if number < len(step.times) else None
    if times is not None:
        return record.Pass({}, {}, times=times)
    received = step.received[number]
    rows: dict[str, np.ndarray] = {}
    unusable: because.Cause | None = None
    for nr, name in lowered.outputs.items():
        shape = step.outputs[nr].shape
        cotangent = received[nr] if nr < len(received) else None
        cotangent = np.zeros(shape) if cotangent is None else cotangent
        if not np.isfinite(cotangent).all():
            unusable = unusable or because.NotFiniteAlready("the cotangent that it received")
        elif cotangent.shape != shape:
            unusable = unusable or because.PartsOfShapes((cotangent.shape,), shape)
        rows[name] = cotangent[None]
    totals: dict[Edge, np.ndarray | None] = {}
    for edge, part in zip(step.edges, step.passed[number], strict=False):
        if edge is not None:
            before = totals.get(edge)
            if before is not None and part is not None:
                totals[edge] = wide(before) + wide(part)
            else:
                totals[edge] = part if before is None else before
    passed = {lowered.inputs[edge]: None if (x := totals.get(edge)) is None else x[None] for edge in known}
    return record.Pass(rows, passed, unusable)


def text_of(lowered: Lowered, wrt: str | None) -> str:
    """What the node computes, or its gradient by an input, in index notation."""
    nodes, outputs = lowered.lowering.nodes, set(lowered.outputs.values())
    if wrt is None:
        sources = [node.source for node in nodes if node.source and node.name not in outputs]
        return sources[-1] if sources else "a view"
    try:
        output = lowered.outputs[min(lowered.outputs)]
        last = next(n for n, node in enumerate(nodes) if node.name == output)
        derivation = derive(Graph(tuple(lowered.lowering.leaves.values()), tuple(nodes[: last + 1])))
        return derivation.local_text(derivation.graph.output.name, wrt)
    except (GradproofError, RecursionError):
        return ""


def _later(tape: Tape, region: Region | None) -> Iterator[tuple[str, np.ndarray]]:
    """The numbers that the memory of an input held later on, the last of them."""
    found: list[tuple[str, np.ndarray]] = []
    if region is None:
        return iter(found)
    for event in tape.events:
        for seen in (*event.regions, *event.outs):
            if seen is not None and seen.key == region.key and not np.array_equal(seen.values, region.values):
                found.append((f"{event.name} at {event.place}", seen.values))
    return iter(found[-2:])
