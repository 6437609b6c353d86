"""Complex numbers in JAX: pairs of reals, with the cotangent dL/dx + i dL/dy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradproof import Verdict
from gradproof.jax import check_function

RANDOM = np.random.default_rng(0)
Z = RANDOM.standard_normal(5) + 1j * RANDOM.standard_normal(5)
X = RANDOM.standard_normal(8)
A = RANDOM.standard_normal((3, 4)) + 1j * RANDOM.standard_normal((3, 4))

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "a squared size": (lambda z: jnp.sum(jnp.abs(z) ** 2), Z),
    "products and conjugates": (lambda z: jnp.sum((z * z.conj() * z).real), Z),
    "an exponential": (jnp.exp, Z),
    "a logarithm": (jnp.log, Z),
    "a root": (jnp.sqrt, Z),
    "a reciprocal": (lambda z: 1 / z, Z),
    "a quotient": (lambda z: z / (z + 3), Z),
    "a sine and a cosine": (lambda z: jnp.sin(z) * jnp.cos(z), Z),
    "a hyperbolic tangent": (jnp.tanh, Z),
    "a power": (lambda z: z**3, Z),
    "a power of a fraction": (lambda z: z**1.5, Z),
    "an angle": (jnp.angle, Z),
    "a choice": (lambda z: jnp.where(z.real > 0, z, 2 * z).imag.sum(), Z),
    "parts put together": (lambda x: (jax.lax.complex(x, x**2) ** 2).real.sum(), X),
    "a matrix product": (lambda a: jnp.sum(jnp.abs(a @ a.conj().T)), A),
    "an einsum": (lambda a: jnp.einsum("ij,kj->ik", a, a), A),
    "a stack": (lambda z: jnp.stack([z, z.conj()]).imag, Z),
    "a transform": (lambda x: jnp.fft.fft(x), X),
    "its inverse in two dimensions": (jnp.fft.ifft2, A),
    "a transform of reals": (lambda x: jnp.abs(jnp.fft.rfft(x)), X),
    "of an odd length": (lambda x: jnp.fft.rfft(x[:7]), X),
    "back to reals": (jnp.fft.irfft, Z),
    "back to an odd length": (lambda z: jnp.fft.irfft(z, 9), Z),
    "in two dimensions": (lambda a: jnp.fft.irfft2(jnp.fft.rfft2(a.real) * a[:, :3]), A),
    "a norm": (lambda x: jnp.fft.fft(x, norm="ortho"), X),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_what_jax_differentiates_is_right(name: str, double: bool) -> None:
    function, point = FUNCTIONS[name]
    narrow = point.astype(np.complex64 if np.iscomplexobj(point) else np.float32)
    report = check_function(function, point if double else narrow, mode="both")
    assert report.ok, report.to_text()


def custom(primal: Callable[[Any], Any], backward: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """A rule of its own: `backward` is given the point and JAX's cotangent."""
    function = jax.custom_vjp(primal)
    function.defvjp(lambda z: (primal(z), z), lambda z, g: (backward(z, g),))
    return function


def right_spectrum(x: Any, g: Any) -> Any:
    return jnp.fft.fft(g).real


Rule = Callable[[Any, Any], Any]
# A function, its rule, one that is wrong, a point, and what that looks like.
RULES: dict[str, tuple[Callable[[Any], Any], Rule, Rule, Any, str]] = {
    "a conjugate that is missing": (
        lambda z: z * z, lambda z, g: 2 * z * g, lambda z, g: 2 * z.conj() * g, Z, "conjugate",
    ),
    "a conjugate too many": (
        lambda z: z.conj() * z, lambda z, g: g.conj() * z.conj() + g * z.conj(),
        lambda z, g: g.conj() * z + g * z.conj(), Z, "",
    ),
    "a factor": (jnp.exp, lambda z, g: g * jnp.exp(z), lambda z, g: 1.01 * g * jnp.exp(z), Z, "1.01"),
    "a size": (
        lambda z: jnp.abs(z), lambda z, g: g * z.conj() / jnp.abs(z), lambda z, g: g * z / jnp.abs(z),
        Z, "conjugate",
    ),
    "a transform's size": (
        lambda x: jnp.fft.fft(x), right_spectrum, lambda x, g: jnp.fft.ifft(g).real, X, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_wrong_rule_is_refuted_at_its_node(name: str) -> None:
    primal, right, wrong, point, looks = RULES[name]
    good = check_function(custom(primal, right), point)
    assert good.ok, good.to_text()
    bad = check_function(custom(primal, wrong), point)
    found = [f for f in bad.findings if f.verdict is Verdict.WRONG and not f.inherited]
    assert [f.kind for f in found] == ["local"]
    assert looks in found[0].note


def test_the_report_says_how_parts_are_told() -> None:
    assert "the last index tells the part" in check_function(jnp.abs, Z).to_text()


def test_what_has_no_rule_is_refused_by_name() -> None:
    report = check_function(lambda z: jnp.cumprod(z).real, Z)
    assert report.verdict is Verdict.UNSUPPORTED
    assert any("cumprod: complex numbers" in f.note for f in report.findings)
