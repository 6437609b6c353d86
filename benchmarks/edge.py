"""The fast arithmetic beside the balls: at the edge of what passes, and judged with it and without.

    python benchmarks/edge.py [--dtype float32] [--graphs 20000] [--seed 0]   random graphs
    python benchmarks/edge.py --operators [--dtype float32] [--only 'nn\\.']   PyTorch's operators
    python benchmarks/edge.py --on-off [--group faults]    every case, with floats and without

Probes lie at parts of the balls' own radius on both sides, and at the edge of what the fast arithmetic
itself passes. One that passes and is not in the balls' rounding set is `passing`, which never may be; one
that passes where the set has no end is `endless`. `loose` are midpoints that are off by more than κ of their
radius, which never may be either. Exit 1 where there is one. `--seconds` cuts a campaign off; what was
counted by then is told.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / room) for room in ("proof", "judging", "torch", "engines")]
sys.path.insert(0, str(Path(__file__).parent))

from edges import Tally, compare  # noqa: E402 - the tests' own
from random_graphs import example  # noqa: E402

from gradproof.dtypes import DTYPES  # noqa: E402
from gradproof.progress import tracked  # noqa: E402
from gradproof.torch.looks import our_fault  # noqa: E402
from gradproof.torch.recording import record  # noqa: E402
from gradproof.torch.witness import witness_of  # noqa: E402
from operators import Settings, drawn, function_of, operators  # noqa: E402


def of_graphs(dtype: str, seeds: range) -> Iterator[Tally]:
    for seed in seeds:
        case = example(seed, dtype)
        cotangents = {case.nodes[-1].name: case.cotangent}
        yield compare(f"graph {seed}", case.nodes, case.given, cotangents, case.wanted, case.dtype)


def of_operators(dtype: str, only: str, samples: int) -> Iterator[Tally]:
    """Each operator on some samples: of every step what floats and balls say of its values and cotangents."""
    settings = Settings(dtype, samples, 400, 60.0)
    for name, op in operators(settings).items():
        if not re.search(only, name):
            continue
        tally = Tally()
        for place, sample in drawn(op, settings):
            try:
                function, inputs = function_of(op, sample)
                leaves = [x.detach().clone().requires_grad_() for x in inputs]
                witness = witness_of(record(function, leaves, 1), trusting=False, guard=our_fault)
            except Exception as error:  # what torch itself refuses is looked at by `operators.py`
                print(f"{name} {place}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
                continue
            for step in witness.steps:
                if any(x.dtype == object for x in step.given.values()):
                    continue
                first = next(iter(step.passes), None)
                received = {} if first is None or first.unusable is not None else first.received
                rows = {n: x[0] for n, x in received.items()}
                if sum(x.size for x in (*step.given.values(), *step.values.values())) < 5000:
                    tally += compare(
                        f"{name} {place} {step.name}", step.nodes, step.given, rows, step.wanted, step.dtype
                    )
        yield tally


def tell(title: str, tallies: Iterator[Tally], seconds: float) -> bool:
    total, start = Tally(), time.perf_counter()
    for tally in tallies:
        for kind in ("passing", "loose"):
            for line in getattr(tally, kind)[:1]:
                print(f"  {kind}: {line}")
        total += tally
        if time.perf_counter() - start > seconds:
            print("  cut off")
            break
    share = total.decided / max(total.inside, 1)
    print(
        f"{title}: {total.probes:,} probes, {total.passed:,} passed, {share:.1%} of what is within 0.97 of "
        f"the radius; {len(total.passing)} passing, {len(total.endless)} endless, {len(total.loose)} loose "
        f"of {total.measured:,} measured, own error up to {total.worst:.2f} of κ·r; "
        f"{total.left} without a fast form; {time.perf_counter() - start:.0f} s"
    )
    return not total.passing and not total.loose


def on_off(groups: list[str], seconds: float) -> bool:
    from on_off import GROUPS, differences

    same = True
    for group in groups or GROUPS:
        cases, start, count, bad = list(GROUPS[group]()), time.perf_counter(), 0, 0
        for case in tracked(iter(cases), len(cases), lambda case: case.name):
            try:
                found = differences(case)
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"]
            count, bad = count + 1, bad + bool(found)
            for line in found[:3]:
                print(f"  {case.name}: {line}")
            if time.perf_counter() - start > seconds:
                break
        print(f"{group}: {bad} of {count} differ ({len(cases)} in all), {time.perf_counter() - start:.0f} s")
        same = same and not bad
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=DTYPES, help="one of them; without it, all")
    parser.add_argument("--graphs", type=int, default=20_000, help="how many random graphs in each dtype")
    parser.add_argument("--seed", type=int, default=0, help="the first graph's")
    parser.add_argument("--operators", action="store_true", help="PyTorch's operators instead of graphs")
    parser.add_argument("--only", default="", help="the operators whose names this pattern is found in")
    parser.add_argument("--samples", type=int, default=3, help="of each operator")
    parser.add_argument("--on-off", action="store_true", help="every case with floats and without")
    parser.add_argument("--group", action="append", default=[], help="of cases; may be repeated")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each campaign")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    torch.set_num_threads(1)
    if asked.on_off:
        return 0 if on_off(asked.group, asked.seconds) else 1
    fine = True
    for dtype in [asked.dtype] if asked.dtype else DTYPES:
        found = (
            of_operators(dtype, asked.only, asked.samples)
            if asked.operators
            else of_graphs(dtype, range(asked.seed, asked.seed + asked.graphs))
        )
        fine = tell(f"{dtype}, {'operators' if asked.operators else 'graphs'}", found, asked.seconds) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
