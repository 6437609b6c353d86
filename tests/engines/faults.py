"""Engines made wrong on purpose, each with a right twin that differs in nothing else.

A checker is only as good as what it refutes. `PLANTED` is the table: a fault, the problem it is planted in,
the dtype, and the node and kind of finding that must be blamed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from gradproof.engines import Task, Trace
from gradproof.engines.torch import FUNCTIONS, OPERATORS, TorchEngine
from gradproof.language.files import Problem, parse

Backward = Callable[[Any, torch.Tensor], Any]


def custom(forward: Callable[..., torch.Tensor], backward: Backward) -> Callable[..., torch.Tensor]:
    """A torch function with a backward of our own: `backward(inputs, cotangent)` gives one gradient for each
    input."""

    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(*inputs)
            return forward(*inputs)

        @staticmethod
        def backward(ctx: Any, cotangent: torch.Tensor) -> Any:
            return backward(ctx.saved_tensors, cotangent)

    def call(*inputs: Any) -> torch.Tensor:
        like = next(x for x in inputs if isinstance(x, torch.Tensor))
        return Custom.apply(
            *(x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=like.dtype) for x in inputs)
        )

    return call


def sin_times(factor: float) -> Backward:
    return lambda inputs, g: g * torch.cos(inputs[0]) * factor


def product(inputs: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = inputs
    return _summed(g * b, a.shape), _summed(g * a, b.shape)


def product_without_reduction(inputs: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scalar factor gets one entry's part in place of the sum over all entries."""
    a, b = inputs
    return (g * b).reshape(-1)[0].expand(a.shape) if a.ndim == 0 else g * b, _summed(g * a, b.shape)


