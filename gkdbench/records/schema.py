"""What is stored: one Record per group (a configuration on one data set, split id and setting), one Row per run.

Scores lie in [0, 1]; units are suffixes (``_s``, ``_bytes``); multiply-adds are ``macs``. Fields marked
volatile differ from run to run (times, memory, host) and are left out of every equality.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gkdbench.controls import Control
from gkdbench.records.old_controls import old_control

SCHEMA_VERSION = 2
PROTOCOL_VERSION = 2
"""Raised when selection, scoring or a split changes: part of every key, so that old and new never mix.

1: the first of equal validation scores is selected. 2: the one with the smaller validation loss (docs/protocol.md,
section 4.1), and items are renumbered before a method sees them (section 3).
"""
SELECTION = "loss"
"""The rule of selection of this protocol version, see `gkdbench.protocol.selection`."""

Status = Literal["ok", "oom", "nan", "timeout", "error", "skipped"]
Phase = Literal["prepare", "fit", "predict", "select", "score"]
Needs = Literal["features", "features+encodings", "graph"]
"""What a model reads at inference: a node's own features, encodings computed before, or the graph."""
InputKind = Literal["clean", "feature_noise", "edge_drop"]
"""What is done to the inputs of a sweep, see `gkdbench.protocol.corruption`."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NOTES = 1000
"""A row holds so many flags, and so many numbers of a method's own, at most."""
Said = Annotated[str, Field(max_length=1000)]
"""A flag, or the name of a diagnostic: a method decides what it says, a record how much of it there can be."""


def volatile(default: Any = None) -> Any:
    """A field that differs from run to run; `gkdbench.records.canonical` drops it before comparing."""
    return Field(default=default, json_schema_extra={"volatile": True})


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TomlModel(Strict):
    """What people write in TOML: also refuses a value of another type (``"3"`` is no integer)."""

    model_config = ConfigDict(strict=True)


class Score(Strict):
    """One test score. `confusion` (row-major [C, C], true x predicted) pins every single prediction's effect;
    None where the metric ranks scores."""

    value: Fraction
    n: int
    confusion: list[int] | None = None


class Audit(Strict):
    """What the "best test epoch" rule would have reported; never sorted on, never bold (protocol.md, section 4.2)."""

    peak: Fraction
    epoch: int
    gap: float  # peak - selected
    final: Fraction  # score of the last epoch: a late divergence cannot hide behind an early best (protocol trap 33)


class ModelResult(Strict):
    """One deployable model of a run: the student, a peer, or the peers' ensemble."""

    name: str
    needs: Needs
    hops: int | None = None  # message-passing depth at inference, when needs == "graph"
    selected_epoch: int
    val: Fraction
    val_loss: float | None = None  # mean cross-entropy on the validation items; None: protocol 1
    val_confusion: list[int] | None = None
    train_ce_ratio: float | None = None  # cross-entropy on the training items, over log C; None: protocol 1, ensembles
    scores: dict[str, Score]  # reported setting ("tran", "ind", "prod", "coldstart", "graph") -> score
    audit: dict[str, Audit]
    parameters: int
    macs: int | None  # multiply-adds of one inference over all items, divided by the items; None: not counted
    weights_sha256: str  # of the selected weights


class CorruptedResult(Strict):
    """The selected models of a run on inputs that were corrupted after training; names of models -> setting -> value.

    Calibration errors are those of confidences rounded to float16, as the side-car keeps them.
    """

    kind: InputKind
    level: Fraction
    scores: dict[str, dict[str, Fraction]]
    ece: dict[str, dict[str, Fraction]] = {}  # expected calibration error, 15 bins; tasks of one class an item
    disagreement: dict[str, dict[str, Fraction]] = {}  # "peer0-peer1": share of answers in which the two differ


