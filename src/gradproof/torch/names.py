"""What people call things: the arguments of a callable, what it holds, and the tensors and modules in
both."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from ..errors import shown


def name_of(func: Any) -> str:
    """A module's class, a function's name, or the line of a lambda."""
    if isinstance(func, torch.nn.Module):
        return type(func).__name__
    name = getattr(func, "__name__", None) or type(func).__name__
    code = getattr(func, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"lambda at {shown(code.co_filename)}:{code.co_firstlineno}"
    return name


def modules_of(func: Any) -> dict[int, str]:
    """The path of every module that the function holds."""
    paths: dict[int, str] = {}
    for name, held in holdings(func):
        if isinstance(held, torch.nn.Module):
            for path, module in held.named_modules():
                paths.setdefault(id(module), ".".join(part for part in (name, path) if part))
    return paths


def leaf_names(func: Any, inputs: Sequence[Any]) -> dict[int, str]:
    """A name for each tensor that the function is given or holds: its argument, its module's path, its
    variable."""
    names: dict[int, str] = {}
    for path, tensor in named_tensors(func, inputs):
        names.setdefault(id(tensor), path)
    return names


def named_tensors(func: Any, inputs: Sequence[Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in (*arguments_of(func, inputs), *holdings(func)):
        yield from _tensors(name, value)


def arguments_of(func: Any, inputs: Sequence[Any]) -> list[tuple[str, Any]]:
    if hasattr(func, "named_arguments"):
        return list(func.named_arguments(inputs))
    try:
        called = func.func if isinstance(func, partial) and not func.args else func
        called = called.forward if isinstance(called, torch.nn.Module) else called
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = []
    for n, value in enumerate(inputs):
        if n < len(parameters) and parameters[n].kind in kinds:
            named.append((parameters[n].name, value))
        else:
            rest = next((p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), "input")
            named.append((f"{rest}[{n}]" if rest != "input" else f"input{n}", value))
    if isinstance(func, partial):
        named += func.keywords.items()
    return named


def holdings(func: Any) -> Iterator[tuple[str, Any]]:
    """What a callable holds: itself, the object it is a method of, its closure, and the globals that it
    names."""
    yield "", func
    if hasattr(func, "__self__"):
        yield "", func.__self__
    if hasattr(func, "func") and hasattr(func, "args"):  # functools.partial
        yield from ((f"args[{n}]", value) for n, value in enumerate(func.args))
        yield from func.keywords.items()
        func = func.func
        yield "", func
    plain = inspect.unwrap(getattr(func, "__func__", func)) if callable(func) else func
    code = getattr(plain, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, plain.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in code.co_names:
        if name in plain.__globals__:
            yield name, plain.__globals__[name]
    yield from zip(code.co_varnames, plain.__defaults__ or (), strict=False)


def _tensors(name: str, value: Any, depth: int = 3) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, torch.nn.Module):
        for path, parameter in value.named_parameters():
            yield ".".join(part for part in (name, path) if part), parameter
    elif isinstance(value, list | tuple) and depth:
        for n, item in enumerate(value[:1000]):
            yield from _tensors(f"{name}[{n}]", item, depth - 1)
    elif isinstance(value, dict) and depth:
        for key, item in list(value.items())[:1000]:
            yield from _tensors(f"{name}[{key!r}]", item, depth - 1)


def parameters_of(function: Any) -> list[str]:
    """The names of a custom Function's arguments, without its context."""
    try:
        names = list(inspect.signature(function.forward).parameters)
    except (TypeError, ValueError, AttributeError):
        return []
    # With `setup_context` the forward has none.
    plain = function.setup_context is not torch.autograd.Function.setup_context
    return names if plain else names[1:]
