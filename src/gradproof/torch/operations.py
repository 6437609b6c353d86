"""Torch's operations as formulas: one row an operation, in the language of expression files.

A row is a text over the operation's arguments by their names in torch's schema, or a function of those
arguments that gives it. Numbers among the arguments stand for themselves. A scalar function that the language
has no name for is a row of `SCALARS`, SymPy of the arguments. What only moves entries has no formula: it is
listed in `MOVES` and runs on the entries' places (see `lowering`). What is in no table is defined in
`definitions`, or decomposed by torch's own decompositions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr, Piecewise

from ..functions import recorded
from ..proof.functions import FORMS

Arguments = Mapping[str, Any]  # tensors as `tape.Region`
Row = str | Callable[[Arguments], str]

floor, trunc, nearest, log1p = (FORMS[name] for name in ("floor", "trunc", "nearest", "log1p"))


def _axes(a: Arguments, name: str = "dim", of: str = "self") -> tuple[int, ...]:
    """The axes that an operation reduces over; none named is all of them."""
    rank = len(a[of].shape)
    dims = a.get(name)
    dims = [dims] if isinstance(dims, int) else dims
    if dims is None or not list(dims):
        return tuple(range(rank))
    return tuple(sorted({dim % rank for dim in dims})) if rank else ()


def _reduced(function: str, inner: str = "self", extra: str = "") -> Callable[[Arguments], str]:
    """A reduction over `dim` with `keepdim`."""

    def row(a: Arguments) -> str:
        axes = _axes(a)
        keep = ", keepdims=True" if a.get("keepdim") else ""
        return f"{function}({inner}, axis={axes}{keep}{extra})" if axes else function_of_one(function, inner)

    return row


def function_of_one(function: str, inner: str) -> str:
    """A reduction of a number without axes."""
    if function in ("var", "std"):
        return f"({inner})*0"
    return f"log(exp({inner}))" if function == "logsumexp" else f"({inner})*1"


def _scaled(text: str, name: str) -> Callable[[Arguments], str]:
    """`text` with the factor that is mostly 1 left out where it is."""
    return lambda a: text.replace(f"{name}*", "") if a.get(name) == 1 else text


def _power(a: Arguments) -> str:
    exponent = a["exponent"]
    if isinstance(exponent, int | float) and not isinstance(exponent, bool):
        if exponent == 0.5:
            return "sqrt(self)"
        if exponent == -0.5:
            return "1 / sqrt(self)"
        if float(exponent).is_integer() and abs(exponent) <= 64:
            return f"self ** {int(exponent)}" if exponent >= 0 else f"1 / self ** {-int(exponent)}"
        if exponent * 2 == int(exponent * 2) and abs(exponent) < 32:
            return f"self ** ({int(exponent * 2)}/2)"
        return "self ** exponent"
    return "self ** exponent"


def _variance(a: Arguments) -> str:
    correction = a.get("correction")
    if correction is None:
        correction = 1 if a.get("unbiased", True) else 0
    axes = _axes(a)
    keep = ", keepdims=True" if a.get("keepdim") else ""
    if not axes:
        return "self*0"
    return _corrected("self", axes, a["self"].shape, correction, keep)


def _corrected(
    name: str, axes: tuple[int, ...], shape: tuple[int, ...], correction: float, keep: str = ""
) -> str:
    """The variance, of any correction: torch takes numbers between the integers, too."""
    if correction == int(correction):
        return f"var({name}, axis={axes}, ddof={int(correction)}{keep})"
    count = math.prod(shape[axis] for axis in axes)
    scale = count / (count - Fraction(correction))
    return f"var({name}, axis={axes}, ddof=0{keep}) * ({scale.numerator}/{scale.denominator})"


def _deviation(a: Arguments) -> str:
    return f"sqrt({_variance(a)})"


def _norm(a: Arguments) -> str:
    order = a.get("ord", a.get("p"))
    order = 2 if order is None else order
    axes = _axes(a)
    keep = ", keepdims=True" if a.get("keepdim") else ""
    where = f"axis={axes}{keep}"
    if not axes:
        # A number has no axis to sum over; torch's rounding is that of the powers all the same.
        return _power_norm("({})", order)
    if order == 2:
        return f"norm(self, {where})"
    if order == 1:
        return f"sum(abs(self), {where})"
    if order == 0:
        return f"sum(where(self != 0, 1, 0), {where})"
    if order in (math.inf, -math.inf):
        return f"{'max' if order > 0 else 'min'}(abs(self), {where})"
    return _power_norm(f"sum({{}}, {where})", order)


def _power_norm(total: str, order: float) -> str:
    """`(Σ |x|^p)^(1/p)`; the root of few roundings where p is whole."""
    if order == 0:
        return total.format("where(self != 0, 1, 0)")
    if order in (1, 2, math.inf, -math.inf):
        return total.format("abs(self)")
    q = abs(Fraction(order))
    power = (
        f"abs(self) ** ({q.numerator}/{q.denominator})"
        if q.denominator > 1
        else f"abs(self) ** {q.numerator}"
    )
    root = f"({q.denominator}/{q.numerator})"
    return (
        f"({total.format(power)}) ** {root}"
        if order > 0
        else f"1 / ({total.format(f'1 / {power}')}) ** {root}"
    )


def _softmax(function: str) -> Callable[[Arguments], str]:
    return lambda a: f"{function}(self, axis={a['dim']})" if a["self"].shape else function_alone(function)


def function_alone(function: str) -> str:
    """Softmax and its logarithm of a number without axes."""
    return "self*0" if function == "log_softmax" else "self*0 + 1"


def _clamped(a: Arguments) -> str:
    low, high = a.get("min"), a.get("max")
    text = "self" if low is None else "maximum(self, min)"
    return text if high is None else f"minimum({text}, max)"


def _gelu(a: Arguments) -> str:
    if a.get("approximate") == "tanh":
        return "self * (1 + tanh(sqrt(2/pi) * (self + 0.044715 * self**3))) / 2"
    return "gelu(self)"


def _gelu_backward(grad_output: Expr, self: Expr, approximate: str) -> Expr:
    """By the slope of the approximation of erf that gelu has, or of the other one, as torch's kernels are."""
    root = sympy.sqrt(2 / sympy.pi)
    if approximate == "none":
        density = sympy.exp(-(self**2) / 2) / sympy.sqrt(2 * sympy.pi)
        return grad_output * ((1 + FORMS["gelu_erf"](self / sympy.sqrt(2))) / 2 + self * density)
    bend = sympy.Rational(44715, 10**6)
    inner = sympy.tanh(root * (self + bend * self**3))
    return grad_output * ((1 + inner) / 2 + self / 2 * (1 - inner**2) * root * (1 + 3 * bend * self**2))


