"""Bytes and FLOPs as functions of shape, against tables computed by hand."""

from __future__ import annotations

import pytest
from gkdkernels.core.cost import (
    Cost,
    expert_linear_cost,
    experts_cost,
    gat_cost,
    mutual_kl_cost,
    route_by_memory_cost,
    segment_cost,
    soft_kl_cost,
    spmm_cost,
    structure_kl_cost,
)

ARXIV = (169_343, 169_343, 2_332_486)  # nodes, nodes, directed edges of the symmetric ogbn-arxiv


@pytest.mark.parametrize(("width", "reuse", "megabytes"), [(128, False, 660), (128, True, 106), (64, False, 340)])
def test_spmm_at_arxiv_size(width: int, reuse: bool, megabytes: int) -> None:
    cost = spmm_cost(*ARXIV, width, feature_bytes=2, reuse=reuse)
    assert cost.bytes / 1e6 == pytest.approx(megabytes, rel=0.01)
    assert cost.flops == 2 * ARXIV[2] * width


def test_spmm_by_hand() -> None:
    # 3 rows, 5 columns, 7 edges, width 2: gathers 7*2, writes 3*2, an index and a weight per edge, 4 pointers
    assert spmm_cost(3, 5, 7, 2) == Cost((14 + 6) * 4 + 7 * 8 + 16, 28)
    assert spmm_cost(3, 5, 7, 2, weighted=False).bytes == (14 + 6) * 4 + 7 * 4 + 16
    assert spmm_cost(3, 5, 7, 2, reduce="max") == Cost((14 + 6) * 4 + 7 * 8 + 16 + 24, 14)
    backward = spmm_cost(3, 5, 7, 2, backward=True)
    assert backward.bytes == (14 + 10) * 4 + 7 * 12 + 24
    twice = spmm_cost(3, 5, 7, 2, stacked=2)
    assert twice.bytes == 2 * (14 + 6) * 4 + 7 * 8 + 16  # the structure is read once


@pytest.mark.parametrize(("backward", "microseconds"), [(False, 246.4), (True, 333.4)])
def test_gat_at_arxiv_size(backward: bool, microseconds: float) -> None:
    cost = gat_cost(*ARXIV, 4, 32, backward=backward, feature_bytes=2)
    assert cost.seconds(3e12, 8e14) * 1e6 == pytest.approx(microseconds, rel=0.1)


def test_mutual_kl_reads_and_writes_once() -> None:
    assert mutual_kl_cost(4, 169_343, 40).bytes / 1e6 == pytest.approx(216.8, abs=0.1)


def test_experts_by_hand() -> None:
    forward = experts_cost(10, 4, 3, 8, 2)
    assert forward.flops == 2 * 20 * 4 * 3 + 2 * 10 * 4 * 8
    assert forward.bytes == (40 + 80 + 8 * 4 * 4 + 30) * 4 + 240
    assert experts_cost(10, 4, 3, 8, 2, backward=True).flops == 4 * 20 * 4 * 3 + 2 * 20 * 4


def test_the_parts_of_a_layer_by_hand() -> None:
    # 10 rows of width 4 and 8 memories; 2 routes a row, each an index, a weight and a cosine
    assert route_by_memory_cost(10, 4, 8, 2) == Cost((40 + 32) * 4 + 20 * 12, 2 * 10 * 4 * 8)
    assert route_by_memory_cost(10, 4, 8, 2, backward=True).flops == 4 * 10 * 4 * 8
    # 20 pairs of width 4, 8 experts of 4 x 3 and a bias, 10 rows of width 3
    assert expert_linear_cost(10, 4, 3, 8, 2) == Cost((80 + 8 * 15 + 30) * 4 + 20 * 8, 2 * 20 * 4 * 3)
    assert expert_linear_cost(10, 4, 3, 8, 2, backward=True).flops == 4 * 20 * 4 * 3


def test_soft_kl_reads_both_and_writes_one_gradient() -> None:
    assert soft_kl_cost(10, 5) == Cost(3 * 50 * 4 + 40, 600)


@pytest.mark.parametrize(
    ("backward", "teacher", "microseconds"), [(False, 128, 431), (False, 0, 220.4), (True, 0, 241.1)]
)
def test_structure_kl_at_arxiv_size(backward: bool, teacher: int, microseconds: float) -> None:
    nodes, _, edges = ARXIV
    cost = structure_kl_cost(nodes, edges, 128, teacher_width=teacher, backward=backward, feature_bytes=2)
    assert cost.seconds(3e12, 8e14) * 1e6 == pytest.approx(microseconds, rel=0.1)


def test_segments_and_the_roofline() -> None:
    assert segment_cost(10, 2, 3) == Cost(36 * 4 + 8, 30)
    assert segment_cost(10, 2, 3, softmax=True).bytes == 2 * 30 * 4 + 8
    both = Cost(10, 1) + Cost(20, 4)
    assert both == Cost(30, 5)
    assert both.seconds(10, 1) == 5.0
    assert both.seconds(1, 1) == 30.0
