"""A net under everything: the function as its user runs it, without a recorder.

Whatever the recording does not see, it would take for a constant. So the function is run once more, plainly,
and what it gives must be what was judged, bit for bit or within what two plain runs differ by. And along
random directions the differences of the plain function must not contradict the gradients that were judged. A
net, never a proof: it speaks only where several steps of several sizes agree with each other and not with the
gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..causes import Contradicted, OtherUnrecorded, Raised, SmoothAnyway
from ..errors import UnsupportedError, said
from ..verdict import Finding, Judgement, Verdict, as_finding, bare_finding
from .outputs import differentiable, nodes_of, same
from .recording import cotangents_of
from .state import State
from .tape import Event, LeafStep, Tape
from .trail import direction, movable, move, plain

UNIT = 2.0**-53  # float64's roundoff
DIRECTIONS = 3
STEPS = tuple(2.0**-n for n in range(4, 30, 2))  # relative to the leaves' entries
LARGE = 100_000  # entries of all leaves: beyond, one direction and the finer steps are enough, and cost less
FINER = STEPS[2:]
AGREE = 1e-4  # relative: what neighbouring steps, and the two sides, may differ by where they are believed
NOISE = 256  # units of roundoff: the rounding of a function's value
CONTRADICTS = 2e-3  # relative: what is told, beside what rounding hides
CLOSE = 2.0**-20  # a step at which most functions are told to agree, and need no others
COARSE = 0.3  # ... where the gradients are of a coarser dtype: they may have cancelled to so few digits

Func = Callable[..., Any]
Line = Callable[[float], tuple[float, float]]  # the function's values so far to the one side and the other
# Of outputs and of leaves' gradients.
Whole = Callable[[Sequence[np.ndarray], Sequence[np.ndarray | None]], Mapping[str, Judgement]]


def plain_findings(
    func: Func, inputs: Sequence[Any], tape: Tape, state: State, whole: Whole
) -> list[Finding]:
    """Findings where a plain run gives other outputs or gradients than those that were judged.

    Other numbers are right as well where the whole function from its leaves tells so: a compiler rounds
    otherwise.
    """
    try:
        first = _ran(func, inputs, tape, state)
    except Exception as error:
        cause = Raised(f"it runs under the recorder, and raises without it: {said(error)}")
        return [bare_finding("forward", "the function", Verdict.FAILED, cause)]
    judged = _judged(tape)
    apart = [name for name, value in judged.items() if not same(value, first.numbers.get(name))]
    if not apart:
        return []
    try:
        again = _ran(func, inputs, tape, state).numbers
    except Exception:  # it ran once: then there is no spread between two runs to allow for
        again = {}
    apart = [name for name in apart if not _within(judged[name], first.numbers.get(name), again.get(name))]
    if not apart:
        return []
    told = _told_by(whole, first, tape)
    wrong = told is None or any(each.verdict is Verdict.WRONG for each in told.values())
    if told and all(each.verdict.passes for each in told.values()):
        return []
    if first.compiled and not wrong:
        compiled = OtherUnrecorded(first.compiled)
        return [bare_finding("gradient", "the function", Verdict.UNSUPPORTED, compiled)]
    if first.compiled and told is not None:
        return [_off(name, each, first.compiled) for name, each in told.items() if not each.verdict.passes]
    return [
        bare_finding(
            "forward" if name.startswith("output") else "gradient", name, Verdict.FAILED, OtherUnrecorded()
        )
        for name in apart
    ]


def _off(name: str, judged: Judgement, compiled: str) -> Finding:
    """What a compiler made wrong."""
    kind = "forward" if name.startswith("output") else "gradient"
    found = as_finding(kind, name, None, "the function, as its forward was recorded", judged)
    return replace(found, causes=(OtherUnrecorded(compiled, wrong=True), *judged.causes))


def _told_by(whole: Whole, plain: _Plain, tape: Tape) -> Mapping[str, Judgement] | None:
    """What the whole function says of the numbers of a plain run; None where they are not even alike in
    shape, and nothing where the whole is too large or not covered."""
    outputs = [plain.numbers.get(f"output {n}") for n in range(len(tape.outputs))]
    gradients = [plain.numbers.get(leaf.name, leaf.gradients[0]) for leaf in tape.leaves]
    there = [value for value in outputs if value is not None]
    pairs = zip(tape.leaves, gradients, strict=True)
    missing = [leaf.name for leaf, own in pairs if (own is None) != (leaf.gradients[0] is None)]
    if missing or any(
        value.shape != region.shape for value, region in zip(there, tape.outputs, strict=False)
    ):
        return None
    try:
        return whole(there, gradients) if len(there) == len(outputs) else None
    except UnsupportedError:
        return {}


def _within(value: np.ndarray | None, one: np.ndarray | None, two: np.ndarray | None) -> bool:
    """Whether two plain runs differ, and the judged numbers by no more than they do."""
    if (
        value is None
        or one is None
        or two is None
        or not one.shape == two.shape == value.shape
        or same(one, two)
    ):
        return False
    return bool((np.abs(value - one) <= 4 * np.max(np.abs(one - two))).all())


def _judged(tape: Tape) -> dict[str, np.ndarray | None]:
    """The numbers that were judged, by name."""
    outputs: dict[str, np.ndarray | None] = {
        f"output {n}": region.values for n, region in enumerate(tape.outputs)
    }
    return outputs | {leaf.name: leaf.gradients[0] for leaf in lasting(tape)}


def lasting(tape: Tape) -> list[LeafStep]:
    """The leaves that were there before the run: those that the function makes are others each time."""
    there = {region.edge for region in tape.given}
    return [leaf for leaf in tape.leaves if leaf.edge in there]


@dataclass(frozen=True, eq=False)
class _Plain:
    """What a plain run gave, by the names of what was judged, and the node of a compiler's in its graph."""

    numbers: dict[str, np.ndarray | None]
    compiled: str


