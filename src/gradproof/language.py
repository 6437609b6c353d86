"""Statements to a graph: NumPy's meaning, and index notation where people think in it.

Every operation becomes one node; views (transpose, slices, reshape, broadcasting) become index maps and cost nothing.
A reduction takes the operation under it into its own formula, so `X @ w` and `sum(X[i,k]*w[k], k)` are the same node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NoReturn

import sympy
from sympy import Expr, Integer, Piecewise, Rational

from .errors import InputError, Place, did_you_mean
from .functions import CONSTANTS, SCALARS
from .graph import Graph, Leaf, Node, Read, Shape, bound, free, size, slot
from .syntax import Affine, Span, Statement, Term

MAX_POWER_BITS = 4096  # of a power of two constants, which SymPy would write out
MAX_ENTRIES = 4_000_000  # of one node's domain: a ball takes a hundred bytes
MAX_RANK = 8

Build = Callable[..., Expr]
Axis = str | None  # a label of index notation, or None for an axis of NumPy's


@dataclass(frozen=True)
class Value:
    """What a term stands for: a node (or leaf) read at an index map, or a constant.

    The axes are positional (NumPy) or labelled (index notation), never both. `index` is in terms of `free(n)` for the
    n-th axis.
    """

    shape: Shape = ()
    node: str = ""
    index: tuple[Expr, ...] = ()
    constant: Expr | None = None
    labels: tuple[str, ...] | None = None
    bits: int = 0  # of a node that is a constant: how long the number may be when it is written out


@dataclass(frozen=True)
class Condition:
    """A comparison inside `where(...)`: `build` makes the relation from the operands' formulas."""

    operands: tuple[Value, ...]
    build: Build


