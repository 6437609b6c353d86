"""The fast arithmetic beside the balls: it passes nothing that they do not, and its own error is small beside
its radius."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from edges import Tally, compare
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import Example, example

from gradproof.dtypes import DTYPES
from gradproof.proof.fast import Pair, fast
from gradproof.proof.functions import FORMS
from gradproof.proof.graph import Node, Read, bound, free, slot
from gradproof.proof.walk import evaluate

i, j, k = free(0), free(1), bound(0)
z0, z1 = slot(0), slot(1)
seeds = st.integers(0, 10**9)


def probed(case: Example, name: str) -> Tally:
    cotangents = {case.nodes[-1].name: case.cotangent}
    return compare(name, case.nodes, case.given, cotangents, case.wanted, case.dtype)


def sound(tally: Tally) -> None:
    """A ball may have no end where its inner part has: a quotient's, of a divisor that may all but be 0, or
    what comes near the largest number. Such a probe is `endless`, and seldom."""
    assert not tally.passing, tally.passing[0]
    assert not tally.loose, tally.loose[0]


# The edge of the rounding set, and κ


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=200, deadline=None, derandomize=True)  # `benchmarks/edge.py` draws new ones
@given(seeds)
def test_nothing_passes_that_balls_refute_and_the_own_error_is_within_kappa(dtype: str, seed: int) -> None:
    sound(probed(example(seed, dtype), f"{dtype} {seed}"))


@pytest.mark.parametrize(("dtype", "seed"), [("float64", 37923)])  # a radius below the normal numbers
def test_what_a_campaign_found_holds(dtype: str, seed: int) -> None:
    sound(probed(example(seed, dtype), f"{dtype} {seed}"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_most_of_what_rounding_explains_passes(dtype: str) -> None:
    """Of the middle 97 % of the sets, on numbers that are often hard."""
    tally = sum((probed(example(seed, dtype), str(seed)) for seed in range(60)), Tally())
    assert tally.decided > 0.75 * tally.inside
    assert tally.worst < 0.5
    assert len(tally.endless) < 3


def one(dtype: str, *nodes: Node, cotangent: float | np.ndarray = 1.0, **leaves: object) -> Example:
    given = {name: np.asarray(value, float) for name, value in leaves.items()}
    return Example(DTYPES[dtype], nodes, given, np.broadcast_to(cotangent, nodes[-1].shape).astype(float))


e = sympy.exp
HARD = {
    "a read that is outside all along an axis of one": one(
        "float32", Node("y", (1, 3), z0 / z1, (Read("x", (i, j)), Read("x", (i - 1, j), 1.0))),
        x=[[1.5, 2.5, 3.5]],
    ),
    "a mask beside what overflowed": one(
        "float32", Node("y", (2,), e(z0) / (e(z0) + e(z1)), (Read("x", (i,)), Read("a", (i,)))),
        x=[1.0, 2.0], a=[2000.0, 1.0],
    ),
    "a function that rounds last of what is wide already": one(
        "bfloat16", Node("y", (3,), e(z0 - z1), (Read("x", (i,)), Read("x", (2 - i,)))),
        x=[1.5078125, 0.3, 0.7],
    ),
    "an error function beside 0 in 16 bits": one(
        "float16", Node("y", (3,), FORMS["gelu_erf"](z0), (Read("x", (i,)),)), x=[-1e-6, 2e-6, 1e-3]
    ),
    "a divisor that may be 0": one(
        "bfloat16", Node("y", (2,), 1 / (z0 - z1), (Read("x", (i,)), Read("a", (i,)))),
        x=[1.0, 3.0], a=[0.9921875, 2.984375],
    ),
    "a radius that reaches beyond the largest number": one(
        "bfloat16", Node("d", (2,), z0 - z1, (Read("x", (i,)), Read("a", (i,)))),
        Node("y", (2,), z0 * z1, (Read("d", (i,)), Read("b", (i,)))),
        x=[1.0, 3.0], a=[1.0, 3.0], b=[1e38, 3e38],
    ),
    "products too small for float32": one(
        "float32", Node("y", (2, 2), z0 * z1, (Read("x", (i, k)), Read("a", (k, j))), (3,), "sum"),
        x=np.full((2, 3), 1.1e-30), a=np.full((3, 2), 1.3e-35),
    ),
    "radii that are subnormal in float32": one(
        "float32", Node("s", (2, 3), e(z0), (Read("x", (i, j)),)),
        Node("y", (2, 2), z0 * z1, (Read("s", (i, k)), Read("a", (k, j))), (3,), "sum"),
        x=np.linspace(-88, -87.3, 6).reshape(2, 3), a=np.full((3, 2), 1e30),
    ),
    "long doubles beside an entry that is much larger, and meets 0": one(
        "float64", Node("y", (1, 1), z0 * z1, (Read("x", (i, k)), Read("a", (k, j))), (2,), "sum"),
        x=[[np.pi * 1e10, 1 / 3]], a=[[0.0], [np.sqrt(2)]],
    ),
    "numbers at the end of float64": one(
        "float64", Node("s", (3,), e(z0), (Read("x", (i,)),)),
        Node("y", (3,), z0 * z1, (Read("s", (i,)), Read("a", (i,)))),
        x=[-700.0, -740.0, -1000.0], a=[1e300, 1e300, 1e300],
    ),
    "the error function of a mask": one(
        "float16", Node("y", (2,), FORMS["gelu_erf"](z0), (Read("x", (i,)),)), x=[-np.inf, 1.0]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_a_hard_place_is_no_gap(name: str) -> None:
    tally = probed(HARD[name], name)
    sound(tally)
    assert not tally.endless, tally.endless[0]


# What is no number


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_never_passes(dtype: str) -> None:
    table = fast(DTYPES[dtype])
    assert table is not None
    for v, r in [(1.0, 0.1), (np.nan, 0.1), (1.0, np.nan), (np.inf, np.nan), (0.0, np.inf), (1.0, np.inf)]:
        pair = Pair(np.array([v], table.wide), np.array([r]))
        for value in (np.nan, np.inf, -np.inf):
            assert not table.passes(np.array([value]), pair).any()
    assert not table.passes(np.array([1.0]), Pair(np.array([1.0]), np.array([np.inf]))).any()


def test_a_mask_passes_as_itself_alone() -> None:
    table = fast(DTYPES["float32"])
    assert table is not None
    node = Node("y", (2,), z0 + z1, (Read("x", (i,)), Read("m", (i,))))
    values = evaluate((node,), {"x": table.of(np.ones(2)), "m": table.of(np.array([0.0, -np.inf]))}, table)
    assert table.passes(np.array([1.0, -np.inf]), values["y"]).tolist() == [True, True]
    assert table.passes(np.array([1.0, np.inf]), values["y"]).tolist() == [True, False]
    assert table.passes(np.array([1.0, -1e38]), values["y"]).tolist() == [True, False]


def test_an_exact_number_passes_as_itself_alone() -> None:
    table = fast(DTYPES["float32"])
    assert table is not None
    node = Node("y", (2,), -z0, (Read("x", (1 - i,)),))
    values = evaluate((node,), {"x": table.of(np.array([1.5, 2.5]))}, table)
    assert table.passes(np.array([-2.5, np.nextafter(-1.5, 0)]), values["y"]).tolist() == [True, False]
