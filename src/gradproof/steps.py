"""Any torch function as it is: every autograd node checked against the calculus of what it recorded.

The forward is the specification of the backward. A run is recorded (`tape`), and for each autograd node, built-in or
custom, the operations that it ran are put into index notation. With the engine's own numbers taken as exact,

* forward: is the node's value within its rounding?
* local: is the cotangent that it passed to each input what calculus gives for the cotangent that it received?
* gradient: is what arrived at a tensor the sum of what its uses passed on?

Each is tight at any depth. By induction from the output back, if all hold, the gradients are the chain rule up to rounding.
What autograd does not see at all is looked for as well: a `detach`, `.data` or `no_grad` that loses part of the gradient.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flint import arb

from .arithmetic import UNIT, Balls, balls, centres, full, numbers, precision, rounding
from .blame import Clues, likeness
from .derivation import derive
from .dtypes import DTYPES, DType
from .enclosure import START_BITS, Enclosures, Pulled, Run
from .errors import GradproofError, InputError, Place
from .graph import Graph, Node, Shape, size, slot
from .graph import Read as GraphRead
from .oracle import Report
from .reference import Values, evaluate
from .stops import Stops
from .syntax import parse_statements
from .tape.lowering import Lowering, UnsupportedError
from .tape.memory import Content
from .tape.recording import OPAQUE, Edge, Region, Step, Tape, arguments_of, record, region_of, shown
from .verdicts import Comparison, Finding, Judgement, Verdict, judge, missing, worst


def check_function(
    func: Callable[..., Any], *inputs: Any, formula: str | None = None, stops: str = "judge", title: str = ""
) -> Report:
    """Check the gradients of a torch function at these inputs, node by node.

    `func` is any callable that returns a tensor, or a nest of tensors; its parameters are the leaves that need a gradient,
    among the inputs and among what it holds. It runs once, its backward three times. The verdict is in the dtype that it
    runs in.

    `formula` says what an operation computes that the recording cannot see into, over the names of the function's
    arguments, in the language of expression files. `stops="trust"` takes every `detach`, `.data` and `no_grad` as meant.

    What goes wrong in the function, and what is not covered, are findings. Raises `InputError` for bad options.
    """
    if stops not in ("judge", "trust"):
        raise InputError(f"stops={stops!r}: expected 'judge' or 'trust'")
    start = time.perf_counter()
    with _warnings_off():
        tape = record(func, [_as_leaf(value) for value in inputs])
    name = title or _name_of(func)
    if formula is not None:
        tape = _as_one(tape, name, formula, func, inputs)
    findings = _Check(tape, stops if formula is None else "trust").findings()
    dtype = _dtype_of([leaf.region for leaf in tape.leaves])
    seconds = time.perf_counter() - start
    return Report(name, name, "torch", dtype.name if dtype else "none", tuple(findings), seconds)


def gradcheck(func: Callable[..., Any], inputs: Any, *, raise_exception: bool = True, **options: Any) -> bool:
    """`torch.autograd.gradcheck` by proof: the same call, without step, tolerance or float64.

    Options of torch's that choose tolerances and modes are accepted and have no effect.

    Raises `GradcheckError` with the report where something is wrong, failed, undecided or unsupported; with
    `raise_exception=False` the answer is False then.
    """
    unknown = set(options) - _IGNORED
    if unknown:
        raise TypeError(f"gradcheck() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    report = check_function(func, *arguments)
    if not report.ok and raise_exception:
        raise GradcheckError(report.to_text())
    return report.ok


_IGNORED = {
    "eps", "atol", "rtol", "nondet_tol", "fast_mode", "check_undefined_grad", "check_grad_dtypes", "check_batched_grad",
    "check_batched_forward_grad", "check_forward_ad", "check_backward_ad", "check_sparse_nnz", "masked",
}  # fmt: skip


class GradcheckError(GradproofError, RuntimeError):
    """A gradient that does not pass; the message is the report."""


def register_formula(operation: str, formula: str) -> None:
    """Say what an operation computes that the recording cannot see into: a kernel of a library's, `mylib::swish`, over the
    names of its arguments, or a custom `autograd.Function` by its class's name, over those of its forward.

    Raises `InputError` for text that is not of the language.
    """
    _parsed(formula)
    OPAQUE[operation] = formula


def _parsed(formula: str) -> None:
    if len(parse_statements(f"value = {formula}", Place("formula"))) != 1:
        raise InputError("expected one expression, as in 'x * sigmoid(x)'", Place("formula"))


def _as_one(tape: Tape, name: str, formula: str, func: Any, inputs: Sequence[Any]) -> Tape:
    """The tape of a function that is one operation, which the formula tells."""
    _parsed(formula)
    if tape.trouble:
        return tape
    if len(tape.outputs) != 1:
        raise InputError(f"formula= is for a function with one output, and this one has {len(tape.outputs)}")
    (output,) = tape.outputs
    by_name = {leaf.name: leaf.region for leaf in tape.leaves}
    arguments: dict[str, Any] = {}
    for argument, value in arguments_of(func, inputs):
        if isinstance(value, torch.Tensor):
            arguments[argument] = by_name.get(argument) or region_of(value)
        else:
            arguments[argument] = value
    step = Step(-1, name, name, [], tuple(leaf.edge for leaf in tape.leaves), {leaf.edge: leaf.region for leaf in tape.leaves},
                {0: output}, Place(""), "", formula=formula, arguments=arguments)  # fmt: skip
    for number, seeds in enumerate(tape.seeds):
        assert output.edge is not None
        step.received.append((seeds[output.edge],))
        step.passed.append(tuple(leaf.gradients[number] for leaf in tape.leaves))
    return replace(tape, steps=[step], seeds=[{(-1, 0): step.received[n][0]} for n in range(len(tape.seeds))])


def _warnings_off() -> Any:
    import warnings

    return warnings.catch_warnings()


def _as_leaf(value: Any) -> Any:
    """A tensor that needs a gradient and has a history is taken from here on."""
    if isinstance(value, torch.Tensor) and value.requires_grad and not value.is_leaf:
        return value.detach().requires_grad_()
    return value


def _name_of(func: Any) -> str:
    if isinstance(func, torch.nn.Module):
        return type(func).__name__
    name = getattr(func, "__name__", None) or type(func).__name__
    code = getattr(func, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"lambda at {shown(code.co_filename)}:{code.co_firstlineno}"
    return name


def _dtype_of(regions: Sequence[Region]) -> DType | None:
    """The coarsest of the tensors' formats."""
    found = [_format(region.dtype) for region in regions if region.floating]
    known = [dtype for dtype in found if dtype is not None]
    return max(known, key=lambda dtype: dtype.unit_roundoff, default=None)


