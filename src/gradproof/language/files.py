"""Expression files: TOML to a problem, that is a graph and the numbers to look at.

What can fail on a user's input fails here, with file, line and column, before anything is computed.
"""

from __future__ import annotations

import csv
import keyword
import math
import re
import stat
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from ..display import Displayed
from ..dtypes import DTYPES
from ..errors import InputError, Place, did_you_mean
from ..proof.graph import Graph, Leaf, Shape, size
from .builder import build_graph
from .rules import MAX_RANK
from .syntax import Statement, parse_statements

Table = dict[str, Any]  # of TOML

MAX_FILE = 16_000_000  # bytes
MAX_ENTRIES = 4_000_000  # of one tensor

_KEYS = ("title", "teaches", "graph", "dtype", "given", "parameters", "hessian", "descent", "expect")
_SECONDS = 4096  # entries of a second derivative
_EXPECT = ("verdict", "node")
_VERDICTS = ("exact", "rounding", "kink", "wrong", "undecided", "unsupported", "failed")
_DESCENT = ("learning_rate", "steps")


@dataclass(frozen=True)
class Expectation:
    """The verdict that a file says it will meet, and at which node."""

    verdict: str
    node: str | None = None

    def met_by(self, verdict: str) -> bool:
        """`exact` is as good as `rounding`."""
        return verdict == self.verdict or (verdict, self.verdict) == ("exact", "rounding")


@dataclass(frozen=True, eq=False)
class Problem(Displayed):
    """A graph with its point: what there is to check.

    `statements` is the parse tree, which an engine interprets; `graph` is what the reference works on;
    `point` holds a float64 array for each leaf. `expect` maps engines to what the file says will come of
    them, "" standing for the others. `hessian` has the second derivatives that are asked for: by name the two
    parameters.
    """

    title: str
    statements: tuple[Statement, ...]
    graph: Graph
    point: Mapping[str, np.ndarray]
    target: str = "<expression>"
    teaches: str = ""
    dtype: str | None = None
    expect: Mapping[str, Expectation] = field(default_factory=dict)
    descent: Mapping[str, float] = field(default_factory=dict)
    hessian: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def expected(self, engine: str, dtype: str) -> Expectation | None:
        """What the file says will come; it says so of its own dtype alone, if it names one."""
        if self.dtype not in (None, dtype):
            return None
        return self.expect.get(engine) or self.expect.get("")


def parse(
    text: str,
    *,
    given: Mapping[str, object] | None = None,
    parameters: Mapping[str, object] | None = None,
    title: str = "",
    target: str = "<expression>",
) -> Problem:
    """A problem from a graph's text and its numbers (Python numbers, nested lists, NumPy arrays).

    >>> parse("loss = (w*x - y)**2", given={"x": 1.0, "y": 2.0}, parameters={"w": 1.0}).graph.output.name
    'loss'

    Raises `InputError` for text that is not of the language and for numbers that are none.
    """
    place = Place(target)
    if not isinstance(text, str):
        raise InputError(f"the graph is {_kind(text)}, expected a text", place)
    values: dict[str, np.ndarray] = {}
    for table, items in (("given", given or {}), ("parameters", parameters or {})):
        if not isinstance(items, Mapping):
            raise InputError(f"{table} is {_kind(items)}, expected names with their values", place)
        for name, value in items.items():
            _check_name(name, table, place)
            name = _normal(name)
            if name in values:
                raise InputError(f"{name!r} is in [given] and in [parameters]; it is one or the other", place)
            values[name] = _tensor(name, value, place)
    return _problem(
        text,
        Place(target, 1, 1),
        values,
        frozenset(map(_normal, given or {})),
        title=title or text.strip(),
        target=target,
    )


def _problem(
    text: str, origin: Place, values: dict[str, np.ndarray], given: frozenset[str], **rest: Any
) -> Problem:
    statements = parse_statements(text, origin)
    leaves = {name: Leaf(name, value.shape, name in given) for name, value in values.items()}
    graph = build_graph(statements, leaves)
    if not graph.parameters:
        raise InputError("there is no parameter; a gradient needs one, as in [parameters] w = 1.0", origin)
    return Problem(statements=statements, graph=graph, point=values, **rest)


def load(path: str | Path) -> Problem:
    """The problem of an expression file.

    Raises `InputError` with file, line and column for anything that is not as the format says.
    """
    path = Path(path)
    return loads(_text(path), path)


