"""No false alarm, and the right numbers: gradproof on formulas and data that others published.

Two parts. First `check` runs on every formula at random points of its published ranges, with all variables as
parameters: torch computes these right, so whatever does not pass is printed, to be judged. What lies beyond
the dtype's range (an overflow, a formula that fails in it) is counted apart. Then the exact derivatives, with
decimal inputs read as rationals, are held against the printed ones, digit by digit.

    python benchmarks/corpora.py --points 50
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import signal
import sys
import time
import tomllib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import islice
from math import nan
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from flint import arb, fmpq
from tabulate import tabulate

from gradproof.dtypes import dtype_named
from gradproof.errors import InputError
from gradproof.language.files import Problem, parse
from gradproof.oracle import check
from gradproof.progress import tracked
from gradproof.proof.arithmetic import exact
from gradproof.proof.balls import UNIT, Balls, balls, full, lift, precision
from gradproof.proof.walk import evaluate, pullback
from gradproof.verdict import Finding, Verdict, worst

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
DTYPES = ("float64", "float32")
BITS = 512  # of the exact derivatives; Filip's residuals lose 13 of their digits by cancellation
SPREAD = 0.1  # relative, around the published parameters of a model
SHOWN = 3  # entries of a point or points of a formula that are printed

T = TypeVar("T")

Numbers = Mapping[str, Any]  # floats or nested lists by name; as decimal text where the digits count
Box = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """A formula, and where to look at it: first at the `fixed` points, then at random in the `boxes`, in
    turn."""

    corpus: str
    name: str
    graph: str
    given: Numbers = field(default_factory=dict)
    fixed: tuple[Numbers, ...] = ()
    boxes: tuple[Box, ...] = ()

    def points(self, seed: int) -> Iterator[Numbers]:
        yield from self.fixed
        # crc32, not hash: the same points in every run and process.
        random = np.random.default_rng([seed, zlib.crc32(f"{self.corpus} {self.name}".encode())])
        while self.boxes:
            for box in self.boxes:
                yield {name: float(random.uniform(low, high)) for name, (low, high) in box.items()}


@dataclass(frozen=True)
class Published:
    """A formula at one point, all numbers as decimal text, with its printed value and gradient.

    `digits` is how many significant digits the printed numbers agree to.
    """

    corpus: str
    name: str
    graph: str
    given: Numbers
    parameters: Numbers
    value: str | None
    gradient: Mapping[str, Sequence[str]]
    digits: int


# The corpora


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def feynman_cases(folder: Path) -> Iterator[Case]:
    for row in read_rows(folder / "feynman" / "equations.csv"):
        lows, highs = (map(float, row[key].split()) for key in ("low", "high"))
        box = dict(zip(row["variables"].split(), zip(lows, highs, strict=True), strict=True))
        yield Case("feynman", row["id"], f"value = {row['formula']}", boxes=(box,))


def symreg_cases(folder: Path) -> Iterator[Case]:
    for row in read_rows(folder / "symreg" / "benchmarks.csv"):
        ranges = re.findall(r"(\w+): [EU]\[([^,]+), ([^,]+), [^]]+\]", row["train_range"])
        used = row["variables_used"].split()
        box = {name: (float(low), float(high)) for name, low, high in ranges if name in used}
        yield Case("symreg", row["name"], f"value = {row['formula']}", boxes=(box,))


def datasets(folder: Path) -> Iterator[tuple[str, dict[str, Any], str, dict[str, list[str]]]]:
    """Each NIST dataset: corpus, its facts, the graph of its residual sum of squares, and its columns as
    text."""
    for kind in ("linear", "nonlinear"):
        facts = tomllib.loads((folder / "nist" / f"{kind}.toml").read_text(encoding="utf-8"))
        for dataset in facts["dataset"]:
            rows = read_rows(folder / "nist" / dataset["csv"])
            columns = {
                name: [row[name] for row in rows] for name in (*dataset["predictors"], dataset["response"])
            }
            graph = f"residual = {dataset['residual']}\nrss = sum(residual**2)"
            yield f"nist {kind}", dataset, graph, columns


def published_points(dataset: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters that a dataset's own numbers belong to, by the name they have there."""
    count = len(dataset["parameters"])
    points = {"zero": ["0"] * count, "ones": ["1"] * count} if "start1" not in dataset else {}
    return points | {key: dataset[key] for key in ("start1", "start2", "certified") if key in dataset}


