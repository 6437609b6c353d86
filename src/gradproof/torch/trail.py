"""Numbers that leave torch and come back: by `item()`, `tolist()`, NumPy, a kernel that nobody knows.

A number that comes back as it left is known again. After arithmetic outside of torch it is not; so the
forward is recorded again with the leaves moved by a little, forth and back. What the recording takes for a
constant must stay where it is: an operand that nothing computed, a number among an operation's arguments.
What moves is found, at its operation.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from .insides import has_own_rules, storage_of
from .recording import rehearsed
from .state import State, eager
from .tape import Event, Tape, Trail, whole_numbers

Func = Callable[..., Any]
Run = tuple[list[Event], Trail]
SAMPLE = 10_000  # entries that tell a tensor's typical size
FAR = 64  # times what the leaves are moved by, relative: what changes by more has jumped, as a condition does


def followed(func: Func, inputs: Sequence[Any], tape: Tape, state: State) -> Tape:
    """The tape with the trail of the numbers that left torch; known ones stand in the operations as the
    tensors they were."""
    if tape.trouble:
        return tape
    trail = tape.trail
    if _may_have_left(tape, state):
        runs, step = _moved_runs(func, inputs, state)
        trail = _compared(tape, runs, step) if runs else trail
    for (position, n), item in trail.known.items():
        event = tape.events[position]
        number = replace(tape.events[item].regions[0], edge=None)
        event.args = (*event.args[:n], number, *event.args[n + 1 :])
        event.__dict__.pop("regions", None)  # worked out before
    return replace(tape, trail=trail)


def _may_have_left(tape: Tape, state: State) -> bool:
    """Whether numbers went where torch does not see them, or came from where it did not."""
    if tape.exports or tape.unseen or any(event.is_item for event in tape.events):
        return True
    held = {storage_of(tensor)[0] for tensor in plain(state.tensors)}
    return bool(tape.foreign - held)


def plain(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors with memory of their own."""
    kinds = (tensor for tensor in tensors if tensor.layout == torch.strided and tensor.device.type != "meta")
    return [tensor for tensor in kinds if not has_own_rules(tensor)]


def movable(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Those that need a gradient, have no history, and can be moved."""
    return [
        t
        for t in plain(tensors)
        if t.requires_grad and t.is_leaf and (t.is_floating_point() or t.is_complex())
    ]


def _moved_runs(func: Func, inputs: Sequence[Any], state: State) -> tuple[list[Run], float]:
    """Runs with the leaves moved forth, and back, and one where they stay; none where it does not run
    there."""
    leaves = movable(state.tensors)
    if not leaves:
        return [], 0.0
    random = np.random.default_rng(0)
    directions = [direction(leaf, random) for leaf in leaves]
    coarsest = max(torch.finfo(leaf.dtype).eps for leaf in leaves)
    # So far that a number which hardly moves is seen to, and in 16 bits no farther than it must.
    step = coarsest ** (1 / 3 if coarsest < 1e-6 else 1 / 2)
    here = [leaf.detach().clone() for leaf in leaves]
    runs = []
    for sign in (1, -1, 0):
        state.restore()
        try:
            if sign:
                move(leaves, [x + sign * step * d for x, d in zip(here, directions, strict=True)])
            with eager():
                runs.append(rehearsed(func, inputs))
        except Exception:
            return [], step
        finally:
            state.restore()
    return runs, step


def _compared(tape: Tape, runs: Sequence[Run], step: float) -> Trail:
    """The trail as far as the runs do the same."""
    (there, forth), (back, other), (again, _) = runs
    aligned = list(takewhile(_alike, zip(tape.events, there, back, again, strict=False)))
    known, lifted = dict(tape.trail.known), dict(tape.trail.lifted)
    # A number may equal another by chance, but not in every run, and move with it.
    for at in {*known, *forth.known}:
        if at[0] < len(aligned):
            known.pop(at, None)
            item = forth.known.get(at)
            numbers_there = [np.asarray(event.args[at[1]], dtype=float) for event in aligned[at[0]]]
            if item is not None and other.known.get(at) == item and _moves(step, *numbers_there).all():
                known[at] = item
    for position in {*lifted, *forth.lifted}:
        if position < len(aligned):
            lifted.pop(position, None)
            moving = _moves(step, *(event.regions[0].values for event in aligned[position])).reshape(-1)
            none = (-1,) * len(moving)
            pairs = zip(
                forth.lifted.get(position, none), other.lifted.get(position, none), moving, strict=True
            )
            items = tuple(a if a == b and moves else -1 for a, b, moves in pairs)
            if any(item >= 0 for item in items):
                lifted[position] = items
    moved: dict[tuple[int, int], np.ndarray] = {}
    numbers = set()
    for position, events in enumerate(aligned):
        for n, regions in enumerate(zip(*(event.regions for event in events), strict=True)):
            if whole_numbers(regions[0].dtype) or regions[0].opaque:
                continue
            entries = _moves(step, *(region.values for region in regions))
            if entries.any():
                moved[position, n] = entries
        kept = [n for n in range(len(events[0].args)) if (position, n) not in known]
        columns = zip(*(_numbers(event, kept) for event in events), strict=False)
        if any(_moves(step, *map(np.asarray, column)) for column in columns):
            numbers.add(position)
    return Trail(known, lifted, moved, frozenset(numbers))


def _alike(events: Sequence[Event]) -> bool:
    """Whether the same operation ran on tensors of the same kinds."""
    kinds = [
        (event.op, [(region.shape, region.dtype, region.opaque) for region in event.regions])
        for event in events
    ]
    return all(kind == kinds[0] for kind in kinds)


def _moves(
    step: float, here: np.ndarray, there: np.ndarray, back: np.ndarray, again: np.ndarray
) -> np.ndarray:
    """Which numbers move with the leaves, each way its own way, and by as little."""
    with np.errstate(invalid="ignore", over="ignore"):
        forth, other = there - here, back - here
        small = np.abs(forth) <= FAR * step * (1 + np.abs(here))
        return (np.sign(forth) * np.sign(other) < 0) & small & (again == here)


def _numbers(event: Event, kept: Container[int]) -> Iterator[float]:
    """The numbers that Python gave to the operation."""
    args = [argument for n, argument in enumerate(event.args) if n in kept]
    for leaf in tree_leaves((args, event.kwargs)):
        if isinstance(leaf, float):
            yield leaf


def direction(tensor: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """A random direction, of the size of the entries; of complex ones, of that of each part."""
    if tensor.is_complex():
        return torch.view_as_complex(direction(torch.view_as_real(tensor.detach().resolve_conj()), random))
    size = tensor.detach().abs()
    some = size.reshape(-1)[:: max(1, size.numel() // SAMPLE)]
    there = some[torch.isfinite(some) & (some > 0)]
    typical = float(there.median()) if there.numel() else 1.0
    drawn = random.uniform(-1.0, 1.0, tuple(tensor.shape))
    drawn = np.asarray(drawn + np.copysign(0.5, drawn))
    return size.where(size > 0, typical).mul_(torch.from_numpy(drawn))


def move(tensors: Sequence[torch.Tensor], points: Sequence[torch.Tensor]) -> None:
    """The tensors at other points; a state's `restore` puts them back."""
    with torch.no_grad():
        for tensor, point in zip(tensors, points, strict=True):
            if tensor.dtype == point.dtype:
                tensor.detach().copy_(point)  # in its own memory, which others may look at
            else:
                tensor.data = point.clone()
