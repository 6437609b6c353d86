"""What stands on a page: small records, made once of whatever was found; a format is how it prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import sympy

from . import nested, number
from .pieces import Section
from .words import STYLES, SYMBOLS, place


@dataclass(frozen=True)
class Amount:
    """A number in a cell."""

    value: float | None
    digits: int = 8
    remark: str = ""

    def __str__(self) -> str:
        return number(self.value, self.digits) + (f" {self.remark}" if self.remark else "")


@dataclass(frozen=True, eq=False)
class Term:
    """A formula in a cell: as text, and as an expression where there is one."""

    text: str
    expression: sympy.Expr | None = None

    def __str__(self) -> str:
        return " ".join(self.text.split())


@dataclass(frozen=True)
class Verdict:
    """A verdict: a symbol and a word, so that nothing hangs on the colour."""

    word: str
    ok: bool

    def __str__(self) -> str:
        return self.word

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.word]

    @property
    def colour(self) -> str:
        """Of a style: what is not as it should be, what is told, what is fine."""
        return "bad" if not self.ok else "told" if STYLES[self.word] == "bad" else STYLES[self.word]


Cell = str | Amount | Term | Verdict


@dataclass(frozen=True, eq=False)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def cut(self, count: int) -> Table:
        """At most that many rows, those first that do not pass, and what was left out."""
        if len(self.rows) <= count:
            return self
        rows = sorted(self.rows, key=lambda row: all(cell.ok for cell in row if isinstance(cell, Verdict)))
        passing = all(cell.ok for row in rows[count:] for cell in row if isinstance(cell, Verdict))
        more = f"and {len(rows) - count} more{', all passing' if passing else ''}"
        return Table(self.title, self.head, tuple(rows[:count]), (more, *self.notes))


@dataclass(frozen=True)
class Comparison:
    """One finding in words: what it is about, at which entry and place, and how its numbers stand."""

    kind: str
    node: str
    subject: str  # ∂loss/∂w, or for a gradient w
    name: str  # with the entry: ∂loss/∂w[3]
    told: str  # beside the verdict: loss (a.py:3): gradient by w[3], its own error
    place: str
    verdict: Verdict
    passes: bool
    inherited: bool
    expected: str
    got: str
    distance: str
    formula: str
    note: str

    @property
    def line(self) -> str:
        """In one line."""
        numbers = f" (exact {self.expected}, engine {self.got})" if self.expected != "–" else ""
        return f"{self.name}: {self.verdict}{f': {self.note}' if self.note else ''}{numbers}"


@dataclass(frozen=True)
class Faults:
    """What does not pass: in full, and in a line each what is inherited from it."""

    title: str
    own: tuple[Comparison, ...]
    inherited: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notes:
    """Sentences; without a title they stand below everything."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """Lines that stay as they are."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Drawn only when a format shows it; `file` is where it stands already."""

    title: str
    svg: Callable[[], str]
    mermaid: Callable[[], str] | None = None
    caption: str = ""
    file: str = ""


@dataclass(frozen=True, eq=False)
class Tensor:
    """All entries of a derivative; `ulp` is how far the engine's are off."""

    name: str
    exact: np.ndarray
    engine: np.ndarray | None
    ulp: np.ndarray | None
    remark: str = ""

    @property
    def worst(self) -> tuple[int, ...] | None:
        """The entry that is furthest off; one that is no number is further than any."""
        if self.ulp is None or not self.ulp.size:
            return None
        apart = np.where(np.isnan(self.ulp) & ~np.isnan(self.exact), np.inf, np.nan_to_num(self.ulp, nan=-1))
        return tuple(int(n) for n in np.unravel_index(int(np.argmax(apart)), apart.shape))

    @property
    def alike(self) -> bool:
        """Whether both sides print the same."""
        return self.engine is not None and nested(self.exact) == nested(self.engine)

    @property
    def told(self) -> str:
        """The size, and the worst entry."""
        size = " × ".join(map(str, self.exact.shape))
        if self.worst is None or self.ulp is None or self.engine is None:
            return size
        at = f"{number(float(self.exact[self.worst]))}, engine {number(float(self.engine[self.worst]))}"
        return (
            f"{size}; furthest off at {place(self.worst)}: {at}, {number(float(self.ulp[self.worst]), 3)} ulp"
        )


@dataclass(frozen=True)
class Entries:
    """Tensors that a table tells by one entry, whole."""

    title: str
    tensors: tuple[Tensor, ...]


Part = Table | Faults | Section | Notes | Listing | Picture | Entries


@dataclass(frozen=True, eq=False)
class Page:
    """What stands on a page, from top to bottom; an explanation has no verdict."""

    title: str
    parts: tuple[Part, ...]
    teaches: str = ""
    verdict: Verdict | None = None
    headline: str = ""
    target: str = ""
    run: str = ""
    engine: str = ""
    comparisons: tuple[Comparison, ...] = field(default=(), repr=False)
