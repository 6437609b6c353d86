"""Numbers from anywhere, in one line of a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT
from gradproof import InputError, Verdict, assert_gradients, load
from gradproof.causes import JudgedBy
from gradproof.dtypes import DTYPES
from gradproof.judging.verdicts import rounded

OLS = "y_hat = w*x\nl = y_hat - y\nloss = l**2"
POINT = {"w": 1.0, "x": 1.0, "y": 2.0}
LAYER = "h[i] = tanh(sum(W[i,k]*x[k], k) + b[i])\nloss = sum(h[i]**2, i)"


def layer(dtype: torch.dtype = torch.float64) -> tuple[dict[str, Any], dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    W, x, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((3, 4), (4,), (3,))
    )
    W.requires_grad_()
    b.requires_grad_()
    (torch.tanh(W @ x + b) ** 2).sum().backward()
    return {"W": W, "x": x, "b": b}, {"W": W.grad, "b": b.grad}


def test_right_numbers_are_silent_and_return_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    report = assert_gradients(
        OLS, POINT, {"w": -2.0}, values={"y_hat": 1.0, "l": -1.0}, local={("loss", "l"): -2.0}
    )
    assert report.ok and [finding.kind for finding in report.findings] == [
        "forward",
        "forward",
        "local",
        "gradient",
    ]
    assert capsys.readouterr().out == ""


def test_a_problem_of_a_file_at_its_own_point_or_another() -> None:
    problem = load(ROOT / "expressions" / "ols.toml")
    assert assert_gradients(problem, None, {"w": -2.0}).verdict is Verdict.EXACT
    assert assert_gradients(problem, {"w": 3.0}, {"w": 2.0}).verdict is Verdict.EXACT
    with pytest.raises(AssertionError, match="gradient of w"):
        assert_gradients(problem, {"w": 3.0}, {"w": -2.0})


def test_a_wrong_number_is_a_short_table() -> None:
    point, gradients = layer()
    wrong = gradients["W"].clone()
    wrong[1, 2] *= 1 + 1e-9
    with pytest.raises(AssertionError) as raised:
        assert_gradients(LAYER, point, {**gradients, "W": wrong})
    text = str(raised.value)
    assert "gradient of W[1,2]" in text and "1 of 12" in text and "gradient of b" not in text
    assert len(text.splitlines()) < 10 and max(map(len, text.splitlines())) < 160


@pytest.mark.parametrize(
    ("wrong", "note"),
    [
        (lambda g: -g, "the sign is wrong"),
        (lambda g: 2 * g, "a factor of 2"),
        (lambda g: g * 0, "it is zero"),
        (lambda g: g / 3, "n = 3"),
        (lambda g: g.T, "shape (4, 3), expected (3, 4)"),
        (lambda g: None, "no gradient (None)"),
        (lambda g: g * np.nan, "NaN"),
    ],
)
def test_the_table_says_what_it_looks_like(wrong: Callable[..., Any], note: str) -> None:
    point, gradients = layer()
    with pytest.raises(AssertionError) as raised:
        assert_gradients(LAYER, point, {**gradients, "W": wrong(gradients["W"])})
    assert note in str(raised.value)


def sources() -> list[Any]:
    def jax(a: np.ndarray) -> Any:
        return pytest.importorskip("jax").numpy.asarray(a)

    def tinygrad(a: np.ndarray) -> Any:
        return pytest.importorskip("tinygrad").Tensor(a.astype(np.float32), device="PYTHON")

    kinds: dict[str, Callable[[np.ndarray], Any]] = {
        "lists": lambda a: a.tolist(), "NumPy": lambda a: a, "float32": lambda a: a.astype(np.float32),
        "torch": torch.tensor, "bfloat16": lambda a: torch.tensor(a).bfloat16(), "JAX": jax,
            "tinygrad": tinygrad,
    }  # fmt: skip
    return [pytest.param(make, id=name) for name, make in kinds.items()]


@pytest.mark.parametrize("make", sources())
def test_numbers_come_from_anywhere(make: Callable[[np.ndarray], Any]) -> None:
    point = {"w": make(np.array([1.0, 2.0])), "x": make(np.array([0.5, -1.0]))}
    assert assert_gradients("loss = sum(w*x)", point, {"w": make(np.array([0.5, -1.0]))}, dtype="bfloat16").ok
    with pytest.raises(AssertionError):
        assert_gradients("loss = sum(w*x)", point, {"w": make(np.array([0.5, 1.0]))}, dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_layer_in_every_dtype(dtype: str) -> None:
    point, gradients = layer(getattr(torch, dtype))
    assert assert_gradients(LAYER, point, gradients, dtype=dtype).ok
    assert assert_gradients(LAYER, point, {"b": gradients["b"]}, dtype=dtype).ok  # of a subset


def perceptron(dtype: torch.dtype, seed: int = 0) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Eight layers of tanh: the final gradients alone."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(5, 5, generator=generator) / 5**0.5 for _ in range(8)]
    weights = [w.to(dtype).requires_grad_() for w in drawn]
    x = h = torch.randn(5, generator=generator).to(dtype)
    for w in weights:
        h = torch.tanh(w @ h)
    (h**2).sum().backward()
    text = "\n".join([f"h{n + 1} = tanh(W{n} @ h{n})" for n in range(8)] + ["loss = sum(h8**2)"])
    point = {"h0": x, **{f"W{n}": w for n, w in enumerate(weights)}}
    return text, point, {f"W{n}": w.grad for n, w in enumerate(weights)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_deep_opaque_case_passes(dtype: str, seed: int) -> None:
    report = assert_gradients(*perceptron(getattr(torch, dtype), seed), dtype=dtype)
    assert all(JudgedBy(runs=24) in finding.causes for finding in report.findings)


@pytest.mark.parametrize("layer", range(8))
def test_a_factor_in_one_layer_of_a_deep_opaque_case_is_refuted(layer: int) -> None:
    text, point, gradients = perceptron(torch.float32)
    gradients[f"W{layer}"] = gradients[f"W{layer}"] * (1 + 1e-3)
    with pytest.raises(AssertionError, match=f"gradient of W{layer}") as raised:
        assert_gradients(text, point, gradients, dtype="float32")
    assert "1 of 8 do not pass" in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("loss = w*x", {"w": 1.0, "x": 2.0}, {}), "no gradient to compare"),
        (("loss = w*x", {"w": 1.0, "x": 2.0}, {"v": 1.0}), "no 'v'"),
        (("loss = w*x", {"w": 1.0}, {"w": 1.0}), "unknown name 'x'"),
        (("loss = w*x", {"w": 1.0, "x": "two"}, {"w": 1.0}), "expected numbers"),
        (("loss = w*", {"w": 1.0}, {"w": 1.0}), "not an expression"),
    ],
)
def test_bad_input_is_told(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assert_gradients(*arguments)
    with pytest.raises(InputError, match="unknown dtype"):
        assert_gradients(OLS, POINT, {"w": -2.0}, dtype="float31")
    with pytest.raises(InputError, match="does not read"):
        assert_gradients(OLS, POINT, {"w": -2.0}, local={("loss", "w"): 1.0})
    problem = load(ROOT / "expressions" / "ols.toml")
    with pytest.raises(InputError, match="it has no gradient"):
        assert_gradients(problem, None, {"x": 1.0})


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_numbers_are_rounded_as_the_dtype_rounds(name: str) -> None:
    random = np.random.default_rng(0)
    values = np.concatenate(
        [random.standard_normal(500) * 10.0 ** random.integers(-50, 50, 500), [0.0, -0.0, 1e-7, 6e-8, 1e39]]
    )
    expected = torch.tensor(values).to(getattr(torch, name)).double().numpy()
    assert np.array_equal(rounded(values, DTYPES[name]), expected)
