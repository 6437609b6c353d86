"""What a recorded run consists of: tensors at a moment, operations, autograd nodes, leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from ..errors import Place, UnsupportedError
from ..proof.graph import strided, wide

NOWHERE = Place("")
Edge = tuple[int, int]  # an autograd node's number, and which of its outputs
Cotangents = tuple[np.ndarray | None, ...]
HIDDEN = np.full((), np.nan)  # in place of the numbers of a tensor that has none of its own

# What opaque operations and custom Functions compute, by name, as the user said it: `register_formula`.
OPAQUE: dict[str, str] = {}
# What the gradients of custom Functions are meant to be those of: `surrogate`, `implicit`.
DECLARED: dict[str, str] = {}


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where the values of a sparse tensor stand in the dense one of that shape; two may stand at one place,
    and are added up there. `indices` are a row for each axis of COO's, or CSR's and CSC's own two; of rows of
    unequal lengths, which stand in the tensor that is padded with zeros, where each begins."""

    shape: tuple[int, ...]
    values: tuple[int, ...]
    indices: tuple[torch.Tensor, ...]
    layout: torch.layout

    @cached_property
    def places(self) -> np.ndarray:
        """The flat place of each value."""
        if self.ragged:
            begins = self.indices[0].numpy()
            row = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
            at = [row, np.arange(len(row)) - begins[row]]
        elif self.layout == torch.sparse_coo:
            (rows,) = self.indices
            at = [row.numpy() for row in rows]
        else:
            begins, inner = (each.numpy() for each in self.indices)
            outer = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
            at = [outer, inner] if self.layout == torch.sparse_csr else [inner, outer]
        lead = self.shape[: len(at)]
        flat = np.ravel_multi_index(at, lead) if at and self.values[0] else np.zeros(self.values[0], np.int64)
        rest = self.values[1:]
        within = np.arange(int(np.prod(rest, dtype=np.int64)), dtype=np.int64).reshape(rest)
        return np.asarray(flat, np.int64).reshape(-1, *(1,) * len(rest)) * within.size + within

    @property
    def ragged(self) -> bool:
        return self.layout == torch.jagged

    @property
    def apart(self) -> bool:
        """Whether no two values stand at one place."""
        return len(np.unique(self.places)) == self.places.size

    def dense(self, values: torch.Tensor) -> torch.Tensor:
        flat = torch.zeros(self.shape, dtype=values.dtype).reshape(-1)
        flat.index_add_(0, torch.from_numpy(self.places.reshape(-1)), values.reshape(-1))
        return flat.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Region:
    """A tensor at one moment: where it lies in its storage, and a copy of its numbers.

    A `complex` one stands as pairs of reals, as torch lays them: its last axis has the real and the imaginary
    part, and all that is said here is of these. A `turned` one is seen as the conjugate, or the negative, of
    what lies in its memory; its numbers are as it is seen. A sparse one stands as its values, with the
    `pattern` of where they are.

    `edge` is where autograd passes its cotangent on to, None for a tensor that has no history and needs no
    gradient. `extent` is the size of the whole storage in entries. `changed` says that its memory was written
    to by no operation of torch's. An `opaque` one has no plain memory (the reason is told): it stands as one
    entry in memory of its own, and its numbers are not known.
    """

    storage: int
    extent: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    numbers: torch.Tensor
    edge: Edge | None = None
    changed: bool = False
    opaque: str = ""
    complex: bool = False
    turned: tuple[bool, bool] = (False, False)  # conjugate, negative
    pattern: Pattern | None = None

    @property
    def floating(self) -> bool:
        return self.dtype.is_floating_point

    @property
    def values(self) -> np.ndarray:
        """The numbers in float64, which holds those of every dtype (of integers up to 2**53) exactly.

        Raises `UnsupportedError` for an opaque tensor.
        """
        return wide(self.kept)

    @property
    def kept(self) -> np.ndarray:
        """The same as they are kept: see `floats_of`."""
        if self.opaque:
            raise UnsupportedError(self.opaque)
        return floats_of(self.numbers)

    @property
    def own(self) -> torch.Tensor:
        """A copy of the tensor, of its own dtype; of a sparse one the dense one."""
        copy = self.numbers.clone()
        copy = torch.view_as_complex(copy) if self.complex else copy
        return copy if self.pattern is None else self.pattern.dense(copy)

    def of(self, cotangent: np.ndarray | None) -> np.ndarray | None:
        """A cotangent that came as a dense array: at the values of a sparse tensor."""
        if self.pattern is None or cotangent is None or cotangent.shape != self.pattern.shape:
            return cotangent
        return cotangent.reshape(-1)[self.pattern.places]

    @property
    def signs(self) -> np.ndarray:
        """What each number, or a pair's first and second, is in its memory times as much."""
        conjugate, negative = self.turned
        sign = -1.0 if negative else 1.0
        return np.array([sign, -sign if conjugate else sign]) if self.complex else np.asarray(sign)

    @cached_property
    def unturned(self) -> Region:
        """The same memory as it lies there."""
        signs = torch.from_numpy(self.signs).to(self.dtype)
        return replace(self, numbers=self.numbers * signs, turned=(False, False))

    @cached_property
    def positions(self) -> np.ndarray:
        """Where each entry lies in the storage."""
        return strided(self.offset, self.stride, self.shape)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.storage, self.offset, self.shape, self.stride, self.dtype


