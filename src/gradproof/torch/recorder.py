"""Sees every operation that torch runs, and keeps it.

A dispatch mode sees every operation below autograd, with its numbers; those are kept as copies, since tensors
are written in place. An operation belongs to the autograd node that its outputs name, and those inside a
custom `Function.forward` to that function's node.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import Place, shown, users
from . import insides
from .names import parameters_of
from .tape import NOWHERE, Edge, Event, Export, Inner, Pattern, Region, Trail, whole_numbers

TORCH = f"{Path(torch.__file__).parent}{os.sep}"
LAYERS = f"{TORCH}nn{os.sep}"  # told where a module of torch's is all that the user called
AMBIGUOUS = object()

# Calls that hand a tensor's numbers to the world outside of torch.
EXPORTS = {
    getattr(torch.Tensor, name): name for name in ("numpy", "__array__", "tolist", "data_ptr", "__dlpack__")
}


# What nested tensors are asked for.
SHAPES = frozenset(f"aten::sym_{what}" for what in ("size", "stride", "numel", "storage_offset"))


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a custom Function: its frame (held, so that no address is used again), its arguments, and the
    user's line."""

    frame: FrameType
    counter: int
    forward: insides.Forward
    regions: list[Region]
    arguments: dict[str, Any]
    place: Place


