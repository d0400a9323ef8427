"""What is stored of a measurement: the cost of one configuration on one data set, on one class of device.

A file of its own kind (``cost/<device>/<dataset>/<method>-<key>.cost.json``): no reader of accuracy records opens it.
Times are seconds, sizes bytes. Every time was taken in turns with a reference of the same process, so that the ratio
comes again on another day; the absolute time does not, and is shown only under the name of its device.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from gkdbench.errors import UserError, invalid
from gkdbench.records.canonical import sha256_json
from gkdbench.records.files import files_below, write_atomically
from gkdbench.records.schema import DataInfo, Needs, Provenance, Strict, volatile
from gkdbench.safe_files import inside, read_json, safe_name

MEASUREMENT_VERSION = 1
"""Raised when what is timed, or how, changes: part of every key."""
SUFFIX = ".cost.json"
FOLDER = "cost"
"""Folder of measurements inside a folder of records."""
Comparable = Literal["training", "inference", "latency"]
"""What a ratio compares: an epoch of training, a call for all items, a query for one item."""


class TimedRatio(Strict):
    """A time over that of the reference, both taken in turns in one process.

    Attributes:
        value: median over median; low, high: its 95% interval (bootstrap over rounds).
        n: rounds.
        ours_s, reference_s: the two medians, of this machine only.
        histogram: [edges in s, counts] of our samples, on a logarithmic scale.
    """

    value: float
    low: float
    high: float
    n: int
    ours_s: float
    reference_s: float
    histogram: tuple[list[float], list[int]] = ([], [])


class TrainingCost(Strict):
    """Training in the stage in which the deployed model is selected.

    Attributes:
        epoch: seconds of one epoch against one epoch of the reference; None: fewer than two epochs were measured.
        items: items that training sees in an epoch (nodes of the observed graph, or training graphs).
        setup_s: from the beginning of ``fit`` to the first epoch: encodings, teachers' outputs, walks.
        earlier_epoch_s: of one epoch of the stage before (pretraining of a router); None: there is none.
        peak_bytes: highest memory of the process during an epoch, above what was there before ``fit``.
        loss_terms: names of the terms that were active.
    """

    epoch: TimedRatio | None
    items: int
    setup_s: float
    earlier_epoch_s: float | None = None
    peak_bytes: int | None = None
    loss_terms: tuple[str, ...] = ()

    @property
    def items_per_s(self) -> float | None:
        """Training items a second."""
        return self.items / self.epoch.ours_s if self.epoch and self.epoch.ours_s else None


class BatchCost(Strict):
    """Answers in batches of one size.

    Attributes:
        items: a call (the last one of a pass may have fewer).
        call: seconds of a call against the same call of the reference.
        p50_s, p90_s: upper bounds of the percentiles; None: too few samples.
        p90_missing: samples that are missing for p90.
        by: how a query that needs the graph is answered: from the whole graph, or from the nodes around the item.
    """

    items: int
    call: TimedRatio
    p50_s: float | None = None
    p90_s: float | None = None
    p90_missing: int = 0
    by: Literal["features", "whole graph", "neighbourhood"] = "features"


class InferenceCost(Strict):
    """Answers of the deployed model.

    Attributes:
        everything: all items in one call; batch: 1,024 a call; query: one item a call.
        prepare_s, prepared_bytes: what is made before the first answer (encodings, propagated features).
        first_call_s: the first answer after that: what a model makes on its first call shows here.
        peak_bytes: highest sum of what one call for all items allocates; 0 in older files: not measured.
    """

    everything: BatchCost
    batch: BatchCost | None = None
    query: BatchCost | None = None
    prepare_s: float = 0.0
    prepared_bytes: int = 0
    first_call_s: float = 0.0
    peak_bytes: int | None = None

    @property
    def items_per_s(self) -> float:
        """Answers a second, all items in one call."""
        return self.everything.items / self.everything.call.ours_s


class Measurement(Strict):
    """One file: a configuration, where it was measured, and what it costs."""

    schema_version: int = MEASUREMENT_VERSION
    key: str
    method: str
    label: str
    config: dict[str, Any]
    revisions: dict[str, int]
    dataset: str
    data: DataInfo
    split: str
    setting: str
    index: int
    seed: int
    device: str
    threads: int
    reference: str  # of inference, "MLP 2x128"
    training_reference: str  # "GCN 2x64"
    status: Literal["ok", "error", "timeout", "oom", "nan"]
    reason: str | None = None
    training: TrainingCost | None = None
    inference: InferenceCost | None = None  # of one model
    ensemble: InferenceCost | None = None  # of all models together, where their mean answers too
    needs: Needs | None = None
    hops: int | None = None
    parameters: int | None = None
    macs: int | None = None
    models: int = 1  # that the run trains
    energy_j: float | None = None  # of the whole measurement; None: not readable
    flags: tuple[str, ...] = ()  # "noisy: ..."
    provenance: Provenance | None = volatile()
    finished: str | None = volatile()

    @property
    def noisy(self) -> bool:
        """Whether the machine was busy or throttled meanwhile."""
        return any(flag.startswith("noisy") for flag in self.flags)

    @property
    def path(self) -> Path:
        """Relative to the folder of records."""
        return _place(self.device, self.dataset, self.method, self.key)


def ratio_of(found: Measurement, what: Comparable) -> TimedRatio | None:
    """The ratio to the reference of one number of `found`, of one model; None where there is none."""
    return ratio_among(found.training, found.inference, what)


def ratio_among(training: TrainingCost | None, answers: InferenceCost | None, what: Comparable) -> TimedRatio | None:
    """As `ratio_of`, from the training and the answers that a row has."""
    if what == "training":
        return training.epoch if training else None
    if answers is None or what == "inference":
        return answers.everything.call if answers else None
    return answers.query.call if answers.query else None


@dataclass(frozen=True, slots=True)
class MeasurementIdentity:
    """Everything that a measurement depends on.

    Args:
        index, seed: the run whose split and draws were used.
        what: what is measured.
    """

    method: str
    config: dict[str, Any]
    revisions: dict[str, int]
    dataset: str
    data_sha256: str
    split: str
    device: str
    threads: int
    index: int = 0
    seed: int = 0
    what: tuple[Comparable, ...] = ("training", "inference", "latency")
    version: int = field(default=MEASUREMENT_VERSION)

    @property
    def key(self) -> str:
        """64 hex digits."""
        return sha256_json({name: getattr(self, name) for name in self.__slots__})


def place_of(identity: MeasurementIdentity) -> Path:
    """Where the record of `identity` lies, relative to the folder of records."""
    return _place(identity.device, identity.dataset, identity.method, identity.key)


def _place(device: str, dataset: str, method: str, key: str) -> Path:
    named = {"device": device, "dataset": dataset}
    parts = [safe_name(text.replace("/", "~"), what) for what, text in named.items()]
    return Path(FOLDER, *parts, f"{safe_name(method, 'method')}-{safe_name(key, 'key')[:12]}{SUFFIX}")


def measurement_paths(folder: Path) -> list[Path]:
    """Files of measurements below `folder`; hidden folders are not entered."""
    return sorted(path for path in files_below(folder, ".json") if path.name.endswith(SUFFIX))


def load_measurement(path: Path) -> Measurement:
    """The measurement in a file.

    Raises:
        UserError: names the file and what is wrong with it.
        FileNotFoundError: it is gone.
    """
    try:
        found = Measurement.model_validate(read_json(path, links=False))
        _ = found.path
        return found
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is not a valid measurement: {invalid(where, first['input'], first['msg'])}") from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a valid measurement: {error}; measure it again, or remove the file") from None


def write_measurement(out: Path, found: Measurement) -> Path:
    """Write `found` to its place below `out`; the file is complete or not there."""
    path = inside(out, found.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())
    return path
