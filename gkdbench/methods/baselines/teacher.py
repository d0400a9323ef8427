"""A solo backbone trained on labels: the teacher of every student, and a row of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import GraphBatched
from gkdbench.training.losses import supervised
from gkdbench.training.models import describe
from gkdbench.training.schedules import LRSchedule
from gkdbench.training.solo import train_solo
from gkdbench.training.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class TeacherMethod(GraphBatched):
    """A GNN (or any backbone) trained with cross-entropy on the labelled items.

    The standard configuration of each backbone is GLNN's, so that students of different methods share one teacher;
    recipes named after papers hold those papers' own settings. ``as_released``: the later of equal validation scores is
    kept, as by the releases whose students it teaches.

    Args:
        decay: which parameters weight decay acts on.
        fanouts: neighbours sampled per layer while training; empty: full graph. Inference always reads all neighbours.
        schedule: of the learning rate: constant, halved every 50 epochs, or lowered where validation does not improve.
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
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    as_released_tie_break: ClassVar[str] = "later"
    deviations: ClassVar[tuple[str, ...]] = (
        "of equal validation scores the one with the smaller validation loss is kept; the official code of GLNN, KRD, "
        "NOSMOG and RbM lets the later epoch win, for the teacher too",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}

    backbone: str = "sage"
    decay: Literal["all", "first_layer"] = "all"
    fanouts: tuple[PositiveInt, ...] = ()
    schedule: LRSchedule = field(default="constant", metadata=OMIT_FROM_KEY_AT_DEFAULT)

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        fanouts = self.fanouts if view.kind == "node" else ()
        loss = partial(supervised, multi_label=view.multi_label)
        settings = self.training_settings(decay=self.decay, fanouts=fanouts, schedule=self.schedule)
        return train_solo(view, ctx, self.backbone_config(), settings, loss)

    @property
    def label(self) -> str:
        return describe(self.backbone, self.model, self.recipe)
