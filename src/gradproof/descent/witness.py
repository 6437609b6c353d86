"""What a training loop did, as witnesses: the gradient that it recorded, and the update that it took.

A gradient is the sum of what the backwards gave. Of an update, each line of the optimizer's rule that gives a
number it shows is a step: with the engine's own numbers before it taken as exact, and those of the new state
as far as they are shown, each line is judged alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from ..proof.balls import Balls, balls, floats, precision
from ..proof.enclosure import LIMIT_BITS
from ..proof.graph import Node
from ..proof.walk import Values
from ..verdict import Judgement
from .trajectory import Update, first_state, mistaken


def alone() -> NoReturn:
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
    return Witness((), (arrival,), alone, dtype=None)


# The update


@dataclass(frozen=True, eq=False)
class Taken:
    """One update of one parameter: what it started from, and the new `p` and new state that it `left`.

    Of state that is not shown, `state` has what the rule made of it so far, and `loose` that with all the
    rounding on the way.
    """

    update: Update
    dtype: DType
    name: str
    number: int
    p: np.ndarray
    g: np.ndarray
    state: Values
    loose: Values
    left: Arrays

    @property
    def shown(self) -> Values:
        """The engine's own new state, where it can be gone on from."""
        whole = {name: x for name, x in self.left.items() if name != "p" and x.shape == self.p.shape}
        return {name: balls(x) for name, x in whole.items() if np.isfinite(x).all()}

    def witness(self, *, clues: bool = True) -> Witness:
        """The update alone."""
        return Witness(tuple(self.steps(clues)), (), alone, dtype=None)

    def steps(self, clues: bool = False) -> Iterator[Step]:
        """The lines that give the new state, as far as it is shown, and the new `p`; what comes after a line
        goes on from the engine's own number, where it can."""
        update, shown = self.update, self.shown
        with precision(LIMIT_BITS):
            numbers = update.numbers(self.number, exact())
        given = {**numbers, **self.state, "p": self.p, "g": self.g}
        loose = {n: x if x.dtype == object else balls(x) for n, x in given.items()} | self.loose
        loose |= update.entering(self.number, self.dtype)
        nodes: list[Node] = []
        also: dict[Node, tuple[tuple[Node, ...], ...]] = {}
        lines = [*update.over(self.p.shape)]
        final = {first[-1].name: line for line, first, _ in lines}  # a name may be bound more than once
        for line, first, others in lines:
            name, before = first[-1].name, len(nodes)
            nodes += first
            also[first[-1]] = others
            if name in self.left and line is final[name]:
                yield Step(
                    name=self.name if name == "p" else f"{self.name}.{name}",
                    nodes=tuple(nodes),
                    given=dict(given),
                    values={name: self.left[name]},
                    inputs={},
                    dtypes={name: self.dtype},
                    dtype=self.dtype,
                    wanted=frozenset(),
                    text=partial(_text, line.text),
                    loose=dict(loose),
                    also=dict(also),
                    looks=partial(self._looks, name) if clues else _nothing,
                    kind="update" if name == "p" else "state",
                )
            if name in shown:
                del nodes[before:]
                assert all(read.parent != name for node in nodes for read in node.reads)  # the old number
                given[name] = loose[name] = shown[name]

    def _looks(self, name: str, expected: Balls) -> tuple[Cause, ...]:
        """A known mistake that explains every number of the update, else what this one looks like; a wrong
        `p` is told in terms of the step that it took."""
        if self._mistake:
            return self._mistake
        if name != "p":
            return likeness(self.left[name], expected, Clues(self.dtype))
        start = balls(self.p)
        moved = floats(less(balls(self.left["p"]), start))
        if not moved.any():
            return (because.ByOtherHands("the parameter was not updated"),)
        return tuple(map(because.OfTheStep, likeness(moved, less(expected, start), Clues(self.dtype))))

    @cached_property
    def _mistake(self) -> tuple[Cause, ...]:
        for mistake in self.update.rule.mistakes:
            other = mistaken(self.update, mistake)
            if other is None:
                continue
            state = {**first_state(other.rule, other.options, self.p.shape), **self.loose}
            there = replace(self, update=other, state=state, loose=state)
            if all(f.verdict.passes for f in Judge(there.witness(clues=False)).judged().findings):
                return (because.UpdateMistake(mistake.words),)
        return ()


def _text(line: str, wrt: str | None) -> str:
    return line


def _nothing(expected: Balls) -> tuple[Cause, ...]:
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
        before, left = (
            {key: x for key, x in states.get(name, {}).items() if key in self.first[name]}
            for states in (happened.state_before, happened.state_after)
        )
        if not all(np.isfinite(value).all() for value in (p, g, *before.values())):
            return None
        shown = {key: balls(value) for key, value in before.items() if value.shape == p.shape}
        sharp, loose = self.now.get(name, (self.first[name],) * 2)
        left["p"] = happened.after[name]
        return Taken(update, self.dtype, name, number, p, g, sharp | shown, loose | shown, left)

    def follow(self, taken: Taken) -> None:
        """Keep what an update left."""
        self.now[taken.name] = taken.state | taken.shown, taken.loose | taken.shown
        if not taken.loose.keys() <= taken.shown.keys():
            *_, last = taken.steps()
            work = Work(last)
            sharp, loose = ({n: values[n] for n in taken.loose} for values in (work.exact(), work.rounded))
            self.now[taken.name] = sharp, loose
