"""Recorded operations to nodes.

An operation with a formula becomes nodes by the language's own lowering. One that only moves entries is run
on the entries' places: each entry of each operand gets a number of its own, torch moves these numbers, and
where they end up is the index map. What is in no table is decomposed by torch, and its parts are lowered in
its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import sympy
import torch
from sympy import Expr, Integer
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import InputError, UnsupportedError
from ..proof.graph import Read, Shape, bound, free, size, slot
from .definitions import ADDITIVE, COMPLEX, DEFINITIONS, SPARSE, NotDefinedError, by_parts
from .fourier import TRANSFORMS
from .insides import decomposition_table, is_composite
from .memory import Content, table
from .operations import CHOICES, CONSTANT, FORMULAS, MOVES, POOLS, SCALARS
from .recorder import Recorder, real_geometry
from .resampling import NAMES as INTERPOLATIONS
from .resampling import interpolated
from .tape import OPAQUE, Event, Region
from .writing import Codes, Writing

aten = torch.ops.aten

# Operations of sparse tensors that leave each value as it is.
SAME_VALUES = frozenset(
    """_sparse_coo_tensor_with_dims_and_tensors _sparse_coo_tensor_unsafe sparse_coo_tensor
    sparse_compressed_tensor _sparse_compressed_tensor_unsafe sparse_csr_tensor values _values detach alias
    _coalesced clone _nested_view_from_jagged _nested_get_values""".split()
)
SOFTMAXES = {"_sparse_softmax": torch.softmax, "_sparse_log_softmax": torch.log_softmax}
# What treats each row of a nested tensor alike, whatever their lengths.
ROW_BY_ROW = frozenset(
    """linear matmul mm native_layer_norm layer_norm _softmax _log_softmax softmax log_softmax sum mean relu
    dropout native_dropout""".split()
) | {name for name in (*FORMULAS, *SCALARS) if name not in MOVES}
MAX_PARTS = 2000  # operations that one operation decomposes into
SEEN_OTHERWISE = frozenset(
    "transpose_ t_ squeeze_ unsqueeze_ swapaxes_ swapdims_ as_strided_ detach_".split()
)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of an operation, recorded from a run on copies of its numbers. `operands` are its own, each
    with its copy."""

    events: list[Event]
    operands: list[tuple[Region, Region]]
    results: list[Region]


def _within_rows(event: Event, dims: Any, rank: int) -> Any:
    """Axes of a nested tensor as those of all its rows in one tensor; that of the rows is none of them."""
    listed = [dims] if isinstance(dims, int) else list(dims)
    moved = [dim % rank - 1 for dim in listed]
    if not moved or min(moved) < 1:
        raise UnsupportedError(f"{event.op} over the rows of a nested tensor")
    return moved[0] if isinstance(dims, int) else moved


