"""Reports: true to the schema, not stale, and no user's text is markup in them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from conftest import ROOT
from gradproof import Report, Verdict, check, load, parse
from gradproof.causes import Raised
from gradproof.cli import main, write
from gradproof.telling import markdown, render

FILES = sorted((ROOT / "expressions").glob("*.toml"))


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return [check(load(path)) for path in FILES]


def test_there_are_enough_files_and_each_teaches_something(reports: list[Report]) -> None:
    assert len(reports) >= 24
    for report in reports:
        assert report.title
        assert report.problem.teaches.endswith("."), report.target


def test_every_expression_file_is_as_it_should_be(reports: list[Report]) -> None:
    assert {report.target: report.verdict for report in reports if not report.ok} == {}


def essence(page: str) -> list[str]:
    """What a page says apart from the last digits of an engine, which differ from machine to machine.

    Numbers in tables become #, `exact` and `rounding` one word, and table columns lose their padding.
    """
    lines = []
    for line in page.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            cells = ["#" if re.fullmatch(r"[-+.\deinfa–]+", cell) else cell for cell in cells]
            line = "|".join("-" if re.fullmatch(r":?-+:?", cell) else cell for cell in cells)
        if line.startswith(("* Sensitivity", "* gradient of", "* Not told apart", "  classDef", "  class ")):
            line = re.sub(r"\d[\d.e+-]*", "#", line).split(":")[0]
            if line.startswith(("* Not told", "  class")):
                continue
        lines.append(re.sub(r"\b(exact|rounding)\b", "pass", line))
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_committed_report_is_what_the_sources_say(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = markdown.page(check(load(path.relative_to(ROOT))))
    committed = (ROOT / "reports" / f"{path.stem}.md").read_text()
    assert essence(committed) == essence(page), "stale: run `make reports`"


def test_that_a_stale_report_is_seen() -> None:
    page = (ROOT / "reports/ols.md").read_text()
    assert essence(page.replace("w * x", "w + x")) != essence(page)
    assert essence(re.sub("exact +[|]", "wrong |", page)) != essence(page)


def test_every_committed_page_has_its_file_and_its_line_in_the_index() -> None:
    pages = {path.stem for path in (ROOT / "reports").glob("*.md")} - {
        "index",
        "torch",
    }  # the findings about torch are written by hand
    assert pages == {path.stem for path in FILES}
    index = (ROOT / "reports/index.md").read_text()
    assert all(f"({name}.md)" in index for name in pages)


def test_json_is_true_to_its_schema(reports: list[Report]) -> None:
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    whole = json.loads(render(reports, "json", [("bad.toml", "no such file")]))
    jsonschema.validate(whole, schema)
    assert whole["ok"] is False
    assert sum(whole["counts"].values()) == len(reports)


def test_the_ols_file_gives_exactly_what_the_book_says() -> None:
    report = check(load(ROOT / "expressions/ols.toml"))
    told = {(f.kind, f.node, f.wrt): (f.formula, f.exact, f.value, f.verdict.value) for f in report.findings}
    assert told == {
        ("forward", "y_hat", None): ("w * x", 1.0, 1.0, "exact"),
        ("forward", "l", None): ("y_hat - y", -1.0, -1.0, "exact"),
        ("forward", "loss", None): ("l ** 2", 1.0, 1.0, "exact"),
        ("local", "y_hat", "w"): ("x", 1.0, 1.0, "exact"),
        ("local", "l", "y_hat"): ("1", 1.0, 1.0, "exact"),
        ("local", "loss", "l"): ("2*l", -2.0, -2.0, "exact"),
        ("gradient", "l", None): ("2*l", -2.0, -2.0, "exact"),
        ("gradient", "y_hat", None): ("l̄", -2.0, -2.0, "exact"),
        ("gradient", "w", None): ("2*x*(w*x - y)", -2.0, -2.0, "exact"),
    }
    assert report.ok


HOSTILE = "<script>alert(1)</script> | `x` $y$ [a](b) **c** ](javascript:x) " + "long " * 200


def test_a_title_is_only_text() -> None:
    problem = parse("loss = w**2", parameters={"w": 1.0}, title=HOSTILE)
    page = markdown.page(check(problem))
    head = page.splitlines()[0]
    assert "<script>" not in page
    assert not re.search(r"(?<!\\)[`$*\[\]|]", head.removeprefix("# "))
    row = markdown.index([(check(problem), "page.md")]).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 5  # four cells


def test_nothing_that_a_report_quotes_is_markup() -> None:
    report = check(parse("loss = w**2", parameters={"w": 1.0}))
    text = f"{HOSTILE}\n# head\n| a | b |"
    told = replace(
        report.findings[0], node=text, causes=(Raised(text),), place=text, formula=text, verdict=Verdict.WRONG
    )
    page = markdown.page(replace(report, title=text, target=text, findings=(told, *report.findings)))
    outside = re.sub(r"`` .*? ``", "", page)
    assert "<script>" not in outside
    assert [line for line in page.splitlines() if line.startswith("#")][1:3] == ["## The graph", "## Nodes"]
    for line in outside.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (2, 3, 6, 8), line  # the cells that its table has


def test_a_source_with_a_bar_does_not_break_a_table() -> None:
    problem = parse("a = where((w > 0) | (w < -1), w, 2*w)\nloss = a**2", parameters={"w": 1.0})
    page = markdown.page(check(problem))
    rows = [line for line in page.splitlines() if line.startswith("| a ")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 8 for row in rows)


def test_a_wrong_report_says_first_what_does_not_pass() -> None:
    report = check(parse("loss = where(w > 0, sqrt(w), 0)", parameters={"w": -1.0}))
    page = markdown.page(report)
    assert page.index("what does not pass") < page.index("## The graph")
    assert "sqrt\\(w\\) has no value where its operand is -1" in page


def test_a_report_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"
    write(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(Exception, match="No space left"):
        write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.md"]


def test_report_writes_a_page_a_file_and_an_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(ROOT / "expressions/ols.toml"), "--output", str(tmp_path / "pages")]) == 0
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == ["index.md", "ols.md"]
    assert "mermaid" in (tmp_path / "pages/ols.md").read_text()
    assert capsys.readouterr().out == ""


def test_a_file_of_the_name_is_not_overwritten_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pages").write_text("mine")
    assert main(["report", str(ROOT / "expressions/ols.toml"), "--output", str(tmp_path / "pages")]) == 2
    assert (tmp_path / "pages").read_text() == "mine"
