"""Text to statements: Python's expression syntax against an allow-list. Nothing of it is ever evaluated as
Python.

A statement is a list of terms in evaluation order; a term names the terms it is made of by their positions.
So whoever interprets it (the language, which builds the graph; an engine under test) walks a flat list: no
recursion over a user's text, however deep. The two sides share this list and nothing else.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NoReturn

from ..errors import InputError, Place, did_you_mean
from ..functions import SPOKEN

MAX_TEXT = 1_000_000  # characters of a graph
MAX_OPERATIONS = 1_500  # of one line; Python's own parser gives up at about 3,000 chained terms
MAX_NESTING = 100  # brackets within brackets; Python's own parser gives up at 200
MAX_TOKENS = 20_000  # of one line
MAX_EXCERPT = 200  # characters of a source text that a name or a message shows
MAX_CONDITIONS = 16  # of one comparison chain, or joined by one and/or
MAX_DIGITS = 400  # of one number, and the largest decimal exponent

LARGEST = Fraction(2) ** 1024  # beyond every float64

Number = int | Fraction


@dataclass(frozen=True)
class Affine:
    """An index in index notation: `constant + sum of coefficient * label`."""

    constant: int
    labels: tuple[tuple[str, int], ...]

    @property
    def plain(self) -> str | None:
        """The label, if the index is nothing else."""
        return (
            self.labels[0][0]
            if self.constant == 0 and len(self.labels) == 1 and self.labels[0][1] == 1
            else None
        )


@dataclass(frozen=True)
class Span:
    """A slice `start:stop:step`; what is missing is None."""

    start: int | None
    stop: int | None
    step: int | None


IndexItem = int | Affine | Span | None  # None is a new axis
Meant = Any  # a number, a name, relations or index items, as a term's `op` says
Options = Mapping[str, Any]  # of a function: constants


@dataclass(frozen=True)
class Term:
    """One operation of a statement.

    `op` is "number", "name", an operator, "index" or the name of a function; `args` are positions of earlier
    terms of the statement; `value` is the number, the name or the index items; `options` are a function's
    constants.
    """

    op: str
    args: tuple[int, ...]
    place: Place
    source: str
    value: Meant = None
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Statement:
    """`name = ...` or `name[i, j] = ...`; `labels` are the indices on the left, each with its extent where
    one is said."""

    name: str
    labels: tuple[tuple[str, int | None], ...]
    terms: tuple[Term, ...]
    place: Place
    source: str


@dataclass(frozen=True)
class Signature:
    """How a function is called: `operands` expressions, then the options, by position or by name."""

    operands: int
    options: tuple[str, ...] = ()
    sequence: bool = False  # the one operand is a list of expressions
    reduction: bool = False  # may be followed by index labels


_AXIS = Signature(1, ("axis", "keepdims"), reduction=True)

FUNCTIONS: Mapping[str, Signature] = MappingProxyType(
    {
        **{
            row.name: Signature(row.operands, tuple(name for name, _ in row.options))
            for row in SPOKEN.values()
        },
        "trace": Signature(1),
        **dict.fromkeys("dot outer".split(), Signature(2)),
        "where": Signature(3),
        **dict.fromkeys("sum mean prod max min norm logsumexp".split(), _AXIS),
        **dict.fromkeys("var std".split(), Signature(1, ("axis", "keepdims", "ddof"), reduction=True)),
        **dict.fromkeys("softmax log_softmax cumsum".split(), Signature(1, ("axis",))),
        "transpose": Signature(1, ("axes",)),
        "reshape": Signature(1, ("shape",)),
        "concatenate": Signature(1, ("axis",), sequence=True),
        "stack": Signature(1, ("axis",), sequence=True),
    }
)

# What each option may be: a word for the message, and a test.
_OPTION_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "axis": ("an integer or a tuple of integers", lambda v: v is None or _is_int(v) or _are_ints(v)),
    "axes": ("a tuple of integers", lambda v: _are_ints(v)),
    "shape": ("a tuple of integers", lambda v: _is_int(v) or _are_ints(v)),
    "keepdims": ("True or False", lambda v: isinstance(v, bool)),
    "ddof": ("an integer", lambda v: _is_int(v)),
    **{
        name: ("a number", lambda v: isinstance(v, int | Fraction))
        for row in SPOKEN.values()
        for name, _ in row.options
    },
}

_BINARY = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.MatMult: "@",
    ast.BitAnd: "and", ast.BitOr: "or",
}  # fmt: skip
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_FOREIGN = {
    ast.Lambda: "a lambda", ast.ListComp: "a comprehension", ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension", ast.GeneratorExp: "a comprehension", ast.JoinedStr: "an f-string",
    ast.NamedExpr: "':='", ast.IfExp: "'if ... else' (write where(condition, a, b))", ast.Await: "await",
    ast.Yield: "yield", ast.YieldFrom: "yield", ast.Dict: "a dictionary", ast.Set: "a set",
    ast.Starred: "'*'", ast.FloorDiv: "'//'", ast.Mod: "'%'", ast.BitXor: "'^'",
    ast.LShift: "'<<'", ast.RShift: "'>>'",
    ast.In: "'in'", ast.NotIn: "'not in'", ast.Is: "'is'", ast.IsNot: "'is not'",
    ast.Import: "an import", ast.ImportFrom: "an import", ast.FunctionDef: "def", ast.ClassDef: "class",
    ast.For: "a loop", ast.While: "a loop", ast.If: "an if statement (write where(condition, a, b))",
    ast.AugAssign: "an update in place (each name is bound once: give the new value a new name)",
    ast.AnnAssign: "an annotation", ast.Delete: "del", ast.Assert: "assert", ast.Return: "return",
}  # fmt: skip


# What other libraries call it.
_ALIASES = {
    **{alias: row.name for row in SPOKEN.values() for alias in row.aliases.split()},
    "amax": "max", "amin": "min", "cat": "concatenate", "matmul": "@", "mm": "@", "pow": "**", "power": "**",
    "square": "**", "permute": "transpose", "average": "mean", "lse": "logsumexp", "vstack": "stack",
}  # fmt: skip


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ints(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_int, value))


def parse_statements(text: str, origin: Place) -> tuple[Statement, ...]:
    """The statements of a graph's text, whose first character stands at `origin`.

    Raises `InputError` at the first thing that is not of the language.
    """
    source = _Source(text, origin)
    _bound(source)
    try:
        with warnings.catch_warnings():  # of Python's: "invalid decimal literal"
            warnings.simplefilter("ignore")
            module = ast.parse(text)
    except SyntaxError as error:
        place = source.place(error.lineno or 1, (error.offset or 1) - 1)
        raise InputError(f"not an expression: {error.msg}", place) from None
    except (ValueError, RecursionError, MemoryError):
        raise InputError("not an expression: the text cannot be parsed", origin) from None
    if not module.body:
        raise InputError("the graph is empty; write at least one line such as 'loss = (w*x - y)**2'", origin)
    return tuple(_Reader(source).statement(line) for line in module.body)


class _Source:
    """A text and where it stands, for places and excerpts."""

    def __init__(self, text: str, origin: Place) -> None:
        self.text = text
        self.origin = origin
        # What Python's tokenizer counts as lines; str.splitlines knows more separators.
        self.lines = re.split(r"\r\n|\r|\n", text)

    def place(self, line: int, column: int) -> Place:
        """`line` counts from 1 and `column` from 0, in characters."""
        first = max(self.origin.column, 1) - 1 if line == 1 else 0
        return Place(self.origin.file, max(self.origin.line, 1) + line - 1, first + column + 1)

    def column(self, line: int, offset: int) -> int:
        """ast counts columns in UTF-8 bytes."""
        text = self.lines[line - 1]
        return offset if text.isascii() else len(text.encode()[:offset].decode(errors="ignore"))

    def at(self, node: ast.AST) -> Place:
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        return self.place(line, self.column(line, offset))

    def text_of(self, node: ast.expr) -> str:
        """A number's text, which stands in one line, in full."""
        line = self.lines[node.lineno - 1]
        return line[
            self.column(node.lineno, node.col_offset) : self.column(node.lineno, node.end_col_offset or 0)
        ]

    def excerpt(self, node: ast.expr | ast.stmt) -> str:
        first, last = node.lineno, node.end_lineno or node.lineno
        end = self.column(last, node.end_col_offset or 0)
        start = self.column(first, node.col_offset)
        if first == last:
            return self._cut(self.lines[first - 1][start:end])
        middle = self.lines[first : last - 1]
        parts = [self.lines[first - 1][start:], *middle, self.lines[last - 1][:end]]
        return self._cut(" ".join(part.split("#")[0].strip() for part in parts[:MAX_EXCERPT]))

    @staticmethod
    def _cut(text: str) -> str:
        return text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1] + "…"


