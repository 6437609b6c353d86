"""Nodes, written one after the other: of formulas over tensors, and of entries that were moved.

Which nodes a tensor's entries are is what `memory` tells; so a view costs nothing, and what was written in
place is known.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
import sympy
from sympy import Expr, Integer, Piecewise, Rational, S

from ..errors import Place, UnsupportedError
from ..language.builder import lower
from ..language.syntax import Statement, parse_statements
from ..proof.graph import Leaf, Lookup, Node, Read, Shape, bound, differentiated, free, reach, size, slot
from .memory import Content, Memory, index_map, index_of
from .tape import Region


@dataclass(frozen=True)
class Operand:
    """A tensor as the nodes read it: one node's entries at an index map in terms of `free(n)`."""

    node: str
    shape: Shape
    index: tuple[Expr, ...]


class Codes:
    """Numbers that stand for the entries of operands, so that an operation that only moves entries can be run
    on them; 0 stands for the number 0."""

    def __init__(self) -> None:
        self._operands: list[tuple[int, Content]] = []  # and the number of its first entry
        self._next = 1

    def of(self, content: Content) -> np.ndarray:
        """Numbers for an operand's entries."""
        first = self._next
        self._next += content.who.size
        self._operands.append((first, content))
        return np.arange(first, self._next).reshape(content.who.shape)

    def content(self, codes: np.ndarray) -> Content:
        """The entries that the numbers stand for."""
        who = np.full(codes.shape, -1, dtype=np.int32)
        where = np.zeros(codes.shape, dtype=np.int64)
        for first, operand in self._operands:
            mine = (codes >= first) & (codes < first + operand.who.size)
            moved = operand.at(codes[mine] - first)
            who[mine], where[mine] = moved.who, moved.where
        return Content(who, where)


