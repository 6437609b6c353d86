"""Bring your own: an engine of any library with operator overloading, whether its values are scalars or
arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..dtypes import DType
from ..errors import UnsupportedError
from ..functions import SPOKEN
from . import Engine, Task
from .functional import Function, FunctionEngine, Rows, stacked
from .interpreter import ARITHMETIC, COMPARISONS, Array, Axis, Functions, Library, axes_of, expanded, line

Value = Array  # of the user's library: a number, or an array
PLAIN = (int, float, bool)
READERS = ("data", "value", "val", "primal")  # where micro engines keep a value's number
OF_ARRAYS = "sum mean prod max min norm logsumexp var std softmax log_softmax cumsum dot outer trace".split()


def engine(
    *,
    wrap: Callable[[Any], Value],
    gradient: Callable[[Value, list[Value]], Sequence[Value]],
    name: str = "own",
    functions: Mapping[str, Callable[..., Value]] | None = None,
    number: Callable[[Value], Value] | None = None,
    arrays: bool = False,
    dtypes: Sequence[str] = ("float64",),
) -> Engine:
    """An engine of a library with operator overloading, for `check(problem, engine=...)`.

    `wrap(x)` makes a value of a float; with `arrays=True`, of a NumPy array of the dtype asked for. Values
    know + - * / ** and the minus sign. `gradient(output, inputs)` gives the derivative of one value by each
    of the inputs: numbers, or arrays of the inputs' shapes; None for no gradient. It is asked once for each
    output that `wrap` and the operators made anew, by the parameters and by what the lines in between gave.

    `functions` maps names of the language to functions of values; where a name is missing there, a value's
    own method of that name is called. `number(value)` reads a value back; without it, the attribute `data`
    (or `value`, `val`) or `float`. `dtypes` are what the library computes in.

    A library of scalars needs no more: arrays, matrix products, sums, maxima, softmax, index notation are
    made of its operators. What it does not cover, such as `erf` without a function of that name, has the
    verdict `unsupported`.
    """
    kind = _Arrays if arrays else _Scalars
    return kind(name, wrap, gradient, dict(functions or {}), number or _number, tuple(dtypes))


def _number(value: Value) -> Value:
    for reader in READERS:
        if (
            hasattr(value, reader)
            and not callable(getattr(value, reader))
            and not isinstance(value, np.ndarray | np.generic)
        ):
            return getattr(value, reader)
    if hasattr(value, "tolist"):
        return value.tolist()
    return float(value)


class _Own(FunctionEngine):
    """What both kinds share: gradients are asked of the values themselves, so that nothing of ours is in
    between."""

    def __init__(
        self,
        name: str,
        wrap: Callable[[Any], Value],
        gradient: Callable[..., Sequence[Value]],
        own: Mapping[str, Callable[..., Value]],
        number: Callable[[Value], Value],
        dtypes: tuple[str, ...],
    ) -> None:
        self.wrap, self.gradient, self.own, self.number, self.dtypes = wrap, gradient, own, number, dtypes
        super().__init__(name, self.table(), self.signs())

    def table(self) -> Functions:
        raise NotImplementedError

    def signs(self) -> Functions:
        raise NotImplementedError

    def called(self, name: str) -> Callable[..., Value]:
        """A function of values: the user's, or the method of that name."""

        def call(x: Value, *others: Value, **options: object) -> Value:
            if name in self.own:
                return self.own[name](x, *others, **options)
            method = getattr(x, name, None)
            if not callable(method):
                raise UnsupportedError(
                    f"{self.name} has no {name!r}: neither a function nor a method of {type(x).__name__}"
                )
            return method(*others, **options)

        return call

    def operated(self, sign: str) -> Callable[..., Value]:
        def operate(*operands: Value) -> Value:
            try:
                return ARITHMETIC[sign](*operands)
            except (TypeError, AssertionError, NotImplementedError) as error:
                if isinstance(error, TypeError) and "operand" not in str(error):
                    raise  # a fault inside of the operator
                raise UnsupportedError(
                    f"{self.name} has no {sign!r} for this: {type(error).__name__}: {error}"
                ) from error

        return operate

    def asked(self, output: Value, inputs: list[Value]) -> list[Value]:
        found = list(self.gradient(output, inputs))
        if len(found) != len(inputs):
            raise ValueError(f"gradient(output, inputs) gave {len(found)} numbers for {len(inputs)} inputs")
        return found


