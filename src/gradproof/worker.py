"""Work in processes of its own: Python of the user's, and what is spread over several.

Whatever happens there (it ends the process, crashes, hangs, takes all memory, forks, closes every file) is
told as data: a `TargetError` with the user's line, and the next piece of work has a process that knows
nothing of it. Each is forked from a server that has loaded the libraries and run nothing, where the system
can; so it costs no import.

Processes, clock and limits are the standard library's. Its pools, and others', share channels between
workers: one that ends with exit code 0, or writes where it should not, hangs them all. So what is given comes
back in a file, and nothing of it is loaded but records of ours and of the libraries that they are made of.
"""

from __future__ import annotations

import faulthandler
import io
import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from .errors import OURS, GradproofError, InputError, Place, TargetError, last_line, raised_at, said

T = TypeVar("T")
R = TypeVar("R")

PRELOADED = ["gradproof.warm"]
STARTS = 3  # of a process, where the server is gone
UNKNOWN = 255  # the exit code of a process whose server is gone
TRUSTED = "gradproof sympy numpy flint mpmath collections pathlib ast fractions decimal".split()
PLAIN = ("set", "frozenset", "complex", "slice", "range", "bytearray", "object")


@dataclass(frozen=True)
class Limits:
    """Of one piece of work: `seconds` of time and `memory` in bytes; 0 for none."""

    seconds: float = 600.0
    memory: int = 0


def half_of_memory() -> int:
    """Half of what this machine, or the group of processes that we are in, may use, in bytes; 0 where nobody
    says."""
    known = []
    with suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            known.append(int(Path(file).read_text()))
    return min(known, default=0) // 2


@dataclass(frozen=True, eq=False)
class _Run:
    """A piece of work under way."""

    n: int
    process: Any
    folder: tempfile.TemporaryDirectory[str]
    limits: Limits
    ends: float  # on the monotonic clock

    def stop(self) -> None:
        """End it, and what it started."""
        with suppress(OSError, AttributeError):  # it is gone, or has no group yet; a system without groups
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(OSError):
            self.process.kill()
        self.process.join()


def supervised(
    items: Sequence[tuple[T, Limits]], function: Callable[[T], R], jobs: int = 1
) -> Generator[tuple[int, R | GradproofError]]:
    """What the function gives for each item, as it comes, so many at a time, each in a process of its own
    with its limits.

    Errors of ours that it raises are given too, and a `TargetError` for whatever else happens. When the
    iteration is closed, what is under way ends.
    """
    context = _context()
    waiting = deque(range(len(items)))
    running: dict[Any, _Run] = {}
    again: list[int] = []  # ended with the server, which another may have ended
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                n = waiting.popleft()
                run = _start(context, n, *items[n], function)
                running[run.process.sentinel] = run
            for sentinel, in_time in _wait(running).items():
                run = running.pop(sentinel)
                run.stop()
                outcome = _outcome(run, in_time)
                run.folder.cleanup()
                lost = in_time and run.process.exitcode == UNKNOWN and isinstance(outcome, TargetError)
                if jobs > 1 and lost:
                    again.append(run.n)
                else:
                    yield run.n, outcome
    finally:
        for run in running.values():
            run.stop()
            run.folder.cleanup()
    for n in again:
        yield n, alone(*items[n], function)


def _context() -> Any:
    """What makes processes: forked from a server that has loaded the libraries, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _wait(running: Mapping[Any, _Run]) -> dict[Any, bool]:
    """Those that have ended, when one has or its time is up: by sentinel, whether it was in time."""
    first = min(run.ends for run in running.values())
    ended = wait(list(running), max(first - time.monotonic(), 0.0) if first < float("inf") else None)
    late = [sentinel for sentinel, run in running.items() if run.ends <= time.monotonic()]
    return {sentinel: sentinel in ended for sentinel in {*ended, *late}}


def alone(item: T, limits: Limits, function: Callable[[T], R]) -> R | GradproofError:
    """What the function gives for one item."""
    ((_, outcome),) = supervised([(item, limits)], function)
    return outcome


def _start(context: Any, n: int, item: T, limits: Limits, function: Callable[[T], object]) -> _Run:
    folder = tempfile.TemporaryDirectory(prefix="gradproof.", ignore_cleanup_errors=True)
    for left in reversed(range(STARTS)):
        process = context.Process(target=_work, args=(function, item, folder.name, limits, str(Path.cwd())))
        try:
            process.start()
            break
        except (
            EOFError,
            OSError,
        ) as error:  # somebody ended the server; there is a new one when it is asked again
            if not left:
                folder.cleanup()
                raise InputError(f"no process can be started: {said(error)}") from None
            time.sleep(0.1)
    return _Run(n, process, folder, limits, time.monotonic() + (limits.seconds or float("inf")))


# What came of it


class _Reader(pickle.Unpickler):
    """Loads records of ours and of the libraries beneath; a class of the user's would run code of the
    user's."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in TRUSTED or (module == "builtins" and name in PLAIN):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def _outcome(run: _Run, in_time: bool) -> Any:
    folder = Path(run.folder.name)
    try:
        return _Reader(io.BytesIO((folder / "given").read_bytes())).load()
    except OSError:
        pass  # it gave nothing
    except Exception as error:
        return TargetError(f"what it gave cannot be read: {said(error)}")
    try:
        place = _last_line((folder / "trace").read_text(errors="replace"))
    except OSError:
        place = None
    if not in_time:
        why = f"it took longer than {run.limits.seconds:g} s and was ended; --timeout SECONDS gives it more"
        return TargetError(why, place)
    return TargetError(_ended(run.process.exitcode), place)


