"""What an optimizer did, as a witness: every line of its rule that gives a number it shows is a step.

With the engine's own numbers before the update taken as exact, and those of the new state as far as they are
shown: each line is judged alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from ..judging.witness import Step, Witness
from ..proof.balls import Balls, balls, floats
from ..proof.graph import Shape
from .trajectory import Update, after, first_state, mistaken

Looks = Callable[[str, Balls], tuple[Cause, ...]]  # of a number's name, beside the exact one


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
    loose: dict[str, Balls]
    left: Arrays

    @property
    def shown(self) -> Arrays:
        """The engine's own new state, where it can be gone on from."""
        return {
            name: value
            for name, value in self.left.items()
            if name != "p" and value.shape == self.p.shape and np.isfinite(value).all()
        }


def _nothing(name: str, expected: Balls) -> tuple[Cause, ...]:
    return ()


def _alone() -> NoReturn:
    raise UnsupportedError("an update has no leaves")


def steps_of(update: Update, taken: Taken, dtype: DType, looks: Looks = _nothing) -> Iterator[Step]:
    """The lines that give the new state, as far as it is shown, and the new `p`."""
    shown = taken.shown
    written = update.written(taken.p.shape, shown)
    here = {"p": taken.p, "g": taken.g, **{after(name): value for name, value in shown.items()}}
    loose = {name: balls(value) for name, value in here.items()} | taken.loose
    loose |= update.entering(taken.number, written.plain, dtype)
    for name, node in written.left.items():
        if name not in taken.left:
            continue
        nodes = written.behind(node)
        yield Step(
            name=taken.name if name == "p" else f"{taken.name}.{name}",
            nodes=nodes,
            given={**update.numbers(taken.number), **taken.state, **here},
            values={node: taken.left[name]},
            inputs={},
            dtypes={node: dtype},
            dtype=dtype,
            wanted=frozenset(),
            text=partial(_text, nodes[-1].source),
            loose=loose,
            also=written.also,
            looks=partial(looks, name),
            kind="update" if name == "p" else "state",
        )


def _text(line: str, wrt: str | None) -> str:
    return line


def witness_of(update: Update, taken: Taken, dtype: DType, looks: Looks = _nothing) -> Witness:
    """An update alone: what lies before it is judged elsewhere."""
    return Witness(tuple(steps_of(update, taken, dtype, looks)), (), _alone, dtype=None)


def clues(update: Update, taken: Taken, dtype: DType) -> Looks:
    """What a wrong update looks like: a known mistake that explains every number of it, else each in its own
    terms, and a `p` in those of the step that it took."""
    mistake = cache(partial(_mistake, update, taken, dtype))

    def looks(name: str, expected: Balls) -> tuple[Cause, ...]:
        if told := mistake():
            return told
        if name != "p":
            return likeness(taken.left[name], expected, Clues(dtype))
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
        there = replace(taken, state=state, loose=state)
        if all(f.verdict.passes for f in Judge(witness_of(other, there, dtype)).judged().findings):
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
        self.first: dict[str, dict[str, Balls]] = {}
        self.sharp: dict[str, dict[str, Balls]] = {}
        self.loose: dict[str, dict[str, Balls]] = {}

    def taken(self, name: str, number: int, happened: Happened, update: Update) -> Taken | None:
        """The update of a parameter; None behind numbers that are not finite."""
        p, g, rule = happened.before[name], happened.recorded[name], update.rule
        assert g is not None
        shown, left = (
            {key: value for key, value in states.get(name, {}).items() if key in rule.state and key != "step"}
            for states in (happened.state_before, happened.state_after)
        )
        if not all(np.isfinite(value).all() for value in (p, g, *shown.values())):
            return None
        known = {key: value for key, value in shown.items() if value.shape == p.shape}
        loose = self.loose[name] | {key: balls(value) for key, value in known.items()}
        left["p"] = happened.after[name]
        return Taken(name, number, p, g, self.sharp[name] | known, loose, left)

    def begin(self, name: str, update: Update, shape: Shape) -> None:
        """The state before the first update."""
        if name not in self.first:
            self.first[name] = first_state(update.rule, update.options, shape)
            self.sharp[name] = self.loose[name] = self.first[name]

    def follow(self, update: Update, taken: Taken) -> None:
        """Keep what an update left."""
        name, written = taken.name, update.written(taken.p.shape, taken.shown)
        shown = {key: balls(value) for key, value in taken.shown.items()}
        self.sharp[name], self.loose[name] = {**taken.state, **shown}, {**taken.loose, **shown}
        made = {key: node for key, node in written.left.items() if key != "p" and key not in shown}
        if made:
            *_, last = steps_of(update, taken, self.dtype)
            work = Work(replace(last, nodes=written.nodes))
            self.sharp[name] |= {key: work.exact()[node] for key, node in made.items()}
            self.loose[name] |= {key: work.rounded[node] for key, node in made.items()}
