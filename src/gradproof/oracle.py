"""The first door: an expression file beside an engine that runs it.

The engine is run; what it did becomes a witness, and the one judge judges it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .causes import AllAlike, Cause, Raised, Uncovered, Unseen
from .dtypes import DTYPES, DType, dtype_named
from .engines import Engine, Task, Trace, engine_named
from .errors import GradproofError, TargetError, said, where
from .judging.judge import Judge, Judged
from .judging.witness import Arrival, Pass, Step, Trouble, Whole, Witness
from .language.files import Problem
from .proof.balls import UNIT, balls, full
from .proof.enclosure import Run
from .proof.graph import Graph, Line, Shape, lines, size
from .report import Report
from .seconds import second_derivatives
from .targets import defined_at, found_at
from .telling.derivation import Derivation, derive
from .verdict import Finding, Verdict, bare_finding

MAX_ROWS = 64  # of a line's full Jacobian; a larger one is probed with one random cotangent
MAX_JACOBIAN = 20_000  # entries


def check(problem: Problem, *, engine: str | Engine = "torch", dtype: str | None = None) -> Report:
    """Check an engine's values, local gradients and chained gradients of a problem.

    `dtype` is the one the engine computes in; without it, the file's own or float64. `engine` is a name or an
    `Engine`.

    Raises `InputError` for an unknown dtype and `EngineError` for an engine that is not there. What the
    engine itself raises is a finding of verdict `failed`.
    """
    start = time.perf_counter()
    tested = engine_named(engine) if isinstance(engine, str) else engine
    format_ = dtype_named(dtype or problem.dtype or "float64", getattr(tested, "formats", DTYPES))
    task = task_of(problem)
    trace = _ran(tested, task, format_, problem)
    derivation = derive(problem.graph)
    judged = Judge(witness_of(problem, task, trace, format_, derivation)).judged()
    exercised = [MODES.get(tested.name, "reverse mode, first order")]
    if problem.hessian:
        leaves = {name: trace.values[name] for name in problem.point if name in trace.values}
        found = second_derivatives(problem, tested, task, leaves, format_, derivation)
        judged = replace(judged, findings=(*judged.findings, *found))
        exercised.append("second derivatives")
    return report_of(problem, derivation, tested.name, format_, judged, start, tuple(exercised))


def report_of(
    problem: Problem,
    derivation: Derivation,
    engine: str,
    dtype: DType,
    judged: Judged,
    start: float,
    exercised: tuple[str, ...] = (),
) -> Report:
    """The report of a problem that was judged; `start` is when that began, on the counter of performance."""
    return Report(
        problem.title,
        problem.target,
        engine,
        dtype.name,
        judged.findings,
        time.perf_counter() - start,
        problem,
        derivation,
        exercised,
        remarks=_remarks_on(problem.graph),
        gradients=judged.gradients,
        local=judged.local,
    )


def _remarks_on(graph: Graph) -> tuple[str, ...]:
    """What a graph has that is no fault: values without effect."""
    read = {read.parent for node in graph.nodes for read in node.reads}
    unused = [leaf.name for leaf in graph.parameters if leaf.name not in read]
    given = [leaf.name for leaf in graph.leaves if leaf.given and leaf.name not in read]
    told = [f"No line uses {', '.join(unused)}: the gradient is 0."] if unused else []
    return (*told, *([f"No line uses the given {', '.join(given)}."] if given else []))


def failed_function(target: str, error: TargetError) -> Report:
    """The report of a torch function that broke off."""
    place = error.place or found_at(target)
    finding = replace(
        bare_finding("forward", "the function", Verdict.FAILED, Raised(error.message)), place=str(place or "")
    )
    return Report(target.rpartition(":")[2], target, "torch", "none", (finding,))


def failed_problem(problem: Problem, engine: str, dtype: str | None, error: TargetError) -> Report:
    """The report of an engine that broke off."""
    note = f"{error.message} ({error.place})" if error.place else error.message
    finding = bare_finding("forward", problem.graph.output.name, Verdict.FAILED, Raised(note))
    asked = dtype or problem.dtype or "float64"
    derivation = derive(problem.graph)
    told = (problem.title, problem.target, engine, asked, (finding,))
    return Report(*told, problem=problem, derivation=derivation)


# Engines that do not go from the output back.
MODES = {
    "torch-forward": "forward mode, first order",
    "jax-forward": "forward mode, first order",
    "torch-func": "reverse mode under vmap, first order",
}


def wrong_alike(reports: Sequence[Report]) -> frozenset[str]:
    """The nodes that all engines have wrong, and no others, of reports of one problem; none, where engines
    differ.

    Libraries that have nothing in common do not make one mistake at one node: then the line itself loses the
    digits, or the reference is wrong.
    """
    told = [report for report in reports if report.verdict is not Verdict.UNSUPPORTED]
    libraries = {report.engine.split("-")[0] for report in told}
    blamed = {
        frozenset(f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited)
        for report in told
    }
    return blamed.pop() if len(libraries) > 1 and len(blamed) == 1 else frozenset()


def compared(reports: Sequence[Report]) -> list[Report]:
    """Reports of one problem under several engines; where all are wrong alike, their notes say to suspect the
    formula."""
    if not wrong_alike(reports):
        return list(reports)

    def told(finding: Finding) -> Finding:
        if finding.verdict is not Verdict.WRONG or finding.inherited:
            return finding
        return replace(finding, causes=(*finding.causes, AllAlike()))

    return [replace(report, findings=tuple(map(told, report.findings))) for report in reports]


def task_of(problem: Problem) -> Task:
    """What an engine is asked for, so that every line of the problem can be judged."""
    graph = problem.graph
    active = graph.active
    shapes = graph.shapes
    parents: dict[str, tuple[str, ...]] = {}
    probes: dict[str, np.ndarray] = {}
    for line in lines(graph):
        # A line that only its conditions connect to the parameters has no derivative to look at.
        parents[line.name] = tuple(
            parent for parent in line.parents if parent in active and line.name in active
        )
        if parents[line.name]:
            probes[line.name] = _probes(line, sum(size(shapes[parent]) for parent in parents[line.name]))
    names = frozenset(leaf.name for leaf in graph.parameters)
    return Task(problem.statements, problem.point, names, parents, probes)


def _ran(engine: Engine, task: Task, dtype: DType, problem: Problem) -> Trace:
    """What the engine did. Whatever it raises, or gives in place of a trace, is its failure."""
    try:
        trace: Any = engine.run(task, dtype)
    except GradproofError:
        raise
    except Exception as error:
        return Trace({}, {}, {}, {"": f"it raised {said(error)}{where(error)}"})
    place = defined_at(engine.run)
    at = f", by run() at {place}" if place else ""
    if not isinstance(trace, Trace):
        return Trace({}, {}, {}, {"": f"it gave a {type(trace).__name__}, expected a Trace{at}"})
    try:
        return _sound(trace, problem)
    except (TypeError, ValueError, AttributeError) as error:
        return Trace({}, {}, {}, {"": f"what it gave cannot be read: {said(error)}{at}"})


def _sound(trace: Trace, problem: Problem) -> Trace:
    """The trace with arrays for its numbers; a value that is missing or of a wrong shape is a failure of the
    engine."""
    shapes = problem.graph.shapes
    order = [*problem.point, *(statement.name for statement in problem.statements)]
    values: dict[str, np.ndarray] = {}
    failures = dict(trace.failures)
    for name in order:
        value = trace.values.get(name)
        if value is None:
            if not (name in trace.unsupported or "" in trace.unsupported):
                failures.setdefault(name, "the engine gave no value")
            break
        values[name] = np.asarray(value, dtype=np.float64)
        if values[name].shape != shapes[name]:
            failures[name] = f"the engine gave a value of shape {values[name].shape}, expected {shapes[name]}"
            del values[name]
            break
    as_array = partial(np.asarray, dtype=np.float64)
    locals_ = {key: None if rows is None else as_array(rows) for key, rows in trace.locals.items()}
    gradients = {
        name: None if gradient is None else as_array(gradient) for name, gradient in trace.gradients.items()
    }
    return replace(trace, values=values, locals=locals_, gradients=gradients, failures=failures)


def _probes(line: Line, width: int) -> np.ndarray:
    """Unit cotangents, one for each entry, so that the whole Jacobian is seen; of a large line one random
    cotangent.

    The random entries are exact in every dtype and have no common factor.
    """
    count = size(line.shape)
    if count <= MAX_ROWS and count * width <= MAX_JACOBIAN:
        return np.eye(count).reshape(count, *line.shape)
    random = np.random.default_rng(count)
    return (random.choice([1.0, 1.25, 1.5, 1.75], count) * random.choice([-1.0, 1.0], count)).reshape(
        1, *line.shape
    )


def witness_of(problem: Problem, task: Task, trace: Trace, dtype: DType, text: Derivation) -> Witness:
    """What an engine did with a problem, line by line; as far as it came."""
    graph, values = problem.graph, trace.values
    told = dict.fromkeys(("", *trace.failures, *trace.unsupported))
    order = [leaf.name for leaf in graph.leaves] + [line.name for line in lines(graph)]
    lost = next((name for name in order if name not in values), None)
    ended = lost is not None or "" in trace.failures or "" in trace.unsupported
    if lost is not None:
        told = {lost: None}
    elif ended:
        told = {"": None}
    leaves = [leaf for leaf in graph.leaves if leaf.name in values]
    steps = [_step(line, problem, task, trace, dtype, text) for line in lines(graph) if line.name in values]
    if any(leaf.name == lost for leaf in graph.leaves):
        leaves, steps = [], []
    return Witness(
        steps=tuple(steps),
        arrivals=() if ended else tuple(_arrivals(problem, trace, dtype, text)),
        whole=lambda: whole_of(graph, {leaf.name: values[leaf.name] for leaf in graph.leaves}),
        dtype=dtype,
        complete=True,
        troubles=tuple(t for name in told if (t := _trouble(name, problem, trace)) is not None),
        held={leaf.name: (problem.point[leaf.name], values[leaf.name]) for leaf in leaves},
        strays={
            leaf.name: gradient
            for leaf in graph.leaves
            if leaf.given and not ended and (gradient := trace.gradients.get(leaf.name)) is not None
        },
    )


def _step(line: Line, problem: Problem, task: Task, trace: Trace, dtype: DType, text: Derivation) -> Step:
    """A line beside the engine's numbers: its own Jacobian, and the cotangent that it really had."""
    name, shapes = line.name, problem.graph.shapes
    inputs = {parent: shapes[parent] for parent in task.parents[name]}
    probes: Pass | None = None
    passes: tuple[Pass, ...] = ()
    if name in task.probes:
        shown = {parent: trace.locals.get((name, parent)) for parent in inputs}
        probes = Pass({name: task.probes[name]}, shown)
        passes = (_trip(line, problem, trace),)
    broken = _cause(name, trace) if name in trace.failures or name in trace.unsupported else None
    return Step(
        name=name,
        nodes=line.nodes,
        given={parent: trace.values[parent] for parent in line.parents},
        values={name: trace.values[name]},
        inputs=inputs,
        dtypes=dict.fromkeys((name, *inputs), dtype),
        dtype=dtype,
        wanted=problem.graph.active,
        probes=probes,
        passes=passes,
        text=lambda wrt: text.formula("forward", name) if wrt is None else text.local_text(name, wrt),
        broken=broken,
    )


