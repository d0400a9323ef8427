"""The kernels of `spmm`, compiled for GPUs that need not be here: no spills, few registers, wide loads."""

from __future__ import annotations

import pytest
from gkdkernels.core.row_tiles_triton import row_blocks
from gkdkernels.testing.aot import Request, Resources, compile_ahead

POINTERS = {
    **dict.fromkeys(("indptr", "index", "arg", "partial_arg"), "*i32"),
    "hubs": ("*i64",) * 3,
    "edge": "*i64",
    **dict.fromkeys(("weight", "left", "right", "partial"), "*fp32"),
    **dict.fromkeys(("x", "y", "g", "out"), "*bf16"),
}
TYPES = {**POINTERS, **dict.fromkeys(("num_chunks", "num_rows", "num_src", "num_layers"), "i32")}


def request(name: str, width: int, *, most: int = 256, warps: int = 1, arch: int = 90, without: str = "") -> Request:
    blocks = row_blocks(width, most=most)
    constants: dict[str, int | None] = {"WIDTH": width, "BLOCK_D": blocks.width, **dict.fromkeys(without.split())}
    if "merge" in name:
        return Request(f"gkdkernels.spmm.triton:{name}", TYPES, constants, 1, arch)
    constants |= {"HUB": 512, "BLOCK_E": blocks.edges}
    return Request(f"gkdkernels.spmm.triton:{name}", TYPES, constants, warps * blocks.num_warps, arch)


GATHERS = {
    "sum 128 sm_90": request("spmm_fwd_row_sum", 128, without="left right arg edge"),
    "sum 128 sm_80": request("spmm_fwd_row_sum", 128, without="left right arg edge", arch=80),
    "normed sum 256": request("spmm_fwd_row_sum", 256, without="weight arg edge"),
    "gradient of max 64": request("spmm_fwd_row_sum", 64, without="left right"),
    "max 128": request("spmm_fwd_row_max", 128, most=128, warps=2),
    "edge product 128": request("spmm_bwd_edge_product", 128, most=64, without="arg"),
}
MERGES = {
    "merged sum": request("spmm_fwd_merge_sum", 128, without="left"),
    "merged max": request("spmm_fwd_merge_max", 128),
}
ALL = {**GATHERS, **MERGES}


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


def test_a_kernel_that_does_not_compile_is_reported() -> None:
    with pytest.raises(RuntimeError, match="ahead-of-time compilation failed"):
        compile_ahead(Request("gkdkernels.spmm.triton:no_such_kernel", {}, {}))
