"""The training loop: each step at the engine's own numbers, and faults in loops and optimizers by their
names."""

from __future__ import annotations

import csv
import io
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradproof
from conftest import ROOT
from gradproof import DescentReport, InputError, Problem, check_descent, descend, load, parse
from gradproof.cli import main
from gradproof.descent.optimizers import RULES, parsed
from gradproof.descent.trajectory import update_of
from gradproof.descent.witness import Taken
from gradproof.dtypes import DTYPES
from gradproof.judging.judge import Judge
from gradproof.judging.step import Work
from gradproof.proof.balls import balls, centres, radii
from gradproof.telling.plot import Series, plot

EXPRESSIONS = ROOT / "expressions"


@pytest.fixture(scope="module")
def logistic() -> Problem:
    return load(EXPRESSIONS / "logistic_regression.toml")


@pytest.fixture(scope="module")
def ols() -> Problem:
    return load(EXPRESSIONS / "ols.toml")


def notes(report: DescentReport) -> list[str]:
    """The notes of what does not pass."""
    return [finding.note for _, finding in report.failing]


# Planted faults first


class Uphill(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=group["lr"])


class Doubled(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-2 * group["lr"])


class ByHand(torch.optim.Adam):
    """Adam written out, with room for mistakes: `corrected` moments, and where `eps` goes."""

    corrected = True
    inside = False

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {
                        "step": torch.tensor(0.0),
                        "exp_avg": torch.zeros_like(p),
                        "exp_avg_sq": torch.zeros_like(p),
                    }
                state["step"] += 1
                t = state["step"].item()
                state["exp_avg"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                c1, c2 = (1 - beta1**t, 1 - beta2**t) if self.corrected else (1.0, 1.0)
                m, v = state["exp_avg"] / c1, state["exp_avg_sq"] / c2
                root = (v + group["eps"]).sqrt() if self.inside else v.sqrt() + group["eps"]
                p.sub_(group["lr"] * m / root)


class Uncorrected(ByHand):
    corrected = False


class EpsInside(ByHand):
    inside = True


class PlainMomentum(torch.optim.SGD):
    """Asked for Nesterov's step, and does not take it."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["nesterov"] = False
        super().step()
        for group in self.param_groups:
            group["nesterov"] = True


class Skipping(torch.optim.SGD):
    """Forgets its last parameter."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"][:-1]:
                p.add_(p.grad, alpha=-group["lr"])


OPTIMIZER_FAULTS: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], str, str | None]] = {
    "sign": (lambda p: Uphill(p, lr=0.1), "the sign is wrong", None),
    "factor": (lambda p: Doubled(p, lr=0.1), "a factor of 2", None),
    "no bias correction": (lambda p: Uncorrected(p, lr=0.1), "bias correction is missing", None),
    "eps inside of the root": (
        lambda p: EpsInside(p, lr=0.1, eps=1e-3),
        "eps is inside of the square root",
        None,
    ),
    "no Nesterov": (
        lambda p: PlainMomentum(p, lr=0.1, momentum=0.9, nesterov=True),
        "Nesterov's step is missing",
        None,
    ),
    "coupled": (lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1), "it is not decoupled", "adamw"),
    "decoupled": (
        lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
        "decoupled from the gradient",
        "adam",
    ),
    "a parameter forgotten": (lambda p: Skipping(p, lr=0.1), "the parameter was not updated", None),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZER_FAULTS)
def test_a_wrong_update_is_refuted_and_named(name: str, dtype: str, logistic: Problem) -> None:
    make, words, rule = OPTIMIZER_FAULTS[name]
    report = descend(logistic, optimizer=make, rule=rule, steps=4, dtype=dtype)
    assert report.verdict is gradproof.Verdict.WRONG
    step, finding = report.failing[0]
    assert step.number == 1
    assert finding.kind in ("state", "update")
    assert words in " / ".join(notes(report))
    assert {f.kind for _, f in report.failing} <= {"state", "update"}


def test_only_the_forgotten_parameter_is_wrong(logistic: Problem) -> None:
    report = descend(logistic, optimizer=lambda p: Skipping(p, lr=0.1), steps=2)
    assert {finding.node for _, finding in report.failing} == {"b"}


