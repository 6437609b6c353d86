"""The gradient of a function as a function of its own, to be checked like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from .names import arguments_of, named_tensors
from .outputs import differentiable
from .recording import cotangents_of


class Gradient:
    """A function's gradients by all that needs one, of cotangents of its outputs and its own inputs.

    It is linear in the cotangents: one that is not 0 and has no history was cut off, and is kept by name in
    `cut`.
    """

    args: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, func: Callable[..., Any], inputs: Sequence[Any]) -> None:
        self.func = func
        self.__name__ = f"the gradient of {getattr(func, '__name__', 'the function')}"
        with torch.enable_grad():
            outputs = differentiable(func(*inputs))
        self.cotangents = [cotangent.requires_grad_() for cotangent in cotangents_of(outputs)]
        self.cut: dict[str, None] = {}

    def named_arguments(self, inputs: Sequence[Any]) -> list[tuple[str, Any]]:
        """The inputs by the names that people call them."""
        count = len(self.cotangents)
        names = ["cotangent"] if count == 1 else [f"cotangent[{n}]" for n in range(count)]
        return [*zip(names, inputs, strict=False), *arguments_of(self.func, inputs[count:])]

    def __call__(self, *inputs: Any) -> list[torch.Tensor]:
        cotangents, given = inputs[: len(self.cotangents)], inputs[len(self.cotangents) :]
        leaves = {id(t): (name, t) for name, t in named_tensors(self.func, given) if t.requires_grad}
        found = torch.autograd.grad(
            differentiable(self.func(*given)),
            [tensor for _, tensor in leaves.values()],
            cotangents,
            create_graph=True,
            allow_unused=True,
        )
        gradients = [(name, each) for (name, _), each in zip(leaves.values(), found, strict=True)]
        there = [(name, each) for name, each in gradients if each is not None]
        self.cut |= {name: None for name, each in there if not each.requires_grad and bool(each.any())}
        return [each for _, each in there]
