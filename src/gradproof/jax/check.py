"""Any JAX function as it is: every equation beside calculus at JAX's own numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ..causes import OffCompiled
from ..dtypes import XLA, DType
from ..errors import InputError, UnsupportedError
from ..judging.judge import Judge, Judged
from ..report import Report
from ..torch.looks import (
    FORWARD,
    KINDS,
    MODES,
    ORDERS,
    REVERSE,
    SECOND,
    THIRD,
    at_order,
    of_pairs,
    of_tangents,
    our_fault,
    passing,
)
from ..torch.names import name_of
from ..torch.witness import dtype_of, format_of
from ..verdict import Finding, Verdict, as_finding, bare_finding
from .recording import Flat, Recording, at_width, flattened, gradient_of, record
from .witness import tangents_of, witness_of

NEAR = 1024  # unit roundoffs: what compiled code may differ by before it is judged


def check_function(
    func: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    stops: str = "judge",
    mode: str = "reverse",
    order: int = 1,
    title: str = "",
) -> Report:
    """Check the gradients of a JAX function at these arguments, equation by equation.

    `func` takes arrays or pytrees and returns an array, or a pytree of them. Its floating-point leaves are
    differentiated, of the arguments that `argnums` names or of all; everything else among the arguments stays
    as it is. Each `custom_vjp` and `custom_jvp` call is one node: its rule is judged against the calculus of
    its primal. The verdict is in the dtype that the function runs in; for float64 arguments JAX's 64 bits are
    switched on meanwhile.

    `stops="trust"` takes every `stop_gradient` as meant; otherwise one that loses part of the gradient is
    wrong.

    `mode="forward"` looks in place of the pullbacks at what `jax.jvp` makes of tangents, equation by
    equation, and `mode="both"` at both. With `order=2` the gradient is checked as a function of its own, of
    the cotangents too; with 3 the gradient of that.

    What goes wrong in the function, and what is not covered, are findings. Raises `InputError` for bad
    options.
    """
    if stops not in ("judge", "trust"):
        raise InputError(f"stops={stops!r}: expected 'judge' or 'trust'")
    if mode not in MODES:
        raise InputError(f"mode={mode!r}: expected {' or '.join(map(repr, MODES))}")
    if order not in ORDERS:
        raise InputError(f"order={order!r}: expected {' or '.join(map(repr, ORDERS))}")
    asked = (argnums,) if isinstance(argnums, int) else argnums
    if asked is not None and not all(-len(args) <= n < len(args) for n in asked):
        raise InputError(f"argnums={argnums!r}: the function is given {len(args)} arguments")
    start = time.perf_counter()
    name = title or name_of(func)
    trusting = stops == "trust"
    with at_width(jax.tree_util.tree_leaves(args)):
        flat = flattened(func, args, asked)
        looks = [look(flat, trusting) for look in (LOOKS[kind] for kind in (*MODES[mode], *ORDERS[order]))]
    kinds = (*MODES[mode], *ORDERS[order])
    first = looks[0]
    return Report(
        name,
        name,
        "jax",
        first.dtype.name if first.dtype else "none",
        tuple(finding for look in looks for finding in look.findings),
        time.perf_counter() - start,
        exercised=kinds,
        not_exercised=tuple(kind for kind in KINDS if kind not in kinds),
        remarks=tuple(dict.fromkeys(look.remark for look in looks if look.remark)),
        gradients=first.judged.gradients,
        local=first.judged.local,
    )


@dataclass(frozen=True, eq=False)
class Looked:
    """What came of one kind of derivative."""

    findings: list[Finding]
    dtype: DType | None
    judged: Judged
    remark: str = ""


def _in_reverse(flat: Flat, trusting: bool) -> Looked:
    recording = record(flat)
    witness = witness_of(recording, trusting=trusting, guard=our_fault)
    judge = Judge(witness, guard=our_fault)
    judged = judge.judged()
    findings = list(judged.findings)
    if not recording.tape.trouble and passing(findings):
        findings += _compiled(recording, judge)
    dtype = witness.dtype or dtype_of([leaf.region for leaf in recording.tape.leaves], XLA)
    return Looked(findings, dtype, judged, of_pairs(recording.tape, "the conjugate of JAX's"))


def _forward(flat: Flat, trusting: bool) -> Looked:
    witness = tangents_of(record(flat), trusting=trusting, guard=our_fault)
    findings, judged = of_tangents(witness)
    return Looked(findings, witness.dtype, judged)


def _of_order(order: int, flat: Flat, trusting: bool) -> Looked:
    """The gradient as a function of its own."""
    for _ in range(order - 1):
        flat = gradient_of(flat)
    found = _in_reverse(flat, trusting)
    return Looked([at_order(f, KINDS[order]) for f in found.findings], found.dtype, found.judged)


LOOKS: dict[str, Callable[[Flat, bool], Looked]] = {
    REVERSE: _in_reverse,
    FORWARD: _forward,
    SECOND: partial(_of_order, 2),
    THIRD: partial(_of_order, 3),
}


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: Any = None,
    rtol: Any = None,
    eps: Any = None,
) -> None:
    """`jax.test_util.check_grads` by proof: the same call. `atol`, `rtol` and `eps` have no meaning here.

    Raises `AssertionError` with the report where something does not pass, `InputError` for bad modes.
    """
    unknown = [mode for mode in modes if mode not in ("fwd", "rev")]
    if unknown or not modes:
        raise InputError(f"modes={modes!r}: expected 'fwd', 'rev' or both")
    mode = "both" if len(set(modes)) == 2 else "forward" if "fwd" in modes else "reverse"
    report = check_function(f, *args, mode=mode, order=order)
    if not report.ok:
        raise AssertionError(report.to_text())


def _compiled(recording: Recording, judge: Judge) -> list[Finding]:
    """The gradients of the function compiled as a whole, where XLA fuses: judged where they are not those
    found here."""
    apart = {
        leaf.name: _distance(gradient, leaf.gradients[0])
        for leaf, gradient in zip(recording.tape.leaves, recording.compiled, strict=True)
        if gradient is not None and not _near(gradient, leaf.gradients[0], format_of(leaf.region.dtype, XLA))
    }
    if not apart:
        return []
    compiled = {leaf.name: g for leaf, g in zip(recording.tape.leaves, recording.compiled, strict=True)}
    try:
        judged = judge.leaves.of_others((), compiled)
    except UnsupportedError:
        judged = {}
    found = []
    for name, distance in apart.items():
        whole, told = judged.get(name), OffCompiled(distance)
        if whole is None:
            found.append(bare_finding("gradient", name, Verdict.UNDECIDED, told))
        elif not whole.verdict.passes:
            whole = replace(whole, causes=(*whole.causes, told))
            found.append(as_finding("gradient", name, None, "the whole function, compiled", whole))
    return found


def _near(value: np.ndarray, other: Any, dtype: DType | None) -> bool:
    """Whether two arrays differ by what rounding in another order makes, at the scale of their largest
    entries."""
    if np.array_equal(value, other, equal_nan=True):
        return True
    return dtype is not None and _distance(value, other) <= NEAR * dtype.unit_roundoff


def _distance(value: np.ndarray, other: Any) -> float:
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(value - other)) / max(float(np.max(np.abs(other))), 1e-300))