TWINS: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], str | None]] = {
    "Adam by hand": (lambda p: ByHand(p, lr=0.1), None),
    "a subclass": (lambda p: type("Mine", (torch.optim.SGD,), {})(p, lr=0.1, momentum=0.9), None),
    "two groups": (
        lambda p: torch.optim.SGD([{"params": p[:1], "lr": 0.5}, {"params": p[1:]}], lr=0.1),
        None,
    ),
    "foreach": (lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True), None),
    "fused": (lambda p: torch.optim.Adam(p, lr=0.1, fused=True), None),
    "a tensor for the rate": (
        lambda p: torch.optim.Adam(p, lr=torch.tensor(0.125, dtype=torch.float64)),
        None,
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TWINS)
def test_a_right_optimizer_of_ones_own_passes(name: str, dtype: str, logistic: Problem) -> None:
    make, rule = TWINS[name]
    report = descend(logistic, optimizer=make, rule=rule, steps=10, dtype=dtype)
    assert report.ok, report.to_text()


def test_a_learning_rate_in_a_tensor_of_float32_costs_half_of_the_digits(logistic: Problem) -> None:
    """torch divides it by the bias correction in float32, whatever the parameters are: not the documented
    update."""
    report = descend(logistic, optimizer=lambda p: torch.optim.Adam(p, lr=torch.tensor(0.125)), steps=3)
    assert report.verdict == "wrong"
    _, finding = report.failing[0]
    assert finding.kind == "update"
    assert finding.error is not None and finding.error < 1e-6


