"""`gradproof explain`: the derivation for a learner, without an engine; as text, Markdown and HTML.

What is said is one list of sections, whose equations are made of a few kinds of pieces; a format is how it
prints them.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import sympy

from ..language.files import Problem
from ..proof.slopes import entry
from . import notation, number
from .explanation import Explanation, Path, Slope, Step, explained
from .markdown import escape, math, table
from .mathml import mathml, texts
from .templates import rendered

MAX_LINE = 108  # characters of a line of text
MAX_COLUMN = 60  # of an equation with a remark beside it
MAX_FILLED = 110  # characters of an equation with its numbers put in
MAX_ENTRIES = 6  # of a tensor that is shown whole


# Pieces of an equation


@dataclass(frozen=True, eq=False)
class Formula:
    """A formula; `numbers` stand in place of its names."""

    expression: sympy.Basic
    numbers: Mapping[sympy.Basic, float] | None = None


@dataclass(frozen=True)
class Partial:
    """∂of/∂by."""

    of: sympy.Basic
    by: sympy.Basic


@dataclass(frozen=True, eq=False)
class Number:
    value: np.ndarray | float
    bracketed: bool = False  # where it is negative


@dataclass(frozen=True)
class Joined:
    """Factors with a dot between them, or terms with a plus."""

    sign: str
    pieces: tuple[Piece, ...]


Piece = Formula | Partial | Number | Joined


@dataclass(frozen=True)
class Row:
    """Pieces with = between them, and a remark beside."""

    sides: tuple[Piece, ...]
    remark: str = ""


@dataclass(frozen=True)
class Section:
    """A title, equations, and what is said in words; a word that is a user's name stands in `words` like any
    other text."""

    title: str
    rows: tuple[Row, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """One problem's explanation, as it is said."""

    title: str
    teaches: str
    sections: tuple[Section, ...]


def explain(problem: Problem, form: str = "text") -> str:
    """Nodes, local gradients, the chain rule in symbols and in numbers, from the reference alone.

    `form` is "text", "markdown" or "html". The numbers are exact ones, rounded to eight digits.
    """
    return render([told(problem)], form)


def told(problem: Problem) -> Told:
    return Told(problem.title, problem.teaches, tuple(sections(explained(problem))))


def render(explanations: Sequence[Told], form: str) -> str:
    """Several explanations as one text or one page."""
    return RENDERERS[form](explanations)


def graph_alone(explanation: Explanation) -> str:
    """The graph with its values and without its gradients, as a quiz shows it."""
    problem = explanation.problem
    return as_text([Told(problem.title, "", (Section("The graph", _graph_rows(explanation)),))])


# What is said


def sections(explanation: Explanation) -> list[Section]:
    """The explanation, section by section."""
    out = explanation.output
    made = [
        Section("The graph: each line is made of what stands above it", _graph_rows(explanation)),
        Section("Local gradients: how a line changes with one thing that it reads, all else held still",
                tuple(_slope_row(slope, explanation) for slope in explanation.slopes)),
        _symbols(explanation),
        Section(f"The chain rule in numbers, step by step from {out} back (v̄ is ∂{out}/∂v: what arrives at "
                "v)",
                tuple(_step_row(step, explanation) for step in explanation.steps)),
    ]  # fmt: skip
    closed = [
        Row(
            (
                _gradient(explanation, name),
                Formula(formula),
                *_come_to(explanation, formula, explanation.gradients[name]),
            )
        )
        for name, formula in explanation.closed.items()
    ]
    if closed:
        made.append(Section("All in one: the gradient in the values that you gave", tuple(closed)))
    made += [_not_needed(explanation), _shared(explanation)]
    made.append(Section("The gradients", tuple(
        Row((Partial(sympy.Symbol(out, real=True), sympy.Symbol(name, real=True)), Number(value)), _shape(value))
        for name, value in explanation.gradients.items()
    )))  # fmt: skip
    return [section for section in made if section.rows or section.words]


