"""Torch operations by family: the forward and every cotangent of each pass, in float64 and float32.

A row is a name, a function and the shapes or numbers of its inputs. Each row once had no formula, or was
judged wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F

import gradproof
from gradproof.verdict import Verdict

INF = math.inf


class Case(NamedTuple):
    name: str
    function: Callable[..., torch.Tensor]
    inputs: tuple[Any, ...]  # a tuple is the shape of random numbers, a list the numbers themselves


def _spread(shape: tuple[int, ...]) -> torch.Tensor:
    """Symmetric positive definite matrices."""
    a = torch.randn(shape, dtype=torch.float64)
    return a @ a.mT + shape[-1] * torch.eye(shape[-1], dtype=torch.float64)


def _index(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


POINTS = [-2.7, -0.4, 0.3, 1.8]
PLACES = [0.2, 0.35, 0.6, 0.9]

SCALARS = [
    Case("floor", torch.floor, (POINTS,)),
    Case("ceil", torch.ceil, (POINTS,)),
    Case("trunc", torch.trunc, (POINTS,)),
    Case("frac", torch.frac, (POINTS,)),
    Case("round to half even", torch.round, ([-1.5, 0.5, 2.5, 3.2],)),
    Case("round to decimals", lambda x: torch.round(x, decimals=1), (POINTS,)),
    Case("fmod", torch.fmod, (POINTS, [0.7, -0.9, 0.25, 1.1])),
    Case("remainder", torch.remainder, (POINTS, [0.7, -0.9, 0.25, 1.1])),
    Case(
        "div rounded down",
        lambda x, y: torch.div(x, y, rounding_mode="floor"),
        (POINTS, [0.7, -0.9, 0.25, 1.1]),
    ),
    Case(
        "div rounded to 0",
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
        (POINTS, [0.7, -0.9, 0.25, 1.1]),
    ),
    Case("pow of two tensors", torch.pow, (PLACES, POINTS)),
    Case("float_power", torch.float_power, (PLACES, POINTS)),
    Case("ldexp", torch.ldexp, (POINTS, [1.0, -2.0, 0.5, 3.0])),
    Case("frexp", lambda x: torch.frexp(x).mantissa, (POINTS,)),
    Case("polygamma", lambda x: torch.polygamma(2, x), (PLACES,)),
    Case("erfinv", torch.erfinv, (PLACES,)),
    Case("ndtri", torch.special.ndtri, (PLACES,)),
    Case("log_ndtr", torch.special.log_ndtr, ([-9.0, -0.4, 0.3, 3.8],)),
    Case("erfcx", torch.special.erfcx, (POINTS,)),
    Case("i0", torch.i0, (POINTS,)),
    Case("i0e", torch.special.i0e, (POINTS,)),
    Case("i1", torch.special.i1, (POINTS,)),
    Case("i1e", torch.special.i1e, (POINTS,)),
    Case("angle", torch.angle, (POINTS,)),
    Case("nextafter", torch.nextafter, (POINTS, PLACES)),
    Case("leaky_relu", lambda x: F.leaky_relu(x, 0.3), (POINTS,)),
    Case("rrelu", lambda x: F.rrelu(x, training=True), (POINTS,)),
    Case("logaddexp", torch.logaddexp, (POINTS, PLACES)),
    Case("vector_norm of order -2.5", lambda x: torch.linalg.vector_norm(x, -2.5), (POINTS,)),
    Case("vector_norm of a number", lambda x: torch.linalg.vector_norm(x, 3), (-1.3,)),
]

REDUCTIONS = [
    Case("max of all", torch.max, ((2, 3),)),
    Case("median of all", torch.median, ((2, 3),)),
    Case("trace of a rectangle", torch.trace, ((2, 3),)),
    Case("var with a correction between", lambda x: torch.var(x, 0, correction=1.3), ((4, 2),)),
    Case("splits of nothing", lambda x: torch.split_with_sizes_copy(x, [2, 0, 1])[0], ((3, 2),)),
    Case("logcumsumexp", lambda x: torch.logcumsumexp(x, 0), ((4,),)),
    Case("quantile", lambda x: torch.quantile(x, 0.4, dim=0), ((5, 2),)),
    Case("scatter_add at repeated places", lambda x, y: x.scatter_add(0, _index(0, 0, 2), y), ((3,), (3,))),
    Case("index_add of numbers", lambda x, y: x.index_add(0, _index(0), y, alpha=-1), (1.5, 2.5)),
    Case("put adds at repeated places", lambda x, y: x.put(_index(1, 1), y, accumulate=True), ((3,), (2,))),
    *(
        Case(f"scatter_reduce {reduce}, self {'in' if own else 'out'}",
             lambda x, y, reduce=reduce, own=own: x.scatter_reduce(0, _index(0, 0, 2), y, reduce,
                 include_self=own),
             ([0.5, 1.5, -2.0], [0.25, 3.0, 1.75]))
        for reduce in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)
    ),
    Case("index_reduce mean", lambda x, y: x.index_reduce(0, _index(0, 2, 0), y, "mean"), ((3, 2), (3, 2))),
    Case("segment_reduce", lambda x: torch.segment_reduce(x, "mean", lengths=_index(2, 3)), ((5, 2),)),
    Case("embedding_bag", lambda w: F.embedding_bag(_index(0, 2, 2, 1), w, _index(0, 3), mode="mean"),
        ((3, 2),)),
    Case("addmm of nothing", torch.addmm, ((2, 3), (2, 0), (0, 3))),
    Case("cdist", torch.cdist, ((3, 2), (2, 2))),
    Case("pdist", F.pdist, ((3, 2),)),
    Case("bilinear", lambda x, y, w: F.bilinear(x, y, w), ((2, 2), (2, 3), (2, 2, 3))),
]  # fmt: skip

INFINITE = [
    Case("softmax beside -inf", lambda x: torch.softmax(x, 0), ([0.5, -INF, 1.5],)),
    Case("log_softmax beside -inf", lambda x: torch.log_softmax(x, 0)[:1], ([0.5, -INF, 1.5],)),
    Case("logsumexp beside -inf", lambda x: torch.logsumexp(x, 0), ([0.5, -INF, 1.5],)),
    Case(
        "attention mask",
        lambda x: torch.softmax(x.masked_fill(torch.ones(3, 3).triu(1).bool(), -INF), -1),
        ((3, 3),),
    ),
    Case(
        "attention with a row masked wholly",
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.tensor([[True, False], [False, False]])
        ),
        ((1, 1, 2, 2),) * 3,
    ),
]

IMAGES = [
    Case("bicubic by a factor", lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic"),
        ((1, 1, 3, 3),)),
    Case("bilinear to corners", lambda x: F.interpolate(x, (3, 5), mode="bilinear", align_corners=True),
        ((1, 1, 2, 3),)),
    Case("bilinear without aliases", lambda x: F.interpolate(x, (2, 2), mode="bilinear", antialias=True),
        ((1, 1, 3, 4),)),
    Case("grid_sample", lambda x, g: F.grid_sample(x, g, align_corners=False),
        ((1, 1, 3, 3), [[[[0.1, -0.7], [0.4, 0.3]]]])),
    Case("circular padding", lambda x: F.pad(x, (1, 2), mode="circular"), ((1, 2, 3),)),
    Case("adaptive_avg_pool3d", lambda x: F.adaptive_avg_pool3d(x, 2), ((1, 1, 3, 3, 2),)),
    Case("layer_norm of one number", lambda x, w: F.layer_norm(x, (1,), w), ((2, 1), (1,))),
    Case("batch_norm in evaluation", lambda x, w: F.batch_norm(x, x.new_ones(2), x.new_full((2,), 0.3), w),
        ((3, 2), (2,))),
    Case("cross entropy with logits", lambda x, t: F.binary_cross_entropy_with_logits(x, t),
        ((3,), [0.2, 0.9, 0.5])),
    Case("ctc_loss", lambda x: F.ctc_loss(x.log_softmax(-1), torch.tensor([[1, 2, 2]]), [5], [3]),
        ((5, 1, 4),)),
]  # fmt: skip

MATRICES = [
    Case("solve", torch.linalg.solve, ((2, 3, 3), (2, 3, 1))),
    Case("inv", torch.linalg.inv, ((3, 3),)),
    Case("det", torch.linalg.det, ((3, 3),)),
    Case("slogdet", lambda a: torch.linalg.slogdet(a)[1], ((3, 3),)),
    Case("lu", lambda a: torch.linalg.lu(a)[2], ((3, 3),)),
    Case("cholesky", lambda a: torch.linalg.cholesky(a), (_spread,)),
    Case("cholesky_solve", lambda b, a: torch.cholesky_solve(b, torch.linalg.cholesky(a)), ((3, 2), _spread)),
    Case("solve_triangular", lambda a, b: torch.linalg.solve_triangular(torch.linalg.cholesky(a), b,
        upper=False),
         (_spread, (3, 2))),
    Case("qr", lambda a: torch.linalg.qr(a)[0], ((4, 3),)),
    Case("lstsq", lambda a, b: torch.linalg.lstsq(a, b).solution, ((4, 2), (4, 1))),
    Case("pinv", torch.linalg.pinv, ((3, 2),)),
    Case("householder_product", lambda v: torch.linalg.householder_product(v,
        2 / (1 + v.tril(-1).square().sum(0))), ((3, 2),)),
    Case("eigvalsh", torch.linalg.eigvalsh, (_spread,)),
    Case("svdvals", torch.linalg.svdvals, ([[1.0, 2.0, 0.5], [-1.0, 0.25, 3.0]],)),
    Case("matrix_exp", torch.linalg.matrix_exp, ((2, 2),)),
]  # fmt: skip


def _given(what: Any, dtype: torch.dtype) -> torch.Tensor:
    if callable(what):
        made = what((3, 3))
    elif isinstance(what, tuple):
        made = torch.randn(what, dtype=torch.float64)
    else:
        made = torch.tensor(what, dtype=torch.float64)
    return made.to(dtype).requires_grad_()


CASES = [*SCALARS, *REDUCTIONS, *INFINITE, *IMAGES, *MATRICES]


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operation_and_its_gradient_are_right(case: Case, dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    report = gradproof.check_function(case.function, *(_given(what, dtype) for what in case.inputs))
    assert report.ok, report.to_text()


# Where torch's gradient is not that of the function that it computes.
FINDINGS = [
    Case("hardsigmoid has 1/6 of float32", F.hardsigmoid, ([0.5],)),
    Case("trigamma has ten digits", lambda x: torch.polygamma(1, x), ([1.5],)),
    Case("digamma's gradient has ten digits", torch.digamma, ([1.5],)),
    Case("as_strided_scatter passes on what it overwrites",
         lambda x, y: torch.as_strided_scatter(x, y, (1,), (1,), 0), ([2.0], [3.0])),
    Case("max_unpool2d passes on to entries that were overwritten",
         lambda x: F.max_unpool2d(x, torch.zeros(1, 1, 1, 2, dtype=torch.int64), 2), ([[[[1.0, 2.0]]]],)),
    Case("det of a singular matrix", torch.linalg.det, ([[1.0, 2.0], [2.0, 4.0]],)),
    Case("logsumexp of nothing but -inf", lambda x: torch.logsumexp(x, 0), ([-INF, -INF],)),
]  # fmt: skip


@pytest.mark.parametrize("case", FINDINGS, ids=lambda case: case.name)
def test_a_gradient_of_torchs_own_that_is_wrong_is_found(case: Case) -> None:
    report = gradproof.check_function(case.function, *(_given(what, torch.float64) for what in case.inputs))
    assert any(finding.verdict is Verdict.WRONG for finding in report.findings), report.to_text()
