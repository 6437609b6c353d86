"""`gradproof explain`: the derivation for a learner, without an engine, as the sections of a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import sympy

from ..language.files import Problem
from ..proof.slopes import entry
from . import nested, notation, number, of_pages
from .explanation import Explanation, Path, Slope, Step, explained
from .page import Page
from .pieces import MAX_ENTRIES, Formula, Joined, Number, Partial, Piece, Row, Section, as_text

MAX_FILLED = 110  # characters of an equation with its numbers put in


def explain(problem: Problem, form: str = "text") -> str:
    """Nodes, local gradients, the chain rule in symbols and in numbers, from the reference alone.

    `form` is "text", "markdown" or "html". The numbers are exact ones, rounded to eight digits.
    """
    return of_pages([told(problem)], form)


def told(problem: Problem) -> Page:
    """The explanation's page, its sections numbered."""
    explanation = explained(problem)
    all_ = [
        Section("The graph: each line is made of what stands above it", _graph_rows(explanation)),
        _slopes(explanation),
        *_chain(explanation),
        _not_needed(explanation),
        _shared(explanation),
        _gradients(explanation),
    ]
    kept = [section for section in all_ if section.rows or section.words]
    parts = tuple(Section(f"{n}. {one.title}", one.rows, one.words) for n, one in enumerate(kept, 1))
    return Page(problem.title, parts, problem.teaches)


def story(problem: Problem) -> list[Section]:
    """What a check's page tells of it: the chain rule, and what is shared."""
    explanation = explained(problem)
    shared = _shared(explanation)
    return [section for section in (*_chain(explanation), *([shared] if shared.rows else [])) if section.rows]


def graph_alone(explanation: Explanation) -> str:
    """The graph with its values and without its gradients, as a quiz shows it."""
    return of_pages(
        [Page(explanation.problem.title, (Section("The graph", _graph_rows(explanation)),))], "text"
    )


# What is said


def _chain(explanation: Explanation) -> list[Section]:
    """The chain rule along every path, step by step in numbers, and in the leaves alone."""
    out = explanation.output
    steps = tuple(_step_row(step, explanation) for step in explanation.steps)
    closed = []
    for name, formula in explanation.closed.items():
        come_to = _come_to(explanation, formula, explanation.gradients[name])
        closed.append(Row((_gradient(explanation, name), Formula(formula), *come_to)))
    title = f"The chain rule in numbers, step by step from {out} back (v̄ is ∂{out}/∂v: what arrives at v)"
    in_leaves = Section("All in one: the gradient in the values that you gave", tuple(closed))
    return [_symbols(explanation), Section(title, steps), in_leaves]


def _slopes(explanation: Explanation) -> Section:
    title = "Local gradients: how a line changes with one thing that it reads, all else held still"
    return Section(title, tuple(_slope_row(slope, explanation) for slope in explanation.slopes))


def _gradients(explanation: Explanation) -> Section:
    output = sympy.Symbol(explanation.output, real=True)
    rows = [
        Row((Partial(output, sympy.Symbol(name, real=True)), Number(value)), _shape(value))
        for name, value in explanation.gradients.items()
    ]
    return Section("The gradients", tuple(rows))


def _graph_rows(explanation: Explanation) -> tuple[Row, ...]:
    rows = []
    for leaves, word in ((explanation.given, "given"), (explanation.parameters, "learned")):
        for leaf in leaves:
            value = explanation.values[leaf.name]
            sides = (Formula(sympy.Symbol(leaf.name, real=True)), Number(value))
            rows.append(Row(sides, "; ".join(part for part in (word, _shape(value)) if part)))
    for line in explanation.lines:
        both = (Formula(line.left), Formula(line.right))
        if line.value.ndim == 0:
            rows.append(Row((*both, *_come_to(explanation, line.right, line.value))))
        else:
            rows.append(Row((*both, Number(line.value)), _shape(line.value)))
    return tuple(rows)


def _slope_row(slope: Slope, explanation: Explanation) -> Row:
    gradient = slope.gradient
    sides: list[Piece] = [Partial(*gradient.left), Formula(gradient.formula)]
    remark = slope.rule
    if slope.left != gradient.left and not gradient.formula.is_number:
        shown = notation.text(slope.left[0]), notation.text(slope.left[1])
        remark = "; ".join(
            part for part in (remark, f"∂{shown[0]}/∂{shown[1]} = {number(slope.value)}") if part
        )
    elif not gradient.formula.is_number:
        sides += _come_to(explanation, gradient.formula, slope.value)
    return Row(tuple(sides), remark)


def _symbols(explanation: Explanation) -> Section:
    """The chain rule along every path."""
    rows: list[Row] = []
    words: list[str] = []
    for leaf in explanation.parameters:
        paths = explanation.paths(leaf.name)
        ways = explanation.ways.get(leaf.name, 0)
        if not ways:
            words.append(f"No path leads from {leaf.name} to {explanation.output}: its gradient is 0.")
        elif not paths:
            many = f"{ways} paths lead" if ways > 1 else "A long path leads"
            words.append(
                f"{many} from {leaf.name} to {explanation.output}; the steps below follow all of it."
            )
        else:
            rows += _path_rows(explanation, leaf.name, paths)
    if any(not path.scalar for leaf in explanation.parameters for path in explanation.paths(leaf.name)):
        twice = "A letter that stands twice in a product is summed over."
        words.append(f"{twice} δ(i,j) is 1 where i = j, and 0 elsewhere.")
    title = "The chain rule: along each path the local gradients are multiplied, and the paths are added"
    return Section(title, tuple(rows), tuple(words))


