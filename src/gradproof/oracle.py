"""The oracle: run the engine, and judge every step that it took at the engine's own numbers.

For each line of the graph:

* forward: is the engine's value within the rounding of one line?
* local: is the engine's own gradient of that line, alone, the derivative?
* chain step: is the gradient that arrived at each parent the sum of what its children pass on, all uses added?

With the engine's numbers at a line taken as exact, each is tight at any depth and names the line that is
wrong. If every step holds, the chained gradient is the chain rule up to rounding, by induction from the
output back. The error of the chained gradient against the exact one from the leaves is told as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from flint import arb

from .dtypes import DTYPES, DType, dtype_named
from .engines import Engine, Task, Trace, engine_named
from .errors import GradproofError, TargetError, said, where
from .judging.judge import Comparison, judge, missing, ulp_of
from .judging.likeness import ANOTHER, Clues, chained, likeness, lost_use, uses, with_origins
from .judging.together import explained, judge_pulled
from .language.files import Problem
from .proof.arithmetic import (
    NOUGHT,
    UNIT,
    Arithmetic,
    Balls,
    balls,
    centres,
    exact,
    floats,
    full,
    numbers,
    precision,
    radii,
    rounding,
)
from .proof.enclosure import START_BITS, Enclosures, Pulled, Run
from .proof.graph import Graph, Line, Node, Shape, lines, size
from .proof.walk import Values, evaluate, singular
from .report import Numbers, Report
from .targets import defined_at, found_at
from .telling.derivation import Derivation, derive
from .verdict import Finding, Judgement, Verdict, as_finding, bare_finding

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
    judged = _Check(problem, task, trace, format_, derivation)
    findings = judged.findings()
    seconds = time.perf_counter() - start
    mode = MODES.get(tested.name, "reverse mode, first order")
    return Report(
        problem.title, problem.target, tested.name, format_.name, tuple(findings), seconds, problem, derivation, (mode,),
        remarks=remarks_on(problem.graph), gradients=judged.numbers, local=judged.local,
    )  # fmt: skip


def remarks_on(graph: Graph) -> tuple[str, ...]:
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
        bare_finding("forward", "the function", Verdict.FAILED, error.message), place=str(place or "")
    )
    return Report(target.rpartition(":")[2], target, "torch", "none", (finding,))


def failed_problem(problem: Problem, engine: str, dtype: str | None, error: TargetError) -> Report:
    """The report of an engine that broke off."""
    note = f"{error.message} ({error.place})" if error.place else error.message
    finding = bare_finding("forward", problem.graph.output.name, Verdict.FAILED, note)
    asked = dtype or problem.dtype or "float64"
    return Report(
        problem.title,
        problem.target,
        engine,
        asked,
        (finding,),
        problem=problem,
        derivation=derive(problem.graph),
    )


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
        return replace(finding, note="; ".join(part for part in (finding.note, SUSPECT) if part))

    return [replace(report, findings=tuple(map(told, report.findings))) for report in reports]


SUSPECT = "all engines are wrong alike here: suspect the formula, as it is written, before the engines"


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


def _first(each: Pulled, count: int) -> Pulled:
    """What the first of the cotangents give."""
    return replace(each, exact=each.exact[:count], rounding=each.rounding[:count], kinks=each.kinks[:count])


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


def numbers_of(
    expected: Pulled,
    value: np.ndarray | None,
    dtype: DType,
    shape: Shape | None = None,
    *,
    probed: bool = False,
) -> Numbers:
    """The entries of a derivative, in their shape or another one of as many entries."""
    exact_ = centres(expected.exact)
    exact_ = np.where(expected.kinks, np.nan, exact_)
    fits = value is not None and value.shape == exact_.shape
    shape = exact_.shape if shape is None else shape
    if not fits or value is None:
        return Numbers(exact_.reshape(shape), None, None, probed)
    with np.errstate(all="ignore"):
        apart = np.where(
            expected.kinks, np.nan, np.abs(floats(np.asarray(expected.exact - value, object)))
        ) / ulp_of(exact_, dtype)
    return Numbers(exact_.reshape(shape), value.reshape(shape), apart.reshape(shape), probed)


class _Check:
    """One check: the state shared by the steps of one report."""

    def __init__(
        self, problem: Problem, task: Task, trace: Trace, dtype: DType, derivation: Derivation
    ) -> None:
        self.problem = problem
        self.graph: Graph = problem.graph
        self.task = task
        self.trace = trace
        self.dtype = dtype
        self.derivation = derivation
        self.active = self.graph.active
        self.enclosures = Enclosures(dtype)
        self.exact: Arithmetic = exact()
        self.rounding: Arithmetic = rounding(dtype)
        self.kernels: dict[
            str, Callable[[Enclosures], dict[str, Pulled]]
        ] = {}  # by line: what it passes on, in another rounding
        self.arrived: dict[str, list[tuple[str, Pulled]]] = {}
        self.inputs: dict[str, tuple[Line, Values]] = {}
        self.at_lines: set[Verdict] = set()
        self.beyond: set[str] = set()  # lines whose value is an infinity, and right
        self.numbers: dict[str, Numbers] = {}
        self.local: dict[tuple[str, str], Numbers] = {}
        self.blind: dict[str, str] = {}  # names below a line whose cotangent cannot be used

    def findings(self) -> list[Finding]:
        """All findings: forward and local line by line, then the gradients from the output back."""
        with precision(START_BITS):
            found: list[Finding] = []
            for leaf in self.graph.leaves:
                if leaf.name not in self.trace.values:
                    return [self._failed(leaf.name)]
                found += self._leaf(leaf.name)
            for line in lines(self.graph):
                if line.name not in self.trace.values:
                    found.append(self._failed(line.name))
                    return found
                found += self._line(line)
            if "" in self.trace.failures or "" in self.trace.unsupported:
                found.append(self._failed(""))
                return found
            self.at_lines = {finding.verdict for finding in found} & {Verdict.KINK, Verdict.UNDECIDED}
            told = {
                finding.node for finding in found if finding.verdict in (Verdict.FAILED, Verdict.UNSUPPORTED)
            }
            found += [
                self._failed(name)
                for name in (*self.trace.failures, *self.trace.unsupported)
                if name not in told
            ]
            return with_origins(found + self._gradients(), self.graph)

    def _failed(self, name: str) -> Finding:
        node = name or self.graph.output.name
        kind = "forward" if name else "gradient"
        lacking = self.trace.unsupported.get(
            name, "" if name in self.trace.failures else self.trace.unsupported.get("", "")
        )
        if lacking:
            return bare_finding(kind, node, Verdict.UNSUPPORTED, lacking)
        why = self.trace.failures.get(name) or self.trace.failures.get("", "the engine gave no value")
        return bare_finding(kind, node, Verdict.FAILED, why)

    # Steps

    def _leaf(self, name: str) -> list[Finding]:
        """A finding where the engine holds other numbers than the point's, as rounded to its dtype."""
        point = balls(self.problem.point[name])
        held = numbers(self.rounding.values["mul"](point, UNIT))
        judged = judge(Comparison(self.trace.values[name], point, np.asarray(held, object)), self.dtype)
        if judged.verdict is not Verdict.WRONG or not np.isfinite(self.trace.values[name]).all():
            return []  # an overflow is told where it is read
        note = "the engine computes at other numbers than those of the point"
        return [self._finding("forward", name, None, replace(judged, note=note))]

    def _line(self, line: Line) -> list[Finding]:
        given = {parent: balls(self.trace.values[parent]) for parent in line.parents}
        broken = [name for name in line.parents if not np.isfinite(self.trace.values[name]).all()]
        if broken:
            why = f"{broken[0]} is not finite already"
            if broken[0] in self.problem.point:
                largest = float(np.max(np.abs(self.problem.point[broken[0]])))
                why = f"{broken[0]} holds {largest:.6g}, beyond {self.dtype.name}'s largest, {self.dtype.largest:.6g}"
            self._blinded(line, why)
            finding = (
                self._from_the_leaves(line, why)
                if self.beyond.issuperset(broken)
                else self._blind_finding(line, why)
            )
            if finding.verdict is Verdict.EXACT and not np.isfinite(self.trace.values[line.name]).all():
                self.beyond.add(line.name)
            return [finding]
        with_rounding = evaluate(line.nodes, given, self.rounding)
        values = self.enclosures.settled(
            lambda: evaluate(line.nodes, given, self.exact)[line.name], with_rounding[line.name]
        )
        compared = Comparison(self.trace.values[line.name], values, with_rounding[line.name])
        self.inputs[line.name] = (line, given)
        judged = judge(compared, self.dtype)
        if judged.verdict is Verdict.EXACT and not np.isfinite(self.trace.values[line.name]).all():
            self.beyond.add(line.name)
        found = [self._finding("forward", line.name, None, self._told(judged, line.name))]
        if line.name in self.task.probes:
            found += self._slopes(line, given)
        return found

    def _told(self, judged: Judgement, line: str) -> Judgement:
        """Name the operation behind a number that does not exist, or that the engine could not compute."""
        broken = judged.verdict is Verdict.UNDECIDED or (
            judged.value is not None and not np.isfinite(judged.value)
        )
        why = self._singular(line) if broken and not judged.verdict.passes else ""
        if not why:
            return judged
        return replace(judged, note="; ".join(part for part in (judged.note, why) if part))

    def _singular(self, name: str) -> str:
        """The operation of a line that has no value or no derivative here, in words."""
        if name not in self.inputs:
            return ""
        line, given = self.inputs[name]
        return singular(line.nodes, evaluate(line.nodes, given, self.exact), self.exact)

    def _slopes(self, line: Line, given: Values) -> list[Finding]:
        """The local gradients, and what the line should pass on of the cotangent that it really had."""
        probes = self.task.probes[line.name]
        cotangent = self._cotangent(line)
        rows = probes if cotangent is None else np.concatenate([probes, cotangent[None]])
        parents = {parent: self.graph.shapes[parent] for parent in self.task.parents[line.name]}
        run = Run(line.nodes, (line.name,), parents, self.active)
        pulled = self.enclosures.pulled(run, given, {line.name: balls(rows)})
        if cotangent is None:
            self._blinded(line, self.trace.unseen.get(line.name, f"no usable cotangent at {line.name}"))
        count = len(probes)
        local = {parent: _first(each, count) for parent, each in pulled.items()}
        told = {parent: self.trace.locals.get((line.name, parent)) for parent in parents}
        together = judge_pulled(told, local, dict.fromkeys(parents, self.dtype))
        by = self.kernels[line.name] = lru_cache(
            lambda held: held.pulled(run, given, {line.name: balls(rows)})
        )
        for parent, judged in together.items():
            value = told[parent]
            assert value is not None

            def again(held: Enclosures, parent: str = parent) -> Pulled:
                return _first(by(held)[parent], count)

            together[parent] = explained(judged, value, again, self.dtype)
        for parent in self.task.parents[line.name]:
            if cotangent is not None:
                self.arrived.setdefault(parent, []).append((line.name, pulled[parent].row(-1)))
        return [
            self._local(line, parent, local[parent], together.get(parent))
            for parent in self.task.parents[line.name]
        ]

    def _cotangent(self, line: Line) -> np.ndarray | None:
        """The gradient that the engine itself had at the line."""
        if line.name == self.graph.output.name:
            return np.ones(())
        gradient = self.trace.gradients.get(line.name)
        if gradient is None or gradient.shape != line.shape or not np.isfinite(gradient).all():
            return None
        return gradient

    def _blinded(self, line: Line, why: str) -> None:
        for parent in self.task.parents[line.name]:
            self.blind[parent] = why

    def _local(self, line: Line, parent: str, expected: Pulled, judged: Judgement | None) -> Finding:
        value = self.trace.locals.get((line.name, parent))
        rows = len(expected.exact)
        shape = (
            (*line.shape, *self.graph.shapes[parent])
            if rows == size(line.shape)
            else self.graph.shapes[parent]
        )
        self.local[line.name, parent] = numbers_of(
            expected, value, self.dtype, shape, probed=rows != size(line.shape)
        )
        if value is None or judged is None:
            for verdict, messages in (
                (Verdict.FAILED, self.trace.failures),
                (Verdict.UNSUPPORTED, self.trace.unsupported),
            ):
                if line.name in messages:
                    failed = bare_finding("local", line.name, verdict, messages[line.name])
                    return replace(failed, wrt=parent, formula=self._local_formula(line.name, parent))
            judged = self._absent(expected.exact.shape, expected.exact)
        # The index of a Jacobian's entry: that of the line, then that of the parent.
        full_jacobian = rows == size(line.shape)
        if judged.index and full_jacobian:
            row = tuple(int(n) for n in np.unravel_index(judged.index[0], line.shape)) if line.shape else ()
            judged = replace(judged, index=row + judged.index[1:])
        elif judged.index:
            judged = replace(
                judged, index=judged.index[1:], note=judged.note or "probed with one random cotangent"
            )
        looks = (
            likeness(value, expected.exact, self._clues(line, parent))
            if judged.verdict is Verdict.WRONG
            else ""
        )
        judged = self._told(judged, line.name)
        return self._finding("local", line.name, parent, judged, looks)

    def _clues(self, line: Line, parent: str) -> Clues:
        """What would have come out of a line if one of its uses of the parent were lost."""
        _, given = self.inputs[line.name]
        probes, shape = self.task.probes[line.name], self.graph.shapes[parent]

        def pulled(nodes: Sequence[Node], wrt: str) -> np.ndarray:
            run = Run(tuple(nodes), (line.name,), {wrt: shape}, self.active | {wrt})
            rows = run.pull({**given, ANOTHER: given[parent]}, self.exact, {line.name: balls(probes)})
            return centres(rows).reshape(len(probes), *shape)

        extents = tuple({n for shape in (line.shape, shape) for n in (*shape, size(shape))})
        return Clues(self.dtype, extents, tuple(uses(line.nodes, parent, pulled)))

    def _gradients(self) -> list[Finding]:
        """The chained gradient of every active name, from the output back, and none on given tensors."""
        whole = {name: each.row(0) for name, each in self._end_to_end().items()}
        told = {name: self.trace.gradients.get(name) for name in whole}
        self.whole = judge_pulled(told, whole, dict.fromkeys(whole, self.dtype))
        self.steps = self._chained_steps(whole)
        found = []
        output = self.graph.output.name
        names = [
            line.name
            for line in reversed(lines(self.graph))
            if line.name in self.active and line.name != output
        ]
        names = [name for name in names if name not in self.trace.unseen]
        names += [leaf.name for leaf in self.graph.parameters]
        for name in names:
            found.append(self._gradient(name, whole[name]))
        for leaf in self.graph.leaves:
            gradient = self.trace.gradients.get(leaf.name) if leaf.given else None
            if gradient is not None:
                worst_entry = float(np.max(np.abs(gradient))) if gradient.size else 0.0
                found.append(
                    Finding("gradient", leaf.name, None, "given: no gradient", None, worst_entry, None, None, (),
                            Verdict.WRONG, "a gradient on a given tensor", refuted=1)
                )  # fmt: skip
        return found

    def _gradient(self, name: str, from_leaves: Pulled) -> Finding:
        gradient = self.trace.gradients.get(name)
        shape = self.graph.shapes[name]
        uses = self.arrived.get(name, [])
        self.numbers[name] = numbers_of(from_leaves, gradient, self.dtype)
        if gradient is None:
            return self._finding("gradient", name, None, self._absent(shape, from_leaves.exact))
        whole = self.whole[name]
        if name in self.blind:
            return self._blind_gradient(name, whole)
        parts = self._parts(name)
        step = self.steps.get(name) or judge(
            Comparison(gradient, numbers(parts.exact), numbers(parts.rounding), parts.kinks), self.dtype
        )
        if len(uses) == 1:
            by = self.kernels[uses[0][0]]
            step = explained(step, gradient, lambda held: by(held)[name].row(-1), self.dtype)
        judged = chained(step, whole)
        looks = ""
        if judged.verdict is Verdict.WRONG:
            expected = parts.exact if step.verdict is Verdict.WRONG else from_leaves.exact
            looks = lost_use(gradient, [(child, part.exact) for child, part in uses]) or likeness(
                gradient, expected
            )
        if judged.verdict is Verdict.UNDECIDED or not np.isfinite(gradient).all():
            looks = next((why for why in (self._singular(child) for child, _ in uses) if why), looks)
        return self._finding("gradient", name, None, judged, looks)

    def _parts(self, name: str) -> Pulled:
        """What the lines that read a name pass to it, together."""
        shape, uses = self.graph.shapes[name], self.arrived.get(name, [])
        if not uses:
            zero = full(shape, NOUGHT)
            return Pulled(zero, zero, np.zeros(shape, bool))
        # The parts of all lines are added in an order of the engine's own.
        slack = self.rounding.gamma(sum(part.parts for _, part in uses))
        magnitude = sum(part.magnitude for _, part in uses if part.magnitude is not None)
        return Pulled(
            self.exact.add_all([part.exact for _, part in uses]),
            sum(part.rounding for _, part in uses) + magnitude * arb(0, slack),
            np.any([part.kinks for _, part in uses], axis=0),
        )

    def _chained_steps(self, whole: Mapping[str, Pulled]) -> dict[str, Judgement]:
        """The gradients that a line alone passes on, where it has kinks: entries of several names are judged
        together."""
        found: dict[str, Judgement] = {}
        for line in lines(self.graph):
            single = {
                parent: part
                for parent in self.task.parents[line.name]
                for child, part in self.arrived.get(parent, [])
                if child == line.name and len(self.arrived[parent]) == 1 and part.ties is not None
            }
            if any(part.kinks.any() for part in single.values()):
                told = {parent: self.trace.gradients.get(parent) for parent in single}
                fitting = {
                    n: v if v is not None and v.shape == self.graph.shapes[n] else None
                    for n, v in told.items()
                }
                found |= judge_pulled(fitting, single, dict.fromkeys(single, self.dtype))
        return found

    def _absent(self, shape: Shape, expected: Balls) -> Judgement:
        if not np.isfinite(radii(expected)).all():
            return Judgement(
                Verdict.UNDECIDED,
                None,
                None,
                None,
                None,
                (),
                "no gradient (None); the derivative does not exist here",
            )
        judged = missing(shape, expected, "no gradient (None), though the derivative is not zero")
        if judged.exact == 0:
            return replace(
                judged, verdict=Verdict.EXACT, note="no gradient (None); the derivative is zero", refuted=0
            )
        return judged

    def _blind_gradient(self, name: str, whole: Judgement) -> Finding:
        """Above this the steps broke off; the exact gradient from the leaves may still tell."""
        if self.blind[name] in self.trace.unseen.values():
            # Nothing broke off: the engine is one that shows no more. A kink or a singular point is told at
            # its line.
            return replace(
                self._finding("gradient", name, None, whole), inherited=whole.verdict in self.at_lines
            )
        note = "; ".join(part for part in (whole.note, self.blind[name]) if part)
        return replace(self._finding("gradient", name, None, replace(whole, note=note)), inherited=True)

    def _from_the_leaves(self, line: Line, why: str) -> Finding:
        """Behind an infinity that is right a line cannot be judged alone. The infinity that its own number is
        rounded to is right, and one where the number is representable is wrong."""
        leaves = {leaf.name: balls(self.trace.values[leaf.name]) for leaf in self.graph.leaves}
        exact_values, value = (
            evaluate(self.graph.nodes, leaves, self.exact)[line.name],
            self.trace.values[line.name],
        )
        rounded = self.rounding.multiply(exact_values, UNIT)
        judged = judge(Comparison(value, exact_values, np.asarray(rounded, object)), self.dtype)
        at_infinity = (
            judged.verdict is Verdict.WRONG and judged.value is not None and not np.isfinite(judged.value)
        )
        if judged.verdict is Verdict.EXACT or at_infinity:
            note = "; ".join(part for part in (judged.note, why) if part)
            return self._finding("forward", line.name, None, replace(judged, note=note))
        return self._blind_finding(line, why)

    def _blind_finding(self, line: Line, why: str) -> Finding:
        judged = Judgement(Verdict.UNDECIDED, None, None, None, None, (), why)
        return replace(self._finding("forward", line.name, None, judged), inherited=True)

    # End to end

    def _end_to_end(self) -> dict[str, Pulled]:
        """The gradients from the leaves, exact and with all the rounding on the way: what a user reads."""
        leaves = {leaf.name: balls(self.trace.values[leaf.name]) for leaf in self.graph.leaves}
        targets = {name: self.graph.shapes[name] for name in sorted(self.active)}
        run = Run(self.graph.nodes, (self.graph.output.name,), targets, self.active)
        return self.enclosures.pulled(run, leaves, {self.graph.output.name: full((1,), UNIT)})

    # Findings

    def _finding(self, kind: str, node: str, wrt: str | None, judged: Judgement, looks: str = "") -> Finding:
        formula = (
            self._local_formula(node, wrt) if kind == "local" and wrt else self.derivation.formula(kind, node)
        )
        note = "; ".join(part for part in (judged.note, looks) if part)
        return as_finding(kind, node, wrt, formula, replace(judged, note=note))

    def _local_formula(self, node: str, parent: str) -> str:
        return self.derivation.local_text(node, parent)
