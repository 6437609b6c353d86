"""Every fenced command and every example of the documents runs, and prints what the page says."""

from __future__ import annotations

import doctest
import importlib
import io
import os
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import gradproof
from conftest import ROOT
from gradproof import check, load
from gradproof.cli import main
from gradproof.telling.meanings import MEANINGS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REWRITE = (
    "GRADPROOF_REWRITE" in os.environ
)  # what a command printed first takes the place of what the page shows


def blocks(language: str) -> list[pytest.param]:
    return [
        pytest.param(page, text, id=f"{page.name}, block {n}")
        for page in PAGES
        for n, (kind, text) in enumerate(BLOCK.findall(page.read_text()))
        if kind == language
    ]


def shown(page: Path, text: str, prints: Callable[[], str]) -> str:
    """What the page shows below the command."""
    command, _, below = text.partition("\n")
    if REWRITE:
        below = prints()
        page.write_text(page.read_text().replace(text, f"{command}\n{below}\n"))
    return below.strip()


@pytest.mark.parametrize(("page", "text"), blocks("console"))
def test_a_command_prints_what_the_page_shows(
    page: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program, *arguments = shlex.split(text.partition("\n")[0].removeprefix("$ "))
    assert program == "gradproof"

    def prints() -> str:
        main(arguments)
        return capsys.readouterr().out.strip()

    assert shown(page, text, prints) == prints()


@pytest.mark.parametrize(("page", "text"), blocks("quiz"))
def test_a_quiz_goes_as_the_page_shows(
    page: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = text.partition("\n")[0]
    answers = re.findall(r"^  > (.*)$", text, re.MULTILINE)

    def prints() -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(answers)))
        main(shlex.split(command.removeprefix("$ gradproof ")))
        return capsys.readouterr().out.strip()

    assert shown(page, text, prints) == prints()


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_a_program_runs(page: Path, text: str) -> None:
    exec(compile(text, page.name, "exec"), {})  # our own page


@pytest.mark.parametrize(
    "page", {param.values[0]: None for param in blocks("pycon")}, ids=lambda page: page.name
)
def test_a_page_told_step_by_step_is_one_program(page: Path) -> None:
    told = "\n".join(text for kind, text in BLOCK.findall(page.read_text()) if kind == "pycon")
    outcome = doctest.DocTestRunner().run(
        doctest.DocTestParser().get_doctest(told, {}, page.name, str(page), 0)
    )
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_a_file_is_one(page: Path, text: str, tmp_path: Path) -> None:
    data = tomllib.loads(text)
    if "graph" not in data:
        assert set(data) == {"expect"}
        return
    path = tmp_path / "example.toml"
    path.write_text(text)
    assert check(load(path)).ok


def test_the_flagship_of_the_page_is_the_file() -> None:
    text = next(str(param.values[1]) for param in blocks("toml") if param.values[0] == ROOT / "README.md")
    on_page, in_file = tomllib.loads(text), tomllib.loads((ROOT / "expressions/ols.toml").read_text())
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


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)


def anchors(page: Path) -> list[str]:
    """What a link to a heading ends with, as GitHub makes it."""
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)]


def test_links_of_the_pages_lead_somewhere() -> None:
    followed = 0
    for page in PAGES:
        for link in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page.read_text())):
            target, _, anchor = link.partition("#")
            if "://" in target:
                continue
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(there), f"{page.name}: {link}"
            followed += bool(anchor)
    assert followed > 5


def test_headings_of_a_page_are_told_apart() -> None:
    for page in PAGES:
        assert len(set(anchors(page))) == len(anchors(page)), page.name


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 250
    index = text.rpartition("\n## ")[2]
    assert set(re.findall(r"\((docs/\w[\w-]*\.md)\)", index)) == {f"docs/{page.name}" for page in PAGES[2:]}


def test_a_verdict_means_on_its_page_what_the_command_says() -> None:
    page = (ROOT / "docs/verdicts.md").read_text()
    for verdict, meaning in MEANINGS.items():
        section = page.partition(f"\n## {verdict}\n")[2].strip().partition("\n\n")[0]
        assert section.split() == meaning.split(), verdict
