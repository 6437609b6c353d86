"""Random graphs in index notation, with numbers that are hard: what the fast arithmetic and sections are
tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import sympy

from gradproof.dtypes import DTYPES, DType
from gradproof.judging.verdicts import rounded
from gradproof.proof.functions import FORMS
from gradproof.proof.graph import Node, Read, Shape, bound, differentiated, free, lookup, slot, unravelled

Index = tuple[sympy.Expr, ...]
z0, z1 = slot(0), slot(1)
half, third = sympy.Rational(1, 2), sympy.Rational(1, 3)

UNARY = [
    z0**2, z0**3, z0**5, 1 / z0, 1 / z0**2, 1 / (1 + z0**2), 2 * z0 / 3, sympy.pi * z0, z0 + third, abs(z0),
    sympy.sign(z0) * z0, sympy.Max(z0, 0), sympy.Min(sympy.Max(z0, -1), 1), z0 * (1 - z0),
    sympy.Piecewise((z0, z0 > 0), (z0 / 100, True)), sympy.Piecewise((z0, sympy.Eq(z0, 0)), (z0**2, True)),
    sympy.sqrt(z0), sympy.sqrt(1 + z0**2), sympy.sqrt(abs(z0)), sympy.exp(-z0), sympy.log(1 + z0**2),
    z0 * FORMS["sigmoid"](z0), z0 * (1 + FORMS["gelu_erf"](z0 / sympy.sqrt(2))) / 2,
    sympy.exp(z0) / (1 + z0**2), 1 / (1 + sympy.exp(-z0)), sympy.log(FORMS["sigmoid"](z0)),
    sympy.sin(z0) / z0, 1 / sympy.sqrt(z0**2 + third),
    *(FORMS[name](z0) for name in """exp log log1p expm1 sqrt sin cos sinh cosh tanh atan asinh erf sigmoid
      softplus gelu_erf tan lgamma erfc""".split()),
]  # fmt: skip
BINARY = [
    z0 * z1, z0 + z1, z0 - z1, z0 / z1, z0 * z1 + z0, (z0 - z1) ** 2, z0 / (1 + z1**2), sympy.exp(z0 - z1),
    sympy.Max(z0, z1), sympy.Min(z0, z1), sympy.Piecewise((z0, z0 < z1), (z1**2, True)), 1 / (z0 - z1),
    sympy.exp(z0) / (sympy.exp(z0) + sympy.exp(z1)), z0**2 * z1, (z0 - z1) * z0 / 3,
    FORMS["logaddexp"](z0, z1), sympy.Piecewise((z0, z1 > 0), (0, True)), z0 / z1**2, -z0 * z1**3,
    sympy.log(z0 + z1), z0 / sympy.sqrt(z1 + third), sympy.atan2(z0, z1),
]  # fmt: skip
SUMMED = [z0, z0, z0**2, sympy.exp(z0), z0 / 3, FORMS["sigmoid"](z0), abs(z0)]
PAIRED = [z0 * z1, z0 * z1, z0 * z1, z0 * sympy.exp(z1), (z0 - z1) ** 2, z0 / z1]


@dataclass(frozen=True, eq=False)
class Example:
    """A graph at a point, in a dtype: the last node is the output, and every leaf is differentiated by."""

    dtype: DType
    nodes: tuple[Node, ...]
    given: dict[str, np.ndarray]
    cotangent: np.ndarray

    @property
    def wanted(self) -> frozenset[str]:
        names = set(self.given)
        for node in self.nodes:
            if any(node.reads[n].parent in names for n in differentiated(node)):
                names.add(node.name)
        return frozenset(names)


def _numbers(random: np.random.Generator, shape: Shape, dtype: DType) -> np.ndarray:
    """Numbers of the dtype: plain ones, or those that something is hard about."""
    plain = random.normal(size=shape)
    tiny = dtype.smallest_normal
    kinds: list[Callable[[], np.ndarray]] = [
        lambda: plain,
        lambda: plain,
        lambda: plain,
        lambda: np.abs(plain) + 0.1,
        lambda: 1 + plain * dtype.unit_roundoff * 8,
        lambda: plain * 10.0 ** random.integers(-6, 7, shape),
        lambda: plain * tiny * 2.0 ** random.integers(-8, 9, shape),
        lambda: plain * (dtype.largest / 8) / 2.0 ** random.integers(0, 8, shape),
        lambda: plain * np.sqrt(dtype.largest) / 2.0 ** random.integers(-3, 4, shape),
        lambda: plain * np.sqrt(tiny) * 2.0 ** random.integers(-3, 4, shape),
        lambda: random.integers(-2, 3, shape).astype(float),
        lambda: plain * (random.uniform(size=shape) < 0.5),
        lambda: plain * 30,
        lambda: plain * 1e3,
        lambda: np.where(random.uniform(size=shape) < 0.2, -np.inf, plain),
        lambda: np.where(random.uniform(size=shape) < 0.2, plain * 1e10, plain * 1e-5),
    ]
    return rounded(np.asarray(kinds[random.integers(len(kinds))]()), dtype)


class _Maker:
    def __init__(self, seed: int, dtype: DType, functions: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype, self.functions = dtype, functions
        self.shapes: dict[str, Shape] = {}
        self.given: dict[str, np.ndarray] = {}
        self.nodes: list[Node] = []

    def one(self, items: list) -> object:
        return items[self.random.integers(len(items))]

    def leaf(self, shape: Shape) -> str:
        name = f"x{len(self.given)}"
        self.given[name] = _numbers(self.random, shape, self.dtype)
        self.shapes[name] = shape
        return name

    def parent(self) -> str:
        """A name to read: the last one mostly, so that graphs are deep."""
        names = [*self.shapes]
        return names[-1] if self.random.uniform() < 0.6 else str(self.one(names))

    def node(
        self, shape: Shape, formula: sympy.Expr, *reads: Read, over: Shape = (), reduce: str | None = None
    ) -> None:
        if any(extent == 0 for extent in (*shape, *over)) or prod((*shape, *over)) > 1500:
            return
        used = [n for n in range(len(reads)) if slot(n) in formula.free_symbols]
        if len(used) != len(reads):
            return
        name = f"v{len(self.nodes)}"
        self.nodes.append(Node(name, shape, formula, reads, over, reduce if over else None))
        self.shapes[name] = shape

    def beside(self, shape: Shape) -> Read:
        """A read that a second operand of this shape may be: of the same shape, turned about, shifted,
        broadcast, or of a new leaf."""
        indices = tuple(map(free, range(len(shape))))
        same = [name for name, other in self.shapes.items() if other == shape]
        choice = self.random.integers(5)
        if choice == 0 or not same:
            kept = [n for n in range(len(shape)) if self.random.uniform() < 0.5]
            return Read(self.leaf(tuple(shape[n] for n in kept)), tuple(indices[n] for n in kept))
        if choice == 1:
            return Read(self.leaf(shape), indices)
        name = str(self.one(same))
        if choice == 2 and shape:
            n = self.random.integers(len(shape))
            turned = list(indices)
            turned[n] = shape[n] - 1 - indices[n]
            return Read(name, tuple(turned))
        if choice == 3 and shape:
            n = self.random.integers(len(shape))
            moved = list(indices)
            moved[n] = indices[n] - 1
            return Read(name, tuple(moved), float(self.one([0.0, 0.0, 1.0])))
        return Read(name, indices)

    def unary(self) -> None:
        name = self.parent()
        self.node(self.shapes[name], self.one(UNARY if self.functions else UNARY[:14]), self.whole(name))

    def whole(self, name: str) -> Read:
        return Read(name, tuple(map(free, range(len(self.shapes[name])))))

    def binary(self) -> None:
        name = self.parent()
        shape = self.shapes[name]
        reads = [self.whole(name), self.beside(shape)]
        if self.random.uniform() < 0.3:
            reads.reverse()
        self.node(shape, self.one(BINARY if self.functions else BINARY[:7]), *reads)

    def reduction(self) -> None:
        name = self.parent()
        shape = self.shapes[name]
        if not shape:
            return
        axes = [n for n in range(len(shape)) if self.random.uniform() < 0.6] or [len(shape) - 1]
        index, kept = [], []
        for n, extent in enumerate(shape):
            if n in axes:
                index.append(bound(axes.index(n)))
            else:
                index.append(free(len(kept)))
                kept.append(extent)
        over = tuple(shape[n] for n in axes)
        kind = str(self.one(["sum"] * 6 + ["max", "min", "prod"]))
        formula = self.one(SUMMED) if kind == "sum" else z0
        self.node(tuple(kept), formula, Read(name, tuple(index)), over=over, reduce=kind)

    def contraction(self) -> None:
        """A product of matrices, or a sum over pairs."""
        name = self.parent()
        shape = self.shapes[name]
        if not shape:
            return
        count, columns = shape[-1], int(self.random.integers(1, 4))
        other = self.leaf((count, columns) if self.random.uniform() < 0.8 else (count,))
        rows = tuple(map(free, range(len(shape) - 1)))
        flat = len(self.shapes[other]) == 1
        mine = (bound(0),) if flat else (bound(0), free(len(rows)))
        reads = Read(name, (*rows, bound(0))), Read(other, mine)
        here = (*shape[:-1], *(() if flat else (columns,)))
        self.node(here, self.one(PAIRED), *reads, over=(count,), reduce="sum")

    def convolution(self) -> None:
        """Strided, padded, dilated, and as a pooling too."""
        name = self.parent()
        shape = self.shapes[name]
        if not shape:
            return
        stride, dilation, padding = (int(self.random.integers(a, b)) for a, b in ((1, 4), (1, 3), (0, 3)))
        taps = int(self.random.integers(1, 4))
        extent = (shape[-1] + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
        if extent < 1:
            return
        rows = tuple(map(free, range(len(shape) - 1)))
        at = stride * free(len(rows)) + dilation * bound(0) - padding
        here = (*shape[:-1], extent)
        if self.random.uniform() < 0.3:
            kind = str(self.one(["sum", "sum", "max"]))
            fill = -np.inf if kind == "max" else 0.0
            self.node(here, z0, Read(name, (*rows, at), fill), over=(taps,), reduce=kind)
        else:
            self.node(here, z0 * z1, Read(name, (*rows, at)), Read(self.leaf((taps,)), (bound(0),)),
                      over=(taps,), reduce="sum")  # fmt: skip

    def moved(self) -> None:
        """Nothing but an index map, or a formula through it."""
        name = self.parent()
        shape = self.shapes[name]
        if not shape:
            return
        formula = self.one([z0, z0, -z0, z0**2, 2 * z0])
        count, rank = prod(shape), len(shape)
        indices = tuple(map(free, range(rank)))
        n = int(self.random.integers(rank))
        match int(self.random.integers(9)):
            case 0:
                self.node((count,), formula, Read(name, unravelled(free(0), shape)))
            case 1:
                rows = int(self.one([d for d in range(1, count + 1) if count % d == 0]))
                flat = free(0) * (count // rows) + free(1)
                self.node((rows, count // rows), formula, Read(name, unravelled(flat, shape)))
            case 2:
                turned = tuple(
                    e - 1 - i if k == n else i for k, (i, e) in enumerate(zip(indices, shape, strict=True))
                )
                self.node(shape, formula, Read(name, turned))
            case 3 if rank > 1:
                self.node(shape[::-1], formula, Read(name, indices[::-1]))
            case 4 if rank > 1 and shape[0] == shape[1]:
                self.node(shape[1:], formula, Read(name, (free(0), *indices[:-1])))
            case 5:
                picks = self.random.integers(-1, shape[n], int(self.random.integers(1, 7)))
                table = lookup(f"t{len(self.nodes)}", picks)
                where = tuple(table(i) if k == n else i for k, i in enumerate(indices))
                self.node(
                    tuple(len(picks) if k == n else e for k, e in enumerate(shape)),
                    formula,
                    Read(name, where),
                )
            case 6:
                begin, step = int(self.random.integers(shape[n])), int(self.random.integers(1, 3))
                extent = (shape[n] - begin + step - 1) // step
                where = tuple(begin + step * i if k == n else i for k, i in enumerate(indices))
                self.node(
                    tuple(extent if k == n else e for k, e in enumerate(shape)), formula, Read(name, where)
                )
            case 7:
                where = tuple(i - 1 if k == n else i for k, i in enumerate(indices))
                self.node(tuple(e + 2 if k == n else e for k, e in enumerate(shape)), formula,
                          Read(name, where, float(self.one([0.0, 1.5]))))  # fmt: skip
            case _:
                where = tuple(i - bound(0) if k == n else i for k, i in enumerate(indices))
                self.node(shape, formula, Read(name, where), over=(shape[n],), reduce="sum")

    def softmax(self) -> None:
        """As three nodes, of the last axis; with the maximum taken off first, or not."""
        name = self.parent()
        shape = self.shapes[name]
        if not shape or prod(shape) > 200:
            return
        rows = tuple(map(free, range(len(shape) - 1)))
        logits = self.whole(name)
        if self.random.uniform() < 0.5:
            self.node(shape[:-1], z0, Read(name, (*rows, bound(0))), over=shape[-1:], reduce="max")
            top = self.nodes[-1]
            self.nodes[-1] = Node(
                top.name, top.shape, top.formula, top.reads, top.over, top.reduce, shift=True
            )
            self.node(shape, sympy.exp(z0 - z1), logits, Read(top.name, rows))
        else:
            self.node(shape, sympy.exp(z0), logits)
        e = self.nodes[-1].name
        self.node(shape[:-1], z0, Read(e, (*rows, bound(0))), over=shape[-1:], reduce="sum")
        self.node(shape, z0 / z1, self.whole(e), Read(self.nodes[-1].name, rows))


def example(seed: int, dtype: str = "float32", *, functions: bool = True, length: int = 5) -> Example:
    """A random graph of up to so many operations; the same for the same seed."""
    maker = _Maker(seed, DTYPES[dtype], functions)
    extents = maker.random.integers(1, 6, maker.random.integers(0, 4))
    maker.leaf(tuple(map(int, extents)))
    ways = [maker.unary] * 4 + [maker.binary] * 4 + [
        maker.reduction, maker.contraction, maker.contraction, maker.convolution, maker.moved, maker.moved,
        maker.softmax,
    ]  # fmt: skip
    for _ in range(int(maker.random.integers(1, length + 1))):
        ways[maker.random.integers(len(ways))]()
    if not maker.nodes:
        maker.node(maker.shapes["x0"], z0**2, maker.whole("x0"))
    last = maker.nodes[-1]
    cotangent = _numbers(maker.random, last.shape, maker.dtype)
    return Example(maker.dtype, tuple(maker.nodes), maker.given, cotangent)
