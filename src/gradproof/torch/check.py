"""Any torch function as it is: every autograd node checked against the calculus of what it recorded.

The forward is the specification of the backward. A run is recorded (`tape`), and for each autograd node,
built-in or custom, the operations that it ran are put into index notation. With the engine's own numbers
taken as exact,

* forward: is the node's value within its rounding?
* local: is the cotangent that it passed to each input what calculus gives for the cotangent that it received?
* gradient: is what arrived at a tensor the sum of what its uses passed on?

Each is tight at any depth. By induction from the output back, if all hold, the gradients are the chain rule
up to rounding. What autograd does not see at all is looked for as well: a `detach`, `.data` or `no_grad` that
loses part of the gradient.
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
from torch.utils._pytree import tree_map

from ..dtypes import DTYPES, DType
from ..errors import GradproofError, InputError, Place, UnsupportedError
from ..judging.judge import Comparison, judge
from ..judging.together import judge_pulled
from ..language.syntax import parse_statements
from ..proof.arithmetic import UNIT, Balls, balls, exact, precision, rounding
from ..proof.enclosure import START_BITS, Cotangents, Enclosures, Pulled, Run
from ..proof.walk import Values, evaluate
from ..report import Report
from ..verdict import Finding, Judgement, Verdict, as_finding, bare_finding, worst
from .lowered import whole
from .names import arguments_of
from .net import Net, contradictions, plain_findings
from .node import Formats, NodeCheck, dtype_of, format_of
from .outputs import flat
from .recording import (
    HIDDEN,
    NOWHERE,
    OPAQUE,
    Edge,
    LeafStep,
    Region,
    Step,
    Tape,
    record,
    region_of,
    shown,
    stopped,
)
from .state import State, eager, untouched
from .stops import Stops
from .trail import followed


def check_function(
    func: Callable[..., Any],
    *inputs: Any,
    formula: str | None = None,
    stops: str = "judge",
    net: bool = True,
    passes: int = 3,
    title: str = "",
    kwargs: Mapping[str, Any] | None = None,
    **named: Any,
) -> Report:
    """Check the gradients of a torch function at these inputs, node by node.

    `func` is any callable that returns a tensor, or any nest of tensors: lists, dicts, dataclasses, model
    outputs. Its parameters are the leaves that need a gradient, among the inputs and among what it holds. It
    runs once, its backward three times. The verdict is in the dtype that it runs in.

    `formula` says what an operation computes that the recording cannot see into, over the names of the
    function's arguments, in the language of expression files. `stops="trust"` takes every `detach`, `.data`
    and `no_grad` as meant. With `net` the function is also run as it is, unrecorded: what it gives must be
    what was judged, and must not change otherwise than the judged gradients say. Whatever it changes is put
    back. With `passes=1` the backward runs once, for one that cannot run twice on the same graph: then nobody
    knows whether it repeats itself.

    Keyword arguments are the function's own (`check_function(F.softmax, x, dim=-1)`); those that are called
    as an option of ours stand in `kwargs`. What the function is given and holds, and the random states, are
    as before afterwards.

    What goes wrong in the function, and what is not covered, are findings. Raises `InputError` for bad
    options.
    """
    if stops not in ("judge", "trust"):
        raise InputError(f"stops={stops!r}: expected 'judge' or 'trust'")
    if passes not in (1, 3):
        raise InputError(f"passes={passes!r}: expected 3, or 1 for a backward that cannot run twice")
    start = time.perf_counter()
    name = title or _name_of(func)
    given, keywords = tree_map(_as_leaf, (list(inputs), {**(kwargs or {}), **named}))
    called = partial(func, **keywords) if keywords else func
    trusted = stops == "trust" or formula is not None
    with untouched(called, *inputs, *given) as state:
        with eager():
            try:
                tape = record(called, given, passes)
            except Exception as error:
                tape = stopped(_our_fault(error))
        if not trusted:
            tape = followed(called, given, tape, state)
        ran = tape
        if formula is not None:
            tape = _as_one(tape, name, formula, called, given)
        check = TapeCheck(tape, "trust" if trusted else stops)
        found, left_out = check.findings(), ""
        if net and tape.leaves and all(finding.verdict.passes for finding in found):
            found += _guarded(lambda: plain_findings(called, given, ran, state, check.from_the_leaves))
        if net and tape.leaves and not trusted and all(finding.verdict.passes for finding in found):
            caught = _spread(called, given, ran, state)
            found, left_out = found + caught.findings, caught.left_out
        findings = _compared(found)
    seconds = time.perf_counter() - start
    dtype = check.dtype.name if check.dtype else "none"
    remarks = (
        [f"Needs a gradient, and the output does not reach it: {', '.join(tape.unused)}."]
        if tape.unused
        else []
    )
    remarks += [f"Nothing reads the input {', '.join(tape.idle)}."] if tape.idle else []
    remarks += [f"No differences beside the point were taken: {left_out}."] if left_out else []
    missing = NOT_EXERCISED if passes == 3 else (*NOT_EXERCISED, "a second backward")
    return Report(
        name, name, "torch", dtype, findings, seconds, exercised=("reverse mode, first order",), not_exercised=missing,
        remarks=tuple(remarks), traceback=tape.traceback,
    )  # fmt: skip


def _spread(func: Callable[..., Any], inputs: Sequence[Any], tape: Tape, state: State) -> Net:
    """The net; where it breaks down, which is a fault of ours, that is a finding."""
    try:
        return contradictions(func, inputs, tape, state)
    except Exception as error:
        return Net([bare_finding("local", "the function", Verdict.UNSUPPORTED, _our_fault(error))])


NOT_EXERCISED = ("forward mode", "double backward", "batched (vmap)")


def _compared(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings, and where all of them pass and none has an entry, that nothing was compared."""
    if any(not finding.verdict.passes or finding.value is not None for finding in findings):
        return tuple(findings)
    return (*findings, bare_finding("gradient", "the function", Verdict.UNDECIDED, "nothing was compared"))