def _graph_rows(explanation: Explanation) -> tuple[Row, ...]:
    rows = [
        Row((Formula(sympy.Symbol(leaf.name, real=True)), Number(explanation.values[leaf.name])),
            "; ".join(part for part in (word, _shape(explanation.values[leaf.name])) if part))
        for leaves, word in ((explanation.given, "given"), (explanation.parameters, "learned"))
        for leaf in leaves
    ]  # fmt: skip
    for line in explanation.lines:
        sides = (Formula(line.left), Formula(line.right))
        if line.value.ndim == 0:
            rows.append(Row((*sides, *_come_to(explanation, line.right, line.value))))
        else:
            rows.append(Row((*sides, Number(line.value)), _shape(line.value)))
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
        words.append(
            "A letter that stands twice in a product is summed over. δ(i,j) is 1 where i = j, and 0 "
            "elsewhere."
        )
    return Section("The chain rule: along each path the local gradients are multiplied, and the paths are "
                   "added", tuple(rows),
                   tuple(words))  # fmt: skip


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
    return tuple(sides) if sides and _text(sides[-1]) == _text(number_) else (*sides, number_)


def _name_of(expression: sympy.Basic) -> sympy.Basic:
    return expression.base.label if isinstance(expression, sympy.Indexed) else expression


def _joined(sign: str, pieces: Sequence[Piece]) -> Piece:
    return pieces[0] if len(pieces) == 1 else Joined(sign, tuple(pieces))


def _step_row(step: Step, explanation: Explanation) -> Row:
    sides: list[Piece] = [Formula(step.left), Formula(step.formula)]
    if step.value.ndim == 0:
        sides += _come_to(explanation, step.formula, step.value)
        return Row(tuple(sides), f"{len(step.parts)} parts, added" if len(step.parts) > 1 else "")
    first = number(float(step.value.reshape(-1)[0]))
    filled = _filled(explanation, step.formula)
    put_in = f"first entry {_text(filled[0])} = {first}" if filled else f"first entry {first}"
    return Row(
        tuple(sides), "; ".join([put_in] + [f"{len(step.parts)} parts, added"] * (len(step.parts) > 1))
    )


def _filled(explanation: Explanation, formula: sympy.Expr) -> tuple[Piece, ...]:
    """The formula with numbers in it, where that says more than the formula and the result, and stays
    short."""
    found = explanation.filled(formula)
    if found is None or found[0].is_Symbol or found[0].is_Indexed:
        return ()
    piece = Formula(*found)
    return (piece,) if len(_text(piece)) <= MAX_FILLED else ()


