"""What depends on torch's insides: each probe alone, custom Functions in all their forms, and a torch that
nobody knows."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from faulty import transformable
from net_cases import drawn
from torch import Tensor
from torch.autograd import Function

from gradproof import Verdict, check_function
from gradproof.torch import insides


@pytest.mark.parametrize("name", insides._probes())
def test_a_part_of_torchs_insides_is_as_it_was(name: str) -> None:
    with torch.enable_grad():
        assert insides._probes()[name]()


def test_a_torch_that_nobody_knows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insides, "missing", lambda: ("addresses of memory",))
    report = check_function(torch.sin, drawn((3,)))
    assert report.verdict is Verdict.UNSUPPORTED
    assert torch.__version__ in report.findings[0].note and "addresses of memory" in report.findings[0].note


class Plain(Function):
    scale = 1.0

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: int = 3) -> Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @classmethod
    def backward(cls, ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return 3 * g * x * x * cls.scale, None


class Inherited(Plain):
    scale = 1.001


class Apart(Function):
    """The context is set up after the forward, which has none."""

    scale = 1.0

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * g * x * x * Apart.scale


def logged(forward: Any) -> Any:
    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return wrapper


class Decorated(Plain):
    @staticmethod
    @logged
    def forward(ctx: Any, x: Tensor, power: int = 3) -> Tensor:
        ctx.save_for_backward(x)
        return x * x * x


class Calling(Plain):
    """Calls another Function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: int = 3) -> Tensor:
        ctx.save_for_backward(x)
        return Apart.apply(x.detach()) * 1.0


FUNCTIONS = [Plain, Apart, Decorated, Calling]


@pytest.mark.parametrize("kind", FUNCTIONS, ids=lambda kind: kind.__name__)
def test_a_custom_function_is_found(kind: Any) -> None:
    report = check_function(lambda x: kind.apply(kind.apply(x).sin()), drawn((3,)))
    assert report.ok, report.to_text()
    names = {finding.node for finding in report.findings if finding.kind == "local"}
    assert {f"{kind.__name__}Backward", f"{kind.__name__}Backward.2"} <= names


def test_a_wrong_one_is_named_at_its_line() -> None:
    report = check_function(lambda x: Inherited.apply(Plain.apply(x)), drawn((3,)))
    (wrong,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert wrong.node == "InheritedBackward" and "test_insides.py:" in wrong.place


def test_one_that_is_made_while_the_function_runs_is_found() -> None:
    def func(x: Tensor) -> Tensor:
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.exp()

        backward = staticmethod(lambda ctx, g: g * ctx.saved_tensors[0].exp())
        made = type("Made", (Function,), {"forward": staticmethod(forward), "backward": backward})
        return made.apply(x)

    report = check_function(func, drawn((3,)))
    assert report.ok, report.to_text()


vmapped = transformable("Vmapped", lambda x: x**3, lambda g, x: 3 * g * x * x)
vmapped_wrong = transformable("VmappedWrong", lambda x: x**3, lambda g, x: 4.5 * g * x * x)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vjp], ids=["grad", "vjp"])
@pytest.mark.parametrize("kind", [vmapped, vmapped_wrong], ids=["right", "wrong"])
def test_a_backward_that_a_transform_calls_is_judged(kind: Any, transform: Any) -> None:
    def func(x: Tensor) -> Tensor:
        if transform is torch.func.grad:
            return torch.func.grad(lambda v: kind(v).sum())(x)
        return torch.func.vjp(kind, x)[1](torch.ones_like(x))[0]

    report = check_function(func, drawn((3,)))
    assert report.verdict is (Verdict.WRONG if kind is vmapped_wrong else Verdict.ROUNDING), report.to_text()
    assert any("under a transform" in f.node and "test_insides.py:" in f.place for f in report.findings)


def test_one_under_vmap_is_judged() -> None:
    assert check_function(torch.func.vmap(vmapped), drawn((3, 2))).ok
    assert check_function(torch.func.vmap(vmapped_wrong), drawn((3, 2))).verdict is Verdict.WRONG
