"""Equality of two stores: the same files, the same content but for volatile fields, the same side-car bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gkdbench.records.canonical import stable
from gkdbench.records.store import Store


def contents(out: Path) -> dict[str, Any]:
    """Relative path -> stable content of every record, and the bytes of every side-car."""
    records = {str(path.relative_to(out)): stable(record) for path, record in Store(out).records()}
    sidecars = {str(path.relative_to(out)): path.read_bytes() for path in visible(out, "*.npz")}
    return records | sidecars


def visible(out: Path, pattern: str) -> list[Path]:
    """Files of the published part of a store."""
    return [path for path in out.rglob(pattern) if not any(p.startswith(".") for p in path.relative_to(out).parts)]


def leftovers(out: Path) -> list[str]:
    """What must not remain after a complete run: locks, temporary files, cells that were not collected, scratch."""
    found = [path for pattern in ("*.lock", ".tmp~*", ".*.[0-9]*") for path in out.rglob(pattern)]
    found += [path for path in (out / ".cells").rglob("*") if path.name != ".guard"]
    found += list((out / ".scratch").rglob("*"))
    return sorted({str(path.relative_to(out)) for path in found})
