"""JAX functions as they are: right ones pass, wrong rules are refuted at their node, and what is not covered
is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import gradproof
from gradproof import Report, Verdict

jax = pytest.importorskip("jax")
jnp = jax.numpy
lax, nn = jax.lax, jax.nn

check_function = pytest.importorskip("gradproof.jax").check_function

Func = Callable[..., Any]
BOTH = ("float64", "float32")


@pytest.fixture(autouse=True, scope="module")
def quick_compilation() -> Iterator[None]:
    """Every primitive is compiled by itself; nothing is gained by optimizing it."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def point(*shape: int, seed: int = 0, low: float | None = None) -> np.ndarray:
    random = np.random.default_rng(seed + len(shape))
    return random.standard_normal(shape) if low is None else low + random.random(shape)


def blamed(report: Report) -> list[str]:
    return [f.node for f in report.findings if not f.verdict.passes and not f.inherited]


def custom_vjp(primal: Func, backward: Func) -> Func:
    """A custom function named `rule`; the backward gets the cotangent, then the inputs."""

    @jax.custom_vjp
    def rule(*xs: Any) -> Any:
        return primal(*xs)

    rule.defvjp(lambda *xs: (primal(*xs), xs), lambda saved, g: backward(g, *saved))
    return rule


def custom_jvp(primal: Func, forward: Func) -> Func:
    """A custom function of one argument named `rule`; the jvp gets the tangent, then the input."""

    @jax.custom_jvp
    def rule(x: Any) -> Any:
        return primal(x)

    rule.defjvp(lambda xs, ts: (primal(*xs), forward(ts[0], xs[0])))
    return rule


# Functions that are right


X, Y, V, W = point(2, 3), point(2, 3, seed=1), point(3), point(3, 3)
P = point(3, seed=2, low=0.5)


