"""OGB's comma-separated tables of official splits."""

from __future__ import annotations

from gkdbench.data.build import MAX_IDS, NumpyArray
from gkdbench.data.decode import in_range, table
from gkdbench.data.rawfiles import RawFiles

OFFICIAL_PARTS = {"train": "train", "val": "valid", "test": "test"}


def official_split(raw: RawFiles, family: str, items: int = MAX_IDS) -> dict[str, NumpyArray]:
    """``<family>/0/<part>`` -> [M] int64 ids below `items`, from the ``split/<rule>/<part>.csv.gz`` files."""
    found = {}
    for part, name in OFFICIAL_PARTS.items():
        path = raw.ending(f"/{name}.csv.gz")
        ids = table(path, limit=raw.text_bytes).ravel()
        found[f"{family}/0/{part}"] = in_range(path, ids, 0, items, "id of an item", limit=raw.text_bytes)
    return found
