"""Every fenced command and every example of the documents runs, and prints what the page says."""

from __future__ import annotations

import doctest
import importlib
import io
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import gradproof
from conftest import ROOT
from gradproof import check, load
from gradproof.cli import main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[pytest.param]:
    found = []
    for page in PAGES:
        for n, (kind, text) in enumerate(BLOCK.findall(page.read_text())):
            if kind == language:
                found.append(pytest.param(text, id=f"{page.name}, block {n}"))
    return found


@pytest.mark.parametrize("text", blocks("console"))
def test_a_command_prints_what_the_page_shows(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command, _, shown = text.partition("\n")
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "gradproof"
    main(arguments)
    assert capsys.readouterr().out.strip() == shown.strip()


@pytest.mark.parametrize("text", blocks("quiz"))
def test_a_quiz_goes_as_the_page_shows(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command, _, shown = text.partition("\n")
    answers = re.findall(r"^  > (.*)$", shown, re.MULTILINE)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(answers)))
    main(shlex.split(command.removeprefix("$ gradproof ")))
    assert capsys.readouterr().out.strip() == shown.strip()


@pytest.mark.parametrize("text", blocks("python"))
def test_a_program_runs(text: str) -> None:
    exec(compile(text, "README", "exec"), {})  # our own page


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_file_is_one(text: str, tmp_path: Path) -> None:
    data = tomllib.loads(text)
    if "graph" not in data:
        assert set(data) == {"expect"}
        return
    path = tmp_path / "example.toml"
    path.write_text(text)
    assert check(load(path)).ok


def test_the_flagship_of_the_page_is_the_file() -> None:
    shown = next(param.values[0] for param in blocks("toml"))
    on_page, in_file = tomllib.loads(str(shown)), tomllib.loads((ROOT / "expressions/ols.toml").read_text())
    assert {key: in_file[key] for key in on_page} == on_page


def test_the_examples_in_docstrings_run() -> None:
    tried = 0
    for module in pkgutil.walk_packages(gradproof.__path__, "gradproof."):
        if module.name != "gradproof.__main__":
            outcome = doctest.testmod(importlib.import_module(module.name))
            assert outcome.failed == 0, module.name
            tried += outcome.attempted
    tried += doctest.testmod(gradproof).attempted
    assert tried >= 8


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
