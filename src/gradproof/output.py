"""Where results go: a terminal, a pipe, a file. What cannot be written is an error, and never lost in
silence."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from .errors import InputError, Place

# Control characters but for tabs and line ends, and what turns the direction of writing around.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with what nobody would see, or what would move what others see, as escapes.

    >>> visible("a title \\x1b[31m")
    'a title \\\\u001b[31m'
    """
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def tell(message: object) -> None:
    """A message on stderr; none where that is closed."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"gradproof: {visible(str(message))}", file=sys.stderr)


def show(text: str, *, coloured: bool = False) -> None:
    """To stdout; in colour only where that is a terminal. Where the reader has gone (`| head`), nothing is
    left to tell it.

    Raises `InputError` where stdout is closed or full.
    """
    if sys.stdout is None:
        raise InputError("stdout is closed; give a file by --output")
    try:
        if coloured and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            _in_colour(visible(text))
        else:
            write_anything()
            print(visible(text))
        sys.stdout.flush()
    except BrokenPipeError:
        _discarded()
    except OSError as error:
        _discarded()
        raise InputError(f"cannot be written: {error.strerror}", Place("stdout")) from None


def write_anything() -> None:
    """A terminal without UTF-8 is no error: what it has no sign for stands as a question mark."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # as a text file, which it is


def _discarded() -> None:
    """Nothing goes to stdout any more, not even at the end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_colour(text: str) -> None:
    from rich.console import Console
    from rich.highlighter import RegexHighlighter
    from rich.theme import Theme

    class Verdicts(RegexHighlighter):
        base_style = "verdict."
        highlights: ClassVar = [
            r"\b(?P<pass>exact|rounding|ok)\b",
            r"\b(?P<told>kink|undecided|unsupported)\b",
            r"\b(?P<bad>wrong|failed|NOT OK)\b",
        ]

    theme = Theme({"verdict.pass": "green", "verdict.told": "yellow", "verdict.bad": "bold red"})
    Console(theme=theme, highlighter=Verdicts(), soft_wrap=True).print(text, markup=False)


def write(path: Path, text: str | bytes) -> None:
    """Replace a file in one step: who reads it sees the old text or the new one, never a half. What is no
    regular file, a device or a pipe, is written to as it is.

    Raises `InputError` where it cannot be written to; what was there stays.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(_written(text))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".gradproof.")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", Place(str(path))) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_written(text))
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", Place(str(path))) from None
    finally:
        with suppress(OSError):
            Path(temporary).unlink()


def _written(text: str | bytes) -> bytes:
    return visible(text).encode(errors="replace") if isinstance(text, str) else text


_SUFFIXES = {
    ".md": "markdown",
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".xml": "junit",
    ".csv": "csv",
    ".npz": "npz",
    ".txt": "text",
}


def form_of(asked: str | None, path: Path | None, known: Any) -> str:
    """The format: that which was asked for, or the one that the file's suffix says, or text."""
    if asked is not None:
        return asked
    by_suffix = _SUFFIXES.get(path.suffix.lower(), "text") if path is not None else "text"
    return by_suffix if by_suffix in known else "text"


MAX_NAME = 100  # letters: a file's name may have 255 bytes, and a letter up to 4


def page_names(targets: Sequence[str], each: int, ending: str) -> list[list[str]]:
    """Names for `each` pages of every target, all of them apart also where upper and lower case are the
    same."""
    taken = {f"index{ending}"}
    found = []
    for target in targets:
        stem = re.sub(r"[^\w.-]+", "-", Path(target).name.removesuffix(".toml"))[:MAX_NAME]
        mine: list[str] = []
        again = 0
        while len(mine) < each:
            again += 1
            name = f"{stem}{ending}" if again == 1 else f"{stem}-{again}{ending}"
            if name.casefold() not in taken:
                taken.add(name.casefold())
                mine.append(name)
        found.append(mine)
    return found
