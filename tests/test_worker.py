"""Python of the user's runs in a process of its own: whatever it does there, the other targets are told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gradproof import check, parse
from gradproof.cli import main
from gradproof.engines import Trace
from gradproof.errors import TargetError
from gradproof.worker import Limits, amount, half_of_memory, supervised

SECONDS = "20"  # for what is to end by itself; two cores are shared
BAD = """\
import ctypes, os, signal, sys, threading, time
import torch

X = torch.ones(3, requires_grad=True)

class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Base(BaseException):
    def __str__(self):
        return 5

def does(action):
    def func(x):
        action()
        return (x * x).sum()
    return func, (X,)

def exits(): return does(lambda: sys.exit(0))
def leaves(): return does(lambda: os._exit(0))
def exits_when_made(): sys.exit(0)
def leaves_when_made(): os._exit(0)
def crashes(): return does(lambda: ctypes.string_at(0))
def crashes_when_made(): ctypes.string_at(0)
def aborts(): return does(lambda: os.abort())
def kills(): return does(lambda: os.kill(os.getpid(), signal.SIGKILL))
def kills_its_parent(): return does(lambda: (os.kill(os.getppid(), signal.SIGKILL), os._exit(0)))
def silent():
    def fails(): raise Silent
    return does(fails)
def base():
    def fails(): raise Base
    return does(fails)
def interrupts():
    def fails(): raise KeyboardInterrupt
    return does(fails)
def is_a_number(): return 5
def is_a_pair_of_numbers(): return 5, 6
def takes_all_memory():
    def fails():
        kept = []
        while True:
            kept.append(bytearray(2**26))
    return does(fails)
def asks_for_much(): return does(lambda: torch.ones(2**37))
def recurses():
    def fails(): fails()
    return does(fails)
def closes_and_leaves(): return does(lambda: (os.closerange(0, 1000), os._exit(0)))
def forks_and_leaves():
    def fails():
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
    return does(fails)
class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x * 2
    @staticmethod
    def backward(ctx, g): os._exit(0)
def leaves_in_the_backward(): return Backward.apply, (X,)
"""
ODD = """\
import os, sys, threading, time
import torch
from bad import does

def forks(): return does(os.fork)
def closes(): return does(lambda: os.closerange(0, 1000))
def closes_streams(): return does(lambda: (sys.stdout.close(), sys.stderr.close()))
def goes_away(): return does(lambda: os.chdir("/"))
def leaves_a_thread(): return does(lambda: threading.Thread(target=time.sleep, args=(1000,)).start())
def prints(): return does(lambda: print("noise"))
def spoils_torch(): return does(lambda: torch.set_default_dtype(torch.float16))
"""
HANGING = """\
import os, signal, time
from bad import does

def hangs():
    def func():
        while True:
            pass
    return does(func)
