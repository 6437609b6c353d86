"""Errors that people read: where, what was found, what was expected, and the cure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Place:
    """A position in a user's text; lines and columns count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        parts = [self.file] + [str(n) for n in (self.line, self.column) if n]
        return ":".join(parts)


class GradproofError(Exception):
    """Anything that the user can mend. The command line ends with `exit_code`."""

    exit_code = 2


class InputError(GradproofError):
    """Bad input: an expression, a file, a value.

    >>> print(InputError("unknown name 'X'", Place("ols.toml", 4, 9)))
    ols.toml:4:9: unknown name 'X'
    """

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class GraphError(GradproofError):
    """A graph that is not well formed: a fault of the front that built it."""


class UnsupportedError(GradproofError):
    """What is not covered: an operation without a formula, or one that an engine does not have. A verdict, and no fault."""


class EngineError(GradproofError):
    """The engine asked for is unknown or not installed."""


def said(error: BaseException) -> str:
    """An exception in one line: `ValueError: what it says first`."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' when something known is close, else ''.

    >>> did_you_mean("sine", ["sin", "cos"])
    "; did you mean 'sin'?"
    """
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