def mlp(params: dict[str, Any], x: Any) -> Any:
    return jnp.mean(jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"])


MLP = {"w1": W, "b1": V, "w2": point(3, 2)}


def cross_entropy(logits: Any) -> Any:
    return -jnp.sum(nn.log_softmax(logits)[jnp.arange(2), jnp.array([2, 0])])


def layer_norm(x: Any, scale: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-3) * scale


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.where(jnp.tril(jnp.ones((2, 2), bool)), q @ k.T / np.sqrt(3.0), -jnp.inf)
    return nn.softmax(scores, axis=-1) @ v


def recurrent(x: Any, w: Any) -> Any:
    def turn(state: Any, row: Any) -> Any:
        state = jnp.tanh(state @ w + row)
        return state, state.sum()

    last, sums = lax.scan(turn, jnp.zeros(3, x.dtype), x)
    return last @ last + sums.sum()


RIGHT: dict[str, tuple[Func, tuple[Any, ...]]] = {
    "mlp": (mlp, (MLP, X)),
    "softmax cross entropy": (cross_entropy, (X,)),
    "layer norm": (layer_norm, (X, V)),
    "attention, masked": (attention, (X, Y, point(2, 3, seed=5))),
    "logsumexp": (lambda x: nn.logsumexp(x, axis=1), (X,)),
    "softmax": (nn.softmax, (X,)),
    "indexing": (lambda x: x[jnp.array([1, 0, 1]), 1] * x[0, ::-1], (X,)),
    "dynamic index": (lambda x: lax.dynamic_index_in_dim(x, 1, keepdims=False) * 3, (X,)),
    "set and add at": (lambda x, v: x.at[0].set(v).at[jnp.array([1, 1]), 0].add(v[:2]) ** 2, (X, V)),
    "recurrent, by scan": (recurrent, (X, W)),
    "scan backwards": (lambda x: lax.scan(lambda c, r: (c * r, c), 1.0 + 0 * x[0], x, reverse=True), (V,)),
    "fori_loop": (lambda x: lax.fori_loop(0, 3, lambda n, c: jnp.sin(c) * (n + 1), x), (V,)),
    "jit inside": (lambda x: jax.jit(lambda z: jnp.sin(z) * z)(x).sum() * x, (V,)),
    "checkpoint": (lambda x: jax.checkpoint(lambda z: jnp.sin(jnp.cos(z)))(x).sum(), (V,)),
    "cond": (lambda x: lax.cond(x[0] > 0, lambda z: z * 2, lambda z: jnp.sin(z), x), (V,)),
    "vmap": (jax.vmap(lambda a, b: jnp.dot(a, b) ** 2), (X, Y)),
    "relu": (lambda x: nn.relu(x), (X,)),
    "relu at its kink": (lambda x: nn.relu(x), (np.array([0.0, 1.0]),)),
    "silu, gelu and softplus": (lambda x: nn.silu(x) + nn.gelu(x) + nn.softplus(x), (V,)),
    "the largest, a tie": (lambda x: jnp.max(x), (np.array([2.0, 1.0, 2.0]),)),
    "products and sums along": (lambda x: jnp.cumsum(jnp.cumprod(x, axis=1), axis=0), (X,)),
    "prod": (lambda x: jnp.prod(x, axis=1), (X,)),
    "sort": (lambda x: jnp.sort(x, axis=1) * jnp.arange(3), (X,)),
    "concatenate, pad and flip": (lambda x: jnp.pad(jnp.concatenate([x, x[::-1] ** 2]), 1,
        constant_values=2), (X,)),
    "einsum": (lambda x, w: jnp.einsum("ij,jk,ik->k", x, w, x), (X, W)),
    "convolution": (lambda x, w: lax.conv_general_dilated(x, w, (2,), "SAME"),
        (point(1, 2, 5), point(3, 2, 3))),
    "max pooling": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"), (V,)),
    "powers": (lambda x: x**3 + x**-2 + x**1.5 + x**x + jnp.exp2(x) + lax.rsqrt(x) + jnp.cbrt(x), (P,)),
    "special functions": (
        lambda x: lax.erf(x) + lax.erf_inv(x / 2) + lax.lgamma(x) + lax.digamma(x) + jnp.log1p(x), (P,)
    ),
    "softplus far out": (lambda x: nn.softplus(x) + nn.log_sigmoid(3 * x), (point(60, seed=3) * 12,)),
    "logaddexp": (lambda x: jnp.logaddexp(x, x[::-1] - 40), (point(30, seed=4) * 20,)),
    "numbers that are flushed to 0": (lambda x: jnp.exp(x) * 3, (np.array([-87.5, -88.5, -95.0, -103.0]),)),
    "tails of the error function": (lambda x: lax.erfc(x), (np.array([-2.0, 0.1, 3.0, 6.5, 8.9]),)),
    "lgamma about its zeros": (lambda x: lax.lgamma(x), (np.array([0.9, 0.999, 1.2, 1.9, 2.0005, 2.2]),)),
    "tiled and rolled": (lambda x: jnp.roll(jnp.repeat(jnp.tile(x, 2), 2), 1) * np.arange(12), (V,)),
    "grouped and dilated convolution": (
        lambda x, w: lax.conv_general_dilated(x, w, (1,), "SAME", rhs_dilation=(2,), feature_group_count=2),
        (point(1, 4, 6), point(4, 2, 3))),
    "sums and the smallest of windows": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME")
        * lax.reduce_window(x, jnp.inf, lax.min, (2,), (1,), "SAME"), (V,)),
    "the largest two": (lambda x: lax.top_k(x, 2)[0] * 3, (V,)),
    "variance and clip": (lambda x: jnp.var(x, axis=0) * jnp.clip(x, -0.5, 0.5) + jnp.std(x), (X,)),
    "two outputs, an integer beside": (lambda x: {"a": x * x[0], "b": jnp.argmax(x), "c": [x.sum()]}, (V,)),
    "a custom vjp": (custom_vjp(lambda x, y: jnp.sin(x) * y, lambda g, x,
        y: (g * jnp.cos(x) * y, g * jnp.sin(x))), (X, Y)),
    "a custom jvp": (custom_jvp(lambda x: x**3, lambda t, x: 3 * x**2 * t), (V,)),
    "a custom vjp used twice": (
        lambda x: (lambda f: f(x) + f(f(x)))(custom_vjp(jnp.tanh, lambda g,
            x: (g * (1 - jnp.tanh(x) ** 2),))), (V,)),
    "a clipped cotangent that is not clipped": (custom_vjp(lambda x: x * 2, lambda g,
        x: (jnp.clip(g * 2, -99, 99),)), (V,)),
}  # fmt: skip


def cast(args: Any, dtype: Any) -> Any:
    return jax.tree_util.tree_map(lambda leaf: np.asarray(leaf).astype(dtype), args)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_function_passes(name: str, dtype: str) -> None:
    func, args = RIGHT[name]
    report = check_function(func, *cast(args, dtype))
    assert report.ok, report.to_text()
    assert (report.engine, report.dtype) == ("jax", dtype)
    assert {f.kind for f in report.findings} == {"forward", "local", "gradient"}


