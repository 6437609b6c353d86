"""The calculus: SymPy differentiates each node's scalar formula once, and composes what people read.

For the numbers there is `partials`, the slopes of one node. For people there are the derivation's formulas:
the graph with every line's elementwise operations composed (`fused`), its local gradients, its adjoints, and
where it stays small the chained gradient closed in the leaves. Tensor entries are written as SymPy's
`Indexed`, sums as `Sum`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import sympy
from sympy import Expr, Indexed, IndexedBase, Integer, KroneckerDelta, S, Sum, Symbol

from .functions import define
from .graph import Graph, Leaf, Lookup, Node, Read, Shape, bound, free, reach, slot

MAX_COMPOSED = 40  # operations of one node's formula
MAX_CLOSED = 60  # operations of a closed form that people still read


@cache
def partials(formula: Expr, count: int, textbook: bool) -> tuple[Expr, ...]:
    """The derivatives of a scalar formula by its slots.

    With `textbook`, named functions keep the derivative that implementations use; without, calculus derives
    everything from their definitions.
    """
    expression = formula if textbook else define(formula)
    return tuple(_slope(expression, slot(n)) for n in range(count))


def _slope(formula: Expr, z: Symbol) -> Expr:
    # SymPy writes the derivative of x**y as x**y*y/x, which has no value at x = 0; x**(y - 1)*y has.
    slope = sympy.diff(formula, z)
    return sympy.powsimp(slope) if slope.has(sympy.Pow) and formula.is_Pow else slope


def fused(graph: Graph) -> Graph:
    """The graph people read: in every line the elementwise operations are composed, and only reductions stay
    apart.

    A reduction inside a line becomes an auxiliary node, named by its source; so does what cannot be composed
    without changing its meaning, or would not be read any more (see `_composes`). A shift is taken to be 0,
    since a line does not depend on it: what is left is the textbook's formula, `exp(x[i]) / Σ_k exp(x[k])`.
    """
    shapes = graph.shapes
    kept: dict[str, Node] = {}
    loose: dict[str, Node] = {}  # composed, and free to go into what reads them
    constants: set[str] = set()
    for node in graph.nodes:
        if not node.shift and all(read.parent in constants for read in node.reads):
            constants.add(node.name)
        if node.shift:
            loose[node.name] = replace(node, formula=S.Zero, reads=())
            continue
        for read in node.reads:
            if read.parent in loose and not _composes(
                node, read, loose[read.parent], node.name in constants, shapes
            ):
                kept[read.parent] = loose.pop(read.parent)
        composed = _composed(node, loose)
        if (
            composed.formula.has(sympy.nan, sympy.zoo, sympy.oo)
            or composed.formula.count_ops() > MAX_COMPOSED
        ):
            kept |= {read.parent: loose.pop(read.parent) for read in node.reads if read.parent in loose}
            composed = _composed(node, loose)
        if (
            node.reduce
            or node.name == node.owner
            or (node.name in constants and not _plain(composed.formula))
        ):
            kept[node.name] = composed
        else:
            loose[node.name] = composed
    return Graph(graph.leaves, _named(graph.output.name, kept))


def _named(output: str, kept: dict[str, Node]) -> tuple[Node, ...]:
    """The nodes that the output is made of, auxiliary ones named by their sources."""
    used = {output}
    for node in reversed(kept.values()):
        if node.name in used:
            used.update(read.parent for read in node.reads)
    names: dict[str, str] = {}
    for name, node in kept.items():
        if name in used:
            names[name] = name if name == node.owner else _auxiliary_name(node, names)
    nodes = []
    for name in names:
        reads = tuple(replace(read, parent=names.get(read.parent, read.parent)) for read in kept[name].reads)
        nodes.append(replace(kept[name], name=names[name], reads=reads))
    return tuple(nodes)


def _plain(formula: Expr) -> bool:
    """A rational, or one times pi: nothing that SymPy could write out at length."""
    return formula.is_Rational or (formula / sympy.pi).is_Rational


def _composes(node: Node, read: Read, inner: Node, constant: bool, shapes: Mapping[str, Shape]) -> bool:
    """Whether a parent's formula may stand in place of a read.

    Not beyond the parent's edge, where the read gives its fill; not inside the branches of another formula,
    where SymPy would turn conditions about or lose that its argument is real; and no constant into a power or
    a gamma function, which SymPy would write out, digit by digit.
    """
    if not inner.formula.free_symbols and not inner.formula.is_comparable:
        return False  # no real number, as log(0): SymPy raises where one is compared
    if inner.shift or not inner.reads:
        return not constant or (
            not node.formula.has(sympy.gamma, sympy.loggamma) and not _towers(node.formula)
        )
    if not inner.formula.free_symbols.isdisjoint(inner.indices) and not all(
        e.is_Symbol or e.is_Integer for e in read.index
    ):
        return False  # a condition on an index stays one on a plain index
    z = node.slots[node.reads.index(read)]
    edges = node.formula.atoms(sympy.core.relational.Relational, sympy.Abs, sympy.sign, sympy.Max, sympy.Min)
    if any(z in edge.free_symbols for edge in edges) and not inner.formula.is_polynomial():
        return False
    if node.formula.has(sympy.Piecewise) and inner.formula.has(sympy.Piecewise):
        return False
    return all(
        _stays_inside(expression, node, extent)
        for expression, extent in zip(read.index, shapes[read.parent], strict=True)
    )


def _towers(formula: Expr) -> bool:
    return any(not power.exp.is_Rational or abs(power.exp) > 4 for power in formula.atoms(sympy.Pow))


def _stays_inside(expression: Expr, node: Node, extent: int) -> bool:
    """Whether an index stays below the extent over the node's whole domain; a reshape's always does."""
    if expression.has(Lookup):
        return False  # -1 in a table stands for a place outside
    if expression.has(sympy.floor, sympy.Mod):
        return True
    low, high = reach(expression, node)
    return low >= 0 and high < extent


def _auxiliary_name(node: Node, names: Mapping[str, str]) -> str:
    name, again = node.source, 1
    while name in names.values():
        again += 1
        name = f"{node.source} ({again})"
    return name


def _composed(node: Node, inlined: Mapping[str, Node]) -> Node:
    """The node with the formulas of inlined parents in place of its reads, and equal reads merged."""
    places: dict[Symbol, Expr] = {}
    reads: list[Read] = []

    def position(read: Read) -> Symbol:
        if read not in reads:
            reads.append(read)
        return slot(reads.index(read))

    for n, read in enumerate(node.reads):
        inner = inlined.get(read.parent)
        if inner is None:
            places[slot(n)] = position(read)
            continue
        axes = {free(p): e for p, e in enumerate(read.index)}
        inner_reads = [replace(r, index=tuple(e.xreplace(axes) for e in r.index)) for r in inner.reads]
        slots: dict[Expr, Expr] = {slot(p): position(r) for p, r in enumerate(inner_reads)}
        places[slot(n)] = inner.formula.xreplace(slots | axes)
    # subs would substitute again in what it has put in; xreplace rebuilds, so SymPy simplifies as it goes.
    return replace(node, formula=node.formula.xreplace(places), reads=tuple(reads))


# The words of the derivation

_FREE_LETTERS = "ijlpqrst"
_BOUND_LETTERS = "kmnuvabc"


def index_symbols(node: Node) -> dict[Symbol, Symbol]:
    """The letters that people read for the node's indices: i, j, ... free and k, m, ... bound."""
    frees = {free(n): _index(letter) for n, letter in enumerate(_letters(_FREE_LETTERS, len(node.shape)))}
    bounds = {bound(n): _index(letter) for n, letter in enumerate(_letters(_BOUND_LETTERS, len(node.over)))}
    return frees | bounds


