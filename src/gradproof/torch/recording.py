"""A run of a torch function, as it was: operations, autograd nodes, and the cotangents that really went in
and out.

The function runs under a recorder. Then the output is pulled back three times, with hooks on every node: once
to be judged, once more to see whether the backward repeats itself, and once with another cotangent in another
memory layout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import OURS, UnsupportedError, said, where
from . import insides
from .names import arguments_of, leaf_names, modules_of, named_tensors
from .outputs import differentiable, no_gradient, told
from .recorder import Recorder, equal, why_opaque
from .tape import HIDDEN, NOWHERE, OPAQUE, Edge, Event, LeafStep, Region, Step, Tape, Trail, floats_of

# Our frames that what others raise passes through.
FORWARDING = ("__torch_dispatch__", "__torch_function__", "run")


def rehearsed(func: Callable[..., Any], inputs: Sequence[Any]) -> tuple[list[Event], Trail]:
    """The operations of a forward run. Raises what the function raises."""
    recorder = Recorder({}, frozenset(leaf_names(func, inputs)), digits=0)
    recorder.run(func, inputs)
    return recorder.events, recorder.trail


def record(
    func: Callable[..., Any], inputs: Sequence[Any], passes: int = 3, by: type[Recorder] = Recorder
) -> Tape:
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
    recorder = by(modules_of(func), frozenset(names))
    given = recorder.given(tensor for _, tensor in _marked(func, inputs).values())
    try:
        result = recorder.run(func, inputs)
    except Exception as error:
        return _raised(recorder, error)
    outputs = differentiable(result)
    regions = [recorder.region(out) for out in outputs]
    hidden = next((region.opaque for region in regions if region.opaque), "")
    hidden = hidden or next(("a sparse or nested tensor" for region in regions if region.pattern), "")
    if hidden:
        return _stopped(recorder, f"an output is {hidden}", supported=False)
    marked = _marked(func, inputs)
    backward = _Backward(recorder, outputs, regions, [tensor for _, tensor in marked.values()])
    for again in PASSES[: passes if passes < 2 else backward.worthwhile]:
        backward.run(again, retain=passes > 1)
        if backward.trouble:
            break
    return replace(
        _tape(recorder, names, backward),
        unmarked="" if backward.leaves else no_gradient(result, [name for name, _ in marked.values()]),
        unused=tuple(marked[id(leaf)][0] for leaf in backward.others),
        idle=_idle(recorder, func, inputs, regions),
        given=given,
    )


def _marked(func: Callable[..., Any], inputs: Sequence[Any]) -> dict[int, tuple[str, torch.Tensor]]:
    """The leaves that need a gradient, by identity, and their names."""
    named = named_tensors(func, inputs)
    return {id(t): (name, t) for name, t in named if t.requires_grad and t.is_leaf}


def _raised(recorder: Recorder, error: Exception) -> Tape:
    """The tape of a function that raised; an error of the recorder's own is raised again."""
    if isinstance(error, NotImplementedError) and "HigherOrderOperator" in str(error):
        why = "higher-order operators (cond, while_loop, scan, flex_attention) are not recorded"
        tape = _stopped(recorder, why, supported=False)
    elif isinstance(error, UnsupportedError):
        tape = _stopped(recorder, str(error), supported=False)
    elif ours(error):
        raise error
    else:
        tape = _stopped(recorder, f"the function raised {said(error)}{where(error)}")
    return replace(tape, traceback=told(error))


