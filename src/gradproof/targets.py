"""Python of the user's: `file.py:name` and `package.module:name`, a function that returns `(func, inputs)` or an engine."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError, Place, did_you_mean, said


def is_function(target: str) -> bool:
    """Whether a target names a function and not a file."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or Path(target).exists():
        return False
    return where.endswith(".py") or (all(part.isidentifier() for part in where.split(".")) and name.isidentifier())


def functions_in(path: Path) -> list[str]:
    """The functions of a file that can be called without arguments, by reading it: nothing of it runs."""
    with suppress(SyntaxError, ValueError, OSError):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        functions = [node for node in body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
        return [node.name for node in functions if len(node.args.args) == len(node.args.defaults) and not node.args.posonlyargs]
    return []


def load_function(target: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function to check, and its inputs.

    Raises `InputError` where the module cannot be loaded, has no such name, or that does not return `(func, inputs)`.
    """
    make, name, place = _named(target, "a function that returns (func, inputs)"), target.rpartition(":")[2], Place(target)
    if not callable(make):
        raise InputError(f"{name!r} is a {type(make).__name__}, expected a function that returns (func, inputs)", place)
    try:
        made = make()
    except Exception as error:
        raise InputError(f"{name}() raised {said(error)}; expected a function without arguments", place) from None
    if not (isinstance(made, tuple | list) and len(made) == 2 and callable(made[0])):
        raise InputError(f"{name}() returned a {type(made).__name__}, expected (func, inputs) with a callable first", place)
    func, inputs = made
    return func, tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


@cache
def load_engine(target: str) -> Any:
    """The engine of that name.

    Raises `InputError` where the module cannot be loaded, has no such name, or that is no engine.
    """
    engine = _named(target, "an engine, as gradproof.engine(...) makes one")
    if not (isinstance(getattr(engine, "name", None), str) and callable(getattr(engine, "run", None))):
        kind = type(engine).__name__
        raise InputError(f"this is a {kind}, expected an engine, as gradproof.engine(...) makes one", Place(target))
    return engine


def _named(target: str, expected: str) -> Any:
    where, _, name = target.rpartition(":")
    module = _from_file(Path(where)) if where.endswith(".py") else _from_name(where)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise InputError(f"{where} has no {name!r}{did_you_mean(name, known) or f'; expected {expected}'}", Place(target))
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
        raise InputError(f"SyntaxError: {error.msg}", Place(str(path), error.lineno or 0, error.offset or 0)) from None
    except (Exception, SystemExit) as error:
        raise InputError(f"cannot be loaded: {said(error)}", Place(str(path))) from None
    finally:
        sys.path.pop(0)
        if before is not None:
            sys.modules[path.stem] = before
    return module


def _from_name(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise InputError(f"module {name!r} cannot be loaded: {said(error)}") from None
    finally:
        sys.path.pop(0)
