"""One walk over the terms of a line, for every array library: what a library can do is a table."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial, reduce
from math import pi
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UnsupportedError
from ..functions import SPOKEN
from ..language.syntax import Affine, Span, Statement, Term

Array = Any  # of an engine's library, which says what it is
Operand = Array  # or a Python number, where the line has a constant
Axis = int | tuple[int, ...] | None
Functions = Mapping[str, Callable[..., Array]]

# Operators work on Python numbers too, so that a constant part of a line is computed as Python does.
ARITHMETIC: Functions = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "neg": lambda a: -a, "pos": lambda a: a,
}  # fmt: skip

COMPARISONS: Functions = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def axes_of(x: Array, axis: Axis) -> tuple[int, ...]:
    """The axes, counted from the first; all of them for None."""
    rank = len(x.shape)
    axes = range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tuple(n % rank for n in axes)


def expanded(x: Array, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape that an array is spread to, where -1 is an extent that stays."""
    kept = (1,) * (len(shape) - len(x.shape)) + tuple(x.shape)
    return tuple(old if n == -1 else n for n, old in zip(shape, kept, strict=True))


def scalars(library: object, kinds: Sequence[str], places: Sequence[object]) -> Functions:
    """The scalar functions that a library has: by the first way that the row says for one of the `kinds`, or
    of the function's name in one of the `places`. Those that it lacks are absent."""
    found: dict[str, Callable[..., Array]] = {}
    for row in SPOKEN.values():
        way = next(filter(None, (getattr(row, kind) for kind in kinds)), None)
        if callable(way):
            found[row.name] = partial(way, library)
            continue
        named = [_at(library, way)] if way else [getattr(place, row.name, None) for place in places]
        function = next(filter(callable, named), None)
        if function is not None:
            found[row.name] = function
    return found


def _at(library: object, path: str) -> object:
    return reduce(lambda place, name: getattr(place, name, None), path.split("."), library)


@dataclass(frozen=True, eq=False)
class Library:
    """An array library, in one dtype.

    `functions` has those of the language, and what index notation and slices are made of: "where",
    "concatenate", "stack" (of a list), "take" (entries at NumPy arrays of positions), "slice" (NumPy's basic
    indexing), "expand" (to a shape, -1 for an extent that stays), "reshape" and "transpose". `operators` are
    those of `ARITHMETIC`, and "and", "or", "not"; `comparisons` those of `COMPARISONS`. `array` makes an
    array of a number or a NumPy array. An array has a `shape`.
    """

    name: str
    functions: Functions
    operators: Functions
    array: Callable[[ArrayLike], Array]
    comparisons: Functions = field(default_factory=lambda: COMPARISONS)

    def call(self, name: str, *operands: Operand, **options: object) -> Array:
        """A function of the table.

        Raises `UnsupportedError` where the library has none of that name.
        """
        if name not in self.functions:
            raise UnsupportedError(f"{self.name} has no {name!r}")
        return self.functions[name](*operands, **options)

    def lifted(self, x: Operand) -> Array:
        return self.array(x) if type(x) in (int, float, bool) else x


def line(statement: Statement, arrays: Mapping[str, Array], library: Library) -> Array:
    """The value of one line, of arrays for the names that it reads.

    Raises `UnsupportedError` for an operation that the library lacks, and what the library raises.
    """
    labels = _Labels(statement, arrays, library)
    values: list[Operand] = []
    for term in statement.terms:
        values.append(_term(term, [values[n] for n in term.args], arrays, labels, library))
    return labels.arranged(library.lifted(values[-1]))


def names(statement: Statement) -> set[str]:
    """The names that a line reads."""
    return {term.value for term in statement.terms if term.op == "name"}


