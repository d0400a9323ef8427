"""What `fold_experts` reads and makes: statistics of a BatchNorm, and experts with everything folded in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class BatchNormStatistics:
    """A BatchNorm in evaluation mode: four vectors [H], and eps."""

    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor
    eps: float = 1e-5


@dataclass(frozen=True)
class FoldedExperts:
    """What inference needs of a layer: ``weight: [E, D, H]``, ``bias: [E, H]``, ``direction: [E, D]`` of unit norm.

    Tensors are never modified after construction.
    """

    weight: Tensor
    bias: Tensor
    direction: Tensor

    @cached_property
    def first(self) -> Tensor | None:
        """[E] the lowest expert with the same direction, None where all differ. Computed once."""
        from gkdkernels.experts.routing import first_of_equals

        return first_of_equals(self.direction)

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The three on the CPU for compiled loops, at least fp32. Computed once: it takes as long as one row."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        weight, bias, direction = (t.to(wide).contiguous().numpy() for t in (self.weight, self.bias, self.direction))
        return weight, bias, direction