def gradcheck(func: Callable[..., Any], inputs: Any, *, raise_exception: bool = True, **options: Any) -> bool:
    """`torch.autograd.gradcheck` by proof: the same call, without step, tolerance or float64.

    Options of torch's that choose a step or a tolerance are accepted: this is stricter than any of them.
    Those that ask for a kind of derivative that is not exercised raise `OptionError`, unless they say that it
    is not asked for.

    Raises `GradcheckError` with the report where something is wrong, failed, undecided or unsupported; with
    `raise_exception=False` the answer is False then. Where no input needs a gradient it is a `ValueError`, as
    torch's.
    """
    for name, value in options.items():
        if name in _STRICTER:
            continue
        if name not in _REFUSED:
            raise TypeError(f"gradcheck() got an unexpected keyword argument {name!r}")
        accepted, missing = _REFUSED[name]
        if bool(value) is not accepted:
            raise OptionError(
                f"gradcheck({name}={value!r}): {missing}; leave it out, or give {name}={accepted}"
            )
    arguments = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    if not any(tensor.requires_grad for tensor in flat(arguments)):
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have "
            "requires_grad=True."
        )
    report = check_function(func, *arguments)
    if not report.ok and raise_exception:
        raise GradcheckError(report.to_text())
    return report.ok


_STRICTER = {"eps", "atol", "rtol", "nondet_tol", "fast_mode"}
# The value that asks for nothing that is not done, and what is not done.
_REFUSED = {
    "check_forward_ad": (False, "forward mode (jvp) is not exercised"),
    "check_backward_ad": (True, "reverse mode is what is exercised, and nothing would be left"),
    "check_batched_grad": (False, "a backward under vmap is not exercised"),
    "check_batched_forward_grad": (False, "forward mode under vmap is not exercised"),
    "check_undefined_grad": (False, "a backward that is given undefined cotangents (None) is not exercised"),
    "check_grad_dtypes": (False, "the dtypes of gradients are not compared"),
    "check_sparse_nnz": (False, "sparse tensors are not covered"),
    "masked": (False, "masked derivatives of sparse tensors are not covered"),
}


