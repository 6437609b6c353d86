"""torch's training loop, as people write it: the side under test of a descent.

Real tensors, real `torch.optim`, one loop for the whole run. What the optimizer saw and left is read by its
own hooks, right before and after its step, so that nothing of ours stands between the backward and the
update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from ..dtypes import DType
from ..errors import InputError, said
from . import Task, Trace
from .descent import Arrays, Happened
from .torch import ENGINE, gradients_of, number_of

StepFunction = Callable[[torch.optim.Optimizer, Callable[[], torch.Tensor]], object]
MakeOptimizer = Callable[[list[torch.Tensor]], torch.optim.Optimizer]

# Numbers that a graph cannot be run with, and what torch says when a leaf is changed in place: the user's to
# mend.
RAISED = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    OverflowError,
    ZeroDivisionError,
    AttributeError,
    KeyError,
)


def plain_step(batches: int = 1, *, zero: bool = True) -> StepFunction:
    """The loop of the textbooks: zero the gradient, backward, update; the update is outside of the graph."""

    def step(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
        if zero:
            optimizer.zero_grad()
        for _ in range(batches):
            loss().backward()
        optimizer.step()

    return step


def built_in(name: str, lr: float, options: Mapping[str, object]) -> MakeOptimizer:
    """torch's own optimizer of that class name, one parameter after the other: no `foreach`, nothing
    fused."""

    def make(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        kind = getattr(torch.optim, name)
        try:
            return kind(parameters, lr=lr, foreach=False, **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"torch.optim.{name} does not take these options: {said(error)}") from None

    return make


def ancestry(optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the classes of torch.optim that an optimizer is made of, the nearest first."""
    return [kind.__name__ for kind in type(optimizer).__mro__ if kind.__module__.startswith("torch.optim")]


class Loop:
    """A training loop: parameters, an optimizer, and the function that takes one step with them.

    `step(optimizer, loss)` is the user's or `plain_step`: it calls `loss()`, which runs the graph's lines and
    returns the output, backward on it, and `optimizer.step()`.
    """

    name = "torch"

    def __init__(
        self,
        point: Mapping[str, np.ndarray],
        parameters: Sequence[str],
        dtype: DType,
        make: MakeOptimizer,
        step: StepFunction,
    ) -> None:
        self.dtype, self.kind = dtype, getattr(torch, dtype.name)
        self.parameters = {
            name: torch.tensor(point[name], dtype=self.kind, requires_grad=True) for name in parameters
        }
        self.arrived: dict[str, np.ndarray | None] = {}
        for name, tensor in self.parameters.items():
            tensor.register_hook(self._catcher(name))
        self.optimizer = self._made(make)
        self.take = step
        self.happened = Happened({})
        self.has_closure = False
        self.optimizer.register_step_pre_hook(self._before)
        self.optimizer.register_step_post_hook(self._after)

    def _made(self, make: MakeOptimizer) -> torch.optim.Optimizer:
        optimizer = make(list(self.parameters.values()))
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError(
                f"the optimizer is {type(optimizer).__name__}, expected a torch.optim.Optimizer, as from "
                "lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
            )
        held = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
        for name, tensor in self.parameters.items():
            if id(tensor) not in held:
                raise InputError(
                    f"the optimizer does not hold parameter {name!r}; give it all that it is called with"
                )
        return optimizer

    def _catcher(self, name: str) -> Callable[[torch.Tensor], None]:
        def catch(gradient: torch.Tensor) -> None:
            self.arrived[name] = number_of(gradient)

        return catch

    # One step

    def step(self, tasks: Sequence[Task]) -> Happened:
        """Take one step over the micro-batches' tasks; what is raised on the way is told in `failure`."""
        self.tasks = list(tasks)
        self.pending: list[tuple[Trace, dict[str, torch.Tensor]]] = []
        self.happened = Happened(self.numbers(), settings=self._settings())
        self.arrived = {}
        try:
            self.take(self.optimizer, self._loss)
        except RAISED as error:
            self.happened.failure = said(error)
        self._collect()
        if not self.happened.stepped:
            self.happened.recorded = self._gradients()
            self.happened.after = self.numbers()
        self.happened.end = self.numbers()
        return self.happened

    def _loss(self) -> torch.Tensor:
        """The output of the next micro-batch, ready for backward."""
        if not self.pending:
            self.happened.carried = self._gradients()
        self._collect()
        if len(self.pending) == len(self.tasks):
            raise InputError(
                f"the step asked for the loss more than {len(self.tasks)} times: once for each micro-batch"
            )
        task = self.tasks[len(self.pending)]
        tensors = {
            name: self.parameters[name] if name in self.parameters else torch.tensor(value, dtype=self.kind)
            for name, value in task.point.items()
        }
        trace = ENGINE.forward(task, tensors, self.dtype)
        self.pending.append((trace, tensors))
        output = tensors.get(task.statements[-1].name)
        if output is None:
            self.happened.traces.append(trace)
            raise RuntimeError(next(iter([*trace.failures.values(), *trace.unsupported.values()])))
        return output

    def _collect(self) -> None:
        """Once a backward is over: what arrived, to the trace of its micro-batch."""
        if len(self.happened.traces) == len(self.pending):
            return
        trace, tensors = self.pending[-1]
        gradients = gradients_of(tensors) | {name: self.arrived.get(name) for name in self.parameters}
        self.happened.traces.append(replace(trace, gradients=gradients))
        self.arrived = {}

    def _before(self, _: object, arguments: tuple[object, ...], named: dict[str, object]) -> None:
        if self.happened.stepped:
            raise InputError("the step took more than one optimizer.step(); each is a step of its own")
        # The hook gets the optimizer too, before what else `step` was called with.
        self.has_closure = any(callable(argument) for argument in (*arguments[1:], *named.values()))
        self.happened.recorded = self._gradients()
        self.happened.state_before = self._states()

    def _after(self, *_: object) -> None:
        self.happened.stepped = True
        if self.has_closure:  # the backward ran inside of the step
            self.happened.recorded = self._gradients()
        self.happened.after = self.numbers()
        self.happened.state_after = self._states()

    # Reading

    def _settings(self) -> dict[str, dict[str, object]]:
        return {
            name: {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
            for name, tensor in self.parameters.items()
            if any(tensor is held for held in group["params"])
        }

    def numbers(self) -> Arrays:
        """The parameters' numbers."""
        return {name: np.asarray(number_of(tensor)) for name, tensor in self.parameters.items()}

    def _gradients(self) -> dict[str, np.ndarray | None]:
        return {name: number_of(tensor.grad) for name, tensor in self.parameters.items()}

    def _states(self) -> dict[str, Arrays]:
        found: dict[str, Arrays] = {}
        for name, tensor in self.parameters.items():
            state = self.optimizer.state.get(tensor, {})
            found[name] = {
                key: np.asarray(number_of(torch.as_tensor(value)))
                for key, value in state.items()
                if isinstance(value, torch.Tensor | int | float)
            }
        return found
