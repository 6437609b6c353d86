"""Every equation of a JAX function checked against calculus at JAX's own numbers: the report of `steps`, for
JAX."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ..dtypes import XLA, DType
from ..errors import InputError, UnsupportedError, shown
from ..judging.judge import Comparison, judge
from ..proof.arithmetic import UNIT, Balls, balls, centres, numbers, precision, rounding
from ..proof.enclosure import START_BITS, Cotangents, Enclosures, Pulled, Run
from ..proof.graph import Read, Shape, size, slot
from ..proof.walk import Values
from ..report import Report
from ..torch.check import MAX_WHOLE, TapeCheck
from ..torch.lowered import given_of
from ..torch.node import NodeCheck, dtype_of, format_of
from ..torch.recording import Edge, Step, Tape
from ..torch.stops import MAX_DOMAIN
from ..verdict import Finding, Judgement, Verdict, as_finding, bare_finding
from .lowering import EquationLowering
from .recording import STOP, EquationStep, Recording, flattened, is_double, record

NEAR = 1024  # unit roundoffs: what compiled code may differ by before it is judged


def check_function(
    func: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    stops: str = "judge",
    title: str = "",
) -> Report:
    """Check the gradients of a JAX function at these arguments, equation by equation.

    `func` takes arrays or pytrees and returns an array, or a pytree of them. Its floating-point leaves are
    differentiated, of the arguments that `argnums` names or of all; everything else among the arguments stays
    as it is. Each `custom_vjp` and `custom_jvp` call is one node: its rule is judged against the calculus of
    its primal. The verdict is in the dtype that the function runs in; for float64 arguments JAX's 64 bits are
    switched on meanwhile.

    `stops="trust"` takes every `stop_gradient` as meant; otherwise one that loses part of the gradient is
    wrong.

    What goes wrong in the function, and what is not covered, are findings. Raises `InputError` for bad
    options.
    """
    if stops not in ("judge", "trust"):
        raise InputError(f"stops={stops!r}: expected 'judge' or 'trust'")
    asked = (argnums,) if isinstance(argnums, int) else argnums
    if asked is not None and not all(-len(args) <= n < len(args) for n in asked):
        raise InputError(f"argnums={argnums!r}: the function is given {len(args)} arguments")
    start = time.perf_counter()
    name = title or _name_of(func)
    double = any(map(is_double, jax.tree_util.tree_leaves(args)))
    with jax.enable_x64(True) if double else nullcontext():
        recording = record(flattened(func, args, asked))
        findings = _FunctionCheck(recording, stops).findings()
    dtype = dtype_of([leaf.region for leaf in recording.tape.leaves], XLA)
    seconds = time.perf_counter() - start
    return Report(name, name, "jax", dtype.name if dtype else "none", tuple(findings), seconds)


def _name_of(func: Any) -> str:
    name = getattr(func, "__name__", None) or type(func).__name__
    code = getattr(func, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"lambda at {shown(code.co_filename)}:{code.co_firstlineno}"
    return name


class EquationCheck(NodeCheck):
    """One equation, or one custom call: what it computes as nodes in index notation, and what they say about
    its numbers."""

    formats = XLA

    def __init__(self, step: Step, names: Mapping[Edge, str], tape: Tape) -> None:
        self.step, self.tape = step, tape
        inputs = {edge: region for edge, region in step.inputs.items() if region is not None}
        inside: list[Any] = list(step.events)
        for equation in inside:
            inside += equation.body
        dtype = dtype_of(
            [*inputs.values(), *step.outputs.values(), *(out for e in inside for out in e.outs)], XLA
        )
        if dtype is None:
            raise UnsupportedError(
                f"{step.name} works in {', '.join(sorted({str(r.dtype) for r in inputs.values()}))}"
            )
        self.dtype = dtype
        lowering = EquationLowering(step.name)
        self.lowering = lowering
        self.inputs: dict[Edge, str] = {}
        for edge, region in inputs.items():
            name = names.get(edge, f"node{edge[0]}")
            while name in lowering.leaves:
                name += "'"
            self.inputs[edge] = name
            lowering.enter(name, region, given=False)
        equations: Any = step.events
        lowering.equations(equations)
        self.outputs = {nr: self._output(nr, region) for nr, region in sorted(step.outputs.items())}
        self.enclosures = Enclosures(dtype)
        self.given = given_of(lowering)
        self.astray = {}


@dataclass(frozen=True, eq=False)
class _Whole:
    """The whole run from its leaves, as nodes; `stops` are those that `stop_gradient` gave, by the step's
    number."""

    lowering: EquationLowering
    rows: dict[str, Balls]
    stops: dict[int, str]
    given: dict[str, Balls]
    targets: dict[str, Shape]

    def run(self, *, cut: bool, also: Mapping[str, Shape] | None = None) -> Run:
        """With `cut`, nothing passes a stop."""
        stopped = frozenset(self.stops.values()) if cut else frozenset()
        wanted = frozenset(self.lowering.active) - stopped
        return Run(tuple(self.lowering.nodes), tuple(self.rows), {**self.targets, **(also or {})}, wanted)


@dataclass(frozen=True, eq=False)
class _Loss:
    """What does not pass one `stop_gradient`, as it matters: the leaves that miss it, by number; a reason,
    where unknown."""

    cotangent: Pulled | None
    leaves: tuple[int, ...] = ()
    unknown: str = ""


class _FunctionCheck(TapeCheck):
    """One check: the findings of one recorded run."""

    formats = XLA

    def __init__(self, recording: Recording, stops: str) -> None:
        super().__init__(recording.tape, stops)
        self.recording = recording

    def findings(self) -> list[Finding]:
        if not self.tape.trouble and not self.tape.leaves:
            note = "no argument holds floating-point numbers, so there is nothing to differentiate"
            return [bare_finding("gradient", "the function", Verdict.UNDECIDED, note)]
        if not self.tape.trouble and not any(region.edge is not None for region in self.tape.outputs):
            note = "no output in floating point depends on the arguments that are differentiated"
            return [bare_finding("gradient", "the function", Verdict.UNDECIDED, note)]
        found = super().findings()
        if not self.tape.trouble and all(finding.verdict.passes for finding in found):
            with precision(START_BITS):
                found += self._compiled()
        return found

    def _ran(self) -> Sequence[Any]:
        return self.recording.equations

    # One equation

    def _step(self, step: Step) -> list[Finding]:
        assert isinstance(step, EquationStep)
        place = str(step.place) if step.place.file else ""
        if not step.received:
            return []
        found = [replace(finding, place=place) for finding in self._judged(step, step.name)]
        self._blame(step, step.name, found)
        return found

    def _judged(self, step: EquationStep, title: str) -> list[Finding]:
        if step.failure:
            return [bare_finding("local", title, Verdict.FAILED, step.failure)]
        if step.unsupported:
            return [bare_finding("local", title, Verdict.UNSUPPORTED, step.unsupported)]
        if step.primitive == STOP:
            return self._stop(step, title)
        try:
            return EquationCheck(step, self.names, self.tape).findings()
        except UnsupportedError as error:
            return [bare_finding("local", title, Verdict.UNSUPPORTED, str(error))]

    def _blame(self, step: EquationStep, title: str, found: Sequence[Finding]) -> None:
        """From the outputs back, so that whoever reads this step's inputs is told already."""
        wrong = {f.wrt for f in found if f.kind == "local" and f.verdict is Verdict.WRONG}
        for edge in step.inputs:
            if self.names[edge] in wrong or step.number in self.blamed:
                self.blamed.setdefault(
                    edge[0], title if self.names[edge] in wrong else self.blamed[step.number]
                )

    def _sums(self) -> list[Finding]:
        """Where the run broke down there are no gradients to add up."""
        steps: Any = self.tape.steps
        broken = next((step for step in steps if step.failure or step.unsupported), None)
        if broken is None:
            return super()._sums()
        verdict = Verdict.UNDECIDED if broken.failure else Verdict.UNSUPPORTED
        note = f"nothing arrived, because of {broken.name}"
        return [
            bare_finding("gradient", leaf.name, verdict, note, inherited=True) for leaf in self.tape.leaves
        ]

    # stop_gradient

    def _losses(self) -> list[Finding]:
        return []  # told at each stop

    def _stop(self, step: EquationStep, title: str) -> list[Finding]:
        if self.stops == "trust":
            return []
        (edge,) = step.inputs
        loss = self._lost.get(step.number, _Loss(None, unknown="it was not followed"))
        if loss.unknown:
            note = f"whether this stop loses part of the gradient is not known: {loss.unknown}"
            return [bare_finding("local", title, Verdict.UNDECIDED, note)]
        assert loss.cotangent is not None
        zeros = np.zeros(step.outputs[0].shape)
        dtype = format_of(step.outputs[0].dtype, XLA)
        assert dtype is not None
        judged = judge(Comparison(zeros, loss.cotangent.exact, loss.cotangent.rounding), dtype)
        names = [self.names[number, 0] for number in loss.leaves]
        if not names:
            judged = replace(
                judged, verdict=Verdict.EXACT, note="nothing is lost here", refuted=0, exact=0.0, ulp=0.0
            )
            return [as_finding("local", title, self.names[edge], "", judged)]
        note = f"part of the gradient by {', '.join(names)} is lost here: stop_gradient stops JAX, not the function"
        for number in loss.leaves:
            self.blamed.setdefault(number, title)
        judged = replace(judged, verdict=Verdict.WRONG, note=note)
        return [as_finding("local", title, self.names[edge], "", judged)]

    @cached_property
    def _stops(self) -> list[EquationStep]:
        return [step for step in self.tape.steps if isinstance(step, EquationStep) and step.primitive == STOP]

    @cached_property
    def _run(self) -> _Whole:
        """Raises `UnsupportedError` where it is not covered, or too large."""
        lowering = EquationLowering("whole")
        for leaf in self.tape.leaves:
            lowering.enter(leaf.name, leaf.region, given=False)
        lowering.equations(self.recording.equations)
        rows: dict[str, Balls] = {}
        seen: set[Edge] = set()
        for region in self.tape.outputs:
            if region.edge is not None and region.edge in self.tape.seeds[0] and region.edge not in seen:
                seen.add(region.edge)
                operand = lowering.operand(region)
                name = lowering.emit(slot(0), (Read(operand.node, operand.index),), region.shape)
                rows[name] = balls(self.tape.seeds[0][region.edge])[None]
        if sum(size(node.domain) for node in lowering.nodes) > MAX_DOMAIN or not rows:
            raise UnsupportedError("the whole run is too large")
        stops = {
            step.number: lowering.stops[id(step.events[0])]
            for step in self._stops
            if id(step.events[0]) in lowering.stops
        }
        given = given_of(lowering)
        targets = {leaf.name: leaf.region.shape for leaf in self.tape.leaves}
        return _Whole(lowering, rows, stops, given, targets)

    @cached_property
    def _lost(self) -> dict[int, _Loss]:
        """For each stop, the cotangent that would have passed it, by the exact calculus of the whole run from
        its leaves."""
        stops = [step for step in self._stops if step.received]
        dtype = dtype_of([leaf.region for leaf in self.tape.leaves], XLA)
        try:
            whole = self._run
        except UnsupportedError as error:
            return {step.number: _Loss(None, unknown=str(error)) for step in stops}
        assert dtype is not None
        enclosures = Enclosures(dtype)
        shapes = {whole.stops[step.number]: step.outputs[0].shape for step in stops}
        full = whole.run(cut=False, also=shapes)
        exact = full.split(full.pull(whole.given, enclosures.exact, whole.rows)[0])
        cut = whole.run(cut=True)
        kept = cut.split(cut.pull(whole.given, enclosures.exact, whole.rows)[0])
        lossy = {
            leaf.edge[0]
            for leaf in self.tape.leaves
            if _differ(exact[leaf.name], kept[leaf.name], leaf.region.dtype)
        }
        found = {}
        for step in stops:
            name = whole.stops[step.number]
            cotangent = exact[name]
            kinks = np.zeros(cotangent.shape, bool)
            pulled = Pulled(cotangent, enclosures.rounding.multiply(cotangent, UNIT), kinks)
            found[step.number] = _Loss(pulled, self._missing(whole, name, cotangent, lossy, enclosures))
        return found

    def _missing(
        self, whole: _Whole, name: str, cotangent: Balls, lossy: set[int], enclosures: Enclosures
    ) -> tuple[int, ...]:
        """The leaves that would have got something through this stop."""
        if not lossy or not _some(cotangent):
            return ()
        run = replace(whole.run(cut=False), outputs=(name,))
        parts = run.split(run.pull(whole.given, enclosures.exact, {name: cotangent[None]})[0])
        return tuple(
            leaf.edge[0] for leaf in self.tape.leaves if leaf.edge[0] in lossy and _some(parts[leaf.name])
        )

    # The function as a whole

    def _from_the_leaves(self, gradients: Sequence[np.ndarray | None]) -> dict[str, Judgement]:
        """Gradients of all leaves judged by the calculus of the whole run; nothing where it is too large or
        not covered."""
        dtype: DType | None = dtype_of([leaf.region for leaf in self.tape.leaves], XLA)
        try:
            whole = self._run
        except UnsupportedError:
            return {}
        if dtype is None or sum(size(node.domain) for node in whole.lowering.nodes) > MAX_WHOLE:
            return {}
        run = whole.run(cut=self.stops == "trust")
        pulled = Enclosures(dtype).pulled(run, whole.given, whole.rows)
        return self._judged_leaves(pulled, gradients)

    def _all(self) -> tuple[Run, Values, Cotangents]:
        return self._run.run(cut=self.stops == "trust"), self._run.given, self._run.rows

    def _whole(self) -> dict[str, Judgement]:
        return self._from_the_leaves([leaf.gradients[0] for leaf in self.tape.leaves])

    def _compiled(self) -> list[Finding]:
        """The gradients of the function compiled as a whole, where XLA fuses: judged where they are not those
        found here."""
        pairs = [
            (leaf, gradient, leaf.gradients[0])
            for leaf, gradient in zip(self.tape.leaves, self.recording.compiled, strict=True)
            if gradient is not None
            and not _near(gradient, leaf.gradients[0], format_of(leaf.region.dtype, XLA))
        ]
        if not pairs:
            return []
        judged = self._from_the_leaves(self.recording.compiled)
        found = []
        for leaf, gradient, apart in pairs:
            whole = judged.get(leaf.name)
            if whole is not None and whole.verdict.passes:
                continue
            off = f"{_distance(gradient, apart):.2g} relative"
            told = f"compiled as a whole it is off by {off}, equation by equation it is right"
            if whole is None:
                found.append(bare_finding("gradient", leaf.name, Verdict.UNDECIDED, told))
                continue
            whole = replace(whole, note="; ".join(part for part in (whole.note, told) if part))
            found.append(as_finding("gradient", leaf.name, None, "the whole function, compiled", whole))
        return found


def _some(array: Balls) -> bool:
    """Whether any entry is proved not to be 0, or is no number."""
    return any(not x.contains(0) for x in numbers(array.reshape(-1)))


def _differ(exact: Balls, kept: Balls, dtype: Any) -> bool:
    """Whether what is kept back is more than one rounding of the gradient."""
    if not exact.size or not _some(np.asarray(exact - kept, object)):
        return False
    own = format_of(dtype, XLA)
    if own is None:
        return True
    once = np.asarray(rounding(own).multiply(exact, UNIT), object)
    return not judge(Comparison(centres(kept), exact, once), own).verdict.passes


def _near(value: np.ndarray, other: Any, dtype: DType | None) -> bool:
    """Whether two arrays differ by what rounding in another order makes, at the scale of their largest
    entries."""
    if np.array_equal(value, other, equal_nan=True):
        return True
    return dtype is not None and _distance(value, other) <= NEAR * dtype.unit_roundoff


def _distance(value: np.ndarray, other: Any) -> float:
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(value - other)) / max(float(np.max(np.abs(other))), 1e-300))
