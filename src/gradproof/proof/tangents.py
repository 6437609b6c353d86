"""Forward mode: beside each node one of its tangent, `v̇ = Σ ∂f/∂z · ż`, in the same index notation.

So tangents are values like any other: evaluated, rounded and judged by what does so for nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import sympy
from sympy import S

from .functions import second_slope
from .graph import Node, Read, Shape, free, slot
from .slopes import partials

WAY = "step along the tangents"  # the number that all inputs are moved by


def dot(name: str) -> str:
    """The tangent's name: ẏ_hat for y_hat."""
    return name[0] + "\u0307" + name[1:] if name.isidentifier() else f"({name})\u0307"


def with_tangents(nodes: Sequence[Node], moved: Collection[str]) -> tuple[Node, ...]:
    """The nodes, each followed by its tangent's where one of the names `moved` reaches it.

    A shift has none: what is made of it does not depend on it.
    """
    moving = set(moved)
    found: list[Node] = []
    for node in nodes:
        found.append(node)
        tangents = [] if node.shift else [*_tangents(node, frozenset(moving))]
        if tangents:
            moving.add(node.name)
            found += tangents
    return tuple(found)


def _tangents(node: Node, moving: frozenset[str]) -> Iterator[Node]:
    """The tangent's node, the last one; of a sum of several parts behind a node for each."""
    slopes = partials(node.formula, len(node.reads), textbook=True)
    moved = [n for n, read in enumerate(node.reads) if read.parent in moving and slopes[n] is not S.Zero]
    if not moved:
        return
    name, first = dot(node.name), len(node.reads)
    reads = (*node.reads, *(Read(dot(r.parent), r.index) for r in (node.reads[n] for n in moved)))
    terms = [slopes[n] * slot(first + k) for k, n in enumerate(moved)]
    second = second_slope(node.formula, slot(0))
    other = None if second is None else second * slot(first)
    if isinstance(node.formula, sympy.Max | sympy.Min) and len(moved) == 2:
        # As implementations pick one of two: from the other one on.
        other = slot(first + 1) + slopes[moved[0]] * (slot(first) - slot(first + 1))
    made = replace(node, name=name, reads=reads, source=dot(node.source or node.name), moving=moving)
    if not node.over:
        yield _tidied(replace(made, formula=sympy.Add(*terms), other=other))
        return
    made = replace(made, reduce="sum", weighs=None if node.reduce == "sum" else node)
    parts = [f"{name}.{n}" for n in moved] if len(moved) > 1 else [name]
    for part, term in zip(parts, terms, strict=True):
        yield _tidied(replace(made, name=part, formula=term, other=other))
    if len(moved) > 1:
        index = tuple(map(free, range(len(node.shape))))
        added = tuple(Read(part, index) for part in parts)
        total = sympy.Add(*map(slot, range(len(moved))))
        yield replace(made, formula=total, reads=added, over=(), reduce=None, weighs=None)


def _tidied(node: Node) -> Node:
    """The node with the reads that its formulas have, one slot each."""
    if node.weighs is not None:
        return node
    there = node.formula.free_symbols | (set() if node.other is None else node.other.free_symbols)
    used = [n for n in range(len(node.reads)) if slot(n) in there]
    names = {slot(n): slot(k) for k, n in enumerate(used)}
    other = None if node.other is None else node.other.xreplace(names)
    reads = tuple(node.reads[n] for n in used)
    return replace(node, formula=node.formula.xreplace(names), reads=reads, other=other)


def along(nodes: Sequence[Node], shapes: Mapping[str, Shape]) -> tuple[Node, ...]:
    """The nodes as they are when the names with these shapes are moved along their tangents by `WAY`: by it
    their derivative is the tangent."""
    moved = []
    for name, shape in shapes.items():
        own = tuple(map(free, range(len(shape))))
        reads = (Read(name, own), Read(dot(name), own), Read(WAY))
        moved.append(Node(f"{name} on the way", shape, slot(0) + slot(1) * slot(2), reads))
    return (*moved, *(_reading(node, shapes) for node in nodes))


def _reading(node: Node, moved: Collection[str]) -> Node:
    reads = (
        replace(read, parent=f"{read.parent} on the way") if read.parent in moved else read
        for read in node.reads
    )
    return replace(node, reads=tuple(reads))
