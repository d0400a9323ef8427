"""How to get the files of a set: instructions in words, and a plain download where the network allows."""

from __future__ import annotations

import hashlib
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from gkdbench.data import builtin, catalogue, rawfiles
from gkdbench.data.arrived import check_arrived
from gkdbench.data.catalogue import DatasetInfo, FileInfo
from gkdbench.errors import UserError

TIMEOUT_S = 60
DOWNLOAD_BYTES = 2**32
"""Largest download: three times the largest archive of the catalogue."""
_CHUNK = 2**20


def fetch_instructions(name: str) -> str:
    """What `gkdbench data fetch NAME` prints when it cannot download: source, files, sha256, the commands."""
    info = _with_files(name)
    needed = [file for file in info.files if not file.optional]
    extra = len(info.files) - len(needed)
    lines = [f"{info.name}: source {info.source}; licence: {info.licence}; files below the data folder:"]
    for file in needed:
        lines.append(f"  {file.path}")
        lines.append(f"    sha256 {' or '.join(file.sha256) or 'not registered'}")
        lines.append(f"    from {file.url or info.archive or 'no known address'}")
    if extra:
        lines.append(f"  and {extra} files of further official splits (the set is whole without them)")
    lines.append("get them with: GKDBENCH_DATA=FOLDER gkdbench data fetch " + info.name)
    lines.append("or by hand, file by file: curl -fL --create-dirs -o FOLDER/PATH ADDRESS (after '!': a zip's member)")
    return "\n".join(lines)


def _with_files(name: str) -> DatasetInfo:
    """Facts of a set that has raw files.

    Raises:
        UserError: it is built in, and needs none.
        UnknownName: no such set.
    """
    canon = catalogue.canonical(name)
    if canon not in catalogue.names() and builtin.info(canon) is not None:
        raise UserError(
            f"{name}: expected a data set of raw files, got one that is built in: there is nothing to fetch, use it as "
            f"it is (gkdbench run SUITE, or load_task({canon!r}))"
        )
    return catalogue.info(name)


def fetch(
    name: str, *, data: Path | str | None = None, tell: Callable[[int, int, str], None] | None = None
) -> list[Path]:
    """Download what is missing of `name` into the data folder; each file is checked before it takes its name.

    A file without a registered sha256 is kept only if its content can be what is documented, see `unverified`.

    Args:
        tell: called with (files done, files wanted, the path that comes next) before each download.

    Returns:
        The files that were written.

    Raises:
        UserError: no folder, no address, no network, or a download with another sha256; the message ends with the
            instructions for doing it by hand.
    """
    info = _with_files(name)
    folder = rawfiles.data_folder(data)
    if folder is None:
        raise UserError(
            f"expected a folder to fetch {info.name} into, got none; set GKDBENCH_DATA, or name one: --data FOLDER\n"
            f"{fetch_instructions(name)}"
        )
    wanted = [file for file in info.files if not (folder / file.path).is_file()]
    if not wanted:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            written: list[Path] = []
            for file in wanted:
                if tell is not None:
                    tell(len(written), len(wanted), file.path)
                written.append(_place(info, file, folder, Path(scratch)))
            return written
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}; name another GKDBENCH_DATA") from error


def _place(info: DatasetInfo, file: FileInfo, folder: Path, scratch: Path) -> Path:
    """Download one file into `scratch`, check it there, then give it its name."""
    address, _, member = file.url.partition("!")
    if not address and info.archive:
        address, member = info.archive, Path(file.path).name
    if not address:
        raise UserError(f"{file.path} has no address for a plain download\n{fetch_instructions(info.name)}")
    try:
        arrived = _downloaded(address, scratch, DOWNLOAD_BYTES if member else _most_bytes(info, file))
        if member:
            arrived = _extracted(arrived, member, scratch, _most_bytes(info, file))
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise UserError(f"{address} could not be downloaded: {error}\n{fetch_instructions(info.name)}") from error
    try:
        named = arrived.rename(scratch / f"arrived-{Path(file.path).name}")
        if rawfiles.verify(scratch, replace(file, path=named.name)) not in file.sha256:
            check_arrived(info, file, named)
    except rawfiles.CorruptData as error:
        raise rawfiles.CorruptData(f"{address} gave another file, nothing was kept: {error}") from None
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    named.replace(target)
    return target


def unverified(name: str) -> list[str]:
    """Paths of the files of `name` without a registered sha256: what was downloaded is not known to be the original."""
    return [file.path for file in catalogue.info(name).files if not file.sha256]


def _most_bytes(info: DatasetInfo, file: FileInfo) -> int:
    """Bound of one file: its registered size (other containers of its content may take four times that), or what the
    set's documented sizes allow."""
    if file.size_bytes:
        return 4 * file.size_bytes + 2**16 if file.recoded else file.size_bytes
    return min(rawfiles.text_bytes(info), DOWNLOAD_BYTES)


def _downloaded(address: str, scratch: Path, limit: int) -> Path:
    """The file at `address`; an archive with several requested members is downloaded once."""
    arrived = scratch / hashlib.sha256(address.encode()).hexdigest()
    if not arrived.is_file():
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as reply, arrived.open("wb") as stream:
            size = _copied(reply, stream, limit)
            wanted = reply.headers.get("Content-Length")
        if wanted is not None and wanted.isdigit() and size != int(wanted):
            arrived.unlink()
            raise OSError(f"expected {wanted} bytes, got {size}: the download was cut off; give the command again")
    return arrived


def _copied(source: IO[bytes], target: IO[bytes], limit: int) -> int:
    """The number of bytes copied, at most `limit`."""
    size = 0
    while block := source.read(_CHUNK):
        size += len(block)
        if size > limit:
            raise OSError(f"expected at most {limit:,} bytes, got more; nothing was kept")
        target.write(block)
    return size


def _extracted(archive: Path, wanted: str, scratch: Path, limit: int) -> Path:
    """A member by its full name, or by its last part where an archive has a folder of its own around it."""
    last = wanted.rsplit("/", 1)[-1]
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        found = wanted if wanted in names else next((name for name in names if name.rsplit("/", 1)[-1] == last), "")
        if not found:
            raise KeyError(f"expected the member {wanted!r} in the archive, got none of that name")
        with opened.open(found) as member, (scratch / last).open("wb") as stream:
            _copied(member, stream, limit)
    return scratch / last
