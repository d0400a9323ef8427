"""The plain MLP: what features alone can do, and the floor of every graph-to-MLP method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import supervised
from gkdbench.training.solo import train_solo


@dataclass(frozen=True, kw_only=True)
class PlainMLP(SingleModelMethod):
    """An MLP trained with cross-entropy on the labelled nodes; reads features only.

    ``as_released`` drops a batch's remainder and lets an equal validation score win and reset patience.
    """

    name: ClassVar[str] = "mlp"
    paper: ClassVar[str] = "the MLP baseline of Zhang et al., Graph-less Neural Networks, ICLR 2022"
    year: ClassVar[int | None] = 2022
    arxiv: ClassVar[str] = "2110.08727"
    repository: ClassVar[str] = "snap-research/graphless-neural-networks"
    licence: ClassVar[str] = "MIT"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the remainder of the labelled nodes after full batches is trained on; the official code drops it",
        "an epoch is selected by strict improvement; the official code lets a tie win and reset patience",
    )
    as_released_tie_break: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}

    backbone: Literal["mlp"] = "mlp"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        settings = self.training_settings(drop_last=self.as_released)
        loss = partial(supervised, multi_label=view.multi_label)
        return train_solo(view, ctx, self.backbone_config(), settings, loss)

    @property
    def label(self) -> str:
        return self.model_label()