def nist_cases(folder: Path) -> Iterator[Case]:
    for corpus, dataset, graph, columns in datasets(folder):
        names = dataset["parameters"]
        fixed = [
            dict(zip(names, map(float, point), strict=True)) for point in published_points(dataset).values()
        ]
        boxes = [
            {
                name: (value - SPREAD * abs(value), value + SPREAD * abs(value))
                for name, value in point.items()
            }
            for point in fixed
            if any(point.values())
        ]
        given = {name: list(map(float, column)) for name, column in columns.items()}
        yield Case(corpus, dataset["name"], graph, given, tuple(fixed), tuple(boxes))


MIXTURE = """
u[i,k] = x[i,0] - means[k,0]
v[i,k] = x[i,1] - means[k,1]
p[i,k] = exp(icf[k,0])*u[i,k]
q[i,k] = icf[k,2]*u[i,k] + exp(icf[k,1])*v[i,k]
s[k] = icf[k,0] + icf[k,1]
fit[i,k] = alphas[k] + s[k] - (p[i,k]**2 + q[i,k]**2)/2
likelihood = copies*sum(logsumexp(fit, axis=1)) - n*logsumexp(alphas) - n*log(2*pi)
prior = gamma**2/2*(sum(exp(2*icf[:, 0:2])) + sum(icf[:, 2]**2)) - m*sum(s)
constant = (m + 3)*(2*log(gamma) - log(2)) - log(pi)/2 - lgamma((m + 3)/2) - lgamma((m + 2)/2)
objective = likelihood + prior - K*constant
"""  # ADBench's Gaussian mixture in two dimensions


