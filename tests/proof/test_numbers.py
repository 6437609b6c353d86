"""Infinity where it is right: what the exact number rounds to is no error, and every other infinity is
one."""

from __future__ import annotations

import numpy as np
import pytest
from flint import arb

import gradproof
from gradproof.dtypes import DTYPES
from gradproof.judging.verdicts import Comparison, judge
from gradproof.telling.causes import said
from gradproof.verdict import Verdict

INF, NAN = float("inf"), float("nan")
WRONG, EXACT, ROUNDING = Verdict.WRONG, Verdict.EXACT, Verdict.ROUNDING
INFINITIES = [  # what is told, dtype, exact number, engine's number, verdict
    ("the other sign beyond the largest number", "float16", 7e4, -INF, WRONG),
    ("NaN beyond the largest number", "float16", 7e4, NAN, WRONG),
    ("infinity for the largest number", "float16", 65504.0, INF, WRONG),
    ("infinity for a number that is representable", "float32", 1e38, INF, WRONG),
    ("infinity for a number that rounds down to the largest", "float16", 65519.0, INF, WRONG),
    ("infinity from half an ulp beyond the largest on", "float16", 65520.0, INF, EXACT),
    ("minus infinity below the lowest number", "float16", -7e4, -INF, EXACT),
    ("infinity beyond float32", "float32", 1e39, INF, EXACT),
    ("infinity beyond bfloat16", "bfloat16", 3.4e38, INF, EXACT),
    ("infinity beyond float64", "float64", "7.33e390", INF, EXACT),
    ("NaN beyond float64", "float64", "7.33e390", NAN, WRONG),
]


def judged(dtype, exact, value, rounding=None):
    exact = np.array([arb(exact)], object)
    return judge(Comparison(np.array([value]), exact, exact if rounding is None else rounding), DTYPES[dtype])


@pytest.mark.parametrize(
    ("dtype", "exact", "value", "verdict"), [row[1:] for row in INFINITIES], ids=[r[0] for r in INFINITIES]
)
def test_an_infinity_is_right_where_the_exact_number_rounds_to_it(dtype, exact, value, verdict):
    found = judged(dtype, exact, value)
    assert found.verdict is verdict
    if verdict is EXACT:
        assert said(found.causes).startswith("overflow: the exact number ")


@pytest.mark.parametrize(
    ("around", "verdict"), [(4.0, WRONG), (16.0, ROUNDING)], ids=["cannot overflow", "may overflow"]
)
def test_just_beyond_the_largest_number_the_rounding_decides(around, verdict):
    assert judged("float16", 65508.0, INF, np.array([arb(65508, around)], object)).verdict is verdict


@pytest.mark.parametrize(("gradient", "right"), [(-INF, False), (NAN, False), (3e38, False), (INF, True)])
def test_a_gradient_beyond_the_dtype_is_asserted_as_infinity(gradient, right):
    given = ("loss = exp(x)", {"x": 100.0}, {"x": gradient})
    if right:
        gradproof.assert_gradients(*given, dtype="float32")
    else:
        with pytest.raises(AssertionError):
            gradproof.assert_gradients(*given, dtype="float32")


@pytest.mark.parametrize(
    "text", ["loss = exp(x)/exp(x)", "e = exp(x)\nloss = log(e)", "e = exp(x)\nloss = e/e"]
)
def test_an_overflow_that_spoils_a_finite_number_stays_wrong(text):
    assert gradproof.check(gradproof.parse(text, parameters={"x": 100.0}), dtype="float32").verdict is WRONG
    assert (
        gradproof.check(gradproof.parse("loss = exp(x)", parameters={"x": 100.0}), dtype="float32").verdict
        is EXACT
    )
