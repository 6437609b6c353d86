"""What a backward promises beside its formula: clauses, each with a reason, tried one after the other.

The gradients at the point are judged before. A clause runs the function again, in another way, and what comes
must be the same bit for bit, or right by the calculus of the whole function: kernels for other layouts round
otherwise.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from types import MappingProxyType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.autograd import Function as Autograd
from torch.utils._pytree import tree_map

from ..causes import BreaksClause
from ..errors import UnsupportedError, said
from ..verdict import Finding, Judgement, Verdict, as_finding, bare_finding
from . import insides
from .forward import tangents_of as forward_tangents
from .names import arguments_of
from .outputs import differentiable, flat, nodes_of, same
from .recording import LAYOUTS, cotangents_of, numbers_of
from .state import State
from .tape import Tape

MOST_LEAVES = 6  # of which every subset is frozen; of more, every one and every pair is left alone
TOLD = 3  # of what breaks one clause
NEAR = 2.0**-4  # of a number: the rounding set of the whole function that still tells something
ROWS = (1.0, 1.25, 0.75)  # what the rows of a batch are, times the inputs

Numbers = list[np.ndarray]
Whole = Callable[[Sequence[np.ndarray], Sequence[np.ndarray | None]], Mapping[str, Judgement]]


@dataclass(frozen=True, eq=False)
class Gave:
    """What a run gave: its outputs, and the gradients by name."""

    outputs: Numbers
    gradients: dict[str, np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Broken:
    """What breaks a clause: what was seen, where, and what the reference says of it."""

    seen: str
    at: str = "the function"
    judged: Judgement | None = None
    verdict: Verdict = Verdict.FAILED


Found = Iterator[Broken]


@dataclass(frozen=True, eq=False)
class Function:
    """A function at a point, where its gradients were judged: `leaves` are those that were there before.

    `judged` checks another function, or this one at other inputs, and gives what was found; `at` is this one
    there. `whole` and `tangents` are what the calculus of the whole function says of other numbers for it,
    and of its outputs' tangents; they raise `UnsupportedError` where it is too large.
    """

    func: Callable[..., Any]
    inputs: list[Any]
    state: State
    tape: Tape
    leaves: Mapping[str, torch.Tensor]
    whole: Whole
    judged: Callable[[Callable[..., Any], list[Any]], list[Finding]]
    tangents: Callable[[Sequence[np.ndarray], Mapping[str, np.ndarray]], list[Judgement]]
    at: Callable[[list[Any]], Function]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, torch.Tensor]:
        """The leaves that it is given as inputs; it holds the others."""
        there = {id(tensor) for tensor in flat(self.inputs)}
        return {name: leaf for name, leaf in self.leaves.items() if id(leaf) in there}

    @property
    def base(self) -> Gave:
        """What was judged."""
        gradients = {leaf.name: leaf.gradients[0] for leaf in self.tape.leaves if leaf.name in self.leaves}
        return Gave([region.values for region in self.tape.outputs], gradients)

    def run(
        self,
        inputs: Mapping[str, torch.Tensor] | None = None,
        cotangents: Callable[[torch.Tensor], torch.Tensor] = torch.clone,
        before: Callable[[], None] = lambda: None,
        after: Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], Callable[[], None]] | None = None,
    ) -> Gave:
        """Run it and its backward, with other inputs in place of some leaves. Raises what they raise."""
        self.state.restore()
        others = {id(self.leaves[name]): tensor for name, tensor in (inputs or {}).items()}
        leaves = {name: others.get(id(leaf), leaf) for name, leaf in self.leaves.items()}
        old = {name: leaf.grad for name, leaf in leaves.items()}
        given = tree_map(lambda x: others.get(id(x), x), self.inputs)
        try:
            for leaf in leaves.values():
                leaf.grad = None
            before()
            with torch.enable_grad():
                outputs = differentiable(self.func(*given))
            received = [cotangents(each) for each in cotangents_of(outputs)]
            done = after(outputs, received) if after is not None else None
            torch.autograd.backward(outputs, received)
            if done is not None:
                done()
            regions = {leaf.name: leaf.region for leaf in self.tape.leaves}
            return Gave(
                [_array(out) for out in outputs],
                {name: numbers_of(regions[name], leaf.grad) for name, leaf in leaves.items()},
            )
        finally:
            for name, leaf in leaves.items():
                leaf.grad = old[name]
            self.state.restore()

    def judged_as(self, func: Callable[..., Any], inputs: list[Any], words: str, at: str = "") -> Found:
        """What is found of another function; or of this one `at` other inputs, at which it may well have no
        value."""
        yield from _first_bad(self.judged(func, inputs), words, at)

    def beside(
        self,
        gave: Gave,
        words: str,
        names: Sequence[str] | None = None,
        again: Callable[[], list[Finding]] | None = None,
    ) -> Found:
        """What is not what was judged: other bits, that the calculus of the whole function refutes. Where
        that is too wide to tell, `again` judges such a run node by node."""
        base = self.base
        names = list(self.leaves) if names is None else names
        apart = [name for name in names if not same(base.gradients[name], gave.gradients.get(name))]
        shapes = [value.shape for value in gave.outputs] == [value.shape for value in base.outputs]
        if not apart and shapes and all(map(np.array_equal, gave.outputs, base.outputs)):
            return
        for name in apart:
            expected = base.gradients[name]
            if gave.gradients.get(name) is None and expected is not None and expected.any():
                yield Broken(f"{words} it has no gradient", name)
                return
        try:
            told = self._told(gave, names) if shapes else {}
        except UnsupportedError:
            told = {}
        found = [*self._refuted(told, gave, apart, names, words)]
        if again is not None and found and all(each.verdict is Verdict.UNDECIDED for each in found):
            found = [*_first_bad(again(), words)]
        yield from found

    def _refuted(
        self,
        told: Mapping[str, Judgement],
        gave: Gave,
        apart: Sequence[str],
        names: Sequence[str],
        words: str,
    ) -> Found:
        for name in [*(f"output {n}" for n in range(len(gave.outputs))), *names]:
            judged = told.get(name)
            if judged is None:
                if name in apart or (not told and not apart):
                    seen = f"{words} other numbers come, and the whole function is too large to tell which"
                    yield Broken(seen, name, verdict=Verdict.UNDECIDED)
            elif not judged.verdict.passes and not _is_near(judged):
                yield Broken(words, name, judged, judged.verdict)

    def _told(self, gave: Gave, names: Sequence[str]) -> Mapping[str, Judgement]:
        gradients = [
            gave.gradients.get(leaf.name) if leaf.name in names else leaf.gradients[0]
            for leaf in self.tape.leaves
        ]
        return self.whole(gave.outputs, gradients)


def _first_bad(findings: Sequence[Finding], words: str, at: str = "") -> Found:
    """The first finding that does not pass; at other inputs only what is wrong there."""
    for finding in findings:
        there = finding.value is not None and np.isfinite(finding.value)
        if (there and finding.verdict is Verdict.WRONG) if at else not finding.verdict.passes:
            of = f"{finding.node}{f' by {finding.wrt}' if finding.wrt else ''}"
            told = f"{words}, {of} is {finding.verdict}"
            told = f"{told}: {finding.note}" if finding.note else told
            yield Broken(told, at or "the function", verdict=finding.verdict)
            return


def _is_near(judged: Judgement) -> bool:
    """Whether a number lies in a set that is wider than one would wish, and narrow beside the number."""
    ulp, allowed, error = judged.ulp, judged.allowed_ulp, judged.error
    if judged.verdict is not Verdict.UNDECIDED or ulp is None or allowed is None or not ulp <= allowed:
        return False
    return error is not None and bool(ulp) and error * allowed / ulp < NEAR


class Changed:
    """A function with something made of its outputs."""

    args: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, func: Callable[..., Any], change: Callable[[list[torch.Tensor]], Any]) -> None:
        self.func, self.change = func, change

    def named_arguments(self, inputs: Sequence[Any]) -> list[tuple[str, Any]]:
        return arguments_of(self.func, inputs)

    def __call__(self, *inputs: Any) -> Any:
        return self.change(differentiable(self.func(*inputs)))


@dataclass(frozen=True, eq=False)
class Clause:
    """One promise: its name, why it is kept, a line that breaks it, and what finds that. One that has nothing
    to try says so in `left_out`."""

    name: str
    why: str
    example: str
    look: Callable[[Function], Found]


def clauses_of(function: Function, asked: Sequence[str] = ()) -> tuple[list[Finding], list[str]]:
    """What is found of each clause, and the names of those that were exercised."""
    found: list[Finding] = []
    exercised = []
    for clause in CLAUSES.values():
        if clause.name not in (asked or set(CLAUSES) - ON_REQUEST):
            continue
        try:
            if clause.name in IN_BATCHES and _draws(function):
                function.left_out[clause.name] = "it draws random numbers, which are others in a batch"
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, of what it uses inside
                broken = list(clause.look(function))
        except Exception as error:
            broken = [Broken(f"it raises {said(error)}")]
        finally:
            function.state.restore()
        if clause.name not in function.left_out:
            exercised.append(f"{PREFIX}{clause.name}")
        found += [_finding(clause, each) for each in broken[:TOLD]]
        if not broken and clause.name not in function.left_out:
            found.append(bare_finding("contract", clause.name, Verdict.EXACT))
    return found, exercised


PREFIX = "contract: "
IN_BATCHES = {"batched gradients", "batched tangents", "batch invariance", "under vmap"}
ON_REQUEST = {"batch invariance"}  # which a normalisation over the batch rightly breaks


def _finding(clause: Clause, broken: Broken) -> Finding:
    cause = BreaksClause(
        clause.name, broken.seen, clause.why, "" if broken.at == "the function" else broken.at
    )
    if broken.judged is None:
        return bare_finding("contract", clause.name, broken.verdict, cause)
    judged = replace(broken.judged, causes=(cause, *broken.judged.causes))
    return as_finding("contract", clause.name, None, "", judged)


# Layouts


class _Relaid(Autograd):
    """The identity, whose backward hands its cotangent on in a layout."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, layout: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        ctx.layout = layout
        return value.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> Any:
        return ctx.layout(cotangent), None


