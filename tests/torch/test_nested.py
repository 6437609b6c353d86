"""Nested tensors, rows of unequal lengths, are all of their rows in one tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from faulty import function
from torch import Tensor
from torch.nn import functional

from gradproof import Verdict, check_function

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of what is beta


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def rows(x: Tensor) -> Tensor:
    return torch.nested.as_nested_tensor([x[:1], x[1:3], x[3:]], layout=torch.jagged)


def padded(x: Tensor) -> Tensor:
    return torch.nested.to_padded_tensor(x, 0.0)


RIGHT: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "a function": (lambda x: rows(x).sin().values(), (drawn(6, 2),)),
    "padded": (lambda x: padded(rows(x).exp()) ** 2, (drawn(6, 2),)),
    "no value at the padding": (lambda x: padded(rows(x.abs() + 1).log()), (drawn(6, 2),)),
    "two of them": (lambda x: (rows(x) * rows(x).values().sum() + 1).values(), (drawn(6, 2),)),
    "a linear layer": (lambda x, w, b: functional.linear(rows(x), w, b).values(),
                       (drawn(6, 2), drawn(3, 2, seed=1), drawn(3, seed=2))),
    "a normalisation": (lambda x: functional.layer_norm(rows(x), (3,)).values().sin(), (drawn(6, 3),)),
    "a softmax": (lambda x: rows(x).softmax(-1).values() ** 2, (drawn(6, 3),)),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_made_of_nested_tensors_is_right(name: str) -> None:
    function, inputs = RIGHT[name]
    report = check_function(function, *inputs)
    assert report.ok, report.to_text()


def scaled(times: float) -> Callable[[Tensor], Tensor]:
    return function("Scaled", lambda x: x * 2, lambda g, x: g * times)


PLACES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "before": lambda f, x: rows(f(x)).sin().values(),
    "after": lambda f, x: f(rows(x).sin().values()),
    "between": lambda f, x: f(rows(x)).values().exp(),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_wrong_function_around_them_is_refuted_at_its_node(name: str) -> None:
    report = check_function(lambda x: PLACES[name](scaled(2.001), x), drawn(6, 2))
    blamed = {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited}
    assert blamed == {"ScaledBackward"}, report.to_text()
    assert check_function(lambda x: PLACES[name](scaled(2.0), x), drawn(6, 2)).ok


def test_a_stop_through_them_is_told_in_its_size() -> None:
    report = check_function(lambda x: x * rows(x.detach()).sin().values(), drawn(6, 2), net=False)
    assert report.verdict is Verdict.WRONG
    assert check_function(lambda x: x * rows(x).sin().values(), drawn(6, 2)).ok


def test_what_goes_over_the_rows_is_refused_by_name() -> None:
    report = check_function(lambda x: rows(x).sum(1), drawn(6, 2), net=False)
    assert report.verdict in (Verdict.UNSUPPORTED, Verdict.FAILED)
