"""The triton kernels of `gat_aggregate`, under the interpreter or on the GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gkdkernels import CSRGraph, gat_aggregate
from gkdkernels.gat.triton import attention_tile, dropout_mask
from torch import Tensor

Draw = Callable[..., Tensor]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2**-6, torch.float16: 2**-8}


@pytest.fixture
def hub() -> CSRGraph:
    """Rows of 11, 5, 1 and 0 edges; one source with 6."""
    source = torch.cat([torch.arange(11), torch.tensor([3, 1, 3, 3, 4, 3, 3])])
    target = torch.cat([torch.full((11,), 2), torch.tensor([1, 4, 4, 4, 4, 4, 0])])
    return CSRGraph.from_edge_index(torch.stack([source, target]), (5, 11))


def oracle(graph: CSRGraph, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None = None) -> Tensor:
    """The formula in fp64, with an [E, H, F] tensor, for autograd."""
    row, index = graph.row.cpu().long(), graph.index.cpu().long()
    raw = el[index] + er[row]
    score = torch.where(raw > 0, raw, slope * raw)
    rows = [(row == i).nonzero()[:, 0] for i in range(graph.num_dst)]
    p = torch.cat([score[:0], *(score[edges].softmax(0) for edges in rows)])
    if mask is not None:
        p = p * mask.t()
    return h.new_zeros(graph.num_dst, *h.shape[1:]).index_add(0, row, p[:, :, None] * h[index])


def check(
    graph: CSRGraph,
    draw: Draw,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    heads: int = 2,
    width: int = 3,
    dropout: float = 0.0,
    key: int = 5,
) -> None:
    shapes = ((graph.num_src, heads, width), (graph.num_src, heads), (graph.num_dst, heads))
    leaves = [draw(*shape).to(dtype).to(device).requires_grad_() for shape in shapes]
    exact = [t.detach().cpu().double().requires_grad_() for t in leaves]
    g = draw(graph.num_dst, heads, width).to(dtype).to(device)
    mask = dropout_mask(graph.num_edges, heads, dropout, key, dtype=torch.float64, device=device).cpu()
    out = gat_aggregate(graph.to(device), *leaves, dropout=dropout, key=key, backend="triton")
    wanted = oracle(graph, *exact, 0.2, mask)
    pairs = [(out, wanted)]
    pairs += zip(torch.autograd.grad(out, leaves, g), torch.autograd.grad(wanted, exact, g.cpu().double()), strict=True)
    for a, b in pairs:
        assert a.dtype == dtype
        assert a.shape == b.shape
        error = (a.detach().cpu().double() - b).norm()
        assert error <= TOLERANCE[dtype] * max(1.0, float(b.detach().norm())), float(error)


@pytest.mark.usefixtures("poison")
def test_values_and_gradients(small_graph: CSRGraph, draw: Draw, device: torch.device) -> None:
    check(small_graph, draw, device)


@pytest.mark.usefixtures("poison", "small_hubs")
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_hubs_in_chunks(hub: CSRGraph, draw: Draw, device: torch.device, dtype: torch.dtype, dropout: float) -> None:
    assert (hub.hubs.chunk.numel(), hub.transposed.graph.hubs.chunk.numel()) == (5, 2)
    check(hub, draw, device, dtype=dtype, dropout=dropout)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(("heads", "width"), [(1, 1), (4, 8), (3, 47), (8, 32), (1, 300), (40, 4), (2, 0), (0, 3)])
def test_heads_and_widths(draw: Draw, device: torch.device, heads: int, width: int) -> None:
    graph = CSRGraph(torch.tensor([0, 2, 2, 5]), torch.tensor([3, 0, 1, 1, 2]), 4)
    check(graph, draw, device, heads=heads, width=width, dropout=0.3)


@pytest.mark.usefixtures("small_hubs")
@pytest.mark.parametrize("scale", [1e3, 1e30], ids=["wide", "huge"])
def test_extreme_scores_are_a_hard_choice(hub: CSRGraph, draw: Draw, device: torch.device, scale: float) -> None:
    h, el, er = draw(11, 2, 3).float(), draw(11, 2).float() * scale, draw(5, 2).float() * scale
    got = gat_aggregate(hub.to(device), *(t.to(device) for t in (h, el, er)), backend="triton")
    torch.testing.assert_close(got.cpu(), oracle(hub, h, el, er, 0.2), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("small_hubs")
def test_nan_stays_visible_in_its_row(hub: CSRGraph, draw: Draw, device: torch.device) -> None:
    h, el, er = draw(11, 1, 2), draw(11, 1), draw(5, 1)
    er[2] = torch.nan
    got = gat_aggregate(hub.to(device), *(t.to(device) for t in (h, el, er)), backend="triton")
    assert got[:, 0].isnan().all(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_partial_gradients_two_runs_and_strides(
    hub: CSRGraph, draw: Draw, device: torch.device, wanted: tuple[bool, bool, bool]
) -> None:
    graph = hub.to(device)
    tensors = [draw(2, 11, 6).transpose(0, 1)[:, :, ::2], draw(2, 11).t(), draw(2, 5).t()]
    tensors, g = [t.to(device) for t in tensors], draw(3, 5, 2).permute(1, 2, 0).to(device)
    before = [t.clone() for t in tensors]

    def run(backend: str) -> Tensor:
        leaves = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
        out = gat_aggregate(graph, *leaves, backend=backend)
        return torch.autograd.grad(out, leaves[wanted.index(True)], g)[0]

    first = run("triton")
    assert torch.equal(first, run("triton"))
    torch.testing.assert_close(first, run("reference"))
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def philox(key: int, edge: np.ndarray, head: int) -> np.ndarray:
    """First word of Philox 4x32-10 (Salmon et al. 2011) at the counter (edge, head)."""
    c = [edge & 0xFFFFFFFF, edge >> 32, np.full_like(edge, head), np.zeros_like(edge)]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]  # 64-bit products
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[0]


@pytest.mark.parametrize("key", [0, 1, 5, 2**40 + 3, 2**63 - 1])
def test_the_mask_is_philox_at_key_edge_and_head(device: torch.device, key: int) -> None:
    mask = dropout_mask(300, 3, 0.4, key, dtype=torch.float64, device=device).cpu()
    steps = round(0.4 * 2**24)
    edge = np.arange(300, dtype=np.uint64)
    for head in range(3):
        stays = torch.from_numpy((philox(key, edge, head) >> 8) >= steps)
        torch.testing.assert_close(mask[head], torch.where(stays, 2**24 / (2**24 - steps), 0.0).double())


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_rate_scale_and_independence(device: torch.device, p: float) -> None:
    mask = dropout_mask(20_000, 4, p, 3, dtype=torch.float64, device=device).cpu()
    dropped = (mask == 0).double()
    assert (dropped.mean(1) - p).abs().max() < 5 * (p * (1 - p) / 20_000) ** 0.5  # five standard errors
    assert torch.unique(mask).tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert (torch.corrcoef(dropped) - torch.eye(4)).abs().max() < 5 / 20_000**0.5
    assert not dropout_mask(9, 2, 1.0, 3, dtype=torch.float32, device=device).any()


@pytest.mark.parametrize(("heads", "width", "tile"), [(4, 32, (4, 32, 2)), (8, 47, (2, 64, 2)), (1, 300, (1, 128, 2))])
def test_tiles_follow_heads_and_width(heads: int, width: int, tile: tuple[int, int, int]) -> None:
    found = attention_tile(heads, width)
    assert (found.heads, found.width, found.num_warps) == tile


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_fullgraph(hub: CSRGraph, draw: Draw, device: torch.device, backend: str, dropout: float) -> None:
    where = device if backend == "triton" else torch.device("cpu")
    graph = hub.to(where).prepare()
    tensors, g = [t.to(where) for t in (draw(11, 2, 3), draw(11, 2), draw(5, 2))], draw(5, 2, 3).to(where)

    def step(h: Tensor, el: Tensor, er: Tensor) -> Tensor:
        return gat_aggregate(graph, h, el, er, dropout=dropout, key=4, backend=backend).square()

    results = []
    for run in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = run(*leaves)
        results.append((out, *torch.autograd.grad(out, leaves, g)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