def _relaid(layout: Callable[[torch.Tensor], torch.Tensor], outputs: list[torch.Tensor]) -> list[Any]:
    return [_Relaid.apply(out, layout) for out in outputs]


def _layouts_of_cotangents(function: Function) -> Found:
    """Strided, transposed, and by a sum over the outputs expanded from one number (stride 0)."""
    for words, layout in LAYOUTS.items():
        relaid = Changed(function.func, partial(_relaid, layout))
        yield from function.beside(
            function.run(cotangents=layout),
            f"for a cotangent {words}",
            again=partial(function.judged, relaid, function.inputs),
        )
    total = Changed(function.func, lambda outs: [_real(out).sum() for out in outs])
    yield from function.judged_as(
        total, function.inputs, "for a cotangent of one number, expanded (stride 0)"
    )


def _zero_cotangents(function: Function) -> Found:
    gave = function.run(cotangents=torch.zeros_like)
    for name, gradient in gave.gradients.items():
        if gradient is not None and gradient.any():
            yield Broken("for a cotangent of 0 the gradient is not 0", name)


def _layouts_of_inputs(function: Function) -> Found:
    if not function.given:
        function.left_out["layouts of inputs"] = "no leaf is an input"
        return
    strided = {name: leaf for name, leaf in function.given.items() if leaf.layout == torch.strided}

    def instead(others: Mapping[str, torch.Tensor]) -> list[Any]:
        ids = {id(function.given[name]): other for name, other in others.items()}
        return tree_map(lambda x: ids.get(id(x), x), function.inputs)

    for words, layout in LAYOUTS.items():
        others = {name: layout(leaf.detach()).requires_grad_() for name, leaf in strided.items()}
        again = partial(function.judged, function.func, instead(others))
        yield from function.beside(function.run(others), f"for inputs {words}", again=again)
    rows = {
        name: leaf.detach()[:1].clone().expand(leaf.shape).requires_grad_()
        for name, leaf in strided.items()
        if leaf.ndim and leaf.shape[0] > 1
    }
    if rows:
        words = "for inputs expanded from their first row (stride 0)"
        yield from _first_bad(function.judged(function.func, instead(rows)), words, "the function")


