"""Any torch function as it is: every autograd node checked against the calculus of what it recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ..causes import (
    NothingToCompare,
)
from ..errors import InputError
from ..report import Report
from ..verdict import Finding, Verdict, bare_finding
from .contract import CLAUSES
from .declared import checked
from .looks import (
    ACCUMULATE,
    KINDS,
    MODES,
    ORDERS,
    Asked,
    contract_of,
    looks_for,
    parsed,
    transposes,
)
from .names import name_of
from .state import untouched
from .tape import DECLARED, OPAQUE


def check_function(
    func: Callable[..., Any],
    *inputs: Any,
    formula: str | None = None,
    stops: str | Sequence[str] = "judge",
    net: bool = True,
    passes: int = 3,
    mode: str = "reverse",
    order: int = 1,
    contract: bool | Sequence[str] = False,
    surrogates: Mapping[str, str] | None = None,
    implicit: Mapping[str, str] | None = None,
    accumulate: str = "float32",
    title: str = "",
    kwargs: Mapping[str, Any] | None = None,
    **named: Any,
) -> Report:
    """Check the gradients of a torch function at these inputs, node by node.

    `func` is any callable that returns a tensor, or any nest of tensors: lists, dicts, dataclasses, model
    outputs. Its parameters are the leaves that need a gradient, among the inputs and among what it holds. It
    runs once, its backward three times. The verdict is in the dtype that it runs in.

    `formula` says what an operation computes that the recording cannot see into, over the names of the
    function's arguments, in the language of expression files. `stops="trust"` takes every `detach`, `.data`
    and `no_grad` as meant, `stops=["model.py:12"]` those at the places that it names. With `net` the function
    is also run as it is, unrecorded: what it gives must be what was judged, and must not change otherwise
    than the judged gradients say. Whatever it changes is put back. With `passes=1` the backward runs once,
    for one that cannot run twice on the same graph: then nobody knows whether it repeats itself.

    `mode="forward"` looks in place of the backward at the tangents that torch moves forward (a custom
    Function's `jvp`, torch's own formulas), node by node, and `mode="both"` at both. With `order=2` the
    backward is recorded as a function of its own (`create_graph`), and each of its nodes is judged as well;
    with 3 the backward of that.

    With `contract` what a backward promises beside its formula is tried as well, clause by clause (layouts,
    frozen inputs, accumulation, ...; see `docs/derivatives.md`), or those clauses that are named.

    `surrogates` and `implicit` say by the names of custom Functions what their gradients are meant to be:
    those of a formula over the names of the forward's arguments, `{"Ste": "x"}`, or of the solution of an
    equation, `{"Deq": "z = tanh(z/2 + w)"}`; see `surrogate` and `implicit`. Then these are checked.

    A sum of 16-bit numbers is expected to be held in float32, as torch's are, or to be no farther off than 16
    roundings of its terms; `accumulate="any"` takes one that was held in 16 bits.

    Keyword arguments are the function's own (`check_function(F.softmax, x, dim=-1)`); those that are called
    as an option of ours stand in `kwargs`. What the function is given and holds, and the random states, are
    as before afterwards.

    What goes wrong in the function, and what is not covered, are findings. Raises `InputError` for bad
    options.
    """
    meant = () if isinstance(stops, str) else tuple(stops)
    if not meant and stops not in ("judge", "trust"):
        raise InputError(f"stops={stops!r}: expected 'judge' or 'trust', or places, as ['model.py:12']")
    if accumulate not in ACCUMULATE:
        raise InputError(f"accumulate={accumulate!r}: expected {' or '.join(map(repr, ACCUMULATE))}")
    if mode not in MODES:
        raise InputError(f"mode={mode!r}: expected {' or '.join(map(repr, MODES))}")
    if order not in ORDERS:
        raise InputError(f"order={order!r}: expected {' or '.join(map(repr, ORDERS))}")
    named_clauses = (contract,) if isinstance(contract, str) else contract
    clauses = () if isinstance(named_clauses, bool) else tuple(named_clauses)
    if unknown := [name for name in clauses if name not in CLAUSES]:
        raise InputError(f"contract={unknown}: expected {', '.join(map(repr, CLAUSES))}")
    if formula is not None and (mode, order) != ("reverse", 1):
        raise InputError(
            "formula= tells one operation, whose backward alone is judged: leave mode and order out"
        )
    if passes not in (1, 3):
        raise InputError(f"passes={passes!r}: expected 3, or 1 for a backward that cannot run twice")
    declared = {**DECLARED, **(surrogates or {}), **(implicit or {})}
    for text in (surrogates or {}).values():
        checked(text, equation=False)
    for text in (implicit or {}).values():
        checked(text, equation=True)
    start = time.perf_counter()
    name = title or name_of(func)
    given, keywords = tree_map(_as_leaf, (list(inputs), {**(kwargs or {}), **named}))
    called = partial(func, **keywords) if keywords else func
    trusted = stops == "trust" or formula is not None
    with untouched(called, *inputs, *given) as state:
        asked = Asked(called, given, state, passes, trusted, net, ACCUMULATE[accumulate], formula, name)
        asked = replace(asked, declared=declared, meant=meant)
        looks = [look(asked) for look in looks_for(mode, order)]
        if contract:
            looks.append(contract_of(asked, clauses))
    kinds = [kind for look in looks for kind in look.exercised]
    first = looks[0]
    return Report(
        name,
        name,
        "torch",
        first.dtype.name if first.dtype else "none",
        _compared([finding for look in looks for finding in look.findings]),
        time.perf_counter() - start,
        exercised=tuple(kinds),
        not_exercised=tuple(kind for kind in KINDS if kind not in kinds)
        + (() if passes == 3 else ("a second backward",))
        + (() if contract else ("contract",)),
        remarks=tuple(dict.fromkeys((*(r for look in looks for r in look.remarks), *transposes(looks)))),
        traceback=next((look.traceback for look in looks if look.traceback), ""),
        gradients=first.judged.gradients,
        local=first.judged.local,
    )


def _compared(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings, and where all of them pass and none has an entry, that nothing was compared."""
    if any(not finding.verdict.passes or finding.value is not None for finding in findings):
        return tuple(findings)
    return (
        *findings,
        bare_finding("gradient", "the function", Verdict.UNDECIDED, NothingToCompare(whole=True)),
    )


def register_formula(operation: str, formula: str) -> None:
    """Say what an operation computes that the recording cannot see into: a kernel of a library's,
    `mylib::swish`, over the names of its arguments, or a custom `autograd.Function` by its class's name, over
    those of its forward.

    Raises `InputError` for text that is not of the language.
    """
    parsed(formula)
    OPAQUE[operation] = formula


def _as_leaf(value: Any) -> Any:
    """A tensor that needs a gradient and has a history is taken from here on."""
    if isinstance(value, torch.Tensor) and value.requires_grad and not value.is_leaf:
        return value.detach().requires_grad_()
    return value
