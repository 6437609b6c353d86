"""The record of earlier runs: what came of a target, for as long as nothing that it stands on has changed.

A target's entry is found by its name, the folder it is named from, the engines, the dtype, the versions of
the libraries and our own sources; it holds for as long as every file that the check read has the content that
it had then. What `failed` is not kept: another run may have more time or memory. Entries are files of text,
written in one step; one that is damaged is no entry, and is written anew. Nothing that is read back is loaded
as code: numbers and words fill records of ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import causes
from .causes import Cause
from .errors import OURS, GradproofError, InputError
from .output import write
from .verdict import Finding, Numbers, Verdict

if TYPE_CHECKING:
    from .report import Report

LIBRARIES = "sympy python-flint numpy torch jax jaxlib autograd scipy tinygrad".split()
KEPT = 90 * 24 * 3600  # seconds that an entry is kept without being asked for
LARGEST = 4_000_000  # bytes of an entry; what is larger is checked again

Make = Callable[[], Any] | str  # what makes the problem, or a function's name


# What was read


@dataclass(frozen=True, eq=False)
class Seen:
    """What was made of a target, and of each file that was read meanwhile the digest, "" where there was
    none; None where one changed meanwhile."""

    reports: Sequence[Report]
    reads: Mapping[str, str] | None


class _Opened:
    """The files that are opened in this process, while somebody wants to know; a hook cannot be removed."""

    def __init__(self) -> None:
        self.wanted = False
        self.read: set[str] = set()
        self.written: set[str] = set()
        sys.addaudithook(self.hear)

    def hear(self, event: str, told: tuple[Any, ...]) -> None:
        if self.wanted and event == "open":
            path, mode, flags = told
            if isinstance(path, str | bytes | os.PathLike):
                writes = any(c in mode for c in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR))
                (self.written if writes else self.read).add(str(Path(os.fsdecode(path)).absolute()))


_opened = cache(_Opened)


def watched(run: Callable[[Any], Sequence[Report]], make: Make) -> Seen:
    """What `run` gives of a target, and what it read: data, and the user's modules.

    Raises what `run` raises.
    """
    opened, began, loaded = _opened(), time.time(), set(sys.modules)
    opened.read, opened.written, opened.wanted = set(), set(), True
    try:
        reports = run(make)
    finally:
        opened.wanted = False
    modules = [module for name, module in [*sys.modules.items()] if name not in loaded]
    sources = [file for module in modules if isinstance(file := getattr(module, "__file__", None), str)]
    files = {str(Path(file).absolute()) for file in sources} | opened.read
    reads = {file: digest(file) for file in sorted(files - opened.written) if _counts(file)}
    return Seen(reports, None if any(_changed(file, began) for file in reads) else reads)


def _counts(file: str) -> bool:
    """Whether a file is the user's; versions tell of libraries, and the sources of our own are looked at."""
    if file.endswith((".pyc", ".so")) or file.startswith(("/proc/", "/dev/", "/sys/")):
        return False
    of_library = f"{os.sep}site-packages{os.sep}" in file or file.startswith(sysconfig.get_path("stdlib"))
    return not (of_library or file.startswith(OURS)) or file.endswith((".toml", ".csv"))


def _changed(file: str, began: float) -> bool:
    try:
        return Path(file).stat().st_mtime > began
    except OSError:
        return False


def digest(file: str) -> str:
    """Of a file's content; "" where there is no such file."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""


@cache
def versions() -> dict[str, str]:
    """Of what a report stands on: Python, the libraries that are installed, our own sources by a digest."""
    found = {"python": sys.version}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    own = hashlib.sha256()
    for path in sorted(Path(OURS).rglob("*.py")):
        own.update(path.read_bytes())
    return found | {"gradproof": own.hexdigest()}


# Entries


def folder_of_records() -> Path:
    """Where entries lie: below GRADPROOF_CACHE, or the user's own folder for caches."""
    named = os.environ.get("GRADPROOF_CACHE")
    if named:
        return Path(named) / "record"
    from platformdirs import user_cache_path

    return user_cache_path("gradproof") / "record"


