"""What very many small targets cost: so many expression files, one at a time and several at a time, in turn.

The files vary in formulas, shapes, names and numbers, as those of `expressions/` do. Machines are shared and
noisy, so what counts are the ratios of runs that took turns; of each run it tells the wall clock and the time
of all its processors.

    python benchmarks/many.py
    python benchmarks/many.py --write FOLDER --count 1000
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from tabulate import tabulate

# A graph, and of each leaf its shape: n rows, m columns, h hidden ones. P names parameters.
GRAPHS = (
    ("hat = x * w\nresidual = hat - y\nloss = residual ** 2", "x: y: P w:"),
    ("hat = X @ w + b\nloss = mean((hat - y) ** 2)", "X:nm y:n P w:m P b:"),
    ("z = X @ w\nfit = sum((z - y) ** 2)\nloss = fit + C * sum(w ** 2)", "X:nm y:n P w:m"),
    ("z = X @ w\np = sigmoid(z)\nloss = -mean(y * log(p) + (1 - y) * log(1 - p))", "X:nm y:n P w:m"),
    ("h = tanh(X @ A)\nout = h @ v\nloss = mean((out - y) ** 2)", "X:nm y:n P A:mh P v:h"),
    ("s = softmax(X @ A, axis=1)\nloss = -sum(T * log(s))", "X:nm T:nh P A:mh"),
    ("q = X @ A\nk = X @ B\ns = softmax(q @ k.T / sqrt(C), axis=1)\nloss = sum(s @ X)",
     "X:nm P A:mh P B:mh"),
    ("u = exp(-a * x)\nmodel = b * (1 - u)\nloss = sum((model - y) ** 2)", "x:n y:n P a: P b:"),
    ("r = abs(w * x - y)\nloss = sum(where(r <= C, r ** 2 / 2, C * (r - C / 2)))", "x:n y:n P w:"),
    ("m = mean(w)\nv = mean((w - m) ** 2)\nn = (w - m) / sqrt(v + C)\nloss = sum(g * n)", "g:n P w:n"),
    ("hid = relu(X @ A + b)\nloss = sum(hid ** 2) / C", "X:nm P A:mh P b:h"),
    ("loss = log(sum(exp(C * w)))", "P w:n"),
    ("t = softplus(w * x)\nloss = mean(t - y * x)", "x:n y:n P w:n"),
    ("e[i] = sum(X[i,k] * w[k], k) - y[i]\nloss = sum(e[i] ** 2, i)", "X:nm y:n P w:m"),
    ("a = sin(w) * x\nb = cos(a)\nloss = sum(a * b) + C * sum(w ** 4)", "x:n P w:n"),
    ("d = w - x\nloss = sum(d ** 2) / (C + sum(w ** 2))", "x:n P w:n"),
)  # fmt: skip
WORDS = "alpha beta gamma delta kappa mu rho tau phi psi".split()


def text_of(n: int) -> str:
    """The n-th file; always the same one."""
    given = random.Random(n)
    graph, leaves = GRAPHS[n % len(GRAPHS)]
    sizes = {letter: given.randint(2, 5) for letter in "nmh"}
    tables: dict[str, list[str]] = {"given": [], "parameters": []}
    table = "given"
    for word in leaves.split():
        if word == "P":
            table = "parameters"
            continue
        name, _, shape = word.partition(":")
        tables[table].append(f"{name} = {numbers([sizes[letter] for letter in shape], given)}")
        table = "given"
    graph = graph.replace("C", str(given.randint(1, 40) / 8))
    if n % 3:  # another last line, so that formulas are not all alike
        factor, term = given.randint(2, 99), given.choice(["1", "loss"])
        graph += f"\n{given.choice(WORDS)}_{n} = loss * {factor} + {term}"
    lines = [f'title = "Number {n}"', f'graph = """\n{graph}\n"""']
    for name, rows in tables.items():
        lines += [f"[{name}]", *rows] if rows else []
    return "\n".join(lines) + "\n"


def numbers(shape: list[int], given: random.Random) -> str:
    if not shape:
        return str(given.randint(1, 63) / 64)
    return f"[{', '.join(numbers(shape[1:], given) for _ in range(shape[0]))}]"


def written(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"n{n:05}.toml").write_text(text_of(n))


def timed(folder: Path, options: list[str]) -> tuple[float, float]:
    """The wall clock and the time of all processors of one run, in seconds."""
    before, start = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "gradproof", "check", str(folder), *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"gradproof ended with {done.returncode}")
    took = time.perf_counter() - start
    with suppress(ChildProcessError):  # a server of processes ends after the one that started it
        while True:
            os.wait()
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return took, spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the files there, and run nothing")
    parser.add_argument("--count", type=int, default=1000, help="of the files (1000)")
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 2], help="to be compared (1 2)")
    parser.add_argument("--rounds", type=int, default=3, help="in which each of them has its turn (3)")
    parser.add_argument("--format", default="json", help="of the report (json)")
    options = parser.parse_args()
    with suppress(OSError, AttributeError):  # on Linux, the time of what its processes leave counts too
        ctypes.CDLL(None).prctl(36, 1)
    if options.write:
        written(options.write, options.count)
        return 0
    took: dict[int, list[tuple[float, float]]] = {jobs: [] for jobs in options.jobs}
    with tempfile.TemporaryDirectory(prefix="gradproof.") as folder:
        written(Path(folder), options.count)
        for _ in range(options.rounds):
            for jobs, each in took.items():
                each.append(timed(Path(folder), ["--jobs", str(jobs), "--format", options.format]))
    first = median(wall for wall, _ in took[options.jobs[0]])
    rows = []
    for jobs, each in took.items():
        wall, spent = median(wall for wall, _ in each), median(spent for _, spent in each)
        rows.append([jobs, wall, spent, first / wall])
    heads = ["--jobs", "wall, s", "processors, s", f"times faster than --jobs {options.jobs[0]}"]
    print(tabulate(rows, heads, floatfmt=".3g"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
