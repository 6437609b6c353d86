"""JAX's primitives to nodes: one row a primitive, in the language of expression files or as SymPy of its
operands.

The operands of a row are `x, y, z` in their order. What only moves entries has no formula: the primitive
itself runs on the entries' places. What reduces, multiplies or scatters is a node in index notation, below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from sympy import Expr, Integer, Rational

from ..errors import InputError, UnsupportedError
from ..functions import recorded
from ..proof.functions import FORMS
from ..proof.graph import Read, bound, free, size, slot
from ..torch.memory import Content, table
from ..torch.writing import Codes, Operand, Writing
from .pairs import by_pairs
from .recording import CUSTOM, STOP, Array, Equation, applied, at_width, inside

Row = str | Callable[[Mapping[str, Any]], str]  # over the equation's parameters, where it depends on them
OPERANDS = "xyzuvw"
MAX_SCATTER = 4_000_000  # updates times places
SCATTERING = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")


def _power(params: Mapping[str, Any]) -> str:
    exponent = params["y"]
    if not isinstance(exponent, int | float):
        return "x ** y"
    if exponent == 0.5:
        return "sqrt(x)"
    if exponent == -0.5:
        return "1 / sqrt(x)"
    if float(exponent).is_integer() and abs(exponent) <= 64:
        return f"x ** {int(exponent)}" if exponent >= 0 else f"1 / x ** {-int(exponent)}"
    return "x ** y"


def _comparison(relation: str) -> str:
    return f"where(x {relation} y, 1, 0)"


FORMULAS: dict[str, Row] = {
    **{name: f"{function}(x)" for name, function in recorded(1, spoken=True).items()},
    "neg": "-x", "rsqrt": "1 / sqrt(x)", "square": "x ** 2",
    "cbrt": "sign(x) * abs(x) ** (1/3)",
    "integer_pow": _power, "pow": _power,
    "add": "x + y", "add_any": "x + y", "sub": "x - y", "mul": "x * y", "div": "x / y",
    "atan2": "atan2(x, y)", "max": "maximum(x, y)", "min": "minimum(x, y)",
    "clamp": "minimum(maximum(y, x), z)",  # of low, operand, high
    "gt": _comparison(">"), "ge": _comparison(">="), "lt": _comparison("<"), "le": _comparison("<="),
    "eq": _comparison("=="), "ne": _comparison("!="),
    "not": "where(x == 0, 1, 0)",
    "and": "where((x != 0) & (y != 0), 1, 0)", "or": "where((x != 0) | (y != 0), 1, 0)",
}  # fmt: skip


def _of_x(name: str) -> Callable[..., Expr]:
    return lambda x: FORMS[name](x)


SCALARS: dict[str, Callable[..., Expr]] = {
    **{name: _of_x(function) for name, function in recorded(1, spoken=False).items()},
    "rem": lambda x, y: x - y * FORMS["trunc"](x / y),
    "polygamma": lambda x, y: sympy.polygamma(x, y),
}

# Functions of JAX's own that have a rule of their own: that of logaddexp is exp(x - logaddexp(x, y)).
KNOWN: dict[str, Callable[..., Expr]] = {"logaddexp": lambda x, y: FORMS["logaddexp"](x, y)}

MOVES = frozenset(
    """broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice gather concatenate pad rev
    squeeze expand_dims select_n split stack tile unstack""".split()
)
SAME = frozenset(
    "copy copy_p convert_element_type optimization_barrier device_put name pvary sharding_constraint "
    "layout_constraint".split()
)


class EquationLowering(Writing):
    """Lowers equations. `stops` are the nodes that stand for what `stop_gradient` gave, by the equation."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.stops: dict[int, str] = {}

    def equations(self, equations: Sequence[Equation]) -> None:
        """Raises `UnsupportedError` for a primitive without a formula."""
        for equation in equations:
            self.equation(equation)

    def equation(self, equation: Equation) -> None:
        name = equation.name
        if not any(self.is_reached(array) for array in equation.args):
            return  # what no gradient reaches is taken as JAX computed it
        if not any(out.floating or str(out.dtype) == "bool" for out in equation.outs):
            return
        if all(size(out.shape) == 0 for out in equation.outs):
            return
        complexes = {array.complex for array in (*equation.args, *equation.outs)}
        through = name in CUSTOM or name == STOP or (name in SAME and len(complexes) == 1)
        try:
            if True in complexes and not through:
                self._of_pairs(equation, name)
            else:
                self._primitive(equation, name)
        except InputError as error:
            raise UnsupportedError(f"{name}: {error.message}") from None

    def _primitive(self, equation: Equation, name: str) -> None:
        args, outs = equation.args, equation.outs
        if equation.known in KNOWN:
            self.write(outs[0], self.scalar(KNOWN[equation.known], self._operands(equation), outs[0].shape))
        elif name in CUSTOM:
            self.equations(equation.body)
            for out, inner in zip(outs, equation.results, strict=True):
                self.memory.know(out, self.content(inner))
        elif name == STOP:
            operand = self.operand(args[0])
            made = self.emit(slot(0), (Read(operand.node, operand.index),), outs[0].shape, source=STOP)
            self.stops[id(equation)] = made
            self.write(outs[0], made)
        elif name in SAME:
            for out, arg in zip(outs, args, strict=True):
                if out.floating and not arg.floating and str(arg.dtype) != "bool":
                    continue  # of integers: a constant
                self.memory.know(out, self.content(arg))
        elif name in SPECIAL:
            SPECIAL[name](self, equation)
        elif name in MOVES:
            if name == "select_n" and self.is_reached(args[0]):
                self._said(equation, "where(x > 0.5, z, y)")
            else:
                self._placed(equation)
        elif name in SCALARS:
            self.write(outs[0], self.scalar(SCALARS[name], self._operands(equation), outs[0].shape))
        elif name in FORMULAS:
            self._said(equation, FORMULAS[name])
        elif any(out.floating for out in outs):
            raise UnsupportedError(f"{name} has no formula")
        # A flag without a formula (is_finite) is taken as JAX computed it.

    def _of_pairs(self, equation: Equation, name: str) -> None:
        """By what it does to real and imaginary parts."""
        rule = by_pairs(
            name, equation.params, partial(applied, equation.primitive, params=_of_parts(equation.params)),
            [array.complex for array in equation.args],
        )  # fmt: skip
        with at_width([*equation.args, *equation.outs]):  # a report's numbers are worked out later on
            args = [
                replace(array, numbers=jnp.asarray(array.values, array.dtype), complex=False)
                if array.complex
                else array
                for array in equation.args
            ]
            closed = jax.make_jaxpr(rule)(*(array.numbers for array in args))
            equations, results = inside(closed.jaxpr, closed.consts, args)
        self.equations(equations)
        for out, inner in zip(equation.outs, results, strict=True):
            self.memory.know(out, self.content(inner))

    def _operands(self, equation: Equation) -> dict[str, Any]:
        """The operands by their names; a number that no gradient reaches is itself."""
        named: dict[str, Any] = {}
        for letter, array in zip(OPERANDS, equation.args, strict=False):
            plain = not array.shape and not self.is_reached(array) and isfinite(float(array.values))
            named[letter] = float(array.values) if plain else array
        return named

    def _said(self, equation: Equation, row: Row) -> None:
        (out,) = equation.outs
        operands = self._operands(equation)
        text = row if isinstance(row, str) else row({**operands, **equation.params})
        self.write(out, self.text(text, operands, out.shape))

    # Moves

    def _placed(self, equation: Equation) -> None:
        """The primitive, run on numbers that stand for places; 0 stands for the number 0."""
        codes = Codes()
        given: list[Any] = []
        for n, array in enumerate(equation.args):
            chooses = n == 0 and equation.name == "select_n"
            moves = array.dtype == equation.outs[0].dtype and not chooses
            given.append(self.codes_of(array, codes) if moves else array.numbers)
        moved = applied(equation.primitive, given, equation.params)
        for out, numbers in zip(equation.outs, moved, strict=True):
            at = np.asarray(numbers).astype(np.int64)
            if (at < 0).any():
                raise UnsupportedError(f"{equation.name}: it reads outside of its operand")
            self.write(out, self.assemble(codes.content(at), at.shape))

    def codes_of(self, array: Array, codes: Codes) -> Any:
        return jnp.asarray(codes.of(self.content(array)), jnp.int32)

    # Helpers of the special ones

    def whole(self, array: Array, index: Sequence[Any], fill: float = 0.0) -> Read:
        """A read of the array's entries; beyond its edge lies the fill, and not what lies there in what it is
        a view of."""
        operand: Operand = self.operand(array)
        plain = tuple(map(free, range(len(array.shape))))
        node = operand.node
        if operand.index != plain or self.shapes[node] != array.shape:
            node = self.emit(slot(0), (Read(node, operand.index),), array.shape, source="copy")
        return Read(node, tuple(index), fill)

    def at(self, array: Array, index: Sequence[Any]) -> Read:
        """A read of the array's entries, all of them inside."""
        operand = self.operand(array)
        axes = {free(n): axis for n, axis in enumerate(index)}
        return Read(operand.node, tuple(e.xreplace(axes) for e in operand.index))


