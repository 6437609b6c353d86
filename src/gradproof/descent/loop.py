"""The training loop: an engine's descent, every step of it checked, beside the exact trajectory.

`descend` runs torch's loop; `check_descent` takes what any loop has written down. What a step is judged by is
in `steps` and `witness`, the exact trajectory in `trajectory`, the optimizers' documented updates in
`optimizers`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..assertions import as_numbers
from ..dtypes import DType, dtype_named
from ..engines.descent import Arrays, Happened
from ..errors import InputError, Place, did_you_mean
from ..judging.verdicts import rounded
from ..language.builder import build_graph
from ..language.files import Problem
from ..language.syntax import parse_statements
from ..oracle import task_of
from ..proof.graph import Leaf
from .gradients import Treatment
from .optimizers import RULES, Rule, rule_named
from .report import DescentReport
from .steps import Descent, slope_at

if TYPE_CHECKING:
    from ..engines.torch_descent import MakeOptimizer, StepFunction

MAX_STEPS = 100_000
REDUCTIONS = ("sum", "mean")


def descend(
    problem: Problem,
    *,
    optimizer: str | MakeOptimizer = "sgd",
    learning_rate: float | None = None,
    steps: int | None = None,
    options: Mapping[str, object] | None = None,
    dtype: str | None = None,
    until: float | None = None,
    accumulate: bool = False,
    micro_batches: int = 1,
    batch: Sequence[str] | None = None,
    reduction: str = "sum",
    step: StepFunction | None = None,
    rule: str | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    scaled: bool = False,
    watched: Callable[[range], Iterable[int]] = iter,
) -> DescentReport:
    """Train with torch, and check every step: loss, gradients, the gradient recorded, the optimizer's state,
    the update.

    `optimizer` is a name (sgd, adam, adamw, rmsprop, adagrad) with torch's `options`, or a function that
    makes a `torch.optim.Optimizer` of a list of tensors; then its own settings count, and its rule is that of
    the class in torch.optim that it descends from, or `rule`. `learning_rate` and `steps` are the file's own
    [descent] where they are not given. `step(optimizer, loss)` is one step of a loop of your own: it calls
    `loss()` for the loss's tensor.

    `until`: stop when every entry of the exact gradient at the engine's parameters is proved smaller.
    `accumulate`: never zero the gradient. `micro_batches`: split the given tensors named in `batch` (all that
    have axes, where they agree) along their first axis and add up the gradients; with `reduction="mean"` each
    part's loss is weighted with its share of the whole.

    A loop that clips its gradients says so, by `clip_norm` (as `clip_grad_norm_`) or `clip_value`, and one
    whose loss is `scaled` (by a GradScaler): then each gradient is held against what it should be when the
    optimizer takes its step, and a wrong order of these is named.

    `watched` is given the steps' numbers and gives them back, to show how far it is. Ctrl-C ends the descent,
    and what was done till then is the report.

    Raises `InputError` for options that do not fit. What the engine raises is a finding of verdict `failed`.
    """
    from ..engines import torch_descent as engine

    start = time.perf_counter()
    format_ = dtype_named(dtype or problem.dtype or "float64")
    _check_numbers(learning_rate, until, micro_batches, reduction)
    asked = _steps(steps, problem)
    held = _held(problem, format_)
    batches = _batches(held, micro_batches, batch, reduction)
    make = _maker(problem, optimizer, learning_rate, options)
    names = [leaf.name for leaf in held.graph.parameters]
    taken = step or engine.plain_step(micro_batches, zero=not accumulate)
    loop = engine.Loop(held.point, names, format_, make, taken)
    documented = _rule_of(engine.ancestry(loop.optimizer), rule)
    judged = Descent(held, batches, format_, documented, accumulate, reduction, switches=rule is None,
                     treatment=Treatment(clip_norm, clip_value, scaled))  # fmt: skip
    tasks = [task_of(part) for part in batches]
    before = slope_at(held, loop.numbers())
    interrupted = False
    try:
        for number in watched(range(1, asked + 1)):
            here = loop.numbers()
            happened = loop.step([replace(task, point={**task.point, **here}) for task in tasks])
            before = judged.step(number, happened, before)
            if judged.over(before, until):
                break
    except KeyboardInterrupt:
        if not judged.steps:
            raise
        interrupted = True
    title = type(loop.optimizer).__name__
    where = type(loop.optimizer).__module__
    shown = f"torch.optim.{title}" if where.startswith("torch.optim") else title
    return replace(
        judged.report("torch", shown, asked, until, time.perf_counter() - start), interrupted=interrupted
    )


def _maker(
    problem: Problem,
    optimizer: str | MakeOptimizer,
    learning_rate: float | None,
    options: Mapping[str, object] | None,
) -> MakeOptimizer:
    """What makes the optimizer of a list of tensors."""
    from ..engines import torch_descent as engine

    if callable(optimizer):
        if learning_rate is not None or options:
            raise InputError(
                "the optimizer brings its own learning rate and options; give them where it is made"
            )
        return optimizer
    named = rule_named(optimizer)
    said = named.with_defaults(options or {})
    lr = problem.descent.get("learning_rate", named.lr) if learning_rate is None else learning_rate
    return engine.built_in(named.torch, float(lr), said)


def check_descent(
    problem: Problem,
    trajectory: Sequence[Mapping[str, object]],
    *,
    optimizer: str = "sgd",
    learning_rate: float | None = None,
    options: Mapping[str, object] | None = None,
    dtype: str = "float64",
    accumulate: bool = False,
) -> DescentReport:
    """Check a trajectory that any loop has written down: no engine runs.

    Each entry has "parameters" (before the step, by name) and "gradients" (as the optimizer saw them), and
    may have "loss" and "updated"; without "updated", the next entry's parameters are it, and a last entry may
    have "parameters" alone. The gradients are judged from the leaves, as by `assert_gradients`; the
    optimizer's state is what the rule makes of them.

    Raises `InputError` for entries without the names or shapes of the problem's parameters.
    """
    start = time.perf_counter()
    format_ = dtype_named(dtype)
    _check_numbers(learning_rate, None, 1, "sum")
    rule = rule_named(optimizer)
    said = rule.with_defaults(options or {})
    lr = learning_rate if learning_rate is not None else float(problem.descent.get("learning_rate", rule.lr))
    held = _held(problem, format_)
    entries = _entries(held, trajectory)
    held = replace(held, point={**held.point, **entries[0].before})
    judged = Descent(held, [held], format_, rule, accumulate, "sum")
    before = slope_at(held, entries[0].before)
    for number, (happened, loss) in enumerate(zip(entries, _losses(trajectory), strict=False), 1):
        happened.settings = {name: {"lr": lr, **said} for name in happened.before}
        before = judged.step(number, happened, before, loss)
    return judged.report("given numbers", rule.name, len(entries), None, time.perf_counter() - start)


def _losses(trajectory: Sequence[Mapping[str, object]]) -> list[float | None]:
    return [
        None if entry.get("loss") is None else float(as_numbers("loss", entry["loss"]))
        for entry in trajectory
    ]


def _entries(problem: Problem, trajectory: Sequence[Mapping[str, object]]) -> list[Happened]:
    shapes = {leaf.name: leaf.shape for leaf in problem.graph.parameters}

    def read(entry: Mapping[str, object], key: str, number: int) -> Arrays:
        table = entry.get(key)
        if not isinstance(table, Mapping):
            raise InputError(
                f"step {number} of the trajectory has no {key!r}; expected a table of numbers by parameter"
            )
        found = {}
        for name, shape in shapes.items():
            if name not in table:
                raise InputError(f"step {number}: {key!r} has no {name!r}{did_you_mean(name, table)}")
            found[name] = as_numbers(name, table[name])
            if found[name].shape != shape:
                raise InputError(
                    f"step {number}: {key!r} has {name!r} of shape {found[name].shape}, expected {shape}"
                )
        return found

    found = []
    for number, entry in enumerate(trajectory, 1):
        if number == len(trajectory) > 1 and "gradients" not in entry:
            break
        happened = Happened(read(entry, "parameters", number), stepped=True)
        happened.recorded = dict(read(entry, "gradients", number))
        if "updated" in entry:
            happened.after = read(entry, "updated", number)
        elif number < len(trajectory):
            happened.after = read(trajectory[number], "parameters", number + 1)
        else:
            raise InputError(
                f"step {number} is the last and has no 'updated'; add it, or an entry with its 'parameters' "
                "alone"
            )
        if number < len(trajectory):
            happened.end = read(trajectory[number], "parameters", number + 1)
        found.append(happened)
    if not found:
        raise InputError("the trajectory has no step")
    return found


# What is asked for


def _check_numbers(
    learning_rate: float | None, until: float | None, micro_batches: int, reduction: str
) -> None:
    for name, value in (("learning rate", learning_rate), ("bound", until)):
        if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise InputError(f"the {name} is {value!r}, expected a positive number")
    if isinstance(micro_batches, bool) or not isinstance(micro_batches, int) or micro_batches < 1:
        raise InputError(f"micro-batches: {micro_batches!r}, expected a number from 1")
    if reduction not in REDUCTIONS:
        raise InputError(
            f"unknown reduction {reduction!r}{did_you_mean(reduction, REDUCTIONS)} (sum or mean)"
        )


def _steps(steps: int | None, problem: Problem) -> int:
    asked = steps if steps is not None else int(problem.descent.get("steps", 100))
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= MAX_STEPS:
        raise InputError(f"steps: {asked!r}, expected a number from 1 to {MAX_STEPS:,}")
    return asked


def _held(problem: Problem, dtype: DType) -> Problem:
    """The problem at the numbers that the dtype holds."""
    point = {name: rounded(value, dtype) for name, value in problem.point.items()}
    for name, value in point.items():
        if not np.isfinite(value).all():
            raise InputError(f"{name!r} holds {np.abs(problem.point[name]).max():.6g}, beyond {dtype.name}'s "
                             "largest, "
                             f"{dtype.largest:.6g}")  # fmt: skip
    return replace(problem, point=point, expect={}, dtype=None)


def _batches(problem: Problem, count: int, names: Sequence[str] | None, reduction: str) -> list[Problem]:
    """The problem of each micro-batch; the problem itself where it is not split."""
    if count == 1:
        if names:
            raise InputError(
                "the batch is named, but there is one micro-batch only; say how many, as in --micro-batches 4"
            )
        return [problem]
    givens = {leaf.name: leaf.shape for leaf in problem.graph.leaves if leaf.given and leaf.shape}
    for name in names or ():
        if name not in givens:
            near = did_you_mean(name, givens) or f"; it has {', '.join(givens) or 'none'}"
            raise InputError(f"the problem has no given tensor {name!r} with a first axis{near}")
    extents = {name: shape[0] for name, shape in givens.items() if not names or name in names}
    if len(set(extents.values())) != 1:
        told = (
            ", ".join(f"{name} has {extent}" for name, extent in extents.items())
            or "there is no given tensor with axes"
        )
        raise InputError(
            f"what is the batch? {told}; name the tensors whose first axis it is, as in --batch X --batch y"
        )
    whole = next(iter(extents.values()))
    if count > whole:
        raise InputError(f"{count} micro-batches of {whole} samples; expected {whole} at most")
    found, start = [], 0
    for indices in np.array_split(np.arange(whole), count):
        stop = start + len(indices)
        point = {
            name: value[start:stop] if name in extents else value for name, value in problem.point.items()
        }
        found.append(_part(problem, point, reduction, len(indices), whole))
        start = stop
    return found


def _part(
    problem: Problem, point: Mapping[str, np.ndarray], reduction: str, share: int, whole: int
) -> Problem:
    """The problem of one micro-batch; under "mean" its loss is weighted with its share of the whole."""
    statements = problem.statements
    if reduction == "mean":
        output = problem.graph.output.name
        name = next(
            n for n in (f"{output}_share{'_' * k}" for k in range(99)) if n not in problem.graph.shapes
        )
        weight = f"{output} / {whole // share}" if whole % share == 0 else f"{output} * {share} / {whole}"
        statements = (*statements, *parse_statements(f"{name} = {weight}", Place("<micro-batch>", 1, 1)))
    leaves = {leaf.name: Leaf(leaf.name, point[leaf.name].shape, leaf.given) for leaf in problem.graph.leaves}
    try:
        graph = build_graph(statements, leaves)
    except InputError as error:
        raise InputError(
            f"the graph does not take {share} samples in place of {whole}: {error.message}"
        ) from None
    return replace(problem, statements=statements, graph=graph, point=point)


def _rule_of(ancestry: Sequence[str], rule: str | None) -> Rule:
    if rule is not None:
        return rule_named(rule)
    for name in ancestry:
        for known in RULES.values():
            if known.torch == name:
                return known
    raise InputError(
        f"there is no documented update for {ancestry[0] if ancestry else 'this optimizer'!r} here; say "
        "which it should "
        f"follow, rule=... (one of {', '.join(RULES)})"
    )
