"""Errors that people read: where, what was found, what was expected, and the cure."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

OURS = f"{Path(__file__).parent}{os.sep}"
_PYTHON, _SITE = (f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "purelib"))


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


class _PlacedError(GradproofError):
    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class InputError(_PlacedError):
    """Bad input: an expression, a file, a value.

    >>> print(InputError("unknown name 'X'", Place("ols.toml", 4, 9)))
    ols.toml:4:9: unknown name 'X'
    """


class TargetError(_PlacedError):
    """What Python of the user's did instead of giving what it was asked for: it raised, crashed, hung, ended
    the process.

    Of a target this is the verdict `failed`.
    """

    exit_code = 1


class GraphError(GradproofError):
    """A graph that is not well formed: a fault of the front that built it."""


class UnsupportedError(GradproofError):
    """What is not covered: an operation without a formula, or one that an engine does not have. A verdict,
    and no fault."""


class EngineError(GradproofError):
    """The engine asked for is unknown or not installed."""


def said(error: BaseException) -> str:
    """An exception in one line: `ValueError: what it says first`. One that cannot say anything is told by its
    type."""
    try:
        text = str(error).strip().splitlines()
    except Exception:  # its `__str__` is the user's, and may raise anything
        text = []
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def users(file: str) -> bool:
    """Whether code is neither ours nor Python's own."""
    return not file.startswith((OURS, "<frozen")) and not (
        file.startswith(_PYTHON) and not file.startswith(_SITE)
    )


def shown(path: str) -> str:
    """A path as people know it: from where they are, if it lies below."""
    if path.startswith("<"):
        return path
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone, another drive
        return path
    return path if relative.startswith("..") else relative


def raised_at(error: BaseException) -> Place | None:
    """The user's line that an exception came through last; that of a library where there is no other."""
    return last_line(
        [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    )


def where(error: BaseException) -> str:
    """` at file:line` of the user's; nothing where an exception came through libraries alone."""
    place = raised_at(error)
    return f" at {place}" if place is not None and not _of_library(place.file) else ""


def last_line(frames: Iterable[tuple[str, int]]) -> Place | None:
    """The last of these lines that is the user's; or else a library's, torch's apart."""
    found = [frame for frame in frames if users(frame[0]) and not frame[0].startswith("<")]
    own = [frame for frame in found if not _of_library(frame[0])]
    own = own or [frame for frame in found if f"{os.sep}torch{os.sep}" not in frame[0]]
    return Place(shown(own[-1][0]), own[-1][1]) if own else None


def _of_library(file: str) -> bool:
    return f"{os.sep}site-packages{os.sep}" in file


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' when something known is close, else ''.

    >>> did_you_mean("sine", ["sin", "cos"])
    "; did you mean 'sin'?"
    """
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
