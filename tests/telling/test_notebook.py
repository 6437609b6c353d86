"""In a notebook: what displays itself, `%%gradproof`, and the example that is committed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from test_learning import Tags, hostile, well_formed

import gradproof
from conftest import ROOT
from gradproof import InputError, check, load, parse
from gradproof.notebook import checked

NOTEBOOK = ROOT / "docs/ols.ipynb"

CELL = "y_hat = w * x\nloss  = (y_hat - y)**2\n"


# What displays itself


def test_a_problem_a_graph_and_a_report_display_themselves() -> None:
    problem = load(ROOT / "expressions/ols.toml")
    report = check(problem)
    for shown in (problem, problem.graph, report):
        assert well_formed(shown._repr_html_())
        assert "loss" in shown._repr_html_()
    assert "verified: 9 comparisons, all exact" in report._repr_html_()
    assert '<td class="good">exact</td>' in report._repr_html_()
    assert report._repr_markdown_() == report.to_markdown()
    assert problem._repr_latex_() == problem.graph._repr_latex_()
    assert r"\mathrm{loss} &= l^{2}" in problem._repr_latex_()
    assert problem._repr_latex_() in problem._repr_markdown_()


def test_what_is_wrong_stands_first_in_a_report() -> None:
    lines = "\n".join(f"a{n + 1} = a{n}*1.5" for n in range(30))
    report = check(parse(f"{lines}\nloss = where(a30 > 0, sqrt(a30), 0)", parameters={"a0": -1.0}))
    page = report._repr_html_()
    assert page.count("<tr>") < 4 * 26
    assert '<td class="bad">wrong</td>' in page


@pytest.mark.parametrize("path", sorted((ROOT / "expressions").glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_displays_itself(path: Any) -> None:
    problem = load(path)
    assert well_formed(problem._repr_html_())
    assert problem._repr_latex_().startswith("$$\n\\begin{aligned}")


def test_a_title_cannot_script_a_notebook() -> None:
    problem = hostile()
    for page in (problem._repr_html_(), problem.graph._repr_html_(), check(problem)._repr_html_()):
        assert well_formed(page)
        assert not {name for name in Tags(page).attributes if name.startswith("on")}
        assert len(max(page.splitlines(), key=len)) < 3000
    assert "<script>" not in problem._repr_markdown_()


def test_a_recorded_function_displays_itself() -> None:
    report = gradproof.check_function(torch.tanh, torch.tensor([0.5], requires_grad=True))
    assert well_formed(report._repr_html_())


# The magic


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)  # of another environment than this one it would warn
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "gradproof")
    yield shell
    InteractiveShell.clear_instance()


def test_the_magic_takes_its_names_from_the_notebook(shell: InteractiveShell) -> None:
    shell.user_ns.update(x=1.0, y=2, w=1.0)
    report = shell.run_cell_magic("gradproof", "--parameter w --dtype float32", CELL)
    assert report.ok
    assert report.dtype == "float32"
    assert [leaf.name for leaf in report.problem.graph.parameters] == ["w"]


VALUES = {
    "floats": {"x": 1.0, "y": 2.0, "w": 1.0},
    "arrays": {"x": np.array([1.0, 2.0]), "y": np.float32(2.0), "w": np.array([1.0, 0.5])},
    "tensors": {"x": torch.tensor([1.0, 2.0]), "y": [1, 2], "w": torch.tensor(1.5, dtype=torch.bfloat16)},
}


@pytest.mark.parametrize("case", VALUES)
def test_values_of_every_kind_are_taken(case: str) -> None:
    cell = "y_hat = w * x\nloss = sum((y_hat - y)**2)"
    assert checked("--given x y --parameter w", cell, VALUES[case]).ok


def test_a_tensor_that_requires_grad_is_learned() -> None:
    names = {"x": 1.0, "y": 2.0, "w": torch.tensor(1.0, requires_grad=True)}
    assert [leaf.name for leaf in checked("", CELL, names).problem.graph.parameters] == ["w"]
    both = checked("--given w --parameter x", CELL, names)
    assert [leaf.name for leaf in both.problem.graph.parameters] == ["x"]


def test_indices_are_no_variables() -> None:
    names = {"X": [[1.0, 2.0], [3.0, 4.0]], "w": [1.0, 2.0]}
    assert checked("--parameter w", "y[i] = sum(X[i,k]*w[k], k)\nloss = sum(y)*pi", names).ok


def test_a_cell_may_hold_an_expression_file() -> None:
    text = (ROOT / "expressions/ols.toml").read_text()
    assert checked("", text, {}).title == "Ordinary least squares, one observation"


MISTAKES = {
    "an unknown function": (
        "--parameter w",
        "loss = sine(w)",
        "<cell>:2:8: unknown function 'sine'; did you mean 'sin'?",
    ),
    "a variable that is not there": ("--parameter w", CELL + "z = q*loss", "no variable 'q'"),
    "nothing learned": ("", CELL, "which of w, x, y is learned? Name it: %%gradproof --parameter y"),
    "a name that is not read": ("--parameter v", CELL, "no line of the cell reads 'v'"),
    "an unknown option": ("--jobs 2", CELL, "%%gradproof: unrecognized arguments: --jobs 2"),
    "an unknown engine": ("--parameter w --engine torhc", CELL, "did you mean 'torch'?"),
    "an open quotation mark": ("--parameter 'w", CELL, "no closing quotation"),
    "no number": ("--parameter w", "loss = s*w", "'s'"),
    "a file without a title": ("", 'graph = "loss = w"\n[parameters]\nw = 1.0', "'title' is missing"),
    "values for a file": ("--parameter w", 'graph = "loss = w"', "its own values"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_bad_input_is_told_in_one_line(
    case: str, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    line, cell, words = MISTAKES[case]
    names = {"x": 1.0, "y": 2.0, "w": 1.0, "s": "a text"}
    with pytest.raises(gradproof.GradproofError, match=re.escape(words)):
        checked(line, cell, names)
    shell.user_ns.update(names)
    with pytest.raises(UsageError, match=re.escape(words)):
        shell.run_cell_magic("gradproof", line, cell)
    assert not shell.run_cell(f"%%gradproof {line}\n{cell}").success
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert words in out + err


def test_an_input_error_is_an_input_error() -> None:
    with pytest.raises(InputError, match="reads no variable"):
        checked("", "loss = 2", {})


# The example


def told(cell: Any) -> str:
    """What a cell printed; a kernel may send it in one piece or in several."""
    return "".join(output.text for output in cell.get("outputs", ()) if output.output_type == "stream")


def displayed(cell: Any) -> list[tuple[str, ...]]:
    return [
        tuple(sorted(output.data))
        for output in cell.get("outputs", ())
        if output.output_type == "execute_result"
    ]


def test_the_example_executes_and_says_what_is_committed() -> None:
    committed = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(committed)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "docs")}}
    )
    client.execute()
    for before, after in zip(committed.cells, fresh.cells, strict=True):
        assert told(after) == told(before), f"stale: {after.source}"
        assert displayed(after) == displayed(before)
    printed = "".join(map(told, fresh.cells))
    for line in (
        "y_hat = 1.0, l = -1.0, loss = 1.0",
        "w.grad = -2.0, x.grad = None, y.grad = None",
        "w = 1.02\n",
        "the old -2 and the new -1.96",
        "step 100: loss 0.018313, gradient -0.270652, w = 1.867380",
    ):
        assert line in printed
    assert sum("verified: " in str(cell.get("outputs", "")) for cell in fresh.cells) == 2