def test_functions_that_xla_computes_in_bfloat16_step_by_step() -> None:
    x = jnp.asarray(np.linspace(-3, 3, 60), jnp.bfloat16)
    assert check_function(
        lambda x: nn.sigmoid(x) + jnp.arcsinh(x) + jnp.arcsin(x / 4) + jnp.arctanh(x / 4), x
    ).ok


def test_a_rule_called_by_itself_is_told_with_the_line_that_defines_it() -> None:
    report = check_function(WRONG["sign"][0], V)
    (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert wrong.place.startswith("tests/jax/test_jax_functions.py:")


@pytest.mark.parametrize(
    ("name", "dtype"), [("mlp", jnp.bfloat16), ("a custom vjp", jnp.bfloat16), ("layer norm", np.float16)]
)
def test_16_bits_pass(name: str, dtype: Any) -> None:
    func, args = RIGHT[name]
    report = check_function(func, *cast(args, dtype))
    assert report.ok, report.to_text()
    assert report.dtype == np.dtype(dtype).name


# Rules that are wrong

TANH = jnp.tanh


def slope(x: Any) -> Any:
    return 1 - jnp.tanh(x) ** 2


def norm_rule(factor: float) -> Func:
    return lambda g, x: (g * x / jnp.sqrt(jnp.sum(x * x)) * factor,)


WRONG: dict[str, tuple[Func, tuple[Any, ...]]] = {
    "sign": (custom_vjp(TANH, lambda g, x: (-g * slope(x),)), (V,)),
    "factor 1 + 1e-6": (custom_vjp(TANH, lambda g, x: (g * slope(x) * (1 + 1e-6),)), (V,)),
    "transposed": (custom_vjp(lambda x, w: x @ w, lambda g, x, w: (g @ w, x.T @ g)),
        (point(3, 3, seed=4), W)),
    "the sum over a broadcast axis is a mean": (
        custom_vjp(lambda x, b: x + b, lambda g, x, b: (g, g.mean(0))), (X, V)),
    "only one row of a broadcast axis": (custom_vjp(lambda x, b: x * b, lambda g, x, b: (g * b, (g * x)[0])),
        (X, V)),
    "one use lost": (custom_vjp(lambda x: x * jnp.sin(x), lambda g, x: (g * jnp.sin(x),)), (V,)),
    "wrong residual": (custom_vjp(lambda x: jnp.exp(2 * x), lambda g, x: (g * 2 * jnp.exp(x),)), (V,)),
    "no gradient for one argument": (custom_vjp(lambda x, y: x * y, lambda g, x,
        y: (g * y, jnp.zeros_like(y))), (X, Y)),
    "the cotangent ignored, of a loss": (custom_vjp(lambda x: jnp.sum(x**2), lambda g, x: (2 * x,)), (V,)),
    "a factor in the norm": (custom_vjp(lambda x: jnp.sqrt(jnp.sum(x * x)), norm_rule(0.5)), (V,)),
    "softmax as if it were elementwise": (
        custom_vjp(nn.softmax, lambda g, x: (g * nn.softmax(x) * (1 - nn.softmax(x)),)), (V,)),
    "straight through": (custom_vjp(jnp.round, lambda g, x: (g,)), (V,)),
    "a clipped cotangent": (custom_vjp(lambda x: x * 2, lambda g, x: (jnp.clip(g * 2, -0.5, 0.5),)), (V,)),
    "arguments swapped": (custom_vjp(lambda x, y: x / y, lambda g, x, y: (-g * x / y**2, g / y)), (X, Y)),
    "jvp, sign": (custom_jvp(jnp.cos, lambda t, x: jnp.sin(x) * t), (V,)),
    "jvp, factor 1 + 1e-6": (custom_jvp(lambda x: x**2, lambda t, x: 2 * x * t * (1 + 1e-6)), (V,)),
    "jvp, half": (custom_jvp(lambda x: x**3, lambda t, x: 1.5 * x**2 * t), (V,)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for n, name in enumerate(WRONG) for dtype in BOTH if dtype == "float64" or n % 3 == 1],
)
def test_a_wrong_rule_is_refuted_at_its_node(name: str, dtype: str) -> None:
    rule, args = WRONG[name]
    # Amid other nodes, which are right.
    first, *others = cast(args, dtype)
    report = check_function(lambda x, *rest: jnp.sum(jnp.sin(rule(x, *rest)) * 1.5), first, *others)
    assert report.verdict is Verdict.WRONG
    assert set(blamed(report)) == {"rule"}, report.to_text()


def test_a_wrong_rule_is_told_with_its_line_and_its_formula() -> None:
    rule = WRONG["sign"][0]
    report = check_function(lambda x: jnp.sum(rule(x)), V)
    (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert (wrong.kind, wrong.node, wrong.wrt) == ("local", "rule", "x")
    assert (
        "test_jax_functions.py:" in wrong.place
        and "δ(i,j)" in wrong.formula
        and "the sign is wrong" in wrong.note
    )
    (inherited,) = [f for f in report.findings if f.inherited]
    assert (inherited.node, inherited.note) == ("x", "inherited from rule")
    assert "jax's own numbers" in report.to_text() and "WRONG rule" in report.to_text()


def test_a_fault_is_found_in_its_turn_of_a_scan() -> None:
    rule = WRONG["factor 1 + 1e-6"][0]

    def func(x: Any) -> Any:
        return lax.scan(lambda c, r: (rule(c + r), None), jnp.zeros((), x.dtype), x)[0]

    assert blamed(check_function(func, V)) == ["scan[0]: rule", "scan[1]: rule", "scan[2]: rule"]


def test_a_forward_of_a_rule_that_is_not_its_primal_is_wrong() -> None:
    @jax.custom_vjp
    def rule(x: Any) -> Any:
        return jnp.sin(x)

    rule.defvjp(lambda x: (jnp.sin(x) * 1.001, x), lambda x, g: (g * jnp.cos(x),))
    report = check_function(lambda x: rule(x).sum(), V)
    assert [(f.kind, f.node) for f in report.findings if f.verdict is Verdict.WRONG] == [("forward", "rule")]


# stop_gradient

STOPS: dict[str, tuple[Func, bool]] = {
    "a factor": (lambda x: jnp.sum(x * lax.stop_gradient(x)), False),
    "a normalizer": (lambda x: jnp.sum(x / lax.stop_gradient(jnp.sum(jnp.exp(x)))), False),
    "part of a sum": (lambda x: jnp.sum(x**2) + 1e-3 * lax.stop_gradient(x)[0], False),
    "in a jitted part": (lambda x: jax.jit(lambda z: lax.stop_gradient(jnp.sin(z)) * z)(x), False),
    "the shift of a log-sum-exp": (
        lambda x: jnp.log(jnp.sum(jnp.exp(x - (m := lax.stop_gradient(jnp.max(x)))))) + m,
        True,
    ),
    "a shift by the mean before a softmax": (lambda x: nn.softmax(x - lax.stop_gradient(x.mean())), True),
    "of a value without a slope": (lambda x: x * lax.stop_gradient(jnp.sign(x)), True),
    "times zero": (lambda x: x + 0 * lax.stop_gradient(x), True),
    "of a constant": (lambda x: x * lax.stop_gradient(jnp.arange(3)), True),
    "not used": (lambda x: (lax.stop_gradient(x), x * 2)[1], True),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, dtype) for n, name in enumerate(STOPS) for dtype in BOTH if dtype == "float64" or n % 4 == 1],
)
def test_a_stop_that_loses_something_is_wrong_at_its_line(name: str, dtype: str) -> None:
    func, right = STOPS[name]
    report = check_function(func, V.astype(dtype))
    assert report.ok is right, report.to_text()
    if not right:
        assert blamed(report) == ["stop_gradient"]
        (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
        assert (
            "test_jax_functions.py:" in wrong.place and "part of the gradient by x is lost here" in wrong.note
        )
        assert [f.node for f in report.findings if f.inherited] == ["x"]
        assert check_function(func, V.astype(dtype), stops="trust").ok


def test_one_of_two_stops_is_to_blame() -> None:
    def func(x: Any) -> Any:
        return nn.softmax(x - lax.stop_gradient(jnp.max(x))) * lax.stop_gradient(x)

    report = check_function(func, V)
    (wrong,) = [f for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert wrong.wrt == "x"


def test_inside_of_a_rule_a_stop_is_an_alias() -> None:
    rule = custom_vjp(lambda x: lax.stop_gradient(x) ** 2, lambda g, x: (2 * x * g,))
    assert check_function(rule, V).ok
    assert not check_function(custom_vjp(lambda x: lax.stop_gradient(x) ** 2, lambda g, x: (0 * g,)), V).ok


def test_compiled_code_that_gives_another_gradient_is_wrong() -> None:
    """The function sees that it is compiled as a whole, by how often it is traced."""
    traced: list[int] = []

    def func(x: Any) -> Any:
        traced.append(1)
        return jnp.sum(x**2) * (1.0 if len(traced) == 1 else 1.01)

    report = check_function(func, V)
    assert report.verdict is Verdict.WRONG and blamed(report) == ["x"]
    assert "compiled as a whole it is off by 0.01 relative" in report.to_text()


def test_kinks_that_cancel() -> None:
    """Every piece keeps a convention at 0, and the whole is smooth there, with a slope of 1/2."""
    report = check_function(lambda x: nn.relu(x) + jnp.log1p(jnp.exp(-jnp.abs(x))), np.array([0.0]))
    assert report.verdict is Verdict.WRONG and "the whole function is smooth" in report.to_text()


# What is told, and what never passes


def test_leaves_have_their_names_and_argnums_chooses() -> None:
    def names(report: Report) -> set[str]:
        return {f.node for f in report.findings if f.kind == "gradient"}

    assert names(check_function(mlp, MLP, X)) == {"params['w1']", "params['b1']", "params['w2']", "x"}
    assert names(check_function(mlp, MLP, X, argnums=1)) == {"x"}
    assert names(check_function(lambda *xs: xs[0] * xs[1], V, V)) == {"xs[0]", "xs[1]"}
    assert names(check_function(lambda x, axis: jnp.sum(x, axis=axis), X, 1)) == {"x"}
    assert names(check_function(lambda x: x * 2, 1.5)) == {"x"}


def test_64_bits_are_on_only_meanwhile() -> None:
    before = jnp.asarray(V).dtype
    assert check_function(lambda x: jnp.sin(x), V).dtype == "float64"
    assert jnp.asarray(V).dtype == before
    with pytest.raises(gradproof.InputError, match="stops='drop'"):
        check_function(lambda x: x, V, stops="drop")
    with pytest.raises(gradproof.InputError, match="argnums=3"):
        check_function(lambda x: x, V, argnums=3)


def raising(*_: Any) -> Any:
    raise ValueError("broken here")


NOT_PASSING: dict[str, tuple[Func, tuple[Any, ...], Verdict, str]] = {
    "the function raises": (raising, (V,), Verdict.FAILED, "ValueError: broken here"),
    "its rule raises": (custom_vjp(jnp.sin, raising), (V,), Verdict.FAILED, "ValueError: broken here"),
    "its rule gives another shape": (custom_vjp(jnp.sin, lambda g, x: (g[:1],)), (V,), Verdict.FAILED, ""),
    "a rule without a pullback": (jax.custom_vjp(jnp.sin), (V,), Verdict.FAILED, ""),
    "nothing to differentiate": (lambda n: n * 2, (3,), Verdict.UNDECIDED, "nothing to differentiate"),
    "no output depends on it": (lambda x: jnp.ones(3), (V,), Verdict.UNDECIDED, "depends on the arguments"),
    "only integers come out": (lambda x: jnp.argmax(x), (V,), Verdict.UNDECIDED, "depends on the arguments"),
    "it branches on a number": (lambda x: x if x[0] > 0 else -x, (V,), Verdict.UNSUPPORTED,
        "branches on a number"),
    "a while loop": (
        lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c * c + 1, x), (V,), Verdict.UNSUPPORTED,
            "while"),
    "a primitive without a formula": (
        lambda x: lax.cumlogsumexp(x), (V,), Verdict.UNSUPPORTED, "cumlogsumexp has no formula"),
    "complex numbers": (lambda x: jnp.cumprod(x + 1j).real, (V,), Verdict.UNSUPPORTED, ""),
    "a callback": (
        lambda x: x * jax.pure_callback(lambda v: np.sin(v), jax.ShapeDtypeStruct((3,), "float32"), x),
        (V.astype("float32"),), Verdict.FAILED, "callback"),
    "no number": (lambda x: jnp.log(x), (np.array([-1.0]),), Verdict.UNDECIDED, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PASSING)
def test_what_cannot_be_judged_is_named_and_does_not_pass(name: str) -> None:
    func, args, verdict, words = NOT_PASSING[name]
    report = check_function(func, *args)
    assert report.verdict is verdict, report.to_text()
    assert any(words in f"{f.node}: {f.note}" for f in report.findings if not f.verdict.passes), (
        report.to_text()
    )


def test_an_argument_that_is_only_moved() -> None:
    assert check_function(lambda x: x.T.reshape(-1), X).ok
    assert check_function(lambda x: x, V).ok
    assert check_function(partial(jnp.add, 1.0), V).ok
