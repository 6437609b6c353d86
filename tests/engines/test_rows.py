"""One row makes a function of the language: the engines' tables are made of the rows, and told where one
lacks it."""

from __future__ import annotations

from importlib import import_module

import pytest

import gradproof
from gradproof.functions import SPOKEN
from gradproof.language.syntax import FUNCTIONS

LACKS = {
    "torch": "",
    "jax": "",
    "autograd": "",
    "tinygrad": "log1p expm1 atan2 erfc gamma lgamma",
}


@pytest.mark.parametrize("name", LACKS)
def test_an_engine_has_every_function_but_these(name: str) -> None:
    pytest.importorskip(name)
    table = import_module(f"gradproof.engines.{name}").FUNCTIONS
    assert [function for function in SPOKEN if function not in table] == LACKS[name].split()


def test_what_an_engine_lacks_is_told() -> None:
    pytest.importorskip("tinygrad")
    report = gradproof.check(
        gradproof.parse("loss = erfc(x)", parameters={"x": 0.5}), engine="tinygrad", dtype="float32"
    )
    assert report.verdict == "unsupported" and "tinygrad has no 'erfc'" in report.to_text()


def test_every_row_is_called_as_it_says() -> None:
    for name, row in SPOKEN.items():
        assert FUNCTIONS[name].operands == row.operands
        assert FUNCTIONS[name].options == tuple(option for option, _ in row.options)
