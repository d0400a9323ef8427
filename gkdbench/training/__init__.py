"""The toolkit of methods: what a method's file, here or in a package of its own, is written with.

A method is a subclass of `Method`, usually of `DistilledStudent`, whose ``fit`` calls a trainer of this list. Nothing
is loaded before it is used, so that importing this package imports no torch.

    base          Method, Requirement, SingleModelMethod, DistilledStudent, EncodedMethod, MutualMethod,
                  LogitMutualMethod
    trainers      train_solo, train_student with Transfer, train_on_pairs, train_imitator, train_graph_student;
                  they take TrainingSettings
    peers         build_peers, train_peers; they take MutualTrainingSettings
    one's own     backbone_config, build, as_predictor, item_forward, adam, batches, descend, mean_loss, train
    losses        supervised, kl_to_teacher, kl_of_logits, hinton, entropy
    ranges        PositiveFloat, NonNegativeFloat, UnitFloat, PositiveInt, NonNegativeInt
    of `fit`      TrainView, Context, Fitted, Predictor (they belong to `gkdbench.protocol`)

    from gkdbench.training import Context, DistilledStudent, Fitted, TrainView, Transfer, train_student

Parts that only some methods need (encodings, node pairs, local structure, ...) are in `gkdbench.training.blocks`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gkdbench.protocol.predictor import Predictor
    from gkdbench.protocol.view import Context, Fitted, TrainView
    from gkdbench.training.blocks.encoded_method import EncodedMethod
    from gkdbench.training.distil import Transfer, train_student
    from gkdbench.training.fields import DistilledStudent, SingleModelMethod
    from gkdbench.training.graph_student import train_graph_student
    from gkdbench.training.hidden_features import train_imitator
    from gkdbench.training.loop import train
    from gkdbench.training.losses import entropy, hinton, kl_of_logits, kl_to_teacher, supervised
    from gkdbench.training.method import Method, Requirement
    from gkdbench.training.models import as_predictor, backbone_config, build
    from gkdbench.training.mutual import MutualTrainingSettings, build_peers, train_peers
    from gkdbench.training.mutual_method import LogitMutualMethod, MutualMethod
    from gkdbench.training.node_pairs import train_on_pairs
    from gkdbench.training.solo import TrainingSettings, item_forward, train_solo
    from gkdbench.training.steps import adam, batches, descend, mean_loss
    from gkdbench.training.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat

__all__ = [
    "Context",
    "DistilledStudent",
    "EncodedMethod",
    "Fitted",
    "LogitMutualMethod",
    "Method",
    "MutualMethod",
    "MutualTrainingSettings",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Predictor",
    "Requirement",
    "SingleModelMethod",
    "TrainView",
    "TrainingSettings",
    "Transfer",
    "UnitFloat",
    "adam",
    "as_predictor",
    "backbone_config",
    "batches",
    "build",
    "build_peers",
    "descend",
    "entropy",
    "hinton",
    "item_forward",
    "kl_of_logits",
    "kl_to_teacher",
    "mean_loss",
    "supervised",
    "train",
    "train_graph_student",
    "train_imitator",
    "train_on_pairs",
    "train_peers",
    "train_solo",
    "train_student",
]

_NAMES = {
    "gkdbench.protocol.predictor": "Predictor",
    "gkdbench.protocol.view": "Context Fitted TrainView",
    "gkdbench.training.blocks.encoded_method": "EncodedMethod",
    "gkdbench.training.distil": "Transfer train_student",
    "gkdbench.training.fields": "DistilledStudent SingleModelMethod",
    "gkdbench.training.graph_student": "train_graph_student",
    "gkdbench.training.hidden_features": "train_imitator",
    "gkdbench.training.loop": "train",
    "gkdbench.training.losses": "entropy hinton kl_of_logits kl_to_teacher supervised",
    "gkdbench.training.method": "Method Requirement",
    "gkdbench.training.models": "as_predictor backbone_config build",
    "gkdbench.training.mutual": "MutualTrainingSettings build_peers train_peers",
    "gkdbench.training.mutual_method": "LogitMutualMethod MutualMethod",
    "gkdbench.training.node_pairs": "train_on_pairs",
    "gkdbench.training.solo": "TrainingSettings item_forward train_solo",
    "gkdbench.training.steps": "adam batches descend mean_loss",
    "gkdbench.training.types": "NonNegativeFloat NonNegativeInt PositiveFloat PositiveInt UnitFloat",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
"""Name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    """Load on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
