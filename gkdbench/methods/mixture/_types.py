"""What the parts of a mixture's objective hand to each other."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LossTerms = dict[str, Tensor]
"""Name -> what a term adds to the loss of a step."""


class MixtureBatch(NamedTuple):
    """What one forward sees: observed items [B] (positions), and labelled ones [B'] (places in ``view.train``)."""

    observed: Tensor
    labelled: Tensor
