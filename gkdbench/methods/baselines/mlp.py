"""The plain MLP: what features alone can do, and the floor of every graph-to-MLP method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import Trained
from gkdbench.training.losses import supervised
from gkdbench.training.solo import train_solo


@dataclass(frozen=True, kw_only=True)
class PlainMLP(Trained):
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
        "the remainder of the labelled nodes after full batches is trained on; the release drops it",
        "an epoch is selected by strict improvement; the release lets a tie win and reset patience",
    )
    released_ties: ClassVar[str] = "later"
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}

    backbone: Literal["mlp"] = "mlp"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        recipe = self.solo_recipe(drop_last=self.released)
        loss = partial(supervised, multi_label=view.multi_label)
        return train_solo(view, ctx, self.backbone_config(), recipe, loss)

    @property
    def label(self) -> str:
        return self.model_label()
