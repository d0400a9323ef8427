"""SIGN: an MLP on features propagated to several depths; needs the graph at inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.distil import Transfer, train_student
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.losses import kl_to_teacher, supervised
from gkdbench.training.method import Requirement
from gkdbench.training.solo import train_solo
from gkdbench.training.types import UnitFloat


@dataclass(frozen=True, kw_only=True)
class SIGNClassifier(DistilledStudent):
    """Cross-entropy, or ``lambda * CE + (1 - lambda) * KL(p_T || p_S)``, on ``[X, A_hat X, A_hat^2 X, ...]``
    (Frasca et al. 2020).

    The official script is for ogbn-papers100M alone. Here SIGN has the MLP's settings, so that the two rows differ in
    the propagation. Unseen nodes are propagated on the full graph at test time.

    Args:
        label_weight: lambda; 1: without a teacher. With one, its term is a mean over all observed nodes in one step.
    """

    name: ClassVar[str] = "sign"
    paper: ClassVar[str] = "Frasca, Rossi, Eynard, Chamberlain, Bronstein, Monti, SIGN: Scalable Inception GNNs"
    year: ClassVar[int | None] = 2020
    arxiv: ClassVar[str] = "2004.11198"
    repository: ClassVar[str] = "twitter-research/sign"
    licence: ClassVar[str] = "not checked"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    deviations: ClassVar[tuple[str, ...]] = (
        "settings are those of the MLP: the official code has a script for one data set, ogbn-papers100M",
        "propagation is part of the model, and of its latency; the official code propagates beforehand",
    )
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 20}

    backbone: Literal["sign"] = "sign"
    model: Mapping[str, Any] = field(default_factory=dict)
    label_weight: UnitFloat = 1.0

    def requires(self) -> Mapping[str, Requirement]:
        return {} if self.label_weight == 1 else super().requires()

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        config = self.backbone_config()
        if self.label_weight == 1:
            loss = partial(supervised, multi_label=view.multi_label)
            return train_solo(view, ctx, config, self.training_settings(), loss)
        transfer = Transfer(
            teacher=ctx.teachers["teacher"].logits,
            soft=partial(kl_to_teacher, multi_label=view.multi_label),
            label_weight=self.label_weight,
        )
        # every forward runs on the whole graph: batches of nodes would repeat it
        return train_student(view, ctx, config, self.training_settings(batch_size=None), transfer)

    @property
    def label(self) -> str:
        return f"SIGN, {self.model['hops']} hops, {self.model['layers']}x{self.model['hidden']}"
