"""Sentences that every report says alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..causes import GivenGradient
from ..dtypes import DTYPES
from ..verdict import Rung, Verdict

if TYPE_CHECKING:
    from ..report import Report
    from ..verdict import Finding

# A verdict's symbol, so that nothing hangs on a colour, and its style.
SYMBOLS = {
    "exact": "✓", "rounding": "✓", "kink": "◇", "wrong": "✗", "failed": "✗", "undecided": "?",
    "unsupported": "–",
}  # fmt: skip
STYLES = {
    "exact": "good", "rounding": "good", "kink": "told", "undecided": "told", "unsupported": "told",
    "wrong": "bad", "failed": "bad",
}  # fmt: skip
PASSING = {Verdict.EXACT: "exact", Verdict.ROUNDING: "within rounding", Verdict.KINK: "at a kink"}
CONTRACT = "contract: "  # how the name of a clause begins among what was exercised
MAX_TEXT = 300  # characters of a cell
NO_DIGIT = 1e-2  # relative: what is further off is no rounding of the same formula, however it is computed


def headline(report: Report) -> str:
    """The verdict in one sentence; what passes is verified."""
    verdict = report.verdict.value
    if report.expected:
        expect = report.expected
        where = f" at {expect.node}" if expect.node else ""
        if report.ok:
            return f"{verdict}{where}, as the file expects"
        return f"{verdict}, but the file expects {expect.verdict}{where}"
    if report.verdict.passes:
        return f"verified: {counted([finding.verdict for finding in report.findings])}"
    bad = [finding for finding in report.findings if not finding.verdict.passes]
    own = [finding for finding in bad if not finding.inherited] or bad
    places = ", ".join(dict.fromkeys(name_of(finding) for finding in own[:3])) or "nothing was compared"
    return f"{verdict}: {places}{f' and {len(own) - 3} more' if len(own) > 3 else ''}"


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many comparisons passed, and how.

    >>> counted([Verdict.EXACT, Verdict.EXACT, Verdict.ROUNDING])
    '3 comparisons, 2 exact, 1 within rounding'
    """
    counts = Counter(verdicts)
    total = f"{len(verdicts):,} comparison{'' if len(verdicts) == 1 else 's'}"
    if len(counts) == 1:
        return f"{total}, {'all ' if len(verdicts) > 1 else ''}{PASSING[verdicts[0]]}"
    return ", ".join([total, *(f"{counts[one]:,} {words}" for one, words in PASSING.items() if counts[one])])


def ranked(finding: Finding, dtype: str) -> tuple[str, int] | None:
    """How wrong a number is: ("inaccurate", its right digits) or ("another formula", 0); None where there is
    no number, or nothing is wrong.

    An inaccurate number is what the formula may come to when it is computed in a bad way. Beside an exact 0
    no digit can be right: there the size of what cancels, which rounding's share tells, stands for the
    number.
    """
    exact, value = finding.exact, finding.value
    if finding.verdict is not Verdict.WRONG or exact is None or value is None:
        return None
    if not (math.isfinite(exact) and math.isfinite(value)):
        return None
    unit = DTYPES[dtype].unit_roundoff if dtype in DTYPES else DTYPES["float64"].unit_roundoff
    if exact:
        off = abs(value / exact - 1) if abs(value) < abs(exact) * 1e100 else math.inf
    else:
        off = (finding.ulp or math.inf) * unit / finding.allowed_ulp if finding.allowed_ulp else math.inf
    if off > max(NO_DIGIT, 16 * unit):  # in bfloat16 a few roundings are more than a hundredth
        return "another formula", 0
    return "inaccurate", max(0, min(17, int(-math.log10(off)))) if exact and off else 0


def rank_words(rank: tuple[str, int] | None) -> str:
    """
    >>> rank_words(("inaccurate", 6)), rank_words(("another formula", 0))
    ('inaccurate, right to 6 digits', 'another formula')
    """
    if rank is None or not rank[1]:
        return rank[0] if rank else ""
    return f"{rank[0]}, right to {rank[1]} digit{'' if rank[1] == 1 else 's'}"


def name_of(finding: Finding) -> str:
    """What a finding is about: `l`, `∂loss/∂l` or `chained gradient of w`."""
    if finding.kind == "local" and finding.wrt is not None:
        return f"∂{finding.node}/∂{finding.wrt}"
    return f"chained gradient of {finding.node}" if finding.kind == "gradient" else finding.node


def ladder(report: Report) -> Iterator[str]:
    """How well sums of 16-bit numbers were taken; those that are held in 16 bits by name."""
    told = Counter(finding.rung for finding in report.findings if finding.rung is not None)
    if told:
        below = [name_of(f) for f in report.findings if f.rung is Rung.HALF]
        names = f" ({', '.join(below[:4])}{' …' if len(below) > 4 else ''})" if below else ""
        listed = ", ".join(f"{told[rung]} {rung}" for rung in Rung if told[rung])
        yield f"Sums of 16-bit numbers: {listed}{names}."


def sensitivity(report: Report) -> Iterator[str]:
    """What the check could have seen, and what it could not judge."""
    if report.sensitivity is not None and report.verdict.passes:
        yield (
            f"Sensitivity: a relative error above {report.sensitivity:.2g} in any step would have been "
            "caught."
        )
    blurred = [finding for finding in report.findings if finding.cancelled and finding.verdict.passes]
    if blurred:
        count = sum(finding.cancelled for finding in blurred)
        names = ", ".join(name_of(finding) for finding in blurred[:4]) + (" …" if len(blurred) > 4 else "")
        entries = "entry" if count == 1 else "entries"
        yield (
            f"Not told apart from 0 by their size alone: {count} {entries} where rounding is as large as the "
            f"number ({names})."
        )
    given = [leaf.name for leaf in report.problem.graph.leaves if leaf.given] if report.problem else []
    wrong = {finding.node for finding in report.findings if GivenGradient() in finding.causes}
    free = [name for name in given if name not in wrong]
    if free:
        yield f"Given, and without a gradient, as it should be: {', '.join(free)}."
    yield from report.remarks
    if report.not_exercised:
        clauses = [kind.removeprefix(CONTRACT) for kind in report.exercised if kind.startswith(CONTRACT)]
        kinds = [kind for kind in report.exercised if not kind.startswith(CONTRACT)]
        told = [", ".join(kinds), *([f"{CONTRACT}{', '.join(clauses)}"] if clauses else [])]
        yield f"Exercised: {'; '.join(told)}; not: {', '.join(report.not_exercised)}."


def place(index: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, index))}]" if index else ""


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """A text in one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
