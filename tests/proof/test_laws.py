"""Laws that hold for every graph: property tests of the proof side against itself and against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch
from flint import arb
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from gradproof import Verdict, check, parse
from gradproof.dtypes import DTYPES
from gradproof.functions import FUNCTIONS, SPOKEN, Function
from gradproof.judging.verdicts import Comparison, judge
from gradproof.language.files import Problem
from gradproof.proof.arithmetic import exact, rounding
from gradproof.proof.balls import ZERO, balls, full, numbers, precision
from gradproof.proof.formulas import compiled
from gradproof.proof.functions import FORMS, define
from gradproof.proof.graph import slot
from gradproof.proof.slopes import closed, fused, partials
from gradproof.proof.walk import evaluate, one_sided, pullback
from gradproof.verdict import worst

SLOW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)

# Smooth lines over scalars and vectors; each reads names above it.
SCALAR_LINES = [
    "{a} * {b}",
    "{a} + {b}",
    "{a} - 2*{b}",
    "sin({a})",
    "tanh({a}) * {b}",
    "exp({a} / 4)",
    "{a} ** 2",
    "sigmoid({b})",
]
VECTOR_LINES = [
    *SCALAR_LINES,
    "softmax({a})",
    "cumsum({a})",
    "{a}[::-1]",
    "{a} - mean({b})",
    "{a} * max({b})",
    "outer({a}, {b})[0]",
]


@st.composite
def problems(draw: st.DrawFn, shape: tuple[int, ...]) -> Problem:
    """A random graph whose every line is used."""
    number = st.floats(-2, 2, allow_subnormal=False).map(lambda x: round(x, 3))
    values = st.lists(number, min_size=3, max_size=3) if shape else number
    names = ["u", "v"]
    text = []
    for n in range(draw(st.integers(1, 5))):
        form = draw(st.sampled_from(VECTOR_LINES if shape else SCALAR_LINES))
        a, b = names[-1], draw(st.sampled_from(names))
        text.append(f"x{n} = {form.format(a=a, b=b)} + 0*{a}")
        names.append(f"x{n}")
    everything = " + ".join(f"{name}*{n + 1}" for n, name in enumerate(names))
    text.append(f"loss = sum({everything})" if shape else f"loss = {everything}")
    return parse("\n".join(text), parameters={"u": draw(values), "v": draw(values)})


def reference(problem: Problem, graph: object = None, bits: int = 128) -> tuple[dict, dict]:
    """Exact values, and exact gradients of the leaves."""
    graph = graph or problem.graph
    with precision(bits):
        leaves = {name: np.asarray(balls(value), object) for name, value in problem.point.items()}
        values = evaluate(graph.nodes, leaves, exact())
        back = pullback(graph.nodes, values, {graph.output.name: full((1,), arb(1))}, graph.active, exact())
        return values, {name: numbers(back[name][0]) for name in problem.point if name in back}


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x.overlaps(y) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True))


@SLOW
@given(st.one_of(problems(()), problems((3,))))
def test_the_composed_graph_has_the_same_values_and_gradients(problem: Problem) -> None:
    composed = fused(problem.graph)
    assert len(composed.nodes) <= len(problem.graph.nodes)
    values, gradients = reference(problem)
    values_composed, gradients_composed = reference(problem, composed)
    for node in composed.nodes:
        if node.name in values:
            assert overlap(values[node.name], values_composed[node.name])
    for name in gradients:
        assert overlap(gradients[name], gradients_composed[name])


@SLOW
@given(problems(()))
def test_the_closed_form_is_the_gradient(problem: Problem) -> None:
    forms = closed(fused(problem.graph))
    _, gradients = reference(problem, bits=200)
    names = {sympy.Symbol(name, real=True): name for name in problem.point}
    with precision(200):
        for name, form in forms.items():
            symbols = tuple(sorted(form.free_symbols, key=str))
            arrays = [np.asarray(arb(float(problem.point[names[s]])), object) for s in symbols]
            value = compiled(form, symbols, exact(), "values")(*arrays)
            assert numbers(np.asarray(value, object))[()].overlaps(gradients[name][()])


@SLOW
@given(st.one_of(problems(()), problems((3,))), st.sampled_from(sorted(DTYPES)))
def test_torch_is_right_on_smooth_graphs(problem: Problem, dtype: str) -> None:
    report = check(problem, dtype=dtype)
    # A product that leaves float16 is the formula's fault, and told as such.
    assume(dtype not in ("float16",) or report.verdict is not Verdict.WRONG or not _overflows(report))
    assert report.ok, [finding for finding in report.findings if not finding.verdict.passes]


def _overflows(report: object) -> bool:
    return any("overflow" in finding.note or "fails in" in finding.note for finding in report.findings)


@SLOW
@given(st.one_of(problems(()), problems((3,))), st.integers(128, 700))
def test_more_bits_give_a_ball_inside(problem: Problem, bits: int) -> None:
    _, coarse = reference(problem)
    _, fine = reference(problem, bits=bits)
    for name in coarse:
        assert overlap(coarse[name], fine[name])


def points(row: Function, count: int) -> list[np.ndarray]:
    """Numbers of the function's domain, for each operand others."""
    low, high = (min(max(end, -3.3), 3.3) for end in row.domain)
    rng = np.random.default_rng(3)
    return [
        np.asarray(balls(low + (high - low) * rng.uniform(0.02, 0.98, count)), object)
        for _ in range(row.operands)
    ]


