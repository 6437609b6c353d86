"""What a compiler makes of a function is what runs: it is held against the calculus of what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gradproof import Verdict, check_function
from gradproof.causes import OtherUnrecorded

Change = Callable[[Sequence[Any]], Sequence[Any]]


def same(results: Sequence[Any]) -> Sequence[Any]:
    return results


def compiled(function: Callable[..., Tensor], forward: Change = same, backward: Change = same) -> Any:
    """The function by a compiler that changes what the two compiled graphs give."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def by(change: Change) -> Callable[..., Any]:
        return lambda module, _: make_boxed_func(lambda *args: list(change(module(*args))))

    return torch.compile(function, backend=aot_autograd(fw_compiler=by(forward), bw_compiler=by(backward)))


def halved(results: Sequence[Any]) -> Sequence[Any]:
    return [None if x is None else x * 0.5 for x in results]


def last_lost(results: Sequence[Any]) -> Sequence[Any]:
    return [*results[:-1], torch.zeros_like(results[-1])]


def off_by_a_thousandth(results: Sequence[Any]) -> Sequence[Any]:
    return [results[0] * 1.001, *results[1:]]


CHANGES: dict[str, dict[str, Change]] = {
    "half of the gradient": {"backward": halved},
    "one gradient lost": {"backward": last_lost},
    "a gradient off by a thousandth": {"backward": off_by_a_thousandth},
    "a value off by a thousandth": {"forward": off_by_a_thousandth},
}


def function(x: Tensor, w: Tensor) -> Tensor:
    return (torch.tanh(x @ w) * w).sum()


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((3, 3), (3,)))
    return x.requires_grad_(), w.requires_grad_()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHANGES)
def test_what_a_compiler_makes_wrong_is_told(name: str) -> None:
    torch._dynamo.reset()
    report = check_function(compiled(function, **CHANGES[name]), *inputs())
    assert report.verdict is Verdict.WRONG, report.to_text()
    told = [c for f in report.findings for c in f.causes if isinstance(c, OtherUnrecorded)]
    assert told and all(cause.wrong and "CompiledFunction" in cause.compiled for cause in told)


@pytest.mark.filterwarnings("ignore")
def test_what_a_compiler_makes_right_passes_and_stays_compiled() -> None:
    torch._dynamo.reset()
    made = compiled(function)
    assert check_function(made, *inputs()).ok
    x, w = inputs()
    assert "CompiledFunction" in made(x, w).grad_fn.name()