def ours(error: Exception) -> bool:
    """Whether an exception comes from our own code, and not from what the function called."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    file = "" if frame is None else frame.tb_frame.f_code.co_filename
    return file.startswith(OURS) and frame is not None and frame.tb_frame.f_code.co_name not in FORWARDING


def _tape(recorder: Recorder, names: Mapping[int, str], backward: _Backward) -> Tape:
    def named(number: int) -> str:
        return names.get(id(recorder.nodes[number]), f"leaf{number}")

    leaves = {recorder.number(leaf): leaf for leaf in backward.leaves}
    return Tape(
        recorder.events,
        backward.steps,
        [backward.leaf_step(leaf, named(number)) for number, leaf in leaves.items()],
        backward.regions,
        backward.seeds,
        recorder.exports,
        recorder.unseen,
        backward.trouble,
        held=recorder.storages,
        tensors=leaves,
        names={n: named(n) for n, node in enumerate(recorder.nodes) if isinstance(node, torch.Tensor)},
        traceback=backward.traceback,
        inner=frozenset(recorder.inner),
        transformed=recorder.transformed,
        trail=recorder.trail,
        foreign=frozenset(recorder.foreign),
        tangents=recorder.tangents,
    )


def _idle(
    recorder: Recorder, func: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Region]
) -> tuple[str, ...]:
    """The tensors without a gradient that the function is given and neither reads nor returns."""
    read = {region.storage for event in recorder.events for region in event.regions}
    read |= {region.storage for region in outputs}

    def is_idle(value: Any) -> bool:
        plain = isinstance(value, torch.Tensor) and not value.requires_grad and not why_opaque(value)
        return plain and insides.storage_of(value)[0] not in read

    return tuple(name for name, value in arguments_of(func, inputs) if is_idle(value))


def region_of(tensor: torch.Tensor) -> Region:
    """A tensor as it is now, apart from any run."""
    return Recorder({}).region(tensor)


def stopped(why: str) -> Tape:
    """The tape of a run that we could not follow."""
    return _stopped(Recorder({}), why, supported=False)


def _stopped(recorder: Recorder, why: str, *, supported: bool = True) -> Tape:
    return Tape(recorder.events, [], [], [], [], recorder.exports, recorder.unseen, why, supported)


# The backward


Tensors = tuple[Any, ...]  # kept ones: tensors, None, `HIDDEN`
Delivered = dict[Edge, list[Any]]  # what the uses of each value have passed to it in a pass
Known = dict[int, np.ndarray | None]  # kept tensors, by identity, as floats


class _Backward:
    """The passes of a run's backward, and what arrives in them at nodes and leaves.

    `trouble` is what stopped it, in words.
    """

    def __init__(
        self,
        recorder: Recorder,
        outputs: Sequence[torch.Tensor],
        regions: list[Region],
        marked: Iterable[torch.Tensor],
    ) -> None:
        self.recorder = recorder
        self.outputs = outputs
        self.cotangents = cotangents_of(outputs)
        self.regions = regions  # of the outputs
        self.steps, self.leaves = _graph(recorder, outputs)
        self.reached = set(map(id, self.leaves))
        self.others = [leaf for leaf in marked if id(leaf) not in self.reached]  # that get no gradient
        self.arrivals: Counter[int] = Counter()  # how often a gradient was added to a leaf's
        self.gradients: defaultdict[int, list[np.ndarray | None]] = defaultdict(list)
        self.seeds: list[dict[Edge, np.ndarray]] = []
        self.first: list[_Hooks] = []
        self.trouble = self.traceback = ""

    @property
    def worthwhile(self) -> int:
        """How many passes tell something: the last two are for custom Functions alone."""
        return len(PASSES) if any(step.by_function for step in self.steps) else len(PASSES) - 2

    def run(self, again: Pass, *, retain: bool) -> None:
        """One pass."""
        times = again.times
        cotangents = [again.of(cotangent) for cotangent in self.cotangents]
        every = [*self.leaves, *self.others]
        before = [leaf.grad for leaf in every]
        first: Sequence[_Hooks | None] = self.first or [None] * len(self.steps)
        delivered: Delivered = {}
        hooks = [
            _Hooks(self.recorder.nodes[step.number], step, earlier, again, delivered)
            for step, earlier in zip(self.steps, first, strict=True)
        ]
        counters = [] if self.seeds else [self._counted(leaf) for leaf in every]
        try:
            for leaf in every:
                leaf.grad = None
            torch.autograd.backward(self.outputs, cotangents, retain_graph=retain)
            self._arrived()
        except Exception as error:
            self._raised(error)
            return
        finally:
            for leaf, old in zip(every, before, strict=True):
                leaf.grad = old
            for handle in (*hooks, *counters):
                handle.remove()
        self.seeds.append(self._seed(cotangents))
        self.first = self.first or hooks
        known: Known = {}
        for step, hook in zip(self.steps, hooks, strict=True):
            step.changes = step.changes or hook.changed
            step.times.append(times if hook.alike else None)
            step.received.append(() if hook.alike else _received(step, hook.received, known))
            step.passed.append(() if hook.alike else _passed(step, hook.passed, known))

    def _counted(self, leaf: torch.Tensor) -> Any:
        def count(tensor: torch.Tensor) -> None:
            self.arrivals[id(tensor)] += 1

        return leaf.register_post_accumulate_grad_hook(count)

    def _arrived(self) -> None:
        """Keep the leaves' gradients; what else the first pass has filled is a leaf as well."""
        if not self.seeds:
            self.leaves += [leaf for leaf in self.others if leaf.grad is not None]
            self.others = [leaf for leaf in self.others if leaf.grad is None]
        for leaf in self.leaves:
            region = self.recorder.edges.get((self.recorder.number(leaf), 0))
            self.gradients[id(leaf)].append(numbers_of(region, leaf.grad))

    def _raised(self, error: Exception) -> None:
        again = len(self.seeds)
        self.trouble = f"the backward{PASSES[again].words} raised {said(error)}{where(error)}"
        self.trouble += "; if it is meant to run once, say so by passes=1" if again == 1 else ""
        self.traceback = told(error)

    def _seed(self, cotangents: Sequence[torch.Tensor]) -> dict[Edge, np.ndarray]:
        """The cotangents of the outputs, added up where two outputs are one."""
        seed: dict[Edge, np.ndarray] = {}
        for region, cotangent in zip(self.regions, cotangents, strict=True):
            if (edge := region.edge) is not None:
                seed[edge] = seed.get(edge, 0) + _plain(cotangent).to(torch.float64).numpy().copy()
        return seed

    def leaf_step(self, leaf: torch.Tensor, name: str) -> LeafStep:
        edge = (self.recorder.number(leaf), 0)
        region = self.recorder.edges.get(edge) or self.recorder.region(leaf)
        nested = id(leaf) not in self.reached or self.arrivals[id(leaf)] > 1
        return LeafStep(name, edge, region, tuple(self.gradients[id(leaf)]), nested)