def _ran(func: Func, inputs: Sequence[Any], tape: Tape, state: State) -> _Plain:
    state.restore()
    leaves = {leaf.name: tape.tensors[leaf.edge[0]] for leaf in lasting(tape)}
    before = {name: leaf.grad for name, leaf in leaves.items()}
    try:
        for leaf in leaves.values():
            leaf.grad = None
        with torch.enable_grad():
            outputs = differentiable(func(*inputs))
            numbers: dict[str, np.ndarray | None] = {
                f"output {n}": _array(out) for n, out in enumerate(outputs)
            }
            compiled = _compiled(outputs)
            torch.autograd.backward(outputs, cotangents_of(outputs))
        regions = {leaf.name: leaf.region for leaf in tape.leaves}
        numbers |= {
            name: None if leaf.grad is None else regions[name].of(_array(leaf.grad))
            for name, leaf in leaves.items()
        }
        return _Plain(numbers, compiled)
    finally:
        for name, leaf in leaves.items():
            leaf.grad = before[name]
        state.restore()


def _compiled(outputs: Sequence[torch.Tensor]) -> str:
    """The name of a compiler's node in the graph."""
    return next((str(node.name()) for node in nodes_of(outputs) if "CompiledFunction" in node.name()), "")


def _array(tensor: torch.Tensor) -> np.ndarray:
    dense = tensor.detach().resolve_conj().resolve_neg()
    dense = dense.to_dense() if dense.layout != torch.strided else dense
    dense = torch.view_as_real(dense) if dense.is_complex() else dense
    return dense.to(torch.float64, copy=True).cpu().numpy(force=True)  # whose own memory may be resized


def _floats(tensor: torch.Tensor) -> np.ndarray:
    """The same where it lies, of one that is ours."""
    numbers = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return np.asarray(numbers.to(torch.float64).cpu().numpy())


# Along directions


@dataclass(frozen=True)
class Net:
    """What the net caught; or why it was not spread."""

    findings: list[Finding]
    left_out: str = ""