class _Scalars(_Own):
    """Arrays are NumPy arrays of values; every operation on numbers is one of the library's."""

    def array(self, value: Value, dtype: DType) -> np.ndarray:
        return _filled(
            np.shape(value), [self.wrap(float(x)) for x in np.asarray(value, dtype=np.float64).reshape(-1)]
        )

    def numbers(self, array: np.ndarray) -> np.ndarray:
        flat = [np.float64(self.number(x)).item() for x in array.reshape(-1)]
        return np.array(flat, dtype=np.float64).reshape(array.shape)

    def lifted(self, function: Callable[..., Value]) -> Callable[..., Value]:
        """A function of values, entry by entry; plain numbers stay numbers where all are."""

        def call(*operands: Value, **options: object) -> Value:
            if not any(isinstance(x, np.ndarray) for x in operands):
                return function(*operands, **options)
            full = np.broadcast_arrays(
                *(x if isinstance(x, np.ndarray) else _filled((), [x]) for x in operands)
            )
            entries = zip(*(x.flat for x in full), strict=True)
            return _filled(full[0].shape, [function(*xs, **options) for xs in entries])

        return call

    def wrapped(self, x: Value) -> Value:
        return self.wrap(float(x)) if type(x) in PLAIN else x

    def signs(self) -> Functions:
        def sign(name: str) -> Callable[..., Value]:
            operate = self.operated(name)
            if name == "pos":
                return self.lifted(lambda x: x)
            if name == "**":  # most take a plain exponent, and many nothing else
                return self.lifted(lambda a, b: operate(a if type(b) in PLAIN else self.wrapped(a), b))
            return self.lifted(
                lambda *xs: operate(*(xs if all(type(x) in PLAIN for x in xs) else map(self.wrapped, xs)))
            )

        truth = np.asarray
        return {
            **{name: sign(name) for name in ARITHMETIC},
            "and": lambda *conditions: reduce(np.logical_and, map(truth, conditions)),
            "or": lambda *conditions: reduce(np.logical_or, map(truth, conditions)),
            "not": lambda condition: np.logical_not(truth(condition)),
        }

    def library(self, dtype: DType) -> Library:
        compared = {name: self._compared(compare) for name, compare in COMPARISONS.items()}
        return Library(
            self.name, self.functions, self.operators, lambda value: self.array(value, dtype), compared
        )

    def _compared(self, compare: Callable[..., Value]) -> Callable[..., Value]:
        return lambda a, b: compare(*(self.numbers(x) if isinstance(x, np.ndarray) else x for x in (a, b)))

    def table(self) -> Functions:
        return _Operations(self).table()

    def shift(self, x: np.ndarray, axis: Axis) -> np.ndarray:
        """The largest entry, as a number, so that its derivative, which cancels, is not asked for."""
        most = np.max(self.numbers(x), axis=axes_of(x, axis), keepdims=True)
        return self.array(most, None)  # type: ignore[arg-type] # scalars have no dtype

    def entrywise(self, name: str) -> Callable[..., Value]:
        call = self.called(name)
        return self.lifted(lambda *xs, **options: call(*map(self.wrapped, xs), **options))

    def chosen(self, better: Callable[[Value, Value], bool]) -> Callable[..., Value]:
        return _folded(self.lifted(lambda a, b: b if better(self.number(b), self.number(a)) else a))

    def bound(self, value: np.ndarray) -> np.ndarray:
        return _filled(value.shape, [self.wrapped(x) for x in value.flat])

    def pull(self, function: Function, inputs: Sequence[np.ndarray], rows: np.ndarray, dtype: DType) -> Rows:
        """Each row at values made anew, because a library may keep gradients in its values."""
        found: list[list[np.ndarray | None]] = [[] for _ in inputs]
        for row in rows:
            fresh = [self.array(self.numbers(x), dtype) for x in inputs]
            value = self.bound(_whole(function(*fresh)))
            used = [(x, g) for x, g in zip(value.flat, np.ravel(row), strict=True) if g]
            # A unit cotangent picks an entry; nothing is multiplied.
            output = used[0][0] if len(used) == 1 and used[0][1] == 1 else self._weighted(used)
            grads = self._gradients(output, fresh)
            for kept, grad in zip(found, grads, strict=True):
                kept.append(grad)
        return [stacked(kept) for kept in found]

    def _weighted(self, used: Sequence[tuple[Value, float]]) -> Value:
        multiply, add = self.operated("*"), self.operated("+")
        return reduce(add, (multiply(x, self.wrap(float(g))) for x, g in used))

    def _gradients(self, output: Value, arrays: Sequence[np.ndarray]) -> Rows:
        grads = iter(self.asked(output, [x for array in arrays for x in array.flat]))
        found: Rows = []
        for array in arrays:
            flat = [next(grads) for _ in range(array.size)]
            there = [0.0 if g is None else np.float64(self.plain(g)).item() for g in flat]
            found.append(None if all(g is None for g in flat) else np.array(there).reshape(array.shape))
        return found

    def plain(self, g: Value) -> Value:
        return g if isinstance(g, int | float | np.generic) else self.number(g)

    def chained(
        self, task: Task, arrays: Mapping[str, Value], library: Library, dtype: DType
    ) -> dict[str, np.ndarray | None]:
        bound: dict[str, np.ndarray] = {name: self.array(value, dtype) for name, value in task.point.items()}
        seen = {id(x) for array in bound.values() for x in array.flat}
        once = self.operated("*")
        for statement in task.statements:
            value = self.bound(_whole(line(statement, bound, library)))
            entries = []
            for x in value.flat:
                # An entry of another name's, or one that stands twice: a value of its own, with a gradient of
                # its own.
                x = once(x, self.wrap(1.0)) if id(x) in seen else x
                seen.add(id(x))
                entries.append(x)
            bound[statement.name] = _filled(value.shape, entries)
        names = [*sorted(task.parameters), *task.between]
        output = bound[task.statements[-1].name].item()
        return dict(zip(names, self._gradients(output, [bound[name] for name in names]), strict=True))