class OptionError(InputError, NotImplementedError):
    """An option that asks for what is not done."""


class GradcheckError(GradproofError, RuntimeError):
    """A gradient that does not pass; the message is the report."""


def register_formula(operation: str, formula: str) -> None:
    """Say what an operation computes that the recording cannot see into: a kernel of a library's,
    `mylib::swish`, over the names of its arguments, or a custom `autograd.Function` by its class's name, over
    those of its forward.

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
    edges = {leaf.edge: leaf.region for leaf in tape.leaves}
    step = Step(-1, name, [], tuple(edges), {**edges}, {0: output}, NOWHERE, "", True, formula, arguments)
    for number, seeds in enumerate(tape.seeds):
        assert output.edge is not None
        step.received.append((seeds[output.edge],))
        step.passed.append(tuple(leaf.gradients[number] for leaf in tape.leaves))
    return replace(
        tape,
        steps=[step],
        seeds=[{(-1, 0): seeds[output.edge]} for seeds in tape.seeds if output.edge is not None],
    )


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


_TRANSFORMED = (
    "it is called under a transform of torch.func (grad, vjp), which calls its backward: that is not judged"
)
_UNSEEN = 'what happens there is not seen; if it is meant as a constant, say so by stops="trust"'
_NOT_THE_SUM = (
    "what arrived is not what its uses passed on: a hook, an addition that went wrong, "
    "or memory that one of them wrote to"
)
MAX_WHOLE = (
    20_000  # entries of all domains together: beyond, the whole function is not looked at from both sides
)
_OPEN = (Verdict.KINK, Verdict.UNDECIDED)


class TapeCheck:
    """One check: the findings of one tape."""

    formats: Formats = DTYPES

    def __init__(self, tape: Tape, stops: str) -> None:
        self.tape = tape
        self.stops = stops
        self.dtype = dtype_of([leaf.region for leaf in tape.leaves], self.formats)
        self.names = {leaf.edge: leaf.name for leaf in tape.leaves}
        for step in tape.steps:
            for nr in step.outputs:
                self.names[step.number, nr] = step.name if len(step.outputs) == 1 else f"{step.name}[{nr}]"
        self.delivered: list[dict[Edge, list[np.ndarray]]] = []
        self.unhooked: set[Edge] = set()  # values that such a node passed something to, unseen
        self.unfollowed = False  # whether numbers came back that the whole run takes for constants
        self.works: dict[int, NodeCheck] = {}
        self.blamed: dict[int, str] = {}  # whoever got a wrong cotangent, by number: from which node

    def findings(self) -> list[Finding]:
        found: list[Finding] = []
        if self.tape.trouble:
            verdict = Verdict.FAILED if self.tape.supported else Verdict.UNSUPPORTED
            return [bare_finding("forward", "the function", verdict, self.tape.trouble)]
        if not self.tape.leaves:
            note = (
                self.tape.unmarked
                or "no tensor that needs a gradient reaches the output; mark inputs with requires_grad_()"
            )
            found.append(bare_finding("gradient", "the function", Verdict.UNDECIDED, note))
        with precision(START_BITS):
            self._deliver()
            by_step = {step.number: _guarded(partial(self._step, step)) for step in reversed(self.tape.steps)}
            found += [finding for step in self.tape.steps for finding in by_step[step.number]]
            found += self._sums()
            found += [replace(bare_finding("local", name, Verdict.UNSUPPORTED, _TRANSFORMED), place=str(place))
                      for name, place in dict.fromkeys(self.tape.transformed)]  # fmt: skip
            lost = _guarded(self._losses) if self.stops == "judge" else []
            found = self._made_up_for(found, lost)
            bounds = _boundaries(self._ran())
            if not lost and (bounds or any(f.verdict in _OPEN or f.inherited for f in found)):
                found = _guarded(partial(self._end_to_end, found, bounds), found)
            if any(f.verdict.passes and f.value is not None and np.isinf(f.value) for f in found):
                found += _guarded(self._overflowed)
        return found

    def _ran(self) -> Sequence[Any]:
        """Every operation that ran, with its `name`, `args` and `place`."""
        return self.tape.events

    def _made_up_for(self, before: Sequence[Finding], lost: Sequence[Finding]) -> list[Finding]:
        """What a stop loses a hook may add: of an implicit layer, all gradients are right from the leaves."""
        found = [*before, *lost]
        bad = [f for f in found if not f.verdict.passes]
        if (
            not bad
            or self.blamed
            or self.unfollowed
            or any(f.kind != "gradient" or f.verdict is not Verdict.WRONG for f in bad)
        ):
            return found
        names = {leaf.name for leaf in self.tape.leaves}
        if any(f.node not in names for f in lost) or any(f.verdict is Verdict.KINK for f in before):
            return found  # at a kink the whole is a span, which tells little
        judged = self._whole()
        if not names <= judged.keys() or not all(map(_in_every_entry, judged.values())):
            return found
        note = "right from the leaves: what is lost at one place is made up for"
        return [
            replace(
                as_finding("gradient", f.node, None, "the whole function, from its leaves", judged[f.node]),
                note=note,
            )
            if f in bad and f.node in names
            else replace(f, verdict=Verdict.ROUNDING, note=f"{f.note}; the function as a whole is right")
            if f in bad
            else f
            for f in found
        ]

    def _end_to_end(self, found: list[Finding], bounds: Sequence[str]) -> list[Finding]:
        """Where a step has a kink or cannot be judged alone, the whole function is looked at from its leaves.

        So it is where a condition stands at its boundary, at the places `bounds`: a node takes its mask as
        given.

        It may be smooth although its pieces have kinks; then only the one value is right. And a cotangent of
        0 may have met a slope without end: then the function tells what the piece cannot.
        """
        judged = self._whole()
        if not judged:
            note = "a condition stands at its boundary, and the whole function is too large to be looked at from both sides"
            told = [
                replace(bare_finding("local", "the function", Verdict.KINK, note), place=place)
                for place in bounds[:1]
            ]
            return found + told
        settled = all(_tight(whole) for whole in judged.values())
        found = [self._cancelled(finding, judged) for finding in found]
        found = [_settled(finding) if settled else _inherited(finding) for finding in found]
        for leaf in self.tape.leaves:
            judgement = judged.get(leaf.name)
            if (
                judgement is not None
                and judgement.verdict is Verdict.WRONG
                and (note := self._reason(leaf, judgement, found, bounds))
            ):
                named = as_finding(
                    "gradient",
                    leaf.name,
                    None,
                    "the whole function, from its leaves",
                    replace(judgement, note=note),
                )
                found = [f for f in found if not (f.kind == "gradient" and f.node == leaf.name)] + [named]
        return found

    @staticmethod
    def _reason(leaf: LeafStep, whole: Judgement, found: Sequence[Finding], bounds: Sequence[str]) -> str:
        """Why a leaf's gradient is wrong as a whole; nothing where its steps tell."""
        gradient = leaf.gradients[0]
        if gradient is None or not np.isfinite(gradient).all():
            first = next((f for f in found if f.kind == "local" and _not_finite(f)), None)
            origin = f"it comes from {first.node} at {first.place}" if first else ""
            return "; ".join(part for part in (whole.note, origin) if part)
        kinks = dict.fromkeys(f.place or f.node for f in found if f.verdict is Verdict.KINK)
        if kinks and whole.exact is not None:
            return f"the pieces have kinks here (at {', '.join(kinks)}), but the whole function is smooth"
        if bounds and all(f.verdict.passes for f in found):
            return f"a condition stands at its boundary (at {', '.join(bounds)}), where the function's derivative is another"
        return ""

    @staticmethod
    def _cancelled(finding: Finding, judged: Mapping[str, Judgement]) -> Finding:
        """A leaf below a wrong node may be right all the same, where the error has no effect on it."""
        whole = judged.get(finding.node)
        if not (finding.inherited and finding.kind == "gradient" and whole is not None and _tight(whole)):
            return finding
        note = f"right from the leaves, although {finding.note.removeprefix('inherited from ')} is wrong: it cancels"
        return replace(
            as_finding("gradient", finding.node, None, "the whole function, from its leaves", whole),
            note=note,
        )

    def from_the_leaves(
        self, outputs: Sequence[np.ndarray], gradients: Sequence[np.ndarray | None]
    ) -> Verdict:
        """What the calculus of the whole run says of other numbers for the same function, as a compiler's,
        all together.

        Raises `UnsupportedError` where the whole is too large or not covered.
        """
        if self.dtype is None:
            raise UnsupportedError("no dtype")
        with precision(START_BITS):
            run, given, rows = self._all()
            pulled = Enclosures(self.dtype).pulled(run, given, rows)
            told = [
                judged
                if _tight(judged) or not judged.verdict.passes
                else replace(judged, verdict=Verdict.UNDECIDED)
                for judged in self._judged_leaves(pulled, gradients).values()
            ]
            sharp, loose = (
                evaluate(run.nodes, given, arithmetic) for arithmetic in (exact(), rounding(self.dtype))
            )
            names = {
                region.edge: name for name, region in zip(rows, _distinct(self.tape.outputs), strict=True)
            }
            for region, value in zip(self.tape.outputs, outputs, strict=True):
                name = names[region.edge]
                told.append(judge(Comparison(value, sharp[name], loose[name]), self.dtype))
        return worst([judged.verdict for judged in told])

    def _whole(self) -> dict[str, Judgement]:
        """The gradients of the leaves by the calculus of the whole run; nothing where it is too large or not
        covered."""
        if self.dtype is None or not self.tape.seeds:
            return {}
        try:
            run = whole(self.tape, {leaf.name: leaf.region for leaf in self.tape.leaves}, MAX_WHOLE)
        except UnsupportedError:
            return {}
        pulled = Enclosures(self.dtype).pulled(run.run, run.given, run.rows)
        return self._judged_leaves(pulled, [leaf.gradients[0] for leaf in self.tape.leaves])

    def _all(self) -> tuple[Run, Values, Cotangents]:
        """The whole run from its leaves. Raises `UnsupportedError` where it is too large or not covered."""
        run = whole(self.tape, {leaf.name: leaf.region for leaf in self.tape.leaves}, MAX_WHOLE)
        return run.run, run.given, run.rows

    def _overflowed(self) -> list[Finding]:
        """An infinity on the way may be right, and what the function makes of it not: its values, from the
        leaves."""
        if self.dtype is None:
            return []
        run, given, rows = self._all()
        values = evaluate(run.nodes, given, exact())
        found = []
        for name, region in zip(
            rows, {region.edge: region for region in self.tape.outputs}.values(), strict=False
        ):
            judged = judge(
                Comparison(region.values, values[name], rounding(self.dtype).multiply(values[name], UNIT)),
                self.dtype,
            )
            if not np.isfinite(region.values).all() and judged.verdict is Verdict.WRONG:
                note = f"{judged.note}; a value overflows on the way"
                found.append(
                    as_finding("forward", "the function", None, "from its leaves", replace(judged, note=note))
                )
        return found

    def _judged_leaves(
        self, pulled: Mapping[str, Pulled], gradients: Sequence[np.ndarray | None]
    ) -> dict[str, Judgement]:
        """The gradients of all leaves beside what was pulled back to them."""
        values: dict[str, np.ndarray | None] = {}
        formats: dict[str, DType] = {}
        for leaf, gradient in zip(self.tape.leaves, gradients, strict=True):
            own = format_of(leaf.region.dtype, self.formats)
            if gradient is not None and own is not None and gradient.size:
                values[leaf.name], formats[leaf.name] = gradient, own
        return judge_pulled(values, {name: each.row(0) for name, each in pulled.items()}, formats)

    def _losses(self) -> list[Finding]:
        """What is lost where autograd stops and the function does not."""
        if self.dtype is None:
            return []
        try:
            stops = Stops(self.tape, self.dtype)
            self.unfollowed = stops.put_back
            losses = stops.losses()
            if losses:
                harmless = stops.vanishing()
                losses = [loss for loss in losses if loss.leaf not in harmless]
        except UnsupportedError as error:
            return [bare_finding("gradient", "a value without its history", Verdict.UNSUPPORTED, str(error))]
        gradients = {leaf.edge[0]: leaf.gradients[0] for leaf in self.tape.leaves}
        nested = {leaf.edge[0] for leaf in self.tape.leaves if leaf.nested}
        losses = [
            loss for loss in losses if loss.leaf not in nested
        ]  # judged from the leaves, with what arrived otherwise
        found = [
            replace(
                bare_finding("gradient", "the function", Verdict.UNSUPPORTED, f"{seen.why}: {_UNSEEN}"),
                place=str(seen.place),
            )
            for seen in dict.fromkeys(stops.unseen)
        ]
        for loss in losses:
            name = self.tape.names.get(loss.leaf, f"leaf{loss.leaf}")
            value = gradients.get(loss.leaf)
            value = np.zeros(loss.region.shape) if value is None else value
            expected = np.asarray(loss.lost + balls(value), object)
            own = format_of(loss.region.dtype, self.formats) or self.dtype
            # What is less than the gradient's own rounding is not lost.
            judged = judge(Comparison(value, expected, rounding(own).multiply(expected, UNIT)), own)
            if judged.verdict.passes:
                continue
            where = ", ".join(map(str, loss.places)) or "an unknown place"
            note = (
                f"part of the gradient is lost at {where}: a detach, .data, no_grad or item() stops "
                "autograd, not the "
                'function; if that is meant, say so by stops="trust"'
            )
            judged = replace(judged, note=note)
            formula = "with what autograd does not see"
            found.append(
                replace(
                    as_finding("gradient", name, None, formula, judged),
                    place=str(loss.places[0]) if loss.places else "",
                )
            )
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
        whole = self._whole() if any(leaf.nested for leaf in self.tape.leaves) else {}
        for leaf in self.tape.leaves:
            if leaf.nested:
                told = whole.get(leaf.name)
                meant = (
                    self.stops == "trust" and told is not None and not told.verdict.passes
                )  # the whole knows no stops
                found.append(_nested(leaf.name, None if meant else told))
                continue
            finding = self._sum(leaf.name, leaf.edge, leaf.region, leaf.gradients[0])
            if finding.verdict.passes and leaf.edge[0] in self.blamed:
                note = f"inherited from {self.blamed[leaf.edge[0]]}"
                finding = replace(
                    finding, verdict=Verdict.WRONG, exact=None, ulp=None, inherited=True, note=note
                )
            found.append(finding)
        for step in self.tape.steps:
            received = step.received[0] if step.received else ()
            for nr, region in step.outputs.items() if received else ():
                value = received[nr] if nr < len(received) else None
                finding = self._sum(self.names[step.number, nr], (step.number, nr), region, value)
                if not finding.verdict.passes:
                    found.append(replace(finding, place=str(step.place)))
        return found

    def _sum(self, name: str, edge: Edge, region: Region, value: np.ndarray | None) -> Finding:
        parts = self.delivered[0].get(edge, [])
        formula = f"sum of {len(parts)} uses" if len(parts) != 1 else "what its one use passed on"
        dtype = format_of(region.dtype, self.formats)
        if dtype is None:
            return bare_finding("gradient", name, Verdict.UNSUPPORTED, f"dtype {region.dtype}")
        if edge in self.unhooked:
            return bare_finding(
                "gradient", name, Verdict.UNDECIDED, "a part of it was not seen", inherited=True
            )
        if value is None:
            verdict = Verdict.WRONG if any(part.any() for part in parts) else Verdict.EXACT
            note = "no gradient (None)" + ("" if verdict is Verdict.WRONG else "; nothing was passed to it")
            return bare_finding("gradient", name, verdict, note)
        if not value.size:
            return bare_finding("gradient", name, Verdict.EXACT, "it has no entries")
        if not parts:
            parts = [np.zeros(region.shape)]
        if any(part is HIDDEN for part in (value, *parts)):
            return bare_finding("gradient", name, Verdict.UNSUPPORTED, "a part of it is no plain tensor")
        if not all(np.isfinite(part).all() for part in parts):
            return bare_finding(
                "gradient", name, Verdict.UNDECIDED, "a part is not finite already", inherited=True
            )
        if any(part.shape != value.shape for part in parts):
            shapes = " and ".join(str(part.shape) for part in parts)
            return bare_finding(
                "gradient",
                name,
                Verdict.WRONG,
                f"parts of shapes {shapes} for a value of shape {value.shape}",
            )
        terms = [balls(part) for part in parts]
        judged = judge(Comparison(value, exact().add_all(terms), rounding(dtype).add_all(terms)), dtype)
        if judged.verdict is Verdict.WRONG and not judged.note:
            judged = replace(judged, note=self._not_the_sum(edge))
        return as_finding("gradient", name, None, formula, judged)

    def _not_the_sum(self, edge: Edge) -> str:
        """Who may have changed what arrives: the nodes that gave the parts, and those that write to what they
        receive."""
        givers = [step.name for step in self.tape.steps if edge in step.edges]
        writers = [step.name for step in self.tape.steps if step.changes]
        told = f"{_NOT_THE_SUM} ({', '.join(givers)})"
        return f"{told}; {', '.join(writers)} writes to the cotangent that it receives" if writers else told

    # One autograd node

    def _step(self, step: Step) -> list[Finding]:
        place = str(step.place) if step.place.file else ""
        title = f"{step.module}: {step.name}" if step.module else step.name
        if not step.received:
            return []
        if not step.received[0]:
            reached = any(edge[0] == step.number for edge in self.delivered[0])
            self.unhooked.update(edge for edge in step.edges if edge is not None)
            note = "a cotangent was passed to it, and its hook was not called"
            return (
                [replace(bare_finding("local", title, Verdict.UNSUPPORTED, note), place=place)]
                if reached
                else []
            )
        try:
            work = self._work(step)
        except UnsupportedError as error:
            return [replace(bare_finding("local", title, Verdict.UNSUPPORTED, str(error)), place=place)]
        found = [replace(finding, node=title, place=place) for finding in work.findings()]
        if not (step.events or step.by_function) and any(f.verdict is Verdict.WRONG for f in found):
            return [bare_finding("local", title, Verdict.UNSUPPORTED, "no operation of it was seen")]
        harmless = {
            name for edge, name in work.inputs.items() if not self._matters(edge, work.astray.get(name))
        }
        found = [
            _remarked(f) if f.kind == "local" and f.verdict is Verdict.WRONG and f.wrt in harmless else f
            for f in found
        ]
        # From the outputs back, so that whoever reads this step's inputs is told already.
        wrong = {f.wrt for f in found if f.kind == "local" and f.verdict is Verdict.WRONG}
        for edge, name in work.inputs.items():
            if name in wrong or step.number in self.blamed:
                self.blamed.setdefault(edge[0], title if name in wrong else self.blamed[step.number])
        return found

    def _work(self, step: Step) -> NodeCheck:
        """The step in index notation. Raises `UnsupportedError` where it has no formula."""
        if step.number not in self.works:
            self.works[step.number] = NodeCheck(step, self.names, self.tape)
        return self.works[step.number]

    def _matters(self, edge: Edge, error: np.ndarray | None) -> bool:
        """Whether an error in what was passed on to a value reaches any parameter, by the calculus of what
        lies between."""
        if error is None:
            return True
        arriving: dict[Edge, Balls] = {edge: balls(error)}
        for step in reversed(self.tape.steps):
            mine = {
                nr: arriving.pop((step.number, nr)) for nr in step.outputs if (step.number, nr) in arriving
            }
            if not mine:
                continue
            try:
                passed = self._work(step).passed_on(mine)
            except UnsupportedError:
                return True
            for other, part in passed.items():
                if not all(x == 0 for x in part.reshape(-1)):
                    arriving[other] = part + arriving[other] if other in arriving else part
        return bool(arriving)


