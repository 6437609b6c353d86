"""Right things that were refused once, each beside a wrong one that is as near to it as can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from net_cases import drawn
from torch import Tensor
from torch.autograd import Function

from gradproof import Report, Verdict, assert_gradients, check, check_function, parse
from gradproof.torch.recorder import Recorder

F64 = torch.float64
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def told(report: Report) -> str:
    return "; ".join(f"{f.node} {f.place} {f.note}" for f in report.findings if not f.verdict.passes)


# Masks of the dtype's smallest number

KEEP = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 0]], dtype=torch.bool)
MASKED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "added": lambda s, m: torch.softmax(s + m, -1),
    "filled in": lambda s, m: torch.softmax(torch.where(KEEP, s, m), -1),
    "logsumexp": lambda s, m: torch.logsumexp(s + m, -1),
    "log_softmax": lambda s, m: F.log_softmax(s + m, -1)[:, :1],
    "by hand": lambda s, m: ((s + m) - (s + m).amax(-1, keepdim=True)).exp(),
    "a whole row": lambda s, m: torch.softmax(s + torch.finfo(s.dtype).min, -1),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MASKED)
def test_a_mask_of_the_smallest_number_is_no_overflow(name: str, dtype: torch.dtype) -> None:
    mask = torch.zeros(3, 4, dtype=dtype).masked_fill(~KEEP, torch.finfo(dtype).min)
    report = check_function(lambda s: MASKED[name](s, mask), drawn((3, 4), dtype))
    assert report.ok, told(report)


def test_a_softmax_under_such_a_mask_is_judged_as_strictly() -> None:
    class Softmax(Function):
        @staticmethod
        def forward(ctx: Any, s: Tensor) -> Tensor:
            ctx.save_for_backward(out := torch.softmax(s, -1))
            return out

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (p,) = ctx.saved_tensors
            return p * (g - (p * g).sum(-1, keepdim=True)) * (1 + 1e-14)

    mask = torch.zeros(3, 4, dtype=F64).masked_fill(~KEEP, torch.finfo(F64).min)
    assert check_function(lambda s: Softmax.apply(s + mask), drawn((3, 4))).verdict is Verdict.WRONG


# Errors that reach no parameter; what a hook makes up for


class Assign(Function):
    """A stage written into memory that stages share; the cotangent of what was there before is not
    cleared."""

    @staticmethod
    def forward(ctx: Any, scratch: Tensor, value: Tensor, index: int, scale: float) -> Tensor:
        ctx.index, ctx.scale = index, scale
        scratch.data[index] = value
        return scratch

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, g[ctx.index] * ctx.scale, None, None


def stages(x: Tensor, scale: float = 1.0, over: bool = False) -> Tensor:
    k = torch.zeros(3, *x.shape, dtype=x.dtype)
    for n in range(3):
        k = Assign.apply(k, x.sin() * (n + 1), 0 if over else n, scale)
    return (k * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)[:, None]).sum(0)


def test_a_wrong_cotangent_that_reaches_no_parameter_is_a_remark() -> None:
    report = check_function(stages, drawn((2,)))
    assert report.ok, told(report)
    assert any("reaches no parameter" in finding.note for finding in report.findings)


@pytest.mark.parametrize(
    "func", [lambda x: stages(x, 1 + 1e-12), lambda x: stages(x, over=True)], ids=["a factor", "written over"]
)
def test_one_that_reaches_a_parameter_is_wrong(func: Callable[[Tensor], Tensor]) -> None:
    assert check_function(func, drawn((2,))).verdict is Verdict.WRONG


def fixed_point(w: Tensor, scale: float) -> Tensor:
    """z = tanh(z/2 + w), with the implicit gradient by a hook."""
    with torch.no_grad():
        z = torch.zeros_like(w)
        for _ in range(80):
            z = torch.tanh(0.5 * z + w)
    z = torch.tanh(0.5 * z + w)
    start = z.detach().requires_grad_()
    again = torch.tanh(0.5 * start + w.detach())

    def solve(g: Tensor) -> Tensor:
        h = g
        for _ in range(80):
            h = torch.autograd.grad(again, start, h, retain_graph=True)[0] + g
        return h * scale

    z.register_hook(solve)
    return z


def test_an_implicit_layer_by_a_hook_is_right_from_the_leaves() -> None:
    report = check_function(lambda w: fixed_point(w, 1.0), drawn((2,)))
    assert report.ok, told(report)
    assert not check_function(lambda w: fixed_point(w, 1 + 1e-9), drawn((2,))).ok


def test_what_nobody_sees_is_not_made_up_for() -> None:
    # The whole run takes the new tensor for a constant, as autograd does.
    report = check_function(lambda x: x * torch.tensor([x[0].item()] * 3, dtype=x.dtype), drawn((3,)))
    assert report.verdict is Verdict.WRONG


# In place under no_grad; once; faults of ours


def shifted(x: Tensor, factor: float) -> Tensor:
    y = x.clone()
    with torch.no_grad():
        for row in y:
            row -= 1
            row *= factor
    return (y * y).sum()


def test_a_view_made_under_no_grad_is_followed() -> None:
    assert check_function(lambda x: shifted(x, 1.0), drawn((3,))).ok
    assert not check_function(lambda x: shifted(x, 1.5), drawn((3,))).ok


class Once(Function):
    """A backward that frees what it needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.kept, ctx.scale = [x.detach().clone()], scale
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return 3 * g * ctx.kept.pop() ** 2 * ctx.scale, None


