"""The one table of torch functions: wrong ones and their twins, right ones, refuted ones, nets."""

from __future__ import annotations

from typing import Any

import function_cases
import function_faults
import reported_cases
import reported_formulas
import reported_uses

FAULTS: tuple[Any, ...] = (
    *function_faults.FAULTS,
    *reported_formulas.FAULTS,
    *reported_uses.FAULTS,
)
RIGHT: tuple[Any, ...] = (*function_cases.RIGHT, *reported_cases.RIGHT)
REFUTED: tuple[Any, ...] = (*function_cases.REFUTED, *reported_cases.REFUTED)
NETS: dict[str, Any] = {
    **function_cases.NETS,
    **{f"{name}, again": net for name, net in reported_cases.NETS.items()},
}
DEEP: dict[str, Any] = reported_cases.DEEP
