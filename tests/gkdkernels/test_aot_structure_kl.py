"""The kernels of local structure, compiled for GPUs that need not be here: no spills, few registers, wide loads."""

from __future__ import annotations

import pytest
from gkdkernels.core.row_tiles_triton import row_blocks
from gkdkernels.structure_kl.triton import HUB_TILE, TILE_EDGES, TILE_ROWS
from gkdkernels.testing.aot import Request, Resources, compile_ahead

TYPES = {
    **dict.fromkeys(("indptr", "other", "row"), "*i32"),
    "hubs": ("*i64",) * 3,
    **dict.fromkeys(("hub_row", "edge"), "*i64"),
    **dict.fromkeys(
        ("scale", "measure", "width", "lse", "upstream", "total", "teacher", "teacher_width", "teacher_lse", "value"),
        "*fp32",
    ),
    **dict.fromkeys(("out", "log_prob", "partial"), "*fp32"),
    **dict.fromkeys(("x", "y"), "*bf16"),
    **dict.fromkeys(("num_edges", "num_rows", "num_chunks"), "i32"),
}


def request(name: str, constants: dict[str, int | str | None], warps: int, *, arch: int = 90) -> Request:
    return Request(f"gkdkernels.structure_kl.triton:{name}", TYPES, constants, warps, arch)


def measured(kind: str, width: int, arch: int = 90) -> Request:
    blocks = row_blocks(width, most=128)
    constants: dict[str, int | str | None] = {"KIND": kind, "WIDTH": width}
    constants |= {"BLOCK_E": blocks.edges, "BLOCK_D": blocks.width}
    constants |= {} if kind == "cosine" else {"scale": None}
    return request("structure_kl_fwd_edge_measure", constants, blocks.num_warps, arch=arch)


def gradient(kernel: str, kind: str, width: int, without: str, *, arch: int = 90, both: bool = True) -> Request:
    blocks = row_blocks(width)
    constants: dict[str, int | str | None] = {"KERNEL": kernel, "KIND": kind, "IN": both, "OUT": True, "ADD": not both}
    constants |= {"WIDTH": width, "HUB": 512, "BLOCK_E": blocks.edges, "BLOCK_D": blocks.width}
    return request(
        "structure_kl_bwd_row_gradient", constants | dict.fromkeys(without.split()), blocks.num_warps, arch=arch
    )


def tiled(name: str, kernel: str | None, *, hubs: bool = False, without: str = "") -> Request:
    rows, edges, warps = (1, HUB_TILE, 4) if hubs else (TILE_ROWS, TILE_EDGES, 1)
    constants: dict[str, int | str | None] = {"HUBS": hubs, "HUB": 512, "ROWS": rows, "BLOCK_E": edges}
    constants |= {} if kernel is None else {"KERNEL": kernel}
    return request(name, constants | dict.fromkeys(without.split()), warps)


GATHERS = {
    "l1 128 sm_90": measured("l1", 128),
    "l1 128 sm_80": measured("l1", 128, arch=80),
    "cosine 256": measured("cosine", 256),
    "laplace gradient 128 sm_90": gradient("laplace", "l1", 128, "scale total"),
    "laplace gradient 128 sm_80": gradient("laplace", "l1", 128, "scale total", arch=80),
    "rbf gradient 256, stored teacher": gradient("rbf", "square", 256, "scale total teacher_width teacher_lse"),
    "cosine gradient 64, directed": gradient("cosine", "cosine", 64, "teacher teacher_width teacher_lse", both=False),
}
SCALARS = {
    "log-softmax": tiled("edge_log_probs_fwd_row_log_softmax", "laplace-exp"),
    "log-softmax of hubs": tiled("edge_log_probs_fwd_row_log_softmax", "l2", hubs=True),
    "divergence": tiled("structure_kl_fwd_row_divergence", "laplace"),
    "divergence of hubs": tiled("structure_kl_fwd_row_divergence", "poly", hubs=True),
    "divergence, stored teacher": tiled(
        "structure_kl_fwd_row_divergence", "rbf-exp", without="teacher_width teacher_lse"
    ),
    "merged gradient": request("structure_kl_bwd_merge_sum", {"WIDTH": 128, "BLOCK_D": 128}, 1),
    "row sums": tiled("edge_log_probs_bwd_row_total", None),
}
ALL = {**GATHERS, **SCALARS}


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
