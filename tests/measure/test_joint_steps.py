"""Joint steps beside PyG's: the same losses and gradients from the same weights, on nodes and on graphs."""

from __future__ import annotations

import pytest
import torch
from gkdkernels import CSRGraph, SparseFeatures

from gkdbench.data.nodes import Space
from gkdbench.measure.operators.bench import BenchSettings
from gkdbench.measure.operators.graphs import POWER_LAWS, power_law
from gkdbench.measure.timers import CpuClock
from gkdbench.measure.training_steps.gnn_steps import StepData
from gkdbench.nn.gin import GINConfig
from gkdbench.nn.random import Randomness
from gkdbench.protocol.inputs import Inputs

pytest.importorskip("torch_geometric", reason="PyG is an extra: pip install 'gkdbench[pyg]'")

from gkdbench.measure.training_steps import mutual_step as joint
from gkdbench.measure.training_steps import pyg_baselines as pyg_peers

SETTINGS = BenchSettings(rounds=1, budget_s=0.0, slow=False, memory=False)


def one_hot(count: int, width: int) -> SparseFeatures:
    place = CSRGraph(torch.arange(count + 1), torch.arange(count) % width, width)
    return SparseFeatures(place, torch.ones(count))


def rings(sizes: list[int]) -> joint.GraphData:
    """Cycles of these sizes, with the position of a node as its feature; class: whether the size is even."""
    segments = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    index = [start + (i + d) % n for start, n in zip(segments, sizes, strict=False) for i in range(n) for d in (-1, 1)]
    nodes = int(segments[-1])
    graph = CSRGraph(torch.arange(0, 2 * nodes + 1, 2), torch.tensor([int(i) for i in index]), nodes, True)
    labels = torch.tensor([size % 2 for size in sizes])
    here, graphs = (Space("rings", torch.arange(n)) for n in (nodes, len(sizes)))
    return joint.GraphData("rings", Inputs(here, graphs, graph, one_hot(nodes, 7), segments), labels, 2)


def test_peers_on_nodes_are_the_same_on_both_sides() -> None:
    graph = power_law(POWER_LAWS["power-law-tiny"])
    data = StepData("tiny", graph, one_hot(graph.num_dst, 20), torch.arange(graph.num_dst) % 3, 3)
    duels = list(joint.joint_on_nodes(data))
    assert ["as the house runs it" in duel.what for duel in duels] == [True, False]
    assert max(duel.error for duel in duels) < 1e-4
    assert all(duel.limit == 1.0 for duel in duels)


def test_peers_on_graphs_are_the_same_on_both_sides() -> None:
    duel = joint.joint_on_graphs(rings([3, 4, 5, 6, 7, 8]))
    assert "batches of 6 graphs" in duel.what
    assert duel.error < 1e-4
    assert duel.compare(CpuClock(), SETTINGS).ratio is not None


def test_a_peer_with_another_loss_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    right = joint._pair_losses
    monkeypatch.setattr(joint, "_pair_losses", lambda logits, targets: 1.01 * right(logits, targets))
    duel = joint.joint_on_graphs(rings([3, 4, 5, 6]))
    assert duel.error > 1e-3
    contest = duel.compare(CpuClock(), SETTINGS)
    assert contest.ratio is None and contest.verdict == "not measured"


def test_a_layer_that_ours_lack_is_refused() -> None:
    ours = GINConfig(hidden=8, layers=1).build(7, 2, Randomness(seed=0))
    theirs, _ = pyg_peers.on_graphs(7, 8, 2, 2)
    with pytest.raises(RuntimeError, match=r"parameters that ours lack: convs\.1"):
        list(joint._twins(ours, theirs))
