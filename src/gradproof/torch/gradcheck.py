"""In place of torch's `gradcheck` and `gradgradcheck`: the same calls, and what they ask for, by proof."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import GradproofError
from .check import check_function
from .gradients import Gradient
from .outputs import differentiable, flat

NEEDLESS = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-3}  # torch's own, which nothing here is measured by


class GradcheckError(GradproofError, RuntimeError):
    """A gradient that does not pass; the message is the report."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = NEEDLESS["eps"],
    atol: float = NEEDLESS["atol"],
    rtol: float = NEEDLESS["rtol"],
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """`torch.autograd.gradcheck` by proof: the same call, without step, tolerance or float64.

    What an option asks for is done: forward mode by `check_forward_ad`, the backward under vmap by
    `check_batched_grad`, None for cotangents by `check_undefined_grad`, each gradient's own dtype by
    `check_grad_dtypes`; two backwards may differ by `nondet_tol`. `eps`, `atol` and `rtol` have no meaning
    here, which is warned of once, nor has `fast_mode`. Of sparse tensors the entries that there are are
    judged, as with `masked=True`.

    Raises `GradcheckError` with the report where something is wrong, failed, undecided or unsupported; with
    `raise_exception=False` the answer is False then. Wrong use is what it is in torch: a `ValueError` where
    no input needs a gradient, an `AssertionError` for options that exclude each other.
    """
    _together(check_forward_ad or check_backward_ad, "Expected at least one of check_forward_ad or "
              "check_backward_ad to be True")  # fmt: skip
    _together(check_backward_ad or not check_batched_grad, "Setting check_batched_grad=True requires "
              "check_backward_ad to be True")  # fmt: skip
    _together(check_forward_ad or not check_batched_forward_grad, "Setting check_batched_forward_grad=True "
              "requires check_forward_ad to be True")  # fmt: skip
    given = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    if not differentiable(given):
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them have "
            "requires_grad=True."
        )
    _needless({"eps": eps, "atol": atol, "rtol": rtol})
    asked = {
        "undefined cotangents": check_undefined_grad and check_backward_ad,
        "gradients as declared": check_grad_dtypes and check_backward_ad,
        "batched gradients": check_batched_grad,
        "batched tangents": check_batched_forward_grad,
    }
    mode = "both" if check_backward_ad and check_forward_ad else "reverse" if check_backward_ad else "forward"
    clauses = [name for name, wanted in asked.items() if wanted]
    report = check_function(func, *given, mode=mode, contract=clauses, passes=1 if nondet_tol else 3)
    words = report.to_text() if not report.ok else ""
    untried = [remark for remark in report.remarks if remark.startswith("Contract, not tried")]
    if report.ok and untried:
        words = f"{report.to_text()}\n{' '.join(untried)}"
    if not words and nondet_tol and (apart := _apart(func, given)) > nondet_tol:
        words = f"two backwards differ by {apart:.3g}, more than nondet_tol={nondet_tol:g}"
    if words and raise_exception:
        raise GradcheckError(words)
    return not words


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = NEEDLESS["eps"],
    atol: float = NEEDLESS["atol"],
    rtol: float = NEEDLESS["rtol"],
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """`torch.autograd.gradgradcheck` by proof: the backward as a function of its own, by the cotangents and
    by what it read, checked as `gradcheck` does.

    Cotangents that are not given are random, and contiguous unless `gen_non_contig_grad_outputs`. Raises what
    `gradcheck` raises.
    """
    _together(check_fwd_over_rev or check_rev_over_rev, "Expected at least one of check_fwd_over_rev or "
              "check_rev_over_rev to be True")  # fmt: skip
    given = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    if not differentiable(given):
        raise ValueError(
            "gradgradcheck expects at least one input tensor to require gradient, but none of them have "
            "requires_grad=True."
        )
    gradient = Gradient(func, given)
    cotangents = gradient.cotangents if grad_outputs is None else [*flat(grad_outputs)]
    if gen_non_contig_grad_outputs:
        cotangents = [torch.stack([c, c], -1)[..., 0].detach().requires_grad_() for c in cotangents]
    passes = gradcheck(
        gradient,
        [*cotangents, *given],
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
        masked=masked,
    )
    if passes and gradient.cut and raise_exception:
        names = ", ".join(gradient.cut)
        raise GradcheckError(f"the gradient of {names} has no history: it is cut off from its own graph")
    return passes and not gradient.cut


def _together(holds: bool, words: str) -> None:
    if not holds:
        raise AssertionError(words)


_told: set[str] = set()


def _needless(options: dict[str, float]) -> None:
    """Say once that a step or a tolerance changes nothing."""
    names = [name for name, value in options.items() if value != NEEDLESS[name] and name not in _told]
    if names:
        _told.update(names)
        words = f"{', '.join(names)}: no step is taken and no tolerance needed here, so this changes nothing"
        warnings.warn(words, stacklevel=3)


def _apart(func: Callable[..., Any], given: Sequence[Any]) -> float:
    """By how much the gradients of two backwards on one graph differ."""
    leaves = differentiable(given)
    with torch.enable_grad():
        outputs = differentiable(func(*given))
        seeds = [torch.ones_like(out) for out in outputs]
        one, other = (
            torch.autograd.grad(outputs, leaves, seeds, retain_graph=True, allow_unused=True)
            for _ in range(2)
        )
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)
