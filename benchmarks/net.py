"""The net alone: which wrong functions it catches without what follows values past autograd, and which right
ones it refuses.

The wrong ones are those of `tests/net_cases.py`, each with a right twin; the right ones are besides those of
`tests/torch/tables.py`, their nets, and samples of PyTorch's operator
database. Run with

    python benchmarks/net.py [--operators 0] [--dtype float32]

The table of wrong functions takes seconds, the rest some minutes. A right function is refused where the net
says anything of it although all else passes.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "torch"))
import net_cases
import tables

from gradproof import check_function
from gradproof.progress import tracked
from gradproof.torch.looks import by_the_whole, judged_tape
from gradproof.torch.net import contradictions, plain_findings
from gradproof.torch.recording import record
from gradproof.torch.state import eager, untouched
from gradproof.verdict import Finding
from operators import Settings, drawn, function_of, operators

Right = tuple[str, Callable[..., Any], Sequence[Any]]
DTYPES = ("float64", "float32", "bfloat16")


def alone(func: Callable[..., Any], inputs: Sequence[Any]) -> list[Finding]:
    """What the net says, whatever the rest of the check would."""
    with untouched(func, *inputs) as state:
        with eager():
            tape = record(func, inputs)
        if tape.trouble or not tape.leaves:
            return []
        _, judge, _ = judged_tape(tape, trusting=False)
        whole = partial(by_the_whole, judge, tape)
        return (
            plain_findings(func, inputs, tape, state, whole)
            or contradictions(func, inputs, tape, state).findings
        )


def right(dtypes: Sequence[str]) -> Iterator[Right]:
    for dtype in dtypes:
        wanted = getattr(torch, dtype)
        for case in tables.RIGHT:
            if wanted in case.dtypes:
                yield f"{case.name}, {dtype}", case.func, case.inputs(wanted)
        for name, make in tables.NETS.items():
            yield f"{name}, {dtype}", *make(wanted)


def database(dtype: str, share: int) -> Iterator[Right]:
    """Every so many-th operator's samples."""
    settings = Settings(dtype, 3, 200, 60.0)
    for op in list(operators(settings).values())[::share] if share else ():
        for name, sample in drawn(op, settings):
            yield f"{op.full_name} {name}, {dtype}", *function_of(op, sample)


def refused(table: Sequence[Right]) -> list[tuple[str, str]]:
    """Whoever the net speaks of where all else passes."""
    found = []
    for name, func, inputs in tracked(table, len(table), lambda row: row[0]):
        said = alone(func, inputs)
        if said and check_function(func, *inputs, net=False).ok:
            found.append((name, f"{said[0].verdict}: {said[0].node}: {said[0].note}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operators", type=int, default=1, help="every so many-th of the database, 0: none")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="may be given several times; all")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dtypes = options.dtype or DTYPES
    told = []
    for kind in net_cases.KINDS:
        wrong, twin = (alone(func, (net_cases.drawn(kind.shape),)) for func in (kind.wrong, kind.right))
        told.append(
            (kind.name, str(wrong[0].verdict) if wrong else "MISSED", "REFUSED" if twin else "nothing")
        )
    print(tabulate(told, ("wrong function", "the net says", "of its right twin")))
    print(f"caught {sum(row[1] != 'MISSED' for row in told)} of {len(told)}\n", flush=True)
    for title, table in (
        ("right functions and nets", list(right(dtypes))),
        (
            "samples of the operator database",
            [row for dtype in dtypes for row in database(dtype, options.operators)],
        ),
    ):
        found = refused(table)
        print(tabulate(found, ("refused", "what the net says")))
        print(f"refused {len(found)} of {len(table)} {title}\n", flush=True)


if __name__ == "__main__":
    main()
