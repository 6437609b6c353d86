"""Optimizers as tables: each one's documented update, line by line, in the language of expression files.

`p` is the parameter, `g` its gradient, `lr` the learning rate, `step` counts from 1; the other names are the
optimizer's own hyper-parameters and state, by torch's names (`betas` are `beta1` and `beta2`). A line may
bind a name anew, as in the documents: `g = g + weight_decay*p`. The lines are evaluated twice, exactly and
with the roundings of a dtype; no optimizer has code of its own here.

The formulas are those of https://docs.pytorch.org/docs/stable/optim.html, on each optimizer's page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..errors import InputError, Place, did_you_mean
from ..language.syntax import Statement, parse_statements

Option = float | bool | tuple[float, ...]


@dataclass(frozen=True)
class Line:
    """One line of an update, in force where every option of `when` is set (not 0) and none of `unless` is.

    `also` are other ways to write the same line that implementations use: the real numbers are the same, the
    roundings are not, and what rounding explains is what it does to any of them.
    """

    text: str
    when: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def writings(self) -> tuple[str, ...]:
        """The line and its other ways to be written."""
        return (self.text, *self.also)


@cache
def parsed(text: str) -> Statement:
    """A line of an update, as a statement of the language."""
    return parse_statements(text, Place("<update rule>", 1, 1))[0]


@dataclass(frozen=True)
class Mistake:
    """A known wrong update: the rule with other options, with lines exchanged (by their texts), or another
    rule's lines.

    It is looked for only where the options of `when` are set: without weight decay, nothing is decoupled.
    """

    words: str
    options: Mapping[str, Option] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    rule: str = ""
    when: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """An optimizer's documented update.

    `options` are the hyper-parameters beside `lr` with torch's defaults; `state` maps each name of the state
    to what it is before the first step: a number, or the option that says it.
    """

    name: str
    torch: str
    lr: float
    options: Mapping[str, Option]
    state: Mapping[str, float | str]
    lines: tuple[Line, ...]
    mistakes: tuple[Mistake, ...] = ()

    def in_force(self, options: Mapping[str, Option]) -> tuple[Line, ...]:
        """The lines that these options leave."""
        return tuple(
            line
            for line in self.lines
            if all(options.get(name) for name in line.when)
            and not any(options.get(name) for name in line.unless)
        )

    def with_defaults(self, options: Mapping[str, Any]) -> dict[str, Option]:
        """All options, torch's defaults where none is given.

        Raises `InputError` for an option that the optimizer does not have and for a value that is none.
        """
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none but the learning rate"
                raise InputError(
                    f"{self.name} has no option "
                    f"{name!r}{did_you_mean(name, self.options) or f'; it has {known}'}"
                )
            _check_option(self, name, value)
        return {**self.options, **options}


def _check_option(rule: Rule, name: str, value: Any) -> None:
    default = rule.options[name]
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"option {name!r} is {value!r}, expected true or false")
    elif isinstance(default, tuple):
        fits = isinstance(value, tuple | list) and len(value) == len(default)
        if not (fits and all(_is_number(part) and 0 <= part < 1 for part in value)):
            raise InputError(
                f"option {name!r} is {value!r}, expected {len(default)} numbers from 0 to below 1"
            )
    elif not _is_number(value) or value < 0:
        raise InputError(f"option {name!r} is {value!r}, expected a number from 0")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def numbers_of(options: Mapping[str, Option]) -> dict[str, float]:
    """The options as the lines name them: `betas` are `beta1` and `beta2`; what only switches lines has no
    number."""
    found: dict[str, float] = {}
    for name, value in options.items():
        if isinstance(value, tuple | list):
            found |= {f"{name.removesuffix('s')}{n}": float(part) for n, part in enumerate(value, 1)}
        elif not isinstance(value, bool):
            found[name] = float(value)
    return found


UPHILL = Mistake("it goes up the gradient: the sign is wrong", {"maximize": True})
NO_DECAY = Mistake("weight decay is missing", {"weight_decay": 0.0}, when=("weight_decay",))

_NEGATED = Line("g = -g", when=("maximize",))
_COUPLED = Line("g = g + weight_decay*p", when=("weight_decay",))

# The numbers of the bias corrections: Python's floats, in any dtype.
_AVERAGES = (
    Line("a1 = 1 - beta1"),
    Line("a2 = 1 - beta2"),
    Line("c1 = 1 - beta1**step"),
    Line("c2 = 1 - beta2**step"),
)
_ADAM = (
    Line(
        "exp_avg = beta1*exp_avg + a1*g",
        also=("exp_avg = exp_avg + a1*(g - exp_avg)", "exp_avg = g - (g - exp_avg)*beta1"),
    ),
    Line("exp_avg_sq = beta2*exp_avg_sq + a2*g**2", also=("exp_avg_sq = beta2*exp_avg_sq + (a2*g)*g",)),
    Line("max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)", when=("amsgrad",)),
    Line("r2 = sqrt(c2)"),
    Line("size = lr/c1"),
    Line(
        "p = p - lr*(exp_avg/c1)/(sqrt(exp_avg_sq/c2) + eps)",
        unless=("amsgrad",),
        also=(
            "p = p - (size*exp_avg)/(sqrt(exp_avg_sq)/r2 + eps)",
            "p = p - size*(exp_avg/(sqrt(exp_avg_sq)/r2 + eps))",
        ),
    ),
    Line(
        "p = p - lr*(exp_avg/c1)/(sqrt(max_exp_avg_sq/c2) + eps)",
        when=("amsgrad",),
        also=(
            "p = p - (size*exp_avg)/(sqrt(max_exp_avg_sq)/r2 + eps)",
            "p = p - size*(exp_avg/(sqrt(max_exp_avg_sq)/r2 + eps))",
        ),
    ),
)
_ADAM_MISTAKES = (
    UPHILL,
    NO_DECAY,
    Mistake("bias correction is missing", lines={"c1 = 1 - beta1**step": "c1 = 1",
        "c2 = 1 - beta2**step": "c2 = 1"}),
    Mistake("bias correction of the first moment is missing", lines={"c1 = 1 - beta1**step": "c1 = 1"}),
    Mistake("bias correction of the second moment is missing", lines={"c2 = 1 - beta2**step": "c2 = 1"}),
    Mistake("the step counter of the bias correction is one behind: it begins at 0",
            lines={"c1 = 1 - beta1**step": "c1 = 1 - beta1**(step - 1)",
                "c2 = 1 - beta2**step": "c2 = 1 - beta2**(step - 1)"}),
    Mistake("the step counter of the bias correction is one ahead",
            lines={"c1 = 1 - beta1**step": "c1 = 1 - beta1**(step + 1)",
                "c2 = 1 - beta2**step": "c2 = 1 - beta2**(step + 1)"}),
    Mistake("eps is inside of the square root", lines={
        "p = p - lr*(exp_avg/c1)/(sqrt(exp_avg_sq/c2) + eps)": "p = p - lr*(exp_avg/c1)/sqrt(exp_avg_sq/c2 + "
                                                               "eps)"}),
    Mistake("eps is inside of the bias correction", lines={
        "p = p - lr*(exp_avg/c1)/(sqrt(exp_avg_sq/c2) + eps)": "p = p - lr*(exp_avg/c1)/((sqrt(exp_avg_sq) + "
                                                               "eps)/r2)"}),
    Mistake("beta1 and beta2 are exchanged", lines={
        "exp_avg = beta1*exp_avg + a1*g": "exp_avg = beta2*exp_avg + a2*g",
        "exp_avg_sq = beta2*exp_avg_sq + a2*g**2": "exp_avg_sq = beta1*exp_avg_sq + a1*g**2",
        "c1 = 1 - beta1**step": "c1 = 1 - beta2**step", "c2 = 1 - beta2**step": "c2 = 1 - beta1**step"}),
)  # fmt: skip

SGD = Rule(
    "sgd", "SGD", 1e-3,
    {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False},
    {"momentum_buffer": 0.0},
    (
        _NEGATED,
        _COUPLED,
        Line("k = 1 - dampening", when=("momentum",)),
        Line("momentum_buffer = where(step > 1, momentum*momentum_buffer + k*g, g)", when=("momentum",)),
        Line("g = g + momentum*momentum_buffer", when=("momentum", "nesterov")),
        Line("g = momentum_buffer", when=("momentum",), unless=("nesterov",)),
        Line("p = p - lr*g"),
    ),
    (
        UPHILL,
        NO_DECAY,
        Mistake("Nesterov's step is missing: it is plain momentum", {"nesterov": False}, when=("nesterov",)),
        Mistake("it is Nesterov's step, which was not asked for", {"nesterov": True}, when=("momentum",)),
        Mistake("momentum is missing", {"momentum": 0.0}, when=("momentum",)),
        Mistake("weight decay is decoupled from the gradient; SGD adds it to the gradient",
                lines={"g = g + weight_decay*p": "e = 1 - lr*weight_decay", "p = p - lr*g": "p = e*p - lr*g"},
                when=("weight_decay",)),
        Mistake("the gradient of the first step is dampened too", lines={
            "momentum_buffer = where(step > 1, momentum*momentum_buffer + k*g, g)":
            "momentum_buffer = momentum*momentum_buffer + k*g"}, when=("momentum", "dampening")),
    ),
)  # fmt: skip

_BETAS: dict[str, Option] = {"betas": (0.9, 0.999), "eps": 1e-8}

ADAM = Rule(
    "adam", "Adam", 1e-3,
    {**_BETAS, "weight_decay": 0.0, "amsgrad": False, "maximize": False},
    {"step": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0},
    (_NEGATED, _COUPLED, *_AVERAGES, *_ADAM),
    (*_ADAM_MISTAKES, Mistake("weight decay is decoupled from the gradient: AdamW", rule="adamw",
        when=("weight_decay",))),
)  # fmt: skip

ADAMW = Rule(
    "adamw", "AdamW", 1e-3,
    {**_BETAS, "weight_decay": 0.01, "amsgrad": False, "maximize": False},
    ADAM.state,
    (
        _NEGATED,
        Line("d = 1 - lr*weight_decay", when=("weight_decay",)),
        Line("p = p - lr*weight_decay*p", when=("weight_decay",), also=("p = d*p",)),
        *_AVERAGES,
        *_ADAM,
    ),
    (*_ADAM_MISTAKES, Mistake("weight decay is added to the gradient, as in Adam: it is not decoupled",
        rule="adam",
                              when=("weight_decay",))),
)  # fmt: skip

RMSPROP = Rule(
    "rmsprop", "RMSprop", 1e-2,
    {"alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False, "maximize": False},
    {"step": 0.0, "square_avg": 0.0, "grad_avg": 0.0, "momentum_buffer": 0.0},
    (
        _NEGATED,
        _COUPLED,
        Line("a = 1 - alpha"),
        Line("square_avg = alpha*square_avg + a*g**2", also=("square_avg = alpha*square_avg + (a*g)*g",)),
        Line("grad_avg = alpha*grad_avg + a*g", when=("centered",),
             also=("grad_avg = grad_avg + a*(g - grad_avg)", "grad_avg = g - (g - grad_avg)*alpha")),
        Line("root = sqrt(square_avg)", unless=("centered",)),
        Line("root = sqrt(square_avg - grad_avg**2)", when=("centered",)),
        Line("momentum_buffer = momentum*momentum_buffer + g/(root + eps)", when=("momentum",)),
        Line("p = p - lr*momentum_buffer", when=("momentum",)),
        Line("p = p - lr*(g/(root + eps))", unless=("momentum",), also=("p = p - (lr*g)/(root + eps)",)),
    ),
    (
        UPHILL,
        NO_DECAY,
        Mistake("momentum is missing", {"momentum": 0.0}, when=("momentum",)),
        Mistake("the mean of the gradients is not taken off", {"centered": False}, when=("centered",)),
        Mistake("eps is inside of the square root", lines={
            "root = sqrt(square_avg)": "root = sqrt(square_avg + eps)",
            "root = sqrt(square_avg - grad_avg**2)": "root = sqrt(square_avg - grad_avg**2 + eps)",
            "p = p - lr*(g/(root + eps))": "p = p - lr*(g/root)",
            "momentum_buffer = momentum*momentum_buffer + g/(root + eps)":
            "momentum_buffer = momentum*momentum_buffer + g/root"}),
    ),
)  # fmt: skip

ADAGRAD = Rule(
    "adagrad", "Adagrad", 1e-2,
    {"lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10, "maximize": False},
    {"step": 0.0, "sum": "initial_accumulator_value"},
    (
        _NEGATED,
        _COUPLED,
        Line("rate = lr/(1 + (step - 1)*lr_decay)"),
        Line("sum = sum + g**2"),
        Line("p = p - rate*(g/(sqrt(sum) + eps))", also=("p = p - (rate*g)/(sqrt(sum) + eps)",)),
    ),
    (
        UPHILL,
        NO_DECAY,
        Mistake("the learning rate does not decay", {"lr_decay": 0.0}, when=("lr_decay",)),
        Mistake("eps is inside of the square root", lines={
            "p = p - rate*(g/(sqrt(sum) + eps))": "p = p - rate*(g/sqrt(sum + eps))"}),
        Mistake("the squares are not summed up", lines={"sum = sum + g**2": "sum = g**2"}),
    ),
)  # fmt: skip

RULES: dict[str, Rule] = {rule.name: rule for rule in (SGD, ADAM, ADAMW, RMSPROP, ADAGRAD)}


def rule_named(name: str) -> Rule:
    """The rule of that name, in any case of letters.

    Raises `InputError` for any other name.
    """
    if name.lower() not in RULES:
        raise InputError(
            f"unknown optimizer {name!r}{did_you_mean(name.lower(), RULES)} (one of {', '.join(RULES)})"
        )
    return RULES[name.lower()]
