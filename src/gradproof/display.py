"""How records show themselves in a notebook: the package above says who tells it, so that nothing below
imports upward."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def _nobody() -> ModuleType:
    raise LookupError("the package says who tells of records")


telling: Callable[[], ModuleType] = _nobody  # gives the room that makes words and pages of them


class Displayed:
    """A record that a notebook shows; what makes pages is loaded when one does."""

    def _repr_html_(self) -> str | None:
        return telling().shown(self, "html")

    def _repr_markdown_(self) -> str | None:
        return telling().shown(self, "markdown")

    def _repr_latex_(self) -> str | None:
        return telling().shown(self, "latex")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(telling().shown(self, "text"))
