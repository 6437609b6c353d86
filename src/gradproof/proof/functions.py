"""The scalar functions of the language, as SymPy formulas.

Most are one line of SymPy. A `Named` function is one that engines compute as a whole: it carries its
`definition`, from which calculus derives the exact derivative, and, as `fdiff`, the textbook form of the
derivative (`s*(1 - s)`), which serves the rounding model alone: its cancellation is what a good engine really
has. A mistake in a textbook form can widen or shift a rounding set; it can never change an exact value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sympy
from sympy import Abs, Expr, Max, Min, Piecewise, Rational, Symbol


class Named(sympy.Function):
    """A function of real variables with a `definition` in elementary functions."""

    nargs = 1

    def _eval_is_extended_real(self) -> bool:
        return True

    def definition(self) -> Expr:
        raise NotImplementedError

    def _eval_evalf(self, prec: int) -> Expr:
        # Of a number: SymPy compares such constants in `Max`, `Min` and conditions.
        return self.definition()._eval_evalf(prec)


class sigmoid(Named):
    def definition(self) -> Expr:
        return 1 / (1 + sympy.exp(-self.args[0]))

    def fdiff(self, argindex: int = 1) -> Expr:
        return self * (1 - self)


class softplus(Named):
    def definition(self) -> Expr:
        return sympy.log(1 + sympy.exp(self.args[0]))

    def fdiff(self, argindex: int = 1) -> Expr:
        return sigmoid(self.args[0])


class logaddexp(Named):
    """`log(exp(a) + exp(b))`, as one function of two variables."""

    nargs = 2

    def definition(self) -> Expr:
        return sympy.log(sympy.exp(self.args[0]) + sympy.exp(self.args[1]))

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.exp(self.args[argindex - 1] - self)


class acosh(Named):
    def definition(self) -> Expr:
        return sympy.acosh(self.args[0])

    def fdiff(self, argindex: int = 1) -> Expr:
        # SymPy's own, 1/(sqrt(x - 1)*sqrt(x + 1)), does not cancel beside 1; what engines use does.
        return 1 / sympy.sqrt(self.args[0] ** 2 - 1)


class log1p(Named):
    def definition(self) -> Expr:
        return sympy.log(1 + self.args[0])

    def fdiff(self, argindex: int = 1) -> Expr:
        return 1 / (1 + self.args[0])


class expm1(Named):
    def definition(self) -> Expr:
        return sympy.exp(self.args[0]) - 1

    def fdiff(self, argindex: int = 1) -> Expr:
        return self + 1


class gelu_erf(Named):
    """The error function inside gelu: fused kernels take one that is good to about 1e-7 in float32, in
    itself."""

    def definition(self) -> Expr:
        return sympy.erf(self.args[0])

    def fdiff(self, argindex: int = 1) -> Expr:
        return 2 * sympy.exp(-(self.args[0] ** 2)) / sympy.sqrt(sympy.pi)


class erfcx(Named):
    def definition(self) -> Expr:
        return sympy.exp(self.args[0] ** 2) * sympy.erfc(self.args[0])

    def fdiff(self, argindex: int = 1) -> Expr:
        return 2 * self.args[0] * self - 2 / sympy.sqrt(sympy.pi)


class ndtr(Named):
    """The normal distribution function."""

    def definition(self) -> Expr:
        return sympy.erfc(-self.args[0] / sympy.sqrt(2)) / 2

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.exp(-(self.args[0] ** 2) / 2) / sympy.sqrt(2 * sympy.pi)


class log_ndtr(Named):
    def definition(self) -> Expr:
        return sympy.log(sympy.erfc(-self.args[0] / sympy.sqrt(2)) / 2)

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.sqrt(2) / sympy.sqrt(sympy.pi) / erfcx(-self.args[0] / sympy.sqrt(2))


class ndtri(Named):
    """The inverse of the normal distribution function."""

    def definition(self) -> Expr:
        return sympy.sqrt(2) * sympy.erfinv(2 * self.args[0] - 1)

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.sqrt(2 * sympy.pi) * sympy.exp(self**2 / 2)


class i0e(Named):
    """The Bessel function I0 times exp(-|x|), which does not overflow."""

    def definition(self) -> Expr:
        return sympy.exp(-Abs(self.args[0])) * sympy.besseli(0, self.args[0])

    def fdiff(self, argindex: int = 1) -> Expr:
        return i1e(self.args[0]) - sympy.sign(self.args[0]) * self


class i1e(Named):
    """The Bessel function I1 times exp(-|x|)."""

    def definition(self) -> Expr:
        return sympy.exp(-Abs(self.args[0])) * sympy.besseli(1, self.args[0])

    def fdiff(self, argindex: int = 1) -> Expr:
        x = self.args[0]
        return i0e(x) - self * (sympy.sign(x) + 1 / x)


class Step(sympy.Function):
    """A function that is constant between its jumps; at a jump, too, its derivative is taken to be 0, as
    engines do.

    SymPy's own `floor` is for integers, in index maps, and has no derivative.
    """

    nargs = 1

    def _eval_is_extended_real(self) -> bool:
        return True

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.S.Zero


class floor(Step):
    pass


class ceil(Step):
    pass


class trunc(Step):
    """Towards 0."""


class nearest(Step):
    """The nearest integer, the even one of two."""


def define(formula: Expr) -> Expr:
    """The formula with every `Named` function replaced by its definition: what calculus differentiates."""
    named = formula.atoms(Named)
    while named:
        formula = formula.xreplace({call: call.definition() for call in named})
        named = formula.atoms(Named)
    return formula


@dataclass(frozen=True)
class Scalar:
    """A function of the language: `formula` builds SymPy from operands, `options` are keyword constants."""

    name: str
    arity: int
    formula: Callable[..., Expr]
    options: tuple[tuple[str, Expr], ...] = ()


def _leaky(z: Expr, negative_slope: Expr) -> Expr:
    return Piecewise((z, z > 0), (negative_slope * z, True))


def _elu(z: Expr, alpha: Expr) -> Expr:
    return Piecewise((z, z > 0), (alpha * expm1(z), True))


def _gelu(z: Expr) -> Expr:
    return z * (1 + gelu_erf(z / sympy.sqrt(2))) / 2


SCALARS = {
    row.name: row
    for row in (
        Scalar("exp", 1, sympy.exp),
        Scalar("log", 1, sympy.log),
        Scalar("log1p", 1, log1p),
        Scalar("expm1", 1, expm1),
        Scalar("sqrt", 1, sympy.sqrt),
        Scalar("abs", 1, Abs),
        Scalar("sign", 1, sympy.sign),
        Scalar("sin", 1, sympy.sin),
        Scalar("cos", 1, sympy.cos),
        Scalar("tan", 1, sympy.tan),
        Scalar("asin", 1, sympy.asin),
        Scalar("acos", 1, sympy.acos),
        Scalar("atan", 1, sympy.atan),
        Scalar("atan2", 2, sympy.atan2),
        Scalar("sinh", 1, sympy.sinh),
        Scalar("cosh", 1, sympy.cosh),
        Scalar("tanh", 1, sympy.tanh),
        Scalar("asinh", 1, sympy.asinh),
        Scalar("acosh", 1, acosh),
        Scalar("atanh", 1, sympy.atanh),
        Scalar("log2", 1, lambda z: sympy.log(z) / sympy.log(2)),
        Scalar("log10", 1, lambda z: sympy.log(z) / sympy.log(10)),
        Scalar("erf", 1, sympy.erf),
        Scalar("erfc", 1, sympy.erfc),
        Scalar("gamma", 1, sympy.gamma),
        Scalar("lgamma", 1, sympy.loggamma),
        Scalar("sigmoid", 1, sigmoid),
        Scalar("softplus", 1, softplus),
        Scalar("relu", 1, lambda z: Max(z, 0)),
        Scalar("leaky_relu", 1, _leaky, (("negative_slope", Rational(1, 100)),)),
        Scalar("elu", 1, _elu, (("alpha", Rational(1)),)),
        Scalar("gelu", 1, _gelu),
        Scalar("silu", 1, lambda z: z * sigmoid(z)),
        Scalar("maximum", 2, Max),
        Scalar("minimum", 2, Min),
        Scalar("clip", 3, lambda z, low, high: Min(Max(z, low), high)),
    )
}

CONSTANTS = {"pi": sympy.pi}


def operands(count: int) -> tuple[Symbol, ...]:
    """Fresh real symbols for looking at a formula apart from any graph."""
    return tuple(sympy.Symbol(f"x{n}", real=True) for n in range(count))