def _format(dtype: torch.dtype) -> DType | None:
    return DTYPES.get(str(dtype).removeprefix("torch."))


MAX_WHOLE = 20_000  # entries of all domains together: beyond, the whole function is not looked at from both sides
MAX_USES = 8  # of an input in one autograd node that are told apart
_OPEN = (Verdict.KINK, Verdict.UNDECIDED)


class _Check:
    """One check: the findings of one tape."""

    def __init__(self, tape: Tape, stops: str) -> None:
        self.tape = tape
        self.stops = stops
        self.names = {leaf.edge: leaf.name for leaf in tape.leaves}
        for step in tape.steps:
            for nr in step.outputs:
                self.names[step.number, nr] = step.name if len(step.outputs) == 1 else f"{step.name}[{nr}]"
        self.delivered: list[dict[Edge, list[np.ndarray]]] = []
        self.blamed: dict[int, str] = {}  # whoever got a wrong cotangent, by number: from which node

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        if self.tape.trouble:
            verdict = Verdict.FAILED if self.tape.supported else Verdict.UNSUPPORTED
            return [_told("forward", "the function", verdict, self.tape.trouble)]
        if not self.tape.leaves:
            note = "no tensor that needs a gradient reaches the output; mark inputs with requires_grad_()"
            found.append(_told("gradient", "the function", Verdict.UNDECIDED, note))
        with precision(START_BITS):
            self._deliver()
            by_step = {step.number: _guarded(partial(self._step, step)) for step in reversed(self.tape.steps)}
            found += [finding for step in self.tape.steps for finding in by_step[step.number]]
            found += self._sums()
            lost = _guarded(self._losses) if self.stops == "judge" else []
            found += lost
            if not lost and any(f.verdict in _OPEN or f.inherited for f in found):
                found = _guarded(lambda: self._end_to_end(found)) or found
        return found

    def _end_to_end(self, found: list[Finding]) -> list[Finding]:
        """Where a step has a kink or cannot be judged alone, the whole function is looked at from its leaves.

        It may be smooth although its pieces have kinks; then only the one value is right. And a cotangent of 0 may have
        met a slope without end: then the function tells what the piece cannot.
        """
        judged = self._whole()
        if not judged:
            return found
        found = [self._cancelled(finding, judged) for finding in found]
        kinked = [finding for finding in found if finding.verdict is Verdict.KINK]
        settled = all(whole.verdict.passes for whole in judged.values())
        result = []
        for finding in found:
            if finding.verdict in (Verdict.UNDECIDED, Verdict.WRONG) and finding.value is not None and not np.isfinite(finding.value):
                finding = replace(finding, inherited=not settled and finding.kind == "local" and finding.verdict is Verdict.UNDECIDED)
            if (finding.verdict is Verdict.UNDECIDED and finding.wrt is not None) or finding.inherited:
                if settled:
                    note = "; ".join(part for part in (finding.note, "the function as a whole was judged") if part)
                    finding = replace(finding, verdict=Verdict.ROUNDING, note=note, inherited=False)
            result.append(finding)
        for leaf in self.tape.leaves:
            whole = judged.get(leaf.name)
            if whole is None or whole.verdict is not Verdict.WRONG:
                continue
            finite = leaf.gradients[0] is not None and np.isfinite(leaf.gradients[0]).all()
            if finite and (not kinked or whole.exact is None):
                continue  # its steps tell
            if finite:
                places = ", ".join(dict.fromkeys(f.place or f.node for f in kinked))
                note = f"the pieces have kinks here (at {places}), but the whole function is smooth"
            else:
                first = next((f for f in found if f.kind == "local" and f.value is not None and not np.isfinite(f.value)), None)
                note = "; ".join(part for part in (whole.note, f"it comes from {first.node} at {first.place}" if first else "") if part)
            finding = _finding("gradient", leaf.name, None, "the whole function, from its leaves", replace(whole, note=note))
            result = [f for f in result if not (f.kind == "gradient" and f.node == leaf.name)] + [finding]
        return result

    @staticmethod
    def _cancelled(finding: Finding, judged: Mapping[str, Judgement]) -> Finding:
        """A leaf below a wrong node may be right all the same, where the error has no effect on it."""
        whole = judged.get(finding.node)
        if not (finding.inherited and finding.kind == "gradient" and whole is not None and whole.verdict.passes):
            return finding
        note = f"right from the leaves, although {finding.note.removeprefix('inherited from ')} is wrong: it cancels"
        return replace(_finding("gradient", finding.node, None, "the whole function, from its leaves", whole), note=note)

    def _whole(self) -> dict[str, Judgement]:
        """The gradients of the leaves by the calculus of the whole run; nothing where it is too large or not covered."""
        dtype = _dtype_of([leaf.region for leaf in self.tape.leaves])
        if dtype is None or not self.tape.seeds:
            return {}
        lowering = Lowering("whole")
        for leaf in self.tape.leaves:
            lowering.enter(leaf.name, leaf.region, given=False)
        try:
            lowering.run(self.tape.events)
            rows: dict[str, Balls] = {}
            for region in self.tape.outputs:
                operand = lowering.operand(region)
                name = lowering.emit(slot(0), (GraphRead(operand.node, operand.index),), region.shape)
                if region.edge in self.tape.seeds[0]:
                    rows[name] = np.asarray(balls(self.tape.seeds[0][region.edge]), object)[None]
        except UnsupportedError:
            return {}
        if sum(size(node.domain) for node in lowering.nodes) > MAX_WHOLE or not rows:
            return {}
        targets = {leaf.name: leaf.region.shape for leaf in self.tape.leaves}
        run = Run(tuple(lowering.nodes), tuple(rows), targets, frozenset(lowering.active))
        given = {name: np.asarray(balls(values), object) for name, values in lowering.numbers.items()}
        pulled = Enclosures(dtype).pulled(run, given, rows)
        found = {}
        for leaf in self.tape.leaves:
            expected, gradient = pulled[leaf.name].row(0), leaf.gradients[0]
            own = _format(leaf.region.dtype)
            if gradient is not None and own is not None and gradient.size:
                found[leaf.name] = judge(Comparison(gradient, expected.exact, expected.rounding, expected.kinks), own)
        return found

    def _losses(self) -> list[Finding]:
        """What is lost where autograd stops and the function does not."""
        dtype = _dtype_of([leaf.region for leaf in self.tape.leaves])
        if dtype is None:
            return []
        try:
            stops = Stops(self.tape, dtype)
            losses = stops.losses()
        except UnsupportedError as error:
            return [_told("gradient", "a value without its history", Verdict.UNSUPPORTED, str(error))]
        gradients = {leaf.edge[0]: leaf.gradients[0] for leaf in self.tape.leaves}
        found = [
            replace(_told("gradient", "the function", Verdict.UNSUPPORTED, f"{why}; what happens between is not seen"), place=str(place))
            for why, place in dict.fromkeys(stops.unseen)
        ]
        for loss in losses:
            name = self.tape.names.get(loss.leaf, f"leaf{loss.leaf}")
            value = gradients.get(loss.leaf)
            value = np.zeros(loss.region.shape) if value is None else value
            expected = np.asarray(loss.lost + balls(value), object)
            own = _format(loss.region.dtype) or dtype
            judged = judge(Comparison(value, expected, expected), own)
            where = ", ".join(map(str, loss.places)) or "an unknown place"
            note = f"part of the gradient is lost at {where}: a detach, .data, no_grad or item() stops autograd, not the function"
            judged = replace(judged, verdict=worst([judged.verdict, Verdict.WRONG]), note=note)
            formula = "with what autograd does not see"
            found.append(replace(_finding("gradient", name, None, formula, judged), place=str(loss.places[0]) if loss.places else ""))
        return found

    # What arrives

    def _deliver(self) -> None:
        """What each value's uses passed to it, in each pass, the seeds among them."""
        for number, seeds in enumerate(self.tape.seeds):
            arrived: dict[Edge, list[np.ndarray]] = {edge: [seed] for edge, seed in seeds.items()}
            for step in self.tape.steps:
                for edge, part in zip(step.edges, step.passed[number], strict=False):
                    if edge is not None and part is not None:
                        arrived.setdefault(edge, []).append(part)
            self.delivered.append(arrived)

    def _sums(self) -> list[Finding]:
        """At each value the parts of its uses are added up; told for leaves, and where it is wrong."""
        found = []
        for leaf in self.tape.leaves:
            finding = self._sum(leaf.name, leaf.edge, leaf.region, leaf.gradients[0])
            if finding.verdict.passes and leaf.edge[0] in self.blamed:
                note = f"inherited from {self.blamed[leaf.edge[0]]}"
                finding = replace(finding, verdict=Verdict.WRONG, exact=None, ulp=None, inherited=True, note=note)
            found.append(finding)
        for step in self.tape.steps:
            received = step.received[0] if step.received else ()
            for nr, region in step.outputs.items():
                value = received[nr] if nr < len(received) else None
                finding = self._sum(self.names[step.number, nr], (step.number, nr), region, value)
                if not finding.verdict.passes:
                    found.append(replace(finding, place=str(step.place)))
        return found

    def _sum(self, name: str, edge: Edge, region: Region, value: np.ndarray | None) -> Finding:
        parts = self.delivered[0].get(edge, [])
        formula = f"sum of {len(parts)} uses" if len(parts) != 1 else "what its one use passed on"
        dtype = _format(region.dtype)
        if dtype is None:
            return _told("gradient", name, Verdict.UNSUPPORTED, f"dtype {region.dtype}")
        if value is None:
            verdict = Verdict.WRONG if any(part.any() for part in parts) else Verdict.EXACT
            note = "no gradient (None)" + ("" if verdict is Verdict.WRONG else "; nothing was passed to it")
            return _told("gradient", name, verdict, note)
        if not value.size:
            return _told("gradient", name, Verdict.EXACT, "it has no entries")
        if not parts:
            parts = [np.zeros(region.shape)]
        if any(part.shape != value.shape for part in parts):
            shapes = " and ".join(str(part.shape) for part in parts)
            return _told("gradient", name, Verdict.WRONG, f"parts of shapes {shapes} for a value of shape {value.shape}")
        if not all(np.isfinite(part).all() for part in parts):
            return _told("gradient", name, Verdict.UNDECIDED, "a part is not finite already", inherited=True)
        exact = sum(balls(part) for part in parts)
        magnitude = sum(balls(np.abs(part)) for part in parts)
        slack = min(len(parts) - 1, 6 * len(parts) ** 0.5) * dtype.unit_roundoff
        judged = judge(Comparison(value, np.asarray(exact, object), np.asarray(exact + magnitude * arb(0, slack), object)), dtype)
        if judged.verdict is Verdict.WRONG and not judged.note:
            judged = replace(judged, note="what arrived is not what its uses passed on: a hook, or an addition that went wrong")
        return _finding("gradient", name, None, formula, judged)

    # One autograd node

    def _step(self, step: Step) -> list[Finding]:
        place = str(step.place) if step.place.file else ""
        title = f"{step.module}: {step.name}" if step.module else step.name
        if not step.received or (not step.received[0] and not step.outputs):
            return []
        try:
            work = _Work(step, self)
        except UnsupportedError as error:
            return [replace(_told("local", title, Verdict.UNSUPPORTED, str(error)), place=place)]
        found = [replace(finding, node=title, place=place) for finding in work.findings()]
        # From the outputs back, so that whoever reads this step's inputs is told already.
        wrong = {f.wrt for f in found if f.kind == "local" and f.verdict is Verdict.WRONG}
        for edge, name in work.inputs.items():
            if name in wrong or step.number in self.blamed:
                self.blamed.setdefault(edge[0], title if name in wrong else self.blamed[step.number])
        return found