def _path_rows(explanation: Explanation, name: str, paths: Sequence[Path]) -> list[Row]:
    """One path stands for the gradient; of several each has its row, and below them is their sum."""
    gradient = _gradient(explanation, name)
    if len(paths) == 1:
        told = "one step: the local gradient is the gradient" if len(paths[0].slopes) == 1 else ""
        return [Row((gradient, *_path_sides(paths[0], alone=True)), told)]
    rows = [
        Row(_path_sides(path), f"along {' → '.join(str(_name_of(e)) for e in reversed(path.entries))}")
        for path in paths
    ]
    scalar = all(path.value.ndim == 0 for path in paths)
    added = [_joined("+", [Number(path.value, True) for path in paths])] if scalar else []
    return [*rows, Row((gradient, *added, Number(explanation.gradients[name])), f"{len(paths)} paths, added")]


def _path_sides(path: Path, *, alone: bool = False) -> tuple[Piece, ...]:
    along = [Partial(*pair) for pair in pairwise(path.entries)]
    sides: list[Piece] = [_joined("·", along)] if len(along) > 1 or not alone else []
    if path.scalar:
        sides.append(_joined("·", [Formula(slope.gradient.formula) for slope in path.slopes]))
        if len(path.slopes) > 1:
            sides.append(_joined("·", [Number(slope.value, True) for slope in path.slopes]))
    number_ = Number(path.value)
    return tuple(sides) if sides and as_text(sides[-1]) == as_text(number_) else (*sides, number_)


def _name_of(expression: sympy.Basic) -> sympy.Basic:
    return expression.base.label if isinstance(expression, sympy.Indexed) else expression


def _joined(sign: str, pieces: Sequence[Piece]) -> Piece:
    return pieces[0] if len(pieces) == 1 else Joined(sign, tuple(pieces))


def _step_row(step: Step, explanation: Explanation) -> Row:
    sides: list[Piece] = [Formula(step.left), Formula(step.formula)]
    if step.value.ndim == 0:
        sides += _come_to(explanation, step.formula, step.value)
        return Row(tuple(sides), f"{len(step.parts)} parts, added" if len(step.parts) > 1 else "")
    first = number(float(step.value.reshape(-1)[0])) if step.value.size else "–"
    filled = _filled(explanation, step.formula)
    put_in = [f"first entry {as_text(filled[0])} = {first}"] if filled else []
    if step.value.size <= MAX_ENTRIES:
        sides.append(Number(step.value))
    elif not filled:
        put_in = [f"first entry {first}"]
    return Row(tuple(sides), "; ".join(put_in + [f"{len(step.parts)} parts, added"] * (len(step.parts) > 1)))


def _filled(explanation: Explanation, formula: sympy.Expr) -> tuple[Piece, ...]:
    """The formula with numbers in it, where that says more than the formula and the result, and stays
    short."""
    found = explanation.filled(formula)
    if found is None or found[0].is_Symbol or found[0].is_Indexed:
        return ()
    piece = Formula(*found)
    return (piece,) if len(as_text(piece)) <= MAX_FILLED else ()


def _come_to(explanation: Explanation, formula: sympy.Expr, value: np.ndarray | float) -> list[Piece]:
    """What a scalar formula comes to: with its numbers in it, and then as one number."""
    if formula.is_number and as_text(Formula(formula)) == nested(np.asarray(value)):
        return []
    return [
        *(piece for piece in _filled(explanation, formula) if as_text(piece) != nested(np.asarray(value))),
        Number(value),
    ]


def _gradient(explanation: Explanation, name: str) -> Partial:
    """∂loss/∂name, in the letters of the one path to it where there is one."""
    output = sympy.Symbol(explanation.output, real=True)
    paths = explanation.paths(name)
    if len(paths) == 1:
        return Partial(output, paths[0].entries[-1])
    rank = explanation.gradients[name].ndim
    return Partial(
        output, entry(name, tuple(sympy.Symbol(letter, integer=True) for letter in "ijlpqrst"[:rank]))
    )


def _shared(explanation: Explanation) -> Section:
    """What is read more than once, and what each reader passes back."""
    title = "Used more than once, so what comes back is added"
    rows: list[Row] = []
    for step in explanation.steps:
        if len(step.parts) < 2:
            continue
        whole = Number(step.value)
        for part in step.parts:
            rows.append(
                Row(
                    (Formula(part.formula), Number(part.value)),
                    f"what {part.node} passes back to {step.name}",
                )
            )
        rows.append(
            Row((Formula(step.left), whole), "their sum; with one part forgotten the gradient is wrong")
        )
    if not rows:
        return Section(title, (), ("Nothing is: every name is read once, so nothing is to be added.",))
    return Section(title, tuple(rows))


def _not_needed(explanation: Explanation) -> Section:
    """Why there is no gradient for what is given."""
    words = []
    names = ", ".join(leaf.name for leaf in explanation.given)
    if names:
        learned = " and ".join(leaf.name for leaf in explanation.parameters)
        learned += " are" if len(explanation.parameters) > 1 else " is"
        words.append(
            f"{names}: given. They are data and stay what they are while {learned} learned, so nobody asks "
            "how "
            f"{explanation.output} would change with them, and no gradient is computed. As numbers they "
            "still count: "
            "they stand in the local gradients above."
        )
    if explanation.idle:
        words.append(
            f"{', '.join(explanation.idle)}: made of given values alone, so nothing flows back through them."
        )
    return Section("No gradient is needed", (), tuple(words))


def _shape(value: np.ndarray) -> str:
    return f"shape {' × '.join(map(str, value.shape))}" if value.ndim else ""