def _term(
    term: Term, args: list[Operand], arrays: Mapping[str, Array], labels: _Labels, library: Library
) -> Operand:
    match term.op:
        case "number":
            return (
                float(term.value)
                if isinstance(term.value, Fraction) or abs(term.value) >= 2**63
                else term.value
            )
        case "name":
            return arrays[term.value] if term.value in arrays else {"pi": pi}[term.value]
        case "index":
            if any(isinstance(item, Affine) for item in term.value):
                return labels.read(args[0], term)
            index = tuple(
                slice(item.start, item.stop, item.step) if isinstance(item, Span) else item
                for item in term.value
            )
            return library.call("slice", args[0], index)
        case "compare":
            pairs = zip(term.value, args, args[1:], strict=False)
            results = [library.comparisons[op](a, b) for op, a, b in pairs]
            return results[0] if len(results) == 1 else library.operators["and"](*results)
        case "where":
            condition, a, b = args
            return library.call("where", condition, library.lifted(a), library.lifted(b))
        case "concatenate" | "stack":
            return library.call(term.op, [library.lifted(arg) for arg in args], term.options.get("axis", 0))
    if term.op in library.operators:
        result = library.operators[term.op](*args)
        # No library takes an integer beyond 64 bits.
        return float(result) if isinstance(result, int) and abs(result) >= 2**63 else result
    operands = [library.lifted(arg) for arg in args]
    options = {k: float(v) if isinstance(v, Fraction) else v for k, v in term.options.items() if k != "over"}
    if labels.order and (over := term.options.get("over")):
        options["axis"] = tuple(labels.order.index(label) for label in over)
        options["keepdims"] = True
        operands = [labels.expanded(operand, over) for operand in operands]
    return library.call(term.op, *operands, **options)


class _Labels:
    """Index notation: one axis for each label of the line, in the order of their appearance.

    A read `X[i, k]` becomes an array with X's entries along the axes of i and k and extent 1 along the
    others.
    """

    def __init__(self, statement: Statement, arrays: Mapping[str, Array], library: Library) -> None:
        self.statement = statement
        self.library = library
        self.extents = {label: extent for label, extent in statement.labels if extent is not None}
        order = [label for label, _ in statement.labels]
        shifted: list[tuple[Affine, int]] = []
        for term in statement.terms:
            if term.op != "index":
                continue
            shape = arrays[statement.terms[term.args[0]].value].shape if _names_array(statement, term) else ()
            for item, extent in zip(term.value, shape, strict=False):
                if isinstance(item, Affine):
                    order += [label for label, _ in item.labels]
                    if item.plain is not None:
                        self.extents.setdefault(item.plain, extent)
                    else:
                        shifted.append((item, extent))
        self.order = list(dict.fromkeys(order))
        for item, extent in shifted:
            for label, coefficient in item.labels:
                if label not in self.extents:
                    others = [c * (self.extents[other] - 1) for other, c in item.labels if other != label]
                    if coefficient > 0:
                        room = extent - 1 - item.constant - sum(max(step, 0) for step in others)
                    else:
                        room = item.constant + sum(min(step, 0) for step in others)
                    self.extents[label] = room // abs(coefficient) + 1

    def read(self, array: Array, term: Term) -> Array:
        rank = len(self.order)
        positions: list[np.ndarray] = []
        inside = np.ones((1,) * rank, dtype=bool)
        for item, extent in zip(term.value, array.shape, strict=True):
            position = np.zeros((1,) * rank, dtype=np.int64)
            if isinstance(item, int):
                position = position + item % extent
            else:
                position = position + item.constant
                for label, coefficient in item.labels:
                    shape = [1] * rank
                    shape[self.order.index(label)] = -1
                    position = position + coefficient * np.arange(self.extents[label]).reshape(shape)
            inside = inside & (position >= 0) & (position < extent)
            positions.append(position.clip(0, extent - 1))
        got = self.library.call("take", array, tuple(positions))
        return got if inside.all() else self.library.call("where", inside, got, self.library.array(0.0))

    def expanded(self, array: Array, over: tuple[str, ...]) -> Array:
        """A reduction counts every value of its index, also where the operand does not depend on it."""
        if len(array.shape) < len(self.order):
            array = self._padded(array)
        shape = tuple(self.extents[label] if label in over else -1 for label in self.order)
        return self.library.call("expand", array, shape)

    def arranged(self, array: Array) -> Array:
        """The line's value: the axes on the left, in their order; those summed over have extent 1 and go."""
        if not self.order:
            return array
        left = [label for label, _ in self.statement.labels]
        array = self._padded(array)
        kept = [self.order.index(label) for label in left]
        rest = [n for n in range(len(self.order)) if n not in kept]
        array = self.library.call("transpose", array, (*kept, *rest))
        array = self.library.call("reshape", array, tuple(array.shape[: len(kept)]))
        return self.library.call("expand", array, tuple(self.extents[label] for label in left))

    def _padded(self, array: Array) -> Array:
        shape = tuple(array.shape)
        return self.library.call("reshape", array, (1,) * (len(self.order) - len(shape)) + shape)


def _names_array(statement: Statement, term: Term) -> bool:
    return statement.terms[term.args[0]].op == "name"
