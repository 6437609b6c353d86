"""A section of a run gives what the whole run gives at its entries, exactly and with rounding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import sympy
from flint import arb
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import Example, example

from gradproof.dtypes import DTYPES
from gradproof.errors import UnsupportedError
from gradproof.proof.arithmetic import Arithmetic, exact, rounding
from gradproof.proof.balls import Balls, balls, numbers, precision
from gradproof.proof.enclosure import START_BITS, Run
from gradproof.proof.graph import Node, Read, bound, free, lookup, size, slot, unravelled
from gradproof.proof.section import section_of_cotangent, section_of_value

i, j, k, m = free(0), free(1), bound(0), bound(1)
z0, z1 = slot(0), slot(1)


def same(a: arb, b: arb, arithmetic: Arithmetic) -> bool:
    """Bit for bit, or to the working precision: other orders of addition change what that leaves."""
    if not (a.is_finite() and b.is_finite()):
        return a.is_finite() == b.is_finite()  # 0 times infinity of a place that the section has not
    if a.mid() == b.mid() and a.rad() == b.rad():
        return True
    if arithmetic.dtype is None:
        return bool(a.overlaps(b) and a.rad() <= 64 * b.rad() and b.rad() <= 64 * a.rad())
    least = abs(a).upper().max(abs(b).upper()) * arb(2) ** -100 + a.rad() * 1e-6
    return bool(abs(a.mid() - b.mid()) <= least and abs(a.rad() - b.rad()) <= least)


def differ(label: str, found: Balls, whole: Balls, arithmetic: Arithmetic) -> list[str]:
    """Where two arrays of balls are not the same."""
    pairs = enumerate(zip(numbers(found.reshape(-1)), numbers(whole.reshape(-1)), strict=True))
    return [f"{label}[{n}]: {a}, the whole has {b}" for n, (a, b) in pairs if not same(a, b, arithmetic)]


def picked(random: np.random.Generator, count: int) -> np.ndarray:
    """Some of so many entries, each once, in any order."""
    return random.permutation(count)[: random.integers(1, 5)]


def compared(case: Example, seed: int, told: Counter[str] | None = None) -> list[str]:
    """Sections of every value and of the cotangent of every leaf, beside the whole run."""
    random, found = np.random.default_rng(seed), []
    told = Counter() if told is None else told
    point = {name: balls(x) for name, x in case.given.items()}
    out = case.nodes[-1].name
    targets = {name: x.shape for name, x in case.given.items()}
    run = Run(case.nodes, (out,), targets, case.wanted)
    rows = {out: balls(case.cotangent)[None]}

    def both(arithmetic: Arithmetic, label: str) -> None:
        whole = run.evaluate(point, arithmetic)
        for node in case.nodes:
            entries = picked(random, size(node.shape))
            section = section_of_value(case.nodes, case.given, node.name, entries)
            given = {name: balls(x) for name, x in section.of(case.given).items()}
            value = section.run.evaluate(given, arithmetic)[node.name]
            told["values"] += len(entries)
            found.extend(
                differ(f"{label} {node.name}", value, whole[node.name].reshape(-1)[entries], arithmetic)
            )
        pulled = run.split(run.pull(point, arithmetic, rows)[0])
        for name, shape in targets.items():
            entries = picked(random, size(shape))
            try:
                section = section_of_cotangent(run, case.given, name, entries)
            except UnsupportedError:
                told["unsupported"] += 1
                continue
            if not section.run.outputs:
                assert all(x == 0 for x in numbers(pulled[name].reshape(-1)[entries]))
                continue
            given = {name: balls(x) for name, x in section.of(case.given).items()}
            received = {n: balls(x) for n, x in section.rows({out: case.cotangent[None]}).items()}
            cotangent = section.run.pull(given, arithmetic, received)[0]
            told["cotangents"] += len(entries)
            found.extend(differ(f"{label} ∂{name}", cotangent, pulled[name].reshape(-1)[entries], arithmetic))

    with precision(START_BITS), np.errstate(all="ignore"):
        both(exact(), "exactly")
        both(rounding(case.dtype), "rounded")
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 10**9))
def test_a_section_of_a_random_graph_is_the_whole(dtype: str, seed: int) -> None:
    assert not (found := compared(example(seed, dtype, length=7), seed)), found[0]


def numbered(*shape: int) -> np.ndarray:
    return np.cos(np.arange(size(shape)) * 1.7 + 0.3).reshape(shape)


def one(node: Node, **leaves: np.ndarray) -> Example:
    return Example(DTYPES["float32"], (node,), leaves, numbered(*node.shape) + 2)


picks = lookup("picks", np.array([2, 0, 2, -1, 2, 3]))
pairs = lookup("pairs", np.array([[1, 1], [0, 1], [3, -1]]))
MAPS = {
    "a strided, padded, dilated convolution": one(
        Node("y", (2, 5), z0 * z1, (Read("x", (m, 2 * j + 3 * k - 4)), Read("w", (i, m, k))), (3, 3), "sum"),
        x=numbered(3, 12), w=numbered(2, 3, 3),
    ),
    "a transposed convolution, by quotients": one(
        Node("y", (9,), z0 * z1, (Read("x", (sympy.floor((i + k) / 2),)), Read("w", (k,))), (3,), "sum"),
        x=numbered(5), w=numbered(3),
    ),
    "a flip": one(Node("y", (4, 3), z0**2, (Read("x", (3 - i, 2 - j)),)), x=numbered(4, 3)),
    "a gather with duplicates and a place outside": one(
        Node("y", (6, 2), sympy.exp(z0), (Read("x", (picks(i), j)),)), x=numbered(5, 2)
    ),
    "a gather through a table of two axes": one(
        Node("y", (3,), z0 * z1, (Read("x", (pairs(i, k),)), Read("w", (k,))), (2,), "sum"),
        x=numbered(4), w=numbered(2),
    ),
    "a reshape": one(
        Node("y", (6, 4), z0**3, (Read("x", unravelled(4 * i + j, (2, 3, 4))),)), x=numbered(2, 3, 4)
    ),
    "a diagonal": one(Node("y", (4,), sympy.sin(z0), (Read("x", (i, i)),)), x=numbered(4, 4)),
    "what is beside the diagonal": one(
        Node("y", (5,), sympy.sin(z0), (Read("x", (i, i + 1)),)), x=numbered(4, 4)
    ),
    "a broadcast": one(
        Node("y", (3, 4), z0 * z1, (Read("x", (j,)), Read("w", (i,)))), x=numbered(4), w=numbered(3)
    ),
    "one that is read at two places": one(
        Node("y", (4,), z0 * z1, (Read("x", (i,)), Read("x", (3 - i,)))), x=numbered(4)
    ),
    "windows that overlap": one(
        Node("y", (4, 4), z0 / 9, (Read("x", (i + k, j + m)),), (3, 3), "sum"), x=numbered(6, 6)
    ),
    "a running sum": one(
        Node("y", (7,), z0, (Read("x", (i - k,)),), (7,), "sum"), x=numbered(7)
    ),
    "a sum of all": one(Node("y", (), z0**2, (Read("x", (k, m)),), (5, 6), "sum"), x=numbered(5, 6)),
    "a constant index": one(
        Node("y", (3,), z0 * z1, (Read("x", (sympy.S(2), i)), Read("x", (i, sympy.S(0))))), x=numbered(3, 3)
    ),
    "a sum whose indices do not all go to the read": one(
        Node("y", (3,), z0 + k, (Read("x", (i,)),), (4,), "sum"), x=numbered(3)
    ),
    "an axis of one that is outside": one(
        Node("y", (1, 3), z0, (Read("x", (i - 1, j), 2.0),)), x=numbered(1, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_an_index_map_is_turned_about(name: str) -> None:
    told: Counter[str] = Counter()
    for seed in range(12):
        assert not (found := compared(MAPS[name], seed, told)), found[0]
    assert told["cotangents"] or "outside" in name


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_a_long_sum_of_what_is_given_is_added_up_in_floats(offset: float) -> None:
    """Its total is exact, and its rounding that of so many terms."""
    x = numbered(5000, 2) + offset
    node = Node("y", (2,), z0, (Read("x", (k, i)),), (5000,), "sum")
    whole = Run((node,), ("y",), {}, frozenset())
    for arithmetic in (exact(), rounding(DTYPES["float32"])):
        with precision(START_BITS):
            section = section_of_value((node,), {"x": x}, "y", np.array([1, 0]))
            given = {name: balls(a) for name, a in section.of({"x": x}).items()}
            found = section.run.evaluate(given, arithmetic)["y"]
            right = whole.evaluate({"x": balls(x)}, arithmetic)["y"][[1, 0]]
        for a, b in zip(found, right, strict=True):
            assert a.contains(b) if arithmetic.dtype is None else abs(a.rad() / b.rad() - 1) < 1e-6
            assert abs(a.mid() - b.mid()) <= abs(b) * arb(2) ** -60
