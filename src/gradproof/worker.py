"""Work in processes of its own: Python of the user's, and what is spread over several.

Whatever happens there (it ends the process, crashes, hangs, takes all memory, forks, closes every file) is
told as data: a `TargetError` with the user's line, and the next piece of work has a process that knows
nothing of it. Each is forked from a server that has loaded the libraries and run nothing, where the system
can; so it costs no import.

What runs nothing of the user's, files on engines that come along, shares processes that take one after the
other: they have SymPy's derivatives of those before. Where one breaks off, its item is tried alone.

Processes, clock and limits are the standard library's. Its pools, and others', share channels between
workers: one that ends with exit code 0, or writes where it should not, hangs them all. So what is given comes
back in a file, or by a line that no other has, and nothing of it is loaded but records of ours and of the
libraries that they are made of.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any, Generic, NoReturn, TextIO, TypeVar

from .errors import OURS, GradproofError, InputError, Place, TargetError, last_line, raised_at, said
from .packing import loaded, packed

T = TypeVar("T")
R = TypeVar("R")

PRELOADED = ["gradproof.warm"]
STARTS = 3  # of a process, where the server is gone
UNKNOWN = 255  # the exit code of a process whose server is gone


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


@dataclass(eq=False)
class _Run:
    """A process under way, and the pieces of work that it has: the first is in hand.

    One of its own has no `line`, and leaves what it gives in its folder. A shared one hears and tells by its
    line.
    """

    pieces: deque[int]
    process: Any
    folder: tempfile.TemporaryDirectory[str]
    limits: Limits
    line: Any = None
    ends: float = float("inf")  # on the monotonic clock, for the piece in hand
    ended: bool = False

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The clock of the piece in hand starts."""
        self.ends = time.monotonic() + (self.limits.seconds or float("inf"))

    @property
    def handles(self) -> list[Any]:
        """What there is to wait for: that it ends, and that it tells something."""
        return [self.process.sentinel, *([self.line] if self.line is not None else [])]

    @property
    def late(self) -> bool:
        return self.ends <= time.monotonic()

    def give(self, item: object) -> None:
        """To a shared one. That it has ended is seen where it tells nothing."""
        with suppress(OSError):
            self.line.send(item)

    def heard(self) -> bytes | None:
        """What it told next; None where that is nothing."""
        try:
            return self.line.recv_bytes() if self.line is not None and self.line.poll() else None
        except (EOFError, OSError):
            self.ended = True
            return None

    def stop(self) -> None:
        """End it, and what it started."""
        with suppress(OSError, AttributeError):  # it is gone, or has no group yet; a system without groups
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(OSError):
            self.process.kill()
        self.process.join()
        if self.line is not None:
            self.line.close()

    def gone(self) -> None:
        """End it, and leave nothing of it."""
        self.stop()
        self.folder.cleanup()


def supervised(
    items: Sequence[tuple[T, Limits]],
    function: Callable[[T], R],
    jobs: int = 1,
    shared: Collection[int] = (),
    where: str = "",
) -> Generator[tuple[int, R | GradproofError]]:
    """What the function gives for each item, as it comes, so many at a time, each in a process of its own
    with its limits.

    The items with the numbers `shared`, which run nothing of the user's, go to processes that take one after
    the other, with what they have loaded and derived so far. Where such a process breaks off, its item has
    one of its own, and the rest another one. All run in the folder `where`, or in that of who calls.

    Errors of ours that it raises are given too, and a `TargetError` for whatever else happens. When the
    iteration is closed, what is under way ends.
    """
    crew = _Crew(items, function, jobs, shared, where or str(Path.cwd()))
    try:
        while crew.busy:
            crew.fill()
            for run in crew.ready():
                yield from crew.came(run)
    finally:
        for run in crew.running:
            run.gone()
    for n in crew.again:
        yield n, alone(*items[n], function, where)


