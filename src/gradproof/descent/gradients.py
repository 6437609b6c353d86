"""What a loop makes of the gradients between the backward and the optimizer's step, where it says so:
they are unscaled, and clipped.

Clipping by the norm is torch's: `g * min(1, c/(‖g‖ + 1e-6))`, the norm over all parameters together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..causes import ByOtherHands, Cause
from ..dtypes import DType
from ..engines import Trace
from ..errors import InputError
from ..judging.witness import Step, Witness
from ..language.builder import lower
from ..proof.arithmetic import exact, rounding
from ..proof.balls import Balls, balls
from ..proof.graph import Node, Shape
from ..proof.walk import Values, evaluate
from .trajectory import parsed
from .witness import alone

Parts = Mapping[str, tuple[np.ndarray, ...]]  # by parameter, what its backwards gave


@dataclass(frozen=True)
class Treatment:
    """How gradients are treated: clipped to a norm of all together, or each entry to a value; `scaled` where
    the loss was, by a factor that is taken out before."""

    norm: float | None = None
    value: float | None = None
    scaled: bool = False

    def __post_init__(self) -> None:
        for name, number in (("clip_norm", self.norm), ("clip_value", self.value)):
            if number is not None and not (np.isfinite(number) and number > 0):
                raise InputError(f"{name}={number!r}: expected a positive number")
        if self.norm is not None and self.value is not None:
            raise InputError("clip_norm and clip_value: give the one or the other")

    @property
    def words(self) -> str:
        """What becomes of a gradient, for people; the norm is that of all together."""
        if self.norm is not None:
            return f"g * min(1, {self.norm:g}/(‖g‖ + 1e-6))"
        return "g" if self.value is None else f"g, at most ±{self.value:g}"

    @property
    def clips(self) -> bool:
        return self.norm is not None or self.value is not None

    def text(self, total: str, totals: Sequence[str], shapes: Sequence[Shape]) -> str:
        """What becomes of one total, beside those of all parameters."""
        if self.value is not None:
            return f"maximum(minimum({total}, {self.value!r}), -{self.value!r})"
        if self.norm is None:
            return total
        pairs = zip(totals, shapes, strict=True)
        squares = " + ".join(f"sum({each}**2)" if shape else f"{each}**2" for each, shape in pairs)
        return f"{total} * minimum(1, {self.norm!r}/(sqrt({squares}) + 1e-6))"

    def of(self, gradients: Mapping[str, Balls]) -> dict[str, Balls]:
        """Exact gradients as they should reach the optimizer."""
        if not self.clips:
            return dict(gradients)
        shapes = {name: gradient.shape for name, gradient in gradients.items()}
        given = {f"g{n}": gradient for n, gradient in enumerate(gradients.values())}
        return {
            name: np.asarray(evaluate(nodes, given, exact())[nodes[-1].name], object)
            for name, nodes in self._nodes(dict.fromkeys(shapes, 1), shapes).items()
        }

    def _nodes(self, counts: Mapping[str, int], shapes: Mapping[str, Shape]) -> dict[str, tuple[Node, ...]]:
        parts = {
            name: [f"g{n}" if count == 1 else f"g{n}_{k}" for k in range(count)]
            for n, (name, count) in enumerate(counts.items())
        }
        totals = {
            name: each[0] if len(each) == 1 else f"({' + '.join(each)})" for name, each in parts.items()
        }
        over = {part: shapes[name] for name, each in parts.items() for part in each}
        every = [*totals.values()]
        return {
            name: tuple(lower(parsed(f"treated = {self.text(total, every, [*shapes.values()])}"), over))
            for name, total in totals.items()
        }

    def witness(self, name: str, recorded: np.ndarray, parts: Parts, scale: float, dtype: DType) -> Witness:
        """What `.grad` held when the optimizer took its step, of one parameter, beside what it should."""
        shapes = {each: arrays[0].shape for each, arrays in parts.items()}
        counts = {each: len(arrays) for each, arrays in parts.items()}
        given = {
            f"g{n}" if len(arrays) == 1 else f"g{n}_{k}": array
            for n, arrays in enumerate(parts.values())
            for k, array in enumerate(arrays)
        }
        nodes = self._nodes(counts, shapes)[name]
        step = Step(
            name=name,
            nodes=nodes,
            given=given,
            values={nodes[-1].name: recorded},
            inputs={},
            dtypes={nodes[-1].name: dtype},
            dtype=dtype,
            wanted=frozenset(),
            text=lambda wrt: self.words,
            looks=partial(self._looks, name, recorded, parts, scale, dtype),
            kind="recorded",
        )
        return Witness((step,), (), alone, dtype=None)

    def _looks(
        self, name: str, recorded: np.ndarray, parts: Parts, scale: float, dtype: DType, expected: Balls
    ) -> tuple[Cause, ...]:
        totals = {each: np.asarray(sum(map(balls, arrays)), object) for each, arrays in parts.items()}
        for words, made in self._mistakes(name, totals, scale):
            once = rounding(dtype)
            near = once.add_all([made, np.asarray(made * 0, object)])
            if _holds(near, recorded, dtype):
                return (ByOtherHands(words),)
        return ()

    def _mistakes(self, name: str, totals: Values, scale: float) -> Iterator[tuple[str, Balls]]:
        """What a wrong order gives, in words and as numbers."""
        times = balls(np.asarray(scale))
        large = {each: np.asarray(total * times, object) for each, total in totals.items()}
        if scale != 1:
            yield "it was not unscaled before the optimizer's step", large[name]
            if self.clips:
                yield "it was clipped, and not unscaled", self.of(large)[name]
                early = self.of(large)[name]
                yield (
                    "it was clipped before it was unscaled: unscale_ first",
                    np.asarray(early / times, object),
                )
        if self.clips:
            yield "it was not clipped before the optimizer's step", totals[name]
            yield (
                "it was clipped by its own norm, not by that of all together",
                self.of({name: totals[name]})[name],
            )

    def unscaled(self, trace: Trace, output: str) -> tuple[Trace, float]:
        """A backward's numbers without the loss's factor, and that."""
        gradient = trace.gradients.get(output)
        scale = 1.0 if gradient is None or not self.scaled else float(gradient)
        if scale in (0.0, 1.0) or not np.isfinite(scale):
            return trace, 1.0
        found = {n: None if g is None else np.asarray(g / scale) for n, g in trace.gradients.items()}
        return replace(trace, gradients=found), scale


def _holds(near: Balls, value: np.ndarray, dtype: DType) -> bool:
    """Whether numbers are these up to some roundings."""
    middle = np.vectorize(lambda x: float(x.mid()))(near).reshape(value.shape)
    return bool(np.allclose(value, middle, rtol=64 * dtype.unit_roundoff, atol=0))


UNTREATED = Treatment()
