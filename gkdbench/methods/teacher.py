"""A solo backbone trained on labels: the teacher of every student, and a row of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gkdbench.methods._base import Method
from gkdbench.methods._losses import supervised
from gkdbench.methods._models import backbone_config, describe
from gkdbench.methods._solo import SoloRecipe, train_solo
from gkdbench.protocol.view import Context, Fitted, TrainView


@dataclass(frozen=True, kw_only=True)
class Teacher(Method):
    """A GNN (or any backbone) trained with cross-entropy on the labelled items.

    The standard configuration of each backbone is GLNN's, so that students of different methods share one teacher;
    recipes named after papers hold those papers' own settings.

    Args:
        backbone: registered backbone.
        model: its settings.
        lr, weight_decay, epochs, patience: Adam, early stopping on the validation score.
        decay: which parameters weight decay acts on.
        batch_size: labelled items a step; None: all.
        fanouts: neighbours sampled per layer while training; empty: full graph. Inference always reads all neighbours.
    """

    name: ClassVar[str] = "teacher"
    paper: ClassVar[str] = "standard teachers: settings of Zhang et al., Graph-less Neural Networks, ICLR 2022"
    year: ClassVar[int | None] = 2022
    arxiv: ClassVar[str] = "2110.08727"
    repository: ClassVar[str] = "snap-research/graphless-neural-networks"
    licence: ClassVar[str] = "MIT"
    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}

    backbone: str = "sage"
    model: Mapping[str, Any] = field(default_factory=dict)
    lr: Annotated[float, Field(gt=0)] = 0.01
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay: Literal["all", "first_layer"] = "all"
    epochs: Annotated[int, Field(ge=1)] = 500
    patience: Annotated[int, Field(ge=1)] | None = 50
    batch_size: Annotated[int, Field(ge=1)] | None = None
    fanouts: tuple[Annotated[int, Field(ge=1)], ...] = ()

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        recipe = SoloRecipe(
            lr=self.lr,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            decay=self.decay,
            batch_size=self.batch_size,
            fanouts=self.fanouts if view.kind == "node" else (),
        )
        loss = partial(supervised, multi_label=view.multi_label)
        return train_solo(view, ctx, backbone_config(self.backbone, self.model), recipe, loss)

    def backbones(self) -> tuple[str, ...]:
        return (self.backbone,)

    @property
    def label(self) -> str:
        return describe(self.backbone, self.model, self.recipe)
