"""Rows that an earlier version of a method's source made: found, so that they are not taken for those of today."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from gkdbench.execute.cell import Cell
from gkdbench.execute.provenance import source_sha256
from gkdbench.records.store import Store


def changed_line(methods: Sequence[str]) -> str:
    """What a user reads of `methods`, the result of `changed_methods`."""
    return f"the source of {', '.join(methods)} changed since these rows: raise `revision`, or --rerun"


def changed_methods(cells: Iterable[Cell], store: Store) -> list[str]:
    """Names of the methods of stored `cells` whose file differs from the one that made the rows, sorted.

    Compared is the file of the method's class alone, with every row of each record. Records that git tracks are
    published results: they are compared with nothing.
    """
    records: dict[str, list[Path]] = defaultdict(list)
    for group in {cell.group for cell in cells}:
        record = store.group(group.address)
        stored = {record.provenance_of(row).method_source_sha256 for row in record.rows} - {""} if record else set()
        if stored - {source_sha256(type(group.method))}:
            records[group.identity.method].append(store.out / group.address.path)
    tracked = _tracked([path for paths in records.values() for path in paths])
    return sorted(name for name, paths in records.items() if not tracked.issuperset(path.resolve() for path in paths))


def _tracked(paths: Sequence[Path]) -> set[Path]:
    """Those of `paths`, all below one folder of records, that git tracks; all of them where a checkout has no git."""
    resolved = [path.resolve() for path in paths]
    root = next((above for path in resolved[:1] for above in path.parents if (above / ".git").exists()), None)
    if root is None:
        return set()
    words = [
        "git",
        "--literal-pathspecs",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "--",
        *(str(path.relative_to(root)) for path in resolved),
    ]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return set(resolved)  # unknown: published results get no such line
    return {root / name for name in found.stdout.split("\0") if name}
