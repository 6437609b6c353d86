"""Causes: a closed set of records, each with its words, and as JSON has it."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

import pytest

from conftest import ROOT
from gradproof import causes, check, parse
from gradproof.telling import causes as telling
from gradproof.telling import render

KINDS = [
    kind
    for kind in vars(causes).values()
    if isinstance(kind, type) and issubclass(kind, causes.Cause) and kind is not causes.Cause
]


def test_every_cause_has_words_and_nothing_else_has() -> None:
    assert set(telling.WORDS) == set(KINDS)
    assert len({causes.named(kind) for kind in KINDS}) == len(KINDS) > 50


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_words_are_made_of_the_numbers(kind: type[causes.Cause]) -> None:
    """Every template names fields that are there, whatever stands in them."""
    samples: dict[str, Any] = {
        "str": "some text", "float": 2.0, "int": 2, "bool": True, "float | None": 0.5, "bool | None": True,
        "tuple[str, ...]": ("here", "there"), "tuple[int, ...]": (2, 3),
        "tuple[tuple[int, ...], ...]": ((2,), (3,)),
        "Cause": causes.Zero(),
    }  # fmt: skip
    made = kind(**{field.name: samples[str(field.type)] for field in fields(kind)})  # type: ignore[arg-type]
    assert telling.words(made).strip() and "{" not in telling.words(made)
    told = causes.plain(made)
    assert told["cause"] == causes.named(kind) and set(told) == {"cause", *(f.name for f in fields(kind))}  # type: ignore[arg-type]
    json.dumps(told)


def test_others_can_act_on_them() -> None:
    report = check(parse("y = abs(x)", parameters={"x": 0.0}))
    told = json.loads(render([report], "json"))["reports"][0]["findings"]
    kinks = [cause for finding in told for cause in finding["causes"] if cause["cause"] == "kink"]
    assert {"cause": "kink", "low": -1.0, "high": 1.0, "between": True} in kinks


def rows() -> str:
    """The table of the page: what JSON calls a cause, its numbers, and what it is."""
    told = [
        f"| `{causes.named(kind)}` | {', '.join(f.name for f in fields(kind))} "  # type: ignore[arg-type]
        f"| {' '.join((kind.__doc__ or '').split())} |"
        for kind in KINDS
    ]
    return "\n".join(["| cause | its numbers | what it is |", "|---|---|---|", *told]) + "\n"


def test_the_page_has_every_cause_as_the_code_has_it() -> None:
    page = ROOT / "docs" / "verdicts.md"
    before, heading, after = page.read_text().partition("### As records\n")
    intro, _, table = after.partition("\n| cause |")
    if os.environ.get("GRADPROOF_REWRITE"):
        page.write_text(f"{before}{heading}{intro}\n{rows()}")
    assert all(
        (kind.__doc__ or "").strip() and not (kind.__doc__ or "").startswith(f"{kind.__name__}(")
        for kind in KINDS
    )
    assert "| cause |" + table == rows()
