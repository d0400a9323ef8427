"""SGC: a linear classifier on propagated features; needs the graph at inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import supervised
from gkdbench.training.solo import train_solo
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class SGCClassifier(SingleModelMethod):
    """Logistic regression on ``A_hat^2 X`` (Wu et al. 2019, eq. 8), full batch, no early stopping.

    The official code reads the test score once, after the last epoch; here validation selects the epoch. Unseen nodes
    are propagated on the full graph at test time.
    """

    name: ClassVar[str] = "sgc"
    paper: ClassVar[str] = "Wu, Souza, Zhang, Fifty, Yu, Weinberger, Simplifying Graph Convolutional Networks"
    year: ClassVar[int | None] = 2019
    arxiv: ClassVar[str] = "1902.07153"
    repository: ClassVar[str] = "Tiiiger/SGC"
    licence: ClassVar[str] = "MIT"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    deviations: ClassVar[tuple[str, ...]] = (
        "the epoch is selected on validation; the official code scores the last epoch",
        "several training seeds; the official code has one",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}

    backbone: Literal["sgc"] = "sgc"
    model: Mapping[str, Any] = field(default_factory=dict)
    lr: PositiveFloat = 0.2
    weight_decay: NonNegativeFloat = 2e-5
    epochs: PositiveInt = 100
    patience: PositiveInt | None = None

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        loss = partial(supervised, multi_label=view.multi_label)
        return train_solo(view, ctx, self.backbone_config(), self.training_settings(), loss)

    @property
    def label(self) -> str:
        return f"SGC, {self.model['hops']} hops"
