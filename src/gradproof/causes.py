"""Causes: why a finding's verdict is what it is, as records with their numbers. A closed set.

Words are made of them in one place, `telling.causes`; JSON has them as they are. Numbers are floats, places
are `file:line`, names are those of the report. Nothing reads a cause back from words.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, dataclass_transform


@dataclass_transform(frozen_default=True)
class Cause:
    """Every subclass is a frozen record."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


def named(kind: type[Cause]) -> str:
    """`lost-use` of `LostUse`: a cause's name in JSON."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in kind.__name__).lstrip("-")


def plain(cause: Cause) -> dict[str, Any]:
    """A cause as a dict: its name, and its numbers by theirs."""
    own: Any = cause
    values = {f.name: getattr(own, f.name) for f in fields(own)}
    return {
        "cause": named(type(cause)),
        **{k: plain(v) if isinstance(v, Cause) else v for k, v in values.items()},
    }


# The number itself


class NoReference(Cause):
    """There is no finite derivative or value here to compare with."""


class Kink(Cause):
    """No derivative: the one-sided ones span `low` to `high`; whether the engine's number lies between."""

    low: float
    high: float
    between: bool


class NoSubgradient(Cause):
    """Entries at a kink that are no subgradient together: along one direction they give `along`, and the
    function's slope there is at most `most`."""

    entries: int
    along: float
    most: float


class Overflow(Cause):
    """The exact number (in digits: it may be beyond every float) is beyond the dtype's largest."""

    exact: str
    dtype: str
    largest: float


class Underflow(Cause):
    """The exact number is below the dtype's smallest."""

    exact: float
    dtype: str
    smallest: float


class NotFinite(Cause):
    """NaN or an infinity, though the exact number is finite; `formula` where rounding can lead there: then it
    is the formula that fails in the dtype."""

    value: float
    dtype: str
    formula: bool


class AnyNumber(Cause):
    """Rounding in the dtype can give any number here."""

    dtype: str


class Singular(Cause):
    """The operation that has no value, or no finite derivative: where its operand is `operand`, or just
    here."""

    operation: str
    derivative: bool
    operand: float | None


class WrongShape(Cause):
    """An array of another shape than the right one has."""

    shape: tuple[int, ...]
    expected: tuple[int, ...]


class PartsOfShapes(Cause):
    """Parts that cannot be added up to a value of that shape."""

    parts: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]


class NothingToCompare(Cause):
    """An array without entries, or a whole report without a comparison."""

    whole: bool = False


class NoEntries(Cause):
    """A gradient that has no entries."""


class LeftOpen(Cause):
    """So many entries are too near to the edge of the rounding set for floats to tell, and too many for
    balls."""

    entries: int


class LookedAt(Cause):
    """So many entries were looked at by balls, of those that floats do not pass."""

    looked: int
    left: int


class TooLarge(Cause):
    """An operation of so many terms that balls are not asked for them, and that floats cannot tell."""

    terms: int


class NoGradient(Cause):
    """None where a gradient is expected: `derivative` is "not zero", "zero", "none" (it does not exist), or
    empty where that is not said. `passed` where a node passed it on."""

    derivative: str = ""
    passed: bool = False


class GivenGradient(Cause):
    """A gradient on a tensor that is given."""


class Probed(Cause):
    """A Jacobian so large that it was looked at through one random cotangent."""


class OtherPoint(Cause):
    """The engine computes at other numbers than those of the point."""


class JudgedBy(Cause):
    """How gradients are judged of which no steps are known: by the ball from the leaves, or, `runs` > 0, by
    the spread of so many runs under random roundings."""

    runs: int = 0


# What a wrong number looks like


class Zero(Cause):
    """It is zero."""


class Transposed(Cause):
    """It is transposed."""


class Conjugated(Cause):
    """It is the conjugate: the imaginary parts have the other sign. With `factor`, what the cotangent is
    multiplied with is, in place of its conjugate, the derivative itself, or the reverse. With `spectrum`, of
    real numbers that go through complex ones, it is so of these."""

    factor: bool = False
    spectrum: bool = False


class FactorInSome(Cause):
    """So many entries of all are `ratio` times the right ones, and the others are right."""

    ratio: float
    entries: int
    of: int


class Factor(Cause):
    """Every entry is `ratio` times the right one, which may be a constant that people forget."""

    ratio: float
    meaning: str = ""
    digits: int = 10


class Either(Cause):
    """It looks like both."""

    one: Cause
    other: Cause


class LostUse(Cause):
    """Of so many uses one is lost or overwritten; or, `only`, that one alone arrived."""

    uses: int
    where: str
    only: bool


class OnlyPart(Cause):
    """Only the part of one reader arrived."""

    kept: str
    lost: tuple[str, ...]


class PassedUnchanged(Cause):
    """It is the cotangent itself."""


class ValueTimesCotangent(Cause):
    """It is the forward value times the cotangent."""


class CotangentIgnored(Cause):
    """It is what a cotangent of ones would give."""


class SumMissing(Cause):
    """Only the first or last entry along an axis of the cotangent counts."""

    axis: int
    entry: str


class ChangedInPlace(Cause):
    """It is the gradient at the numbers that an input has later on."""

    name: str
    after: str


