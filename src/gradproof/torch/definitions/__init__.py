"""Definitions of torch's operations in terms of simpler ones, where neither a formula nor torch's own
decomposition tells.

Each is a plain torch function that takes the operation's arguments by their names in torch's schema, and
`outs`, the results that torch gave, where a choice is read off them (the signs of a QR). It is recorded like
any other code, so it says only what the operation computes: its derivative comes from calculus. Textbook
algorithms stand here for what has no formula for each entry; which algorithm computes a function does not
matter to its derivative, and its rounding is a good one's. Choices that no derivative depends on (pivots,
which places repeat) are made with plain numbers, outside of the recording.
"""

from __future__ import annotations

from . import draws, layers, losses, matrices, orthogonal, reductions, sampling, segments, spectra, transposes
from .pairs import ADDITIVE, COMPLEX, by_parts
from .plain import Definitions, NotDefinedError
from .sparse import SPARSE

__all__ = ["ADDITIVE", "COMPLEX", "DEFINITIONS", "SPARSE", "NotDefinedError", "by_parts"]

DEFINITIONS: Definitions = {
    **matrices.DEFINITIONS,
    **orthogonal.DEFINITIONS,
    **spectra.DEFINITIONS,
    **reductions.DEFINITIONS,
    **segments.DEFINITIONS,
    **layers.DEFINITIONS,
    **losses.DEFINITIONS,
    **sampling.DEFINITIONS,
    **draws.DEFINITIONS,
    **transposes.DEFINITIONS,
}
