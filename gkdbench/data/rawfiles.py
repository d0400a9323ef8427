"""Finding raw files, checking their sha256, and saying what is missing or damaged. Imports no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gkdbench.data.catalogue import DatasetInfo, FileInfo
from gkdbench.errors import UserError
from gkdbench.safe_files import UnsafeFile, open_regular

HASH_ALWAYS_BYTES = 256 * 2**20
"""Sets up to this size are hashed at every load; larger ones when they are decoded into the cache."""


MIN_TEXT_BYTES = 2**25
"""Text of one raw file that is read in any case, unpacked; documented sizes allow more, see `text_bytes`."""


MAX_CLASSES = 10**5
"""Classes of one set."""


class MissingData(UserError):
    """Raw files that are not in the data folder."""


class CorruptData(UserError):
    """A file whose bytes, or whose decoded content, are not what the catalogue registered."""


def refuse_in_worker(what: str) -> None:
    """Raise UserError inside a worker process: whatever is read from raw files or the cache carries test labels."""
    if os.environ.get("GKDBENCH_WORKER") == "1":
        raise UserError(
            f"{what} was requested inside a worker; labels live in the scoring process, "
            f"and a method gets what it may see as a TrainView (view.inputs, view.features, ...)"
        )


def data_folder(data: Path | str | None = None) -> Path | None:
    """`data`, else ``$GKDBENCH_DATA``, else None."""
    if data is not None:
        return Path(data)
    named = os.environ.get("GKDBENCH_DATA", "")
    return Path(named) if named else None


@dataclass(frozen=True, slots=True)
class RawFiles:
    """The files of one set that exist, with their digests.

    Args:
        at: file name (last part of the path) -> its path.
        sha256: file name -> digest; "" for files of large sets that were not hashed this time.
        text_bytes: what the text of one file takes at most, unpacked.
    """

    at: Mapping[str, Path]
    sha256: Mapping[str, str]
    text_bytes: int = MIN_TEXT_BYTES

    def ending(self, suffix: str) -> Path:
        """The one file whose path ends in `suffix`."""
        found = [path for path in self.at.values() if path.as_posix().endswith(suffix)]
        if len(found) != 1:
            raise MissingData(f"expected one file ending in {suffix!r}, got {[path.name for path in found]}")
        return found[0]

    def matching(self, part: str) -> list[Path]:
        """Files whose path contains `part`, sorted by name."""
        return sorted(path for path in self.at.values() if part in path.as_posix())


def text_bytes(info: DatasetInfo) -> int:
    """A generous bound of the text of one file of `info`, unpacked, from its documented sizes: 16 bytes a number."""
    nodes, edges, graphs, features, classes = (
        info.stats.get(name, 0) for name in ("nodes", "edges", "graphs", "features", "classes")
    )
    return MIN_TEXT_BYTES + 16 * (nodes * (features + classes + 2) + 8 * edges + graphs * (classes + 2))


def missing_files(info: DatasetInfo, folder: Path | None) -> list[str]:
    """Paths (below the folder) of needed files that are not there."""
    needed = [file.path for file in info.files if not file.optional]
    return needed if folder is None else [path for path in needed if not (folder / path).is_file()]


def locate(info: DatasetInfo, data: Path | str | None, instructions: str) -> RawFiles:
    """Find and verify the files of `info`.

    Args:
        instructions: how to get them; the end of the MissingData message.

    Raises:
        MissingData: names every file that is absent, and the folder.
        CorruptData: a file with another sha256 than the registered ones.
    """
    folder = data_folder(data)
    absent = missing_files(info, folder)
    if absent or folder is None:
        unset = "(no folder given: set GKDBENCH_DATA, or name one: --data FOLDER)"
        where = unset if folder is None else f"in {folder}" + ("" if folder.is_dir() else ", which is no folder")
        raise MissingData(f"{info.name}: {len(absent)} files not found {where}: {', '.join(absent)}\n{instructions}")
    present = [file for file in info.files if (folder / file.path).is_file()]
    total = sum((folder / file.path).stat().st_size for file in present)
    digests = {file.path: verify(folder, file) if total <= HASH_ALWAYS_BYTES else "" for file in present}
    return RawFiles({file.path: folder / file.path for file in present}, digests, text_bytes(info))


def verify(folder: Path, file: FileInfo) -> str:
    """sha256 of one file; another digest than the registered ones raises CorruptData (unless `recoded`)."""
    got = sha256_of(folder / file.path)
    if file.sha256 and got not in file.sha256 and not file.recoded:
        size = (folder / file.path).stat().st_size
        raise CorruptData(
            f"{folder / file.path} ({size} bytes): expected sha256 {' or '.join(file.sha256)}, got {got}; "
            f"the file is truncated, tampered with or of another origin: fetch it again"
        )
    return got


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file; an unreadable one raises CorruptData."""
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except UnsafeFile as error:
        raise CorruptData(str(error)) from None
    except OSError as error:
        raise CorruptData(f"{path} cannot be read: {error.strerror or error}; check the file's permissions") from error