def forgets_to_zero(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    loss().backward()
    optimizer.step()


def updates_in_the_graph(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()
    for p in optimizer.param_groups[0]["params"]:
        p -= 0.1 * p.grad


def forgets_to_step(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()


def halves(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()
    for p in optimizer.param_groups[0]["params"]:
        p.grad.mul_(0.5)
    optimizer.step()


def steps_before_the_backward(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    value = loss()
    optimizer.step()
    optimizer.zero_grad()
    value.backward()


def changes_them_later(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()
    for p in optimizer.param_groups[0]["params"]:
        p.data.add_(1e-15)


LOOP_FAULTS = [
    (changes_them_later, "wrong", "outside of it"),
    (forgets_to_zero, "wrong", "zero_grad is missing"),
    (updates_in_the_graph, "failed", "leaf Variable"),
    (forgets_to_step, "wrong", "did not call optimizer.step()"),
    (halves, "wrong", "a factor of 0.5"),
    (steps_before_the_backward, "wrong", ".grad has none"),
]


@pytest.mark.parametrize(
    ("step", "verdict", "words"), LOOP_FAULTS, ids=lambda case: getattr(case, "__name__", None)
)
def test_a_wrong_loop_is_refuted_and_named(step: Any, verdict: str, words: str, logistic: Problem) -> None:
    report = descend(logistic, step=step, steps=4)
    assert report.verdict == verdict
    assert words in " / ".join(notes(report))


def test_a_forgotten_zero_grad_tells_the_steps_and_the_first_step_passes(logistic: Problem) -> None:
    report = descend(logistic, step=forgets_to_zero, steps=3)
    assert [step.verdict.passes for step in report.steps] == [True, False, False]
    assert notes(report)[-1] == "the gradient is the sum of those of steps 1 to 3: zero_grad is missing"


def test_a_closure_is_a_loop_too(logistic: Problem) -> None:
    def step(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)

    assert descend(logistic, step=step, steps=3).ok


# The flagship


def test_the_first_steps_of_the_file_are_those_of_the_book(ols: Problem) -> None:
    report = descend(ols, learning_rate=0.01, steps=100)
    first, second = report.steps[:2]
    assert (first.loss, float(first.gradients["w"]), float(first.updated["w"])) == (1.0, -2.0, 1.02)  # type: ignore[arg-type]
    assert (first.exact_loss, float(first.exact_updated["w"])) == (1.0, 1.02)  # type: ignore[index]
    assert second.loss == pytest.approx(0.98**2, rel=1e-15)
    assert len(report.steps) == 100
    assert report.verdict == "exact"
    assert float(report.steps[-1].updated["w"]) == pytest.approx(2 - 0.98**100, rel=1e-14)
    assert all(step.distance is not None and step.distance.ulp < 4 for step in report.steps)


def test_the_file_says_how(ols: Problem) -> None:
    assert len(descend(ols).steps) == 100
    assert descend(ols, steps=2).settings["lr"] == 0.01


# Each optimizer against torch

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("sgd", {"maximize": True}),
    ("adam", {}),
    ("adam", {"betas": [0.5, 0.9], "weight_decay": 0.1}),
    ("adam", {"betas": [0.0, 0.9], "eps": 1e-3}),
    ("adam", {"amsgrad": True}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.1, "amsgrad": True}),
    ("adamw", {"weight_decay": 0.0, "maximize": True}),
    ("rmsprop", {}),
    ("rmsprop", {"momentum": 0.5, "weight_decay": 0.1}),
    ("rmsprop", {"centered": True, "alpha": 0.9}),
    ("rmsprop", {"centered": True, "momentum": 0.5}),
    ("adagrad", {}),
    ("adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
]


@pytest.mark.parametrize(("dtype", "steps"), [("float64", 50), ("float32", 8)])
@pytest.mark.parametrize(("optimizer", "options"), OPTIONS, ids=str)
def test_steps_of_torch_are_verified(
    optimizer: str, options: dict[str, Any], dtype: str, steps: int, logistic: Problem
) -> None:
    report = descend(
        logistic, optimizer=optimizer, options=options, steps=steps, learning_rate=0.05, dtype=dtype
    )
    assert report.ok, report.to_text()
    assert len(report.steps) == steps
    kinds = {finding.kind for finding in report.findings}
    assert {"forward", "local", "gradient", "recorded", "update"} <= kinds
    assert ("state" in kinds) == (optimizer != "sgd" or "momentum" in options)
    assert all(step.exact_updated is not None for step in report.steps)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", RULES)
def test_half_precision_is_verified_too(optimizer: str, dtype: str, logistic: Problem) -> None:
    report = descend(
        logistic,
        optimizer=optimizer,
        options={"eps": 1e-3} if optimizer != "sgd" else {},
        steps=10,
        dtype=dtype,
    )
    assert report.ok, report.to_text()


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_the_defaults_are_torchs(rule: Any) -> None:
    made = getattr(torch.optim, rule.torch)([torch.zeros(1, requires_grad=True)])
    assert made.defaults["lr"] == rule.lr
    assert {name: made.defaults[name] for name in rule.options} == dict(rule.options)


def adams_first_step(dtype: str) -> Taken:
    """Adam's update of p = 1 by g = 0.3, as torch takes it."""
    p = torch.ones((), dtype=getattr(torch, dtype), requires_grad=True)
    p.grad = torch.full_like(p, 0.3)
    made = torch.optim.Adam([p], lr=0.1)
    made.step()
    left = {name: made.state[p][name].double().numpy() for name in ("exp_avg", "exp_avg_sq")}
    left["p"], g = p.detach().double().numpy(), p.grad.double().numpy()
    update = update_of(RULES["adam"], RULES["adam"].options, 0.1)
    state = {name: balls(0.0) for name in left if name != "p"}
    return Taken(update, DTYPES[dtype], "w", 1, np.ones(()), g, state, state, left)


def test_an_update_is_a_step_for_each_number_that_it_gives() -> None:
    findings = Judge(adams_first_step("float32").witness()).judged().findings
    told = [(finding.kind, finding.node, finding.verdict.passes) for finding in findings]
    assert told == [("state", "w.exp_avg", True), ("state", "w.exp_avg_sq", True), ("update", "w", True)]
    assert findings[1].formula == "exp_avg_sq = beta2*exp_avg_sq + a2*g**2"


def test_what_rounding_explains_is_what_it_does_to_any_way_to_write_a_line() -> None:
    *_, step = adams_first_step("float32").steps()
    wide, narrow = (Work(each).rounded["p"] for each in (step, replace(step, also={})))
    assert radii(wide) > radii(narrow)
    assert len({float(centres(Work(each).exact()["p"])) for each in (step, replace(step, also={}))}) == 1


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_mistakes_change_lines_that_are_there(rule: Any) -> None:
    texts = {line.text for line in rule.lines}
    for mistake in rule.mistakes:
        assert set(mistake.lines) <= texts, mistake.words
        assert set(mistake.options) <= set(rule.options), mistake.words
        assert all(parsed(text).name for text in mistake.lines.values()), mistake.words


# What there is to say of the whole


def test_longley_is_ill_conditioned_and_the_report_says_so() -> None:
    report = descend(load(EXPRESSIONS / "longley.toml"), steps=3, learning_rate=1e-13)
    assert report.ok, report.to_text()
    curved = report.curvatures["start"]
    assert curved.quadratic
    assert curved.condition == pytest.approx(
        4.859257015e9**2, rel=1e-4
    )  # cond(X) of Longley's matrix with its intercept
    told = " ".join(report.notes)
    assert "ill-conditioned" in told
    assert "19 digits are lost" in told
    assert "Learning rates below 3.61299e-13 are stable" in told
    assert "diverges" not in told


def test_a_learning_rate_beyond_the_bound_diverges_and_the_report_says_so(ols: Problem) -> None:
    report = descend(ols, learning_rate=1.1, steps=20)
    assert report.ok  # the engine's numbers are right; the learning rate is not
    told = " ".join(report.notes)
    assert "The descent diverges" in told
    assert "Learning rates below 1 are stable (from λmax); 1.1 is above." in told


def test_beyond_the_largest_number_nothing_is_judged(ols: Problem) -> None:
    report = descend(ols, learning_rate=3.0, steps=1000, dtype="float16")
    assert report.verdict == "undecided"
    assert len(report.steps) < 10
    assert "beyond float16" in " ".join(report.notes)


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 1.0),
        ({"momentum": 0.9}, 1.9),
        ({"momentum": 0.9, "nesterov": True}, 1.9 / 2.8),
        ({"weight_decay": 6.0}, 0.25),
    ],
    ids=str,
)
def test_the_bound_of_the_learning_rate_is_where_it_tips(
    options: dict[str, Any], bound: float, ols: Problem
) -> None:
    below, above = (descend(ols, options=options, learning_rate=bound * by, steps=60) for by in (0.95, 1.05))
    assert f"below {bound:.6g} are stable" in " ".join(below.notes)
    moves = [
        [float(abs(s.updated["w"] - s.parameters["w"])) for s in report.steps] for report in (below, above)
    ]
    assert moves[0][-1] < max(moves[0][:20])
    assert moves[1][-1] > max(moves[1][:20])


def test_it_stops_at_a_minimum_that_is_proved(ols: Problem) -> None:
    report = descend(ols, learning_rate=0.4, steps=1000, until=1e-8)
    assert len(report.steps) == 12
    w = float(report.steps[-1].updated["w"])
    assert 0 < abs(2 * (w - 2)) < 1e-8 < abs(2 * (float(report.steps[-2].updated["w"]) - 2))
    assert "proved below 1e-08" in " ".join(report.notes)


def test_a_bound_that_is_not_reached_is_said(ols: Problem) -> None:
    told = " ".join(descend(ols, steps=3, until=1e-8).notes)
    assert "not proved below 1e-08 within 3 steps" in told


def test_an_exact_minimum_ends_it(ols: Problem) -> None:
    report = descend(ols, learning_rate=0.5, steps=100)
    assert len(report.steps) == 1
    assert "the exact gradient is 0, proved" in " ".join(report.notes)


def test_a_kink_under_the_exact_trajectory_is_said() -> None:
    problem = parse("loss = abs(w) + w**2", parameters={"w": 0.0})
    report = descend(problem, learning_rate=0.25, steps=3)
    assert "exact trajectory is lost after step 0" in " ".join(report.notes)
    assert report.steps[0].verdict == "kink"
    assert (
        report.to_text()
        and report.to_html()
        and report.to_csv()
        and report.to_markdown()
        and json.loads(report.to_json())
    )


def test_precision_grows_with_the_errors() -> None:
    """A trajectory in chaos: the logistic map, where every step loses a bit."""
    problem = parse("loss = 1.5*w**2 - 4*w**3/3 + 0*w", parameters={"w": 0.3})
    report = descend(problem, learning_rate=1.0, steps=150)  # w - (3w - 4w²) = 4w² - 2w
    assert report.ok
    assert report.bits > 128
    assert report.steps[-1].exact_updated is not None


# Accumulation, micro-batches


def test_accumulated_gradients_are_sums_and_the_report_says_so(ols: Problem) -> None:
    report = descend(ols, accumulate=True, steps=4)
    assert report.ok, report.to_text()
    assert "not zeroed, as asked" in " ".join(report.notes)
    recorded = [finding.note for finding in report.findings if finding.kind == "recorded"]
    assert recorded[1:] == [f"not zeroed: it is the sum of those of steps 1 to {n}" for n in (2, 3, 4)]
    assert float(report.steps[1].gradients["w"]) == pytest.approx(-2 - 1.96, rel=1e-15)  # type: ignore[arg-type]
    assert float(report.steps[1].exact_gradients["w"]) == pytest.approx(-3.96, rel=1e-15)  # type: ignore[index]


SUM = "loss = sum((X @ w - y)**2)"
MEAN = "loss = mean((X @ w - y)**2)"
DATA = {
    "X": [[1.0, 2.0], [3.0, -1.0], [0.5, 0.25], [2.0, 2.0], [1.0, 0.0], [0.0, 1.0]],
    "y": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
}


@pytest.mark.parametrize(
    ("graph", "reduction", "count", "factor"),
    [
        (SUM, "sum", 3, None), (SUM, "sum", 4, None), (MEAN, "mean", 3, None), (MEAN, "mean", 4, None),
        (MEAN, "sum", 3, "3 times"), (MEAN, "sum", 2, "2 times"), (SUM, "mean", 2, "0.5 times"),
    ],
)  # fmt: skip
def test_micro_batches_add_up_or_the_factor_is_told(
    graph: str, reduction: str, count: int, factor: str | None
) -> None:
    problem = parse(graph, given=DATA, parameters={"w": [0.5, -0.5]})
    report = descend(problem, micro_batches=count, reduction=reduction, steps=3, learning_rate=0.01)
    assert report.ok == (factor is None), report.to_text()
    if factor:
        assert {finding.kind for _, finding in report.failing} == {"micro-batches"}
        assert all(f"{factor} the full batch's" in note for note in notes(report))


def test_unequal_parts_of_a_mean_have_no_factor() -> None:
    problem = parse(MEAN, given=DATA, parameters={"w": [0.5, -0.5]})
    report = descend(problem, micro_batches=4, steps=1, learning_rate=0.01)
    assert "nor a multiple of it" in notes(report)[0]


def test_a_micro_batch_left_out_is_refuted() -> None:
    def step(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    problem = parse(SUM, given=DATA, parameters={"w": [0.5, -0.5]})
    report = descend(problem, micro_batches=2, step=step, steps=1, learning_rate=0.01)
    assert report.verdict == "wrong"
    assert "the step used 1 of the 2 micro-batches" in notes(report)


def test_the_batch_can_be_named() -> None:
    problem = parse(SUM + " + sum(s * w)", given={**DATA, "s": [1.0, 2.0]}, parameters={"w": [0.5, -0.5]})
    with pytest.raises(InputError, match="what is the batch"):
        descend(problem, micro_batches=2)
    report = descend(problem, micro_batches=2, batch=["X", "y"], steps=1, learning_rate=0.01)
    assert "nor a multiple of it" in notes(report)[0]  # the last term counts twice


# Numbers from anywhere


def written_down(
    lr: float, steps: int, *, zero: bool = True, sign: float = -1.0, decay: float = 0.0
) -> list[dict[str, Any]]:
    """A loop in plain Python for loss = (w*x - y)**2 at x = 3, y = 2."""
    w, kept, found = 1.0, 0.0, []
    for _ in range(steps):
        gradient = 2 * (w * 3.0 - 2.0) * 3.0 + (0.0 if zero else kept)
        kept = gradient
        found.append({"parameters": {"w": w}, "gradients": {"w": gradient}, "loss": (w * 3.0 - 2.0) ** 2})
        w = w + sign * lr * (gradient + decay * w)
    return [*found, {"parameters": {"w": w}}]


@pytest.fixture(scope="module")
def scalar() -> Problem:
    return parse("loss = (w*x - y)**2", given={"x": 3.0, "y": 2.0}, parameters={"w": 1.0})


def test_a_trajectory_from_anywhere_is_checked(scalar: Problem) -> None:
    report = check_descent(scalar, written_down(0.01, 20), learning_rate=0.01)
    assert report.ok, report.to_text()
    assert len(report.steps) == 20


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"zero": False}, "zero_grad is missing"),
        ({"sign": 1.0}, "the sign is wrong"),
        ({"lr": 0.02}, "a factor of 2"),
    ],
    ids=str,
)
def test_a_wrong_trajectory_is_refuted_and_named(wrong: dict[str, Any], words: str, scalar: Problem) -> None:
    report = check_descent(scalar, written_down(**{"lr": 0.01, "steps": 5, **wrong}), learning_rate=0.01)
    assert report.verdict == "wrong"
    assert words in " / ".join(notes(report))