class Lowering(Writing):
    """Lowers a run of torch's operations."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.replaying = 0  # how deep in the parts of operations
        self.replays: list[Recorder] = []  # held, so that no storage's address is used again

    def run(self, events: Sequence[Event]) -> None:
        """Lower the operations, in their order.

        Raises `UnsupportedError` for one without a formula.
        """
        for event in events:
            self.event(event)

    def event(self, event: Event) -> None:
        if event.rebinds:
            return None
        if event.is_view or event.name in SEEN_OTHERWISE:
            return self.view(event)
        targets = list(event.outs)
        if not any(self.is_reached(region) for region in event.regions):
            self._unreached(event, targets)
            return None
        if event.side and not targets:
            raise UnsupportedError(f"{event.op} writes to its operands, and has no formula")
        for region in (*event.regions, *targets):
            if region.opaque:
                raise UnsupportedError(f"{event.op}: {region.opaque}")
        self._told(event, targets)
        return None

    def _unreached(self, event: Event, targets: list[Region]) -> None:
        """What no gradient reaches is taken as torch computed it. But the parts of an operation are ours and
        not torch's own: there a number counts that is computed from operands (1/sqrt(var + eps)), with its
        rounding."""
        known = [
            region
            for region in event.regions
            if region.floating and any(n >= 0 for n in self.memory.read(region).sources)
        ]
        if self.replaying and known and all(region.floating for region in targets):
            before = len(self.nodes)
            try:
                return self._told(event, targets)
            except UnsupportedError:
                del self.nodes[before:]
        for region in targets:
            self.forget(region)
        return None

    def _told(self, event: Event, targets: list[Region]) -> None:
        name = event.name
        base = name[:-1] if name.endswith("_") and name not in MOVES and event.written else name
        if base in CONSTANT or all(not r.floating and r.dtype != torch.bool for r in targets):
            for region in targets:
                self.forget(region)
            return
        if len(targets) == 1 and size(targets[0].shape) == 0:
            return
        try:
            self._lowered(event, base, targets)
        except InputError as error:
            raise UnsupportedError(f"{event.op}: {error.message}") from None

    def _lowered(self, event: Event, base: str, targets: list[Region]) -> None:
        overload = event.op._overloadname
        if any(region.pattern for region in (*event.regions, *targets)):
            return self._of_sparse(event, base, targets)
        if any(region.complex for region in (*event.regions, *targets)):
            return self._of_pairs(event, base, targets)
        if base in OPAQUE and len(targets) == 1:
            return self.write(targets[0], self.text(OPAQUE[base], event.arguments, targets[0].shape))
        special = SPECIAL.get(base)
        if special is not None and special(self, event, targets):
            return None
        if base in DEFINITIONS and self._defined(event, DEFINITIONS[base], targets):
            return None
        if base in CHOICES and len(targets) == 2:
            self._chosen(event, targets)
        elif base in MOVES and not (event.arguments.get("accumulate")):
            self._moved(event, targets)
        elif base in SCALARS and len(targets) == 1:
            self.write(targets[0], self.scalar(SCALARS[base], event.arguments, targets[0].shape))
        elif base in FORMULAS and overload not in ("names_dim",) and len(targets) == 1:
            self._formula(event, base, targets[0])
        else:
            self._decomposed(event, targets)

    def _of_pairs(self, event: Event, base: str, targets: list[Region]) -> None:
        """An operation on complex numbers by what it does to their parts."""
        if base in TRANSFORMS:
            return TRANSFORMS[base](self, event, targets)
        if base != event.name:
            return self._out_of_place(event, targets)
        if base in COMPLEX and self._defined(event, COMPLEX[base], targets):
            return None
        if base in MOVES or base in ADDITIVE:
            self._replayed(
                event,
                targets,
                lambda copied: by_parts(
                    event.op, copied(event.args), copied(event.kwargs), whole=targets[0].complex
                ),
                ours=True,
            )
        elif base in DEFINITIONS and self._defined(event, DEFINITIONS[base], targets):
            return None
        else:
            self._decomposed(event, targets)
        return None

    def _of_sparse(self, event: Event, base: str, targets: list[Region]) -> None:
        """An operation on sparse tensors: their values in another place, or what it does to dense ones."""
        if base in SAME_VALUES:
            named = [event.arguments.get(name) for name in ("values", "self")]
            (source,) = [region for region in named if isinstance(region, Region)][:1]
            if source.shape != targets[0].shape:
                raise UnsupportedError(f"{event.op} of values of another shape")
            return self.memory.know(targets[0], self.content(source))
        if any(region.pattern is not None and region.pattern.ragged for region in event.regions):
            return self._of_rows(event, base, targets)
        doubled = [region for region in targets if region.pattern is not None and not region.pattern.apart]
        if base == "add" and doubled:
            return self._listed(event, targets[0])
        if doubled and [region.shape for region in (*event.regions, *targets)] == [targets[0].shape] * 2:
            return self._of_values(event, targets[0])
        if doubled:
            raise UnsupportedError(f"{event.op} gives a sparse tensor with several values at one place")
        if base in SOFTMAXES:
            return self._of_entries(event, SOFTMAXES[base], targets)
        twin = SPARSE.get(base, event.op)
        self._replayed(
            event, targets, lambda copied: twin(*copied(event.args), **copied(event.kwargs)), ours=True
        )
        return None

    def _of_entries(self, event: Event, function: Callable[..., Any], targets: list[Region]) -> None:
        """A softmax over the entries that there are."""
        source, dim = event.arguments["self"], event.arguments["dim"]
        assert source.pattern is not None
        missing = np.ones(source.pattern.shape, bool)
        missing.reshape(-1)[source.pattern.places] = False
        empty = missing.all(axis=dim, keepdims=True)  # a row without entries has no softmax, nor needs one
        mask = torch.from_numpy(missing & ~empty)
        self._replayed(
            event,
            targets,
            lambda copied: function(copied(event.args)[0].masked_fill(mask, float("-inf")), dim),
            ours=True,
        )

    def _of_rows(self, event: Event, base: str, targets: list[Region]) -> None:
        """An operation on rows of unequal lengths: on all of them in one tensor, where each counts alike."""
        if base == "to_padded_tensor":
            if event.arguments.get("padding"):
                raise UnsupportedError(f"{event.op} with another padding than 0")
            self._replayed(event, targets, lambda copied: copied(event.args)[0] * 1, ours=True)
            return None
        ragged = [region for region in (*event.regions, *targets) if region.pattern is not None]
        counts = {len(region.numbers) for region in ragged}
        alike = len(counts) == 1 and all(
            region.pattern is not None and region.pattern.ragged for region in ragged
        )
        if not alike or base not in ROW_BY_ROW:
            raise UnsupportedError(f"{event.op} of a nested tensor")
        plain = {id(region): replace(region, pattern=None) for region in ragged}
        (args, kwargs), rank = (event.args, dict(event.kwargs)), len(event.regions[0].shape) + 1
        names = [argument.name for argument in event.op._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in ("dim", "dims"):
            if given.get(name) is not None:
                given[name] = _within_rows(event, given[name], rank)
        given = {
            name: tree_map(lambda leaf: plain.get(id(leaf), leaf), value) for name, value in given.items()
        }
        outs = tuple(plain.get(id(target), target) for target in targets)
        twin = Event(event.op, (), given, outs, (), event.place, event.module)
        return self._told(twin, list(outs))

    def _of_values(self, event: Event, target: Region) -> None:
        """An operation of one sparse tensor and numbers, on its values; or one that moves them alone."""
        (source,) = event.regions
        if event.is_view:
            if not np.array_equal(source.values, target.values):
                raise UnsupportedError(f"{event.op} gives a sparse tensor with several values at one place")
            return self.memory.know(target, self.content(source))
        plain = {id(source): replace(source, pattern=None)}
        args, kwargs = tree_map(lambda leaf: plain.get(id(leaf), leaf), (event.args, event.kwargs))
        twin = Event(event.op, args, kwargs, (replace(target, pattern=None),), (), event.place, event.module)
        return self._told(twin, list(twin.outs))

    def _listed(self, event: Event, target: Region) -> None:
        """A sum of sparse tensors is both lists of values, one behind the other."""
        a, b = event.arguments["self"], event.arguments["other"]
        if event.arguments.get("alpha", 1) != 1 or a.pattern is None or b.pattern is None:
            raise UnsupportedError(f"{event.op} of a sparse tensor and a number, or a dense one")
        parts = [self.content(region) for region in (a, b)]
        who, where = (np.concatenate(each) for each in zip(*((p.who, p.where) for p in parts), strict=True))
        if who.shape != target.shape:
            raise UnsupportedError(f"{event.op} that adds up values")
        self.write(target, self.assemble(Content(who, where), who.shape))

    def _whole(self, region: Region) -> Content:
        """The content of an operand's dense copy."""
        content = self.content(region)
        if region.pattern is None:
            return content
        shape = region.pattern.shape
        return self.memory.all_of(self.accumulate(shape, [(content, region.pattern.places)]), shape)

    def view(self, event: Event) -> None:
        """Another look at the same memory: run on the places, since a tensor that overlaps itself has no
        others."""
        if not event.regions:
            return None
        source = event.regions[0]
        if any(region.pattern for region in (*event.regions, *event.outs)):
            return self._told(event, list(event.outs)) if self.is_reached(source) else None
        if any(out.opaque or source.opaque or out.dtype != source.dtype for out in event.outs):
            if self.is_reached(source):
                raise UnsupportedError(
                    f"{event.op}: {source.opaque or event.outs[0].opaque or 'memory seen as another dtype'}"
                )
            return None
        if event.name == "as_strided" or not source.shape:
            return None
        if all(n < 0 for n in self.memory.read(source).sources):
            return None
        content = self.content(source) if any(source.turned) else self.memory.read(source)
        if event.turns:
            made = self.signed(self.operand(source), event.outs[0].signs * source.signs)
            return self.memory.know(event.outs[0], self.memory.all_of(made, source.shape))
        # A tensor without numbers, whose strides are the places.
        dtype = source.dtype.to_complex() if source.complex else source.dtype
        shape = source.shape[:-1] if source.complex else source.shape
        index = torch.empty(shape, dtype=dtype, device="meta")
        args = tree_map(lambda leaf: index if leaf is source else leaf, (event.args, event.kwargs))
        try:
            moved = event.op(*args[0], **args[1])
        except RuntimeError:
            return None  # the memory tells
        for place, region in zip(
            [t for t in tree_leaves(moved) if isinstance(t, torch.Tensor)], event.outs, strict=True
        ):
            start, extents, steps, _ = real_geometry(place)
            if extents == region.shape:
                self.memory.know(region, content.seen(start, steps, extents))

    def _moved(self, event: Event, targets: list[Region]) -> None:
        """An operation that only moves entries, run on numbers that stand for places; 0 stands for the number
        0."""
        codes = Codes()

        def coded(leaf: Any) -> Any:
            if not isinstance(leaf, Region):
                return leaf
            return code(self.content(leaf)) if leaf.floating else leaf.numbers.clone()

        def code(content: Content) -> torch.Tensor:
            return torch.from_numpy(codes.of(content)).double()

        arguments = {
            name: value
            for name, value in event.arguments.items()
            if name not in ("dtype", "device", "out", "layout", "pin_memory")
        }
        # A number that is filled in is an entry too.
        for name in ("value", "fill_value"):
            if isinstance(arguments.get(name), int | float) and arguments[name] != 0:
                arguments[name] = float(code(self.content_of(np.asarray(float(arguments[name])))))
        if event.name in ("_to_copy", "clone", "contiguous"):
            source = event.regions[0]
            return self.write(targets[0], self.assemble(self.content(source), source.shape))
        if event.name in ("copy_", "copy"):
            moved: Any = coded(arguments["src"]).expand(arguments["self"].shape)
        else:
            kwargs = {name: tree_map(coded, value) for name, value in arguments.items()}
            names = [argument.name for argument in event.op._schema.arguments if not argument.kwarg_only]
            args = [kwargs.pop(name) for name in names if name in kwargs]
            moved = event.op(*args, **kwargs)
        outs = [leaf for leaf in tree_leaves(moved) if isinstance(leaf, torch.Tensor)]
        for out, region in zip(outs, targets, strict=True):
            at = out.detach().numpy().round().astype(np.int64)
            self.write(region, self.assemble(codes.content(at), at.shape))
        return None

    def content_of(self, values: np.ndarray) -> Content:
        return self.memory.all_of(self.constant(values), values.shape)

    def _chosen(self, event: Event, targets: list[Region]) -> None:
        """Sorting and its kin: the entries at the places that torch itself named."""
        source, (values, indices) = event.regions[0], targets
        content = self.content(source)
        at = indices.numbers.to(torch.int64)
        codes = torch.arange(size(source.shape), dtype=torch.int64).reshape(source.shape)
        if source.shape:
            dim = event.arguments.get("dim", -1)
            dim = -1 if dim is None else dim
            kept = at.ndim == codes.ndim
            at = at if kept else at.unsqueeze(dim)
            codes = codes.gather(dim, at)
            codes = codes if kept else codes.squeeze(dim)
        self.write(values, self.assemble(content.at(codes.numpy().reshape(values.shape)), values.shape))
        self.forget(indices)

    def _formula(self, event: Event, base: str, target: Region) -> None:
        row = FORMULAS[base]
        arguments = event.arguments
        text = row if isinstance(row, str) else row(arguments)
        self.write(target, self.text(text, arguments, target.shape))

    def _decomposed(self, event: Event, targets: list[Region]) -> None:
        """By torch's own decomposition, run on copies of the numbers."""
        decomposition = decomposition_table.get(event.op)
        if decomposition is None and event.written and event.name.endswith("_"):
            return self._out_of_place(event, targets)
        if decomposition is None:
            if not is_composite(event.op):
                raise UnsupportedError(f"{event.op} has no formula")
            decomposition = event.op.decompose
        self._replayed(
            event, targets, lambda copied: decomposition(*copied(event.args), **copied(event.kwargs))
        )

    def _defined(self, event: Event, definition: Callable[..., Any], targets: list[Region]) -> bool:
        """By our own definition, where it has one for such arguments."""
        arguments, outs = event.arguments, [region.own for region in targets]
        asked = [name for name in inspect.signature(definition).parameters if name != "outs"]
        more = {"outs": outs} if "outs" in inspect.signature(definition).parameters else {}
        return self._replayed(
            event,
            targets,
            lambda copied: definition(**copied({name: arguments.get(name) for name in asked}), **more),
            ours=True,
        )

    def _replayed(
        self,
        event: Event,
        targets: list[Region],
        call: Callable[[Callable[[Any], Any]], Any],
        *,
        ours: bool = False,
    ) -> bool:
        """The parts of an operation, recorded from a run on copies of its numbers; False where a definition
        of `ours` has none."""
        parts = self._parts(event, call, ours)
        if parts is None:
            return False
        for region, copy in parts.operands:
            self.memory.put(copy, self._whole(region))
        self.replaying += 1
        self.run(parts.events)
        self.replaying -= 1
        made = parts.results
        if len(made) != len(targets):
            raise UnsupportedError(f"{event.op} has no formula (its decomposition gives {len(made)} results)")
        for out, region in zip(made, targets, strict=True):
            if region.pattern is not None and out.shape == region.pattern.shape:
                content = self.content(out).at(region.pattern.places)
                self.write(region, self.assemble(content, region.shape))
                continue
            if out.opaque or out.shape != region.shape:
                raise UnsupportedError(f"{event.op} has no formula (its decomposition gives another shape)")
            if region.floating or region.dtype == torch.bool:
                self.memory.put(region, self.content(out))
            else:
                self.forget(region)
        # What a decomposition wrote into its arguments (running statistics) is theirs now.
        written = set(map(id, event.written))
        for region, copy in parts.operands:
            if id(region) in written and region not in event.outs:
                self.memory.put(region, self.content(copy))
        return True

    def _parts(self, event: Event, call: Callable[[Callable[[Any], Any]], Any], ours: bool) -> _Parts | None:
        """None where our own definition has none for such arguments."""
        recorder = Recorder({})
        self.replays.append(recorder)
        regions = {id(region): region for region in event.regions}
        copies = {key: region.own for key, region in regions.items()}
        operands = [(region, recorder.region(copies[key])) for key, region in regions.items()]
        try:
            with torch.no_grad(), recorder:
                result = call(lambda nest: tree_map(lambda leaf: copies.get(id(leaf), leaf), nest))
        except NotDefinedError as error:
            raise UnsupportedError(f"{event.op} has no formula for {error}") from None
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            raise UnsupportedError(f"{event.op} has no formula ({what}, in its decomposition)") from None
        if result is NotImplemented and ours:
            return None
        into_itself = not ours and any(part.op is event.op for part in recorder.events)
        if result is NotImplemented or len(recorder.events) > MAX_PARTS or into_itself:
            raise UnsupportedError(f"{event.op} has no formula")
        results = [recorder.region(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return _Parts(recorder.events, operands, results)

    def _out_of_place(self, event: Event, targets: list[Region]) -> None:
        """`mul_` is `mul`, written to its own operand."""
        packet = getattr(getattr(torch.ops, event.op.namespace), event.name.rstrip("_"), None)
        overload = getattr(packet, event.op._overloadname, None) if packet is not None else None
        if overload is None:
            raise UnsupportedError(f"{event.op} has no formula")
        twin = Event(overload, event.args, event.kwargs, event.outs, event.side, event.place, event.module)
        self._lowered(twin, twin.name, targets)


# Operations that neither a formula nor a move tells. Each returns False where it is to be decomposed after
# all.

Special = Callable[[Lowering, Event, list[Region]], bool]


def _dropout(self: Lowering, event: Event, targets: list[Region]) -> bool:
    """The mask is what torch drew."""
    arguments = event.arguments
    out, mask = targets
    rate = arguments["p"]
    train = arguments.get("train")
    self.forget(mask)
    if train is False or rate == 0:
        self.write(out, self.text("input*1", {"input": arguments["input"]}, out.shape))
        return True
    scale = 0.0 if rate == 1 else 1 / (1 - rate)
    named = {"input": arguments["input"], "mask": mask, "scale": scale}
    self.write(out, self.text("input * mask * scale", named, out.shape))
    return True


def _where(self: Lowering, event: Event, targets: list[Region]) -> bool:
    """A condition that depends on no gradient only moves entries."""
    condition = event.arguments["condition"]
    if isinstance(condition, Region) and not self.is_reached(condition):
        self._moved(event, targets)
        return True
    return False


def _fill(self: Lowering, event: Event, targets: list[Region]) -> bool:
    """Filled from a tensor: one entry everywhere."""
    arguments = event.arguments
    value = arguments.get("value")
    source = (
        self.content(value) if isinstance(value, Region) else self.content_of(np.asarray(float(value or 0)))
    )
    (target,) = targets
    spread = Content(np.broadcast_to(source.who, target.shape), np.broadcast_to(source.where, target.shape))
    self.write(target, self.assemble(spread, target.shape))
    return True


REDUCES = {
    "sum": "sum",
    "add": "sum",
    "mean": "sum",
    "prod": "prod",
    "multiply": "prod",
    "amax": "max",
    "amin": "min",
}


def _adding(destinations: Callable[[Event, torch.Tensor], tuple[str, torch.Tensor]]) -> Special:
    """Scatter-adds, and other reductions: `destinations` gives for each entry of the source its place in the
    target."""

    def lowered(self: Lowering, event: Event, targets: list[Region]) -> bool:
        arguments = event.arguments
        scatter = event.name.rstrip("_") == "scatter"
        if arguments.get("accumulate") is False or (scatter and "reduce" not in arguments):
            return False
        kind = arguments.get("reduce") or "sum"
        base, (target,) = arguments["self"], targets
        places = torch.arange(size(base.shape), dtype=torch.int64).reshape(base.shape)
        name, destined = destinations(event, places)
        at, own = destined.numpy(), places.numpy()
        count = np.bincount(at.reshape(-1), minlength=own.size).reshape(base.shape)
        if arguments.get("include_self") is False:
            own = np.where(count > 0, -1, own)
            count = np.maximum(count, 1)
        else:
            count = count + 1
        added = _added(self, event, arguments[name], at.shape)
        total = self.accumulate(base.shape, [(self.content(base), own), (added, at)], REDUCES[kind])
        if kind == "mean":
            index = tuple(map(free, range(len(base.shape))))
            reads = (Read(total, index), Read(self.constant(count), index))
            total = self.emit(slot(0) / slot(1), reads, base.shape, source="mean")
        self.write(target, total)
        return True

    return lowered


def _added(self: Lowering, event: Event, source: Any, shape: Shape) -> Content:
    """What a scatter-add adds, an entry for each place."""
    if not isinstance(source, Region):
        content = self.content_of(np.asarray(float(source)))
    elif event.arguments.get("alpha", 1) != 1:
        made = self.text("source * alpha", event.arguments, source.shape)
        content = self.memory.all_of(made, source.shape)
    else:
        content = self.content(source)
    who, where = content.who, content.where
    if event.name.startswith("scatter") and who.ndim == len(shape):
        cut = tuple(map(slice, shape))
        who, where = who[cut], where[cut]
    return Content(np.broadcast_to(who, shape), np.broadcast_to(where, shape))


def _index_put(event: Event, places: torch.Tensor) -> tuple[str, torch.Tensor]:
    indices = [None if r is None else r.numbers for r in event.arguments["indices"]]
    return "values", aten.index.Tensor(places, indices)


def _put(event: Event, places: torch.Tensor) -> tuple[str, torch.Tensor]:
    return "source", places.reshape(-1)[event.arguments["index"].numbers.to(torch.int64)]


def _index_add(event: Event, places: torch.Tensor) -> tuple[str, torch.Tensor]:
    arguments = event.arguments
    if not places.ndim:
        return "source", places.expand(arguments["source"].shape)
    return "source", places.index_select(arguments["dim"], arguments["index"].numbers)


def _scatter(event: Event, places: torch.Tensor) -> tuple[str, torch.Tensor]:
    arguments = event.arguments
    name = "src" if "src" in arguments else "value"
    at = arguments["index"].numbers.to(torch.int64)
    if not places.ndim:
        return name, places.expand(at.shape)
    return name, places.gather(arguments["dim"], at)


def _pool(self: Lowering, event: Event, targets: list[Region]) -> bool:
    """Max pooling: the entries at the places that torch named, in each window's own channel."""
    source, (values, indices) = event.regions[0], targets
    axes = POOLS[event.name]
    content = self.content(source)
    lead = source.shape[:-axes]
    window = prod(source.shape[-axes:])
    start = (np.arange(prod(lead), dtype=np.int64) * window).reshape((*lead, *(1,) * axes))
    at = indices.numbers.to(torch.int64).numpy() + start
    self.write(values, self.assemble(content.at(at), values.shape))
    self.forget(indices)
    return True


def _each(value: Any, axes: int) -> list[int]:
    """A number for each axis, where one may stand for all."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * axes if len(numbers) == 1 else numbers


def _average_pool(self: Lowering, event: Event, targets: list[Region]) -> bool:
    a = event.arguments
    source, (target,) = a["self"], targets
    axes = int(event.name.removeprefix("avg_pool")[0])
    lead = len(source.shape) - axes
    kernel = _each(a["kernel_size"], axes)
    stride, padding = _each(a.get("stride") or kernel, axes), _each(a.get("padding") or 0, axes)
    held = []  # along each axis, how many entries a window holds
    for n, (extent, out) in enumerate(zip(source.shape[lead:], target.shape[lead:], strict=True)):
        start = np.arange(out) * stride[n] - padding[n]
        end = np.minimum(start + kernel[n], extent + padding[n])
        padded = a.get("count_include_pad", True)
        held.append(end - start if padded else np.minimum(end, extent) - np.maximum(start, 0))
    counts = reduce(np.multiply.outer, held, np.ones(()))
    if divisor := a.get("divisor_override"):
        counts = np.full(counts.shape, float(divisor))
    places = [free(lead + n) * stride[n] + bound(n) - padding[n] for n in range(axes)]
    read = Read(self.copy(source), (*map(free, range(lead)), *places))
    total = self.emit(slot(0), (read,), target.shape, over=tuple(kernel), reduce="sum", source="window")
    own = tuple(map(free, range(len(target.shape))))
    reads = (Read(total, own), Read(self.constant(counts), own[lead:]))
    self.write(target, self.emit(slot(0) / slot(1), reads, target.shape, source="mean"))
    return True


def _convolution(self: Lowering, event: Event, targets: list[Region]) -> bool:
    """`y[n, c, l] = Σ_{m,k} x[n, group(c) + m, l*stride + k*dilation - padding] w[c, m, k] + b[c]`."""
    a = event.arguments
    x, w, (y,) = a["input"], a["weight"], targets
    axes = len(w.shape) - 2
    if len(x.shape) != axes + 2:  # no batch
        return False
    n, c, m = free(0), free(1), bound(0)
    ins, outs = x.shape[1] // a["groups"], y.shape[1] // a["groups"]
    group = sympy.floor(c / outs) if a["groups"] > 1 else Integer(0)
    channel = group * ins + m
    image = self.copy(x)
    weight = self.operand(w)
    taps = (*((channel, c - group * outs) if a["transposed"] else (c, m)), *map(bound, range(1, axes + 1)))
    w_axes = {free(k): axis for k, axis in enumerate(taps)}
    reads = (
        Read(image, (n, channel, *_places(a, x.shape[2:], w.shape[2:], y.shape[2:]))),
        Read(weight.node, tuple(e.xreplace(w_axes) for e in weight.index)),
    )
    over = (ins, *w.shape[2:])
    total = self.emit(slot(0) * slot(1), reads, y.shape, over=over, reduce="sum", source="convolution")
    if a["bias"] is not None:
        bias = self.operand(a["bias"])
        b_index = tuple(e.xreplace({free(0): c}) for e in bias.index)
        own = tuple(map(free, range(len(y.shape))))
        reads = (Read(total, own), Read(bias.node, b_index))
        total = self.emit(slot(0) + slot(1), reads, y.shape, source="bias")
    self.write(y, total)
    return True


def _places(arguments: Mapping[str, Any], ins: Shape, taps: Shape, outs: Shape) -> list[Expr]:
    """Where in the image a tap of an output entry lies, along each axis."""
    names = ("stride", "padding", "dilation")
    steps = zip(*(_each(arguments[name], len(taps)) for name in names), strict=True)
    places: list[Expr] = []
    for d, (stride, padding, dilation) in enumerate(steps):
        entry, tap = free(2 + d), bound(1 + d)
        if arguments["transposed"]:
            # Each input entry goes to entry*stride + tap*dilation - padding.
            at = np.arange(outs[d])[:, None] + padding - np.arange(taps[d])[None, :] * dilation
            hit = (at % stride == 0) & (at >= 0) & (at // stride < ins[d])
            places.append(table(np.where(hit, at // stride, -1), {0: entry, 1: tap}))
        else:
            places.append(entry * stride + tap * dilation - padding)
    return places


SPECIAL: dict[str, Special] = {
    "native_dropout": _dropout,
    "where": _where,
    "fill": _fill,
    **dict.fromkeys(("index_put", "_index_put_impl_", "_unsafe_index_put"), _adding(_index_put)),
    "put": _adding(_put),
    "index_add": _adding(_index_add),
    "scatter_add": _adding(_scatter),
    "scatter": _adding(_scatter), "scatter_reduce": _adding(_scatter),
    "index_reduce": _adding(_index_add),
    **dict.fromkeys(("convolution", "mkldnn_convolution", "_convolution"), _convolution),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(INTERPOLATIONS, interpolated),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _average_pool),
}  # fmt: skip