class Recorder(insides.TorchDispatchMode):
    """Sees every operation, and keeps it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would wrap the mode for its compiler, which takes a second to import and is not asked for
        # here.
        return False

    def __init__(
        self, modules: Mapping[int, str], leaves: frozenset[int] = frozenset(), digits: int = 64
    ) -> None:
        super().__init__()
        self.digits = digits  # a number of no larger denominator is not known again: programs have such
        self.leaves = leaves  # the tensors, by identity, that were there before the run
        self.inner: set[int] = set()  # leaves that the function made of other tensors' memory
        self.events: list[Event] = []
        self.modules = modules
        self.storages: dict[int, Any] = {}  # held, so that no address is used again
        self.writes: dict[int, int] = {}
        self.copies: dict[tuple[Any, ...], tuple[int, torch.Tensor]] = {}
        self.wholes: dict[tuple[int, torch.dtype], tuple[int, torch.Tensor]] = {}  # of all of a storage
        self.nodes: list[Any] = []  # autograd nodes, held, so that no identity is used again
        self.numbers: dict[int, int] = {}
        self.edges: dict[Edge, Region] = {}
        self.forwards = insides.Forwards()
        self.calls: dict[int, Call] = {}  # of custom Functions, by their frames
        self.resolved: dict[tuple[Any, Edge | None], Region] = {}
        self.pending: tuple[Event, list[torch.Tensor]] | None = None
        self.exports: list[Export] = []
        self.scalars: dict[float, int] = {}  # the numbers that `item()` handed out: by which operation
        self.known: dict[tuple[int, int], int] = {}  # where such a number came back: an operation's argument
        self.lifted: dict[int, tuple[int, ...]] = {}  # ... or a new tensor's entries, -1 for others
        self.transformed: list[Inner] = []
        self.unseen: set[int] = set()  # storages that were written to by no operation of torch's
        self.foreign: set[int] = set()  # storages that no operation of the run made
        self.making = False
        self.tangents: dict[Edge, torch.Tensor | None] = {}  # of one that moves them: see `forward`

    def run(self, func: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        """What the function returns. Raises what the function raises."""
        with torch.enable_grad(), _Exports(self), self:
            result = func(*inputs)
        self.settle()
        return result

    @property
    def trail(self) -> Trail:
        return Trail(self.known, self.lifted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "prim" or func._schema.name in SHAPES:
            return func(*args, **(kwargs or {}))  # asked in the middle of an operation
        self.settle()
        kwargs = kwargs or {}
        place, module, call = self._whence()
        self._called(call, place)
        kept_args, kept_kwargs = tree_map(self._kept, (args, dict(kwargs)))
        event = Event(func, kept_args, kept_kwargs, place=place, module=module)
        regions = event.regions
        event.call = None if call is None else id(call)
        self._returned(event)
        tracked = call is None and torch.is_grad_enabled()
        if any(region.complex or any(region.turned) for region in regions):
            with insides.with_conjugates():
                result = func(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
        outs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for region in event.written:
            self.writes[region.storage] = self.writes.get(region.storage, 0) + 1
        self.making = not event.rebinds
        event.outs = tuple(self.region(out) for out in outs)
        self._resolved(event)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        given = [tensor for tensor in given if not _stands_for_none(tensor)]
        came = {id(out) for out in outs}
        written = {id(region) for region in event.written}
        side = [
            t for t, region in zip(given, regions, strict=True) if id(region) in written and id(t) not in came
        ]
        event.side = tuple(self.region(tensor) for tensor in side)
        self.making = False
        if (
            event.is_item
            and isinstance(result, float)
            and isfinite(result)
            and Fraction(result).denominator > self.digits
        ):
            self.scalars[result] = len(self.events)
        self.events.append(event)
        self.pending = (event, [*outs, *side]) if tracked else None
        return result

    def _returned(self, event: Event) -> None:
        """Numbers that `item()` handed out, and that come back as they were."""
        if not self.scalars:
            return
        position = len(self.events)
        for n, (argument, value) in enumerate(zip(event.op._schema.arguments, event.args, strict=False)):
            if isinstance(value, float) and str(argument.type) == "Tensor" and value in self.scalars:
                self.known[position, n] = self.scalars[value]
        if event.name.startswith("lift") and event.regions and event.regions[0].floating:
            came = tuple(
                self.scalars.get(value, -1) for value in event.regions[0].values.reshape(-1).tolist()
            )
            if any(item >= 0 for item in came):
                self.lifted[position] = came

    def _called(self, frame: FrameType | None, place: Place) -> None:
        """The call of a custom Function, when something in it is first seen."""
        if frame is None or id(frame) in self.calls:
            return
        forward = self.forwards.of(frame)
        assert forward is not None
        given = forward.arguments
        tensors = [t for t in tree_leaves(given) if isinstance(t, torch.Tensor)]
        regions = [self.region(t) for t in tensors]
        if insides.is_differentiated(frame) or any(map(insides.is_transformed, tensors)):
            self._inner(forward, given, place, insides.class_called(frame, forward.classes))
        arguments = dict(zip(parameters_of(forward.classes[0]), tree_map(self._kept, given), strict=False))
        self.calls[id(frame)] = Call(frame, insides.next_number(), forward, regions, arguments, place)

    def _inner(self, forward: insides.Forward, given: Sequence[Any], place: Place, called: Any) -> None:
        names = " or ".join(dict.fromkeys(kind.__name__ for kind in forward.classes))

        def plain(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            copy = insides.unwrapped(leaf).detach().clone()
            return copy.requires_grad_(copy.is_floating_point() or copy.is_complex())

        with insides.without_modes():
            self.transformed.append(Inner(names, place, called.apply, tuple(tree_map(plain, tuple(given)))))

    def export(self, call: str, tensor: torch.Tensor) -> None:
        with insides.without_modes():
            place, _, frame = self._whence()
            self._called(frame, place)
            if not whole_numbers(tensor.dtype):
                self.exports.append(Export(call, len(self.events), self.region(tensor), place))

    def settle(self) -> None:
        """The last operation's outputs have their autograd nodes by now."""
        if self.pending is None:
            return
        event, outs = self.pending
        self.pending = None
        event.owner = self._owner(event, outs)

    def _owner(self, event: Event, outs: Sequence[torch.Tensor]) -> int | None:
        written = {region.storage for region in event.written}
        owner = None
        settled_outs = [*event.outs, *event.side]
        for n, (out, region) in enumerate(zip(outs, tuple(settled_outs), strict=True)):
            if not out.requires_grad:
                continue
            base = insides.base_of(out) if region.storage in written else None
            if base is not None:
                # Written through a view: the node belongs to the whole tensor that it is a view of.
                whole = self.region(base)
                if whole.edge is not None:
                    owner = whole.edge[0]
                continue
            settled_outs[n] = settled = self.region(out)
            if settled.edge is not None:
                owner = settled.edge[0]
        count = len(event.outs)
        event.outs, event.side = tuple(settled_outs[:count]), tuple(settled_outs[count:])
        if owner is None:
            return None
        # An operation without a node of its own (argmax, a shape) leaves its input's; its own is newer than
        # its inputs'.
        before = {region.edge[0] for region in event.regions if region.edge is not None}
        return None if owner in before else owner

    # Tensors

    def _kept(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if _stands_for_none(leaf):
            return None
        region = self.region(leaf)
        return self.resolved.get((region.key, region.edge), region)

    def _resolved(self, event: Event) -> None:
        """Torch copies a conjugate for an operation that cannot read one, below autograd: for that operation,
        the next one, the copy is what was copied."""
        turned = [region for region in event.regions if any(region.turned)]
        if event.name != "clone" or not turned:
            self.resolved.clear()
        elif event.outs[0].edge is None and not any(event.outs[0].turned):
            self.resolved[event.outs[0].key, None] = turned[0]

    def region(self, tensor: torch.Tensor) -> Region:
        """The tensor as it is now."""
        with insides.without_functions():
            why = why_opaque(tensor)
            region = self._hidden(tensor, why) if why else self._region(tensor)
        if region.edge is not None:
            self.edges.setdefault(region.edge, region)
        return region

    def _region(self, tensor: torch.Tensor) -> Region:
        key, storage = _memory_of(tensor)
        fresh = tensor.requires_grad and _history(tensor) is None and id(tensor) not in self.numbers
        if fresh and id(tensor) not in self.leaves and key in self.storages:
            self.inner.add(self.number(tensor))
        if key not in self.storages:
            self.storages[key] = storage
            if not self.making:
                self.foreign.add(key)
        edge, pattern = self._edge(tensor), None
        if tensor.layout != torch.strided:
            tensor, pattern = _values_of(tensor)
        geometry = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        place = (key, *geometry, tensor.is_conj(), tensor.is_neg())
        writes = self.writes.get(key, 0)
        known = self.copies.get(place)
        plain = tensor.detach().resolve_conj().resolve_neg()
        if plain._is_zerotensor():  # a tangent without memory
            plain = torch.zeros(plain.shape, dtype=plain.dtype)
        changed = known is not None and known[0] == writes and not equal(known[1], plain.cpu())
        if known is None or known[0] != writes or changed:
            known = (writes, self._copied(plain.cpu(), key, writes))
            self.copies[place] = known
        if changed:  # written to by something that is no operation of torch's
            self.unseen.add(key)
        size, numbers = max(1, tensor.dtype.itemsize), known[1]
        turned = (tensor.is_conj(), tensor.is_neg())
        if tensor.is_complex():
            geometry, numbers, size = real_geometry(tensor), torch.view_as_real(numbers), size // 2
        more: dict[str, Any] = {"complex": tensor.is_complex(), "turned": turned, "pattern": pattern}
        return Region(key, storage.nbytes() // size, *geometry, numbers, edge, changed, **more)

    def _copied(self, plain: torch.Tensor, key: int, writes: int) -> torch.Tensor:
        """The tensor's numbers: a look at the copy of its storage, where there is one as it is now."""
        place = key, plain.dtype
        since, whole = self.wholes.get(place, (-1, plain))
        if since == writes and whole.nbytes == plain.untyped_storage().nbytes():
            seen = whole.as_strided(plain.shape, plain.stride(), plain.storage_offset())
            if equal(seen, plain):
                return seen
        copy = plain.clone(memory_format=torch.contiguous_format)
        if plain.is_contiguous() and copy.nbytes == plain.untyped_storage().nbytes():
            self.wholes[place] = writes, copy
        return copy

    def _hidden(self, tensor: torch.Tensor, why: str) -> Region:
        """A tensor without plain memory of its own."""
        key = -insides.address_of(tensor)
        self.storages.setdefault(key, tensor)
        dtype = tensor.dtype.to_real()
        return Region(key, 1, 0, (), (), dtype, torch.zeros(()), self._edge(tensor), opaque=why)

    def _edge(self, tensor: torch.Tensor) -> Edge | None:
        if not tensor.requires_grad:
            return None
        node = _history(tensor)
        if node is AMBIGUOUS:
            return None
        return (self.number(tensor), 0) if node is None else (self.number(node), tensor.output_nr)

    def given(self, tensors: Iterable[torch.Tensor]) -> list[Region]:
        """The tensors as they are before the run."""
        self.making = True
        found = [self.region(tensor) for tensor in tensors]
        self.making = False
        return found

    def number(self, node: Any) -> int:
        """A number for an autograd node, the same each time it is seen; that of an accumulator is its
        leaf's."""
        node = insides.leaf_of(node)
        if id(node) not in self.numbers:
            self.numbers[id(node)] = len(self.nodes)
            self.nodes.append(node)
        return self.numbers[id(node)]

    # Places

    def _whence(self) -> tuple[Place, str, FrameType | None]:
        """The user's line that is running, the module it is in, and the outermost custom Function around
        it."""
        frame: FrameType | None = sys._getframe(1)
        self.forwards.refresh()
        place, module, call, layer = NOWHERE, "", None, NOWHERE
        while frame is not None and frame.f_code is not Recorder.run.__code__:
            code = frame.f_code
            if code in self.forwards:
                call = frame
            if (called := insides.module_of(frame)) is not None:
                module = module or self.modules.get(id(called), "")
            elif not place.file and _users(code.co_filename):
                place = Place(shown(code.co_filename), frame.f_lineno)
            elif not layer.file and code.co_filename.startswith(LAYERS):
                layer = Place("torch" + code.co_filename.removeprefix(TORCH[:-1]), frame.f_lineno)
            frame = frame.f_back
        return place if place.file else layer, module, call


class _Exports(TorchFunctionMode):
    """Sees where numbers of a tensor that needs a gradient leave torch."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXPORTS and args and isinstance(args[0], torch.Tensor):
            self.recorder.export(EXPORTS[func], args[0])
        return func(*args, **(kwargs or {}))


def _history(tensor: torch.Tensor) -> Any:
    """The autograd node of a tensor that needs a gradient, None for a leaf."""
    try:
        return tensor.grad_fn
    except RuntimeError:
        # A view made under no_grad, whose base was written to since: torch refuses its history, not its
        # numbers.
        return AMBIGUOUS


def real_geometry(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]:
    """Where a tensor lies in its memory, and its dtype; of a complex one as pairs of reals."""
    start, shape, steps = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
    if not tensor.is_complex():
        return start, shape, steps, tensor.dtype
    return 2 * start, (*shape, 2), (*(2 * step for step in steps), 1), tensor.dtype.to_real()


def _stands_for_none(tensor: torch.Tensor) -> bool:
    """Torch hands its views of nested tensors one without numbers, for its class alone."""
    return insides.is_jagged(tensor) and insides.values_of_jagged(tensor)[0].device.type == "meta"


def _memory_of(tensor: torch.Tensor) -> tuple[int, Any]:
    return insides.storage_of(tensor if tensor.layout == torch.strided else _values_of(tensor)[0])


SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def _values_of(tensor: torch.Tensor) -> tuple[torch.Tensor, Pattern]:
    """A sparse tensor's values, and where they stand."""
    with torch.no_grad():
        if insides.is_jagged(tensor):
            values, begins = insides.values_of_jagged(tensor)
            longest = int(begins.diff().max()) if len(begins) > 1 else 0
            padded = (len(begins) - 1, longest, *values.shape[1:])
            return values.detach(), Pattern(
                padded, tuple(values.shape), (begins.cpu().clone(),), torch.jagged
            )
        shape, layout, tensor = tuple(tensor.shape), tensor.layout, tensor.detach()
        indices: tuple[torch.Tensor, ...]
        if layout == torch.sparse_coo:
            values, indices = tensor._values(), (tensor._indices().clone(),)
        elif layout == torch.sparse_csr:
            values, indices = tensor.values(), (tensor.crow_indices().clone(), tensor.col_indices().clone())
        else:
            values, indices = tensor.values(), (tensor.ccol_indices().clone(), tensor.row_indices().clone())
        values = values.detach()
    return values, Pattern(shape, tuple(values.shape), tuple(each.cpu() for each in indices), layout)


def why_opaque(tensor: torch.Tensor) -> str:
    """Why a tensor has no plain memory of its own, in words; nothing where it has."""
    if insides.is_transformed(tensor):
        return "a tensor under vmap, grad or another of torch.func's transforms"
    if insides.is_jagged(tensor):
        return "a tensor without numbers (meta)" if _stands_for_none(tensor) else ""
    if insides.has_own_rules(tensor):
        return f"a tensor of the class {type(tensor).__name__}, which computes by rules of its own"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.device.type == "meta":
        return "a tensor without numbers (meta)"
    if tensor.layout in SPARSE:
        plain = tensor.layout == torch.sparse_coo or tensor.dim() == 2
        return "" if plain and not tensor.is_complex() else "a batch of sparse matrices, or complex ones"
    if tensor.layout != torch.strided:
        return f"a tensor of the layout {str(tensor.layout).removeprefix('torch.').removeprefix('_')}"
    return ""


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all numbers are the same; NaN is NaN."""
    try:
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
    except NotImplementedError:  # of complex numbers of 16 bits it has no kernel
        one, other = (torch.view_as_real(x).numpy() for x in (a, b))
        return np.array_equal(one, other, equal_nan=True)


@lru_cache(maxsize=4096)
def _users(file: str) -> bool:
    """Whether code is neither torch's nor ours nor Python's own."""
    return users(file) and not file.startswith(TORCH)
