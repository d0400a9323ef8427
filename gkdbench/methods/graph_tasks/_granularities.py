"""MuGSI's losses in addition to logits: of the whole graph, its clusters, its walks (Yao et al. 2024).

Order: once, the teacher's node states and graph vectors and the clusters; then in every step the loss of whole graphs,
of clusters, and of walks that are drawn for that step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, segment_mean, segment_sum
from torch import Tensor, nn

from gkdbench.data.nodes import NodeTable
from gkdbench.errors import UserError
from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Model, Trace
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.view import Teacher, TrainView
from gkdbench.training.blocks.deepwalk import walks_from
from gkdbench.training.blocks.louvain import louvain
from gkdbench.training.graph_student import GraphStructureTerm
from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.models import load_teacher_model


class Weights(NamedTuple):
    """Of the three terms."""

    graph: float
    cluster: float
    path: float


def graph_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of rows scaled to length 1; ``student, teacher: [B, D]``."""
    return F.mse_loss(F.normalize(student, dim=1), F.normalize(teacher, dim=1))


def cluster_loss(student: Tensor, teacher: Tensor, cluster: Tensor, count: Tensor, borders: Tensor) -> Tensor:
    """Mean over graphs of ``1/2 ||cos(C_S) - cos(C_T)||_F^2``, C the summed nodes of each cluster of a graph.

    Graphs of one or two clusters are skipped; without any other the loss is 0.

    Args:
        student, teacher: [N, D] and [N, D'] nodes of a batch.
        cluster: [N] int64 cluster of each node, numbered from 0 in each graph.
        count: [B] int64 clusters of each graph.
        borders: [B + 1] nodes of each graph.
    """
    kept = count > 2
    graphs = int(kept.sum())
    if not graphs:
        return student.sum() * 0.0
    most = int(count[kept].max())
    slot = torch.repeat_interleave(torch.where(kept, kept.cumsum(0) - 1, -1), borders.diff())  # [N]
    nodes = (slot >= 0).nonzero().flatten()
    place = slot[nodes] * most + cluster[nodes]
    order = place.argsort(stable=True)
    ptr = F.pad(torch.bincount(place, minlength=graphs * most).cumsum(0), (1, 0))

    def cosines(x: Tensor) -> Tensor:
        pooled = segment_sum(x[nodes[order]], ptr).view(graphs, most, -1)  # a missing cluster is 0, and so its cosines
        unit = F.normalize(pooled, dim=2)
        return unit @ unit.mT

    return 0.5 * (cosines(student) - cosines(teacher)).square().sum((1, 2)).mean()


def path_loss(student: Tensor, teacher: Tensor, walks: Tensor) -> Tensor:
    """Mean over walks of KL(teacher || student) between softmaxes over the later nodes of ``<start, node>``.

    Args:
        student, teacher: [N, D] and [N, D'] nodes.
        walks: [M, length] nodes of each walk.
    """

    def scores(x: Tensor) -> Tensor:
        steps = x[walks.long()]  # [M, length, D]
        return (steps[:, 1:] * steps[:, :1]).sum(2)

    if not walks.numel():
        return student.sum() * 0.0
    return kl_to_teacher(scores(student), scores(teacher))


def graph_walks(graph: CSRGraph, borders: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:
    """[M, length] int32: `count` uniform walks in every graph that has an edge, from uniform nodes that have one.

    Args:
        graph: block-diagonal, symmetric. borders: [B + 1] its nodes of each graph.
    """
    rooted = (graph.degree > 0).long()
    before = F.pad(rooted.cumsum(0), (1, 0))[borders]  # nodes with an edge before each graph
    size = before.diff()
    graphs = size.nonzero().flatten().repeat(count)
    draw = torch.rand(graphs.numel(), generator=generator, dtype=torch.float64).to(borders.device)
    starts = rooted.nonzero().flatten()[before[graphs] + (draw * size[graphs]).long()]
    return walks_from(graph, starts, length, generator)


@dataclass(frozen=True)
class Granularities:
    """The terms that a MuGSI student adds.

    Args:
        weights: of the terms; one of weight 0 is not computed.
        walks, walk_length: per graph and step, and their nodes.
        shared_projection: graphs are projected by the nodes' map, as in the official code.
    """

    weights: Weights
    walks: int
    walk_length: int
    shared_projection: bool

    def of(self, view: TrainView, teacher: Teacher, model: Model) -> GraphStructureTerm:
        """The terms on `view`, for the student `model`.

        Raises:
            UserError: the teacher has no hidden layer; walks on graphs with edges of one direction.
        """
        nodes, graphs = teacher_states(teacher, view)
        width, draws = model.get_parameter("head.weight").size(0), model.randomness
        of_nodes = FeatureLinear(width, nodes.value.size(1), name="mugsi.nodes", randomness=draws, init="torch")
        of_graphs = of_nodes
        if not self.shared_projection:
            of_graphs = FeatureLinear(width, graphs.size(1), name="mugsi.graphs", randomness=draws, init="torch")
        modules = nn.ModuleList([of_nodes, of_graphs]).to(view.device)
        clusters = louvain(view.inputs, model.randomness.key("clusters")) if self.weights.cluster else None
        if self.weights.path and not both_ways(view.inputs.graph):
            raise UserError(
                "mugsi: expected edges in both directions for its walks, got edges in one; use path_weight=0"
            )

        def terms(trace: Trace, batch: Inputs, items: Tensor) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            borders = batch.segments
            assert borders is not None and trace.pooled is not None  # a graph task, and a student with a readout
            at = node_positions(view.inputs, items, borders)
            states, target = of_nodes(torch.relu(trace.hidden[-1])), nodes.value[at]
            if self.weights.graph:
                found["graph"] = self.weights.graph * graph_loss(of_graphs(trace.pooled), graphs[items])
            if clusters is not None:
                compared = cluster_loss(states, target, clusters.of[at], clusters.count[items], borders)
                found["cluster"] = self.weights.cluster * compared
            if self.weights.path:
                generator = torch.Generator().manual_seed(draws.key("walks"))
                walks = graph_walks(batch.graph, borders, self.walks, self.walk_length, generator)
                found["path"] = self.weights.path * path_loss(states, target, walks)
            return found

        return GraphStructureTerm(terms, modules)


@torch.no_grad()
def teacher_states(teacher: Teacher, view: TrainView) -> tuple[NodeTable, Tensor]:
    """The teacher's last node states [N, H] and its graphs' vectors before the head [G, H], of the training graphs."""
    if teacher.hidden is None or view.inputs.segments is None:
        raise UserError("mugsi: expected a teacher with a hidden layer on graphs, got none; use a GIN or GCN")
    states = NodeTable(teacher.hidden.space, torch.relu(teacher.hidden.value))
    model = load_teacher_model(teacher, view)
    pooled = model.trace(*view.inputs.arguments(model)).pooled
    return states, segment_mean(states.value, view.inputs.segments) if pooled is None else pooled


def node_positions(inputs: Inputs, graphs: Tensor, borders: Tensor) -> Tensor:
    """[N'] int64: positions in `inputs` of the nodes of ``inputs.take(graphs)``; ``borders: [B + 1]`` of the batch."""
    assert inputs.segments is not None
    shift = inputs.segments[graphs] - borders[:-1]
    return torch.arange(int(borders[-1]), device=borders.device) + torch.repeat_interleave(shift, borders.diff())


def both_ways(graph: CSRGraph) -> bool:
    """Whether every edge has its reverse (rows sorted by source)."""
    transposed = graph.transposed.graph
    return torch.equal(transposed.indptr, graph.indptr) and torch.equal(transposed.index, graph.index)