def _weights(tape: Tape) -> list[torch.Tensor]:
    """What each output counts for; of a value that is one twice, both cotangents stand with the first."""
    found, seen = [], set()
    for edge in (out.edge for out in tape.outputs if out.edge):
        weight = np.asarray(tape.seeds[0][edge])
        found.append(torch.from_numpy(np.zeros_like(weight) if edge in seen else weight))
        seen.add(edge)
    return found


def contradictions(func: Func, inputs: Sequence[Any], tape: Tape, state: State) -> Net:
    """A finding where the function changes otherwise along a direction than the judged gradients say."""
    there = lasting(tape)
    leaves = [tape.tensors[leaf.edge[0]] for leaf in there]
    others = _without_gradient(state.tensors, leaves)
    tensors = [*leaves, *others]
    gradients = [*(leaf.gradients[0] for leaf in there), *(None for _ in others)]
    if why := _unfit(tape, tensors, gradients):
        return Net([], why)
    weights = _weights(tape)
    moved = _Moved(func, inputs, state, tensors, weights)
    # Beside numbers of the size of 1 inside of a function, a result of 0 has the rounding of 1.
    floor = 2.0**-40 * sum(float(weight.abs().sum()) for weight in weights)
    own = max((torch.finfo(tensor.dtype).eps / 2 for tensor in tensors), default=0.0)
    # In float64, whatever the function's own dtype; what does not run so is run as it is.
    raised = ""
    for wide in (True, False) if own > UNIT else (False,):
        here = [tensor.detach().to(_wide(tensor)) if wide else tensor.detach().clone() for tensor in tensors]
        try:
            slopes = moved.gradients(here) if wide else gradients
            caught = _along_directions(moved, here, slopes, UNIT if wide else own, floor)
            if caught.findings and _absorbed(tape, here):
                return Net([], "a number so large is added to a whole row that nothing moves it")
            return caught
        except Exception as error:
            raised = said(error)  # where it has no value there is nothing to compare
        finally:
            state.restore()
    return Net([], f"beside the point it raises {raised}")


def smooth_anyway(func: Func, inputs: Sequence[Any], tape: Tape, state: State) -> dict[str, SmoothAnyway]:
    """Of leaves whose gradients are not finite those by which the function has derivatives all the same:
    where differences in float64 agree on both sides and at several steps, along every direction."""
    found: dict[str, SmoothAnyway] = {}
    for leaf in lasting(tape) if _has_cotangents(tape) else ():
        tensor, gradient = tape.tensors[leaf.edge[0]], leaf.gradients[0]
        if gradient is None or np.isfinite(gradient).all():
            continue
        moved = _Moved(func, inputs, state, [tensor], _weights(tape))
        try:
            here = [tensor.detach().to(_wide(tensor), copy=True)]
            random = np.random.default_rng(0)
            lines = [[direction(tensor, random)] for tensor in here * DIRECTIONS]
            middle = moved.value(here)
            slopes = [_slope(middle, moved.beside(here, along), UNIT, STEPS) for along in lines]
        except Exception:  # where it has no value there is no derivative either
            continue
        finally:
            state.restore()
        told = [slope[0] for slope in slopes if slope is not None]
        if np.isfinite(middle) and len(told) == DIRECTIONS:
            found[leaf.name] = SmoothAnyway(told[0])
    return found


def _has_cotangents(tape: Tape) -> bool:
    """Whether every output has one."""
    return bool(tape.seeds) and all(out.edge in tape.seeds[0] for out in tape.outputs)


def _unfit(tape: Tape, tensors: Sequence[torch.Tensor], gradients: Sequence[np.ndarray | None]) -> str:
    """Why the tensors cannot be moved, or what it would tell is known to differ; nothing where they can."""
    if len(plain(tensors)) < len(tensors) or not all(map(_has_numbers, tensors)):
        return "a parameter is no plain tensor of real or complex numbers"
    declared = next(filter(_declared, tape.events), None)
    if declared is not None:
        return f"the gradient of {declared.name} is declared another than its function's"
    if any(gradient is not None and not np.isfinite(gradient).all() for gradient in gradients):
        return "a gradient is not finite"
    if len(set(map(_memory, tensors))) < len(tensors):
        return "parameters share their memory, and cannot be moved apart"
    if not _has_cotangents(tape):
        return "an output has no cotangent"
    return ""


