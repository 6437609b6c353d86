"""The exact side of a descent: gradients at a point, updates by an optimizer's documented rule, and the exact
trajectory.

Everything here is in balls. The exact trajectory starts at the engine's own first point and then goes its own
way, as the real numbers would: its balls grow from step to step, and it is run again with more bits until
they are narrow to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
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
def _lowered(text: str, shapes: tuple[tuple[str, Shape], ...]) -> tuple[Node, ...]:
    return tuple(lower(parsed(text), dict(shapes)))


@cache
def _names(text: str) -> frozenset[str]:
    return frozenset(term.value for term in parsed(text).terms if term.op == "name")


def documented(lines: Sequence[Line], rule: Rule) -> tuple[str, ...]:
    """The lines as a reader needs them: without those that only other ways of writing use."""
    used = frozenset({"p", "g", *rule.state}).union(*(_names(line.text) for line in lines))
    return tuple(line.text for line in lines if parsed(line.text).name in used)


@dataclass(frozen=True, eq=False)
class Written:
    """An update as nodes, in which every name is bound once.

    `also` are the other ways to write a node, by its name; `left` the nodes that give the new state and the
    new `p`, by these names; `plain` those of hyper-parameters alone, which are Python's floats whatever the
    dtype of the tensors.
    """

    nodes: tuple[Node, ...]
    also: Mapping[str, tuple[tuple[Node, ...], ...]]
    left: Mapping[str, str]
    plain: tuple[Node, ...]


@cache
def _written(lines: tuple[Line, ...], state: frozenset[str], shape: Shape, shown: frozenset[str]) -> Written:
    bound = {name: name for name in ("p", "g", *state)}  # the tensors, and which node each is by now
    nodes: list[Node] = []
    plain: list[Node] = []
    also: dict[str, tuple[tuple[Node, ...], ...]] = {}
    left: dict[str, str] = {}
    for line in lines:
        name = parsed(line.text).name
        new = f"{bound[name]}'" if name in bound else name
        first, *others = (_nodes(text, new, bound, shape) for text in line.writings)
        nodes += first
        also[new] = tuple(others)
        if all(_names(text).isdisjoint(bound) for text in line.writings):
            plain += first
            continue
        if name == "p" or name in state:
            left.pop(name, None)  # `p` may be bound twice, and comes last
            left[name] = new
        bound[name] = after(name) if name in shown else new
    return Written(tuple(nodes), also, left, tuple(plain))


def _nodes(text: str, name: str, bound: Mapping[str, str], shape: Shape) -> tuple[Node, ...]:
    """A line as nodes, the last one of that name, which read what each name is bound to."""
    mine = parsed(text).name
    found = _lowered(text, tuple(sorted((read, shape if read in bound else ()) for read in _names(text))))
    inner = {node.name: name + node.name.removeprefix(mine) for node in found[:-1]}
    called = {**bound, **inner}

    def renamed(node: Node) -> Node:
        reads = (replace(read, parent=called.get(read.parent, read.parent)) for read in node.reads)
        return replace(node, name=inner.get(node.name, name), reads=tuple(reads))

    return tuple(map(renamed, found))


def after(name: str) -> str:
    """How the new number of a name of the state is called, that the engine shows."""
    return f"new {name}"


@dataclass(frozen=True, eq=False)
class Update:
    """A rule's update of one parameter, with the options and the learning rate of one step."""

    rule: Rule
    options: Mapping[str, Option]
    lr: float
    lines: tuple[Line, ...]

    def written(self, shape: Shape, shown: Collection[str] = ()) -> Written:
        """The update of a parameter of that shape.

        Of the state that is `shown`, what comes after a line goes on from the engine's own number, not from
        what the line gives: each line is judged alone.
        """
        return _written(self.lines, frozenset(self.rule.state) - {"step"}, shape, frozenset(shown))

    def numbers(self, step: int) -> dict[str, np.ndarray]:
        """The hyper-parameters, the floats that they are."""
        settings = {"lr": self.lr, **numbers_of(self.options), "step": step}
        return {name: np.asarray(number, dtype=np.float64) for name, number in settings.items()}

    def entering(self, step: int, plain: Sequence[Node], dtype: DType) -> Values:
        """The hyper-parameters, and what is made of them, beside tensors of that dtype.

        A Python float may be rounded to the tensors' dtype first.
        """
        given = {name: balls(number) for name, number in self.numbers(step).items()}
        known = evaluate(plain, given, rounding(DTYPES["float64"]))
        if dtype.name == "float64":
            return known
        return {
            n: x if n == "step" else np.asarray(rounding(dtype).multiply(x, UNIT), object)
            for n, x in known.items()
        }

    def __call__(self, p: Balls, g: Balls, state: Mapping[str, Balls], step: int) -> dict[str, Balls]:
        """The exact new `p` and new state, by name: of the hyper-parameters the floats that they are, of
        everything else the real number."""
        written = self.written(p.shape)
        given = {name: balls(number) for name, number in self.numbers(step).items()}
        values = evaluate(written.nodes, {**given, **state, "p": p, "g": g}, exact())
        return {name: numbers(values[node]) for name, node in written.left.items()}


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
) -> Trajectory:
    """Follow the exact gradient from a point; `updates` has each parameter's update for each step.

    With `accumulate` the gradients are never zeroed: each update takes the sum of all so far.
    """
    bits, failed_at = START_BITS, -1
    while True:
        with precision(bits):
            steps, whole = _followed(graph, point, updates, first, accumulate)
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
        there = {}
        for name, p in here.items():
            after = update[name](p, sums[name], states[name], number)
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
