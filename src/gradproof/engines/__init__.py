"""The engines under test: one file each, imported when asked for.

An engine interprets the user's own lines with its own operations. It shares the parse tree with the reference
and nothing else: this package never imports the graph's calculus, arithmetic or reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from ..dtypes import DType
from ..errors import EngineError, did_you_mean
from ..language.syntax import Statement
from ..targets import is_function, load_engine

# name: (module, the extra that installs it, the libraries that it needs)
ENGINES = {
    "torch": ("gradproof.engines.torch", "gradproof", ("torch",)),
    "torch-forward": ("gradproof.engines.torch_forward", "gradproof", ("torch",)),
    "torch-func": ("gradproof.engines.torch_func", "gradproof", ("torch",)),
    "torch-compile": ("gradproof.engines.torch_compile", "gradproof", ("torch",)),
    "jax": ("gradproof.engines.jax", "gradproof[jax]", ("jax", "jaxlib")),
    "jax-forward": ("gradproof.engines.jax_forward", "gradproof[jax]", ("jax", "jaxlib")),
    "autograd": ("gradproof.engines.autograd", "gradproof[autograd]", ("autograd", "scipy")),
    "tinygrad": ("gradproof.engines.tinygrad", "gradproof[tinygrad]", ("tinygrad",)),
}

# A C++ compiler runs for every line, for some ten seconds: nobody wants that without asking for it.
BY_NAME_ALONE = ("torch-compile",)


@dataclass(frozen=True, eq=False)
class Task:
    """What an engine is asked for: the lines, the point, which leaves are parameters, and the probes.

    `probes` maps a line to cotangents of shape (rows, *shape of the line): the engine pulls each back through
    that line alone, to each of the parents named in `parents`.
    """

    statements: tuple[Statement, ...]
    point: Mapping[str, np.ndarray]
    parameters: frozenset[str]
    parents: Mapping[str, tuple[str, ...]]
    probes: Mapping[str, np.ndarray]

    @property
    def between(self) -> list[str]:
        """The lines before the last that read something: those may have a gradient, too."""
        return [line.name for line in self.statements[:-1] if self.parents.get(line.name)]


@dataclass(frozen=True, eq=False)
class Trace:
    """What an engine did. Every number is held in float64, which holds those of every dtype exactly.

    `values` are the leaves' and lines' values; `locals` the pulled-back probes by (line, parent), of shape
    (rows, *shape of the parent); `gradients` the chained gradient of every leaf and line, None where the
    engine has none. `failures` maps a line (or "" for the whole run) to the message of what was raised there;
    `unsupported` does so for what the engine does not have: an operation, a dtype. `unseen` maps names whose
    chained gradient the engine computes no number for, by the way it works, to the reason: forward mode has
    none at the lines.
    """

    values: Mapping[str, np.ndarray]
    locals: Mapping[tuple[str, str], np.ndarray | None]
    gradients: Mapping[str, np.ndarray | None]
    failures: Mapping[str, str] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)


class Engine(Protocol):
    """An autograd engine that runs expression files.

    It may have `formats`, what it makes of the dtypes; else they are those of IEEE 754.
    """

    name: str

    def run(self, task: Task, dtype: DType) -> Trace: ...


def engine_named(name: str) -> Engine:
    """The engine of that name, or the one that `file.py:name` or `package.module:name` names.

    Raises `EngineError` when there is none or when it is not installed, and `InputError` when that is no
    engine.
    """
    if is_function(name):
        return load_engine(name)
    expect(name)
    module, extra, _ = ENGINES[name]
    try:
        return import_module(module).ENGINE
    except ImportError as error:
        raise EngineError(f"engine {name!r} cannot be used: {error}; install {extra}") from error


def expect(name: str) -> None:
    """Whether there is an engine of that name and its libraries, before one is imported where it runs.

    Raises `EngineError` as `engine_named` does.
    """
    if name not in ENGINES:
        raise EngineError(
            f"unknown engine {name!r}{did_you_mean(name, ENGINES)} (one of {', '.join(ENGINES)})"
        )
    _, extra, needs = ENGINES[name]
    missing = [library for library in needs if find_spec(library) is None]
    if missing:
        raise EngineError(f"engine {name!r} cannot be used: no module named {missing[0]!r}; install {extra}")


def installed() -> tuple[str, ...]:
    """The engines of `--engine all`: those whose libraries are here, and that do not need to be asked for by
    name.

    Nothing is imported: a library that is there and broken is told when it is used.
    """
    return tuple(
        name
        for name, (_, _, needs) in ENGINES.items()
        if name not in BY_NAME_ALONE and all(map(find_spec, needs))
    )
