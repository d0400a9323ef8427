"""The triton kernels of the readouts, under the interpreter or on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from gkdkernels import segment_max, segment_mean, segment_softmax, segment_sum
from gkdkernels.core.row_tiles_triton import row_blocks
from gkdkernels.testing.aot import Request, compile_ahead
from torch import Tensor

Readout = Callable[..., Tensor]
Draw = Callable[..., Tensor]
ALL = [segment_sum, segment_mean, segment_max, segment_softmax]
POINTERS = [[0], [0, 0], [0, 1], [0, 0, 5, 5, 6, 9, 9], [0, 40, 43]]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7}


def oracle(readout: Readout, x: Tensor, ptr: list[int]) -> Tensor:
    """The formula, part by part, for autograd; ties do not occur."""
    parts = [x[a:b] for a, b in pairwise(ptr)]
    if readout is segment_softmax:
        return torch.cat([x[:0], *(part.softmax(0) for part in parts)])
    reduce = {segment_sum: torch.sum, segment_mean: torch.mean, segment_max: torch.amax}[readout]
    rows = [reduce(part, 0) if len(part) else 0 * x.sum(0) for part in parts]  # type: ignore[operator]
    return torch.stack(rows) if rows else x[:0]


@pytest.mark.usefixtures("small_hubs", "poison")
@pytest.mark.parametrize("readout", ALL)
@pytest.mark.parametrize("pointers", POINTERS, ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_values_and_gradients(
    readout: Readout, pointers: list[int], dtype: torch.dtype, draw: Draw, device: torch.device
) -> None:
    integer = torch.int32 if dtype == torch.float32 else torch.int64
    ptr = torch.tensor(pointers, dtype=integer, device=device)
    x = draw(6, pointers[-1]).t()[:, ::2].to(dtype).to(device).requires_grad_()
    exact = x.detach().cpu().double().requires_grad_()
    got, wanted = readout(x, ptr, backend="triton"), oracle(readout, exact, pointers)
    g = draw(*got.shape).to(dtype).to(device)
    pairs = [
        (got, wanted),
        *zip(
            *(torch.autograd.grad(y, t, u) for y, t, u in ((got, x, g), (wanted, exact, g.cpu().double()))), strict=True
        ),
    ]
    for a, b in pairs:
        assert a.dtype == dtype
        torch.testing.assert_close(a.detach().cpu().double(), b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_max_gives_a_tie_to_the_lowest_row(device: torch.device) -> None:
    x = torch.tensor([[1.0], [4.0], [4.0]], device=device, requires_grad=True)
    (grad,) = torch.autograd.grad(segment_max(x, torch.tensor([0, 3], device=device), backend="triton").sum(), x)
    assert grad.flatten().tolist() == [0.0, 1.0, 0.0]


def test_softmax_is_safe_for_large_values(device: torch.device) -> None:
    x, ptr = torch.tensor([[1e4], [0.0], [-1e4]], device=device), torch.tensor([0, 2, 3], device=device)
    assert segment_softmax(x, ptr, backend="triton").flatten().tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("readout", ALL)
def test_two_runs_and_fullgraph(readout: Readout, draw: Draw, device: torch.device) -> None:
    ptr = torch.tensor([0, 4, 4, 9], device=device)
    x = draw(9, 3).float().to(device).requires_grad_()

    def step(x: Tensor) -> Tensor:
        return readout(x, ptr, backend="triton").square()

    outs = [run(x) for run in (step, step, torch.compile(step, backend="aot_eager", fullgraph=True))]
    g = draw(*outs[0].shape).float().to(device)
    results = [(y.detach(), *torch.autograd.grad(y, x, g)) for y in outs]
    for first, again, compiled in zip(*results, strict=True):
        assert torch.equal(first, again)
        torch.testing.assert_close(first, compiled)


def test_resources() -> None:
    blocks = row_blocks(64, most=64)
    constants = {"WIDTH": 64, "BLOCK_N": blocks.edges, "BLOCK_D": blocks.width}
    types = {"ptr": "*i64", **dict.fromkeys(("x", "y", "g", "grad"), "*bf16")}
    found = compile_ahead(
        *(
            Request(f"gkdkernels.segment.triton:{name}", types, constants, blocks.num_warps, arch)
            for name in ("segment_softmax_fwd_tile", "segment_softmax_bwd_tile")
            for arch in (80, 90)
        )
    )
    for usage in found:
        assert (usage.stack_bytes, usage.local_bytes) == (0, 0)
        assert usage.registers <= 128
        assert usage.wide_loads > 0
        assert usage.compile_s < 10
        assert usage.narrow_addresses == []
