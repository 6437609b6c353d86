"""One autograd node: its operations as nodes in index notation, and what they say about its numbers.

The node's value, and each cotangent that it passed on, are judged at torch's own numbers, so that no error of
another node counts here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch

from ..dtypes import DTYPES, DType
from ..errors import GradproofError, InputError, Place, UnsupportedError
from ..judging.judge import Comparison, judge, missing
from ..judging.likeness import likeness
from ..judging.together import astray, explained, judge_pulled
from ..proof.arithmetic import NOUGHT, Balls, balls, centres, numbers
from ..proof.enclosure import Enclosures, Pulled
from ..proof.graph import Graph, Shape
from ..proof.walk import Values, evaluate
from ..telling.derivation import derive
from ..verdict import Finding, Judgement, Verdict, as_finding, bare_finding
from . import mistakes
from .lowered import given_of, run_of
from .lowering import Lowering
from .recording import Edge, Region, Step, Tape

Formats = Mapping[str, DType]


def dtype_of(regions: Sequence[Region], formats: Formats = DTYPES) -> DType | None:
    """The coarsest of the tensors' formats."""
    found = [format_of(region.dtype, formats) for region in regions if region.floating]
    known = [dtype for dtype in found if dtype is not None]
    return max(known, key=lambda dtype: dtype.unit_roundoff, default=None)


def format_of(dtype: torch.dtype, formats: Formats = DTYPES) -> DType | None:
    return formats.get(str(dtype).removeprefix("torch."))


