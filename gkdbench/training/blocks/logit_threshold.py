"""How releases turn logits into labels where they do not do it by probability."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gkdbench.nn.model import Trace
from gkdbench.protocol.predictor import Predictor

LATE = 0.5


class LogitThreshold(nn.Module):
    """A model whose labels begin at logit 0.5, probability 0.62, as in LSP's and Alignahead's releases (protocol trap
    7).

    Metrics ask for ``logit >= 0``; the shift is in what is deployed, so that training does not see it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Tensor:
        """Logits [N, C] for the arguments of a `gkdbench.nn.model.Model`."""
        logits: Tensor = self.model(*inputs)
        return logits - LATE

    def trace(self, *inputs: Any) -> Trace:
        """As `forward`, with the hidden layers."""
        inner: Trace = self.model.trace(*inputs)  # type: ignore[operator]
        return replace(inner, logits=inner.logits - LATE)


def logit_threshold(predictor: Predictor) -> Predictor:
    """`predictor` with `LogitThreshold` around its module."""
    return replace(predictor, module=LogitThreshold(predictor.module))
