"""What a learner is told of a problem: every step of the derivation with its exact number, and no engine.

The formulas are the derivation's, the numbers the reference's; here they are only put side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import sympy
from sympy import Expr, Indexed, Integer, S, Sum, Symbol

from ..language.files import Problem
from ..proof.arithmetic import exact
from ..proof.balls import UNIT, ZERO, balls, centres, full, precision
from ..proof.graph import Leaf, Node, slot
from ..proof.slopes import LocalGradient, Reduction, bar, entry, written
from ..proof.walk import Values, evaluate, pullback
from .derivation import Derivation, derive

BITS = 256  # of the exact numbers, of which people see eight digits
MAX_PATHS = 6  # from a parameter to the output that are written out
MAX_LENGTH = 8  # nodes of such a path
MAX_TERMS = 4  # of a sum that is written out in numbers


@dataclass(frozen=True, eq=False)
class Line:
    """`left = right` of a node, and its value."""

    name: str
    left: Expr
    right: Expr
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Slope:
    """One local gradient: its formula, the rule behind it in a phrase, and its number at one entry of the
    Jacobian."""

    gradient: LocalGradient
    rule: str
    left: tuple[Expr, Expr]  # at that entry
    formula: Expr  # at that entry
    value: float


@dataclass(frozen=True, eq=False)
class Part:
    """What one use of a name passes back to it."""

    node: str
    formula: Expr
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Step:
    """One adjoint, `v̄ = formula`, with what its uses pass on and the number that it comes to."""

    name: str
    left: Expr
    formula: Expr
    parts: tuple[Part, ...]
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Path:
    """One way from the output back to a parameter: the nodes' entries, the slopes between them, and what it
    adds."""

    entries: tuple[Expr, ...]
    slopes: tuple[Slope, ...]
    value: np.ndarray

    @property
    def scalar(self) -> bool:
        return all(entry_.is_Symbol for entry_ in self.entries)


@dataclass(frozen=True, eq=False)
class Explanation:
    """A problem's derivation beside its exact numbers at the point."""

    problem: Problem
    derivation: Derivation

    @property
    def output(self) -> str:
        return self.derivation.graph.output.name

    @property
    def given(self) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in self.derivation.graph.leaves if leaf.given)

    @property
    def parameters(self) -> tuple[Leaf, ...]:
        return self.derivation.graph.parameters

    @cached_property
    def _values(self) -> Values:
        with precision(BITS):
            leaves = {name: balls(value) for name, value in self.problem.point.items()}
            return evaluate(self.derivation.graph.nodes, leaves, exact())

    @cached_property
    def _adjoints(self) -> Values:
        graph = self.derivation.graph
        with precision(BITS):
            seed = {self.output: full((1,), UNIT)}
            return pullback(graph.nodes, self._values, seed, graph.active, exact())

    @cached_property
    def values(self) -> Mapping[str, np.ndarray]:
        """The value of every name and, under the name with a bar, its adjoint: exact, then rounded to
        floats."""
        found = {name: centres(value) for name, value in self._values.items()}
        return found | {bar(name): centres(value[0]) for name, value in self._adjoints.items()}

    @cached_property
    def gradients(self) -> Mapping[str, np.ndarray]:
        """The parameters' gradients; zeros where nothing of the output depends on one."""
        return {leaf.name: self.values.get(bar(leaf.name), np.zeros(leaf.shape)) for leaf in self.parameters}

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        return tuple(
            Line(node.name, *written(node), self.values[node.name]) for node in self.derivation.graph.nodes
        )

    @cached_property
    def slopes(self) -> tuple[Slope, ...]:
        return tuple(self._slope(gradient) for gradient in self.derivation.locals)

    def _slope(self, gradient: LocalGradient) -> Slope:
        node = self.derivation.nodes[gradient.node]
        shape = self.derivation.graph.shapes[gradient.wrt]
        with precision(BITS):
            seed = full((1, *node.shape), ZERO)
            seed[(0,) * seed.ndim] = UNIT
            pulled = pullback([node], self._values, {node.name: seed}, {gradient.wrt}, exact()).get(
                gradient.wrt
            )
        row = np.zeros(shape) if pulled is None else centres(pulled[0])
        # Of the first row the first entry that is not zero; of a diagonal that is the one on it.
        at = (
            np.unravel_index(int(np.flatnonzero(row.reshape(-1))[0]), shape)
            if row.any() and shape
            else (0,) * len(shape)
        )
        left, right = gradient.left
        places = dict(zip(_indices(left), (0,) * len(node.shape), strict=True))
        places |= dict(zip(_indices(right), map(int, at), strict=True))
        fixed = (at_entry(left, places), at_entry(right, places))
        return Slope(
            gradient, rule(node, gradient.wrt), fixed, at_entry(gradient.formula, places), float(row[at])
        )

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The adjoints from the output back, the output's own 1 apart."""
        return tuple(
            Step(
                adjoint.name,
                adjoint.left,
                adjoint.formula,
                tuple(
                    Part(use.node, use.formula, self._part(adjoint.name, use.node, use.read))
                    for use in adjoint.parts
                ),
                self.values.get(bar(adjoint.name), np.zeros(self.derivation.graph.shapes[adjoint.name])),
            )
            for adjoint in self.derivation.adjoints[1:]
        )

    def _part(self, name: str, node: str, read: int) -> np.ndarray:
        """The number that one read passes back: the other reads of the name are given another one."""
        user = self.derivation.nodes[node]
        shape = self.derivation.graph.shapes[name]
        if node not in self._adjoints:
            return np.zeros(shape)
        other = f"{name} elsewhere"
        reads = tuple(
            replace(r, parent=other) if n != read and r.parent == name else r
            for n, r in enumerate(user.reads)
        )
        values = {**self._values, other: self._values[name]}
        with precision(BITS):
            pulled = pullback(
                [replace(user, reads=reads)], values, {node: self._adjoints[node]}, {name}, exact()
            )
        return centres(pulled[name][0]) if name in pulled else np.zeros(shape)

    @cached_property
    def ways(self) -> Mapping[str, int]:
        """How many paths lead from each name to the output."""
        found = {self.output: 1}
        for node in reversed(self.derivation.graph.nodes):
            for gradient in self._below.get(node.name, ()):
                found[gradient.wrt] = found.get(gradient.wrt, 0) + found.get(node.name, 0)
        return found

    @cached_property
    def _below(self) -> Mapping[str, list[LocalGradient]]:
        """The local gradients of each node, those that are zero everywhere left out."""
        found: dict[str, list[LocalGradient]] = {}
        for gradient in self.derivation.locals:
            if gradient.formula is not S.Zero:
                found.setdefault(gradient.node, []).append(gradient)
        return found

    def paths(self, parameter: str) -> tuple[Path, ...]:
        """Every path from the output back to a parameter; none where there are too many of them, or one is
        too long."""
        if self.ways.get(parameter, 0) > MAX_PATHS:
            return ()
        slopes = {(slope.gradient.node, slope.gradient.wrt): slope for slope in self.slopes}
        found: list[tuple[str, ...]] = []
        stack: list[tuple[str, ...]] = [(self.output,)]
        while stack:
            names = stack.pop()
            if names[-1] == parameter:
                found.append(names)
            elif len(names) <= MAX_LENGTH:
                stack += [
                    (*names, gradient.wrt)
                    for gradient in self._below.get(names[-1], ())
                    if gradient.wrt in self.ways
                ]
        if len(found) != self.ways.get(parameter, 0):
            return ()
        return tuple(
            Path(self._entries(names), tuple(slopes[pair] for pair in pairwise(names)), self._along(names))
            for names in sorted(found, reverse=True)
        )

    def _entries(self, names: Sequence[str]) -> tuple[Expr, ...]:
        """The names with letters that do not meet: loss, residual[i], y_hat[j], slope."""
        letters = iter(f"{c}{n or ''}" for n in range(100) for c in "ijlpqrst")
        shapes = self.derivation.graph.shapes
        return tuple(
            entry(name, tuple(Symbol(next(letters), integer=True, nonnegative=True) for _ in shapes[name]))
            for name in names
        )

    def _along(self, names: Sequence[str]) -> np.ndarray:
        """What arrives at the end of one path: the product of its local gradients."""
        cotangent = full((1,), UNIT)
        with precision(BITS):
            for name, parent in pairwise(names):
                node = self.derivation.nodes[name]
                cotangent = pullback([node], self._values, {name: cotangent}, {parent}, exact())[parent]
        return centres(cotangent[0])

    @property
    def closed(self) -> Mapping[str, Expr]:
        return self.derivation.closed

    def filled(self, expression: Expr) -> tuple[Expr, Mapping[sympy.Basic, float]] | None:
        """The expression at its first entry with its sums written out, and the number of each name in it.

        None where there is nothing to put in, or too much.
        """
        if expression.has(Reduction):
            return None
        fixed = at_entry(expression, {s: 0 for s in expression.free_symbols if s.is_Symbol and s.is_integer})
        indexed = fixed.atoms(Indexed)
        bare = fixed.xreplace({name: sympy.Dummy() for name in indexed}).free_symbols
        names = [*indexed, *(name for name in bare if not isinstance(name, sympy.Dummy))]
        if fixed.atoms(Sum) or not names:
            return None
        numbers: dict[sympy.Basic, float] = {}
        for name in names:
            array = self.values.get(str(name.base.label) if isinstance(name, Indexed) else name.name)
            index = _indices(name)
            if array is None or len(index) != array.ndim or not all(i.is_Integer for i in index):
                return None
            if any(not 0 <= i < extent for i, extent in zip(index, array.shape, strict=True)):
                return None  # beyond the edge, where a read gives its fill
            numbers[name] = float(array[tuple(map(int, index))])
        return fixed, numbers

    @property
    def idle(self) -> tuple[str, ...]:
        """Nodes that no parameter reaches: they are computed, and no gradient flows through them."""
        graph = self.derivation.graph
        return tuple(node.name for node in graph.nodes if node.name not in graph.active)


