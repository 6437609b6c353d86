"""What JAX's primitives do to complex numbers, by their real and imaginary parts: as functions between real
arrays, which are traced and lowered like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import UnsupportedError

Part = Any  # a real array
Number = Any  # a real array, or a pair of them
Pair = tuple[Part, Part]
Params = Mapping[str, Any]
Bind = Callable[[Sequence[Any]], Any]  # the primitive itself, of real arrays
Rule = Callable[[Sequence[Number], Params, Bind], Number]


def pair(z: Number) -> Pair:
    return z if isinstance(z, tuple) else (z, jnp.zeros_like(z))


def _times(z: Number, w: Number) -> Number:
    if not isinstance(z, tuple):
        return z * w[0], z * w[1]
    if not isinstance(w, tuple):
        return z[0] * w, z[1] * w
    return z[0] * w[0] - z[1] * w[1], z[0] * w[1] + z[1] * w[0]


def _over(z: Number, w: Number) -> Pair:
    (a, b), (c, d) = pair(z), pair(w)
    size = c * c + d * d
    return (a * c + b * d) / size, (b * c - a * d) / size


def _angle(z: Pair) -> Part:
    return jnp.arctan2(z[1], z[0])


def _size(z: Pair) -> Part:
    return jnp.sqrt(z[0] * z[0] + z[1] * z[1])


def _polar(size: Part, angle: Part) -> Pair:
    return size * jnp.cos(angle), size * jnp.sin(angle)


def _exp(z: Pair) -> Pair:
    return _polar(jnp.exp(z[0]), z[1])


def _log(z: Pair) -> Pair:
    return jnp.log(z[0] * z[0] + z[1] * z[1]) / 2, _angle(z)


def _root(z: Pair) -> Pair:
    return _polar(jnp.sqrt(_size(z)), _angle(z) / 2)


def _power(z: Pair, exponent: int) -> Pair:
    one = jnp.ones_like(z[0])
    if not exponent:
        return pair(one)
    whole: Pair = z
    for _ in range(abs(exponent) - 1):
        whole = _times(whole, z)
    return whole if exponent > 0 else _over(one, whole)


def _sin(z: Pair) -> Pair:
    return jnp.sin(z[0]) * jnp.cosh(z[1]), jnp.cos(z[0]) * jnp.sinh(z[1])


def _cos(z: Pair) -> Pair:
    return jnp.cos(z[0]) * jnp.cosh(z[1]), -jnp.sin(z[0]) * jnp.sinh(z[1])


def _sinh(z: Pair) -> Pair:
    return jnp.sinh(z[0]) * jnp.cos(z[1]), jnp.cosh(z[0]) * jnp.sin(z[1])


def _cosh(z: Pair) -> Pair:
    return jnp.cosh(z[0]) * jnp.cos(z[1]), jnp.sinh(z[0]) * jnp.sin(z[1])


def _sign(z: Pair) -> Pair:
    size = _size(z)
    return z[0] / size, z[1] / size


def _of_one(function: Callable[[Pair], Number]) -> Rule:
    return lambda given, params, bind: function(pair(given[0]))


def _of_two(function: Callable[[Number, Number], Number]) -> Rule:
    return lambda given, params, bind: function(*given)


def _added(sign: int) -> Rule:
    def rule(given: Sequence[Number], params: Params, bind: Bind) -> Pair:
        (a, b), (c, d) = map(pair, given)
        return a + sign * c, b + sign * d

    return rule


def _part_by_part(given: Sequence[Number], params: Params, bind: Bind) -> Pair:
    """The primitive itself on the real parts, and on the imaginary ones; what is not complex (a place, a
    condition) goes with both."""
    chosen = [z if isinstance(z, tuple) else (z, z) for z in given]
    return bind([z[0] for z in chosen]), bind([z[1] for z in chosen])


def _bilinear(given: Sequence[Number], params: Params, bind: Bind) -> Pair:
    (a, b), (c, d) = map(pair, given)
    return bind([a, c]) - bind([b, d]), bind([a, d]) + bind([b, c])


def _raised(given: Sequence[Number], params: Params, bind: Bind) -> Pair:
    z, exponent = given
    return _exp(_times(_log(pair(z)), exponent))


def _turns(length: int, sign: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of sign*2πnk/N, exact at the quarters."""
    at = np.outer(np.arange(length), np.arange(length)) % length
    angle = 2 * np.pi * at / length
    cos, sin = np.cos(angle), np.sin(angle)
    for quarter, (c, s) in enumerate(((1, 0), (0, 1), (-1, 0), (0, -1))):
        cos[4 * at == quarter * length], sin[4 * at == quarter * length] = c, s
    return cos.astype(dtype), (sign * sin).astype(dtype)