# What needs a gradient


def _frozen(function: Function) -> Found:
    names = list(function.leaves)
    if len(names) < 2:
        function.left_out["frozen inputs"] = "there is one leaf"
        return
    sizes = range(1, len(names)) if len(names) <= MOST_LEAVES else (1, 2)
    for size in sizes:
        for moved in combinations(names, size):
            yield from _with_frozen(function, moved)


def _with_frozen(function: Function, moved: Sequence[str]) -> Found:
    still = [leaf for name, leaf in function.leaves.items() if name not in moved]
    words = f"where {', '.join(moved)} alone need{'s' if len(moved) == 1 else ''} a gradient"

    def freeze() -> None:
        for leaf in still:
            leaf.requires_grad_(False)

    def again() -> list[Finding]:
        freeze()
        return function.judged(function.func, function.inputs)

    try:
        gave = function.run(before=freeze)
        if len(gave.outputs) == len(function.tape.outputs):
            yield from function.beside(gave, words, moved, again)
    except Exception as error:
        yield Broken(f"{words} it raises {said(error)}")
    finally:
        for leaf in still:
            leaf.requires_grad_(True)


def _undefined(function: Function) -> Found:
    """None in place of a cotangent, for each output of several, and for all of them."""
    count = len(function.tape.outputs)
    for which in range(count) if count > 1 else ():
        others = Changed(function.func, partial(_all_but, which))
        words = f"where output {which} has no cotangent (None, and not zeros)"
        yield from function.judged_as(others, function.inputs, words)
    function.state.restore()
    leaves = function.leaves
    with torch.enable_grad():
        outputs = differentiable(function.func(*function.inputs))
        nothing = [insides.without_cotangent(out) for out in outputs]
        found = torch.autograd.grad(nothing, [*leaves.values()], cotangents_of(outputs), allow_unused=True)
    for name, gradient in zip(leaves, found, strict=True):
        if gradient is not None and bool(gradient.to_dense().any()):
            yield Broken("where no output has a cotangent (None, and not zeros) the gradient is not 0", name)