def _index(letter: str) -> Symbol:
    return Symbol(letter, integer=True, nonnegative=True)


def _letters(alphabet: str, count: int) -> list[str]:
    """So many letters; when the alphabet is used up, with a number: i1, j1, ..."""
    return [
        alphabet[n % len(alphabet)] + (str(n // len(alphabet)) if n >= len(alphabet) else "")
        for n in range(count)
    ]


def entry(name: str, index: tuple[Expr, ...]) -> Expr:
    """`X[i, k]`, or plain `w` for a scalar."""
    return Indexed(IndexedBase(name, real=True), *index) if index else Symbol(name, real=True)


def written(node: Node) -> tuple[Expr, Expr]:
    """The node's equation: its entry, and its formula over the parents' entries."""
    letters = index_symbols(node)
    body = _over_entries(node, node.formula, letters)
    head = entry(node.name, tuple(letters[free(n)] for n in range(len(node.shape))))
    return head, _reduced(node, body, letters)


def _over_entries(node: Node, formula: Expr, letters: Mapping[Symbol, Symbol]) -> Expr:
    reads = {
        slot(n): entry(r.parent, tuple(e.xreplace(letters) for e in r.index))
        for n, r in enumerate(node.reads)
    }
    return formula.xreplace({**reads, **letters})


class Reduction(sympy.Function):
    """`prod`, `max` or `min` over indices, for writing only: Reduction(name, body, index, ...)."""


def _reduced(node: Node, body: Expr, letters: Mapping[Symbol, Symbol]) -> Expr:
    limits = [(letters[bound(n)], Integer(0), Integer(extent - 1)) for n, extent in enumerate(node.over)]
    if not limits:
        return body
    if node.reduce == "sum":
        return _sum(body, limits)
    return Reduction(Symbol(node.reduce or ""), body, *(limit[0] for limit in limits))


def _sum(body: Expr, limits: list[tuple[Symbol, Expr, Expr]]) -> Expr:
    """A sum with the factors that do not depend on its indices taken out."""
    if body is S.Zero or not limits:
        return body
    outside, inside = body.as_independent(*(limit[0] for limit in limits), as_Add=False)
    return outside * Sum(inside, *limits) if outside is not S.Zero else Sum(body, *limits)


@dataclass(frozen=True)
class LocalGradient:
    """`∂node[i, ...]/∂parent[j, ...] = formula`."""

    node: str
    wrt: str
    left: tuple[Expr, Expr]
    formula: Expr


def local_gradient(node: Node, parent: str) -> LocalGradient:
    """The derivative of the node's entry by an entry of its parent, in index notation.

    A read at index map `e(i, k)` contributes `Σ_k ∂f/∂z δ(e, j)`; where the delta fixes a bound index, the
    sum goes.
    """
    letters = index_symbols(node)
    reads = [read for read in node.reads if read.parent == parent]
    rank = len(reads[0].index) if reads else 0
    js = [_index(letter) for letter in _letters(_FREE_LETTERS, len(node.shape) + rank)[len(node.shape) :]]
    total: Expr = S.Zero
    for n, read in enumerate(node.reads):
        if read.parent == parent:
            total += _contribution(node, n, js, letters, S.One)
    head = entry(node.name, tuple(letters[free(n)] for n in range(len(node.shape))))
    return LocalGradient(node.name, parent, (head, entry(parent, tuple(js))), total)


def _contribution(
    node: Node, n: int, js: list[Symbol], letters: Mapping[Symbol, Symbol], factor: Expr
) -> Expr:
    """`Σ factor * ∂f/∂z_n * Π δ(index_d, j_d)` over the bound letters, those that a delta fixes replaced."""
    slope = partials(node.formula, len(node.reads), textbook=True)[n]
    if slope is S.Zero:
        return S.Zero
    if node.reduce in ("max", "min", "prod"):
        slope = slope * _weight(node)
    body = factor * _over_entries(node, slope, letters)
    return _solved(node, n, js, letters, body, keep_free=True)


def _weight(node: Node) -> Expr:
    """What a reduction that is no sum multiplies its slopes with."""
    value = (
        sympy.Function(node.name)(*(free(p) for p in range(len(node.shape))))
        if node.shape
        else Symbol(node.name)
    )
    if node.reduce == "prod":
        return value / node.formula
    return KroneckerDelta(node.formula, value)


def _solved(
    node: Node, n: int, js: list[Symbol], letters: Mapping[Symbol, Symbol], body: Expr, *, keep_free: bool
) -> Expr:
    """Sum the body over the letters that the read's index map does not fix; `keep_free` leaves the free ones
    alone."""
    pending = [(letters[bound(p)], Integer(0), Integer(extent - 1)) for p, extent in enumerate(node.over)]
    if not keep_free:
        pending += [
            (letters[free(p)], Integer(0), Integer(extent - 1)) for p, extent in enumerate(node.shape)
        ]
    solution: dict[Symbol, Expr] = {}
    for expression, j in zip(node.reads[n].index, js, strict=True):
        index = expression.xreplace(letters).xreplace(solution)
        solvable = [limit[0] for limit in pending if limit[0] not in solution and index.has(limit[0])]
        fixed = next((s for s in solvable if (index - s).expand().free_symbols.isdisjoint({s})), None)
        if fixed is not None:
            solution = {k: e.xreplace({fixed: j - (index - fixed)}) for k, e in solution.items()}
            solution[fixed] = (j - (index - fixed)).expand()
        else:
            delta = S.One if index == j else KroneckerDelta(index, j)
            body = body * delta
    body = body.xreplace(solution)
    return _sum(body, [limit for limit in pending if limit[0] not in solution])


@dataclass(frozen=True)
class Adjoint:
    """`v̄[j, ...] = formula` over the parents' entries and the children's adjoints; `parts` are its uses,
    which are added."""

    name: str
    left: Expr
    formula: Expr
    parts: tuple[Use, ...] = ()

    @property
    def uses(self) -> int:
        return len(self.parts)


@dataclass(frozen=True)
class Use:
    """What one read of a name passes back to it: the read's node, its place among that node's reads, and the
    formula."""

    node: str
    read: int
    formula: Expr


def bar(name: str) -> str:
    """The adjoint's name: ȳ_hat for y_hat."""
    return name[0] + "\u0304" + name[1:] if name.isidentifier() else f"({name})\u0304"


def adjoints(graph: Graph) -> tuple[Adjoint, ...]:
    """The chain rule, adjoint by adjoint from the output back: one formula for each active node and
    parameter.

    The graph is a fused one. The cost grows with the number of reads.
    """
    children: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for n, read in enumerate(node.reads):
            children.setdefault(read.parent, []).append((node, n))
    output = graph.output
    made = [Adjoint(output.name, entry(bar(output.name), ()), S.One)]
    targets: list[Node | Leaf] = [*reversed(graph.nodes[:-1]), *graph.parameters]
    for target in targets:
        if target.name not in graph.active:
            continue
        js = [_index(letter) for letter in _letters(_FREE_LETTERS, len(target.shape))]
        # The output's adjoint is 1 and need not be written.
        uses = tuple(
            Use(node.name, n, _pulled(node, n, js, seed=node is output))
            for node, n in children.get(target.name, [])
        )
        # Added at once: term by term SymPy sorts again each time.
        total = sympy.Add(*(use.formula for use in uses))
        made.append(Adjoint(target.name, entry(bar(target.name), tuple(js)), total, uses))
    return tuple(made)


def _pulled(node: Node, n: int, js: list[Symbol], *, seed: bool) -> Expr:
    """`Σ_i v̄[i] ∂v[i]/∂p[j]` for one read, in letters that do not meet those of `j`."""
    taken = {str(j) for j in js}
    spare = [c for c in _letters("iklmnpqrstuvabcdefgh", len(node.indices) + len(js) + 20) if c not in taken]
    symbols = {index: _index(spare[p]) for p, index in enumerate(node.indices)}
    slope = partials(node.formula, len(node.reads), textbook=True)[n]
    if slope is S.Zero:
        return S.Zero
    if node.reduce in ("max", "min", "prod"):
        slope = slope * _weight(node)
    place = tuple(symbols[free(p)] for p in range(len(node.shape)))
    cotangent = S.One if seed else entry(bar(node.name), place)
    body = cotangent * _over_entries(node, slope, symbols)
    return _solved(node, n, js, symbols, body, keep_free=False)


def closed(graph: Graph) -> dict[str, Expr]:
    """The gradients of the parameters in the leaves alone, where every node is a scalar and the formula stays
    small."""
    if any(node.shape or node.over for node in graph.nodes):
        return {}
    values: dict[str, Expr] = {leaf.name: Symbol(leaf.name, real=True) for leaf in graph.leaves}
    constants: set[str] = set()
    for node in graph.nodes:
        if all(read.parent in constants for read in node.reads):
            constants.add(node.name)  # stays a name: SymPy would write it out
            values[node.name] = Symbol(node.name, real=True)
            continue
        reads = {slot(n): values[read.parent] for n, read in enumerate(node.reads)}
        values[node.name] = node.formula.xreplace(reads)
        if values[node.name].count_ops() > MAX_CLOSED:
            return {}
    adjoint: dict[str, Expr] = {graph.output.name: S.One}
    for node in reversed(graph.nodes):
        cotangent = adjoint.get(node.name, S.Zero)
        if cotangent is S.Zero:
            continue
        reads = {slot(n): values[read.parent] for n, read in enumerate(node.reads)}
        for read, slope in zip(
            node.reads, partials(node.formula, len(node.reads), textbook=True), strict=True
        ):
            adjoint[read.parent] = adjoint.get(read.parent, S.Zero) + cotangent * slope.xreplace(reads)
            if adjoint[read.parent].count_ops() > 4 * MAX_CLOSED:
                return {}
    found = {leaf.name: adjoint.get(leaf.name, S.Zero) for leaf in graph.parameters}
    return {name: formula for name, formula in found.items() if formula.count_ops() <= MAX_CLOSED}
