"""Statements to nodes, the part that is alike for every operation: names, broadcasting, conditions, index
notation.

Every operation becomes one node; views (transpose, slices, broadcasting) become index maps and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, NoReturn

import sympy
from sympy import Expr, Integer, Piecewise, Rational

from ..errors import InputError, did_you_mean
from ..functions import SPOKEN
from ..proof.functions import CONSTANTS, FORMS
from ..proof.graph import Node, Read, Shape, free, size, slot
from .syntax import Affine, Span, Statement, Term

MAX_POWER_BITS = 4096  # of a power of two constants, which SymPy would write out
MAX_ENTRIES = 4_000_000  # of one node's domain in a file: a ball takes a hundred bytes
MAX_RECORDED = (
    2**27
)  # ... of a recorded operation; sums of products are bounded by what goes in and comes out
MAX_RANK = 8

Build = Callable[..., Expr]


@dataclass(frozen=True)
class Value:
    """What a term stands for: a node (or leaf) read at an index map, or a constant.

    The axes are positional (NumPy) or labelled (index notation), never both. `index` is in terms of `free(n)`
    for the n-th axis.
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


class Lowering:
    """Lowers one statement: walks its terms once, in order.

    `tensors` are the operations that look at whole tensors: a subclass gives them.
    """

    tensors: ClassVar[Mapping[str, Callable[..., Value]]] = {}

    def __init__(
        self,
        statement: Statement,
        names: Mapping[str, Shape],
        later: Mapping[str, Statement],
        *,
        recorded: bool = False,
    ) -> None:
        self.recorded = recorded
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
            # A tie that never ends: each operand has half of it.
            return self._elementwise(term, lambda a, b: (a + b) / 2, operands)
        if term.op in _PLAIN:
            return _PLAIN[term.op](self, term, operands)
        if term.op in self.tensors:
            return self.tensors[term.op](self, term, operands)
        build = _OPERATORS.get(term.op)
        if build is None:
            build = FORMS[term.op]
            operands += [
                Value(constant=_rational(term.options.get(name, default)))
                for name, default in SPOKEN[term.op].options
            ]
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
            self.fail(
                term,
                f"{name!r} is used in its own line: a cycle; a name stands only for what is bound above it",
            )
        if name in self.later:
            self.fail(
                term,
                f"{name!r} is used before it is bound, in line {self.later[name].place.line}: move that up",
            )
        if name in self.extents:
            self.fail(
                term,
                f"{name!r} is an index, and an index is no value; put the numbers it stands for under "
                "[given]",
            )
        near = did_you_mean(name, [*self.names, *CONSTANTS])
        cure = near or "; give it a value under [given] or [parameters], or bind it in a line above"
        self.fail(term, f"unknown name {name!r}{cure}")

    def _constant(self, term: Term, _: list[Value]) -> Value:
        return Value(constant=_rational(term.value))

    # Elementwise operations

    def _elementwise(
        self, term: Term, build: Build, operands: Sequence[Value], *, shift: bool = False
    ) -> Value:
        """A node `build(operands)`, broadcast as NumPy does or over the union of the labels."""
        self._guard(term, operands)
        if operands and all(operand.constant is not None for operand in operands):
            constants = [operand.constant for operand in operands]
            folded = self._real(term, build(*constants))
            if _folds(term.op, constants, folded):
                return Value(constant=folded)
        if term.op != "**":
            # Of `0.3/x` engines take the reciprocal first: the printer of the arithmetic sees to that.
            kept = 1 if term.op == "/" and operands[0].constant is not None else 0
            operands = [*operands[:kept], *(self._held(term, operand) for operand in operands[kept:])]
        labels = self._union(term, operands)
        shape = (
            self._broadcast(term, operands)
            if labels is None
            else tuple(self.extents[label] for label in labels)
        )
        formulas, reads = self._reads(operands, shape, labels)
        value = self._emit(term, build(*formulas), reads, shape, labels, shift=shift)
        return replace(value, bits=self._bits(term, operands))

    def _held(self, term: Term, operand: Value) -> Value:
        """A constant that binary formats do not hold is a node of its own, whose value rounds: x/10 is not
        0.1*x."""
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
        lengths = [operand.bits or length(operand.constant) for operand in operands]
        exponent = operands[-1].constant
        if term.op == "**" and isinstance(exponent, Rational):
            bits = lengths[0] * max(1, abs(int(exponent)))
        else:
            bits = sum(lengths) if term.op in _OPERATORS else 64
        if bits > MAX_POWER_BITS:
            self.fail(term, f"the constant {short(term.source)} is too large to write out")
        return bits

    def _guard(self, term: Term, operands: Sequence[Value]) -> None:
        """Refuse what SymPy would expand without end, and powers that are no real function."""
        constants = [operand.constant for operand in operands]
        if term.op == "**":
            base, exponent = constants
            if isinstance(exponent, Rational):
                if abs(exponent) > 1024 or (
                    base is not None and length(base) * abs(exponent) > MAX_POWER_BITS
                ):
                    self.fail(
                        term,
                        f"the power {short(term.source)} is too large to write out (exponent at most 1024)",
                    )
            elif base is not None and not base.is_positive:
                self.fail(
                    term, f"{short(term.source)}: a base that is not positive takes a constant exponent only"
                )
        if term.op in ("gamma", "lgamma") and constants[0] is not None and not abs(constants[0]) <= 200:
            self.fail(
                term, f"{short(term.source)} is too large: the argument of a constant gamma is at most 200"
            )

    def _real(self, term: Term, formula: Expr) -> Expr:
        if formula.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.I) or formula.is_real is False:
            self.fail(term, f"{short(term.source)} is not a real number")
        if isinstance(formula, Rational) and abs(formula) >= 2**1024:
            self.fail(term, f"the constant {short(term.source)} is larger than any float64")
        return formula

    def _union(self, term: Term, operands: Iterable[Value]) -> tuple[str, ...] | None:
        """The labels of the operands together, those of the left side first and in its order; None for
        NumPy's axes."""
        found = [operand for operand in operands if operand.labels is not None]
        if not found:
            return None
        for operand in operands:
            if operand.labels is None and operand.shape:
                what = f"{operand.node!r} of shape {operand.shape} stands among indexed tensors"
                letters = ", ".join("ijklmn"[: len(operand.shape)])
                self.fail(term, f"{what}; index it, as in {operand.node}[{letters}]")
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
                    self.fail(term, f"shapes {shapes} do not fit in {short(term.source)}")
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
                axes = [
                    free(offset + n) if operand.shape[n] != 1 else Integer(0)
                    for n in range(len(operand.shape))
                ]
            reads.append(Read(operand.node, substitute(operand.index, axes)))
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
        products = reduce == "sum" and len(reads) == 2 and formula == sympy.Mul(slot(0), slot(1))
        domain = shape if self.recorded and products else shape + over
        entries = MAX_RECORDED if self.recorded else MAX_ENTRIES
        if size(domain) > entries or len(shape + over) > MAX_RANK:
            most = f"{entries:,} entries or {MAX_RANK} axes"
            self.fail(term, f"{short(term.source)} runs over {shape + over}, more than {most}")
        self._real(term, formula)
        name = f"{self.statement.name}.{len(self.nodes)}"
        self.nodes.append(
            Node(name, shape, formula, reads, over, reduce, self.statement.name, source or term.source, shift)
        )
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
        """How far each label runs: by a plain read `X[i]`, else as far as every read stays inside its
        tensor."""
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
                        needed = f"an index of its own is needed in {short(term.source)}"
                        self.fail(term, f"{label!r} is a value, not an index; {needed}")
                plain = item.plain
                if plain is None:
                    shifted.append((term, item, extent))
                elif plain not in said and extents.setdefault(plain, extent) != extent:
                    self.fail(
                        term,
                        f"index {plain!r} runs to {extents[plain]} and to {extent} (shape {shape} of "
                        f"{name!r})",
                    )
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
            self.fail(
                term, f"how far does {names} run? say it on the left, as in {self.statement.name}[i:5] = ..."
            )
        label, coefficient = unknown[0]
        known = [c * (extents[name] - 1) for name, c in item.labels if name in extents]
        lowest = item.constant + sum(step for step in known if step < 0)
        highest = item.constant + sum(step for step in known if step > 0)
        room = extent - 1 - highest if coefficient > 0 else lowest
        largest = room // abs(coefficient)
        if largest < 0 or lowest < 0 or highest >= extent:
            cure = f"say how far it runs, as in {self.statement.name}[{label}:5] = ..."
            self.fail(term, f"no {label!r} keeps {short(term.source)} inside; {cure}")
        extents[label] = largest + 1

    def _index(self, term: Term, operands: list[Value]) -> Value:
        (base,) = operands
        items = term.value
        if base.constant is not None or base.labels is not None:
            self.fail(term, f"{short(term.source)}: only a named tensor can be indexed")
        if any(isinstance(item, Affine) for item in items):
            return self._labelled(term, base)
        taken = [item for item in items if item is not None]
        if len(taken) > len(base.shape):
            self.fail(term, f"{len(taken)} indices for shape {base.shape} in {short(term.source)}")
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
                    self.fail(term, f"the slice {short(term.source)} of shape {base.shape} is empty")
                index.append(positions.start + positions.step * free(len(shape)))
                shape.append(len(positions))
            else:
                if not -extent <= item < extent:
                    self.fail(term, f"index {item} is outside of {extent} in {short(term.source)}")
                index.append(Integer(item % extent))
        return replace(base, shape=tuple(shape), index=substitute(base.index, index))

    def _labelled(self, term: Term, base: Value) -> Value:
        if base.node not in self.names:
            self.fail(
                term, f"{short(term.source)}: in index notation only a named tensor is indexed; name it first"
            )
        if len(term.value) != len(base.shape):
            self.fail(term, f"{len(term.value)} indices for shape {base.shape} in {short(term.source)}")
        labels = tuple(
            dict.fromkeys(
                label for item in term.value if isinstance(item, Affine) for label, _ in item.labels
            )
        )
        index: list[Expr] = []
        for item, extent in zip(term.value, base.shape, strict=True):
            if item is None or isinstance(item, Span):
                self.fail(term, "a slice does not stand beside an index such as i; index every axis")
            if isinstance(item, int):
                if not -extent <= item < extent:
                    self.fail(term, f"index {item} is outside of {extent} in {short(term.source)}")
                index.append(Integer(item % extent))
            else:
                terms = [c * free(labels.index(label)) for label, c in item.labels]
                index.append(sympy.Add(Integer(item.constant), *terms))
        shape = tuple(self.extents[label] for label in labels)
        return replace(base, shape=shape, index=substitute(base.index, index), labels=labels)

    def _tensor(self, term: Term, value: Value) -> Value:
        """A constant as a node, for the operations that read a tensor."""
        if value.constant is None:
            return value
        return replace(self._emit(term, value.constant, (), ()), bits=length(value.constant))

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
                self.fail(
                    term, f"index {label!r} is neither on the left of {statement.name!r} nor summed over"
                )
        for label in wanted:
            if label not in self.extents:
                raise InputError(
                    f"index {label!r} of {statement.name!r} does not appear on the right", statement.place
                )
        if wanted and value.labels is None and value.shape:
            self.fail(
                term,
                f"the left side is indexed, the right side is a tensor of shape {value.shape}; index it too",
            )
        if wanted:
            shape = tuple(self.extents[label] for label in wanted)
            index = substitute(value.index, [free(wanted.index(label)) for label in have])
            value = replace(value, shape=shape, index=index)
        last = self.nodes[-1] if self.nodes else None
        whole = tuple(map(free, range(len(value.shape))))
        if (
            last is None
            or last.name != value.node
            or value.index != whole
            or value.shape != last.shape
            or last.shift
        ):
            self._emit(term, slot(0), (Read(value.node, value.index),), value.shape)
        self.nodes[-1] = replace(self.nodes[-1], name=statement.name, source=statement.source)
        return self.nodes


