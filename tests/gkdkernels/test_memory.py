"""The CPU paths never hold edges x features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from gkdkernels import CSRGraph, gat_aggregate, spmm
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

EDGES, NODES, HEADS, WIDTH = 20_000, 100, 2, 64


def tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from tensors(part)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The number of elements of the largest storage that any operation returns."""

    elements: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tensors(result):
            self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def largest(run: Callable[[], Tensor], leaves: Sequence[Tensor]) -> int:
    with Largest() as mode:  # type: ignore[no-untyped-call]
        torch.autograd.grad(run().sum(), leaves)
    return int(mode.elements)


@pytest.fixture
def dense_graph() -> CSRGraph:
    index = torch.randint(0, NODES, (EDGES,), generator=torch.Generator().manual_seed(0))
    return CSRGraph(torch.arange(0, EDGES + 1, EDGES // NODES), index, NODES)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_spmm(dense_graph: CSRGraph, draw: Callable[..., Tensor], reduce: str) -> None:
    x, w = draw(NODES, WIDTH).requires_grad_(), draw(EDGES).requires_grad_()
    cpu = largest(lambda: spmm(dense_graph, x, w, reduce, backend="cpu"), (x, w))
    assert cpu < EDGES * WIDTH / 4
    assert largest(lambda: spmm(dense_graph, x, w, reduce, backend="reference"), (x, w)) >= EDGES * WIDTH


def test_gat(dense_graph: CSRGraph, draw: Callable[..., Tensor]) -> None:
    leaves = [draw(*shape).requires_grad_() for shape in ((NODES, HEADS, WIDTH), (NODES, HEADS), (NODES, HEADS))]
    cpu = largest(lambda: gat_aggregate(dense_graph, *leaves, dropout=0.5, key=1, backend="cpu"), leaves)
    assert cpu <= EDGES * HEADS
    plain = largest(lambda: gat_aggregate(dense_graph, *leaves, dropout=0.5, key=1, backend="reference"), leaves)
    assert plain >= EDGES * HEADS * WIDTH