def test_a_backward_that_runs_once_is_judged_by_one_pass() -> None:
    thrice = check_function(lambda x: Once.apply(x, 1.0), drawn((3,)))
    assert thrice.verdict is Verdict.FAILED and "passes=1" in thrice.findings[0].note
    once = check_function(lambda x: Once.apply(x, 1.0), drawn((3,)), passes=1)
    assert once.ok and "a second backward" in once.not_exercised
    assert check_function(lambda x: Once.apply(x, 1.5), drawn((3,)), passes=1).verdict is Verdict.WRONG


def test_a_fault_of_the_recorder_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Recorder, tensor: Tensor) -> None:
        raise KeyError("a slip")

    monkeypatch.setattr(Recorder, "_region", broken)
    report = check_function(torch.sin, drawn((3,)))
    assert report.verdict is Verdict.UNSUPPORTED and "gradproof itself failed" in report.findings[0].note


def test_a_call_that_does_not_fit_is_the_functions_own() -> None:
    report = check_function(lambda x: x, drawn((3,)), drawn((3,)))
    assert report.verdict is Verdict.FAILED and "positional argument" in report.findings[0].note


# Matrices


def _positive(seed: int) -> Tensor:
    b = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return b @ b.T + 0.1 * torch.eye(3, dtype=F64)


TRIANGLES: dict[str, Callable[[Tensor], Tensor]] = {
    "cholesky": torch.linalg.cholesky,
    "eigvalsh": torch.linalg.eigvalsh,
    "eigh": lambda a: torch.linalg.eigh(a)[1].abs(),
}


@pytest.mark.parametrize("name", TRIANGLES)
@pytest.mark.parametrize("upper", [False, True], ids=["lower", "upper"])
def test_an_operation_that_reads_one_triangle_takes_the_other_as_it_is(name: str, upper: bool) -> None:
    options: dict[str, Any] = {"upper": True} if name == "cholesky" else {"UPLO": "U"}
    func = TRIANGLES[name] if not upper else lambda a: TRIANGLE_OF[name](a, **options)
    half = _positive(1).triu() if upper else _positive(1).tril()
    report = check_function(func, half.requires_grad_(), net=False)
    assert report.ok, told(report)


TRIANGLE_OF: dict[str, Callable[..., Tensor]] = {
    "cholesky": torch.linalg.cholesky,
    "eigvalsh": torch.linalg.eigvalsh,
    "eigh": lambda a, UPLO: torch.linalg.eigh(a, UPLO=UPLO)[1].abs(),
}


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_solving_by_a_factor_is_allowed_what_its_products_round(dtype: torch.dtype) -> None:
    for seed in (32, 39):
        b = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        factor = torch.linalg.cholesky(b @ b.T + 1e-3 * torch.eye(4, dtype=dtype)).requires_grad_()
        for func, inputs in (
            (torch.cholesky_inverse, [factor]),
            (torch.cholesky_solve, [drawn((4, 2), dtype), factor]),
        ):
            report = check_function(func, *inputs)
            assert report.ok, told(report)


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_a_series_that_is_summed_in_16_bits(dtype: torch.dtype) -> None:
    for n in range(5):
        report = check_function(
            torch.special.i0e, (drawn((20,)) * 4).detach().roll(n).to(dtype).requires_grad_()
        )
        assert report.ok, told(report)


