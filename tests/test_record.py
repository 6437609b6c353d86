"""`--resume`: what is unchanged is shown from the record of earlier runs, and all else is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gradproof.oracle
import gradproof.record
from gradproof.cli import main

EXPRESSIONS = Path(__file__).parents[1] / "expressions"
FILE = """\
title = "a line"
graph = "loss = sum((w*x - y)**2)"
[given]
x = { file = "data.csv", column = "x" }
y = 2.0
[parameters]
w = 1.5
"""
WRONG = 'title = "t"\ngraph = "loss = relu(x) + log1p(exp(-abs(x)))"\n[parameters]\nx = 0.0\n'
FUNCTION = """\
import torch
from factor import FACTOR
def f(): return lambda x: x * FACTOR, torch.ones(2, requires_grad=True)
def broken(): raise ValueError("no")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("x\n1.0\n2.0\n")
    (tmp_path / "line.toml").write_text(FILE)
    (tmp_path / "wrong.toml").write_text(WRONG)
    (tmp_path / "factor.py").write_text("FACTOR = 3.0\n")
    (tmp_path / "work.py").write_text(FUNCTION)
    return tmp_path


class Run:
    """A check with `--resume`: its exit code, its reports, and of how many targets it says that they are
    unchanged."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code = main(["check", *arguments, "--resume", "--format", "json"])
        out, err = capfd.readouterr()
        self.whole: dict[str, Any] = json.loads(out)
        words = err.partition(" unchanged")[0].split()
        self.unchanged = int(words[1]) if "unchanged" in err else 0


BOTH = ("line.toml", "wrong.toml")


def test_what_is_unchanged_is_shown_again_and_is_the_same(folder: Path, capfd: Any) -> None:
    first, second = Run(capfd, *BOTH), Run(capfd, *BOTH)
    assert (first.unchanged, second.unchanged) == (0, 2)
    assert first.code == second.code == 1
    assert first.whole == second.whole


def test_people_are_told_that_it_comes_from_the_record(folder: Path, capfd: Any) -> None:
    main(["check", "line.toml", "--resume"])
    before = capfd.readouterr().out
    main(["check", "line.toml", "--resume"])
    after = capfd.readouterr().out.splitlines()
    (told,) = [line for line in after if "from the record" in line]
    after.remove(told)
    assert after == before.splitlines()


def test_every_expression_file_is_told_alike_from_the_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    first = Run(capfd, str(EXPRESSIONS), "--full")
    second = Run(capfd, str(EXPRESSIONS), "--full")
    assert second.unchanged == len(first.whole["reports"]) > 50
    assert first.whole == second.whole


@pytest.mark.parametrize(
    ("changed", "text", "unchanged"),
    [
        ("line.toml", FILE.replace("1.5", "2.5"), 1),
        ("data.csv", "x\n1.0\n3.0\n", 1),
        ("data.csv", "x\n1.0\n2.0\n", 2),
        ("other.csv", "x\n", 2),
    ],
)
def test_what_has_changed_is_checked_again(
    changed: str, text: str, unchanged: int, folder: Path, capfd: Any
) -> None:
    before = Run(capfd, *BOTH)
    (folder / changed).write_text(text)
    after = Run(capfd, *BOTH)
    assert after.unchanged == unchanged
    assert (after.whole == before.whole) == (unchanged == 2)
    assert Run(capfd, *BOTH).unchanged == 2


@pytest.mark.parametrize("option", [("--dtype", "float32"), ("--engine", "torch-forward")])
def test_another_option_is_another_check(option: tuple[str, str], folder: Path, capfd: Any) -> None:
    Run(capfd, *BOTH)
    assert Run(capfd, *BOTH, *option).unchanged == 0
    assert Run(capfd, *BOTH, *option).unchanged == Run(capfd, *BOTH).unchanged == 2


def test_another_version_checks_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Run(capfd, *BOTH)
    monkeypatch.setattr(gradproof.record, "versions", lambda: {"gradproof": "another"})
    assert Run(capfd, *BOTH).unchanged == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"exact", b"wrong"),
        lambda text: b"\xff" + text,
        lambda text: b"{}",
    ],
    ids=["empty", "cut off", "another word", "no text", "another form"],
)
def test_a_damaged_record_is_written_anew(damage: Any, folder: Path, capfd: Any) -> None:
    first = Run(capfd, "line.toml")
    (entry,) = (folder / "cache" / "record").iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    second = Run(capfd, "line.toml")
    assert second.unchanged == 0
    assert [r["findings"] for r in second.whole["reports"]] == [r["findings"] for r in first.whole["reports"]]
    assert Run(capfd, "line.toml").unchanged == 1


def test_an_interrupted_run_is_gone_on_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    check = gradproof.oracle.check

    def interrupted(problem: Any, **options: Any) -> Any:
        if problem.target == "wrong.toml":
            raise KeyboardInterrupt
        return check(problem, **options)

    with monkeypatch.context() as patch:
        patch.setattr(gradproof.oracle, "check", interrupted)
        assert Run(capfd, *BOTH).code == 130
    after = Run(capfd, *BOTH)
    assert (after.unchanged, after.code) == (1, 1)
    assert [report["target"] for report in after.whole["reports"]] == [*BOTH]


def test_of_a_function_its_modules_count(folder: Path, capfd: Any) -> None:
    assert Run(capfd, "work.py:f").unchanged == 0
    assert Run(capfd, "work.py:f").unchanged == 1
    (folder / "factor.py").write_text("FACTOR = 4.0  # and longer\n")
    assert Run(capfd, "work.py:f").unchanged == 0


def test_what_failed_is_tried_again(folder: Path, capfd: Any) -> None:
    assert Run(capfd, "work.py:broken").code == 1
    assert Run(capfd, "work.py:broken").unchanged == 0


@pytest.mark.parametrize("first", ["1", "2"])
def test_jobs_share_the_record(first: str, folder: Path, capfd: Any) -> None:
    whole = Run(capfd, *BOTH, "work.py:f", "--jobs", first)
    again = Run(capfd, *BOTH, "work.py:f", "--jobs", "1" if first == "2" else "2")
    assert again.unchanged == 3 and again.whole == whole.whole


def test_a_record_that_cannot_be_written_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADPROOF_CACHE", str(folder / "line.toml"))
    assert Run(capfd, *BOTH).code == Run(capfd, *BOTH).code == 1


def test_a_report_that_is_not_asked_to_go_on_leaves_no_record(folder: Path) -> None:
    assert main(["check", "line.toml"]) == 0
    assert not (folder / "cache").exists()
