"""A record that agrees with itself and with its side-car, though no model ever predicted so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gkdbench.data.splits import SplitTask, prepare_named
from gkdbench.protocol.evaluation_graphs import make_evaluation_graphs
from gkdbench.protocol.scoring import arrays_sha256, selected_scores, truth_of
from gkdbench.records.schema import Audit, ModelResult, Record, Row
from gkdbench.records.sidecar import SidecarArrays, bytes_sha256, npz_bytes, read_npz, row_prefix
from gkdbench.records.store import load_record, record_bytes


def forge(path: Path) -> None:
    """Make the predictions of every row of the record at `path` the labels, and every number and hash that of them."""
    record = load_record(path)
    assert record.predictions is not None
    sidecar = path.with_name(record.predictions.path)
    arrays = read_npz(sidecar)
    rows = [_forged(record, row, arrays) for row in record.rows]
    data = npz_bytes(arrays)
    sidecar.write_bytes(data)
    described = record.predictions.model_copy(update={"sha256": bytes_sha256(data), "size_bytes": len(data)})
    path.write_bytes(record_bytes(record.model_copy(update={"rows": rows, "predictions": described})))


def _forged(record: Record, row: Row, arrays: SidecarArrays) -> Row:
    split_task = prepare_named(record.dataset, record.split, row.index)
    truth = truth_of(split_task, make_evaluation_graphs(split_task))
    prefix = row_prefix(row.index, row.seed)
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    models = [_forged_model(model, own, truth, split_task) for model in row.models]
    arrays.update({prefix + name: array for name, array in own.items()})
    return row.model_copy(update={"models": models, "predictions_sha256": arrays_sha256(own)})


def _forged_model(
    model: ModelResult, own: SidecarArrays, truth: dict[str, np.ndarray], split_task: SplitTask
) -> ModelResult:
    for column, labels in truth.items():
        like = own[f"{model.name}/{column}/selected"]
        own[f"{model.name}/{column}/selected"] = labels.astype(like.dtype)
    scores = selected_scores(split_task, own, model.name, truth)
    val = scores.pop("val")
    for column in ("val", *scores):
        curve = own.get(f"{model.name}/{column}/curve")
        if curve is not None:
            own[f"{model.name}/{column}/curve"] = np.ones_like(curve)
    losses = own.get(f"{model.name}/val/loss")
    epoch, val_loss = model.selected_epoch, model.val_loss
    if losses is not None:  # of equal scores, the first of the smallest losses' last is selected
        epoch = int(len(losses) - np.argmin(losses[::-1]))
        val_loss = float(losses[epoch - 1])
    best = {column: int(own[f"{model.name}/epochs"][0]) for column in model.audit}  # the first of equal ones
    audit = {column: Audit(peak=1.0, epoch=at, gap=0.0, final=1.0) for column, at in best.items()}
    changed = {"scores": scores, "val": val.value, "val_confusion": val.confusion, "audit": audit}
    return model.model_copy(update=changed | {"selected_epoch": epoch, "val_loss": val_loss})