def explained(problem: Problem) -> Explanation:
    """The explanation of a problem; its parts are made when they are asked for."""
    return Explanation(problem, derive(problem.graph))


def _indices(expression: Expr) -> tuple[Expr, ...]:
    return tuple(expression.indices) if isinstance(expression, Indexed) else ()


def at_entry(expression: Expr, places: Mapping[Symbol, int]) -> Expr:
    """The expression with numbers for its free letters, and the sums of few terms written out."""
    fixed = expression.xreplace({letter: Integer(n) for letter, n in places.items()})
    for _ in range(4):  # sums in sums
        written_out = {sum_: _terms(sum_) for sum_ in fixed.atoms(Sum) if not sum_.function.atoms(Sum)}
        if not written_out or any(sum_ is new for sum_, new in written_out.items()):
            break
        fixed = fixed.xreplace(written_out)
    return fixed


def _terms(sum_: Sum) -> Expr:
    ranges = [range(int(low), int(high) + 1) for _, low, high in sum_.limits]
    if np.prod([len(r) for r in ranges]) > MAX_TERMS:
        return sum_
    letters = [limit[0] for limit in sum_.limits]
    return sympy.Add(
        *(sum_.function.xreplace(dict(zip(letters, map(Integer, p), strict=True))) for p in product(*ranges))
    )


