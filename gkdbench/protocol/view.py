"""What a method receives: a TrainView to learn from, a Context to work in; what it gives back: Fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gkdbench.data.nodes import NodeSet, NodeTable, Space
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor, State

if TYPE_CHECKING:
    from gkdbench.protocol.monitor import Monitor


@dataclass(frozen=True, eq=False)
class TrainView:
    """All that training may see (docs/protocol.md, section 3): no validation label, no test label, no unseen node.

    Args:
        dataset: canonical name; a method may look up its published settings by it, never data.
        kind: ``"node"`` or ``"graph"``.
        setting: ``"tran"``, ``"ind"`` or ``"graph"``.
        inputs: the observed graph (transductive: the whole one); graph tasks: the training graphs.
        train: the labelled items, positions in ``inputs.items``.
        labels: [n_train] int64 classes, or [n_train, L] float32 in {0, 1, NaN} when `multi_label`.
        num_classes: C, or L when multi-label.
    """

    dataset: str
    kind: Literal["node", "graph"]
    setting: Literal["tran", "ind", "graph"]
    inputs: Inputs
    train: NodeSet
    labels: Tensor
    num_classes: int
    multi_label: bool = False

    @property
    def num_features(self) -> int:
        return int(self.inputs.features.shape[1])

    @property
    def items(self) -> Space:
        """Numbering of what is predicted."""
        return self.inputs.items

    @property
    def device(self) -> torch.device:
        """The device of graph, features and labels."""
        return self.inputs.graph.device

    def to(self, device: torch.device | str) -> TrainView:
        """The view on `device` (itself when it is there already)."""
        if torch.device(device) == self.device:
            return self
        inputs = self.inputs.to(device)
        train = NodeSet(inputs.items, self.train.position.to(device))
        return replace(self, inputs=inputs, train=train, labels=self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained teacher from the bank: detached outputs on the observed items, and its weights.

    Args:
        logits: [N, C] of the validation-selected state.
        hidden: [N, H] pre-activation of its last hidden layer, or None.
        state: its weights, for methods that query the teacher again (KRD).
        method, config: the cell that trained it; `gkdbench.training.models.load_teacher_model` makes the module again.
        weights_sha256: hash of `state`; equal in all rows of a table.
        train_ce_ratio: its cross-entropy on the training items over log C; None where it was not stored.
    """

    logits: NodeTable
    hidden: NodeTable | None
    state: State
    method: str
    config: Mapping[str, Any]
    seed: int
    weights_sha256: str
    train_ce_ratio: float | None = None


@dataclass
class Context:
    """What a method works with.

    Args:
        monitor: takes the current predictors once an epoch, returns an `EpochResult`.
        teachers: role -> Teacher, as the method's ``requires()`` asked for.
        seed: the run's training seed; every draw derives from it (``gkdbench.nn.random.Randomness``).
        device: of the view's tensors.
        extra: a method's own diagnostics (name -> number), stored in the row.
        flags: words that a reader must see ("collapsed"), stored in the row.
    """

    monitor: Monitor
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    extra: dict[str, float] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """The deployable models of a run.

    Args:
        predictors: name -> Predictor, as reported to the Monitor ("model", or "peer0", "peer1", ...).
            The runner restores each one's validation-selected state before anything is scored.
        ensemble: also score the mean probability of all predictors, as one more model.
    """

    predictors: Mapping[str, Predictor]
    ensemble: bool = False
