"""The scalar functions, a row each: what a function is, how it rounds, and how each engine calls it.

Everything else about a function is made of its row: how the language reads it, its SymPy form, its balls, its
rounding set, the engines' tables, and the names under which recorders see it. So a new function is a row
here.

Formulas and slopes are texts in `x` and `y`, in the functions of this table and SymPy's. Balls are Arb's,
told by their methods alone: nothing is imported here, so that every room may read the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import erf, inf
from typing import Any

from .dtypes import DTYPES, DType

Way = str | Callable[..., Any]  # a path in an engine's library, or a function of the library and the operands
Ball = Any  # Arb's, by its methods


@dataclass(frozen=True, eq=False)
class Floats:
    """How a function is computed in floats, of NumPy and arrays: the value; of it the slope's size; and how
    much the slope bends, a bound of the second derivative while the operand is no further off than
    `within`."""

    value: Callable[..., Any]
    slope: Callable[..., Any]
    bend: Callable[..., Any]
    within: Callable[..., Any] | None = None
    wide: bool = True  # also of long doubles


def _half(np: Any, x: Any) -> Any:
    return 0.5


def _relative(np: Any, x: Any) -> Any:
    return abs(x) / 2


def _each(function: Callable[[float], float]) -> Callable[..., Any]:
    """A function of the standard library's, entry by entry."""
    return lambda np, x: np.frompyfunc(function, 1, 1)(x).astype(float) if x.ndim else np.asarray(function(x))


@dataclass(frozen=True, eq=False)
class Function:
    """A scalar function.

    With a `formula` and no `roundings` it is short for the formula. With both, engines compute it as a whole:
    calculus derives the exact derivative from the formula, and the rounding model takes `slope`, the
    textbook's, whose cancellation is what a good engine really has. Without a formula it is SymPy's own of
    that name.
    """

    name: str
    # Units of u, of a good implementation: 4, that is 2 ulp, is what vector math libraries state at most.
    roundings: int = 0
    formula: str = ""
    slope: str | tuple[str, ...] = ""  # by each operand
    second_slope: str = ""  # another form that implementations use
    operands: int = 1
    options: tuple[tuple[str, int | Fraction], ...] = ()  # and what each is when it is not said
    domain: tuple[float, float] = (-inf, inf)  # between these it has values
    steps: bool = False  # constant between its jumps: its values are exact, and its derivative is 0
    spoken: bool = True  # a name of the language; else formulas alone use it
    sympy: str = ""  # SymPy's name, where it is another one
    shown: str = ""  # what people read, where it is another name
    aliases: str = ""  # what other libraries call it, for a message
    recorded: str = ""  # what torch's operations and JAX's primitives are called beside its name
    # Balls: Arb's method of its name, or a function of balls; where implementations have another value at
    # some places, that one in a dtype; and what the roundings are relative to, where the error does not
    # shrink with the value.
    ball: Callable[..., Ball] | None = None
    implemented: Callable[..., Ball] | None = None
    magnitude: Callable[[Ball, Ball], Ball] | None = None
    stepwise: bool = False  # its steps round in 16 bits too; others are computed in float32 and round once
    in_half: str = ""  # the function that it is in 16 bits
    floats: Floats | None = None  # None: there are balls alone
    # How engines call it: the library's function of its name, unless it is said here.
    torch: Way = ""
    numpy: Way = ""  # of `np` and `special`, which JAX and autograd have; for JAX unless `jax` says more
    jax: Way = ""
    tinygrad: Way = ""


def _number(x: Ball, value: float) -> Ball:
    """The number as a ball of x's kind."""
    return type(x)(value)


def _sqrt(x: Ball) -> Ball:
    """The square root; of a ball around 0 that of its nonnegative part, where the root has values at all."""
    if not (x.is_finite() and x.contains(0) and x.upper() > 0):
        return x.sqrt()
    return x.upper().sqrt().union(0)


def _lgamma(x: Ball) -> Ball:
    return x.lgamma() if x > 0 else abs(x.gamma()).log()


def _softplus(x: Ball) -> Ball:
    """log(1 + exp(x)), written so that no huge number appears."""
    return (-x).exp().log1p() + x if x > 0 else x.exp().log1p()


