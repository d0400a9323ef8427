"""Names of records whose methods have the same label: the settings in which they differ are added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gkdbench.records.canonical import canonical_json
from gkdbench.records.schema import Record


def distinct_labels(records: Sequence[Record]) -> dict[str, str]:
    """Key -> label, no two alike.

    Of records with one label, each names the settings in which it is not as more than half of them; where that still
    leaves two alike, they get the first digits of their keys.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.label, []).append(record)
    named = {r.key: label for twins in groups.values() for r, label in zip(twins, _told_apart(twins), strict=True)}
    count = Counter(named.values())
    return {key: f"{label} [{key[:6]}]" if count[label] > 1 else label for key, label in named.items()}


def _told_apart(twins: Sequence[Record]) -> list[str]:
    if len(twins) == 1:
        return [twins[0].label]
    configs = [_flat(record.config) for record in twins]
    names = list(dict.fromkeys(name for config in configs for name in config))
    usual = {name: _usual([config.get(name, "") for config in configs]) for name in names}
    added = [
        [f"{name.replace('_', ' ')} {value}" for name, value in c.items() if usual[name] != value] for c in configs
    ]
    return [", ".join([record.label, *settings]) for record, settings in zip(twins, added, strict=True)]


def _usual(values: Sequence[str]) -> str | None:
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted name -> value as text; a backbone's settings go by their own names."""
    found: dict[str, str] = {}
    for name, value in config.items():
        place = prefix + name
        if isinstance(value, Mapping):
            found |= _flat(value, "" if name == "model" else f"{place}.")
        else:
            found[place] = value if isinstance(value, str) else canonical_json(value)
    return found