def test_momentum_from_anywhere_needs_no_state(logistic: Problem) -> None:
    for optimizer, options in (("sgd", {"momentum": 0.9}), ("adam", {}), ("adamw", {"weight_decay": 0.1})):
        run = descend(logistic, optimizer=optimizer, options=options, steps=6, learning_rate=0.05)
        seen = [{"parameters": s.parameters, "gradients": s.gradients, "loss": s.loss} for s in run.steps]
        seen.append({"parameters": run.steps[-1].updated})
        assert check_descent(logistic, seen, optimizer=optimizer, options=options, learning_rate=0.05).ok
        assert not check_descent(logistic, seen, optimizer="sgd", learning_rate=0.05).ok


@pytest.mark.parametrize(
    ("trajectory", "words"),
    [
        ([], "no step"),
        ([{"gradients": {"w": 1.0}}], "no 'parameters'"),
        ([{"parameters": {"w": 1.0}}], "no 'gradients'"),
        ([{"parameters": {"v": 1.0}, "gradients": {"w": 1.0}}], "has no 'w'"),
        ([{"parameters": {"w": [1.0]}, "gradients": {"w": 1.0}}], "of shape"),
        ([{"parameters": {"w": 1.0}, "gradients": {"w": 1.0}}], "no 'updated'"),
    ],
)
def test_a_bad_trajectory_is_told(trajectory: list[dict[str, Any]], words: str, scalar: Problem) -> None:
    with pytest.raises(InputError, match=words):
        check_descent(scalar, trajectory)