def _all_but(which: int, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [*outputs[:which], *outputs[which + 1 :]]


def _same_twice(function: Function) -> Found:
    """One tensor in the place of two inputs: each use counts."""
    given = list(function.given.items())
    pairs = [
        (a, b)
        for a, b in combinations(given, 2)
        if a[1].shape == b[1].shape and a[1].dtype == b[1].dtype and a[1].layout == torch.strided
    ]
    if not pairs:
        function.left_out["the same tensor twice"] = "no two inputs are alike"
        return
    for (name, first), (other, second) in pairs[:MOST_LEAVES]:
        inputs = tree_map(lambda x, a=first, b=second: a if x is b else x, function.inputs)
        words = f"where {name} and {other} are one tensor"
        yield from function.judged_as(function.func, inputs, words, name)


# What is left behind


def _accumulated(function: Function) -> Found:
    """A gradient is added to the one that is there."""

    def preset() -> None:
        for leaf in function.leaves.values():
            leaf.grad = torch.ones_like(leaf) if leaf.layout == torch.strided else None

    gave = function.run(before=preset)
    for name, leaf in function.leaves.items():
        alone, ones = function.base.gradients[name], _real(torch.ones_like(leaf.detach()))
        if alone is not None and leaf.layout == torch.strided:
            expected = ones + torch.from_numpy(alone).to(ones.dtype).reshape(ones.shape)
            if not same(_array(expected), gave.gradients[name]):
                yield Broken("what arrives is not added to the gradient that is there", name)


def _unchanged(function: Function) -> Found:
    """The backward writes to nothing that it was given."""
    seen: list[str] = []

    def after(outputs: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]) -> Callable[[], None]:
        held = {f"the cotangent of output {n}": c for n, c in enumerate(cotangents)}
        held |= {f"output {n}": out for n, out in enumerate(outputs)}
        held |= dict(function.leaves)
        for node in _custom_nodes(outputs):
            held |= {f"what {node.name()} saved": each for each in _saved(node)}
        kept = {name: (each, each._version, _array(each)) for name, each in held.items()}

        def done() -> None:
            for name, (tensor, version, numbers) in kept.items():
                if not same(numbers, _array(tensor)):
                    seen.append(f"{name} is changed by the backward")
                elif tensor._version != version:
                    seen.append(f"{name} is written to by the backward, with the numbers that it had")

        return done

    function.run(after=after)
    yield from (Broken(words) for words in seen)


def _as_declared(function: Function) -> Found:
    """Each gradient has its input's shape, dtype and device, as the Function itself gives it: autograd would
    convert it in silence."""
    seen: dict[str, None] = {}
    kinds: dict[Any, None] = {}

    def find(outputs: Sequence[torch.Tensor], cotangents: Sequence[torch.Tensor]) -> Callable[[], None]:
        kinds.update(dict.fromkeys(insides.forward_class(node) for node in _custom_nodes(outputs)))
        return lambda: None

    function.run(after=find)
    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(mock.patch.object(kind, "backward", staticmethod(_watched(kind, seen))))
        function.run()
    yield from (Broken(words) for words in seen)


