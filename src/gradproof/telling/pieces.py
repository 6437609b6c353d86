"""What a derivation is told with: equations made of a few kinds of pieces, in rows, in sections; and how
text, LaTeX and MathML print them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sympy

from . import nested, notation, number
from .mathml import mathml, texts

MAX_LINE = 108  # characters of a line of text
MAX_COLUMN = 60  # of an equation with a remark beside it
MAX_ENTRIES = 64  # of a tensor that is shown whole


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


# How pieces are printed


def shown(value: np.ndarray | float) -> str:
    """A number, or a tensor: whole, or of a large one the first entries."""
    array = np.asarray(value)
    if array.size <= MAX_ENTRIES:
        return nested(array)
    first = ", ".join(number(float(x), 5) for x in array.reshape(-1)[:4])
    return f"{'[' * array.ndim}{first}, …{']' * array.ndim}"


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") or "e" in text else text


def _filling(piece: Formula) -> dict[sympy.Basic, str]:
    return {name: _bracketed(number(value)) for name, value in (piece.numbers or {}).items()}


def _stands_apart(joined: Joined, part: Piece) -> bool:
    """Whether a factor needs brackets: a sum, or one with a minus."""
    if joined.sign != "·" or not isinstance(part, Formula):
        return False
    return part.expression.is_Add or part.expression.could_extract_minus_sign()


def as_text(piece: Piece) -> str:
    match piece:
        case Formula():
            told = notation.text(piece.expression, _filling(piece))
            return re.sub(r"\((\(-[\d.e+-]+\))\)", r"\1", told)  # exp((-1)) as exp(-1)
        case Partial():
            return f"∂{notation.text(piece.of)}/∂{notation.text(piece.by)}"
        case Number():
            return _bracketed(shown(piece.value)) if piece.bracketed else shown(piece.value)
        case Joined():
            return f" {piece.sign} ".join(
                f"({as_text(part)})" if _stands_apart(piece, part) else as_text(part) for part in piece.pieces
            )


def as_latex(piece: Piece) -> str:
    match piece:
        case Formula():
            return notation.latex(piece.expression, _filling(piece))
        case Partial():
            return rf"\frac{{\partial {notation.latex(piece.of)}}}{{\partial {notation.latex(piece.by)}}}"
        case Number() if _is_matrix(piece):
            rows = r" \\ ".join(" & ".join(map(_tex_number, row)) for row in np.asarray(piece.value))
            return rf"\begin{{bmatrix}} {rows} \end{{bmatrix}}"
        case Number():
            return as_text(piece).replace("…", r"\ldots").replace("–", r"\text{–}")
        case Joined():
            sign = {"·": r"\cdot", "+": "+"}[piece.sign]
            return f" {sign} ".join(
                rf"\left({as_latex(part)}\right)" if _stands_apart(piece, part) else as_latex(part)
                for part in piece.pieces
            )


def as_mathml(piece: Piece) -> str:
    match piece:
        case Formula():
            return mathml(piece.expression, _filling(piece))
        case Partial():
            of, by = (f"<mrow><mo>∂</mo>{mathml(side)}</mrow>" for side in (piece.of, piece.by))
            return f"<mfrac>{of}{by}</mfrac>"
        case Number() if _is_matrix(piece):
            cells = (
                "".join(f"<mtd>{texts('mn', number(float(x)))}</mtd>" for x in row)
                for row in np.asarray(piece.value)
            )
            rows = "".join(f"<mtr>{row}</mtr>" for row in cells)
            return f"<mrow><mo>[</mo><mtable>{rows}</mtable><mo>]</mo></mrow>"
        case Number():
            return texts("mn", as_text(piece))
        case Joined():
            parts = [
                f"<mrow><mo>(</mo>{as_mathml(part)}<mo>)</mo></mrow>"
                if _stands_apart(piece, part)
                else as_mathml(part)
                for part in piece.pieces
            ]
            return f"<mrow>{texts('mo', piece.sign).join(parts)}</mrow>"


def _is_matrix(piece: Number) -> bool:
    array = np.asarray(piece.value)
    return array.ndim == 2 and 0 < array.size <= MAX_ENTRIES


def _tex_number(value: float) -> str:
    return number(float(value)).replace("–", r"\text{–}")


def equation(row: Row) -> str:
    """A row as one `<math>`."""
    return f"<math>{'<mo>=</mo>'.join(map(as_mathml, row.sides))}</math>"


def lines(section: Section) -> list[str]:
    """A section as text: equations indented, short remarks in a column of their own."""
    found = [section.title] if section.title else []
    equations = [" = ".join(map(as_text, row.sides)) for row in section.rows]
    width = max((columns(line) for line in equations if columns(line) <= MAX_COLUMN), default=0)
    for row, line in zip(section.rows, equations, strict=True):
        if columns(line) > MAX_LINE:
            line = _broken(row)
        beside = f"{line}{' ' * (width - columns(line))}   {row.remark}"
        if row.remark and (columns(line) > width or columns(beside) > MAX_LINE):
            beside = "\n".join([line, *_wrapped(row.remark, "     ")])
        found.append(f"  {beside if row.remark else line}")
    for sentence in section.words:
        found += _wrapped(sentence, "  ")
    return found


def _broken(row: Row) -> str:
    """A long equation: a side a line where there are more than two, and of a matrix a row a line."""
    sides: list[str] = []
    margin = " " * min(40, columns(as_text(row.sides[0])) + 6 if len(row.sides) == 2 else 8)
    for side in row.sides:
        told = as_text(side)
        if isinstance(side, Number) and len(told) > MAX_LINE:
            told = re.sub(r"(\]+), ", r"\1,\n", told)
            told = "\n".join(_wrapped(told, margin, keep=True)).strip()
        sides.append(told)
    return (" = " if len(sides) == 2 else "\n     = ").join(sides)


def columns(text: str) -> int:
    """The width of a text on a terminal: a bar over a letter takes none."""
    return len(text) - text.count(notation.BAR)


def _wrapped(text: str, margin: str, *, keep: bool = False) -> list[str]:
    """Lines of at most `MAX_LINE` characters; with `keep`, the text's own stay."""
    return [
        line
        for part in (text.split("\n") if keep else [text])
        for line in textwrap.wrap(
            part, MAX_LINE, initial_indent=margin, subsequent_indent=margin, break_long_words=False
        )
    ]
