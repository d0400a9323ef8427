"""One run inside the worker: hand the view to the method, keep its selected states, write what the scorer reads."""

from __future__ import annotations

import hashlib
import json
import resource
import time
import traceback as tb
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gkdbench.printable import encodable, said
from gkdbench.protocol.bank import BankEntry, write_state, write_teacher
from gkdbench.protocol.flatness import FLAT, FLAT_TEACHER, is_flat
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.monitor import Monitor, NonFinite, OutOfTime, WrongPredictions, check_model
from gkdbench.protocol.notes import checked
from gkdbench.protocol.predictor import Predictor, State, mean_logits, state_from_bytes, state_sha256
from gkdbench.protocol.selection import PROTOCOL_RULE, BestEpoch, SelectionRule, cross_entropy_ratio, validation_loss
from gkdbench.protocol.spikes import LOSS_SPIKE
from gkdbench.protocol.sweeps import Sweeps, SweptPredictions
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.protocol.view_io import LATER, LaterGraphs, TrainingBundle, read_bundle, read_later


class NotAsSelected(RuntimeError):
    """The restored model is not the one that was selected: part of what it computes from is outside its state."""


class Trainable(Protocol):
    """What the protocol knows of a method."""

    def fit(self, view: TrainView, ctx: Context) -> Fitted: ...


@dataclass
class RunOutcome:
    """How a run went, as the worker reports it; everything scored is in files next to it."""

    status: str = "ok"
    phase: str | None = None
    reason: str | None = None
    traceback: str | None = None
    epochs: int = 0
    looks: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)
    teachers: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    extra: dict[str, float] = field(default_factory=dict)
    train_s: float | None = None
    train_j: float | None = None
    peak_memory_bytes: int | None = None


def run_session(
    method: Trainable,
    *,
    bundle: Path,
    later: Path | None = None,
    scratch: Path,
    seed: int,
    teachers: Mapping[str, BankEntry],
    patience: int | None = None,
    selection: str = "loss",
    audit_every: int = 1,
    time_limit_s: float | None = None,
    device: str = "cpu",
    bank: Path | None = None,
    sweeps: Sweeps | None = None,
    energy: Callable[[], float | None] | None = None,
    keep_weights: bool = False,
) -> RunOutcome:
    """Train, select, predict; never raises for a failure of the method: the Outcome has the reason.

    Args:
        bundle: folder of `gkdbench.protocol.view_io.write_bundle`.
        later: its part that is read after ``fit``, where that was put elsewhere.
        scratch: existing empty folder; gets ``<model>.<column>.selected``, ``.pred``, ``.epochs``,
            ``.val.selected``, ``terms.npz``.
        teachers: role -> entry of the bank.
        selection: `gkdbench.protocol.selection.SelectionRule` as text.
        bank: folder to write the run's first model to as a teacher, or None.
        sweeps: kind of corruption -> levels at which the selected models are tried; then scratch gets ``sweeps.npz``.
        energy: joules used so far, or None where that cannot be read.
        keep_weights: whether scratch gets ``<model>.weights.npz``, the selected weights of each model.
    """
    start = time.monotonic()

    def run(outcome: RunOutcome) -> None:
        given = read_bundle(bundle, device)
        deadline = None if time_limit_s is None else start + time_limit_s
        rule = SelectionRule.parse(selection)
        monitor = monitor_of(given, scratch, patience=patience, rule=rule, audit_every=audit_every, deadline=deadline)
        try:
            known = {role: entry.read(given.view) for role, entry in teachers.items()}
            outcome.teachers = {role: teacher.weights_sha256 for role, teacher in known.items()}
            outcome.phase = "fit"
            if any(is_flat(teacher.train_ce_ratio) for teacher in known.values()):
                outcome.flags.append(FLAT_TEACHER)
            ctx = Context(monitor, known, seed, torch.device(device), outcome.extra, outcome.flags)
            try:
                fitted = method.fit(given.view, ctx)
            finally:
                outcome.extra, outcome.flags, wrong = checked(ctx.extra, ctx.flags)
            if wrong:
                raise WrongPredictions(wrong)
            if not isinstance(fitted, Fitted):
                raise WrongPredictions(f"fit: expected a Fitted, got {type(fitted).__name__}")
            for name, predictor in fitted.predictors.items():
                check_model(name, predictor)
            outcome.train_s = time.monotonic() - start
            outcome.train_j = energy() if energy else None
            outcome.phase = "predict"
            monitor.close()
            monitor.check_names(fitted.predictors)
            graphs = read_later(given, later or bundle / LATER)
            swept = SweptPredictions(given, graphs.scored_sets, monitor, sweeps or {}, seed)
            _finish(graphs, fitted, monitor, scratch, outcome, bank, swept, keep_weights)
            outcome.phase = None
        finally:
            monitor.close()
            outcome.epochs, outcome.looks = monitor.epochs, monitor.looks
            if monitor.spiked and LOSS_SPIKE not in outcome.flags:
                outcome.flags.append(LOSS_SPIKE)

    return outcome_of(run)


