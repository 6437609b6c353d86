"""Every engine on every file; planted faults in every engine; engines that people bring themselves."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import PLANTED, Changed, Elsewhere, Planted, matrices, shared, sine

import gradproof
from conftest import ROOT
from gradproof import Problem, Report, check, load, parse
from gradproof.cli import main
from gradproof.engines import BY_NAME_ALONE, ENGINES, Engine, Task, Trace, engine_named, installed

EXPRESSIONS = ROOT / "expressions"
FILES = sorted(path.stem for path in EXPRESSIONS.glob("*.toml"))

# Engines that share compiled operations are run one after the other, in one test a file.
TOGETHER = {
    "torch": ("torch", "torch-func", "torch-forward"),
    "jax": ("jax", "jax-forward"),
    "autograd": ("autograd",),
    "tinygrad": ("tinygrad",),
}

# engine: {file: the function that it does not have}. A file that comes to pass where this table says
# otherwise fails the test, so that the table is kept true. What an engine does wrong, or right where others
# are trapped, stands in the file's own [expect.ENGINE].
LACKING: Mapping[str, Mapping[str, str]] = {
    **{engine: {} for engine in ("torch", "torch-func", "torch-forward", "jax", "jax-forward", "autograd")},
    "tinygrad": {
        "gaussian_mixture": "lgamma", "norm_at_zero": "norm", "planck_energy": "expm1",
            "softplus_from_relu": "log1p",
    },
}  # fmt: skip

there = {name: importlib.util.find_spec(name.split("-")[0]) is not None for name in ENGINES}


def skip_without(engine: str) -> Any:
    return pytest.mark.skipif(not there[engine], reason=f"{engine} is not installed")


def told(report: Report) -> str:
    return "\n".join(
        f"{f.kind} {f.node} {f.wrt}: {f.verdict}: {f.note}" for f in report.findings if not f.verdict.passes
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("library", [pytest.param(key, marks=skip_without(key)) for key in TOGETHER])
def test_every_file_under_every_engine(library: str, name: str) -> None:
    problem = load(EXPRESSIONS / f"{name}.toml")
    for engine in TOGETHER[library]:
        report = check(problem, engine=engine)
        lacking = LACKING[engine].get(name)
        if lacking is None:
            assert report.ok, (engine, told(report))
        else:
            assert report.verdict == "unsupported", (
                f"{engine}: {report.verdict}; take it out of the table, if it passes"
            )
            assert [f.note for f in report.findings if f.verdict == "unsupported"] == [
                f"{engine} has no {lacking!r}"
            ]


def test_the_tables_name_files_and_engines_that_are_there() -> None:
    assert {*LACKING, *BY_NAME_ALONE} == {*ENGINES}
    assert {file for table in LACKING.values() for file in table} <= {*FILES}
    expected = {engine for name in FILES for engine in load(EXPRESSIONS / f"{name}.toml").expect}
    assert expected <= {"", *ENGINES}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("engine", [pytest.param(name, marks=skip_without(name)) for name in LACKING])
def test_a_dtype_is_judged_or_unsupported(engine: str, dtype: str) -> None:
    report = check(load(EXPRESSIONS / "ols_vectors.toml"), engine=engine, dtype=dtype)
    lacking = engine == "autograd" and dtype != "float32"
    assert report.verdict == "unsupported" if lacking else report.ok, told(report)
    if lacking:
        assert [f.note for f in report.findings] == [f"autograd is run in float64, float32, not in {dtype}"]


@pytest.mark.skipif(not there["jax"], reason="jax is not installed")
def test_jax_keeps_its_own_precision_outside_of_a_run() -> None:
    import jax.numpy as jnp

    before = jnp.ones(2).dtype
    check(sine(), engine="jax")
    assert jnp.ones(2).dtype == before


def test_torch_compile_or_its_reason() -> None:
    try:
        # One line: its compiler takes seconds for each.
        problem = parse("loss = (w*x - y)**2", given={"x": 1.0, "y": 2.0}, parameters={"w": 1.5})
        report = check(problem, engine="torch-compile")
    except gradproof.EngineError as error:
        assert "compile" in str(error)
    else:
        assert report.ok, told(report)


# Planted faults, in every engine

STOPS: Mapping[str, Callable[[], Callable[[Any], Any]]] = {
    "torch": lambda: torch.Tensor.detach,
    "jax": lambda: __import__("jax").lax.stop_gradient,
    "autograd": lambda: _constant,
    "tinygrad": lambda: __import__("tinygrad").Tensor.detach,
}


def _constant(x: Any) -> Any:
    from autograd.tracer import getval

    while hasattr(x, "_value"):
        x = getval(x)
    return x


def planted(
    engine: Engine, *, name: str, make: Callable[[Callable[..., Any], Any], Callable[..., Any]]
) -> Engine:
    """The engine with one function or operator made wrong."""
    made: Any = engine
    stop = STOPS[engine.name.split("-")[0]]()
    tables = {"functions": dict(made.functions), "operators": dict(made.operators)}
    table = next(table for table in tables.values() if name in table)
    table[name] = make(table[name], stop)
    return type(made)(made.name, **tables)


def bent(factor: float) -> Callable[[Callable[..., Any], Any], Callable[..., Any]]:
    """The right value, and the gradient times a factor."""

    def make(function: Callable[..., Any], stop: Any) -> Callable[..., Any]:
        def wrong(x: Any) -> Any:
            value = function(x)
            return value + (factor - 1.0) * (value - stop(value))

        return wrong

    return make


def transposed(function: Callable[..., Any], stop: Any) -> Callable[..., Any]:
    def wrong(a: Any, b: Any) -> Any:
        other = function(a, b.T)
        return stop(function(a, b)) + (other - stop(other))

    return wrong


def forward_off(function: Callable[..., Any], stop: Any) -> Callable[..., Any]:
    return lambda x: function(x) * (1 + 2.0**-18)


def operand_dropped(function: Callable[..., Any], stop: Any) -> Callable[..., Any]:
    """The second factor gets no gradient."""
    return lambda a, b: function(a, stop(b)) if hasattr(b, "shape") else function(a, b)


def products() -> Problem:
    """`matrices` without its sine, of which tinygrad's own gradient is 23 ulp off."""
    given = {"B": [[0.5, -1.25], [1.5, 0.75]]}
    return parse("y = A @ B\nloss = sum(y**2)", given=given, parameters={"A": [[0.2, 1.0], [-0.3, 0.4]]})


