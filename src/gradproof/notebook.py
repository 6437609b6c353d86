"""`%load_ext gradproof`: the cell magic `%%gradproof` for a cell that holds a graph.

    %%gradproof --parameter w
    y_hat = w * x
    loss  = (y_hat - y)**2

Names that the graph reads and no line binds are variables of the notebook: numbers, lists, NumPy arrays,
tensors. Those after `--parameter` are learned, and so is a torch tensor that requires grad; all others are
given. A cell with `graph = "..."` is an expression file, with values of its own. The report is the cell's
value.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from typing import NoReturn

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from .errors import GradproofError, InputError, Place
from .language.files import Problem, loads, parse
from .language.syntax import parse_statements
from .oracle import check
from .report import Report

_A_FILE = re.compile(r"^\s*graph\s*=\s*[\"']", re.MULTILINE)


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"%%gradproof: {message}")


def register(shell: InteractiveShell) -> None:
    """Make `%%gradproof` known to a shell."""

    def gradproof(line: str, cell: str) -> Report:
        try:
            return checked(line, cell, shell.user_ns)
        except GradproofError as error:
            raise UsageError(str(error)) from None  # shown as one line

    # IPython's annotation takes its own first argument for ours.
    shell.register_magic_function(gradproof, "cell", "gradproof")  # type: ignore[arg-type]


def checked(line: str, cell: str, names: Mapping[str, object]) -> Report:
    """The report of a cell. Raises `GradproofError` for options and graphs that are not right."""
    parser = _Options(prog="%%gradproof", add_help=False, allow_abbrev=False)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--dtype")
    parser.add_argument("--given", nargs="+", default=[], action="extend")
    parser.add_argument("--parameter", nargs="+", default=[], action="extend")
    try:
        options = parser.parse_args(shlex.split(line))
    except ValueError as error:  # a quotation mark that is not closed
        raise InputError(f"%%gradproof: {str(error).lower()}") from None
    return check(_problem(options, cell, names), engine=options.engine, dtype=options.dtype)


def _problem(options: argparse.Namespace, cell: str, names: Mapping[str, object]) -> Problem:
    text = "\n" + cell  # the magic's own line counts, so that a message's line is the cell's
    if _A_FILE.search(cell):
        if options.given or options.parameter:
            raise InputError(
                "%%gradproof: --given and --parameter go with a graph alone; this cell has its own values"
            )
        return loads(text, "<cell>")
    unbound = _unbound(text)
    for name in (*options.given, *options.parameter):
        if name not in unbound:
            raise InputError(f"%%gradproof: no line of the cell reads {name!r} from the notebook")
    missing = [name for name in unbound if name not in names]
    if missing:
        raise InputError(
            f"the notebook has no variable {missing[0]!r}, which the graph reads", Place("<cell>")
        )
    marked = [name for name in unbound if getattr(names[name], "requires_grad", False)]
    own = {name for name in marked if name not in options.given}
    learned = [name for name in unbound if name in own or name in options.parameter]
    if not learned:
        raise InputError(
            f"which of {', '.join(unbound)} is learned? Name it: %%gradproof --parameter {unbound[-1]}"
        )
    values = {name: _plain(names[name]) for name in unbound}
    return parse(
        text,
        given={name: value for name, value in values.items() if name not in learned},
        parameters={name: values[name] for name in learned},
        title="; ".join(line.strip() for line in cell.splitlines() if line.strip()),
        target="<cell>",
    )


def _unbound(text: str) -> list[str]:
    """The names that the lines read and do not bind, in order; indices are no names."""
    statements = parse_statements(text, Place("<cell>", 1, 1))
    bound = {statement.name for statement in statements}
    read = [term.value for statement in statements for term in statement.terms if term.op == "name"]
    found = [name for name in dict.fromkeys(read) if name not in bound and name != "pi"]
    if not found:
        raise InputError("the graph reads no variable of the notebook", Place("<cell>"))
    return found


def _plain(value: object) -> object:
    """Tensors and arrays of any library as nested lists: they hold the same numbers."""
    return value.tolist() if hasattr(value, "tolist") else value
