"""The whole run from its leaves to its outputs, beside what arrived: what no step can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from flint import arb

from .. import causes as because
from ..dtypes import DType
from ..errors import UnsupportedError
from ..proof.arithmetic import Sampling, exact, rounding
from ..proof.balls import Balls, balls, centres, precision, radii
from ..proof.enclosure import START_BITS, Enclosures, Pulled
from ..proof.graph import size
from ..proof.walk import evaluate
from ..verdict import Judgement, Verdict
from .likeness import Clues
from .together import judge_pulled
from .verdicts import Comparison, absent, judge
from .witness import Arrival, Whole, Witness

RUNS = 24  # of the reference under random roundings
SIGMAS = 6.0  # of their spread that explain a number: a right one is outside less than once in a million
NARROW = 2.0**10  # units of roundoff: up to this relative width the ball from the leaves judges alone


class FromLeaves:
    """A witness's run from its leaves, worked out when it is first asked for."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    @cached_property
    def run(self) -> Whole | None:
        """The run from its leaves; None where it is too large or not covered."""
        try:
            return self.witness.whole()
        except UnsupportedError:
            return None

    @cached_property
    def pulled(self) -> dict[str, Pulled]:
        """The gradients from the leaves, exact and with all the rounding on the way: what a user reads."""
        whole, dtype = self.run, self.witness.dtype
        if whole is None or dtype is None:
            return {}
        pulled = Enclosures(dtype).pulled(whole.run, whole.given, whole.rows)
        return {name: each.row(0) for name, each in pulled.items()}

    def _by_pulled(self, values: Mapping[str, np.ndarray | None]) -> dict[str, Judgement]:
        """Gradients of the leaves beside what was pulled back to them."""
        dtypes = {at.name: at.dtype for at in self.witness.arrivals if at.dtype is not None}
        here = {
            name: value
            for name, value in values.items()
            if value is not None
            and name in dtypes
            and name in self.pulled
            and (value.size or self.witness.complete)
        }
        return judge_pulled(here, {name: self.pulled[name] for name in self.pulled}, dtypes)

    @cached_property
    def judged(self) -> dict[str, Judgement]:
        found = self._by_pulled({at.name: at.value for at in self.witness.arrivals})
        for at in self.witness.arrivals if self.witness.complete else ():
            if at.value is None:
                found[at.name] = absent(self.pulled[at.name].exact)
        return found

    def of_others(
        self, outputs: Sequence[np.ndarray], gradients: Mapping[str, np.ndarray | None]
    ) -> dict[str, Judgement]:
        """What the calculus of the whole run says of other numbers for the same function, as a compiler's:
        its outputs, by number, and the gradients of its leaves.

        Raises `UnsupportedError` where the whole is too large or not covered.
        """
        whole, dtype = self.witness.whole(), self.witness.dtype
        if dtype is None:
            raise UnsupportedError("no dtype")
        with precision(START_BITS):
            told = self._by_pulled(gradients)
            sharp, loose = (evaluate(whole.run.nodes, whole.given, how) for how in (exact(), rounding(dtype)))
            for n, (name, value) in enumerate(zip(whole.outputs, outputs, strict=False)):
                told[f"output {n}"] = judge(Comparison(value, sharp[name], loose[name]), dtype)
        return told

    def clues(self, dtype: DType) -> Clues:
        whole = self.run
        shapes = [node.shape for node in whole.run.nodes] + list(whole.run.targets.values()) if whole else []
        return Clues(dtype, tuple({n for shape in shapes for n in (*shape, size(shape))}))

    def spread_if_wide(self, at: Arrival, whole: Judgement) -> tuple[Judgement, because.JudgedBy]:
        """Where the ball has grown too wide with depth, the spread under random roundings judges."""
        pulled = self.pulled[at.name]
        assert at.value is not None and at.dtype is not None
        reach = radii(pulled.rounding)
        scale = np.maximum(np.abs(centres(pulled.exact)), at.dtype.smallest_normal)
        narrow = bool(np.all(reach <= NARROW * at.dtype.unit_roundoff * scale))
        if narrow or whole.verdict not in (Verdict.ROUNDING, Verdict.UNDECIDED):
            return whole, because.JudgedBy()
        spread = self._spread[at.name]
        if not np.isfinite(radii(spread)).all():  # at a removable point no run has a number
            return whole, because.JudgedBy()
        return judge(Comparison(at.value, pulled.exact, spread, pulled.kinks), at.dtype), because.JudgedBy(
            RUNS
        )

    @cached_property
    def _spread(self) -> dict[str, Balls]:
        """The exact gradients with what many runs under random roundings spread over."""
        whole, dtype = self.run, self.witness.dtype
        assert whole is not None and dtype is not None
        random = np.random.default_rng(0)
        samples = [
            centres(whole.run.pull(whole.given, Sampling(dtype, random), whole.rows)) for _ in range(RUNS)
        ]
        middle, deviation = np.mean(samples, axis=0)[0], np.std(samples, axis=0, ddof=1)[0]
        least = np.maximum(np.abs(middle) * dtype.unit_roundoff * 2, dtype.smallest)
        reach = SIGMAS * np.maximum(deviation, least)
        return whole.run.split(np.asarray(balls(middle) + balls(reach) * arb(0, 1), dtype=object))


def chained(step: Judgement, whole: Judgement) -> Judgement:
    """A gradient's judgement: its own step's verdict, beside the exact gradient from the leaves.

    A step that holds while the whole is wrong is inherited, or a kink that cancels: every piece has a
    derivative that convention allows, and the function is smooth with another one.
    """
    if step.verdict in (Verdict.WRONG, Verdict.FAILED):
        return step
    at_kink = step.verdict is Verdict.KINK
    if at_kink and whole.exact is None and whole.value is not None and np.isfinite(whole.value):
        # Not smooth as a whole either; where several kinks meet, the one-sided derivatives do not span all.
        return step
    if whole.verdict is Verdict.WRONG:
        told = (*whole.causes, *((because.SmoothTogether(),) if at_kink else ()))
        return replace(whole, sensitivity=step.sensitivity, causes=told)
    if at_kink:
        return whole if whole.verdict in (Verdict.EXACT, Verdict.ROUNDING) else step
    if step.verdict is Verdict.UNDECIDED:
        return whole if whole.verdict.passes else step
    if whole.verdict is Verdict.UNDECIDED:
        return step
    # The step decides; `exact` means correctly rounded against the leaves.
    verdict = Verdict.EXACT if whole.verdict is Verdict.EXACT else Verdict.ROUNDING
    return replace(whole, verdict=verdict, sensitivity=step.sensitivity, cancelled=step.cancelled, refuted=0)


def tight(whole: Judgement) -> bool:
    """Whether it passes, and would not have passed with an error that matters."""
    tells = whole.sensitivity is None or whole.sensitivity < 1e-2
    return whole.verdict.passes and (tells or whole.verdict is Verdict.EXACT)


def in_every_entry(whole: Judgement) -> bool:
    """Whether it passes by rounding alone, and no entry would have passed with an error that matters."""
    return tight(whole) and whole.verdict is not Verdict.KINK and not whole.cancelled