def _last_line(trace: str) -> Place | None:
    """The user's line in the last stack that faulthandler wrote, of the thread that ended the process or of
    the main one."""
    stacks = [
        re.findall(r'^  File "(.+)", line (\d+) in ', stack, re.MULTILINE)
        for stack in re.split(r"\n(?=\S)", trace)
    ]
    places = (last_line([(file, int(line)) for file, line in reversed(stack)]) for stack in reversed(stacks))
    return next((place for place in places if place is not None), None)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            killed = signal.Signals(-code).name
            why = "; the system does so when memory runs out" if killed == "SIGKILL" else ""
            return (
                f"the process was ended by {killed} ({signal.strsignal(-code)}) before it gave anything{why}"
            )
    return f"it ended the process (exit code {code}) before it gave anything"


# In the process


def _work(function: Callable[[T], object], item: T, name: str, limits: Limits, where: str) -> NoReturn:
    """Run the function of an item, leave what it gives in the folder, and end."""
    leave, own = os._exit, os.getpid()
    _settle(where)
    trace = (Path(name) / "trace").open("w")
    faulthandler.enable(trace, all_threads=False)
    if limits.seconds:
        faulthandler.dump_traceback_later(limits.seconds * 0.95, file=trace)

    def told(status: int) -> NoReturn:
        """Python's own has no trace: where a process ended itself, nobody could tell."""
        if os.getpid() == own:
            with suppress(ValueError, OSError):
                faulthandler.dump_traceback(trace, all_threads=False)
        leave(status)

    os._exit = told
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: sys.setprofile(partial(_no_twin, leave)))
    _limit(limits.memory)
    try:
        given: object = function(item)
    except GradproofError as error:
        given = error
    except MemoryError as error:
        given = TargetError(
            f"{said(error)}: it may use {_amount(limits.memory)}; --memory gives it more", raised_at(error)
        )
    except SystemExit as error:
        given = TargetError(
            f"it called for the end of the process: SystemExit({error.code!r})"[:200], raised_at(error)
        )
    except BaseException as error:
        given = TargetError(f"raised {said(error)}", raised_at(error))
    _leave(given, Path(name))
    leave(0)


def _no_twin(leave: Callable[[int], NoReturn], frame: FrameType, event: str, _: object) -> None:
    """A fork of the user's is the user's; where it comes back to our code, it would do all our work a second
    time."""
    if event == "return" and frame.f_back is not None:
        ours, above = (f.f_code.co_filename.startswith(OURS) for f in (frame, frame.f_back))
        if above and not ours:
            leave(0)


def _settle(where: str) -> None:
    """In the folder of who started us, in a group of our own, with a stdout that is no report's."""
    with suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    with suppress(OSError):
        os.chdir(where)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr
    with suppress(OSError):
        os.dup2(2, 1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:
    """Who started us is gone: nobody waits for this any more."""
    parent.join()
    with suppress(OSError, AttributeError):
        os.killpg(0, signal.SIGKILL)


def _limit(memory: int) -> None:
    """What is written to counts; libraries reserve far more addresses than that."""
    if not memory:
        return
    try:
        import resource
    except ImportError:
        return  # a system without limits
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_DATA, (memory if most == resource.RLIM_INFINITY else min(memory, most), most)
        )


def _leave(given: object, folder: Path) -> None:
    """Written whole or not at all."""
    try:
        text = pickle.dumps(given)
    except Exception as error:
        text = pickle.dumps(TargetError(f"what it gave cannot be told: {said(error)}"))
    (folder / "half").write_bytes(text)
    (folder / "half").replace(folder / "given")


def _amount(memory: int) -> str:
    return f"{memory / 2**30:.3g} GB" if memory else "all there is"


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def amount(text: str) -> int:
    """Bytes, of `4GB`, `500M` or a number.

    >>> amount("4GB"), amount("1.5g"), amount("1000")
    (4294967296, 1610612736, 1000)

    Raises `ValueError`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * _UNITS[match[2].upper()])