# name: (problem, what is replaced, by what, the kind and the node to blame, a word of the note)
REPLACED: Mapping[str, tuple[Callable[[], Problem], str, Any, tuple[str, str], str]] = {
    "the sign": (sine, "sin", bent(-1.0), ("local", "s"), "sign"),
    "a factor of 2": (sine, "sin", bent(2.0), ("local", "s"), "factor of 2"),
    "a factor of 1 + 2**-18": (sine, "sin", bent(1 + 2.0**-18), ("local", "s"), ""),
    "zero": (sine, "sin", bent(0.0), ("local", "s"), "zero"),
    "a transposed Jacobian": (products, "@", transposed, ("local", "y"), ""),
    "an operand's gradient dropped": (shared, "*", operand_dropped, ("local", "loss"), "zero"),
    "the forward value": (sine, "sin", forward_off, ("forward", "s"), ""),
}
# Those of the main table that change an engine's numbers apply to any engine.
NUMBERS = [fault for fault in PLANTED if isinstance(fault.wrong, Changed | Elsewhere)]
# Forward mode shows no gradient at h.
AT_A_LINE = {"a dropped use of a shared node", "overwritten instead of added"}


class Replayed:
    """An engine whose numbers are changed after its run, or which computes at another point."""

    def __init__(self, engine: str, fault: Planted) -> None:
        self.name = engine
        self.fault = fault

    def run(self, task: Task, dtype: Any) -> Trace:
        run = engine_named(self.name).run
        if isinstance(self.fault.wrong, Elsewhere):
            moved = {
                name: np.asarray(self.fault.wrong.point.get(name, value))
                for name, value in task.point.items()
            }
            return run(Task(task.statements, moved, task.parameters, task.parents, task.probes), dtype)
        return self.fault.wrong.change(task, run(task, dtype))


def blamed(report: Report) -> set[tuple[str, str]]:
    return {(f.kind, f.node) for f in report.findings if f.verdict == "wrong" and not f.inherited}


TESTED = [pytest.param(name, marks=skip_without(name)) for name in LACKING]


