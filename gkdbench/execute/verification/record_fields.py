"""Fields of a record against each other, its key, its split family and its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gkdbench.data.families import SPLIT_FAMILIES
from gkdbench.execute.verification.findings import Difference
from gkdbench.records.key import identity_of
from gkdbench.records.schema import PROTOCOL_VERSION, Record
from gkdbench.records.store import GroupAddress

PROTOCOLS = range(1, PROTOCOL_VERSION + 1)
"""Protocol versions whose keys and rules are known."""


def record_differences(path: Path, record: Record) -> Iterator[Difference]:
    """Everything that needs neither data nor side-car nor other records."""
    if record.protocol_version not in PROTOCOLS:
        known = ", ".join(map(str, PROTOCOLS))
        text = f"protocol_version: expected one of {known}, got {record.protocol_version}; update gkdbench"
        yield Difference("protocol_version", known, record.protocol_version, text)
    if identity_of(record).key != record.key:
        own = identity_of(record).key
        text = f"key {record.key[:12]} is not that of its own fields ({own[:12]})"
        yield Difference("key", own, record.key, text)
    if record.protocol_version == 1 and record.selection != "first":  # the keys of protocol 1 do not cover it
        text = f"selection: expected first, the rule of protocol 1, got {record.selection}"
        yield Difference("selection", "first", record.selection, text)
    if record.revisions.get(record.method) != record.revision:
        text = f"revision {record.revision} is not the one that its key covers"
        yield Difference("revision", record.revisions.get(record.method), record.revision, text)
    if record.determinism != "seeded":
        yield Difference("determinism", "seeded, as all cells are trained", record.determinism)
    if path.name != GroupAddress.of(record).path.name:
        text = f"file name: expected {GroupAddress.of(record).path.name}, got {path.name}"
        yield Difference("file name", GroupAddress.of(record).path.name, path.name, text)
    yield from _family_differences(record)
    yield from _settings_differences(record)
    yield from _sides_differences(record)


def _family_differences(record: Record) -> Iterator[Difference]:
    family = SPLIT_FAMILIES.get(record.split)
    if family is None:
        yield Difference("split", "a known split", record.split)
        return
    if family.audit_only != record.audit_only:
        text = f"audit_only: expected {family.audit_only} on {record.split}, got {record.audit_only}"
        yield Difference("audit_only", family.audit_only, record.audit_only, text)
    if family.setting != record.setting:
        yield Difference("setting", family.setting, record.setting)
    if list(family.columns) != record.columns:
        yield Difference("columns", list(family.columns), record.columns)
    if dict(family.preprocessing) != dict(record.data.preprocessing):
        yield Difference("data.preprocessing", dict(family.preprocessing), dict(record.data.preprocessing))


def _settings_differences(record: Record) -> Iterator[Difference]:
    """What the key covers and a field of its own repeats."""
    variant = record.config.get("variant", record.variant)
    if variant != record.variant:
        yield Difference("variant", variant, record.variant)
    tier = "tuned" if record.tuning else "published"
    if tier != record.tier:
        yield Difference("tier", tier, record.tier)
    trials = record.tuning.get("trials", 0)
    if trials != record.trials:
        yield Difference("trials", trials, record.trials)
    if record.data.name != record.dataset:
        yield Difference("data.name", record.dataset, record.data.name)


def _sides_differences(record: Record) -> Iterator[Difference]:
    """Rows, and the models of different rows, against each other."""
    at = [(row.index, row.seed) for row in record.rows]
    if at != sorted(set(at)):
        text = "rows are not sorted by (index, seed), or one is there twice"
        yield Difference("rows", sorted(set(at)), at, text)
