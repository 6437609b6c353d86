"""The exact side of a descent: gradients at a point, updates by an optimizer's documented rule, and the exact
trajectory.

Everything here is in balls. The exact trajectory starts at the engine's own first point and then goes its own
way, as the real numbers would: its balls grow from step to step, and it is run again with more bits until
they are narrow to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from flint import acb_mat, arb, arb_mat

from ..dtypes import DTYPES, DType
from ..language.builder import lower
from ..proof.arithmetic import Arithmetic, exact, rounding
from ..proof.balls import (
    NOUGHT,
    UNIT,
    Balls,
    accuracy_bits,
    as_float,
    ball,
    balls,
    full,
    numbers,
    precision,
    radii,
)
from ..proof.graph import Graph, Node, Shape, size
from ..proof.walk import Values, evaluate, pullback, replaced
from .optimizers import RULES, Line, Mistake, Option, Rule, numbers_of, parsed

START_BITS, LIMIT_BITS = 128, 16_384
NARROW = 64  # bits that the exact trajectory's numbers must keep: more than any dtype has
MAX_PARAMETERS = 64  # entries; up to here the Hessian is worked out
HESSIAN_BITS, HESSIAN_STEP = 1024, arb(2) ** -200


@dataclass(frozen=True, eq=False)
class Slope:
    """The loss and its gradient by every parameter at one point."""

    loss: Balls
    gradients: Mapping[str, Balls]

    @property
    def largest(self) -> arb:
        """The largest magnitude among the gradient's entries, as an upper bound that is proved; nan if there
        is none."""
        found = NOUGHT
        for gradient in self.gradients.values():
            for entry in gradient.reshape(-1):
                entry = ball(entry)
                if not entry.is_finite():
                    return arb("nan")
                found = found.max(entry.abs_upper())
        return found


def slope(graph: Graph, leaves: Values, arithmetic: Arithmetic) -> Slope:
    """The loss and the gradient at the leaves' numbers, in any arithmetic and at the precision that is
    set."""
    output = graph.output.name
    values = evaluate(graph.nodes, leaves, arithmetic)
    back = pullback(graph.nodes, values, {output: full((1,), UNIT)}, graph.active, arithmetic)
    found = {}
    for leaf in graph.parameters:
        found[leaf.name] = numbers(back[leaf.name][0]) if leaf.name in back else full(leaf.shape, NOUGHT)
    return Slope(numbers(values[output]), found)


# One update


@cache
def _lowered(text: str, over: frozenset[str], shape: Shape) -> tuple[Node, ...]:
    return tuple(lower(parsed(text), {name: shape if name in over else () for name in _names(text)}))


@cache
def _names(text: str) -> frozenset[str]:
    return frozenset(term.value for term in parsed(text).terms if term.op == "name")


def documented(lines: Sequence[Line], rule: Rule) -> tuple[str, ...]:
    """The lines as a reader needs them: without those that only other ways of writing use."""
    used = frozenset({"p", "g", *rule.state}).union(*(_names(line.text) for line in lines))
    return tuple(line.text for line in lines if parsed(line.text).name in used)


@dataclass(frozen=True, eq=False)
class Update:
    """A rule's update of one parameter, with the options and the learning rate of one step."""

    rule: Rule
    options: Mapping[str, Option]
    lr: float
    lines: tuple[Line, ...]

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The names of tensors. What is made of hyper-parameters alone is a Python float, whatever the dtype
        of the tensors."""
        found = {"p", "g", *self.rule.state} - {"step"}
        for line in self.lines:
            if not found.isdisjoint(_names(line.text)):
                found.add(parsed(line.text).name)
        return frozenset(found)

    def over(self, shape: Shape) -> Iterator[tuple[Line, tuple[Node, ...], tuple[tuple[Node, ...], ...]]]:
        """The lines over tensors of that shape, as nodes, with the other ways to write them. The last node
        has the name that the line binds, which may be bound already."""
        for line in self.lines:
            if parsed(line.text).name in self.tensors:
                first, *others = (_lowered(text, self.tensors, shape) for text in line.writings)
                yield line, first, tuple(others)

    def numbers(self, step: int, arithmetic: Arithmetic) -> Values:
        """The hyper-parameters, the floats that they are, and what is made of them alone."""
        settings = {"lr": self.lr, **numbers_of(self.options), "step": float(step)}
        known = {name: balls(number) for name, number in settings.items()}
        for line in self.lines:
            if parsed(line.text).name not in self.tensors:
                known = evaluate(_lowered(line.text, frozenset(), ()), known, arithmetic)
        return known

    def entering(self, step: int, dtype: DType) -> Values:
        """The same with their rounding, beside tensors of that dtype: they may be rounded to it first."""
        known = self.numbers(step, rounding(DTYPES["float64"]))
        if dtype.name == "float64":
            return known
        once = rounding(dtype).multiply
        return {n: x if n == "step" else np.asarray(once(x, UNIT), object) for n, x in known.items()}

    def __call__(self, p: Balls, g: Balls, state: Mapping[str, Balls], step: int) -> dict[str, Balls]:
        """The exact new `p` and new state, by name."""
        known = {**self.numbers(step, exact()), **state, "p": p, "g": g}
        for _, nodes, _ in self.over(p.shape):
            known = evaluate(nodes, known, exact())
        return {name: numbers(known[name]) for name in ("p", *state)}


def update_of(rule: Rule, options: Mapping[str, Option], lr: float) -> Update:
    """The rule's update with all its options said."""
    return Update(rule, options, lr, rule.in_force(options))


