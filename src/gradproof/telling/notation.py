"""Formulas as people read them: plain text and LaTeX, from the calculus's SymPy expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import sympy
from sympy.core.sorting import default_sort_key
from sympy.printing.latex import LatexPrinter
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

from ..functions import FUNCTIONS

MANY = 60  # terms of a sum
BAR = "\u0304"
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "
    "nu xi pi rho sigma tau phi chi psi omega"
).split()


# What stands for a name's entry in place of the name: its number, for one.
Filling = Mapping[sympy.Basic, str]


def text(expression: sympy.Basic, filling: Filling = MappingProxyType({})) -> str:
    """`Σ_k X[i,k]*w[k]`, `δ(i,j)`, `2*x*(w*x - y)`; filled with numbers, `2*1*(1*1 - 2)`."""
    return _Text(filling).doprint(_short(expression))


def latex(expression: sympy.Basic, filling: Filling = MappingProxyType({})) -> str:
    """The same in LaTeX, for GitHub's math."""
    return _Latex(filling).doprint(_short(expression))


def _short(expression: sympy.Basic) -> sympy.Basic:
    """Fractions that only a computer wrote, such as a float's for 1/3, as decimals."""
    long = [number for number in expression.atoms(sympy.Rational) if number.q > 10**9]
    return (
        expression.xreplace({number: sympy.Float(float(number), 6) for number in long})
        if long
        else expression
    )


def ordered(expression: sympy.Add) -> list[sympy.Expr]:
    """The terms of a sum, positive ones first, as people write them. SymPy's own order compares each term's
    powers of all symbols, which of very many terms nobody would see."""
    many = len(expression.args) > MANY
    terms = sorted(expression.args, key=default_sort_key) if many else expression.as_ordered_terms()
    return sorted(terms, key=lambda term: term.could_extract_minus_sign())


class _Shared:
    """What both notations have alike."""

    def __init__(self, filling: Filling) -> None:
        super().__init__()
        self.filling = filling


class _Text(_Shared, StrPrinter):
    printmethod = "_gradproof_text"  # not SymPy's own: Indexed would print itself

    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
        first, *rest = ordered(expr)
        out = self.parenthesize(first, PRECEDENCE["Add"])
        for term in rest:
            if term.could_extract_minus_sign():
                out += f" - {self.parenthesize(-term, PRECEDENCE['Add'] + 1)}"
            else:
                out += f" + {self.parenthesize(term, PRECEDENCE['Add'])}"
        return out

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return str(expr.p) if abs(expr.p) < 10**15 else f"{float(expr):.6g}"

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.filling.get(expr) or _named(expr.name)

    def _print_Indexed(self, expr: sympy.Indexed) -> str:
        if expr in self.filling:
            return self.filling[expr]
        return f"{_named(str(expr.base.label))}[{','.join(map(self._print, expr.indices))}]"

    def _print_Sum(self, expr: sympy.Sum) -> str:
        indices = ",".join(str(limit[0]) for limit in expr.limits)
        return f"Σ_{indices} {self.parenthesize(expr.function, PRECEDENCE['Mul'], strict=True)}"

    def _print_Reduction(self, expr: sympy.Basic) -> str:
        name, body, *indices = expr.args
        return f"{name}_{','.join(map(str, indices))} {self.parenthesize(body, PRECEDENCE['Mul'])}"

    def _print_KroneckerDelta(self, expr: sympy.KroneckerDelta) -> str:
        return f"δ({self._print(expr.args[0])},{self._print(expr.args[1])})"

    def _print_Piecewise(self, expr: sympy.Piecewise) -> str:
        out = ""
        for value, condition in reversed(expr.args):
            shown = self._print(value)
            always = condition == True  # noqa: E712 - SymPy's true
            out = shown if always else f"where({self._print(condition)}, {shown}, {out})"
        return out

    def _print_Heaviside(self, expr: sympy.Heaviside) -> str:
        return f"step({self._print(expr.args[0])})"

    def _print_Function(self, expr: sympy.Function) -> str:
        name = SHOWN_AS.get(type(expr).__name__, type(expr).__name__)
        return f"{name}({', '.join(map(self._print, expr.args))})"

    _print_Abs = _print_Max = _print_Min = _print_sign = _print_Function

    def _print_polygamma(self, expr: sympy.polygamma) -> str:
        order, argument = map(self._print, expr.args)
        return f"digamma({argument})" if order == "0" else f"polygamma({order}, {argument})"