def _watched(kind: Any, seen: dict[str, None]) -> Callable[..., Any]:
    """A Function's backward, whose gradients are looked at."""
    backward = kind.backward

    def watched(ctx: Any, *cotangents: Any) -> Any:
        found = backward(ctx, *cotangents)
        gradients = found if isinstance(found, tuple) else (found,)
        tensors = [n for n, needed in enumerate(ctx.needs_input_grad) if needed]
        wanted = [each for each in ctx.next_functions if each[0] is not None]
        for n, (before, nr) in zip(tensors, wanted, strict=False):
            gradient, meta = gradients[n] if n < len(gradients) else None, before._input_metadata[nr]
            if not isinstance(gradient, torch.Tensor):
                continue
            for what, got, expected in (
                ("shape", tuple(gradient.shape), tuple(meta.shape)),
                ("dtype", gradient.dtype, meta.dtype),
                ("device", gradient.device, meta.device),
            ):
                if got != expected:
                    words = f"{kind.__name__} gives input {n} a gradient of {what} {got}, not {expected}"
                    seen[words] = None
        return found

    return watched


def _without_grad(function: Function) -> Found:
    plain = _plainly(function, function.func)
    function.state.restore()
    with torch.enable_grad():
        outputs = list(flat(function.func(*function.inputs)))
    for n, (one, other) in enumerate(zip(plain, outputs, strict=True)):
        if not same(_array(one), _array(other)):
            yield Broken(f"output {n} is another under no_grad")


def _repeated(function: Function) -> Found:
    runs = [function.run() for _ in range(3)]
    for name in function.leaves:
        values = [run.gradients[name] for run in runs]
        if not all(same(values[0], value) for value in values[1:]):
            first, *others = (np.zeros(()) if value is None else value for value in values)
            apart = max(float(np.max(np.abs(value - first))) for value in others)
            largest = float(np.max(np.abs(first)))
            yield Broken(f"three runs differ by up to {apart:.2g}, beside {largest:.2g}", name)


def _copied(function: Function) -> Found:
    if not isinstance(function.func, torch.nn.Module):
        function.left_out["copies"] = "it is no module"
        return
    expected = [_array(out) for out in _plainly(function, function.func)]
    for words, duplicate in (
        ("deepcopy", copy.deepcopy),
        ("pickle", _pickled),
    ):
        function.state.restore()  # the copy is of what it was before a run
        got = [_array(out) for out in _plainly(function, duplicate(function.func))]
        if len(got) != len(expected) or not all(map(same, got, expected)):
            yield Broken(f"a copy by {words} gives other outputs")


def _pickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))


def _plainly(function: Function, func: Callable[..., Any]) -> Sequence[torch.Tensor]:
    function.state.restore()
    with torch.no_grad():
        return list(flat(func(*function.inputs)))


# In batches


def _batched_gradients(function: Function) -> Found:
    """The backward under vmap, for several cotangents at once: as autograd batches it, and as torch.func."""
    function.state.restore()
    leaves = [*function.leaves.values()]
    with torch.enable_grad():
        outputs = differentiable(function.func(*function.inputs))
    rows = [torch.stack([c, -2 * c]) for c in cotangents_of(outputs)]

    def pulled(*cotangents: torch.Tensor, **more: bool) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(
            outputs, leaves, cotangents, retain_graph=True, materialize_grads=True, **more
        )

    ways = {
        "is_grads_batched": partial(pulled, *rows, is_grads_batched=True),
        "vmap": partial(torch.vmap(pulled), *rows),
    }
    for way, run in ways.items():
        try:
            found = run()
        except Exception as error:
            if why := _not_promised(function, error):
                function.left_out["batched gradients"] = why
                return
            raise
        yield from _rows_of(function, outputs, found, f"in a batch of cotangents ({way}),")


