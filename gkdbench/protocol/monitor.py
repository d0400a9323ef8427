"""The Monitor: sees validation labels, selects epochs, keeps the best states, writes test predictions it cannot score.

Selection (protocol section 4.1): the best validation score, of equal ones the smaller validation loss. Test labels are
not in this process: predictions are appended to scratch files, and the scorer reads them after the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.metrics import METRICS
from gkdbench.printable import encodable
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor, State, state_bytes, state_of
from gkdbench.protocol.selection import PROTOCOL_RULE, BestEpoch, SelectionRule, validation_loss
from gkdbench.protocol.spikes import is_spiked
from gkdbench.safe_files import safe_name


class NonFinite(ArithmeticError):
    """Predictions or loss stopped being finite: the run ends with status ``nan``."""


class OutOfTime(TimeoutError):
    """The cell's time limit passed: the run ends with status ``timeout``."""


NAME_CHARACTERS = 100
"""A predictor's name is no longer: it begins the names of its files."""


class WrongPredictions(UserError):
    """A predictor answered with the wrong shape, or nothing was ever reported."""


@dataclass(frozen=True, slots=True)
class EpochResult:
    """The Monitor's result of one epoch.

    Args:
        val: validation score in [0, 1] per predictor.
        val_loss: mean cross-entropy on the validation items per predictor.
        improved: whether this epoch's state replaced the predictor's stored one.
        stop: every predictor's patience is spent.
    """

    val: Mapping[str, float]
    val_loss: Mapping[str, float]
    improved: Mapping[str, bool]
    stop: bool


@dataclass(frozen=True, eq=False)
class ScoredSet:
    """Items whose predictions are kept: a reported setting, the graph they are predicted on, whether during training.

    Not live (unseen nodes, test graphs): predicted after ``fit`` from the states saved at every audited epoch.
    """

    column: str
    graph_name: str
    items: NodeSet
    live: bool


@dataclass
class _Track:
    """What the Monitor remembers of one predictor."""

    best: BestEpoch
    state: State = field(default_factory=dict)
    val: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    files: dict[str, BinaryIO] = field(default_factory=dict)


