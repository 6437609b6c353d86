"""The floating-point formats an engine computes in, as facts of IEEE 754 (and of bfloat16)."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError, did_you_mean


@dataclass(frozen=True)
class DType:
    """A binary format: `precision` significant bits, exponents from `emin` to `emax`."""

    name: str
    precision: int
    emin: int
    emax: int

    @property
    def unit_roundoff(self) -> float:
        """u = 2**-precision, the largest relative error of one correct rounding."""
        return 2.0**-self.precision

    @property
    def smallest(self) -> float:
        """The smallest subnormal number."""
        return 2.0 ** (self.emin - self.precision + 1)

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.emin

    @property
    def largest(self) -> float:
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax


DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("float64", 53, -1022, 1023),
        DType("float32", 24, -126, 127),
        DType("bfloat16", 8, -126, 127),
        DType("float16", 11, -14, 15),
    )
}


def dtype_named(name: str) -> DType:
    """The format of that name.

    Raises `InputError` for any other name.
    """
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}{did_you_mean(name, DTYPES)} (one of {', '.join(DTYPES)})")
    return DTYPES[name]