def substitute(index: Iterable[Expr], axes: Sequence[Expr]) -> tuple[Expr, ...]:
    """The index map with the n-th axis at `axes[n]`."""
    places = {free(n): axis for n, axis in enumerate(axes)}
    return tuple(
        expression.xreplace(places) if expression.free_symbols else expression for expression in index
    )


def length(constant: Expr | None) -> int:
    """The bits of a rational; those of a float for any other constant."""
    return max(abs(constant.p), constant.q).bit_length() if isinstance(constant, Rational) else 64


def _folds(op: str, constants: Sequence[Expr | None], folded: Expr) -> bool:
    """Whether an operation on constants is one number: where every engine computes it without rounding, or
    with one.

    Integers are exact in Python, and so are short binary fractions; a quotient of integers rounds once. All
    else stays a node, whose operations round: `0.1 + 0.2 - 0.3` is not 0 in any engine.
    """
    if op not in _OPERATORS or not all(isinstance(constant, Rational) for constant in (*constants, folded)):
        return op in ("neg", "pos")
    numbers = [constant for constant in constants if isinstance(constant, Rational)]
    if op in ("neg", "pos") or all(number.q == 1 for number in (*numbers, folded)):
        return True
    if op == "/" and all(number.q == 1 and abs(number.p) < 2**24 for number in numbers):
        return True
    return all(
        (number.q & (number.q - 1)) == 0 and max(abs(number.p), number.q) < 2**24
        for number in (*numbers, folded)
    )


def _rational(number: int | Fraction | Expr) -> Expr:
    return Rational(number.numerator, number.denominator) if isinstance(number, int | Fraction) else number


def short(source: str) -> str:
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


_PLAIN: dict[str, Callable[[Lowering, Term, list[Value]], Value]] = {
    "name": Lowering._name,
    "number": Lowering._constant,
    "index": Lowering._index,
}
