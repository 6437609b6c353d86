"""The expression files that come along with an installation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from conftest import ROOT
from gradproof import examples
from gradproof.cli import main


def test_an_example_is_checked_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--example", "ols"]) == 0
    assert "9 comparisons, all exact" in capsys.readouterr().out
    assert main(["explain", "--example", "ols"]) == 0


def test_they_are_listed_with_their_titles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(examples.names()) > 50
    assert any(
        line.startswith("ols ") and line.endswith("Ordinary least squares, one observation") for line in lines
    )


def test_one_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--example", "olss"]) == 2
    assert "did you mean 'ols'?" in capsys.readouterr().err
    assert main(["check", "--example", "../README"]) == 2


def test_copies_do_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples", "--copy", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine/longley.csv").is_file()
    assert main(["examples", "--copy", str(tmp_path / "mine")]) == 0
    (tmp_path / "mine/ols.toml").write_text("mine")
    assert main(["examples", "--copy", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine/ols.toml").read_text() == "mine"


def test_they_are_in_the_wheel(tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.build", reason="the wheel's builder is not installed")
    assert hatchling
    code = f"import hatchling.build, sys; print(hatchling.build.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as opened:
        inside = opened.namelist()
        (metadata,) = (opened.read(name).decode() for name in inside if name.endswith("/METADATA"))
    assert "gradproof/expressions/ols.toml" in inside and "gradproof/expressions/longley.csv" in inside
    links = re.findall(r"\]\(([^)]+)\)", metadata)
    assert links and all(
        link.startswith(("https://", "#")) for link in links
    )  # they work on a package's page