def _received(step: Step, tensors: Tensors, known: Known) -> tuple[np.ndarray | None, ...]:
    """The cotangents of a step's outputs; of a sparse one at its values."""
    regions = [step.outputs.get(nr) for nr in range(len(tensors))]
    return tuple(_at(region, tensor, known) for region, tensor in zip(regions, tensors, strict=True))


def _passed(step: Step, tensors: Tensors, known: Known) -> tuple[np.ndarray | None, ...]:
    regions = [None if edge is None else step.inputs.get(edge) for edge in step.edges]
    regions += [None] * (len(tensors) - len(regions))
    return tuple(_at(region, tensor, known) for region, tensor in zip(regions, tensors, strict=False))


def numbers_of(region: Region | None, tensor: torch.Tensor | None) -> np.ndarray | None:
    """A derivative beside a tensor as floats: of a sparse one at its values, of a complex one in pairs."""
    return _at(region, _kept(tensor), {})


def _at(region: Region | None, tensor: Any, known: Known) -> np.ndarray | None:
    if id(tensor) not in known:
        known[id(tensor)] = _numbers(tensor)
    numbers = known[id(tensor)]
    return numbers if region is None or numbers is HIDDEN else region.of(numbers)


class _Hooks:
    """What a node receives, before it can change it, and what it passes on, as tensors of its own dtype.

    Of a later pass it is compared with the first: `alike` where it is bit for bit so many times as much; then
    nothing is kept.
    """

    def __init__(
        self, node: Any, step: Step, first: _Hooks | None, again: Pass, delivered: Delivered
    ) -> None:
        self.step, self.delivered = step, delivered
        self.received: Tensors = ()
        self.passed: Tensors = ()
        self.changed = False  # whether the node wrote to what it received
        self.first, self.times = first, again.times
        self.layout = again.layout if step.by_function else None
        self.alike = self.same = False  # the same of what it received alone
        self.handles = [node.register_prehook(self._before), node.register_hook(self._after)]

    def _before(self, grad_outputs: Any) -> Any:
        """The cotangent, in the pass's layout where its own is none of the sort."""
        self.received = tuple(self._came(nr, gradient) for nr, gradient in enumerate(grad_outputs))
        self.same = self.first is not None and _all_alike(self.first.received, self.received, self.times)
        if self.layout is None:
            return None
        with torch.no_grad():
            return tuple(self.layout(g) if _is_plain(g) else g for g in grad_outputs)

    def _came(self, nr: int, gradient: Any) -> Any:
        """A cotangent; what one use alone has passed is kept there already."""
        parts = self.delivered.get((self.step.number, nr), [])
        return parts[0] if len(parts) == 1 and _all_alike(parts, [gradient], 1.0) else _kept(gradient)

    def _after(self, grad_inputs: Any, grad_outputs: Any) -> None:
        self.changed = not _all_alike(self.received, grad_outputs, 1.0)
        self.alike = (
            self.same and self.first is not None and _all_alike(self.first.passed, grad_inputs, self.times)
        )
        self.passed = () if self.alike else tuple(self._kept_once(part, grad_outputs) for part in grad_inputs)
        for edge, part in zip(self.step.edges, self.passed, strict=False):
            if edge is not None and part is not None:
                self.delivered.setdefault(edge, []).append(part)

    def _kept_once(self, part: Any, grad_outputs: Any) -> Any:
        """What was passed on; of a view of what was received, the same view of what was kept of it."""
        for kept, came in zip(self.received, grad_outputs, strict=True) if not self.changed else ():
            if all(map(_is_plain, (part, came, kept))) and _lies_alike(came, kept) and _share(part, came):
                return kept.as_strided(part.shape, part.stride(), part.storage_offset())
        return _kept(part)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        if self.alike:
            self.received = ()