def build_graph(
    statements: Sequence[Statement], leaves: Mapping[str, Leaf], places: Mapping[str, Place] | None = None
) -> Graph:
    """The graph of the statements over the leaves, which stand at `places`; the last statement is the output.

    Raises `InputError` for what does not fit: names, shapes, indices, a value or a line that nothing uses.
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
        made = _Lowering(statement, bound_names, later).run()
        used.update(read.parent for node in made for read in node.reads)
        nodes.extend(made)
        bound_names[name] = made[-1].shape
    _check_uses(statements, leaves, used, places or {})
    output = nodes[-1]
    if output.shape != ():
        raise InputError(
            f"the output {output.name!r} has shape {output.shape}; expected a scalar: reduce it, as in "
            f"'loss = sum({output.name})' or 'loss = mean({output.name})'",
            statements[-1].place,
        )
    return Graph(tuple(leaves.values()), tuple(nodes))


def _check_uses(
    statements: Sequence[Statement], leaves: Mapping[str, Leaf], used: set[str], places: Mapping[str, Place]
) -> None:
    for statement in statements[:-1]:
        if statement.name not in used:
            raise InputError(
                f"nothing uses {statement.name!r}; the last line is the output: remove this line or use it",
                statement.place,
            )
    for leaf in leaves.values():
        if leaf.name not in used:
            table = "given" if leaf.given else "parameters"
            place = places.get(leaf.name, statements[0].place)
            raise InputError(f"nothing uses the value {leaf.name!r} of [{table}]; remove it or use it", place)


class _Lowering:
    """Lowers one statement: walks its terms once, in order."""

    def __init__(self, statement: Statement, names: Mapping[str, Shape], later: Mapping[str, Statement]) -> None:
        self.statement = statement
        self.names = names
        self.later = later
        self.nodes: list[Node] = []
        self.pinned: set[str] = set()
        self.extents = self._label_extents()

    def run(self) -> list[Node]:
        values: list[Value | Condition] = []
        for term in self.statement.terms:
            values.append(self._term(term, [values[n] for n in term.args]))
        return self._finish(self._number(values[-1], self.statement.terms[-1]))

    # Errors

    def fail(self, term: Term, message: str) -> NoReturn:
        raise InputError(message, term.place)

    def _number(self, value: Value | Condition, term: Term) -> Value:
        if isinstance(value, Condition):
            self.fail(term, "a comparison stands only as the first operand of where(condition, a, b)")
        return value

    # Terms

    def _term(self, term: Term, args: list[Value | Condition]) -> Value | Condition:
        if term.op == "compare":
            return self._compare(term, [self._number(arg, term) for arg in args])
        if term.op in ("and", "or", "not"):
            return self._logic(term, args)
        if term.op == "where":
            return self._where(term, args)
        operands = [self._number(arg, term) for arg in args]
        if term.op in ("maximum", "minimum") and operands[0] == operands[1]:
            return operands[0]
        if term.op in _STRUCTURE:
            return _STRUCTURE[term.op](self, term, operands)
        build = _OPERATORS.get(term.op)
        if build is None:
            row = SCALARS[term.op]
            build = row.formula
            operands += [Value(constant=_rational(term.options.get(name, default))) for name, default in row.options]
            if all(operand.constant is not None for operand in operands):
                # Not folded: sin(pi) is 0, and no engine's sin(pi) is.
                self._guard(term, operands)
                self._real(term, build(*(operand.constant for operand in operands)))
                operands = [self._tensor(term, operand) for operand in operands]
        return self._elementwise(term, build, operands)

    def _name(self, term: Term, _: list[Value]) -> Value:
        name = term.value
        if name in self.names:
            shape = self.names[name]
            return Value(shape, name, tuple(map(free, range(len(shape)))))
        if name in CONSTANTS:
            return Value(constant=CONSTANTS[name])
        self._unknown(term, name)

    def _unknown(self, term: Term, name: str) -> NoReturn:
        if name == self.statement.name:
            self.fail(term, f"{name!r} is used in its own line: a cycle; a name stands only for what is bound above it")
        if name in self.later:
            self.fail(term, f"{name!r} is used before it is bound, in line {self.later[name].place.line}: move that up")
        if name in self.extents:
            self.fail(term, f"{name!r} is an index, and an index is no value; put the numbers it stands for under [given]")
        near = did_you_mean(name, [*self.names, *CONSTANTS])
        cure = near or "; give it a value under [given] or [parameters], or bind it in a line above"
        self.fail(term, f"unknown name {name!r}{cure}")

    def _constant(self, term: Term, _: list[Value]) -> Value:
        return Value(constant=_rational(term.value))

    # Elementwise operations

    def _elementwise(self, term: Term, build: Build, operands: Sequence[Value], *, shift: bool = False) -> Value:
        """A node `build(operands)`, broadcast as NumPy does or over the union of the labels."""
        self._guard(term, operands)
        if operands and all(operand.constant is not None for operand in operands):
            constants = [operand.constant for operand in operands]
            folded = self._real(term, build(*constants))
            if _folds(term.op, constants, folded):
                return Value(constant=folded)
        if term.op != "**":
            operands = [self._held(term, operand) for operand in operands]
        labels = self._union(term, operands)
        shape = self._broadcast(term, operands) if labels is None else tuple(self.extents[label] for label in labels)
        formulas, reads = self._reads(operands, shape, labels)
        value = self._emit(term, build(*formulas), reads, shape, labels, shift=shift)
        return replace(value, bits=self._bits(term, operands))

    def _held(self, term: Term, operand: Value) -> Value:
        """A constant that binary formats do not hold is a node of its own, whose value rounds: x/10 is not 0.1*x."""
        constant = operand.constant
        if not isinstance(constant, Rational) or constant.q & (constant.q - 1) == 0:
            return operand
        return self._tensor(term, operand)

    def _bits(self, term: Term, operands: Sequence[Value]) -> int:
        """How long a constant may get when it is written out; 0 for what is no constant.

        Raises `InputError` before SymPy would write out a number without end.
        """
        if not operands or any(operand.constant is None and not operand.bits for operand in operands):
            return 0
        lengths = [operand.bits or _length(operand.constant) for operand in operands]
        exponent = operands[-1].constant
        if term.op == "**" and isinstance(exponent, Rational):
            bits = lengths[0] * max(1, abs(int(exponent)))
        else:
            bits = sum(lengths) if term.op in _OPERATORS else 64
        if bits > MAX_POWER_BITS:
            self.fail(term, f"the constant {_short(term.source)} is too large to write out")
        return bits

    def _guard(self, term: Term, operands: Sequence[Value]) -> None:
        """Refuse what SymPy would expand without end, and powers that are no real function."""
        constants = [operand.constant for operand in operands]
        if term.op == "**":
            base, exponent = constants
            if isinstance(exponent, Rational):
                if abs(exponent) > 1024 or (base is not None and _length(base) * abs(exponent) > MAX_POWER_BITS):
                    self.fail(term, f"the power {_short(term.source)} is too large to write out (exponent at most 1024)")
            elif base is not None and not base.is_positive:
                self.fail(term, f"{_short(term.source)}: a base that is not positive takes a constant exponent only")
        if term.op in ("gamma", "lgamma") and constants[0] is not None and not abs(constants[0]) <= 200:
            self.fail(term, f"{_short(term.source)} is too large: the argument of a constant gamma is at most 200")

    def _real(self, term: Term, formula: Expr) -> Expr:
        if formula.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.I) or formula.is_real is False:
            self.fail(term, f"{_short(term.source)} is not a real number")
        if isinstance(formula, Rational) and abs(formula) >= 2**1024:
            self.fail(term, f"the constant {_short(term.source)} is larger than any float64")
        return formula

    def _union(self, term: Term, operands: Iterable[Value]) -> tuple[str, ...] | None:
        """The labels of the operands together, those of the left side first and in its order; None for NumPy's axes."""
        found = [operand for operand in operands if operand.labels is not None]
        if not found:
            return None
        for operand in operands:
            if operand.labels is None and operand.shape:
                self.fail(
                    term, f"{operand.node!r} of shape {operand.shape} stands among indexed tensors; index it, as in "
                    f"{operand.node}[{', '.join('ijklmn'[: len(operand.shape)])}]",
                )  # fmt: skip
        seen = dict.fromkeys(label for operand in found for label in operand.labels or ())
        left = [label for label, _ in self.statement.labels if label in seen]
        return (*left, *(label for label in seen if label not in left))

    def _broadcast(self, term: Term, operands: Sequence[Value]) -> Shape:
        rank = max(len(operand.shape) for operand in operands)
        shape = [1] * rank
        for operand in operands:
            for position, extent in enumerate(operand.shape, rank - len(operand.shape)):
                if extent != 1 and shape[position] not in (1, extent):
                    shapes = " and ".join(str(operand.shape) for operand in operands if operand.shape)
                    self.fail(term, f"shapes {shapes} do not fit in {_short(term.source)}")
                shape[position] = extent if shape[position] == 1 else shape[position]
        return tuple(shape)

    def _reads(
        self, operands: Sequence[Value], shape: Shape, labels: tuple[str, ...] | None
    ) -> tuple[list[Expr], tuple[Read, ...]]:
        """The operands' formulas (slots or constants) and the reads behind the slots."""
        formulas: list[Expr] = []
        reads: list[Read] = []
        for operand in operands:
            if operand.constant is not None:
                formulas.append(operand.constant)
                continue
            formulas.append(slot(len(reads)))
            if labels is not None and operand.labels is not None:
                axes = [free(labels.index(label)) for label in operand.labels]
            else:
                offset = len(shape) - len(operand.shape)
                axes = [free(offset + n) if operand.shape[n] != 1 else Integer(0) for n in range(len(operand.shape))]
            reads.append(Read(operand.node, _substitute(operand.index, axes)))
        return formulas, tuple(reads)

    def _emit(
        self,
        term: Term,
        formula: Expr,
        reads: tuple[Read, ...],
        shape: Shape,
        labels: tuple[str, ...] | None = None,
        *,
        over: Shape = (),
        reduce: str | None = None,
        shift: bool = False,
        source: str = "",
    ) -> Value:
        if size(shape + over) > MAX_ENTRIES or len(shape + over) > MAX_RANK:
            self.fail(term, f"{_short(term.source)} runs over {shape + over}, more than {MAX_ENTRIES:,} entries or "
                            f"{MAX_RANK} axes")  # fmt: skip
        self._real(term, formula)
        name = f"{self.statement.name}.{len(self.nodes)}"
        self.nodes.append(Node(name, shape, formula, reads, over, reduce, self.statement.name, source or term.source, shift))
        return Value(shape, name, tuple(map(free, range(len(shape)))), labels=labels)

    # Conditions

    def _compare(self, term: Term, operands: list[Value]) -> Condition:
        relations = [_RELATIONS[op] for op in term.value]

        def build(*z: Expr) -> Expr:
            return sympy.And(*(relation(z[n], z[n + 1]) for n, relation in enumerate(relations)))

        return Condition(tuple(operands), build)

    def _logic(self, term: Term, args: list[Value | Condition]) -> Condition:
        conditions = [arg for arg in args if isinstance(arg, Condition)]
        if len(conditions) < len(args):
            self.fail(term, f"'{term.op}' joins comparisons, as in where((x > 0) & (x < 1), a, b)")
        join = {"and": sympy.And, "or": sympy.Or, "not": sympy.Not}[term.op]

        def build(*z: Expr) -> Expr:
            parts, start = [], 0
            for condition in conditions:
                parts.append(condition.build(*z[start : start + len(condition.operands)]))
                start += len(condition.operands)
            return join(*parts)

        return Condition(tuple(operand for condition in conditions for operand in condition.operands), build)

    def _where(self, term: Term, args: list[Value | Condition]) -> Value:
        condition, *branches = args
        if not isinstance(condition, Condition):
            self.fail(term, "the first operand of where() is a comparison, as in where(x > 0, a, b)")
        values = [self._number(branch, term) for branch in branches]

        def build(*z: Expr) -> Expr:
            return Piecewise((z[-2], condition.build(*z[:-2])), (z[-1], True))

        return self._elementwise(term, build, [*condition.operands, *values])

    # Index notation

    def _label_extents(self) -> dict[str, int]:
        """How far each label runs: by a plain read `X[i]`, else as far as every read stays inside its tensor."""
        extents = {label: extent for label, extent in self.statement.labels if extent is not None}
        said = set(extents)
        shifted: list[tuple[Term, Affine, int]] = []
        for term in self.statement.terms:
            if term.op != "index" or not any(isinstance(item, Affine) for item in term.value):
                continue
            name = self.statement.terms[term.args[0]].value
            shape = self.names.get(name) if self.statement.terms[term.args[0]].op == "name" else None
            if shape is None or len(shape) != len(term.value):
                continue  # said by _index, with its place
            for item, extent in zip(term.value, shape, strict=True):
                if not isinstance(item, Affine):
                    continue
                for label, _ in item.labels:
                    if label in self.names:
                        self.fail(term, f"{label!r} is a value, not an index; an index of its own is needed in "
                                        f"{_short(term.source)}")  # fmt: skip
                plain = item.plain
                if plain is None:
                    shifted.append((term, item, extent))
                elif plain not in said and extents.setdefault(plain, extent) != extent:
                    self.fail(term, f"index {plain!r} runs to {extents[plain]} and to {extent} (shape {shape} of {name!r})")
        for term, item, extent in shifted:
            self._extent_from_shift(term, item, extent, extents)
        return extents

    def _extent_from_shift(self, term: Term, item: Affine, extent: int, extents: dict[str, int]) -> None:
        """Of `x[2*i + k - 1]` with k known: the largest i for which every read stays inside."""
        unknown = [(label, c) for label, c in item.labels if label not in extents]
        if not unknown:
            return
        if len(unknown) > 1:
            names = " and ".join(repr(label) for label, _ in unknown)
            self.fail(term, f"how far does {names} run? say it on the left, as in {self.statement.name}[i:5] = ...")
        label, coefficient = unknown[0]
        known = [c * (extents[name] - 1) for name, c in item.labels if name in extents]
        lowest = item.constant + sum(step for step in known if step < 0)
        highest = item.constant + sum(step for step in known if step > 0)
        room = extent - 1 - highest if coefficient > 0 else lowest
        largest = room // abs(coefficient)
        if largest < 0 or lowest < 0 or highest >= extent:
            self.fail(term, f"no {label!r} keeps {_short(term.source)} inside; say how far it runs, as in "
                            f"{self.statement.name}[{label}:5] = ...")  # fmt: skip
        extents[label] = largest + 1

    def _index(self, term: Term, operands: list[Value]) -> Value:
        (base,) = operands
        items = term.value
        if base.constant is not None or base.labels is not None:
            self.fail(term, f"{_short(term.source)}: only a named tensor can be indexed")
        if any(isinstance(item, Affine) for item in items):
            return self._labelled(term, base)
        taken = [item for item in items if item is not None]
        if len(taken) > len(base.shape):
            self.fail(term, f"{len(taken)} indices for shape {base.shape} in {_short(term.source)}")
        whole = [Span(None, None, None)] * (len(base.shape) - len(taken))
        extents = iter(base.shape)
        index: list[Expr] = []
        shape: list[int] = []
        for item in (*items, *whole):
            if item is None:  # x[:, None]: a new axis of extent 1
                shape.append(1)
                continue
            extent = next(extents)
            if isinstance(item, Span):
                positions = range(extent)[slice(item.start, item.stop, item.step)]
                if not positions:
                    self.fail(term, f"the slice {_short(term.source)} of shape {base.shape} is empty")
                index.append(positions.start + positions.step * free(len(shape)))
                shape.append(len(positions))
            else:
                if not -extent <= item < extent:
                    self.fail(term, f"index {item} is outside of {extent} in {_short(term.source)}")
                index.append(Integer(item % extent))
        return replace(base, shape=tuple(shape), index=_substitute(base.index, index))

    def _labelled(self, term: Term, base: Value) -> Value:
        if base.node not in self.names:
            self.fail(term, f"{_short(term.source)}: in index notation only a named tensor is indexed; name it first")
        if len(term.value) != len(base.shape):
            self.fail(term, f"{len(term.value)} indices for shape {base.shape} in {_short(term.source)}")
        labels = tuple(dict.fromkeys(label for item in term.value if isinstance(item, Affine) for label, _ in item.labels))
        index: list[Expr] = []
        for item, extent in zip(term.value, base.shape, strict=True):
            if item is None or isinstance(item, Span):
                self.fail(term, "a slice does not stand beside an index such as i; index every axis")
            if isinstance(item, int):
                if not -extent <= item < extent:
                    self.fail(term, f"index {item} is outside of {extent} in {_short(term.source)}")
                index.append(Integer(item % extent))
            else:
                terms = [c * free(labels.index(label)) for label, c in item.labels]
                index.append(sympy.Add(Integer(item.constant), *terms))
        shape = tuple(self.extents[label] for label in labels)
        return replace(base, shape=shape, index=_substitute(base.index, index), labels=labels)

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
                    self.fail(term, f"{_short(term.source)} does not depend on index {label!r}")
            return tuple(value.labels.index(label) for label in over)
        if over is not None:
            pair = {"max": "maximum", "min": "minimum"}.get(term.op)
            cure = f"; of two tensors write {pair}(a, b)" if pair and over[0] in self.names else ""
            self.fail(term, f"{over[0]!r} is no axis: an axis is a number, and an index stands with indexed tensors, as in "
                            f"{term.op}(x[i], i){cure}")  # fmt: skip
        rank = len(value.shape)
        axes = range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis
        for position in axes:
            if not -rank <= position < rank:
                self.fail(term, f"axis {position} of shape {value.shape} in {_short(term.source)}")
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
        """`reduce over axes of build(operands)`; all operands have the first one's axes, or 1 where they are reduced."""
        first = operands[0]
        kept = [n for n in range(len(first.shape)) if n not in axes]
        over = tuple(first.shape[n] for n in axes)
        labels = None if first.labels is None else tuple(first.labels[n] for n in kept)
        if not axes:
            return self._elementwise(term, build, operands, shift=shift)
        symbols: dict[int, Expr] = {n: free(position) for position, n in enumerate(kept)}
        symbols |= {n: bound(position) for position, n in enumerate(axes)}
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
        shape = tuple(first.shape[n] for n in kept)
        return self._emit(
            term, build(*formulas), tuple(reads), shape, labels, over=over, reduce=reduce, shift=shift, source=source
        )

    def _absorbed(self, operand: Value, places: Sequence[Expr]) -> tuple[Expr, tuple[Read, ...]]:
        """The operand's own formula, if it is the operation just emitted and nothing but this reduction reads it."""
        last = self.nodes[-1] if self.nodes else None
        plain = operand.index == tuple(map(free, range(len(operand.shape))))
        if (
            last is None or last.name != operand.node or last.name in self.pinned
            or last.reduce or last.shift or not plain or not last.reads
        ):  # fmt: skip
            return slot(0), (Read(operand.node, _substitute(operand.index, places)),)
        self.nodes.pop()
        reads = tuple(replace(read, index=_substitute(read.index, places)) for read in last.reads)
        indices = {free(n): place for n, place in enumerate(places)}
        return last.formula.xreplace(indices), reads

    def _keep(self, term: Term, value: Value, before: Value, axes: tuple[int, ...], *, always: bool = False) -> Value:
        """`keepdims`: the reduced axes come back with extent 1."""
        if before.labels is not None or not (always or term.options.get("keepdims")):
            return value
        shape = tuple(1 if n in axes else extent for n, extent in enumerate(before.shape))
        kept: list[Expr] = [free(n) for n in range(len(before.shape)) if n not in axes]
        return replace(value, shape=shape, index=_substitute(value.index, kept))

    def _sum(self, term: Term, operands: list[Value]) -> Value:
        reduce = "sum" if term.op == "mean" else term.op
        value = self._tensor(term, operands[0])
        axes = self._reduction_axes(term, value)
        count = size(tuple(value.shape[n] for n in axes))
        build = (lambda z: z / count) if term.op == "mean" else (lambda z: z)
        return self._keep(term, self._reduce(term, reduce, build, [value], axes), value, axes)

    def _tensor(self, term: Term, value: Value) -> Value:
        """A constant as a node, for the operations that read a tensor."""
        if value.constant is None:
            return value
        return replace(self._emit(term, value.constant, (), ()), bits=_length(value.constant))

    def _var(self, term: Term, operands: list[Value]) -> Value:
        value = self._pinned(term, operands[0])
        axes = self._reduction_axes(term, value)
        count = size(tuple(value.shape[n] for n in axes))
        freedom = count - term.options.get("ddof", 0)
        if freedom <= 0:
            self.fail(term, f"{_short(term.source)} divides by {freedom}: {count} values, ddof={count - freedom}")
        mean = self._reduce(term, "sum", lambda z: z / count, [value], axes, source=f"mean({self._operand(term)})")
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
        self, term: Term, reduce: str, build: Build, operands: list[Value], axes: tuple[int, ...], source: str = ""
    ) -> Value:
        """`_reduce` of an elementwise formula of a value and its own reduction, in either notation."""
        value, inner = operands
        if value.labels is not None:
            inner = replace(
                inner,
                shape=tuple(1 if n in axes else extent for n, extent in enumerate(value.shape)),
                index=_substitute(inner.index, [free(n) for n in range(len(value.shape)) if n not in axes]),
                labels=value.labels,
            )
        return self._reduce(term, reduce, build, [value, inner], axes, source=source)

    def _operand(self, term: Term) -> str:
        """The source of a function's operand, for naming the nodes inside it."""
        return self.statement.terms[term.args[0]].source

    def _norm(self, term: Term, operands: list[Value]) -> Value:
        value = self._tensor(term, operands[0])
        axes = self._reduction_axes(term, value)
        squares = self._reduce(term, "sum", lambda z: z**2, [value], axes, source=f"sum({self._operand(term)} ** 2)")
        return self._keep(term, self._elementwise(term, sympy.sqrt, [squares]), value, axes)

    def _shifted(self, term: Term, value: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
        """The maximum and the log of the sum of `exp(x - maximum)`, both without a derivative.

        Softmax and its logarithm do not change when a constant is taken from every logit, so any shift gives the exact
        function and its exact derivative; these two are the shifts that an implementation rounds with.
        """
        peak = self._reduce(term, "max", lambda z: z, [value], axes, shift=True)
        peak = self._keep(term, peak, value, axes, always=True)
        total = self._spread(term, "sum", lambda z, m: sympy.exp(z - m), [value, peak], axes)
        log = self._elementwise(term, sympy.log, [total], shift=True)
        return peak, self._keep(term, log, value, axes, always=True)

    def _axis_of(self, term: Term, value: Value) -> tuple[int, ...]:
        if value.labels is not None:
            self.fail(term, f"{term.op}() works on whole tensors, not on indexed ones; write it with exp and sum")
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
            rest = self._reduce(term, "sum", lambda z, m, c: sympy.exp(z - m - c), shifted, axes, source=self._exps(term))
            rest = self._elementwise(term, sympy.log, [self._keep(term, rest, value, axes, always=True)])
            return self._elementwise(term, lambda z, m, c, r: z - m - c - r, [value, peak, log, rest])
        peak = self._keep(term, self._reduce(term, "max", lambda z: z, [value], axes, shift=True), value, axes, always=True)
        exps = self._elementwise(term, lambda z, m: sympy.exp(z - m), [value, peak])
        total = self._keep(term, self._plain_sum(term, exps, axes, self._exps(term)), value, axes, always=True)
        return self._elementwise(term, lambda z, s: z / s, [exps, total])

    def _exps(self, term: Term) -> str:
        return f"sum(exp({self._operand(term)}))"

    def _plain_sum(self, term: Term, value: Value, axes: tuple[int, ...], source: str) -> Value:
        """A sum that leaves its operand a node, because something else reads it too."""
        symbols = {n: free(p) for p, n in enumerate(n for n in range(len(value.shape)) if n not in axes)}
        symbols |= {n: bound(p) for p, n in enumerate(axes)}
        index = _substitute(value.index, [symbols[n] for n in range(len(value.shape))])
        shape = tuple(extent for n, extent in enumerate(value.shape) if n not in axes)
        over = tuple(value.shape[n] for n in axes)
        return self._emit(term, slot(0), (Read(value.node, index),), shape, over=over, reduce="sum", source=source)

    def _logsumexp(self, term: Term, operands: list[Value]) -> Value:
        value = self._pinned(term, operands[0])
        axes = self._reduction_axes(term, value)
        if value.labels is not None or not axes:
            self.fail(term, "logsumexp() works on whole tensors with at least one axis; write log(sum(exp(x[i]), i))")
        peak, log = self._shifted(term, value, axes)
        shift = self._elementwise(term, lambda m, c: m + c, [peak, log], shift=True)
        rest = self._reduce(term, "sum", lambda z, c: sympy.exp(z - c), [value, shift], axes, source=self._exps(term))
        rest = self._keep(term, rest, value, axes, always=True)
        whole = self._elementwise(term, lambda c, r: c + sympy.log(r), [shift, rest])
        if term.options.get("keepdims"):
            return whole
        kept = [n for n in range(len(value.shape)) if n not in axes]
        index: list[Expr] = [Integer(0)] * len(value.shape)
        for position, n in enumerate(kept):
            index[n] = free(position)
        return replace(whole, shape=tuple(value.shape[n] for n in kept), index=_substitute(whole.index, index))

    # Products

    def _matmul(self, term: Term, operands: list[Value]) -> Value:
        a, b = operands
        for operand in (a, b):
            if operand.labels is not None:
                self.fail(term, f"{_short(term.source)}: in index notation a product is written sum(a[i,k]*b[k], k)")
        if not a.shape or not b.shape:
            if term.op == "dot":
                return self._elementwise(term, lambda z, y: z * y, [a, b])
            self.fail(term, f"{_short(term.source)} multiplies a scalar with '@'; write '*'")
        if a.shape[-1] != b.shape[-2 if len(b.shape) > 1 else 0]:
            self.fail(term, f"shapes {a.shape} and {b.shape} do not fit in {_short(term.source)}: the inner extents differ")
        batch = self._broadcast(term, [replace(a, shape=a.shape[:-2]), replace(b, shape=b.shape[:-2])])
        rows, columns = a.shape[-2:-1], b.shape[-1:] if len(b.shape) > 1 else ()

        def place(shape: Shape, tail: list[Expr]) -> list[Expr]:
            lead = [free(len(batch) - len(shape) + n) if extent != 1 else Integer(0) for n, extent in enumerate(shape)]
            return lead + tail

        row: list[Expr] = [free(len(batch))] * len(rows)
        column: list[Expr] = [free(len(batch) + len(rows))] * len(columns)
        left = Read(a.node, _substitute(a.index, place(a.shape[:-2], [*row, bound(0)])))
        right = Read(b.node, _substitute(b.index, place(b.shape[:-2], [bound(0), *column])))
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
        read = Read(a.node, _substitute(a.index, [bound(0), bound(0)]))
        return self._emit(term, slot(0), (read,), (), over=(a.shape[0],), reduce="sum")

    # Structure

    def _transpose(self, term: Term, operands: list[Value]) -> Value:
        (a,) = operands
        rank = len(a.shape)
        axes = term.options.get("axes", tuple(reversed(range(rank))))
        if a.labels is not None or sorted(axis % rank if rank else axis for axis in axes) != list(range(rank)):
            self.fail(term, f"transpose() with axes {axes} of shape {a.shape}")
        axes = tuple(axis % rank for axis in axes)
        index: list[Expr] = [free(axes.index(n)) for n in range(rank)]
        return replace(a, shape=tuple(a.shape[axis] for axis in axes), index=_substitute(a.index, index))

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
        index: list[Expr] = []
        rest = total
        for extent in a.shape:
            rest //= extent
            place = sympy.floor(flat / rest) if rest > 1 else flat
            index.append((sympy.Mod(place, extent) if rest * extent < total else place) if extent > 1 else Integer(0))
        return replace(a, shape=tuple(shape), index=_substitute(a.index, index))

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
                    operand, shape=(*operand.shape[:axis], 1, *operand.shape[axis:]),
                    index=_substitute(operand.index, [free(n + (n >= axis)) for n in range(len(operand.shape))]),
                )
                for operand in operands
            ]  # fmt: skip
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
                reads.append(Read(operand.node, _substitute(operand.index, shift)))
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
        read = Read(a.node, _substitute(a.index, index))
        return self._emit(term, slot(0), (read,), a.shape, over=(a.shape[axis],), reduce="sum")

    # The end of the line

    def _finish(self, value: Value) -> list[Node]:
        """The line's last node under the line's name."""
        statement = self.statement
        term = statement.terms[-1]
        value = self._tensor(term, value)
        wanted = tuple(label for label, _ in statement.labels)
        have = value.labels or ()
        for label in have:
            if label not in wanted:
                self.fail(term, f"index {label!r} is neither on the left of {statement.name!r} nor summed over")
        for label in wanted:
            if label not in self.extents:
                raise InputError(f"index {label!r} of {statement.name!r} does not appear on the right", statement.place)
        if wanted and value.labels is None and value.shape:
            self.fail(term, f"the left side is indexed, the right side is a tensor of shape {value.shape}; index it too")
        if wanted:
            shape = tuple(self.extents[label] for label in wanted)
            index = _substitute(value.index, [free(wanted.index(label)) for label in have])
            value = replace(value, shape=shape, index=index)
        last = self.nodes[-1] if self.nodes else None
        whole = tuple(map(free, range(len(value.shape))))
        if last is None or last.name != value.node or value.index != whole or value.shape != last.shape or last.shift:
            self._emit(term, slot(0), (Read(value.node, value.index),), value.shape)
        self.nodes[-1] = replace(self.nodes[-1], name=statement.name, source=statement.source)
        return self.nodes