def _product(a: Arguments) -> str:
    if "dim" not in a:
        return "prod(self)" if a["self"].shape else "self*1"
    return _reduced("prod")(a)


def _loss(text: str) -> Callable[[Arguments], str]:
    """An elementwise loss with torch's `reduction`: 0 none, 1 mean, 2 sum."""
    return lambda a: {0: text, 1: f"mean({text})", 2: f"sum({text})"}[a["reduction"]]


def _celu(a: Arguments) -> str:
    return "where(self > 0, self, alpha*expm1(self/alpha))"


def _elu(a: Arguments) -> str:
    scaled = "" if a["input_scale"] == 1 else "input_scale*"
    outer = "" if a["scale"] == 1 else "scale*"
    inner = "" if a["alpha"] == 1 else "alpha*"
    return f"{outer}where(self > 0, self, {inner}expm1({scaled}self))"


def _beta_alpha(product: str) -> Callable[[Arguments], str]:
    def row(a: Arguments) -> str:
        left = "self" if a["beta"] == 1 else "beta*self"
        right = product if a["alpha"] == 1 else f"alpha*({product})"
        return right if a["beta"] == 0 else f"{left} + {right}"

    return row


def _comparison(relation: str) -> str:
    return f"where(self {relation} other, 1, 0)"


