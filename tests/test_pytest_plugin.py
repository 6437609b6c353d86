"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import igraph  # noqa: F401 # see below
import pytest

# A run inside of this process forgets the modules that it imported; torch, NumPy and igraph must not be
# imported twice.
import gradproof.assertions
import gradproof.telling.html
import gradproof.telling.markdown
import gradproof.torch.check
from conftest import ROOT
from gradproof import oracle
from gradproof.engines import installed

OLS = (ROOT / "expressions/ols.toml").read_text()
ROOT_BRANCH = """\
title = "A branch that is not taken"
graph = "loss = where(x > 0, sqrt(x), 0) + v**2"

[parameters]
v = 2.0
x = -1.0
"""
EXPECTED = ROOT_BRANCH + '\n[expect]\nverdict = "wrong"\nnode = "loss"\n'
BROKEN_PROMISE = OLS + '\n[expect]\nverdict = "wrong"\n'
FAILING = """\
import torch

class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * (torch.sigmoid(x) + x)

def test_swish(gradproof):
    gradproof.check_function(Swish.apply, torch.ones(3, requires_grad=True))
"""
HEAVY = {"torch", "sympy", "flint", "numpy", "gradproof"}


def write(pytester: pytest.Pytester, **texts: str) -> None:
    """Files of the folder `sums`, with an expression in each."""
    folder = pytester.path / "sums"
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-p", "no:cacheprovider", *arguments)


# What is left alone


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_the_plugin_imports_nothing_of_ours() -> None:
    assert modules_after("import pytest_gradproof").isdisjoint(HEAVY)
    assert "gradproof" in modules_after("import pytest_gradproof, gradproof")  # that test can fail


def test_a_run_that_does_not_use_it_loads_nothing_and_collects_nothing(pytester: pytest.Pytester) -> None:
    write(pytester, ols=OLS, bad=ROOT_BRANCH)
    pytester.makepyfile(f"import sys\ndef test_it():\n    assert {HEAVY!r}.isdisjoint(sys.modules)")
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\naddopts = "--strict-markers"\n')
    pytester.runpytest_subprocess("-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_only_what_is_named_is_looked_into(pytester: pytest.Pytester) -> None:
    write(pytester, ols=OLS)
    pytester.makepyfile("def test_it(): pass")
    run(pytester).assert_outcomes(passed=1)
    run(pytester, ".").assert_outcomes(passed=3)
    run(pytester, "sums").assert_outcomes(passed=2)
    run(pytester, "sums/ols.toml::gradient[w]").assert_outcomes(passed=1)
    pytester.makeini("[pytest]\ntestpaths = sums")
    run(pytester).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "text",
    [
        '[tool.pytest.ini_options]\naddopts = ""\n[tool.drawing]\ngraph = "a -> b"',
        "[graph]\nall-features = true",  # as cargo-deny has it
        "graph = true",
        "name = 'x'\n[broken\ngraph = 'y'",
        "not TOML at all",
        "",
    ],
)
def test_other_toml_is_left_alone(pytester: pytest.Pytester, text: str) -> None:
    (pytester.path / "other.toml").write_text(text)
    pytester.makepyfile("def test_it(): pass")
    run(pytester, ".").assert_outcomes(passed=1)


# Expression files


def test_each_parameter_is_a_test_and_the_rest_is_one_and_the_check_runs_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(gradproof, "check", lambda *a, **k: calls.append(k) or oracle.check(*a, **k))
    write(pytester, branch=ROOT_BRANCH)
    result = run(pytester, "sums", "-v")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines_random(
        ["*branch.toml::forward-and-local FAILED*", "*gradient[[]x] FAILED*", "*gradient[[]v] PASSED*"]
    )
    assert calls == [{"engine": "torch", "dtype": None}]


