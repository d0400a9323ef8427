"""Cost beside accuracy: which measurement belongs to a row, and how its ratios are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gkdbench.records.canonical import canonical_json
from gkdbench.records.measurement import Comparable, InferenceCost, Measurement, TimedRatio, ratio_among
from gkdbench.records.schema import Record

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class RowCost:
    """What a row costs.

    Args:
        measurement: of its method, settings and data set, on its class of device.
        inference: of what the row deploys: one model, or the ensemble.
        other_revision: whether it was measured on another revision of the method or of a backbone.
        epochs: mean selected epoch over the row's runs; None: not known.
    """

    measurement: Measurement
    inference: InferenceCost | None
    other_revision: bool
    epochs: float | None = None

    def ratio(self, what: Comparable) -> TimedRatio | None:
        """Its time over that of the reference; None where there is none."""
        return ratio_among(self.measurement.training, self.inference, what)

    @property
    def marks(self) -> str:
        """What a reader must know of it, behind its numbers."""
        marks = ["other revision"] * self.other_revision + ["noisy"] * self.measurement.noisy
        return f" ({', '.join(marks)})" if marks else ""

    @property
    def seconds_to_selected(self) -> float | None:
        """Setup, and the selected epoch's number of epochs at the measured time each; on the measured device."""
        training = self.measurement.training
        if training is None or training.epoch is None or self.epochs is None:
            return None
        return training.setup_s + self.epochs * training.epoch.ours_s


class CostIndex:
    """Measurements by what a row must share with them: method, resolved settings, data set, device class.

    Split, teacher, revision and version of the protocol are not among these: what a forward pass takes depends on none
    of them. A row whose revision differs is marked.
    """

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._found: dict[tuple[str, str, str, str], Measurement] = {}
        for one in measurements:
            if one.status == "ok":
                self._found.setdefault(_place(one.method, one.config, one.dataset, one.device), one)

    def of(self, record: Record, *, ensemble: bool) -> RowCost | None:
        """The cost of a row of `record`; None: it was not measured."""
        found = self._found.get(_place(record.method, record.config, record.dataset, record.device))
        if found is None:
            return None
        selected = [model.selected_epoch for row in record.rows for model in row.models if model.name != "ensemble"]
        return RowCost(
            measurement=found,
            inference=found.ensemble if ensemble else found.inference,
            other_revision=found.revisions != record.revisions,
            epochs=sum(selected) / len(selected) if selected else None,
        )


def _place(method: str, config: Mapping[str, object], dataset: str, device: str) -> tuple[str, str, str, str]:
    return method, canonical_json(config), dataset, device


def ratio_text(found: TimedRatio | None) -> str:
    """``"1.31x [1.27, 1.36]"``; ``"–"`` without one."""
    if found is None:
        return "–"
    return f"{_figure(found.value)}x [{_figure(found.low)}, {_figure(found.high)}]"


def cost_text(cost: RowCost | None, what: Comparable) -> str:
    """One ratio of a row, with its marks, or that it was not measured."""
    return NOT_MEASURED if cost is None else ratio_text(cost.ratio(what)) + cost.marks


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def cost_fields(cost: RowCost | None) -> dict[str, object]:
    """The columns of the CSV file; empty where nothing was measured. Absolute times go with the name of the device."""
    if cost is None:
        return {}
    training, inference = cost.measurement.training, cost.inference
    query = inference.query if inference else None
    found: dict[str, object] = {"device": cost.measurement.device, "cost_marks": cost.marks.strip(" ()")}
    kinds: dict[str, Comparable] = {"inference": "inference", "latency": "latency", "epoch": "training"}
    for name, kind in kinds.items():
        one = cost.ratio(kind)
        if one is not None:
            found |= {f"{name}_ratio": one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    if inference is not None:
        found |= {"prepare_s": inference.prepare_s, "items_per_s": inference.items_per_s}
        found |= {"inference_peak_bytes": inference.peak_bytes or None}
    if query is not None:
        found |= {"latency_p50_s": query.p50_s, "latency_p90_s": query.p90_s}
    if training is not None:
        found |= {"training_peak_bytes": training.peak_bytes, "seconds_to_selected": cost.seconds_to_selected}
        found |= {"epoch_s": training.epoch.ours_s if training.epoch else None}
    return found
