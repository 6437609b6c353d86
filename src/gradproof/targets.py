"""Python of the user's: `file.py:name` and `package.module:name`, a function that returns `(func, inputs)` or
an engine.

What cannot be found, or is not of the kind that it should be, is bad input (`InputError`); what it does when
it runs is its own failure (`TargetError`). The command line runs it in a process of its own (`worker.py`).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError, Place, TargetError, did_you_mean, raised_at, said, shown


def is_function(target: str) -> bool:
    """Whether a target names a function and not a file."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or Path(target).exists():
        return False
    return where.endswith(".py") or (
        all(part.isidentifier() for part in where.split(".")) and name.isidentifier()
    )


def functions_in(path: Path) -> list[str]:
    """The functions of a file that can be called without arguments, by reading it: nothing of it runs."""
    functions = [node for node in _functions(path) if not node.name.startswith("_")]
    return [
        node.name
        for node in functions
        if len(node.args.args) == len(node.args.defaults) and not node.args.posonlyargs
    ]


def _functions(path: Path) -> list[ast.FunctionDef]:
    """Those at the top of a file; none of one that cannot be read."""
    with suppress(SyntaxError, ValueError, OSError):
        return [
            node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        ]
    return []


def found_at(target: str) -> Place | None:
    """Where a function of a file stands, by reading it."""
    where, _, name = target.rpartition(":")
    lines = [node.lineno for node in _functions(Path(where)) if node.name == name]
    return Place(where, lines[-1]) if lines else None


def load_function(target: str) -> tuple[Callable[..., object], tuple[object, ...]]:
    """The function to check, and its inputs.

    Raises `InputError` where there is no such module, or no such function in it, and `TargetError` where they
    raise or return something else.
    """
    make, name, place = (
        _named(target, "a function that returns (func, inputs)"),
        target.rpartition(":")[2],
        Place(target),
    )
    if not callable(make):
        raise InputError(
            f"{name!r} is a {type(make).__name__}, expected a function that returns (func, inputs)", place
        )
    _without_arguments(make, name, place)
    try:
        made = make()
    except (Exception, SystemExit) as error:
        raise TargetError(f"{name}() raised {said(error)}", raised_at(error)) from None
    if not (isinstance(made, tuple | list) and len(made) == 2 and callable(made[0])):
        what = f"a {type(made).__name__}" + (f" of {len(made)}" if isinstance(made, tuple | list) else "")
        raise TargetError(
            f"{name}() returned {what}, expected (func, inputs) with a callable first", defined_at(make)
        )
    func, inputs = made
    return func, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def _without_arguments(make: Callable[..., object], name: str, place: Place) -> None:
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise InputError(f"{name}(): {error}; expected a function without arguments", place) from None
    except ValueError:
        return  # it has no signature to look at


def defined_at(function: object) -> Place | None:
    """Where a function of Python's stands."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return Place(shown(code.co_filename), code.co_firstlineno) if code is not None else None


@cache
def load_engine(target: str) -> Any:
    """The engine of that name.

    Raises `InputError` where there is no such module, no such name in it, or that is no engine, and
    `TargetError` where the module raises.
    """
    engine = _named(target, "an engine, as gradproof.engine(...) makes one")
    if not (isinstance(getattr(engine, "name", None), str) and callable(getattr(engine, "run", None))):
        kind = type(engine).__name__
        raise InputError(
            f"this is a {kind}, expected an engine, as gradproof.engine(...) makes one", Place(target)
        )
    return engine


def _named(target: str, expected: str) -> Any:
    where, _, name = target.rpartition(":")
    module = _from_file(Path(where)) if where.endswith(".py") else _from_name(where)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise InputError(
            f"{where} has no {name!r}{did_you_mean(name, known) or f'; expected {expected}'}", Place(target)
        )
    return getattr(module, name)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError("there is no such file", Place(str(path)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError("is no Python module", Place(str(path)))
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python file.py` does
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(
            f"SyntaxError: {error.msg}", Place(str(path), error.lineno or 0, error.offset or 0)
        ) from None
    except (Exception, SystemExit) as error:
        raise TargetError(
            f"it cannot be loaded: {said(error)}", raised_at(error) or Place(str(path))
        ) from None
    finally:
        sys.path.pop(0)
        if before is not None:
            sys.modules[path.stem] = before
    return module


def _from_name(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        place = Place(error.filename or name, error.lineno or 0, error.offset or 0)
        raise InputError(f"SyntaxError: {error.msg}", place) from None
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(f"there is no module {name!r}: {said(error)}") from None
        raise TargetError(f"module {name!r} cannot be loaded: {said(error)}", raised_at(error)) from None
    except (Exception, SystemExit) as error:
        raise TargetError(f"module {name!r} cannot be loaded: {said(error)}", raised_at(error)) from None
    finally:
        sys.path.pop(0)
