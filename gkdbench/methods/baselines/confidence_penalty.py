"""An entropy bonus without a teacher: separates regularisation from transfer.

Control G10 of docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import entropy, supervised
from gkdbench.training.solo import train_solo
from gkdbench.training.types import NonNegativeFloat


@dataclass(frozen=True, kw_only=True)
class ConfidencePenalty(SingleModelMethod):
    """The solo student with ``CE - beta H(p)`` on the labelled items (Pereyra et al. 2017).

    Args:
        beta: weight of the entropy.
    """

    name: ClassVar[str] = "confidence_penalty"
    paper: ClassVar[str] = "Pereyra, Tucker, Chorowski, Kaiser, Hinton, Regularizing Neural Networks by Penalizing"
    year: ClassVar[int | None] = 2017
    arxiv: ClassVar[str] = "1701.06548"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}
    control: ClassVar[str] = "regularised"

    beta: NonNegativeFloat = 0.1

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            known = ~labels.isnan() if view.multi_label else None
            return supervised(logits, labels, multi_label=view.multi_label) - self.beta * entropy(logits, known)

        return train_solo(view, ctx, self.backbone_config(), self.training_settings(), loss)

    @property
    def label(self) -> str:
        return f"confidence penalty {self.beta:g}, {self.model_label()}"
