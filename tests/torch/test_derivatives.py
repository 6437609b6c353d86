"""Every way a derivative is taken: forward mode, the backward again, batches; what a backward promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from derivative_faults import CLAUSES, CUBE, DERIVATIVES, JVPS, SECONDS, Fault
from faulty import function, normal

from gradproof import (
    GradcheckError,
    InputError,
    Verdict,
    check_function,
    gradcheck,
    gradgradcheck,
    implicit,
    surrogate,
)
from gradproof.torch.contract import CLAUSES as CONTRACT

ROOT = Path(__file__).parents[2]

NAMES = {"ids": lambda fault: fault.name}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", DERIVATIVES, **NAMES)
def test_a_wrong_derivative_is_refuted_where_it_is_wrong(fault: Fault) -> None:
    first = check_function(fault.wrong, *fault.inputs(torch.float64))
    assert first.ok, first.to_text()  # in reverse, first order, nothing is wrong
    report = check_function(fault.wrong, *fault.inputs(torch.float64), **fault.options)
    assert report.verdict in (Verdict.WRONG, Verdict.FAILED), report.to_text()
    blamed = {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited}
    assert not fault.blamed or all(fault.blamed in node for node in blamed), report.to_text()
    twin = check_function(fault.right, *fault.inputs(torch.float64), **fault.options)
    assert twin.ok, twin.to_text()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("fault", [fault for fault in JVPS if "constant" not in fault.name], **NAMES)
def test_tangents_are_judged_in_every_dtype(fault: Fault, dtype: str) -> None:
    inputs = fault.inputs(getattr(torch, dtype))
    assert check_function(fault.wrong, *inputs, mode="forward").verdict is Verdict.WRONG
    twin = check_function(fault.right, *inputs, mode="forward")
    assert twin.ok, twin.to_text()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", CLAUSES, **NAMES)
def test_a_broken_clause_is_named(fault: Fault) -> None:
    report = check_function(fault.wrong, *fault.inputs(torch.float64), **fault.options)
    (name,) = fault.options["contract"]
    bad = [f for f in report.findings if not f.verdict.passes]
    assert ("contract", name) in {(f.kind, f.node) for f in bad}, report.to_text()
    twin = check_function(fault.right, *fault.inputs(torch.float64), **fault.options)
    assert twin.ok and f"contract: {name}" in twin.exercised, twin.to_text()
    every = check_function(fault.right, *fault.inputs(torch.float64), contract=True)
    assert every.ok, every.to_text()


def test_third_order_is_judged() -> None:
    report = check_function(CUBE, torch.tensor([0.3, -0.7], dtype=torch.float64).requires_grad_(), order=3)
    assert report.ok and "third order" in report.exercised


def test_both_modes_and_what_was_not_exercised_are_told() -> None:
    x = torch.linspace(0.1, 1, 4).requires_grad_()
    report = check_function(lambda x: torch.tanh(x).sum(), x, mode="both", order=2)
    assert report.exercised == ("reverse mode, first order", "forward mode", "double backward")
    assert set(report.not_exercised) == {"third order", "contract"}
    assert "Exercised: reverse mode, first order, forward mode, double backward; not:" in report.to_text()


@pytest.mark.parametrize(
    "option", [{"mode": "backward"}, {"order": 4}, {"contract": ["frozen"]}, {"mode": "both", "formula": "x"}]
)
def test_bad_options_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(InputError):
        check_function(torch.sin, torch.ones(2, requires_grad=True), **option)  # type: ignore[arg-type]


# Declared gradients


def test_a_declared_gradient_is_what_is_checked() -> None:
    ste = {k: function("Ste", torch.round, lambda g, x, k=k: k * g) for k in (1, 2)}
    x = torch.tensor([0.3, 1.7], dtype=torch.float64).requires_grad_()
    assert check_function(ste[1], x, surrogates={"Ste": "x"}).ok
    wrong = check_function(ste[2], x, surrogates={"Ste": "x"})
    assert wrong.verdict is Verdict.WRONG and "a factor of 2" in wrong.to_text()
    assert "Declared: the gradient of Ste is that of x." in wrong.to_text()
    with pytest.raises(InputError, match="declared of SteBackward"):
        check_function(ste[1], x, surrogates={"Ste": "x*y"})
    with pytest.raises(InputError, match="not an expression"):
        check_function(ste[1], x, surrogates={"Ste": "sin("})


@pytest.mark.parametrize("transposed", [True, False])
def test_an_implicit_layer_is_judged_by_its_equation(transposed: bool) -> None:
    class Deq(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            z = torch.zeros_like(b)
            for _ in range(300):
                z = torch.tanh(a @ z + b)
            ctx.save_for_backward(z, a)
            return z

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> Any:
            z, a = ctx.saved_tensors
            slope = 1 - z**2
            system = torch.eye(len(z), dtype=z.dtype) - slope[:, None] * a
            by_b = torch.linalg.solve(system.T if transposed else system, g) * slope
            return torch.outer(by_b, z), by_b

    a, b = normal((3, 3), (3,), scale=0.4)(torch.float64)
    report = check_function(Deq.apply, a, b, implicit={"Deq": "z = tanh(a @ z + b)"})
    assert report.ok is transposed, report.to_text()


def test_a_declaration_for_all_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradproof.torch.declared.DECLARED", declared := {})
    monkeypatch.setattr("gradproof.torch.check.DECLARED", declared)

    @surrogate("x")
    class Ste(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g

    implicit("Deq", "z = tanh(z)")
    assert declared == {"Ste": "x", "Deq": "z = tanh(z)"}
    assert check_function(Ste.apply, torch.tensor([0.4, 1.2]).requires_grad_()).ok
    with pytest.raises(InputError, match="one equation"):
        implicit("Deq", "tanh(z)")


# In place of torch's


def test_gradcheck_does_what_it_is_asked() -> None:
    (x,) = normal((3,))(torch.float64)
    jvp = JVPS[0]
    assert gradcheck(jvp.wrong, (x,)) and not gradcheck(
        jvp.wrong, (x,), check_forward_ad=True, raise_exception=False
    )
    undefined = next(fault for fault in CLAUSES if fault.name == "undefined cotangents")
    assert not gradcheck(undefined.wrong, (x,), raise_exception=False)
    assert gradcheck(undefined.wrong, (x,), check_undefined_grad=False)
    cast = next(fault for fault in CLAUSES if fault.name == "gradients as declared")
    assert gradcheck(cast.wrong, (x,))
    with pytest.raises(GradcheckError, match="dtype"):
        gradcheck(cast.wrong, (x,), check_grad_dtypes=True)
    for option in ({"check_batched_grad": True}, {"check_batched_forward_grad": True}):
        with pytest.raises(AssertionError):
            gradcheck(torch.sin, (x,), check_backward_ad=False, check_forward_ad=False, **option)


def test_gradgradcheck_is_a_drop_in() -> None:
    (x,) = normal((3,))(torch.float64)
    assert gradgradcheck(CUBE, x) and gradgradcheck(CUBE, x, torch.ones(3, dtype=x.dtype).requires_grad_())
    assert gradgradcheck(torch.sin, (x,), check_fwd_over_rev=True, gen_non_contig_grad_outputs=True)
    for fault in SECONDS:
        (given,) = fault.inputs(torch.float64)
        assert not gradgradcheck(fault.wrong, (given,), raise_exception=False), fault.name
    with pytest.raises(ValueError, match="require gradient"):
        gradgradcheck(torch.sin, (x.detach(),))


def test_every_clause_has_a_violation() -> None:
    assert {fault.name for fault in CLAUSES} == set(CONTRACT)


def test_the_page_has_every_clause_as_the_code_has_it() -> None:
    rows = "\n".join(f"| {c.name} | {c.why} | `{c.example}` |" for c in CONTRACT.values())
    head = "| clause | why | broken by, for example |\n|---|---|---|"
    assert f"{head}\n{rows}\n" in (ROOT / "docs" / "derivatives.md").read_text()


def test_batch_invariance_is_tried_where_it_is_named() -> None:
    (x,) = normal((4, 3))(torch.float64)
    only = {"contract": ["batch invariance"]}
    assert check_function(lambda x: torch.softmax(x, 1), x, **only).ok
    wrong = check_function(lambda x: x - x.mean(0), x, **only)
    assert wrong.verdict is Verdict.WRONG and "none of its neighbours' business" in wrong.to_text()
    assert check_function(lambda x: x - x.mean(0), x, contract=True).ok


def test_modes_that_are_both_right_are_transposes() -> None:
    (x,) = normal((3,))(torch.float64)
    assert "Forward and reverse are transposes" in check_function(torch.relu, x, mode="both").to_text()
    kink = check_function(torch.relu, torch.zeros(2, dtype=x.dtype).requires_grad_(), mode="both")
    assert "not compared as transposes" in kink.to_text()


@pytest.mark.parametrize(
    ("function", "verdict"),
    [
        (lambda x: x * x.sum().item(), Verdict.WRONG),
        (lambda x: x * torch.from_numpy(x.detach().numpy() ** 2), Verdict.UNSUPPORTED),
        (lambda x: x * x.detach(), Verdict.WRONG),
        (lambda x: x.sin() + 0 * x.sum().item(), Verdict.ROUNDING),
    ],
)
def test_what_leaves_torch_is_no_constant_in_forward_mode(function: Any, verdict: Verdict) -> None:
    (x,) = normal((3,))(torch.float64)
    report = check_function(function, x, mode="forward")
    assert report.verdict is verdict or (report.ok and verdict.passes), report.to_text()


def test_entries_that_share_memory_have_no_tangents() -> None:
    x = torch.randn(1, 3).expand(2, 3).requires_grad_()
    report = check_function(torch.sin, x, mode="forward")
    assert report.verdict is Verdict.UNSUPPORTED and "share memory" in report.to_text()


def test_the_contract_is_tried_where_the_derivatives_are_right() -> None:
    (x,) = normal((3,))(torch.float64)
    report = check_function(lambda x: x * x.detach(), x, contract=True)
    assert "The contract is not tried" in report.to_text() and not any(
        "contract:" in e for e in report.exercised
    )
    drawn = check_function(lambda x: torch.nn.functional.dropout(x), x, contract=True)
    assert drawn.ok and "draws random numbers" in drawn.to_text(), drawn.to_text()