def _bound(source: _Source) -> None:
    """Refuse what is too large before anything expands it."""
    if len(source.text) > MAX_TEXT:
        raise InputError(
            f"the graph has {len(source.text):,} characters, more than {MAX_TEXT:,}", source.origin
        )
    depth = operations = tokens = 0
    for number, line in enumerate(source.lines, 1):
        for match in re.finditer(r"#.*|\w+|[(\[{]|[)\]}]|[^\s\w()\[\]{}]", line):
            token = match.group()
            if token[0] == "#":
                break
            depth += (token in "([{") - (token in ")]}")
            operations += not (token in ")]},." or token[0].isalnum() or token[0] == "_")
            place = source.place(number, match.start())
            if len(token) > MAX_DIGITS:
                raise InputError(
                    f"{token[:20]}... is too long: a name or a number has at most {MAX_DIGITS} characters",
                    place,
                )
            tokens += 1
            if tokens > MAX_TOKENS:
                raise InputError(f"more than {MAX_TOKENS:,} words and signs in one line", place)
            if depth > MAX_NESTING:
                raise InputError(
                    f"brackets are nested deeper than {MAX_NESTING}; name the inner parts", place
                )
            if operations > MAX_OPERATIONS:
                raise InputError(
                    f"more than {MAX_OPERATIONS} operations in one line; name the parts in lines of their "
                    "own",
                    place,
                )
        if depth <= 0:
            depth = operations = tokens = 0


