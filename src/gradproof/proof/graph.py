"""The graph: one kind of node, in index notation.

    v[i, ...] = reduce over k, ... of  f( a[...], b[...], ... ; i, k )

`f` is a scalar SymPy formula of the slots `z0, z1, ...`; each slot is one `Read` of a parent at an index map,
integer expressions of the node's free indices `i0, i1, ...` and bound indices `k0, k1, ...`. So SymPy
differentiates scalar formulas only, and all tensor structure is gathering and its transpose, scatter-add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

import numpy as np
import sympy

from ..display import Displayed
from ..errors import GraphError

REDUCTIONS = ("sum", "prod", "max", "min")

Shape = tuple[int, ...]


@cache
def free(n: int) -> sympy.Symbol:
    """The node's n-th free index, `i0, i1, ...`: one for each axis of its value."""
    return sympy.Symbol(f"i{n}", integer=True, nonnegative=True)


@cache
def bound(n: int) -> sympy.Symbol:
    """The node's n-th bound index, `k0, k1, ...`: reduced over."""
    return sympy.Symbol(f"k{n}", integer=True, nonnegative=True)


@cache
def slot(n: int) -> sympy.Symbol:
    """The number that the n-th read delivers to the formula."""
    return sympy.Symbol(f"z{n}", real=True)


STILL = "g"  # how the name of a slot begins whose number no gradient moves


@cache
def still(n: int) -> sympy.Symbol:
    """`slot(n)`, where it delivers a number that no gradient moves: in a slope, a condition on such numbers
    is decided."""
    return sympy.Symbol(f"{STILL}{n}", real=True)


class Lookup(sympy.Function):
    """An integer table as a function of indices, for index maps that go through a tensor: gather, embedding,
    sort.

    Each table is a function of its own, made by `lookup`; -1 stands for a place outside of the parent.
    """

    table: np.ndarray
    is_integer = True


def lookup(name: str, table: np.ndarray) -> type[Lookup]:
    """The table as a function: `lookup("index", t)(i0, i1)` is `t[i0, i1]`."""
    return type(sympy.Function)(name, (Lookup,), {"table": table})


@dataclass(frozen=True)
class Read:
    """A parent's entry at an index map; outside the parent it is `fill`."""

    parent: str
    index: tuple[sympy.Expr, ...] = ()
    fill: float = 0.0


@dataclass(frozen=True)
class Leaf:
    """A tensor that the point supplies: a parameter, or a given one (never differentiated)."""

    name: str
    shape: Shape
    given: bool


@dataclass(frozen=True)
class Node:
    """One operation.

    `owner` is the user's line it belongs to, `source` that part of the line as the user wrote it. A `shift`
    is a node that its line's value does not depend on (the maximum that a softmax takes from its logits):
    implementations round with it, and no derivative flows through it. The formula of a tangent is one of
    slopes: where a branch among what is `moving` stands at its boundary, it is every branch's; `other` is a
    second form of it that implementations use, and the terms of a product's or an extreme's are multiplied
    with the derivative by the terms of what it `weighs`.
    """

    name: str
    shape: Shape
    formula: sympy.Expr
    reads: tuple[Read, ...]
    over: Shape = ()
    reduce: str | None = None
    owner: str = ""
    source: str = ""
    shift: bool = False
    moving: frozenset[str] | None = None
    other: sympy.Expr | None = None
    weighs: Node | None = None

    @property
    def expression(self) -> str:
        """The source without the name that a line gives it."""
        return (
            self.source.split("=", 1)[1].strip()
            if self.name == self.owner and "=" in self.source
            else self.source
        )

    @property
    def domain(self) -> Shape:
        """The range of the free and then of the bound indices."""
        return self.shape + self.over

    @property
    def indices(self) -> tuple[sympy.Symbol, ...]:
        """The symbols that run over `domain`."""
        return (*map(free, range(len(self.shape))), *map(bound, range(len(self.over))))

    @property
    def slots(self) -> tuple[sympy.Symbol, ...]:
        return tuple(map(slot, range(len(self.reads))))


def differentiated(node: Node) -> list[int]:
    """The reads that the node depends on by more than the conditions of its branches."""
    outside: set[sympy.Symbol] = set()
    stack = [node.formula]
    while stack:
        part = stack.pop()
        if isinstance(part, sympy.Piecewise):
            stack += [value for value, _ in part.args]
        elif part.is_Symbol:
            outside.add(part)
        else:
            stack += part.args
    return [n for n, z in enumerate(node.slots) if z in outside]


