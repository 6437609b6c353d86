"""Second derivatives that a file asks for by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gradproof import InputError, Verdict, check, load
from gradproof.engines.torch import TorchEngine

SQUARES = """
title = "least squares"
graph = "loss = sum((X @ w - y)**2) * s"
[given]
X = [[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]
y = [1.0, 2.0, 3.0]
[parameters]
w = [0.5, -0.25]
s = 1.5
[hessian]
curvature = ["w", "w"]
mixed = ["s", "w"]
none = ["s", "s"]
"""


def written(folder: Path, text: str) -> Path:
    (path := folder / "problem.toml").write_text(text)
    return path


def test_they_are_judged_and_told_in_every_report(tmp_path: Path) -> None:
    report = check(load(written(tmp_path, SQUARES)))
    found = {f.node: f for f in report.findings if f.kind == "hessian"}
    assert report.ok and found.keys() == {"curvature", "mixed", "none"}
    assert found["curvature"].entries == 4 and found["curvature"].exact == 207.0  # 2 s Σ x²
    assert found["none"].exact == 0.0
    assert "second derivatives" in report.exercised
    told = [f for f in json.loads(report.to_json())["reports"][0]["findings"] if f["kind"] == "hessian"]
    assert len(told) == 3
    for text in (report.to_text(), report.to_markdown(), report.to_html()):
        assert "Second derivatives, by name" in text and "∂²loss/∂w∂w" in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_in_other_dtypes_and_engines(tmp_path: Path, dtype: str, engine: str) -> None:
    report = check(load(written(tmp_path, SQUARES)), engine=engine, dtype=dtype)
    assert report.ok, report.to_text()


def test_a_wrong_one_is_refuted(tmp_path: Path) -> None:
    class Off(TorchEngine):
        def second(self, *args):  # type: ignore[no-untyped-def]
            found = super().second(*args)
            return None if found is None else found * (1 + 1e-12)

    report = check(load(written(tmp_path, SQUARES)), engine=Off())
    wrong = {f.node for f in report.findings if f.verdict is Verdict.WRONG}
    assert wrong == {"curvature", "mixed"}, report.to_text()


def test_an_engine_without_them_says_so(tmp_path: Path) -> None:
    report = check(load(written(tmp_path, SQUARES)), engine="torch-forward")
    assert {f.verdict for f in report.findings if f.kind == "hessian"} == {Verdict.UNSUPPORTED}


def test_a_function_of_several_lines(tmp_path: Path) -> None:
    text = 'title = "t"\ngraph = """\nu = sin(w) * w\nloss = exp(u) + u**2\n"""\n[parameters]\nw = 0.7\n'
    report = check(load(written(tmp_path, f'{text}[hessian]\nsecond = ["w", "w"]')))
    u, du = np.sin(0.7) * 0.7, np.cos(0.7) * 0.7 + np.sin(0.7)
    ddu = 2 * np.cos(0.7) - 0.7 * np.sin(0.7)
    (found,) = [f for f in report.findings if f.kind == "hessian"]
    assert report.ok and found.exact == pytest.approx(np.exp(u) * (du**2 + ddu) + 2 * du**2 + 2 * u * ddu)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('curvature = ["w"]', "expected two parameters"),
        ('curvature = ["w", "X"]', "'X' is no parameter"),
        ('curvature = ["w", "v"]', "'v' is no parameter"),
        ('loss = ["w", "w"]', "a name of the graph's"),
        ("curvature = 1", "expected two parameters"),
    ],
)
def test_bad_tables_are_refused_where_they_stand(tmp_path: Path, line: str, said: str) -> None:
    text = SQUARES[: SQUARES.index("curvature")] + line + "\n"
    with pytest.raises(InputError, match=said) as error:
        load(written(tmp_path, text))
    assert error.value.place is not None and error.value.place.line == 11
