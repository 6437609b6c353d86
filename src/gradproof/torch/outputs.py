"""What a function gave back: the tensors of any nest, and words for what has none."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

DEPTH = 16  # of nests


def flat(value: Any, depth: int = DEPTH) -> Iterator[torch.Tensor]:
    """The tensors of lists, dicts, dataclasses, named tuples, model outputs and other objects, in their
    order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif not depth or isinstance(value, torch.nn.Module | type | str | np.ndarray):
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from flat(item, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from flat(item, depth - 1)
    elif isinstance(getattr(value, "__dict__", None), dict) and not callable(value):
        for item in vars(value).values():
            yield from flat(item, depth - 1)
    elif hasattr(type(value), "__dataclass_fields__"):  # with slots
        for name in type(value).__dataclass_fields__:
            yield from flat(getattr(value, name), depth - 1)


def differentiable(result: Any) -> list[torch.Tensor]:
    """The tensors of a result that need a gradient."""
    return [tensor for tensor in flat(result) if tensor.requires_grad]


def nodes_of(outputs: Sequence[torch.Tensor]) -> Iterator[Any]:
    """The nodes of the graph of a backward that the outputs come from, each once."""
    seen: set[Any] = set()
    stack: list[Any] = [out.grad_fn for out in outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack += [before for before, _ in node.next_functions]


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether two hold the same numbers, NaN in the same places; or neither is there."""
    return (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b, equal_nan=True))


def no_gradient(result: Any, marked: list[str]) -> str:
    """Why there is nothing to differentiate, where no tensor that came back needs a gradient."""
    tensors = list(flat(result))
    if not tensors:
        return f"the function returned {_named(result)}, and no tensor: nothing to differentiate"
    if not marked:
        return "no tensor that needs a gradient reaches the output; mark inputs with requires_grad_()"
    some = ", ".join(marked[:4]) + (", …" if len(marked) > 4 else "")
    if not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        kinds = ", ".join(dict.fromkeys(str(tensor.dtype) for tensor in tensors))
        return f"the function returned {kinds} alone, which has no gradient ({some}: marked)"
    return (
        f"{some}: marked, but the tensor that came back has no history: the graph is cut on the way "
        "(detach, .data, no_grad, item(), NumPy, a new tensor), or the output does not depend on it"
    )


def _named(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    kind = type(value)
    name = (
        kind.__name__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__name__}"
    )
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def told(error: BaseException) -> str:
    """The whole traceback, as Python prints it."""
    return "".join(traceback.format_exception(error)).rstrip()
