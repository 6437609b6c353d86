"""Bad input: file, line, column, what was found, what was expected; exit 2, no traceback, nothing run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradproof import InputError, load, parse
from gradproof.cli import main

HEAD = 'title = "t"\ngraph = """\n'
TAIL = (
    '\n"""\n[given]\n'
    "X = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]\ny = [1.0, 2.0, 3.0]\n[parameters]\nw = [1.0, 2.0]\n"
)
REST = "\nz = mean((X @ w - y)**2)\nloss = sum(q) + z"

# id: (the line q = ..., line:column in the file, the words that must appear)
LANGUAGE = {
    "unknown function": ("q = sine(w)", "3:5", "unknown function 'sine'; did you mean 'sin'?"),
    "unknown name": ("q = w + X1", "3:9", "unknown name 'X1'; did you mean 'X'?"),
    "name nobody knows": ("q = w + omega", "3:9", "give it a value under [given] or [parameters]"),
    "bound twice": ("w = y", "3:1", "'w' is bound twice"),
    "bound by two lines": ("q = w\nq = w", "4:1", "'q' is bound twice: it is a line above"),
    "a cycle": ("q = q + w", "3:5", "a cycle"),
    "used before it is bound": ("q = w * later\nlater = w", "3:9", "used before it is bound, in line 4"),
    "an unused line": ("q = w\nr = w", "4:1", "nothing uses 'r'"),
    "shapes of a sum": ("q = X + y", "3:5", "shapes (3, 2) and (3,) do not fit"),
    "shapes of a product": ("q = X @ y", "3:5", "shapes (3, 2) and (3,) do not fit"),
    "an index too many": ("q = w[0, 1]", "3:5", "2 indices for shape (2,)"),
    "an index outside": ("q = w[7]", "3:5", "index 7 is outside of 2"),
    "extents that differ": ("q[i] = X[i,0] * w[i]", "3:17", "index 'i' runs to 3 and to 2"),
    "an index left over": ("q = sum(X[i,k] * w[k], k)", "3:5", "index 'i' is neither on the left"),
    "an axis outside": ("q = sum(X, axis=2)", "3:5", "axis 2 of shape (3, 2)"),
    "a reshape that does not fit": ("q = reshape(X, (4, 2))", "3:5", "6 entries do not fit"),
    "a power tower": ("q = w * 9**9**9**9", "3:12", "too large to write out"),
    "another power tower": ("q = w * 2**1000**2", "3:9", "too large to write out"),
    "a long number": (f"q = w * {'9' * 5000}", "3:9", "is too long"),
    "a huge exponent": ("q = w * 1e99999", "3:9", "too long or too large"),
    "a big factorial": ("q = w * gamma(10**6)", "3:9", "too large"),
    "100,000 terms": ("q = " + "+".join(["w"] * 100_000), "3:", "more than 1500 operations in one line"),
    "100,000 brackets": ("q = " + "(" * 100_000 + "w" + ")" * 100_000, "3:105", "nested deeper than 100"),
    "an attribute": ("q = w.real", "3:5", "attribute access '.real'"),
    "a dunder attribute": ("q = w.__class__", "3:5", "attribute access '.__class__'"),
    "a method": ("q = X.sum()", "3:5", "write sum(...)"),
    "a lambda": ("q = (lambda: w)()", "3:6", "a lambda is not part of the language"),
    "a comprehension": ("q = [v for v in w]", "3:5", "a comprehension is not part of the language"),
    "a generator": ("q = sum(v for v in w)", "3:8", "a comprehension is not part of the language"),
    "an f-string": ("q = f'{w}'", "3:5", "an f-string is not part of the language"),
    "a string": ("q = 'w'", "3:5", "expected a number, found 'w'"),
    "a complex number": ("q = w * 2j", "3:9", "expected a number, found 2j"),
    "True": ("q = w * True", "3:9", "expected a number, found True"),
    "an import": ("q = __import__('os').system('true')", "3:5", "only functions of the language can be "
                                                                "called"),
    "an import statement": ("import os", "3:1", "an import is not part of the language"),
    "eval": ("q = eval('w')", "3:5", "unknown function 'eval'"),
    "exec": ("exec('w')", "3:1", "a line without a name"),
    "a walrus": ("q = (r := w)", "3:6", "':=' is not part of the language"),
    "a conditional": ("q = w if w else w", "3:5", "write where(condition, a, b)"),
    "an update in place": ("q += w", "3:1", "each name is bound once"),
    "two names": ("q = r = w", "3:5", "two names for one line"),
    "unpacking": ("q, r = w", "3:1", "expected a name on the left"),
    "a loop": ("for q in w: pass", "3:1", "a loop is not part of the language"),
    "a function": ("def q(): return w", "3:1", "def is not part of the language"),
    "a dictionary": ("q = {}", "3:5", "a dictionary is not part of the language"),
    "a floor division": ("q = w // 2", "3:5", "'//' is not part of the language"),
    "a caret": ("q = w ^ 2", "3:5", "a power is written '**'"),
    "a bare comparison": ("q = w > 1", "3:5", "stands only as the first operand of where"),
    "where without a comparison": ("q = where(w, w, w)", "3:5", "the first operand of where() is a "
                                                                "comparison"),
    "division of constants by zero": ("q = w * (1/0)", "3:10", "is not a real number"),
    "a constant that is not real": ("q = w * sqrt(-1)", "3:9", "is not a real number"),
    "an operand missing": ("q = atan2(w)", "3:5", "atan2() takes 2 operands, got 1"),
    "an unknown option": ("q = sum(w, axes=0)", "3:", "has no option 'axes'"),
    "an option of the wrong kind": ("q = sum(w, axis=0.5)", "3:5", "axis must be an integer"),
    "not Python": ("q = w +* w", "3:8", "not an expression"),
    "an open bracket": ("q = (w", "3:5", "not an expression"),
    "a NUL": ("q = w \\u0000", "3:", "not an expression"),
}  # fmt: skip


