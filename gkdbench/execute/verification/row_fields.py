"""Fields of one row against each other and against its record."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from gkdbench.execute.verification.findings import Difference
from gkdbench.protocol.flatness import FLAT, is_flat
from gkdbench.records.schema import ModelResult, Record, Row


def row_differences(record: Record, row: Row) -> Iterator[Difference]:
    """What is odd about a row, whatever its status."""
    if (row.status == "ok") != bool(row.models):
        text = f"has status {row.status} and {len(row.models)} models"
        yield Difference("status", "ok" if row.models else "another", row.status, text)
    if row.status == "ok" and row.predictions_sha256 is None:
        yield Difference("predictions_sha256", "a hash", None, "has scores without predictions")
    if row.status != "ok" and row.predictions_sha256 is not None:
        text = f"has status {row.status} and predictions, which only rows that ended well have"
        yield Difference("predictions_sha256", None, row.predictions_sha256, text)
    if row.status == "ok" and not (row.phase is row.reason is row.traceback is None):
        text = "ended well and has the reason, the phase or the traceback of a failure"
        yield Difference("reason", None, row.reason, text)
    if record.protocol_version == 1 and row.looks is not None:
        yield Difference("looks", "none, as in protocol 1", row.looks)
    if row.provenance is not None and not 0 <= row.provenance < len(record.provenances):
        yield Difference("provenance", f"below {len(record.provenances)}", row.provenance)
    names = [model.name for model in row.models]
    if len(set(names)) != len(names):
        yield Difference("models", "each name once", names)
    flat = any(is_flat(model.train_ce_ratio) for model in row.models)
    if row.status == "ok" and flat != (FLAT in row.flags):
        got = f"{FLAT!r}" if FLAT in row.flags else f"no {FLAT!r}"
        yield Difference("flags", f"{FLAT!r}" if flat else f"no {FLAT!r}", got)
    yield from _command_differences(record, row)
    for model in row.models:
        yield from _model_differences(record, row, model)


def _command_differences(record: Record, row: Row) -> Iterator[Difference]:
    """The command of a cell names its index, its seed and its key."""
    try:
        words = shlex.split(row.command)
    except ValueError:
        words = []
    chosen = next((words[at + 1] for at, word in enumerate(words[:-1]) if word == "--only"), "")
    named = dict(part.partition("=")[::2] for part in chosen.split(","))
    known = {"index": str(row.index), "seed": str(row.seed), "key": record.key[:12]}
    known |= {"method": record.method, "dataset": record.dataset, "split": record.split}
    for name in ("index", "seed", "key"):
        if name not in named:
            yield Difference("command", f"one that names the cell's {name}", row.command)
            return
    for name, value in named.items():
        if known.get(name) != value:
            yield Difference("command", f"{name}={known.get(name)}", f"{name}={value}")


def _model_differences(record: Record, row: Row, model: ModelResult) -> Iterator[Difference]:
    of = f"models.{model.name}"
    if (model.hops is not None) != (model.needs == "graph"):
        yield Difference(f"{of}.hops", "a depth for models that read the graph, and for no other", model.hops)
    if model.parameters < 0:
        yield Difference(f"{of}.parameters", "0 or more", model.parameters)
    if model.macs is not None and model.macs < 0:
        yield Difference(f"{of}.macs", "0 or more", model.macs)
    if model.name == "ensemble":
        return
    if record.protocol_version > 1 and (model.train_ce_ratio is None or model.train_ce_ratio < 0):
        yield Difference(f"{of}.train_ce_ratio", "a number of 0 or more", model.train_ce_ratio)
    for name in ("train_ce_ratio", "val_loss") if record.protocol_version == 1 else ():
        if getattr(model, name) is not None:
            yield Difference(f"{of}.{name}", "none, as in protocol 1", getattr(model, name))
    if set(model.audit) != set(model.scores):
        yield Difference(f"{of}.audit", sorted(model.scores), sorted(model.audit))


def uneven_rows(record: Record) -> Iterator[tuple[Row, Difference]]:
    """Rows whose model of a name reads other inputs than that of most rows: one configuration reads the same ones."""
    return _uneven(record, ("needs", "hops"))


SIZED_BY_GRAPH = frozenset({"mlp_macs"})
"""Methods that choose the width of their model by the observed graph, so that splits differ in it."""


def uneven_sizes(record: Record) -> Iterator[tuple[Row, Difference]]:
    """Rows whose model of a name has other parameters or macs than in most rows of its split index: these depend on the
    configuration and the graph, never on the seed, in all methods of gkdbench. A method of another package may prune
    its model. Macs are counted in all rows or in none.
    """
    uncounted = Counter((model.name, model.macs is None) for row in record.rows for model in row.models)
    for row in record.rows:
        for model in row.models:
            if uncounted[model.name, model.macs is None] <= uncounted[model.name, model.macs is not None]:
                usual = "a number" if model.macs is None else "none"
                yield row, Difference(f"models.{model.name}.macs", f"{usual}, as in other rows", model.macs)
    yield from _uneven(record, ("parameters", "macs"), by_index=True)


def _uneven(record: Record, fields: tuple[str, ...], *, by_index: bool = False) -> Iterator[tuple[Row, Difference]]:
    for field in fields:
        seen: dict[tuple[str, int], list[tuple[Row, str]]] = {}
        for row in record.rows:
            for model in row.models:
                if (field, getattr(model, field)) != ("macs", None):
                    place = (model.name, row.index if by_index else 0)
                    seen.setdefault(place, []).append((row, str(getattr(model, field))))
        for (name, _), values in seen.items():
            usual = Counter(value for _, value in values).most_common(1)[0][0]
            for row, value in values:
                if value != usual:
                    yield row, Difference(f"models.{name}.{field}", f"{usual}, as in other rows", value)