@dataclass(eq=False)
class Event:
    """One operation that torch ran. Tensors in `args` and `kwargs` stand as regions.

    `side` are operands that it wrote to and does not return, as they were afterwards: running statistics, a
    list of tensors.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Region, ...] = ()
    side: tuple[Region, ...] = ()
    place: Place = NOWHERE
    module: str = ""
    call: int | None = None  # the call of a custom Function that it is part of
    owner: int | None = None  # the number of its autograd node

    @property
    def name(self) -> str:
        """`mul` of `aten.mul.Tensor`; operations of other libraries keep theirs, `mylib::op`."""
        namespace, name = self.op.namespace, self.op._schema.name.split("::")[1]
        return name if namespace == "aten" else f"{namespace}::{name}"

    @cached_property
    def regions(self) -> list[Region]:
        """The tensors among the arguments."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Region)]

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument by its name in the schema, defaults filled in."""
        named: dict[str, Any] = {}
        for n, argument in enumerate(self.op._schema.arguments):
            if n < len(self.args):
                named[argument.name] = self.args[n]
            elif argument.name in self.kwargs:
                named[argument.name] = self.kwargs[argument.name]
            else:
                named[argument.name] = argument.default_value if argument.has_default_value() else None
        return named

    @cached_property
    def written(self) -> list[Region]:
        """The arguments that it writes to, as they were before."""
        schema = self.op._schema.arguments
        names = [each.name for each in schema if each.alias_info is not None and each.alias_info.is_write]
        leaves = [leaf for name in names for leaf in tree_leaves(self.arguments[name])]
        return [leaf for leaf in leaves if isinstance(leaf, Region)]

    @property
    def is_item(self) -> bool:
        """Whether it hands a number that is none of the integers to Python."""
        return self.op is torch.ops.aten._local_scalar_dense.default and not whole_numbers(
            self.regions[0].dtype
        )

    @property
    def rebinds(self) -> bool:
        """Whether it makes a tensor look at memory that was there, and computes nothing."""
        return self.name == "set_"

    @property
    def turns(self) -> bool:
        """Whether it looks at a tensor's memory as its conjugate, or negative."""
        sources = self.regions[:1] if self.is_view else []
        return any(out.turned != source.turned for source in sources for out in self.outs)

    @property
    def is_view(self) -> bool:
        """Whether the outputs lie in the memory of the first argument, which is not written to."""
        returns = self.op._schema.returns
        return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


