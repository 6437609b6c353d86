"""Operations on complex numbers by their real and imaginary parts.

Torch's cotangent of a complex value is that of the two parts, dL/dx + i dL/dy; so what a derivative is
follows from the parts alone. An implementation of a function promises an error that is small beside the
value's modulus, and not beside each part: see `_near`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .plain import Definitions, NotDefinedError, plainly

Pair = tuple[Any, Any]  # a tensor, or a number; the second is None for 0
Scalar = complex | float | int


def _parts(x: Tensor | Scalar) -> Pair:
    if isinstance(x, Tensor):
        return (x.real, x.imag) if x.is_complex() else (x, None)
    return (x.real, x.imag or None) if isinstance(x, complex) else (x, None)


def _joined(re: Any, im: Any) -> Tensor:
    re, im = torch.broadcast_tensors(re, torch.zeros_like(re) if im is None else im)
    return torch.view_as_complex(torch.stack((re, im), -1))


def _near(re: Tensor, im: Tensor) -> Tensor:
    """A value and a cotangent that are known up to rounding beside their moduli: what adding the other part,
    and taking it away again, leaves of each."""
    return _joined((re + im) - im, (im + re) - re)


def _loose(re: Tensor, im: Tensor, operand: Tensor) -> Tensor:
    """The same where the derivative is a difference of numbers of the size of 1, as `1 - y²`: then what
    arrives is known up to its own rounding."""
    both = operand.real + operand.imag
    return _near((re + both) - both, (im + both) - both)


def _near_pole(made: Tensor, pole: Tensor) -> Tensor:
    """A value whose derivative is taken of the distance to a pole, as `1 + z²`, that is known up to the
    rounding of 1: adding what has that pole, and taking it away, leaves as much."""
    return (made + pole) - pole


def by_parts(op: Any, args: Any, kwargs: Any, *, whole: bool) -> Any:
    """An operation that treats both parts alike, on one and then on the other; the result is real where it is
    not `whole`."""
    named = {argument.name for argument in op._schema.arguments}
    filled, by_strides = named & {"value", "fill_value"}, "stride" in named

    def run(n: int) -> Any:
        def part(x: Any) -> Any:
            if isinstance(x, torch.dtype):
                return x.to_real() if x.is_complex else x
            if isinstance(x, complex):
                return (x.real, x.imag)[n]
            if not isinstance(x, Tensor) or not (x.is_complex() or x.is_floating_point()):
                return x
            re, im = _parts(x)
            mine = re if n == 0 else torch.zeros_like(re) if im is None else im
            return mine.clone() if by_strides else mine

        mine, more = tree_map(part, (args, kwargs))
        if n and filled:  # a real number has no imaginary part
            names = [argument.name for argument in op._schema.arguments]
            given = dict(zip(names, args, strict=False)) | kwargs
            mine = tuple(
                0.0 if name in filled and isinstance(given[name], int | float) else x
                for name, x in zip(names, mine, strict=False)
            )
            more = {
                name: 0.0 if name in filled and isinstance(given[name], int | float) else x
                for name, x in more.items()
            }
        return op(*mine, **more)

    if not whole:
        return run(0)
    first, second = (tree_leaves(run(n)) for n in range(2))
    made = [
        _joined(a, b) if isinstance(a, Tensor) and a.is_floating_point() else a
        for a, b in zip(first, second, strict=True)
    ]
    return made if len(made) > 1 else made[0]


# Products


def _times(product: Callable[[Any, Any], Any], x: Pair, y: Pair, conjugate: bool = False) -> Tensor:
    """A bilinear operation; `conjugate` its first operand."""
    (a, b), (c, d) = x, y
    sign = -1 if conjugate else 1
    re, im = product(a, c), None
    if b is not None and d is not None:
        re = re - sign * product(b, d)
    for one, other, times in ((a, d, 1), (b, c, sign)):
        if one is not None and other is not None:
            term = product(one, other) if times == 1 else -product(one, other)
            im = term if im is None else im + term
    return _joined(re, im)


def _mul(self: Tensor, other: Any) -> Tensor:
    return _times(lambda x, y: x * y, _parts(self), _parts(other))


def _bilinear(product: Callable[[Any, Any], Any], first: str, second: str, **more: Any) -> Callable[..., Any]:
    def made(**operands: Any) -> Tensor:
        return _times(product, _parts(operands[first]), _parts(operands[second]), **more)

    made.__signature__ = _signature(first, second)  # type: ignore[attr-defined]
    return made


def _signature(*names: str) -> Any:
    from inspect import Parameter, Signature

    return Signature([Parameter(name, Parameter.KEYWORD_ONLY) for name in names])


def _matrices(x: Tensor, y: Tensor) -> Tensor:
    return x @ y


def _affine(self: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    right = product if alpha == 1 else product * alpha
    return right if beta == 0 else (self if beta == 1 else self * beta) + right


def _addmm(self: Tensor, mat1: Tensor, mat2: Tensor, beta: Any, alpha: Any) -> Tensor:
    return _affine(self, torch.mm(mat1, mat2), beta, alpha)


def _baddbmm(self: Tensor, batch1: Tensor, batch2: Tensor, beta: Any, alpha: Any) -> Tensor:
    return _affine(self, torch.bmm(batch1, batch2), beta, alpha)


def _addbmm(self: Tensor, batch1: Tensor, batch2: Tensor, beta: Any, alpha: Any) -> Tensor:
    return _affine(self, torch.bmm(batch1, batch2).sum(0), beta, alpha)


def _addmv(self: Tensor, mat: Tensor, vec: Tensor, beta: Any, alpha: Any) -> Tensor:
    return _affine(self, torch.mv(mat, vec), beta, alpha)


def _addr(self: Tensor, vec1: Tensor, vec2: Tensor, beta: Any, alpha: Any) -> Tensor:
    return _affine(self, vec1.unsqueeze(1) * vec2.unsqueeze(0), beta, alpha)


def _addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Tensor:
    return self + tensor1 * tensor2 * value


def _addcdiv(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Tensor:
    return self + tensor1 / tensor2 * value


def _add(self: Tensor, other: Any, alpha: Any) -> Tensor:
    (a, b), (c, d) = _parts(self), _parts(other if alpha == 1 else other * alpha)
    return _joined(a + c, d if b is None else b if d is None else b + d)


def _sub(self: Tensor, other: Any, alpha: Any) -> Tensor:
    (a, b), (c, d) = _parts(self), _parts(other if alpha == 1 else other * alpha)
    return _joined(a - c, b if d is None else -d if b is None else b - d)


def _rsub(self: Tensor, other: Any, alpha: Any) -> Tensor:
    return -(self if alpha == 1 else self * alpha) + other


def _lerp(self: Tensor, end: Tensor, weight: Any) -> Tensor:
    return self + weight * (end - self)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor:
    def product(x: Tensor, w: Tensor) -> Tensor:
        return torch.convolution(x, w, None, stride, padding, dilation, transposed, output_padding, groups)

    made = _times(product, _parts(input), _parts(weight))
    return made if bias is None else made + bias.reshape(-1, *(1,) * (made.ndim - 2))


def _prod(self: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    if not self.ndim:
        return self * 1
    factors = self.reshape(-1) if dim is None else self.movedim(dim, 0)
    whole = factors[0] if len(factors) else torch.ones_like(self.sum(dim or 0))
    for factor in factors[1:]:
        whole = whole * factor
    return whole.unsqueeze(dim) if keepdim and dim is not None else whole


def _cumprod(self: Tensor, dim: int) -> Tensor:
    if not self.ndim:
        return self * 1
    found: list[Tensor] = []
    for factor in self.unbind(dim):
        found.append(found[-1] * factor if found else factor)
    return torch.stack(found, dim)


def _cumsum(self: Tensor, dim: int) -> Tensor:
    re, im = _parts(self)
    return _joined(re.cumsum(dim), im.cumsum(dim))


# Quotients


def _div(self: Any, other: Any) -> Tensor:
    (a, b), (c, d) = _parts(self), _parts(other)
    if d is None:
        return _joined(a / c, None if b is None else b / c)
    square = c * c + d * d
    if b is None:
        return _near(a * c / square, -(a * d) / square)
    return _near((a * c + b * d) / square, (b * c - a * d) / square)


def _reciprocal(self: Tensor) -> Tensor:
    a, b = self.real, self.imag
    square = a * a + b * b
    return _near(a / square, -b / square)


# Moduli and angles


def _abs(self: Tensor) -> Tensor:
    return torch.hypot(self.real, self.imag)


def _below(im: Tensor) -> Tensor:
    """Which side of a branch cut: a zero tells it by its sign, which no derivative depends on."""
    with plainly():
        return torch.signbit(im)


def _angle(self: Tensor) -> Tensor:
    re, im = self.real, self.imag
    return torch.where(_below(im), -torch.atan2(-im, re), torch.atan2(im, re))


def _sgn(self: Tensor) -> Tensor:
    modulus = torch.hypot(self.real, self.imag)
    there = modulus != 0
    safe = torch.where(there, modulus, 1.0)
    return _joined(torch.where(there, self.real / safe, 0.0), torch.where(there, self.imag / safe, 0.0))


def _polar(abs: Tensor, angle: Tensor) -> Tensor:
    return _joined(abs * torch.cos(angle), abs * torch.sin(angle))


def _complex(real: Tensor, imag: Tensor) -> Tensor:
    return _joined(real, imag)


def _conjugate(self: Tensor) -> Tensor:
    return _joined(self.real, -self.imag)


def _norm(self: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    if ord == 2:  # no roots of single entries
        pairs = torch.view_as_real(self)
        axes = range(self.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
        return torch.linalg.vector_norm(pairs, 2, (*(d % self.ndim for d in axes), -1) if self.ndim else -1,
                                        keepdim).reshape(_kept(self, dim, keepdim))  # fmt: skip
    return torch.linalg.vector_norm(self.abs(), ord, dim, keepdim)


def _kept(self: Tensor, dim: Any, keepdim: bool) -> list[int]:
    axes = range(self.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % self.ndim for d in axes} if self.ndim else set()
    gone = gone or set(range(self.ndim))
    return [1 if d in gone else n for d, n in enumerate(self.shape) if keepdim or d not in gone]


def _var(self: Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Tensor:
    re, im = (torch.var(part, dim, correction=1 if correction is None else correction, keepdim=keepdim)
              for part in (self.real, self.imag))  # fmt: skip
    return re + im


def _std(self: Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Tensor:
    return _var(self, dim, correction, keepdim).sqrt()


def _mean(self: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return self.mean() if dim is None else self.mean(dim, keepdim)


def _var_mean(self: Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    return _var(self, dim, correction, keepdim), _mean(self, dim, keepdim)


def _std_mean(self: Tensor, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    return _std(self, dim, correction, keepdim), _mean(self, dim, keepdim)


# Functions


def _largest(self: Tensor, dim: Any) -> Tensor:
    """About the largest real part sums of exponentials do not overflow; the choice is no part of them."""
    with plainly():
        most = self.real.amax(dim, keepdim=True)
        return torch.where(torch.isfinite(most), most, 0.0)


def _logsumexp(self: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    if not self.ndim:
        return torch.log(torch.exp(self))
    most = _largest(self, dim)
    total = torch.log(torch.exp(self - most).sum(dim, True)) + most
    return total if keepdim else total.squeeze(dim)


def _logcumsumexp(self: Tensor, dim: int) -> Tensor:
    if not self.ndim:
        return self * 1
    most = _largest(self, dim)
    return torch.log(torch.exp(self - most).cumsum(dim)) + most


def _logaddexp(self: Tensor, other: Tensor) -> Tensor:
    """About the one of the larger real part, on the branch that this makes."""
    with plainly():
        first = self.real >= other.real
    most, least = torch.where(first, self, other), torch.where(first, other, self)
    return most + torch.log1p(torch.exp(least - most))


def _exp2(self: Tensor) -> Tensor:
    return _pow(2, self)


def _exp(self: Tensor) -> Tensor:
    size = torch.exp(self.real)
    return _near(size * torch.cos(self.imag), size * torch.sin(self.imag))


def _expm1(self: Tensor) -> Tensor:
    a, half = self.real, torch.sin(self.imag / 2)
    re = torch.expm1(a) * torch.cos(self.imag) - 2 * half * half
    return _loose(re, torch.exp(a) * torch.sin(self.imag), self)


def _log(self: Tensor) -> Tensor:
    return _near(torch.log(torch.hypot(self.real, self.imag)), _angle(self))


def _log1p(self: Tensor) -> Tensor:
    return torch.log(self + 1)


def _to_base(base: float) -> Callable[[Tensor], Tensor]:
    function = {2: torch.log2, 10: torch.log10}[int(base)]

    def log(self: Tensor) -> Tensor:
        a, b = self.real, self.imag
        scale = torch.log(torch.full_like(a, base))
        return _near(function(torch.hypot(a, b)), _angle(self) / _plain_log(base, scale))

    return log


def _plain_log(base: float, like: Tensor) -> Tensor:
    """The logarithm of a number as a part of the calculus, and not as torch rounds it."""
    return torch.log(torch.zeros_like(like) * 0 + base)


def _sqrt(self: Tensor) -> Tensor:
    a, b = self.real, self.imag
    size = torch.sqrt((torch.abs(a) + torch.hypot(a, b)) / 2)
    other = b / (2 * size)
    right = a >= 0
    return _near(
        torch.where(right, size, torch.abs(other)),
        torch.where(right, other, torch.where(_below(b), -size, size)),
    )


def _rsqrt(self: Tensor) -> Tensor:
    return 1 / torch.sqrt(self)


def _square(self: Tensor) -> Tensor:
    return self * self


def _pow(self: Any, exponent: Any) -> Tensor:
    if isinstance(exponent, int | float) and float(exponent).is_integer() and abs(exponent) <= 32:
        if exponent == 0:
            return self * 0 + 1
        whole = self
        for _ in range(int(abs(exponent)) - 1):
            whole = whole * self
        return whole if exponent > 0 else 1 / whole
    if isinstance(exponent, float) and abs(exponent) == 0.5:
        return torch.sqrt(self) if exponent > 0 else 1 / torch.sqrt(self)
    if not isinstance(self, Tensor):
        number = complex(self)
        if number == 0:
            raise NotDefinedError("powers of 0")
        exact = _joined(*(torch.zeros_like(exponent.real) + x for x in (number.real, number.imag)))
        return torch.exp(exponent * torch.log(exact))
    return torch.exp(exponent * torch.log(self if self.is_complex() else _joined(self, None)))


def _sin(self: Tensor) -> Tensor:
    a, b = self.real, self.imag
    return _near(torch.sin(a) * torch.cosh(b), torch.cos(a) * torch.sinh(b))


def _cos(self: Tensor) -> Tensor:
    a, b = self.real, self.imag
    return _near(torch.cos(a) * torch.cosh(b), -(torch.sin(a) * torch.sinh(b)))


def _sinh(self: Tensor) -> Tensor:
    a, b = self.real, self.imag
    return _near(torch.sinh(a) * torch.cos(b), torch.cosh(a) * torch.sin(b))


def _cosh(self: Tensor) -> Tensor:
    a, b = self.real, self.imag
    return _near(torch.cosh(a) * torch.cos(b), torch.sinh(a) * torch.sin(b))


def _tanh(self: Tensor) -> Tensor:
    """By tanh a and tan b, which do not overflow."""
    t, s = torch.tanh(self.real), torch.tan(self.imag)
    under = 1 + (t * s) * (t * s)
    return _loose(t * (1 + s * s) / under, s * (1 - t * t) / under, self)


def _tan(self: Tensor) -> Tensor:
    t, s = torch.tanh(self.imag), torch.tan(self.real)
    under = 1 + (t * s) * (t * s)
    return _loose(s * (1 - t * t) / under, t * (1 + s * s) / under, self)


def _turned(z: Tensor) -> Tensor:
    """i z."""
    return _joined(-z.imag, z.real)


def _turned_back(z: Tensor) -> Tensor:
    return _joined(z.imag, -z.real)


def _asinh(self: Tensor) -> Tensor:
    under = self * self + 1
    return _near_pole(torch.log(self + torch.sqrt(under)), 1 / torch.sqrt(under))


def _asin(self: Tensor) -> Tensor:
    return _turned_back(_asinh(_turned(self)))


def _acos(self: Tensor) -> Tensor:
    asin = torch.asin(self)
    return _joined(torch.acos(torch.zeros_like(asin.real) * self.real) - asin.real, -asin.imag)


def _acosh(self: Tensor) -> Tensor:
    made = torch.log(self + torch.sqrt(self + 1) * torch.sqrt(self - 1))
    return _near_pole(made, 1 / torch.sqrt(self * self - 1))


def _atanh(self: Tensor) -> Tensor:
    made = (torch.log(1 + self) - torch.log(1 - self)) / 2
    return _near_pole(_near(made.real, made.imag), 1 / (1 - self * self))


def _atan(self: Tensor) -> Tensor:
    return _turned_back(torch.atanh(_turned(self)))


def _sigmoid(self: Tensor) -> Tensor:
    made = 1 / (1 + torch.exp(-self))
    return _loose(made.real, made.imag, self)


def _silu(self: Tensor) -> Tensor:
    return self / (1 + torch.exp(-self))


def _eq(self: Tensor, other: Any) -> Tensor:
    (a, b), (c, d) = _parts(self), _parts(other)
    return (a == c) & ((0.0 if b is None else b) == (0.0 if d is None else d))


def _ne(self: Tensor, other: Any) -> Tensor:
    return torch.logical_not(_eq(self, other))


def _sinc(self: Tensor) -> Tensor:
    scaled = _joined(torch.deg2rad(self.real * 180), torch.deg2rad(self.imag * 180))
    there = _ne(self, 0)
    return torch.where(there, torch.sin(scaled) / torch.where(there, scaled, 1.0), 1.0)


COMPLEX: Definitions = {
    "mul": _mul, "add": _add, "sub": _sub, "rsub": _rsub, "lerp": _lerp,
    **{name: _bilinear(_matrices, "self", second)
       for name, second in (("mm", "mat2"), ("bmm", "mat2"), ("mv", "vec"), ("matmul", "other"))},
    "dot": _bilinear(_matrices, "self", "tensor"),
    "vdot": _bilinear(_matrices, "self", "other", conjugate=True),
    "addmm": _addmm, "baddbmm": _baddbmm, "addbmm": _addbmm, "addmv": _addmv, "addr": _addr,
    "addcmul": _addcmul, "addcdiv": _addcdiv,
    **dict.fromkeys(("convolution", "mkldnn_convolution", "_convolution"), _convolution),
    "prod": _prod, "cumprod": _cumprod, "cumsum": _cumsum,
    "div": _div, "true_divide": _div, "reciprocal": _reciprocal,
    "abs": _abs, "angle": _angle, "sgn": _sgn, "polar": _polar, "complex": _complex,
    **dict.fromkeys(("conj_physical", "_conj_physical"), _conjugate),
    "var_mean": _var_mean, "std_mean": _std_mean, "exp2": _exp2,
    "logsumexp": _logsumexp, "logcumsumexp": _logcumsumexp, "_logcumsumexp": _logcumsumexp,
    "logaddexp": _logaddexp,
    "linalg_vector_norm": _norm, "var": _var, "std": _std,
    "exp": _exp, "expm1": _expm1, "log": _log, "log1p": _log1p, "log2": _to_base(2), "log10": _to_base(10),
    "sqrt": _sqrt, "rsqrt": _rsqrt, "square": _square, "pow": _pow,
    "sin": _sin, "cos": _cos, "tan": _tan, "sinh": _sinh, "cosh": _cosh, "tanh": _tanh,
    "asin": _asin, "acos": _acos, "atan": _atan, "asinh": _asinh, "acosh": _acosh, "atanh": _atanh,
    "sigmoid": _sigmoid, "silu": _silu, "sinc": _sinc, "eq": _eq, "ne": _ne,
}  # fmt: skip

# What treats both parts alike, beside what only moves entries: `by_parts`.
ADDITIVE = frozenset(
    """neg negative positive sum mean nansum where trace index_add scatter_add masked_scatter fill
    select_backward slice_backward unfold_backward diagonal_backward index_put _index_put_impl_
    _unsafe_index_put put scatter avg_pool1d avg_pool2d avg_pool3d""".split()
)