def mistaken(update: Update, mistake: Mistake) -> Update | None:
    """The update with the mistake made in it; None where it makes no difference."""
    if not all(update.options.get(name) for name in mistake.when):
        return None
    rule = RULES[mistake.rule] if mistake.rule else update.rule
    lines = rule.in_force({**update.options, **mistake.options})
    lines = tuple(Line(mistake.lines[line.text]) if line.text in mistake.lines else line for line in lines)
    known = {name: update.options.get(name, default) for name, default in rule.options.items()}
    return None if lines == update.lines else Update(rule, {**known, **mistake.options}, update.lr, lines)


def first_state(rule: Rule, options: Mapping[str, Option], shape: Shape) -> dict[str, Balls]:
    """The state before the first step, of the parameter's shape."""
    settings = numbers_of(options)
    start = {name: settings[value] if isinstance(value, str) else value for name, value in rule.state.items()}
    return {name: full(shape, arb(value)) for name, value in start.items() if name != "step"}


# The exact trajectory


@dataclass(frozen=True, eq=False)
class Exact:
    """One step of the exact trajectory: where it was, the loss and gradient there, and where it went."""

    parameters: Mapping[str, Balls]
    loss: Balls
    gradients: Mapping[str, Balls]
    updated: Mapping[str, Balls]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The exact steps, as far as they can be told; `bits` is the precision that they took, `lost` says why it
    ended early."""

    steps: tuple[Exact, ...]
    bits: int
    lost: str = ""


def trajectory(
    graph: Graph,
    point: Mapping[str, np.ndarray],
    updates: Sequence[Mapping[str, Callable[..., dict[str, Balls]]]],
    first: Mapping[str, Mapping[str, Balls]],
    *,
    accumulate: bool = False,
    treated: Callable[[Mapping[str, Balls]], Mapping[str, Balls]] = dict,
) -> Trajectory:
    """Follow the exact gradient from a point; `updates` has each parameter's update for each step.

    With `accumulate` the gradients are never zeroed: each update takes the sum of all so far. What they are
    `treated` to be, clipped ones, is what the updates take.
    """
    bits, failed_at = START_BITS, -1
    while True:
        with precision(bits):
            steps, whole = _followed(graph, point, updates, first, accumulate, treated)
        if whole or bits >= LIMIT_BITS or len(steps) <= failed_at:
            break
        # A step that fails at any precision is a kink or a pole, not a lack of bits.
        failed_at = len(steps)
        bits = min(
            LIMIT_BITS,
            max(2 * bits, int(START_BITS + 1.25 * (bits - NARROW) * len(updates) / max(1, len(steps)))),
        )
    lost = ""
    if not whole:
        lost = (
            f"the exact trajectory is lost after step {len(steps)}: its balls have grown too wide, at {bits} "
            "bits too "
            "(a kink, a singular point, or errors that grow faster than any precision)"
        )
    return Trajectory(tuple(steps), bits, lost)


def _followed(
    graph: Graph,
    point: Mapping[str, np.ndarray],
    updates: Sequence[Mapping[str, Callable[..., dict[str, Balls]]]],
    first: Mapping[str, Mapping[str, Balls]],
    accumulate: bool,
    treated: Callable[[Mapping[str, Balls]], Mapping[str, Balls]],
) -> tuple[list[Exact], bool]:
    given = {leaf.name: balls(point[leaf.name]) for leaf in graph.leaves if leaf.given}
    here = {leaf.name: balls(point[leaf.name]) for leaf in graph.parameters}
    states = {name: dict(state) for name, state in first.items()}
    sums: dict[str, Balls] = {}
    steps: list[Exact] = []
    for number, update in enumerate(updates, 1):
        at = slope(graph, {**given, **here}, exact())
        carried = sums if accumulate else {}
        sums = {
            n: np.asarray(carried[n] + g, dtype=object) if n in carried else g
            for n, g in at.gradients.items()
        }
        there, taken = {}, treated(sums)
        for name, p in here.items():
            after = update[name](p, taken[name], states[name], number)
            there[name] = after.pop("p")
            states[name] |= after
        if not all(_is_narrow(array) for array in (at.loss, *there.values())):
            return steps, False
        steps.append(Exact(here, at.loss, sums, there))
        here = there
    return steps, True


def _is_narrow(array: Balls) -> bool:
    """Whether every ball is finite and has the bits that it takes; a ball around 0 is narrow where it is
    tiny."""
    radius = radii(array)
    precise = np.asarray(accuracy_bits(array) > NARROW, dtype=bool)
    return bool(np.all(np.isfinite(radius) & (precise | (radius < 2.0**-200))))


# How steep, and how ill-conditioned


@dataclass(frozen=True)
class Curvature:
    """The extreme eigenvalues of the loss's Hessian at a point."""

    largest: float
    smallest: float
    quadratic: bool = False

    @property
    def condition(self) -> float:
        """λmax/λmin, where the Hessian is positive definite; else infinite."""
        return self.largest / self.smallest if self.smallest > 0 else math.inf


