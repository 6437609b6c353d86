"""What a training loop did, as witnesses: the gradient that it recorded, and the update that it took.

A gradient is the sum of what the backwards gave. Of an update, each line of the optimizer's rule that gives a
number it shows is a step: with the engine's own numbers before it taken as exact, and those of the new state
as far as they are shown, each line is judged alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NoReturn

import numpy as np

from .. import causes as because
from ..causes import Cause
from ..dtypes import DType
from ..engines.descent import Arrays, Happened
from ..errors import UnsupportedError
from ..judging.judge import Judge
from ..judging.likeness import Clues, likeness
from ..judging.step import Work
from ..judging.verdicts import judge_sum
from ..judging.witness import Arrival, Step, Witness
from ..proof.arithmetic import exact
from ..proof.balls import Balls, balls, floats
from ..proof.walk import Values
from ..verdict import Judgement
from .trajectory import Update, after, first_state, mistaken


def _alone() -> NoReturn:
    raise UnsupportedError("what lies before it is judged elsewhere")


# The gradient


def sum_of(
    name: str,
    recorded: np.ndarray,
    carried: np.ndarray | None,
    fresh: tuple[np.ndarray, ...],
    zeroed: because.NotZeroed,
    dtype: DType,
) -> Witness:
    """What `.grad` held when the optimizer took its step: what this step's backwards gave, and nothing else.

    `carried` is what was left in it from the steps before; it counts where nothing is meant to be zeroed.
    """
    everything = fresh if carried is None else (carried, *fresh)
    parts = everything if zeroed.meant else fresh
    finite = all(np.isfinite(gradient).all() for gradient in (recorded, *fresh))
    told = f"{len(fresh)} backwards" if len(fresh) > 1 else "this step's backward"

    def added(parts: tuple[np.ndarray, ...]) -> bool:
        return judge_sum(recorded, [*map(balls, parts)], dtype).verdict.passes

    def looks(judged: Judgement) -> tuple[Cause, ...]:
        right = judged.verdict.passes
        if carried is not None and right == zeroed.meant and (right or added(everything)):
            return (zeroed,)
        if right:
            return judged.causes
        found = likeness(recorded, exact().add_all([*map(balls, parts)]), Clues(dtype))
        changed = "it was changed between the backward and the optimizer's step"
        return (*judged.causes, *found) or (because.ByOtherHands(changed),)

    arrival = Arrival(
        name, name, recorded.shape, recorded, dtype, parts,
        text=f"what was there + {told}" if zeroed.meant else told,
        reason=None if finite else because.NotFiniteAlready("the gradient"),
        looks=looks,
        kind="recorded",
    )  # fmt: skip
    return Witness((), (arrival,), _alone, dtype=None)


# The update


@dataclass(frozen=True, eq=False)
class Taken:
    """One update of one parameter: what it started from, and the new `p` and new state that it `left`.

    Of state that is not shown, `state` has what the rule made of it so far, and `loose` that with all the
    rounding on the way.
    """

    name: str
    number: int
    p: np.ndarray
    g: np.ndarray
    state: Arrays
    loose: Values
    left: Arrays

    @property
    def shown(self) -> Arrays:
        """The engine's own new state, where it can be gone on from."""
        whole = {name: x for name, x in self.left.items() if name != "p" and x.shape == self.p.shape}
        return {name: x for name, x in whole.items() if np.isfinite(x).all()}


Looks = Callable[[str, Balls], tuple[Cause, ...]]  # of a number's node, beside the exact one


def _nothing(node: str, expected: Balls) -> tuple[Cause, ...]:
    return ()