# Forms


def test_csv_has_a_row_for_each_step_to_the_last_digit(ols: Problem) -> None:
    rows = list(csv.DictReader(io.StringIO(descend(ols, steps=5).to_csv())))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert (rows[0]["gradient w"], rows[0]["new w"], rows[0]["verdict"]) == ("-2.0", "1.02", "exact")


def test_a_rule_is_shown_as_documented(logistic: Problem) -> None:
    report = descend(logistic, steps=1, optimizer="adam")
    assert report.lines == (
        "a1 = 1 - beta1",
        "a2 = 1 - beta2",
        "c1 = 1 - beta1**step",
        "c2 = 1 - beta2**step",
        "exp_avg = beta1*exp_avg + a1*g",
        "exp_avg_sq = beta2*exp_avg_sq + a2*g**2",
        "p = p - lr*(exp_avg/c1)/(sqrt(exp_avg_sq/c2) + eps)",
    )


def test_json_holds_the_trajectory(logistic: Problem) -> None:
    report = descend(logistic, steps=3, optimizer="adam")
    whole = json.loads(report.to_json())
    assert whole["ok"] and whole["schema"] == 2
    descent = whole["descent"]
    assert descent["rule"] == "adam" and descent["settings"]["betas"] == [0.9, 0.999]
    assert [step["step"] for step in descent["steps"]] == [1, 2, 3]
    assert descent["steps"][0]["updated"]["w"] == report.steps[0].updated["w"].tolist()
    assert set(descent["steps"][0]["verdicts"]) == {
        "forward",
        "local",
        "gradient",
        "recorded",
        "state",
        "update",
    }