def _sigmoid(x: Ball) -> Ball:
    return 1 / (1 + (-x).exp())


def _sigmoid_in(x: Ball, dtype: DType) -> Ball:
    """Where exp(-x) overflows, 1/(1 + exp(-x)) is 0; 16 bits are computed in float32."""
    return _sigmoid(x) + type(x)(0, 1 / max(dtype.largest, DTYPES["float32"].largest))


def _atan2_in(y: Ball, x: Ball, dtype: DType) -> Ball:
    """Across the branch cut an implementation's zero has a sign, which a ball's has not."""
    return type(y).atan2(y, x) if x > 0 or not y.contains(0) else type(y)(0, 1) * type(y).pi()


def power(x: Ball, n: int) -> Ball:
    """x**n by squaring, for n ≥ 0; Arb's own power of a ball around 0 is not finite."""
    result, square = _number(x, 1), x
    if n % 2 == 0 and square.contains(0):
        square = abs(square)  # an even power is not negative
    while n:
        if n & 1:
            result = result * square
        n >>= 1
        if n:
            square = square * square
    return result


def _polygamma(order: Ball, x: Ball) -> Ball:
    """ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n + 1, x) for n > 0; Arb's ζ is for x > 0, below there are the terms (x + k)⁻ⁿ⁻¹
    more."""
    s = int(float(order.mid())) + 1
    terms = _number(x, 0)
    while not x > 0 and x > -1000:
        terms, x = terms + 1 / power(x, s), x + 1
    return (1 if s % 2 == 0 else -1) * _number(x, s).gamma() * (terms + _number(x, s).zeta(x))


def _normal(x: Ball) -> Ball:
    return (-x / _number(x, 2).sqrt()).erfc() / 2


def _trunc(x: Ball) -> Ball:
    return x.floor() if x > 0 else x.ceil() if x < 0 else x.floor().union(x.ceil())


def _nearest(x: Ball) -> Ball:
    """Half to even: below and above a tie it is one of the two ways of rounding that only there differ."""
    up, down = (x + 0.5).floor(), (x - 0.5).ceil()
    if not (up.is_exact() and down.is_exact()) or up == down:
        return up.union(down)
    return up if (up / 2).is_integer() else down


def _torch_gamma(torch: Any, x: Any) -> object:
    """torch has no gamma function; exp(lgamma) is the way to write one, with the sign for negative
    arguments."""
    negative = (x < 0) & (torch.floor(x) % 2 != 0)
    return torch.exp(torch.lgamma(x)) * torch.where(negative, -1.0, 1.0).to(x.dtype)


# In floats. Slopes and bends are sizes: their sign is of no account.
_EXP = Floats(lambda np, x: np.exp(x), lambda np, x, v: v, lambda np, x, v: 2 * v, _half)
_LOG = Floats(lambda np, x: np.log(x), lambda np, x, v: 1 / x, lambda np, x, v: 4 / x**2, _relative)
_LOG1P = Floats(
    lambda np, x: np.log1p(x),
    lambda np, x, v: 1 / (1 + x),
    lambda np, x, v: 4 / (1 + x) ** 2,
    lambda np, x: abs(1 + x) / 2,
)
_EXPM1 = Floats(lambda np, x: np.expm1(x), lambda np, x, v: v + 1, lambda np, x, v: 2 * (v + 1), _half)
_SQRT = Floats(lambda np, x: np.sqrt(x), lambda np, x, v: 0.5 / v, lambda np, x, v: 1 / v**3, _relative)
_SIN = Floats(lambda np, x: np.sin(x), lambda np, x, v: np.cos(x), lambda np, x, v: 1)
_COS = Floats(lambda np, x: np.cos(x), lambda np, x, v: np.sin(x), lambda np, x, v: 1)
_SINH = Floats(lambda np, x: np.sinh(x), lambda np, x, v: np.cosh(x), lambda np, x, v: 2 * np.cosh(x), _half)
_COSH = Floats(lambda np, x: np.cosh(x), lambda np, x, v: np.sinh(x), lambda np, x, v: 2 * v, _half)
_TANH = Floats(lambda np, x: np.tanh(x), lambda np, x, v: 1 - v * v, lambda np, x, v: 1)
_ATAN = Floats(lambda np, x: np.arctan(x), lambda np, x, v: 1 / (1 + x * x), lambda np, x, v: 1)
_ASINH = Floats(lambda np, x: np.arcsinh(x), lambda np, x, v: 1 / np.sqrt(1 + x * x), lambda np, x, v: 1)
_ERF = _GELU_ERF = Floats(
    _each(erf), lambda np, x, v: 1.12837916 * np.exp(-x * x), lambda np, x, v: 2, wide=False
)
_SIGMOID = Floats(lambda np, x: 1 / (1 + np.exp(-x)), lambda np, x, v: v * (1 - v), lambda np, x, v: 0.25)
_SOFTPLUS = Floats(
    lambda np, x: np.where(x > 0, x, 0) + np.log1p(np.exp(-abs(x))),
    lambda np, x, v: 1 / (1 + np.exp(-x)),
    lambda np, x, v: 0.25,
)

