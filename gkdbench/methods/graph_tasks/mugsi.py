"""MuGSI: a graph-level MLP that imitates a GNN's graphs, clusters and walks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from gkdbench.methods.graph_tasks._granularities import Granularities, Weights
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.graph_student import GraphStudent, train_graph_student
from gkdbench.training.types import NonNegativeFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class MuGSI(GraphStudent):
    """``CE + KL + r_g L_graph + r_c L_cluster + r_w L_path`` (Yao et al. 2024).

    ``L_graph = MSE(norm(P g_S), norm(g_T))`` of graph vectors before the head; ``L_cluster`` compares the cosines
    between a graph's Louvain clusters, ``L_path`` what a walk's start has in common with its later nodes (formulas in
    `_granularities`). With all three weights at 0 it is ``glnn_graph``. The release's test fold as validation is
    the split ``tu-10fold-testfold``.

    Args:
        graph_weight, cluster_weight, path_weight: r_g, r_c, r_w.
        walks, walk_length: per graph and step, and their nodes.
    """

    name: ClassVar[str] = "mugsi"
    paper: ClassVar[str] = (
        "Yao, Sun, Cao, Zhang, Chen, MuGSI: Distilling GNNs with Multi-Granularity Structural Information for Graph "
        "Classification"
    )
    year: ClassVar[int | None] = 2024
    repository: ClassVar[str] = "tianyao-aka/MuGSI"
    licence: ClassVar[str] = "none stated"
    kinds: ClassVar[tuple[str, ...]] = ("graph",)
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "graphs and nodes are projected by maps of their own; the official code projects both by one",
        "the learning rate is the configured one; the official code trains with 0.008",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 3}

    graph_weight: NonNegativeFloat = 0.01
    cluster_weight: NonNegativeFloat = 0.01
    path_weight: NonNegativeFloat = 1e-4
    walks: PositiveInt = 20
    walk_length: Annotated[int, Field(ge=2)] = 8

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        weights = Weights(graph=self.graph_weight, cluster=self.cluster_weight, path=self.path_weight)
        granularities = Granularities(
            weights,
            walks=self.walks,
            walk_length=self.walk_length,
            shared_projection=self.as_released,
        )
        structure = partial(granularities.of, view, ctx.teachers["teacher"]) if any(weights) else None
        return train_graph_student(self, view, ctx, structure)

    @property
    def label(self) -> str:
        return f"MuGSI, {self.student_label()}"
