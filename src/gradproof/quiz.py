"""The gradients as questions: what an answer comes to, and which known mistake a wrong one looks like.

An answer is an expression of the language, over any names of the graph, or a number. It is right where it
equals the derivative in balls at the problem's point and at points around it: two formulas of this kind that
agree at all of them are the same one. The known mistakes are made from the calculus itself, and an answer is
compared with each of them likewise.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import isfinite, prod

import numpy as np
import sympy
from flint import arb
from sympy import Expr, S, Symbol

from .errors import InputError, Place
from .language.builder import build_graph
from .language.files import Problem
from .language.syntax import parse_statements
from .proof.arithmetic import exact
from .proof.balls import NOUGHT, UNIT, ZERO, as_float, ball, balls, entry, full, precision
from .proof.graph import Leaf, Node, bound, free, slot
from .proof.places import places
from .proof.slopes import partials
from .proof.walk import Values, evaluate, pullback
from .telling import notation
from .telling.explanation import BITS, Explanation, Slope, at_entry, explained, rule

POINTS = 5  # the problem's own, and others around it
MAX_LOCAL = 12  # questions for local gradients
MAX_CHAINED = 4
MAX_USES = 8  # of a name that are left out one by one
NEAR = 1e-3  # relative; a number is an answer with so many digits
CLOSE = 5e-2

Numbers = tuple[arb, ...]  # a ball at each point


@dataclass(frozen=True)
class Mistake:
    """What would be answered if a known mistake was made."""

    words: str
    numbers: Numbers


@dataclass(frozen=True, eq=False)
class Question:
    """`asked` is ∂loss/∂l; `answer` its formula, `why` the rule behind it, `numbers` its values at the
    points."""

    asked: str
    answer: str
    why: str
    numbers: Numbers
    mistakes: tuple[Mistake, ...]

    @property
    def value(self) -> float:
        return as_float(self.numbers[0])


@dataclass(frozen=True)
class Judged:
    right: bool
    words: str = ""


@dataclass(frozen=True, eq=False)
class Quiz:
    """The questions of a problem, from the local gradients to the chained ones."""

    explanation: Explanation
    points: tuple[Values, ...]
    questions: tuple[Question, ...]

    def judge(self, question: Question, text: str) -> Judged:
        """Whether an answer is right, and if not, what it looks like.

        Raises `InputError` for a text that is not of the language.
        """
        numbers, is_number = self._read(text)
        with precision(BITS):
            compare = _near if is_number else _same
            if compare(numbers, question.numbers):
                return Judged(True)
            known = (
                mistake.words
                for mistake in question.mistakes
                if compare(numbers, mistake.numbers) and not compare(mistake.numbers, question.numbers)
            )
            words = next(known, "") or _factor(numbers, question.numbers, is_number)
            if not is_number and _near(numbers, question.numbers):
                words = "; ".join(
                    part for part in ("right at this point by chance, but not at others", words) if part
                )
            return Judged(False, words)

    def _read(self, text: str) -> tuple[Numbers, bool]:
        """An answer's values at the points; whether it is a number, and so stands for the first point
        alone."""
        shapes = self.explanation.derivation.graph.shapes
        name = "answer"
        while name in shapes:
            name += "_"
        for sign, ours in _SPELLINGS:
            text = text.replace(sign, ours)
        text = text.rpartition("=")[2].strip()  # the question may be written before it
        if not text:
            raise InputError("write a formula such as 2*l, or a number")
        try:
            statements = parse_statements(f"{name} = {text}", Place("answer"))
            names = {term.value for term in statements[0].terms if term.op == "name"} & shapes.keys()
            graph = build_graph(statements, {n: Leaf(n, shapes[n], given=True) for n in sorted(names)})
        except InputError as error:
            raise InputError(error.message) from None
        if len(statements) > 1:
            raise InputError("one formula is enough")
        with precision(BITS):
            found = tuple(
                entry(evaluate(graph.nodes, point, exact())[graph.output.name]) for point in self.points
            )
        return found, not names


_SPELLINGS = (("^", "**"), ("·", "*"), ("×", "*"), ("−", "-"))


def made(problem: Problem) -> Quiz:
    """The questions of a problem; where its point has no finite gradient, there is nothing to ask."""
    explanation = explained(problem)
    graph = explanation.derivation.graph
    with precision(BITS):
        points = tuple(_points(problem, explanation))
        backs = [
            pullback(graph.nodes, point, {graph.output.name: full((1,), UNIT)}, graph.active, exact())
            for point in points
        ]
        slopes = (slope for slope in explanation.slopes if slope.gradient.formula is not S.Zero)
        leaves = (leaf for leaf in graph.parameters if leaf.name in backs[0])
        asked = (
            *islice(filter(_fair, (_local(explanation, slope, points) for slope in slopes)), MAX_LOCAL),
            *islice(
                filter(_fair, (_chained(explanation, leaf, points, backs) for leaf in leaves)), MAX_CHAINED
            ),
        )
    return Quiz(explanation, points, asked)


def _points(problem: Problem, explanation: Explanation) -> Iterator[Values]:
    """The values of every name at the problem's point, and at points beside it where all of them are
    finite."""
    random = np.random.default_rng(zlib.crc32(problem.title.encode()))  # the same quiz each time
    nodes = explanation.derivation.graph.nodes
    for n in range(POINTS):
        moved = {
            name: value * random.uniform(0.9, 1.1, value.shape) + random.uniform(0, 0.01, value.shape)
            for name, value in problem.point.items()
        }
        leaves = {name: balls(value) for name, value in (moved if n else problem.point).items()}
        values = evaluate(nodes, leaves, exact())
        if n == 0 or all(ball(x).is_finite() for node in nodes for x in values[node.name].reshape(-1)):
            yield values


# Local gradients


def _local(explanation: Explanation, slope: Slope, points: Sequence[Values]) -> Question:
    gradient = slope.gradient
    node = explanation.derivation.nodes[gradient.node]
    where = tuple(map(int, slope.left[1].indices)) if slope.left[1] != gradient.left[1] else ()
    truth = tuple(_row(node, gradient.wrt, where, point) for point in points)
    left = f"∂{notation.text(slope.left[0])}/∂{notation.text(slope.left[1])}"
    mistakes = (*_signs(truth), *_local_mistakes(node, gradient.wrt, where, points))
    return Question(left, notation.text(slope.formula), rule(node, gradient.wrt), truth, mistakes)


def _row(node: Node, wrt: str, where: tuple[int, ...], point: Values) -> arb:
    """The derivative of the node's first entry by one entry of what it reads."""
    seed = full((1, *node.shape), ZERO)
    seed[(0,) * seed.ndim] = UNIT
    pulled = pullback([node], point, {node.name: seed}, {wrt}, exact())
    return ball(pulled[wrt][(0, *where)]) if wrt in pulled else NOUGHT


