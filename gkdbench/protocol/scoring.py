"""The scorer: in the process that holds test labels, after the run. Turns kept predictions into scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gkdbench.data.splits import SPLIT_FAMILIES, SplitTask
from gkdbench.metrics import score
from gkdbench.metrics.diagnostics import confusion
from gkdbench.protocol.evaluation_graphs import PRODUCTION, EvaluationGraphs
from gkdbench.records.schema import Audit, CorruptedResult, ModelResult, Score

Arrays = dict[str, np.ndarray]
DECLARED_LOOKS = "declared/looks"
"""Array of a run, [1]: looks at declared predictors that it does not return; absent where there were none."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One run's results and the arrays that go to the side-car (names: ``<model>/<column>/<what>``)."""

    models: list[ModelResult]
    arrays: Arrays
    sweeps: list[CorruptedResult] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Hash over names, dtypes, shapes and values of the arrays."""
        return arrays_sha256(self.arrays)


def arrays_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over the sorted names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def score_run(
    split_task: SplitTask, evaluation_graphs: EvaluationGraphs, scratch: Path, models: list[dict[str, Any]]
) -> Scored:
    """Score what a worker left in `scratch`.

    Args:
        models: the Outcome's list: name, needs, selected_epoch, parameters, ... per model.
    """
    arrays: Arrays = {}
    results = []
    truth = truth_of(split_task, evaluation_graphs)
    for model in models:
        name = model["name"]
        for column in truth:
            predicted = np.load(scratch / f"{name}.{column}.selected.npy", allow_pickle=False)
            arrays[f"{name}/{column}/selected"] = evaluation_graphs.in_order(column, predicted)
        curves = _curves(split_task, evaluation_graphs, scratch, name, truth, arrays)
        scores = selected_scores(split_task, arrays, name, truth)
        if (scratch / f"{name}.val.curve.npy").exists():
            arrays[f"{name}/val/curve"] = np.load(scratch / f"{name}.val.curve.npy", allow_pickle=False)
            arrays[f"{name}/val/loss"] = np.load(scratch / f"{name}.val.loss.npy", allow_pickle=False)
        val = scores.pop("val")
        audit = {column: _audit(curve, scores[column].value) for column, curve in curves.items()}
        results.append(ModelResult(**model, val=val.value, val_confusion=val.confusion, scores=scores, audit=audit))
    with np.load(scratch / "terms.npz", allow_pickle=False) as terms:
        arrays |= {f"terms/{name}": terms[name] for name in terms.files}
    if (scratch / "declared.looks.npy").exists():  # evaluations of predictors that have no curve here
        arrays[DECLARED_LOOKS] = np.load(scratch / "declared.looks.npy", allow_pickle=False)
    return Scored(results, arrays)


def selected_scores(
    split_task: SplitTask, arrays: Mapping[str, np.ndarray], model: str, truth: Mapping[str, np.ndarray]
) -> dict[str, Score]:
    """Scores of the selected predictions per column ("val" included), and the columns derived from them."""
    task = split_task.task
    scores: dict[str, Score] = {}
    for column, labels in truth.items():
        predicted = arrays[f"{model}/{column}/selected"]
        table = confusion(predicted, labels, task.num_classes) if task.metric == "accuracy" else None
        counts = None if table is None else [int(x) for x in table.ravel()]
        scores[column] = Score(value=score(task.metric, predicted, labels), n=len(labels), confusion=counts)
    if "prod" in SPLIT_FAMILIES[split_task.split.id].columns and PRODUCTION.keys() <= scores.keys():
        value = sum(weight * scores[column].value for column, weight in PRODUCTION.items())
        scores["prod"] = Score(value=value, n=sum(scores[column].n for column in PRODUCTION))
    return scores


def truth_of(split_task: SplitTask, evaluation_graphs: EvaluationGraphs) -> dict[str, np.ndarray]:
    """Labels per scored column, "val" included."""
    truth = {"val": split_task.task.labels[evaluation_graphs.val.ids].numpy()}
    return truth | {w.column: split_task.task.labels[w.items.ids].numpy() for w in evaluation_graphs.scored_sets}


def rescore(
    split_task: SplitTask, evaluation_graphs: EvaluationGraphs, arrays: Mapping[str, np.ndarray], model: ModelResult
) -> list[str]:
    """What of a stored model's scores its side-car does not confirm; empty when everything re-computes.

    Args:
        arrays: this row's arrays from the side-car, names without the row's prefix.
    """
    truth = truth_of(split_task, evaluation_graphs)
    missing = [c for c in truth if f"{model.name}/{c}/selected" not in arrays]
    if missing:
        return [f"{model.name}: no predictions for {', '.join(missing)}"]
    found = selected_scores(split_task, arrays, model.name, truth)
    wrong = []
    val = found.pop("val")
    if not np.isclose(val.value, model.val, rtol=0, atol=1e-9) or val.confusion != model.val_confusion:
        wrong.append(f"{model.name}: val is {model.val:.6f} in the record, {val.value:.6f} from the side-car")
    if found.keys() != model.scores.keys():
        wrong.append(f"{model.name}: the record scores {sorted(model.scores)}, the side-car {sorted(found)}")
    for column in found.keys() & model.scores.keys():
        stored, again = model.scores[column], found[column]
        if not np.isclose(stored.value, again.value, rtol=0, atol=1e-9) or stored.n != again.n:
            wrong.append(f"{model.name}: {column} is {stored.value:.6f} in the record, {again.value:.6f} re-computed")
        elif stored.confusion != again.confusion:
            wrong.append(f"{model.name}: {column}'s confusion counts differ from the side-car's predictions")
    return wrong


def _curves(
    split_task: SplitTask,
    evaluation_graphs: EvaluationGraphs,
    scratch: Path,
    name: str,
    truth: Mapping[str, np.ndarray],
    arrays: Arrays,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Test score per kept epoch and column: (epochs [T], scores [T]). An ensemble has none."""
    if not (scratch / f"{name}.epochs").exists():
        return {}
    epochs = np.fromfile(scratch / f"{name}.epochs", dtype=np.int32)
    arrays[f"{name}/epochs"] = epochs
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for scored_set in evaluation_graphs.scored_sets:
        like = arrays[f"{name}/{scored_set.column}/selected"]
        flat = np.fromfile(scratch / f"{name}.{scored_set.column}.pred", dtype=like.dtype)
        kept = evaluation_graphs.in_order(scored_set.column, flat.reshape(len(epochs), *like.shape), axis=1)
        values = np.array(
            [score(split_task.task.metric, rows, truth[scored_set.column]) for rows in kept], dtype=np.float64
        )
        curves[scored_set.column] = (epochs, values)
    if "prod" in SPLIT_FAMILIES[split_task.split.id].columns and PRODUCTION.keys() <= curves.keys():
        mixed = sum((weight * curves[column][1] for column, weight in PRODUCTION.items()), np.zeros(len(epochs)))
        curves["prod"] = (epochs, mixed)
    for column, (_, values) in curves.items():
        arrays[f"{name}/{column}/curve"] = values.astype(np.float32)
    return curves


def _audit(curve: tuple[np.ndarray, np.ndarray], selected: float) -> Audit:
    epochs, values = curve
    at = int(values.argmax())
    peak = max(float(values[at]), selected)
    return Audit(peak=peak, epoch=int(epochs[at]), gap=peak - selected, final=float(values[-1]))