def _all_alike(first: Sequence[Any], now: Sequence[Any], times: float) -> bool:
    """Whether tensors are bit for bit so many times the others."""
    with torch.no_grad(), insides.without_functions():
        return len(first) == len(now) and all(_alike(a, b, times) for a, b in zip(first, now, strict=True))


def _alike(a: torch.Tensor | None, b: torch.Tensor | None, times: float) -> bool:
    """Whether a tensor is bit for bit so many times the other; NaN is NaN."""
    if a is None or b is None:
        return a is b
    if isinstance(b, torch.Tensor) and (insides.has_own_rules(b) or b.is_nested or b.layout != torch.strided):
        b = _kept(b)
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return a is b  # what has no numbers of its own
    b = _plain(b)
    if a.element_size() == 1 and a.dtype == b.dtype:  # formats of 8 bits have no arithmetic
        a, b = a.double(), b.double()
    return a.dtype == b.dtype and a.shape == b.shape and equal(a if times == 1 else a * times, b)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    dense = tensor.detach().cpu()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense


def _kept(tensor: torch.Tensor | None) -> Any:
    """A copy of a tensor's numbers, `HIDDEN` of one that has none of its own."""
    if tensor is None:
        return None
    if insides.is_jagged(tensor):
        tensor, _ = insides.values_of_jagged(tensor)
    if tensor.is_nested or insides.has_own_rules(tensor):
        return HIDDEN
    dense = tensor.detach()
    dense = dense.to_dense() if dense.layout != torch.strided else dense
    dense = _plain(dense)
    return torch.empty(dense.shape, dtype=dense.dtype).copy_(dense)  # also of a zero without memory