def _local_mistakes(
    node: Node, wrt: str, where: tuple[int, ...], points: Sequence[Values]
) -> Iterator[Mistake]:
    reads = [n for n, read in enumerate(node.reads) if read.parent == wrt]
    if len(reads) > 1 or node.reduce not in (None, "sum"):
        return
    (n,) = reads
    names = {slot(m): Symbol(read.parent, real=True) for m, read in enumerate(node.reads)}

    def named(formula: Expr) -> str:
        return notation.text(formula.xreplace(names))

    for words, formula in _wrong_slopes(node, n, named):
        if formula.has(sympy.Derivative, sympy.Subs, sympy.nan, sympy.zoo, sympy.oo):
            continue
        yield Mistake(words, tuple(_at(node, n, formula, where, point) for point in points))


def _at(node: Node, n: int, formula: Expr, where: tuple[int, ...], point: Values) -> arb:
    """A formula in place of the n-th read's slope: summed over where the first entry reads that entry of its
    parent."""
    rank = len(node.shape)
    letters = {bound(k): free(rank + k) for k in range(len(node.over))}
    moved = tuple(replace(read, index=tuple(e.xreplace(letters) for e in read.index)) for read in node.reads)
    flat = replace(
        node,
        name="a formula",
        shape=node.domain,
        over=(),
        reduce=None,
        formula=formula.xreplace(letters),
        reads=moved,
    )
    terms = evaluate([flat], point, exact())[flat.name]
    parent = point[node.reads[n].parent].shape
    read_at = places(node.reads[n].index, node.indices, node.domain, parent)
    hit = np.broadcast_to(read_at.flat == (np.ravel_multi_index(where, parent) if where else 0), node.domain)
    if read_at.inside is not None:
        hit = hit & read_at.inside
    first = np.zeros(node.domain, dtype=bool)
    first[(0,) * rank] = True
    return sum((ball(x) for x in np.broadcast_to(terms, node.domain)[hit & first]), NOUGHT)