def _trip(line: Line, problem: Problem, trace: Trace) -> Pass:
    """What the line really received; what it passed on the engine does not show."""
    gradient = trace.gradients.get(line.name)
    if line.name == problem.graph.output.name:
        gradient = np.ones(())
    if gradient is None or gradient.shape != line.shape or not np.isfinite(gradient).all():
        unseen = trace.unseen.get(line.name)
        why: Cause = Uncovered(f"no usable cotangent at {line.name}") if unseen is None else Unseen(unseen)
        return Pass({}, {}, why)
    return Pass({line.name: gradient[None]}, {})


def _arrivals(problem: Problem, trace: Trace, dtype: DType, text: Derivation) -> Iterator[Arrival]:
    """The gradients, from the output back."""
    graph, output = problem.graph, problem.graph.output.name
    names = [
        line.name for line in reversed(lines(graph)) if line.name in graph.active and line.name != output
    ]
    names = [name for name in names if name not in trace.unseen]
    for name in (*names, *(leaf.name for leaf in graph.parameters)):
        formula = text.formula("gradient", name)
        yield Arrival(name, name, graph.shapes[name], trace.gradients.get(name), dtype, text=formula)


def whole_of(
    graph: Graph, point: Mapping[str, np.ndarray], targets: Mapping[str, Shape] | None = None
) -> Whole:
    """The run of a graph from its leaves; all that a parameter reaches is asked for, or the targets."""
    targets = targets or {name: graph.shapes[name] for name in sorted(graph.active)}
    run = Run(graph.nodes, (graph.output.name,), targets, graph.active)
    given = {name: balls(value) for name, value in point.items()}
    return Whole(run, given, {graph.output.name: full((1,), UNIT)}, (graph.output.name,))


def _trouble(name: str, problem: Problem, trace: Trace) -> Trouble | None:
    if not name and not ("" in trace.failures or "" in trace.unsupported):
        return None
    return Trouble("forward" if name else "gradient", name or problem.graph.output.name, _cause(name, trace))


def _cause(name: str, trace: Trace) -> Cause:
    """Why a line, or the whole run, gave no number."""
    whole = "" if name in trace.failures else trace.unsupported.get("", "")
    if lacking := trace.unsupported.get(name, whole):
        return Uncovered(lacking)
    return Raised(trace.failures.get(name) or trace.failures.get("", "the engine gave no value"))