@pytest.mark.parametrize("engine", TESTED)
def test_a_wrong_operation_is_refuted_in_every_engine(engine: str) -> None:
    dtype = "float32" if engine == "tinygrad" else "float64"
    for fault, (problem, name, make, node, note) in REPLACED.items():
        if not any(
            name in table for table in (engine_named(engine).functions, engine_named(engine).operators)
        ):  # type: ignore[attr-defined]
            continue
        assert check(problem(), engine=engine, dtype=dtype).ok, fault
        report = check(problem(), engine=planted(engine_named(engine), name=name, make=make), dtype=dtype)
        assert report.verdict == "wrong", (fault, told(report))
        assert node in blamed(report), (fault, told(report))
        assert {at for _, at in blamed(report)} <= {node[1], "h", "a"}, (fault, told(report))
        assert note in " / ".join(f.note for f in report.findings), (fault, told(report))


@pytest.mark.parametrize("engine", TESTED)
def test_wrong_numbers_are_refuted_in_every_engine(engine: str) -> None:
    dtype = "float32" if engine == "tinygrad" else "float64"
    for fault in NUMBERS:
        if engine.endswith("forward") and fault.name in AT_A_LINE:
            continue
        problem = products() if fault.problem is matrices else fault.problem()
        assert check(problem, engine=engine, dtype=dtype).ok, fault.name
        report = check(problem, engine=Replayed(engine, fault), dtype=dtype)
        assert report.verdict == "wrong", (fault.name, told(report))
        assert (fault.kind, fault.node) in blamed(report), (fault.name, told(report))
        assert fault.note in " / ".join(f.note for f in report.findings), fault.name


# Bring your own


class Value:
    """A scalar that remembers how it came about: the micro engine of many a course."""

    adds = True  # grad += : the one line that is the whole point

    def __init__(self, data: float, parents: tuple[tuple[Value, float], ...] = ()) -> None:
        self.data, self.grad, self.parents = data, 0.0, parents

    def __add__(self, other: Value) -> Value:
        return type(self)(self.data + other.data, ((self, 1.0), (other, 1.0)))

    def __sub__(self, other: Value) -> Value:
        return type(self)(self.data - other.data, ((self, 1.0), (other, -1.0)))

    def __mul__(self, other: Value) -> Value:
        return type(self)(self.data * other.data, ((self, other.data), (other, self.data)))

    def __truediv__(self, other: Value) -> Value:
        value = self.data / other.data
        return type(self)(value, ((self, 1 / other.data), (other, -value / other.data)))

    def __pow__(self, n: float) -> Value:
        assert isinstance(n, int | float), "only numbers are exponents"
        return type(self)(self.data**n, ((self, n * self.data ** (n - 1) if n else 0.0),))

    def __neg__(self) -> Value:
        return type(self)(-self.data, ((self, -1.0),))

    def of(self, value: float, slope: float) -> Value:
        return type(self)(value, ((self, slope),))

    def exp(self) -> Value:
        return self.of(math.exp(self.data), math.exp(self.data))

    def log(self) -> Value:
        return self.of(math.log(self.data), 1 / self.data)

    def tanh(self) -> Value:
        return self.of(math.tanh(self.data), 1 / math.cosh(self.data) ** 2)

    def relu(self) -> Value:
        return self.of(max(self.data, 0.0), float(self.data > 0))

    def backward(self) -> None:
        order: list[Value] = []
        seen: set[int] = set()
        stack = [(self, False)]
        while stack:
            value, done = stack.pop()
            if done:
                order.append(value)
            elif id(value) not in seen:
                seen.add(id(value))
                stack.append((value, True))
                stack += [(parent, False) for parent, _ in value.parents]
        for value in order:
            value.grad = 0.0
        self.grad = 1.0
        for value in reversed(order):
            for parent, slope in value.parents:
                parent.grad = parent.grad * self.adds + slope * value.grad


class Overwriting(Value):
    adds = False  # grad = : the classic mistake


