"""The expression files that come along: in the package after an installation, beside the sources before."""

from __future__ import annotations

import shutil
from pathlib import Path

from .errors import InputError, Place, did_you_mean

_HERE = Path(__file__).parent
_FOLDERS = (_HERE / "expressions", _HERE.parents[1] / "expressions")


def folder() -> Path:
    """Where they lie.

    Raises `InputError` where they did not come along.
    """
    found = next((path for path in _FOLDERS if (path / "ols.toml").is_file()), None)
    if found is None:
        raise InputError("the examples did not come along with this installation", Place(str(_FOLDERS[0])))
    return found


def names() -> list[str]:
    """Their names: `ols`, `attention`."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def path_of(name: str) -> Path:
    """The file of that name.

    Raises `InputError` for any other name.
    """
    path = folder() / f"{name.removesuffix('.toml')}.toml"
    if not path.is_file() or path.parent != folder():
        near = did_you_mean(name, names()) or "; `gradproof examples` lists them"
        raise InputError(f"there is no example {name!r}{near}")
    return path


def copy_to(target: Path) -> int:
    """Copy all of them, with the data that they read, to a folder; how many there are.

    Raises `InputError` where one is there already, and is another, or the folder cannot be written to.
    """
    files = [path for path in folder().iterdir() if path.is_file()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in files:
            there = target / path.name
            if there.exists() and there.read_bytes() != path.read_bytes():
                raise InputError(
                    "is there already, and is another file; nothing was copied over it", Place(str(there))
                )
            shutil.copyfile(path, there)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", Place(str(error.filename or target))
        ) from None
    return len(names())
