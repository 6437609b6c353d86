"""JUnit XML and the summary of a CI step."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ROOT
from gradproof import Report, Verdict, check, load, parse
from gradproof.causes import Raised
from gradproof.cli import main
from gradproof.output import visible
from gradproof.telling import render, summary

HOSTILE = "<script>alert(1)</script> ]]> & \" ' \x00 \x1b[31m \ud800 \ufffe | ` é 𝄞"

# The schema of Jenkins, junit-10.xsd: what an element may hold, its attributes, and which of them it must
# have.
SCHEMA = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id",
            "package", "file",
         "log", "url"},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, {"name", "value"}),
    "testcase": ({"skipped", "error", "failure", "system-out", "system-err"},
        {"name", "time", "classname", "group"}, {"name"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}  # fmt: skip


def valid(text: str) -> ET.Element:
    """The XML's root, after it was held against the schema and its own counts."""
    root = ET.fromstring(text)
    for element in root.iter():
        children, allowed, required = SCHEMA[element.tag]
        assert {child.tag for child in element} <= children, element.tag
        assert required <= set(element.attrib) <= allowed, element.tag
        if "time" in element.attrib:
            assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
        if element.tag in ("testsuite", "testsuites"):
            for key, path in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
                assert int(element.attrib[key]) == len(element.findall(f".//{path}")), key
    for suite in root:
        names = [(case.get("classname"), case.get("name")) for case in suite.iter("testcase")]
        assert len(set(names)) == len(names)
    return root


@pytest.fixture(scope="module")
def ols() -> Report:
    return check(
        parse(
            "loss = (w*x - y)**2", given={"x": 1.0, "y": 2.0}, parameters={"w": 1.0}, target="sums/ols.toml"
        )
    )


def told_as(report: Report, verdict: Verdict) -> Report:
    """The report with another verdict of its first finding."""
    first, *rest = report.findings
    return replace(report, findings=(replace(first, verdict=verdict, causes=(Raised("a note"),)), *rest))


def test_a_finding_is_a_test_case(ols: Report) -> None:
    root = valid(render([ols], "junit"))
    assert [case.get("name") for case in root.iter("testcase")] == [
        "forward: loss",
        "local: ∂loss/∂w",
        "gradient: w",
    ]
    (suite,) = root
    assert suite.get("file") == "sums/ols.toml"
    assert {case.get("classname") for case in suite.iter("testcase")} == {"sums.ols"}
    assert (root.get("failures"), root.get("errors")) == ("0", "0")


@pytest.mark.parametrize("verdict", Verdict)
def test_only_what_passes_looks_like_a_pass(ols: Report, verdict: Verdict) -> None:
    root = valid(render([told_as(ols, verdict)], "junit"))
    kinds = {
        Verdict.WRONG: "failure",
        Verdict.FAILED: "error",
        Verdict.UNDECIDED: "error",
        Verdict.UNSUPPORTED: "error",
    }
    found = [element for element in root.iter() if element.tag in ("failure", "error")]
    assert [element.tag for element in found] == ([] if verdict.passes else [kinds[verdict]])
    if not verdict.passes:
        assert found[0].get("type") == verdict.value
        assert found[0].get("message") == f"{verdict.value}: loss: a note"
        assert str(found[0].text).startswith("sums/ols.toml:1:")  # where the line stands
    else:
        assert "a note" in str(root.findtext(".//system-out"))


def test_nothing_compared_and_what_cannot_be_read_are_errors(ols: Report) -> None:
    root = valid(
        render(
            [replace(ols, findings=())], "junit", [("a/bad.toml", "a/bad.toml:3:9: unknown function 'sine'")]
        )
    )
    assert [(e.get("type"), e.get("message")) for e in root.iter("error")] == [
        ("undecided", "nothing was compared"),
        ("input", "a/bad.toml:3:9: unknown function 'sine'"),
    ]


def test_what_a_file_expects_is_no_failure_and_an_unkept_promise_is_one() -> None:
    report = check(load(ROOT / "expressions/log_of_zero.toml"))
    assert report.expected
    assert not report.verdict.passes
    root = valid(render([report], "junit"))
    assert root.get("failures") == root.get("errors") == "0"
    fine = tuple(replace(finding, verdict=Verdict.EXACT) for finding in report.findings)
    root = valid(render([replace(report, findings=fine)], "junit"))
    (case,) = [case for case in root.iter("testcase") if case.find("failure") is not None]
    assert case.get("name") == "as the file expects"
    assert "but the file expects" in str(case[0].get("message"))


def test_hostile_texts_stay_texts(ols: Report) -> None:
    first, *rest = ols.findings
    bad = replace(
        first, verdict=Verdict.WRONG, node=HOSTILE, causes=(Raised(HOSTILE),), formula=HOSTILE, place=HOSTILE
    )
    report = replace(ols, title=HOSTILE, target=HOSTILE, findings=(bad, bad, *rest), problem=None)
    text = render([report], "junit", [(HOSTILE, HOSTILE)])
    assert text.isascii()
    assert "<script>" not in text
    root = valid(text)
    kept = HOSTILE.translate(dict.fromkeys([0, 0x1B, 0xD800, 0xFFFE]))
    assert root[0].find("properties/property").get("value") == kept
    assert root[0].get("file") == root[1].get("file") == kept
    assert [case.get("name") for case in root[0].iter("testcase")][:2] == [
        f"forward: {kept}",
        f"forward: {kept} (2)",
    ]


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "all.xml"
    missing = tmp_path / "no.toml"
    code = main(
        [
            "check",
            str(ROOT / "expressions/ols.toml"),
            str(missing),
            "--format",
            "junit",
            "--output",
            str(file),
        ]
    )
    assert code == 2
    root = valid(file.read_text())
    assert (root.get("tests"), root.get("errors")) == ("10", "1")
    assert capsys.readouterr().out == ""


# The summary


def test_the_summary_counts_and_tells_what_is_not_ok(ols: Report) -> None:
    bad = replace(told_as(ols, Verdict.WRONG), title=HOSTILE)
    text = summary.render([ols, ols, bad], [("bad.toml", "bad.toml:1:1: " + "x" * 5000)])
    assert text.startswith(
        "### gradproof: 2 of 4 as they should be\n\n2 exact · 1 wrong · 1 could not be checked\n"
    )
    assert "<script>" not in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:] == [
        "wrong",
        "not checked",
    ]
    assert len(text) < 4000
    assert "|" not in summary.render([ols])


def test_the_summary_of_many_is_cut(ols: Report) -> None:
    text = summary.render([told_as(ols, Verdict.UNDECIDED)] * 1000)
    assert text.count("| undecided") == summary.ROWS
    assert text.endswith("and 950 more\n")


def test_the_command_adds_to_the_step_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    assert main(["check", "-e", "loss = w**2", "--parameter", "w=3"]) == 0
    assert file.read_text().startswith("before\n### gradproof: 1 of 1 as they should be\n")
    shown = capsys.readouterr()
    for path in (str(tmp_path), str(tmp_path / "no" / "folder.md"), "a\0b"):
        monkeypatch.setattr("os.environ", {"GITHUB_STEP_SUMMARY": path})  # a real one cannot hold a NUL
        assert main(["check", "-e", "loss = w**2", "--parameter", "w=3"]) == 0
        again = capsys.readouterr()
        assert re.sub(r"\d+ ms", "", again.out) == re.sub(r"\d+ ms", "", shown.out)
        assert again.err.startswith(f"gradproof: GITHUB_STEP_SUMMARY {visible(path)}: cannot be written: ")