def test_a_failing_gradient_shows_its_table_and_no_traceback(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)  # there pytest gives the whole message once more, in its summary
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    write(pytester, branch=ROOT_BRANCH)
    result = run(pytester, "sums", "-k", "gradient")
    shown = result.stdout.str()
    assert re.search(
        r"^  x +0 +nan +– +0 +wrong +where\(x > 0, 1/\(2\*sqrt\(x\)\), 0\)$", shown, re.MULTILINE
    )
    result.stdout.fnmatch_lines(["FAILED sums/branch.toml::gradient[[]x] - wrong: chained gradient of x"])
    assert "pytest_gradproof.py" not in shown
    assert "  v  " not in shown
    assert len(shown.splitlines()) < 30


def test_an_expected_verdict_passes_and_a_promise_that_is_not_kept_fails(pytester: pytest.Pytester) -> None:
    write(pytester, expected=EXPECTED, broken=BROKEN_PROMISE)
    result = run(pytester, "sums")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*forward-and-local - exact, but the file expects wrong"])


def test_a_gradient_that_was_not_compared_does_not_pass(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*arguments: object, **options: object) -> gradproof.Report:
        return oracle.Report("nothing", "nothing.toml", "torch", "float64", ())

    monkeypatch.setattr(gradproof, "check", nothing)
    write(pytester, ols=OLS)
    result = run(pytester, "sums")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["gradient[[]w] was not compared"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OLS.replace("w * x", "w * sine(x)"),
            "sums/bad.toml:4:13: unknown function 'sine'; did you mean 'sin'?",
        ),
        (
            OLS.replace('title = "', 'titel = "'),
            "sums/bad.toml:1:1: unknown key 'titel'; did you mean 'title'?",
        ),
        (OLS + "\nx = = 1", "sums/bad.toml:*: not TOML: *"),
    ],
    ids=["expression", "key", "TOML"],
)
def test_a_bad_file_is_an_error_of_collection_at_its_place(
    pytester: pytest.Pytester, text: str, message: str
) -> None:
    write(pytester, bad=text, ols=OLS)
    result = run(pytester, "sums", "--continue-on-collection-errors")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([message.replace("[", "[[]")])
    assert "Traceback" not in result.stdout.str()


def test_all_engines_are_a_test_each(pytester: pytest.Pytester) -> None:
    write(pytester, ols=OLS)
    names = installed()
    assert {"torch", "jax"} < {*names}
    result = run(pytester, "sums", "--gradproof-engine", "all", "-v")
    result.assert_outcomes(passed=2 * len(names))
    result.stdout.fnmatch_lines([f"*::gradient[[]w][[]{name}] PASSED*" for name in names])


def test_options_choose_dtype_and_engine(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(gradproof, "check", lambda *a, **k: calls.append(k) or oracle.check(*a, **k))
    write(pytester, ols=OLS)
    run(pytester, "sums", "--gradproof-dtype", "float16", "--gradproof-engine", "torch").assert_outcomes(
        passed=2
    )
    assert calls == [{"engine": "torch", "dtype": "float16"}]
    result = run(pytester, "sums", "--gradproof-dtype", "float23")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --gradproof-dtype: unknown dtype 'float23'; did you mean 'float32'?*"]
    )
    result = run(pytester, "sums", "--gradproof-engine", "torhc")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["unknown engine 'torhc'; did you mean 'torch'?*"])


# The fixture and the marker


def test_the_fixture_asserts_and_shows_the_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *WRONG SwishBackward*", "E *expected *, got *: off by *"])
    assert "pytest_gradproof.py" not in result.stdout.str()