def sleeps(): return does(lambda: time.sleep(1000))
def stops(): return does(lambda: os.kill(os.getpid(), signal.SIGSTOP))
"""
GOOD = "import torch\ndef good(): return torch.tanh, torch.ones(3, requires_grad=True)\n"
AT_IMPORT = {
    "exits_at_import": "import sys; sys.exit(0)",
    "leaves_at_import": "\nimport os; os._exit(0)",
    "raises": "1 / 0",
}


def named(text: str) -> list[str]:
    return re.findall(r"^def (\w+)\(\)", text, re.MULTILINE)


BADLY = [*(f"bad.py:{name}" for name in named(BAD)), *(f"{name}.py:f" for name in AT_IMPORT)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"bad": BAD, "odd": ODD, "hanging": HANGING, "good": GOOD, **AT_IMPORT}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reports(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return {report["target"]: report for report in json.loads(out)["reports"]}


@pytest.mark.parametrize("target", BADLY)
def test_a_bad_target_fails_and_the_next_one_is_told(
    target: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["check", target, "good.py:good", "--format", "json", "--timeout", SECONDS, "--memory", "3GB"])
        == 1
    )
    told = reports(capfd)
    assert told["good.py:good"]["ok"]
    (finding,) = told[target]["findings"]
    assert told[target]["verdict"] == "failed"
    assert f"{target.partition(':')[0]}:" in finding["place"] + finding["note"]


def test_bad_targets_fail_beside_one_another(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    targets = [*BADLY[:10], "good.py:good", *BADLY[10:]]
    assert (
        main(["check", *targets, "--format", "json", "--timeout", SECONDS, "--memory", "3GB", "--jobs", "2"])
        == 1
    )
    told = reports(capfd)
    assert [target for target, report in told.items() if report["ok"]] == ["good.py:good"]
    assert all(told[target]["verdict"] == "failed" for target in BADLY)
    assert list(told) == targets


@pytest.mark.parametrize("name", named(ODD))
def test_odd_targets_are_judged(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = f"odd.py:{name}"
    assert main(["check", target, "good.py:good", "--format", "json"]) == 0
    told = reports(capfd)
    assert told[target]["ok"]
    assert told["good.py:good"]["ok"]


@pytest.mark.parametrize("name", named(HANGING))
def test_what_hangs_is_ended_and_its_line_told(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", f"hanging.py:{name}", "--format", "json", "--timeout", "10"]) == 1
    (finding,) = reports(capfd)[f"hanging.py:{name}"]["findings"]
    assert "longer than 10 s" in finding["note"] and "--timeout" in finding["note"]
    line = int(finding["place"].removeprefix("hanging.py:"))
    assert any(word in HANGING.splitlines()[line - 1] for word in ("pass", "while", "sleep", "def stops"))


def test_pages_of_what_failed(folder: Path) -> None:
    assert main(["report", "bad.py:leaves", "good.py:good", "--output", "pages"]) == 1
    assert "it ended the process" in (folder / "pages" / "bad.py-leaves.md").read_text()
    assert "good" in (folder / "pages" / "index.md").read_text()


def test_nothing_of_the_users_runs_in_the_process_that_tells(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "who.py").write_text(
        "import os, pathlib, torch\npathlib.Path(f'{os.getpid()}.pid').touch()\n"
        "def f(): return torch.tanh, torch.ones(2, requires_grad=True)\n"
        "class Own:\n    name = 'own'\n    def run(self, task, dtype): return None\nown = Own()\n"
    )
    assert main(["check", "who.py:f"]) == 0
    assert main(["check", "-e", "l = w**2", "--parameter", "w=1", "--engine", "who.py:own"]) == 1
    pids = {int(path.stem) for path in folder.glob("*.pid")}
    assert pids and os.getpid() not in pids


# Engines

ENGINES = """\
import ctypes, os, sys
import gradproof
from gradproof.engines import Trace

class Own:
    name = "own"
    def __init__(self, action): self.run = lambda task, dtype: action()

def fails(): raise ValueError("no")
class Silent(Exception):
    def __str__(self): raise SystemExit
