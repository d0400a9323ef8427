"""The hyper-parameters of mixture students, and what each variant says of itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from gkdbench.methods.mixture._types import Terms
from gkdbench.nn.mixture import Mixture, MixtureModel, MixtureTrace
from gkdbench.nn.model import NEUTRAL
from gkdbench.training.blocks.encoded_method import Encoded
from gkdbench.training.fields import Taught
from gkdbench.training.types import Count, Natural, Rate, Share, Weight


@dataclass(frozen=True, kw_only=True)
class MixtureFields(Encoded, Taught):
    """A mixture trained with ``lambda * CE(V_L) + (1 - lambda) * KL(p_T || p_S; V_obs)`` at temperature tau.

    Args:
        label_weight: lambda.
        tau: temperature of both sides of the KL.
        pretrain: epochs with expert 0 alone, before `epochs` with routing; they cannot be selected.
        steps: an optimiser step per batch, or one per epoch on the mean gradient of its batches.
        balance: weight of the loss that evens out the experts' load.
        encodings: put DeepWalk encodings beside the features.
        label_propagation: put ``(I + 0.1 P)^9 0.1 P Y`` of the labels Y of training nodes beside them, P the mean over
            in-neighbours, rows divided by their sums. A node's own label has no part in its row (as released it has).
        reliable: learn from neighbours that KRD's sampler draws, too; power, momentum, bins: of the sampler.
        update_from: first epoch that moves the sampler's power.
        adv_weight: of the loss on attacked inputs. adv_eps: largest change. adv_steps: steps of eps / 4.
        similarity: weight of the Gram loss between the first hidden layer and the teacher's last one.
    """

    label_weight: Share = 0.2
    tau: Rate = 1.0
    pretrain: Natural = 12
    steps: Literal["per_batch", "per_epoch"] = "per_batch"
    balance: Weight = 0.01
    encodings: bool = False
    label_propagation: bool = field(default=False, metadata=NEUTRAL)
    reliable: bool = field(default=False, metadata=NEUTRAL)
    power: Rate = field(default=1.0, metadata=NEUTRAL)
    momentum: Share = field(default=0.99, metadata=NEUTRAL)
    bins: Count = field(default=50, metadata=NEUTRAL)
    update_from: Natural = field(default=50, metadata=NEUTRAL)
    adv_weight: Weight = 0.0
    adv_eps: Weight = 0.04
    adv_steps: Natural = 5
    similarity: Weight = 0.0

    @abstractmethod
    def student(self) -> Mixture:
        """The backbone of this variant."""

    @abstractmethod
    def routing_terms(self, model: MixtureModel, trace: MixtureTrace) -> Terms:
        """The weighted losses of the routing of one forward, summed over layers."""
