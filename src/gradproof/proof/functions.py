"""The scalar functions as SymPy formulas, made of the rows of `functions`.

A `Named` function is one that engines compute as a whole: it carries its `definition`, from which calculus
derives the exact derivative, and, as `fdiff`, the textbook form of the derivative, which serves the rounding
model alone. A mistake in a textbook form can widen or shift a rounding set; it can never change an exact
value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import sympy
from sympy import Expr, Symbol, parse_expr

from ..functions import FUNCTIONS, Function

CONSTANTS = {"pi": sympy.pi}
_XYZ = tuple(Symbol(letter, real=True) for letter in "xyz")


class Named(sympy.Function):
    """A function of real variables with a `definition` in elementary functions."""

    row: Function

    def _eval_is_extended_real(self) -> bool:
        return True

    def definition(self) -> Expr:
        return self._said(self.row.formula)

    def fdiff(self, argindex: int = 1) -> Expr:
        slope = self.row.slope
        return self._said(slope if isinstance(slope, str) else slope[argindex - 1])

    def _said(self, text: str) -> Expr:
        return read(text).xreplace(dict(zip(_XYZ, self.args, strict=False)))

    def _eval_evalf(self, prec: int) -> Expr:
        # Of a number: SymPy compares such constants in `Max`, `Min` and conditions.
        return self.definition()._eval_evalf(prec)


class Step(sympy.Function):
    """A function that is constant between its jumps; at a jump, too, its derivative is taken to be 0, as
    engines do.

    SymPy's own `floor` is for integers, in index maps, and has no derivative.
    """

    row: Function

    def _eval_is_extended_real(self) -> bool:
        return True

    def fdiff(self, argindex: int = 1) -> Expr:
        return sympy.S.Zero


def _made(row: Function) -> Callable[..., Expr]:
    if row.steps or row.slope:
        kind = Step if row.steps else Named
        return type(sympy.Function)(row.name, (kind,), {"nargs": row.operands, "row": row})
    if not row.formula:
        return getattr(sympy, row.sympy or row.name)
    names = (*_XYZ[: row.operands], *(Symbol(name) for name, _ in row.options))
    return lambda *given: read(row.formula).xreplace(dict(zip(names, given, strict=True)))


# By the function's name, what makes its SymPy form of operands, and after them the options.
FORMS: dict[str, Callable[..., Expr]] = {name: _made(row) for name, row in FUNCTIONS.items()}


def __getattr__(name: str) -> Callable[..., Expr]:
    """A function of a row's own, as pickle asks this module for it by its name.

    Raises `AttributeError` where there is none.
    """
    form = FORMS.get(name)
    if isinstance(form, type) and form.__module__ == __name__:
        return form
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def read(text: str) -> Expr:
    """A formula of the table: `x`, `y` and `z` are its operands."""
    return parse_expr(text, {**FORMS, **dict(zip("xyz", _XYZ, strict=True)), "sympy": sympy})


def define(formula: Expr) -> Expr:
    """The formula with every `Named` function replaced by its definition: what calculus differentiates."""
    named = formula.atoms(Named)
    while named:
        formula = formula.xreplace({call: call.definition() for call in named})
        named = formula.atoms(Named)
    return formula


@cache
def second_slope(formula: Expr, z: Symbol) -> Expr | None:
    """A second form of the slope of a formula that is one function of `z`, where implementations use two.

    They round differently: `1 - tanh(x)**2` is all but exact beside 0, and `1/cosh(x)**2` beside 1.
    """
    row = _SECOND.get(formula.func)
    return read(row.second_slope).xreplace({_XYZ[0]: z}) if row and formula.args == (z,) else None


_SECOND = {FORMS[row.name]: row for row in FUNCTIONS.values() if row.second_slope}
