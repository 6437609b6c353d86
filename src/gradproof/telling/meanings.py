"""What each verdict means, a paragraph each: for `gradproof help`; docs/verdicts.md has the same words."""

from __future__ import annotations

MEANINGS = {
    "exact": """\
The engine's number is correctly rounded. It lies within half a unit in the last place of the true value,
which is known as a ball with proved bounds; no other number of this dtype is better. It passes.""",
    "rounding": """\
The engine's number is one that rounding explains. The same formula was evaluated with every operation
allowed to round as the dtype does, which gives a set of numbers; this one lies in it. The report says how
far it is from the true value (ulp) and how far it might be (allowed). It passes.""",
    "kink": """\
There is no derivative at this point, and the engine's number is one that convention allows. It lies
between the one-sided derivatives, and all entries at the kink together are a generalised gradient
(Clarke's). It passes, and is told: a neighbouring point has another gradient.""",
    "unsupported": """\
Something is not covered, and is named with its place. That is an operation without a formula, a dtype, a
layout, or numbers that left the engine: nothing that a parameter reaches becomes a constant in silence.
Nothing is said of its gradient, so it does not pass; exit code 3. `register_formula` or `formula=` says
what an operation computes.""",
    "undecided": """\
The reference cannot tell here. The set of what rounding can give is unbounded, or the derivative does not
exist, or what is needed was not finite already. It does not pass; exit code 3. Another point or a wider
dtype may decide.""",
    "wrong": """\
The engine's number is none that this formula can give in this dtype, whatever the rounding. The line, the
node and the worst entry are told, with what the mistake looks like. Or a part of the gradient is lost: a
detach, .data, no_grad or item() stops autograd, not the function. It does not pass; exit code 1.""",
    "failed": """\
The engine or the function raised, or broke off. It ended the process, crashed, took longer than --timeout
or more than --memory, or does not give the same numbers twice. Its message is kept, with file and line.
It does not pass; exit code 1.""",
}
