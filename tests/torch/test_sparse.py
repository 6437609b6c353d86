"""Sparse tensors are their values at their places: right functions pass, nearly right twins are refuted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from gradproof import Verdict, check_function

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of what is beta

DOUBLED = torch.tensor([[0, 2, 2]])
PLACES = torch.tensor([[0, 1, 1], [0, 2, 1]])
ROWS, COLUMNS = torch.tensor([0, 1, 1, 3]), torch.tensor([0, 1, 2])
ONES = torch.ones(3, dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def coo(values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(PLACES, values, (4, 3))


def csr(values: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(ROWS, COLUMNS, values, (3, 3))


def listed(values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(DOUBLED, values, (4,))


RIGHT: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "made dense": (lambda v: coo(v).to_dense().exp(), (drawn(3),)),
    "two values at one place": (lambda v: v * listed(v).to_dense()[:3], (drawn(3),)),
    "added up": (lambda v: listed(v).coalesce().values() ** 2, (drawn(3),)),
    "rows of values": (
        lambda w: torch.sparse_coo_tensor(DOUBLED, w, (4, 2)).to_dense().sin(), (drawn(3, 2),)),
    "a product": (lambda v, w: torch.sparse.mm(coo(v), w), (drawn(3), drawn(3, 2, seed=1))),
    "a product of CSR": (lambda v, w: csr(v) @ w, (drawn(3), drawn(3, 2, seed=1))),
    "a product of two": (
        lambda v, w: torch.sparse.mm(coo(v), torch.sparse_coo_tensor(PLACES, w, (3, 4))).to_dense(),
        (drawn(3), drawn(3, seed=1))),
    "transposed": (lambda v: torch.sparse.mm(coo(v).t(), drawn(4, 2, seed=1).detach()), (drawn(3),)),
    "times a number": (lambda v: (listed(v) * 3).to_dense(), (drawn(3),)),
    "of a dense one": (lambda d: torch.sparse.sum(d.to_sparse()), (drawn(3, 4),)),
    "CSR of a dense one": (lambda d: d.to_sparse_csr().to_dense(), (drawn(3, 4),)),
    "a mask": (
        lambda d: d.sparse_mask(torch.sparse_coo_tensor(PLACES, ONES, (3, 4)).coalesce()).to_dense(),
        (drawn(3, 4),)),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_made_of_sparse_tensors_is_right(name: str) -> None:
    function, inputs = RIGHT[name]
    report = check_function(function, *inputs)
    assert report.ok, report.to_text()


def test_a_sparse_leaf_has_its_gradient_at_its_values() -> None:
    leaf = coo(drawn(3).detach()).requires_grad_()
    assert check_function(torch.sparse.mm, leaf, drawn(3, 2, seed=1)).ok


def product(by_values: Callable[..., Tensor], by_dense: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A sparse matrix's product as a Function of its values."""

    class Product(Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor, dense: Tensor) -> Tensor:
            ctx.save_for_backward(values, dense)
            return torch.sparse.mm(coo(values), dense)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            return by_values(grads[0], *ctx.saved_tensors), by_dense(grads[0], *ctx.saved_tensors)

    return Product.apply


def at_values(g: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    return (g[PLACES[0]] * dense[PLACES[1]]).sum(-1)


def transposed(g: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    return torch.sparse.mm(coo(values).t(), g)


WRONG: dict[str, Callable[..., Tensor]] = {
    "rows for columns": product(lambda g, v, d: (g[PLACES[0]] * d[PLACES[0] % 3]).sum(-1), transposed),
    "a mean over columns": product(lambda g, v, d: (g[PLACES[0]] * d[PLACES[1]]).mean(-1), transposed),
    "the pattern without its values": product(
        at_values, lambda g, v, d: torch.sparse.mm(coo(torch.ones_like(v)).t(), g)),
    "one value lost": product(lambda g, v, d: at_values(g, v, d) * ONES.index_fill(0, DOUBLED[0, :1], 0.0),
                              transposed),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_product_is_refuted_at_its_node(name: str) -> None:
    inputs = drawn(3), drawn(3, 2, seed=1)
    report = check_function(WRONG[name], *inputs)
    blamed = {f.node for f in report.findings if f.verdict is Verdict.WRONG and not f.inherited}
    assert blamed == {"ProductBackward"}, report.to_text()
    assert check_function(product(at_values, transposed), *inputs).ok


@pytest.mark.parametrize("made", [coo, csr, listed], ids=["coo", "csr", "doubled"])
def test_a_stop_through_a_sparse_tensor_is_told_in_its_size(made: Callable[[Tensor], Tensor]) -> None:
    report = check_function(lambda v: v.sum() * made(v.detach()).to_dense().exp(), drawn(3), net=False)
    assert report.verdict is Verdict.WRONG
    assert check_function(lambda v: v.sum() * made(v).to_dense().exp(), drawn(3)).ok
