"""Checks of a downloaded file whose sha256 is not a registered one: it is not kept unless its content can be what the
catalogue documents."""

from __future__ import annotations

from pathlib import Path

from gkdbench.data.catalogue import DatasetInfo, FileInfo
from gkdbench.data.rawfiles import CorruptData, text_bytes
from gkdbench.safe_arrays import npz_names
from gkdbench.safe_files import read_json

# end of a file's name -> the documented size that its lines count
EXACT_LINES = {
    "node-feat.csv.gz": "nodes", "node-label.csv.gz": "nodes", "graph-label.csv.gz": "graphs",
    "_graph_indicator.txt": "nodes", "_graph_labels.txt": "graphs", "_node_labels.txt": "nodes",
}  # fmt: skip
EDGE_LINES = ("/edge.csv.gz", "/edge-feat.csv.gz", "_A.txt", "_edge_labels.txt")
"""One line an edge: of each direction or of one, with or without repeats; at least a quarter of the documented ones."""


def check_arrived(info: DatasetInfo, file: FileInfo, arrived: Path) -> None:
    """Refuse content that cannot be `file` of `info`; `arrived` ends as the file's name does.

    Raises:
        CorruptData: empty, truncated, unpacks to more than a set of this size has, no numbers where numbers belong, or
            another number of lines than documented.
    """
    if arrived.stat().st_size == 0:
        raise CorruptData(f"{file.path}: expected content, got an empty file")
    try:
        if file.path.endswith((".csv.gz", ".txt", ".index")):
            _check_lines(info, file, arrived)
        elif file.path.endswith(".npz"):
            npz_names(arrived)
        elif file.path.endswith(".json"):
            read_json(arrived, text_bytes(info))
    except CorruptData:
        raise
    except (OSError, ValueError) as error:
        raise CorruptData(f"{file.path}: expected readable content, got: {error}") from None


def _check_lines(info: DatasetInfo, file: FileInfo, arrived: Path) -> None:
    from gkdbench.data.decode import unpacked_lines

    first, count = unpacked_lines(arrived, text_bytes(info))
    if not _numbers(first) and not file.path.startswith("WebKB"):  # geom-gcn's files begin with a line of names
        raise CorruptData(f"{file.path}, line 1: expected numbers, got {first!r:.60}")
    sizes = [size for end, size in EXACT_LINES.items() if file.path.endswith(end)]
    wanted = info.stats.get(sizes[0], 0) if sizes else 0
    least = info.stats.get("edges", 0) // 4 if file.path.endswith(EDGE_LINES) else 0
    if (wanted and count != wanted) or count < max(least, 1):
        raise CorruptData(f"{file.path}: expected {wanted or f'{least} or more'} lines, got {count}")


def _numbers(line: str) -> bool:
    try:
        return [float(field or "nan") for field in line.replace(",", " ").split(" ")] != []
    except ValueError:
        return False