def loads(text: str, path: str | Path = "<expression file>") -> Problem:
    """The problem of an expression file's text; `path` is where it says it comes from, and where its CSV
    files lie.

    Raises `InputError`, as `load` does.
    """
    path = Path(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not TOML: {_toml_reason(error)}", _toml_place(str(path), error)) from None
    except RecursionError:
        raise InputError("not TOML: nested too deep", Place(str(path))) from None
    except ValueError as error:  # Python's own limit on the digits of an integer
        raise InputError(f"not TOML: {str(error).split(';')[0].lower()}", Place(str(path))) from None
    return _File(path, text, data).problem()


def _text(path: Path) -> str:
    place = Place(str(path))
    try:
        if path.is_dir():
            raise InputError("this is a folder, expected an expression file", place)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError("this is no file with a text in it", place)
        length = status.st_size
        if length > MAX_FILE:
            raise InputError(
                f"the file has {length:,} bytes, more than {MAX_FILE:,}; put large data in a CSV file beside "
                "it",
                place,
            )
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", place) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", place) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"not a UTF-8 text: byte 0x{raw[error.start]:02x}; expected an expression file in TOML",
            Place(str(path), line),
        ) from None


def _toml_reason(error: tomllib.TOMLDecodeError) -> str:
    return re.sub(r" \(at .*\)$", "", str(error)).lower().rstrip(".")


def _toml_place(file: str, error: tomllib.TOMLDecodeError) -> Place:
    found = re.search(r"at line (\d+), column (\d+)", str(error))
    return Place(file, int(found[1]), int(found[2])) if found else Place(file)


