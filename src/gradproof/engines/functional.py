"""Engines that differentiate functions of arrays: one walk, and one operation that each engine has its own
of, `pull`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ..dtypes import DType
from ..errors import UnsupportedError, said, where
from ..language.syntax import Statement
from . import Task, Trace
from .interpreter import Array, Functions, Library, line

Function = Callable[..., Array]
Rows = list[np.ndarray | None]


class FunctionEngine:
    """An engine whose `pull` gives the vector-Jacobian products of a function of arrays.

    `functions` and `operators` are what the lines are made of, as in `Library`.
    """

    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16", "float16")
    why_unseen = ""  # why there are no gradients at the lines, for an engine that has none

    def __init__(self, name: str, functions: Functions, operators: Functions) -> None:
        self.name = name
        self.functions = functions
        self.operators = operators

    # What an engine says of itself

    def array(self, value: ArrayLike, dtype: DType) -> Array:
        """A number or a NumPy array as an array of the engine."""
        raise NotImplementedError

    def numbers(self, array: Array) -> np.ndarray:
        """An array's numbers, in float64."""
        raise NotImplementedError

    def pull(self, function: Function, inputs: Sequence[Array], rows: np.ndarray, dtype: DType) -> Rows:
        """`rows` of cotangents at `function(*inputs)`, pulled back: for each input (rows, *its shape), None
        for no gradient."""
        raise NotImplementedError

    def hessian(
        self, function: Function, inputs: Sequence[Array], first: int, second: int, dtype: DType
    ) -> np.ndarray | None:
        """The second derivatives of a number by two of its inputs, of the one's shape and then the other's;
        None for no gradient. Raises `UnsupportedError` where the engine has none."""
        raise UnsupportedError(f"{self.name} is asked for no second derivatives here")

    def tapped(self, value: Array, tap: Array) -> Array:
        """The value as a node that `tap` is added to, which holds -0.0: no number changes by that."""
        return value + tap

    def scope(self) -> AbstractContextManager[object]:
        """What must hold while it runs, and not longer."""
        return nullcontext()

    # The run

    def run(self, task: Task, dtype: DType) -> Trace:
        """Run the lines, pull each probe back through its own line, and the output through all of them."""
        if dtype.name not in self.dtypes:
            return Trace(
                {}, {}, {}, {}, {"": f"{self.name} is run in {', '.join(self.dtypes)}, not in {dtype.name}"}
            )
        with self.scope(), np.errstate(all="ignore"):
            return self._run(task, dtype)

    def library(self, dtype: DType) -> Library:
        return Library(self.name, self.functions, self.operators, lambda value: self.array(value, dtype))

    def _run(self, task: Task, dtype: DType) -> Trace:
        arrays: dict[str, Array] = {}
        failures: dict[str, str] = {}
        unsupported: dict[str, str] = {}
        for name, value in task.point.items():
            with attempt(name, failures, unsupported):
                arrays[name] = self.leaf(value, dtype, name in task.parameters)
            if name not in arrays:
                values = {name: self.numbers(array) for name, array in arrays.items()}
                return Trace(values, {}, {}, failures, unsupported)
        trace = self.forward(task, arrays, dtype)
        if task.statements[-1].name not in arrays:
            return trace
        unseen: dict[str, str] = {}
        if self.why_unseen:
            unseen = {statement.name: self.why_unseen for statement in task.statements[:-1]}
        gradients: dict[str, np.ndarray | None] = {}
        failures, unsupported = dict(trace.failures), dict(trace.unsupported)
        with attempt("", failures, unsupported):
            gradients = self.chained(task, arrays, self.library(dtype), dtype)
        return replace(trace, gradients=gradients, failures=failures, unsupported=unsupported, unseen=unseen)

    def second(self, task: Task, first: str, second: str, dtype: DType) -> np.ndarray | None:
        """The output's second derivatives by two parameters. Raises what the engine raises."""
        with self.scope(), np.errstate(all="ignore"):
            names = [*dict.fromkeys((first, second))]
            values = task.point.items()
            arrays = {name: self.leaf(value, dtype, name in task.parameters) for name, value in values}
            library = self.library(dtype)

            def program(*inputs: Array) -> Array:
                bound = {**arrays, **dict(zip(names, inputs, strict=True))}
                for statement in task.statements:
                    bound[statement.name] = self.line(statement, bound, library)
                return bound[task.statements[-1].name]

            return self.hessian(program, [arrays[name] for name in names], 0, names.index(second), dtype)

    def forward(self, task: Task, arrays: dict[str, Array], dtype: DType) -> Trace:
        """Run the lines over the leaves' arrays, and each line's probes through it alone; no gradients yet.

        The lines' arrays are added to `arrays`, as far as they could be computed.
        """
        library = self.library(dtype)
        failures: dict[str, str] = {}
        unsupported: dict[str, str] = {}
        values = {name: self.numbers(array) for name, array in arrays.items()}
        locals_: dict[tuple[str, str], np.ndarray | None] = {}
        for statement in task.statements:
            name = statement.name
            with attempt(name, failures, unsupported):
                arrays[name] = self.bound(self.line(statement, arrays, library))
                values[name] = self.numbers(arrays[name])
            if name not in values:
                arrays.pop(name, None)
                break
            with attempt(name, failures, unsupported):
                locals_ |= self._local(task, statement, arrays, library, dtype)
        return Trace(values, locals_, {}, failures, unsupported)

    def leaf(self, value: ArrayLike, dtype: DType, is_parameter: bool) -> Array:
        """A leaf's array."""
        return self.array(value, dtype)

    def line(self, statement: Statement, arrays: Mapping[str, Array], library: Library) -> Array:
        return line(statement, arrays, library)

    def bound(self, value: Array) -> Array:
        """A line's value, as it is bound to its name."""
        return value

    def _local(
        self, task: Task, statement: Statement, arrays: Mapping[str, Array], library: Library, dtype: DType
    ) -> dict[tuple[str, str], np.ndarray | None]:
        """The line's own vjp at its probes, as a function of its parents alone."""
        name = statement.name
        parents = task.parents.get(name, ())
        if not parents or name not in task.probes:
            return {}

        def alone(*inputs: Array) -> Array:
            return self.line(statement, {**arrays, **dict(zip(parents, inputs, strict=True))}, library)

        rows = self.pull(alone, [arrays[parent] for parent in parents], task.probes[name], dtype)
        return {(name, parent): found for parent, found in zip(parents, rows, strict=True)}

    def chained(
        self, task: Task, arrays: Mapping[str, Array], library: Library, dtype: DType
    ) -> dict[str, np.ndarray | None]:
        """The output's gradient at the parameters, and at the lines where the engine has one there."""
        leaves = sorted(task.parameters)
        taps = [] if self.why_unseen else task.between

        def program(*inputs: Array) -> Array:
            given = dict(zip([*leaves, *taps], inputs, strict=True))
            bound = {**{name: arrays[name] for name in task.point}, **{name: given[name] for name in leaves}}
            for statement in task.statements:
                value = self.line(statement, bound, library)
                bound[statement.name] = (
                    self.tapped(value, given[statement.name]) if statement.name in taps else value
                )
            return bound[task.statements[-1].name]

        inputs = [arrays[name] for name in leaves]
        inputs += [self.array(np.full(tuple(arrays[name].shape), -0.0), dtype) for name in taps]
        rows = self.pull(program, inputs, np.ones(1), dtype)
        return {
            name: None if row is None else row[0] for name, row in zip([*leaves, *taps], rows, strict=True)
        }


