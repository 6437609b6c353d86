"""Long work: a bar on a terminal and nowhere else, and Ctrl-C that keeps what is done."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradproof.progress import short, tracked

PATIENCE = 90.0  # seconds until a run that hangs is ended

SLOW = """\
import time
import torch

def quick():
    return torch.sin, (torch.tensor([1.0], requires_grad=True),)

def slow():
    open("reached", "w").close()
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work.py").write_text(SLOW)
    for name in ("[red]a[", "b"):
        (tmp_path / f"{name}.toml").write_text('title = "t"\ngraph = "loss = w**2"\n[parameters]\nw = 3.0\n')
    return tmp_path


def on_a_terminal(
    arguments: list[str], folder: Path, when: Callable[[], bool] = lambda: False
) -> tuple[int, str]:
    """The exit code and all that the terminal got; when `when` says so, its processes get what Ctrl-C sends
    them."""
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "gradproof", *arguments]
    running = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True
    )
    os.close(theirs)
    shown, sent, start = b"", False, time.monotonic()
    try:
        while time.monotonic() - start < PATIENCE:
            if not sent and when():
                os.killpg(running.pid, signal.SIGINT)
                sent = True
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    part = os.read(terminal, 65536)
                except OSError:  # on Linux, the end of a terminal
                    break
                if not part:
                    break
                shown += part
        else:
            os.killpg(running.pid, signal.SIGKILL)
    finally:
        os.close(terminal)
    return running.wait(PATIENCE), shown.decode()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_terminal_gets_a_bar_with_what_it_is_at(jobs: str, folder: Path) -> None:
    code, shown = on_a_terminal(["check", ".", "--jobs", jobs], folder)
    assert code == 0
    assert "━" in shown
    assert "/2" in shown
    assert "[red]a[.toml" in shown  # a name is no markup
    assert "2 of 2 as they should be" in shown


def test_a_pipe_gets_no_bar(folder: Path) -> None:
    command = [sys.executable, "-m", "gradproof", "check", "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "━" not in done.stdout


def test_one_piece_of_work_gets_no_bar(folder: Path) -> None:
    code, shown = on_a_terminal(["check", "b.toml"], folder)
    assert code == 0
    assert "━" not in shown


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_reports_what_is_done(jobs: str, folder: Path) -> None:
    def reached() -> bool:
        if not (folder / "reached").exists():
            return False
        time.sleep(3.0 if jobs == "2" else 0.0)  # the other process is done by then
        return True

    targets = ["work.py:quick", "work.py:slow", "b.toml"]
    code, shown = on_a_terminal(["check", *targets, "--jobs", jobs], folder, reached)
    assert code == 130
    assert "Traceback" not in shown
    done = {"1": 1, "2": 2}[jobs]
    assert f"interrupted after {done} of 3" in shown
    assert f"{done} of {done} as they should be, {3 - done} could not be checked" in shown


def test_an_interrupted_run_is_not_ok_for_a_machine(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gradproof",
        "check",
        "work.py:quick",
        "work.py:slow",
        "b.toml",
        "--format",
        "json",
    ]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    start = time.monotonic()
    while not (folder / "reached").exists() and time.monotonic() - start < PATIENCE:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert err == "gradproof: interrupted after 1 of 3\n"
    whole = json.loads(out)
    assert [report["target"] for report in whole["reports"]] == ["work.py:quick"]
    assert [error["target"] for error in whole["errors"]] == ["work.py:slow", "b.toml"]
    assert whole["ok"] is False


def test_report_keeps_its_pages_when_it_is_cut_off(folder: Path) -> None:
    def reached() -> bool:
        return (folder / "reached").exists()

    code, shown = on_a_terminal(
        ["report", "work.py:quick", "work.py:slow", "--output", "pages"], folder, reached
    )
    assert code == 130
    assert "interrupted after 1 of 2" in shown
    assert sorted(path.name for path in (folder / "pages").iterdir()) == ["index.md", "work.py-quick.md"]
    assert "work.py:slow" in (folder / "pages/index.md").read_text()


def test_tracked_gives_every_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(iter("abc"), 3, str)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_name_does_not_steer_the_terminal() -> None:
    assert short("a\x1b[2J\nb") == "a?[2J?b"
    assert len(short("x" * 1000)) == 60