class _File:
    """One expression file, read key by key."""

    def __init__(self, path: Path, text: str, data: Table) -> None:
        self.path = path
        self.text = text
        self.data = data
        self._places: dict[tuple[str, str], tuple[int, int]] | None = None

    def problem(self) -> Problem:
        self._known(self.data, _KEYS, "")
        title = self._string("title", required=True)
        graph, origin = self._graph()
        values: dict[str, np.ndarray] = {}
        for table in ("given", "parameters"):
            for name, value in self._table(table).items():
                place = self.place(table, name)
                _check_name(name, table, place)
                name = _normal(name)
                if name in values:
                    raise InputError(
                        f"{name!r} is in [given] and in [parameters]; it is one or the other", place
                    )
                values[name] = self._value(name, value, place)
        dtype = self._string("dtype")
        if dtype and dtype not in DTYPES:
            self.fail(f"unknown dtype {dtype!r}{did_you_mean(dtype, DTYPES)}", "", "dtype")
        problem = _problem(
            graph,
            origin,
            values,
            frozenset(map(_normal, self._table("given"))),
            title=title,
            target=str(self.path),
            teaches=self._string("teaches"),
            dtype=dtype or None,
            expect=self._expect(),
            descent=self._descent(),
        )
        problem = replace(problem, hessian=self._hessian(problem.graph))
        for engine, expectation in problem.expect.items():
            if (node := expectation.node) is not None and node not in problem.graph.shapes:
                near = did_you_mean(node, problem.graph.shapes) or "; expected a line or a value of this file"
                self.fail(f"unknown node {node!r}{near}", _expect_table(engine), "node")
        return problem

    # Places

    def place(self, table: str, key: str) -> Place:
        """Where a key stands; TOML's reader does not tell, so the text is searched for it, once."""
        if self._places is None:
            self._places = self._found()
        line, column = self._places.get((table, key)) or self._places.get(("", table)) or (0, 0)
        return Place(str(self.path), line, column)

    def _found(self) -> dict[tuple[str, str], tuple[int, int]]:
        """The line and column of every key and table header."""
        places: dict[tuple[str, str], tuple[int, int]] = {}
        section = ""
        for number, line in enumerate(self.text.split("\n"), 1):
            if header := re.match(r"\s*\[{1,2}\s*[\"']?([\w-]+)[\"']?(?:\s*\.\s*[\"']?([\w-]+))?", line):
                section = header[1]
                places.setdefault(("", section), (number, header.start(1) + 1))
                if header[2]:
                    places.setdefault((section, header[2]), (number, header.start(2) + 1))
            elif key := re.match(
                r"\s*[\"']?([^\"'=.\s]+(?: [^\"'=.\s]+)*)[\"']?\s*(?:\.\s*[\"']?([^\"'=.\s]+)[\"']?\s*)?=",
                line,
            ):
                if key[2] and not section:
                    places.setdefault((key[1], key[2]), (number, key.start(2) + 1))
                places.setdefault((section, key[1]), (number, key.start(1) + 1))
        return places

    def fail(self, message: str, table: str, key: str) -> NoReturn:
        raise InputError(message, self.place(table, key))

    # Keys

    def _known(self, data: Mapping[str, object], keys: tuple[str, ...], table: str) -> None:
        for key in data:
            if key not in keys:
                where = f" in [{table}]" if table else ""
                cure = did_you_mean(key, keys) or f"; expected one of {', '.join(keys)}"
                self.fail(f"unknown key {key!r}{where}{cure}", table, key)

    def _string(self, key: str, *, required: bool = False) -> str:
        if key not in self.data:
            if required:
                raise InputError(f'{key!r} is missing; expected {key} = "..."', Place(str(self.path), 1))
            return ""
        value = self.data[key]
        if not isinstance(value, str) or (required and not value.strip()):
            self.fail(f"{key!r} is {_kind(value)}, expected a text", "", key)
        return value.strip()

    def _table(self, key: str) -> Table:
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            self.fail(f"{key!r} is {_kind(value)}, expected a table [{key}]", "", key)
        return value

    def _graph(self) -> tuple[str, Place]:
        if "graph" not in self.data:
            raise InputError(
                "'graph' is missing; expected graph = \"\"\" with one 'name = expression' a line",
                Place(str(self.path), 1),
            )
        value = self.data["graph"]
        if not isinstance(value, str):
            self.fail(f"'graph' is {_kind(value)}, expected a text", "", "graph")
        opening = re.search(
            r"^[ \t]*[\"']?graph[\"']?[ \t]*=[ \t]*(\"\"\"|'''|\"|')(\r?\n)?", self.text, re.MULTILINE
        )
        if opening is None:
            return value, Place(str(self.path), 1, 1)
        line = self.text.count("\n", 0, opening.end()) + 1
        column = opening.end() - (self.text.rfind("\n", 0, opening.end()) + 1) + 1
        return value, Place(str(self.path), line, column)

    def _expect(self) -> dict[str, Expectation]:
        """`[expect]` of any engine, `[expect.jax]` of that one."""
        table = self._table("expect")
        engines = {
            key: value for key, value in table.items() if isinstance(value, dict) and key not in _EXPECT
        }
        own = {key: value for key, value in table.items() if key not in engines}
        tables = {"": own, **engines} if own else engines
        return {engine: self._expectation(items, _expect_table(engine)) for engine, items in tables.items()}

    def _expectation(self, table: Mapping[str, object], name: str) -> Expectation:
        self._known(table, _EXPECT, name)
        verdict, node = table.get("verdict"), table.get("node")
        if "verdict" not in table:
            self.fail(f"'verdict' is missing in [{name}]; expected one of {', '.join(_VERDICTS)}", "", name)
        if verdict not in _VERDICTS:
            near = did_you_mean(str(verdict), _VERDICTS) or f"; expected one of {', '.join(_VERDICTS)}"
            self.fail(f"unknown verdict {verdict!r}{near}", name, "verdict")
        if node is not None and not isinstance(node, str):
            self.fail(f"'node' is {_kind(node)}, expected a node's name", name, "node")
        return Expectation(verdict, node)

    def _hessian(self, graph: Graph) -> dict[str, tuple[str, str]]:
        """`gamma = ["S", "S"]`: the second derivative by two parameters, under a name."""
        found: dict[str, tuple[str, str]] = {}
        shapes = {leaf.name: leaf.shape for leaf in graph.parameters}
        for name, value in self._table("hessian").items():
            _check_name(name, "hessian", self.place("hessian", name))
            if not (isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) for x in value)):
                wanted = f'expected two parameters, as in {name} = ["w", "w"]'
                self.fail(f"{name!r} is {_kind(value)}; {wanted}", "hessian", name)
            first, second = map(_normal, value)
            for each in (first, second):
                if each not in shapes:
                    near = did_you_mean(each, shapes) or f"; expected one of {', '.join(shapes)}"
                    self.fail(f"{name!r}: {each!r} is no parameter{near}", "hessian", name)
            if name in graph.shapes:
                self.fail(f"{name!r} is a name of the graph's; expected another one", "hessian", name)
            entries = size(shapes[first]) * size(shapes[second])
            if entries > _SECONDS:
                self.fail(f"{name!r} has {entries:,} entries; at most {_SECONDS:,}", "hessian", name)
            found[_normal(name)] = (first, second)
        return found

    def _descent(self) -> dict[str, float]:
        table = self._table("descent")
        self._known(table, _DESCENT, "descent")
        for key, value in table.items():
            whole = key != "steps" or isinstance(value, int)
            if not _is_number(value) or value <= 0 or not whole:
                self.fail(
                    f"{key!r} is {value!r}, expected a positive {'number' if key != 'steps' else 'integer'}",
                    "descent",
                    key,
                )
        return dict(table)

    # Values

    def _value(self, name: str, value: object, place: Place) -> np.ndarray:
        if not isinstance(value, dict):
            return _tensor(name, value, place)
        for word, (keys, make) in _SOURCES.items():
            if word in value:
                for key in value:
                    if key not in keys:
                        cure = did_you_mean(key, keys) or f"; expected {', '.join(keys)}"
                        raise InputError(f"{name!r}: unknown key {key!r} beside '{word}'{cure}", place)
                return _tensor(name, make(self, name, value, place), place)
        raise InputError(f"{name!r} is a table without 'file', 'sample' or 'interval'", place)

    def _from_file(self, name: str, value: Table, place: Place) -> ArrayLike:
        file = value["file"]
        if not isinstance(file, str):
            raise InputError(f"{name!r}: 'file' is {_kind(file)}, expected a name", place)
        folder = self.path.parent.resolve()
        try:
            path = (folder / file).resolve()
            there = path.is_file()
        except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, a loop of links
            raise InputError(f"{name!r}: {file[:40]!r} is no name of a file", place) from None
        if not path.is_relative_to(folder):
            raise InputError(f"{name!r}: file {file!r} lies outside of the expression file's folder", place)
        if not there:
            raise InputError(f"{name!r}: no such file {file!r}", place)
        header, rows = _table_of(path, name, place)
        single = isinstance(value.get("column"), str)
        columns = [value["column"]] if single else value.get("columns")
        if (
            not isinstance(columns, list)
            or not columns
            or not all(isinstance(column, str) for column in columns)
        ):
            raise InputError(
                f'{name!r}: expected columns = ["x", ...] (a matrix) or column = "x" (a vector)', place
            )
        positions = []
        for column in columns:
            if column not in header:
                cure = did_you_mean(column, header) or f"; it has {', '.join(header)}"
                raise InputError(f"{name!r}: {file!r} has no column {column!r}{cure}", place)
            positions.append(header.index(column))
        numbers = [[_cell(row[p], path, n, place) for p in positions] for n, row in rows]
        return [row[0] for row in numbers] if single else numbers

    def _from_sample(self, name: str, value: Table, place: Place) -> ArrayLike:
        shape = _shape(name, value.get("shape", []), place)
        seed, kind = value.get("seed", 0), value["sample"]
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"{name!r}: 'seed' is {seed!r}, expected an integer from 0", place)
        random = np.random.default_rng(seed)
        if kind == "normal":
            return random.standard_normal(shape)
        if kind == "uniform":
            return random.uniform(size=shape)
        known = "expected 'normal' (mean 0, variance 1) or 'uniform' (0 to 1)"
        meant = did_you_mean(str(kind), ("normal", "uniform"))
        raise InputError(f"{name!r}: unknown sample {kind!r}{meant}; {known}", place)

    def _from_interval(self, name: str, value: Table, place: Place) -> ArrayLike:
        ends, points = value["interval"], value.get("points")
        if not (
            isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends)) and ends[0] < ends[1]
        ):
            raise InputError(f"{name!r}: 'interval' is {ends!r}, expected [low, high] with low < high", place)
        if not isinstance(points, int) or isinstance(points, bool) or not 2 <= points <= MAX_ENTRIES:
            raise InputError(f"{name!r}: 'points' is {points!r}, expected an integer from 2", place)
        return np.linspace(float(ends[0]), float(ends[1]), points)


