"""How well a sum of 16-bit numbers was taken: what is held in 16 bits is refuted where that matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty import custom
from torch import Tensor

from gradproof import InputError, Verdict, check_function
from gradproof.causes import HeldIn
from gradproof.verdict import Rung

HALVES = [torch.bfloat16, torch.float16]


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_()


def one_by_one(rows: Tensor) -> Tensor:
    """The sum over the first axis, rounded after each addition."""
    total = torch.zeros_like(rows[0])
    for row in rows:
        total = total + row
    return total


COUNT = 3000
TOKENS = torch.zeros(COUNT, dtype=torch.long)
# Each as (forward, a backward that holds its sum in 16 bits, one that holds it in float32, the shape).
SUMS: dict[str, tuple[Callable[..., Tensor], Callable[..., Any], Callable[..., Any], tuple[int, ...]]] = {
    "a bias": (lambda b: b.expand(COUNT, 4).clone(), lambda g, b: one_by_one(g), lambda g, b: g.sum(0), (4,)),
    "a table": (lambda w: w.index_select(0, TOKENS), lambda g, w: torch.cat([one_by_one(g)[None], w[1:] * 0]),
                lambda g, w: torch.cat([g.sum(0, keepdim=True), w[1:] * 0]), (2, 4)),
    "a scale": (lambda s: s * torch.ones(COUNT, 1, dtype=s.dtype), lambda g, s: one_by_one(g),
                lambda g, s: g.sum(0), (1,)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_held_in_16_bits_is_refuted_and_named(name: str, dtype: torch.dtype) -> None:
    forward, bad, good, shape = SUMS[name]
    x = drawn(*shape, dtype=dtype)
    wrong = check_function(lambda x: custom(forward, bad)(x).sum(), x, net=False)
    (finding,) = [f for f in wrong.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert finding.node == "CustomBackward" and HeldIn(wrong.dtype) in finding.causes, wrong.to_text()
    assert check_function(lambda x: custom(forward, bad)(x).sum(), x, net=False, accumulate="any").ok
    assert check_function(lambda x: custom(forward, good)(x).sum(), x, net=False).ok


# What torch itself holds in float32, and the chains that a user writes out.
RIGHT: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "sum": (lambda x: x.sum(), (COUNT,)),
    "mean": (lambda x: x.abs().mean(), (COUNT,)),
    "a product": (lambda x: x.abs() @ x.abs(), (COUNT,)),
    "index_select": (lambda w: w.index_select(0, TOKENS).sum(), (4, 2)),
    "expand": (lambda w: w.expand(COUNT, 4).sum(), (4,)),
    "a linear layer's bias": (
        lambda b: torch.nn.functional.linear(b.new_ones(COUNT, 2), b.new_ones(3, 2), b), (3,)),
    "a chain written out": (lambda x: one_by_one(x[:60].abs()), (64,)),
    "many uses of one number": (lambda x: torch.stack([x * n for n in range(40)]).sum(), (3,)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", RIGHT)
def test_a_sum_held_in_float32_passes(name: str, dtype: torch.dtype) -> None:
    function, shape = RIGHT[name]
    report = check_function(function, drawn(*shape, dtype=dtype), net=False)
    assert report.ok, report.to_text()


@pytest.mark.parametrize("dtype, held", [(torch.bfloat16, 256), (torch.float16, 2048)], ids=str)
def test_torch_s_own_tables_are_told(dtype: torch.dtype, held: float) -> None:
    report = check_function(lambda w: w[TOKENS].sum(), drawn(4, 2, dtype=dtype), net=False)
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert (finding.exact, finding.value) == (COUNT, held)


def test_another_way_to_accumulate_is_bad_input() -> None:
    with pytest.raises(InputError, match="accumulate='float64'"):
        check_function(torch.sin, drawn(2, dtype=torch.bfloat16), accumulate="float64")


def of_bias(add: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    class Bias(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, bias):
            return x + bias

        @staticmethod
        def backward(ctx, g):
            return g, add(g)

    return Bias.apply


def one_after_the_other(g: Tensor) -> Tensor:
    total = torch.zeros_like(g[0])
    for row in g:
        total = total + row
    return total


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_rung_of_a_sum_that_passes_is_told(dtype: torch.dtype) -> None:
    """Twelve additions in 16 bits pass, and are told from those in float32."""
    generator = torch.Generator().manual_seed(0)
    x, bias, factor = (torch.randn(s, generator=generator).to(dtype) for s in ((12, 3), (3,), (12, 3)))

    def rung(add: Callable[[Tensor], Tensor]) -> Rung | None:
        given = x.clone().requires_grad_(), bias.clone().requires_grad_()
        report = check_function(lambda x, b: of_bias(add)(x, b) * factor, *given)
        assert report.ok
        (found,) = (f.rung for f in report.findings if f.wrt == "b")
        assert (found is Rung.HALF) == ("(∂BiasBackward/∂b)" in report.to_text())
        return found

    assert rung(one_after_the_other) is Rung.HALF
    assert rung(lambda g: g.double().sum(0).to(g.dtype)) in (Rung.CORRECT, Rung.WELL)


@pytest.mark.parametrize("case", ["rows", "places", "batches"])
def test_products_in_groups_are_judged(case: str) -> None:
    """Each group of rows by a matrix of its own, as a mixture of experts has them; the sum in float32."""
    offsets = torch.tensor([8, 16, 32], dtype=torch.int32)
    shapes = {
        "rows": ((32, 16), (3, 16, 8)),
        "places": ((16, 32), (32, 8)),
        "batches": ((3, 8, 16), (3, 16, 8)),
    }
    a, b = (drawn(*shape, dtype=torch.bfloat16) for shape in shapes[case])

    def grouped(a: Tensor, b: Tensor) -> Tensor:
        return torch._grouped_mm(a, b, offs=None if case == "batches" else offsets)

    factor = torch.randn_like(grouped(a, b))
    report = check_function(lambda a, b: (grouped(a, b) * factor).sum(), a, b)
    assert report.ok, report.to_text()
