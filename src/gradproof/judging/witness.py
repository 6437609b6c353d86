"""The witness: what happened, as steps beside numbers. Every door yields one, and one judge judges it.

An expression's line, an autograd node, a jaxpr's equation are steps. A door knows nothing of verdicts, and
the judge nothing of engines. Numbers are arrays of float64, or of float32 where that holds them exactly; they
are `widened` to float64 while they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..causes import Cause
from ..dtypes import DType
from ..proof.balls import Balls
from ..proof.enclosure import Cotangents, Run
from ..proof.graph import Node, Shape, wide
from ..proof.walk import Values
from ..verdict import Judgement

Arrays = Mapping[str, np.ndarray]
Key = Hashable  # of a value: a line's name, an edge of autograd's


@dataclass(frozen=True, eq=False)
class Pass:
    """One trip back through a step.

    `received` are the cotangents of the outputs, `passed` what it passed on to the inputs, each with a first
    axis of rows; an input whose name is not there was not shown, None is no gradient. `unusable` says why
    nothing can be made of what it received. A pass that is bit for bit so many `times` the first one, on
    both sides, has no numbers of its own.
    """

    received: Arrays
    passed: Mapping[str, np.ndarray | None]
    unusable: Cause | None = None
    times: float | None = None

    def widened(self) -> Pass:
        passed = {name: None if rows is None else wide(rows) for name, rows in self.passed.items()}
        return replace(self, received=_widened(self.received), passed=passed)


def _widened(arrays: Arrays) -> Arrays:
    return {name: wide(array) for name, array in arrays.items()}


def _no_text(wrt: str | None) -> str:
    return ""


def _nothing_later(name: str) -> Iterator[tuple[str, np.ndarray]]:
    return iter(())


@dataclass(frozen=True, eq=False)
class Step:
    """What an engine did in one place: nodes that say what it computes, beside the numbers that it had there.

    `given` are what the nodes read from outside (floats, or balls where they are known no better), `values`
    the outputs, `inputs` those whose cotangents are asked for; `dtypes` are of both, None for one that is not
    covered, and `dtype` is the coarsest that it computes in. `probes` are unit cotangents, a row for each
    entry, or one random row; `passes` are the trips that really were made: the first, again, and of -2 times
    as much. `sources` and `results` say which value each input and output is. `text` gives the formula of its
    value (None), or of its gradient by an input; `later` the numbers that an input has later on, and after
    what. `also` has other ways to compute a node: the real numbers are the same, and what rounding explains
    is what it does to any of them. `looks` says what a wrong value looks like, beside the exact one, where
    that is not for the judge to find out: only then may nodes bind a name anew. `kind` is that of the
    findings on values. Of a step of tangents the inputs that are `moved` have theirs beside them, under
    their dotted names.
    """

    name: str
    nodes: tuple[Node, ...]
    given: Mapping[str, np.ndarray]
    values: Arrays
    inputs: Mapping[str, Shape]
    dtypes: Mapping[str, DType | None]
    dtype: DType
    wanted: frozenset[str]
    probes: Pass | None = None
    passes: tuple[Pass, ...] = ()
    place: str = ""
    sources: Mapping[str, Key] = field(default_factory=dict)
    results: Mapping[str, Key] = field(default_factory=dict)
    text: Callable[[str | None], str] = _no_text
    later: Callable[[str], Iterator[tuple[str, np.ndarray]]] = _nothing_later
    broken: Cause | None = None  # why it has no gradients of its own
    loose: Values | None = (
        None  # `given` with all the rounding before it, where the engine's numbers are not known
    )
    changes: bool = False  # whether its backward writes to the cotangent that it received
    assumed: str = ""  # where a wrong number may be one of nodes that nobody saw, so that nothing is proved
    also: Mapping[Node, tuple[tuple[Node, ...], ...]] = field(default_factory=dict)
    looks: Callable[[Balls], tuple[Cause, ...]] | None = None
    kind: str = "forward"
    moved: Mapping[str, Shape] = field(default_factory=dict)
    convention: str = ""  # what the engine gives on purpose in place of the derivative, in words
    pairs: frozenset[str] = frozenset()  # names whose last axis has real and imaginary parts

    def widened(self) -> Step:
        passes = tuple(trip.widened() for trip in self.passes)
        return replace(self, given=_widened(self.given), values=_widened(self.values), passes=passes)


@dataclass(frozen=True, eq=False)
class Arrival:
    """What arrived at a value.

    `parts` are what its uses passed to it; None where that is not shown: then it is what the steps should
    pass. `silent` ones are told only where they do not pass. `reason` is why it cannot be judged by its
    parts. `looks` gives the causes of what its sum was judged to be; `kind` is that of the finding.
    """

    name: str
    key: Key
    shape: Shape
    value: np.ndarray | None
    dtype: DType | None
    parts: tuple[np.ndarray, ...] | None = None
    text: str = ""
    place: str = ""
    silent: bool = False
    reason: Cause | None = None
    uses: tuple[str, ...] = ()  # who passed the parts
    looks: Callable[[Judgement], tuple[Cause, ...]] | None = None
    kind: str = "gradient"

    def widened(self) -> Arrival:
        value = None if self.value is None else wide(self.value)
        parts = None if self.parts is None else tuple(map(wide, self.parts))
        return replace(self, value=value, parts=parts)


@dataclass(frozen=True, eq=False)
class Trouble:
    """What broke, or is not covered, and where; the cause's kind says which."""

    kind: str
    node: str
    cause: Cause
    place: str = ""
    inherited: bool = False
    wrt: str | None = None


@dataclass(frozen=True, eq=False)
class Whole:
    """The run from its leaves to its outputs, the leaves' numbers, and the outputs' cotangents."""

    run: Run
    given: Values
    rows: Cotangents
    outputs: tuple[str, ...] = ()  # one for each output of the function


@dataclass(frozen=True, eq=False)
class Loss:
    """What stops keep back: a cotangent `lost`, beside what `arrived`. It is told at a leaf, where all that
    it misses is known; or, with `wrt`, at one stop, by what it reads, and the `leaves` that miss it inherit
    that."""

    node: str
    arrived: np.ndarray
    lost: Balls
    dtype: DType
    cause: Cause
    place: str = ""
    wrt: str | None = None
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Losses:
    """What is lost at stops, and what cannot be followed; `put_back` where numbers came back that the whole
    run takes for constants."""

    found: Sequence[Loss] = ()
    unseen: Sequence[Trouble] = ()
    put_back: bool = False


def _nothing_lost() -> Losses:
    return Losses()


@dataclass(frozen=True, eq=False)
class Witness:
    """A whole run of an engine.

    `steps` stand in the order in which they ran. `whole` gives the run from its leaves, and raises
    `UnsupportedError` where it is too large or not covered. With `complete`, the steps are all that the
    engine did, so that the whole judges every arrival as well; otherwise it is asked where steps leave
    something open.
    """

    steps: tuple[Step, ...]
    arrivals: tuple[Arrival, ...]
    whole: Callable[[], Whole]
    dtype: DType | None
    complete: bool = False
    troubles: tuple[Trouble, ...] = ()
    held: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict
    )  # the point's numbers, the engine's
    strays: Arrays = field(default_factory=dict)  # gradients on given tensors
    losses: Callable[[], Losses] = _nothing_lost
    boundaries: tuple[str, ...] = ()  # places of conditions at their boundary
    trusting: bool = False  # stops are meant, and the whole does not know of them
    values: Arrays = field(default_factory=dict)  # the whole's own values, by the names of `Whole.outputs`
    final: bool = False  # only the last gradients are known, and no step
