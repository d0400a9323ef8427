"""MLP controls as large as another model: the same teacher, loss and budget, only the architecture differs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from gkdbench.nn.mlp import MLPConfig
from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT, Backbone
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.distil import Transfer, train_student
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.models import backbone_config, describe
from gkdbench.training.types import PositiveFloat, UnitFloat


@dataclass(frozen=True, kw_only=True)
class MatchedMLP(DistilledStudent):
    """A distilled MLP whose width makes it as costly as `match`.

    Args:
        match: backbone of the model to match; match_model: its settings (default: that backbone's defaults).
        label_weight: lambda, as in GLNN. tau: temperature of both sides of the KL.
    """

    backbone: Literal["mlp"] = "mlp"
    match: str = "gcn"
    match_model: Mapping[str, Any] = field(default_factory=dict)
    label_weight: UnitFloat = 0.0
    tau: PositiveFloat = field(default=1.0, metadata=OMIT_FROM_KEY_AT_DEFAULT)

    @abstractmethod
    def widened(self, base: MLPConfig, target: Backbone, view: TrainView) -> MLPConfig:
        """`base` with the width that costs what `target` costs on `view`."""

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        base = self.backbone_config()
        if not isinstance(base, MLPConfig):
            raise TypeError(f"a matched control: expected an MLP, got {type(base).__name__}")
        config = self.widened(base, backbone_config(self.match, self.match_model), view)
        ctx.extra["hidden"] = config.hidden
        transfer = Transfer(
            teacher=ctx.teachers["teacher"].logits,
            soft=partial(kl_to_teacher, tau=self.tau, multi_label=view.multi_label),
            label_weight=self.label_weight,
        )
        return train_student(view, ctx, config, self.training_settings(), transfer)

    def backbones(self) -> tuple[str, ...]:
        return (self.backbone, self.match)

    def matched_label(self, what: str) -> str:
        """The control in a table."""
        return f"MLP with the {what} of {describe(self.match, self.match_model)}"
