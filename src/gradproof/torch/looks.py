"""The looks that a check takes at a torch function: one for each way of taking a derivative.

Each records a run, makes a witness of it, and gives what the one judge found. What autograd does not see at
all is looked for as well: a `detach`, `.data` or `no_grad` that loses part of the gradient; and the function
runs once more as its users run it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..causes import (
    Cause,
    Contradicted,
    CutOff,
    LostAtStop,
    NotFollowed,
    Raised,
    SmoothAnyway,
    StoppedForward,
    Uncovered,
)
from ..dtypes import ANY_SUM, DTYPES, DType
from ..errors import InputError, Place, UnsupportedError, said
from ..judging.judge import Judge, Judged
from ..judging.whole import tight
from ..judging.witness import Witness
from ..language.syntax import parse_statements
from ..verdict import Finding, Judgement, Verdict, bare_finding
from .contract import Function, clauses_of
from .forward import WHOLE, Moving, judged_tangents
from .forward import witness_of as tangents_of
from .gradients import Gradient
from .insides import has_jvp
from .names import arguments_of
from .net import Net, contradictions, lasting, plain_findings, smooth_anyway
from .recording import record, region_of, stopped
from .state import State, eager
from .tape import NOWHERE, Step, Tape
from .trail import followed
from .witness import witness_of

REVERSE, FORWARD, SECOND, THIRD = KINDS = (
    "reverse mode, first order",
    "forward mode",
    "double backward",
    "third order",
)
MODES = {"reverse": (REVERSE,), "forward": (FORWARD,), "both": (REVERSE, FORWARD)}
ORDERS = {1: (), 2: (SECOND,), 3: (SECOND, THIRD)}


NOTHING = Judged((), {}, {})
UNTRIED = "The contract is not tried where the derivatives are not right."


@dataclass(frozen=True, eq=False)
class Asked:
    """What is checked, and how: see `check_function`."""

    func: Callable[..., Any]
    inputs: list[Any]
    state: State
    passes: int
    trusted: bool
    net: bool
    formats: Mapping[str, DType]
    formula: str | None
    name: str
    declared: Mapping[str, str] = field(default_factory=dict)
    meant: tuple[str, ...] = ()  # the places of stops that are


@dataclass(frozen=True, eq=False)
class Looked:
    """What came of one kind of derivative."""

    exercised: tuple[str, ...]
    findings: list[Finding]
    dtype: DType | None = None
    judged: Judged = NOTHING
    remarks: tuple[str, ...] = ()
    traceback: str = ""


def looks_for(mode: str, order: int) -> list[Callable[[Asked], Looked]]:
    of: dict[str, Callable[[Asked], Looked]] = {
        REVERSE: _in_reverse,
        FORWARD: _forward,
        SECOND: partial(_of_order, 2),
        THIRD: partial(_of_order, 3),
    }
    if mode == "forward":
        of[FORWARD] = partial(_forward, alone=True)
    return [of[kind] for kind in (*MODES[mode], *ORDERS[order])]


def transposes(looks: Sequence[Looked]) -> Iterator[str]:
    """Both modes beside one calculus are transposes of each other, but at a kink, where each may choose."""
    found = [f for look in looks[:2] for f in look.findings]
    kinds = {kind for look in looks for kind in look.exercised}
    if not kinds >= {REVERSE, FORWARD} or not passing(found):
        return
    if any(finding.verdict is Verdict.KINK for finding in found):
        yield "Forward and reverse were not compared as transposes: at a kink each may choose another slope."
    else:
        yield "Forward and reverse are transposes: both are the calculus's, up to rounding."


def _in_reverse(asked: Asked) -> Looked:
    """The backward, node by node; what is not seen; and the function as its users run it."""
    func, given, state, trusted = asked.func, asked.inputs, asked.state, asked.trusted
    ran = _recorded(func, given, asked.passes, None if trusted else state)
    tape = ran if asked.formula is None else _as_one(ran, asked.name, asked.formula, func, given)
    told = _declare(tape, asked)
    meant = bool(told or asked.meant)
    judged, judge, dtype = judged_tape(tape, trusting=trusted, formats=asked.formats, meant=asked.meant)
    found = [*judged.findings, *_of_inner_ones(tape, asked.formats)]
    beside = Net([])
    if asked.net and tape.leaves and passing(found):
        whole = partial(by_the_whole, judge, tape)
        beside = _unrecorded(func, given, ran, state, whole, spread=not (trusted or meant))
    elif (
        asked.net
        and tape.leaves
        and not (trusted or meant)
        and passing([f for f in found if not _is_lost_sight_of(f)])
    ):
        found = _measured(found, contradictions(func, given, ran, state).findings)
    refuted = any(finding.verdict in (Verdict.WRONG, Verdict.FAILED) for finding in found)
    if asked.net and not (trusted or meant or refuted or passing(found)):
        found = _smooth(found, smooth_anyway(func, given, ran, state))
    remarks = (*told, *_remarks(tape, beside.left_out))
    return Looked((REVERSE,), [*found, *beside.findings], dtype, judged, remarks, tape.traceback)


def _declare(tape: Tape, asked: Asked) -> tuple[str, ...]:
    """Say on the tape which gradients are meant to be another's; in sentences which are."""
    for step in tape.steps:
        step.declared = asked.declared.get(step.kind, "")
    found = {step.kind: step.declared for step in tape.steps if step.declared}
    return tuple(f"Declared: the gradient of {kind} is that of {text}." for kind, text in found.items())