def step_of(update: Update, taken: Taken, dtype: DType, looks: Looks = _nothing) -> Step:
    """The update as a step, whose values are the new `p` and as much of the new state as is shown."""
    written = update.written(taken.p.shape, taken.shown)
    here = {"p": taken.p, "g": taken.g, **{after(name): value for name, value in taken.shown.items()}}
    loose = {name: balls(value) for name, value in here.items()} | taken.loose
    values = {node: taken.left[name] for name, node in written.left.items() if name in taken.left}
    texts = {node.name: node.source for node in written.nodes}
    names = {node: ("state", f"{taken.name}.{name}") for name, node in written.left.items()}
    names[written.left["p"]] = "update", taken.name
    return Step(
        name=taken.name,
        nodes=written.nodes,
        given={**update.numbers(taken.number), **taken.state, **here},
        values=values,
        inputs={},
        dtypes=dict.fromkeys(values, dtype),
        dtype=dtype,
        wanted=frozenset(),
        loose=loose | update.entering(taken.number, written.plain, dtype),
        also=written.also,
        told={node: (*called, texts[node]) for node, called in names.items()},
        looks=looks,
    )


def witness_of(step: Step) -> Witness:
    """An update alone."""
    return Witness((step,), (), _alone, dtype=None)


def clues(update: Update, taken: Taken, dtype: DType) -> Looks:
    """What a wrong update looks like: a known mistake that explains every number of it, else each in its own
    terms, and a `p` in those of the step that it took."""
    mistake = cache(partial(_mistake, update, taken, dtype))
    names = {node: name for name, node in update.written(taken.p.shape, taken.shown).left.items()}

    def looks(node: str, expected: Balls) -> tuple[Cause, ...]:
        if told := mistake():
            return told
        if names[node] != "p":
            return likeness(taken.left[names[node]], expected, Clues(dtype))
        start = balls(taken.p)
        moved = floats(less(balls(taken.left["p"]), start))
        if not moved.any():
            return (because.ByOtherHands("the parameter was not updated"),)
        return tuple(map(because.OfTheStep, likeness(moved, less(expected, start), Clues(dtype))))

    return looks


def _mistake(update: Update, taken: Taken, dtype: DType) -> tuple[Cause, ...]:
    for mistake in update.rule.mistakes:
        other = mistaken(update, mistake)
        if other is None:
            continue
        state = {**first_state(other.rule, other.options, taken.p.shape), **taken.loose}
        there = step_of(other, replace(taken, state=state, loose=state), dtype)
        if all(f.verdict.passes for f in Judge(witness_of(there)).judged().findings):
            return (because.UpdateMistake(mistake.words),)
    return ()


def less(a: Balls, b: Balls) -> Balls:
    """a - b, an array also where it has no axes."""
    return np.asarray(a - b, dtype=object)


class States:
    """Each parameter's state: what the optimizer shows of it, else what its rule makes of it, exactly and
    with all the rounding so far."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.first: dict[str, Values] = {}
        self.now: dict[str, tuple[Values, Values]] = {}

    def taken(self, name: str, number: int, happened: Happened, update: Update) -> Taken | None:
        """The update of a parameter; None behind numbers that are not finite."""
        p, g = happened.before[name], happened.recorded[name]
        assert g is not None
        known = [key for key in update.rule.state if key != "step"]
        before, left = (
            {key: states[name][key] for key in known if key in states.get(name, {})}
            for states in (happened.state_before, happened.state_after)
        )
        if not all(np.isfinite(value).all() for value in (p, g, *before.values())):
            return None
        shown = {key: balls(value) for key, value in before.items() if value.shape == p.shape}
        sharp, loose = self.now.get(name, (self.first[name],) * 2)
        left["p"] = happened.after[name]
        return Taken(name, number, p, g, sharp | shown, loose | shown, left)

    def follow(self, taken: Taken, update: Update) -> None:
        """Keep what an update left."""
        shown = {key: balls(value) for key, value in taken.shown.items()}
        left = update.written(taken.p.shape, taken.shown).left
        made = {key: node for key, node in left.items() if key != "p" and key not in shown}
        work = Work(step_of(update, taken, self.dtype))
        sharp, loose = (
            {key: values()[node] for key, node in made.items()}
            for values in (work.exact, lambda: work.rounded)
        )
        self.now[taken.name] = {**taken.state, **shown, **sharp}, taken.loose | shown | loose