class LowerPrecision(Cause):
    """Every entry is a number of a coarser dtype; without a name, right to some seven digits."""

    dtype: str = ""


class AllAlike(Cause):
    """All engines are wrong alike."""


# How it hangs together


class Inherited(Cause):
    """The error of another node, which is told there."""

    origin: str


class SmoothTogether(Cause):
    """The pieces have kinks (at these places), and the whole function has none."""

    places: tuple[str, ...] = ()


class AtBoundary(Cause):
    """A condition stands at its boundary, where the function's derivative is another; `unseen` where the
    whole function is too large to be looked at from both sides."""

    places: tuple[str, ...] = ()
    unseen: bool = False


class Cancels(Cause):
    """Right from the leaves, although a node is wrong."""

    origin: str


class HeldIn(Cause):
    """A sum that was held in this dtype, in which it is off by more than a well-taken one."""

    dtype: str


class Convention(Cause):
    """What the engine gives in place of the derivative on purpose, in words."""

    what: str


class NoEffect(Cause):
    """Wrong, and its error reaches no parameter."""


class MadeUpFor(Cause):
    """What is lost at one place is made up for at another: right from the leaves."""


class WholeIsRight(Cause):
    """The function as a whole was judged; `proved` where it is right in every entry."""

    proved: bool = False


class ComesFrom(Cause):
    """Where a number that is not finite comes from."""

    node: str
    place: str


class OverflowOnTheWay(Cause):
    """A value overflows on the way."""


class NotFiniteAlready(Cause):
    """What is needed to judge was not finite before."""

    what: str


class Beyond(Cause):
    """A number of the point is beyond the dtype's largest."""

    name: str
    value: float
    dtype: str
    largest: float


class NotTheSum(Cause):
    """What arrived is not what its uses passed on; `writers` write to what they receive."""

    uses: tuple[str, ...]
    writers: tuple[str, ...] = ()


class NothingPassed(Cause):
    """Nothing was passed to it."""


class Unseen(Cause):
    """A part of it was not seen, or, `what`, why not."""

    what: str = ""


class NoRepeat(Cause):
    """Run again on the same cotangent, the backward passed other numbers."""


class OtherCotangent(Cause):
    """For a cotangent of -2 times as much, in another layout: two entries "apart" in memory, "turned", with
    its axes in another order there, or "expanded", one number standing there for many."""

    layout: str = "apart"


# What autograd does not see


class LostAtStop(Cause):
    """Part of the gradient is lost where autograd stops and the function does not."""

    places: tuple[str, ...]
    by: str  # what may stop it there
    leaves: tuple[str, ...] = ()  # that miss it, where they are known


class StoppedForward(Cause):
    """Every node's tangent is right, and the function's is not: something on the way has none."""


class CutOff(Cause):
    """A gradient is linear in its cotangent, and this one has no history."""


class BreaksClause(Cause):
    """A clause of a backward's contract is broken: which, by what, why it stands, and whose gradient shows
    it."""

    clause: str
    seen: str
    why: str
    at: str = ""


class NotFollowed(Cause):
    """What happens there is not seen."""

    why: str


class Contradicted(Cause):
    """Along a random direction the function changes by `slope`, and the gradients say `gradients`."""

    slope: float
    gradients: float


class SmoothAnyway(Cause):
    """There is no finite gradient, and along random directions the function has derivatives: `slope` by one
    of them."""

    slope: float


class OtherUnrecorded(Cause):
    """Run without the recorder it gives other numbers; `compiled` is the node of a compiler's, that rounds
    otherwise, and the whole function is not told apart from that, or is `wrong`."""

    compiled: str = ""
    wrong: bool = False


class OffCompiled(Cause):
    """Compiled as a whole it is off by so much, relative; equation by equation it is right."""

    relative: float


class Nested(Cause):
    """A part of it arrives by a backward within the backward; `judged` where the whole function tells it."""

    judged: bool


# What is not covered, and what broke


class Uncovered(Cause):
    """What has no formula here, or is not seen, in words."""

    what: str


class Raised(Cause):
    """What was raised, or how it broke off, in words."""

    message: str


class Unreached(Cause):
    """Why there is nothing to differentiate, or nothing arrived, in words."""

    why: str


# The loop of a descent


class NotZeroed(Cause):
    """The gradient is the sum of those of the steps `first` to `last`; `meant` where nothing is to be
    zeroed."""

    first: int
    last: int
    meant: bool


class LeftOut(Cause):
    """The step used some of the micro-batches."""

    used: int
    parts: int


class Accumulated(Cause):
    """The micro-batches' gradients beside the full batch's: equal, `factor` times it, or no multiple."""

    parts: int
    equal: bool
    factor: float | None
    reduction: str


class ByOtherHands(Cause):
    """Numbers that something else wrote: see `what`."""

    what: str


class NoStep(Cause):
    """The loop did not call optimizer.step(), or (`moved`) what has no gradient was changed or stays."""

    moved: bool | None = None


class Counter(Cause):
    """The optimizer counts another step."""

    counts: float
    expected: int


class UpdateMistake(Cause):
    """A known mistake that explains every number of the update."""

    words: str


class OfTheStep(Cause):
    """What an update looks like, in terms of the step that it should take."""

    like: Cause


class MicroBatch(Cause):
    """The part of the data that a finding is of."""

    number: int