class _Reader:
    """Reads Python's tree of one text into statements."""

    def __init__(self, source: _Source) -> None:
        self.source = source

    def fail(self, node: ast.AST, message: str) -> NoReturn:
        raise InputError(message, self.source.at(node))

    def foreign(self, node: ast.AST) -> NoReturn:
        what = _FOREIGN.get(type(node), f"{type(node).__name__}")
        self.fail(node, f"{what} is not part of the language")

    def statement(self, line: ast.stmt) -> Statement:
        if not isinstance(line, ast.Assign):
            if isinstance(line, ast.Expr):
                self._refuse_foreign(line.value)
                self.fail(line, "a line without a name; expected 'name = expression'")
            self.foreign(line)
        if len(line.targets) != 1:
            self.fail(line.targets[1], "two names for one line; expected 'name = expression'")
        target = line.targets[0]
        labels: tuple[tuple[str, int | None], ...] = ()
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            labels = tuple(self._target_label(item) for item in _items(target.slice))
            seen = [label for label, _ in labels]
            if len(set(seen)) < len(seen):
                self.fail(target, "an index appears twice on the left")
            target = target.value
        if not isinstance(target, ast.Name):
            self.fail(target, "expected a name on the left, as in 'y_hat = w*x' or 'y_hat[i] = w[i]*x[i]'")
        terms = self._terms(line.value)
        return Statement(target.id, labels, terms, self.source.at(line), self.source.excerpt(line))

    def _target_label(self, item: ast.expr | ast.Slice) -> tuple[str, int | None]:
        if isinstance(item, ast.Name):
            return item.id, None
        if isinstance(item, ast.Slice) and isinstance(item.lower, ast.Name) and item.step is None:
            extent = self._static(item.upper) if item.upper else None
            if isinstance(extent, int) and not isinstance(extent, bool) and 0 < extent <= 10**9:
                return item.lower.id, extent
        self.fail(
            item, "expected an index name on the left, as in 'y[i] = ...' or, with its extent, 'y[i:5] = ...'"
        )

    def _refuse_foreign(self, expression: ast.AST) -> None:
        for node in ast.walk(expression):
            if type(node) in _FOREIGN:
                self.foreign(node)

    def _terms(self, expression: ast.expr) -> tuple[Term, ...]:
        """The expression's terms in evaluation order: an explicit stack instead of recursion."""
        terms: list[Term] = []
        done: list[int] = []
        stack: list[tuple[ast.expr, tuple[Any, ...] | None]] = [(expression, None)]
        while stack:
            node, ready = stack.pop()
            if ready is None:
                op, children, value, options = self._parts(node)
                stack.append((node, (op, len(children), value, options)))
                stack.extend((child, None) for child in reversed(children))
                continue
            op, count, value, options = ready
            args = tuple(done[len(done) - count :])
            del done[len(done) - count :]
            done.append(len(terms))
            terms.append(Term(op, args, self.source.at(node), self.source.excerpt(node), value, options))
        return tuple(terms)

    def _parts(self, node: ast.expr) -> tuple[str, list[ast.expr], Meant, Options]:
        """What a node is: its op, its operands, its value, its options."""
        match node:
            case ast.Constant():
                return "number", [], self._number(node), {}
            case ast.Name():
                return "name", [], node.id, {}
            case ast.BinOp():
                if type(node.op) not in _BINARY:
                    self._foreign_operator(node, node.op)
                return _BINARY[type(node.op)], [node.left, node.right], None, {}
            case ast.UnaryOp():
                op = {ast.USub: "neg", ast.UAdd: "pos", ast.Not: "not", ast.Invert: "not"}[type(node.op)]
                return op, [node.operand], None, {}
            case ast.BoolOp(values=values) | ast.Compare(comparators=values) if len(values) > MAX_CONDITIONS:
                self.fail(
                    node, f"more than {MAX_CONDITIONS} conditions in one; split them over several lines"
                )
            case ast.BoolOp():
                return ("and" if isinstance(node.op, ast.And) else "or"), node.values, None, {}
            case ast.Compare():
                for comparator in node.ops:
                    if type(comparator) not in _COMPARE:
                        self._foreign_operator(node, comparator)
                ops = tuple(_COMPARE[type(op)] for op in node.ops)
                return "compare", [node.left, *node.comparators], ops, {}
            case ast.Call():
                return self._call(node)
            case ast.Attribute():
                if node.attr == "T":
                    return "transpose", [node.value], None, {}
                cure = f"; write {node.attr}(...)" if node.attr in FUNCTIONS else "; only '.T' is known"
                self.fail(node, f"attribute access '.{node.attr}' is not part of the language{cure}")
            case ast.Subscript():
                return "index", [node.value], tuple(map(self._index_item, _items(node.slice))), {}
            case ast.List() | ast.Tuple():
                self.fail(
                    node, "a list is no expression here; put the numbers under [given] and use their name"
                )
        self.foreign(node)

    def _foreign_operator(self, node: ast.expr, operator: ast.AST) -> NoReturn:
        cure = "; a power is written '**'" if isinstance(operator, ast.BitXor) else ""
        self.fail(
            node, f"{_FOREIGN.get(type(operator), type(operator).__name__)} is not part of the language{cure}"
        )

    def _call(self, node: ast.Call) -> tuple[str, list[ast.expr], Meant, Options]:
        name = self._function(node)
        signature = FUNCTIONS[name]
        operands, extra = node.args[: signature.operands], node.args[signature.operands :]
        if len(operands) < signature.operands:
            wants = f"{signature.operands} operand{'s' * (signature.operands > 1)}"
            self.fail(node, f"{name}() takes {wants}, got {len(node.args)}")
        if signature.sequence:
            parts = operands[0]
            if not isinstance(parts, ast.List | ast.Tuple) or not parts.elts:
                self.fail(parts, f"{name}() takes a list, as in {name}([a, b], axis=0)")
            operands = parts.elts
        return name, list(operands), None, self._options(node, name, extra)

    def _function(self, node: ast.Call) -> str:
        """The name of the function that is called."""
        if not isinstance(node.func, ast.Name):
            if isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
                self.fail(node, f"a method call is not part of the language; write {node.func.attr}(...)")
            self._refuse_foreign(node.func)
            self.fail(node, "only functions of the language can be called, by name")
        name = node.func.id
        if name not in FUNCTIONS:
            other = (
                f"; did you mean {_ALIASES[name]!r}?" if name in _ALIASES else did_you_mean(name, FUNCTIONS)
            )
            self.fail(node, f"unknown function {name!r}{other}")
        return name

    def _options(self, node: ast.Call, name: str, extra: list[ast.expr]) -> Options:
        """What stands behind the operands: the indices that are reduced over, or options, by name or in their
        order."""
        signature = FUNCTIONS[name]
        options: dict[str, Any] = {}
        if signature.reduction and extra and all(isinstance(item, ast.Name) for item in extra):
            options["over"] = tuple(item.id for item in extra if isinstance(item, ast.Name))
            extra = []
        if name in ("reshape", "transpose") and len(extra) > 1:
            options[signature.options[0]] = tuple(self._static(item) for item in extra)
            extra = []
        if len(extra) > len(signature.options):
            self.fail(extra[-1], f"{name}() got too many arguments")
        named = ((word.arg, word.value) for word in node.keywords)
        for option, value in (*zip(signature.options, extra, strict=False), *named):
            if option not in signature.options:
                expected = f"; it takes {', '.join(signature.options)}" if signature.options else ""
                expected = "; did you mean 'keepdims'?" if option == "keepdim" else expected
                self.fail(value, f"{name}() has no option {option!r}{expected}")
            if option in options:
                self.fail(value, f"{name}() got {option!r} twice")
            options[option] = self._static(value)
        for option, given in options.items():
            if option != "over" and not _OPTION_KINDS[option][1](given):
                self.fail(node, f"{name}(): {option} must be {_OPTION_KINDS[option][0]}, got {given!r}")
        return options

    def _static(self, node: ast.expr) -> Any:
        """A constant argument: a number, True, False, None or a tuple of numbers."""
        match node:
            case ast.Constant(value=bool() | None):
                return node.value
            case ast.Constant():
                return self._number(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as number):
                return -self._number(number)
            case ast.Tuple() | ast.List():
                return tuple(self._static(item) for item in node.elts)
        self.fail(node, "expected a constant number here")

    def _number(self, node: ast.Constant) -> Number:
        text = self.source.text_of(node).replace("_", "")
        if isinstance(node.value, bool | str | bytes | complex) or not isinstance(node.value, int | float):
            self.fail(node, f"expected a number, found {text[:40]}")
        exponent = re.search(r"[eE]([+-]?\d+)$", text) if isinstance(node.value, float) else None
        if len(text) > MAX_DIGITS or (exponent and abs(int(exponent[1])) > MAX_DIGITS):
            self.fail(
                node, f"the number {text[:20]}... is too long or too large (at most {MAX_DIGITS} digits)"
            )
        # As text: float("0.1") is not 1/10.
        value: Number = Fraction(text) if isinstance(node.value, float) else int(node.value)
        if value >= LARGEST:
            self.fail(node, f"the number {text[:40]} is larger than any float64")
        return value

    def _index_item(self, node: ast.expr | ast.Slice) -> IndexItem:
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        if isinstance(node, ast.Slice):
            bounds = [self._static(part) if part else None for part in (node.lower, node.upper, node.step)]
            if not all(part is None or _is_int(part) for part in bounds) or bounds[2] == 0:
                self.fail(node, "a slice takes integers, and its step is not 0")
            return Span(*bounds)
        affine = self._affine(node, MAX_NESTING)
        return affine if affine.labels else affine.constant

    def _affine(self, node: ast.expr, depth: int) -> Affine:
        if depth == 0:
            self.fail(node, "an index is nested too deep")
        match node:
            case ast.Name():
                return Affine(0, ((node.id, 1),))
            case ast.Constant(value=int() as whole) if _is_int(whole):
                if abs(whole) > 10**9:
                    self.fail(node, "an index is too large")
                return Affine(whole, ())
            case ast.UnaryOp(op=ast.USub()):
                return _scale(self._affine(node.operand, depth - 1), -1)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                left, right = self._affine(node.left, depth - 1), self._affine(node.right, depth - 1)
                return _plus(left, _scale(right, -1 if isinstance(node.op, ast.Sub) else 1))
            case ast.BinOp(op=ast.Mult()):
                left, right = self._affine(node.left, depth - 1), self._affine(node.right, depth - 1)
                if left.labels and right.labels:
                    self.fail(node, "an index must be linear, as in x[2*i + k]")
                return _scale(left, right.constant) if left.labels else _scale(right, left.constant)
        self._refuse_foreign(node)
        self.fail(node, "an index is an integer, a slice, or in index notation a sum such as i + 2*k - 1")


def _items(node: ast.expr) -> Iterator[ast.expr]:
    return iter(node.elts if isinstance(node, ast.Tuple) else [node])


def _scale(index: Affine, factor: int) -> Affine:
    return Affine(
        index.constant * factor, tuple((label, c * factor) for label, c in index.labels if c * factor)
    )


def _plus(a: Affine, b: Affine) -> Affine:
    total = dict(a.labels)
    for label, coefficient in b.labels:
        total[label] = total.get(label, 0) + coefficient
    return Affine(a.constant + b.constant, tuple((label, c) for label, c in total.items() if c))