def _come_to(explanation: Explanation, formula: sympy.Expr, value: np.ndarray | float) -> list[Piece]:
    """What a scalar formula comes to: with its numbers in it, and then as one number."""
    if formula.is_number and _text(Formula(formula)) == _number(value):
        return []
    return [
        *(piece for piece in _filled(explanation, formula) if _text(piece) != _number(value)),
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


# How pieces are printed


def _number(value: np.ndarray | float) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return number(float(array))
    if array.size > MAX_ENTRIES:
        first = ", ".join(number(float(x), 5) for x in array.reshape(-1)[:4])
        return f"{'[' * array.ndim}{first}, …{']' * array.ndim}"
    return _nested(array)


def _nested(array: np.ndarray) -> str:
    if array.ndim == 0:
        return number(float(array))
    return f"[{', '.join(_nested(part) for part in array)}]"


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") or "e" in text else text


def _filling(piece: Formula) -> dict[sympy.Basic, str]:
    return {name: _bracketed(number(value)) for name, value in (piece.numbers or {}).items()}


def _text(piece: Piece) -> str:
    match piece:
        case Formula():
            shown = notation.text(piece.expression, _filling(piece))
            return re.sub(r"\((\(-[\d.e+-]+\))\)", r"\1", shown)  # exp((-1)) as exp(-1)
        case Partial():
            return f"∂{notation.text(piece.of)}/∂{notation.text(piece.by)}"
        case Number():
            return _bracketed(_number(piece.value)) if piece.bracketed else _number(piece.value)
        case Joined():
            return f" {piece.sign} ".join(
                f"({_text(part)})" if _stands_apart(piece, part) else _text(part) for part in piece.pieces
            )


def _stands_apart(joined: Joined, part: Piece) -> bool:
    """Whether a factor needs brackets: a sum, or one with a minus."""
    if joined.sign != "·" or not isinstance(part, Formula):
        return False
    return part.expression.is_Add or part.expression.could_extract_minus_sign()


def _latex(piece: Piece) -> str:
    match piece:
        case Formula():
            return notation.latex(piece.expression, _filling(piece))
        case Partial():
            return rf"\frac{{\partial {notation.latex(piece.of)}}}{{\partial {notation.latex(piece.by)}}}"
        case Number():
            return _text(piece).replace("…", r"\ldots").replace("–", r"\text{–}")
        case Joined():
            sign = {"·": r"\cdot", "+": "+"}[piece.sign]
            return f" {sign} ".join(
                rf"\left({_latex(part)}\right)" if _stands_apart(piece, part) else _latex(part)
                for part in piece.pieces
            )


def _mathml(piece: Piece) -> str:
    match piece:
        case Formula():
            return mathml(piece.expression, _filling(piece))
        case Partial():
            of, by = (f"<mrow><mo>∂</mo>{mathml(side)}</mrow>" for side in (piece.of, piece.by))
            return f"<mfrac>{of}{by}</mfrac>"
        case Number():
            return texts("mn", _text(piece))
        case Joined():
            parts = [
                f"<mrow><mo>(</mo>{_mathml(part)}<mo>)</mo></mrow>"
                if _stands_apart(piece, part) else _mathml(part)
                for part in piece.pieces
            ]  # fmt: skip
            return f"<mrow>{texts('mo', piece.sign).join(parts)}</mrow>"


# Formats


def as_text(explanations: Sequence[Told]) -> str:
    return "\n\n".join(map(_as_text, explanations))


def _as_text(told: Told) -> str:
    """Numbered sections, equations indented, short remarks in a column of their own."""
    shown = ["\n".join(part for part in (told.title, told.teaches) if part)]
    for n, section in enumerate(told.sections, 1):
        lines = [f"{n}. {section.title}"]
        equations = [" = ".join(map(_text, row.sides)) for row in section.rows]
        width = max((columns(line) for line in equations if columns(line) <= MAX_COLUMN), default=0)
        for row, line in zip(section.rows, equations, strict=True):
            if len(line) > MAX_LINE:
                line = "\n     = ".join(map(_text, row.sides))
            beside = f"{line}{' ' * (width - columns(line))}   {row.remark}"
            if row.remark and (columns(line) > width or len(beside) > MAX_LINE):
                beside = "\n".join([line, *_wrapped(row.remark, "     ")])
            lines.append(f"   {beside if row.remark else line}")
        for sentence in section.words:
            lines += _wrapped(sentence, "   ")
        shown.append("\n".join(lines))
    return "\n\n".join(shown)


def columns(text: str) -> int:
    """The width of a text on a terminal: a bar over a letter takes none."""
    return len(text) - text.count(notation.BAR)


def _wrapped(text: str, margin: str) -> list[str]:
    return textwrap.wrap(
        text, MAX_LINE, initial_indent=margin, subsequent_indent=margin, break_long_words=False
    )


def as_markdown(explanations: Sequence[Told]) -> str:
    return "\n".join(map(_as_markdown, explanations))


def _as_markdown(told: Told) -> str:
    """GitHub's Markdown, with its math; a user's text is only text in it."""
    shown = [f"# {escape(told.title)}\n"] + [f"{escape(told.teaches)}\n"] * bool(told.teaches)
    for n, section in enumerate(told.sections, 1):
        shown.append(f"## {n}. {escape(section.title)}\n")
        rows = [
            [f"$`{math(' = '.join(map(_latex, row.sides)))}`$", escape(row.remark)] for row in section.rows
        ]
        if rows:
            shown.append(table(rows, ["", ""]) + "\n")
        shown += [f"{escape(sentence)}\n" for sentence in section.words]
    return "\n".join(shown)


def as_html(explanations: Sequence[Told]) -> str:
    """One page that needs nothing from elsewhere and runs no script."""
    return rendered("explanation.html.jinja", explanations=explanations, equation=equation)


def equation(row: Row) -> str:
    return f"<math>{'<mo>=</mo>'.join(map(_mathml, row.sides))}</math>"


RENDERERS: dict[str, Callable[[Sequence[Told]], str]] = {
    "text": as_text, "markdown": as_markdown, "html": as_html,
}  # fmt: skip
