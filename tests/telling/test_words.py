"""What a report says, what a call may ask for, and that a check leaves no trace."""

from __future__ import annotations

import random
import time
import warnings
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import sympy
import torch
import torch.nn.functional as F
from flint import ctx
from torch import nn

from gradproof import assert_gradients, check, check_function, descend, gradcheck, parse
from gradproof.proof.balls import precision
from gradproof.telling import notation
from gradproof.torch.state import untouched

D = torch.float64


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


def snapshot(module: nn.Module) -> dict[str, bytes]:
    return {name: bits(value) for name, value in module.state_dict().items()}


class Counting(nn.Module):
    """Holds a number, a tensor without a name and a buffer that it binds anew."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.seen = torch.zeros(2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.seen.add_(1)
        self.mean = self.mean + x.detach().mean()
        return (x * torch.rand_like(x)).sum() + random.random() + np.random.rand()


NETS = {
    "batch norm": (lambda: nn.BatchNorm1d(3), lambda: torch.randn(4, 3, requires_grad=True)),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
        lambda: torch.randn(4, 3, requires_grad=True),
    ),
    "the older spectral norm": (
        lambda: nn.utils.spectral_norm(nn.Linear(3, 2)),
        lambda: torch.randn(4, 3, requires_grad=True),
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout()),
        lambda: torch.randn(4, 3, requires_grad=True),
    ),
    "an embedding that renorms": (lambda: nn.Embedding(5, 3, max_norm=0.1), lambda: torch.tensor([1, 2, 1])),
    "its own state": (Counting, lambda: torch.randn(2, requires_grad=True)),
}


@pytest.mark.parametrize("name", NETS)
def test_state_is_put_back(name):
    net, x = NETS[name][0](), NETS[name][1]()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, grads, given = snapshot(net), [p.grad for p in net.parameters()], bits(x)
    attributes = {key: value for key, value in vars(net).items() if isinstance(value, int)}
    rng = torch.get_rng_state()
    with untouched(net, x) as state:
        net(x).sum().backward()
        first = net(x).sum().item()
        state.restore()
        net(x)
        assert net(x).sum().item() == first
    assert snapshot(net) == before
    assert bits(x) == given
    assert all(p.grad is g and (g == 1).all() for p, g in zip(net.parameters(), grads, strict=True))
    assert {key: value for key, value in vars(net).items() if isinstance(value, int)} == attributes
    assert torch.equal(torch.get_rng_state(), rng)


ASKED = [
    {"check_forward_ad": True}, {"check_batched_grad": True}, {"check_undefined_grad": False},
    {"check_forward_ad": True, "check_batched_forward_grad": True}, {"masked": True}, {"nondet_tol": 1.0},
    {"check_grad_dtypes": True}, {"check_forward_ad": True, "check_backward_ad": False}, {"fast_mode": True},
]  # fmt: skip


def given(*shape: int) -> torch.Tensor:
    return torch.linspace(0.3, 0.9, max(1, *shape), dtype=D)[: shape[0]].clone().requires_grad_()


@pytest.mark.parametrize("option", ASKED, ids=str)
def test_what_an_option_asks_for_is_done(option):
    assert gradcheck(torch.sin, (given(3),), **option)


@pytest.mark.parametrize("name", ["eps", "atol", "rtol"])
def test_a_step_or_a_tolerance_is_accepted_and_said_once_to_be_needless(name, monkeypatch):
    monkeypatch.setattr("gradproof.torch.gradcheck._told", set())
    with pytest.warns(UserWarning, match=name):
        assert gradcheck(torch.sin, (given(3),), **{name: 0.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradcheck(torch.sin, (given(3),), **{name: 0.5})


def test_no_input_that_needs_a_gradient_is_an_error_as_in_torch():
    with pytest.raises(ValueError, match="require gradient"):
        gradcheck(torch.sin, (given(3).detach(),))


def test_a_report_says_what_was_exercised():
    report = check_function(torch.sin, given(3))
    assert report.exercised == ("reverse mode, first order",)
    assert "forward mode" in report.not_exercised
    for text in (report.to_text(), report.to_markdown(), report.to_html(), report.to_json()):
        assert "double backward" in text


def test_nothing_compared_is_no_pass():
    empty = check_function(torch.tanh, given(0))
    assert empty.verdict == "undecided"
    assert empty.findings[-1].note == "nothing was compared"
    assert check_function(lambda a, b: (a.sin(), b.tanh()), given(3), given(0)).ok


@dataclass
class Output:
    loss: torch.Tensor
    more: object = None


class ModelOutput(OrderedDict):
    pass


class Pair(NamedTuple):
    a: torch.Tensor
    b: list


NESTS = {
    "a dataclass": lambda y: Output(y),
    "a dataclass in a dict": lambda y: {"out": Output(y, [1])},
    "a model output": lambda y: ModelOutput(loss=y, logits=None),
    "a named tuple": lambda y: Pair(y, [None]),
}


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 3

    @staticmethod
    def backward(ctx, g):
        return g * 1.5


@pytest.mark.parametrize("nest", NESTS)
def test_outputs_may_be_any_nest(nest):
    assert check_function(lambda x: NESTS[nest](x * 3), given(3)).ok
    assert check_function(lambda x: NESTS[nest](Half.apply(x)), given(3)).verdict == "wrong"


WORDS = {
    "None": (lambda x: None, "returned None"),
    "a float": (lambda x: 1.0, "returned a float"),
    "NumPy": (lambda x: x.detach().numpy(), "returned a NumPy array"),
    "an object": (lambda x: object(), "returned an object"),
    "a cut": (lambda x: x.detach() * 2, "the graph is cut"),
    "a mask": (lambda x: x > 0, "torch.bool"),
}


@pytest.mark.parametrize("case", WORDS)
def test_what_came_back_is_named(case):
    func, words = WORDS[case]
    report = check_function(func, given(3))
    assert not report.ok
    assert words in report.findings[0].note
    assert "requires_grad_()" not in report.findings[0].note


def test_inputs_that_are_not_marked_are_told():
    assert "requires_grad_()" in check_function(torch.sin, given(3).detach()).findings[0].note


def test_keyword_arguments_are_leaves():
    assert check_function(F.softmax, given(3), dim=-1).ok
    report = check_function(lambda a, *, scale: a * scale["w"][0], given(3), scale={"w": [given(3)]})
    assert report.ok
    assert "scale['w'][0]" in report.to_text()
    assert check_function(lambda title: title.sin(), kwargs={"title": given(3)}).ok
    assert check_function(nn.Bilinear(3, 3, 2, dtype=D), given(3), input2=given(3)).ok
    assert (
        check_function(lambda a, *, scale: Half.apply(a) * scale, given(3), scale=given(3)).verdict == "wrong"
    )


def broken(x):
    raise KeyError("here")


def test_an_exception_tells_its_line_and_keeps_the_traceback():
    report = check_function(broken, given(3))
    line = broken.__code__.co_firstlineno + 1
    assert f"test_words.py:{line}" in report.findings[0].note
    assert "KeyError" in report.traceback
    assert "Traceback" in report.to_text()


def test_what_is_not_used_is_told():
    report = check_function(lambda a, b: a * 2, given(3), given(3))
    assert report.ok
    assert "b" in report.remarks[0]
    assert not check_function(lambda a, b: a * b, given(3), given(3)).remarks


def test_a_stop_tells_how_to_say_that_it_is_meant():
    report = check_function(lambda x: x * x.detach(), given(3))
    assert report.verdict == "wrong"
    assert 'stops="trust"' in report.to_text()


def test_the_derivative_of_digamma_is_polygamma():
    assert "polygamma(1, " in check_function(torch.digamma, given(3)).to_text()


def test_a_fraction_of_a_float_is_a_decimal():
    third = sympy.Rational(1 / 3) * sympy.Symbol("x")
    assert notation.text(third) == "0.333333*x"
    assert notation.text(sympy.Rational(1, 3) * sympy.Symbol("x")) == "x/3"


def test_a_parameter_without_effect_has_the_gradient_0():
    point = {"w": 3.0, "b": 1.0}
    report = assert_gradients("loss = w**2", point, {"w": 6.0, "b": 0.0})
    assert "No line uses b" in report.remarks[0]
    with pytest.raises(AssertionError, match="gradient of b"):
        assert_gradients("loss = w**2", point, {"w": 6.0, "b": 1.0})
    assert check(parse("loss = w**2", parameters=point)).ok


ZEROS = ("0*w", "w - w", "w/w")
OUTER = (
    "maximum({}, w)",
    "minimum({} + 0.1, 1)",
    "clip(lgamma({} + 0.1), -1, 1.5)",
    "where({} > 0.5, w, 2*w)",
    "abs({} - 0.5)*w",
)


@pytest.mark.parametrize("inner", ["softplus", "sigmoid", "gelu", "log1p", "expm1", "silu"])
@pytest.mark.parametrize("outer", OUTER)
def test_a_constant_is_compared(inner, outer):
    for constant in ZEROS:
        text = f"loss = w + {outer.format(f'{inner}({constant})')}"
        assert check(parse(text, parameters={"w": 0.7})).verdict in ("exact", "rounding", "kink"), text


@pytest.mark.parametrize(
    "text", ["maximum(log(0*w), w)", "where(log(0*w) > 0.5, w, 2*w)", "minimum(acosh(0*w) + 0.1, 1)"]
)
def test_what_is_no_number_is_no_traceback(text):
    check(parse(f"loss = w + {text}", parameters={"w": 0.7}))


@pytest.mark.parametrize("name", NETS)
def test_a_check_leaves_no_trace(name):
    net, x = NETS[name][0](), NETS[name][1]()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, grads = snapshot(net), [p.grad for p in net.parameters()]
    random_states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    check_function(net, x)
    check_function(lambda x: (net(x), broken(x)), x)
    assert snapshot(net) == before
    assert all(p.grad is g and (g == 1).all() for p, g in zip(net.parameters(), grads, strict=True))
    assert random.getstate() == random_states[0]
    assert str(np.random.get_state()) == random_states[1]
    assert torch.equal(torch.get_rng_state(), random_states[2])


def test_a_compiled_function_stays_compiled():
    runs = []

    def backend(module, _):
        return lambda *given: runs.append(1) or module.forward(*given)

    func = torch.compile(lambda v: (v * v.sin()).sum(), backend=backend)
    check_function(func, given(3))
    before = len(runs)
    func(given(3))
    assert len(runs) == before + 1


def test_threads_keep_their_precision():
    def work(bits):
        for _ in range(50):
            with precision(bits):
                time.sleep(0)
                assert ctx.prec == bits
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, (64, 128, 256, 512)))


def test_an_input_that_nothing_reads_is_told():
    report = check_function(lambda x, mask: x.sin(), given(3), torch.ones(3))
    assert report.ok and "Nothing reads the input mask." in report.remarks
    report = check_function(lambda x, mask: x * mask, given(3), torch.ones(3))
    assert not report.remarks


def test_a_given_value_that_no_line_uses_is_told():
    problem = parse("loss = w**2", parameters={"w": 3.0}, given={"x": 1.0})
    assert check(problem).ok and "No line uses the given x." in check(problem).remarks


def test_why_no_differences_were_taken_is_told():
    weight = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    report = check_function(
        lambda w: torch.nn.functional.embedding(torch.tensor([1, 3]), w, padding_idx=3), weight
    )
    assert report.ok and any("embedding" in remark for remark in report.remarks)


def test_a_report_that_is_printed_is_its_text() -> None:
    problem = parse("loss = (w*x - y)**2", given={"x": 1.0, "y": 2.0}, parameters={"w": 1.0})
    one = check(problem)
    assert f"{one}" == str(one) == one.to_text() and "loss" in one.to_text()
    assert "Report(" in repr(one)
    many = descend(problem, optimizer="sgd", learning_rate=0.1, steps=1)
    assert str(many) == many.to_text()
