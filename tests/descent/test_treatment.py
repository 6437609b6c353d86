"""Loops that clip and scale their gradients: right orders pass, wrong ones are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from conftest import ROOT
from gradproof import InputError, descend, load

PROBLEM = load(ROOT / "expressions" / "logistic_regression.toml")
Loss = Callable[[], torch.Tensor]
NORM, VALUE = 0.01, 0.001
TO_NORM, BOTH = {"clip_norm": NORM}, {"clip_norm": NORM, "scaled": True}


def owned(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def by_norm(optimizer: torch.optim.Optimizer) -> None:
    clip_grad_norm_(owned(optimizer), NORM)


def each_alone(optimizer: torch.optim.Optimizer) -> None:
    for parameter in owned(optimizer):
        clip_grad_norm_([parameter], NORM)


def by_value(optimizer: torch.optim.Optimizer) -> None:
    clip_grad_value_(owned(optimizer), VALUE)


def plain(*before: Callable[[torch.optim.Optimizer], object], after: Any = None) -> Any:
    def step(optimizer: torch.optim.Optimizer, loss: Loss) -> None:
        optimizer.zero_grad()
        loss().backward()
        for treat in before:
            treat(optimizer)
        optimizer.step()
        if after:
            after(optimizer)

    return step


def scaled(*, unscale: bool = True, clip: str = "", steps: str = "scaler") -> Any:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(optimizer: torch.optim.Optimizer, loss: Loss) -> None:
        optimizer.zero_grad()
        scaler.scale(loss()).backward()
        if clip == "early":
            by_norm(optimizer)
        if unscale:
            scaler.unscale_(optimizer)
        if clip == "right":
            by_norm(optimizer)
        if steps == "scaler":
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()

    return step


def averaged() -> Any:
    kept: dict[torch.Tensor, torch.Tensor] = {}

    def after(optimizer: torch.optim.Optimizer) -> None:
        for p in owned(optimizer):
            kept[p] = 0.9 * kept.get(p, p.detach()) + 0.1 * p.detach()

    return plain(after=after)


RIGHT: dict[str, tuple[Any, dict[str, Any]]] = {
    "clipped to a norm": (plain(by_norm), TO_NORM),
    "a norm that is not reached": (plain(lambda o: clip_grad_norm_(owned(o), 1e6)), {"clip_norm": 1e6}),
    "clipped to a value": (plain(by_value), {"clip_value": VALUE}),
    "scaled": (scaled(), {"scaled": True}),
    "scaled, unscaled by the scaler's step": (scaled(unscale=False), {"scaled": True}),
    "scaled, unscaled and clipped": (scaled(clip="right"), BOTH),
    "averaged weights": (averaged(), {}),
}
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "after the step": (plain(after=by_norm), TO_NORM, "not clipped before the optimizer's step"),
    "not at all": (plain(), TO_NORM, "not clipped before the optimizer's step"),
    "each by its own norm": (plain(each_alone), TO_NORM, "clipped by its own norm"),
    "before it is unscaled": (scaled(clip="early", unscale=False), BOTH, "clipped before it was unscaled"),
    "never unscaled": (scaled(unscale=False, steps="own"), {"scaled": True}, "not unscaled before"),
    "clipped, never unscaled": (scaled(unscale=False, clip="right", steps="own"), BOTH, "and not unscaled"),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_order_passes(name: str, dtype: str) -> None:
    step, options = RIGHT[name]
    report = descend(PROBLEM, step=step, steps=3, dtype=dtype, **options)
    assert report.ok, report.to_text()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_order_is_named(name: str) -> None:
    step, options, said = WRONG[name]
    report = descend(PROBLEM, step=step, steps=3, **options)
    assert not report.ok and said in report.failing[0][1].note, report.to_text()


def test_the_exact_trajectory_is_clipped_too() -> None:
    report = descend(PROBLEM, step=plain(by_norm), steps=5, clip_norm=NORM)
    assert report.steps[-1].distance is not None and report.steps[-1].distance.relative < 1e-14


@pytest.mark.parametrize(
    "options", [{"clip_norm": 0}, {"clip_value": -1.0}, {"clip_norm": 1, "clip_value": 1}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="clip"):
        descend(PROBLEM, steps=1, **options)