def _forward(asked: Asked, *, alone: bool = False) -> Looked:
    """The tangents, node by node; and where all of them are right, that of the whole function, which misses
    what autograd stops at. Where no backward tells, `alone`, what is lost is looked for."""
    tape = _moved_forward(asked.func, asked.inputs)
    asked.state.restore()
    _declare(tape, asked)
    witness = tangents_of(tape, trusting=asked.trusted, guard=our_fault, formats=asked.formats)
    found, judged = of_tangents(witness)
    if alone and not asked.trusted and passing(found):
        found += _lost_on_the_way(asked)
    return Looked((FORWARD,), found, witness.dtype, judged, _remarks(tape, ""), tape.traceback)


def _lost_on_the_way(asked: Asked) -> list[Finding]:
    """What leaves torch, and what a stop keeps back, as a backward shows it."""
    tape = _recorded(asked.func, asked.inputs, 1, asked.state)
    asked.state.restore()
    judged, _, _ = judged_tape(tape, trusting=False, formats=asked.formats, meant=asked.meant)
    lost = (LostAtStop, NotFollowed)
    return [f for f in judged.findings if any(isinstance(cause, lost) for cause in f.causes)]


def of_tangents(witness: Witness) -> tuple[list[Finding], Judged]:
    judged = Judge(witness, guard=our_fault).judged()
    whole = [f for f in judged.findings if f.node == WHOLE and f.kind == "tangent"]
    found = [f for f in judged.findings if f not in whole]
    if not found:
        found = whole  # without a node: what it gives is what it was given
    elif passing(found):
        wrong = [f for f in whole if f.verdict is Verdict.WRONG]
        found += [replace(f, causes=(*f.causes, StoppedForward())) for f in wrong]
    return found, judged


def _moved_forward(func: Callable[..., Any], inputs: list[Any]) -> Tape:
    """The tape of a run whose leaves have tangents."""
    with eager(), torch.enable_grad():
        try:
            return record(func, inputs, 0, Moving)
        except Exception as error:
            return stopped(words_of_our_fault(error))


def _of_order(order: int, asked: Asked) -> Looked:
    """The backward, as a function of its own: by the cotangents and by what it read."""
    kind = KINDS[order]
    try:
        for _ in range(order - 1):
            gradient = Gradient(asked.func, asked.inputs)
            asked = replace(asked, func=gradient, inputs=[*gradient.cotangents, *asked.inputs])
    except Exception as error:
        raised = bare_finding("gradient", f"{kind}: the function", Verdict.FAILED, Raised(said(error)))
        return Looked((kind,), [raised])
    asked.state.restore()
    found = _in_reverse(asked)
    cut = [bare_finding("gradient", name, Verdict.WRONG, CutOff()) for name in gradient.cut]
    findings = [*found.findings, *cut]
    return replace(found, exercised=(kind,), findings=[at_order(finding, kind) for finding in findings])


def contract_of(asked: Asked, clauses: Sequence[str]) -> Looked:
    """What the backward promises, where the gradients at the point are right."""
    function, found = _function(asked, asked.inputs)
    if function is None or not passing(found):
        return Looked((), [], remarks=(UNTRIED,))
    found, exercised = clauses_of(function, clauses)
    told = tuple(f"Contract, not tried: {name} ({why})." for name, why in function.left_out.items())
    return Looked(tuple(exercised), found, remarks=told)