@pytest.mark.parametrize("case", LANGUAGE)
def test_a_line_that_is_not_of_the_language_says_where_and_why(case: str, tmp_path: Path) -> None:
    line, place, words = LANGUAGE[case]
    path = tmp_path / "bad.toml"
    path.write_text(HEAD + line + REST + TAIL)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:{place}")
    assert words in str(caught.value)


GOOD = HEAD + "loss = sum(w * x)" + '\n"""\n[given]\nx = [1.0, 2.0]\n[parameters]\nw = [1.0, 2.0]\n'

# id: (text to replace, by what, line:column, the words that must appear)
FILES = {
    "no title": ('title = "t"', "", "1", "'title' is missing"),
    "a title that is no text": ('title = "t"', "title = 3", "1:1", "'title' is an integer, expected a text"),
    "no graph": ("graph =", "grap_ =", "2:1", "unknown key 'grap_'; did you mean 'graph'?"),
    "an unknown key": ('title = "t"', 'title = "t"\ncolour = 1', "2:1", "unknown key 'colour'"),
    "an empty graph": ("loss = sum(w * x)", "# nothing", "3:1", "the graph is empty"),
    "a graph that is a number": ('"""\nloss = sum(w * x)\n"""', "3", "2:1", "'graph' is an integer, expected "
                                                                            "a text"),
    "broken TOML": ("[given]", "[given", "5:7", "not TOML"),
    "a key twice": ("x = [1.0, 2.0]", "x = 1\nx = 2", "7:6", "not TOML"),
    "a value missing": ("x = [1.0, 2.0]", "", "3:16", "unknown name 'x'"),
    "a value in both tables": ("w = [1.0, 2.0]", "w = [1.0, 2.0]\nx = 1.0", "9:1", "it is one or the other"),
    "no parameter": ("[parameters]\n", "", "3:1", "there is no parameter"),
    "a ragged list": ("x = [1.0, 2.0]", "x = [[1.0, 2.0], [3.0]]", "6:1", "ragged: rows of 1 and 2 entries"),
    "lists beside numbers": ("x = [1.0, 2.0]", "x = [1.0, [2.0]]", "6:1", "ragged: numbers stand beside "
                                                                          "lists"),
    "NaN": ("x = [1.0, 2.0]", "x = [1.0, nan]", "6:1", "'x' holds nan, expected finite numbers"),
    "infinity": ("x = [1.0, 2.0]", "x = [1.0, -inf]", "6:1", "'x' holds -inf, expected finite numbers"),
    "a text for a number": ("x = [1.0, 2.0]", 'x = "1.0"', "6:1", "'x' is a text, expected a number"),
    "a text in a list": ("x = [1.0, 2.0]", 'x = [1.0, "2.0"]', "6:1", "'x' holds a text ('2.0'), expected "
                                                                      "numbers"),
    "a boolean": ("x = [1.0, 2.0]", "x = [true, false]", "6:1", "'x' holds a boolean"),
    "a date": ("x = [1.0, 2.0]", "x = 2020-01-01", "6:1", "expected a number"),
    "an empty list": ("x = [1.0, 2.0]", "x = []", "6:1", "'x' is empty"),
    "a word of Python's": ("x = [1.0, 2.0]", "lambda = 1.0", "6:1", "write lambda_"),
    "a name that is none": ("x = [1.0, 2.0]", '"a b" = 1.0', "6:2", "is no name"),
    "a table without a source": ("x = [1.0, 2.0]", "x = {a = 1}", "6:1", "without 'file', 'sample' or "
                                                                         "'interval'"),
    "an unknown sample": ("x = [1.0, 2.0]", 'x = {shape = [2], sample = "norml"}', "6:1",
        "did you mean 'normal'?"),
    "a bad shape": ("x = [1.0, 2.0]", 'x = {shape = [-2], sample = "normal"}', "6:1",
        "expected positive integers"),
    "a huge shape": ("x = [1.0, 2.0]", 'x = {shape = [99999, 99999], sample = "normal"}', "6:1", "more than"),
    "a bad interval": ("x = [1.0, 2.0]", "x = {interval = [2.0, 1.0], points = 3}", "6:1", "low < high"),
    "an unknown key beside interval": ("x = [1.0, 2.0]", "x = {interval = [1.0, 2.0], pints = 3}", "6:1",
        "'points'"),
    "an unknown dtype": ('title = "t"', 'title = "t"\ndtype = "float23"', "2:1", "did you mean 'float32'?"),
    "an unknown verdict": ("[given]", '[expect]\nverdict = "rong"\n[given]', "6:1", "did you mean 'wrong'?"),
    "a bad descent": ("[given]", "[descent]\nsteps = 0\n[given]", "6:1", "expected a positive integer"),
    "given that is no table": ("[given]\nx = [1.0, 2.0]", "given = 3", "5:1", "'given' is an integer, "
                                                                              "expected a table"),
    "an output that is no scalar": ("loss = sum(w * x)", "loss = w * x", "3:1", "has shape (2,); expected a "
                                                                                "scalar"),
    "a file outside": ("x = [1.0, 2.0]", 'x = {file = "../x.csv", columns = ["a"]}', "6:1",
        "outside of the expression"),
    "an absolute file": ("x = [1.0, 2.0]", 'x = {file = "/etc/passwd", columns = ["a"]}', "6:1",
        "outside of the"),
    "no such file": ("x = [1.0, 2.0]", 'x = {file = "none.csv", columns = ["a"]}', "6:1",
        "no such file 'none.csv'"),
    "no such column": ("x = [1.0, 2.0]", 'x = {file = "data.csv", column = "aa"}', "6:1",
        "no column 'aa'; did you mean"),
    "a cell that is no number": ("x = [1.0, 2.0]", 'x = {file = "data.csv", column = "b"}', "",
        "data.csv:3: 'oops'"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_of_the_format_says_where_and_why(case: str, tmp_path: Path) -> None:
    old, new, place, words = FILES[case]
    assert old in GOOD
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace(old, new, 1))
    (tmp_path / "data.csv").write_text("a,b\n1,2\n3,oops\n")
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert words in message
    if place:
        assert message.startswith(f"{path}:{place}:" if ":" in place else f"{path}:{place}")


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    assert load(path).title == "t"


RAW = {
    "not UTF-8": (b'title = "\xff\xfe"', "not a UTF-8 text: byte 0xff"),
    "binary": (bytes(range(256)) * 10, "not a UTF-8 text"),
    "empty": (b"", "'title' is missing"),
    "50 MB": (b"#" * 50_000_000, "more than 16,000,000"),
    "deep TOML": (b"title = " + b"[" * 100_000, "not TOML"),
}


@pytest.mark.parametrize("case", RAW)
def test_bytes_that_are_no_expression_file(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, words = RAW[case]
    path = tmp_path / "bad.toml"
    path.write_bytes(raw)
    assert main(["check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_a_symbolic_link_does_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n2\n")
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "data.csv").symlink_to(tmp_path / "secret.csv")
    path = folder / "bad.toml"
    path.write_text(GOOD.replace("x = [1.0, 2.0]", 'x = {file = "data.csv", column = "a"}'))
    with pytest.raises(InputError, match="outside of the expression"):
        load(path)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.toml")]) == 2
    assert re.search(r"none\.toml: no such file", capsys.readouterr().err)
    assert main(["check", str(tmp_path)]) == 2
    assert "holds no expression file" in capsys.readouterr().err


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a_bad.toml").write_text(GOOD.replace("sum(w", "sume(w"))
    (tmp_path / "b_good.toml").write_text(GOOD)
    assert main(["check", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "b_good.toml" in out
    assert "1 could not be checked" in out
    assert "a_bad.toml:3:8: unknown function 'sume'; did you mean 'sum'?" in err


USAGE = {
    "no target": (["check"], "nothing to check"),
    "a value without -e": (["check", "f.toml", "--given", "x=1"], "go with -e"),
    "a value without =": (["check", "-e", "l = w", "--parameter", "w"], "expected NAME=VALUE"),
    "a value that is none": (
        ["check", "-e", "l = w", "--parameter", "w=__import__('os')"],
        "expected a number",
    ),
    "a value twice": (["check", "-e", "l = w", "--parameter", "w=1", "--parameter", "w=2"], "is given twice"),
    "an unknown dtype": (
        ["check", "-e", "l = w", "--parameter", "w=1", "--dtype", "float23"],
        "did you mean 'float32'?",
    ),
    "an unknown engine": (
        ["check", "-e", "l = w", "--parameter", "w=1", "--engine", "troch"],
        "did you mean 'torch'?",
    ),
    "both -e and a file": (["check", "f.toml", "-e", "l = w"], "give the one or the other"),
}


@pytest.mark.parametrize("case", USAGE)
def test_bad_usage_ends_with_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = USAGE[case]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


def test_no_text_of_a_user_is_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for text in (
        f"loss = __import__('pathlib').Path({str(marker)!r}).touch()",
        f"loss = open({str(marker)!r}, 'w')",
    ):
        with pytest.raises(InputError):
            parse(text, parameters={"w": 1.0})
    assert not marker.exists()
