"""Floats first, then balls: the findings are those of balls alone, and what is planted is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faulty import custom
from on_off import GROUPS, Case, differences, floats_for_all, of_function
from torch import Tensor

from gradproof import Report, Verdict, check_function
from gradproof.dtypes import DTYPES
from gradproof.judging.sieve import Sieve, sieve_sum, without_floats
from gradproof.proof.graph import Node, Read, free, slot

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of what is beta

SAMPLED = {"faults": 60, "tricky": 16, "net": 6, "nets": 28, "files": 12, "other engines": 24, "doors": 4}


def sampled() -> list[pytest.param]:
    """Of each group every so many-th; `benchmarks/edge.py --on-off` has them all."""
    return [
        pytest.param(case, id=f"{group}: {case.name}")
        for group, every in SAMPLED.items()
        for n, case in enumerate(GROUPS[group]())
        if n % every == every // 2
    ]


@pytest.mark.parametrize("case", sampled())
def test_a_case_has_the_same_findings_with_floats_and_without(case: Case) -> None:
    assert not (found := differences(case)), found[0]


def numbers(*shape: int, dtype: torch.dtype = torch.float32, zeros: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    made.view(-1)[:zeros] = 0.0
    return made.requires_grad_()


lifted = custom(lambda x: torch.where(x > 0, x + 5, x), lambda g, x: g * 1)
LARGE: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "a kink in many entries": (torch.relu, lambda: (numbers(900, zeros=3),)),
    "a kink of a sign": (lambda x: x.abs() * 2, lambda: (numbers(900, zeros=2),)),
    "a jump whose slopes are like": (lifted, lambda: (numbers(310, zeros=1),)),
    "all entries alike": (lambda x: x * x, lambda: (torch.full((900,), 1.1, requires_grad=True),)),
    "entries in pairs": (lambda x: x @ x.T, lambda: (numbers(30, 30),)),
    "a function of two": (lambda x: torch.atan2(x, x + 1), lambda: (numbers(900),)),
    "an operation of several outputs": (
        lambda x: torch.nn.functional.group_norm(x.view(5, 6, 10, 3), 2) * 2, lambda: (numbers(900),)
    ),
    "a padding": (lambda x: torch.nn.functional.pad(x, (1, 2, 1, 1)) * 3, lambda: (numbers(30, 30),)),
    "a mask": (
        lambda x: torch.softmax(x.masked_fill(torch.ones(30, 30).triu(1).bool(), -torch.inf), -1),
        lambda: (numbers(30, 30),),
    ),
    "no gradient": (custom(lambda x: x * x, lambda g, x: None), lambda: (numbers(900),)),
    "a gradient of zeros": (custom(lambda x: x * x, lambda g, x: 0 * g), lambda: (numbers(900),)),
    "a wrong value among many": (
        custom(lambda x: x * x, lambda g, x: 2 * g * x + (torch.arange(900) == 700) * 1e-3),
        lambda: (numbers(900),),
    ),
    "a gradient that is no number": (
        custom(lambda x: x * x, lambda g, x: 2 * g * x + torch.where(torch.arange(900) == 7, torch.nan, 0.0)),
        lambda: (numbers(900),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", LARGE)
def test_a_large_tensor_has_the_same_findings_with_floats_and_without(name: str, dtype: str) -> None:
    func, inputs = LARGE[name]

    def made() -> tuple[Any, ...]:
        return tuple(x.detach().to(getattr(torch, dtype)).requires_grad_() for x in inputs())

    assert not (found := differences(of_function(name, func, made))), found[0]


# Detection

PLANTED = {"float64": 1e-14, "float32": 1e-6, "bfloat16": 3e-2}


def deep(depth: int, at: int, error: float) -> Callable[[Tensor], Tensor]:
    """A chain of layers; the one that is planted has a gradient that is off by a factor of 1 + error."""
    planted = custom(torch.sin, lambda g, x: g * torch.cos(x) * (1 + error))

    def func(x: Tensor) -> Tensor:
        for n in range(depth):
            x = planted(x) if n == at else torch.sin(x)
            x = x * 1.5
        return x

    return func


def refuted(report: Report) -> list[tuple[str, str, tuple[int, ...]]]:
    own = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    return [(f.kind, f.node, tuple(f.index or ())) for f in own]


@pytest.mark.parametrize("depth", [1, 10, 50])
@pytest.mark.parametrize("dtype", PLANTED)
def test_a_planted_factor_is_found_at_its_node_with_floats_where_it_is_without(
    dtype: str, depth: int
) -> None:
    func, x = deep(depth, depth // 2, PLANTED[dtype]), numbers(40, dtype=getattr(torch, dtype))
    with floats_for_all():
        on = refuted(check_function(func, x))
    with without_floats():
        off = refuted(check_function(func, x))
    assert on == off
    assert [(kind, node) for kind, node, _ in on] == [("local", "CustomBackward")]


@pytest.mark.parametrize("dtype", PLANTED)
def test_one_entry_of_a_million_is_found(dtype: str) -> None:
    count, at = 1_000_000, 654_321
    error = torch.zeros(count, dtype=torch.float64)
    error[at] = PLANTED[dtype]
    factor = (1 + error).to(getattr(torch, dtype))
    square = custom(lambda x: x * 3.0, lambda g, x: g * 3.0 * factor)
    wrong = refuted(check_function(square, numbers(count, dtype=getattr(torch, dtype))))
    assert wrong == [("local", "CustomBackward", (at,))]
    right = custom(lambda x: x * 3.0, lambda g, x: g * 3.0)
    assert check_function(right, numbers(count, dtype=getattr(torch, dtype))).ok


# The sieve itself


def test_without_floats_no_table_is_there() -> None:
    node = Node("y", (900,), slot(0) ** 2, (Read("x", (free(0),)),))
    given = {"x": np.ones(900)}
    assert Sieve((node,), given, frozenset("xy"), DTYPES["float32"]).value("y") is not None
    with without_floats():
        assert Sieve((node,), given, frozenset("xy"), DTYPES["float32"]).value("y") is None
    few = {"x": np.ones(9)}
    small = Node("y", (9,), slot(0) ** 2, (Read("x", (free(0),)),))
    assert Sieve((small,), few, frozenset("xy"), DTYPES["float32"]).value("y") is None


def test_a_sum_is_judged_by_floats_as_by_balls() -> None:
    terms = [np.linspace(-1, 1, 2000).astype(np.float32).astype(float) for _ in range(3)]
    right = (terms[0].astype(np.float32) + terms[1].astype(np.float32)) + terms[2].astype(np.float32)
    found = sieve_sum(right.astype(float), terms, DTYPES["float32"])
    assert found is not None and found.verdict.passes
    wrong = right.astype(float)
    wrong[1234] *= 1 + 1e-5
    judged = sieve_sum(wrong, terms, DTYPES["float32"])
    assert judged is None or not judged.verdict.passes
    assert sieve_sum(np.where(wrong == wrong[0], np.nan, wrong), terms, DTYPES["float32"]) is None
