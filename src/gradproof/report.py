"""What a check gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from . import display
from .display import Displayed
from .errors import TargetError
from .language.files import Expectation, Problem
from .packing import loaded, packed
from .telling.derivation import Derivation
from .verdict import Finding, Numbers, Verdict, worst


@dataclass(frozen=True, eq=False)
class Report(Displayed):
    """What was checked, and what came of it: a problem with its derivation, or a torch function (without
    either)."""

    title: str
    target: str
    engine: str
    dtype: str
    findings: tuple[Finding, ...]
    seconds: float = 0.0
    problem: Problem | None = None
    derivation: Derivation | None = None
    exercised: tuple[str, ...] = ()  # kinds of derivative
    not_exercised: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # what is no fault, in sentences
    traceback: str = ""  # of what the function or its backward raised
    # The chained gradients by name, exact from the leaves (of a function up to 2,000 entries
    # in all); local ones by line and parent, at
    # the engine's own numbers.
    gradients: Mapping[str, Numbers] = field(default_factory=dict)
    local: Mapping[tuple[str, str], Numbers] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings' verdicts."""
        return worst([finding.verdict for finding in self.findings])

    @property
    def as_expected(self) -> bool:
        """Whether the file said what would come, and it came, at that node and nowhere else, and nothing
        worse."""
        expect = self.expected
        if expect is None or not expect.met_by(self.verdict):
            return False
        blamed = {f.node for f in self.findings if f.verdict == expect.verdict and not f.inherited}
        return expect.node is None or blamed == {expect.node}

    @property
    def ok(self) -> bool:
        """Everything compared passes, or the file's expectation is met."""
        return self.as_expected if self.expected else self.verdict.passes

    @cached_property
    def expected(self) -> Expectation | None:
        """What the file says will come of this engine, in this dtype."""
        return self.problem.expected(self.engine, self.dtype) if self.problem else None

    @property
    def sensitivity(self) -> float | None:
        """The smallest relative error that every step would have caught, entries zero by cancellation
        apart."""
        return max((f.sensitivity for f in self.findings if f.sensitivity is not None), default=None)

    def to_text(self) -> str:
        return display.telling().render([self], "text")

    __str__ = to_text

    def to_markdown(self) -> str:
        return display.telling().render([self], "markdown")

    def to_html(self) -> str:
        """A page that needs nothing from elsewhere."""
        return display.telling().render([self], "html")

    def to_json(self) -> str:
        return display.telling().render([self], "json")

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process: the formulas, which take the longest to read, folded."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FORMULAS}
        formulas = packed([getattr(self, name) for name in _FORMULAS])
        return _told, ({**told, "expected": self.expected}, formulas)


_FORMULAS = ("problem", "derivation")


class _Told(Report):
    """One of another process: its problem and derivation are read when somebody asks, as pages do."""

    _folded: bytes

    @cached_property
    def _formulas(self) -> tuple[Problem | None, Derivation | None]:
        found = loaded(self._folded)
        if isinstance(found, TargetError):
            raise found
        problem, derivation = found
        return problem, derivation

    @cached_property
    def problem(self) -> Problem | None:
        return self._formulas[0]

    @cached_property
    def derivation(self) -> Derivation | None:
        return self._formulas[1]


def _told(told: dict[str, Any], formulas: bytes) -> Report:
    report = _Told.__new__(_Told)
    vars(report).update(told, _folded=formulas)
    return report
