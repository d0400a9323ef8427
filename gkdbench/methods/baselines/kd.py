"""KD: Hinton's distillation, for nodes and for graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.distil import Transfer, train_student
from gkdbench.training.fields import DistilledStudent, GraphBatched
from gkdbench.training.losses import hinton
from gkdbench.training.types import PositiveFloat, UnitFloat


@dataclass(frozen=True, kw_only=True)
class KD(GraphBatched, DistilledStudent):
    """``(1 - a) CE + a T^2 KL(softmax(z_T / T) || softmax(z_S / T))`` (Hinton et al. 2015, section 2.1).

    Several labels per item: ``(1 - a) BCE(y) + a BCE(sigmoid(z_T / T))``, unlabelled entries distilled too. Graph
    tasks distil on the training graphs. ``as_released`` (chaitjo/efficient-gnns) divides the KL by items and
    classes, so that it is C times too small, and distils on the labelled items only.

    Args:
        alpha: weight a of the teacher.
        tau: temperature T.
        nodes: where the student imitates: every observed item, or the labelled ones.
    """

    name: ClassVar[str] = "kd"
    paper: ClassVar[str] = "Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network"
    year: ClassVar[int | None] = 2015
    arxiv: ClassVar[str] = "1503.02531"
    repository: ClassVar[str] = "chaitjo/efficient-gnns"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "the KL is a mean over items; the reference's is divided by the number of classes too",
        "all observed items are distilled by default; the reference distils the labelled ones",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 15}
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"alpha": (0.0,)}

    backbone: str = "gcn"
    teacher: str = "gat"
    alpha: UnitFloat = 0.9
    tau: PositiveFloat = 4.0
    nodes: Literal["all", "train"] = "all"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        released = self.as_released
        per_class = view.num_classes if released else 1
        soft = partial(hinton, tau=self.tau, multi_label=view.multi_label, per_class=per_class)
        transfer = Transfer(
            teacher=ctx.teachers["teacher"].logits,
            soft=soft,
            label_weight=1 - self.alpha,
            nodes="train" if released else self.nodes,
        )
        return train_student(view, ctx, self.backbone_config(), self.training_settings(), transfer)

    @property
    def label(self) -> str:
        return f"{'KD' if self.alpha else 'solo (KD with a = 0)'}, {self.model_label()}"
