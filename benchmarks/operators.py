"""PyTorch's own operator database through `gradproof.check_function`: every differentiable operator, on its
own samples.

The database (`torch.testing._internal.common_methods_invocations.op_db`) is what PyTorch tests its operators
with. Each operator that is differentiable in the dtype is checked on some of its samples: the first, the last
and one in between of those that are small and have a number to differentiate by; where it has fewer, they are
drawn again with other numbers. As in PyTorch's own gradient tests the operator is called by its
`gradcheck_wrapper` (which makes a matrix symmetric for an operator that reads only half of it) and its result
passed through the sample's `output_process_fn_grad`.

    python benchmarks/operators.py --output operators.md --json operators.json
    python benchmarks/operators.py --dtype float32 --only 'nn\\.functional'
    python benchmarks/operators.py --ops sin,linalg.solve,nn.functional.hardsigmoid

An operator's outcome is the worst of its samples, from best to worst: verified (every sample passes, with
something compared), unsupported, undecided, wrong, failed (the verdicts of these names), error (an exception
from us: our fault), and the time limit or a crash of its process, which is then replaced. After the outcomes
comes what to work on: the operations without a formula, by how many operators they block, and the errors, by
how many operators they hit.

The seeds come from the names, so that each run sees the same numbers. float64 has 540 operators with 12,463
samples that could be chosen ("choice" in the table). Loading the database and drawing the samples takes 15 s,
the rest is the check, with a line for each operator on stderr and, on a terminal, a bar. The exit status is 0
whenever the run was completed; cut off, it tells what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import sys
import textwrap
import time
import traceback
import unittest
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from math import isfinite
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch.utils._pytree import tree_flatten, tree_unflatten

import gradproof
from gradproof.progress import tracked

DTYPES = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")
STARTUP = 300.0  # seconds that a process may take to load torch and the database
SHORT = 110  # characters of a finding in a table; the JSON has all of it
EXAMPLES = 4  # operators named beside what blocks them
FIELDS = (
    "kind",
    "node",
    "wrt",
    "formula",
    "exact",
    "value",
    "ulp",
    "allowed_ulp",
    "index",
    "verdict",
    "note",
    "inherited",
)
OPERATION = re.compile(r"\b(?:aten|prims)(?:::|\.)\w+(?:\.\w+)*")

Function = Callable[..., Any]


class Outcome(StrEnum):
    """From best to worst."""

    VERIFIED = "verified"
    UNSUPPORTED = "unsupported"
    UNDECIDED = "undecided"
    WRONG = "wrong"
    FAILED = "failed"
    ERROR = "error"
    TIME_LIMIT = "error: time limit"
    CRASHED = "error: crashed"

    @property
    def severity(self) -> int:
        return list(Outcome).index(self)


@dataclass(frozen=True)
class Settings:
    """What is checked, and on how much. `entries` bounds the tensors of a sample, all together; `limit` is in
    seconds."""

    dtype: str
    samples: int
    entries: int
    limit: float
    mode: str = "reverse"
    order: int = 1
    contract: bool = False


@dataclass(frozen=True)
class Choice:
    """How many samples an operator has, how many of them have a number to differentiate by, and which are
    checked."""

    available: int = 0
    eligible: int = 0
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampled:
    """What came of one sample.

    `name` is "5", the sample's place among the operator's, or "5 of draw 2". `words` say the worst finding,
    or the exception; `operations` are those without a formula.
    """

    name: str
    outcome: Outcome
    seconds: float
    words: str
    finding: Mapping[str, Any] | None = None
    operations: tuple[str, ...] = ()
    summary: str = ""
    trace: str = ""


@dataclass
class Result:
    """What came of an operator, sample by sample."""

    op: str
    choice: Choice = field(default_factory=Choice)
    samples: list[Sampled] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def worst(self) -> Sampled:
        return max(self.samples, key=lambda sample: sample.outcome.severity)

    @property
    def outcome(self) -> Outcome:
        return self.worst.outcome

    @property
    def operations(self) -> list[str]:
        """Those without a formula, in any of its samples."""
        return list(dict.fromkeys(name for sample in self.samples for name in sample.operations))


# The database and its samples


def operators(settings: Settings) -> dict[str, Any]:
    """The operators that are differentiable so on a CPU, in the dtype, by full name."""
    try:
        import expecttest  # noqa: F401 - whether it is there
    except ModuleNotFoundError:
        # The database's neighbours derive a class of tests from it and do no more on import; we run none of
        # those tests.
        sys.modules["expecttest"] = ModuleType("expecttest")
        sys.modules["expecttest"].TestCase = unittest.TestCase  # type: ignore[attr-defined] # a module has no such name yet
    from torch.testing._internal.common_methods_invocations import op_db

    wanted, forward = getattr(torch, settings.dtype), settings.mode != "reverse"
    return {
        op.full_name: op
        for op in op_db
        if op.supports_autograd
        and wanted in op.supported_backward_dtypes("cpu")
        and (op.supports_forward_ad or not forward)
        and (op.supports_gradgrad or settings.order == 1)
    }


def tensors_of(sample: Any) -> list[torch.Tensor]:
    leaves, _ = tree_flatten((sample.input, sample.args, sample.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def entries_of(sample: Any) -> int:
    return sum(tensor.numel() for tensor in tensors_of(sample))


def seed_of(op: Any, draw: int) -> int:
    # crc32, not hash: the same numbers in every run and process.
    return (zlib.crc32(op.full_name.encode()) + draw) % 2**32


def draw_samples(op: Any, dtype: str, draw: int) -> list[Any]:
    """All samples of the operator; another draw has the same shapes and other numbers."""
    seed = seed_of(op, draw)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    return list(op.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True))


def choose(op: Any, settings: Settings) -> tuple[Choice, list[tuple[str, Any]]]:
    """So many samples of the operator, each with its name, spread over those that are small.

    Without as many small ones the smallest are taken, without as many at all they are drawn again.
    """
    available = eligible = 0
    found: list[tuple[str, Any]] = []
    for draw in range(settings.samples):
        samples = draw_samples(op, settings.dtype, draw)
        fit = [
            (f"{place} of draw {draw + 1}" if draw else str(place), sample)
            for place, sample in enumerate(samples)
            if any(tensor.requires_grad and tensor.numel() for tensor in tensors_of(sample))
        ]
        if draw == 0:
            available, eligible = len(samples), len(fit)
            found = fit
        else:
            found = (found + fit)[: settings.samples]
        if len(found) >= settings.samples or not fit:
            break
    small = [pair for pair in found if entries_of(pair[1]) <= settings.entries]
    if len(small) < settings.samples:
        small = sorted(found, key=lambda pair: entries_of(pair[1]))[: settings.samples]
    places = np.linspace(0, len(small) - 1, min(settings.samples, len(small))).round().astype(int)
    chosen = [small[place] for place in places]
    return Choice(available, eligible, tuple(name for name, _ in chosen)), chosen


def drawn(op: Any, settings: Settings) -> list[tuple[str, Any]]:
    """What `choose` takes; nothing where no sample can be drawn, which stderr is told."""
    try:
        return choose(op, settings)[1]
    except Exception as error:
        print(f"{op.full_name}: the samples cannot be drawn: {error}", file=sys.stderr)
        return []


def function_of(op: Any, sample: Any) -> tuple[Function, list[torch.Tensor]]:
    """The operator as a function of those of the sample's tensors that require grad, and these; the rest
    stays as it is."""
    leaves, structure = tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    seed = seed_of(op, 0)

    def function(*tensors: torch.Tensor) -> Any:
        torch.manual_seed(seed)  # an operator that draws numbers draws the same ones in every call
        given = dict(zip(places, tensors, strict=True))
        filled = [given.get(n, leaf) for n, leaf in enumerate(leaves)]
        first, args, kwargs = tree_unflatten(filled, structure)
        return sample.output_process_fn_grad(op.gradcheck_wrapper(op.get_op(), first, *args, **kwargs))

    return function, [leaves[n] for n in places]


# One operator, in a process of its own


def examine(op: Any, settings: Settings) -> Iterator[Choice | Sampled]:
    """How many samples are checked, then what came of each."""
    start = time.perf_counter()
    try:
        choice, chosen = choose(op, settings)
    except Exception as error:
        yield from_exception("all", error, time.perf_counter() - start, "the samples cannot be drawn: ")
        return
    yield choice
    for name, sample in chosen:
        yield judge(op, name, sample, settings)
    if not chosen:
        words = "no sample has a number to differentiate by"
        yield Sampled("none", Outcome.UNDECIDED, time.perf_counter() - start, words)


def judge(op: Any, name: str, sample: Any, settings: Settings) -> Sampled:
    function, inputs = function_of(op, sample)
    start = time.perf_counter()
    try:
        more = {"mode": settings.mode, "order": settings.order, "contract": settings.contract}
        report = gradproof.check_function(function, *inputs, **more)
    except Exception as error:
        return from_exception(name, error, time.perf_counter() - start, "", summary_of(sample))
    seconds = time.perf_counter() - start
    findings = [plain(finding) for finding in report.findings]
    finding = worst_of(findings, str(report.verdict))
    if finding is None:
        outcome = Outcome(str(report.verdict)) if not report.ok else Outcome.UNDECIDED
        return Sampled(name, outcome, seconds, "nothing was compared", summary=summary_of(sample))
    outcome = Outcome.VERIFIED if report.ok else Outcome(str(report.verdict))
    operations = dict.fromkeys(
        blocker for f in findings if f["verdict"] == "unsupported" for blocker in blockers(f)
    )
    return Sampled(name, outcome, seconds, in_words(finding), finding, tuple(operations), summary_of(sample))


def summary_of(sample: Any) -> str:
    return " ".join(str(sample.summary()).split())


def from_exception(name: str, error: Exception, seconds: float, prefix: str, summary: str = "") -> Sampled:
    """An exception's last line and where it was raised; all of it stands in `trace`."""
    last = " ".join(traceback.format_exception_only(error)[-1].split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    words = f"{prefix}{last} ({Path(frame.filename).name}:{frame.lineno})"
    trace = "".join(traceback.format_exception(error, limit=-20))
    return Sampled(name, Outcome.ERROR, seconds, words, summary=summary, trace=trace)


def plain(finding: Any) -> dict[str, Any]:
    """A finding as what JSON can hold; a number that is not finite becomes text."""
    values = {name: getattr(finding, name, None) for name in FIELDS}
    for name, value in values.items():
        if isinstance(value, float) and not isfinite(value):
            values[name] = str(value)
    return values | {
        "verdict": str(values["verdict"]),
        "index": list(values["index"] or ()),
        "note": values["note"] or "",
    }


def worst_of(findings: Sequence[Mapping[str, Any]], verdict: str) -> Mapping[str, Any] | None:
    """Of those with the report's verdict the one that erred by itself and the most; then any."""
    return max(
        findings,
        key=lambda f: (f["verdict"] == verdict, not f["inherited"], float(f["ulp"] or 0)),  # "inf" is text
        default=None,
    )


def in_words(finding: Mapping[str, Any]) -> str:
    wrt = f" by {finding['wrt']}" if finding["wrt"] else ""
    said = [f"{finding['kind']} of {finding['node']}{wrt}: {finding['verdict']}"]
    if finding["verdict"] == "wrong" and finding["exact"] is not None:
        said.append(f"exact {number(finding['exact'])}, got {number(finding['value'])}")
    if finding["ulp"] is not None and finding["verdict"] not in ("exact", "kink"):
        said.append(f"{number(finding['ulp'])} ulp of {number(finding['allowed_ulp'])}")
    if finding["note"]:
        said.append(finding["note"])
    return " ".join("; ".join(said).split())


def number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "-" if value is None else str(value)


def blockers(finding: Mapping[str, Any]) -> list[str]:
    """The operations that a finding names as unsupported; where it names none, its note."""
    text = f"{finding['note']} {finding['node']}"
    named = [name.replace("::", ".").removesuffix(".default") for name in OPERATION.findall(text)]
    return list(dict.fromkeys(named)) or [finding["note"] or finding["node"]]


def serve(connection: Connection, settings: Settings) -> None:
    """A process's life: say None when free, get an operator's name, send what `examine` says of it, and
    again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the parent, which ends us
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other
    database = operators(settings)
    warnings.simplefilter("ignore")
    while True:
        connection.send(None)
        try:
            name = connection.recv()
        except EOFError:
            return
        for message in examine(database[name], settings):
            connection.send(message)


# All operators, over some processes


class Worker:
    """A process, what it works on, and until when it may."""

    def __init__(self, settings: Settings) -> None:
        context = get_context("spawn")  # a fork of a process that has used torch's threads may hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, settings), daemon=True)
        self.process.start()
        theirs.close()
        self.settings = settings
        self.start = time.perf_counter()
        self.deadline = self.start + STARTUP
        self.result: Result | None = None

    def give(self, name: str) -> None:
        self.start = time.perf_counter()
        self.deadline = self.start + self.settings.limit
        self.result = Result(name)
        self.connection.send(name)

    def take(self) -> Result:
        """The result that was in hand, finished."""
        self.result.seconds = time.perf_counter() - self.start
        done, self.result, self.deadline = self.result, None, float("inf")
        return done

    def hear(self) -> bool:
        """Take in one message; whether the process is now free. Raises EOFError or OSError when it has
        died."""
        message = self.connection.recv()
        if isinstance(message, Choice):
            self.result.choice = message
        elif isinstance(message, Sampled):
            self.result.samples.append(message)
        return message is None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def fail(self, outcome: Outcome) -> Result:
        """End the process; the result in hand with that outcome for the sample under way."""
        if outcome is Outcome.CRASHED:
            self.process.join(10)  # its exit status comes a little later than the end of its pipe
        status = self.process.exitcode
        self.end()
        if self.result is None:
            raise RuntimeError(
                f"a worker process died or hung while it loaded the database (exit status {status})"
            )
        under_way = self.result.choice.chosen[len(self.result.samples) :]
        if outcome is Outcome.TIME_LIMIT:
            why = f"longer than {self.settings.limit:g} s"
        elif status is not None and status < 0:
            why = f"killed by {signal.Signals(-status).name}"
        else:
            why = f"exit status {status}"
        seconds = time.perf_counter() - self.start - sum(sample.seconds for sample in self.result.samples)
        self.result.samples.append(Sampled(under_way[0] if under_way else "none", outcome, seconds, why))
        return self.take()


def run(names: Iterable[str], settings: Settings, jobs: int) -> Iterator[Result]:
    """The result of each operator, as they come; a process that hangs or dies is replaced."""
    waiting = deque(names)
    workers = [Worker(settings) for _ in range(min(jobs, len(waiting)))]
    try:
        while workers:
            patience = min(worker.deadline for worker in workers) - time.perf_counter()
            ready = wait([worker.connection for worker in workers], timeout=max(0.0, patience))
            for worker in list(workers):
                try:
                    if worker.connection in ready:
                        free = worker.hear()
                    elif time.perf_counter() > worker.deadline:
                        raise TimeoutError
                    else:
                        continue
                    if free:
                        if worker.result is not None:
                            yield worker.take()
                        if waiting:
                            worker.give(waiting.popleft())
                        else:
                            workers.remove(worker)
                            worker.end()
                except (EOFError, OSError) as error:
                    workers.remove(worker)
                    yield worker.fail(
                        Outcome.TIME_LIMIT if isinstance(error, TimeoutError) else Outcome.CRASHED
                    )
                    if waiting:
                        workers.append(Worker(settings))
    finally:
        for worker in workers:
            worker.end()


# What came of it


def main_table(results: Sequence[Result], style: str) -> str:
    ordered = sorted(results, key=lambda result: (-result.outcome.severity, result.op))
    rows = [
        [r.op, r.outcome, len(r.choice.chosen), r.choice.eligible, f"{r.seconds:.1f}", short(told(r), style)]
        for r in ordered
    ]
    headers = ["operator", "outcome", "samples", "choice", "s", "the worst of it"]
    align = ["left", "left", "right", "right", "right", "left"]
    return tabulate(rows, headers, style, disable_numparse=True, colalign=align)


def told(result: Result) -> str:
    if result.outcome is Outcome.UNSUPPORTED and result.operations:
        return f"without a formula: {', '.join(result.operations)}"
    return f"sample {result.worst.name}: {result.worst.words}"


def short(text: str, style: str) -> str:
    cut = textwrap.shorten(text, SHORT, placeholder=" …") if " " in text[:SHORT] else text[:SHORT]
    return cut.replace("|", "\\|") if style == "pipe" else cut


def counts_of(results: Iterable[Result]) -> dict[str, int]:
    counts = Counter(result.outcome for result in results)
    return {str(outcome): counts[outcome] for outcome in Outcome}


def blocking(results: Iterable[Result], reasons: Callable[[Result], Collection[str]]) -> list[dict[str, Any]]:
    """Each reason with the operators that it blocks, and how many it blocks alone; most blocking first."""
    blocked: dict[str, list[str]] = {}
    alone: Counter[str] = Counter()
    for result in results:
        for reason in (given := reasons(result)):
            blocked.setdefault(reason, []).append(result.op)
            alone[reason] += len(given) == 1
    rows = [{"what": what, "operators": ops, "alone": alone[what]} for what, ops in blocked.items()]
    return sorted(rows, key=lambda row: (-len(row["operators"]), row["what"]))


def without_formula(results: Iterable[Result]) -> list[dict[str, Any]]:
    return blocking(results, lambda result: result.operations)


def errors_of(results: Iterable[Result]) -> list[dict[str, Any]]:
    return blocking(
        results, lambda r: {s.words for s in r.samples if s.outcome in (Outcome.ERROR, Outcome.FAILED)}
    )


def blocking_table(rows: Sequence[Mapping[str, Any]], what: str, style: str) -> str:
    lines = []
    for row in rows:
        ops = row["operators"]
        examples = ", ".join(ops[:EXAMPLES]) + (" …" if len(ops) > EXAMPLES else "")
        lines.append([short(row["what"], style), len(ops), row["alone"], examples])
    return tabulate(lines, [what, "operators", "alone", "which"], style)


def written(results: Sequence[Result], settings: Settings, style: str) -> str:
    """All tables, as plain text or as Markdown."""
    mark = "## " if style == "pipe" else ""
    samples = sum(len(result.samples) for result in results)
    available, eligible = (
        sum(getattr(r.choice, name) for r in results) for name in ("available", "eligible")
    )
    counts = [[outcome, count] for outcome, count in counts_of(results).items() if count]
    parts = [
        f"{mark}PyTorch {torch.__version__}'s differentiable operators in {settings.dtype}",
        main_table(results, style),
        f"{mark}Outcomes",
        tabulate([*counts, ["all", len(results)]], ["outcome", "operators"], style),
        f"{samples:,} samples checked, of {eligible:,} that could be chosen and {available:,} in all.",
    ]
    if rows := without_formula(results):
        parts += [f"{mark}Operations without a formula, and how many operators they block (alone)",
                  blocking_table(rows, "operation", style)]  # fmt: skip
    if rows := errors_of(results):
        parts += [
            f"{mark}Errors and failures, and how many operators they hit",
            blocking_table(rows, "error", style),
        ]
    return "\n\n".join(parts) + "\n"


def as_json(results: Sequence[Result], settings: Settings) -> str:
    listed = [
        asdict(r) | {"outcome": r.outcome, "words": told(r)}
        for r in sorted(results, key=lambda result: result.op)
    ]
    everything = {
        "torch": torch.__version__, "settings": asdict(settings), "counts": counts_of(results),
        "without_formula": without_formula(results), "errors": errors_of(results), "operators": listed,
    }  # fmt: skip
    return json.dumps(everything, indent=1, allow_nan=False) + "\n"


def selected(database: Mapping[str, Any], ops: str | None, only: str | None) -> list[str]:
    """The names to check; an operator's plain name stands for all its variants. Raises ValueError for unknown
    names."""
    names = list(database)
    if ops is not None:
        wanted = [name.strip() for name in ops.split(",")]
        for name in wanted:
            if not any(name in (op.full_name, op.name) for op in database.values()):
                near = [full for full in names if full.endswith(f".{name}")] or get_close_matches(name, names)
                raise ValueError(
                    f"no differentiable operator {name!r}{f'; did you mean {near[0]!r}?' if near else ''}"
                )
        names = [name for name in names if name in wanted or database[name].name in wanted]
    return [name for name in names if only is None or re.search(only, name)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=DTYPES, default="float64")
    parser.add_argument("--mode", choices=("reverse", "forward", "both"), default="reverse")
    parser.add_argument("--order", type=int, choices=(1, 2, 3), default=1)
    parser.add_argument("--contract", action="store_true")
    parser.add_argument("--samples", type=int, default=3, help="of each operator")
    parser.add_argument(
        "--entries", type=int, default=2000, help="of a sample's tensors, all together, that are small"
    )
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for an operator")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--ops", help="names, with commas between them")
    parser.add_argument("--only", metavar="REGEX", help="operators whose name it is found in")
    parser.add_argument("--output", type=Path, metavar="PATH", help="write the tables there as Markdown, too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    options = parser.parse_args(arguments)
    if not hasattr(gradproof, "check_function"):
        parser.error("this gradproof has no check_function")
    if min(options.samples, options.jobs) < 1:
        parser.error("--samples and --jobs are at least 1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the processes read it when they load torch
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as ctrl-C: the processes end with us, the results are told
    settings = Settings(
        options.dtype,
        options.samples,
        options.entries,
        options.limit,
        options.mode,
        options.order,
        options.contract,
    )
    try:
        names = selected(operators(settings), options.ops, options.only)
    except (ValueError, re.error) as error:
        parser.error(str(error))
    if not names:
        parser.error("no differentiable operator has such a name")
    start = time.perf_counter()
    results: list[Result] = []
    try:
        finished = run(names, settings, options.jobs)
        for result in tracked(finished, len(names), lambda result: f"{result.op}: {result.outcome}"):
            results.append(result)
            took = f"{time.perf_counter() - start:.0f} s"
            told = f"{result.op}: {result.outcome} ({result.seconds:.1f} s)"
            line = f"[{len(results):3}/{len(names)} {took:>6}] {told}"
            print(line, file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"cut off after {len(results)} of {len(names)} operators", file=sys.stderr)
    print(written(results, settings, "simple"))
    print(f"{len(results)} operators in {time.perf_counter() - start:.0f} s with {options.jobs} processes")
    if options.output:
        options.output.write_text(written(results, settings, "pipe"), encoding="utf-8")
    if options.json:
        options.json.write_text(as_json(results, settings), encoding="utf-8")
    return 0 if len(results) == len(names) else 130


if __name__ == "__main__":
    sys.exit(main())
