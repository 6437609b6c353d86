"""What people build of complex numbers, transforms and sparse matrices: each as it is published passes, and
with a factor in its backward is refuted there."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from faulty import function
from torch import Tensor
from torch.nn import functional

from gradproof import Verdict, check_function

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DTYPES = {torch.float64: torch.complex128, torch.float32: torch.complex64}


def rotary(q: Tensor) -> Tensor:
    """Rotary positions of a transformer, as products of complex numbers."""
    angles = torch.outer(torch.arange(4.0), 1 / (10000 ** (torch.arange(3.0) / 3))).to(q.dtype)
    pairs = torch.view_as_complex(q.reshape(*q.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def fnet(x: Tensor) -> Tensor:
    """Mixing by transforms along both axes."""
    return torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real


def fourier_operator(x: Tensor, w: Tensor) -> Tensor:
    """A layer of a Fourier neural operator: the lowest modes through a matrix each."""
    modes = torch.fft.rfft(x)
    out = torch.zeros(len(x), w.shape[1], modes.shape[-1], dtype=modes.dtype)
    out[:, :, :3] = torch.einsum("bix,iox->box", modes[:, :, :3], w)
    return torch.fft.irfft(out, n=x.shape[-1])


def state_space(a: Tensor, c: Tensor, step: Tensor) -> Tensor:
    """The kernel of a diagonal state space model."""
    poles = -torch.exp(a) + 1j * math.pi * torch.arange(len(a))
    moved = poles * torch.exp(step)
    weight = torch.view_as_complex(c) * (torch.exp(moved) - 1.0) / poles
    return 2 * torch.einsum("n,nl->l", weight, torch.exp(moved.unsqueeze(-1) * torch.arange(6))).real


def envelope(x: Tensor) -> Tensor:
    """The modulus of the analytic signal."""
    mask = torch.tensor([1.0, 2, 2, 2, 1, 0, 0, 0], dtype=x.dtype)
    return torch.fft.ifft(torch.fft.fft(x) * mask).abs()


def long_convolution(x: Tensor, k: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x, 16) * torch.fft.rfft(k, 16), 16)[..., :8]


def phase_retrieval(x: Tensor) -> Tensor:
    return ((torch.fft.fft2(x).abs() ** 2) - 1).pow(2).mean()


def spectrogram_loss(x: Tensor) -> Tensor:
    window = torch.hann_window(8, dtype=x.dtype)
    return torch.stft(x, 8, 2, window=window, return_complex=True).abs().clamp(min=1e-5).log().mean()


def phases_alone(x: Tensor) -> Tensor:
    window = torch.hann_window(8, dtype=x.dtype)
    made = torch.stft(x, 8, 2, window=window, return_complex=True)
    return torch.istft(made / (made.abs() + 1e-3), 8, 2, window=window)


def mod_relu(z: Tensor, b: Tensor) -> Tensor:
    return torch.relu(z.abs() + b) * z / (z.abs() + 1e-5)


def two_level_system(t: Tensor) -> Tensor:
    """The populations after a time under a Hamiltonian of two numbers."""
    kind = DTYPES[t.dtype]
    x, z = torch.tensor([[0, 1], [1, 0]], dtype=kind), torch.tensor([[1, 0], [0, -1]], dtype=kind)
    state = torch.linalg.matrix_exp(-1j * (t[0] * x + t[1] * z)) @ torch.tensor([1, 0], dtype=kind)
    return state.abs() ** 2


def parts_set(x: Tensor) -> Tensor:
    z = torch.zeros(len(x), dtype=DTYPES[x.dtype])
    z.real, z.imag = x, x**2
    return (z * z).abs()


def graph_convolution(x: Tensor, w: Tensor) -> Tensor:
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    graph = torch.sparse_coo_tensor(edges, torch.tensor([0.5, 0.3, 0.2, 0.7], dtype=x.dtype), (3, 3))
    return torch.relu(torch.sparse.mm(graph, x) @ w)


def graph_attention(scores: Tensor, x: Tensor) -> Tensor:
    edges = torch.tensor([[0, 1, 1], [1, 0, 2]])
    weights = torch.sparse.softmax(torch.sparse_coo_tensor(edges, scores, (3, 3)), 1)
    return torch.sparse.mm(weights, x)


def rows_of_a_table(w: Tensor) -> Tensor:
    return functional.embedding(torch.tensor([0, 2, 2]), w, sparse=True).sin()


def whitened(z: Tensor) -> Tensor:
    return torch.linalg.cholesky(z @ z.mH + torch.eye(3)).abs()


REAL, COMPLEX = "real", "complex"
USES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[str, tuple[int, ...]], ...]]] = {
    "rotary positions": (rotary, ((REAL, (2, 4, 6)),)),
    "mixing by transforms": (fnet, ((REAL, (2, 3, 4)),)),
    "a Fourier operator": (fourier_operator, ((REAL, (2, 2, 8)), (COMPLEX, (2, 3, 3)))),
    "a state space kernel": (state_space, ((REAL, (3,)), (REAL, (3, 2)), (REAL, (1,)))),
    "an envelope": (envelope, ((REAL, (8,)),)),
    "a long convolution": (long_convolution, ((REAL, (2, 8)), (REAL, (8,)))),
    "phase retrieval": (phase_retrieval, ((REAL, (3, 4)),)),
    "a spectrogram's loss": (spectrogram_loss, ((REAL, (32,)),)),
    "phases alone": (phases_alone, ((REAL, (24,)),)),
    "a modulus' relu": (mod_relu, ((COMPLEX, (5,)), (REAL, (5,)))),
    "a two-level system": (two_level_system, ((REAL, (2,)),)),
    "parts that are set": (parts_set, ((REAL, (3,)),)),
    "a graph convolution": (graph_convolution, ((REAL, (3, 2)), (REAL, (2, 2)))),
    "graph attention": (graph_attention, ((REAL, (3,)), (REAL, (3, 2)))),
    "a sparse gradient": (rows_of_a_table, ((REAL, (4, 2)),)),
    "a Hermitian factor": (whitened, ((COMPLEX, (3, 3)),)),
}


thousandth_more = function("Planted", lambda x: x * 1.0, lambda g, x: g * 1.001)


def drawn(name: str, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    kinds = {REAL: dtype, COMPLEX: DTYPES[dtype]}
    made = [torch.randn(shape, dtype=kinds[kind], generator=generator) for kind, shape in USES[name][1]]
    return [tensor.requires_grad_() for tensor in made]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", USES)
def test_what_people_build_is_right_and_a_factor_in_it_is_found(name: str, dtype: torch.dtype) -> None:
    function = USES[name][0]
    report = check_function(function, *drawn(name, dtype))
    assert report.ok, report.to_text()
    planted = (
        lambda first, *others: function(thousandth_more(first), *others),
        lambda *inputs: thousandth_more(function(*inputs)),
    )
    for wrong in planted:
        report = check_function(wrong, *drawn(name, dtype), net=False)
        blamed = {
            f.node
            for f in report.findings
            if f.verdict is Verdict.WRONG and f.kind == "local" and not f.inherited
        }
        assert blamed == {"PlantedBackward"}, report.to_text()
