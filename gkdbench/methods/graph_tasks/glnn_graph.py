"""GLNN for graphs: an MLP on nodes with a readout that learns a GNN teacher's soft labels of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.graph_student import GraphStudent, train_graph_student


@dataclass(frozen=True, kw_only=True)
class GLNNGraph(GraphStudent):
    """``CE + w KL(softmax(z_T) || softmax(z_S))`` on graphs: the GLNN rows of MuGSI (Yao et al. 2024, table 2).

    The student reads nodes alone, optionally with Laplacian encodings; ``model = { hops = 1 }`` is its GA-MLP, which
    reads the sum of the neighbours' features too. With ``kl_weight = 0`` it is the control of features and encodings
    without a teacher. The official code's test fold as validation is the split ``tu-10fold-testfold``.
    """

    name: ClassVar[str] = "glnn_graph"
    paper: ClassVar[str] = (
        "the GLNN rows of Yao, Sun, Cao, Zhang, Chen, MuGSI: Distilling GNNs with Multi-Granularity Structural "
        "Information for Graph Classification"
    )
    year: ClassVar[int | None] = 2024
    repository: ClassVar[str] = "tianyao-aka/MuGSI"
    licence: ClassVar[str] = "none stated"
    kinds: ClassVar[tuple[str, ...]] = ("graph",)
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the learning rate is the configured one; the official code trains with 0.008",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 5}

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        return train_graph_student(self, view, ctx)

    @property
    def label(self) -> str:
        return f"{'GLNN' if self.kl_weight else 'solo'}, {self.student_label()}"