def curvature(graph: Graph, point: Mapping[str, np.ndarray]) -> Curvature | None:
    """The Hessian's extreme eigenvalues; None where there are too many parameters, or no second derivative.

    The Hessian's columns are difference quotients of the exact gradient over a step of 2**-200, at 1024 bits:
    right to some sixty digits where the second derivative exists, and for a quadratic loss exact. Its
    eigenvalues are Arb's, of the symmetric part, at the same precision: in float64 a condition above 1e16
    could not be told.
    """
    places = [(leaf.name, n) for leaf in graph.parameters for n in range(size(leaf.shape))]
    if not 0 < len(places) <= MAX_PARAMETERS:
        return None
    with precision(HESSIAN_BITS):
        leaves = {name: balls(value) for name, value in point.items()}
        here = _flat(slope(graph, leaves, exact()))
        columns: list[list[arb]] = []
        others: list[list[arb]] = []
        for name, entry in places:
            for step, found in ((HESSIAN_STEP, columns), (UNIT, others)):
                at = leaves[name].reshape(-1)[entry] + step
                moved = _flat(slope(graph, {**leaves, name: replaced(leaves[name], entry, at)}, exact()))
                found.append([(b - a) / step for a, b in zip(here, moved, strict=True)])
        if not all(
            x.is_finite() and x.rad() < 2.0**-100 * (1 + abs(x)) for column in columns for x in column
        ):
            return None
        quadratic = all(
            x.overlaps(y)
            for left, right in zip(columns, others, strict=True)
            for x, y in zip(left, right, strict=True)
        )
        n = len(places)
        matrix = arb_mat(
            n, n, [((columns[i][j] + columns[j][i]) / 2).mid() for i in range(n) for j in range(n)]
        )
        try:
            roots = [as_float(root.real) for root in acb_mat(matrix).eig(algorithm="approx")]
        except (ValueError, ArithmeticError):
            return None
    return Curvature(max(roots), min(roots), quadratic)


def _flat(at: Slope) -> list[arb]:
    return [ball(x) for gradient in at.gradients.values() for x in gradient.reshape(-1)]


def stable(rule: Rule, settings: Mapping[str, Any], curved: Curvature) -> float | None:
    """The learning rate above which gradient descent on the quadratic leaves: 2/λmax, and more with momentum.

    From the roots of the recurrence along the steepest eigenvector (Polyak, 1964, for the heavy ball).
    """
    if rule.name != "sgd" or curved.largest <= 0 or curved.smallest < 0 or settings.get("maximize"):
        return None
    steep = curved.largest + float(settings.get("weight_decay", 0.0))
    momentum = float(settings.get("momentum", 0.0))
    if settings.get("nesterov"):
        return (2 + 2 * momentum) / (1 + 2 * momentum) / steep
    kept = 1 - float(settings.get("dampening", 0.0)) if momentum else 1.0
    return 2 * (1 + momentum) / (kept * steep) if kept > 0 else None