@dataclass(frozen=True)
class Graph(Displayed):
    """Leaves, and nodes in evaluation order: a node reads only what stands above it. The last node is the
    output."""

    leaves: tuple[Leaf, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise GraphError("a graph needs at least one node")
        rank = {leaf.name: len(leaf.shape) for leaf in self.leaves}
        for node in self.nodes:
            if node.name in rank:
                raise GraphError(f"node {node.name!r} is bound twice")
            if (node.reduce is None) != (not node.over) or node.reduce not in (None, *REDUCTIONS):
                raise GraphError(f"node {node.name!r} reduces {node.over} by {node.reduce!r}")
            for read in node.reads:
                if read.parent not in rank:
                    raise GraphError(f"node {node.name!r} reads {read.parent!r}, which is not bound above it")
                if len(read.index) != rank[read.parent]:
                    raise GraphError(
                        f"node {node.name!r} reads {read.parent!r} with {len(read.index)} indices"
                    )
            known = {*node.slots, *node.indices}
            used = node.formula.free_symbols.union(
                *(e.free_symbols for read in node.reads for e in read.index)
            )
            if not used <= known:
                raise GraphError(
                    f"node {node.name!r} uses {sorted(map(str, used - known))}, which nothing binds"
                )
            rank[node.name] = len(node.shape)

    @property
    def output(self) -> Node:
        return self.nodes[-1]

    @property
    def parameters(self) -> tuple[Leaf, ...]:
        return tuple(leaf for leaf in self.leaves if not leaf.given)

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return {leaf.name: leaf.shape for leaf in self.leaves} | {
            node.name: node.shape for node in self.nodes
        }

    @cached_property
    def active(self) -> frozenset[str]:
        """What a parameter reaches: only there do gradients flow."""
        names = {leaf.name for leaf in self.parameters}
        for node in self.nodes:
            if not node.shift and any(node.reads[n].parent in names for n in differentiated(node)):
                names.add(node.name)
        return frozenset(names)


@dataclass(frozen=True)
class Line:
    """One line of the user's: the nodes that compute it, and what it reads from outside, in order of
    appearance."""

    name: str
    nodes: tuple[Node, ...]
    parents: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        return self.nodes[-1].shape

    @property
    def source(self) -> str:
        return self.nodes[-1].source


def lines(graph: Graph) -> tuple[Line, ...]:
    """The graph's nodes, grouped by the line that owns them."""
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(node.owner or node.name, []).append(node)
    made = []
    for name, nodes in groups.items():
        inside = {node.name for node in nodes}
        outside = [read.parent for node in nodes for read in node.reads if read.parent not in inside]
        made.append(Line(name, tuple(nodes), tuple(dict.fromkeys(outside))))
    return tuple(made)


def open_axes(domain: Shape) -> tuple[np.ndarray, ...]:
    """One open range for each axis of the domain: of its extent along that axis, and 1 along the others."""
    rank = len(domain)
    return tuple(
        np.arange(extent, dtype=np.int64).reshape((1,) * n + (extent,) + (1,) * (rank - n - 1))
        for n, extent in enumerate(domain)
    )


def wide(array: np.ndarray) -> np.ndarray:
    """Numbers of float32 as float64, others as they are; memory that was never written to may hold what warns
    of being no number."""
    if array.dtype != np.float32:
        return array
    with np.errstate(all="ignore"):
        return array.astype(np.float64)


def strided(start: int, steps: Sequence[int], shape: Shape) -> np.ndarray:
    """Places of a tensor's entries that lie so far apart along each axis, from a start on."""
    flat = np.full((1,) * len(shape), start, dtype=np.int64)
    for axis, step in zip(open_axes(shape), steps, strict=True):
        flat = flat + step * axis
    return np.broadcast_to(flat, shape)


def unravelled(flat: sympy.Expr, shape: Shape) -> tuple[sympy.Expr, ...]:
    """The indices of a shape at a flat place in it: quotients and remainders."""
    index: list[sympy.Expr] = []
    rest = total = size(shape)
    for extent in shape:
        rest //= extent
        place = sympy.floor(flat / rest) if rest > 1 else flat
        index.append(
            (sympy.Mod(place, extent) if rest * extent < total else place) if extent > 1 else sympy.Integer(0)
        )
    return tuple(index)


def reach(expression: sympy.Expr, node: Node) -> tuple[int, int]:
    """The least and the largest that an affine index comes to over the node's whole domain."""
    ranges = dict(zip(node.indices, node.domain, strict=True))
    low = high = int(expression.xreplace(dict.fromkeys(ranges, sympy.Integer(0))))
    for symbol in expression.free_symbols:
        step = int(expression.coeff(symbol)) * (ranges[symbol] - 1)
        low, high = low + min(step, 0), high + max(step, 0)
    return low, high


def size(shape: Shape) -> int:
    """How many entries a tensor of that shape has."""
    return prod(shape)
