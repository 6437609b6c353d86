"""Nothing that a parameter reaches becomes a constant in silence: what is not followed is said, by name and
place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from net_cases import Missed, drawn
from taint_cases import ALL, TAINT
from torch import Tensor

from gradproof import Report, Verdict, check_function

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of what is beta or deprecated

# What is right, and yet not covered: said by name.
UNCOVERED = "odd nobody dtype quantized".split()
# Where torch passes nothing on, and the function is not constant: then there is no right twin.
PASSES_NOTHING = ("arithmetic", "bits")


def told(report: Report) -> str:
    return "; ".join(f"{f.node} {f.place} {f.note}" for f in report.findings if not f.verdict.passes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_lost_or_not_seen_is_told_with_its_place(kind: Missed) -> None:
    report = check_function(kind.wrong, drawn(kind.shape), net=False)
    assert report.verdict in (Verdict.WRONG, Verdict.UNSUPPORTED), told(report)
    assert any("_cases.py:" in f.place for f in report.findings if not f.verdict.passes), told(report)


@pytest.mark.parametrize("kind", TAINT, ids=lambda kind: kind.name)
def test_its_right_twin_passes_or_is_refused_by_name(kind: Missed) -> None:
    report = check_function(kind.right, drawn(kind.shape))
    refused = report.verdict is Verdict.UNSUPPORTED and any(word in kind.name for word in UNCOVERED)
    lost = report.verdict is Verdict.WRONG and any(word in kind.name for word in PASSES_NOTHING)
    assert report.ok or refused or lost, told(report)


# A node that reads the same detached memory in two slots, and the gradient that the function has at some
# entry.
SLOTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "twice": (lambda x: torch.addcmul(x, x.detach(), x.detach()), lambda x: 1 + 2 * x),
    "two views": (
        lambda x: torch.addcmul(x[:2], x.detach()[:2], x.detach()[1:]),
        lambda x: torch.stack([1 + x[1], 1 + x[0] + x[2], x[1]]),
    ),
    "before the node": (lambda x: x.detach() * x.detach() * x, lambda x: 3 * x * x),
    "in a list": (lambda x: torch.stack([x.detach(), x.detach(), x]).prod(0), lambda x: 3 * x * x),
}


@pytest.mark.parametrize("name", SLOTS)
def test_a_part_that_is_lost_is_told_in_its_size(name: str) -> None:
    func, gradient = SLOTS[name]
    x = drawn((3,))
    (loss,) = [
        f for f in check_function(lambda x: func(x).sum(), x, net=False).findings if not f.verdict.passes
    ]
    assert loss.exact == pytest.approx(float(gradient(x.detach())[loss.index]))