def test_the_fixture_checks_problems_and_numbers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import gradproof as gp
        import pytest

        SQUARE = "loss = (w*x - y)**2"
        NUMBERS = {"x": 1.0, "y": 2.0}

        def test_right(gradproof):
            assert gradproof.dtype == "float64"
            problem = gp.parse(SQUARE, given=NUMBERS, parameters={"w": 1.0})
            assert gradproof.check(problem).dtype == "float64"
            assert gradproof.check(problem, dtype="float16").dtype == "float16"
            assert gradproof.assert_gradients(SQUARE, {"w": 1.0, **NUMBERS}, {"w": -2.0}).ok

        def test_wrong(gradproof):
            with pytest.raises(AssertionError, match="wrong"):
                gradproof.check(gp.parse("loss = where(x > 0, sqrt(x), 0)", parameters={"x": -1.0}))
            with pytest.raises(AssertionError, match="wrong"):
                gradproof.assert_gradients(SQUARE, {"w": 1.0, **NUMBERS}, {"w": 2.0})
            gradproof.check_function(lambda x: x, 3.0)  # nothing compared is no pass
        """
    )
    run(pytester, "-v").assert_outcomes(passed=1, failed=1)


def test_the_marker_runs_a_test_in_each_dtype(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        import torch

        layer = torch.nn.Linear(3, 2)

        @pytest.mark.gradproof(dtypes=["float64", "float32"])
        def test_it(gradproof):
            x = torch.ones(4, 3, dtype=gradproof.torch_dtype, requires_grad=True)
            assert str(x.dtype) == f"torch.{gradproof.dtype}"
            assert gradproof.check_function(torch.tanh, x).dtype == gradproof.dtype

        @pytest.mark.gradproof(dtypes=["bfloat16"])
        @pytest.mark.parametrize("n", [1, 2])
        def test_inputs_and_modules_are_converted(gradproof, n):
            assert gradproof.check_function(layer, torch.ones(n, 3)).dtype == "bfloat16"
            assert layer.weight.dtype == torch.float32
            x = torch.ones(n, requires_grad=True)
            assert gradproof.check_function(lambda a, b: torch.cat(b) * a, x, [x]).ok

        @pytest.mark.gradproof(dtypes=["float64"])
        def test_that_ran_in_another(gradproof):
            w = torch.ones(3, requires_grad=True)
            gradproof.check_function(lambda x: x * w, torch.ones(3))
        """
    )
    result = run(pytester, "-v", "--strict-markers")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines_random(["*::test_it[[]float64] PASSED*", "*::test_it[[]float32] PASSED*"])
    result.stdout.fnmatch_lines(["E *ran in float32, and float64 was asked for; make its tensors with*"])


