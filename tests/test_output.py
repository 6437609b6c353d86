"""What goes out: exit codes that do not lie, files that are written as they should be, and names that nobody
can hide in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from gradproof.cli import main
from gradproof.output import page_names, visible, write

WRONG = 'title = "t"\ngraph = "loss = where(w > 0, sqrt(w), 0)"\n[parameters]\nw = -1.0\n'
RIGHT = 'title = "t"\ngraph = "loss = w**2"\n[parameters]\nw = 1.0\n'


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line for bash, in which `gradproof` is ours."""
    text = f'gradproof() {{ "{sys.executable}" -m gradproof "$@"; }}; {command}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=folder, env=environment)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "wrong.toml").write_text(WRONG)
    (tmp_path / "right.toml").write_text(RIGHT)
    return tmp_path


STREAMS = {
    "a reader that has gone": ("gradproof check wrong.toml | head -0; exit ${PIPESTATUS[0]}", 1, ""),
    "a reader that has gone, and all is right": (
        "gradproof check right.toml | head -0; exit ${PIPESTATUS[0]}",
        0,
        "",
    ),
    "stdout closed": ("gradproof check right.toml >&-", 2, "stdout is closed"),
    "a full device": ("gradproof check right.toml > /dev/full", 2, "cannot be written"),
    "stderr closed": ("gradproof check wrong.toml 2>&-", 1, ""),
    "no working directory": (
        "mkdir d && cd d && rmdir ../d && gradproof check ../right.toml",
        2,
        "the working directory",
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_the_exit_code_does_not_lie(name: str, files: Path) -> None:
    command, code, told = STREAMS[name]
    done = shell(command, files)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr


def test_a_folder_that_may_not_be_searched_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = files / "hidden"
    hidden.mkdir()
    hidden.chmod(0o000)
    try:
        if os.access(hidden, os.R_OK):  # root may search everything
            assert main(["check", str(files)]) == 1
        else:
            assert main(["check", str(files)]) == 2
            assert "cannot be searched" in capsys.readouterr().err
    finally:
        hidden.chmod(0o755)


def test_what_is_no_regular_file_is_written_through(files: Path) -> None:
    pipe = files / "pipe"
    os.mkfifo(pipe)
    done = shell("cat pipe > got & gradproof check right.toml --output pipe; wait; test -p pipe", files)
    assert done.returncode == 0 and "3 comparisons, all exact" in (files / "got").read_text()


@pytest.mark.parametrize(
    ("name", "starts"),
    [("a.md", "# t"), ("a.json", "{"), ("a.html", "<!doctype html>"), ("a.xml", "<?xml"), ("a.out", "t\n")],
)
def test_the_suffix_chooses_the_format(name: str, starts: str, files: Path) -> None:
    assert main(["check", str(files / "right.toml"), "--output", str(files / name)]) == 0
    assert (files / name).read_text().lower().startswith(starts)
    assert main(["check", str(files / "right.toml"), "--output", str(files / name), "--format", "json"]) == 0
    assert json.loads((files / name).read_text())["ok"]


def test_pages_have_names_of_their_own(tmp_path: Path) -> None:
    long = "x" * 200
    for name in ("A", "a", long + "1", long + "2", "index"):
        (tmp_path / f"{name}.toml").write_text(RIGHT)
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "pages")]) == 0
    names = [path.name for path in (tmp_path / "pages").iterdir()]
    assert len({name.casefold() for name in names}) == 6 and max(map(len, names)) < 120
    assert page_names(["a.toml", "b/a.toml"], 2, ".md") == [["a.md", "a-2.md"], ["a-3.md", "a-4.md"]]


def test_a_page_is_there_before_the_next_is_made(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradproof import attempts

    seen: list[list[str]] = []

    def interrupted(*args: object, **kwargs: object) -> None:
        seen.append(sorted(path.name for path in (files / "pages").glob("*.md")))

    monkeypatch.setattr(attempts, "_check", lambda make, **k: interrupted() or _checked(make))
    assert main(["report", str(files), "--output", str(files / "pages")]) == 1
    assert seen == [[], ["right.md"]]


def _checked(make: object) -> list[object]:
    from gradproof import check

    return [check(make())]  # type: ignore[operator]


def test_nobody_hides_in_a_title(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(RIGHT.replace('"t"', '"a\\u001b[31m\\u202eb"'))
    for form in ("text", "markdown", "html"):
        assert main(["check", str(tmp_path / "a.toml"), "--format", form]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\u202e" not in out and "u202e" in out
    assert main(["check", str(tmp_path / "a.toml"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["reports"][0]["title"] == "a\x1b[31m\u202eb"
    assert main(["check", str(tmp_path / "none\u202e.toml")]) == 2
    assert "\u202e" not in capsys.readouterr().err


def test_text_that_everybody_sees_is_left_as_it_is() -> None:
    assert visible("∂loss/∂x\t= 2*l\n") == "∂loss/∂x\t= 2*l\n"


def test_a_folder_is_no_file_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be written"):
        write(tmp_path, "text")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["chek", "a.toml"], "'check'"),
        (["check", "--fromat", "json", "a.toml"], "'--format'"),
        (["check", "--format", "jsno", "a.toml"], "'json'"),
        (["descend", "--stesp=3", "a.toml"], "'--steps'"),
    ],
)
def test_what_may_have_been_meant(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_a_file_of_functions_tells_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ROOT / "docs/examples.py")
    assert main(["check", path]) == 2
    assert "it has swish, attention, encoder" in capsys.readouterr().err
    assert main(["explain", f"{path}:swish"]) == 2
    assert f"gradproof check {path}:swish" in capsys.readouterr().err
