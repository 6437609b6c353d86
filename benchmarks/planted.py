"""Planted faults beside torch.autograd.gradcheck: which of the wrong functions each finds, and which right
ones it passes.

Every row of `tests/torch/tables.py` is a wrong `autograd.Function` and its
right twin. gradproof checks both in float64 and in float32 (where the error is above 1e-5); `gradcheck` runs
at its defaults on the same float64 inputs. Run with

    python benchmarks/planted.py [--output PATH]

It takes about a minute.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "torch"))
from tables import FAULTS

from gradproof import Verdict, check_function
from gradproof.progress import tracked

FLOAT32_SEES = 1e-5


def by_gradcheck(func: Callable[..., Any], inputs: tuple[Any, ...]) -> str:
    try:
        return "passes" if torch.autograd.gradcheck(func, inputs) else "rejects"
    except Exception as error:
        told = str(error)
        return (
            "rejects"
            if "Jacobian mismatch" in told or "not reentrant" in told
            else f"raises {type(error).__name__}"
        )


def row(fault: Any) -> list[str]:
    told = [fault.name, fault.kind, f"{fault.error:.0e}"]
    for dtype in (torch.float64, torch.float32):
        if dtype is torch.float32 and fault.error <= FLOAT32_SEES:
            told += ["–", "–"]
            continue
        wrong = check_function(fault.wrong, *fault.inputs(dtype))
        right = check_function(fault.right, *fault.inputs(dtype))
        found = any(
            fault.blamed in f.node or fault.blamed in f.note
            for f in wrong.findings
            if f.verdict is Verdict.WRONG
        )
        told.append("refuted" if wrong.verdict is Verdict.WRONG and found else f"MISSED ({wrong.verdict})")
        told.append("passes" if right.ok else f"ALARM ({right.verdict})")
    told += [
        by_gradcheck(fault.wrong, fault.inputs(torch.float64)),
        by_gradcheck(fault.right, fault.inputs(torch.float64)),
    ]
    return told


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="write the table there too, as Markdown")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[list[str]] = []
    interrupted = False
    try:
        for fault in tracked(FAULTS, len(FAULTS), lambda fault: fault.name):
            rows.append(row(fault))
    except KeyboardInterrupt:
        interrupted = True
        print(f"interrupted after {len(rows)} of {len(FAULTS)} faults", file=sys.stderr)
    head = [
        "fault",
        "kind",
        "relative error",
        "float64: wrong",
        "twin",
        "float32: wrong",
        "twin",
        "gradcheck: wrong",
        "twin",
    ]
    seen32 = sum(r[5] != "–" for r in rows)
    counts = (
        f"gradproof, float64: {sum(r[3] == 'refuted' for r in rows)} of {len(rows)} refuted at their node, "
        f"{sum(r[4] == 'passes' for r in rows)} twins pass; float32: {sum(r[5] == 'refuted' for r in rows)} "
        f"of {seen32}, "
        f"{sum(r[6] == 'passes' for r in rows)} twins; gradcheck, float64: "
        f"{sum(r[7] == 'rejects' for r in rows)} rejected, "
        f"{sum(r[8] == 'passes' for r in rows)} twins pass"
    )
    print(tabulate(rows, headers=head, disable_numparse=True))
    print(f"\n{counts}")
    if arguments.output:
        table = tabulate(rows, headers=head, tablefmt="pipe", disable_numparse=True)
        arguments.output.write_text(f"# Planted faults\n\n{counts}.\n\n{table}\n")
    return 130 if interrupted else 0


if __name__ == "__main__":
    raise SystemExit(main())
