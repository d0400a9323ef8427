"""Label smoothing without a teacher: separates regularisation from transfer.

Control G10 of docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.fields import SingleModelMethod
from gkdbench.training.losses import supervised
from gkdbench.training.solo import train_solo


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(SingleModelMethod):
    """The solo student with targets ``(1 - s) onehot(y) + s / C`` (Szegedy et al. 2016, section 7).

    Args:
        smoothing: s.
    """

    name: ClassVar[str] = "label_smoothing"
    paper: ClassVar[str] = "Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, Rethinking the Inception Architecture"
    year: ClassVar[int | None] = 2016
    arxiv: ClassVar[str] = "1512.00567"
    needs: ClassVar[str] = "features"
    kinds: ClassVar[tuple[str, ...]] = ("node", "graph")
    multi_label: ClassVar[bool] = True
    smoke: ClassVar[Mapping[str, Any]] = {"epochs": 30}
    control: ClassVar[str] = "regularised"

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        loss = partial(supervised, multi_label=view.multi_label, smoothing=self.smoothing)
        return train_solo(view, ctx, self.backbone_config(), self.training_settings(), loss)

    @property
    def label(self) -> str:
        return f"label smoothing {self.smoothing:g}, {self.model_label()}"
