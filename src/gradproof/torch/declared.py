"""Gradients that are meant to be another's: a stand-in for a step, the solution of an equation.

A custom Function whose gradient is declared is two steps: its value, as it was recorded, and what it passed
on, beside the derivative of what was declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from flint import arb, arb_mat
from sympy import Integer

from ..errors import InputError, Place, UnsupportedError
from ..judging import witness as record
from ..language.syntax import parse_statements
from ..proof.arithmetic import exact
from ..proof.balls import Balls, balls, centres
from ..proof.enclosure import Run
from ..proof.graph import Read, Shape, bound, free, size, slot, unravelled
from .lowering import Lowering
from .memory import row_major
from .tape import DECLARED, Region, Step

MOST = 512  # unknowns of an equation
SOLVED = 8  # times the unit and the condition: what solving a system well may lose

F = TypeVar("F", bound=type)


def surrogate(name: str, formula: str | None = None) -> Any:
    """Say that the gradient of a custom Function is meant to be that of a formula, over the names of its
    forward's arguments: `surrogate("Ste", "x")` of a straight-through rounding. With the formula alone it
    decorates the class.

    Raises `InputError` for text that is not of the language.
    """
    return _declared(name, formula, equation=False)


def implicit(name: str, equation: str | None = None) -> Any:
    """Say that what a custom Function gives solves an equation, `implicit("Deq", "z = tanh(z/2 + w)")`: its
    gradient is then by the implicit function theorem, at the solution that it found. With the equation alone
    it decorates the class.

    Raises `InputError` for text that is not of the language.
    """
    return _declared(name, equation, equation=True)


def _declared(name: str, text: str | None, *, equation: bool) -> Any:
    if text is None:
        checked(name, equation=equation)

        def decorate(kind: F) -> F:
            DECLARED[kind.__name__] = name
            return kind

        return decorate
    checked(text, equation=equation)
    DECLARED[name] = text
    return None


def checked(text: str, *, equation: bool) -> None:
    """Raise `InputError` where a text is no formula, or no equation."""
    wanted = "one equation, as in 'z = tanh(z/2 + w)'" if equation else "one expression, as in 'x'"
    if equation and "=" not in text:
        raise InputError(f"{text!r}: expected {wanted}", Place("formula"))
    if len(parse_statements(text if equation else f"value = {text}", Place("formula"))) != 1:
        raise InputError(f"{text!r}: expected {wanted}", Place("formula"))


def as_declared(made: record.Step, step: Step) -> list[record.Step]:
    """The value of a step, and what it passed on beside the derivative of what was declared. Raises
    `InputError` for a text that does not fit its arguments."""
    if sorted(step.outputs) != [0]:
        raise UnsupportedError(f"{step.name}: what is declared tells one output, it has {len(step.outputs)}")
    value = replace(made, inputs={}, passes=(), sources={})
    solved, equals, right = step.declared.partition("=")
    text = right.strip() if equals and solved.strip().isidentifier() else step.declared
    unknown = solved.strip() if text is not step.declared else ""
    (output,) = made.values
    lowering = Lowering(f"{step.name} as declared")
    for edge, region in step.inputs.items():
        if region is not None:
            name = next(name for name, source in made.sources.items() if source == edge)
            lowering.enter(name, region, given=False)
    arguments = _arguments(text, step, unknown)
    try:
        if unknown:
            arguments[unknown] = step.outputs[0]
            lowering.disown(step.outputs[0])
        last = lowering.text(text, arguments, step.outputs[0].shape)
    except InputError as error:
        names = ", ".join(step.arguments)
        words = f"what is declared of {step.name}: {error.message}; its forward's arguments are {names}"
        raise InputError(words, Place("formula")) from None
    given: dict[str, Any] = dict(lowering.numbers)
    loose: dict[str, Balls] | None = None
    if unknown:
        inverse, blurred = _inverse(step, text, arguments, unknown)
        last, given, loose = _solution(lowering, last, step.outputs[0].shape, inverse, blurred)
    copied = tuple(map(free, range(len(step.outputs[0].shape))))
    lowering.emit(slot(0), (Read(last, copied),), step.outputs[0].shape, name=output, source="declared")
    told = partial(_text, step.declared)
    backward = replace(
        made,
        nodes=tuple(lowering.nodes),
        given=given,
        values={},
        wanted=frozenset(lowering.active),
        text=told,
        loose=loose,
        later=lambda name: iter(()),
        convention="",
    )
    return [value, backward]


def _text(declared: str, wrt: str | None) -> str:
    return f"declared: {declared}"


def _arguments(text: str, step: Step, unknown: str) -> dict[str, Any]:
    """The forward's arguments by the names in the text; one name that is none of them stands for the only
    tensor."""
    found = dict(step.arguments)
    (statement,) = parse_statements(f"value = {text}", Place("formula"))
    names = dict.fromkeys(str(term.value) for term in statement.terms if term.op == "name")
    strange = [name for name in names if name not in found and name != unknown]
    tensors = [value for value in found.values() if isinstance(value, Region)]
    if len(strange) == 1 and len(tensors) == 1:
        found[strange[0]] = tensors[0]
    return found


def _inverse(step: Step, text: str, arguments: Mapping[str, Any], unknown: str) -> tuple[Balls, Balls]:
    """(1 - ∂g/∂z)⁻¹ at the numbers that the Function had, for z = g(z, ...); and what solving a system with
    it in the dtype may make of it: beside the unit's share of its condition, that by which z misses its own
    equation."""
    region = step.outputs[0]
    n = size(region.shape)
    if n > MOST:
        raise UnsupportedError(f"{step.name}: an equation with {n} unknowns")
    lowering = Lowering("equation")
    lowering.enter(unknown, region, given=False)
    others = {name: value for name, value in arguments.items() if name != unknown}
    last = lowering.text(text, {**others, unknown: region}, region.shape)
    numbers = {name: balls(values) for name, values in lowering.numbers.items()}
    run = Run(tuple(lowering.nodes), (last,), {unknown: region.shape}, frozenset(lowering.active))
    units = balls(np.eye(n).reshape(n, *region.shape))
    slopes = run.pull(numbers, exact(), {last: units})
    system = arb_mat([[arb(int(i == j)) - arb(slopes[i, j]) for j in range(n)] for i in range(n)])
    try:
        found = np.array(system.inv().table(), object).reshape(n, n)
    except ZeroDivisionError:
        raise UnsupportedError(f"{step.name}: the equation has no single solution here") from None
    value = centres(run.evaluate(numbers, exact())[last]).reshape(-1)
    at = region.values.reshape(-1)
    missed = float(np.max(np.abs(value - at), initial=0.0))
    missed /= max(float(np.max(np.abs(at), initial=0.0)), 1e-300)
    matrix, inverse = np.abs(centres(np.array(system.table(), object).reshape(n, n))), np.abs(centres(found))
    unit = torch.finfo(region.dtype).eps
    share = inverse @ matrix @ inverse * SOLVED * (n * unit + missed)
    return found, np.asarray(found + balls(share) * arb(0, 1), object)


def _solution(
    lowering: Lowering, last: str, shape: Shape, inverse: Balls, blurred: Balls
) -> tuple[str, dict[str, Any], dict[str, Balls]]:
    """The node of the inverse times g: its derivative is that of the solution."""
    n = size(shape)
    matrix = lowering.constant(np.zeros((n, n)))
    steps = enumerate(row_major(shape))
    flat = sum((step * free(axis) for axis, step in steps), Integer(0))
    reads = (Read(matrix, (flat, bound(0))), Read(last, unravelled(bound(0), shape)))
    name = lowering.emit(slot(0) * slot(1), reads, shape, over=(n,), reduce="sum", source="solution")
    given = {key: balls(values) for key, values in lowering.numbers.items()}
    return name, {**given, matrix: inverse}, {**given, matrix: blurred}