def silent(): raise Silent
gives_none, raises = Own(lambda: None), Own(fails)
exits, leaves, without_words = Own(lambda: sys.exit(0)), Own(lambda: os._exit(0)), Own(silent)
gives_objects = Own(lambda: Trace({"w": object()}, {}, {}))
crashes = gradproof.engine(wrap=lambda x: ctypes.string_at(0), gradient=lambda y, xs: [1.0 for _ in xs])
no_gradient = gradproof.engine(wrap=float, gradient=lambda y, xs: None)
raises_in_gradient = gradproof.engine(wrap=float, gradient=lambda y, xs: 1 / 0)
"""


@pytest.mark.parametrize(
    "name",
    "gives_none raises exits leaves without_words gives_objects crashes no_gradient "
    "raises_in_gradient".split(),
)
def test_a_bad_engine_fails_in_every_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("engines.py").write_text(ENGINES)
    for file in ("a", "b"):
        Path(f"{file}.toml").write_text('title = "t"\ngraph = "l = w * w"\n[parameters]\nw = 2.0\n')
    assert main(["check", ".", "--engine", f"engines.py:{name}", "--format", "json"]) == 1
    told = reports(capfd)
    assert [report["verdict"] for report in told.values()] == ["failed", "failed"]
    if name not in ("no_gradient",):
        assert all(any("engines.py:" in f["note"] for f in report["findings"]) for report in told.values())


@pytest.mark.parametrize(
    ("text", "code"),
    [("import os; os._exit(0)", 1), ("raise OSError('no disk')", 1), ("own = 3", 2), ("", 2)],
)
def test_an_engine_that_cannot_be_loaded(
    text: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("engines.py").write_text(text)
    assert main(["check", "-e", "l = w * w", "--parameter", "w=2", "--engine", "engines.py:own"]) == code
    out, err = capfd.readouterr()
    assert "Traceback" not in err and "engines.py" in out + err


def test_an_engine_that_raises_is_a_finding_of_the_library_too() -> None:
    class Raising:
        name = "raising"

        def run(self, task: Any, dtype: Any) -> Trace:
            raise ZeroDivisionError("on purpose")

    report = check(parse("l = w * w", parameters={"w": 2.0}), engine=Raising())
    assert (
        report.verdict == "failed"
        and "ZeroDivisionError: on purpose at tests/test_worker.py" in report.findings[0].note
    )


# The worker itself


def giving(item: Any) -> Any:
    if isinstance(item, float):
        time.sleep(item)
    return item


class Foreign:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def foreign(_: object) -> Any:
    return Foreign()


def test_what_comes_back_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((_, outcome),) = supervised([(None, Limits())], foreign)
    assert isinstance(outcome, TargetError) and "cannot be read" in str(outcome)
    assert not Path("ran").exists()


def test_outcomes_come_as_they_are_there() -> None:
    items = [(item, Limits()) for item in (6.0, 1, 2)]
    assert [n for n, _ in supervised(items, giving, 2)] == [1, 2, 0]


def going(item: Any) -> Any:
    """Of a number its process; a word says what to do there."""
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(1000)  # another thread may be told of it, a little later
    if item == "hang":
        time.sleep(1000)
    if item == "much":
        raise MemoryError
    if item == "raise":
        raise ZeroDivisionError
    return os.getpid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_shared_processes_take_one_after_the_other(jobs: int) -> None:
    outcomes = dict(supervised([(n, Limits()) for n in range(30)], going, jobs, range(30)))
    assert sorted(outcomes) == list(range(30))
    assert 1 <= len(set(outcomes.values())) <= jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_shared_process_that_breaks_off_loses_one_item(jobs: int) -> None:
    items = [0, 1, "crash", 3, "hang", 5, "much", "raise", *range(8, 20)]
    outcomes = dict(supervised([(item, Limits(3.0)) for item in items], going, jobs, range(20)))
    assert list(map(type, (outcomes[n] for n in (2, 4, 6, 7)))) == [TargetError] * 4
    told = [str(outcomes[n]) for n in (2, 4, 6, 7)]
    assert all(word in text for word, text in zip(("SIGSEGV", "3 s", "Memory", "ZeroDiv"), told, strict=True))
    assert all(isinstance(outcomes[n], int) for n in range(20) if n not in (2, 4, 6, 7))


def test_what_runs_pythons_of_the_user_has_a_process_of_its_own_beside_shared_ones() -> None:
    outcomes = dict(supervised([(n, Limits()) for n in range(20)], going, 2, range(3, 20)))
    own = {outcomes[n] for n in range(3)}
    shared = {outcomes[n] for n in range(3, 20)}
    assert len(own) == 3 and len(shared) <= 2 and own.isdisjoint(shared)


def test_shared_processes_end_with_the_iteration() -> None:
    outcomes = supervised([(1, Limits()), ("hang", Limits()), ("hang", Limits())], going, 2, range(3))
    start = time.monotonic()
    next(outcomes)
    outcomes.close()
    assert time.monotonic() - start < 500


def test_what_a_shared_process_gives_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ((_, outcome),) = supervised([(None, Limits())], foreign, 1, [0])
    assert isinstance(outcome, TargetError) and "cannot be read" in str(outcome)
    assert not Path("ran").exists()


def test_what_is_under_way_ends_with_the_iteration() -> None:
    outcomes = supervised([(1, Limits()), (1000.0, Limits())], giving, 2)
    start = time.monotonic()
    next(outcomes)
    outcomes.close()
    assert time.monotonic() - start < 500


def test_a_worker_ends_when_nobody_waits_for_it_any_more(folder: Path) -> None:
    (folder / "long.py").write_text(
        "import os, pathlib, time\ndef f():\n    pathlib.Path('pid').write_text(str(os.getpid()))\n    "
        "time.sleep(1000)\n"
    )
    running = subprocess.Popen([sys.executable, "-m", "gradproof", "check", "long.py:f"], cwd=folder)
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        time.sleep(0.1)
    pid = int((folder / "pid").read_text())
    running.send_signal(signal.SIGKILL)
    running.wait()
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the worker goes on")


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 2**32), ("1.5g", 3 * 2**29), ("512 MiB", 2**29), ("7", 7), ("0", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert amount(text) == size


@pytest.mark.parametrize(
    "option", [("--timeout", "soon"), ("--timeout", "-1"), ("--timeout", "inf"), ("--memory", "lots")]
)
def test_bad_limits_are_told(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["check", "f.py:f", *option])
    assert option[1] in capsys.readouterr().err


def test_there_is_a_limit() -> None:
    assert 2**28 < half_of_memory() < 2**50


def test_files_have_a_limit_where_one_was_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "large.toml"
    file.write_text(
        'title = "t"\ngraph = "l = sum(exp(tanh(A @ B)))"\n[given]\nA = { shape = [150, 150], sample = '
        '"normal", seed = 0 }\n'
        '[parameters]\nB = { shape = [150, 150], sample = "normal", seed = 1 }\n'
    )
    assert main(["check", str(file), "--timeout", "0.5"]) == 1
    assert "longer than 0.5 s" in capfd.readouterr().out
