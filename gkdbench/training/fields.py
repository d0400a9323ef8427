"""Fields that many methods have, declared once with their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT, Backbone
from gkdbench.training.method import Method, Requirement
from gkdbench.training.models import backbone_config, describe
from gkdbench.training.solo import TrainingSettings
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class SingleModelMethod(Method):
    """A method that trains one model of one backbone.

    Fields:
        backbone, model: registered backbone and its settings.
        lr, weight_decay: Adam. epochs, patience: at most, and without improvement on validation.
        batch_size: items a step; None: all.
    """

    backbone: str = "mlp"
    model: Mapping[str, Any] = field(default_factory=dict)
    lr: PositiveFloat = 0.01
    weight_decay: NonNegativeFloat = 5e-4
    epochs: PositiveInt = 500
    patience: PositiveInt | None = 50
    batch_size: PositiveInt | None = None

    def backbones(self) -> tuple[str, ...]:
        return (self.backbone,)

    def backbone_config(self) -> Backbone:
        """The backbone's configuration object."""
        return backbone_config(self.backbone, self.model)

    def training_settings(self, **changes: Any) -> TrainingSettings:
        """The optimisation settings, with `changes`."""
        own = {
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
        }
        return TrainingSettings(**{**own, **changes})

    def model_label(self) -> str:
        """The model in a table, e.g. ``MLP 2x128``."""
        return describe(self.backbone, self.model)


@dataclass(frozen=True, kw_only=True)
class GraphBatched(SingleModelMethod):
    """A method whose model reads the graph, and may read some graphs a step where a node task has several (PPI).

    Fields:
        graphs_per_step: how many, in the place of `batch_size`; None: all of them in one step.
    """

    graphs_per_step: PositiveInt | None = field(default=None, metadata=OMIT_FROM_KEY_AT_DEFAULT)

    def training_settings(self, **changes: Any) -> TrainingSettings:
        return super().training_settings(**{"graphs_per_step": self.graphs_per_step, **changes})


@dataclass(frozen=True, kw_only=True)
class DistilledStudent(SingleModelMethod):
    """A student of one frozen teacher from the bank.

    Fields:
        teacher: the backbone of a solo teacher, in its standard configuration, or in that of `teacher_recipe`.
        teacher_method: the method that trains the teacher. One of peers (``"gml"``) teaches by its first peer.
        teacher_settings: what of that method's configuration is not its default.
    """

    teacher: str = "sage"
    teacher_recipe: str | None = None
    teacher_method: str = field(default="teacher", metadata=OMIT_FROM_KEY_AT_DEFAULT)
    teacher_settings: Mapping[str, Any] = field(default_factory=dict, metadata=OMIT_FROM_KEY_AT_DEFAULT)

    def requires(self) -> Mapping[str, Requirement]:
        standard = self.teacher_method == "teacher" and self.teacher_recipe is None
        settings = {"backbone": self.teacher} | dict(self.teacher_settings) if standard else dict(self.teacher_settings)
        if self.teacher_method == "teacher" and self.as_released and self.as_released_tie_break == "later":
            settings["variant"] = self.variant  # the release selects its teacher by the same rule
        return {"teacher": Requirement(self.teacher_method, settings, self.teacher_recipe)}