def _substitute(index: Iterable[Expr], axes: Sequence[Expr]) -> tuple[Expr, ...]:
    """The index map with the n-th axis at `axes[n]`."""
    places = {free(n): axis for n, axis in enumerate(axes)}
    return tuple(expression.xreplace(places) if expression.free_symbols else expression for expression in index)


def _length(constant: Expr | None) -> int:
    """The bits of a rational; those of a float for any other constant."""
    return max(abs(constant.p), constant.q).bit_length() if isinstance(constant, Rational) else 64


def _folds(op: str, constants: Sequence[Expr | None], folded: Expr) -> bool:
    """Whether an operation on constants is one number: where every engine computes it without rounding, or with one.

    Integers are exact in Python, and so are short binary fractions; a quotient of integers rounds once. All else stays a
    node, whose operations round: `0.1 + 0.2 - 0.3` is not 0 in any engine.
    """
    if op not in _OPERATORS or not all(isinstance(constant, Rational) for constant in (*constants, folded)):
        return op in ("neg", "pos")
    numbers = [constant for constant in constants if isinstance(constant, Rational)]
    if op in ("neg", "pos") or all(number.q == 1 for number in (*numbers, folded)):
        return True
    if op == "/" and all(number.q == 1 and abs(number.p) < 2**24 for number in numbers):
        return True
    return all((number.q & (number.q - 1)) == 0 and max(abs(number.p), number.q) < 2**24 for number in (*numbers, folded))