def _remarked(finding: Finding) -> Finding:
    """A wrong cotangent that reaches no parameter."""
    note = "; ".join(part for part in (finding.note, "wrong, and its error reaches no parameter") if part)
    return replace(finding, verdict=Verdict.ROUNDING, note=note)


COMPARISONS = frozenset("eq ne lt le gt ge".split())


def _boundaries(ran: Sequence[Any]) -> list[str]:
    """The places of comparisons of floating-point numbers that are equal somewhere."""
    found = []
    for event in ran:
        if event.name in COMPARISONS and any(region.floating for region in event.regions):
            if len({region.key for region in event.regions}) < len(event.regions):
                continue  # whether it is NaN
            a, b = (getattr(operand, "values", operand) for operand in event.args[:2])
            if np.any(a == b):
                found.append(str(event.place))
    return list(dict.fromkeys(found))


def _distinct(outputs: Sequence[Region]) -> Sequence[Region]:
    """Each output once, as the whole run has them."""
    return list({region.edge: region for region in outputs}.values())


def _nested(name: str, whole: Judgement | None) -> Finding:
    """A leaf that a backward within the backward gave a part of its gradient, which only the whole function
    can tell."""
    way = "a part of it arrives by a backward within the backward (a reentrant checkpoint)"
    if whole is None:
        note = f"{way}, which is not recorded, and the whole function is too large or not covered"
        return bare_finding("gradient", name, Verdict.UNSUPPORTED, note)
    if whole.verdict.passes and not _tight(whole):
        whole = replace(whole, verdict=Verdict.UNDECIDED)
    note = "; ".join(part for part in (whole.note, way) if part)
    return as_finding(
        "gradient", name, None, "the whole function, from its leaves", replace(whole, note=note)
    )