def test_pages_escape_what_they_show() -> None:
    problem = parse("loss = (w - 1)**2", parameters={"w": 3.0}, title="<script>alert('x')</script> | a*b_c")
    report = descend(problem, steps=3, learning_rate=0.1)
    assert "<script>" not in report.to_html()
    assert "<script>" not in report.to_markdown()
    assert "color-scheme: light dark" in report.to_html()


def test_plots_are_svg(logistic: Problem) -> None:
    from gradproof.telling.descent import plots

    drawn = plots(descend(logistic, steps=3))
    assert set(drawn) == {"loss", "parameters"}
    for drawing in drawn.values():
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
        assert "<polyline" in drawing


@pytest.mark.parametrize(
    "values", [(), (1.0,), (None, math.nan, math.inf), (0.0, 0.0), (-1e308, 1e308), (1e-320, 1e300)], ids=str
)
@pytest.mark.parametrize("log", [False, True])
def test_any_numbers_can_be_plotted(values: tuple[float | None, ...], log: bool) -> None:
    drawing = plot("a < b & c", [Series("x", values)], log=log)
    ElementTree.fromstring(drawing)
    assert "nan" not in drawing and "inf" not in drawing


# The command


def test_the_command_writes_files_and_plots(tmp_path: Path) -> None:
    page = tmp_path / "ols.md"
    assert (
        main(
            [
                "descend",
                str(EXPRESSIONS / "ols.toml"),
                "--steps",
                "3",
                "--format",
                "markdown",
                "--output",
                str(page),
            ]
        )
        == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ols-loss.svg",
        "ols-parameters.svg",
        "ols.md",
    ]
    assert "![loss](ols-loss.svg)" in page.read_text()


