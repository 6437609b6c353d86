"""What a check costs, beside what else one could do: one command, one table.

Machines differ and are noisy, so what counts are the ratios. Each case runs in a process of its own, its
sides in turn; told are medians of several runs, what they spread over, and the median ratio of two runs side
by side.

    python benchmarks/speed.py [--quick] [--long] [--only NAME ...] [--write]

`--write` keeps the table in `benchmarks/RESULTS.md`, with the machine and the versions. `--quick` takes some
minutes, all of it half an hour, and `--long` more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
HEAD = ("", "gradproof", "beside", "its figure", "ratio", "of CPU time", "target", "reached", "decided")
PACKAGES = ("gradproof", "torch", "numpy", "sympy", "python-flint", "jax", "autograd")
OURS = "ours"


@dataclass(frozen=True)
class Target:
    """At most so many times the other side's figure, or so many seconds."""

    most: float
    unit: str = "×"

    def __str__(self) -> str:
        return (
            f"≤ {'1/' if self.most < 1 else ''}{1 / self.most if self.most < 1 else self.most:g} {self.unit}"
        )


@dataclass(frozen=True)
class Case:
    """What is measured by one job of `sides.py`, and what is aimed at beside each of the other sides."""

    name: str
    kind: str
    options: Mapping[str, Any]
    targets: Mapping[str, Target] = field(default_factory=dict)
    effort: int = 1  # 0: quick, 1: a whole run, 2: a long one


def cases() -> list[Case]:
    return [*of_tanh(), *of_networks(), *of_balls_alone(), *of_expressions(), *of_processes(), *of_memory()]


def of_tanh() -> Iterator[Case]:
    fast = {"float32": Target(2), "float64": Target(15)}
    targets = {
        10**2: {"gradcheck, slow": Target(1)},
        10**4: {"gradcheck, slow": Target(1 / 150)},
    }
    for size in (10**2, 10**4, 10**6):
        for dtype in ("float32", "float64"):
            mine = targets.get(size) or {"gradcheck, fast": fast[dtype]}
            name = f"sum(tanh(x)*w), {size:,} entries, {dtype}"
            yield Case(name, "checkers", {"size": size, "dtype": dtype}, mine, effort=int(size > 10**2))


# Name, dtype, what is aimed at beside the other side, and which run has it.
FORWARD_BACKWARD = "float64 forward and backward"
NETWORKS = (
    ("transformer layer", "float32", Target(12), 1),
    ("transformer layer", "bfloat16", Target(12), 1),
    ("transformer layer", "float64", Target(60), 1),
    ("cross entropy", "float32", Target(15), 0),
    ("ResNet-18", "float32", Target(30, "s"), 1),
    ("GPT-2 block", "float32", Target(30, "s"), 1),
    ("24 transformer layers", "float32", Target(120, "s"), 2),
    ("24 transformer layers", "bfloat16", Target(120, "s"), 2),
)


def of_networks() -> Iterator[Case]:
    for name, dtype, target, effort in NETWORKS:
        options = {"name": name, "dtype": dtype}
        yield Case(f"{name}, {dtype}", "network", options, {FORWARD_BACKWARD: target}, effort)


def of_balls_alone() -> Iterator[Case]:
    for name, dtype, effort in (
        ("tanh 1000", "float32", 0),
        ("tanh 10000", "float32", 1),
        ("small transformer layer", "float32", 1),
        ("small transformer layer", "float64", 1),
    ):
        options = {"name": name, "dtype": dtype}
        yield Case(f"{name}, {dtype}, with floats", "balls_alone", options, effort=effort)


def of_expressions() -> Iterator[Case]:
    for length, effort in ((10**3, 0), (10**4, 1)):
        target = {f"{length // 10:,} lines": Target(11)}
        yield Case(f"expression of {length:,} lines", "chain", {"length": length}, target, effort)
    for depth in (2, 4, 6, 8):
        name = f"derivative line by line, {depth} lines that read twice"
        yield Case(name, "composed", {"depth": depth}, effort=int(depth > 4))


