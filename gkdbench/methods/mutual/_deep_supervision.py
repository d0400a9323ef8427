"""Auxiliary classifiers and feature transfer on hidden layers: what Alignahead++ adds (its abstract; reconstructed)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gkdbench.nn.linear import FeatureLinear
from gkdbench.nn.model import Backbone
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import TrainView
from gkdbench.training.losses import supervised
from gkdbench.training.models import hidden_width
from gkdbench.training.mutual import JointForward


class DeepSupervision(nn.Module):
    """Per hidden layer a linear classifier and a linear map into the features of the layer that it follows.

    Args:
        layers: number of hidden layers. width: of each. classes: C.
    """

    def __init__(self, layers: int, width: int, classes: int, randomness: Randomness) -> None:
        super().__init__()

        def linear(name: str, out: int) -> nn.ModuleList:
            return nn.ModuleList(
                FeatureLinear(width, out, name=f"{name}.{layer}", randomness=randomness) for layer in range(layers)
            )

        self.heads, self.maps = linear("heads", classes), linear("maps", width)

    def logits(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Per layer the logits [N, C] of its classifier, from ``hidden[l]: [N, width]``."""
        return [head(torch.relu(h)) for head, h in zip(self.heads, hidden, strict=True)]

    def loss(self, joint: JointForward, student: int, multi_label: bool) -> Tensor:
        """The summed supervised losses of the classifiers of `student` on the labelled rows of `joint`."""
        logits = self.logits(joint.traces[student].hidden)
        return torch.stack([supervised(z[joint.rows], joint.labels, multi_label=multi_label) for z in logits]).sum()

    def transfer(self, hidden: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """``sum_l MSE(map_l(h_l), sg t_l)`` of features [N, width] each."""
        pairs = zip(self.maps, hidden, targets, strict=True)
        return torch.stack([F.mse_loss(own(h), target.detach()) for own, h, target in pairs]).sum()


def deep_supervision(config: Backbone, view: TrainView, seed: int, student: int) -> DeepSupervision:
    """The auxiliary parts of a student of this many hidden layers, drawn as its weights are."""
    layers = config.hops - 1
    return DeepSupervision(layers, hidden_width(config), view.num_classes, Randomness(seed, student)).to(view.device)