def _rows_of(function: Function, outputs: Sequence[torch.Tensor], found: Any, words: str) -> Found:
    regions = {leaf.name: leaf.region for leaf in function.tape.leaves}
    outs = [_array(out) for out in outputs]
    for n, factor in enumerate((1.0, -2.0)):
        gradients = {
            name: numbers_of(regions[name], each[n] / factor)
            for name, each in zip(function.leaves, found, strict=True)
        }
        yield from function.beside(Gave(outs, gradients), f"{words} row {n}:")


def _row_by_row(function: Function) -> Found:
    """Half of a batch: what its rows get among the others is right for them alone."""
    given, count = function.given, {leaf.shape[0] for leaf in function.given.values() if leaf.ndim}
    rows = {region.shape[0] for region in function.tape.outputs if region.shape}
    if len(count) != 1 or count != rows or min(count) < 2 or any(not leaf.ndim for leaf in given.values()):
        function.left_out["batch invariance"] = "inputs and outputs have no first axis in common"
        return
    half = min(count) // 2
    own = {id(leaf): leaf.detach()[:half].clone().requires_grad_() for leaf in given.values()}
    alone = function.at(tree_map(lambda x: own.get(id(x), x), function.inputs))

    def together(cotangent: torch.Tensor) -> torch.Tensor:
        (first,) = cotangents_of([cotangent[:half]])
        return torch.cat([first, cotangent[half:]])

    whole = function.run(cotangents=together)
    gradients = {name: x if (x := whole.gradients[name]) is None else x[:half] for name in given}
    gave = Gave([out[:half] for out in whole.outputs], gradients)
    yield from alone.beside(gave, "among the other rows of its batch:", [*given])