FORMULAS: dict[str, Row] = {
    # elementwise
    **{name: f"{function}(self)" for name, function in recorded(1, spoken=True).items()},
    **{name: f"{function}(self, other)" for name, function in recorded(2, spoken=True).items()},
    "neg": "-self", "negative": "-self", "positive": "self",
    "reciprocal": "1 / self", "rsqrt": "1 / sqrt(self)", "square": "self ** 2",
    "exp2": "2 ** self",
    "add": _scaled("self + alpha*other", "alpha"),
    "sub": _scaled("self - alpha*other", "alpha"),
    "rsub": _scaled("other - alpha*self", "alpha"),
    "mul": "self * other",
    "true_divide": "self / other",
    "pow": _power,
    "hypot": "sqrt(self**2 + other**2)",
    "fmax": "maximum(self, other)", "fmin": "minimum(self, other)",
    "clamp": _clamped, "clip": _clamped, "clamp_min": "maximum(self, min)", "clamp_max": "minimum(self, max)",
    "lerp": "self + weight*(end - self)",
    "addcmul": _scaled("self + value*tensor1*tensor2", "value"),
    "addcdiv": _scaled("self + value*(tensor1 / tensor2)", "value"),
    "where": "where(condition > 0.5, self, other)",
    "xlogy": "where(self == 0, 0, self*log(other))",
    "special_xlog1py": "where(self == 0, 0, self*log1p(other))",
    "special_entr": "where(self == 0, 0, -self*log(self))",
    "logit": lambda a: "log(self / (1 - self))" if a["eps"] is None else
        "log(minimum(maximum(self, eps), 1 - eps) / (1 - minimum(maximum(self, eps), 1 - eps)))",
    "sinc": "where(self == 0, 1, sin(pi*self) / (pi*self))",
    "heaviside": "where(self == 0, values, where(self > 0, 1, 0))",
    "copysign": "abs(self) * where(other < 0, -1, 1)",
    "deg2rad": "self * (pi / 180)", "rad2deg": "self * (180 / pi)",
    # conditions: 0 or 1
    "gt": _comparison(">"), "ge": _comparison(">="), "lt": _comparison("<"), "le": _comparison("<="),
    "eq": _comparison("=="), "ne": _comparison("!="),
    "logical_not": "where(self == 0, 1, 0)",
    "logical_and": "where((self != 0) & (other != 0), 1, 0)",
    "logical_or": "where((self != 0) | (other != 0), 1, 0)",
    # of masks: integers are no operands that a gradient reaches
    "bitwise_and": "where((self != 0) & (other != 0), 1, 0)",
    "bitwise_or": "where((self != 0) | (other != 0), 1, 0)",
    **dict.fromkeys(("logical_xor", "bitwise_xor"), "where((self != 0) & (other == 0) | (self == 0) & (other "
                                                    "!= 0), 1, 0)"),
    "bitwise_not": "where(self == 0, 1, 0)",
    # activations
    "gelu": _gelu,
    "elu": _elu,
    "celu": _celu,
    "leaky_relu": "where(self > 0, self, negative_slope*self)",
    "softplus": lambda a: "where(self*beta > threshold, self, softplus(self*beta) / beta)"
                if a["beta"] != 1 else
        "where(self > threshold, self, softplus(self))",
    "mish": "self * tanh(softplus(self))",
    "log_sigmoid_forward": "-softplus(-self)",
    "hardtanh": "minimum(maximum(self, min_val), max_val)",
    "hardsigmoid": "minimum(maximum(self + 3, 0), 6) / 6",
    "hardswish": "self * minimum(maximum(self + 3, 0), 6) / 6",
    "hardshrink_backward": "where((self >= -lambd) & (self <= lambd), 0*grad_out, grad_out)",
    "softshrink_backward": "where((self >= -lambd) & (self <= lambd), 0*grad_output, grad_output)",
    "softshrink": "where(self > lambd, self - lambd, where(self < -lambd, self + lambd, self*0))",
    "hardshrink": "where((self >= -lambd) & (self <= lambd), 0, self)",
    "threshold": "where(self <= threshold, value, self)",
    "_prelu_kernel": "where(self > 0, self, weight*self)",
    "_softmax": _softmax("softmax"), "_log_softmax": _softmax("log_softmax"),
    # reductions
    "sum": _reduced("sum"), "mean": _reduced("mean"), "prod": _product,
    "amax": _reduced("max"), "amin": _reduced("min"), "logsumexp": _reduced("logsumexp"),
    "var": _variance, "std": _deviation,
    "linalg_vector_norm": _norm, "norm": _norm,
    "cumsum": lambda a: f"cumsum(self, axis={a['dim']})" if a["self"].shape else "self*1",
    "max": "max(self)", "min": "min(self)",  # of all entries
    # products
    "mm": "self @ mat2", "bmm": "self @ mat2", "mv": "self @ vec",
    "dot": "self @ tensor", "vdot": "self @ other",
    "addmm": _beta_alpha("mat1 @ mat2"), "addbmm": _beta_alpha("sum(batch1 @ batch2, axis=0)"),
    "baddbmm": _beta_alpha("batch1 @ batch2"), "addmv": _beta_alpha("mat @ vec"),
    "addr": _beta_alpha("outer(vec1, vec2)"),
    "matmul": "self @ other",
    # losses
    "mse_loss": _loss("(self - target)**2"),
    "smooth_l1_loss": lambda a: _loss(
        "where(abs(self - target) < beta, (self - target)**2 / 2 / beta, abs(self - target) - beta/2)"
        if a["beta"] else
        "abs(self - target)")(a),
    "huber_loss": _loss(
        "where(abs(self - target) <= delta, (self - target)**2 / 2, delta*(abs(self - target) - delta/2))"),
    "soft_margin_loss": _loss("log1p(exp(-target*self))"),
}  # fmt: skip