def matmul(inputs: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = inputs
    return g @ b.T, a.T @ g


def matmul_transposed(inputs: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = inputs
    return (g @ b.T).T.contiguous(), a.T @ g


def square(inputs: Any, g: torch.Tensor) -> torch.Tensor:
    return 2 * inputs[0] * g


def square_wrong_when_tiny(inputs: Any, g: torch.Tensor) -> torch.Tensor:
    right = square(inputs, g)
    return torch.where(inputs[0].abs() < 1e-30, 3 * inputs[0] * g, right)


def square_nan(inputs: Any, g: torch.Tensor) -> torch.Tensor:
    right = square(inputs, g).clone()
    right.reshape(-1)[-1] = float("nan")
    return right


def _summed(g: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return g.sum_to_size(shape)


class Changed:
    """An engine whose numbers are changed after the run."""

    def __init__(self, change: Callable[[Task, Trace], Trace]) -> None:
        self.name = "changed"
        self.change = change

    def run(self, task: Task, dtype: Any) -> Trace:
        return self.change(task, TorchEngine().run(task, dtype))


class Elsewhere:
    """An engine that computes at another point."""

    def __init__(self, point: Mapping[str, float]) -> None:
        self.name = "elsewhere"
        self.point = point

    def run(self, task: Task, dtype: Any) -> Trace:
        moved = {name: np.asarray(self.point.get(name, value)) for name, value in task.point.items()}
        return TorchEngine().run(replace(task, point=moved), dtype)


def with_gradient(name: str, make: Callable[[Task, Trace], np.ndarray | None]) -> Changed:
    def change(task: Task, trace: Trace) -> Trace:
        return replace(trace, gradients={**trace.gradients, name: make(task, trace)})

    return Changed(change)


def same(task: Task, trace: Trace) -> Trace:
    return trace


X = [[0.5, -1.25, 2.0], [1.5, 0.75, -0.5]]
SQUARE = [[0.5, -1.25], [1.5, 0.75]]


def sine() -> Problem:
    return parse(
        "a = w * x\ns = sin(a)\nloss = sum(s**2)", given={"x": [0.3, 1.1, -2.0]}, parameters={"w": 0.7}
    )


def shared() -> Problem:
    """w is used by two lines, and so is h."""
    text = "h = w * x\na = sin(h)\nb = h**2\nloss = sum(a * b)"
    return parse(text, given={"x": [0.3, 1.1, -2.0]}, parameters={"w": 0.7})


def matrices() -> Problem:
    return parse(
        "y = A @ B\nloss = sum(sin(y))", given={"B": SQUARE}, parameters={"A": [[0.2, 1.0], [-0.3, 0.4]]}
    )


def tiny() -> Problem:
    return parse(
        "s = w**2\nloss = sum(s * c)", given={"c": [1.0, 1.0, 1.0]}, parameters={"w": [0.5, 1e-31, -2.0]}
    )


def squares() -> Problem:
    return parse("s = w**2\nloss = sum(s)", parameters={"w": [0.5, 1.5, -2.0]})


@dataclass(frozen=True)
class Planted:
    """A fault, and where it must be found."""

    name: str
    problem: Callable[[], Problem]
    wrong: Any
    right: Any
    kind: str
    node: str
    dtypes: tuple[str, ...] = ("float64", "float32")
    note: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def _function(name: str, forward: Callable[..., torch.Tensor], backward: Backward) -> TorchEngine:
    return TorchEngine(functions={**FUNCTIONS, name: custom(forward, backward)})


def _operator(name: str, forward: Callable[..., torch.Tensor], backward: Backward) -> TorchEngine:
    return TorchEngine(operators={**OPERATORS, name: custom(forward, backward)})


def _square(backward: Backward) -> TorchEngine:
    made = custom(lambda x: x * x, backward)
    return TorchEngine(operators={**OPERATORS, "**": lambda x, n: made(x)})


def _sine(factor: float) -> TorchEngine:
    return _function("sin", torch.sin, sin_times(factor))


def _part(task: Task, trace: Trace, line: str) -> np.ndarray:
    """What one line alone passes to h: its own local gradient times its cotangent."""
    jacobian = trace.locals[line, "h"]
    assert jacobian is not None
    return np.einsum("i,ij->j", trace.gradients[line], jacobian)


PLANTED = (
    Planted("the sign", sine, _sine(-1.0), _sine(1.0), "local", "s", note="sign"),
    Planted("a factor of 2", sine, _sine(2.0), _sine(1.0), "local", "s", note="factor of 2"),
    Planted("a factor of 1 + 2**-20", sine, _sine(1 + 2.0**-20), _sine(1.0), "local", "s"),
    Planted("a factor of 1 + 1e-13", sine, _sine(1 + 1e-13), _sine(1.0), "local", "s", dtypes=("float64",)),
    Planted("a factor of 1 + 1e-5", sine, _sine(1 + 1e-5), _sine(1.0), "local", "s", dtypes=("float32",)),
    Planted("a factor of 1.1 in half", sine, _sine(1.1), _sine(1.0), "local", "s",
        dtypes=("bfloat16", "float16")),
    Planted("zero", sine, _sine(0.0), _sine(1.0), "local", "s", note="zero"),
    Planted(
        "a dropped use of a shared node", shared,
        with_gradient("h", lambda task, trace: _part(task, trace, "a")), Changed(same), "gradient", "h",
        note="only the part from a arrived",
    ),
    Planted(
        "overwritten instead of added", shared,
        with_gradient("h", lambda task, trace: _part(task, trace, "b")), Changed(same), "gradient", "h",
        note="only the part from b arrived",
    ),
    Planted(
        "a transposed Jacobian", matrices, _function("@", torch.matmul, matmul_transposed),
        _function("@", torch.matmul, matmul), "local", "y",
    ),
    Planted(
        "a missing broadcast reduction", sine, _operator("*", lambda a, b: a * b, product_without_reduction),
        _operator("*", lambda a, b: a * b, product), "local", "a",
    ),
    Planted(
        "a gradient on a given tensor", sine, with_gradient("x", lambda task, trace: np.zeros(3)),
            Changed(same),
        "gradient", "x", note="given",
    ),
    Planted("None", sine, with_gradient("w", lambda task, trace: None), Changed(same), "gradient", "w",
        note="None"),
    Planted(
        "NaN in a gradient", sine, with_gradient("w", lambda task, trace: np.array(np.nan)), Changed(same),
            "gradient",
        "w", note="NaN",
    ),
    Planted("NaN in one entry", squares, _square(square_nan), _square(square), "local", "s", note="NaN"),
    Planted("wrong only below 1e-30", tiny, _square(square_wrong_when_tiny), _square(square), "local", "s"),
    Planted(
        "the shape of a gradient", matrices, with_gradient("A", lambda task, trace: np.zeros((1, 2))),
            Changed(same),
        "gradient", "A", note="shape",
    ),
    Planted(
        "one entry of many", squares,
        with_gradient("w", lambda task, trace: trace.gradients["w"] * np.array([1.0, 1.0 + 1e-6, 1.0])),
            Changed(same),
        "gradient", "w",
    ),
    Planted(
        "other numbers than the point's",
        sine,
        Elsewhere({"w": 0.8}),
        Elsewhere({}),
        "forward",
        "w",
        note="other numbers",
    ),
    Planted(
        "the forward value", sine, _function("sin", lambda x: torch.sin(x) * (1 + 2.0**-20), sin_times(1.0)),
            _sine(1.0),
        "forward", "s",
    ),
)  # fmt: skip