def _tight(whole: Judgement) -> bool:
    """Whether it passes, and would not have passed with an error that matters."""
    tells = whole.sensitivity is None or whole.sensitivity < 1e-2
    return whole.verdict.passes and (tells or whole.verdict is Verdict.EXACT)


def _in_every_entry(whole: Judgement) -> bool:
    """Whether it passes by rounding alone, and no entry would have passed with an error that matters."""
    return _tight(whole) and whole.verdict is not Verdict.KINK and not whole.cancelled


def _not_finite(finding: Finding) -> bool:
    return finding.value is not None and not np.isfinite(finding.value)


def _settled(finding: Finding) -> Finding:
    """What a step cannot tell alone, the whole function has told."""
    if finding.verdict is not Verdict.UNDECIDED or (finding.wrt is None and not finding.inherited):
        return finding
    note = "; ".join(part for part in (finding.note, "the function as a whole was judged") if part)
    return replace(finding, verdict=Verdict.ROUNDING, note=note, inherited=False)


def _inherited(finding: Finding) -> Finding:
    told = finding.kind == "local" and finding.verdict is Verdict.UNDECIDED and _not_finite(finding)
    return replace(finding, inherited=True) if told else finding


def _guarded(part: Callable[[], list[Finding]], before: Sequence[Finding] = ()) -> list[Finding]:
    """A part of the check; where it breaks down, which is a fault of ours, that is said beside what was found
    before."""
    try:
        return part()
    except InputError:
        raise
    except Exception as error:
        return [*before, bare_finding("local", "the function", Verdict.UNSUPPORTED, _our_fault(error))]


def _our_fault(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(where.filename).name}:{where.lineno}"
    return f"gradproof itself failed at {place}: {type(error).__name__}: {error}; please report it"
