"""Reports: one file a format. A new format is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..oracle import Report

# format: the module with a function `render(reports, errors)`
FORMATS = {"text": "text", "markdown": "markdown", "html": "html", "json": "machine", "junit": "junit"}

EXPLANATIONS = ("text", "markdown", "html")  # formats of `explain`

PAGES = {form: FORMATS[form] for form in ("markdown", "html")}  # those that make a page each, and an index

Failure = tuple[str, str]  # a target that could not be read, and why


def render(reports: Sequence[Report], form: str, errors: Sequence[Failure] = ()) -> str:
    """The reports in one of `FORMATS`."""
    function: Callable[[Sequence[Report], Sequence[Failure]], str] = import_module(f".{FORMATS[form]}", __name__).render
    return function(reports, errors)


def number(value: float | None, digits: int = 8) -> str:
    """A number for a table: short, without a minus zero, and a dash where there is none."""
    if value is None:
        return "–"
    return f"{value + 0.0:.{digits}g}"