def _function(asked: Asked, inputs: list[Any]) -> tuple[Function | None, list[Finding]]:
    """The function at a point, judged; None where it has no gradients."""
    ran = _recorded(asked.func, inputs, 1, None if asked.trusted else asked.state)
    _declare(ran, asked)
    judged, judge, _ = judged_tape(ran, trusting=asked.trusted, formats=asked.formats, meant=asked.meant)

    def other(func: Callable[..., Any], inputs: list[Any]) -> list[Finding]:
        return _in_reverse(replace(asked, func=func, inputs=inputs, passes=1, net=False)).findings

    def tangents(numbers: Sequence[np.ndarray], moved: Mapping[str, np.ndarray]) -> list[Judgement]:
        tape = _moved_forward(asked.func, inputs)
        asked.state.restore()
        return judged_tangents(tape, numbers, moved, asked.formats)

    def at(inputs: list[Any]) -> Function:
        function, _ = _function(asked, inputs)
        if function is None:
            raise UnsupportedError("the function has no gradients there")
        return function

    leaves = {leaf.name: ran.tensors[leaf.edge[0]] for leaf in lasting(ran)}
    whole = partial(by_the_whole, judge, ran)
    function = Function(asked.func, inputs, asked.state, ran, leaves, whole, other, tangents, at)
    return function if leaves else None, list(judged.findings)


def at_order(finding: Finding, kind: str) -> Finding:
    return replace(finding, node=f"{kind}: {finding.node}")


ACCUMULATE: Mapping[str, Mapping[str, DType]] = {"float32": DTYPES, "any": ANY_SUM}
MANY = 20  # calls under transforms that are judged


def _of_inner_ones(tape: Tape, formats: Mapping[str, DType]) -> list[Finding]:
    """What is found of custom Functions that a transform of torch.func differentiates: each at the numbers of
    its first call from a line."""
    found: list[Finding] = []
    calls = {(inner.name, inner.place): inner for inner in reversed(tape.transformed)}
    for inner in [*calls.values()][:MANY]:
        with torch.enable_grad():
            own = _recorded(inner.apply, inner.given, 3, None)
        judged, _, _ = judged_tape(own, trusting=False, formats=formats)
        every = list(judged.findings)
        if has_jvp(inner.apply):
            moved = _moved_forward(inner.apply, list(inner.given))
            every += of_tangents(tangents_of(moved, trusting=True, guard=our_fault, formats=formats))[0]
        name = f"{inner.name}, under a transform"
        for finding in (f for f in every if f.kind != "gradient"):
            node = name if finding.node.startswith(inner.name) else f"{name}: {finding.node}"
            found.append(replace(finding, node=node, place=str(inner.place)))
    if len(calls) > MANY:
        why = Uncovered(f"{len(calls) - MANY} more calls of custom Functions under transforms are not judged")
        found.append(bare_finding("local", "the function", Verdict.UNSUPPORTED, why))
    return found


def _recorded(func: Callable[..., Any], inputs: Sequence[Any], passes: int, state: State | None) -> Tape:
    """The tape of a run; with a state to go back to, numbers that leave torch are followed."""
    with eager():
        try:
            tape = record(func, inputs, passes)
        except Exception as error:
            tape = stopped(words_of_our_fault(error))
    return tape if state is None else followed(func, inputs, tape, state)


def passing(found: Sequence[Finding]) -> bool:
    return all(finding.verdict.passes for finding in found)


def of_pairs(tape: Tape, as_who: str) -> str:
    """How numbers are told of complex tensors, where there are any: a gradient is as the engine has it, or
    not."""
    if not any(leaf.region.complex for leaf in tape.leaves) and not any(out.complex for out in tape.outputs):
        return ""
    parts = "Of complex numbers the last index tells the part, 0 the real and 1 the imaginary one"
    return f"{parts}; a gradient is dL/dx + i dL/dy, {as_who}."


def _is_lost_sight_of(finding: Finding) -> bool:
    return finding.verdict is Verdict.UNSUPPORTED and any(isinstance(c, NotFollowed) for c in finding.causes)


def _measured(found: list[Finding], caught: Sequence[Finding]) -> list[Finding]:
    """Where a value goes through what is not seen, and the function changes otherwise than its gradients say,
    that is where part of the gradient is lost."""
    causes = tuple(cause for finding in caught for cause in finding.causes if isinstance(cause, Contradicted))
    if not causes:
        return found
    return [
        replace(finding, verdict=Verdict.WRONG, causes=(*finding.causes, *causes))
        if _is_lost_sight_of(finding)
        else finding
        for finding in found
    ]


