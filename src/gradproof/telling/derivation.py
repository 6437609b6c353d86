"""The derivation that people read: nodes, local gradients, the chain rule, and its closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import sympy
from sympy import S

from ..proof import slopes as calculus
from ..proof.graph import Graph, Node
from . import notation


@dataclass(frozen=True, eq=False)
class Derivation:
    """A graph's formulas. `graph` is the fused one: a user's lines, and auxiliary nodes for reductions inside
    them."""

    graph: Graph

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.graph.nodes}

    @cached_property
    def locals(self) -> tuple[calculus.LocalGradient, ...]:
        """One for each edge along which a gradient flows, in order of evaluation."""
        found = []
        for node in self.graph.nodes:
            if node.name in self.graph.active:
                for parent in dict.fromkeys(read.parent for read in node.reads):
                    if parent in self.graph.active:
                        found.append(calculus.local_gradient(node, parent))
        return tuple(found)

    @cached_property
    def adjoints(self) -> tuple[calculus.Adjoint, ...]:
        """The chain rule, from the output back."""
        return calculus.adjoints(self.graph)

    @cached_property
    def closed(self) -> Mapping[str, sympy.Expr]:
        """The parameters' gradients in the leaves alone, where that stays short."""
        try:
            closed = calculus.closed(self.graph)
        except (TypeError, ValueError):
            return {}  # SymPy compares what is no real number, as log(0)
        return {name: sympy.factor_terms(formula) for name, formula in closed.items()}

    @cached_property
    def _adjoint_of(self) -> Mapping[str, calculus.Adjoint]:
        return {adjoint.name: adjoint for adjoint in self.adjoints}

    @cached_property
    def _local_of(self) -> Mapping[tuple[str, str], calculus.LocalGradient]:
        return {(gradient.node, gradient.wrt): gradient for gradient in self.locals}

    @cached_property
    def _inner(self) -> Mapping[tuple[str, str], list[calculus.LocalGradient]]:
        """The local gradients of a line's auxiliary nodes, by line and parent."""
        found: dict[tuple[str, str], list[calculus.LocalGradient]] = {}
        for gradient in self.locals:
            owner = self.nodes[gradient.node].owner
            if owner != gradient.node:
                found.setdefault((owner, gradient.wrt), []).append(gradient)
        return found

    def formula(self, kind: str, name: str) -> str:
        """The formula of a node's value ("forward") or of the gradient that arrives at a name
        ("gradient")."""
        if kind == "forward":
            return self.nodes[name].expression if name in self.nodes else name
        if name in self.closed:
            return notation.text(self.closed[name])
        adjoint = self._adjoint_of.get(name)
        return notation.text(adjoint.formula) if adjoint else "0"

    def local_text(self, name: str, parent: str) -> str:
        """The derivative of a line by one of its parents; through auxiliary nodes it is written as a
        product."""
        direct = self._local_of.get((name, parent))
        parts = [] if direct is None or direct.formula is S.Zero else [notation.text(direct.formula)]
        for gradient in self._inner.get((name, parent), ()):
            shown = notation.text(gradient.formula)
            parts.append(f"∂{name}/∂({gradient.node}) * {f'({shown})' if ' ' in shown else shown}")
        return " + ".join(parts) or "0"


@lru_cache(maxsize=4)  # several engines or dtypes, one after the other, have one derivation
def derive(graph: Graph) -> Derivation:
    """The derivation of a graph; its formulas are made when they are asked for, and once."""
    return Derivation(calculus.fused(graph))