_Make = Callable[[_File, str, Table, Place], ArrayLike]
_SOURCES: dict[str, tuple[tuple[str, ...], _Make]] = {
    "file": (("file", "columns", "column"), _File._from_file),
    "sample": (("shape", "sample", "seed"), _File._from_sample),
    "interval": (("interval", "points"), _File._from_interval),
}


def _table_of(path: Path, name: str, place: Place) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the numbered rows of a CSV file; `#` lines are comments."""
    text = _text(path)
    lines = [
        (n, line)
        for n, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(lines) < 2:
        raise InputError(f"{name!r}: {path.name!r} has no header line and rows below it", place)
    try:
        header, *rows = ([cell.strip() for cell in next(csv.reader([line]), [])] for _, line in lines)
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", Place(str(path))) from None
    if len(set(header)) < len(header):
        raise InputError("a column's name appears twice in the header", Place(str(path), lines[0][0]))
    for (number, _), row in zip(lines[1:], rows, strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{len(row)} cells, expected {len(header)} as in the header", Place(str(path), number)
            )
    return header, [(number, row) for (number, _), row in zip(lines[1:], rows, strict=True)]


def _cell(text: str, path: Path, line: int, place: Place) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number", Place(str(path), line)) from None
    if not math.isfinite(number):
        raise InputError(f"{text!r} is not a finite number", Place(str(path), line))
    return number


def _shape(name: str, shape: Any, place: Place) -> Shape:
    dims = shape if isinstance(shape, list) else [shape]
    if not all(isinstance(extent, int) and not isinstance(extent, bool) and extent > 0 for extent in dims):
        raise InputError(f"{name!r}: 'shape' is {shape!r}, expected positive integers such as [50, 3]", place)
    if len(dims) > MAX_RANK:
        raise InputError(f"{name!r}: {len(dims)} axes, more than {MAX_RANK}", place)
    if size(tuple(dims)) > MAX_ENTRIES:
        raise InputError(f"{name!r}: {size(tuple(dims)):,} entries, more than {MAX_ENTRIES:,}", place)
    return tuple(dims)


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**1023
    return isinstance(value, float) and math.isfinite(value)


def _expect_table(engine: str) -> str:
    return f"expect.{engine}" if engine else "expect"


def _kind(value: object) -> str:
    kinds = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


def _normal(name: str) -> str:
    """A name as Python's syntax reads it: µ and μ are one letter."""
    return unicodedata.normalize("NFKC", name)


