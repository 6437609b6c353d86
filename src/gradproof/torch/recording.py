"""A run of a torch function, as it was: operations, autograd nodes, and the cotangents that really went in
and out.

A dispatch mode sees every operation below autograd, with its numbers; those are kept as copies, since tensors
are written in place. An operation belongs to the autograd node that its outputs name, and those inside a
custom `Function.forward` to that function's node. Then the output is pulled back three times, with hooks on
every node: once to be judged, once more to see whether the backward repeats itself, and once with another
cotangent in another memory layout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import islice
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import OURS, Place, UnsupportedError, said, shown, users, where
from ..proof.graph import open_axes
from . import insides
from .names import arguments_of, leaf_names, modules_of, named_tensors, parameters_of
from .outputs import flat, no_gradient, told

NOWHERE = Place("")
Edge = tuple[int, int]  # an autograd node's number, and which of its outputs
TORCH = f"{Path(torch.__file__).parent}{os.sep}"
LAYERS = f"{TORCH}nn{os.sep}"  # told where a module of torch's is all that the user called

# What opaque operations and custom Functions compute, by name, as the user said it: `register_formula`.
OPAQUE: dict[str, str] = {}

FORWARDING = (
    "__torch_dispatch__",
    "__torch_function__",
    "_run",
)  # our frames that what others raise passes through
AMBIGUOUS = object()
HIDDEN = np.full((), np.nan)  # in place of the numbers of a tensor that has none of its own

# Calls that hand a tensor's numbers to the world outside of torch.
EXPORTS = {
    getattr(torch.Tensor, name): name for name in ("numpy", "__array__", "tolist", "data_ptr", "__dlpack__")
}


@dataclass(frozen=True, eq=False)
class Region:
    """A tensor at one moment: where it lies in its storage, and a copy of its numbers.

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

    @property
    def floating(self) -> bool:
        return self.dtype.is_floating_point

    @cached_property
    def values(self) -> np.ndarray:
        """The numbers in float64, which holds those of every dtype (of integers up to 2**53) exactly.

        Raises `UnsupportedError` for an opaque tensor.
        """
        if self.opaque:
            raise UnsupportedError(self.opaque)
        plain = torch.view_as_real(self.numbers) if self.dtype.is_complex else self.numbers
        return plain.to(torch.float64).numpy()

    @cached_property
    def positions(self) -> np.ndarray:
        """Where each entry lies in the storage."""
        flat = np.full((1,) * len(self.shape), self.offset, dtype=np.int64)
        for axis, stride in zip(open_axes(self.shape), self.stride, strict=True):
            flat = flat + stride * axis
        return np.broadcast_to(flat, self.shape)

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
        found = []
        for argument in self.op._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                found += [
                    leaf for leaf in tree_leaves(self.arguments[argument.name]) if isinstance(leaf, Region)
                ]
        return found

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
    formula: str = ""  # said by the user, in place of the operations
    arguments: Mapping[str, Any] = field(default_factory=dict)  # the names that the formula is over
    changes: bool = False  # whether its backward writes to the cotangent that it received
    received: list[tuple[np.ndarray | None, ...]] = field(default_factory=list)
    passed: list[tuple[np.ndarray | None, ...]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class LeafStep:
    """A tensor that needs a gradient and has no history: what arrived at it in each pass."""

    name: str
    edge: Edge
    region: Region
    gradients: tuple[np.ndarray | None, ...]
    nested: bool = (
        False  # whether a part of it arrived by a backward within the backward: a reentrant checkpoint
    )


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


@dataclass(frozen=True, eq=False)
class Export:
    """Numbers that left torch: by which call, after how many operations, and where."""

    call: str
    position: int
    region: Region
    place: Place


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
    held: Mapping[int, Any] = field(
        default_factory=dict
    )  # the storages: their addresses must not be used again
    tensors: Mapping[int, torch.Tensor] = field(default_factory=dict)  # the leaves themselves, by number
    names: Mapping[int, str] = field(default_factory=dict)  # of every leaf that was seen, by number
    transformed: list[tuple[str, Place]] = field(
        default_factory=list
    )  # custom Functions under torch.func's transforms
    trail: Trail = field(default_factory=lambda: Trail())  # of numbers that left torch
    given: list[Region] = field(default_factory=list)  # the leaves that were there before the run
    foreign: frozenset[int] = frozenset()  # storages that no operation of the run made
    traceback: str = ""  # of what stopped it
    unmarked: str = ""  # why no leaf was reached, in words
    unused: tuple[str, ...] = ()  # tensors that need a gradient and that the outputs do not reach
    idle: tuple[str, ...] = ()  # tensors that the function is given and never reads
    inner: frozenset[int] = (
        frozenset()
    )  # those that the function itself made of other tensors' memory: `x.detach()`


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
        self.digits = (
            digits  # a number of no larger denominator is not known again: such stand in programs anyway
        )
        self.leaves = leaves  # the tensors, by identity, that were there before the run
        self.inner: set[int] = (
            set()
        )  # numbers of leaves that the function itself made of other tensors' memory
        self.events: list[Event] = []
        self.modules = modules
        self.storages: dict[int, Any] = {}  # held, so that no address is used again
        self.writes: dict[int, int] = {}
        self.copies: dict[tuple[Any, ...], tuple[int, torch.Tensor]] = {}
        self.nodes: list[Any] = []  # autograd nodes, held, so that no identity is used again
        self.numbers: dict[int, int] = {}
        self.edges: dict[Edge, Region] = {}
        self.forwards = insides.Forwards()
        self.calls: dict[int, Call] = {}  # of custom Functions, by their frames
        self.pending: tuple[Event, list[torch.Tensor]] | None = None
        self.exports: list[Export] = []
        self.scalars: dict[float, int] = {}  # the numbers that `item()` handed out: by which operation
        self.known: dict[tuple[int, int], int] = {}  # where such a number came back: an operation's argument
        self.lifted: dict[
            int, tuple[int, ...]
        ] = {}  # ... or the entries of a new tensor, -1 for other numbers
        self.transformed: list[tuple[str, Place]] = []
        self.unseen: set[int] = set()  # storages that were written to by no operation of torch's
        self.foreign: set[int] = set()  # storages that no operation of the run made
        self.making = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
        result = func(*args, **kwargs)
        outs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for region in event.written:
            self.writes[region.storage] = self.writes.get(region.storage, 0) + 1
        self.making = not event.rebinds
        event.outs = tuple(self.region(out) for out in outs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        came = {id(out) for out in outs}
        written = {id(region) for region in event.written}
        side = [
            t for t, region in zip(given, regions, strict=True) if id(region) in written and id(t) not in came
        ]
        event.side = tuple(self.region(tensor) for tensor in side)
        self.making = False
        if event.is_item and isfinite(result) and Fraction(result).denominator > self.digits:
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
            names = dict.fromkeys(kind.__name__ for kind in forward.classes)
            self.transformed.append((" or ".join(names), place))
        arguments = dict(zip(parameters_of(forward.classes[0]), tree_map(self._kept, given), strict=False))
        self.calls[id(frame)] = Call(frame, insides.next_number(), forward, regions, arguments, place)

    def export(self, call: str, tensor: torch.Tensor) -> None:
        with insides.without_modes():
            self._export(call, tensor)

    def _export(self, call: str, tensor: torch.Tensor) -> None:
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
        return self.region(leaf) if isinstance(leaf, torch.Tensor) else leaf

    def region(self, tensor: torch.Tensor) -> Region:
        """The tensor as it is now."""
        with insides.without_functions():
            return self._region(tensor)

    def _region(self, tensor: torch.Tensor) -> Region:
        opaque = _opaque(tensor)
        if opaque:
            return self._hidden(tensor, opaque)
        key, storage = insides.storage_of(tensor)
        fresh = tensor.requires_grad and _history(tensor) is None and id(tensor) not in self.numbers
        if fresh and id(tensor) not in self.leaves and key in self.storages:
            self.inner.add(self.number(tensor))
        if key not in self.storages:
            self.storages[key] = storage
            if not self.making:
                self.foreign.add(key)
        turned = (tensor.is_conj(), tensor.is_neg())
        place = (key, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype, turned)
        writes = self.writes.get(key, 0)
        known = self.copies.get(place)
        plain = tensor.detach().resolve_conj().resolve_neg()
        changed = known is not None and known[0] == writes and not _equal(known[1], plain.cpu())
        if known is None or known[0] != writes or changed:
            known = (writes, plain.cpu().clone(memory_format=torch.contiguous_format))
            self.copies[place] = known
        if changed:  # written to by something that is no operation of torch's
            self.unseen.add(key)
        region = replace(self._lying(tensor, storage, known[1], self._edge(tensor)), changed=changed)
        if region.edge is not None:
            self.edges.setdefault(region.edge, region)
        return region

    def _hidden(self, tensor: torch.Tensor, why: str) -> Region:
        """A tensor without plain memory of its own."""
        key = -insides.address_of(tensor)
        self.storages.setdefault(key, tensor)
        region = Region(key, 1, 0, (), (), tensor.dtype, torch.zeros(()), self._edge(tensor), opaque=why)
        if region.edge is not None:
            self.edges.setdefault(region.edge, region)
        return region

    def _lying(self, tensor: torch.Tensor, storage: Any, numbers: torch.Tensor, edge: Edge | None) -> Region:
        extent = storage.nbytes() // max(1, tensor.dtype.itemsize)
        where = (
            insides.storage_of(tensor)[0],
            extent,
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
        )
        return Region(*where, tensor.dtype, numbers, edge)

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
        while frame is not None and frame.f_code is not _run.__code__:
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


def whole_numbers(dtype: torch.dtype) -> bool:
    """Whether tensors of the dtype hold integers or flags."""
    return not (dtype.is_floating_point or dtype.is_complex)


def _history(tensor: torch.Tensor) -> Any:
    """The autograd node of a tensor that needs a gradient, None for a leaf."""
    try:
        return tensor.grad_fn
    except RuntimeError:
        # A view made under no_grad, whose base was written to since: torch refuses its history, not its
        # numbers.
        return AMBIGUOUS


def _opaque(tensor: torch.Tensor) -> str:
    """Why a tensor has no plain memory of its own, in words; nothing where it has."""
    if insides.is_transformed(tensor):
        return "a tensor under vmap, grad or another of torch.func's transforms"
    if insides.has_own_rules(tensor):
        return f"a tensor of the class {type(tensor).__name__}, which computes by rules of its own"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.device.type == "meta":
        return "a tensor without numbers (meta)"
    if tensor.layout != torch.strided:
        return f"a tensor of the layout {str(tensor.layout).removeprefix('torch.').removeprefix('_')}"
    return ""


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all numbers are the same; NaN is NaN."""
    return bool(((a == b) | ((a != a) & (b != b))).all())


def ours(error: Exception) -> bool:
    """Whether an exception comes from our own code, and not from what the function called."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    file = "" if frame is None else frame.tb_frame.f_code.co_filename
    return file.startswith(OURS) and frame is not None and frame.tb_frame.f_code.co_name not in FORWARDING


@lru_cache(maxsize=4096)
def _users(file: str) -> bool:
    """Whether code is neither torch's nor ours nor Python's own."""
    return users(file) and not file.startswith(TORCH)


def _run(recorder: Recorder, func: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    with torch.enable_grad(), _Exports(recorder), recorder:
        result = func(*inputs)
    recorder.settle()
    return result


def rehearsed(func: Callable[..., Any], inputs: Sequence[Any]) -> tuple[list[Event], Trail]:
    """The operations of a forward run. Raises what the function raises."""
    recorder = Recorder({}, frozenset(leaf_names(func, inputs)), digits=0)
    _run(recorder, func, inputs)
    return recorder.events, Trail(recorder.known, recorder.lifted)


def record(func: Callable[..., Any], inputs: Sequence[Any], passes: int = 3) -> Tape:
    """Run the function once on the inputs, and its backward so many times, and keep what happened.

    The leaves' `.grad` are as before afterwards. What the function or its backward raises is the tape's
    `trouble`.
    """
    if gone := insides.missing():
        tried = " to ".join(insides.TRIED)
        return stopped(
            f"torch {torch.__version__} is not known: {', '.join(gone)} are not as they were; tried are "
            f"{tried}"
        )
    names = leaf_names(func, inputs)
    recorder = Recorder(modules_of(func), frozenset(names))
    given = recorder.given(
        tensor for _, tensor in named_tensors(func, inputs) if tensor.requires_grad and tensor.is_leaf
    )
    try:
        result = _run(recorder, func, inputs)
    except Exception as error:
        if isinstance(error, NotImplementedError) and "HigherOrderOperator" in str(error):
            why = "higher-order operators (cond, while_loop, scan, flex_attention) are not recorded"
            return replace(_stopped(recorder, why, supported=False), traceback=told(error))
        if ours(error):
            raise  # a fault of the recorder's, and none of the function's
        return replace(
            _stopped(recorder, f"the function raised {said(error)}{where(error)}"), traceback=told(error)
        )
    tensors = list(flat(result))
    outputs = [out for out in tensors if out.requires_grad]
    if any(out.dtype.is_complex for out in outputs):
        return _stopped(recorder, "the output is complex: only real functions are checked", supported=False)
    kept = [recorder.region(out) for out in outputs]
    hidden = next((region.opaque for region in kept if region.opaque), "")
    if hidden:
        return _stopped(recorder, f"an output is {hidden}", supported=False)
    steps, accumulators = _steps(recorder, outputs)
    seeds: list[dict[Edge, np.ndarray]] = []
    trouble = broken = ""
    gradients: list[list[np.ndarray | None]] = [[] for _ in accumulators]
    leaves = [recorder.nodes[number] for number in accumulators]
    marked = {id(t): (name, t) for name, t in named_tensors(func, inputs) if t.requires_grad and t.is_leaf}
    reached = {id(leaf) for leaf in leaves}
    others = [t for key, (_, t) in marked.items() if key not in reached]
    arrivals: dict[int, int] = {}
    for cotangents in islice(cotangents_of(outputs), passes):
        received: dict[int, Any] = {}
        passed: dict[int, Any] = {}
        changed: set[int] = set()
        handles = [
            _Hooks(recorder.nodes[step.number], step.number, received, passed, changed) for step in steps
        ]
        before = [(leaf, leaf.grad) for leaf in (*leaves, *others)]
        counters = [] if seeds else [_counted(leaf, arrivals) for leaf in (*leaves, *others)]
        try:
            for leaf, _ in before:
                leaf.grad = None
            torch.autograd.backward(outputs, cotangents, retain_graph=passes > 1)
            if not seeds:  # whatever else the backward has filled is a leaf as well
                filled = [leaf for leaf in others if leaf.grad is not None]
                leaves, others = [*leaves, *filled], [leaf for leaf in others if leaf.grad is None]
                accumulators += [recorder.number(leaf) for leaf in filled]
                gradients += [[] for _ in filled]
            for column, leaf in zip(gradients, leaves, strict=True):
                column.append(_numbers(leaf.grad))
        except Exception as error:
            runs = (
                "",
                ", run once more on a retained graph,",
                ", given its cotangent two entries apart in memory,",
            )
            again = runs[len(seeds)]
            trouble = f"the backward{again} raised {said(error)}{where(error)}"
            trouble += "; if it is meant to run once, say so by passes=1" if len(seeds) == 1 else ""
            broken = told(error)
            break
        finally:
            for leaf, old in before:
                leaf.grad = old
            for handle in (*handles, *counters):
                handle.remove()
        pass_seeds: dict[Edge, np.ndarray] = {}
        for region, cotangent in zip(kept, cotangents, strict=True):
            if region.edge is not None:
                numbers = cotangent.to(torch.float64).cpu().numpy().copy()
                pass_seeds[region.edge] = pass_seeds.get(region.edge, 0) + numbers
        seeds.append(pass_seeds)
        for step in steps:
            step.changes = step.changes or step.number in changed
            step.received.append(received.get(step.number, ()))
            step.passed.append(passed.get(step.number, ()))
    made = []
    for number, leaf, column in zip(accumulators, leaves, gradients, strict=True):
        held = recorder.edges.get((number, 0)) or recorder.region(leaf)
        nested = id(leaf) not in reached or arrivals.get(id(leaf), 0) > 1
        made.append(LeafStep(names.get(id(leaf), f"leaf{number}"), (number, 0), held, tuple(column), nested))
    unused = tuple(marked[id(leaf)][0] for leaf in others)
    read = {region.storage for event in recorder.events for region in event.regions} | {
        region.storage for region in kept
    }
    handed = [
        (name, t)
        for name, t in arguments_of(func, inputs)
        if isinstance(t, torch.Tensor) and not t.requires_grad
    ]
    idle = tuple(name for name, t in handed if not _opaque(t) and insides.storage_of(t)[0] not in read)
    seen = {
        n: names.get(id(node), f"leaf{n}")
        for n, node in enumerate(recorder.nodes)
        if isinstance(node, torch.Tensor)
    }
    return Tape(
        recorder.events,
        steps,
        made,
        kept,
        seeds,
        recorder.exports,
        recorder.unseen,
        trouble,
        held=recorder.storages,
        tensors=dict(zip(accumulators, leaves, strict=True)),
        names=seen,
        traceback=broken,
        unmarked="" if made else no_gradient(result, [name for name, _ in marked.values()]),
        unused=unused,
        idle=idle,
        inner=frozenset(recorder.inner),
        transformed=recorder.transformed,
        trail=Trail(recorder.known, recorder.lifted),
        given=given,
        foreign=frozenset(recorder.foreign),
    )


def region_of(tensor: torch.Tensor) -> Region:
    """A tensor as it is now, apart from any run."""
    return Recorder({}).region(tensor)


def stopped(why: str) -> Tape:
    """The tape of a run that we could not follow."""
    return _stopped(Recorder({}), why, supported=False)


def _stopped(recorder: Recorder, why: str, *, supported: bool = True) -> Tape:
    return Tape(recorder.events, [], [], [], [], recorder.exports, recorder.unseen, why, supported)


def _counted(leaf: torch.Tensor, arrivals: dict[int, int]) -> Any:
    """Count how often a gradient is added to the leaf's."""

    def count(tensor: torch.Tensor) -> None:
        arrivals[id(tensor)] = arrivals.get(id(tensor), 0) + 1

    return leaf.register_post_accumulate_grad_hook(count)


class _Hooks:
    """What a node receives, before it can change it, and what it passes on."""

    def __init__(
        self, node: Any, number: int, received: dict[int, Any], passed: dict[int, Any], changed: set[int]
    ) -> None:
        def before(grad_outputs: Any) -> None:
            received[number] = tuple(map(_numbers, grad_outputs))

        def after(grad_inputs: Any, grad_outputs: Any) -> None:
            passed[number] = tuple(map(_numbers, grad_inputs))
            now = tuple(map(_numbers, grad_outputs))
            pairs = zip(received.get(number, ()), now, strict=False)
            if any(
                a is not None and b is not None and not np.array_equal(a, b, equal_nan=True) for a, b in pairs
            ):
                changed.add(number)

        self.handles = [node.register_prehook(before), node.register_hook(after)]

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _numbers(tensor: torch.Tensor | None) -> np.ndarray | None:
    if tensor is None:
        return None
    dense = tensor.detach()
    if dense.is_nested or insides.has_own_rules(dense):
        return HIDDEN
    dense = dense.to_dense() if dense.layout != torch.strided else dense
    dense = torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
    return (
        dense.to(torch.float64).cpu().numpy(force=True).copy()
    )  # also of a tensor that is zero without memory


def cotangents_of(outputs: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The outputs' cotangents in three passes: twice the same, then -2 times as much in another layout.

    1 for a function with one number as its output; else random numbers, exact in every dtype and without a
    common factor. A backward is linear, and a factor of -2 exact, so that the third pass is told apart bit by
    bit.
    """
    random = np.random.default_rng(1)
    first = []
    for out in outputs:
        if len(outputs) == 1 and out.ndim == 0:
            first.append(torch.ones_like(out))
            continue
        entries = random.choice([1.0, 1.25, 1.5, 1.75], out.shape) * random.choice([-1.0, 1.0], out.shape)
        first.append(torch.from_numpy(np.asarray(entries)).to(out.dtype).to(out.device))
    yield first
    yield [cotangent.clone() for cotangent in first]
    yield [_strided(-2 * cotangent) for cotangent in first]


def _strided(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, two entries apart in memory."""
    wide = torch.zeros((*tensor.shape, 2), dtype=tensor.dtype, device=tensor.device)
    wide[..., 0] = tensor
    return wide[..., 0]


# The autograd graph


def _steps(recorder: Recorder, outputs: Iterable[torch.Tensor]) -> tuple[list[Step], list[int]]:
    """Every autograd node that the outputs reach, first ones first, and the accumulators of the leaves."""
    roots = [out if out.grad_fn is None else out.grad_fn for out in outputs]
    found: dict[int, Any] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        number = recorder.number(node)
        if number in found:
            continue
        found[number] = node
        stack += [following for following, _ in getattr(node, "next_functions", ()) if following is not None]
    leaf = {number: isinstance(recorder.nodes[number], torch.Tensor) for number in found}
    accumulators = [number for number in sorted(found) if leaf[number]]
    ordered = sorted(
        (number for number in found if not leaf[number]), key=lambda number: insides.number_of(found[number])
    )
    outs: dict[int, dict[int, Region]] = {}
    for (number, nr), region in recorder.edges.items():
        outs.setdefault(number, {})[nr] = region
    owned: dict[int, list[Event]] = {}
    calls = _calls_of(recorder, [found[number] for number in ordered])
    of_call: dict[int, list[Event]] = {}
    for event in recorder.events:
        if event.call is not None:
            of_call.setdefault(event.call, []).append(event)
        elif event.owner is not None:
            owned.setdefault(event.owner, []).append(event)
    steps = []
    counts: dict[str, int] = {}
    for number in ordered:
        node = found[number]
        kind = node.name().removeprefix("torch::autograd::")
        counts[kind] = counts.get(kind, 0) + 1
        name = kind if counts[kind] == 1 else f"{kind}.{counts[kind]}"
        call = calls.get(number)
        events = of_call.get(call, []) if call is not None else owned.get(number, [])
        edges = tuple(None if n is None else (recorder.number(n), nr) for n, nr in node.next_functions)
        seen = [region for event in events for region in event.regions]
        if call is not None:
            seen = [*recorder.calls[call].regions, *seen]
        here: dict[Edge, Region] = {}
        for region in seen:
            if region.edge is not None:
                here.setdefault(region.edge, region)
        inputs = {edge: here.get(edge) or recorder.edges.get(edge) for edge in edges if edge is not None}
        place = next((event.place for event in events if event.place.file), NOWHERE)
        if call is not None:
            place = recorder.calls[call].place
        module = next((event.module for event in events if event.module), "")
        by_function = insides.forward_class(node) is not None
        step = Step(number, name, events, edges, inputs, outs.get(number, {}), place, module, by_function)
        if call is not None:
            step.arguments = recorder.calls[call].arguments
            step.formula = OPAQUE.get(insides.forward_class(node).__name__, "")
        steps.append(step)
    return steps, accumulators


def _calls_of(recorder: Recorder, nodes: Sequence[Any]) -> dict[int, int]:
    """Which call made which node of a custom Function.

    A forward that is given a context was given its node. Any other made the last one of its class before its
    first operation: its own number is one less than what the counter stands at, unless it calls other
    Functions first.
    """
    made = {
        recorder.number(call.forward.node): key
        for key, call in recorder.calls.items()
        if call.forward.node is not None
    }
    custom = [node for node in nodes if insides.forward_class(node) is not None]
    for key, call in sorted(recorder.calls.items(), key=lambda item: item[1].counter):
        if call.forward.node is not None:
            continue
        mine = [node for node in custom if insides.forward_class(node) in call.forward.classes]
        mine = [
            node
            for node in mine
            if insides.number_of(node) < call.counter and recorder.number(node) not in made
        ]
        if mine:
            made[recorder.number(max(mine, key=insides.number_of))] = key
    return made