@dataclass(frozen=True)
class Record:
    """The entries of a folder, for one choice of engines and dtype.

    Reports that come from it say so in a remark, where they are to be `marked`.
    """

    folder: Path
    engines: tuple[str, ...]
    dtype: str | None
    marked: bool = True

    def known(self, target: str, make: Make) -> list[Report] | None:
        """The reports of an earlier run; None where there is none, or something has changed."""
        path = self._path(target, make)
        try:
            head, _, text = path.read_text(encoding="utf-8").partition("\n")
            if head != hashlib.sha256(text.encode()).hexdigest():
                return None
            entry = json.loads(text)
            if any(digest(file) != content for file, content in entry["reads"].items()):
                return None
            reports = _reports(entry["reports"], make)
            os.utime(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, GradproofError):
            return None  # there is none, or it is damaged, or of another form
        if not self.marked:
            return reports
        told = f"Unchanged since {entry['when']}, when it was checked: shown from the record."
        return [replace(report, remarks=(*report.remarks, told)) for report in reports]

    def keep(self, target: str, make: Make, seen: Seen) -> None:
        """An entry of what came. One that cannot be written is told by the next run alone, which checks
        again."""
        if seen.reads is None or any(report.verdict is Verdict.FAILED for report in seen.reports):
            return
        entry = {"when": str(date.today()), "reads": dict(seen.reads)}
        try:
            text = json.dumps(entry | {"reports": [_plain(_fields(report)) for report in seen.reports]})
        except TypeError:
            return  # what is not of numbers and words
        if len(text) <= LARGEST:
            with suppress(InputError):
                write(self._path(target, make), f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")

    def tidy(self) -> None:
        """Entries that nobody has asked for in a long time go."""
        with suppress(OSError):
            for path in self.folder.glob("*.json"):
                if path.stat().st_mtime < time.time() - KEPT:
                    path.unlink()

    def _path(self, target: str, make: Make) -> Path:
        given = [repr(make.args), repr(make.keywords)] if isinstance(make, partial) else []
        what = [versions(), self.engines, self.dtype, target, str(Path.cwd()), given]
        return self.folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()}.json"


_LEFT_OUT = ("problem", "derivation")  # of a report: made of the file again, which is as it was


def _fields(report: Report) -> dict[str, Any]:
    return {f.name: getattr(report, f.name) for f in fields(report) if f.name not in _LEFT_OUT}


def _reports(entries: Sequence[Any], make: Make) -> list[Report]:
    from .report import Report
    from .telling.derivation import derive

    if isinstance(make, str):
        return [Report(**_read(entry)) for entry in entries]
    problem = make()
    derivation = derive(problem.graph)
    return [Report(**_read(entry), problem=problem, derivation=derivation) for entry in entries]


_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in [*vars(causes).values(), Finding, Numbers]
    if isinstance(kind, type) and (issubclass(kind, Cause) or kind in (Finding, Numbers))
}


def _plain(thing: Any) -> Any:
    """As JSON holds it, so that it can be read back as it was.

    Raises `TypeError` for what is neither a number, a word, an array, nor a record of these.
    """
    if isinstance(thing, Verdict):
        return {"verdict": thing.value}
    if isinstance(thing, np.ndarray):
        if thing.dtype.kind not in "fiub":
            raise TypeError(thing.dtype)
        content = base64.b64encode(np.ascontiguousarray(thing).tobytes()).decode()
        return {"array": content, "dtype": thing.dtype.str, "shape": list(thing.shape)}
    if isinstance(thing, np.generic):
        return {"scalar": _plain(np.asarray(thing))}
    if isinstance(thing, Mapping):
        return {"mapping": [[_plain(key), _plain(value)] for key, value in thing.items()]}
    if isinstance(thing, tuple | list):
        return {type(thing).__name__: [_plain(each) for each in thing]}
    if type(thing).__name__ in _KINDS:
        values = {f.name: _plain(getattr(thing, f.name)) for f in fields(thing)}
        return {"is": type(thing).__name__, "has": values}
    return thing


def _read(thing: Any) -> Any:
    """What `_plain` was given."""
    match thing:
        case {"is": name, "has": values}:
            return _KINDS[name](**{str(key): _read(value) for key, value in values.items()})
        case {"verdict": name}:
            return Verdict(name)
        case {"array": content, "dtype": dtype, "shape": shape}:
            return np.frombuffer(base64.b64decode(content), np.dtype(dtype)).reshape(shape).copy()
        case {"scalar": array}:
            return _read(array)[()]
        case {"mapping": items}:
            return {_read(key): _read(value) for key, value in items}
        case {"tuple": items}:
            return tuple(map(_read, items))
        case {"list": items}:
            return [*map(_read, items)]
    return thing
