"""Every case that there is, judged with floats first and by balls alone: the findings must be the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from net_cases import KINDS, drawn
from tables import DEEP, FAULTS, NETS, REFUTED, RIGHT

from gradproof import Report, assert_gradients, check, check_function, load
from gradproof.judging import sieve
from gradproof.judging.sieve import without_floats

EXPRESSIONS = Path(__file__).parents[2] / "expressions"
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """What is checked, and how."""

    name: str
    checked: Callable[[], Report]


@contextmanager
def floats_for_all() -> Iterator[None]:
    """Floats come first for small things too."""
    before = sieve.FEW
    sieve.FEW = 0
    try:
        yield
    finally:
        sieve.FEW = before


def told(report: Report) -> list[tuple[Any, ...]]:
    """A finding's verdict, its place, and its worst entry."""
    return [
        (f.kind, f.node, f.wrt or "", str(f.verdict), tuple(f.index or ()), f.inherited, f.place or "")
        for f in report.findings
    ]


def differences(case: Case) -> list[str]:
    """What the two say differently, in words."""
    found: list[list[tuple[Any, ...]]] = []
    for way in (floats_for_all, without_floats):
        torch.manual_seed(0)
        with way(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(told(case.checked()))
    on, off = found
    if len(on) != len(off):
        return [f"{len(on)} findings with floats, {len(off)} without: {set(on) ^ set(off)}"]
    return [f"with floats {a}, without {b}" for a, b in zip(on, off, strict=True) if a != b]


def of_function(name: str, func: Callable[..., Any], inputs: Callable[[], tuple[Any, ...]]) -> Case:
    return Case(name, lambda: check_function(func, *inputs()))


def faults() -> Iterator[Case]:
    for fault in FAULTS:
        for name, dtype in DTYPES.items():
            for kind in ("wrong", "right"):
                func = getattr(fault, kind)
                yield of_function(f"{fault.name}, {kind}, {name}", func, lambda f=fault, d=dtype: f.inputs(d))


def tricky() -> Iterator[Case]:
    for case in (*RIGHT, *REFUTED):
        for dtype in case.dtypes:
            name = f"{case.name}, {str(dtype)[6:]}"
            yield of_function(name, case.func, lambda c=case, d=dtype: c.inputs(d))


def net_kinds() -> Iterator[Case]:
    for kind in KINDS:
        for side in ("wrong", "right"):
            name = f"{kind.name}, {side}"
            yield of_function(name, getattr(kind, side), lambda k=kind: (drawn(k.shape),))


def nets() -> Iterator[Case]:
    for name, made in {**NETS, **DEEP}.items():
        for dtype_name, dtype in DTYPES.items():
            if "layers" not in name:

                def checked(made: Any = made, dtype: torch.dtype = dtype) -> Report:
                    func, inputs = made(dtype)
                    return check_function(func, *inputs)

                yield Case(f"{name}, {dtype_name}", checked)


def files(engines: tuple[tuple[str, str], ...]) -> Iterator[Case]:
    for path in sorted(EXPRESSIONS.glob("*.toml")):
        for engine, dtype in engines:
            yield Case(
                f"{path.name}, {engine}, {dtype}",
                lambda p=path, e=engine, d=dtype: check(load(p), engine=e, dtype=d),
            )


TORCH = tuple(("torch", dtype) for dtype in DTYPES)
OTHERS = (
    ("jax", "float64"), ("jax", "float32"), ("jax", "bfloat16"), ("autograd", "float64"),
    ("tinygrad", "float32"),
)  # fmt: skip


def doors() -> Iterator[Case]:
    """A JAX function as it is, and numbers from anywhere."""
    from test_doors import CASES

    import gradproof.jax

    def asserted(case: Any) -> Report:
        try:
            return assert_gradients(case.text, {"x": case.x}, {"x": case.gradient})
        except AssertionError as error:
            return error.report  # type: ignore[attr-defined] # assert_gradients puts it there

    for case in CASES:
        x = np.asarray(case.x, np.float64)
        yield Case(f"{case.name}, jax", lambda c=case, x=x: gradproof.jax.check_function(c.jax, x))
        yield Case(f"{case.name}, numbers", lambda c=case: asserted(c))


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "faults": faults,
    "tricky": tricky,
    "net": net_kinds,
    "nets": nets,
    "files": lambda: files(TORCH),
    "other engines": lambda: files(OTHERS),
    "doors": doors,
}
