"""What a check costs: against the number of lines, against the size of a tensor, and as a whole process.

Beside it stands `torch.autograd.gradcheck` on the same function written in torch, in float64. Machines differ
and are noisy, so what counts are the ratios, taken within one run.

    python benchmarks/cost.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from gradproof.language.files import Problem, parse
from gradproof.oracle import check

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds; what would take longer is not run
BASELINE = [sys.executable, "-c", "import torch, sympy"]
COMMANDS = (  # the first that there is
    [str(Path(sys.executable).with_name("gradproof")), "check", "expressions/ols.toml"],
    [sys.executable, "-m", "gradproof", "check", "expressions/ols.toml"],
)

Function = Callable[..., torch.Tensor]


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """The best of so many runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def chain(length: int) -> tuple[Problem, Function, list[torch.Tensor]]:
    """Lines `x1 = sin(x0)*w`, one after the other."""
    lines = [f"x{n + 1} = sin(x{n})*w" for n in range(length)]

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        for _ in range(length):
            x = torch.sin(x) * w
        return x

    return parse("\n".join(lines), parameters={"x0": 0.5, "w": 1.0}), function, leaves(0.5, 1.0)


def elementwise(size: int) -> tuple[Problem, Function, list[torch.Tensor]]:
    """Two lines over a tensor of that size."""
    random = np.random.default_rng(0)
    x, w = random.standard_normal(size), random.standard_normal(size)

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.mean((x * w + torch.sin(x)) ** 2)

    return parse("y = x*w + sin(x)\nloss = mean(y**2)", parameters={"x": x, "w": w}), function, leaves(x, w)


def leaves(*values: float | np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


def growth(
    title: str,
    make: Callable[[int], tuple[Problem, Function, list[torch.Tensor]]],
    sizes: Sequence[int],
    repeats: int,
) -> list[list[object]]:
    """One row for each size: our time, what ten times the size made of it, and gradcheck's times over
    ours."""
    rows: list[list[object]] = []
    slow = before = 0.0
    for size in sizes:
        problem, function, inputs = make(size)
        # The first check of a function pays for SymPy's derivatives and lambdify, so it is told apart.
        first = seconds(lambda problem=problem: check(problem))
        ours = min(
            first, seconds(lambda problem=problem: check(problem), repeats if first < PATIENCE / 10 else 1)
        )
        fast = seconds(
            lambda f=function, x=inputs: torch.autograd.gradcheck(f, x, fast_mode=True), repeats + 1
        )
        backward = seconds(lambda f=function, x=inputs: f(*x).backward(), repeats + 1)
        entries = sum(tensor.numel() for tensor in inputs)
        # Two evaluations for each entry, so ten times the size costs ten to a hundred times as much.
        slow = float("inf") if slow * 30 > PATIENCE else seconds(
            lambda f=function, x=inputs: torch.autograd.gradcheck(f, x), 1 if slow > 1 else 2
        )  # fmt: skip
        rows.append([
            title, f"{size:,}", f"{entries:,}", first, ours, f"{ours / size * 1e6:,.1f}", ratio(ours, before),
            ratio(slow, ours), ratio(fast, ours), ratio(ours, backward),
        ])  # fmt: skip
        before = ours
    return rows


def ratio(a: float, b: float) -> str:
    return "-" if not b or a == float("inf") else f"{a / b:.3g}"


def process(rounds: int) -> list[list[object]]:
    """The best time of a whole check and of loading what it stands on, in turn, and their ratio."""
    command = next(
        (c for c in COMMANDS if subprocess.run(c, cwd=ROOT, capture_output=True).returncode == 0), None
    )
    if command is None:
        print("\nthere is no `gradproof check` that runs: the whole process is not timed")
        return []
    best = {"check": float("inf"), "baseline": float("inf")}
    for _ in range(rounds):
        for name, what in (("baseline", BASELINE), ("check", command)):
            took = seconds(lambda what=what: subprocess.run(what, cwd=ROOT, check=True, capture_output=True))
            best[name] = min(best[name], took)
    return [["gradproof check expressions/ols.toml", best["check"], best["check"] / best["baseline"]],
            ['python -c "import torch, sympy"', best["baseline"], 1.0]]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="*", default=[10, 100, 1000], help="lengths of the chain")
    parser.add_argument(
        "--entries", type=int, nargs="*", default=[10**n for n in range(2, 7)], help="sizes of the tensor"
    )
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of the whole process and its baseline, in turn"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = growth("lines", chain, options.lines, options.repeats)
    rows += growth("entries", elementwise, options.entries, options.repeats)
    print(tabulate(rows, [
        "", "size", "inputs", "first check, s", "check, s", "µs each", "over a tenth", "gradcheck\n/ check",
        "fast gradcheck\n/ check", "check /\nforward and backward",
    ], floatfmt=".3g", disable_numparse=[1, 2, 5, 6, 7, 8, 9],
        colalign=["left", *["right"] * 9]))  # fmt: skip
    print(f"-: not run, because it would take more than about {PATIENCE:.0f} s, or there is nothing smaller")
    if rows := process(options.rounds):
        print()
        print(tabulate(rows, ["whole process", "best, s", "ratio (at most 1.5)"], floatfmt=".3g"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
