"""The key of a group and of a cell: what was computed, never where or when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gkdbench.records.canonical import sha256_json
from gkdbench.records.schema import PROTOCOL_VERSION, SELECTION, Record


@dataclass(frozen=True, slots=True)
class GroupIdentity:
    """Everything that a group's numbers depend on, apart from split index and seed (docs/design.md, decision 2).

    Args:
        method: registered name.
        config: the resolved configuration (every field, variant included).
        revisions: declared revision of the method and of each backbone it uses, by name.
        dataset, data_sha256: canonical name, content hash of the prepared data.
        preprocessing: the split family's preprocessing.
        split, setting: split id, and what training may see.
        teachers: role -> group key of the teacher.
        device: device class.
        audit_every: epochs between audited predictions.
        tuning: how the settings were found: nothing for published ones, `TRIAL`, or a search (space, trials, seeds).
        sweeps: kind of corruption -> levels at which the selected models are tried after training.
        selection: rule of selection; other ones than the protocol's are for studies.
        protocol_version: of the rules that made the numbers.
    """

    method: str
    config: dict[str, Any]
    revisions: dict[str, int]
    dataset: str
    data_sha256: str
    preprocessing: dict[str, Any]
    split: str
    setting: str
    teachers: dict[str, str]
    device: str
    audit_every: int = 1
    tuning: dict[str, Any] = field(default_factory=dict)
    sweeps: dict[str, list[float]] = field(default_factory=dict)
    selection: str = SELECTION
    protocol_version: int = PROTOCOL_VERSION

    @property
    def key(self) -> str:
        """64 hex digits. `tuning` and `sweeps` are left out where they are empty, `selection` where it is the
        protocol's own, so that keys stay what they were before these fields existed."""
        off = {name for name in ("tuning", "sweeps") if not getattr(self, name)}
        if self.protocol_version == 1 or self.selection == SELECTION:
            off.add("selection")
        return sha256_json({name: getattr(self, name) for name in self.__slots__ if name not in off})


def identity_of(record: Record) -> GroupIdentity:
    """What a record says that its key covers."""
    return GroupIdentity(
        method=record.method,
        config=record.config,
        revisions=record.revisions,
        dataset=record.dataset,
        data_sha256=record.data.sha256,
        preprocessing=dict(record.data.preprocessing),
        split=record.split,
        setting=record.setting,
        teachers={role: teacher.key for role, teacher in record.teachers.items()},
        device=record.device,
        audit_every=record.audit_every,
        tuning=record.tuning,
        sweeps=record.sweeps,
        selection=record.selection,
        protocol_version=record.protocol_version,
    )


TRIAL: dict[str, Any] = {"trial": True}
"""`GroupIdentity.tuning` of a group that only serves to choose settings."""
TUNING_SEEDS = (100, 101, 102)
"""Runs that settings are chosen on; no table counts them (docs/protocol.md, section 3)."""
MEMBER_STRIDE = 1000
"""Seeds of a suite lie below; run s + 1000 m is the m-th further model of run s, for best-of-K and ensembles."""


def member_seed(seed: int, member: int) -> int:
    """The training seed of the `member`-th model (from 0, the run itself) of run `seed`."""
    return base_seed(seed) + MEMBER_STRIDE * member


def reported(seed: int) -> bool:
    """Whether a run with this training seed counts in tables: neither a tuning run nor a further model of a run."""
    return seed < MEMBER_STRIDE and seed not in TUNING_SEEDS


def base_seed(seed: int) -> int:
    """The seed of the run that a training seed belongs to."""
    return seed % MEMBER_STRIDE


def cell_key(group_key: str, index: int, seed: int) -> str:
    """The key of one run of a group."""
    return sha256_json([group_key, index, seed])