def _guarded(part: Callable[[], list[Finding]]) -> list[Finding]:
    """A part of the check; where it breaks down, which is a fault of ours, that is said, and is no pass."""
    try:
        return part()
    except InputError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        why = f"gradproof itself failed: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno}); please report it"
        return [_told("local", "the function", Verdict.UNSUPPORTED, why)]


class _Work:
    """One autograd node: its operations as nodes in index notation, and what they say about its numbers."""

    def __init__(self, step: Step, check: _Check) -> None:
        self.step = step
        self.check = check
        regions = [*(r for r in step.inputs.values() if r is not None), *step.outputs.values()]
        regions += [region for event in step.events for region in (*event.regions, *event.outs) if region is not None]
        dtype = _dtype_of(regions)
        if dtype is None:
            raise UnsupportedError(f"{step.name} works in {', '.join(sorted({str(r.dtype) for r in regions}))}")
        self.dtype = dtype
        self.lowering = Lowering(step.name)
        self.inputs: dict[Edge, str] = {}
        for edge, region in step.inputs.items():
            if region is None:
                raise UnsupportedError(f"{step.name}: an input that the recording did not see")
            name = self.check.names.get(edge, f"node{edge[0]}")
            while name in self.lowering.leaves:
                name += "'"
            self.inputs[edge] = name
            self.lowering.enter(name, region, given=False)
        for event in step.events:
            if event.call is None:
                for region in event.regions:
                    if region.edge is None and region.floating:
                        # The same memory as an input's perhaps, but not the same value to autograd: a detached one.
                        nothing = Content(np.full(region.shape, -1, np.int32), np.zeros(region.shape, np.int64))
                        self.lowering.memory.know(region, nothing)
        if step.formula:
            self._said()
        else:
            self.lowering.run(step.events)
        self.outputs = {nr: self._output(nr, region) for nr, region in sorted(step.outputs.items())}
        self.enclosures = Enclosures(dtype)
        self.given = {name: np.asarray(balls(values), object) for name, values in self.lowering.numbers.items()}

    def _said(self) -> None:
        """The value by the user's formula."""
        step = self.step
        if sorted(step.outputs) != [0]:
            raise UnsupportedError(f"{step.name}: a formula tells one output, and it has {len(step.outputs)}")
        try:
            value = self.lowering.text(step.formula, step.arguments, step.outputs[0].shape)
        except InputError as error:
            raise InputError(f"formula of {step.name}: {error.message}", Place("formula")) from None
        self.lowering.write(step.outputs[0], value)

    def _output(self, nr: int, region: Region) -> str:
        """The output as a node of its own."""
        content = self.lowering.memory.read(region)
        if region.shape and not np.prod(region.shape):
            return self.lowering.constant(region.values)
        if (content.who < 0).any():
            made = {out.storage for event in self.step.events for out in event.outs if out is not None}
            fresh = any(event.name.startswith("lift") for event in self.step.events)
            changed = any(out.storage == region.storage for out, _ in self.check.tape.unseen)
            if region.storage not in made or fresh or changed:
                why = "the recording cannot see how its value is computed (outside of torch's operations)"
                raise UnsupportedError(f"{self.step.name}: {why}; say it with formula=")
        operand = self.lowering.operand(region)
        name = self.step.name if nr == min(self.step.outputs) else f"{self.step.name}[{nr}]"
        reads = (GraphRead(operand.node, operand.index),)
        return self.lowering.emit(slot(0), reads, region.shape, name=name, source=name)

    def findings(self) -> list[Finding]:
        found = [self._forward(nr, name) for nr, name in self.outputs.items()]
        found = [finding for finding in found if finding is not None]
        found += self._pass(0)
        found += self._again()
        return found

    def _forward(self, nr: int, name: str) -> Finding | None:
        region = self.step.outputs[nr]
        dtype = _format(region.dtype)
        if dtype is None or not region.values.size:
            return None
        nodes = self.lowering.nodes
        rounded = evaluate(nodes, self.given, self.enclosures.rounding)[name]
        exact = self.enclosures.settled(lambda: evaluate(nodes, self.given, self.enclosures.exact)[name], rounded)
        judged = judge(Comparison(region.values, exact, rounded), dtype)
        if judged.verdict is Verdict.UNDECIDED and dtype.precision < FUSED.precision:
            # Operation by operation in 16 bits anything may come out; what a kernel gives is explained all the same.
            for held in self._kernels(dtype):
                narrow = _once(evaluate(nodes, self.given, held.rounding)[name], dtype)
                judged = _better(judged, judge(Comparison(region.values, exact, narrow), dtype))
        return _finding("forward", self.step.name, None, self._source(), judged)

    @staticmethod
    def _kernels(dtype: DType) -> tuple[Enclosures, Enclosures]:
        """How kernels for 16 bits compute: their sums in float32, or all of it in float32, and then round once."""
        return Enclosures(dtype, FUSED), Enclosures(FUSED)

    def _source(self) -> str:
        names = set(self.outputs.values())
        sources = [node.source for node in self.lowering.nodes if node.source and node.name not in names]
        return sources[-1] if sources else "a view"

    def _pass(self, number: int) -> list[Finding]:
        """The cotangents of one pass: what it received, and what it passed on."""
        step = self.step
        received = step.received[number]
        passed = step.passed[number]
        totals: dict[Edge, np.ndarray | str | None] = {}
        for edge, part in zip(step.edges, passed or (None,) * len(step.edges), strict=False):
            if edge is None:
                continue
            before = totals.get(edge)
            if part is None:
                totals.setdefault(edge, None)
            elif before is None:
                totals[edge] = part
            elif isinstance(before, np.ndarray) and before.shape == part.shape:
                totals[edge] = before + part
        rows: dict[str, Balls] = {}
        for nr, name in self.outputs.items():
            cotangent = received[nr] if nr < len(received) else None
            shape = step.outputs[nr].shape
            if cotangent is None:
                cotangent = np.zeros(shape)
            if not np.isfinite(cotangent).all():
                note = "the cotangent that it received is not finite already"
                return [_told("local", step.name, Verdict.UNDECIDED, note, inherited=True)]
            if cotangent.shape != shape:
                note = f"received a cotangent of shape {cotangent.shape} for a value of shape {shape}"
                return [_told("local", step.name, Verdict.UNDECIDED, note, inherited=True)]
            rows[name] = np.asarray(balls(cotangent), object)[None]
        if not rows or not self.inputs:
            return []
        targets: dict[str, Shape] = {self.inputs[edge]: region.shape for edge, region in step.inputs.items() if region is not None}
        run = Run(tuple(self.lowering.nodes), tuple(rows), targets, frozenset(self.lowering.active))
        pulled = self.enclosures.pulled(run, self.given, rows)
        narrow: list[dict[str, Pulled]] = []
        found = []
        for edge, name in self.inputs.items():
            expected = pulled[name].row(0)
            region = step.inputs[edge]
            assert region is not None
            dtype = _format(region.dtype)
            if dtype is None:
                found.append(_told("local", step.name, Verdict.UNSUPPORTED, f"dtype {region.dtype}"))
                continue
            value = totals.get(edge)
            if not region.values.size:
                continue
            if value is None:
                judged = self._absent(region.shape, expected.exact)
            elif np.shape(value) != region.shape:
                judged = missing(region.shape, expected.exact, f"shape {np.shape(value)}, expected {region.shape}")
            else:
                judged = judge(Comparison(np.asarray(value), expected.exact, expected.rounding, expected.kinks), dtype)
                if judged.verdict is Verdict.UNDECIDED and dtype.precision < FUSED.precision:
                    narrow = narrow or [held.pulled(run, self.given, rows) for held in self._kernels(dtype)]
                    for inner in (each[name].row(0) for each in narrow):
                        again = Comparison(np.asarray(value), inner.exact, _once(inner.rounding, dtype), inner.kinks)
                        judged = _better(judged, judge(again, dtype))
            looks = ""
            if judged.verdict is Verdict.WRONG and isinstance(value, np.ndarray):
                looks = likeness(value, expected.exact, self._clues(edge, name, rows, dtype))
            text = self._local_text(name) if not judged.verdict.passes else ""
            note = "; ".join(part for part in (judged.note, looks) if part)
            found.append(_finding("local", step.name, name, text, replace(judged, note=note)))
        return found

    def _clues(self, edge: Edge, name: str, rows: Mapping[str, Balls], dtype: DType) -> Clues:
        """What would have come out if a known mistake had been made: tried only where something is wrong."""
        region = self.step.inputs[edge]
        assert region is not None
        nodes = tuple(self.lowering.nodes)
        outputs = [self.step.outputs[nr] for nr in self.outputs]
        shapes = [region.shape, *(out.shape for out in outputs)]
        extents = tuple({n for shape in shapes for n in (*shape, size(shape))})
        tried: list[tuple[str, np.ndarray]] = []

        def pulled(nodes: Sequence[Node], given: Values, rows: Mapping[str, Balls], wrt: str = name) -> np.ndarray:
            active = frozenset({*self.lowering.active, wrt})
            run = Run(tuple(nodes), tuple(rows), {wrt: region.shape}, active)
            return centres(run.pull(given, self.enclosures.exact, rows)[0]).reshape(region.shape)

        # One use alone, and all uses but one.
        uses = [(n, k) for n, node in enumerate(nodes) for k, read in enumerate(node.reads) if read.parent == name]
        if 1 < len(uses) <= MAX_USES:
            for n, k in uses:
                reads = tuple(replace(read, parent="another") if j == k else read for j, read in enumerate(nodes[n].reads))
                parted = [replace(node, reads=reads) if m == n else node for m, node in enumerate(nodes)]
                given = {**self.given, "another": self.given[name]}
                where = f"that in {nodes[n].source}" if nodes[n].source else f"use {n}"
                one, rest = pulled(parted, given, rows, "another"), pulled(parted, given, rows)
                tried.append((f"one of {len(uses)} uses is lost, or overwritten: {where}", rest))
                tried.append((f"of {len(uses)} uses only one arrived, the others are lost or overwritten: {where}", one))
        for output, row in rows.items():
            cotangent = centres(row[0])
            if cotangent.shape == region.shape:
                tried.append(("it is the cotangent itself, passed on unchanged", cotangent))
                value = self.step.outputs[next(nr for nr, o in self.outputs.items() if o == output)].values
                with np.errstate(all="ignore"):
                    tried.append(("it is the forward value times the cotangent", value * cotangent))
            tried.append(("the cotangent that it received is ignored", pulled(nodes, self.given, {output: full(row.shape, UNIT)})))
            for axis, extent in enumerate(cotangent.shape):
                for place, words in ((0, "first"), (extent - 1, "last")) if extent > 1 else ():
                    part = np.zeros_like(cotangent)
                    at = tuple(place if n == axis else slice(None) for n in range(cotangent.ndim))
                    part[at] = cotangent[at]
                    one = pulled(nodes, self.given, {**rows, output: np.asarray(balls(part), object)[None]})
                    tried.append((f"only the {words} entry along axis {axis} of the cotangent counts: a sum is missing", one))
        for later, values in self._later(region):
            given = {**self.given, name: np.asarray(balls(values), object)}
            tried.append((f"it is the gradient at the numbers that {name} has after {later}: changed in place", pulled(nodes, given, rows)))
        return Clues(dtype, extents, tuple(tried))

    def _later(self, region: Region) -> list[tuple[str, np.ndarray]]:
        """Other numbers that the same memory held later on."""
        found = []
        for event in self.check.tape.events:
            for seen in (*event.regions, *event.outs):
                if seen is not None and seen.key == region.key and not np.array_equal(seen.values, region.values):
                    found.append((f"{event.name} at {event.place}", seen.values))
        return found[-2:]

    def _absent(self, shape: Shape, expected: Balls) -> Judgement:
        judged = missing(shape, numbers(expected), "passed None, though the derivative is not zero")
        if judged.exact == 0:
            return replace(judged, verdict=Verdict.EXACT, note="", refuted=0)
        return judged

    def _local_text(self, name: str) -> str:
        """The derivative in index notation."""
        try:
            leaves = tuple(self.lowering.leaves.values())
            output = self.outputs[min(self.outputs)]
            nodes = self.lowering.nodes
            last = next(n for n, node in enumerate(nodes) if node.name == output)
            derivation = derive(Graph(leaves, tuple(nodes[: last + 1])))
            return derivation.local_text(derivation.graph.output.name, name)
        except (GradproofError, RecursionError):
            return ""

    def _again(self) -> list[Finding]:
        """The second pass must repeat the first; the third, of -2 times the cotangent, be -2 times as much, or pass itself."""
        step = self.step
        if len(step.received) < 3:
            return []
        found = []
        if _same(step.received[0], step.received[1], 1) and not _same(step.passed[0], step.passed[1], 1):
            note = "the backward is not deterministic: run again on the same cotangent it passed other numbers"
            found.append(_told("local", step.name, Verdict.FAILED, note))
        if not (_same(step.received[0], step.received[2], -2) and _same(step.passed[0], step.passed[2], -2)):
            for finding in self._pass(2):
                if not finding.verdict.passes:
                    note = "; ".join(part for part in (finding.note, "for a cotangent of -2 times as much, two entries apart") if part)
                    found.append(replace(finding, note=note))
        return found