def _transformed(z: Pair, axis: int, sign: int) -> Pair:
    """The sum of z times e^{sign·2πi nk/N} along an axis."""
    a, b = (jnp.moveaxis(part, axis, -1) for part in z)
    cos, sin = _turns(a.shape[-1], sign, a.dtype)
    made = a @ cos - b @ sin, a @ sin + b @ cos
    return jnp.moveaxis(made[0], -1, axis), jnp.moveaxis(made[1], -1, axis)


def _fft(given: Sequence[Number], params: Params, bind: Bind) -> Number:
    z, lengths = pair(given[0]), tuple(params["fft_lengths"])
    kind = jax.lax.FftType(params["fft_type"]).name
    axes = list(range(-len(lengths), 0))
    back = kind in ("IFFT", "IRFFT")
    last = lengths[-1]
    if kind == "IRFFT":  # the other half is the conjugate, turned about along every axis
        for axis in axes[:-1]:
            z = _transformed(z, axis, 1)
        whole = tuple(_mirrored(part, last, sign) for part, sign in zip(z, (1, -1), strict=True))
        z = _transformed((whole[0], whole[1]), -1, 1)
        return z[0] / float(np.prod(lengths))
    for axis in axes:
        z = _transformed(z, axis, 1 if back else -1)
    if kind == "RFFT":
        return z[0][..., : last // 2 + 1], z[1][..., : last // 2 + 1]
    return (z[0] / float(np.prod(lengths)), z[1] / float(np.prod(lengths))) if back else z


def _mirrored(half: Part, length: int, sign: int) -> Part:
    """A half spectrum with the other half; the imaginary parts that must be 0 are."""
    own = length // 2 + 1
    if sign < 0:
        still = np.ones(own)
        still[0] = 0.0
        if length % 2 == 0:
            still[-1] = 0.0
        half = half * still.astype(half.dtype)
    rest = half[..., 1 : own - 1 + length % 2]
    return jnp.concatenate([half, sign * rest[..., ::-1]], -1)


RULES: dict[str, Rule] = {
    "add": _added(1), "add_any": _added(1), "sub": _added(-1), "mul": _of_two(_times), "div": _of_two(_over),
    "neg": _of_one(lambda z: (-z[0], -z[1])), "conj": _of_one(lambda z: (z[0], -z[1])),
    "real": _of_one(lambda z: z[0]), "imag": _of_one(lambda z: z[1]),
    "complex": _of_two(lambda a, b: (a, b)), "abs": _of_one(_size), "sign": _of_one(_sign),
    "exp": _of_one(_exp), "log": _of_one(_log), "sqrt": _of_one(_root),
    "rsqrt": _of_one(lambda z: _over(jnp.ones_like(z[0]), _root(z))),
    "sin": _of_one(_sin), "cos": _of_one(_cos), "sinh": _of_one(_sinh), "cosh": _of_one(_cosh),
    "tan": _of_one(lambda z: _over(_sin(z), _cos(z))), "tanh": _of_one(lambda z: _over(_sinh(z), _cosh(z))),
    "square": _of_one(lambda z: _times(z, z)), "pow": _raised,
    "integer_pow": lambda given, params, bind: _power(pair(given[0]), params["y"]),
    "convert_element_type": lambda given, params, bind: pair(given[0]),
    "dot_general": _bilinear, "conv_general_dilated": _bilinear, "fft": _fft,
    **dict.fromkeys(
        """broadcast_in_dim reshape transpose slice dynamic_slice dynamic_update_slice gather concatenate pad
        rev squeeze expand_dims select_n stack tile reduce_sum cumsum scatter-add scatter_add""".split(),
        _part_by_part,
    ),
}  # fmt: skip


def by_pairs(
    name: str, params: Params, bind: Callable[..., list[Any]], of: Sequence[bool]
) -> Callable[..., Any]:
    """A primitive as a function of real arrays, of which those that stand for complex numbers (`of`) have
    their parts along the last axis; so has its result. Raises `UnsupportedError` where there is no rule."""
    if name not in RULES:
        raise UnsupportedError(f"{name}: complex numbers")

    def first(given: Sequence[Any]) -> Any:
        return bind(given)[0]

    def function(*arrays: Any) -> Any:
        given = [(x[..., 0], x[..., 1]) if two else x for x, two in zip(arrays, of, strict=True)]
        made = RULES[name](given, params, first)
        return jnp.stack(made, -1) if isinstance(made, tuple) else made

    return function
