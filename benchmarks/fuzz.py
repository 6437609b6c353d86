"""Random torch functions with masks, ties, stops, writes in place and numbers that leave torch, beside dual
numbers.

    python benchmarks/fuzz.py [--count 5000] [--seed 0]

A function is a random list of operations. Each operation is written twice: in torch, with whatever stops
autograd there, and on dual numbers in NumPy, which know of no stop: value and tangents of what the torch code
computes. A function is wrong where torch's gradient is not the dual one. Printed: how many there were of each
kind, the wrong ones that passed (`silent`), and the right ones that did not (`alarms`), with the seeds that
make them again. Exit 1 where one passed in silence, or more than one right one in a thousand did not pass.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradproof import check_function

SIZE = 3
Dual = tuple[np.ndarray, np.ndarray]  # values, and a row of tangents for each


@dataclass(frozen=True)
class Operation:
    """`torch` and `dual` take two operands and a constant vector."""

    name: str
    torch: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    dual: Callable[[Dual, Dual, np.ndarray], Dual]


def lifted(
    value: Callable[[np.ndarray], np.ndarray], slope: Callable[[np.ndarray], np.ndarray]
) -> Callable[..., Dual]:
    return lambda a, b, c: (value(a[0]), slope(a[0])[:, None] * a[1])


def product(a: Dual, b: Dual, c: Any = None) -> Dual:
    return a[0] * b[0], a[0][:, None] * b[1] + b[0][:, None] * a[1]


def square(a: Dual) -> Dual:
    return product(a, a)


def first(a: Dual) -> Dual:
    return np.repeat(a[0][:1], SIZE), np.repeat(a[1][:1], SIZE, axis=0)


def chosen(where: np.ndarray, a: Dual, b: Dual) -> Dual:
    return np.where(where, a[0], b[0]), np.where(where[:, None], a[1], b[1])


def larger(a: Dual, b: Dual) -> Dual:
    """At a tie one half each, as torch has it; any other share is right as well, and not made here."""
    share = np.where(a[0] > b[0], 1.0, np.where(a[0] < b[0], 0.0, 0.5))
    return np.maximum(a[0], b[0]), share[:, None] * a[1] + (1 - share)[:, None] * b[1]


def softened(a: Dual, b: Any, c: Any) -> Dual:
    value = np.exp(a[0] - a[0].max())
    value = value / value.sum()
    return value, value[:, None] * (a[1] - value @ a[1])


def scaled(a: Dual, by: float, more: float = 0.0) -> Dual:
    return by * a[0] + more, by * a[1]


def affine(a: Dual, b: Dual, by: float) -> Dual:
    return product(scaled(first(a), by, 1.0), b)


# In torch, as people write it


def tied(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.maximum(a, a * 0.5 + a * 0.5)


def shifted(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    e = (a - a.max().detach()).exp()
    return e / e.sum()


def written(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    y = a * 1.0
    y[1:] *= b[1:]
    return y


def written_unseen(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    y = a * 1.0
    with torch.no_grad():
        y.mul_(c)
    return y


def written_by_data(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    y = a * 1.0
    y.data = y.data * y.data
    return y


def by_numpy(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return b * (torch.from_numpy(a.detach().numpy() ** 2) + 0)


def logged(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    float(a.sum().item())
    return a + b


def listed(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return b * torch.tensor([2 * v for v in a.tolist()], dtype=a.dtype)


def under_no_grad(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = a.sin()
    return b * scale


def sine(a: Dual) -> Dual:
    return np.sin(a[0]), np.cos(a[0])[:, None] * a[1]


OPERATIONS = (
    Operation("sin", lambda a, b, c: a.sin(), lifted(np.sin, np.cos)),
    Operation("tanh", lambda a, b, c: a.tanh(), lifted(np.tanh, lambda x: 1 - np.tanh(x) ** 2)),
    Operation(
        "exp", lambda a, b, c: (a * 0.25).exp(), lifted(lambda x: np.exp(x / 4), lambda x: np.exp(x / 4) / 4)
    ),
    Operation("mul", lambda a, b, c: a * b, product),
    Operation("add", lambda a, b, c: a + b * c, lambda a, b, c: (a[0] + c * b[0], a[1] + c[:, None] * b[1])),
    Operation("mask", lambda a, b, c: torch.where(c == 1, a, b), lambda a, b, c: chosen(c == 1, a, b)),
    Operation(
        "mask above",
        lambda a, b, c: torch.where(c >= 1, a * a, b),
        lambda a, b, c: chosen(c >= 1, square(a), b),
    ),
    Operation("maximum", lambda a, b, c: torch.maximum(a, b), lambda a, b, c: larger(a, b)),
    Operation("tie", tied, lambda a, b, c: a),
    Operation("relu", lambda a, b, c: a.relu(), lambda a, b, c: chosen(a[0] > 0, a, scaled(a, 0.0))),
    Operation("softmax", lambda a, b, c: a.softmax(0), softened),
    Operation("shifted softmax", shifted, softened),
    Operation("in place", written, lambda a, b, c: chosen(np.arange(SIZE) > 0, product(a, b), a)),
    Operation("logged", logged, lambda a, b, c: (a[0] + b[0], a[1] + b[1])),
    Operation("flip", lambda a, b, c: a.flip(0) + b, lambda a, b, c: (a[0][::-1] + b[0], a[1][::-1] + b[1])),
)
STOPS = (
    Operation("detach", lambda a, b, c: a.detach() * b, product),
    Operation("no_grad", under_no_grad, lambda a, b, c: product(sine(a), b)),
    Operation("written under no_grad", written_unseen, lambda a, b, c: (c * a[0], c[:, None] * a[1])),
    Operation("y.data =", written_by_data, lambda a, b, c: square(a)),
    Operation("item", lambda a, b, c: b * a[0].item(), lambda a, b, c: product(first(a), b)),
    Operation("item and more", lambda a, b, c: b * (2 * a[0].item() + 1), lambda a, b, c: affine(a, b, 2.0)),
    Operation("alpha=", lambda a, b, c: torch.add(b, b, alpha=3 * a[0].item()), lambda a, b,
        c: affine(a, b, 3.0)),
    Operation("NumPy", by_numpy, lambda a, b, c: product(square(a), b)),
    Operation("tolist", listed, lambda a, b, c: product(scaled(a, 2.0), b)),
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """Operations, each with the places of its operands among the values before it, and its constant."""

    steps: tuple[tuple[Operation, int, int, np.ndarray], ...]
    point: np.ndarray

    def torch(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for operation, n, m, constant in self.steps:
            values.append(operation.torch(values[n], values[m], torch.from_numpy(constant)))
        return (values[-1] * torch.arange(1.0, SIZE + 1, dtype=x.dtype)).sum()

    def dual(self) -> np.ndarray:
        values: list[Dual] = [(self.point, np.eye(SIZE))]
        for operation, n, m, constant in self.steps:
            values.append(operation.dual(values[n], values[m], constant))
        return np.arange(1.0, SIZE + 1) @ values[-1][1]


def program(seed: int) -> Program:
    random = np.random.default_rng(seed)
    length = int(random.integers(2, 7))
    steps = []
    stop = int(random.integers(length)) if random.random() < 0.5 else -1
    for n in range(length):
        operation = (STOPS if n == stop else OPERATIONS)[
            random.integers(len(STOPS if n == stop else OPERATIONS))
        ]
        constant = random.choice([0.0, 1.0, 2.0], SIZE)
        steps.append((operation, n, int(random.integers(n + 1)), constant))
    return Program(tuple(steps), random.normal(size=SIZE))


def kind(made: Program) -> str:
    """Whether torch's gradient is the dual one: `right`, `wrong`, or `near`, which is left out."""
    x = torch.from_numpy(made.point.copy()).requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(made.torch(x), x)
    except RuntimeError:
        return "near"  # nothing is left that needs a gradient, or torch itself refuses
    exact = made.dual()
    size = max(np.abs(exact).max(), np.abs(gradient.numpy()).max())
    if size < 1e-7:
        return "near"  # a softmax at its end, where torch's own rounding is as large as what is left
    apart = np.abs(gradient.numpy() - exact)
    if (apart <= 1e-9 * np.abs(exact)).all():
        return "right"
    return "wrong" if apart.max() > 1e-6 * size else "near"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    silent, alarms = [], []
    for seed in range(asked.seed, asked.seed + asked.count):
        made = program(seed)
        label = kind(made)
        counts[label] += 1
        if label == "near":
            continue
        report = check_function(made.torch, torch.from_numpy(made.point.copy()).requires_grad_())
        counts[f"{label}: {report.verdict.value}"] += 1
        if label == "wrong" and report.ok:
            silent.append((seed, [step[0].name for step in made.steps]))
        if label == "right" and not report.ok:
            alarms.append((seed, report.verdict.value, [step[0].name for step in made.steps]))
    for name, count in sorted(counts.items()):
        print(f"{name:24} {count}")
    for title, found in (("silent", silent), ("alarms", alarms)):
        print(f"{title}: {len(found)}")
        for one in found[:10]:
            print(f"  {one}")
    sys.exit(bool(silent) or len(alarms) * 1000 > max(counts["right"], 1))


if __name__ == "__main__":
    main()
