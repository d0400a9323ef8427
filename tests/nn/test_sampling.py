"""Sampled blocks: counts, membership, determinism, and the exact model when nothing is left out."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from gkdkernels import CSRGraph
from support.small_graph import CLASSES, NODES, WIDTH, Scene

from gkdbench.nn.backbones import BACKBONES
from gkdbench.nn.random import Randomness
from gkdbench.nn.sampling import NeighbourSampler

BATCH = torch.tensor([5, 0, 33, 12])


def test_blocks_are_parts_of_the_graph(scene: Scene) -> None:
    sample = NeighbourSampler(scene.graph, [4, 2]).sample(BATCH, key=1)
    assert torch.equal(sample.rows[:4], BATCH)
    assert len(set(sample.rows.tolist())) == sample.rows.numel()
    outer, inner = sample.blocks
    assert (inner.num_dst, outer.num_dst, outer.num_src) == (4, inner.num_src, sample.rows.numel())
    for block, fanout in ((outer, 4), (inner, 2)):
        for i, node in enumerate(sample.rows[: block.num_dst].tolist()):
            stop = slice(*scene.graph.indptr[node : node + 2].tolist())
            drawn = Counter(sample.rows[block.index[block.indptr[i] : block.indptr[i + 1]]].tolist())
            there = Counter(scene.graph.index[stop].tolist())
            assert drawn <= there  # without replacement: no parallel edge too many
            assert drawn.total() == min(fanout, there.total())


def test_sample_depends_on_the_key_alone(scene: Scene) -> None:
    sampler = NeighbourSampler(scene.graph, [2, 2])
    state = torch.get_rng_state()
    first, again, other = (sampler.sample(BATCH, key) for key in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.rows, again.rows)
    assert all(torch.equal(a.index, b.index) for a, b in zip(first.blocks, again.blocks, strict=True))
    assert not torch.equal(first.rows, other.rows)


def test_every_edge_is_drawn_equally_often() -> None:
    star = CSRGraph(torch.tensor([0, 5, 5, 5, 5, 5, 5]), torch.arange(1, 6), 6)
    sampler = NeighbourSampler(star, [2])
    counts = torch.zeros(6)
    for key in range(2000):
        sample = sampler.sample(torch.tensor([0]), key)
        counts[sample.rows[1:]] += 1
    assert (counts[1:] / 2000 - 0.4).abs().max() < 5 * (0.4 * 0.6 / 2000) ** 0.5


@pytest.mark.parametrize("name", ["sage", "gat"])
def test_full_fanout_is_the_full_model(scene: Scene, name: str) -> None:
    model = BACKBONES.get(name)().build(WIDTH, CLASSES, Randomness(0)).eval()
    sample = NeighbourSampler(scene.graph, [NODES * 2] * 2).sample(BATCH, key=1)
    for x in (scene.dense[sample.rows], scene.sparse.rows(sample.rows), scene.mixed.rows(sample.rows)):
        got = model.forward_blocks(x, sample.blocks)
        torch.testing.assert_close(got, model(scene.dense, scene.graph)[BATCH], rtol=1e-4, atol=1e-5)


def test_bad_input(scene: Scene) -> None:
    with pytest.raises(ValueError, match="fanouts: expected one number of at least 1 per layer, got"):
        NeighbourSampler(scene.graph, [0])
    with pytest.raises(ValueError, match="graph: expected a square graph, got 41 x 13"):
        NeighbourSampler(scene.sparse.graph, [2])
    model = BACKBONES.get("sage")().build(WIDTH, CLASSES, Randomness(0))
    with pytest.raises(ValueError, match=r"blocks: expected one graph per layer \(2\), got 1"):
        model.forward_blocks(scene.dense, [scene.graph])