class Monitor:
    """See the module. Built by the runner; a method only calls `report`.

    Args:
        graphs: name -> Inputs the Monitor may predict on during training.
        val_graph, val_items, val_labels: the validation items and their labels (not available to the method).
        scored_sets: test items on graphs that training sees, per reported setting.
        keep_states: whether the weights of audited epochs are kept, for test items that are predicted after ``fit``.
        metric: registered metric that selects.
        num_classes: C (or L).
        scratch: folder for predictions and states.
        patience: epochs without improvement until `stop`; None: never.
        rule: of selection.
        audit_every: epochs between kept predictions.
        deadline: `time.monotonic()` value after which `report` raises OutOfTime.
    """

    def __init__(
        self,
        *,
        graphs: Mapping[str, Inputs],
        val_graph: str,
        val_items: NodeSet,
        val_labels: Tensor,
        scored_sets: list[ScoredSet],
        metric: str,
        num_classes: int,
        scratch: Path,
        keep_states: bool = False,
        patience: int | None = None,
        rule: SelectionRule = PROTOCOL_RULE,
        audit_every: int = 1,
        deadline: float | None = None,
    ) -> None:
        self._scenes, self._val_scene, self._val_items = graphs, val_graph, val_items
        self._val_labels, self._val_targets = val_labels.numpy(), val_labels
        self._scored_sets, self._keep_states = scored_sets, keep_states
        self._metric, self._num_classes = METRICS.get(metric), num_classes
        self._scratch, self._rule, self._audit_every, self._deadline = scratch, rule, audit_every, deadline
        self.patience = patience
        self.epochs = 0
        self.looks = 0
        """Evaluations of a predictor on the validation items so far."""
        self.terms: dict[str, list[float]] = {}
        self._tracks: dict[str, _Track] = {}
        self._declared: set[str] = set()
        self._first_selectable: int | None = None

    def report(
        self,
        epoch: int,
        predictors: Mapping[str, Predictor],
        *,
        terms: Mapping[str, float] | None = None,
        selectable: bool = True,
        store: Collection[str] = (),
    ) -> EpochResult:
        """Evaluate, select, record. Call once an epoch, epochs counted from 1.

        Args:
            predictors: the same names in every epoch.
            terms: values of the loss terms of this epoch, stored so that a term that was never active is seen.
            selectable: False while the final architecture is not active yet; such epochs are audited, never
                selected, and patience does not run.
            store: predictors whose state this epoch replaces the stored one whatever the validation score, so that
                their best score may fall: the rule of releases that store on a falling training loss too (protocol trap
                    2).

        Raises:
            NonFinite, OutOfTime, WrongPredictions.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfTime(f"the cell's time limit passed in epoch {epoch}")
        if epoch <= self.epochs:
            raise WrongPredictions(f"epoch: expected each once, in order, got {epoch} after {self.epochs}")
        self._note_terms(epoch, terms or {})
        selectable = selectable and epoch >= self._rule.start
        if selectable and self._first_selectable is None:
            self._first_selectable = epoch
        self.epochs = epoch
        val: dict[str, float] = {}
        improved: dict[str, bool] = {}
        for name, predictor in predictors.items():
            val[name], improved[name] = self._look(epoch, name, predictor, selectable, name in store)
        loss = {name: self._tracks[name].loss[-1] for name in predictors}
        return EpochResult(val, loss, improved, self._spent(epoch) if selectable else False)

    def _look(self, epoch: int, name: str, predictor: Predictor, selectable: bool, store: bool) -> tuple[float, bool]:
        if name not in self._tracks:
            check_model(name, predictor)
        track = self._tracks.setdefault(name, _Track(BestEpoch(self._rule)))
        logits = {self._val_scene: self.checked(name, predictor, self._scenes[self._val_scene])}
        value, loss = self.validation(logits[self._val_scene])
        self.looks += 1
        track.val.append(value)
        track.loss.append(loss)
        better = selectable and track.best.offer(epoch, value, loss, store=store)
        if better:
            track.state = state_of(predictor.module)
        if epoch % self._audit_every == 0 or better:
            self._keep(epoch, name, predictor, logits)
        return value, better

    def validation(self, logits: Tensor) -> tuple[float, float]:
        """Score and loss of the validation items, from logits [M, C] of all items of the graph that they are in."""
        chosen = logits[self._val_items.position]
        return self._metric(self.encode(chosen), self._val_labels), validation_loss(chosen, self._val_targets)

    def declare(self, *names: str) -> None:
        """Announce predictors that are evaluated on validation although they are not among the models that the method
        returns, such as the members that one is chosen from. Each of their evaluations is counted in the record; a run
        that evaluates other predictors than those it declared or returns is refused at its end.

        Raises:
            WrongPredictions: after the first report: what is asked of validation is said beforehand.
        """
        if self.epochs:
            raise WrongPredictions(
                f"declare(): expected before the first report, got it after epoch {self.epochs}; call it at the "
                "beginning of fit"
            )
        self._declared.update(names)

    def check_names(self, returned: Collection[str]) -> None:
        """Refuse a run that had other predictors evaluated than it `returned` or declared.

        Raises:
            WrongPredictions: names them.
        """
        others = sorted(self._tracks.keys() - set(returned) - self._declared)
        if others:
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            raise WrongPredictions(
                f"expected evaluations of the returned models ({', '.join(returned)}) and of declared ones, got "
                f"{len(others)} other predictors: {shown}; call ctx.monitor.declare(...) before the first report"
            )

    def _keep(self, epoch: int, name: str, predictor: Predictor, logits: dict[str, Tensor]) -> None:
        """Append this epoch's test predictions, or its weights where the items must not be seen yet."""
        files = self._tracks[name].files
        for scored_set in self._scored_sets:
            if scored_set.graph_name not in logits:
                logits[scored_set.graph_name] = self.checked(name, predictor, self._scenes[scored_set.graph_name])
            encoded = self.encode(logits[scored_set.graph_name][scored_set.items.position])
            self._file(files, f"{name}.{scored_set.column}.pred").write(encoded.tobytes())
        if self._keep_states:
            self._file(files, f"{name}.states").write(state_bytes(state_of(predictor.module)))
        self._file(files, f"{name}.epochs").write(np.int32(epoch).tobytes())

    def _file(self, files: dict[str, BinaryIO], filename: str) -> BinaryIO:
        if filename not in files:
            files[filename] = (self._scratch / filename).open("wb")
        return files[filename]

    def checked(self, name: str, predictor: Predictor, inputs: Inputs) -> Tensor:
        """Logits [M, C] of all items on the CPU, after checking shape and finiteness."""
        logits = predictor.evaluate(inputs)
        wanted = (len(inputs.items), self._num_classes)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise WrongPredictions(f"predictor {name!r}: expected logits {list(wanted)}, got {got}")
        if not logits.is_floating_point():
            raise WrongPredictions(f"predictor {name!r}: expected logits of floats, got {logits.dtype}")
        logits = logits.float()  # a double may be beyond it
        if not bool(torch.isfinite(logits).all()):
            raise NonFinite(
                f"predictor {name!r}: expected finite logits, got logits that are not finite in epoch {self.epochs}"
            )
        return logits.cpu()

    def encode(self, logits: Tensor) -> np.ndarray:
        """Predictions as they are stored: uint8 (uint16 from 257 classes) arg-max [M], bool decisions [M, L], or
        float16 scores [M, L] where the metric ranks (scores of a record are always computed from these)."""
        if self._metric.ranks:
            largest = torch.finfo(torch.float16).max
            return logits.clamp(-largest, largest).to(torch.float16).numpy()
        predicted = self._metric.from_logits(logits.numpy())
        if predicted.dtype == np.bool_:
            return predicted
        return predicted.astype(np.uint8 if self._num_classes <= 256 else np.uint16)

    def _note_terms(self, epoch: int, terms: Mapping[str, float]) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                raise NonFinite(f"loss term {name!r} became {value} in epoch {epoch}")
            # A term that starts late is 0 before: the trace has one value per epoch.
            self.terms.setdefault(name, [0.0] * (len(self.terms.get("epoch", ())))).append(value)
        self.terms.setdefault("epoch", []).append(float(epoch))
        for trace in self.terms.values():
            trace.extend([0.0] * (len(self.terms["epoch"]) - len(trace)))

    def _spent(self, epoch: int) -> bool:
        if self.patience is None or self._first_selectable is None:
            return False
        floor = self._first_selectable - 1
        return all(epoch - max(t.best.epoch, floor) >= self.patience for t in self._tracks.values())

    def close(self) -> None:
        """Close scratch files; call once training has ended, however it ended."""
        for track in self._tracks.values():
            for file in track.files.values():
                file.close()
            track.files.clear()

    def selected(self, name: str) -> tuple[BestEpoch, State]:
        """What selection chose for predictor `name`: epoch, score and loss, and the state."""
        track = self._tracks.get(name)
        if track is None or not track.best.epoch:
            raise WrongPredictions(
                f"predictor {name!r}: expected selectable reports, got none; call ctx.monitor.report(epoch, "
                f"{{{name!r}: predictor}}) once an epoch"
            )
        return track.best, track.state

    def curve(self, name: str) -> list[float]:
        """Validation score of predictor `name` per reported epoch."""
        return self._tracks[name].val

    def losses(self, name: str) -> list[float]:
        """Validation loss of predictor `name` per reported epoch."""
        return self._tracks[name].loss

    def looks_at_others(self, returned: Collection[str]) -> int:
        """How many of the `looks` were at declared predictors that are not among the `returned` ones: no curve of a
        record shows these."""
        return sum(len(track.val) for name, track in self._tracks.items() if name not in returned)

    @property
    def spiked(self) -> bool:
        """Whether the total loss blew up after it had been small (protocol trap 33: divergence hidden by an early
        best)."""
        return is_spiked(self.terms.get("loss", []))


def check_model(name: object, predictor: object) -> None:
    """Refuse a name that cannot be part of a file's, and what is no Predictor.

    Raises:
        WrongPredictions: says what was expected and given.
    """
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS or encodable(name) != name:
        shown = encodable(repr(name)[:60])
        raise WrongPredictions(f"a predictor's name: expected text of up to {NAME_CHARACTERS} letters, got {shown}")
    safe_name(name, "a predictor's name")
    if not isinstance(predictor, Predictor):
        raise WrongPredictions(
            f"predictor {name!r}: expected a Predictor, got {type(predictor).__name__}; try Predictor(module)"
        )
