"""Reports: true to the schema, not stale, and no user's text is markup in them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from conftest import ROOT
from gradproof import Report, Verdict, check, check_function, explain, load, parse
from gradproof.causes import Raised
from gradproof.cli import main, write
from gradproof.telling import markdown, render
from gradproof.telling.words import headline, ranked

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
        if line.startswith("* Sensitivity"):
            line = "* Sensitivity"
        if line.startswith(("* Not told", "  class")):
            continue
        line = re.sub(r"\d+ comparisons?, .*\*\* ", "# ** ", line)
        line = re.sub(r"(\\\[[\d,]+\\\])|; furthest off.*?ulp", "", line)
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            cells = ["#" if re.fullmatch(r"[-+.\deinfa–]+", cell) else cell for cell in cells]
            line = "|".join("-" if re.fullmatch(r":?-+:?", cell) else cell for cell in cells)
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
    assert essence(page.replace("`w x`", "`w + x`")) != essence(page)
    assert essence(re.sub("exact +[|]", "wrong |", page)) != essence(page)


def test_every_committed_page_has_its_file_and_its_line_in_the_index() -> None:
    pages = {path.stem for path in (ROOT / "reports").glob("*.md")} - {
        "index",
        "torch",
        "wild",
    }  # the findings about torch and about packages are written by hand
    assert pages == {path.stem for path in FILES}
    index = (ROOT / "reports/index.md").read_text()
    assert all(f"({name}.md)" in index for name in pages)


def test_json_is_true_to_its_schema(reports: list[Report]) -> None:
    schema = json.loads((ROOT / "docs/report.schema.json").read_text())
    whole = json.loads(render(reports, "json", [("bad.toml", "no such file")]))
    jsonschema.validate(whole, schema)
    assert whole["schema"] == 2
    jsonschema.validate(json.loads(render(reports, "json", full=True)), schema)
    told = whole["reports"][0]["findings"][0]
    jsonschema.validate(
        {
            **whole,
            "reports": [{**whole["reports"][0], "findings": [{**told, "causes": [{"cause": "zero"}]}]}],
        },
        schema,
    )
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
    assert [line for line in page.splitlines() if line.startswith("#")][2:4] == [
        "## What does not pass",
        "## The graph",
    ]
    for line in outside.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4, 6, 7, 8), (
                line
            )  # the cells that its table has


def test_a_source_with_a_bar_does_not_break_a_table() -> None:
    problem = parse("a = where((w > 0) | (w < -1), w, 2*w)\nloss = a**2", parameters={"w": 1.0})
    page = markdown.page(check(problem))
    rows = [line for line in page.splitlines() if line.startswith("| a ")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 8 for row in rows)


def test_a_wrong_report_says_first_what_does_not_pass() -> None:
    report = check(parse("loss = where(w > 0, sqrt(w), 0)", parameters={"w": -1.0}))
    page = markdown.page(report)
    assert (
        page.index("The gradient of loss") < page.index("## What does not pass") < page.index("## The graph")
    )
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


# The answer first


def lines_of(text: str, title: str) -> list[str]:
    """The lines below a title, to the next blank one."""
    return text.split(f"{title}\n", 1)[1].split("\n\n", 1)[0].splitlines()


def test_the_answer_comes_first_and_whole() -> None:
    report = check(parse("y = X @ w\nloss = sum(y**2) + b", given={"X": [[1.0, 2.0], [3.0, 4.0]]},
                         parameters={"w": [0.5, -0.25], "b": 1.0}))  # fmt: skip
    text = report.to_text()
    rows = [line.split() for line in lines_of(text, "The gradient of loss")[2:]]
    assert [row[:4] for row in rows] == [
        ["w[0]", "0.5", "3", "3"], ["w[1]", "-0.25", "4", "4"], ["b", "1", "1", "1"],
    ]  # fmt: skip
    for page in (text, report.to_markdown(), report.to_html()):
        assert page.index("The gradient of loss") < page.index("Forward: each line")
    assert "∂y/∂w = [[1, 2], [3, 4]]" in text


def test_of_a_large_parameter_the_answer_tells_the_worst_entry() -> None:
    report = check(parse("loss = sum(sin(w))", parameters={"w": [0.1 * n for n in range(100)]}))
    (row,) = lines_of(report.to_text(), "The gradient of loss")[2:]
    ulp = report.gradients["w"].ulp
    assert ulp is not None and f"w[{int(ulp.argmax())}] " in row and "shape 100" in row
    assert "furthest off at" in report.to_markdown()
    page = report.to_html()
    assert page.count('class="heat"') == 4 and page.count('class="worst"') == 4  # of w and of ∂loss/∂w
    assert "distance in ulp; the worst" in page


def test_a_probed_jacobian_says_so_beside_the_number() -> None:
    report = check(parse("y = tanh(w)\nloss = sum(y)", parameters={"w": [0.01 * n for n in range(100)]}))
    row = next(line for line in report.to_text().splitlines() if line.startswith("  ∂y/∂w"))
    assert re.search(r"\d probed +-?[\d.]+", row)
    assert "one random cotangent" in report.to_text() and "probed" in report.to_html()


def test_a_function_falls_back_on_what_was_found() -> None:
    import torch

    report = check_function(torch.nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True))
    rows = lines_of(report.to_text(), "Gradients: the sum of what the uses passed on")[2:]
    assert [re.split(r"\[| ", row.strip())[0] for row in rows] == ["input", "weight", "bias"]


@pytest.mark.parametrize(
    ("passing", "told"),
    [
        (["exact"], "1 comparison, exact"),
        (["exact"] * 9, "9 comparisons, all exact"),
        (["exact", "rounding", "rounding", "kink"], "4 comparisons, 1 exact, 2 within rounding, 1 at a kink"),
    ],
)
def test_what_passes_is_verified_and_counted(passing: list[str], told: str) -> None:
    report = check(parse("loss = w**2", parameters={"w": 1.0}))
    findings = tuple(replace(report.findings[0], verdict=Verdict(word)) for word in passing)
    assert headline(replace(report, findings=findings)) == f"verified: {told}"


RANKS = {
    "a factor": (2.0, 4.0, 1e15, 1.0, "float64", ("another formula", 0)),
    "a sign": (2.0, -2.0, 1e16, 1.0, "float64", ("another formula", 0)),
    "a part in a million": (1.0, 1.000001, 4.5e9, 1.0, "float64", ("inaccurate", 6)),
    "a percent too much": (1.0, 1.02, 1e5, 1.0, "float32", ("another formula", 0)),
    "a few roundings of bfloat16": (1.0, 1.03125, 4.0, 1.0, "bfloat16", ("inaccurate", 1)),
    "beside a zero, less than what cancels": (0.0, 1e-12, 1e5, 10.0, "float64", ("inaccurate", 0)),
    "beside a zero that nothing cancels to": (0.0, 1.0, 1e300, 0.0, "float64", ("another formula", 0)),
    "no number": (1.0, float("nan"), None, 1.0, "float64", None),
    "no gradient": (1.0, None, None, 1.0, "float64", None),
}


@pytest.mark.parametrize("case", RANKS)
def test_a_wrong_number_is_ranked(case: str) -> None:
    exact, value, ulp, allowed, dtype, rank = RANKS[case]
    report = check(parse("loss = w**2", parameters={"w": 1.0}), dtype=dtype)
    wrong = replace(
        report.findings[-1], exact=exact, value=value, ulp=ulp, allowed_ulp=allowed, verdict=Verdict.WRONG
    )
    assert ranked(wrong, dtype) == rank
    assert ranked(replace(wrong, verdict=Verdict.ROUNDING), dtype) is None
    report = replace(report, findings=(wrong,))
    told = json.loads(report.to_json())["reports"][0]["findings"][0]
    assert (told["rank"], told["digits"]) == (rank or (None, None))
    for page in (report.to_text(), report.to_markdown(), report.to_html()):
        assert (rank[0] if rank else "inaccurate") in page if rank else "another formula" not in page


def test_own_errors_stand_in_full_before_the_inherited_ones() -> None:
    text = check(load(ROOT / "expressions/where_trap.toml")).to_text()
    assert (
        text.index("WRONG y: gradient by x")
        < text.index("inherited: chained gradient of x")
        < text.index("Forward")
    )


def test_an_explanation_does_not_cut_a_matrix_of_64_entries() -> None:
    numbers = [[float(8 * i + j) for j in range(8)] for i in range(8)]
    problem = parse("loss = sum(W**2)", parameters={"W": numbers})
    for form in ("text", "markdown", "html"):
        assert "126" in explain(problem, form), form  # the gradient by the last entry
    assert max(map(len, explain(problem).splitlines())) <= 110
    cut = explain(parse("loss = sum(w**2)", parameters={"w": [float(n) for n in range(65)]}))
    assert "…" in cut and "128" not in cut