# Numbers beyond the floats

INF = np.inf
BEYOND: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    "an infinity that is right": ("loss = exp(x)", {"x": 900.0}, {"x": INF}, True),
    "its sign": ("loss = exp(x)", {"x": 900.0}, {"x": -INF}, False),
    "the value alone is beyond": ("loss = x**3", {"x": 1e130}, {"x": 3e260}, True),
    "and the gradient is off": ("loss = x**3", {"x": 1e130}, {"x": 3e260 * (1 + 1e-14)}, False),
    "beside it": ("loss = exp(y) + 2*x", {"x": 1.0, "y": 900.0}, {"x": 2.0, "y": INF}, True),
    "beside it, and off": (
        "loss = exp(y) + 2*x",
        {"x": 1.0, "y": 900.0},
        {"x": 2.0 + 1e-14, "y": INF},
        False,
    ),
    "no value at all": ("loss = sqrt(x) + 3*y", {"x": -1.0, "y": 2.0}, {"x": 0.0, "y": 3.0}, False),
}


@pytest.mark.parametrize("name", BEYOND)
def test_numbers_beyond_the_floats_are_judged(name: str) -> None:
    graph, point, gradients, right = BEYOND[name]
    if right:
        assert assert_gradients(graph, point, gradients).ok
    else:
        with pytest.raises(AssertionError):
            assert_gradients(graph, point, gradients)


def test_a_sine_of_a_number_of_hundreds_of_bits_has_a_reference() -> None:
    report = check(parse("loss = sin(sum(cosh(x)))", parameters={"x": np.array([330.0])}))
    assert not any("does not exist" in finding.note for finding in report.findings)
    assert any(finding.exact == pytest.approx(-0.20681526592131744, rel=1e-12) for finding in report.findings)


def test_a_reader_of_a_right_infinity_is_judged_from_the_leaves() -> None:
    passed = check(parse("y = exp(x)\nloss = 2*y", parameters={"x": 900.0}))
    (loss,) = [f for f in passed.findings if f.kind == "forward" and f.node == "loss"]
    assert loss.verdict is Verdict.EXACT
    failed = check(parse("y = exp(x)\nloss = log(y)", parameters={"x": 900.0}))
    (loss,) = [f for f in failed.findings if f.kind == "forward" and f.node == "loss"]
    assert loss.verdict is Verdict.WRONG and loss.exact == 900.0


def test_a_norm_in_16_bits_is_computed_in_more() -> None:
    assert check(parse("loss = norm(v)", parameters={"v": np.array([1000.0, 418.0])}), dtype="float16").ok


# Numbers that equal others by chance


def test_a_number_that_equals_another_by_chance_is_not_that_one() -> None:
    def logged(x: Tensor) -> Tensor:
        e = (x - x.max().detach()).exp()
        p = e / e.sum()
        float(p.sum().item())  # 1, or nearly
        return (p * torch.arange(1.0, 4.0, dtype=x.dtype)).sum()

    for seed in range(20):
        x = torch.from_numpy(np.random.default_rng(seed).normal(size=3)).requires_grad_()
        report = check_function(logged, x)
        assert report.ok, (seed, told(report))


def test_a_number_that_comes_back_is_known() -> None:
    report = check_function(
        lambda x: x * torch.tensor([x.norm().item(), 1.0, 1.0], dtype=x.dtype), drawn((3,))
    )
    assert report.verdict is Verdict.WRONG, told(report)


# Written to under no_grad, and read at a tie: what autograd passed on there is what went astray


def written(factors: list[float], after: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def func(x: Tensor) -> Tensor:
        y = x * 1.0
        with torch.no_grad():
            y.mul_(torch.tensor(factors, dtype=x.dtype))
        return after(y)

    return func


def test_what_is_set_to_0_past_autograd_is_right_where_its_reader_passes_0() -> None:
    x = torch.tensor([0.5, 2.0, 1.5], dtype=F64).requires_grad_()
    assert check_function(written([1.0, 1.0, 0.0], torch.relu), x).ok
    assert not check_function(written([1.0, 1.0, 0.0], torch.exp), x).ok
    assert not check_function(written([1.0, 1.0, 0.0], lambda y: torch.maximum(y, torch.zeros_like(y))), x).ok