def test_the_option_is_the_dtype_of_the_fixture_and_the_marker_goes_before(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import gradproof as gp
        import pytest

        def test_option(gradproof):
            assert gradproof.dtype == "float16"
            assert gradproof.check(gp.parse("loss = w**2", parameters={"w": 1.5})).dtype == "float16"

        @pytest.mark.gradproof(dtypes=["float32"])
        def test_marker(gradproof):
            assert gradproof.dtype == "float32"
        """
    )
    run(pytester, "--gradproof-dtype=float16").assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('(dtypes=["float23"])', "unknown dtype 'float23'; did you mean 'float32'?"),
        ('(dtypes=["float32", "float32"])', "a dtype stands there twice"),
        ('("float32")', "expected dtypes="),
        ("(dtypes=[])", "expected dtypes="),
        ("(dtypes=[1])", "expected the names of dtypes"),
    ],
    ids=["unknown", "twice", "by position", "none", "no name"],
)
def test_a_bad_marker_is_told(pytester: pytest.Pytester, marker: str, message: str) -> None:
    bad = f"@pytest.mark.gradproof{marker}\ndef test_it(gradproof): pass"
    pytester.makepyfile(f"import pytest\n{bad}\ndef test_other(gradproof): pass")
    result = run(pytester)
    result.assert_outcomes(errors=1, passed=1)  # it is one test's, and no other's
    assert f"@pytest.mark.gradproof: {message}" in result.stdout.str()


def test_the_marker_needs_the_fixture_and_that_of_a_module_leaves_others_alone(
    pytester: pytest.Pytester,
) -> None:
    head = 'import pytest\nmark = pytest.mark.gradproof(dtypes=["float32", "float16"])\n'
    pytester.makepyfile(
        test_own=f"{head}@mark\ndef test_it(): pass",
        test_module=f"{head}pytestmark = mark\ndef test_it(): pass\ndef test_that(gradproof): pass",
    )
    run(pytester, "test_module.py").assert_outcomes(passed=3)
    result = run(pytester, "test_own.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*is for a test that uses the fixture 'gradproof', and this one does not*"])


# Pages


def pages(folder: Path) -> tuple[str, set[str]]:
    return (folder / "index.md").read_text(), {path.name for path in folder.glob("*.md")} - {"index.md"}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_page_for_all_that_ran_and_an_index(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    write(pytester, ols=OLS, branch=ROOT_BRANCH, bad=OLS.replace("w * x", "w * sine(x)"))
    (pytester.path / "sums" / "deep").mkdir()
    (pytester.path / "sums" / "deep" / "ols.toml").write_text(OLS)
    pytester.makepyfile(
        FAILING + "    \ndef test_twice(gradproof):\n"
        "    for n in (2, 3): gradproof.check_function(torch.tanh, torch.ones(n, requires_grad=True))\n"
    )
    arguments = [
        "sums",
        "test_a_page_for_all_that_ran_and_an_index.py",
        "--continue-on-collection-errors",
        *workers,
    ]
    result = run(pytester, "--gradproof-report", "out/pages", *arguments)
    result.assert_outcomes(passed=6, failed=3, errors=1)
    result.stdout.fnmatch_lines(["gradproof: 6 pages and an index in *pages"])
    index, names = pages(pytester.path / "out" / "pages")
    assert len(names) == 6  # two files called ols, and one test that checks twice, keep apart
    assert set(re.findall(r"\]\(([^)]+\.md)\)", index)) == names
    assert "4 of 6 as they should be." in index
    assert "unknown function 'sine'" in index.split("Could not be read")[1]
    assert index.index("✗") < index.index("✓")
    branch = next(name for name in names if name.startswith("branch"))
    assert "A branch that is not taken" in (pytester.path / "out/pages" / branch).read_text()
    listed = (pytester.path / "out/pages/index.html").read_text()
    assert set(re.findall(r'href="([^"]+)"', listed)) == {name.replace(".md", ".html") for name in names}
    assert "4 of 6 as they should be." in listed
    assert "unknown function &#39;sine&#39;" in listed
    assert (
        "A branch that is not taken"
        in (pytester.path / "out/pages" / branch).with_suffix(".html").read_text()
    )


def test_a_run_without_a_check_has_an_empty_index(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    run(pytester, "--gradproof-report=out").assert_outcomes(passed=1)
    index, names = pages(pytester.path / "out")
    assert not names
    assert "0 of 0" in index


def test_a_folder_that_cannot_be_one_is_told_at_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    (pytester.path / "taken").write_text("")
    result = run(pytester, "--gradproof-report=taken")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --gradproof-report: *taken cannot be written to: *"])


# Ours


def test_the_tests_that_the_pages_show_run(pytester: pytest.Pytester) -> None:
    readme = (ROOT / "README.md").read_text().split("## In your tests\n")[1].split("\n## ")[0]
    page = (ROOT / "docs/ci.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", readme + page, re.MULTILINE | re.DOTALL)
    pytester.makepyfile(**{f"test_block_{n}": text for n, text in enumerate(blocks)})
    run(pytester).assert_outcomes(passed=7)
    options = set(re.findall(r"--gradproof-\w+", page))
    assert options == {"--gradproof-dtype", "--gradproof-engine", "--gradproof-report"}


def test_our_own_expression_files_are_collected(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--collect-only", str(ROOT / "expressions"))
    assert result.ret == 0
    collected = set(re.findall(r"(\w+)\.toml::forward-and-local", result.stdout.str()))
    assert collected == {path.stem for path in (ROOT / "expressions").glob("*.toml")}