def _wrong_slopes(node: Node, n: int, named: Callable[[Expr], str]) -> Iterator[tuple[str, Expr]]:
    """Mistakes in words, with the formula in the node's slots that they lead to."""
    f, z = node.formula, slot(n)
    slopes = partials(f, len(node.reads), textbook=True)
    yield from _inner_forgotten(f, z, named)
    yield from _wrong_powers(f, z, named)
    if f.is_Mul:
        holding = [factor for factor in f.args if factor.has(z)]
        if len(holding) > 1:
            rest = prod((factor for factor in f.args if not factor.has(z)), start=S.One)
            words = "a product is not differentiated factor by factor: each slope times the others, added"
            yield words, rest * prod((sympy.diff(factor, z) for factor in holding), start=S.One)
    constant = sympy.Add(*(term for term in f.args if not term.has(z))) if f.is_Add else S.Zero
    if constant is not S.Zero:
        yield f"{named(constant)} does not depend on {named(z)}: its slope is 0", slopes[n] + constant
    for part in slopes[n].args if slopes[n].is_Add else ():
        yield f"a part is missing: {named(part)}", slopes[n] - part
    for factor in slopes[n].args if slopes[n].is_Mul else ():
        yield f"the factor {named(factor)} is missing", slopes[n] / factor
    for m, other in enumerate(node.slots):
        if m != n:
            yield f"that is the derivative by {named(other)}", slopes[m]
    yield f"that is the value of {node.name}, not its slope", f
    yield f"that is {named(z)} itself; asked is how much {node.name} changes with it", z
    yield "it is upside down", 1 / slopes[n]


def _inner_forgotten(f: Expr, z: Symbol, named: Callable[[Expr], str]) -> Iterator[tuple[str, Expr]]:
    u = sympy.Dummy(real=True)
    for inner in sympy.preorder_traversal(f):
        if inner in (f, z) or not isinstance(inner, Expr) or not inner.has(z):
            continue
        outer = f.xreplace({inner: u})
        if not outer.has(z) and outer.has(u):
            words = f"the inner derivative is forgotten: that of {named(inner)} by {named(z)}"
            yield words, sympy.diff(outer, u).xreplace({u: inner})


def _wrong_powers(f: Expr, z: Symbol, named: Callable[[Expr], str]) -> Iterator[tuple[str, Expr]]:
    c, power = f.as_independent(z, as_Add=False)
    if power.is_Pow and not power.exp.has(z):
        x, n = power.base, power.exp
        yield f"the exponent {named(n)} comes down as a factor, which is missing", c * x ** (n - 1)
        yield "the exponent comes down, and then falls by one", c * n * x**n
        yield "that is the integral, the other way round", c * x ** (n + 1) / (n + 1)


def _signs(truth: Numbers) -> Iterator[Mistake]:
    yield Mistake("the sign is wrong", tuple(-x for x in truth))
    yield Mistake("it is not 0: a change of the one does change the other", tuple(NOUGHT for _ in truth))


# Chained gradients


def _chained(
    explanation: Explanation, leaf: Leaf, points: Sequence[Values], backs: Sequence[Values]
) -> Question:
    first = (0,) * len(leaf.shape)
    truth = tuple(ball(back[leaf.name][(0, *first)]) for back in backs)
    step = next(step for step in explanation.steps if step.name == leaf.name)
    shown = at_entry(step.left, dict.fromkeys(getattr(step.left, "indices", ()), 0))
    name = notation.text(shown).replace(notation.BAR, "")
    closed = explanation.closed.get(leaf.name)
    letters = {letter: 0 for letter in step.formula.free_symbols if letter.is_Symbol and letter.is_integer}
    answer = notation.text(at_entry(step.formula, letters) if closed is None else closed)
    paths = explanation.paths(leaf.name)
    why = "what arrives from above times the local gradient" + (
        ", all uses added" if len(step.parts) > 1 else ""
    )
    if len(paths) == 1 and paths[0].scalar:
        why = " · ".join(f"∂{notation.text(s.left[0])}/∂{notation.text(s.left[1])}" for s in paths[0].slopes)
    chain = _Chain(explanation, leaf, points, backs)
    mistakes = (*_signs(truth), *chain.of_uses(), *chain.of_paths(), *chain.of_values())
    return Question(f"∂{explanation.output}/∂{name}", answer, why, truth, mistakes)