def _numbers(tensor: Any) -> np.ndarray | None:
    """What was kept of a tensor, as `floats_of` has it."""
    return tensor if tensor is None or tensor is HIDDEN else floats_of(tensor)


def _share(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether both look at the same numbers of one memory, as they lie there."""
    if a.dtype != b.dtype or a.is_neg() or b.is_neg() or a.is_conj() or b.is_conj() or a.is_cuda:
        return False
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _lies_alike(came: torch.Tensor, kept: torch.Tensor) -> bool:
    """Whether a copy lies in its memory as the tensor does."""
    one, other = (
        (x.shape, x.stride(), x.storage_offset(), x.dtype, x.untyped_storage().nbytes()) for x in (came, kept)
    )
    return one == other


def _is_plain(tensor: Any) -> bool:
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        return False
    return not (tensor.is_nested or insides.has_own_rules(tensor))


def _apart(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, two entries apart in memory."""
    wide = torch.zeros((*tensor.shape, 2), dtype=tensor.dtype, device=tensor.device)
    wide[..., 0] = tensor
    return wide[..., 0]


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers with the axes in another order in memory: of images as channels_last, else in
    reverse; a single axis begins one entry later."""
    if tensor.ndim in (4, 5):
        images = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
        return tensor.contiguous(memory_format=images)
    if tensor.ndim < 2:
        return torch.cat([tensor.reshape(-1)[:1], tensor.reshape(-1)])[1:].reshape(tensor.shape)
    order = tuple(reversed(range(tensor.ndim)))
    return tensor.permute(order).contiguous().permute(order)


def _expanded(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, where those along an axis are alike with one in memory for all of them."""
    for axis, extent in enumerate(tensor.shape):
        one = tensor.narrow(axis, 0, 1)
        if extent > 1 and bool((tensor == one).all()):
            return one.clone().expand(tensor.shape)
    return tensor


@dataclass(frozen=True)
class Pass:
    """A run of the backward: so many times the first one's cotangents, in a layout; and it in words."""

    times: float
    layout: Callable[[torch.Tensor], torch.Tensor] | None
    words: str

    def of(self, cotangent: torch.Tensor) -> torch.Tensor:
        made = cotangent.clone() if self.times == 1 else self.times * cotangent
        return made if self.layout is None else self.layout(made)


PASSES = (
    Pass(1.0, None, ""),
    Pass(1.0, None, ", run once more on a retained graph,"),
    Pass(-2.0, _apart, ", given its cotangent two entries apart in memory,"),
    Pass(-2.0, _turned, ", given its cotangent with the axes in another order in memory,"),
    Pass(-2.0, _expanded, ", given its cotangent expanded where its numbers are alike,"),
)


LAYOUTS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "two entries apart in memory": _apart,
    "with the axes in another order in memory": _turned,
}


