"""The plain MLP with positional encodings: separates what they bring from what a teacher brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.encoded_method import EncodedMethod
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import supervised
from gkdbench.training.solo import train_solo


@dataclass(frozen=True, kw_only=True)
class MLPEncodings(EncodedMethod, SingleModelMethod):
    """An MLP trained with cross-entropy on features and DeepWalk encodings, without a teacher.

    The control "x + encodings without distillation" between ``mlp`` and ``nosmog``; equals NOSMOG with all its
    transfer weights at 0.
    """

    name: ClassVar[str] = "mlp_encodings"
    paper: ClassVar[str] = "control of Tian et al., Learning MLPs on Graphs (NOSMOG), ICLR 2023"
    year: ClassVar[int | None] = 2023
    arxiv: ClassVar[str] = "2208.10010"
    needs: ClassVar[str] = "features+encodings"
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 20, "num_walks": 1, "dim": 16}

    backbone: Literal["mlp"] = "mlp"

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        loss = partial(supervised, multi_label=view.multi_label)
        encoder = self.encoder(view.inputs, ctx.seed)
        return train_solo(view, ctx, self.backbone_config(), self.training_settings(), loss, encoder)

    @property
    def label(self) -> str:
        return f"{self.model_label()} + DeepWalk"