@dataclass(frozen=True, eq=False)
class _Chain:
    """The known mistakes with a leaf's chained gradient, at the first entry."""

    explanation: Explanation
    leaf: Leaf
    points: Sequence[Values]
    backs: Sequence[Values]  # what arrives everywhere, at each point

    def of_uses(self) -> Iterator[Mistake]:
        """What one use, or one entry of it, passes back is left out or taken for all."""
        nodes = self.explanation.derivation.graph.nodes
        uses = [node for node in nodes if any(read.parent == self.leaf.name for read in node.reads)]
        for use in uses if len(uses) > 1 else ():
            rest = [other for other in uses if other is not use]
            others = " and ".join(other.name for other in rest)
            words = f"only what {use.name} passes back; the use in {others} is not added"
            yield Mistake(words, self._passed([use]))
        for use in uses if 2 < len(uses) <= MAX_USES else ():
            rest = [other for other in uses if other is not use]
            yield Mistake(f"the use in {use.name} is not added", self._passed(rest))
        if len(uses) == 1 and uses[0].shape:
            words = f"only the first entry of {uses[0].name} counts there; all entries are added"
            yield Mistake(words, self._passed(uses, first=True))

    def _passed(self, uses: Sequence[Node], *, first: bool = False) -> Numbers:
        """What these uses pass back together, of all that arrives at them or of the first entry alone."""
        return tuple(
            sum((self._pulled(use, point, back, first) for use in uses), NOUGHT)
            for point, back in zip(self.points, self.backs, strict=True)
        )

    def _pulled(self, use: Node, point: Values, back: Values, first: bool) -> arb:
        if use.name not in back:
            return NOUGHT
        cotangent = back[use.name]
        if first:
            kept = full(cotangent.shape, ZERO)
            kept[(0,) * kept.ndim] = cotangent[(0,) * kept.ndim]
            cotangent = kept
        pulled = pullback([use], point, {use.name: cotangent}, {self.leaf.name}, exact())
        return ball(pulled[self.leaf.name].item(0)) if self.leaf.name in pulled else NOUGHT

    def of_paths(self) -> Iterator[Mistake]:
        """Local gradients are not multiplied along a path of scalars, or paths not added."""
        paths = [path.slopes for path in self.explanation.paths(self.leaf.name) if path.scalar]
        rows = [[[self._slope(slope, point) for slope in path] for point in self.points] for path in paths]
        if len(paths) == 1 and len(paths[0]) > 1:
            names = [f"∂{slope.gradient.node}/∂{slope.gradient.wrt}" for slope in paths[0]]
            for n, name in enumerate(names):
                left = tuple(prod(row[:n] + row[n + 1 :], start=UNIT) for row in rows[0])
                yield Mistake(f"one factor is missing: {name}", left)
            for n, name in enumerate(names):
                words = f"that is the local gradient {name} alone; multiply along the path"
                yield Mistake(words, tuple(row[n] for row in rows[0]))
            words = "along a path the local gradients are multiplied, not added"
            yield Mistake(words, tuple(sum(row, NOUGHT) for row in rows[0]))
        if len(paths) > 1:
            at_points = zip(*rows, strict=True)
            all_of_them = tuple(prod((prod(row, start=UNIT) for row in at), start=UNIT) for at in at_points)
            yield Mistake("paths are added, not multiplied", all_of_them)

    def _slope(self, slope: Slope, point: Values) -> arb:
        return _row(self.explanation.derivation.nodes[slope.gradient.node], slope.gradient.wrt, (), point)

    def of_values(self) -> Iterator[Mistake]:
        output, name = self.explanation.output, self.leaf.name
        words = f"that is the value of {output}, not its gradient"
        yield Mistake(words, tuple(entry(point[output]) for point in self.points))
        yield Mistake(f"that is {name} itself", tuple(ball(point[name].item(0)) for point in self.points))


# Comparisons


def _fair(question: Question) -> bool:
    """Whether there is one answer that people could write: no range of slopes, as at a kink, and no number
    beyond floats."""
    sharp = all(
        x.is_finite() and (x.is_zero() or x.rel_accuracy_bits() > BITS // 4) for x in question.numbers
    )
    return sharp and isfinite(question.value) and (question.value != 0 or question.numbers[0].is_zero())


def _same(a: Numbers, b: Numbers) -> bool:
    """Whether two formulas agree in balls at every point."""
    return all(x.is_finite() and x.overlaps(y) for x, y in zip(a, b, strict=True))


def _near(a: Numbers, b: Numbers, relative: float = NEAR) -> bool:
    """Whether two numbers agree at the first point, as far as people write them out."""
    return bool(a[0].is_finite() and abs(a[0] - b[0]) <= abs(b[0]) * relative)


def _factor(numbers: Numbers, truth: Numbers, is_number: bool) -> str:
    """The factor between two formulas, where it is the same at all points; of a number, one that people
    forget."""
    if not is_number and len(truth) > 1 and not any(x.contains(NOUGHT) for x in truth):
        ratios = [x / y for x, y in zip(numbers, truth, strict=True)]
        if ratios[0].is_finite() and all(ratio.overlaps(ratios[0]) for ratio in ratios):
            return f"it is off by a factor of {_rational(as_float(ratios[0]))}"
    for n in (2, 3, 4):
        for factor in (arb(n), arb(1) / n):
            if is_number and _near(numbers, tuple(x * factor for x in truth)):
                return f"it is off by a factor of {_rational(as_float(factor))}"
    if is_number and _near(numbers, truth, CLOSE):
        return "close: give more digits, or a formula"
    return ""


def _rational(x: float) -> str:
    near = Fraction(x).limit_denominator(100)
    return str(near) if abs(float(near) - x) < 1e-12 else f"{x:.6g}"