@dataclass(frozen=True, eq=False)
class _Moved:
    """The function at other points. In float64 all that it holds is widened; `state` puts it back."""

    func: Func
    inputs: Sequence[Any]
    state: State
    tensors: Sequence[torch.Tensor]  # what is moved
    weights: Sequence[torch.Tensor]  # of the outputs, in their sum

    def value(self, points: Sequence[torch.Tensor]) -> float:
        outputs = self._outputs(points)
        outputs = [torch.view_as_real(out) if out.is_complex() else out for out in outputs]
        pairs = list(zip(outputs, self.weights, strict=False))
        if len(outputs) != len(self.weights) or any(out.shape != w.shape for out, w in pairs):
            return float("nan")
        return sum(float((out.detach().double().cpu() * w).sum()) for out, w in pairs)

    def beside(self, here: Sequence[torch.Tensor], along: Sequence[torch.Tensor]) -> Line:
        """Its values on both sides along a direction, by the step."""

        def at(step: float) -> tuple[float, float]:
            right, left = (
                self.value([x + sign * step * d for x, d in zip(here, along, strict=True)])
                for sign in (1, -1)
            )
            return right, left

        return at

    def gradients(self, points: Sequence[torch.Tensor]) -> list[np.ndarray | None]:
        """Autograd's own: what it does not see in float64 it does not see in any dtype."""
        with torch.enable_grad():
            outputs = self._outputs(points)
            seeds = [
                (torch.view_as_complex(w) if out.is_complex() else w).to(out)
                for w, out in zip(self.weights, outputs, strict=True)
            ]
            before = [tensor.grad for tensor in self.tensors]
            try:
                for tensor in self.tensors:
                    tensor.grad = None
                torch.autograd.backward(outputs, seeds)  # not `grad`, which a reentrant checkpoint refuses
                return [None if tensor.grad is None else _array(tensor.grad) for tensor in self.tensors]
            finally:
                for tensor in self.tensors:
                    tensor.grad = None
                self.state.restore()
                for tensor, old in zip(self.tensors, before, strict=True):
                    tensor.grad = old

    def _outputs(self, points: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        self.state.restore()
        if any(point.dtype != tensor.dtype for point, tensor in zip(points, self.tensors, strict=True)):
            _widen(self.state.tensors)
        move(self.tensors, points)
        with torch.enable_grad():
            return differentiable(self.func(*self.inputs))


def _absorbed(tape: Tape, here: Sequence[torch.Tensor]) -> bool:
    """Whether numbers so large are added to a whole row that the leaves do not move it at all: a mask over
    all of it."""
    most = max((float(x.abs().max()) for x in here if x.numel()), default=0.0)
    adding = (event for event in tape.events if event.name in ("add", "add_", "sub", "rsub"))
    made = (
        region
        for event in adding
        for region in event.outs
        if region.floating and region.values.size and region.shape
    )
    return any(
        bool((np.abs(region.values).min(axis=-1) * torch.finfo(region.dtype).eps / 4 > most).any())
        for region in made
    )


def _without_gradient(held: Sequence[torch.Tensor], leaves: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What needs a gradient and got none: all of it may have been lost."""
    known, found = {_memory(leaf) for leaf in leaves}, []
    for tensor in movable(held):
        if _memory(tensor) not in known:
            known.add(_memory(tensor))
            found.append(tensor)
    return found


def _memory(tensor: torch.Tensor) -> int:
    """Where it lies; for one without entries, itself."""
    return (tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0) or id(tensor)


def _along_directions(
    moved: _Moved,
    here: Sequence[torch.Tensor],
    gradients: Sequence[np.ndarray | None],
    unit: float,
    floor: float,
) -> Net:
    random = np.random.default_rng(0)
    middle = moved.value(here)
    if middle != moved.value(here):
        return Net([], "it does not repeat itself")
    large = sum(tensor.numel() for tensor in here) > LARGE
    for _ in range(1 if large else DIRECTIONS):
        along = [direction(tensor, random) for tensor in here]
        moves = [g * _floats(d) for g, d in zip(gradients, along, strict=True) if g is not None]
        said_so = float(sum(move.sum() for move in moves))
        scale = float(sum(np.abs(move, out=move).sum() for move in moves)) * min(1024 * unit, 0.25) + floor
        del moves
        line = moved.beside(here, along)
        if unit == UNIT and _agrees(middle, line, said_so):
            continue
        told = _slope(middle, line, unit, FINER if large else STEPS)
        coarse = CONTRADICTS if unit == UNIT else COARSE
        if (
            told is not None
            and abs(told[0] - said_so) > coarse * (abs(said_so) + abs(told[0])) + scale + told[1]
        ):
            cause = Contradicted(told[0], said_so)
            return Net([bare_finding("gradient", "the function", Verdict.UNDECIDED, cause)])
    return Net([])


# They read one triangle of a matrix, and their gradient is that of the symmetric part.
SYMMETRIC = frozenset(
    """cholesky cholesky_solve cholesky_inverse linalg_cholesky_ex _linalg_eigh linalg_eigh linalg_eigvalsh
    linalg_ldl_factor_ex linalg_pinv""".split()
)


def _declared(event: Event) -> bool:
    """Whether an operation's gradient is another than its function's: by a convention, or because its caller
    asks for it."""
    padding = event.arguments.get("padding_idx") if event.name in ("embedding", "_embedding_bag") else None
    # Torch passes nothing on to the parameters that a number is drawn by.
    # A draw by rejection moves otherwise than its distribution does, whose gradient is given.
    drawn = event.name in ("normal", "_standard_gamma", "_sample_dirichlet") and bool(event.regions)
    return drawn or event.name in SYMMETRIC or (padding is not None and padding >= 0)


def _agrees(middle: float, line: Line, said_so: float) -> bool:
    """Whether both sides surely change as the gradients say, close by: then no other step contradicts."""
    right, left = line(CLOSE)
    off = max(abs((right - middle) / CLOSE - said_so), abs((middle - left) / CLOSE - said_so))
    return off + _noise(UNIT, CLOSE, right, left, middle) <= CONTRADICTS / 2 * abs(said_so)


def _noise(unit: float, step: float, *values: float) -> float:
    """What rounding makes of a difference quotient."""
    return NOISE * unit * sum(map(abs, values)) / step


def _slope(middle: float, line: Line, unit: float, steps: Sequence[float]) -> tuple[float, float] | None:
    """The derivative along a line and what rounding makes of it, where four steps in a row and both sides
    agree."""
    good: list[float] = []
    apart = np.inf  # how far the two sides were, a step before
    changed = False
    for step in steps:
        right, left = line(step)
        if changed and right == left == middle:
            return None  # a staircase, as of a coarser dtype inside: below its steps nothing is told
        changed = changed or right != left
        forward, backward, central = (
            (right - middle) / step,
            (middle - left) / step,
            (right - left) / (2 * step),
        )
        noise = _noise(unit, step, right, left, middle)
        near = AGREE * abs(central) + noise
        before, apart = apart, abs(forward - backward)
        # The two sides differ by the curvature, which goes with the step; by a kink they differ at every step
        # alike.
        smooth = apart <= near or apart <= before / 2
        if not np.isfinite(central) or not smooth or (noise > abs(central) and noise > abs(middle)):
            good = []
        elif good and abs(central - good[-1]) <= near:
            good = [*good, central]
        else:
            good = [central]
        if len(good) >= 4:
            return central, 16 * noise
    return None


def _has_numbers(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _widen(tensors: Sequence[torch.Tensor]) -> None:
    """Whatever the function holds in float64; the state's `restore` puts it back."""
    for tensor in tensors:
        if _has_numbers(tensor) and tensor.layout == torch.strided and tensor.grad_fn is None:
            tensor.data = tensor.data.to(_wide(tensor))