class _Crew(Generic[T, R]):
    """The processes under way, and the items that wait for one."""

    def __init__(
        self,
        items: Sequence[tuple[T, Limits]],
        function: Callable[[T], R],
        jobs: int,
        shared: Collection[int],
        where: str,
    ) -> None:
        self.items, self.function, self.jobs, self.where = items, function, jobs, where
        self.context = _context()
        self.own = deque(n for n in range(len(items)) if n not in shared)
        self.many = deque(n for n in range(len(items)) if n in shared)
        self.running: list[_Run] = []
        self.again: list[int] = []  # ended with the server, or with a shared process: another may be to blame

    @property
    def busy(self) -> bool:
        return bool(self.own or self.many or self.running)

    def fill(self) -> None:
        """As many processes as there may be; an item that needs its own goes first."""
        while (self.own or self.many) and len(self.running) < self.jobs:
            one = bool(self.own)
            n = (self.own or self.many).popleft()
            run = _start(self.context, n, *self.items[n], self.function, self.where, 0 if one else self.jobs)
            self.running.append(run)
            self.feed(run)

    def feed(self, run: _Run) -> None:
        """While there is much to do, an item waits where it is needed next: nobody waits for it."""
        most = 2 if len(self.many) > self.jobs else 1
        while run.line is not None and self.many and len(run.pieces) < most:
            n = self.many.popleft()
            run.pieces.append(n)
            run.give(self.items[n][0])

    def ready(self) -> list[_Run]:
        """Those that have told something or have ended, when one has or its time is up."""
        first = min(run.ends for run in self.running)
        handles = [handle for run in self.running for handle in run.handles]
        found = set(wait(handles, max(first - time.monotonic(), 0.0) if first < float("inf") else None))
        return [run for run in self.running if run.late or not found.isdisjoint(run.handles)]

    def came(self, run: _Run) -> Iterator[tuple[int, R | GradproofError]]:
        """What a process told, and what became of it."""
        late, ended = run.late, bool(wait([run.process.sentinel], 0))
        while run.pieces and (text := run.heard()) is not None:
            n, late = run.pieces.popleft(), False
            run.begin()
            self.feed(run)
            yield n, loaded(text)
        if run.pieces and not (late or ended or run.ended):
            return
        self.running.remove(run)
        run.stop()
        outcome = _outcome(run, in_time=not late)
        run.folder.cleanup()
        if not run.pieces:
            return
        n, *rest = run.pieces
        self.many.extendleft(reversed(rest))
        gone = run.process.exitcode == UNKNOWN and isinstance(outcome, TargetError) and self.jobs > 1
        if not late and (gone or run.line is not None):
            self.again.append(n)
        else:
            yield n, outcome


def _context() -> Any:
    """What makes processes: forked from a server that has loaded the libraries, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def prepare() -> None:
    """Start what processes are forked from, where the system can; it loads the libraries meanwhile."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing.forkserver import ensure_running

        _context()
        ensure_running()


def alone(item: T, limits: Limits, function: Callable[[T], R], where: str = "") -> R | GradproofError:
    """What the function gives for one item."""
    ((_, outcome),) = supervised([(item, limits)], function, where=where)
    return outcome


def _start(
    context: Any,
    n: int,
    item: T,
    limits: Limits,
    function: Callable[[T], object],
    where: str,
    shared: int,
) -> _Run:
    """A process for an item of its own; or one of so many shared ones, that has this item first."""
    folder = tempfile.TemporaryDirectory(prefix="gradproof.", ignore_cleanup_errors=True)
    ours: Any = None
    its: Any = None
    if shared:
        ours, its = context.Pipe()
    told: tuple[Any, ...] = (function, its if shared else item, folder.name, limits, where)
    for left in reversed(range(STARTS)):
        process = context.Process(
            target=_work_on if shared else _work, args=(*told, shared) if shared else told
        )
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
    run = _Run(deque([n]), process, folder, limits, ours)
    if shared:
        its.close()  # so that it is known when the process has ended
        run.give(item)
    return run


# What came of it


def _outcome(run: _Run, in_time: bool) -> Any:
    folder = Path(run.folder.name)
    with suppress(OSError):  # it gave nothing
        return loaded((folder / "given").read_bytes())
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
    trace = _begun(name, limits, where)
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
    try:
        given = _given(function, item)
    except MemoryError as error:
        given = TargetError(
            f"{said(error)}: it may use {_amount(limits.memory)}; --memory gives it more", raised_at(error)
        )
    _leave(packed(given), Path(name))
    leave(0)


def _work_on(
    function: Callable[[T], object], line: Any, name: str, limits: Limits, where: str, jobs: int
) -> NoReturn:
    """Run the function of one item after the other, and tell what it gives at once, until nobody asks.

    Where there are several such processes, torch's threads would wait for one another: each has its share.
    """
    trace = _begun(name, limits, where)
    torch = sys.modules.get("torch")
    if torch is not None and jobs > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    with suppress(EOFError, OSError, MemoryError):  # out of memory after many: the item has another chance
        while True:
            item = line.recv()
            if limits.seconds:
                faulthandler.dump_traceback_later(limits.seconds * 0.95, file=trace)
            line.send_bytes(packed(_given(function, item)))
    os._exit(1)


def _begun(name: str, limits: Limits, where: str) -> TextIO:
    """A process is as it should be; its trace is given, where faults are written to."""
    _settle(where)
    trace = (Path(name) / "trace").open("w")
    faulthandler.enable(trace, all_threads=False)
    _limit(limits.memory)
    return trace


def _given(function: Callable[[T], object], item: T) -> object:
    """What the function gives, or what went wrong; but `MemoryError` is raised."""
    try:
        return function(item)
    except GradproofError as error:
        return error
    except MemoryError:
        raise
    except SystemExit as error:
        return TargetError(
            f"it called for the end of the process: SystemExit({error.code!r})"[:200], raised_at(error)
        )
    except BaseException as error:
        return TargetError(f"raised {said(error)}", raised_at(error))


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


def _leave(text: bytes, folder: Path) -> None:
    """Written whole or not at all."""
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
