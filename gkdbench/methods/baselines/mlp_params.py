"""A distilled MLP with as many parameters as another student.

Control G1 of docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gkdbench.methods.baselines._matched import MatchedMLP
from gkdbench.nn.matching import match_parameters
from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import Backbone, parameter_count
from gkdbench.protocol.view import TrainView
from gkdbench.training.models import build


@dataclass(frozen=True, kw_only=True)
class ParameterMatchedMLP(MatchedMLP):
    """GLNN's training with the width at which total parameters equal those of `match` within 1 % (protocol control
    G1)."""

    name: ClassVar[str] = "mlp_params"
    paper: ClassVar[str] = "control G1: parameter-matched MLP"
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    control: ClassVar[str] = "matched_size"

    def widened(self, base: MLPConfig, target: Backbone, view: TrainView) -> MLPConfig:
        count = parameter_count(build(target, view, seed=0))
        return match_parameters(count, base, view.num_features, view.num_classes)

    @property
    def label(self) -> str:
        return self.matched_label("parameters")
