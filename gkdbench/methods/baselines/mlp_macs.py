"""A distilled MLP with as many multiply-adds per item as another student.

Control G2 of docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gkdbench.methods.baselines._matched import MatchedMLP
from gkdbench.nn.matching import match_macs
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import Backbone
from gkdbench.protocol.view import TrainView
from gkdbench.training.models import nonzeros


@dataclass(frozen=True, kw_only=True)
class MacMatchedMLP(MatchedMLP):
    """GLNN's training with the width at which multiply-adds per node equal those of `match` within 1 % (protocol
    control G2).

    Counted on the observed graph: non-zero features only, the target's aggregation included.
    """

    name: ClassVar[str] = "mlp_macs"
    paper: ClassVar[str] = "control G2: MAC-matched MLP"
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    control: ClassVar[str] = "matched_size"

    def widened(self, base: MLPConfig, target: Backbone, view: TrainView) -> MLPConfig:
        inputs, count = view.inputs, len(view.inputs.space)
        nnz = nonzeros(inputs.features)
        macs = target.macs(view.num_features, view.num_classes, count, inputs.graph.num_edges, nnz)
        return match_macs(macs / count, base, nnz / count, view.num_classes)

    @property
    def label(self) -> str:
        return self.matched_label("multiply-adds")
