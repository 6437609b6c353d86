"""Complex numbers as pairs of reals, and Fourier transforms: right functions pass, and each nearly right twin
is refuted at its node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty import function
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import Function

from gradproof import Report, Verdict, check_function
from gradproof.causes import Conjugated, Factor, FactorInSome

PAIRS = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def drawn(*shape: int, dtype: torch.dtype = torch.complex128, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()


def real(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return drawn(*shape, dtype=dtype, seed=seed)


def wrong_ones(report: Report) -> set[str]:
    return {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited}


FUNCTIONS = """exp expm1 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan sinh cosh tanh asin
acos atan asinh acosh atanh sigmoid abs angle sgn neg conj real imag""".split()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=["complex64", "complex128"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_complex_numbers_is_right(name: str, dtype: torch.dtype) -> None:
    report = check_function(lambda z: getattr(torch, name)(z), drawn(12, dtype=dtype))
    assert report.ok, report.to_text()
    assert report.dtype == ("float32" if dtype is torch.complex64 else "float64")


def _together(parts: Any) -> Tensor:
    u, s, v = parts
    return (u * s.unsqueeze(-2)) @ v.mH


RIGHT: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "a product": (lambda z, w: z * w, (drawn(4), drawn(4, seed=1))),
    "a quotient": (lambda z, w: z / w, (drawn(4), drawn(4, seed=1))),
    "a number over it": (lambda z: (2 - 1j) / z, (drawn(4),)),
    "times a real one": (lambda z, x: z * x, (drawn(4), real(4, seed=1))),
    "a power": (lambda z, w: z**w, (drawn(4), drawn(4, seed=1))),
    "a whole power": (lambda z: z**3 + z**-2, (drawn(4),)),
    "a number to its power": (lambda z: torch.pow(2.0, z), (drawn(4),)),
    "an adjoint product": (lambda z, w: z.mH @ w, (drawn(3, 2), drawn(3, 2, seed=1))),
    "a batch of products": (lambda z, w: torch.bmm(z, w.conj()), (drawn(2, 3, 2), drawn(2, 2, 3, seed=1))),
    "an inner product": (torch.vdot, (drawn(4), drawn(4, seed=1))),
    "in place": (lambda z: z.clone().mul_(z.conj()).add_(1j), (drawn(4),)),
    "a part set": (lambda z: torch.cat([z.real, z.imag * 2]).view(2, -1).sum(0), (drawn(4),)),
    "its real view": (lambda z: torch.view_as_real(z).prod(-1), (drawn(4),)),
    "a real tensor as pairs": (lambda x: torch.view_as_complex(x).exp().abs(), (real(4, 2),)),
    "polar": (lambda r, a: torch.polar(r.exp(), a), (real(4), real(4, seed=1))),
    "two parts": (lambda x, y: torch.complex(x, y).square(), (real(4), real(4, seed=1))),
    "a convolution": (lambda z, w: torch.conv1d(z, w, padding=1), (drawn(1, 2, 5), drawn(3, 2, 3, seed=1))),
    "a variance": (lambda z: z.var(), (drawn(6),)),
    "a norm": (lambda z: torch.linalg.vector_norm(z, dim=1), (drawn(3, 2),)),
    "a logarithm of a sum": (lambda z: z.logsumexp(0), (drawn(5),)),
    "a solution": (torch.linalg.solve, (drawn(3, 3), drawn(3, 2, seed=1))),
    "a determinant": (torch.linalg.det, (drawn(3, 3),)),
    "an inverse": (torch.linalg.inv, (drawn(3, 3),)),
    "a pseudo-inverse": (torch.linalg.pinv, (drawn(3, 2),)),
    "Q and R": (torch.linalg.qr, (drawn(3, 2),)),
    "moduli of eigenvalues": (lambda z: torch.linalg.eigvals(z).abs(), (drawn(3, 3),)),
    "Hermitian eigenvalues": (lambda z: torch.linalg.eigvalsh(z + z.mH), (drawn(3, 3),)),
    "singular values": (torch.linalg.svdvals, (drawn(3, 2),)),
    "conjugated twice": (lambda z: z.mH.mH @ z, (drawn(2, 2),)),
    "put together from its factors": (lambda z: _together(torch.svd(z)), (drawn(3, 2),)),
    "an exponential of a matrix": (torch.linalg.matrix_exp, (drawn(2, 2),)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_made_of_complex_numbers_is_right(name: str) -> None:
    function, inputs = RIGHT[name]
    report = check_function(function, *inputs)
    assert report.ok, report.to_text()


TURN = 1 + 2j
ANGLES = torch.polar(torch.ones(3, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64))
# Each a wrong function and its right twin, as (forward, wrong backward, right backward), with its inputs.
TWINS: dict[str, tuple[Callable[..., Tensor], Callable[..., Any], Callable[..., Any], tuple[Tensor, ...]]] = {
    "a factor": (lambda z: z * TURN, lambda g, z: g * TURN, lambda g, z: g * TURN.conjugate(), (drawn(4),)),
    "a square": (lambda z: z * z, lambda g, z: 2 * g * z, lambda g, z: 2 * g * z.conj(), (drawn(4),)),
    "a product": (lambda z, w: z * w, lambda g, z, w: (g * w, g * z.conj()),
                  lambda g, z, w: (g * w.conj(), g * z.conj()), (drawn(4), drawn(4, seed=1))),
    "a matrix product": (lambda z, w: z @ w, lambda g, z, w: (g @ w.mT, z.mH @ g),
                         lambda g, z, w: (g @ w.mH, z.mH @ g), (drawn(3, 2), drawn(2, 3, seed=1))),
    "a modulus": (lambda z: z.abs(), lambda g, z: 2 * g * z.sgn(), lambda g, z: g * z.sgn(), (drawn(4),)),
    "an angle": (lambda z: z.angle(), lambda g, z: g * z * -1j / z.abs() ** 2,
                 lambda g, z: g * z * 1j / z.abs() ** 2, (drawn(4),)),
    "the other part": (lambda z: z.real, lambda g, z: g * 1j, lambda g, z: g + 0j, (drawn(4),)),
    "an exponential": (lambda z: z.exp(), lambda g, z: g * z.exp(), lambda g, z: g * z.exp().conj(),
                       (drawn(4),)),
    "a rotation of real pairs": (
        lambda x: torch.view_as_real(torch.view_as_complex(x.contiguous()) * ANGLES),
        lambda g, x: torch.view_as_real(torch.view_as_complex(g.contiguous()) * ANGLES),
        lambda g, x: torch.view_as_real(torch.view_as_complex(g.contiguous()) * ANGLES.conj()),
        (real(3, 2),)),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_a_wrong_one_is_refuted_at_its_node_and_its_twin_passes(name: str) -> None:
    forward, wrong, right, inputs = TWINS[name]
    report = check_function(function("Wrong", forward, wrong), *inputs)
    assert report.verdict is Verdict.WRONG
    assert wrong_ones(report) == {"WrongBackward"}, report.to_text()
    assert check_function(function("Right", forward, right), *inputs).ok


def test_a_missing_conjugate_is_named() -> None:
    forward, wrong, _, inputs = TWINS["a factor"]
    (finding,) = [f for f in check_function(function("Wrong", forward, wrong), *inputs).findings
                  if f.kind == "local" and f.verdict is Verdict.WRONG]  # fmt: skip
    assert Conjugated(factor=True) in finding.causes


def test_a_conjugate_too_many_is_named() -> None:
    report = check_function(
        function("Wrong", lambda z: z.exp(), lambda g, z: (g * z.exp().conj()).conj()), drawn(3)
    )
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert Conjugated() in finding.causes


def test_a_detached_part_is_lost() -> None:
    report = check_function(lambda z: z * torch.complex(z.real.detach(), z.imag), drawn(3))
    assert report.verdict is Verdict.WRONG


# Fourier

NORMS = ["backward", "ortho", "forward"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_a_transform_of_any_length_and_norm_is_right(name: str, norm: str) -> None:
    transform = getattr(torch.fft, name)
    x = real(7) if name in ("rfft", "ihfft") else drawn(7)
    for length in (None, 4, 5, 9):
        report = check_function(lambda v: transform(v, n=length, norm=norm), x)  # noqa: B023
        assert report.ok, report.to_text()


@pytest.mark.parametrize("name", ["fft2", "ifft2", "rfft2", "irfft2", "fftn", "rfftn", "irfftn", "hfft2"])
def test_a_transform_of_several_axes_is_right(name: str) -> None:
    x = real(2, 3, 4) if name.startswith("rfft") else drawn(2, 3, 4)
    report = check_function(getattr(torch.fft, name), x)
    assert report.ok, report.to_text()


def test_a_spectrogram_and_its_inverse_are_right() -> None:
    window = torch.hann_window(8, dtype=torch.float64)

    def again(x: Tensor) -> Tensor:
        made = torch.stft(x, 8, 4, window=window, return_complex=True)
        return torch.istft(made * 2, 8, 4, window=window)

    assert check_function(again, real(24)).ok


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_long_transform_is_right(dtype: torch.dtype) -> None:
    report = check_function(lambda x: torch.fft.rfft(x).abs().sum(), real(600, dtype=dtype))
    assert report.ok, report.to_text()


def whole(g: Tensor, n: int) -> Tensor:
    """The transpose of `irfft`, whose inner bins stand for two."""
    made = torch.fft.rfft(g) / n
    made[..., 1 : (n + 1) // 2] *= 2
    return made


def test_bins_that_are_not_counted_twice_are_named() -> None:
    n = 8
    right = function("Right", lambda z: torch.fft.irfft(z, n), lambda g, z: whole(g, n))
    wrong = function("Wrong", lambda z: torch.fft.irfft(z, n), lambda g, z: torch.fft.rfft(g) / n)
    assert check_function(right, drawn(5)).ok
    report = check_function(wrong, drawn(5))
    assert wrong_ones(report) == {"WrongBackward"}
    causes = [cause for f in report.findings if f.kind == "local" for cause in f.causes]
    assert FactorInSome(0.5, 6, 10) in causes


@pytest.mark.parametrize("factor", [6.0, 6**0.5, 1 / 6])
def test_a_wrong_norm_is_named(factor: float) -> None:
    n = 6
    assert check_function(function("Right", torch.fft.ifft, lambda g, z: torch.fft.fft(g) / n), drawn(n)).ok
    scaled = function("Wrong", torch.fft.ifft, lambda g, z: torch.fft.fft(g) / n * factor)
    report = check_function(scaled, drawn(n))
    assert wrong_ones(report) == {"WrongBackward"}
    causes = {c for f in report.findings if f.kind == "local" for c in f.causes if isinstance(c, Factor)}
    assert causes and all(c.ratio == pytest.approx(factor) and f"n = {n}" in c.meaning for c in causes)


PARTS = st.floats(1e-3, 40) | st.floats(-40, -1e-3)


@settings(deadline=None, max_examples=30)
@given(PARTS, PARTS)
def test_values_off_the_branch_cuts_are_never_refused(re: float, im: float) -> None:
    point = torch.tensor(complex(re, im), dtype=torch.complex128).requires_grad_()
    for name in ("sqrt", "log", "tanh", "asinh", "acosh", "atan"):
        report = check_function(getattr(torch, name), point, net=False)
        assert report.verdict is not Verdict.WRONG, (name, report.to_text())


@pytest.mark.parametrize("name", ["sqrt", "log", "angle", "log10"])
def test_on_a_branch_cut_the_sign_of_zero_tells_the_side(name: str) -> None:
    points = torch.tensor([complex(-4.0, 0.0), complex(-4.0, -0.0)], dtype=torch.complex128).requires_grad_()
    assert check_function(getattr(torch, name), points, net=False).ok


def convolved(backward: Callable[[Tensor, Tensor, Tensor], Tensor], axes: int, padding: int) -> Report:
    """A circular convolution by spectra, whose derivative by its second factor is what `backward` makes of
    the three spectra."""
    dims = tuple(range(-axes, 0))

    class Convolution(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, h: Tensor) -> Tensor:
            ctx.save_for_backward(x, h)
            ctx.size = [n + padding for n in x.shape[-axes:]]
            spectra = (torch.fft.rfftn(a, ctx.size, dims) for a in (x, h))
            return torch.fft.irfftn(next(spectra) * next(spectra), ctx.size, dims)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
            x, h = (torch.fft.rfftn(a, ctx.size, dims) for a in ctx.saved_tensors)
            G = torch.fft.rfftn(g, ctx.size, dims)
            of_x, of_h = (
                torch.fft.irfftn(S, ctx.size, dims)[(..., *map(slice, ctx.saved_tensors[0].shape[-axes:]))]
                for S in (G * h.conj(), backward(G, x, h))
            )
            return of_x, of_h

    shape = (2, 6) if axes == 1 else (4, 6)
    return check_function(
        lambda x, h: (Convolution.apply(x, h) ** 2).sum(), real(*shape), real(*shape, seed=1)
    )


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("axes", [1, 2])
def test_a_spectrum_that_is_not_conjugated_is_named(axes: int, padding: int) -> None:
    assert convolved(lambda G, x, h: G * x.conj(), axes, padding).ok
    report = convolved(lambda G, x, h: G * x, axes, padding)
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert finding.wrt == "h" and finding.causes == (Conjugated(factor=True, spectrum=True),)


@pytest.mark.parametrize("axes", [1, 2])
def test_the_spectrum_of_a_result_that_is_conjugated_is_named(axes: int) -> None:
    report = convolved(lambda G, x, h: G.conj() * x, axes, 0)
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert finding.causes == (Conjugated(spectrum=True),)


def test_another_mistake_of_a_convolution_is_no_conjugate() -> None:
    report = convolved(lambda G, x, h: G * h.conj(), 1, 0)
    (finding,) = [f for f in report.findings if f.kind == "local" and f.verdict is Verdict.WRONG]
    assert not any(isinstance(cause, Conjugated) for cause in finding.causes)
