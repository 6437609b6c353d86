"""Reports: one file a format. A new format is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ..report import Report

# format: the module with a function `render(reports, errors)`
FORMATS = {
    "text": "text",
    "markdown": "markdown",
    "html": "html",
    "json": "machine",
    "csv": "sheet",
    "junit": "junit",
}

GRADIENTS = ("text", "json", "csv", "npz")  # of `gradient`

EXPLANATIONS = ("text", "markdown", "html")  # formats of `explain`

PAGES = {form: FORMATS[form] for form in ("markdown", "html")}  # those that make a page each, and an index

Failure = tuple[str, str]  # a target that could not be read, and why


def render(
    reports: Sequence[Report], form: str, errors: Sequence[Failure] = (), *, full: bool = False
) -> str:
    """The reports in one of `FORMATS`; in JSON and CSV, `full` gives all entries of every gradient."""
    function: Callable[..., str] = import_module(f".{FORMATS[form]}", __name__).render
    return function(reports, errors, **({"full": True} if full else {}))


def of_pages(pages: Sequence[Any], form: str) -> str:
    """Pages below each other, in a format that has pages."""
    return str(import_module(f".{FORMATS[form]}", __name__).pages(pages))


def of_descent(report: Any, form: str) -> str:
    """A descent's report in one of its formats."""
    return import_module(".descent", __name__).render(report, form)


def of_whole_descent(report: Any) -> tuple[str, ...]:
    """What there is to say of the whole of a descent."""
    return tuple(import_module(".notes", __name__).notes(report))


def shown(thing: Any, form: str) -> str | None:
    """What a notebook shows of a report, a problem or a graph; None where a format says nothing of it."""
    return import_module(".fragment", __name__).shown(thing, form)


def said(causes: Sequence[Any]) -> str:
    """The causes of a finding in words."""
    return import_module(".causes", __name__).said(causes)


def number(value: float | None, digits: int = 8) -> str:
    """A number for a table: short, without a minus zero, and a dash where there is none."""
    if value is None:
        return "–"
    return f"{value + 0.0:.{digits}g}"


def nested(array: np.ndarray) -> str:
    """All entries of a tensor in brackets: `[[1, 2], [3, 4]]`."""
    if array.ndim == 0:
        return number(float(array))
    return f"[{', '.join(map(nested, array))}]"
