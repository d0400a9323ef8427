"""The hyper-parameters of mixture students, and what each variant reports about itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from gkdbench.methods.mixture._types import LossTerms
from gkdbench.nn.mixture import MixtureConfig, MixtureModel, MixtureTrace
from gkdbench.nn.model import OMIT_FROM_KEY_AT_DEFAULT
from gkdbench.training.blocks.encoded_method import EncodedMethod
from gkdbench.training.fields import DistilledStudent
from gkdbench.training.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat


@dataclass(frozen=True, kw_only=True)
class MixtureFields(EncodedMethod, DistilledStudent):
    """A mixture trained with ``lambda * CE(V_L) + (1 - lambda) * KL(p_T || p_S; V_obs)`` at temperature tau.

    Args:
        label_weight: lambda.
        tau: temperature of both sides of the KL.
        pretrain: epochs with expert 0 alone, before `epochs` with routing; they cannot be selected.
        steps: an optimiser step per batch, or one per epoch on the mean gradient of its batches.
        balance: weight of the loss that evens out the experts' load.
        encodings: put DeepWalk encodings next to the features.
        label_propagation: put ``(I + 0.1 P)^9 0.1 P Y`` of the labels Y of training nodes next to them, P the mean over
            in-neighbours, rows divided by their sums. A node's own label has no part in its row (as in the official
            code it has).
        reliable: learn from neighbours that KRD's sampler draws, too; power, momentum, bins: of the sampler.
        update_from: first epoch that moves the sampler's power.
        adv_weight: of the loss on attacked inputs. adv_eps: largest change. adv_steps: steps of eps / 4.
        similarity: weight of the Gram loss between the first hidden layer and the teacher's last one.
    """

    label_weight: UnitFloat = 0.2
    tau: PositiveFloat = 1.0
    pretrain: NonNegativeInt = 12
    steps: Literal["per_batch", "per_epoch"] = "per_batch"
    balance: NonNegativeFloat = 0.01
    encodings: bool = False
    label_propagation: bool = field(default=False, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    reliable: bool = field(default=False, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    power: PositiveFloat = field(default=1.0, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    momentum: UnitFloat = field(default=0.99, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    bins: PositiveInt = field(default=50, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    update_from: NonNegativeInt = field(default=50, metadata=OMIT_FROM_KEY_AT_DEFAULT)
    adv_weight: NonNegativeFloat = 0.0
    adv_eps: NonNegativeFloat = 0.04
    adv_steps: NonNegativeInt = 5
    similarity: NonNegativeFloat = 0.0

    def why_one_label(self) -> str:
        if self.reliable:
            return "reliable sampling reads one distribution over classes; use reliable = false"
        return super().why_one_label()

    @abstractmethod
    def student(self) -> MixtureConfig:
        """The backbone of this variant."""

    @abstractmethod
    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> LossTerms:
        """The weighted losses of the routing of one forward, summed over layers."""
