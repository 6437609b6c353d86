"""Cotangents reach custom Functions in other layouts too, wherever they stand: who takes them for contiguous
is refuted there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from faulty import function
from torch import Tensor

from gradproof import Verdict, check_function
from gradproof.causes import OtherCotangent


def in_order(g: Tensor) -> Tensor:
    """The numbers as they lie in memory, taken for those of a tensor without gaps."""
    steps, step = [], 1
    for extent in reversed(g.shape):
        steps.append(step)
        step *= extent
    return g.as_strided(g.shape, steps[::-1])


def doubled(read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return function("Doubled", lambda x: x * 2, lambda g, x: read(g) * 2)


def shuffled_if_turned(g: Tensor) -> Tensor:
    """Right for what is contiguous, and for what has gaps; as a kernel that looks at the strides alone."""
    if g.ndim > 1 and not g.is_contiguous() and g.permute(*reversed(range(g.ndim))).is_contiguous():
        return g.permute(*reversed(range(g.ndim))).reshape(g.shape)
    return g


def shuffled_if_images(g: Tensor) -> Tensor:
    if g.ndim == 4 and not g.is_contiguous() and g.is_contiguous(memory_format=torch.channels_last):
        return g.permute(0, 2, 3, 1).reshape(g.shape)
    return g


def from_its_memory(g: Tensor) -> Tensor:
    """Right where the cotangent begins its memory."""
    whole = torch.tensor([], dtype=g.dtype).set_(g.untyped_storage())
    return whole[: g.numel()].reshape(g.shape)


READS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "two entries apart": (in_order, (4,)),
    "turned": (shuffled_if_turned, (3, 4)),
    "turned, of three axes": (shuffled_if_turned, (2, 3, 4)),
    "images": (shuffled_if_images, (1, 2, 4, 4)),
    "another start": (from_its_memory, (4,)),
}
PLACES: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "last": lambda f, x: f(x),
    "in the middle": lambda f, x: f(x.sin()).exp(),
    "under a sum": lambda f, x: (f(x) * torch.arange(1.0, x.numel() + 1, dtype=x.dtype).view(x.shape)).sum(),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READS)
def test_a_backward_that_takes_its_cotangent_for_contiguous_is_refuted(name: str, place: str) -> None:
    read, shape = READS[name]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    report = check_function(lambda x: PLACES[place](doubled(read), x), x)
    bad = [f for f in report.findings if f.verdict is Verdict.WRONG]
    assert {f.node for f in bad} == {"DoubledBackward"}, report.to_text()
    assert any(isinstance(cause, OtherCotangent) for f in bad for cause in f.causes)
    assert check_function(lambda x: PLACES[place](doubled(lambda g: g), x), x).ok


def without_first(g: Tensor) -> Tensor:
    return torch.cat([g[:1] * 0, g[1:]]) if 0 in g.stride() else g


@pytest.mark.parametrize("read", [without_first, lambda g: g * 2 if 0 in g.stride() else g])
def test_an_expanded_cotangent_reaches_a_function_in_the_middle(read: Callable[[Tensor], Tensor]) -> None:
    """Behind a product whose factor is the same for all rows the numbers are alike along an axis, and lie in
    memory of their own."""
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    factor = torch.randn(3, dtype=torch.float64)
    wrong = check_function(lambda x: (doubled(read)(x) * factor).sum(), x)
    (found,) = (f for f in wrong.findings if f.verdict is Verdict.WRONG and not f.inherited)
    assert found.node == "DoubledBackward"
    assert any(isinstance(c, OtherCotangent) and c.layout == "expanded" for c in found.causes)
    assert check_function(lambda x: (doubled(lambda g: g)(x) * factor).sum(), x).ok
