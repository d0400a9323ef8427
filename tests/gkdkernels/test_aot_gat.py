"""The kernels of `gat_aggregate`, compiled for GPUs that need not be here."""

from __future__ import annotations

import pytest
from gkdkernels.gat.triton import attention_tile
from gkdkernels.testing.aot import Request, Resources, compile_ahead

TYPES = {
    **dict.fromkeys(("indptr", "index"), "*i32"),
    "hubs": ("*i64",) * 3,
    "edge": "*i64",
    **dict.fromkeys(("h", "el", "er", "out", "out_negative_part", "g", "grad_h", "grad_er"), "*bf16"),
    **dict.fromkeys(("negative_sum", "lse", "delta", "grad_el", "part", "part_lost", "part_state", "part_el"), "*fp32"),
    **dict.fromkeys(("num_chunks", "num_src", "num_cells"), "i32"),
    "key": "i64",
}


def request(name: str, heads: int, width: int, *, dropped: int | None = None, arch: int = 90) -> Request:
    tile = attention_tile(heads, width)
    constants: dict[str, int | float | None] = {"HEADS": heads, "WIDTH": width, "BLOCK_H": tile.heads}
    constants |= {"BLOCK_F": tile.width}
    if dropped is not None:
        constants |= {"SLOPE": 0.2, "DROPPED": dropped, "HUB": 512, "BLOCK_E": tile.edges}
    return Request(
        f"gkdkernels.gat.triton:{name}", TYPES, constants, tile.num_warps if dropped is not None else 1, arch
    )


HALF = 1 << 23  # of the 2^24 steps of a draw
GATHERS = {
    "forward 4x32": request("gat_fwd_attend", 4, 32, dropped=0),
    "forward 4x32 dropout sm_80": request("gat_fwd_attend", 4, 32, dropped=HALF, arch=80),
    "forward 1x128": request("gat_fwd_attend", 1, 128, dropped=0),
    "backward 4x32": request("gat_bwd_attend", 4, 32, dropped=0),
    "backward 4x32 dropout sm_80": request("gat_bwd_attend", 4, 32, dropped=HALF, arch=80),
    "backward 8x64 dropout": request("gat_bwd_attend", 8, 64, dropped=HALF),
}
ALL = {
    **GATHERS,
    "merge 4x32": request("gat_fwd_merge_attend", 4, 32),
    "merged gradient 4x32": Request(
        "gkdkernels.gat.triton:gat_bwd_merge_sum",
        {**TYPES, "y": "*bf16", "partial": "*fp32", "num_rows": "i32"},
        {"WIDTH": 128, "BLOCK_D": 128},
        1,
    ),
}


@pytest.fixture(scope="module")
def usage() -> dict[str, Resources]:
    return dict(zip(ALL, compile_ahead(*ALL.values()), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_resources(usage: dict[str, Resources], name: str) -> None:
    found = usage[name]
    assert (found.stack_bytes, found.local_bytes) == (0, 0)
    assert found.registers <= 128
    assert found.compile_s < 10
    assert found.narrow_addresses == []
    if name in GATHERS:
        assert found.wide_loads > 0