class Writing:
    """The nodes of a run of operations. `leaves` are what they read from outside, `numbers` the values of
    those."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.memory = Memory()
        self.nodes: list[Node] = []
        self.leaves: dict[str, Leaf] = {}
        self.numbers: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.active: set[str] = set()  # what a gradient flows to
        self.reached: set[str] = set()  # what depends on such a value at all: a condition, too
        self.entered: list[tuple[Region, str]] = []

    def enter(self, name: str, region: Region, *, given: bool) -> None:
        """A tensor from outside: a leaf of that name."""
        self._leaf(name, region.kept, given=given)
        if any(region.turned):
            self.memory.know(region, self.memory.all_of(name, region.shape))
            return
        self.memory.enter(region, name)
        # A tensor and a view of it may both come from outside: the memory is the whole one's.
        for whole, its_name in self.entered:
            if whole.storage == region.storage and size(whole.shape) > size(region.shape):
                self.memory.enter(whole, its_name)
        self.entered.append((region, name))

    def _leaf(self, name: str, values: np.ndarray, *, given: bool) -> None:
        self.leaves[name] = Leaf(name, values.shape, given)
        self.numbers[name] = values
        self.shapes[name] = values.shape
        if not given:
            self.active.add(name)
            self.reached.add(name)

    def constant(self, values: np.ndarray) -> str:
        """Numbers that no gradient reaches, as a leaf."""
        name = f"{self.owner}.c{len(self.leaves)}"
        values = values if values.dtype == np.float32 else np.asarray(values, np.float64)
        self._leaf(name, values, given=True)
        return name

    def content(self, region: Region) -> Content:
        """Where each entry of a tensor comes from; what nothing here has computed is a constant."""
        if any(region.turned) and self.memory.known(region) is None:
            turned = self.memory.all_of(self._turned(region), region.shape)
            self.memory.know(region, turned)
            return turned
        content = self.memory.read(region)
        if content.alien and self.is_reached(region):
            raise UnsupportedError("memory that is seen as numbers of another dtype")
        if not content.alien and content.known():
            return content
        unknown = content.who < 0
        if content.alien:
            unknown = np.ones_like(unknown)
        if unknown.any():
            own = self.memory.all_of(self.constant(region.kept), region.shape)
            content = Content(
                np.where(unknown, own.who, content.who), np.where(unknown, own.where, content.where)
            )
            self.memory.know(region, content)
        return content

    def _turned(self, region: Region) -> str:
        """A node of the conjugate, or the negative, of what lies there."""
        return self.signed(self.operand(region.unturned), region.signs)

    def signed(self, operand: Operand, signs: np.ndarray) -> str:
        """A node of an operand, each entry, or each first and second, with a sign."""
        one, other = (slot(0) * int(sign) for sign in np.broadcast_to(signs, 2))
        last = free(len(operand.shape) - 1)
        part = one if one == other else Piecewise((one, last < sympy.S.Half), (other, True))
        return self.emit(part, (Read(operand.node, operand.index),), operand.shape, source="conj")

    def is_active(self, region: Region) -> bool:
        """Whether a gradient may flow to the tensor's entries."""
        return any(n >= 0 and self.memory.names[n] in self.active for n in self.memory.read(region).sources)

    def is_reached(self, region: Region) -> bool:
        """Whether the tensor's entries depend on such a value, if only by a condition."""
        return any(n >= 0 and self.memory.names[n] in self.reached for n in self.memory.read(region).sources)

    def operand(self, region: Region) -> Operand:
        """The tensor as one node at one index map; entries of several nodes are put together in a node of
        their own."""
        return self._gathered(self.content(region), region.shape, region)

    def _gathered(self, content: Content, shape: Shape, region: Region | None = None) -> Operand:
        sources = content.sources
        if not sources:
            return Operand(self.constant(np.zeros(shape)), shape, tuple(map(free, range(len(shape)))))
        if len(sources) == 1:
            name = self.memory.names[sources[0]]
            return Operand(name, shape, index_of(content, self.memory.shapes[sources[0]]))
        name = self.assemble(content, shape)
        if region is not None:
            self.memory.know(region, self.memory.all_of(name, shape))
        return Operand(name, shape, tuple(map(free, range(len(shape)))))

    def assemble(self, content: Content, shape: Shape) -> str:
        """A node whose entries are other nodes' entries, or 0 where the source is -1."""
        sources = content.sources
        if len(sources) == 1 and content.known():
            parent = self.memory.names[sources[0]]
            index = index_of(content, self.memory.shapes[sources[0]])
            return self.emit(slot(0), (Read(parent, index),), shape, source="parts")
        reads: list[Read] = []
        pieces: list[tuple[Any, Any]] = []
        which = np.zeros(shape)
        for n, source in enumerate(sources):
            which[content.who == source] = n
        chooser = slot(len([s for s in sources if s >= 0]))
        for n, source in enumerate(sources):
            value: Expr = Integer(0)
            if source >= 0:
                value = slot(len(reads))
                where = np.where(content.who == source, content.where, -1)
                reads.append(Read(self.memory.names[source], index_map(where, self.memory.shapes[source])))
            # Between the numbers, so that no branch stands at its boundary.
            pieces.append((value, chooser < n + sympy.S.Half if n < len(sources) - 1 else True))
        formula = pieces[0][0] if pieces else Integer(0)
        if len(sources) > 1:
            chosen = self.constant(which)
            reads.append(Read(chosen, tuple(map(free, range(len(shape))))))
            formula = Piecewise(*pieces)
        return self.emit(formula, tuple(reads), shape, source="parts")

    def emit(
        self,
        formula: Expr,
        reads: tuple[Read, ...],
        shape: Shape,
        *,
        over: Shape = (),
        reduce: str | None = None,
        source: str = "",
        name: str = "",
        shift: bool = False,
    ) -> str:
        """A new node; its name is returned."""
        name = name or f"{self.owner}.{len(self.nodes)}"
        if 0 in over:  # of nothing
            formula = {"sum": S.Zero, "prod": S.One, "max": S.NegativeInfinity, "min": S.Infinity}[
                reduce or ""
            ]
            over, reduce, reads = (), None, ()
        node = Node(name, shape, formula, reads, over, reduce, self.owner, source, shift)
        self.nodes.append(node)
        self.shapes[name] = shape
        if not shift and any(reads[n].parent in self.active for n in differentiated(node)):
            self.active.add(name)
        if any(read.parent in self.reached for read in reads):
            self.reached.add(name)
        return name

    def write(self, region: Region, name: str) -> None:
        """The node's entries are the tensor's from now on."""
        if any(region.turned):
            raise UnsupportedError("a write to what is seen as a conjugate or a negative")
        if self.shapes[name] != region.shape:
            raise UnsupportedError(f"a value of shape {self.shapes[name]} where torch has {region.shape}")
        self.memory.write(region, name)

    def forget(self, region: Region) -> None:
        """The tensor's numbers are constants from now on."""
        self.memory.put(region, Content.unknown(region.shape))

    def disown(self, region: Region) -> None:
        """A tensor of this geometry is a constant, also where the same memory holds what a gradient flows
        to."""
        self.memory.know(region, Content.unknown(region.shape))

    def copy(self, operand: Operand | Region, *, name: str = "", source: str = "copy") -> str:
        """A node of a tensor's entries, each in its own place."""
        operand = self.operand(operand) if isinstance(operand, Region) else operand
        return self.emit(
            slot(0), (Read(operand.node, operand.index),), operand.shape, name=name, source=source
        )

    def scalar(self, build: Callable[..., Expr], arguments: Mapping[str, Any], shape: Shape) -> str:
        """The node of a scalar function of the arguments that it names; tensors are broadcast to the
        shape."""
        reads: list[Read] = []
        given: dict[str, Any] = {}
        for name in inspect.signature(build).parameters:
            value = arguments.get(name)
            if isinstance(value, Region):
                operand = self.operand(value)
                axes: dict[Any, Expr] = {
                    free(n): free(len(shape) - len(operand.shape) + n) if extent != 1 else Integer(0)
                    for n, extent in enumerate(operand.shape)
                }
                reads.append(Read(operand.node, tuple(e.xreplace(axes) for e in operand.index)))
                value = slot(len(reads) - 1)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                value = Rational(Fraction(value))
            given[name] = value
        return self.emit(build(**given), tuple(reads), shape, source=build.__name__)

    def text(self, text: str, arguments: Mapping[str, Any], shape: Shape) -> str:
        """The nodes of a formula over operands by their names; the last one's name."""
        operands: dict[str, Operand] = {}
        numbers: dict[str, Fraction] = {}
        for name, value in arguments.items():
            if isinstance(value, Region):
                operands[name] = self.operand(value)
            elif isinstance(value, bool | int | float):
                if isfinite(value):
                    numbers[name] = Fraction(value)
                else:
                    operands[name] = Operand(self.constant(np.asarray(float(value))), (), ())
        shapes = tuple((name, operand.shape) for name, operand in operands.items())
        made = _template(text, tuple(numbers.items()), shapes)
        prefix = f"{self.owner}.{len(self.nodes)}f"  # apart from the copies that it may need
        for node in made:
            self.emit(
                node.formula,
                tuple(self._read(read, node, operands, prefix) for read in node.reads),
                node.shape,
                over=node.over,
                reduce=node.reduce,
                source=_readable(node.source.removeprefix("value = "), operands, self.leaves),
                name=f"{prefix}{node.name.removeprefix('value')}",
                shift=node.shift,
            )
        last = self.nodes[-1]
        if last.shape == shape:
            return last.name
        # Axes of extent 1 that torch keeps or drops, or entries that it repeats.
        own = np.arange(size(last.shape), dtype=np.int64)
        alike = size(last.shape) == size(shape)
        places = own.reshape(shape) if alike else np.broadcast_to(own.reshape(last.shape), shape)
        return self.copy(Operand(last.name, shape, index_map(places, last.shape)), source=text)

    def _read(self, read: Read, node: Node, operands: Mapping[str, Operand], prefix: str) -> Read:
        """What a formula's node reads: another of its nodes, or an operand."""
        operand = operands.get(read.parent)
        if operand is None:
            return replace(read, parent=f"{prefix}{read.parent.removeprefix('value')}")
        if not _inside(read, operand.shape, node):
            # Beyond the operand's edge lies its fill, and not what lies there in the node that it is a view
            # of.
            return replace(read, parent=self.copy(operand))
        axes = {free(n): axis for n, axis in enumerate(read.index)}
        return replace(read, parent=operand.node, index=tuple(e.xreplace(axes) for e in operand.index))

    def accumulate(
        self, shape: Shape, terms: Sequence[tuple[Content, np.ndarray]], reduce: str = "sum"
    ) -> str:
        """The sum, product or extreme of the entries that go to each place; a term has for each entry its
        flat place."""
        who = np.concatenate([content.who.reshape(-1) for content, _ in terms])
        where = np.concatenate([content.where.reshape(-1) for content, _ in terms])
        targets = np.concatenate([places.reshape(-1) for _, places in terms])
        source = self.assemble(Content(who, where), who.shape)
        lists: list[list[int]] = [[] for _ in range(size(shape))]
        for entry, target in enumerate(targets.tolist()):
            if target >= 0:
                lists[target].append(entry)
        longest = max([1, *map(len, lists)])
        places = np.array([entries + [-1] * (longest - len(entries)) for entries in lists], dtype=np.int64)
        (index,) = index_map(places.reshape((*shape, longest)), who.shape)
        fill = {"sum": 0.0, "prod": 1.0, "max": -np.inf, "min": np.inf}[reduce]
        read = Read(source, (index.xreplace({free(len(shape)): bound(0)}),), fill)
        return self.emit(slot(0), (read,), shape, over=(longest,), reduce=reduce, source=reduce)