# The few primitives below aten that torch's decompositions end in.
FORMULAS |= {
    "prims::neg": "-self", "prims::rsqrt": "1 / sqrt(self)", "prims::reciprocal": "1 / self",
    "prims::add": "self + other", "prims::sub": "self - other", "prims::mul": "self * other",
    "prims::div": "self / other",
    "prims::pow": "self ** other",
    "prims::where": "where(pred > 0.5, a, b)",
    "prims::maximum": "maximum(self, other)", "prims::minimum": "minimum(self, other)",
    "prims::sum": lambda a: f"sum(inp, axis={_axes(a, 'dims', 'inp')})",
    "prims::amax": lambda a: f"max(inp, axis={_axes(a, 'dims', 'inp')})",
    "prims::amin": lambda a: f"min(inp, axis={_axes(a, 'dims', 'inp')})",
    "prims::prod": lambda a: f"prod(inp, axis={_axes(a, 'dims', 'inp')})",
    "prims::var": lambda a: _corrected("inp", _axes(a, "dims", "inp"), a["inp"].shape, a["correction"]),
    **{f"prims::{name}": f"where(self {relation} other, 1, 0)" for name, relation in (
        ("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("eq", "=="), ("ne", "!="))},
}  # fmt: skip


def _of_self(name: str) -> Callable[..., Expr]:
    return lambda self: FORMS[name](self)


# Scalar functions beside those of the language: SymPy of the arguments, by their names; tensors are
# broadcast.
SCALARS: dict[str, Callable[..., Expr]] = {
    **{name: _of_self(function) for name, function in recorded(1, spoken=False).items()},
    "frac": lambda self: self - trunc(self), "gelu_backward": _gelu_backward,
    "round": lambda self, decimals:
        nearest(self * 10**decimals) / 10**decimals if decimals else nearest(self),
    "div": lambda self, other, rounding_mode: _QUOTIENTS[rounding_mode](self / other),
    "floor_divide": lambda self, other: floor(self / other),
    "fmod": lambda self, other: self - other * trunc(self / other),
    "remainder": lambda self, other: self - other * floor(self / other),
    "polygamma": lambda n, self: sympy.polygamma(n, self),
    "i0": lambda self: sympy.besseli(0, self), "special_i1": lambda self: sympy.besseli(1, self),
    "angle": lambda self: Piecewise((sympy.pi, self < 0), (0, True)),
    "logaddexp": lambda self, other: _log_of_two(self, other, sympy.exp, log1p),
    "logaddexp2": lambda self, other: _log_of_two(
        self, other, lambda z: sympy.exp(z * sympy.log(2)), lambda z: log1p(z) / sympy.log(2)),
}  # fmt: skip

_QUOTIENTS: dict[str | None, Callable[[Expr], Expr]] = {None: lambda z: z, "floor": floor, "trunc": trunc}


def _log_of_two(a: Expr, b: Expr, exp: Callable[[Expr], Expr], log1p: Callable[[Expr], Expr]) -> Expr:
    """`log(exp(a) + exp(b))` about the larger; two infinities alike are their own."""
    return Piecewise((a + log1p(exp(b - a)), a > b), (b + log1p(exp(a - b)), True))


# Operations that only move entries (or fill in zeros): they run on the entries' places in place of their
# numbers.
MOVES = frozenset(
    """alias as_strided_copy cat stack clone contiguous _to_copy copy copy_ detach detach_copy diag_embed
    diagonal_copy diagonal_scatter expand_copy flip roll rot90 gather take index index_select index_copy
    index_put _unsafe_index _unsafe_index_put _index_put_impl_ index_fill masked_fill masked_scatter
    masked_select put lift lift_fresh lift_fresh_copy narrow_copy permute_copy pixel_shuffle pixel_unshuffle
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    constant_pad_nd repeat repeat_interleave reshape _reshape_copy _unsafe_view scatter select_copy
    select_scatter slice_copy slice_scatter as_strided_scatter squeeze_copy t_copy transpose_copy tril triu
    unbind_copy split_copy split_with_sizes_copy unfold_copy unsqueeze_copy view_copy im2col
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d channel_shuffle native_channel_shuffle block_diag zero
    fill_diagonal embedding max_unpool2d max_unpool3d resize_ set_ view_as_real diag
    prims::convert_element_type prims::clone prims::cat prims::broadcast_in_dim prims::copy_to
    prims::copy_strided prims::reshape prims::transpose prims::rev prims::squeeze prims::view_of
    prims::as_strided prims::split_dim prims::collapse diag unsafe_split unsafe_split_with_sizes unsafe_chunk
    chunk hsplit movedim swapaxes""".split()
)

# Operations whose first output is the operand's entries at the places that their second output names, along
# `dim`.
CHOICES = frozenset("sort topk kthvalue median nanmedian mode max min cummax cummin msort".split())

# ... and those that name places in the flattened window axes, so many at the end.
POOLS = {
    "max_pool1d_with_indices": 1, "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3,
    "adaptive_max_pool2d": 2, "adaptive_max_pool3d": 3,
    "fractional_max_pool2d": 2, "fractional_max_pool3d": 3,
}  # fmt: skip

# Operations whose outputs do not depend on their tensors' numbers: shapes, fresh memory, random numbers,
# flags.
CONSTANT = frozenset(
    """empty empty_like empty_strided new_empty new_empty_strided zeros ones full zeros_like ones_like
    full_like new_zeros new_ones new_full rand rand_like randn randn_like randint randint_like randperm
    arange linspace logspace eye scalar_tensor bernoulli uniform normal normal_ uniform_ bernoulli_ random_
    exponential_ geometric_ cauchy_ log_normal_ isnan isinf isfinite isneginf isposinf signbit argmax argmin
    argsort nonzero count_nonzero searchsorted bucketize _local_scalar_dense equal is_same_size sym_size
    sym_numel sym_stride sym_storage_offset tril_indices triu_indices any all _is_all_true _is_any_true
    unique_dim _unique2 bincount histc isclose allclose multinomial""".split()
)

# What torch passes on in place of the derivative of what it computes, on purpose.
CONVENTIONS = {
    **dict.fromkeys(
        """fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask
        _fake_quantize_per_tensor_affine_cachemask_tensor_qparams""".split(),
        "torch gives the gradient of the clamp alone, straight through the rounding",
    ),
    **dict.fromkeys(
        ("_ctc_loss", "_cudnn_ctc_loss"),
        "torch gives the gradient of the loss of log_softmax(log_probs): right by what log_softmax is given, "
        "and not by the logarithms",
    ),
}
