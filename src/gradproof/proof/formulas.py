"""Formulas as functions of arrays: SymPy prints them as calls of an arithmetic's operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import sympy
from sympy.printing.str import StrPrinter

from ..functions import FUNCTIONS
from .arithmetic import Arithmetic
from .balls import Operand
from .graph import STILL


class _Printer(StrPrinter):
    """Prints a formula as calls of the arithmetic's operations, one call an operation that rounds."""

    def _call(self, name: str, args: Sequence[sympy.Basic]) -> str:
        return f"{name}({', '.join(map(self._print, args))})"

    def _print_Add(self, expr: sympy.Add) -> str:
        return self._call("add", expr.args)

    def _print_Mul(self, expr: sympy.Mul) -> str:
        for log in (factor for factor in expr.args if isinstance(factor, sympy.log)):
            for power in (factor for factor in expr.args if factor.is_Pow and factor.base == log.args[0]):
                if not power.exp.is_number:
                    rest = [factor for factor in expr.args if factor not in (log, power)]
                    both = self._call("powlog", power.args)
                    return f"mul({', '.join([both, *map(self._print, rest)])})" if rest else both
        if expr.args[0] is sympy.S.NegativeOne:
            rest = sympy.Mul(*expr.args[1:], evaluate=False) if len(expr.args) > 2 else expr.args[1]
            return f"neg({self._print(rest)})"
        over: list[sympy.Expr] = []
        under: list[sympy.Expr] = []
        for factor in expr.args:
            if factor.is_Pow and factor.exp.is_Rational and factor.exp < 0:
                under.append(sympy.Pow(factor.base, -factor.exp))
            elif factor.is_Rational and factor.p in (1, -1) and factor.q != 1:
                under.append(sympy.Integer(factor.p * factor.q))
            else:
                over.append(factor)
        if not under:
            return self._call("mul", over)
        if not any(factor.free_symbols for factor in over):
            # Engines divide a number by a tensor as the number times the tensor's reciprocal.
            bottom = self._call("mul", under) if len(under) > 1 else self._print(under[0])
            return f"mul({', '.join([*map(self._print, over), f'inverse({bottom})'])})"
        top = self._call("mul", over) if len(over) > 1 else self._print(over[0])
        # The slope of a/b is -a/b**2. Engines divide twice, so b**2 is not there to overflow, underflow or
        # hold 0.
        squared = [factor.base for factor in under if factor.is_Pow and factor.exp == 2]
        rest = [factor for factor in under if not (factor.is_Pow and factor.exp == 2)]
        for base in (base for base in squared for _ in range(2)):
            top = f"div({top}, {self._print(base)})"
        if not rest:
            return top
        return f"div({top}, {self._call('mul', rest) if len(rest) > 1 else self._print(rest[0])})"

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        base, exponent = expr.base, expr.exp
        if exponent.is_Integer and exponent >= 0:
            return f"power({self._print(base)}, {int(exponent)})"
        if base.is_Integer and exponent.could_extract_minus_sign() and not exponent.is_number:
            # In products SymPy turns 0.1**x into 10**(-x).
            return f"pow(number(1, {int(base)}), {self._print(-exponent)})"
        if exponent.is_Integer:
            # The slope of 1/x is the square of what was computed as 1/x.
            return f"power(inverse({self._print(base)}), {-int(exponent)})"
        if exponent.is_Rational and exponent < 0:
            return f"inverse({self._print(sympy.Pow(base, -exponent))})"
        if exponent is sympy.S.Half:
            return self._call("sqrt", [base])
        return self._call("pow", [base, exponent])

    def _print_Rational(self, expr: sympy.Rational) -> str:
        return f"number({expr.p}, {expr.q})"

    _print_Integer = _print_Zero = _print_One = _print_NegativeOne = _print_Half = _print_Rational

    def _print_Pi(self, expr: sympy.Expr) -> str:
        return "pi()"

    def _print_Exp1(self, expr: sympy.Expr) -> str:
        return "e()"

    def _print_Function(self, expr: sympy.Function) -> str:
        if isinstance(expr, sympy.polygamma) and expr.args[0] == 0:
            return self._call("digamma", expr.args[1:])
        name = _CALLS.get(type(expr).__name__, type(expr).__name__)
        if name in ("sign", "step"):
            return self._call(_sure(expr) + name, expr.args[:1])
        return self._call(name, expr.args)

    _print_Abs = _print_sign = _print_Max = _print_Min = _print_Heaviside = _print_DiracDelta = (
        _print_Function
    )
    _print_exp = _print_ExpBase = _print_Function

    def _print_Piecewise(self, expr: sympy.Piecewise) -> str:
        pieces = [f"({self._print(value)}, {self._print(condition)})" for value, condition in expr.args]
        return f"piecewise({', '.join(pieces)})"

    def _print_Relational(self, expr: sympy.Rel) -> str:
        a, b = self._side(expr.lhs), self._side(expr.rhs)
        sure = _sure(expr)
        return {
            "<": f"{sure}less({a}, {b})", "<=": f"{sure}less_equal({a}, {b})", "==": f"{sure}equal({a}, {b})",
            ">": f"{sure}less({b}, {a})", ">=": f"{sure}less_equal({b}, {a})",
                "!=": f"negate({sure}equal({a}, {b}))",
        }[expr.rel_op]  # fmt: skip

    def _side(self, expr: sympy.Expr) -> str:
        """One side of a relation; indices and the integers beside them stay plain."""
        return str(int(expr)) if expr.is_Integer else self._print(expr)

    def _print_And(self, expr: sympy.And) -> str:
        return self._call("both", expr.args)

    def _print_Or(self, expr: sympy.Or) -> str:
        return self._call("either", expr.args)

    def _print_Not(self, expr: sympy.Not) -> str:
        return self._call("negate", expr.args)

    def _print_BooleanTrue(self, expr: sympy.Expr) -> str:
        return "true"

    def _print_BooleanFalse(self, expr: sympy.Expr) -> str:
        return "false"


def _sure(condition: sympy.Basic) -> str:
    """`sure_` for what is a matter of given numbers alone, which nothing that is differentiated moves."""
    still = all(symbol.name.startswith(STILL) or symbol.is_integer for symbol in condition.free_symbols)
    return "sure_" if still and condition.free_symbols else ""


_CALLS = {row.sympy: row.name for row in FUNCTIONS.values() if row.sympy} | {
    "Heaviside": "step",
    "DiracDelta": "dirac",
}


@cache
def compiled(
    formula: sympy.Expr, args: tuple[sympy.Symbol, ...], arithmetic: Arithmetic, mode: str
) -> Callable[..., Operand]:
    """The formula as a function of arrays, lambdified for one arithmetic; `mode` names one of its tables."""
    return FunctionType(_code(formula, args), _names(arithmetic, mode), "compiled")


@cache
def _names(arithmetic: Arithmetic, mode: str) -> dict[str, Any]:
    return dict(arithmetic.tables[mode])


@cache
def _code(formula: sympy.Expr, args: tuple[sympy.Symbol, ...]) -> CodeType:
    """What SymPy makes of a formula, once for all arithmetics: only the operations' names stand in it.

    Random roundings are an arithmetic each, of which there are many.
    """
    code: CodeType = sympy.lambdify(args, formula, modules=[{}], printer=_Printer, cse=True).__code__
    return code