def _readable(source: str, operands: Mapping[str, Operand], leaves: Mapping[str, Leaf]) -> str:
    """The source with the names of the tensors in place of the operation's own names for its arguments."""

    def name(match: re.Match[str]) -> str:
        operand = operands.get(match[0])
        return operand.node if operand is not None and operand.node in leaves else match[0]

    return re.sub(r"[A-Za-z_]\w*", name, source)


def _inside(read: Read, shape: Shape, node: Node) -> bool:
    """Whether an index map stays inside of the operand over the node's domain."""
    for expression, extent in zip(read.index, shape, strict=True):
        if isinstance(expression, Lookup | sympy.floor | sympy.Mod):
            continue
        if expression.has(Lookup, sympy.floor, sympy.Mod):
            return False
        low, high = reach(expression, node)
        if low < 0 or high >= extent:
            return False
    return True


@lru_cache(maxsize=4096)
def _statement(text: str) -> Statement:
    (statement,) = parse_statements(f"value = {text}", Place("operation"))
    return statement


@lru_cache(maxsize=4096)
def _template(
    text: str, numbers: tuple[tuple[str, Fraction], ...], shapes: tuple[tuple[str, Shape], ...]
) -> tuple[Node, ...]:
    """The formula's nodes, over operands by their names."""
    statement = _statement(text)
    known = dict(numbers)
    terms = tuple(
        replace(term, op="number", value=known[term.value])
        if term.op == "name" and term.value in known
        else term
        for term in statement.terms
    )
    return tuple(lower(replace(statement, terms=terms), dict(shapes)))
