"""The language against NumPy: both read the same text, and must give the same number."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradproof import check, parse
from gradproof.language.syntax import FUNCTIONS

RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 3))
W = RNG.normal(size=(3, 2))
SQUARE = RNG.normal(size=(3, 3))
CUBE = RNG.normal(size=(2, 3, 4))
v = RNG.normal(size=3)
u = RNG.uniform(0.2, 0.8, size=3)
s = 0.7


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def each(function: object) -> object:
    return np.vectorize(function)


NUMPY = {
    "abs": np.abs, "sign": np.sign, "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1,
        "sqrt": np.sqrt,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "atan2": np.arctan2, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "erf": each(math.erf),
        "erfc": each(math.erfc),
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "log2": np.log2, "log10": np.log10,
    "gamma": each(math.gamma), "lgamma": each(math.lgamma), "sigmoid": sigmoid,
        "softplus": lambda x: np.log1p(np.exp(x)),
    "relu": lambda x: np.maximum(x, 0), "gelu": lambda x: x * (1 + each(math.erf)(x / math.sqrt(2))) / 2,
    "leaky_relu": lambda x, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
    "elu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(x)), "silu": lambda x: x * sigmoid(x),
    "softmax": softmax, "log_softmax": lambda x, axis=-1: np.log(softmax(x, axis)),
    "logsumexp": lambda x, axis=None, keepdims=False: np.log(np.exp(x).sum(axis=axis, keepdims=keepdims)),
    "maximum": np.maximum, "minimum": np.minimum, "clip": np.clip, "where": np.where, "sum": np.sum,
        "mean": np.mean,
    "prod": np.prod, "max": np.max, "min": np.min, "var": np.var, "std": np.std,
    "norm": lambda x, axis=None, keepdims=False: np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "dot": np.dot, "outer": np.outer, "trace": np.trace, "transpose": np.transpose, "reshape": np.reshape,
    "concatenate": np.concatenate, "stack": np.stack, "cumsum": np.cumsum, "pi": np.pi,
}  # fmt: skip

TEXTS = (
    [f"{name}(u)" for name in "exp log log1p expm1 sqrt abs sign sin cos tan asin acos atan sinh cosh tanh "
                              "erf gamma".split()]
    + [f"{name}(v)" for name in "lgamma sigmoid softplus relu leaky_relu elu gelu silu softmax "
                                "log_softmax".split()]
    + [f"{name}(v)" for name in "sum mean prod max min var std norm logsumexp cumsum".split()]
    + [f"{name}(X, axis={axis})" for axis in (0, 1) for name in "sum mean prod max min var std norm "
                                                                "logsumexp".split()]
    + ["softmax(X, axis=-1)", "sum(X, axis=-1)", "max(X, -1)", "mean(X, 0)"]
    + [f"{name}(CUBE, axis=(0, 2), keepdims=True)" for name in "sum mean var norm logsumexp max".split()]
    + [
        "v + u", "v - u * s", "v / u", "u ** v", "v ** 2", "v ** 3", "u ** 0.5", "u ** -2", "u ** (1/3)",
            "2 ** v", "-v",
        "+v", "X + v", "X * X[0]", "X[:, :1] - X", "X[:, 0]", "X[1]", "X[-1, 2]", "X[1:3, ::2]", "X[::-1]",
            "v[::-1]",
        "X[3:0:-2, 1:]", "X.T", "transpose(CUBE)", "transpose(CUBE, (2, 0, 1))",
        "reshape(X, (3, 4))", "reshape(X, (2, -1))", "reshape(CUBE, (4, 6))", "reshape(X.T, (12,))",
            "reshape(X, -1)",
        "X @ W", "X @ v", "v @ W", "v @ u", "CUBE @ X", "dot(X, W)", "dot(v, u)", "outer(v, u)",
        "trace(SQUARE)", "trace(SQUARE @ SQUARE.T)", "concatenate([v, u])", "concatenate([X, X * 2], axis=1)",
        "stack([v, u])", "stack([v, u], axis=1)", "cumsum(X, axis=0)", "cumsum(X, axis=1)", "maximum(v, u)",
        "minimum(v, 0.1)", "clip(v, -0.5, 0.5)", "atan2(v, u)", "where(v > 0, v, u)", "where(v <= u, 1, X)",
        "where((v > -1) & (v < 1), v, 0)", "where((v < -1) | (v > 1), v, 0)", "where(~(v > 0), v, 2)",
        "leaky_relu(v, 0.2)", "leaky_relu(v, negative_slope=0.3)", "elu(v, alpha=0.5)", "var(v, ddof=1)",
            "sum(X)",
        "2 * pi * v", "asinh(v)", "acosh(2 + u)", "atanh(u)", "log2(u)", "log10(u)", "erfc(v)",
        "X[:, None]", "v[None, ::-1]",
        "sin(pi) * v", "(sqrt(2)**2 - 2) * v",
        "(0.1 + 0.2 - 0.3) * v", "v * (2 / 3)",
        "sqrt(2 * pi) * v", "v * 1e-3 + 1_000", "softmax(X, axis=0)", "log_softmax(X, axis=1)",
    ]
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_text_means_what_numpy_means(text: str, dtype: str) -> None:
    tensors = {"X": X, "W": W, "SQUARE": SQUARE, "CUBE": CUBE, "v": v, "u": u, "s": np.array(s)}
    used = {name: value for name, value in tensors.items() if name in _names(text)}
    expected = eval(text, {**NUMPY, **tensors})  # our own table, no user's text
    problem = parse(f"q = {text}\nloss = sum(sin(q))", parameters=used)
    assert problem.graph.shapes["q"] == np.shape(expected)
    report = check(problem, dtype=dtype)
    assert report.ok, [finding for finding in report.findings if not finding.verdict.passes]
    assert math.isclose(forward(problem), np.sum(np.sin(expected)), rel_tol=1e-12, abs_tol=1e-13)


INDEXED = {
    "y[i] = sum(X[i,k] * v[k], k)": X @ v,
    "y[i,j] = sum(X[i,k] * W[k,j], k)": X @ W,
    "y[j,i] = sum(X[i,k] * W[k,j], k)": (X @ W).T,
    "y[i,j] = v[i] * u[j]": np.outer(v, u),
    "y[j,i] = v[i] * u[j]": np.outer(u, v),
    "y[i] = X[i,0] + X[i,-1]": X[:, 0] + X[:, -1],
    "y[i] = sum(v[i+k] * h[k], k)": np.array([v[0] * 0.5 - v[1], v[1] * 0.5 - v[2]]),
    "y[i] = v[i] - v[i-1]": v - np.concatenate([[0], v[:2]]),
    "y[i:5] = v[i-1]": np.concatenate([[0], v, [0]]),
    "y[i] = sum(v[2*i+k] * h[k], k)": np.array([v[0] * 0.5 - v[1]]),
    "y = sum(SQUARE[i,i], i)": np.trace(SQUARE),
    "y = sum(X[i,j]**2, i, j)": (X**2).sum(),
    "y[i] = max(X[i,k], k)": X.max(axis=1),
    "y[i] = mean(X[i,k] * s, k)": X.mean(axis=1) * s,
    "y[k] = prod(X[i,k], i)": X.prod(axis=0),
    "y = sum(s * v[i] + 1, i)": (s * v + 1).sum(),
    "y[i] = norm(X[i,k], k)": np.sqrt((X**2).sum(axis=1)),
    "y[i] = var(X[i,k], k)": X.var(axis=1),
    "y[i] = exp(v[i]) / sum(exp(v[k]), k)": softmax(v),
    "y[i] = tanh(sum(SQUARE[i,j] * v[j], j) + u[i])": np.tanh(SQUARE @ v + u),
    "y[i] = v[2-i]": v[::-1],
    "y[i] = v[1-i] * v[i]": np.array([v[1] * v[0], v[0] * v[1], 0.0]),
}


@pytest.mark.parametrize("text", INDEXED)
def test_index_notation_means_what_it_says(text: str) -> None:
    tensors = {"X": X, "W": W, "SQUARE": SQUARE, "v": v, "u": u, "h": np.array([0.5, -1.0]), "s": np.array(s)}
    used = {name: value for name, value in tensors.items() if name in _names(text)}
    problem = parse(f"{text}\nloss = sum(sin(y))", parameters=used)
    assert problem.graph.shapes["y"] == np.shape(INDEXED[text])
    assert check(problem).ok
    assert math.isclose(forward(problem), np.sum(np.sin(INDEXED[text])), rel_tol=1e-12, abs_tol=1e-14)


def test_every_function_of_the_language_is_tried() -> None:
    tried = " ".join((*TEXTS, *INDEXED))
    assert [name for name in FUNCTIONS if f"{name}(" not in tried] == []


def test_a_name_is_a_variable_unless_it_is_called() -> None:
    names = "beta gamma I E S N Q lambda_ sum exp erf zeta re".split()
    text = "loss = " + " * ".join(names) + " + gamma(beta) + exp(sum) + sum(exp)"
    report = check(parse(text, parameters=dict.fromkeys(names, 1.25)))
    assert report.ok


def test_pi_can_be_a_variable() -> None:
    assert "∂loss/∂pi = 2*pi" in check(parse("loss = pi**2", parameters={"pi": 3.0})).to_text()


def _names(text: str) -> set[str]:
    import re

    return set(re.findall(r"[A-Za-z_]\w*", text))


def forward(problem: object) -> float:
    """The exact value of the output."""
    from gradproof.language.files import Problem
    from gradproof.proof.arithmetic import exact
    from gradproof.proof.balls import balls, precision
    from gradproof.proof.walk import evaluate

    assert isinstance(problem, Problem)
    with precision(128):
        leaves = {name: np.asarray(balls(value), object) for name, value in problem.point.items()}
        return float(evaluate(problem.graph.nodes, leaves, exact())[problem.graph.output.name][()])
