"""The language: NumPy's meaning, and index notation where people think in it, as a graph.

Here are the operations that look at whole tensors: reductions, products, and what only moves entries. A
reduction takes the operation under it into its own formula, so `X @ w` and `sum(X[i,k]*w[k], k)` are the same
node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import sympy
from sympy import Expr, Integer, Piecewise

from ..errors import InputError
from ..proof.graph import Graph, Leaf, Node, Read, Shape, bound, free, size, slot, unravelled
from .rules import Build, Lowering, Value, short, substitute
from .syntax import Statement, Term


def build_graph(statements: Sequence[Statement], leaves: Mapping[str, Leaf]) -> Graph:
    """The graph of the statements over the leaves; the last statement is the output.

    Raises `InputError` for what does not fit: names, shapes, indices, a line that nothing uses.
    """
    bound_names = {name: leaf.shape for name, leaf in leaves.items()}
    nodes: list[Node] = []
    used: set[str] = set()
    later = {statement.name: statement for statement in statements}
    for statement in statements:
        name = statement.name
        if name in bound_names:
            what = "a value of the point" if name in leaves else "a line above"
            raise InputError(f"name {name!r} is bound twice: it is {what} already", statement.place)
        made = _Language(statement, bound_names, later).run()
        used.update(read.parent for node in made for read in node.reads)
        nodes.extend(made)
        bound_names[name] = made[-1].shape
    _check_uses(statements, used)
    output = nodes[-1]
    if output.shape != ():
        raise InputError(
            f"the output {output.name!r} has shape {output.shape}; expected a scalar: reduce it, as in "
            f"'loss = sum({output.name})' or 'loss = mean({output.name})'",
            statements[-1].place,
        )
    return Graph(tuple(leaves.values()), tuple(nodes))


def _check_uses(statements: Sequence[Statement], used: set[str]) -> None:
    """Of a line that nothing uses no engine has a gradient; a value that nothing uses is told, and no
    fault."""
    for statement in statements[:-1]:
        if statement.name not in used:
            raise InputError(
                f"nothing uses {statement.name!r}; the last line is the output: remove this line or use it",
                statement.place,
            )


def lower(statement: Statement, shapes: Mapping[str, Shape]) -> list[Node]:
    """The nodes of one statement over tensors of these shapes; the last one has the statement's name.

    Raises `InputError` for what does not fit.
    """
    return _Language(statement, shapes, {}, recorded=True).run()


class _Language(Lowering):
    """The lowering of every operation of the language."""

    # Reductions

    def _reduction_axes(self, term: Term, value: Value) -> tuple[int, ...]:
        """The positions that the term reduces over."""
        over = term.options.get("over")
        axis = term.options.get("axis")
        if value.labels is not None:
            if over is None:
                self.fail(term, f"{term.op}() of indexed tensors names its indices, as in {term.op}(x[i], i)")
            for label in over:
                if label not in value.labels:
                    self.fail(term, f"{short(term.source)} does not depend on index {label!r}")
            return tuple(value.labels.index(label) for label in over)
        if over is not None:
            pair = {"max": "maximum", "min": "minimum"}.get(term.op)
            cure = f"; of two tensors write {pair}(a, b)" if pair and over[0] in self.names else ""
            why = "an axis is a number, and an index stands with indexed tensors"
            self.fail(term, f"{over[0]!r} is no axis: {why}, as in {term.op}(x[i], i){cure}")
        rank = len(value.shape)
        axes = range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis
        for position in axes:
            if not -rank <= position < rank:
                self.fail(term, f"axis {position} of shape {value.shape} in {short(term.source)}")
        return tuple(sorted({position % rank for position in axes}))

    def _reduce(
        self,
        term: Term,
        reduce: str,
        build: Build,
        operands: list[Value],
        axes: tuple[int, ...],
        *,
        shift: bool = False,
        source: str = "",
    ) -> Value:
        """`reduce over axes of build(operands)`; all operands have the first one's axes, or 1 where they are
        reduced."""
        if not axes:
            return self._elementwise(term, build, operands, shift=shift)
        first = operands[0]
        kept = [n for n in range(len(first.shape)) if n not in axes]
        symbols: dict[int, Expr] = {n: free(position) for position, n in enumerate(kept)}
        symbols |= {n: bound(position) for position, n in enumerate(axes)}
        formulas, reads = self._at(operands, symbols)
        return self._emit(
            term,
            build(*formulas),
            reads,
            tuple(first.shape[n] for n in kept),
            None if first.labels is None else tuple(first.labels[n] for n in kept),
            over=tuple(first.shape[n] for n in axes),
            reduce=reduce,
            shift=shift,
            source=source,
        )

    def _at(
        self, operands: Sequence[Value], symbols: Mapping[int, Expr]
    ) -> tuple[list[Expr], tuple[Read, ...]]:
        """The operands' entries at a place on each axis: formulas, and what their slots read."""
        formulas: list[Expr] = []
        reads: list[Read] = []
        for operand in operands:
            if operand.constant is not None:
                formulas.append(operand.constant)
                continue
            places = [symbols[n] if extent != 1 else Integer(0) for n, extent in enumerate(operand.shape)]
            inner, inner_reads = self._absorbed(operand, places)
            formulas.append(inner.xreplace({slot(n): slot(len(reads) + n) for n in range(len(inner_reads))}))
            reads.extend(inner_reads)
        return formulas, tuple(reads)

    def _absorbed(self, operand: Value, places: Sequence[Expr]) -> tuple[Expr, tuple[Read, ...]]:
        """The operand's own formula, if it is the operation just emitted and nothing but this reduction reads
        it."""
        last = self.nodes[-1] if self.nodes else None
        just_emitted = last is not None and last.name == operand.node and last.name not in self.pinned
        plain = operand.index == tuple(map(free, range(len(operand.shape))))
        if last is None or not just_emitted or not plain or last.reduce or last.shift or not last.reads:
            return slot(0), (Read(operand.node, substitute(operand.index, places)),)
        self.nodes.pop()
        reads = tuple(replace(read, index=substitute(read.index, places)) for read in last.reads)
        indices = {free(n): place for n, place in enumerate(places)}
        return last.formula.xreplace(indices), reads

    def _keep(
        self, term: Term, value: Value, before: Value, axes: tuple[int, ...], *, always: bool = False
    ) -> Value:
        """`keepdims`: the reduced axes come back with extent 1."""
        if before.labels is not None or not (always or term.options.get("keepdims")):
            return value
        shape = tuple(1 if n in axes else extent for n, extent in enumerate(before.shape))
        kept: list[Expr] = [free(n) for n in range(len(before.shape)) if n not in axes]
        return replace(value, shape=shape, index=substitute(value.index, kept))

    def _sum(self, term: Term, operands: list[Value]) -> Value:
        reduce = "sum" if term.op == "mean" else term.op
        value = self._tensor(term, operands[0])
        axes = self._reduction_axes(term, value)
        count = size(tuple(value.shape[n] for n in axes))
        build = (lambda z: z / count) if term.op == "mean" else (lambda z: z)
        return self._keep(term, self._reduce(term, reduce, build, [value], axes), value, axes)

    def _var(self, term: Term, operands: list[Value]) -> Value:
        value = self._pinned(term, operands[0])
        axes = self._reduction_axes(term, value)
        count = size(tuple(value.shape[n] for n in axes))
        freedom = count - term.options.get("ddof", 0)
        if freedom <= 0:
            self.fail(
                term, f"{short(term.source)} divides by {freedom}: {count} values, ddof={count - freedom}"
            )
        mean = self._reduce(
            term, "sum", lambda z: z / count, [value], axes, source=f"mean({self._operand(term)})"
        )
        mean = self._keep(term, mean, value, axes, always=True)
        name = f"var({self._operand(term)})"
        var = self._spread(term, "sum", lambda z, m: (z - m) ** 2 / freedom, [value, mean], axes, name)
        if term.op == "std":
            var = self._elementwise(term, sympy.sqrt, [var])
        return self._keep(term, var, value, axes)

    def _pinned(self, term: Term, value: Value) -> Value:
        """A value read more than once: its node must stay a node."""
        value = self._tensor(term, value)
        self.pinned.add(value.node)
        return value

    def _spread(
        self,
        term: Term,
        reduce: str,
        build: Build,
        operands: list[Value],
        axes: tuple[int, ...],
        source: str = "",
    ) -> Value:
        """`_reduce` of an elementwise formula of a value and its own reduction, in either notation."""
        value, inner = operands
        if value.labels is not None:
            inner = replace(
                inner,
                shape=tuple(1 if n in axes else extent for n, extent in enumerate(value.shape)),
                index=substitute(inner.index, [free(n) for n in range(len(value.shape)) if n not in axes]),
                labels=value.labels,
            )
        return self._reduce(term, reduce, build, [value, inner], axes, source=source)

    def _operand(self, term: Term) -> str:
        """The source of a function's operand, for naming the nodes inside it."""
        return self.statement.terms[term.args[0]].source

    def _norm(self, term: Term, operands: list[Value]) -> Value:
        value = self._tensor(term, operands[0])
        axes = self._reduction_axes(term, value)
        squares = self._reduce(
            term, "sum", lambda z: z**2, [value], axes, source=f"sum({self._operand(term)} ** 2)"
        )
        return self._keep(term, self._elementwise(term, sympy.sqrt, [squares]), value, axes)

    def _shifted(self, term: Term, value: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
        """The maximum and the log of the sum of `exp(x - maximum)`, both without a derivative.

        Softmax and its logarithm do not change when a constant is taken from every logit, so any shift gives
        the exact function and its exact derivative; these two are the shifts that an implementation rounds
        with.
        """
        peak = self._reduce(term, "max", lambda z: z, [value], axes, shift=True)
        peak = self._keep(term, peak, value, axes, always=True)
        total = self._spread(term, "sum", lambda z, m: sympy.exp(z - m), [value, peak], axes)
        log = self._elementwise(term, sympy.log, [total], shift=True)
        return peak, self._keep(term, log, value, axes, always=True)

    def _axis_of(self, term: Term, value: Value) -> tuple[int, ...]:
        if value.labels is not None:
            self.fail(
                term, f"{term.op}() works on whole tensors, not on indexed ones; write it with exp and sum"
            )
        if not value.shape:
            self.fail(term, f"{term.op}() needs at least one axis, got a scalar")
        axis = term.options.get("axis", -1 if term.op != "cumsum" else None)
        if axis is None and len(value.shape) == 1:
            axis = 0
        if not isinstance(axis, int) or not -len(value.shape) <= axis < len(value.shape):
            self.fail(term, f"{term.op}() over axis {axis} of shape {value.shape}")
        return (axis % len(value.shape),)

    def _softmax(self, term: Term, operands: list[Value]) -> Value:
        value = self._pinned(term, operands[0])
        axes = self._axis_of(term, value)
        if term.op == "log_softmax":
            peak, log = self._shifted(term, value, axes)
            shifted = [value, peak, log]
            rest = self._reduce(
                term, "sum", lambda z, m, c: sympy.exp(z - m - c), shifted, axes, source=self._exps(term)
            )
            rest = self._elementwise(term, sympy.log, [self._keep(term, rest, value, axes, always=True)])
            return self._elementwise(term, lambda z, m, c, r: z - m - c - r, [value, peak, log, rest])
        peak = self._keep(
            term, self._reduce(term, "max", lambda z: z, [value], axes, shift=True), value, axes, always=True
        )
        exps = self._elementwise(term, lambda z, m: sympy.exp(z - m), [value, peak])
        self.pinned.add(exps.node)  # the sum reads it, and so does the quotient
        total = self._reduce(term, "sum", lambda z: z, [exps], axes, source=self._exps(term))
        total = self._keep(term, total, value, axes, always=True)
        return self._elementwise(term, lambda z, s: z / s, [exps, total])

    def _exps(self, term: Term) -> str:
        return f"sum(exp({self._operand(term)}))"

    def _logsumexp(self, term: Term, operands: list[Value]) -> Value:
        value = self._pinned(term, operands[0])
        axes = self._reduction_axes(term, value)
        if value.labels is not None or not axes:
            self.fail(
                term,
                "logsumexp() works on whole tensors with at least one axis; write log(sum(exp(x[i]), i))",
            )
        peak, log = self._shifted(term, value, axes)
        shift = self._elementwise(term, lambda m, c: m + c, [peak, log], shift=True)
        rest = self._reduce(
            term, "sum", lambda z, c: sympy.exp(z - c), [value, shift], axes, source=self._exps(term)
        )
        rest = self._keep(term, rest, value, axes, always=True)
        whole = self._elementwise(term, lambda c, r: c + sympy.log(r), [shift, rest])
        if term.options.get("keepdims"):
            return whole
        kept = [n for n in range(len(value.shape)) if n not in axes]
        index: list[Expr] = [Integer(0)] * len(value.shape)
        for position, n in enumerate(kept):
            index[n] = free(position)
        return replace(whole, shape=tuple(value.shape[n] for n in kept), index=substitute(whole.index, index))

    # Products

    def _matmul(self, term: Term, operands: list[Value]) -> Value:
        a, b = operands
        for operand in (a, b):
            if operand.labels is not None:
                self.fail(
                    term, f"{short(term.source)}: in index notation a product is written sum(a[i,k]*b[k], k)"
                )
        if not a.shape or not b.shape:
            if term.op == "dot":
                return self._elementwise(term, lambda z, y: z * y, [a, b])
            self.fail(term, f"{short(term.source)} multiplies a scalar with '@'; write '*'")
        if a.shape[-1] != b.shape[-2 if len(b.shape) > 1 else 0]:
            self.fail(
                term,
                f"shapes {a.shape} and {b.shape} do not fit in {short(term.source)}: the inner extents "
                "differ",
            )
        batch = self._broadcast(term, [replace(a, shape=a.shape[:-2]), replace(b, shape=b.shape[:-2])])
        rows, columns = a.shape[-2:-1], b.shape[-1:] if len(b.shape) > 1 else ()

        def place(shape: Shape, tail: list[Expr]) -> list[Expr]:
            lead = [
                free(len(batch) - len(shape) + n) if extent != 1 else Integer(0)
                for n, extent in enumerate(shape)
            ]
            return lead + tail

        row: list[Expr] = [free(len(batch))] * len(rows)
        column: list[Expr] = [free(len(batch) + len(rows))] * len(columns)
        left = Read(a.node, substitute(a.index, place(a.shape[:-2], [*row, bound(0)])))
        right = Read(b.node, substitute(b.index, place(b.shape[:-2], [bound(0), *column])))
        shape = (*batch, *rows, *columns)
        return self._emit(term, slot(0) * slot(1), (left, right), shape, over=(a.shape[-1],), reduce="sum")

    def _outer(self, term: Term, operands: list[Value]) -> Value:
        a, b = operands
        if any(operand.labels is not None or len(operand.shape) != 1 for operand in operands):
            self.fail(term, f"outer() takes two vectors, got shapes {a.shape} and {b.shape}")
        column = replace(a, shape=(a.shape[0], 1), index=a.index)
        return self._elementwise(term, lambda z, y: z * y, [column, b])

    def _trace(self, term: Term, operands: list[Value]) -> Value:
        (a,) = operands
        if a.labels is not None or len(a.shape) != 2 or a.shape[0] != a.shape[1]:
            self.fail(term, f"trace() takes a square matrix, got shape {a.shape}")
        read = Read(a.node, substitute(a.index, [bound(0), bound(0)]))
        return self._emit(term, slot(0), (read,), (), over=(a.shape[0],), reduce="sum")

    # Structure

    def _transpose(self, term: Term, operands: list[Value]) -> Value:
        (a,) = operands
        rank = len(a.shape)
        axes = term.options.get("axes", tuple(reversed(range(rank))))
        if a.labels is not None or sorted(axis % rank if rank else axis for axis in axes) != list(
            range(rank)
        ):
            self.fail(term, f"transpose() with axes {axes} of shape {a.shape}")
        axes = tuple(axis % rank for axis in axes)
        index: list[Expr] = [free(axes.index(n)) for n in range(rank)]
        return replace(a, shape=tuple(a.shape[axis] for axis in axes), index=substitute(a.index, index))

    def _reshape(self, term: Term, operands: list[Value]) -> Value:
        (a,) = operands
        asked = term.options.get("shape")
        if asked is None or a.labels is not None:
            self.fail(term, "reshape() takes a tensor and a shape, as in reshape(x, (2, 3))")
        shape = [asked] if isinstance(asked, int) else list(asked)
        total = size(a.shape)
        known = size(tuple(extent for extent in shape if extent != -1))
        if shape.count(-1) == 1 and known > 0 and total % known == 0:
            shape[shape.index(-1)] = total // known
        if any(extent < 1 for extent in shape) or size(tuple(shape)) != total:
            self.fail(term, f"reshape() of shape {a.shape} to {asked}: {total} entries do not fit")
        flat: Expr = Integer(0)
        for n, extent in enumerate(shape):
            flat = flat * extent + (free(n) if extent != 1 else 0)
        return replace(a, shape=tuple(shape), index=substitute(a.index, unravelled(flat, a.shape)))

    def _concatenate(self, term: Term, operands: list[Value]) -> Value:
        shapes = " and ".join(str(operand.shape) for operand in operands)
        if any(operand.labels is not None for operand in operands):
            self.fail(term, f"{term.op}() works on whole tensors, not on indexed ones")
        rank = len(operands[0].shape) + (term.op == "stack")
        axis = term.options.get("axis", 0)
        if not isinstance(axis, int) or rank == 0 or not -rank <= axis < rank:
            self.fail(term, f"{term.op}() along axis {axis} of shapes {shapes}")
        axis %= rank
        if term.op == "stack":
            operands = [
                replace(
                    operand,
                    shape=(*operand.shape[:axis], 1, *operand.shape[axis:]),
                    index=substitute(
                        operand.index, [free(n + (n >= axis)) for n in range(len(operand.shape))]
                    ),
                )
                for operand in operands
            ]
        rests = {(*operand.shape[:axis], *operand.shape[axis + 1 :]) for operand in operands}
        if len(rests) > 1 or any(len(operand.shape) != rank for operand in operands):
            self.fail(term, f"shapes {shapes} do not fit in {term.op}() along axis {axis}")
        reads: list[Read] = []
        pieces: list[tuple[Expr, Expr | bool]] = []
        start = 0
        for n, operand in enumerate(operands):
            extent = operand.shape[axis]
            shift: list[Expr] = [free(p) for p in range(rank)]
            shift[axis] = (free(axis) - start) if extent > 1 else Integer(0)
            value = operand.constant if operand.constant is not None else slot(len(reads))
            if operand.constant is None:
                reads.append(Read(operand.node, substitute(operand.index, shift)))
            start += extent
            pieces.append((value, free(axis) < start if n < len(operands) - 1 else True))
        shape = (*operands[0].shape[:axis], start, *operands[0].shape[axis + 1 :])
        return self._emit(term, Piecewise(*pieces), tuple(reads), shape)

    def _cumsum(self, term: Term, operands: list[Value]) -> Value:
        (a,) = operands
        (axis,) = self._axis_of(term, a)
        if a.index != tuple(map(free, range(len(a.shape)))):
            # Of a view: beyond its edge lies the rest of its parent, not the fill.
            a = self._emit(term, slot(0), (Read(a.node, a.index),), a.shape)
        index: list[Expr] = [free(n) for n in range(len(a.shape))]
        index[axis] = free(axis) - bound(0)
        read = Read(a.node, substitute(a.index, index))
        return self._emit(term, slot(0), (read,), a.shape, over=(a.shape[axis],), reduce="sum")

    tensors: ClassVar = {
        **dict.fromkeys(("sum", "mean", "prod", "max", "min"), _sum),
        **dict.fromkeys(("var", "std"), _var),
        "norm": _norm,
        **dict.fromkeys(("softmax", "log_softmax"), _softmax),
        "logsumexp": _logsumexp,
        **dict.fromkeys(("@", "dot"), _matmul),
        "outer": _outer,
        "trace": _trace,
        "transpose": _transpose,
        "reshape": _reshape,
        **dict.fromkeys(("concatenate", "stack"), _concatenate),
        "cumsum": _cumsum,
    }