class Row(Strict):
    """One run: (split index, seed)."""

    index: int
    seed: int
    status: Status
    phase: Phase | None = None  # where a failure happened
    reason: str | None = None
    traceback: str | None = volatile()
    command: str  # repeats exactly this cell
    split_sha256: str
    teachers: dict[str, str] = {}  # role -> weights_sha256 of the teacher used
    epochs: int = 0  # epochs that were reported to the monitor
    looks: int | None = None  # evaluations of a predictor on the validation items; None: protocol 1
    models: list[ModelResult] = []
    sweeps: list[CorruptedResult] = []  # written where the record has sweeps
    flags: Annotated[list[Said], Field(max_length=NOTES)] = []  # e.g. "collapsed", "loss spike"
    extra: Annotated[dict[Said, float], Field(max_length=NOTES)] = {}  # a method's own diagnostics
    predictions_sha256: str | None = None  # of this row's arrays inside the side-car
    train_s: float | None = volatile()
    train_j: float | None = volatile()  # of all processors (and the GPU) in that time; absent where not readable
    peak_memory_bytes: int | None = volatile()
    host: str | None = volatile()
    pid: int | None = volatile()
    finished: str | None = volatile()  # ISO 8601, UTC
    provenance: int | None = volatile()  # which of the record's `provenances`


class DataInfo(Strict):
    """Which data: a board must never average over different contents."""

    name: str
    sha256: str
    preprocessing: dict[str, bool | str]
    nodes: int
    edges: int  # directed, as prepared (self-loops included when preprocessing says so)
    features: int
    classes: int
    graphs: int = 1
    metric: str = "accuracy"
    note: str = ""


class TeacherInfo(Strict):
    """A required cell: its group key and what it is, so that "same teacher" is checked and not believed."""

    key: str
    method: str
    label: str  # e.g. "SAGE 2x128"
    config: dict[str, Any]


class Predictions(Strict):
    """The side-car next to the record, and its sha256. ``kept=False``: above the size cap there is no file; the hash
    is that of the canonical JSON of [index, seed, predictions_sha256] per row, and each row's command makes its
    arrays again."""

    path: str
    sha256: str
    size_bytes: int
    kept: bool = True


class Provenance(Strict):
    """Where numbers came from. All of it may differ between equal runs."""

    gkdbench: str = ""
    git_commit: str | None = None
    git_dirty: bool | None = None
    method_source_sha256: str = ""
    python: str = ""
    torch: str = ""
    triton: str | None = None
    numpy: str = ""
    platform: str = ""
    cpu: str = ""
    cpu_flags: list[str] = []  # instruction sets that libraries choose their arithmetic by; written where known
    gpu: str | None = None
    cuda: str | None = None
    driver: str | None = None
    allocator: dict[str, str] = {}  # MALLOC_* of the worker
    argv: list[str] = []


def _old_control(fields: dict[str, Any]) -> Control | None:
    return old_control(fields.get("method", ""), fields.get("config", {}))


class Record(Strict):
    """One JSON file of the store: a group of runs."""

    schema_version: int = SCHEMA_VERSION
    protocol_version: int = PROTOCOL_VERSION
    key: str  # sha256 of the resolved group, see gkdbench.records.key
    method: str
    label: str  # what tables print, e.g. "GLNN", "GCN 2x16 (Kipf 2017)"
    variant: Literal["corrected", "as_released"]
    tier: Literal["published", "tuned"]
    trials: int = 0
    tuning: dict[str, Any] = {}  # see `gkdbench.records.key.GroupIdentity`
    revision: int
    revisions: dict[str, int] = {}  # of the method and of every backbone it uses: part of the key
    config: dict[str, Any]
    control: Control | None = Field(default_factory=_old_control)  # None: no control; older files do not hold it
    dataset: str
    split: str
    setting: Literal["tran", "ind", "graph"]  # what training may see
    columns: list[str]  # reported settings
    data: DataInfo
    teachers: dict[str, TeacherInfo] = {}
    device: str  # device class: "cpu" or the GPU's name
    threads: int
    audit_every: int = 1
    selection: str = SELECTION  # rule of selection, part of the key; other ones than the protocol's are for studies
    audit_only: bool = False  # validation is the test part on purpose: no score of it is a result
    sweeps: dict[str, list[float]] = {}  # kind -> levels at which the selected models were tried; written if there
    determinism: Literal["off", "seeded", "strict"] = "seeded"
    rows: list[Row]
    predictions: Predictions | None = None
    provenances: list[Provenance] = volatile([])  # each once; a row says which is its own

    def provenance_of(self, row: Row) -> Provenance:
        """Where the numbers of `row`, one of this record's, come from; empty where that is not known."""
        known = row.provenance is not None and row.provenance < len(self.provenances)
        return self.provenances[row.provenance] if known and row.provenance is not None else Provenance()