def micro(kind: type[Value] = Value) -> Engine:
    def gradient(output: Value, inputs: list[Value]) -> list[float]:
        for x in inputs:
            x.grad = 0.0
        output.backward()
        return [x.grad for x in inputs]

    functions = {
        "sin": lambda x: x.of(math.sin(x.data), math.cos(x.data)),
        "cos": lambda x: x.of(math.cos(x.data), -math.sin(x.data)),
        "sqrt": lambda x: x.of(math.sqrt(x.data), 0.5 / math.sqrt(x.data)),
        "abs": lambda x: x.of(abs(x.data), math.copysign(1.0, x.data)),
        "sigmoid": lambda x: x.of(1 / (1 + math.exp(-x.data)), 0.25 / math.cosh(x.data / 2) ** 2),
        "softplus": lambda x: x.of(
            max(x.data, 0) + math.log1p(math.exp(-abs(x.data))), 1 / (1 + math.exp(-x.data))
        ),
    }
    return gradproof.engine(name="micro", wrap=kind, gradient=gradient, functions=functions)


RAISES = "failed: Python's math raises at a point where there is no number"
MICRO: Mapping[str, str] = {
    "activations": "unsupported: no gelu",
    "gaussian_mixture": "unsupported: no lgamma",
    "planck_energy": "unsupported: no expm1",
    "softplus_from_relu": "unsupported: no log1p",
    "naive_log_loss": "unsupported: float32",
    "naive_logistic": "unsupported: float32",
    "saturated_sigmoid": "unsupported: float32",
    **dict.fromkeys(
        "log_of_negative log_of_zero naive_logsumexp norm_at_zero sinc_at_zero sqrt_at_zero where_trap "
        "where_trap_at_zero".split(),
        RAISES,
    ),
}


def test_a_micro_engine_passes_on_all_that_it_covers() -> None:
    passed = 0
    for name in FILES:
        report = check(load(EXPRESSIONS / f"{name}.toml"), engine=micro())
        if name not in MICRO:
            assert report.ok, (name, told(report))
            passed += 1
            continue
        verdict, reason = MICRO[name].split(": ", 1)
        assert report.verdict == verdict, (name, told(report))
        if verdict == "unsupported":
            assert any(reason.removeprefix("no ") in f.note for f in report.findings), (name, told(report))
    assert passed == len(FILES) - len(MICRO) >= 42


def test_a_gradient_that_overwrites_is_refuted_and_the_note_says_that_a_use_is_lost() -> None:
    assert check(shared(), engine=micro()).ok
    report = check(shared(), engine=micro(Overwriting))
    assert report.verdict == "wrong"
    assert ("gradient", "h") in blamed(report)
    assert any(
        "only the part from" in f.note and "is lost or overwritten" in f.note
        for f in report.findings
        if f.node == "h"
    )
    assert check(load(EXPRESSIONS / "used_twice.toml"), engine=micro(Overwriting)).verdict == "wrong"


@pytest.mark.parametrize(
    "name", ["ols", "ols_matrix", "logistic_regression", "perceptron", "softmax_cross_entropy"]
)
def test_a_micro_engine_learns_what_courses_teach(name: str) -> None:
    assert check(load(EXPRESSIONS / f"{name}.toml"), engine=micro()).ok