def mixtures(folder: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each mixture: name, its file, and its graph with the sizes written in."""
    for path in sorted((folder / "adbench").glob("gmm_*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        sizes = {
            "n": data["n"], "copies": data.get("x_repeated", 1), "K": data["K"],
                "gamma": data["wishart_gamma"],
            "m": data["wishart_m"],
        }  # fmt: skip
        words = rf"\b({'|'.join(sizes)})\b"
        yield path.stem, data, re.sub(words, lambda found, sizes=sizes: str(sizes[found[1]]), MIXTURE).strip()


def mixture_cases(folder: Path) -> Iterator[Case]:
    for name, data, graph in mixtures(folder):
        point = {key: numbers_of(data[key]) for key in ("alphas", "means", "icf")}
        yield Case("adbench", name, graph, {"x": numbers_of(data["x"])}, (point,))


def numbers_of(texts: Any) -> Any:
    return [numbers_of(text) for text in texts] if isinstance(texts, list) else float(texts)


def all_cases(folder: Path) -> Iterator[Case]:
    for cases in (feynman_cases, symreg_cases, nist_cases, mixture_cases):
        yield from cases(folder)


# First part: no false alarm


@dataclass
class Tally:
    """What came of one case in one dtype; `lines` say where to look."""

    case: Case
    dtype: str
    counts: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    sensitivities: list[float] = field(default_factory=list)  # in units of the dtype's roundoff
    unsupported: str = ""


def has_value(problem: Problem, dtype: str) -> bool:
    """Whether the formula has a real value at the point as the dtype holds it."""
    held = {
        name: torch.tensor(value, dtype=getattr(torch, dtype)).double().numpy()
        for name, value in problem.point.items()
    }
    with precision(128):
        leaves = {name: balls(value) for name, value in held.items()}
        values = evaluate(problem.graph.nodes, leaves, exact())
        return all(x.is_finite() for node in problem.graph.nodes for x in values[node.name].reshape(-1))


def is_beyond(finding: Finding) -> bool:
    """Whether the number itself, or one on the way to it, is beyond the dtype: a true finding, about the
    formula."""
    return any(words in finding.note for words in ("overflow", "the formula fails", "is not finite already"))


def tally(job: tuple[Case, str], points: int, seed: int) -> Tally:
    case, dtype = job
    done = Tally(case, dtype)
    for point in islice(case.points(seed), points):
        try:
            problem = parse(case.graph, given=case.given, parameters=point)
        except InputError as error:
            done.unsupported = str(error)
            return done
        if not has_value(problem, dtype):
            done.counts["no real value"] += 1
            continue
        report = check(problem, dtype=dtype)
        failing = [
            finding for finding in report.findings if not finding.verdict.passes and not finding.inherited
        ]
        beyond = [finding for finding in failing if is_beyond(finding)]
        # Beside a number that is beyond the dtype, there may be others that nobody can judge.
        alarms = [f for f in failing if not is_beyond(f) and not (beyond and f.verdict is Verdict.UNDECIDED)]
        if beyond and not alarms:
            done.counts["beyond the dtype"] += 1
            done.beyond.append(described(case, dtype, point, beyond[0]))
            continue
        done.counts[str(worst([finding.verdict for finding in alarms or report.findings]))] += 1
        if report.sensitivity is not None:
            done.sensitivities.append(report.sensitivity / dtype_named(dtype).unit_roundoff)
        done.alarms += [described(case, dtype, point, finding) for finding in alarms]
    return done


def described(case: Case, dtype: str, point: Numbers, finding: Finding) -> str:
    where = ", ".join(f"{name}={value!r}" for name, value in islice(point.items(), 12))
    wrt = f" by {finding.wrt}" if finding.wrt else ""
    return (
        f"{case.corpus} {case.name} {dtype}: {finding.verdict}: {finding.kind} "
        f"{finding.node}{wrt}{list(finding.index)}: "
        f"exact {finding.exact!r}, engine {finding.value!r}, {shown(finding.ulp)} ulp of "
        f"{shown(finding.allowed_ulp)} allowed"
        f"{'; ' + finding.note if finding.note else ''}\n    {case.graph.splitlines()[0]}\n    at {where}"
    )


def shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.4g}"


COLUMNS = ("exact", "rounding", "kink", "undecided", "wrong", "failed", "beyond the dtype", "no real value")


def no_false_alarm(folder: Path, dtypes: Sequence[str], points: int, seed: int, processes: int) -> int:
    """Print the table of verdicts and every point that does not pass; the number of alarms."""
    jobs = [(case, dtype) for case in all_cases(folder) for dtype in dtypes]
    run = partial(tally, points=points, seed=seed)
    tallies = kept(run, jobs, processes, lambda done: f"{done.case.corpus} {done.case.name}, {done.dtype}")
    for title, lines in (
        (
            "Beyond the dtype (true findings about the formula)",
            [line for t in tallies for line in t.beyond[:1]],
        ),
        ("Alarms", [line for t in tallies for line in t.alarms[:SHOWN]]),
    ):
        print(
            f"\n{title}: {len(lines)} shown, at most one or {SHOWN} a formula and dtype"
            if lines
            else f"\n{title}: none"
        )
        print("".join(f"  {line}\n" for line in lines), end="")
    unsupported = {t.case.name: t.unsupported for t in tallies if t.unsupported}
    print(f"\nUnsupported: {len(unsupported)}")
    print("".join(f"  {name}: {why}\n" for name, why in unsupported.items()), end="")
    rows = []
    for corpus in dict.fromkeys(t.case.corpus for t in tallies):
        for dtype in dtypes:
            here = [t for t in tallies if (t.case.corpus, t.dtype) == (corpus, dtype)]
            counts = sum((t.counts for t in here), Counter())
            formulas = sum(not t.unsupported for t in here)
            caught = f"{median([u for t in here for u in t.sensitivities] or [nan]):.1f}"
            rows.append(
                [corpus, dtype, formulas, counts.total(), *(counts[column] for column in COLUMNS), caught]
            )
    totals = [sum(column) for column in list(zip(*rows, strict=True))[3:-1]]
    print()
    print(
        tabulate(
            [*rows, ["all", "", "", *totals]],
            ["corpus", "dtype", "formulas", "points", *COLUMNS, "caught, u"],
        )
    )
    print(
        "caught: the smallest relative error that the check would have found, the median over the points, in "
        "roundoffs"
    )
    return sum(bool(t.alarms) * sum(t.counts[str(v)] for v in Verdict if not v.passes) for t in tallies)


def kept(
    function: Callable[[Any], T], jobs: Sequence[Any], processes: int, describe: Callable[[T], str]
) -> list[T]:
    """The function of every job, in order; cut off by Ctrl-C, of those that came before it."""
    found: list[T] = []
    with ProcessPoolExecutor(processes, initializer=in_the_background) as pool:
        try:
            for item in tracked(pool.map(function, jobs, chunksize=4), len(jobs), describe):
                found.append(item)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print(f"interrupted after {len(found)} of {len(jobs)}", file=sys.stderr)
    return found


def in_the_background() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which tells what is done
    torch.set_num_threads(1)  # the tensors are small: threads would only wait for each other


# Second part: the printed digits


def feynman_published(folder: Path) -> Iterator[Published]:
    formulas = {row["id"]: row["formula"] for row in read_rows(folder / "feynman" / "equations.csv")}
    yield from from_reference_values(folder / "feynman" / "reference_values.csv", "feynman", "id", formulas)


def symreg_published(folder: Path) -> Iterator[Published]:
    formulas = {row["name"]: row["formula"] for row in read_rows(folder / "symreg" / "benchmarks.csv")}
    yield from from_reference_values(folder / "symreg" / "reference_values.csv", "symreg", "name", formulas)


def from_reference_values(
    path: Path, corpus: str, key: str, formulas: Mapping[str, str]
) -> Iterator[Published]:
    points: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path):
        points.setdefault(row[key], []).append(row)
    for name, rows in points.items():
        point = {row["variable"]: row["value"] for row in rows}
        gradient = {row["variable"]: [row["df_dvariable"]] for row in rows}
        yield Published(corpus, name, f"value = {formulas[name]}", {}, point, rows[0]["f"], gradient, 25)


def nist_published(folder: Path) -> Iterator[Published]:
    for corpus, dataset, graph, columns in datasets(folder):
        digits = 25 if corpus == "nist linear" else 30
        for where, point in published_points(dataset).items():
            value = dataset.get(f"derived_rss_at_{where}")
            printed = dataset.get(f"derived_rss_gradient_at_{where}", [])
            gradient = {name: [text] for name, text in zip(dataset["parameters"], printed, strict=False)}
            parameters = dict(zip(dataset["parameters"], point, strict=True))
            yield Published(
                corpus, f"{dataset['name']} at {where}", graph, columns, parameters, value, gradient, digits
            )


def mixture_published(folder: Path) -> Iterator[Published]:
    for name, data, graph in mixtures(folder):
        parameters = {key: data[key] for key in ("alphas", "means", "icf")}
        for source, digits in (("derived", 25), ("published", 15)):
            if data[f"{source}_gradient"] is None:
                continue
            rest = iter(data[f"{source}_gradient"])
            gradient = {key: list(islice(rest, np.size(value))) for key, value in parameters.items()}
            value = data[f"{source}_objective"]
            yield Published(
                "adbench", f"{name} ({source})", graph, {"x": data["x"]}, parameters, value, gradient, digits
            )


def exactly(texts: Any) -> Balls:
    """Decimal texts, nested or not, as balls around the rationals that they are."""
    return lift(lambda text: arb(fmpq(*Fraction(text).as_integer_ratio())))(np.array(texts, dtype=object))


def distance(found: arb, printed: str, digits: int) -> float:
    """How far a ball is from a printed number, at most, in units of the number's last digit.

    Zeros at the end of a number are not always printed, so `digits` counts, not the text. Nothing is the last
    digit of 0: there the unit is 10**-100.
    """
    number = Fraction(printed)
    place = f"{float(number):e}".partition("e")[2]  # of the first digit
    unit = fmpq(10) ** (int(place) - digits + 1) if number else fmpq(10) ** -100
    return float((abs(found - arb(fmpq(*number.as_integer_ratio()))) / arb(unit)).upper())


@dataclass(frozen=True)
class Match:
    """The printed numbers of one formula beside the exact ones: how many, and the farthest, in units of the
    last digit."""

    published: Published
    count: int
    farthest: float
    where: str


def match(published: Published) -> Match:
    problem = parse(
        published.graph,
        given={name: numbers_of(value) for name, value in published.given.items()},
        parameters={name: numbers_of(value) for name, value in published.parameters.items()},
    )
    with precision(BITS):
        leaves = {name: exactly(texts) for name, texts in (published.given | published.parameters).items()}
        nodes, output = problem.graph.nodes, problem.graph.output.name
        values = evaluate(nodes, leaves, exact())
        back = pullback(nodes, values, {output: full((1,), UNIT)}, problem.graph.active, exact())
        pairs = [] if published.value is None else [("value", values[output][()], published.value)]
        for name, texts in published.gradient.items():
            pairs += [(name, x, text) for x, text in zip(back[name].reshape(-1), texts, strict=True)]
        far = [(distance(arb(x), text, published.digits), name) for name, x, text in pairs]
    farthest, where = max(far, default=(0.0, ""))
    return Match(published, len(far), farthest, where)


def printed_digits(folder: Path, processes: int) -> int:
    """Print the table of printed numbers against exact ones; how many formulas disagree.

    One unit of the last digit allows for the printed number's own rounding; ten for what double precision
    computed.
    """
    readers = (feynman_published, symreg_published, nist_published, mixture_published)
    published = [item for read in readers for item in read(folder)]
    matches = kept(match, published, processes, lambda done: f"{done.published.corpus} {done.published.name}")
    bad = [m for m in matches if not m.farthest <= (1 if m.published.digits > 17 else 10)]
    rows = []
    for key in dict.fromkeys((m.published.corpus, m.published.digits) for m in matches):
        here = [m for m in matches if (m.published.corpus, m.published.digits) == key]
        farthest = max(here, key=lambda m: m.farthest)
        rows.append([*key, len(here), sum(m.count for m in here), sum(m in bad for m in here),
            farthest.farthest,
                     f"{farthest.published.name}: {farthest.where}"])  # fmt: skip
    headers = ["corpus", "digits", "points", "numbers", "disagree", "farthest, in the last digit", "where"]
    print()
    print(tabulate(rows, headers, floatfmt=".3g"))
    for m in bad:
        off = f"{m.farthest:.4g} units of digit {m.published.digits}"
        print(f"  disagrees: {m.published.corpus} {m.published.name}, {m.where}: {off}")
    return len(bad)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=Path, default=CORPORA, help="the folder of formulas and data")
    parser.add_argument("--points", type=int, default=50, help="random points for each formula")
    parser.add_argument(
        "--dtype", choices=[*DTYPES, "bfloat16", "float16"], help="one dtype instead of float64 and float32"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(None if arguments is None else list(arguments))
    if not options.corpora.is_dir():
        print("skipped: there is no folder of corpora; say where with --corpora")
        return 0
    start = time.perf_counter()
    dtypes = [options.dtype] if options.dtype else list(DTYPES)
    alarms = no_false_alarm(options.corpora, dtypes, options.points, options.seed, options.processes)
    disagreeing = printed_digits(options.corpora, options.processes)
    print(
        f"\n{alarms} alarms, {disagreeing} formulas off the printed digits, in "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 1 if alarms or disagreeing else 0


if __name__ == "__main__":
    sys.exit(main())
