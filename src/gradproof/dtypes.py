"""The floating-point formats an engine computes in, as facts of IEEE 754 (and of bfloat16), and what
compilers make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .errors import InputError, did_you_mean


@dataclass(frozen=True)
class DType:
    """A binary format: `precision` significant bits, exponents from `emin` to `emax`.

    A sum is expected to be held in float32 or better, or to be taken so that its error is that of at most
    `additions` one after the other in this format; None: in whatever way.

    An engine that `flushes` takes what is below the normal numbers for 0. One that is `stepwise` rounds every
    operation inside of a 16-bit function to 16 bits; others compute it in float32 and round once.
    """

    name: str
    precision: int
    emin: int
    emax: int
    flushes: bool = False
    stepwise: bool = False
    additions: int | None = None

    @property
    def unit_roundoff(self) -> float:
        """u = 2**-precision, the largest relative error of one correct rounding."""
        return 2.0**-self.precision

    @property
    def smallest(self) -> float:
        """The smallest subnormal number."""
        return 2.0 ** (self.emin - self.precision + 1)

    @property
    def underflow(self) -> float:
        """The largest absolute error of one operation whose result is too small for its last digits."""
        return self.smallest_normal if self.flushes else self.smallest

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.emin

    @property
    def largest(self) -> float:
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax


FEW = 16  # additions in 16 bits whose rounding a sum's error may have; built-in sums are held in float32

DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("float64", 53, -1022, 1023),
        DType("float32", 24, -126, 127),
        DType("bfloat16", 8, -126, 127, additions=FEW),
        DType("float16", 11, -14, 15, additions=FEW),
    )
}

# What XLA makes of them on a CPU: subnormal numbers are 0 there, and bfloat16 stays bfloat16 inside of a
# function.
XLA = {name: replace(dtype, flushes=True, stepwise=True, additions=None) for name, dtype in DTYPES.items()}

# Whatever way a sum was taken, as one that is so large that 1 no longer counts.
ANY_SUM = {
    name: dtype if dtype.additions is None else replace(dtype, additions=2**62)
    for name, dtype in DTYPES.items()
}


def dtype_named(name: str, formats: Mapping[str, DType] = DTYPES) -> DType:
    """The format of that name, as an engine has it.

    Raises `InputError` for any other name.
    """
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}{did_you_mean(name, DTYPES)} (one of {', '.join(DTYPES)})")
    return formats[name]
