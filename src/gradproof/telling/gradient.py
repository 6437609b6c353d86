"""The exact gradient alone, in text, JSON, CSV or NumPy's npz."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..exact import ExactGradient
from .machine import nested

Gradients = Mapping[str, ExactGradient]


def text(gradients: Gradients) -> str:
    """A parameter a line, or a block; every entry stands there."""
    return "\n".join(f"{name} = {_shown(gradient.decimals)}" for name, gradient in gradients.items())


def _shown(decimals: np.ndarray) -> str:
    if not decimals.ndim:
        return str(decimals)
    longest = max(map(len, decimals.reshape(-1)), default=0)
    told = np.array2string(
        decimals,
        separator=", ",
        threshold=decimals.size + 1,
        max_line_width=100,
        formatter={"all": lambda x: str(x).rjust(longest)},
    )
    return told if decimals.ndim == 1 and "\n" not in told else "\n" + told


def as_json(gradients: Gradients) -> str:
    """`{"gradients": {name: {"shape", "values", "exact"}}}`: floats, and decimal texts of what is proved."""
    whole = {
        name: {"shape": list(g.values.shape), "values": nested(g.values), "exact": g.decimals.tolist()}
        for name, g in gradients.items()
    }
    return json.dumps({"gradients": whole}, indent=2, ensure_ascii=False)


def as_csv(gradients: Gradients) -> str:
    """A row an entry: `parameter,index,value,exact`, the index's numbers with spaces between them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["parameter", "index", "value", "exact"])
    for name, gradient in gradients.items():
        for index in np.ndindex(gradient.values.shape):
            writer.writerow(
                [
                    name,
                    " ".join(map(str, index)),
                    repr(float(gradient.values[index])),
                    gradient.decimals[index],
                ]
            )
    return out.getvalue().rstrip("\n")


def npz(gradients: Gradients) -> bytes:
    """An array of floats for each parameter."""
    out = io.BytesIO()
    arrays: dict[str, Any] = {name: gradient.values for name, gradient in gradients.items()}
    np.savez(out, **arrays)
    return out.getvalue()


FORMS = {"text": text, "json": as_json, "csv": as_csv}