FUSED = DTYPES["float32"]  # what kernels for 16 bits compute in, from end to end, before they round once


def _once(array: Balls, dtype: DType) -> Balls:
    """Rounded once more, to the format of the result."""
    return np.asarray(rounding(dtype).multiply(array, UNIT), object)


def _better(wide: Judgement, narrow: Judgement) -> Judgement:
    return narrow if narrow.verdict.passes else wide


def _same(a: Sequence[np.ndarray | None], b: Sequence[np.ndarray | None], factor: float) -> bool:
    if len(a) != len(b):
        return False
    return all(
        (x is None) == (y is None) and (x is None or y is None or np.array_equal(factor * x, y, equal_nan=True))
        for x, y in zip(a, b, strict=True)
    )


def _told(kind: str, node: str, verdict: Verdict, note: str, *, inherited: bool = False) -> Finding:
    return Finding(kind, node, None, "", None, None, None, None, (), verdict, note, inherited=inherited)


def _finding(kind: str, node: str, wrt: str | None, formula: str, judged: Judgement) -> Finding:
    return Finding(
        kind, node, wrt, formula, judged.exact, judged.value, judged.ulp, judged.allowed_ulp, judged.index,
        judged.verdict, judged.note, judged.error, judged.sensitivity, judged.entries, judged.refuted, judged.cancelled,
    )  # fmt: skip