def of_processes() -> Iterator[Case]:
    imports = ["import torch", "import sympy", "import torch, sympy"]
    ours = {
        "import gradproof": ["-c", "import gradproof"],
        "gradproof check expressions/ols.toml": ["-m", "gradproof", "check", "expressions/ols.toml"],
    }
    for name, arguments in ours.items():
        target = {"import torch, sympy": Target(1.5)} if "check" in name else {}
        yield Case(name, "processes", {"ours": arguments, "beside": imports}, target, effort=0)


def of_memory() -> Iterator[Case]:
    targets = {("transformer layer", "float32"): Target(6), ("transformer layer", "bfloat16"): Target(6)}
    smaller = [("tanh 100", "float32", None, 0), ("tanh 1000000", "float32", None, 1)]
    for name, dtype, _, effort in (*smaller, *NETWORKS):
        target = {MEMORY: targets[name, dtype]} if (name, dtype) in targets else {}
        yield Case(f"memory: {name}, {dtype}", "memory", {"name": name, "dtype": dtype}, target, effort)


MEMORY = "forward and backward"


class StoppedError(Exception):
    """A job that did not come to its end."""


def told_by(case: Case, options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """What one job of `sides.py` tells."""
    job = {"kind": case.kind, "options": {**case.options, **more},
           "seconds": options.seconds, "most": options.runs}  # fmt: skip
    command = [sys.executable, str(HERE / "sides.py")]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=options.limit
        )
    except subprocess.TimeoutExpired:
        raise StoppedError(f"not done after {options.limit:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip() or "killed").splitlines()[-1]
        raise StoppedError(f"exit {done.returncode}: {last[:160]}")
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(case: Case, options: argparse.Namespace) -> list[list[str]]:
    """A row for each other side; one that says why where there is nothing to tell."""
    try:
        if case.kind == "memory":
            return [memory_row(case, *(told_by(case, options, side=side) for side in (OURS, "own")))]
        sides = told_by(case, options)
    except StoppedError as error:
        return [[case.name, str(error), *[""] * (len(HEAD) - 2)]]
    ours = sides.pop(OURS)
    return [time_row(case, name, ours, beside) for name, beside in sides.items()]


def memory_row(case: Case, ours: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    ratio = ours["mib"] / own["mib"]
    target = case.targets.get(MEMORY)
    return [
        case.name, f"{ours['mib']:,.0f} MiB", MEMORY, f"{own['mib']:,.0f} MiB", times(ratio), "",
        str(target or ""), reached(target, ratio, 0.0, ours["decided"]), ours["decided"],
    ]  # fmt: skip


def time_row(case: Case, name: str, ours: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    target, decided = case.targets.get(name), ours.get("decided", "")
    if ours["note"] or beside["note"]:
        figures = [side["note"] or seconds(side) for side in (ours, beside)]
        return [case.name, figures[0], name, figures[1], "", "", str(target or ""), "", decided]
    wall, cpu = (
        [a / b for a, b in zip(ours[key], beside[key], strict=True) if b] or [float("nan")]
        for key in ("wall", "cpu")
    )
    ratio = median(wall)
    spread = f" ({times(min(wall))} to {times(max(wall))})" if len(wall) > 1 else ""
    return [
        case.name, seconds(ours), name, seconds(beside), f"{times(ratio)}{spread}", times(median(cpu)),
        str(target or ""), reached(target, ratio, median(ours["wall"]), decided), decided,
    ]  # fmt: skip


def seconds(side: Mapping[str, Any]) -> str:
    """The median, what the runs spread over, and how long the first took."""
    runs, first = side["wall"], side["first"]
    more = f" ({min(runs):.3g} to {max(runs):.3g}; first {first:.3g})" if len(runs) > 1 else " (once)"
    part = f", {side['times']:g} times a part of it" if side["times"] != 1 else ""
    return f"{median(runs):.3g} s{more}{part}"


def times(ratio: float) -> str:
    return f"1/{1 / ratio:,.3g}" if 0 < ratio < 0.1 else f"{ratio:,.3g}"


def reached(target: Target | None, ratio: float, taken: float, decided: str) -> str:
    if target is None:
        return ""
    if decided not in ("", "all"):
        return "not decided"
    return "yes" if (taken if target.unit == "s" else ratio) <= target.most else "no"


def machine() -> list[str]:
    """What the figures hold for, a line each."""
    names = [line for line in text_of("/proc/cpuinfo") if line.startswith("model name")]
    processor = names[0].partition(":")[2].strip() if names else platform.processor()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return [
        f"{processor}, {os.cpu_count()} cores, {gib:.0f} GiB, {platform.system()}",
        ", ".join(f"{name} {what}" for name, what in found.items()),
    ]


def text_of(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


ABOUT = """\
A ratio is our time over the other's: of two runs side by side the median, and in brackets the least and the
largest. Seconds are medians of wall time, with what the runs spread over, and what the first took, in which
SymPy differentiates and torch warms up; "once" is a case too long to run again. Of the slow gradcheck of
20,000 entries a part is run, "100 times": 200 entries are moved, each at full size. Memory is the peak of a
process beyond what it imports. Decided is "all" where every entry passes; else it says what does not."""


def page(rows: Sequence[Sequence[str]], started: float) -> str:
    table = tabulate(rows, HEAD, "pipe", disable_numparse=True)
    when = time.strftime("%Y-%m-%d", time.gmtime(started))
    took = f"{(time.time() - started) / 60:.0f} minutes"
    lines = [
        "# What a check costs",
        f"`python benchmarks/speed.py --write`, {when}, at revision {revision()}, in {took}.",
        *machine(),
        ABOUT,
        table,
    ]
    return "\n\n".join(lines) + "\n"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="what is soon done, and fewer runs")
    parser.add_argument("--long", action="store_true", help="what takes minutes, too")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name has one of these in it")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/RESULTS.md")
    parser.add_argument("--runs", type=int, default=7, help="at most, of each side")
    parser.add_argument("--seconds", type=float, help="for the runs of a case, about (60, quick 5)")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds, at which a case is given up")
    options = parser.parse_args(arguments)
    options.seconds = options.seconds or (5.0 if options.quick else 60.0)
    if options.write and (options.quick or options.only):
        parser.error("--write keeps a whole run: leave out --quick and --only")
    return options


def chosen(options: argparse.Namespace) -> list[Case]:
    """Those of the run's effort, or those that are named, whatever theirs."""
    if options.only:
        return [case for case in cases() if any(name in case.name for name in options.only)]
    most = 0 if options.quick else 2 if options.long else 1
    return [case for case in cases() if case.effort <= most]


def main(arguments: Sequence[str] | None = None) -> int:
    options, started = parsed(arguments), time.time()
    picked, rows = chosen(options), []
    if not picked:
        print("no case has such a name:", *(case.name for case in cases()), sep="\n  ", file=sys.stderr)
        return 2
    done = 0
    try:
        for case in picked:
            print(
                f"[{done}/{len(picked)} {time.time() - started:.0f} s] {case.name}",
                file=sys.stderr,
                flush=True,
            )
            rows += rows_of(case, options)
            done += 1
    except KeyboardInterrupt:
        print(f"interrupted after {done} of {len(picked)} cases", file=sys.stderr)
    print(*machine(), tabulate(rows, HEAD, disable_numparse=True), ABOUT, sep="\n\n")
    if options.write and done == len(picked):
        RESULTS.write_text(page(rows, started), encoding="utf-8")
    return 0 if done == len(picked) else 130


if __name__ == "__main__":
    sys.exit(main())
