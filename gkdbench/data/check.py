"""The results of ``gkdbench data list|check|fetch`` as plain data; torch is imported only for decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gkdbench.data import rawfiles
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.datasets import DATASETS, dataset_info, load_task
from gkdbench.data.fetch import fetch, fetch_instructions, unverified

__all__ = ["DatasetRow", "FileStatus", "check_dataset", "fetch", "fetch_instructions", "list_datasets", "unverified"]

FileState = Literal["ok", "missing", "corrupt", "unregistered"]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One line of ``gkdbench data list``.

    Args:
        available: built in, or all needed files are present (not yet verified).
        found, needed: number of raw files present, and required.
    """

    info: DatasetInfo
    available: bool
    found: int
    needed: int


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One raw file of ``gkdbench data check``, or the decoded content as a whole (path ``"content"``).

    Args:
        status: "unregistered": present, and no digest is known to compare with.
        detail: the digest, or what is wrong.
    """

    path: str
    status: FileState
    detail: str


def list_datasets(data: Path | str | None = None) -> list[DatasetRow]:
    """All registered sets, sorted by name, with what is present under `data` or ``$GKDBENCH_DATA``."""
    folder = rawfiles.data_folder(data)
    rows = []
    for name in DATASETS.names():
        info = dataset_info(name)
        needed = sum(not file.optional for file in info.files)
        missing = len(rawfiles.missing_files(info, folder))
        rows.append(DatasetRow(info, missing == 0, needed - missing, needed))
    return rows


def check_dataset(name: str, *, data: Path | str | None = None, decode: bool = False) -> list[FileStatus]:
    """Verify every raw file of `name`; built-in sets have none.

    Args:
        decode: also read the set and compare its content hash with the registered one.

    Raises:
        UnknownName: no such set.
    """
    info = dataset_info(name)
    folder = rawfiles.data_folder(data)
    absent = set(rawfiles.missing_files(info, folder))
    found = [
        FileStatus(path, "missing", f"not in {folder or 'any folder: GKDBENCH_DATA is not set'}") for path in absent
    ]
    for file in info.files:
        if folder is None or not (folder / file.path).is_file():
            continue
        try:
            digest = rawfiles.verify(folder, file)
            found.append(FileStatus(file.path, "ok" if digest in file.sha256 else "unregistered", digest))
        except rawfiles.CorruptData as error:
            found.append(FileStatus(file.path, "corrupt", str(error)))
    if decode and not any(file.status in ("missing", "corrupt") for file in found):
        found.append(_content(info, data))
    return sorted(found, key=lambda file: (file.path == "content", file.path))


def _content(info: DatasetInfo, data: Path | str | None) -> FileStatus:
    try:
        digest = load_task(info.name, data=data).content_hash
    except rawfiles.CorruptData as error:
        return FileStatus("content", "corrupt", str(error))
    return FileStatus("content", "ok" if digest == info.content_hash else "unregistered", digest)