def _rational(number: int | Fraction | Expr) -> Expr:
    return Rational(number.numerator, number.denominator) if isinstance(number, int | Fraction) else number


def _short(source: str) -> str:
    return repr(source if len(source) <= 60 else source[:57] + "...")


_RELATIONS = {
    "<": sympy.StrictLessThan, "<=": sympy.LessThan, ">": sympy.StrictGreaterThan, ">=": sympy.GreaterThan,
    "==": sympy.Eq, "!=": sympy.Ne,
}  # fmt: skip

_OPERATORS: dict[str, Build] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "neg": lambda a: -a,
    "pos": lambda a: a,
}

_STRUCTURE: dict[str, Callable[[_Lowering, Term, list[Value]], Value]] = {
    "name": _Lowering._name,
    "number": _Lowering._constant,
    "index": _Lowering._index,
    **dict.fromkeys(("sum", "mean", "prod", "max", "min"), _Lowering._sum),
    **dict.fromkeys(("var", "std"), _Lowering._var),
    "norm": _Lowering._norm,
    **dict.fromkeys(("softmax", "log_softmax"), _Lowering._softmax),
    "logsumexp": _Lowering._logsumexp,
    **dict.fromkeys(("@", "dot"), _Lowering._matmul),
    "outer": _Lowering._outer,
    "trace": _Lowering._trace,
    "transpose": _Lowering._transpose,
    "reshape": _Lowering._reshape,
    **dict.fromkeys(("concatenate", "stack"), _Lowering._concatenate),
    "cumsum": _Lowering._cumsum,
}
