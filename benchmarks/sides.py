"""What `speed.py` measures, in a process of its own: a job is read as JSON from standard input, and what came
of it is the last line that is printed.

A job is a maker of sides and its options. The first side is ours; all run in turn, so that what else happens
on the machine happens to all of them.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

SHORTEST = 0.05  # seconds: what is quicker runs several times at a turn
MOVED = 100  # entries of each input that the slow gradcheck of a large one moves
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Side:
    """One way to do it; what takes `times` as long as what is run is too slow to run as a whole."""

    run: Callable[[], Any]
    times: float = 1.0


Sides = dict[str, Side]


def checkers(size: int, dtype: str) -> Sides:
    """Ours, and other people's checks of the same function: in float64, which they need, or JAX's in ours."""
    import torch

    from gradproof import check_function
    from networks import built

    func, inputs = built(f"tanh {size}", dtype)
    double = built(f"tanh {size}", "float64")
    sides = {"ours": Side(partial(check_function, func, *inputs))}
    if size <= 10**4:
        sides["gradcheck, slow"] = slow_gradcheck(*double)
    sides["gradcheck, fast"] = Side(partial(torch.autograd.gradcheck, *double, fast_mode=True))
    arrays = [x.detach().numpy() for x in inputs]
    return sides | by_jax(arrays) | by_autograd([x.detach().numpy() for x in double[1]])


def slow_gradcheck(func: Callable[..., Any], inputs: Any) -> Side:
    """All entries, or of a large function some: each that is moved costs two runs of the whole function."""
    import torch

    size = inputs[0].numel()
    if size <= 10 * MOVED:
        return Side(partial(torch.autograd.gradcheck, func, inputs))
    fixed = [x.detach()[MOVED:] for x in inputs]
    moved = tuple(x.detach()[:MOVED].clone().requires_grad_() for x in inputs)

    def partly(*some: torch.Tensor) -> torch.Tensor:
        return func(*(torch.cat(parts) for parts in zip(some, fixed, strict=True)))

    return Side(partial(torch.autograd.gradcheck, partly, moved), times=size / MOVED)


def by_jax(arrays: list[Any]) -> Sides:
    try:
        import jax
        from jax.test_util import check_grads
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", arrays[0].dtype == "float64")
    given = tuple(map(jax.numpy.asarray, arrays))

    def function(x: Any, w: Any) -> Any:
        return jax.numpy.sum(jax.numpy.tanh(x) * w)

    return {"JAX check_grads": Side(partial(check_grads, function, given, order=1, modes=["rev"]))}


def by_autograd(arrays: list[Any]) -> Sides:
    try:
        import autograd.numpy as np
        from autograd.test_util import check_grads
    except ImportError:
        return {}
    check = check_grads(lambda x, w: np.sum(np.tanh(x) * w), modes=["rev"], order=1)
    return {"HIPS autograd check_grads": Side(partial(check, *arrays))}


def network(name: str, dtype: str) -> Sides:
    """A check beside one forward and backward in float64."""
    from gradproof import check_function
    from networks import built, forward_backward

    func, inputs = built(name, dtype)
    return {
        "ours": Side(partial(check_function, func, *inputs)),
        "float64 forward and backward": Side(partial(forward_backward, *built(name, "float64"))),
    }


def balls_alone(name: str, dtype: str) -> Sides:
    """A check beside itself without the fast arithmetic."""
    from gradproof import check_function
    from gradproof.judging.sieve import without_floats
    from networks import built

    func, inputs = built(name, dtype)

    def alone() -> Any:
        with without_floats():
            return check_function(func, *inputs)

    return {"ours": Side(partial(check_function, func, *inputs)), "balls alone": Side(alone)}


def chain(length: int) -> Sides:
    """An expression of so many lines beside one of a tenth, each parsed and checked."""
    import gradproof

    def checked(lines: int) -> Any:
        text = "\n".join(f"x{n + 1} = sin(x{n})*w" for n in range(lines))
        return gradproof.check(gradproof.parse(text, parameters={"x0": 0.5, "w": 1.0}))

    return {
        "ours": Side(partial(checked, length)),
        f"{length // 10:,} lines": Side(partial(checked, length // 10)),
    }


def composed(depth: int) -> Sides:
    """The exact derivative of a formula in which each line reads the one before twice, line by line; beside
    it SymPy's derivative of the whole formula."""
    import sympy
    from sympy.core.cache import clear_cache

    import gradproof
    from gradproof.exact import gradients

    text = "\n".join(f"x{n + 1} = x{n}*sin(x{n})" for n in range(depth))

    def by_lines() -> Any:
        clear_cache()
        return gradients(gradproof.parse(text, parameters={"x0": 1.25}))

    def as_a_whole() -> Any:
        clear_cache()
        x = whole = sympy.Symbol("x0")
        for _ in range(depth):
            whole = whole * sympy.sin(whole)
        return sympy.diff(whole, x).evalf(subs={x: 1.25})

    return {"ours": Side(by_lines), "sympy.diff of the whole": Side(as_a_whole)}


