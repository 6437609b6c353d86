"""A fault in a deep stack: a factor of 1 + 1e-4 in one of 24 layers is found at that layer, and without it
all is verified, in every dtype.

The tests try one layer of each stack; here stand all of them. Run with

    python benchmarks/deep.py

It takes some four minutes, and exits with 1 where one is not as it should be.
"""

from __future__ import annotations

import sys
import time
from itertools import product
from pathlib import Path

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "torch"))
from tables import DEEP

from gradproof import Report, check_function
from gradproof.progress import tracked

LAYERS = (None, 0, 13, 23)
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def is_right(report: Report, layer: int | None) -> bool:
    """Whether it is verified without a fault; with one, refuted there and nowhere else."""
    wrong = {f.node for f in report.findings if f.verdict == "wrong" and not f.inherited}
    return report.ok if layer is None else bool(wrong) and all("Faulty" in node for node in wrong)


def main() -> int:
    # In bfloat16 an error of 1e-4 is below rounding: there only the right one is looked at.
    jobs = [job for job in product(DEEP, DTYPES, LAYERS) if job[2] is None or job[1] != "bfloat16"]
    rows = []
    for name, dtype, layer in tracked(jobs, len(jobs), lambda job: f"{job[0]}, {job[1]}"):
        build, start = DEEP[name], time.perf_counter()
        fault = {} if layer is None else {"fault": (layer, 1 + 1e-4)}
        func, inputs = build(DTYPES[dtype], **fault)
        report = check_function(func, *inputs)
        seconds = time.perf_counter() - start
        rows.append([name, dtype, layer, str(report.verdict), is_right(report, layer), f"{seconds:.1f}"])
    print(tabulate(rows, ["stack", "dtype", "fault in", "verdict", "as it should be", "seconds"]))
    return 0 if all(row[4] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
