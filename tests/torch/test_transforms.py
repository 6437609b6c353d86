"""Custom Functions under torch.func's transforms are judged, each where it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty import transformable
from torch import Tensor, func

from gradproof import Verdict, check_function

Map = Callable[..., Any]


def drawn(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def cubed(times: float) -> Map:
    return transformable("Cubed", lambda x: x**3, lambda g, x: times * g * x * x)


def scaled(right: bool) -> Map:
    """Of two tensors, one of which does not need a gradient."""
    apply = transformable(
        "Scaled",
        lambda x, by: x.sin() * by,
        lambda g, x, by: (g * (x.cos() if right else x.sin()) * by, g * x.sin()),
    )
    return lambda x: apply(x, torch.full_like(x, 2.5))


NET = torch.nn.Linear(3, 2).double()
TRANSFORMS: dict[str, tuple[Callable[[Map], Map], tuple[int, ...]]] = {
    "grad": (lambda f: func.grad(lambda x: f(x).sum()), (3,)),
    "vjp": (lambda f: lambda x: func.vjp(f, x)[1](torch.ones_like(x))[0], (3,)),
    "jacrev": (func.jacrev, (3,)),
    "vmap": (func.vmap, (3, 2)),
    "vmap of grad": (lambda f: func.vmap(func.grad(lambda x: f(x).sum())), (3, 2)),
    "functional_call": (
        lambda f: lambda x: f(func.functional_call(NET, dict(NET.named_parameters()), (x,))),
        (3,),
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_function_under_a_transform_is_judged(name: str) -> None:
    transform, shape = TRANSFORMS[name]
    for wrong, right in ((cubed(2.0), cubed(3.0)), (scaled(False), scaled(True))):
        report = check_function(transform(wrong), drawn(*shape))
        blamed = {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited}
        assert report.verdict is Verdict.WRONG
        assert all("Cubed" in node or "Scaled" in node for node in blamed), report.to_text()
        twin = check_function(transform(right), drawn(*shape))
        assert twin.ok, twin.to_text()