@dataclass(eq=False)
class Step:
    """One autograd node: its operations, the values that its edges stand for, and its cotangents in each
    pass."""

    number: int
    name: str
    events: list[Event]
    edges: tuple[Edge | None, ...]
    inputs: dict[Edge, Region | None]
    outputs: dict[int, Region]
    place: Place
    module: str
    by_function: bool = False  # whether it is a custom Function's
    kind: str = ""  # the custom Function's name
    formula: str = ""  # said by the user, in place of the operations
    declared: str = ""  # what the gradient is meant to be that of, as the user said it
    arguments: Mapping[str, Any] = field(default_factory=dict)  # the names that the formula is over
    changes: bool = False  # whether its backward writes to the cotangent that it received
    # Operations before it whose further results it reads (a mean, a deviation): its derivative is through
    # them.
    saved: tuple[Event, ...] = ()
    # Of each pass: where it is bit for bit so many `times` the first, nothing else is kept of it.
    times: list[float | None] = field(default_factory=list)
    received: list[Cotangents] = field(default_factory=list)
    passed: list[Cotangents] = field(default_factory=list)

    @cached_property
    def carried(self) -> frozenset[Any]:
        """Where the results lie that it reads of operations before it."""
        return frozenset(out.key for event in self.saved for out in event.outs[1:])


@dataclass(frozen=True, eq=False)
class LeafStep:
    """A tensor that needs a gradient and has no history: what arrived at it in each pass."""

    name: str
    edge: Edge
    region: Region
    gradients: Cotangents
    nested: bool = False  # whether a part arrived by a backward within the backward: a reentrant checkpoint


@dataclass(frozen=True, eq=False)
class Export:
    """Numbers that left torch: by which call, after how many operations, and where."""

    call: str
    position: int
    region: Region
    place: Place


@dataclass(frozen=True, eq=False)
class Inner:
    """A custom Function that one of torch.func's transforms differentiates: it is no node of the outer graph,
    and is judged by itself, at the numbers that it was given."""

    name: str
    place: Place
    apply: Callable[..., Any]
    given: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Trail:
    """Numbers that left torch and came back, by the position of the operation that read them, and which of
    its operands.

    `known` are numbers that `item()` handed out, `lifted` new tensors made of such (-1 for other entries):
    each by the position of the `item()`. `moved` tells for operands which entries move when the leaves are
    moved; `numbers` are operations with a number of Python's that does.
    """

    known: Mapping[tuple[int, int], int] = field(default_factory=dict)
    lifted: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    moved: Mapping[tuple[int, int], np.ndarray] = field(default_factory=dict)
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Tape:
    """A recorded run. `seeds` are the cotangents of the outputs, by edge and pass; `trouble` is what stopped
    it, in words."""

    events: list[Event]
    steps: list[Step]
    leaves: list[LeafStep]
    outputs: list[Region]
    seeds: list[dict[Edge, np.ndarray]]
    exports: list[Export]
    unseen: set[int]  # storages that were written to by no operation of torch's
    trouble: str = ""
    supported: bool = True
    held: Mapping[int, Any] = field(default_factory=dict)  # storages: no address must be used again
    tensors: Mapping[int, torch.Tensor] = field(default_factory=dict)  # the leaves themselves, by number
    names: Mapping[int, str] = field(default_factory=dict)  # of every leaf that was seen, by number
    transformed: list[Inner] = field(default_factory=list)  # under torch.func's transforms
    trail: Trail = field(default_factory=lambda: Trail())  # of numbers that left torch
    tangents: Mapping[Edge, torch.Tensor | None] = field(default_factory=dict)  # as torch moved them forward
    given: list[Region] = field(default_factory=list)  # the leaves that were there before the run
    foreign: frozenset[int] = frozenset()  # storages that no operation of the run made
    traceback: str = ""  # of what stopped it
    unmarked: str = ""  # why no leaf was reached, in words
    unused: tuple[str, ...] = ()  # tensors that need a gradient and that the outputs do not reach
    idle: tuple[str, ...] = ()  # tensors that the function is given and never reads
    # Leaves that the function itself made of other tensors' memory: `x.detach()`.
    inner: frozenset[int] = frozenset()


def floats_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers in the narrowest of NumPy's formats of floats that surely holds them: those of a
    float32 or float64 tensor where they lie. Who computes with them widens them."""
    dtype = tensor.dtype
    if dtype.is_floating_point and dtype.itemsize < 4:
        tensor = tensor.to(torch.float32)
    elif dtype not in (torch.float32, torch.float64):
        tensor = tensor.to(torch.float64)
    numbers: np.ndarray = tensor.numpy()
    return numbers


def whole_numbers(dtype: torch.dtype) -> bool:
    """Whether tensors of the dtype hold integers or flags."""
    return not (dtype.is_floating_point or dtype.is_complex)