def _smooth(found: list[Finding], smooth: Mapping[str, SmoothAnyway]) -> list[Finding]:
    """What is not finite, and undecided by itself, is wrong where the function is smooth."""
    return [
        replace(f, verdict=Verdict.WRONG, inherited=False, causes=(*f.causes, smooth[f.node]))
        if f.kind == "gradient" and f.verdict is Verdict.UNDECIDED and f.node in smooth
        else f
        for f in found
    ]


def _remarks(tape: Tape, left_out: str) -> tuple[str, ...]:
    """What is no fault: leaves that nothing reaches, inputs that nothing reads, a net that was not spread."""
    told = (
        ("Needs a gradient, and the output does not reach it: {}.", ", ".join(tape.unused)),
        ("Nothing reads the input {}.", ", ".join(tape.idle)),
        ("{}", of_pairs(tape, "as torch has it")),
        ("No differences beside the point were taken: {}.", left_out),
    )
    return tuple(sentence.format(which) for sentence, which in told if which)


def judged_tape(
    tape: Tape,
    *,
    trusting: bool,
    formats: Mapping[str, DType] = DTYPES,
    meant: Sequence[str] = (),
) -> tuple[Judged, Judge, DType | None]:
    """What was found of what was recorded, and its judge."""
    witness = witness_of(tape, trusting=trusting, guard=our_fault, formats=formats, meant=meant)
    judge = Judge(witness, guard=our_fault)
    return judge.judged(), judge, witness.dtype


def by_the_whole(
    judge: Judge, tape: Tape, outputs: Sequence[np.ndarray], gradients: Sequence[np.ndarray | None]
) -> dict[str, Judgement]:
    """What the calculus of the whole run says of other numbers for the same function, by name.

    Raises `UnsupportedError` where the whole is too large or not covered.
    """
    named = {leaf.name: gradient for leaf, gradient in zip(tape.leaves, gradients, strict=True)}
    told = judge.leaves.of_others(outputs, named)
    loose = {
        name for name in named.keys() & told.keys() if told[name].verdict.passes and not tight(told[name])
    }
    return {
        name: replace(each, verdict=Verdict.UNDECIDED) if name in loose else each
        for name, each in told.items()
    }


def _unrecorded(
    func: Callable[..., Any],
    inputs: Sequence[Any],
    tape: Tape,
    state: State,
    whole: Callable[..., Mapping[str, Judgement]],
    *,
    spread: bool,
) -> Net:
    """What the function gives without a recorder: at the point, and where asked, in a net spread beside it.

    Where that breaks down, which is a fault of ours, it is a finding beside what was found before.
    """
    found: list[Finding] = []
    try:
        found = plain_findings(func, inputs, tape, state, whole)
        beside = contradictions(func, inputs, tape, state) if spread and passing(found) else Net([])
    except InputError:
        raise
    except Exception as error:
        beside = Net([bare_finding("local", "the function", Verdict.UNSUPPORTED, our_fault(error))])
    return Net([*found, *beside.findings], beside.left_out)


def _as_one(tape: Tape, name: str, formula: str, func: Any, inputs: Sequence[Any]) -> Tape:
    """The tape of a function that is one operation, which the formula tells."""
    parsed(formula)
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
    edges = {leaf.edge: leaf.region for leaf in tape.leaves}
    step = Step(
        -1,
        name,
        [],
        tuple(edges),
        {**edges},
        {0: output},
        NOWHERE,
        "",
        True,
        "",
        formula,
        arguments=arguments,
    )
    for number, seeds in enumerate(tape.seeds):
        assert output.edge is not None
        step.received.append((seeds[output.edge],))
        step.passed.append(tuple(leaf.gradients[number] for leaf in tape.leaves))
    return replace(
        tape,
        steps=[step],
        seeds=[{(-1, 0): seeds[output.edge]} for seeds in tape.seeds if output.edge is not None],
    )


def parsed(formula: str) -> None:
    if len(parse_statements(f"value = {formula}", Place("formula"))) != 1:
        raise InputError("expected one expression, as in 'x * sigmoid(x)'", Place("formula"))


def our_fault(error: Exception) -> Cause:
    return Uncovered(words_of_our_fault(error))


def words_of_our_fault(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return f"gradproof itself failed at {place}: {type(error).__name__}: {error}; please report it"