def cotangents_of(outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs' cotangents; the same ones each time.

    1 for a function with one number as its output; else random numbers, exact in every dtype and without a
    common factor. A backward is linear, and a factor of -2 exact, so that the third pass is told apart bit by
    bit.
    """
    random = np.random.default_rng(1)
    first = []
    for out in outputs:
        if len(outputs) == 1 and out.ndim == 0 and not out.is_complex():
            first.append(torch.ones_like(out))
            continue
        shape = (*out.shape, 2) if out.is_complex() else out.shape
        entries = random.choice([1.0, 1.25, 1.5, 1.75], shape) * random.choice([-1.0, 1.0], shape)
        drawn = torch.from_numpy(np.asarray(entries))
        drawn = torch.complex(drawn[..., 0], drawn[..., 1]) if out.is_complex() else drawn
        first.append(drawn.to(out.dtype).to(out.device).clone())  # memory that may be resized
    return first


# The autograd graph


def _graph(recorder: Recorder, outputs: Iterable[torch.Tensor]) -> tuple[list[Step], list[torch.Tensor]]:
    """Every autograd node that the outputs reach, first ones first, and the leaves."""
    nodes: list[Any] = []
    leaves: list[torch.Tensor] = []
    for number in _reached(recorder, outputs):
        node = recorder.nodes[number]
        (leaves if isinstance(node, torch.Tensor) else nodes).append(node)
    nodes.sort(key=insides.number_of)
    of_nodes = _OfNodes(recorder, nodes)
    return [of_nodes.step(node) for node in nodes], sorted(leaves, key=recorder.number)


def _reached(recorder: Recorder, outputs: Iterable[torch.Tensor]) -> Iterable[int]:
    """The numbers of the nodes and leaves that the outputs reach."""
    found: dict[int, None] = {}
    stack = [out if out.grad_fn is None else out.grad_fn for out in outputs]
    while stack:
        node = stack.pop()
        number = recorder.number(node)
        if number not in found:
            found[number] = None
            stack += [before for before, _ in getattr(node, "next_functions", ()) if before is not None]
    return found


class _OfNodes:
    """What the recorder saw, sorted by autograd nodes."""

    def __init__(self, recorder: Recorder, nodes: Sequence[Any]) -> None:
        self.recorder = recorder
        self.calls = _calls_of(recorder, nodes)
        self.outputs: defaultdict[int, dict[int, Region]] = defaultdict(dict)
        for (number, nr), region in recorder.edges.items():
            self.outputs[number][nr] = region
        self.of_call: defaultdict[int, list[Event]] = defaultdict(list)
        self.owned: defaultdict[int, list[Event]] = defaultdict(list)
        for event in recorder.events:
            if event.call is not None:
                self.of_call[event.call].append(event)
            elif event.owner is not None:
                self.owned[event.owner].append(event)
        self.kinds: Counter[str] = Counter()
        several = (event for event in recorder.events if len(event.outs) > 1 and event.call is None)
        self.makers = {out.key: event for event in several for out in event.outs[1:]}

    def _saved(self, events: Sequence[Event], inputs: Iterable[Edge | None]) -> tuple[Event, ...]:
        """The operations whose further results (a mean, a deviation) a built-in backward reads: torch
        differentiates it through them, by what it reads of what they read."""
        edges = set(inputs) - {None}
        found: dict[int, Event] = {}
        for event in events:
            for region in event.regions if event.name.endswith("_backward") and event.call is None else ():
                maker = self.makers.get(region.key) if region.edge is None and region.floating else None
                if maker is not None and any(read.edge in edges for read in maker.regions):
                    found[id(maker)] = maker
        return tuple(found.values())

    def step(self, node: Any) -> Step:
        number, kind = self.recorder.number(node), insides.forward_class(node)
        called = self.calls.get(number)
        call = None if called is None else self.recorder.calls[called]
        events = self.owned[number] if called is None else self.of_call[called]
        edges = tuple(None if n is None else (self.recorder.number(n), nr) for n, nr in node.next_functions)
        here: dict[Edge, Region] = {}
        for region in (*(call.regions if call else ()), *(r for event in events for r in event.regions)):
            if region.edge is not None:
                here.setdefault(region.edge, region)
        place = next((event.place for event in events if event.place.file), NOWHERE)
        return Step(
            number,
            self._named(node),
            events,
            edges,
            {e: here.get(e) or self.recorder.edges.get(e) for e in edges if e is not None},
            self.outputs[number],
            call.place if call else place,
            module=next((event.module for event in events if event.module), ""),
            by_function=kind is not None,
            kind="" if kind is None else kind.__name__,
            formula=OPAQUE.get(kind.__name__, "") if call else "",
            arguments=call.arguments if call else {},
            saved=self._saved(events, edges),
        )

    def _named(self, node: Any) -> str:
        """`MulBackward0`, then `MulBackward0.2`."""
        kind = node.name().removeprefix("torch::autograd::")
        self.kinds[kind] += 1
        return kind if self.kinds[kind] == 1 else f"{kind}.{self.kinds[kind]}"


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
