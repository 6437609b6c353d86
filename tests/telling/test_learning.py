"""`gradproof explain` and its quiz: what a learner is told, and that a wrong answer is recognised."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest

import gradproof
from conftest import ROOT
from gradproof import explain, load, parse, quiz
from gradproof.cli import main
from gradproof.proof.slopes import bar
from gradproof.telling.explanation import explained
from gradproof.telling.mathml import texts

FILES = sorted((ROOT / "expressions").glob("*.toml"))
OLS = ROOT / "expressions/ols.toml"


# explain


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_explained_in_every_format(path: Path) -> None:
    problem = load(path)
    text, markdown, page = (explain(problem, form) for form in ("text", "markdown", "html"))
    for leaf in problem.graph.parameters:
        assert f"∂{problem.graph.output.name}/∂{leaf.name} = " in text
    assert markdown.startswith("# ")
    assert page.startswith("<!doctype html>")
    assert well_formed(page)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_parts_of_a_step_and_the_paths_of_a_parameter_add_up(path: Path) -> None:
    explanation = explained(load(path))
    for step in explanation.steps:
        if np.isfinite(step.value).all() and step.parts:
            assert np.allclose(sum(part.value for part in step.parts), step.value, rtol=1e-12, atol=1e-300), (
                step.name
            )
    for leaf in explanation.parameters:
        paths = explanation.paths(leaf.name)
        gradient = explanation.gradients[leaf.name]
        if paths and np.isfinite(gradient).all():
            total = sum(path.value for path in paths)
            assert np.allclose(
                total, gradient, rtol=1e-9, atol=1e-12 * max(np.abs(p.value).max() for p in paths)
            ), leaf.name


def test_ols_is_explained_as_the_book_does() -> None:
    text = normalize("NFC", explain(load(OLS)))
    for line in (
        "∂y_hat/∂w = x = 1 ",
        "∂l/∂y_hat = 1 ",
        "∂loss/∂l = 2*l = 2*(-1) = -2   the power rule",
        "∂loss/∂w = ∂loss/∂l · ∂l/∂y_hat · ∂y_hat/∂w = 2*l · 1 · x = (-2) · 1 · 1 = -2",
        "w̄ = x*ȳ_hat = 1*(-2) = -2",
        "∂loss/∂w = 2*x*(w*x - y) = 2*1*(1*1 - 2) = -2",
        "x, y: given. They are data",
        "every name is read once, so nothing is to be added",
    ):
        assert line in text, line


def test_what_is_shared_is_added_part_by_part() -> None:
    text = normalize("NFC", explain(load(ROOT / "expressions/used_twice.toml")))
    shared = text.split("Used more than once")[1]
    assert "2*ā*x*y = -1.5           what a passes back to x" in shared
    assert "b̄*cos(x) = 0.070737202   what b passes back to x" in shared
    assert "x̄ = -1.4292628" in shared


def test_two_reads_of_a_name_in_one_line_are_two_parts() -> None:
    explanation = explained(parse("loss = sum(x[i]*x[i-1], i)", parameters={"x": [1.0, 2.0, 4.0]}))
    (step,) = explanation.steps
    assert [part.value.tolist() for part in step.parts] == [[0.0, 1.0, 2.0], [2.0, 4.0, 0.0]]
    assert step.value.tolist() == [2.0, 5.0, 2.0]
    assert explanation.values[bar("x")].tolist() == [2.0, 5.0, 2.0]


def test_many_paths_are_counted_and_not_written_out() -> None:
    lines = "\n".join(f"x{n + 1} = sin(x{n}) + x{n}**2" for n in range(40))
    text = explain(parse(f"{lines}\nloss = x40", parameters={"x0": 0.1}))
    assert "paths lead from x0" in text or "path leads from x0" in text
    assert len(text) < 20_000


def test_a_node_of_given_values_alone_is_told() -> None:
    text = explain(parse("c = sin(x)\nloss = (w - c)**2", given={"x": 1.0}, parameters={"w": 1.0}))
    assert "c: made of given values alone" in text


def test_explain_imports_no_engine() -> None:
    code = (
        "import sys, io; from gradproof.cli import main; sys.stdin = io.StringIO('x')\n"
        f"main(['explain', {str(OLS)!r}, '--format', 'html']); main(['explain', {str(OLS)!r}, '--quiz'])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_derivation_can_go_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(OLS), "--format", "html", "--output", str(tmp_path / "a/ols.html")]) == 0
    assert capsys.readouterr().out == ""
    assert "<math>" in (tmp_path / "a/ols.html").read_text()


# Nobody's text is markup


HOSTILE = (
    "</title><script>alert(1)</script> | `x` $y$ <img src=x onerror=alert(1)> ](javascript:x) &lt; {{ 7 * 7 "
    "}} " + "long" * 500
)


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def well_formed(page: str) -> bool:
    tags = Tags(page)
    return not tags.open and not {"script", "img", "link", "iframe"} & set(tags.tags)


def test_that_a_script_would_be_seen() -> None:
    assert well_formed("<p>&lt;script&gt;</p>")
    assert not well_formed("<p><script>alert(1)</script></p>")


def hostile() -> gradproof.Problem:
    """A title that is markup, and an auxiliary node named by a source text with < and | in it."""
    text = "a = 3 * sum(where((x < 1) | (x > 2), x, x**2))\nloss = sin(a) + a"
    return parse(text, parameters={"x": [0.5, 1.5]}, title=HOSTILE)


def test_a_title_cannot_script_a_page() -> None:
    page = explain(hostile(), "html")
    assert well_formed(page)
    assert "{{" in page
    assert not {name for name in Tags(page).attributes if name.startswith("on")}
    assert "http" not in page.replace("http-equiv", "")


def test_sympys_own_printer_does_not_escape_and_ours_does() -> None:
    assert texts("mi", "<script>&x;") == "<mi>&lt;script&gt;&amp;x;</mi>"
    assert texts("mtext", "a\x00\x1b") == "<mtext>a??</mtext>"


def test_a_title_is_only_text_in_markdown() -> None:
    page = explain(hostile(), "markdown")
    head = page.splitlines()[0]
    assert "<script>" not in page
    assert not re.search(r"(?<!\\)[`$*\[\]|]", head.removeprefix("# "))
    for row in page.splitlines():
        if row.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", row)) == 3, row


# The quiz


def ask(
    path: Path | str, answers: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    assert main(["explain", str(path), "--quiz"]) == 0
    return capsys.readouterr().out


def test_the_right_answers_are_right(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ask(OLS, "x\n1\n2*(y_hat - y)\n-2\n", capsys, monkeypatch)
    assert "4 of 4 right, 4 at the first try" in out
    assert "∂loss/∂l = 2*l = -2" in out


def test_the_gradients_are_hidden_until_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ask(OLS, "", capsys, monkeypatch)
    assert "loss = l**2 = (-1)**2 = 1" in out
    assert "2*l =" not in out
    assert out.endswith("0 of 0 right, 0 at the first try; 4 not asked\n")


def test_after_two_wrong_answers_the_right_one_is_shown_with_its_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ask(OLS, "7\n-x\n\n", capsys, monkeypatch)
    assert "not right: the sign is wrong\n  the answer: ∂y_hat/∂w = x = 1\n  because: a product" in out
    assert "the answer: ∂l/∂y_hat = 1\n" in out  # an empty line gives up
    assert "0 of 2 right" in out


def test_what_cannot_be_read_is_no_try(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ask(OLS, "__import__('os')\nsine(x)\nx;x\nx\n", capsys, monkeypatch)
    assert "did you mean 'sin'?" in out
    assert out.count("that cannot be read") == 3
    assert "1 of 1 right, 1 at the first try" in out


def test_ctrl_c_ends_the_quiz_with_the_score(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["x"])

    def typed(prompt: str) -> str:
        for answer in answers:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", typed)
    assert main(["explain", str(OLS), "--quiz"]) == 0
    assert "1 of 1 right, 1 at the first try; 3 not asked" in capsys.readouterr().out


def question(graph: str, asked: str, **parameters: float) -> tuple[quiz.Quiz, quiz.Question]:
    made = quiz.made(parse(graph, parameters=parameters or {"x": 0.7, "y": 1.3}))
    return made, next(q for q in made.questions if q.asked == asked)


INNER = "a = sin(x**2)*y\nloss = a + 0*y", "∂a/∂x"
TWICE = "a = x**2\nb = sin(x)\nloss = a + b*y", "∂loss/∂x"
CHAIN = "a = 3*x\nb = sin(a)\nloss = b**3 + y", "∂loss/∂x"

KNOWN = {
    "forgot the inner derivative": (*INNER, "cos(x**2)*y", "the inner derivative is forgotten: that of x**2 "
                                                           "by x"),
    "the sign": (*INNER, "-2*x*cos(x**2)*y", "the sign is wrong"),
    "a factor": (*INNER, "x*cos(x**2)*y", "the factor 2 is missing"),
    "another factor": (*INNER, "10*x*cos(x**2)*y", "a factor of 5"),
    "a name missing": (*INNER, "2*x*cos(x**2)", "the factor y is missing"),
    "the value": (*INNER, "sin(x^2)*y", "the value of a, not its slope"),
    "by another name": (*INNER, "sin(x**2)", "the derivative by y"),
    "upside down": (*INNER, "1/(2*x*cos(x**2)*y)", "upside down"),
    "zero": (*INNER, "0", "it is not 0"),
    "did not add the second use": (*TWICE, "2*x", "only what a passes back; the use in b is not added"),
    "did not add the first use": (*TWICE, "cos(x)*y", "only what b passes back; the use in a is not added"),
    "the second use as a number": (*TWICE, "1.4", "only what a passes back"),
    "paths multiplied": (*TWICE, "2*x*cos(x)*y", "paths are added, not multiplied"),
    "a factor of the chain": (*CHAIN, "3*b**2*cos(a)", "one factor is missing: ∂a/∂x"),
    "only one factor": (*CHAIN, "cos(a)", "the local gradient ∂b/∂a alone"),
    "added along a path": (*CHAIN, "3*b**2 + cos(a) + 3", "multiplied, not added"),
    "the exponent": ("loss = x**3*y", "∂loss/∂x", "x**2*y", "the exponent 3 comes down as a factor"),
    "the exponent stays": ("loss = x**3*y", "∂loss/∂x", "3*x**3*y", "then falls by one"),
    "the integral": ("loss = x**3*y", "∂loss/∂x", "x**4*y/4", "the integral"),
    "factor by factor": ("loss = x*exp(x)*y", "∂loss/∂x", "exp(x)*y", "not differentiated factor by factor"),
    "a constant kept": ("loss = x**2 + y", "∂loss/∂x", "2*x + y", "y does not depend on x: its slope is 0"),
    "close": (*INNER, "1.6", "give more digits"),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_a_known_mistake_is_recognised(case: str) -> None:
    graph, asked, answer, words = KNOWN[case]
    made, about = question(graph, asked)
    judged = made.judge(about, answer)
    assert not judged.right
    assert words in judged.words


RIGHT = {
    "as it is": (*INNER, "2*x*cos(x**2)*y"),
    "another form": (*INNER, "y*2*x*sqrt(1 - sin(x^2)^2)"),
    "with the left side": (*INNER, "∂a/∂x = 2·x·cos(x**2)·y"),
    "through other names": (*CHAIN, "9*b**2*cos(3*x)"),
    "rounded": (*TWICE, "2.394"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_answer_is_right_in_any_form(case: str) -> None:
    graph, asked, answer = RIGHT[case]
    made, about = question(graph, asked)
    assert made.judge(about, answer).right


def test_right_by_chance_is_not_right() -> None:
    made, about = question("a = w*x\nloss = a**2", "∂loss/∂w", w=3.0, x=1.0)
    judged = made.judge(about, "2*a")
    assert not judged.right
    assert judged.words == "right at this point by chance, but not at others; one factor is missing: ∂a/∂w"


def test_entries_of_tensors_are_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "expressions/ols_vectors.toml"
    out = ask(
        path, "x[0]\n1\n1\nresidual[0]/2\nsum(residual*x)/2\nresidual[0]/2\n-6.5\n", capsys, monkeypatch
    )
    assert "∂residual[0]/∂y_hat[0] = ?" in out
    assert "not yet: only the first entry of y_hat counts there; all entries are added" in out
    assert "6 of 6 right, 5 at the first try" in out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_makes_a_quiz_and_its_own_numbers_are_right(path: Path) -> None:
    made = quiz.made(load(path))
    for about in made.questions:
        assert made.judge(about, repr(about.value)).right, about.asked
