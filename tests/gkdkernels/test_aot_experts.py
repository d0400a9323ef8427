"""The kernels of routing and experts, compiled for GPUs that need not be here: no spills, few registers, wide loads."""

from __future__ import annotations

import pytest
import torch
from gkdkernels.experts.routing_triton import padded_experts, route_tiles, tile_rows
from gkdkernels.experts.triton import gradient_rows, tile_sizes
from gkdkernels.testing.aot import Request, Resources, compile_ahead

DTYPES = {"*bf16": torch.bfloat16, "*fp32": torch.float32}
SORT = {
    **dict.fromkeys(("index", "start", "order"), "*i64"),
    "counts": "*i32",
    **dict.fromkeys(("num_rows", "num_tiles", "num_pairs"), "i32"),
}


def route(dtype: str, experts: int, k: int, width: int, arch: int) -> Request:
    tiles = route_tiles(experts, k, width)
    types = {**SORT, "x": dtype, **dict.fromkeys(("memory", "alpha", "cosine"), "*fp32")}
    constants = {"EXPERTS": experts, "K": k, "WIDTH": width, "BLOCK_N": tiles.rows, "BLOCK_E": tiles.experts}
    constants |= {"BLOCK_K": tiles.slots, "BLOCK_D": tiles.depth}
    return Request(
        "gkdkernels.experts.routing_triton:route_by_memory_fwd_route_rows", types, constants, tiles.num_warps, arch
    )


def products(dtype: str, experts: int, k: int, inner: int, out: int, arch: int, *, backward: bool) -> Request:
    tiles, types = tile_sizes(inner, out, DTYPES[dtype]), {**SORT, "alpha": "*fp32", "dots": "*fp32"}
    types |= dict.fromkeys(("a", "weight", "bias", "out", "other"), dtype)
    types |= dict.fromkeys(("stride_expert", "stride_inner", "stride_out"), "i32")
    constants: dict[str, int | str | bool | None] = {"EXPERTS": experts, "INNER": inner, "OUT": out, "SHARE": k}
    constants |= {"OTHER_SHARE": k, "BLOCK_E": padded_experts(experts), "WIDEN": False}
    constants |= {"BLOCK_M": tiles.rows, "BLOCK_N": tiles.columns, "BLOCK_K": tiles.depth}
    constants["PRECISION"] = "tf32x3" if dtype == "*fp32" else "ieee"
    # a stride of 1 is a constant, as triton's launcher makes it
    constants |= {"stride_inner": 1, "bias": None} if backward else {"stride_out": 1, "other": None, "dots": None}
    return Request("gkdkernels.experts.triton:expert_linear_fwd_products", types, constants, tiles.num_warps, arch)


def gradient(dtype: str, experts: int, k: int, width: int, out: int, arch: int) -> Request:
    tiles = tile_sizes(1 << 16, out, DTYPES[dtype])
    types = {**SORT, "alpha": "*fp32", "x": dtype, "g": dtype, "out": "*fp32"}
    constants: dict[str, int | str | bool | None] = {"EXPERTS": experts, "K": k, "WIDTH": width, "OUT": out, "SHARE": k}
    constants |= {
        "SPLITS": 4,
        "BLOCK_M": tiles.depth,
        "BLOCK_D": gradient_rows(width, DTYPES[dtype]),
        "BLOCK_H": tiles.columns,
        "WIDEN": False,
    }
    constants["PRECISION"] = "tf32x3" if dtype == "*fp32" else "ieee"
    return Request(
        "gkdkernels.experts.triton:expert_linear_bwd_weight_gradient", types, constants, tiles.num_warps, arch
    )


def sort(name: str, experts: int, k: int, arch: int) -> Request:
    constants = {"EXPERTS": experts, "K": k, "BLOCK_N": tile_rows(experts), "BLOCK_E": padded_experts(experts)}
    return Request(f"gkdkernels.experts.triton:{name}", SORT, constants, 4, arch)


GATHERS = {
    "route bf16 sm_90": route("*bf16", 8, 3, 256, 90),
    "route fp32 sm_80": route("*fp32", 32, 2, 128, 80),
    "forward bf16 sm_90": products("*bf16", 8, 3, 256, 256, 90, backward=False),
    "forward fp32 sm_90": products("*fp32", 8, 3, 128, 128, 90, backward=False),
    "forward bf16 sm_80": products("*bf16", 32, 2, 256, 256, 80, backward=False),
    "backward bf16 sm_90": products("*bf16", 8, 3, 256, 256, 90, backward=True),
    "backward fp32 sm_80": products("*fp32", 8, 3, 128, 128, 80, backward=True),
    "weights bf16 sm_90": gradient("*bf16", 8, 3, 256, 256, 90),
    "weights fp32 sm_80": gradient("*fp32", 8, 3, 128, 128, 80),
}
ALL = {
    **GATHERS,
    "count": sort("expert_linear_fwd_count_experts", 8, 3, 90),
    "place": sort("expert_linear_fwd_place_pairs", 64, 2, 80),
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