def outcome_of(run: Callable[[RunOutcome], None]) -> RunOutcome:
    """What `run` made of a new outcome; what it raises becomes status and reason, with the phase it had reached."""
    outcome = RunOutcome(phase="prepare")
    try:
        run(outcome)
    except NotAsSelected as error:
        outcome.phase = "select"
        _failed(outcome, "error", error)
    except OutOfTime as error:
        _failed(outcome, "timeout", error)
    except NonFinite as error:
        _failed(outcome, "nan", error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        _failed(outcome, "oom", error)
    except Exception as error:  # a method may raise anything; the suite goes on and the record has the reason
        _failed(outcome, "oom" if _out_of_memory(error) else "error", error)
    outcome.extra, outcome.flags, wrong = checked(outcome.extra, outcome.flags)
    if wrong and outcome.status == "ok":  # of a run that failed, the failure is told
        outcome.status, outcome.phase, outcome.reason, outcome.models = "error", "fit", wrong, []
    outcome.peak_memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return outcome


def monitor_of(
    given: TrainingBundle,
    scratch: Path,
    *,
    patience: int | None = None,
    rule: SelectionRule = PROTOCOL_RULE,
    audit_every: int = 1,
    deadline: float | None = None,
    kind: type[Monitor] = Monitor,
) -> Monitor:
    """The Monitor of a run on `given`, whose files go to `scratch`; other arguments as of `Monitor`.

    Args:
        kind: `Monitor`, or a class that does more at each report.
    """
    return kind(
        graphs=_LazyGraphs(given),
        val_graph=given.val_graph,
        val_items=given.val,
        val_labels=given.val_labels,
        scored_sets=given.scored_sets,
        keep_states=given.has_later,
        metric=given.metric,
        num_classes=given.view.num_classes,
        scratch=scratch,
        patience=patience,
        rule=rule,
        audit_every=audit_every,
        deadline=deadline,
    )


class _LazyGraphs(Mapping[str, Inputs]):
    """Evaluation graphs read on first use and kept."""

    def __init__(self, given: TrainingBundle | LaterGraphs) -> None:
        self._given, self._kept = given, dict[str, Inputs]()

    def __getitem__(self, name: str) -> Inputs:
        if name not in self._kept:
            self._kept[name] = self._given.graph(name)
        return self._kept[name]

    def __iter__(self) -> Any:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def _finish(
    later: LaterGraphs,
    fitted: Fitted,
    monitor: Monitor,
    scratch: Path,
    outcome: RunOutcome,
    bank: Path | None,
    swept: SweptPredictions,
    keep_weights: bool,
) -> None:
    """Restore selected states, predict every scored item with them, replay saved states on unseen items."""
    given, graphs = later.given, _LazyGraphs(later)
    mean: dict[str, Tensor] = {}
    for name, predictor in fitted.predictors.items():
        best, state = monitor.selected(name)
        _replay(later, monitor, name, predictor, state, graphs, scratch)
        predictor.module.load_state_dict(state)
        predicted = _predict(later, monitor, name, predictor, graphs, scratch)
        _check_selected(name, best, predicted, given.view.device)
        for key, probability in predicted.probabilities.items():
            mean[key] = mean.get(key, torch.zeros(())) + probability / len(fitted.predictors)
        swept.add(name, predictor, graphs, len(fitted.predictors))
        np.save(scratch / f"{name}.val.curve.npy", np.asarray(monitor.curve(name), dtype=np.float32))
        np.save(scratch / f"{name}.val.loss.npy", np.asarray(monitor.losses(name), dtype=np.float32))
        macs = predictor.macs(given.view.inputs) // max(len(given.view.items), 1) if predictor.macs else None
        outcome.models.append(
            {
                "name": name,
                "needs": predictor.needs,
                "hops": predictor.hops,
                "selected_epoch": best.epoch,
                "val_loss": predicted.val_loss,
                "train_ce_ratio": predicted.train_ce_ratio,
                "parameters": predictor.parameters,
                "macs": macs,
                "weights_sha256": state_sha256(state),
            }
        )
        if keep_weights:
            write_state(scratch / f"{name}.weights.npz", state)
        if bank is not None and len(outcome.models) == 1:
            write_teacher(bank, predictor, given.view.inputs, state, predicted.train_ce_ratio)
    if any(is_flat(model["train_ce_ratio"]) for model in outcome.models):
        outcome.flags.append(FLAT)
    ensemble = fitted.ensemble and len(fitted.predictors) > 1
    if ensemble:
        _write_ensemble(given, monitor, mean, scratch, outcome)
    swept.write(scratch, ensemble=ensemble)
    terms: dict[str, Any] = {name: np.asarray(trace, dtype=np.float32) for name, trace in monitor.terms.items()}
    np.savez(scratch / "terms.npz", **terms)
    if others := monitor.looks_at_others(fitted.predictors):
        np.save(scratch / "declared.looks.npy", np.array([others]))


@dataclass(frozen=True, eq=False)
class _Predicted:
    """What a model in its selected state answers.

    Args:
        probabilities: per scored set, for an ensemble.
        val, val_loss: score and loss on the validation items.
        train_ce_ratio: see `gkdbench.protocol.selection.cross_entropy_ratio`.
    """

    probabilities: dict[str, Tensor]
    val: float
    val_loss: float
    train_ce_ratio: float


def _predict(
    later: LaterGraphs, monitor: Monitor, name: str, predictor: Predictor, graphs: _LazyGraphs, scratch: Path
) -> _Predicted:
    """Write the selected predictions of one model to `scratch`."""
    given = later.given
    wanted = [("val", given.val_graph, given.val)] + [(w.column, w.graph_name, w.items) for w in later.scored_sets]
    logits: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    for column, graph_name, items in wanted:
        if graph_name not in logits:
            logits[graph_name] = monitor.checked(name, predictor, graphs[graph_name])
        chosen = logits[graph_name][items.position]
        np.save(scratch / f"{name}.{column}.selected.npy", monitor.encode(chosen), allow_pickle=False)
        found[column] = chosen.sigmoid() if given.view.multi_label else chosen.softmax(dim=1)
    if "observed" not in logits:
        logits["observed"] = monitor.checked(name, predictor, given.view.inputs)
    val, val_loss = monitor.validation(logits[given.val_graph])
    trained = logits["observed"][given.view.train.position.cpu()]
    return _Predicted(found, val, val_loss, cross_entropy_ratio(trained, given.view.labels.cpu()))


GPU_TOLERANCE = 1e-3
"""Kernels of GPUs may add in another order each time."""


def _check_selected(name: str, best: BestEpoch, restored: _Predicted, device: torch.device) -> None:
    """Compare validation of the restored model with what it was when its epoch was selected.

    Raises:
        NotAsSelected: they differ.
    """
    if abs(restored.val - best.value) > (0.0 if device.type == "cpu" else GPU_TOLERANCE):
        raise NotAsSelected(
            f"model {name!r}: expected the restored state of epoch {best.epoch} to score {best.value:.6f} on "
            f"validation, as when it was selected, got {restored.val:.6f}; keep all that its answers depend on in "
            "parameters or registered buffers, and draw nothing in evaluation mode"
        )


def _replay(
    later: LaterGraphs,
    monitor: Monitor,
    name: str,
    predictor: Predictor,
    like: State,
    graphs: _LazyGraphs,
    scratch: Path,
) -> None:
    """Predictions on unseen items at every kept epoch, from the states saved then (docs/protocol.md, section 3)."""
    hidden = [scored_set for scored_set in later.scored_sets if not scored_set.live]
    if not hidden:
        return
    size = sum(tensor.numel() * tensor.element_size() for tensor in like.values())
    # Predictions from features alone do not depend on the edges: one forward serves every graph with the same items.
    shared: dict[bytes, np.ndarray] = {}
    with (scratch / f"{name}.states").open("rb") as states:
        files = {scored_set.column: (scratch / f"{name}.{scored_set.column}.pred").open("wb") for scored_set in hidden}
        for _ in range((scratch / f"{name}.epochs").stat().st_size // np.dtype(np.int32).itemsize):
            predictor.module.load_state_dict(state_from_bytes(states.read(size), like))
            shared.clear()
            for scored_set in hidden:
                same = (
                    scored_set.items.ids.numpy().tobytes()
                    if predictor.needs == "features"
                    else scored_set.column.encode()
                )
                if same not in shared:
                    logits = predictor.evaluate(graphs[scored_set.graph_name], scored_set.items)
                    shared[same] = monitor.encode(logits.float().cpu())
                files[scored_set.column].write(shared[same].tobytes())
        for file in files.values():
            file.close()
    (scratch / f"{name}.states").unlink()


def _write_ensemble(
    given: TrainingBundle, monitor: Monitor, mean: dict[str, Tensor], scratch: Path, outcome: RunOutcome
) -> None:
    """The mean probability of all predictors, each at its own selected epoch, as one more model."""
    for column, probability in mean.items():
        logits = mean_logits(probability, multi_label=given.view.multi_label)
        np.save(scratch / f"ensemble.{column}.selected.npy", monitor.encode(logits), allow_pickle=False)
        if column == "val":
            val_loss = validation_loss(logits, given.val_labels)
    parts = outcome.models
    macs = [m["macs"] for m in parts]
    outcome.models = [
        *parts,
        {
            "name": "ensemble",
            "needs": "graph" if any(m["needs"] == "graph" for m in parts) else parts[0]["needs"],
            "hops": max((m["hops"] or 0 for m in parts), default=0) or None,
            "selected_epoch": max(m["selected_epoch"] for m in parts),
            "val_loss": val_loss,
            "parameters": sum(m["parameters"] for m in parts),
            "macs": sum(macs) if None not in macs else None,
            "weights_sha256": hashlib.sha256("".join(m["weights_sha256"] for m in parts).encode()).hexdigest(),
        },
    ]


def _failed(outcome: RunOutcome, status: str, error: BaseException) -> None:
    outcome.status, outcome.reason, outcome.models = status, said(error), []
    outcome.traceback = None if isinstance(error, OutOfTime) else encodable("".join(tb.format_exception(error)))


def _out_of_memory(error: Exception) -> bool:
    text = said(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def write_outcome(outcome: RunOutcome, path: Path) -> None:
    """The outcome as JSON."""
    path.write_text(json.dumps(outcome.__dict__))