def from_torch(**more: Any) -> Engine:
    """torch as somebody's own array library."""

    def gradient(output: torch.Tensor, inputs: list[torch.Tensor]) -> Any:
        return torch.autograd.grad(output, inputs, allow_unused=True)

    def summed(x: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
        return torch.sum(x, axis, keepdim=keepdims)

    return gradproof.engine(
        name="mine", wrap=lambda array: torch.tensor(array, requires_grad=True), gradient=gradient,
            arrays=True,
        functions={"sum": summed, **more}, dtypes=("float64", "float32"), number=lambda x: x.detach().numpy(),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_array_library_of_ones_own(dtype: str) -> None:
    assert check(shared(), engine=from_torch(), dtype=dtype).ok
    assert check(matrices(), engine=from_torch(), dtype=dtype).ok
    wrong = check(shared(), engine=from_torch(sin=lambda x: torch.sin(x.detach()) + 0 * x), dtype=dtype)
    assert ("local", "a") in blamed(wrong)


def test_what_ones_own_engine_lacks_is_named() -> None:
    report = check(parse("loss = erf(w)", parameters={"w": 0.5}), engine=micro())
    assert report.verdict == "unsupported"
    assert [f.note for f in report.findings] == [
        "micro has no 'erf': neither a function nor a method of Value"
    ]
    power = check(parse("loss = w ** v", parameters={"w": 0.5, "v": 2.0}), engine=micro())
    assert power.verdict == "unsupported"
    assert "only numbers are exponents" in power.findings[0].note


def test_an_engine_that_raises_has_failed() -> None:
    def broken(x: Value) -> Value:
        raise RuntimeError("boom")

    engine = gradproof.engine(
        wrap=Value, gradient=lambda output, inputs: [0.0] * len(inputs), functions={"exp": broken}
    )
    report = check(parse("loss = exp(w)", parameters={"w": 0.5}), engine=engine)
    assert report.verdict == "failed"
    assert re.fullmatch(r"RuntimeError: boom at \S*test_engines.py:\d+", report.findings[0].note)
    short = gradproof.engine(wrap=Value, gradient=lambda output, inputs: [])
    report = check(parse("loss = w * w", parameters={"w": 0.5}), engine=short)
    assert report.verdict == "failed"
    assert "gave 0 numbers for 1 inputs" in told(report)


OWN = """
import math
import gradproof

class Value:
    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents = data, 0.0, parents
    def __add__(self, other):
        return Value(self.data + other.data, ((self, 1.0), (other, 1.0)))
    def __mul__(self, other):
        return Value(self.data * other.data, ((self, other.data), (other, self.data)))
    def backward(self, slope=1.0):
        self.grad = slope
        for parent, part in self.parents:
            parent.backward(slope * part)

def gradient(output, inputs):
    output.backward()
    return [x.grad for x in inputs]

engine = gradproof.engine(name="mine", wrap=Value, gradient=gradient)
"""


def test_an_engine_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    engine = str(tmp_path / "mine.py:engine")
    assert main(["check", str(EXPRESSIONS / "rosenbrock.toml"), "--engine", engine]) == 3
    assert "mine has no '-' for this" in capsys.readouterr().out
    text = [
        "check",
        "-e",
        "loss = (x + y)*(x + z)",
        *(a for n in ("x=1.5", "y=1", "z=2") for a in ("--parameter", n)),
    ]
    assert main([*text, "--engine", engine]) == 1
    assert "one of 2 uses is lost, or overwritten: that in x + y" in capsys.readouterr().out
    for name, said in (
        ("gradient", "this is a function, expected an engine"),
        ("engin", "did you mean 'engine'?"),
    ):
        assert main([*text, "--engine", str(tmp_path / f"mine.py:{name}")]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("x", [1e-4, 0.1, 0.7, 3.0])
def test_both_forms_of_a_slope_pass(x: float) -> None:
    problem = parse("loss = tanh(x) + tan(x) + softplus(20 * x)", parameters={"x": x})
    for engine in ("torch", "autograd", "jax"):
        assert check(problem, engine=engine, dtype="float32").ok, engine


# The command line


def test_all_engines_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(EXPRESSIONS / f"{name}.toml") for name in ("ols", "naive_logsumexp")]
    assert main(["check", *files, "--engine", "all"]) == 0
    out = capsys.readouterr().out
    head, _, *rows = out.splitlines()
    assert head.split() == ["file", *installed()]
    assert rows[0].split() == [files[0], *["exact"] * len(installed())]
    assert rows[1].split() == [files[1], *["wrong"] * len(installed())]
    assert f"{files[1]}: loss: all engines are wrong alike here: suspect the formula" in out
    assert "torch-compile" not in installed()


def test_engines_that_disagree_do_not_accuse_the_formula(capsys: pytest.CaptureFixture[str]) -> None:
    if not there["autograd"]:
        pytest.skip("autograd is not installed")
    assert main(["check", str(EXPRESSIONS / "product_with_a_zero.toml"), "--engine", "all"]) == 0
    out = capsys.readouterr().out
    assert "wrong" in out
    assert "suspect the formula" not in out


def test_what_an_engine_has_wrong_without_a_word_in_the_file_exits_with_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "-e", "loss = prod(x)", "--parameter", "x=[0.0, 2.0]", "--engine", "all"]) == 1
    assert "wrong *" in capsys.readouterr().out


def test_an_unsupported_file_exits_with_3() -> None:
    if not there["autograd"]:
        pytest.skip("autograd is not installed")
    assert main(["check", str(EXPRESSIONS / "ols.toml"), "--engine", "autograd", "--dtype", "bfloat16"]) == 3