def rule(node: Node, parent: str) -> str:
    """The rule of calculus behind a local gradient, in a phrase; empty where the formula says enough."""
    places = [n for n, read in enumerate(node.reads) if read.parent == parent]
    if node.reduce in ("prod", "max", "min"):
        return {
            "prod": "a product: all the other factors",
            "max": "only the largest entry counts",
            "min": "only the smallest entry counts",
        }[node.reduce]
    if len(places) > 1:
        return f"it is read at {len(places)} places here, and their parts are added"
    told = _rule(node.formula, slot(places[0]))
    if node.over and any(
        index.free_symbols & set(node.indices[len(node.shape) :]) for index in node.reads[places[0]].index
    ):
        return f"a sum: each entry goes in for itself{'' if told == _ADDED else f'; {told}'}"
    return told


_ADDED = "it is added as it is"


def _rule(formula: Expr, z: Symbol) -> str:
    """One phrase for the outermost operation that holds `z`."""
    if formula == z:
        return _ADDED
    if formula == -z:
        return "it is taken away: the sign turns"
    if formula.is_Add:
        within = sympy.Add(*(term for term in formula.args if term.has(z)))
        return _rule(within, z) if within != formula else "a sum: term by term"
    if formula.is_Mul:
        holding = [factor for factor in formula.args if factor.has(z)]
        beside = [factor for factor in formula.args if not factor.has(z)]
        if len(holding) > 1:
            return "the product rule: each factor's slope times the others, added"
        if holding[0] == z and all(factor.is_number for factor in beside):
            return "a constant factor stays"
        if holding[0] == z:
            return "a product: its slope is what it is multiplied with"
        if holding[0].is_Pow and holding[0].exp.is_negative and holding[0].base == z:
            return "a quotient: by what stands below, minus the quotient over it again"
        return _rule(holding[0], z)
    if formula.is_Pow and not formula.exp.has(z):
        inner = "" if formula.base == z else ", times the inner derivative"
        if formula.exp == S.Half:
            return f"a square root: one over twice the root{inner}"
        if formula.exp == -1:
            return f"a reciprocal: minus one over the square{inner}"
        return f"the power rule: the exponent comes down and falls by one{inner}"
    if isinstance(formula, sympy.Piecewise):
        return "on each branch for itself; the condition has no slope"
    if isinstance(formula, sympy.Max | sympy.Min | sympy.Abs):
        return "a kink: one slope on each side of it"
    if isinstance(formula, sympy.Function) and len(formula.args) == 1:
        name = type(formula).__name__
        return f"the derivative of {name}" + ("" if formula.args[0] == z else ", times the inner derivative")
    return ""
