"""Cases that were once judged wrongly, and points where functions are at their trickiest: a table that only
grows."""

from __future__ import annotations

import numpy as np
import pytest

from gradproof import check, explain, parse
from gradproof.proof.arithmetic import exact
from gradproof.proof.balls import balls, precision
from gradproof.proof.slopes import fused
from gradproof.proof.walk import evaluate

RNG = np.random.default_rng(11)
ZEROS = [0.0, 0.0]

# id: (graph, parameters, dtype, verdict, the node to blame or "")
CASES = {
    # Right, and once called wrong.
    "a reshape across axes": (
        "y = reshape(x, (35, 4))*1\nloss = sum(y*y)", {"x": np.arange(140.0).reshape(10, 2, 7)}, "float64",
            "exact", "",
    ),
    "cumsum of a slice": ("loss = sum(cumsum(x[1:]))", {"x": [1.0, 2.0, 3.0]}, "float64", "exact", ""),
    "a factor no format holds": ("y = 0.1*x\nloss = sum(y)", {"x": RNG.normal(size=40)}, "float64", "passes",
        ""),
    "a number over a tensor": ("y = 3/x\nloss = sum(y)", {"x": RNG.uniform(0.5, 2, 400)}, "float64",
        "passes", ""),
    "a reciprocal": ("y = 1/x\nloss = sum(y)", {"x": RNG.uniform(0.5, 2, 400)}, "float32", "passes", ""),
    "a quotient whose divisor squared overflows": ("loss = a/b", {"a": 1e25, "b": 1e20}, "float32", "passes",
        ""),
    "a power of a tenth": ("y = 0.1**x\nloss = sum(y)", {"x": RNG.uniform(5, 20, 200)}, "float64", "passes",
        ""),
    "acosh near 1": ("y = acosh(x)\nloss = sum(y)", {"x": 1 + RNG.uniform(1e-4, 1e-2, 200)}, "float32",
        "passes", ""),
    "sigmoid far out": ("loss = sigmoid(x)", {"x": -89.5}, "float32", "passes", ""),
    "gamma in bfloat16": ("y = gamma(x)\nloss = sum(y)", {"x": RNG.uniform(0.5, 9, 100)}, "bfloat16",
        "passes", ""),
    "cubes in bfloat16": ("y = x**3\nloss = sum(y)", {"x": RNG.normal(size=400)}, "bfloat16", "passes", ""),
    "a third": ("y = x*(1/3)\nloss = sum(y)", {"x": RNG.normal(size=40)}, "float32", "passes", ""),
    "a leaky slope": ("y = leaky_relu(x)\nloss = sum(y)", {"x": RNG.normal(size=40)}, "float32", "passes",
        ""),
    "parts added in any order": (
        "a = tanh(x) - log1p(0.3 + abs(x))\nb = x*1\nloss = sum(b*b) + sum(a*0.001)",
            {"x": RNG.normal(size=50)},
        "float64", "passes", "",
    ),
    "the sine of pi": ("loss = sin(pi)*x", {"x": 1.0}, "float64", "rounding", ""),
    "constants that cancel": ("loss = (0.1 + 0.2 - 0.3)*x", {"x": 1.0}, "float64", "passes", ""),
    "a square root taken apart": ("loss = (sqrt(2)**2 - 2)*x", {"x": 1.0}, "float64", "rounding", ""),
    "a mask": ("m = where(x > 0, 1, 0)\nloss = m*x", {"x": 2.0}, "float64", "exact", ""),
    "a norm of a scalar": ("loss = norm(x)", {"x": -2.0}, "float64", "exact", ""),
    "three conditions": ("loss = where(x > 0 and x < 1 and x < 2, x, -x)", {"x": 0.5}, "float64", "exact",
        ""),
    "a constant condition": ("loss = where(not (1 < 2), x, -x)", {"x": 0.5}, "float64", "exact", ""),
    "a power of 0 by its exponent": ("loss = x**y", {"x": 0.0, "y": 2.0}, "float64", "passes", ""),
    "an integer beyond 64 bits": ("loss = x*2**70", {"x": 0.5}, "float64", "exact", ""),
    "a clip to a tensor": ("loss = sum(clip(x, -1, y))", {"x": 0.5, "y": [0.3, 2.0]}, "float64", "exact", ""),
    "huge logits in bfloat16": ("loss = logsumexp(x)", {"x": [992.0, 996.0, 1000.0]}, "bfloat16", "passes",
        ""),
    "huge logits": ("loss = logsumexp(x)", {"x": [1000.0, 1001.0]}, "float32", "passes", ""),
    "a saturated softmax": ("loss = sum(softmax(x)**2)", {"x": [1000.0, 0.0, -3.0]}, "float32", "passes", ""),
    "a saturated tanh": ("loss = sum(tanh(x))", {"x": [20.0, -90.0]}, "float32", "passes", ""),
    "gelu in float32": ("loss = sum(gelu(x))", {"x": RNG.normal(size=200)}, "float32", "passes", ""),
    "a long sum": ("loss = sum(x)", {"x": RNG.normal(size=20_000)}, "float32", "passes", ""),
    "a variance with a large mean": ("loss = var(x)", {"x": RNG.normal(size=30) + 1e4}, "float32", "passes",
        ""),
    "subnormal numbers": ("loss = sum(x*x)", {"x": [1e-30, 1e-23, 1e-20]}, "float32", "passes", ""),
    "an ill-conditioned quotient": ("loss = (1 - cos(x))/x**2", {"x": 1e-7}, "float64", "passes", ""),
    "a product with a zero": ("loss = prod(x)", {"x": [0.0, 3.0, 2.0]}, "float64", "exact", ""),
    "relu below 0, under a root": ("loss = sqrt(relu(x) + 1)", {"x": -1.0}, "float64", "exact", ""),
    # Kinks.
    "relu at 0": ("loss = relu(x)", {"x": 0.0}, "float64", "kink", "loss"),
    "a tie": ("loss = max(x)", {"x": [1.0, 1.0, 0.0]}, "float64", "kink", "loss"),
    "the norm at 0": ("loss = norm(x)", {"x": ZEROS}, "float64", "kink", "loss"),
    "the deviation of equal numbers": ("loss = std(x)", {"x": [2.0, 2.0, 2.0]}, "float64", "kink", "loss"),
    "relu written as a mask": ("loss = where(x > 0, 1, 0)*x", {"x": 0.0}, "float64", "kink", "loss"),
    "a maximum with itself": ("loss = maximum(x, x)", {"x": 1.0}, "float64", "exact", ""),
    "elu is smooth": ("loss = elu(x)", {"x": 0.0}, "float64", "exact", ""),
    "Huber is smooth": ("loss = where(x <= 1, x**2/2, x - 1/2)", {"x": 1.0}, "float64", "exact", ""),
    # Wrong, though every operation is torch's own.
    "softplus from relu and abs": ("loss = relu(x) + log1p(exp(-abs(x)))", {"x": 0.0}, "float64", "wrong",
        "loss"),
    "the same over three lines": (
        "a = relu(x)\nb = log1p(exp(-abs(x)))\nloss = a + b", {"x": 0.0}, "float64", "wrong", "x",
    ),
    "the identity from relus": ("a = relu(x)\nb = relu(-x)\nloss = a - b", {"x": 0.0}, "float64", "wrong",
        "x"),
    "the where trap": ("loss = where(x > 0, sqrt(x), 0)", {"x": -1.0}, "float64", "wrong", "loss"),
    "a constant in place of a factor": ("loss = where(x == 0, 1, 0)*x", {"x": 0.0}, "float64", "wrong",
        "loss"),
    "a factor taken away at one point": ("loss = where(x == 0, 0, 1)*x", {"x": 0.0}, "float64", "wrong",
        "loss"),
    "a logistic that overflows": ("loss = 1/(1 + exp(-x))", {"x": -100.0}, "float32", "wrong", "loss"),
    # No derivative, or no value.
    "a root at 0": ("loss = sqrt(x)", {"x": 0.0}, "float64", "undecided", "loss"),
    "a logarithm of a negative": ("f = x - 1\nloss = log(f)", {"x": 0.5}, "float64", "undecided", "loss"),
    "0/0": ("loss = x/x", {"x": 0.0}, "float64", "undecided", "loss"),
    "a jump": ("loss = sign(x)**2", {"x": 0.0}, "float64", "undecided", "loss"),
    "a root at 0 among others": ("root = sqrt(x)\nloss = sum(root)", {"x": [0.0, 4.0]}, "float64",
        "undecided", "root"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_case_gets_its_verdict(case: str) -> None:
    text, parameters, dtype, verdict, blamed = CASES[case]
    report = check(parse(text, parameters=parameters), dtype=dtype)
    bad = [f for f in report.findings if not f.verdict.passes]
    assert report.verdict.passes if verdict == "passes" else report.verdict == verdict, bad
    if blamed:
        assert {f.node for f in report.findings if f.verdict == verdict and not f.inherited} == {blamed}
    for finding in report.findings:
        assert finding.verdict.passes or finding.note or finding.exact is not None


def test_a_singular_point_is_named_with_its_operation() -> None:
    report = check(parse("f = x - 1\nloss = log(f)", parameters={"x": 0.5}))
    assert any("log(f) has no value where its operand is -0.5" in finding.note for finding in report.findings)


COMPOSED = {
    "a reshape of a concatenation": "loss = sum(reshape(concatenate([x, 2*x]), (3, 2))**2)",
    "a running sum of a shifted value": "loss = mean(cumsum(3 + x))",
    "branches in branches": "loss = sum(leaky_relu(elu(x)))",
    "a sign of a root": "loss = sum(sign(sqrt(abs(x) + 1))*x)",
    "a huge constant": "loss = sum(x)*exp(10**9*log(2))/exp(10**9*log(2))",
    "a tower": "loss = sum(x" + "**1.01" * 40 + ")",
    "eight axes": "loss = sum(reshape(x[:2], (1, 1, 1, 1, 1, 1, 2, 1))**2)",
}


@pytest.mark.parametrize("case", COMPOSED)
def test_what_people_read_is_what_is_computed(case: str) -> None:
    problem = parse(COMPOSED[case], parameters={"x": [1.5, 0.25, 2.0]})
    shown = explain(problem)
    assert "nan" not in shown
    assert "zoo" not in shown
    with precision(128):
        leaves = {"x": np.asarray(balls(problem.point["x"]), object)}
        composed = fused(problem.graph)
        values = [evaluate(graph.nodes, leaves, exact())["loss"][()] for graph in (problem.graph, composed)]
    assert values[0].overlaps(values[1])


def test_what_leaves_the_dtype_is_named() -> None:
    notes = {
        "overflow": ("loss = exp(x)", 100.0, "float32"),
        "beyond float16's largest": ("loss = x**2", 300.0, "float16"),
        "underflow": ("loss = exp(-x)", 200.0, "float32"),
        "NaN": ("loss = exp(x)/exp(x)", 100.0, "float32"),
    }
    for words, (text, x, dtype) in notes.items():
        report = check(parse(text, parameters={"x": x}), dtype=dtype)
        assert any(words in finding.note for finding in report.findings), words


def test_a_hundred_lines_cost_no_more_each_than_ten() -> None:
    """Counted in calls of the calculus, not in seconds: each line is differentiated once."""
    from gradproof.proof.slopes import partials

    def misses(lines: int) -> int:
        partials.cache_clear()
        text = "\n".join(f"x{n + 1} = sin(x{n})*w + {n}" for n in range(lines))
        check(parse(f"{text}\nloss = x{lines}**2", parameters={"x0": 0.5, "w": 1.1}))
        return partials.cache_info().misses

    assert misses(100) <= 14 * misses(10)
