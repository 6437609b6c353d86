"""The command line: exit codes, streams, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from gradproof import __version__
from gradproof.cli import main

OLS = str(ROOT / "expressions/ols.toml")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradproof", *arguments], capture_output=True, text=True, cwd=ROOT
    )


EXITS = {
    "all pass": (["check", OLS], 0),
    "a kink passes": (["check", "-e", "loss = relu(w)", "--parameter", "w=0"], 0),
    "something wrong": (["check", "-e", "loss = where(w > 0, sqrt(w), 0)", "--parameter", "w=-1"], 1),
    "something failed": (["check", "-e", "loss = w * 10**400 / 10**400", "--parameter", "w=1"], 2),
    "undecided": (["check", "-e", "loss = sqrt(w)", "--parameter", "w=0"], 3),
    "bad input": (["check", "-e", "loss = sqr(w)", "--parameter", "w=0"], 2),
    "explain": (["explain", OLS], 0),
    "explain of nothing": (["explain", "none.toml"], 2),
}


@pytest.mark.parametrize("case", EXITS)
def test_the_exit_code(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = EXITS[case]
    assert main(arguments) == expected
    assert "Traceback" not in capsys.readouterr().err


def test_a_promise_that_is_not_kept_is_no_pass(tmp_path: Path) -> None:
    text = 'title = "t"\ngraph = "loss = w**2"\n[parameters]\nw = 1.0\n[expect]\nverdict = "wrong"\n'
    (tmp_path / "a.toml").write_text(text)
    assert main(["check", str(tmp_path / "a.toml")]) == 1


def test_the_whole_folder_as_json() -> None:
    done = run("check", "expressions/", "--format", "json")
    assert done.returncode == 0
    whole = json.loads(done.stdout)
    assert whole["ok"] is True
    assert len(whole["reports"]) >= 24
    assert done.stderr == ""


def test_a_pipe_gets_no_colour_and_one_file_no_progress() -> None:
    done = run("check", "expressions/ols.toml")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_jobs_give_the_same_reports() -> None:
    def findings(*options: str) -> list[object]:
        files = "ols relu_at_zero saturated_sigmoid softplus_from_relu planck_energy".split()
        named = [f"expressions/{file}.toml" for file in files]
        done = run("check", *named, "--format", "json", *options)
        return [report["findings"] for report in json.loads(done.stdout)["reports"]]

    assert findings("--jobs", "2") == findings()


def test_the_version_is_told_without_torch_or_sympy() -> None:
    code = """
import sys
from gradproof.cli import main
try:
    main(["--version"])
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "sympy", "flint", "numpy"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"gradproof {__version__}"


def test_help_has_examples_and_exit_codes() -> None:
    done = run("--help")
    assert "gradproof check expressions/ols.toml" in done.stdout
    assert "exit codes" in done.stdout


def test_the_report_can_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep/report.json"
    assert main(["check", OLS, "--format", "json", "--output", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(path.read_text())["ok"] is True


def test_a_dtype_on_the_command_line_wins(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", OLS, "--dtype", "bfloat16", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["reports"][0]["dtype"] == "bfloat16"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m gradproof explain expressions/*.toml | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in done.stderr
