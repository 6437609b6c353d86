"""Causes in words: one line for each kind, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from .. import causes as c
from . import number

AUTOGRAD = "a detach, .data, no_grad or item() stops autograd, not the function; if that is meant, say so by"


def said(causes: Sequence[c.Cause]) -> str:
    """The causes of a finding in one line."""
    return "; ".join(text for text in map(words, causes) if text)


def words(cause: c.Cause) -> str:
    """One cause in words. Raises `KeyError` for one that has none."""
    told = WORDS[type(cause)]
    own: Any = cause
    return (
        told.format(**{f.name: getattr(own, f.name) for f in fields(own)})
        if isinstance(told, str)
        else told(own)
    )


def _kink(cause: c.Kink) -> str:
    where = "lies between" if cause.between else "does not lie between"
    span = f"{cause.low:.6g} to {cause.high:.6g}"
    return f"no derivative here; the one-sided ones span {span}, and the engine's value {where}"


def _not_finite(cause: c.NotFinite) -> str:
    what = "NaN" if cause.value != cause.value else "infinity"
    why = f": the formula fails in {cause.dtype}" if cause.formula else ""
    return f"{what}, though the exact number is finite{why}"


def _singular(cause: c.Singular) -> str:
    what = "no finite derivative" if cause.derivative else "no value"
    where = "here" if cause.operand is None else f"where its operand is {number(cause.operand)}"
    return f"{cause.operation} has {what} {where}"


def _no_gradient(cause: c.NoGradient) -> str:
    what = "passed None" if cause.passed else "no gradient (None)"
    why = {
        "not zero": ", though the derivative is not zero",
        "zero": "; the derivative is zero",
        "none": "; the derivative does not exist here",
    }
    return "" if cause.passed and cause.derivative == "zero" else what + why.get(cause.derivative, "")


def _factor(cause: c.Factor) -> str:
    ratio, off = cause.ratio, cause.ratio - 1
    if ratio == -1:
        return "the sign is wrong"
    told = f"a factor of {ratio:.{cause.digits}g}"
    if abs(off) <= 1e-5:
        told = f"a factor of 1 {'+' if off > 0 else '-'} {abs(off):.2g}"
    if abs(off) < 1e-2:
        return f"{told}: a constant with too few digits, or one that is not quite right"
    return f"{told} ({cause.meaning})" if cause.meaning else told


def _conjugated(cause: c.Conjugated) -> str:
    if not cause.factor:
        return f"{'its spectrum' if cause.spectrum else 'it'} is the conjugate of the right one"
    factor = (
        "spectrum that the cotangent's is multiplied with" if cause.spectrum else "factor of the cotangent"
    )
    return f"the {factor} is not conjugated, as torch's convention asks"


def _lost_use(cause: c.LostUse) -> str:
    if cause.only:
        return f"of {cause.uses} uses only one arrived, the others are lost or overwritten: {cause.where}"
    return f"one of {cause.uses} uses is lost, or overwritten: {cause.where}"


def _lower(cause: c.LowerPrecision) -> str:
    if cause.dtype:
        return f"every entry is a number of {cause.dtype}: computed in a lower precision"
    return "it is right to some seven digits: computed in float32, or with a constant of too few digits"


def _boundary(cause: c.AtBoundary) -> str:
    at = f" (at {', '.join(cause.places)})" if cause.places else ""
    if cause.unseen:
        too_large = "the whole function is too large to be looked at from both sides"
        return f"a condition stands at its boundary, and {too_large}"
    return f"a condition stands at its boundary{at}, where the function's derivative is another"


def _smooth(cause: c.SmoothTogether) -> str:
    at = f" (at {', '.join(cause.places)})" if cause.places else ""
    return f"the pieces have kinks here{at}, but the whole function is smooth"


def _not_the_sum(cause: c.NotTheSum) -> str:
    told = (
        "what arrived is not what its uses passed on: a hook, an addition that went wrong, or memory that "
        "one of "
        f"them wrote to ({', '.join(cause.uses)})"
    )
    return (
        f"{told}; {', '.join(cause.writers)} writes to the cotangent that it receives"
        if cause.writers
        else told
    )


def _lost(cause: c.LostAtStop) -> str:
    where = ", ".join(cause.places) or "an unknown place"
    if cause.by == "stop_gradient":
        names = ", ".join(cause.leaves)
        return f"part of the gradient by {names} is lost here: stop_gradient stops JAX, not the function"
    return f'part of the gradient is lost at {where}: {AUTOGRAD} stops="trust"'


_LAYOUTS = {
    "apart": "two entries apart",
    "turned": "with its axes in another order in memory (channels_last)",
    "expanded": "expanded, so that one number in memory stands for all that are alike",
}


def _unrecorded(cause: c.OtherUnrecorded) -> str:
    told = "run without the recorder it gives other numbers: what was judged is not what its users get"
    if not cause.compiled:
        return told
    if cause.wrong:
        return f"the compiled code ({cause.compiled}) is wrong; run as it is written it is right"
    rounds = "compiled code, which rounds otherwise"
    return f"{rounds}: {told}, and the whole function is not told apart from its rounding"


def _nested(cause: c.Nested) -> str:
    way = "a part of it arrives by a backward within the backward (a reentrant checkpoint)"
    return (
        way
        if cause.judged
        else f"{way}, which is not recorded, and the whole function is too large or not covered"
    )


def _not_zeroed(cause: c.NotZeroed) -> str:
    told = f"the sum of those of steps {cause.first} to {cause.last}"
    return f"not zeroed: it is {told}" if cause.meant else f"the gradient is {told}: zero_grad is missing"


def _accumulated(cause: c.Accumulated) -> str:
    if cause.equal:
        return f"the {cause.parts} micro-batches' gradients add up to the full batch's"
    off = "not the full batch's, nor a multiple of it"
    if cause.factor is not None:
        off = f"{cause.factor:.12g} times the full batch's"
    return f"the accumulated gradient is {off}; {_cure(cause)}"


def _cure(cause: c.Accumulated) -> str:
    if cause.reduction == "sum" and cause.factor is None:
        cure = "if it is a mean, weight each part with its share (reduction mean)"
        return f"the loss is no sum over the samples; {cure}"
    if cause.reduction == "sum":
        return f"the loss is a mean: divide each part's loss by {cause.parts} (reduction mean)"
    return "the loss is no mean over the samples; if it is a sum, do not divide (reduction sum)"


def _no_step(cause: c.NoStep) -> str:
    if cause.moved is None:
        return "the loop did not call optimizer.step()"
    return "no gradient (None), " + ("and yet it was changed" if cause.moved else "so it stays")


def _judged_by(cause: c.JudgedBy) -> str:
    if cause.runs:
        return f"judged by a statistical rounding set ({cause.runs} runs under random roundings)"
    return "judged by the ball from the leaves"


# A template over the record's fields, or a function of it.
WORDS: dict[type[c.Cause], str | Callable[[Any], str]] = {
    c.NoReference: "the reference does not exist here: no finite derivative or value",
    c.Kink: _kink,
    c.NoSubgradient: "together these {entries} entries are no subgradient: along one direction they give "
                     "{along:.6g}, and the function's slope there is at most {most:.6g}",
    c.Overflow: "overflow: the exact number {exact} is beyond {dtype}'s largest, {largest:.3g}",
    c.Underflow: "underflow: the exact number {exact:.3g} is below {dtype}'s smallest, {smallest:.3g}",
    c.NotFinite: _not_finite,
    c.AnyNumber: "rounding in {dtype} can give any number here",
    c.Singular: _singular,
    c.WrongShape: "shape {shape}, expected {expected}",
    c.PartsOfShapes: lambda cause: f"parts of shapes {' and '.join(map(str, cause.parts))} "
                                   f"for a value of shape {cause.shape}",
    c.NothingToCompare: lambda cause: "nothing was compared" if cause.whole else "there is nothing to "
                                                                                 "compare",
    c.NoEntries: "it has no entries",
    c.LeftOpen: "{entries} entries are too near to the edge of what rounding explains for floats to tell, "
    "and too many to look at one by one",
    c.LookedAt: "balls looked at {looked} of the {left} entries that floats do not pass, those furthest off",
    c.TooLarge: "it runs over {terms} terms: floats cannot judge it, and for balls these are too many",
    c.NoGradient: _no_gradient,
    c.GivenGradient: "a gradient on a given tensor",
    c.Probed: "probed with one random cotangent",
    c.OtherPoint: "the engine computes at other numbers than those of the point",
    c.JudgedBy: _judged_by,
    c.Zero: "it is zero",
    c.Transposed: "it is transposed",
    c.Conjugated: _conjugated,
    c.FactorInSome: lambda cause: f"{cause.entries} of {cause.of} entries are {number(cause.ratio, 6)} times "
                                  "the right ones, the others are right",
    c.Factor: _factor,
    c.Either: lambda cause: f"{words(cause.one)}; or {words(cause.other)}",
    c.LostUse: _lost_use,
    c.OnlyPart: lambda cause: f"only the part from {cause.kept} arrived; that from {', '.join(cause.lost)} "
                              "is lost or "
                              "overwritten",
    c.PassedUnchanged: "it is the cotangent itself, passed on unchanged",
    c.ValueTimesCotangent: "it is the forward value times the cotangent",
    c.CotangentIgnored: "the cotangent that it received is ignored",
    c.SumMissing: "only the {entry} entry along axis {axis} of the cotangent counts: a sum is missing",
    c.ChangedInPlace: "it is the gradient at the numbers that {name} has after {after}: changed in place",
    c.LowerPrecision: _lower,
    c.AllAlike: "all engines are wrong alike here: suspect the formula, as it is written, before the engines",
    c.Inherited: "inherited from {origin}",
    c.SmoothTogether: _smooth,
    c.AtBoundary: _boundary,
    c.Cancels: "right from the leaves, although {origin} is wrong: it cancels",
    c.HeldIn: "accumulated in {dtype}: a sum of so many terms is to be held in float32 and rounded once; "
              'accumulate="any" takes it',
    c.Convention: "by convention: {what}",
    c.NoEffect: "wrong, and its error reaches no parameter",
    c.MadeUpFor: "right from the leaves: what is lost at one place is made up for",
    c.WholeIsRight: lambda cause: "the function as a whole is right" if cause.proved
                                  else "the function as a whole was judged",
    c.ComesFrom: "it comes from {node} at {place}",
    c.OverflowOnTheWay: "a value overflows on the way",
    c.NotFiniteAlready: "{what} is not finite already",
    c.Beyond: "{name} holds {value:.6g}, beyond {dtype}'s largest, {largest:.6g}",
    c.NotTheSum: _not_the_sum,
    c.NothingPassed: "no gradient (None); nothing was passed to it",
    c.Unseen: lambda cause: cause.what or "a part of it was not seen",
    c.NoRepeat: "the backward is not deterministic: run again on the same cotangent it passed other numbers",
    c.OtherCotangent: lambda cause: "for a cotangent of -2 times as much, " + (
        _LAYOUTS.get(cause.layout, cause.layout)),
    c.LostAtStop: _lost,
    c.StoppedForward: "every node's tangent is right, and the function's is not: something on the way has "
                      "no tangent (a detach, .data, no_grad, a number)",
    c.CutOff: "the backward gives it without a history, and what is linear in the cotangent cannot be "
              "constant: it is cut off from its own graph (a detach, NumPy)",
    c.BreaksClause: lambda cause: f"{cause.seen}{f' (gradient of {cause.at})' if cause.at else ''}; "
                                  f"{cause.why}",
    c.NotFollowed: '{why}: what happens there is not seen; if it is meant as a constant, say so by '
                   'stops="trust"',
    c.Contradicted: "something was not seen: along a random direction the function changes by {slope:.6g}, "
                    "and the "
                    "gradients that were judged say {gradients:.6g}",
    c.SmoothAnyway: "the function is smooth here: along random directions both sides change alike, by "
                    "{slope:.6g} along one of them, and the gradient is no finite number",
    c.OtherUnrecorded: _unrecorded,
    c.OffCompiled: "compiled as a whole it is off by {relative:.2g} relative, equation by equation it is "
                   "right",
    c.Nested: _nested,
    c.Uncovered: "{what}",
    c.Raised: "{message}",
    c.Unreached: "{why}",
    c.NotZeroed: _not_zeroed,
    c.LeftOut: "the step used {used} of the {parts} micro-batches",
    c.Accumulated: _accumulated,
    c.ByOtherHands: "{what}",
    c.NoStep: _no_step,
    c.Counter: "the optimizer counts step {counts:g}, expected {expected}",
    c.UpdateMistake: "{words}",
    c.OfTheStep: lambda cause: f"of the step that it should take: {words(cause.like)}",
    c.MicroBatch: "micro-batch {number}",
}  # fmt: skip