class NodeCheck:
    """One autograd node: its operations as nodes in index notation, and what they say about its numbers."""

    formats: Formats = DTYPES

    def __init__(self, step: Step, names: Mapping[Edge, str], tape: Tape) -> None:
        self.step = step
        self.tape = tape
        regions = [*(r for r in step.inputs.values() if r is not None), *step.outputs.values()]
        regions += [region for event in step.events for region in (*event.regions, *event.outs)]
        dtype = dtype_of(regions, self.formats)
        if dtype is None:
            raise UnsupportedError(
                f"{step.name} works in {', '.join(sorted({str(r.dtype) for r in regions}))}"
            )
        self.dtype = dtype
        self.lowering = Lowering(step.name)
        self.inputs: dict[Edge, str] = {}
        for edge, region in step.inputs.items():
            if region is None:
                raise UnsupportedError(f"{step.name}: an input that the recording did not see")
            name = names.get(edge, f"node{edge[0]}")
            while name in self.lowering.leaves:
                name += "'"
            self.inputs[edge] = name
            self.lowering.enter(name, region, given=False)
        for event in step.events:
            if event.call is None:
                for region in event.regions:
                    if region.edge is None and region.floating:
                        # The same memory as an input's perhaps, but not the same value to autograd: a
                        # detached one.
                        self.lowering.disown(region)
        if step.formula:
            self._said()
        else:
            self.lowering.run(step.events)
        self.outputs = {nr: self._output(nr, region) for nr, region in sorted(step.outputs.items())}
        self.enclosures = Enclosures(dtype)
        self.given = given_of(self.lowering)
        self.astray: dict[
            str, np.ndarray | None
        ] = {}  # how far off a wrong cotangent is, by the input's name

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
            made = {out.storage for event in self.step.events for out in event.outs}
            fresh = any(event.name.startswith("lift") for event in self.step.events)
            changed = region.storage in self.tape.unseen
            if region.storage not in made or fresh or changed:
                why = "the recording cannot see how its value is computed (outside of torch's operations)"
                raise UnsupportedError(f"{self.step.name}: {why}; say it with formula=")
        name = self.step.name if nr == min(self.step.outputs) else f"{self.step.name}[{nr}]"
        return self.lowering.copy(region, name=name, source=name)

    def findings(self) -> list[Finding]:
        values = [self._forward(nr, name) for nr, name in self.outputs.items()]
        found = [finding for finding in values if finding is not None]
        found += self._pass(0)
        found += self._again()
        return found

    def _forward(self, nr: int, name: str) -> Finding | None:
        region = self.step.outputs[nr]
        dtype = format_of(region.dtype, self.formats)
        if dtype is None or not region.values.size:
            return None
        nodes = self.lowering.nodes
        rounded = evaluate(nodes, self.given, self.enclosures.rounding)[name]
        exact = self.enclosures.settled(
            lambda: evaluate(nodes, self.given, self.enclosures.exact)[name], rounded
        )
        value, exact, rounded = self._without_unknown(name, region.values, exact, rounded)
        judged = judge(Comparison(value, exact, rounded), dtype)

        def by(held: Enclosures) -> Pulled:
            narrow = evaluate(nodes, self.given, held.rounding)[name]
            return Pulled(exact, narrow, np.zeros(exact.shape, bool))

        judged = explained(judged, region.values, by, dtype)
        return as_finding("forward", self.step.name, None, self._source(), judged)

    def _without_unknown(
        self, name: str, value: np.ndarray, exact: Balls, rounded: Balls
    ) -> tuple[np.ndarray, Balls, Balls]:
        """NaN that was there before (memory not yet written to) and only moved is no value to judge."""
        if not np.isnan(value).any() or not any(
            np.isnan(values).any() for values in self.lowering.numbers.values()
        ):
            return value, exact, rounded

        def filled(number: float) -> Balls:
            given: Values = {
                name: balls(np.nan_to_num(values, nan=number))
                for name, values in self.lowering.numbers.items()
            }
            return centres(evaluate(self.lowering.nodes, given, self.enclosures.exact)[name])

        unknown = np.isnan(value) & (filled(0.0) != filled(1.0))
        value, exact, rounded = value.copy(), exact.copy(), rounded.copy()
        value[unknown], exact[unknown], rounded[unknown] = 0.0, NOUGHT, NOUGHT
        return value, exact, rounded

    def _source(self) -> str:
        names = set(self.outputs.values())
        sources = [node.source for node in self.lowering.nodes if node.source and node.name not in names]
        return sources[-1] if sources else "a view"

    def _pass(self, number: int) -> list[Finding]:
        """The cotangents of one pass: what it received, and what it passed on."""
        rows = self._rows(self.step.received[number])
        if isinstance(rows, str):
            return [bare_finding("local", self.step.name, Verdict.UNDECIDED, rows, inherited=True)]
        if not rows or not self.inputs:
            return []
        totals = self._totals(self.step.passed[number])
        run = run_of(self.lowering, rows, {name: self.given[name].shape for name in self.inputs.values()})
        pulled = self.enclosures.pulled(run, self.given, rows)
        by = lru_cache(lambda held: held.pulled(run, self.given, rows))
        found = []
        single = {name: each.row(0) for name, each in pulled.items()}
        formats = {
            name: format_of(self.region_of(edge).dtype, self.formats) for edge, name in self.inputs.items()
        }
        known = {name: dtype for name, dtype in formats.items() if dtype is not None}
        passed = {name: totals.get(edge) for edge, name in self.inputs.items() if name in known}
        together = judge_pulled(passed, single, known)
        for edge, name in self.inputs.items():
            region, dtype = self.region_of(edge), formats[name]
            if dtype is None:
                found.append(
                    bare_finding("local", self.step.name, Verdict.UNSUPPORTED, f"dtype {region.dtype}")
                )
                continue
            if not region.values.size:
                continue
            value, expected = totals.get(edge), single[name]
            if value is None:
                judged = self._absent(region.shape, expected.exact)
            else:
                judged = together[name]

                def again(held: Enclosures, name: str = name) -> Pulled:
                    return by(held)[name].row(0)

                judged = explained(judged, value, again, dtype)
            looks = text = ""
            if judged.verdict is Verdict.WRONG and value is not None:
                self.astray.setdefault(name, astray(value, expected))
                looks = likeness(value, expected.exact, mistakes.clues(self, edge, name, rows, dtype))
            if not judged.verdict.passes:
                text = self._local_text(name)
            note = "; ".join(part for part in (judged.note, looks) if part)
            found.append(as_finding("local", self.step.name, name, text, replace(judged, note=note)))
        return found

    def passed_on(self, received: Mapping[int, Balls]) -> dict[Edge, Balls]:
        """What calculus makes of cotangents of the outputs, by the edges of the inputs."""
        rows = {name: received[nr][None] for nr, name in self.outputs.items() if nr in received}
        run = run_of(self.lowering, rows, {name: self.given[name].shape for name in self.inputs.values()})
        pulled = run.split(run.pull(self.given, self.enclosures.exact, rows)[0])
        return {edge: pulled[name] for edge, name in self.inputs.items()}

    def region_of(self, edge: Edge) -> Region:
        """What the node was given by an edge."""
        region = self.step.inputs[edge]
        assert region is not None
        return region

    def _totals(self, passed: Sequence[np.ndarray | None]) -> dict[Edge, np.ndarray | None]:
        """What was passed on to each input, by all edges that lead there."""
        totals: dict[Edge, np.ndarray | None] = {}
        for edge, part in zip(self.step.edges, passed, strict=False):
            if edge is not None:
                before = totals.get(edge)
                totals[edge] = part if before is None else before if part is None else before + part
        return totals

    def _rows(self, received: Sequence[np.ndarray | None]) -> dict[str, Balls] | str:
        """The cotangents of the outputs, 0 where none arrived; or why they cannot be used."""
        rows: dict[str, Balls] = {}
        for nr, name in self.outputs.items():
            shape = self.step.outputs[nr].shape
            cotangent = received[nr] if nr < len(received) else None
            cotangent = np.zeros(shape) if cotangent is None else cotangent
            if not np.isfinite(cotangent).all():
                return "the cotangent that it received is not finite already"
            if cotangent.shape != shape:
                return f"received a cotangent of shape {cotangent.shape} for a value of shape {shape}"
            rows[name] = balls(cotangent)[None]
        return rows

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
        """The second pass must repeat the first; the third, of -2 times the cotangent, be -2 times as much,
        or pass itself."""
        step = self.step
        if len(step.received) < 3:
            return []
        found = []
        if _same(step.received[0], step.received[1], 1) and not _same(step.passed[0], step.passed[1], 1):
            note = (
                "the backward is not deterministic: run again on the same cotangent it passed other numbers"
            )
            found.append(bare_finding("local", step.name, Verdict.FAILED, note))
        if not (_same(step.received[0], step.received[2], -2) and _same(step.passed[0], step.passed[2], -2)):
            for finding in self._pass(2):
                if not finding.verdict.passes:
                    note = "; ".join(
                        part
                        for part in (finding.note, "for a cotangent of -2 times as much, two entries apart")
                        if part
                    )
                    found.append(replace(finding, note=note))
        return found


def _same(a: Sequence[np.ndarray | None], b: Sequence[np.ndarray | None], factor: float) -> bool:
    if len(a) != len(b):
        return False
    return all(
        (x is None) == (y is None)
        and (x is None or y is None or np.array_equal(factor * x, y, equal_nan=True))
        for x, y in zip(a, b, strict=True)
    )