class _Operations:
    """The language's functions of arrays of values, made of a library's operators."""

    def __init__(self, engine: _Scalars) -> None:
        signs = engine.signs()
        self.engine = engine
        self.add, self.multiply, self.divide, self.subtract = (signs[sign] for sign in "+*/-")
        self.entry = {name: engine.entrywise(name) for name in SPOKEN}
        self.sum = _folded(self.add)

    def table(self) -> Functions:
        return {
            **self.entry,
            "sum": self.sum, "mean": self.mean, "prod": _folded(self.multiply),
            "var": self.var, "std": self.std, "norm": self.norm, "cumsum": self.cumsum,
            "max": self.engine.chosen(operator.gt), "min": self.engine.chosen(operator.lt),
            "logsumexp": self.logsumexp, "softmax": self.softmax, "log_softmax": self.log_softmax,
            "@": self.matmul, "dot": lambda a, b: (self.matmul if a.ndim and b.ndim else self.multiply)(a, b),
            "outer": lambda a, b: self.multiply(a[:, None], b[None]),
            "trace": lambda x: self.sum(_filled((min(x.shape),), list(np.diagonal(x)))),
            "where": _where, "expand": lambda x, shape: np.broadcast_to(x, expanded(x, shape)),
            "transpose": np.transpose, "reshape": lambda x, shape: np.reshape(x, shape),
            "concatenate": np.concatenate, "stack": np.stack,
            "take": lambda x, positions: _whole(x[positions]), "slice": lambda x, index: _whole(x[index]),
        }  # fmt: skip

    def mean(self, x: np.ndarray, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Value:
        count = int(np.prod([x.shape[n] for n in axes_of(x, axis)], dtype=np.int64))
        return self.divide(self.sum(x, axis, keepdims), float(count - ddof))

    def var(self, x: np.ndarray, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Value:
        off = self.subtract(x, self.mean(x, axis, True))
        return self.mean(self.multiply(off, off), axis, keepdims, ddof)

    def std(self, x: np.ndarray, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Value:
        return self.entry["sqrt"](self.var(x, axis, keepdims, ddof))

    def norm(self, x: np.ndarray, axis: Axis = None, keepdims: bool = False) -> Value:
        return self.entry["sqrt"](self.sum(self.multiply(x, x), axis, keepdims))

    def logsumexp(self, x: np.ndarray, axis: Axis = None, keepdims: bool = False) -> Value:
        top = self.engine.shift(x, axis)
        total = self.sum(self.entry["exp"](self.subtract(x, top)), axis, True)
        found = self.add(self.entry["log"](total), top)
        return found if keepdims else found.reshape(np.squeeze(found, axes_of(x, axis)).shape)

    def softmax(self, x: np.ndarray, axis: Axis = -1) -> Value:
        parts = self.entry["exp"](self.subtract(x, self.engine.shift(x, axis)))
        return self.divide(parts, self.sum(parts, axis, True))

    def log_softmax(self, x: np.ndarray, axis: Axis = -1) -> Value:
        less = self.subtract(x, self.engine.shift(x, axis))
        return self.subtract(less, self.entry["log"](self.sum(self.entry["exp"](less), axis, True)))

    def matmul(self, a: np.ndarray, b: np.ndarray) -> Value:
        left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
        found = self.sum(self.multiply(left[..., :, :, None], right[..., None, :, :]), -2)
        found = found[..., 0, :] if a.ndim == 1 else found
        return _whole(found[..., 0]) if b.ndim == 1 else found

    def cumsum(self, x: np.ndarray, axis: int = 0) -> Value:
        parts = list(np.moveaxis(x, axis, 0))
        for n in range(1, len(parts)):
            parts[n] = self.add(_whole(parts[n - 1]), _whole(parts[n]))
        # What goes into the next sum is a value of its own, not the entry that is read.
        return self.multiply(np.moveaxis(np.stack([_whole(part) for part in parts]), 0, axis), 1.0)


class _Arrays(_Own):
    """A library of arrays: its own operators, and functions or methods under the names of the language."""

    def array(self, value: Value, dtype: DType) -> Value:
        return self.wrap(np.asarray(value, dtype=dtype.name))

    def numbers(self, array: Value) -> np.ndarray:
        return np.array(self.number(array), dtype=np.float64)

    def bound(self, value: Value) -> Value:
        return value

    def signs(self) -> Functions:
        return {name: self.operated(name) for name in ARITHMETIC}

    def table(self) -> Functions:
        def matmul(a: Value, b: Value) -> Value:
            return self.own["@"](a, b) if "@" in self.own else a @ b

        def reduced(name: str) -> Callable[..., Value]:
            call = self.called(name)
            return lambda x, **options: call(x, **options) if tuple(x.shape) else x

        def transpose(x: Value, axes: tuple[int, ...] | None = None) -> Value:
            return self.called("transpose")(x, tuple(axes or reversed(range(len(x.shape)))))

        def expand(x: Value, shape: tuple[int, ...]) -> Value:
            wanted = expanded(x, shape)
            return x if wanted == tuple(x.shape) else self.called("expand")(x, wanted)

        return {
            **{name: self.called(name) for name in (*SPOKEN, *OF_ARRAYS)},
            **{name: reduced(name) for name in ("sum", "mean", "prod", "max", "min", "var", "std")},
            "@": matmul, "dot": lambda a, b: matmul(a, b) if a.shape and b.shape else a * b,
            "transpose": transpose, "expand": expand,
            "reshape": lambda x, shape: self.called("reshape")(x, shape),
            "take": lambda x, positions: x[positions], "slice": lambda x, index: x[index],
            **{name: self.own[name] for name in ("where", "concatenate", "stack") if name in self.own},
        }  # fmt: skip

    def pull(self, function: Function, inputs: Sequence[Value], rows: np.ndarray, dtype: DType) -> Rows:
        found: list[list[np.ndarray | None]] = [[] for _ in inputs]
        for row in rows:
            fresh = [self.array(self.numbers(x), dtype) for x in inputs]
            value = function(*fresh)
            output = (
                value if not tuple(value.shape) else self.functions["sum"](value * self.array(row, dtype))
            )
            for kept, grad in zip(found, self.asked(output, fresh), strict=True):
                kept.append(None if grad is None else self._read(grad))
        return [stacked(kept) for kept in found]

    def _read(self, grad: Value) -> np.ndarray:
        plain = isinstance(grad, int | float | np.ndarray | np.generic)
        return np.array(grad if plain else self.number(grad), dtype=np.float64)

    def chained(
        self, task: Task, arrays: Mapping[str, Value], library: Library, dtype: DType
    ) -> dict[str, np.ndarray | None]:
        bound = {name: self.array(value, dtype) for name, value in task.point.items()}
        for statement in task.statements:
            value = line(statement, bound, library)
            bound[statement.name] = value * 1.0 if any(value is other for other in bound.values()) else value
        names = [*sorted(task.parameters), *task.between]
        grads = self.asked(bound[task.statements[-1].name], [bound[name] for name in names])
        return {
            name: None if grad is None else self._read(grad) for name, grad in zip(names, grads, strict=True)
        }


def _filled(shape: tuple[int, ...], entries: Sequence[Value]) -> np.ndarray:
    """A NumPy array of values; NumPy is not asked what they are."""
    array = np.empty(len(entries), dtype=object)
    for n, x in enumerate(entries):
        array[n] = x
    return array.reshape(shape)


def _whole(x: Value) -> np.ndarray:
    """NumPy gives the entry itself where a result has no axes."""
    return x if isinstance(x, np.ndarray) else _filled((), [x])


def _folded(function: Callable[[Value, Value], Value]) -> Callable[..., Value]:
    """A reduction from left to right."""

    def fold(x: np.ndarray, axis: Axis = None, keepdims: bool = False) -> Value:
        axes = axes_of(x, axis)
        if not axes:
            return x
        moved = np.moveaxis(x, axes, range(len(axes))).reshape(-1, *np.delete(x.shape, axes))
        total = reduce(function, (_whole(part) for part in moved))
        return total.reshape([1 if n in axes else m for n, m in enumerate(x.shape)]) if keepdims else total

    return fold


def _where(condition: Value, a: Value, b: Value) -> Value:
    full = np.broadcast_arrays(np.asarray(condition), a, b)
    chosen = [x if c else y for c, x, y in zip(*(x.flat for x in full), strict=True)]
    return _filled(full[0].shape, chosen)