@pytest.mark.parametrize("row", SPOKEN.values(), ids=lambda row: row.name)
def test_a_textbook_slope_is_the_derivative_of_the_definition(row: Function) -> None:
    """By numbers, in 200 bits, at many points: the rounding model's slope and calculus's."""
    formula = FORMS[row.name](*map(slot, range(row.operands)), *(default for _, default in row.options))
    with precision(200):
        at = points(row, 20)
        for textbook, calculus in zip(
            partials(formula, row.operands, textbook=True),
            partials(formula, row.operands, textbook=False),
            strict=True,
        ):
            values = []
            for slope in (textbook, calculus):
                used = [n for n in range(row.operands) if slot(n) in slope.free_symbols]
                got = compiled(slope, tuple(map(slot, used)), exact(), "slopes")(*(at[n] for n in used))
                values.append(numbers(np.broadcast_to(np.asarray(got, object), (20,))))
            assert overlap(*values)


@pytest.mark.parametrize("row", [row for row in FUNCTIONS.values() if row.slope], ids=lambda row: row.name)
def test_named_functions_are_what_their_definitions_say(row: Function) -> None:
    slots = tuple(map(slot, range(row.operands)))
    with precision(200):
        at = points(row, 12)
        call = compiled(FORMS[row.name](*slots), slots, exact(), "values")(*at)
        definition = compiled(define(FORMS[row.name](*slots)), slots, exact(), "values")(*at)
        assert all(x.is_finite() for x in call.flat)
    assert overlap(call, definition)


@settings(deadline=None)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.sampled_from(sorted(DTYPES)))
@example(1.0, 1e-30, "float32")
def test_the_rounding_set_holds_what_ieee_computes(a: float, b: float, dtype: str) -> None:
    """One operation in the dtype itself, by torch, lies in the set of its ball."""
    kind = getattr(torch, dtype)
    x, y = torch.tensor(a, dtype=kind), torch.tensor(b, dtype=kind)
    arithmetic = rounding(DTYPES[dtype])
    with precision(128):
        for name, got in (("add", x + y), ("mul", x * y), ("div", x / y)):
            number = float(got)
            left, right = arb(float(x)), arb(float(y))
            if not all(map(math.isfinite, (number, float(x), float(y)))):
                continue
            ball = arithmetic.values[name](np.asarray(left, object), np.asarray(right, object))
            ball = numbers(np.asarray(ball, object))[()]
            assert not ball.is_finite() or ball.contains(arb(number))


def test_nothing_compared_is_not_a_pass() -> None:
    assert worst([]) is Verdict.UNDECIDED
    nothing = Comparison(np.zeros((0,)), full((0,), arb(0)), full((0,), arb(0)))
    assert judge(nothing, DTYPES["float64"]).verdict is Verdict.UNDECIDED


def compared(value: float, exact_ball: arb, rounding_ball: arb) -> Verdict:
    one = Comparison(np.array(value), np.asarray(exact_ball, object), np.asarray(rounding_ball, object))
    return judge(one, DTYPES["float64"]).verdict


@pytest.mark.parametrize(
    ("value", "exact_ball", "rounding_ball", "verdict"),
    [
        (1.0, arb(1), arb(1, 1e-15), "exact"),
        (1.0 + 2**-52, arb(1), arb(1, 1e-15), "rounding"),
        (1.0 + 2**-48, arb(1), arb(1, 1e-15), "wrong"),
        (-1.0, arb(1), arb(1, 1e-15), "wrong"),
        (1.0, arb(1), arb("nan"), "exact"),
        (1.5, arb(1), arb("nan"), "undecided"),
        (1.0, arb("nan"), arb("nan"), "undecided"),
        (float("nan"), arb(1), arb("nan"), "wrong"),
        (float("inf"), arb(1), arb(1, 1e-15), "wrong"),
        (float("nan"), arb("nan"), arb("nan"), "undecided"),
        (0.0, arb("1e-400"), arb(0, 5e-324), "exact"),
        (1e-17, arb(0), arb(0, 5e-324), "wrong"),
        (1e-300, arb(0), arb(0, 1e-200), "rounding"),
    ],
)
def test_a_number_gets_its_verdict(value: float, exact_ball: arb, rounding_ball: arb, verdict: str) -> None:
    assert compared(value, exact_ball, rounding_ball) == verdict


def test_one_sided_limits() -> None:
    with precision(2048):
        kink = one_sided(lambda step: arb(1) if step > 0 else arb(-1))
        assert not kink.smooth
        assert kink.ball.contains(arb(0))
        assert one_sided(lambda step: arb(2) + step).smooth
        assert not one_sided(lambda step: 1 / abs(step)).ball.is_finite()
        edge = one_sided(lambda step: arb(3) if step > 0 else arb("nan"))
        assert edge.smooth
        assert edge.ball == 3


def test_the_zero_of_a_branch_not_taken_stays_zero() -> None:
    nan = arb("nan")
    assert ZERO * nan is ZERO
    assert nan * ZERO is ZERO
    assert ZERO + arb(2) == arb(2)
    assert arb(2) - ZERO == arb(2)
    assert -ZERO is ZERO


def test_precision_is_given_back() -> None:
    from flint import ctx

    before = ctx.prec
    with pytest.raises(RuntimeError), precision(777):
        assert ctx.prec == 777
        raise RuntimeError
    assert ctx.prec == before