def _check_name(name: str, table: str, place: Place) -> None:
    if not (isinstance(name, str) and name.isidentifier()):
        raise InputError(f"{name!r} in [{table}] is no name; expected letters, digits and _", place)
    if keyword.iskeyword(name):
        raise InputError(f"{name!r} in [{table}] is a word of the language's own; write {name}_", place)


def _tensor(name: str, value: object, place: Place) -> np.ndarray:
    """A float64 array of finite numbers.

    Raises `InputError` for ragged lists, texts, booleans, NaN and infinities.
    """
    if isinstance(value, list | tuple):
        _check_list(name, value, place)
    elif isinstance(value, bool | str | bytes) or value is None:
        raise InputError(f"{name!r} is {_kind(value)}, expected a number or nested lists of numbers", place)
    try:
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
        if array.dtype.kind not in "fiu":
            raise TypeError
        array = np.array(array, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(
            f"{name!r} is {_kind(value)}, expected a number or nested lists of numbers", place
        ) from None
    if array.size == 0:
        raise InputError(f"{name!r} is empty; expected at least one number", place)
    if array.ndim > MAX_RANK:
        raise InputError(f"{name!r} has {array.ndim} axes, more than {MAX_RANK}", place)
    if array.size > MAX_ENTRIES:
        raise InputError(f"{name!r} has {array.size:,} entries, more than {MAX_ENTRIES:,}", place)
    if not np.isfinite(array).all():
        bad = array.reshape(-1)[np.flatnonzero(~np.isfinite(array))[0]]
        raise InputError(f"{name!r} holds {bad}, expected finite numbers", place)
    return array


def _check_list(name: str, value: list[object] | tuple[object, ...], place: Place) -> None:
    """Level by level, so that no depth of nesting is too deep for us."""
    level: list[Any] = [value]
    depth = 0
    while level and isinstance(level[0], list | tuple):
        depth += 1
        if depth > 32:
            raise InputError(f"{name!r} is nested deeper than 32 lists", place)
        if not all(isinstance(item, list | tuple) for item in level):
            raise InputError(f"{name!r} is ragged: numbers stand beside lists", place)
        lengths = {len(item) for item in level}
        if len(lengths) > 1:
            raise InputError(
                f"{name!r} is ragged: rows of {' and '.join(map(str, sorted(lengths)))} entries", place
            )
        level = [part for item in level for part in item]
    for item in level:
        if isinstance(item, list | tuple):
            raise InputError(f"{name!r} is ragged: numbers stand beside lists", place)
        if isinstance(item, bool | str | bytes | dict) or item is None:
            raise InputError(f"{name!r} holds {_kind(item)} ({str(item)[:40]!r}), expected numbers", place)