def _of_parts(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a primitive for the parts of its operands."""
    kind = params.get("preferred_element_type")
    if kind is None or not jnp.issubdtype(kind, jnp.complexfloating):
        return dict(params)
    return {**params, "preferred_element_type": np.zeros((), kind).real.dtype}


Special = Callable[[EquationLowering, Equation], None]


def _reduction(reduce: str) -> Special:
    def lowered(self: EquationLowering, equation: Equation) -> None:
        (x,), (out,) = equation.args, equation.outs
        axes = sorted(axis % len(x.shape) for axis in equation.params["axes"]) if x.shape else []
        kept = [n for n in range(len(x.shape)) if n not in axes]
        index = [bound(axes.index(n)) if n in axes else free(kept.index(n)) for n in range(len(x.shape))]
        over = tuple(x.shape[n] for n in axes)
        read = self.at(x, index)
        source = f"{reduce}({read.parent})" if read.parent in self.leaves else reduce
        self.write(
            out,
            self.emit(slot(0), (read,), out.shape, over=over, reduce=reduce if over else None, source=source),
        )

    return lowered


def _running(reduce: str, fill: float) -> Special:
    def lowered(self: EquationLowering, equation: Equation) -> None:
        (x,), (out,) = equation.args, equation.outs
        axis = equation.params["axis"]
        index: list[Expr] = [free(n) for n in range(len(x.shape))]
        index[axis] = free(axis) + bound(0) if equation.params.get("reverse") else free(axis) - bound(0)
        read = self.whole(x, index, fill)
        made = self.emit(
            slot(0), (read,), out.shape, over=(x.shape[axis],), reduce=reduce, source=f"cum{reduce}"
        )
        self.write(out, made)

    return lowered


def _dot_general(self: EquationLowering, equation: Equation) -> None:
    """Batch axes, then the left operand's own, then the right one's; summed over what is contracted."""
    (x, y), (out,) = equation.args, equation.outs
    (x_sum, y_sum), (x_batch, y_batch) = equation.params["dimension_numbers"]

    def index(rank: int, batch: Sequence[int], summed: Sequence[int], start: int) -> list[Expr]:
        axes: dict[int, Expr] = {n: free(k) for k, n in enumerate(batch)}
        axes |= {n: bound(k) for k, n in enumerate(summed)}
        own = [n for n in range(rank) if n not in axes]
        axes |= {n: free(start + k) for k, n in enumerate(own)}
        return [axes[n] for n in range(rank)]

    left = self.at(x, index(len(x.shape), x_batch, x_sum, len(x_batch)))
    right = self.at(y, index(len(y.shape), y_batch, y_sum, len(x.shape) - len(x_sum)))
    over = tuple(x.shape[n] for n in x_sum)
    source = " @ ".join(read.parent if read.parent in self.leaves else "…" for read in (left, right))
    reduce = "sum" if over else None
    self.write(
        out, self.emit(slot(0) * slot(1), (left, right), out.shape, over=over, reduce=reduce, source=source)
    )


def _pairs(given: Any, count: int) -> list[tuple[int, int]]:
    return [(0, 0)] * count if given is None else [(int(low), int(high)) for low, high in given]


def _convolution(self: EquationLowering, equation: Equation) -> None:
    """`y[n, c, l] = Σ_{m,k} x[n, group(c) + m, (l*stride + k*dilation - padding)/spread] w[c, m, k]`."""
    (x, w), (out,) = equation.args, equation.outs
    params = equation.params
    if params["batch_group_count"] != 1:
        raise UnsupportedError("conv_general_dilated: batch groups")
    numbers = params["dimension_numbers"]
    x_spec, w_spec, y_spec = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    axes = len(x_spec) - 2
    groups = params["feature_group_count"]
    ins, per_group = w.shape[w_spec[1]], w.shape[w_spec[0]] // groups
    n, c, m = free(y_spec[0]), free(y_spec[1]), bound(0)
    x_index: list[Expr] = [Integer(0)] * len(x.shape)
    w_index: list[Expr] = [Integer(0)] * len(w.shape)
    x_index[x_spec[0]], w_index[w_spec[0]], w_index[w_spec[1]] = n, c, m
    x_index[x_spec[1]] = sympy.floor(c / per_group) * ins + m if groups > 1 else m
    padding = _pairs(params["padding"], axes)
    for d in range(axes):
        axis = free(y_spec[2 + d])
        stride, spread = params["window_strides"][d], params["lhs_dilation"][d]
        dilation = params["rhs_dilation"][d]
        taps = w.shape[w_spec[2 + d]]
        if spread == 1:
            place: Any = axis * stride + bound(1 + d) * dilation - padding[d][0]
        else:
            extent, long = x.shape[x_spec[2 + d]], out.shape[y_spec[2 + d]]
            at = np.arange(long)[:, None] * stride + np.arange(taps)[None, :] * dilation - padding[d][0]
            hit = (at % spread == 0) & (at >= 0) & (at // spread < extent)
            place = table(np.where(hit, at // spread, -1), {0: axis, 1: bound(1 + d)})
        x_index[x_spec[2 + d]] = place
        w_index[w_spec[2 + d]] = bound(1 + d)
    over = (ins, *(w.shape[w_spec[2 + d]] for d in range(axes)))
    reads = (self.whole(x, x_index), self.at(w, w_index))
    self.write(
        out, self.emit(slot(0) * slot(1), reads, out.shape, over=over, reduce="sum", source="convolution")
    )


def _window(reduce: str, fill: float) -> Special:
    def lowered(self: EquationLowering, equation: Equation) -> None:
        x, (out,) = equation.args[0], equation.outs
        params = equation.params
        rank = len(x.shape)
        if any(spread != 1 for spread in params.get("base_dilation") or (1,) * rank):
            raise UnsupportedError(f"{equation.name}: a dilated base")
        dilation = params.get("window_dilation") or (1,) * rank
        padding = _pairs(params["padding"], rank)
        index = [
            free(n) * params["window_strides"][n] + bound(n) * dilation[n] - padding[n][0]
            for n in range(rank)
        ]
        read = self.whole(x, index, fill)
        over = tuple(params["window_dimensions"])
        self.write(out, self.emit(slot(0), (read,), out.shape, over=over, reduce=reduce, source="window"))

    return lowered


def _taken(self: EquationLowering, array: Array, codes: np.ndarray, out: Array) -> None:
    """The array's entries at flat places."""
    content = self.content(array)
    self.write(
        out,
        self.assemble(Content(content.who.reshape(-1)[codes], content.where.reshape(-1)[codes]), out.shape),
    )


def _sort(self: EquationLowering, equation: Equation) -> None:
    """The order is the one that JAX sorts places into."""
    params, args = equation.params, equation.args
    axis = params["dimension"]
    shape = args[0].shape
    places = jnp.asarray(np.arange(size(shape), dtype=np.int32).reshape(shape))
    *_, order = jax.lax.sort(
        (*(array.numbers for array in args), places),
        dimension=axis,
        is_stable=params["is_stable"],
        num_keys=params["num_keys"],
    )
    for array, out in zip(args, equation.outs, strict=True):
        if out.floating:
            _taken(self, array, np.asarray(order), out)


def _top_k(self: EquationLowering, equation: Equation) -> None:
    (x,), (values, indices) = equation.args, equation.outs
    places = np.arange(size(x.shape)).reshape(x.shape)
    axis = equation.params.get("axis", len(x.shape) - 1)
    _taken(self, x, np.take_along_axis(places, np.asarray(indices.numbers), axis), values)


def _scatter_add(self: EquationLowering, equation: Equation) -> None:
    """Where each update goes is seen by scattering it alone."""
    (x, indices, updates), (out,) = equation.args, equation.outs
    params = equation.params
    count, places = size(updates.shape), size(x.shape)
    if count * places > MAX_SCATTER:
        raise UnsupportedError(f"{equation.name}: {count} updates to {places} places")

    def scattered(one: Any) -> Any:
        return jax.lax.scatter_add(
            jnp.zeros(x.shape, jnp.int32), indices.numbers, one, **{name: params[name] for name in SCATTERING}
        )

    units = jnp.eye(count, dtype=jnp.int32).reshape(count, *updates.shape)
    hit = np.asarray(jax.vmap(scattered)(units)).reshape(count, places)
    to = np.where(hit.any(axis=1), hit.argmax(axis=1), -1).reshape(updates.shape)
    own = np.arange(places).reshape(x.shape)
    self.write(out, self.accumulate(x.shape, [(self.content(x), own), (self.content(updates), to)]))


def _scatter(self: EquationLowering, equation: Equation) -> None:
    """The last update of a place is its entry, in the order that JAX writes them."""
    (x, indices, updates), (out,) = equation.args, equation.outs
    codes = Codes()
    moved = jax.lax.scatter(
        self.codes_of(x, codes),
        indices.numbers,
        self.codes_of(updates, codes),
        **{name: equation.params[name] for name in SCATTERING},
    )
    at = np.asarray(moved).astype(np.int64)
    self.write(out, self.assemble(codes.content(at), at.shape))


def _exp2(self: EquationLowering, equation: Equation) -> None:
    """`2 ** x`; the base is a constant of the formula."""
    (x,), (out,) = equation.args, equation.outs
    read = self.at(x, tuple(map(free, range(len(x.shape)))))
    self.write(out, self.emit(Rational(2) ** slot(0), (read,), out.shape, source="2 ** x"))


SPECIAL: dict[str, Special] = {
    "reduce_sum": _reduction("sum"), "reduce_prod": _reduction("prod"),
    "reduce_max": _reduction("max"), "reduce_min": _reduction("min"),
    "cumsum": _running("sum", 0.0), "cumprod": _running("prod", 1.0),
    "cummax": _running("max", -np.inf), "cummin": _running("min", np.inf),
    "reduce_window_sum": _window("sum", 0.0), "reduce_window_max": _window("max", -np.inf),
    "reduce_window_min": _window("min", np.inf),
    "dot_general": _dot_general, "conv_general_dilated": _convolution,
    "sort": _sort, "top_k": _top_k,
    "scatter-add": _scatter_add, "scatter_add": _scatter_add, "scatter": _scatter,
    "exp2": _exp2,
}  # fmt: skip
