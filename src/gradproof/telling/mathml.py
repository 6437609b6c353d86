"""Formulas as MathML, by SymPy's presentation printer in our notation; every name is a text node, so nothing
gets out of it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from types import MappingProxyType
from xml.dom.minidom import Document, Element, Text

import sympy
from sympy.core.sorting import default_sort_key
from sympy.printing.mathml import MathMLPresentationPrinter
from sympy.printing.pretty.pretty_symbology import greek_unicode

from .notation import BAR, SHOWN_AS, Filling, ordered

ACCENTS = {"hat": "^", "bar": "¯", "tilde": "~"}


def mathml(expression: sympy.Basic, filling: Filling = MappingProxyType({})) -> str:
    """One `<mrow>` or `<mi>`, without the `<math>` around it."""
    return _MathML(filling)._print(expression).toxml()


def texts(tag: str, text: str) -> str:
    """One element with a text in it, escaped."""
    return _MathML({}).leaf(tag, text).toxml()


class _MathML(MathMLPresentationPrinter):
    printmethod = "_gradproof_mathml"

    def __init__(self, filling: Filling) -> None:
        super().__init__({"mul_symbol": "times"})
        self.filling = filling
        # SymPy writes its texts as they are, entities and all, so that a name with a tag in it would be one.
        # Here every text is escaped, and SymPy's own entities are turned into their characters before.
        self.dom = Document()
        self.dom.createTextNode = lambda data: self.text(html.unescape(data))  # type: ignore[method-assign]

    def text(self, data: str) -> Text:
        return Document.createTextNode(self.dom, data)

    def leaf(self, tag: str, text: str) -> Element:
        element = self.dom.createElement(tag)
        # XML has no words for control characters, not even escaped.
        element.appendChild(self.text("".join(c if c.isprintable() else "?" for c in text)))
        return element

    def over(self, tag: str, *children: Element) -> Element:
        element = self.dom.createElement(tag)
        for child in children:
            element.appendChild(child)
        return element

    def name(self, name: str) -> Element:
        """`y_hat` has a hat, `x_1` a subscript, a Greek word is its letter; a source text stands in
        brackets."""
        if BAR in name:
            return self.over("mover", self.name(name.replace(BAR, "")), self.leaf("mo", "¯"))
        if not name.isidentifier():
            return self.leaf("mtext", name if name.startswith("(") else f"({name})")
        stem, *below = name.strip("_").split("_") if name.strip("_") else (name,)
        accent = below.pop() if below and below[-1] in ACCENTS else ""
        shown = self.leaf("mi", greek_unicode.get(stem, stem))
        if accent:
            shown = self.over("mover", shown, self.leaf("mo", ACCENTS[accent]))
        if not below:
            return shown
        return self.over(
            "msub", shown, self.leaf("mi", ",".join(greek_unicode.get(part, part) for part in below))
        )

    def listed(self, items: Iterable[sympy.Basic]) -> list[Element]:
        shown: list[Element] = []
        for n, item in enumerate(items):
            shown += [self.leaf("mo", ",")] * bool(n) + [self._print(item)]
        return shown

    def bracketed(self, *children: Element) -> Element:
        return self.over("mrow", self.leaf("mo", "("), *children, self.leaf("mo", ")"))

    def called(self, name: str, items: Iterable[sympy.Basic]) -> Element:
        return self.over("mrow", self.leaf("mi", name), self.bracketed(*self.listed(items)))

    def _print_Symbol(self, sym: sympy.Symbol, style: str = "plain") -> Element:
        return self.leaf("mn", self.filling[sym]) if sym in self.filling else self.name(sym.name)

    def _print_Indexed(self, e: sympy.Indexed) -> Element:
        if e in self.filling:
            return self.leaf("mn", self.filling[e])
        return self.over("msub", self.name(str(e.base.label)), self.over("mrow", *self.listed(e.indices)))

    def _print_Add(self, expr: sympy.Add, order: str | None = None) -> Element:
        terms = ordered(expr)
        shown = [self._print(terms[0])]
        for term in terms[1:]:
            negative = term.could_extract_minus_sign()
            body = -term if negative else term
            printed = self._print(body)
            shown += [
                self.leaf("mo", "−" if negative else "+"),
                self.bracketed(printed) if body.is_Add else printed,
            ]
        return self.over("mrow", *shown)

    def _print_Sum(self, e: sympy.Sum) -> Element:
        below = self.over("mrow", *self.listed(limit[0] for limit in e.limits))
        body = self._print(e.function)
        sign = self.over("munder", self.leaf("mo", "∑"), below)
        return self.over("mrow", sign, self.bracketed(body) if e.function.is_Add else body)

    def _print_Reduction(self, e: sympy.Basic) -> Element:
        name, body, *indices = e.args
        sign = self.over("munder", self.leaf("mi", str(name)), self.over("mrow", *self.listed(indices)))
        return self.over("mrow", sign, self._print(body))

    def _print_KroneckerDelta(self, e: sympy.KroneckerDelta) -> Element:
        return self.over("msub", self.leaf("mi", "δ"), self.over("mrow", *self.listed(e.args)))

    def _print_Heaviside(self, e: sympy.Heaviside) -> Element:
        return self.called("step", e.args[:1])

    def _print_polygamma(self, e: sympy.polygamma) -> Element:
        return self.called("digamma", e.args[1:]) if e.args[0] == 0 else self.called("polygamma", e.args)

    def _print_Function(self, e: sympy.Function) -> Element:
        name = type(e).__name__
        return self.called(SHOWN_AS.get(name, name), e.args)

    def _print_exp(self, e: sympy.exp) -> Element:
        return self.over("msup", self.leaf("mi", "e"), self._print(e.args[0]))

    def _print_Exp1(self, e: sympy.Basic) -> Element:
        return self.leaf("mi", "e")

    def _print_Pi(self, e: sympy.Basic) -> Element:
        return self.leaf("mi", "π")

    def _print_sign(self, e: sympy.Basic) -> Element:
        return self.called("sign", e.args)

    def _print_Max(self, e: sympy.Basic) -> Element:
        return self.called(
            "maximum" if isinstance(e, sympy.Max) else "minimum", sorted(e.args, key=default_sort_key)
        )

    _print_Min = _print_Max

    def _print_Piecewise(self, e: sympy.Piecewise) -> Element:
        rows = []
        for value, condition in e.args:
            always = condition == True  # noqa: E712 - SymPy's true
            told = self.leaf("mtext", "otherwise") if always else self._print(condition)
            rows.append(self.over("mtr", self.over("mtd", self._print(value)), self.over("mtd", told)))
        return self.over("mrow", self.leaf("mo", "{"), self.over("mtable", *rows))
