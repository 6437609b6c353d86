"""All of the numbers: every entry of every gradient, from a report, in JSON, and of the calculus alone."""

from __future__ import annotations

import csv
import io
import json
import pickle
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gradproof
from gradproof import Verdict, check, parse
from gradproof.attempts import Way, checked
from gradproof.cli import main
from gradproof.exact import gradients
from gradproof.worker import Limits

TEXT = "y = X @ w\nloss = sum(y**2)"
POINT = {"X": [[1.0, 2.0], [3.0, 4.0]]}
WEIGHTS = {"w": [0.5, -0.25]}


def test_a_report_has_every_entry_of_every_gradient() -> None:
    report = check(parse(TEXT, given=POINT, parameters=WEIGHTS))
    matrix, w = np.array(POINT["X"]), np.array(WEIGHTS["w"])
    numbers = report.gradients["w"]
    assert numbers.exact == pytest.approx(2 * matrix.T @ matrix @ w)
    assert numbers.engine is not None and numbers.engine.shape == (2,)
    assert numbers.ulp is not None and (numbers.ulp <= 1).all()
    local = report.local["y", "w"]
    assert local.exact.shape == (2, 2) and np.array_equal(local.exact, matrix) and not local.probed
    assert set(report.local) == {("y", "w"), ("loss", "y")}
    assert set(report.gradients) == {"y", "w"}


def test_what_is_too_large_for_a_jacobian_is_probed_and_says_so() -> None:
    problem = parse("y = tanh(w)\nloss = sum(y)", parameters={"w": np.linspace(-1, 1, 100).tolist()})
    local = check(problem).local["y", "w"]
    assert local.probed and local.exact.shape == (100,)


def test_a_wrong_entry_stands_out() -> None:
    class Off:
        name = "off"

        def run(self, task: object, dtype: object) -> object:
            from gradproof.engines import engine_named

            trace = engine_named("torch").run(task, dtype)  # type: ignore[arg-type]
            trace.gradients["w"][1] += 0.5  # type: ignore[index]
            return trace

    report = check(parse(TEXT, given=POINT, parameters=WEIGHTS), engine=Off())  # type: ignore[arg-type]
    assert report.verdict is Verdict.WRONG
    ulp = report.gradients["w"].ulp
    assert ulp is not None and ulp[0] <= 1 and ulp[1] > 1e12


def test_at_a_kink_there_is_no_exact_number() -> None:
    numbers = check(parse("loss = sum(abs(w))", parameters={"w": [0.0, 2.0]})).gradients["w"]
    assert np.isnan(numbers.exact[0]) and numbers.exact[1] == 1