def processes(ours: list[str], beside: list[str]) -> Sides:
    """Whole processes: one of ours, and those that import what it stands on."""

    def started(*arguments: str) -> Any:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)

    return {"ours": Side(partial(started, *ours))} | {
        statement: Side(partial(started, "-c", statement)) for statement in beside
    }


MAKERS = {
    maker.__name__: maker for maker in (checkers, network, balls_alone, chain, composed, processes)
}  # fmt: skip


def timed(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds of wall and CPU time for a run, of as many as make a turn long enough, and what it gave."""
    gc.collect()
    runs, wall, cpu = 0, time.perf_counter(), cpu_seconds()
    while not runs or time.perf_counter() - wall < SHORTEST:
        found = run()
        runs += 1
    return (time.perf_counter() - wall) / runs, (cpu_seconds() - cpu) / runs, found


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measured(sides: Mapping[str, Side], seconds: float, most: int) -> dict[str, Any]:
    """All sides in turn: first once each, then so often as there is time for, and at least three times; where
    the first turns take twice that time, they count themselves."""
    told: dict[str, Any] = {
        name: {"wall": [], "cpu": [], "note": "", "times": side.times} for name, side in sides.items()
    }
    start = time.perf_counter()
    firsts = {name: turn(side, told[name]) for name, side in sides.items()}
    started = time.perf_counter()
    rounds = [] if started - start > 2 * seconds else range(most)
    for number in rounds:
        if number >= 3 and time.perf_counter() - started > seconds:
            break
        for name, side in sides.items():
            add(told[name], turn(side, told[name]))
    for name, first in firsts.items():
        told[name]["first"] = first[0]
        if not rounds:
            add(told[name], first)
    return told


def turn(side: Side, told: dict[str, Any]) -> tuple[float, float]:
    """How long it took; another's check may refuse, which is noted."""
    try:
        wall, cpu, found = timed(side.run)
    except Exception as error:
        told["note"] = f"raised {type(error).__name__}: {str(error).splitlines()[0][:80]}"
        return 0.0, 0.0
    told["decided"] = decided(found)
    return wall * side.times, cpu * side.times


def add(told: dict[str, Any], times: tuple[float, float]) -> None:
    for key, value in zip(("wall", "cpu"), times, strict=True):
        told[key].append(value)


def decided(found: Any) -> str:
    """Whether every entry was decided: "all", or what does not pass, counted by its verdict."""
    if not hasattr(found, "findings"):
        return ""
    open_ = [finding for finding in found.findings if not finding.verdict.passes]
    counts = Counter(str(finding.verdict) for finding in open_)
    first = f": {open_[0].node}: {open_[0].note[:120]}" if open_ else ""
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + first or "all"


def memory(name: str, dtype: str, side: str) -> dict[str, Any]:
    """The peak of this process beyond what it imported, in MiB: of a check, or of a forward and backward."""
    from gradproof import check_function
    from networks import built, forward_backward

    before = peak()
    func, inputs = built(name, dtype)
    if side == "ours":
        return {"decided": decided(check_function(func, *inputs)), "mib": peak() - before}
    forward_backward(func, inputs)
    return {"mib": peak() - before}


def peak() -> float:
    """Of this process, in MiB. It is never less than that of its parent, which therefore imports nothing."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    job = json.load(sys.stdin)
    options = job["options"]
    with redirect_stdout(sys.stderr):
        if job["kind"] == "memory":
            told = memory(**options)
        else:
            told = measured(MAKERS[job["kind"]](**options), job["seconds"], job["most"])
    print(json.dumps(told))


if __name__ == "__main__":
    main()
