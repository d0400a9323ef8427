"""The kernels of mutual and soft KL, compiled for GPUs that need not be here: no spills, few registers, wide loads."""

from __future__ import annotations

import pytest
from gkdkernels.core.dispatch import MAX_TILE
from gkdkernels.mutual_kl.triton import tile_of
from gkdkernels.soft_kl.triton import rows_of
from gkdkernels.testing.aot import Request, Resources, compile_ahead

STRIDES = dict.fromkeys(("stride_n", "stride_c", "stride_wn", "stride_wi", "stride_wj"), "i32")


def peers(
    peers: int, classes: int, arch: int, dtype: str = "*fp32", *, multi_label: bool = False, per_node: bool = False
) -> Request:
    tile = tile_of(peers, classes, multi_label)
    types = {"logits": [dtype] * peers, "grad": dtype, "num_rows": "i32", **STRIDES}
    types |= {
        "kl_mask": "*u8",
        "entropy_mask": "*u8",
        "out_of_range": "*i32",
        "targets": "*fp32" if multi_label else "*i64",
    }
    types |= dict.fromkeys(("weight", "scale", "node_kl", "kl_part", "loss_part"), "*fp32")
    constants: dict[str, int | float | None] = {
        "ENTROPY": True,
        "MULTI_LABEL": multi_label,
        "PACKED": True,
        "LEAST": -1e37,
    }
    constants |= {"K": peers, "C": classes, "BLOCK_K": tile.block_k, "BLOCK_N": tile.block_n, "BLOCK_C": tile.block_c}
    if not per_node:
        constants["node_kl"] = None
    return Request("gkdkernels.mutual_kl.triton:mutual_kl_fwd_peer_tile", types, constants, tile.num_warps, arch)


def teachers(count: int, classes: int, arch: int) -> Request:
    request = peers(count, classes, arch)
    types = {**request.types, "g": "*fp32"}
    constants = {name: value for name, value in request.constants.items() if name not in ("ENTROPY", "node_kl")}
    return Request("gkdkernels.mutual_kl.triton:mutual_kl_bwd_teacher_tile", types, constants, request.num_warps, arch)


def rows(classes: int, kind: str, arch: int, *, multi_label: bool = False) -> Request:
    block_n, block_c, num_warps = rows_of(classes)
    types = {**dict.fromkeys(("student", "target", "kl", "to_student", "to_target"), "*fp32"), "num_rows": "i32"}
    types |= {"mask": "*u8", **dict.fromkeys(("stride_sn", "stride_tn"), "i32")}
    constants: dict[str, int | float | str] = {"KIND": kind, "MULTI_LABEL": multi_label, "TAU": 2.0, "TINY": 1e-38}
    constants |= {"LEAST": -3e38, "C": classes, "BLOCK_N": block_n, "BLOCK_C": block_c, "stride_sc": 1, "stride_tc": 1}
    return Request("gkdkernels.soft_kl.triton:soft_kl_fwd_row_tile", types, constants, num_warps, arch)


REQUESTS = {
    "K=2 C=7": peers(2, 7, 90),
    "K=4 C=40": peers(4, 40, 90),
    "K=4 C=40 sm_80": peers(4, 40, 80),
    "K=8 C=47": peers(8, 47, 90),
    "K=8 C=47 sm_80 per node": peers(8, 47, 80, per_node=True),
    "K=8 C=172 bf16": peers(8, 172, 90, "*bf16"),
    "K=4 C=121 several labels": peers(4, 121, 90, multi_label=True),
    "teachers K=4 C=40": teachers(4, 40, 90),
    "teachers K=8 C=47 sm_80": teachers(8, 47, 80),
    "soft C=40": rows(40, "Logits", 90),
    "soft C=47 sm_80": rows(47, "Probs", 80),
    "soft C=121 several labels": rows(121, "Logits", 90, multi_label=True),
}
WIDE = ("K=4 C=40", "K=4 C=40 sm_80", "teachers K=4 C=40")  # rows of 47 floats are not aligned to 16 bytes


@pytest.fixture(scope="module")
def compiled() -> dict[str, Resources]:
    return dict(zip(REQUESTS, compile_ahead(*REQUESTS.values()), strict=True))


@pytest.mark.parametrize("name", REQUESTS)
def test_resources(name: str, compiled: dict[str, Resources]) -> None:
    used = compiled[name]
    assert (used.stack_bytes, used.local_bytes) == (0, 0)
    assert used.registers <= 128
    assert used.compile_s < 10
    assert used.narrow_addresses == []
    assert used.wide_loads > 0 or name not in WIDE


def test_tiles_hold_every_peer_of_a_node_and_little_else() -> None:
    for count in (1, 2, 3, 4, 5, 8, 16):
        for classes in (1, 7, 40, 47, 172, 350):
            tile = tile_of(count, classes)
            held = tile.block_k * tile.block_n * tile.block_c / (32 * tile.num_warps)
            assert (tile.block_k >= count, tile.block_c >= classes) == (True, True)
            assert held <= 16
            assert tile.block_n == 1 or tile.num_warps == 1


@pytest.mark.parametrize(
    ("call", "words"), [(lambda: tile_of(8, 2000), "got 8 x 2000"), (lambda: rows_of(9000), "9000")]
)
def test_too_many_classes_are_refused(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=rf"at most {MAX_TILE}.*{words}.*'reference' has no limit"):
        call()  # type: ignore[operator]
