"""Any JAX function as it is: every equation beside calculus at JAX's own numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ..causes import OffCompiled
from ..dtypes import XLA, DType
from ..errors import InputError, UnsupportedError
from ..judging.judge import Judge
from ..report import Report
from ..torch.check import our_fault
from ..torch.names import name_of
from ..torch.witness import dtype_of, format_of
from ..verdict import Finding, Verdict, as_finding, bare_finding
from .recording import Recording, flattened, is_double, record
from .witness import witness_of

NEAR = 1024  # unit roundoffs: what compiled code may differ by before it is judged


def check_function(
    func: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    stops: str = "judge",
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

    What goes wrong in the function, and what is not covered, are findings. Raises `InputError` for bad
    options.
    """
    if stops not in ("judge", "trust"):
        raise InputError(f"stops={stops!r}: expected 'judge' or 'trust'")
    asked = (argnums,) if isinstance(argnums, int) else argnums
    if asked is not None and not all(-len(args) <= n < len(args) for n in asked):
        raise InputError(f"argnums={argnums!r}: the function is given {len(args)} arguments")
    start = time.perf_counter()
    name = title or name_of(func)
    double = any(map(is_double, jax.tree_util.tree_leaves(args)))
    with jax.enable_x64(True) if double else nullcontext():
        recording = record(flattened(func, args, asked))
        witness = witness_of(recording, trusting=stops == "trust", guard=our_fault)
        judge = Judge(witness, guard=our_fault)
        judged = judge.judged()
        findings = list(judged.findings)
        if not recording.tape.trouble and all(finding.verdict.passes for finding in findings):
            findings += _compiled(recording, judge)
    dtype = witness.dtype or dtype_of([leaf.region for leaf in recording.tape.leaves], XLA)
    seconds = time.perf_counter() - start
    return Report(
        name,
        name,
        "jax",
        dtype.name if dtype else "none",
        tuple(findings),
        seconds,
        gradients=judged.gradients,
        local=judged.local,
    )


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