def test_the_command_tells_what_is_wrong_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    logistic = str(EXPRESSIONS / "logistic_regression.toml")
    assert main(["descend", logistic, "--steps", "2", "--micro-batches", "2"]) == 1
    assert main(["descend", logistic, "--steps", "2", "--micro-batches", "2", "--reduction", "mean"]) == 0
    assert main(["descend", str(EXPRESSIONS / "ols.toml"), "--learning-rate", "1e200", "--steps", "9"]) == 3
    assert main(["descend", "-e", "loss = (w - 1)**2", "--parameter", "w=3", "--steps", "2"]) == 0
    assert "Traceback" not in capsys.readouterr().err


BAD = {
    "--optimizer adamm": "did you mean 'adam'?",
    "--option momentun=0.9": "did you mean 'momentum'?",
    "--option momentum=high": "expected a number",
    "--option momentum=-1": "expected a number from 0",
    "--option nesterov=1": "expected true or false",
    "--option nesterov=true": "torch.optim.SGD does not take these options",
    "--optimizer adam --option betas=[0.9]": "expected 2 numbers",
    "--optimizer adam --option betas=[0.9,1.5]": "from 0 to below 1",
    "--learning-rate 0": "expected a positive number",
    "--learning-rate nan": "expected a positive number",
    "--steps 1000000": "expected a number from 1 to 100,000",
    "--until -1": "expected a positive number",
    "--dtype float8": "unknown dtype",
    "--reduction average": "sum or mean",
    "--micro-batches 2": "no given tensor with axes",
    "--batch x": "say how many",
    "README.md": "a descent is of one problem",
    "docs/examples.py:swish": "has no lines to derive",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_options_end_with_2_and_the_cure(
    options: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["descend", "expressions/ols.toml", *options.split()]) == 2
    error = capsys.readouterr().err
    assert BAD[options] in error
    assert error.startswith("gradproof: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optimizer": lambda p: None}, "expected a torch.optim.Optimizer"),
        ({"optimizer": lambda p: torch.optim.SGD(p[:1], lr=0.1)}, "does not hold parameter 'b'"),
        ({"optimizer": lambda p: torch.optim.Rprop(p)}, "no documented update for 'Rprop'"),
        ({"optimizer": lambda p: torch.optim.SGD(p), "learning_rate": 0.1}, "brings its own"),
        ({"rule": "sdg"}, "did you mean 'sgd'"),
        ({"step": lambda optimizer, loss: (loss(), loss())}, "more than 1 times"),
        ({"steps": 0}, "from 1"),
        ({"learning_rate": "0.1"}, "expected a positive number"),
    ],
    ids=[
        "no optimizer",
        "one parameter",
        "no rule",
        "two rates",
        "no such rule",
        "two losses",
        "no steps",
        "a text",
    ],
)
def test_bad_arguments_are_told(arguments: dict[str, Any], words: str, logistic: Problem) -> None:
    with pytest.raises(InputError, match=words):
        descend(logistic, **arguments)


def test_ctrl_c_reports_the_steps_that_are_done() -> None:
    def three(steps: range) -> Iterator[int]:
        yield from steps[:3]
        raise KeyboardInterrupt

    report = descend(load(EXPRESSIONS / "ols.toml"), watched=three, steps=10)
    assert (len(report.steps), report.asked, report.interrupted, report.ok) == (3, 10, True, True)
    with pytest.raises(KeyboardInterrupt):  # nothing is done yet
        descend(load(EXPRESSIONS / "ols.toml"), watched=lambda steps: three(steps[:0]), steps=10)