_ROWS = (
    Function("exp", 4, floats=_EXP, recorded="prims::exp"),
    Function("log", 4, floats=_LOG, domain=(0, inf), aliases="ln", recorded="prims::log"),
    Function("log1p", 4, "log(1 + x)", "1/(1 + x)", floats=_LOG1P, domain=(-1, inf), recorded="prims::log1p"),
    Function("expm1", 4, "exp(x) - 1", "expm1(x) + 1", floats=_EXPM1, second_slope="exp(x)",
        recorded="prims::expm1"),
    # Correctly rounded by IEEE 754, but not in torch's vector code (0.7 ulp seen).
    Function("sqrt", 2, floats=_SQRT, domain=(0, inf), ball=_sqrt, recorded="prims::sqrt"),
    Function("abs", sympy="Abs", aliases="fabs", recorded="prims::abs"),
    Function("sign", recorded="prims::sign sgn"),
    Function("sin", 4, floats=_SIN, recorded="prims::sin"),
    Function("cos", 4, floats=_COS, recorded="prims::cos"),
    Function("tan", 4, second_slope="1/cos(x)**2"),
    Function("asin", 4, domain=(-1, 1), aliases="arcsin", numpy="np.arcsin"),
    Function("acos", 4, domain=(-1, 1), aliases="arccos", numpy="np.arccos"),
    Function("atan", 4, floats=_ATAN, aliases="arctan", numpy="np.arctan"),
    Function("atan2", 4, operands=2, implemented=_atan2_in, aliases="arctan2", numpy="np.arctan2"),
    # exp(x - log(2)): the difference is rounded before it goes into the exponential.
    Function("sinh", 4, floats=_SINH, magnitude=lambda x, value: abs(value * x) / 4),
    Function("cosh", 4, floats=_COSH, magnitude=lambda x, value: abs(value * x) / 4),
    Function("tanh", 4, floats=_TANH, second_slope="1/cosh(x)**2", recorded="prims::tanh"),
    Function("asinh", 4, floats=_ASINH, aliases="arcsinh", numpy="np.arcsinh"),
    # SymPy's own slope, 1/(sqrt(x - 1)*sqrt(x + 1)), does not cancel beside 1; what engines use does.
    Function(
        "acosh", 4, "sympy.acosh(x)", "1/sqrt(x**2 - 1)", domain=(1, inf),
        aliases="arccosh", numpy="np.arccosh",
    ),
    Function("atanh", 4, domain=(-1, 1), aliases="arctanh", numpy="np.arctanh"),
    Function("log2", formula="log(x)/log(2)", domain=(0, inf)),
    Function("log10", formula="log(x)/log(10)", domain=(0, inf)),
    # In 16 bits the same approximation as in gelu.
    Function("erf", 4, floats=_ERF, in_half="gelu_erf", recorded="prims::erf"),
    # x*x is rounded before it goes into an exponential.
    Function("erfc", 4, magnitude=lambda x, value: abs(value) * (1 + x * x if x > 0 else 1)),
    # exp(lgamma(x)), two functions.
    Function(
        "gamma", 8, domain=(0, inf), stepwise=True, torch=_torch_gamma,
        magnitude=lambda x, value: abs(value) * (2 + abs(_lgamma(x))),
    ),
    # Lanczos' formula adds terms of magnitude 8 about the zeros at 1 and 2.
    Function(
        "lgamma", 8, domain=(0, inf), sympy="loggamma", ball=_lgamma, aliases="log_gamma",
        magnitude=lambda x, value: abs(value) + 4, numpy="special.gammaln",
    ),
    Function(
        "sigmoid", 8, "1/(1 + exp(-x))", "sigmoid(x)*(1 - sigmoid(x))", floats=_SIGMOID,
        ball=_sigmoid, implemented=_sigmoid_in, aliases="logistic", recorded="logistic",
        numpy="special.expit", jax="nn.sigmoid",
    ),
    # In torch the threshold is where log(1 + exp(x)) and x are the same number in every dtype; its own 20 is
    # not, in float64.
    Function(
        "softplus", 8, "log(1 + exp(x))", "sigmoid(x)", floats=_SOFTPLUS,
        second_slope="exp(x - softplus(x))", ball=_softplus,
        torch=lambda torch, x: torch.nn.functional.softplus(x, threshold=40.0),
        numpy=lambda lib, x: lib.np.logaddexp(x, 0.0), jax="nn.softplus",
    ),
    Function("relu", formula="maximum(x, 0)", numpy=lambda lib, x: lib.np.maximum(x, 0.0), jax="nn.relu"),
    Function(
        "leaky_relu", formula="Piecewise((x, x > 0), (negative_slope*x, True))",
        options=(("negative_slope", Fraction(1, 100)),), torch="nn.functional.leaky_relu",
        numpy=lambda lib, x, negative_slope=0.01: lib.np.where(x > 0, x, negative_slope * x),
        jax="nn.leaky_relu", tinygrad=lambda _, x, negative_slope=0.01: x.leaky_relu(negative_slope),
    ),
    Function(
        "elu", formula="Piecewise((x, x > 0), (alpha*expm1(x), True))", options=(("alpha", 1),),
        torch="nn.functional.elu", jax="nn.elu",
        numpy=lambda lib, x, alpha=1.0: lib.np.where(
            x > 0, x, alpha * lib.np.expm1(lib.np.where(x > 0, 0.0, x))),
    ),
    # In NumPy's: below zero 1 + erf cancels.
    Function(
        "gelu", formula="x*(1 + gelu_erf(x/sqrt(2)))/2", torch="nn.functional.gelu",
        numpy=lambda lib, x: x * lib.special.erfc(-x * 0.5**0.5) * 0.5,
        jax=lambda lib, x: lib.nn.gelu(x, approximate=False),
        tinygrad=lambda _, x: x.gelu(approximate="none"),
    ),
    Function(
        "silu", formula="x*sigmoid(x)", aliases="swish", torch="nn.functional.silu",
        numpy=lambda lib, x: x * lib.special.expit(x), jax="nn.silu",
    ),
    Function("maximum", operands=2, sympy="Max"),
    Function("minimum", operands=2, sympy="Min"),
    Function(
        "clip", formula="minimum(maximum(x, y), z)", operands=3, aliases="clamp",
        torch=lambda torch, x, low, high: torch.clamp(*torch.broadcast_tensors(x, low, high)),
        numpy=lambda lib, x, low, high: lib.np.minimum(lib.np.maximum(x, low), high), jax="np.clip",
        tinygrad=lambda _, x, low, high: x.maximum(low).minimum(high),
    ),
    # What formulas alone use.
    # The error function inside gelu: fused kernels take one that is good to about 1e-7 in float32, in itself.
    Function(
        "gelu_erf", 10, "erf(x)", "2*exp(-x**2)/sqrt(pi)", floats=_GELU_ERF,
        spoken=False, shown="erf", ball=lambda x: x.erf(),
        magnitude=lambda x, value: abs(value) + 1,
    ),
    Function(
        "logaddexp", formula="log(exp(x) + exp(y))",
        slope=("exp(x - logaddexp(x, y))", "exp(y - logaddexp(x, y))"),
        operands=2, spoken=False,
    ),
    Function(
        "digamma", 8, domain=(0, inf), spoken=False, recorded="prims::digamma",
        magnitude=lambda x, value: abs(value) + 1 + (abs(1 / x) if x > 0 else x.cot_pi() ** 2 * abs(x)),
    ),
    Function(
        "polygamma", 8, operands=2, domain=(0, inf), spoken=False, ball=_polygamma, stepwise=True),
    Function("erfinv", 8, domain=(-1, 1), spoken=False, recorded="erf_inv prims::erf_inv"),
    Function(
        "erfcx", 8, "exp(x**2)*erfc(x)", "2*x*erfcx(x) - 2/sqrt(pi)", spoken=False,
        ball=lambda x: (x * x).exp() * x.erfc(),
        magnitude=lambda x, value: abs(value) * (1 if x > 0 else 1 + x * x),
        recorded="special_erfcx prims::erfcx",
    ),
    # The normal distribution function, its logarithm and its inverse.
    Function(
        "ndtr", 4, "erfc(-x/sqrt(2))/2", "exp(-x**2/2)/sqrt(2*pi)", spoken=False, ball=_normal,
        magnitude=lambda x, value: abs(value) * (1 if x > 0 else 1 + x * x / 2), recorded="special_ndtr",
    ),
    Function(
        "log_ndtr", 4, "log(erfc(-x/sqrt(2))/2)", "sqrt(2)/sqrt(pi)/erfcx(-x/sqrt(2))", spoken=False,
        ball=lambda x: _normal(x).log(),
        magnitude=lambda x, value: abs(value) * (1 + x * x / 2 if x > 0 else 1),
        recorded="special_log_ndtr",
    ),
    Function(
        "ndtri", 8, "sqrt(2)*erfinv(2*x - 1)", "sqrt(2*pi)*exp(ndtri(x)**2/2)", domain=(0, 1), spoken=False,
        ball=lambda p: -_number(p, 2).sqrt() * (2 * p).erfcinv(), recorded="special_ndtri prims::ndtri",
    ),
    # Bessel functions, and those times exp(-|x|), which do not overflow. Cephes, which engines use: peak
    # relative errors of 5.8e-16 (I0) and 2.0e-15 (I1), in float32 of 4.0e-7 and 1.5e-6. Its series for i0e is
    # summed in 16 bits where a kernel takes one number at a time (3.4 ulp off, measured).
    Function(
        "besseli", 26, operands=2, spoken=False, stepwise=True, ball=lambda order, x: x.bessel_i(order)),
    Function(
        "i0e", 8, "exp(-abs(x))*besseli(0, x)", "i1e(x) - sign(x)*i0e(x)", spoken=False, stepwise=True,
        ball=lambda x: (-abs(x)).exp() * x.bessel_i(0), recorded="special_i0e bessel_i0e",
    ),
    Function(
        "i1e", 26, "exp(-abs(x))*besseli(1, x)", "i0e(x) - i1e(x)*(sign(x) + 1/x)", spoken=False,
        ball=lambda x: (-abs(x)).exp() * x.bessel_i(1), recorded="special_i1e bessel_i1e",
    ),
    Function("floor", steps=True, spoken=False, recorded="prims::floor"),
    Function("ceil", steps=True, spoken=False, recorded="prims::ceil"),
    Function("trunc", steps=True, spoken=False, ball=_trunc, recorded="fix prims::trunc"),
    # Half to even.
    Function("nearest", steps=True, spoken=False, ball=_nearest, recorded="round prims::round"),
)  # fmt: skip

FUNCTIONS: Mapping[str, Function] = {row.name: row for row in _ROWS}
SPOKEN: Mapping[str, Function] = {name: row for name, row in FUNCTIONS.items() if row.spoken}


def recorded(operands: int, spoken: bool) -> dict[str, str]:
    """The functions of so many operands and no options, by the names under which recorders see them."""
    rows = [row for row in _ROWS if (row.operands, row.spoken, row.options) == (operands, spoken, ())]
    return {name: row.name for row in rows for name in (row.name, *row.recorded.split())}
