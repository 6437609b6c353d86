"""JAX forward, and its gradients again: each equation's tangent and each rule beside the calculus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradproof import InputError, Verdict
from gradproof.jax import check_function, check_grads

X = np.array([0.3, 1.2, -0.7])


def with_jvp(times: float) -> Callable[[Any], Any]:
    @jax.custom_jvp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    @sine.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        return sine(primals[0]), times * jnp.cos(primals[0]) * tangents[0]

    return sine


def with_vjp(cut: bool) -> Callable[[Any], Any]:
    @jax.custom_vjp
    def cube(x: Any) -> Any:
        return x**3

    def pull(x: Any, g: Any) -> Any:
        return (3 * g * (jax.lax.stop_gradient(x) if cut else x) ** 2,)

    cube.defvjp(lambda x: (x**3, x), pull)
    return cube


def test_a_wrong_jvp_is_refuted_where_it_is_wrong() -> None:
    report = check_function(lambda x: jnp.exp(with_jvp(2.0)(x)), X, mode="forward")
    assert {f.node for f in report.findings if not f.verdict.passes} == {"sine"}, report.to_text()
    assert "a factor of 2" in report.to_text()
    twin = check_function(lambda x: jnp.exp(with_jvp(1.0)(x)), X, mode="both")
    assert twin.ok and twin.exercised == ("reverse mode, first order", "forward mode"), twin.to_text()


def test_a_gradient_that_is_cut_is_refuted_in_second_order() -> None:
    assert check_function(with_vjp(True), X).ok
    assert check_function(with_vjp(True), X, order=2).verdict is Verdict.WRONG
    assert check_function(with_vjp(False), X, order=3).ok


def test_a_stop_has_no_tangent() -> None:
    report = check_function(lambda x: x * jax.lax.stop_gradient(x), X, mode="forward")
    assert report.verdict is Verdict.WRONG
    assert check_function(lambda x: x * jax.lax.stop_gradient(x), X, mode="forward", stops="trust").ok


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_other_dtypes_have_tangents(dtype: Any) -> None:
    x = jnp.asarray(X, dtype)
    assert check_function(lambda x: jnp.sum(jnp.tanh(x) * x), x, mode="forward").ok
    assert check_function(with_jvp(1.1), x, mode="forward").verdict is Verdict.WRONG


def test_check_grads_is_a_drop_in() -> None:
    check_grads(lambda x: jnp.sin(x) ** 2, (X,), 2)
    check_grads(with_vjp(False), (X,), order=2, modes=["rev"])
    with pytest.raises(AssertionError, match="sine"):
        check_grads(with_jvp(2.0), (X,), 1, modes=("fwd",), atol=1.0)
    with pytest.raises(InputError, match="modes"):
        check_grads(jnp.sin, (X,), 1, modes=("forward",))
    for option in ({"mode": "fwd"}, {"order": 0}):
        with pytest.raises(InputError):
            check_function(jnp.sin, X, **option)  # type: ignore[arg-type]