def stacked(rows: Rows) -> np.ndarray | None:
    """What came for each cotangent, as one array; None where there is no gradient for one of them."""
    there = [row for row in rows if row is not None]
    return np.stack(there) if len(there) == len(rows) else None


@contextmanager
def attempt(name: str, failures: dict[str, str], unsupported: dict[str, str]) -> Iterator[None]:
    """Whatever an engine raises is a finding of that name, or what it does not have."""
    try:
        yield
    except UnsupportedError as error:
        unsupported[name] = str(error)
    except NotImplementedError as error:
        unsupported[name] = said(error)
    except Exception as error:
        failures[name] = said(error) + where(error)


def contracted(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Each row of cotangents times a Jacobian given by columns, of shape (entries of the input, *shape of the
    output).

    A cotangent of zero takes no part: the Jacobian's entry there may be infinite. The sum is taken in
    extended precision, so that forward mode is not judged by our own rounding.
    """
    flat, columns = rows.reshape(len(rows), -1), columns.reshape(len(columns), -1)
    found = np.zeros((len(flat), len(columns)))
    for n, row in enumerate(flat):
        at = np.flatnonzero(row)
        found[n] = (columns[:, at].astype(np.longdouble) * row[at]).sum(axis=1)
    return found


def basis(shape: Sequence[int]) -> np.ndarray:
    """Unit tangents, one for each entry."""
    count = int(np.prod(shape, dtype=np.int64))
    return np.eye(count).reshape(count, *shape)
