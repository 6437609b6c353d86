"""Contractions: sums of products by matrices give what the operations, one after the other, give."""

from __future__ import annotations

import numpy as np
import pytest
from flint import arb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradproof.dtypes import DTYPES
from gradproof.proof.arithmetic import Arithmetic, exact, rounding
from gradproof.proof.balls import ZERO, Balls, balls, full, precision, radii
from gradproof.proof.graph import Node, Read, bound, free, slot
from gradproof.proof.walk import evaluate, pullback

ARITHMETICS = [exact(), *map(rounding, DTYPES.values())]
BY_NAME = pytest.mark.parametrize(
    "arithmetic", ARITHMETICS, ids=lambda a: a.dtype.name if a.dtype else "exact"
)
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

KINDS = ("plain", "sparse", "wide", "positive and wide", "far apart", "with ZERO", "not finite")
WIDE = {"wide", "positive and wide"}


def elementwise(
    arithmetic: Arithmetic, a: Balls, b: Balls, axes: tuple[int, ...], domain: tuple[int, ...]
) -> Balls:
    """The operations one after the other, over the whole domain."""
    return np.asarray(arithmetic.sum(np.broadcast_to(arithmetic.multiply(a, b), domain), axes), dtype=object)


def drawn(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Balls:
    numbers = rng.standard_normal(shape)
    made = balls(numbers) / 3
    flat = made.reshape(-1)
    for n in range(flat.size):
        chance = rng.random()
        match kind:
            case "sparse" if chance < 0.5:
                flat[n] = arb(0)
            case "wide" if chance < 0.5:
                flat[n] += arb(0, rng.random())
            case "positive and wide":
                flat[n] = arb(1 + chance, 0.9)
            case "far apart":
                flat[n] *= arb(2) ** int(rng.integers(-90, 60))
            case "with ZERO" if chance < 0.6:
                flat[n] = ZERO
            case "not finite" if chance < 0.15:
                flat[n] = [ZERO, arb("inf"), arb("nan"), arb(0), arb(0, float("inf"))][rng.integers(5)]
    return made


@st.composite
def contractions(draw):
    """Two factors, extents of 1 where they do not depend on an axis, the axes summed over and the domain."""
    rank = draw(st.integers(1, 5))
    domain = tuple(draw(st.integers(1, 6 if rank < 5 else 3)) for _ in range(rank))
    axes = tuple(sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.sampled_from(KINDS)), draw(st.sampled_from(KINDS))
    shapes = (tuple(extent if draw(st.integers(0, 3)) else 1 for extent in domain) for _ in range(2))
    a, b = (drawn(kind, shape, rng) for kind, shape in zip(kinds, shapes, strict=True))
    return a, b, axes, domain, not WIDE.intersection(kinds)


def assert_same(found: Balls, expected: Balls, arithmetic: Arithmetic, narrow: bool = True) -> None:
    """Entry by entry: both ZERO, both exactly 0, both not finite, or overlapping balls of comparable radii.

    Of wide balls the contraction may be the tighter one: it knows that a number in several terms is one
    number.
    """
    assert found.shape == expected.shape
    for x, y in zip(found.reshape(-1), expected.reshape(-1), strict=True):
        if x is ZERO or y is ZERO:
            assert x is y
        elif not y.is_finite():
            assert not x.is_finite()
        elif y.is_zero():
            assert x.is_zero()
        else:
            assert x.overlaps(y)
            least = abs(y) * arb(2) ** -100 if arithmetic.dtype is None else arb(0)
            assert x.rad() <= 2 * y.rad() + least
            if arithmetic.dtype is not None and narrow:
                assert y.rad() <= 2 * x.rad()


@BY_NAME
@SLOW
@given(contractions())
def test_matrices_give_what_the_operations_give(arithmetic, case):
    a, b, axes, domain, narrow = case
    with precision(128):
        expected = elementwise(arithmetic, a, b, axes, domain)
        found = np.broadcast_to(arithmetic.contract(a, b, axes, domain), expected.shape)
        assert_same(found, expected, arithmetic, narrow)


i, j, m = free(0), free(1), free(2)
k, n = bound(0), bound(1)
PRODUCT = slot(0) * slot(1)
SHAPES = {
    "x": (9, 8),
    "y": (8, 7),
    "t": (3, 5, 4),
    "s": (3, 4, 6),
    "image": (2, 3, 6, 5),
    "kernel": (4, 3, 3, 3),
    "v": (9,),
}

NODES = {
    "matrix product": Node("out", (9, 7), PRODUCT, (Read("x", (i, k)), Read("y", (k, j))), (8,), "sum"),
    "a matrix and its own transpose": Node("out", (9, 9), PRODUCT, (Read("x", (i, k)), Read("x", (j, k))),
        (8,), "sum"),
    "matrix products of a batch": Node("out", (3, 5, 6), PRODUCT,
        (Read("t", (i, j, k)), Read("s", (i, k, m))), (4,), "sum"),
    "dot products of rows": Node("out", (9,), PRODUCT, (Read("x", (i, k)), Read("x", (i, k))), (8,), "sum"),
    "sum of all products": Node("out", (), PRODUCT, (Read("x", (k, n)), Read("v", (k,))), (9, 8), "sum"),
    "an axis of one factor alone": Node("out", (9, 7), PRODUCT, (Read("x", (i, k)), Read("y", (n, j))),
        (8, 8), "sum"),
    "an axis that nothing depends on": Node("out", (9, 8), PRODUCT, (Read("x", (i, j)), Read("v", (i,))),
        (5,), "sum"),
    "convolution with a step and a border": Node(
        "out",
        (2, 4, 3, 5),
        PRODUCT,
        (Read("image", (i, k, 2 * m + n - 1, free(3) + bound(2) - 1)), Read("kernel", (j, k, n, bound(2)))),
        (3, 3, 3),
        "sum",
    ),
    "product without a sum": Node("out", (9, 8), PRODUCT, (Read("x", (i, j)), Read("v", (i,)))),
    "slopes that are no reads": Node("out", (9, 8), slot(0) * slot(1) ** 2,
        (Read("x", (i, j)), Read("v", (i,)))),
}  # fmt: skip


def walked(node: Node, arithmetic: Arithmetic) -> dict[str, Balls]:
    """The node's value and what it passes back, for two cotangents."""
    rng = np.random.default_rng(7)
    parents = {read.parent for read in node.reads}
    with precision(128):
        values = evaluate(
            [node], {name: drawn("sparse", SHAPES[name], rng) for name in sorted(parents)}, arithmetic
        )
        cotangents = {"out": drawn("with ZERO", (2, *node.shape), rng)}
        return {"value": values["out"]} | pullback([node], values, cotangents, parents, arithmetic)


@BY_NAME
@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_a_walk_gives_what_the_operations_give(node, arithmetic, monkeypatch):
    found = walked(node, arithmetic)
    monkeypatch.setattr(Arithmetic, "contract", whole)
    expected = walked(node, arithmetic)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_same(found[name], expected[name], arithmetic)


def whole(self: Arithmetic, a: Balls, b: Balls, axes: tuple[int, ...], domain: tuple[int, ...]) -> Balls:
    return elementwise(self, a, b, axes, domain)


@BY_NAME
def test_a_product_of_matrices_never_goes_over_its_terms(arithmetic, monkeypatch):
    touched = 0

    def counted(operation):
        def counting(self, *arrays, **options):
            nonlocal touched
            touched += max(np.size(array) for array in arrays if isinstance(array, np.ndarray))
            return operation(self, *arrays, **options)

        return counting

    for name in ("multiply", "sum"):
        monkeypatch.setattr(Arithmetic, name, counted(getattr(Arithmetic, name)))
    reads = Read("a", (i, k)), Read("b", (k, j))
    node = Node("out", (60, 60), PRODUCT, reads, (60,), "sum")
    rng = np.random.default_rng(0)
    with precision(128):
        values = evaluate([node], {name: balls(rng.standard_normal((60, 60))) for name in "ab"}, arithmetic)
        pullback([node], values, {"out": balls(rng.standard_normal((1, 60, 60)))}, {"a", "b"}, arithmetic)
    assert touched == 0


@pytest.mark.parametrize("name", DTYPES)
def test_what_overflows_is_nowhere_and_what_nearly_does_is_not(name):
    largest = DTYPES[name].largest
    a, b = full((10, 12, 1), arb(0)), full((1, 12, 10), arb(1))
    a[0, :2] = arb(largest) * 0.75  # the sum overflows
    a[1, 0], b[0, 0, 1] = arb(largest) * 0.75, arb(2)  # a product does, in column 1
    a[2, 0], a[2, 1] = arb(largest) * 0.75, -arb(largest) * 0.75  # neither does, in columns other than 1
    with precision(128):
        found = rounding(DTYPES[name]).contract(a, b, (1,), (10, 12, 10))
        assert_same(
            found, elementwise(rounding(DTYPES[name]), a, b, (1,), (10, 12, 10)), rounding(DTYPES[name])
        )
    assert not any(found[0, n].is_finite() for n in range(10))
    assert [n for n in range(10) if not found[1, n].is_finite()] == [1]
    assert found[2, 0].is_finite()
    assert all(found[9, n].is_zero() for n in range(10))


def test_zero_beside_infinity_stays_what_it_is():
    a, b = full((10, 12, 1), ZERO), full((1, 12, 10), arb("inf"))
    a[1] = arb(0)
    b[:, :, 3:] = arb(1)
    found = exact().contract(a, b, (1,), (10, 12, 10))
    assert all(found[0, n] is ZERO for n in range(10))
    assert found[1, 0].is_nan()
    assert found[1, 3].is_zero()


@BY_NAME
def test_a_wide_sum_of_terms_of_one_sign_does_not_grow_to_hold_zero(arithmetic):
    sign = np.where(np.arange(10) % 2, 1.0, -1.0).reshape(10, 1, 1)
    a, b = full((10, 12, 1), arb(1, 1 - 2.0**-9)) * balls(sign), full((1, 12, 10), arb(1))
    found = arithmetic.contract(a, b, (1,), (10, 12, 10))
    assert not any(x.contains(0) for x in found.reshape(-1))


def test_magnitudes_far_apart_lose_no_digits():
    rng = np.random.default_rng(3)
    scale = np.array([arb(2) ** int(n) for n in rng.integers(-2000, 2000, 60)], dtype=object)
    with precision(128):
        a, b = (abs(balls(rng.standard_normal((60, 60)))) / 3 for _ in range(2))
        a, b = (a * scale[:, None] * scale[::-1])[:, :, None], (b * scale * np.roll(scale, 7)[:, None])[None]
        found = exact().contract(a, b, (1,), (60, 60, 60))
        assert radii(found / elementwise(exact(), a, b, (1,), (60, 60, 60))).max() < 2.0**-110


@pytest.mark.parametrize("arithmetic", [rounding(dtype) for dtype in DTYPES.values()], ids=list(DTYPES))
def test_an_allowance_does_not_jump_with_the_number_of_terms(arithmetic: Arithmetic) -> None:
    """A factor common to all of a sum multiplies the sum, and not each term's magnitude, for few terms and
    many."""
    assert arithmetic.dtype is not None
    common = np.asarray(balls([1.0]) + arb(0, 8 * arithmetic.dtype.unit_roundoff), object)  # rounded before
    reaches = []
    for count in range(2, 200):
        terms = balls(np.cos(np.arange(count)))  # they nearly cancel
        total = arithmetic.contract(terms, common, (0,), (count,))
        alone = radii(arithmetic.contract(terms, balls([1.0]), (0,), (count,)))
        reaches.append(float(radii(np.asarray(total, object)) / alone))
    assert max(reaches) / min(reaches) < 8 and max(np.abs(np.diff(np.log(reaches)))) < np.log(8)
    # Between 63 and 64 nothing changes but one term.
    beside = [reaches[n - 2] for n in (62, 63, 64, 65)]
    assert max(beside) / min(beside) < 1.2