SHOWN_AS = {
    row.sympy or row.name: row.shown or row.name for row in FUNCTIONS.values() if row.sympy or row.shown
}


def _named(name: str) -> str:
    """A node's name; one that is a source text stands in brackets."""
    bare = name.replace(BAR, "")
    return (
        name if bare.isidentifier() or (name.startswith("(") and name.endswith((")", BAR))) else f"({name})"
    )


class _Latex(_Shared, LatexPrinter):
    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> str:
        first, *rest = ordered(expr)
        out = self._print(first)
        for term in rest:
            if term.could_extract_minus_sign():
                shown = self._print(-term)
                out += f" - {self._brackets(shown) if (-term).is_Add else shown}"
            else:
                out += f" + {self._print(term)}"
        return out

    def _brackets(self, tex: str) -> str:
        return rf"\left({tex}\right)"

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        return self.filling.get(expr) or latex_name(expr.name)

    def _print_Indexed(self, expr: sympy.Indexed) -> str:
        if expr in self.filling:
            return self.filling[expr]
        name = latex_name(str(expr.base.label))
        base = f"{{{name}}}" if "_{" in name else name
        return f"{base}_{{{','.join(map(self._print, expr.indices))}}}"

    def _print_Sum(self, expr: sympy.Sum) -> str:
        indices = ",".join(str(limit[0]) for limit in expr.limits)
        body = self._print(expr.function)
        return rf"\sum_{{{indices}}} {self._brackets(body) if expr.function.is_Add else body}"

    def _print_Reduction(self, expr: sympy.Basic) -> str:
        name, body, *indices = expr.args
        return rf"\operatorname{{{name}}}_{{{','.join(map(str, indices))}}} {self._print(body)}"

    def _print_KroneckerDelta(self, expr: sympy.KroneckerDelta, exp: str | None = None) -> str:
        return rf"\delta_{{{self._print(expr.args[0])},{self._print(expr.args[1])}}}"

    def _print_Heaviside(self, expr: sympy.Heaviside, exp: str | None = None) -> str:
        return rf"\operatorname{{step}}{self._brackets(self._print(expr.args[0]))}"

    def _print_Function(self, expr: sympy.Function, exp: str | None = None) -> str:
        name = type(expr).__name__
        if name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "log", "exp", "asin", "acos", "atan", "erf"):
            return super()._print_Function(expr, exp)
        name = SHOWN_AS.get(name, name).replace("_", r"\_")
        args = ", ".join(map(self._print, expr.args))
        shown = rf"\operatorname{{{name}}}{self._brackets(args)}"
        return rf"{shown}^{{{exp}}}" if exp is not None else shown


def latex_name(name: str) -> str:
    r"""A user's name in LaTeX: `y_hat` is \hat{y}, `lambda_` is \lambda, a long word is set upright; nothing
    else gets in.

    >>> latex_name("y_hat")
    '\\hat{y}'
    """
    if BAR in name:
        return rf"\bar{{{latex_name(name.replace(BAR, ''))}}}"
    if not name.replace("_", "").isalnum():
        plain = re.sub(
            r"([\\{}$&#^_%~])", lambda m: _ESCAPED[m[1]], name.strip("()") if name.startswith("(") else name
        )
        return rf"(\text{{{plain}}})"
    stem, *subscripts = name.strip("_").split("_")
    accent = subscripts.pop() if subscripts and subscripts[-1] in ("hat", "bar", "tilde") else ""
    found = re.fullmatch(r"([^\W\d_]+)(\d+)", stem)
    if found:
        stem, subscripts = found[1], [found[2], *subscripts]
    out = rf"\{stem}" if stem.lower() in _GREEK and stem[1:] == stem[1:].lower() and stem in _GREEK else stem
    out = out if len(stem) == 1 or out.startswith("\\") else rf"\mathrm{{{stem}}}"
    out = rf"\{accent}{{{out}}}" if accent else out
    if subscripts:
        parts = ",".join(
            part if len(part) == 1 or part.isdigit() else rf"\mathrm{{{part}}}" for part in subscripts
        )
        out = rf"{out}_{{{parts}}}"
    return out


_ESCAPED = {
    "\\": r"\backslash ", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "^": r"\char94 ",
    "_": r"\_", "%": r"\%", "~": r"\sim ",
}  # fmt: skip
