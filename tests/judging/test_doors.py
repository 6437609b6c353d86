"""The doors agree: one case, written for every door that can express it, has one verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradproof.jax
from gradproof import assert_gradients, check, check_function, parse


@dataclass(frozen=True)
class Case:
    """A function of x in the words of every door, the point, and the verdict of an engine whose convention is
    torch's; `gradient` is what it gives."""

    name: str
    text: str
    torch: Callable[[Any], Any]
    jax: Callable[[Any], Any]
    x: Any
    gradient: Any
    verdict: str  # "right", "kink" or "wrong"


CASES = [
    Case("an equality that holds", "y = where(x == 0, x, sin(3*x))",
        lambda x: torch.where(x == 0, x, torch.sin(3 * x)),
         lambda x: jnp.where(x == 0, x, jnp.sin(3 * x)), 0.0, 1.0, "wrong"),
    Case("an equality that does not hold", "y = where(x == 0, x, sin(3*x))",
         lambda x: torch.where(x == 0, x, torch.sin(3 * x)), lambda x: jnp.where(x == 0, x, jnp.sin(3 * x)),
             1.0,
         3 * np.cos(3.0), "right"),
    Case("an equality of like branches", "y = where(x == 0, 3*x, sin(3*x))",
         lambda x: torch.where(x == 0, 3 * x, torch.sin(3 * x)),
             lambda x: jnp.where(x == 0, 3 * x, jnp.sin(3 * x)),
         0.0, 3.0, "right"),
    Case("a boundary of like slopes", "y = where(x > 0, x**2, -x**2)",
        lambda x: torch.where(x > 0, x**2, -(x**2)),
         lambda x: jnp.where(x > 0, x**2, -(x**2)), 0.0, 0.0, "right"),
    Case("a boundary with a kink", "y = where(x > 0, 2*x, x)", lambda x: torch.where(x > 0, 2 * x, x),
         lambda x: jnp.where(x > 0, 2 * x, x), 0.0, 1.0, "kink"),
    Case("a kink", "y = abs(x)", torch.abs, jnp.abs, 0.0, 0.0, "kink"),
    Case("a kink that cancels", "y = relu(x) - relu(-x)", lambda x: torch.relu(x) - torch.relu(-x),
         lambda x: jax.nn.relu(x) - jax.nn.relu(-x), 0.0, 0.0, "wrong"),
    Case("a removable point", "s = where(x == 0, 1, x)\ny = where(x == 0, 1, sin(x)/s)",
         lambda x: torch.where(x == 0, 1.0, torch.sin(x) / torch.where(x == 0, 1.0, x)),
         lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / jnp.where(x == 0, 1.0, x)), 0.0, 0.0, "right"),
    Case("no slope", "y = 0*x", lambda x: 0 * x, lambda x: 0 * x, 2.0, 0.0, "right"),
    Case("two uses", "y = x*sin(x)", lambda x: x * torch.sin(x), lambda x: x * jnp.sin(x), 1.0,
         np.sin(1.0) + np.cos(1.0), "right"),
    Case("two lines that use it", "a = x**2\nb = exp(x)\ny = a*b", lambda x: x**2 * torch.exp(x),
         lambda x: x**2 * jnp.exp(x), 0.5, (2 * 0.5 + 0.25) * np.exp(0.5), "right"),
    Case("a maximum with itself", "y = maximum(x, x)", lambda x: torch.maximum(x, x),
        lambda x: jnp.maximum(x, x), 2.0,
         1.0, "right"),
    Case("a tie", "y = max(x)", lambda x: x.amax(), lambda x: jnp.max(x), [1.0, 1.0], [0.5, 0.5], "kink"),
    Case("a root at 0 of a product", "y = sqrt(x*x)", lambda x: torch.sqrt(x * x), lambda x: jnp.sqrt(x * x),
        0.0,
         float("nan"), "wrong"),
]  # fmt: skip
NAMES = [case.name for case in CASES]
WORDS = {"exact": "right", "rounding": "right"}


def verdict(report: Any) -> str:
    return WORDS.get(str(report.verdict), str(report.verdict))


def asserted(case: Case) -> str:
    """What is said of the numbers that an engine gave."""
    try:
        return verdict(assert_gradients(case.text, {"x": case.x}, {"x": case.gradient}))
    except AssertionError as error:
        return verdict(error.report)  # type: ignore[attr-defined] # assert_gradients puts it there


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_every_door_says_the_same(case: Case) -> None:
    x = torch.tensor(case.x, dtype=torch.float64, requires_grad=True)
    told = {
        "a file": verdict(check(parse(case.text, parameters={"x": case.x}))),
        "a torch function": verdict(check_function(case.torch, x)),
        "a JAX function": verdict(
            gradproof.jax.check_function(case.jax, np.asarray(case.x, dtype=np.float64))
        ),
        "numbers": asserted(case),
    }
    assert told == dict.fromkeys(told, case.verdict)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.verdict == "right"], ids=lambda case: case.name
)
def test_a_wrong_number_is_wrong_in_every_door(case: Case) -> None:
    """The nearly wrong twin: the same function, with a backward that is off by one part in a thousand."""

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 1.001 + 1e-3 * (g == 0)

    @jax.custom_vjp
    def off(x: Any) -> Any:
        return 1 * x

    off.defvjp(lambda x: (1 * x, None), lambda _, g: (g * 1.001 + 1e-3 * (g == 0),))
    x = torch.tensor(case.x, dtype=torch.float64, requires_grad=True)
    point = np.asarray(case.x, dtype=np.float64)
    gradient = np.asarray(case.gradient) * 1.001 + 1e-3 * (np.asarray(case.gradient) == 0)
    with pytest.raises(AssertionError):
        assert_gradients(case.text, {"x": case.x}, {"x": gradient})
    assert not check_function(lambda x: case.torch(Off.apply(x)), x).ok
    assert not gradproof.jax.check_function(lambda x: case.jax(off(x)), point).ok