def test_they_come_back_from_a_worker(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('title = "t"\ngraph = "loss = w ** 2"\n[parameters]\nw = 3.0\n')
    from functools import partial

    from gradproof import load

    work = [("a", partial(load, tmp_path / "a.toml"))]
    ((_, (report,)),) = checked(
        work, ["torch"], None, Way(Limits(), asked=True), lambda n, reports: None
    ).done
    assert report.gradients["w"].exact == 6


def test_json_has_them_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "check",
        "-e",
        "y = w * v; loss = sum(y)",
        "--parameter",
        "w=[1, 2]",
        "--parameter",
        "v=[3.0, 4.0]",
    ]
    assert main([*arguments, "--format", "json"]) == 0
    assert "gradients" not in json.loads(capsys.readouterr().out)["reports"][0]
    assert main([*arguments, "--format", "json", "--full"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["gradients"]["w"] == {
        "exact": [3.0, 4.0],
        "engine": [3.0, 4.0],
        "ulp": [0.0, 0.0],
        "probed": False,
        "decimals": ["3", "4"],
    }
    assert {"node": "y", "wrt": "v", "exact": [[1.0, 0.0], [0.0, 2.0]]}.items() <= report["local"][1].items()
    assert main([*arguments, "--full"]) == 2
    assert "--format json" in capsys.readouterr().err


def test_csv_has_a_row_a_finding_or_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "-e", "y = w / 3; loss = sum(y)", "--parameter", "w=[1, 2]", "--format", "csv"]
    assert main(arguments) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["kind"], row["node"]) for row in rows][-1] == ("gradient", "w")
    assert all(row["verdict"] in ("exact", "rounding") for row in rows)
    assert main([*arguments, "--full"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    of_w = [row for row in rows if row["node"] == "w"]
    assert [row["index"] for row in of_w] == ["0", "1"]
    assert all(row["decimals"] == "0." + "3" * 30 and row["exact"] == repr(1 / 3) for row in of_w)
    local = [row for row in rows if (row["node"], row["wrt"]) == ("y", "w")]
    assert [(row["index"], float(row["exact"]) != 0) for row in local] == [
        ("0 0", True), ("0 1", False), ("1 0", False), ("1 1", True)
    ]  # fmt: skip


def test_decimals_are_at_the_numbers_that_the_dtype_holds(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "-e", "loss = x * x", "--parameter", "x=0.1", "--format", "json", "--full"]
    assert main([*arguments, "--dtype", "float32"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    told, right = Decimal(report["gradients"]["x"]["decimals"]), 2 * Decimal(float(np.float32(0.1)))
    assert abs(told - right) < Decimal("1e-17") < abs(told - Decimal("0.2"))


# The calculus alone


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4), st.integers(1, 6))
def test_every_digit_is_proved(entries: list[float], power: int) -> None:
    found = gradients(parse(f"loss = sum(w**{power}) / 7", parameters={"w": entries}))["w"]
    for entry, value, text in zip(entries, found.values, found.decimals, strict=True):
        right = Fraction(power) * Fraction(entry) ** (power - 1) / 7
        assert value == pytest.approx(float(right), rel=1e-15, abs=5e-324)
        told = Fraction(Decimal(text))
        digits = len(Decimal(text).as_tuple().digits)
        assert abs(told - right) <= abs(right) * Fraction(10) ** (1 - digits) or right == 0 == told


FORMS = ["text", "json", "csv"]


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_and_nothing_else(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "gradient",
                "-e",
                "loss = exp(w) * v",
                "--parameter",
                "w=1",
                "--parameter",
                "v=2",
                "--format",
                form,
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    if form == "text":
        assert out == "w = 5.43656365691809047072057494271\nv = 2.71828182845904523536028747135\n"
    elif form == "json":
        told = json.loads(out)["gradients"]["v"]
        assert told == {"shape": [], "values": np.e, "exact": "2.71828182845904523536028747135"}
    else:
        rows = list(csv.DictReader(out.splitlines()))
        assert [(row["parameter"], float(row["value"])) for row in rows] == [("w", 2 * np.e), ("v", np.e)]


def test_nothing_of_a_large_one_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "large.toml"
    file.write_text(
        'title = "t"\ngraph = "loss = sum(w**2)"\n[parameters]\nw = { interval = [1.0, 2.0], points = 2000 '
        "}\n"
    )
    assert main(["gradient", str(file)]) == 0
    assert capsys.readouterr().out.count(",") == 1999
    assert main(["gradient", str(file), "--output", str(tmp_path / "g.npz")]) == 0
    with np.load(tmp_path / "g.npz") as arrays:
        assert np.array_equal(arrays["w"], 2 * np.linspace(1, 2, 2000))


@pytest.mark.parametrize(
    ("graph", "value", "told"),
    [
        ("abs(w)", "0", "no derivative, one-sided -1 to 1"),
        ("relu(w)", "0", "no derivative, one-sided 0 to 1"),
        ("sqrt(w)", "0", "there is none"),
        ("log(w)", "-1", "there is none"),
    ],
)
def test_where_there_is_none(graph: str, value: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradient", "-e", f"loss = {graph}", "--parameter", f"w={value}"]) == 3
    assert capsys.readouterr().out == f"w = {told}\n"


def test_npz_is_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gradient", "--example", "ols", "--format", "npz"]) == 2
    assert "--output" in capsys.readouterr().err


# Meanings


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_is_explained(verdict: Verdict, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", verdict.value]) == 0
    assert capsys.readouterr().out.startswith(f"{verdict.value}: ")


def test_a_verdict_that_nobody_knows_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "wrogn"]) == 2
    assert "did you mean 'wrong'?" in capsys.readouterr().err
    assert main(["help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(Verdict)


def test_a_function_tells_every_number_too() -> None:
    x = torch.tensor([0.5, -1.5, 2.0], dtype=torch.float32, requires_grad=True)
    report = gradproof.check_function(lambda x: (torch.tanh(x) * x).sum(), x)
    sharp = x.detach().double().requires_grad_()
    (torch.tanh(sharp) * sharp).sum().backward()
    told = report.gradients["x"]
    assert np.allclose(
        told.exact, sharp.grad.numpy(), rtol=1e-15
    )  # from the leaves, not the sum of rounded parts
    assert told.engine is not None and told.ulp is not None and told.ulp.max() < 8
    local = report.local["TanhBackward0", "x"]
    at = x.detach().numpy()
    assert local.probed and np.allclose(local.exact, at * (1 - np.tanh(at) ** 2), rtol=1e-6)
    assert "gradient of x, from the leaves = [" in report.to_text()
    again = pickle.loads(pickle.dumps(report))
    assert dict(again.gradients).keys() == {"x"}


def test_a_large_function_keeps_none_of_its_run() -> None:
    report = gradproof.check_function(lambda x: (x * x).sum(), torch.ones(3000, requires_grad=True))
    assert report.ok and not report.gradients and not report.local
