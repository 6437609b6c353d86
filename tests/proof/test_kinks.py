"""At a kink: what moves across it, which vectors are subgradients, and what is a limit; in every door
alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faulty import custom

from gradproof import Verdict, assert_gradients, check, check_function, parse

ONES = {"x": 1.0, "y": 1.0}
ZEROS = {"x": 0.0, "y": 0.0}
MASKED = "m = where(w > 0, 1, 0)\nloss = where(m == 1, w**2, w**3)"
MOVED = "loss = maximum(x + t, y + t)"
NO_MATTER = "loss = where(x == 0, x, sin(3*x))"
SINC = "loss = where(x == 0, 1, sin(x)/x)"
FOUR = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 2.0}
COUNTED = "loss = sum(where(n >= 3, w**2, w))"
EQUAL = {"x": [1.0, 1.0], "y": [1.0, 1.0]}
SQUARE = [[1.0, 1.0], [1.0, 1.0]]

# text, point, gradients that are right, gradients that are not
TABLE: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "a flag that is given": ("loss = where(flag == 1, w**2, w**3)", {"flag": 1.0, "w": 2.0}, {"w": 4.0},
        {"w": 8.0}),
    "a mask that is given": (COUNTED, {"n": [3.0, 2.0], "w": [2.0, 2.0]}, {"w": [4, 1]}, {"w": [2.5, 1]}),
    "the sign of what is given": ("loss = sign(c)*w", {"c": 0.0, "w": 2.0}, {"w": 0.0}, {"w": 0.5}),
    "a mask that no parameter moves here": (MASKED, {"w": 1.0}, {"w": 2.0}, {"w": 2.5}),
    "a sign that no parameter moves here": ("loss = where(sign(w) == 1, w**2, w**3)", {"w": 1.0}, {"w": 2.0},
        {"w": 2.5}),
    "a kink beside a given flag": ("loss = where(flag == 1, relu(w), w**3)", {"flag": 1.0, "w": 0.0},
        {"w": 0.5}, {"w": 1.5}),
    "both sides of a tie": ("loss = maximum(x, y)", ONES, {"x": 0.3, "y": 0.7}, {"x": 1.0, "y": 1.0}),
    "a tie that nobody gets": ("loss = minimum(x, y)", ONES, {"x": 0.0, "y": 1.0}, {"x": 0.0, "y": 0.0}),
    "tied entries of a maximum": ("loss = max(v)", {"v": [1.0, 1.0, 1.0]}, {"v": [0.25, 0.25, 0.5]},
        {"v": [1, 1, 1]}),
    "tied entries of a minimum": ("loss = min(v)", {"v": [1.0, 1.0, 2.0]}, {"v": [0, 1, 0]},
        {"v": [0, 0, 0]}),
    "a maximum of maxima": ("loss = max(max(v, axis=0))", {"v": SQUARE}, {"v": [[0.25] * 2] * 2},
        {"v": [[0.5] * 2] * 2}),
    "the norm at 0": ("loss = norm(v)", {"v": [0.0, 0.0]}, {"v": [0.6, 0.8]}, {"v": [0.9, 0.9]}),
    "the norm at 0, in three axes": ("loss = norm(v)", {"v": [0.0] * 3}, {"v": [0.3, -0.2, 0.6]},
        {"v": [0.6, -0.7, 0.6]}),
    "a root of squares": ("loss = sqrt(x**2 + y**2)", ZEROS, {"x": 0.0, "y": 0.0}, {"x": 0.8, "y": 0.8}),
    "the larger of magnitudes": ("loss = maximum(abs(x), abs(y))", ZEROS, {"x": 0.5, "y": -0.5},
        {"x": 0.8, "y": 0.8}),
    "a distance of equals": (
        "loss = norm(x - y)", EQUAL, {"x": [0.6, 0.8], "y": [-0.6, -0.8]},
            {"x": [0.6, 0.8], "y": [-0.6, 0.8]}),
    "kinks apart": ("loss = sum(relu(v))", {"v": [0.0, 0.0, 0.0]}, {"v": [0, 1, 0.5]}, {"v": [0, 1.2, 0.5]}),
    "ties apart": (
        "loss = maximum(a, b) - maximum(c, d)", FOUR, {"a": 1, "b": 0, "c": 0, "d": -1},
            {"a": 1, "b": 0, "c": -1, "d": -1}),
    "what moves both sides alike": (MOVED, {**ONES, "t": 0.0}, {"x": 0.5, "y": 0.5, "t": 1.0},
        {"x": 0.5, "y": 0.5, "t": 1.5}),
    "a removable point": (SINC, {"x": 0.0}, {"x": 0.0}, {"x": 0.1}),
    "a point that does not matter": (NO_MATTER, {"x": 0.0}, {"x": 3.0}, {"x": 1.0}),
    "a limit by a logarithm": ("loss = where(x == 0, 0, x**2*log(abs(x)))", {"x": 0.0}, {"x": 0.0},
        {"x": 1e-3}),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_a_subgradient_passes_and_what_is_none_does_not(name: str) -> None:
    text, point, right, wrong = TABLE[name]
    assert_gradients(text, point, right)
    with pytest.raises(AssertionError):
        assert_gradients(text, point, wrong)


def test_a_wrong_vector_is_told_with_its_direction() -> None:
    with pytest.raises(
        AssertionError, match="together these 2 entries are no subgradient: along one direction they give 2"
    ):
        assert_gradients("loss = maximum(x, y)", ONES, {"x": 1.0, "y": 1.0})


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_at_a_kink_the_other_parts_may_round(dtype: str) -> None:
    text = "loss = sum(tanh(log_softmax(v))) + 1e-8*max(v) + max(0.5*v)"
    assert check(parse(text, given={}, parameters={"v": [0.3, 0.3, 0.3]}), dtype=dtype).ok


def leaf(*values: Any, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


def tied(a: torch.Tensor, b: torch.Tensor) -> tuple[Any, ...]:
    return torch.maximum(a, b), a >= b, b >= a


GIVEN = torch.ones(2, dtype=torch.float64)

# a function, its inputs, whether it is right
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], bool]] = {
    "maximum": (torch.maximum, (leaf(1.0, 2.0), leaf(1.0, 1.0)), True),
    "a maximum that gives one to each": (
        custom(torch.maximum, lambda g, a, b: (g * (a >= b), g * (b >= a))),
            (leaf(1.0, 2.0), leaf(1.0, 1.0)), False),
    "amax": (torch.amax, (leaf(1.0, 1.0, 0.0),), True),
    "amax of a hundred": (torch.amax, (leaf(*[0.0] * 100),), True),
    "amax of a hundred, one to each": (custom(torch.amax, lambda g, a: g * (a == a.amax())),
        (leaf(*[0.0] * 100),), False),
    "amax that gives one to each": (custom(torch.amax, lambda g, a: g * (a == a.amax())),
        (leaf(1.0, 1.0, 0.0),), False),
    "the median": (torch.median, (leaf(1.0, 1.0, 0.0),), True),
    "a norm of a slope beyond 1": (custom(torch.norm, lambda g, a: g * torch.full_like(a, 0.9)),
        (leaf(0.0, 0.0),), False),
    "a norm": (torch.norm, (leaf(0.0, 0.0),), True),
    "a condition on what is given": (lambda x: torch.where(GIVEN >= 1, x * x, x), (leaf(1.0, 1.0),), True),
    "a mask by multiplication": (lambda x: x * (x > 0), (leaf(0.0, 1.0),), True),
    "where at an equality": (lambda v: torch.where(v == 0, v, torch.sin(3 * v)), (leaf(0.0),), False),
    "where at an equality, right": (lambda v: torch.where(v == 0, 3 * v, torch.sin(3 * v)), (leaf(0.0),),
        True),
    "a jump at its edge": (lambda x: (x > 0).double() * 3 + x, (leaf(0.0, 1.0),), True),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_torch_function_at_a_kink(name: str) -> None:
    func, inputs, right = FUNCTIONS[name]
    report = check_function(func, *inputs)
    assert report.ok == right, report.to_text()


def test_an_equality_is_wrong_in_every_door() -> None:
    check_jax = pytest.importorskip("gradproof.jax").check_function
    jnp = pytest.importorskip("jax.numpy")
    assert check(parse(NO_MATTER, given={}, parameters={"x": 0.0})).verdict is Verdict.WRONG
    assert check_jax(lambda x: jnp.where(x == 0, x, jnp.sin(3 * x)), np.zeros(1)).verdict is Verdict.WRONG
    assert check_jax(lambda x: jnp.where(x == 0, 3 * x, jnp.sin(3 * x)), np.zeros(1)).ok
