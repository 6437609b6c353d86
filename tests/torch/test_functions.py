"""Torch functions as they are: what is recorded, what is named, and what never passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty import custom
from tables import DEEP

import gradproof
from gradproof import GradcheckError, InputError, Report, Verdict, check_function, gradcheck, register_formula
from gradproof.cli import main

F64 = torch.float64


def leaf(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64).to(dtype).requires_grad_()


def blamed(report: Report) -> list[str]:
    return [f.node for f in report.findings if not f.verdict.passes and not f.inherited]


# What is told


def test_a_wrong_node_is_told_with_its_line_its_formula_and_its_worst_entry() -> None:
    swish = custom(lambda x: x * torch.sigmoid(x), lambda g, x: g * torch.sigmoid(x))
    report = check_function(lambda x: torch.tanh(swish(x)).sum(), leaf(2, 3))
    (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert (wrong.kind, wrong.node, wrong.wrt) == ("local", "CustomBackward", "x")
    assert wrong.place.startswith("tests/test_functions.py:") or "test_functions.py:" in wrong.place
    assert "sigmoid(x[i,j])" in wrong.formula and "δ(i,l)" in wrong.formula
    assert (
        len(wrong.index) == 2
        and wrong.ulp is not None
        and wrong.allowed_ulp is not None
        and wrong.ulp > wrong.allowed_ulp
    )
    (inherited,) = [f for f in report.findings if f.inherited]
    assert (inherited.node, inherited.note) == ("x", "inherited from CustomBackward")


def test_parameters_have_their_names() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).double()
    scale = leaf(1)
    held = [leaf(3)]

    def func(x: torch.Tensor) -> torch.Tensor:
        return net(x * held[0]) * scale

    names = {f.node for f in check_function(func, leaf(2, 3)).findings if f.kind == "gradient"}
    assert names == {"x", "held[0]", "scale", "net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"}


def test_a_fault_in_a_deep_net_is_found_at_its_layer() -> None:
    """Sensitivity does not decay: a factor of 1 + 1e-4 in float32, in one of 24 layers."""
    faulty = custom(lambda x: x * 1.0, lambda g, x: g * (1 + 1e-4))

    class Block(torch.nn.Module):
        def __init__(self, wrong: bool) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(6, 6)
            self.wrong = wrong

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + torch.tanh(self.linear(x))
            return faulty(y) if self.wrong else y

    torch.manual_seed(0)
    for layer in (None, 0, 13, 23):
        net = torch.nn.Sequential(*(Block(n == layer) for n in range(24)))
        report = check_function(net, leaf(2, 6, dtype=torch.float32))
        assert report.ok == (layer is None)
        assert blamed(report) == ([] if layer is None else [f"{layer}: CustomBackward"])


@pytest.mark.parametrize("name", DEEP)
def test_a_fault_in_a_deep_stack_is_found(name: str) -> None:
    """`benchmarks/deep.py` tries more layers, in every dtype."""
    func, inputs = DEEP[name](torch.float32, fault=(13, 1 + 1e-4))
    nodes = blamed(check_function(func, *inputs))
    assert nodes and all("Faulty" in node for node in nodes)


@pytest.mark.parametrize(
    ("backward", "note"),
    [
        (lambda g, x, w: (-g @ w.T, x.T @ g), "the sign is wrong"),
        (lambda g, x, w: (g @ w.T * 2, x.T @ g), "a factor of 2"),
        (lambda g, x, w: (g @ w.T / 3, x.T @ g), "1/n with n = 3"),
        (lambda g, x, w: (g @ w.T * 1.5, x.T @ g), "n/(n-1) with n = 3"),
        (lambda g, x, w: (g @ w.T * np.pi, x.T @ g), "(π)"),
        (lambda g, x, w: (g @ w.T * 1.0003, x.T @ g), "a constant with too few digits"),
        (lambda g, x, w: (g @ w.T, (x.T @ g).T), "it is transposed"),
        (lambda g, x, w: (g, x.T @ g), "the cotangent itself"),
        (lambda g, x, w: (g @ w.T * 0, x.T @ g), "it is zero"),
        (lambda g, x, w: (torch.ones_like(g) @ w.T, x.T @ g), "the cotangent that it received is ignored"),
        (lambda g, x, w: (g @ w.T, torch.outer(x[0], g[0])), "a sum is missing"),
        (lambda g, x, w: ((g.float() @ w.float().T).double(), x.T @ g), "lower precision"),
        (lambda g, x, w: (None, x.T @ g), "passed None"),
    ],
)  # fmt: skip
def test_a_known_mistake_is_named(backward: Callable[..., Any], note: str) -> None:
    product = custom(lambda x, w: x @ w, backward)
    report = check_function(lambda x, w: product(x, w).tanh(), leaf(3, 3), leaf(3, 3, seed=1))
    notes = [f.note for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert notes and all(note in text for text in notes)


def test_a_lost_use_is_named() -> None:
    square = custom(lambda x: x * x.exp(), lambda g, x: g * x.exp())
    report = check_function(lambda x: square(x).sum(), leaf(4))
    assert any("uses" in f.note and "lost" in f.note for f in report.findings)


def test_a_saved_tensor_that_was_changed_in_place_is_named() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.x = x
            return x * x

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return 2 * g * ctx.x

    def func(x: torch.Tensor) -> torch.Tensor:
        y = x * 1.0
        z = Square.apply(y)
        y.data.add_(0.5)
        return z.sum()

    report = check_function(func, leaf(3))
    assert any("changed in place" in f.note and f.node == "SquareBackward" for f in report.findings)


# Stops


def straight_through(x: torch.Tensor) -> torch.Tensor:
    return x + (torch.round(x) - x).detach()


def half_detached(x: torch.Tensor) -> torch.Tensor:
    return x * x.detach()


def data(x: torch.Tensor) -> torch.Tensor:
    return x * x.data


def without_grad(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        mean = x.mean()
    return (x - mean) ** 2 * torch.arange(1.0, 1 + len(x), dtype=x.dtype)


def an_item(x: torch.Tensor) -> torch.Tensor:
    return x * x[0].item()


def written_behind_autograd(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.data.mul_(3)
    return y.tanh()


@pytest.mark.parametrize(
    "func", [straight_through, half_detached, data, without_grad, an_item, written_behind_autograd]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_stop_that_loses_something_is_wrong_at_its_line(
    func: Callable[..., Any], dtype: torch.dtype
) -> None:
    x = leaf(4, dtype=dtype)
    report = check_function(func, x)
    (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG]
    assert wrong.node == "x" and "test_functions.py:" in wrong.place and "lost at" in wrong.note
    assert check_function(func, x, stops="trust").ok


def shifted(x: torch.Tensor) -> torch.Tensor:
    shift = x.max().detach()
    return (x - shift).exp().sum().log() + shift


def logged(x: torch.Tensor) -> torch.Tensor:
    assert x.detach().mean().item() < 10
    return (x * torch.tensor(2.0, dtype=x.dtype)).sum()


def counted(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        count = (x > 0).sum()
    return x.sum() / count


@pytest.mark.parametrize("func", [shifted, logged, counted])
def test_a_stop_that_loses_nothing_passes(func: Callable[..., Any]) -> None:
    report = check_function(func, leaf(5))
    assert report.ok, report.to_text()


def test_a_parameter_that_is_only_read_detached_is_named() -> None:
    weight = leaf(3)
    report = check_function(lambda x: (x * weight.detach()).sum(), leaf(3, seed=1))
    assert blamed(report) == ["weight"]


# Kinks and special points


def test_a_kink_among_very_many_entries_excuses_no_wrong_gradient() -> None:
    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return grad * torch.where(x == 0, 1.5, (x > 0) * 1.0)  # of a relu's 0 to 1

    report = check_function(Relu.apply, (torch.arange(2001.0) - 1000).requires_grad_())
    (wrong,) = (f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited)
    assert wrong.index == (1000,)


def test_pieces_with_kinks_may_make_a_smooth_whole() -> None:
    def softplus(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))

    report = check_function(softplus, torch.tensor([0.0, 1.0], dtype=F64, requires_grad=True))
    (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG]
    assert "kinks" in wrong.note and wrong.node == "x" and wrong.index == (0,)
    report = check_function(torch.relu, torch.tensor([0.0, 1.0], dtype=F64, requires_grad=True))
    assert report.verdict is Verdict.KINK


def test_the_where_trap_is_refuted_and_the_double_where_passes() -> None:
    x = torch.tensor([0.0, 4.0], dtype=F64, requires_grad=True)
    trap = check_function(lambda x: torch.where(x > 0, x.sqrt(), x * 0), x)
    assert trap.verdict is Verdict.WRONG
    assert check_function(lambda x: torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0), x).ok


# What never passes


def raises(x: torch.Tensor) -> torch.Tensor:
    raise ZeroDivisionError("no")


def test_what_the_function_raises_is_told() -> None:
    report = check_function(raises, leaf(2))
    assert report.verdict is Verdict.FAILED and "ZeroDivisionError: no" in report.findings[0].note


def test_what_the_backward_raises_is_told() -> None:
    bad = custom(lambda x: x * 1, lambda g, x: g[:1])
    report = check_function(lambda x: bad(x).sum(), leaf(3))
    assert report.verdict is Verdict.FAILED and "backward raised" in report.findings[0].note


def test_nothing_to_compare_is_no_pass() -> None:
    assert check_function(lambda x: x * 2, leaf(3).detach()).verdict is Verdict.UNDECIDED
    assert not check_function(lambda x: 3.0, leaf(3)).ok


def test_a_backward_that_does_not_repeat_itself_is_told() -> None:
    noisy = custom(lambda x: x * 1, lambda g, x: g * (1 + 1e-12 * torch.rand((), dtype=F64)))
    report = check_function(lambda x: noisy(x).sum(), leaf(3))
    assert any("not deterministic" in f.note for f in report.findings) and not report.ok


def test_a_node_without_a_hook_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradproof.torch import recording

    hooks = recording._Hooks

    class Nothing:
        received, passed, changed, alike = (), (), False, False

        def remove(self) -> None: ...

    monkeypatch.setattr(
        recording,
        "_Hooks",
        lambda *of, **more: Nothing() if "Tanh" in of[0].name() else hooks(*of, **more),
    )
    report = check_function(lambda x: torch.tanh(x).sum(), leaf(3))
    assert (
        report.verdict is Verdict.UNSUPPORTED
        and "hook" in blamed_notes(report)
        and blamed(report) == ["TanhBackward0"]
    )


def test_a_backward_that_reads_its_cotangent_as_if_it_lay_in_one_piece_is_refuted() -> None:
    flat = custom(lambda x: x * 2, lambda g, x: torch.as_strided(g, g.shape, x.stride()) * 2)
    assert not check_function(flat, leaf(3, 2)).ok


def test_numpy_inside_a_forward_is_unsupported_until_it_is_said() -> None:
    square = custom(lambda x: torch.from_numpy(x.detach().numpy() ** 2), lambda g, x: g * 2 * x)
    wrong = custom(lambda x: torch.from_numpy(x.detach().numpy() ** 2), lambda g, x: g * x)
    x = leaf(3)
    report = check_function(square, x)
    assert report.verdict is Verdict.UNSUPPORTED and "CustomBackward" in report.findings[0].note
    assert check_function(lambda x: square(x), x, formula="x**2").ok
    assert check_function(lambda x: wrong(x), x, formula="x**2").verdict is Verdict.WRONG
    assert check_function(lambda x: square(x), x, formula="x**3").verdict is Verdict.WRONG


def test_numbers_that_leave_torch_and_come_back_are_told() -> None:
    report = check_function(lambda x: x * torch.from_numpy(np.tanh(x.detach().numpy())), leaf(3))
    assert report.verdict is Verdict.WRONG and "numpy()" in blamed_notes(report)
    assert "the function changes by" in blamed_notes(report)
    alone = check_function(lambda x: x * torch.from_numpy(np.tanh(x.detach().numpy())), leaf(3), net=False)
    assert alone.verdict is Verdict.UNSUPPORTED


def blamed_notes(report: Report) -> str:
    return "; ".join(f.note for f in report.findings if not f.verdict.passes)


def test_an_operation_of_a_library_has_the_formula_that_was_registered() -> None:
    @torch.library.custom_op("gradprooftest::cube", mutates_args=(), schema="(Tensor x) -> Tensor")
    def cube(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy() ** 3)

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        (ctx.x,) = inputs

    cube.register_autograd(lambda ctx, g: 3 * g * ctx.x**2, setup_context=setup)
    report = check_function(lambda x: cube(x).sum(), leaf(3))
    assert report.verdict is Verdict.UNSUPPORTED and "gradprooftest.cube" in blamed_notes(report)
    register_formula("gradprooftest::cube", "x**3")
    assert check_function(lambda x: cube(x).sum(), leaf(3)).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "x +"}, "formula:1"),
        ({"formula": "y**2"}, "unknown name 'y'"),
        ({"stops": "maybe"}, "expected 'judge' or 'trust'"),
    ],
)
def test_bad_options_are_told(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("+", r"\+")):
        check_function(lambda x: x**2, leaf(2), **options)


# gradcheck


def test_gradcheck_is_a_drop_in() -> None:
    wrong = custom(lambda x: x**2, lambda g, x: g * x)
    x = leaf(3, dtype=torch.float32)
    assert gradcheck(torch.exp, x) is True
    assert gradcheck(torch.exp, (x,), eps=1e-6, atol=1e-5, fast_mode=True) is True
    assert gradcheck(wrong, (x,), raise_exception=False) is False
    with pytest.raises(GradcheckError, match="CustomBackward"):
        gradcheck(wrong, (x,))
    with pytest.raises(RuntimeError):
        gradcheck(wrong, (x,))
    with pytest.raises(TypeError, match="tolerance"):
        gradcheck(wrong, (x,), tolerance=1)


def test_what_was_there_is_there_afterwards() -> None:
    x = leaf(3)
    x.grad = torch.full((3,), 7.0, dtype=F64)
    before = x.detach().clone()
    check_function(lambda x: (x**2).sum(), x)
    assert torch.equal(x.grad, torch.full((3,), 7.0, dtype=F64)) and torch.equal(x.detach(), before)


# The command line


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets_for_gradproof.py"
    path.write_text(
        "import torch\n"
        "def good():\n    return torch.tanh, torch.ones(3, requires_grad=True)\n"
        "def bad():\n    return lambda x: x * x.detach(), (torch.ones(3, requires_grad=True),)\n"
        "def opaque():\n    return torch.linalg.eigvalsh, (torch.eye(2, "
        "dtype=torch.float64).requires_grad_(),)\n"
        "def needs(x):\n    return x\n"
        "def nothing():\n    return 3\n"
        "number = 3\n"
    )
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "raising.py").write_text("raise OSError('no disk')\n")
    return path


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("nets_for_gradproof.py:good", 0), ("nets_for_gradproof:good", 0), ("nets_for_gradproof.py:bad", 1),
        ("nets_for_gradproof.py:opaque", 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["text", "json", "markdown"])
def test_a_function_is_a_target(
    module: Path, target: str, code: int, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", target, "--format", form]) == code
    out = capsys.readouterr().out
    assert target in out or form == "markdown"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nets_for_gradproof.py:goof", "did you mean 'good'?"),
        ("nets_for_gradproof.py:needs", "expected a function without arguments"),
        ("nets_for_gradproof.py:number", "'number' is a int"),
        ("missing.py:good", "there is no such file"),
        ("no_such_module:good", "ModuleNotFoundError"),
        ("broken.py:good", "broken.py:1:"),
    ],
)
def test_a_bad_function_target_is_told(
    module: Path, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", target]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nets_for_gradproof.py:nothing", "nothing() returned a int, expected (func, inputs)"),
        ("raising.py:good", "it cannot be loaded: OSError: no disk"),
    ],
)
def test_what_a_target_does_in_place_of_giving_a_function_is_its_failure(
    module: Path, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", target]) == 1
    assert message in capsys.readouterr().out


def test_options_of_expression_files_are_refused(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nets_for_gradproof.py:good", "--dtype", "float32"]) == 2
    assert "its own tensors" in capsys.readouterr().err


def test_a_page_for_a_function(module: Path, tmp_path: Path) -> None:
    assert main(["report", "nets_for_gradproof.py:bad", "--output", str(tmp_path / "pages")]) == 1
    page = (tmp_path / "pages" / "nets_for_gradproof.py-bad.md").read_text()
    assert "part of the gradient is lost" in page and "MulBackward0" in page


def test_the_version_is_told_with_the_public_names() -> None:
    assert {"check_function", "gradcheck", "register_formula", "GradcheckError"} <= set(gradproof.__all__)


def test_a_leaf_that_the_function_makes_is_judged_and_not_compared_with_another_run_s() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * torch.nn.Parameter(torch.tensor(0.3, dtype=x.dtype))

    report = check_function(scaled, leaf(3))
    assert report.ok, report.to_text()


def test_memory_that_the_function_frees_is_put_back() -> None:
    def freed(x: torch.Tensor) -> torch.Tensor:
        y = 2 * x.detach()
        x.untyped_storage().resize_(0)
        return y

    x = leaf(3)
    before = x.detach().clone()
    report = check_function(custom(freed, lambda g, x: 2 * g), x, passes=1)
    assert report.ok, report.to_text()
    assert torch.equal(x.detach(), before)