def _batched_tangents(function: Function) -> Found:
    """Forward mode under vmap, for several tangents at once: each row is what it is alone."""
    leaves = list(function.given.values())
    if not leaves:
        function.left_out["batched tangents"] = "no leaf is an input"
        return
    tangents = forward_tangents(leaves)
    moved = {name: _array(tangent) for name, tangent in zip(function.given, tangents, strict=True)}

    def pushed(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def outputs(*moved: torch.Tensor) -> tuple[torch.Tensor, ...]:
            others = dict(zip(map(id, leaves), moved, strict=True))
            return tuple(flat(function.func(*tree_map(lambda x: others.get(id(x), x), function.inputs))))

        primals = tuple(leaf.detach() for leaf in leaves)
        found: tuple[torch.Tensor, ...] = torch.func.jvp(outputs, primals, given)[1]
        return found

    function.state.restore()
    try:
        alone = pushed(*tangents)
        together = torch.vmap(pushed)(*(torch.stack([t, -2 * t]) for t in tangents))
    except Exception as error:
        if why := _not_promised(function, error, "jvp"):
            function.left_out["batched tangents"] = why
            return
        raise
    for n, factor in enumerate((1.0, -2.0)):
        numbers = [_array(each[n] / factor) for each in together]
        if all(same(_array(one), row) for one, row in zip(alone, numbers, strict=True)):
            continue
        words = f"in a batch of tangents row {n} is another than alone"
        try:
            told = function.tangents(numbers, moved)
        except UnsupportedError:
            yield Broken(f"{words}, and the whole is too large to tell which", verdict=Verdict.UNDECIDED)
            return
        for number, judged in enumerate(told):
            if not judged.verdict.passes:
                yield Broken(words, f"output {number}", judged, judged.verdict)


def _batched(function: Function) -> Found:
    """The function under vmap, and the gradient through that: each row is what is right for it alone."""
    given = function.given
    if not given or any(leaf.layout != torch.strided for leaf in given.values()):
        function.left_out["under vmap"] = "no leaf is an input"
        return
    function.state.restore()
    rows = {name: torch.stack([leaf.detach() * r for r in ROWS]) for name, leaf in given.items()}
    stacked = {id(given[name]): row.requires_grad_() for name, row in rows.items()}
    flags = tree_map(lambda x: 0 if id(x) in stacked else None, function.inputs)
    inputs = tree_map(lambda x: stacked.get(id(x), x), function.inputs)
    try:
        with torch.enable_grad():
            whole = torch.vmap(lambda *xs: tuple(flat(function.func(*xs))), tuple(flags), randomness="same")
            outputs = [out for out in whole(*inputs) if out.requires_grad]
    except Exception as error:
        if why := _not_promised(function, error):
            function.left_out["under vmap"] = why
            return
        raise
    drawn = cotangents_of([out[0] for out in outputs])
    cotangents = [torch.stack([c] * len(ROWS)) for c in drawn]
    found = torch.autograd.grad(outputs, [*rows.values()], cotangents, allow_unused=True)
    for n in range(len(ROWS)):
        own = {id(given[name]): row.detach()[n].clone().requires_grad_() for name, row in rows.items()}
        alone = function.at(tree_map(lambda x, own=own: own.get(id(x), x), function.inputs))
        gradients = {name: None if g is None else _array(g[n]) for name, g in zip(rows, found, strict=True)}
        gave = Gave([_array(out[n]) for out in outputs], gradients)
        yield from alone.beside(gave, f"in row {n} of a batch under vmap:", [*rows])


def _draws(function: Function) -> bool:
    """Whether the function draws random numbers, which are others in a batch."""
    function.state.restore()
    before = torch.get_rng_state()
    with torch.no_grad():
        function.func(*function.inputs)
    return not torch.equal(before, torch.get_rng_state())


def _not_promised(function: Function, error: Exception, rule: str = "vmap") -> str:
    """Why a function cannot run so where it does not say that it does: only custom Functions with a rule for
    that promise it."""
    function.state.restore()
    with torch.enable_grad():
        nodes = _custom_nodes(differentiable(function.func(*function.inputs)))
    kinds = [insides.forward_class(node) for node in nodes]
    ruled = [
        getattr(kind, rule) is not getattr(Autograd, rule) or (rule == "vmap" and kind.generate_vmap_rule)
        for kind in kinds
    ]
    words = said(error).split(". ")[0]
    return "" if ruled and all(ruled) and "setup_context" not in words else f"torch refuses: {words}"


def _custom_nodes(outputs: Sequence[torch.Tensor]) -> list[Any]:
    """The nodes of custom Functions that the outputs come from."""
    return [node for node in nodes_of(outputs) if insides.forward_class(node) is not None]


def _saved(node: Any) -> list[torch.Tensor]:
    try:
        return [each for each in node.saved_tensors if isinstance(each, torch.Tensor)]
    except RuntimeError:
        return []


def _real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _array(tensor: torch.Tensor) -> np.ndarray:
    found = numbers_of(None, tensor)
    return np.zeros(0) if found is None else found


CLAUSES = {
    clause.name: clause
    for clause in (
        Clause("layouts of cotangents", "a caller may hand on any view",
               "g.as_strided(g.shape, (3, 1))", _layouts_of_cotangents),
        Clause("layouts of inputs", "a view is a tensor like any other",
               "g if x.is_contiguous() else g / 2", _layouts_of_inputs),
        Clause("zero cotangents", "a backward is linear",
               "g / g.abs().max()", _zero_cotangents),
        Clause("undefined cotangents", "torch gives None for an output that nothing reads",
               "ctx.set_materialize_grads(False); return g * y", _undefined),
        Clause("frozen inputs", "one that needs no gradient must not change those of the others",
               "if ctx.needs_input_grad[0]: ... else: return None, g * b", _frozen),
        Clause("the same tensor twice", "each use of a tensor counts",
               "a * b if a is not b else a * b.detach()", _same_twice),
        Clause("accumulation", "a gradient is added to the one that is there",
               "x.grad = g", _accumulated),
        Clause("nothing is written to", "what others hold stays as it is",
               "g.mul_(2)", _unchanged),
        Clause("gradients as declared", "autograd converts a gradient of another shape or dtype in silence",
               "g.float()", _as_declared),
        Clause("value without grad mode", "a model gives the same in evaluation",
               "y if torch.is_grad_enabled() else y + 1e-9", _without_grad),
        Clause("repeatable", "a run that differs cannot be compared",
               "g * torch.rand(())", _repeated),
        Clause("copies", "a module is saved, and sent to other processes",
               "def __getstate__(self): return {}", _copied),
        Clause("batched gradients", "Jacobians are taken row by row under vmap",
               "g / g.sum()", _batched_gradients),
        Clause("batched tangents", "Jacobians are taken column by column under vmap",
               "t / t.sum()", _batched_tangents),
        Clause("batch invariance", "a row is none of its neighbours' business",
               "g - g.mean(0)", _row_by_row),
        Clause("under vmap", "each row of a batch is what it is alone",
               "def vmap(info, in_dims, x): return f(x).flip(0), 0", _batched),
    )
}  # fmt: skip
