"""How to get the files of a set: instructions in words, and a plain download where the network allows."""

from __future__ import annotations

import io
import os
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

from gkdbench.data import catalogue, rawfiles
from gkdbench.data.catalogue import DatasetInfo, FileInfo
from gkdbench.errors import UserError

TIMEOUT_S = 60


def fetch_instructions(name: str) -> str:
    """What `gkdbench data fetch NAME` prints when it cannot download: source, files, sha256, the commands."""
    info = catalogue.info(name)
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


def fetch(name: str, *, data: Path | str | None = None) -> list[Path]:
    """Download what is missing of `name` into the data folder; each file is checked before it takes its name.

    Returns:
        The files that were written.

    Raises:
        UserError: no folder, no address, no network, or a download with another sha256; the message ends with the
            instructions for doing it by hand.
    """
    info = catalogue.info(name)
    folder = rawfiles.data_folder(data)
    if folder is None:
        raise UserError(
            f"no folder to fetch {info.name} into: set GKDBENCH_DATA or pass data=\n{fetch_instructions(name)}"
        )
    wanted = [file for file in info.files if not (folder / file.path).is_file()]
    archives: dict[str, bytes] = {}
    return [_download(info, file, folder, archives) for file in wanted]


def _download(info: DatasetInfo, file: FileInfo, folder: Path, archives: dict[str, bytes]) -> Path:
    address, _, member = file.url.partition("!")
    if not address and info.archive:
        address, member = info.archive, Path(file.path).name
    if not address:
        raise UserError(f"{file.path} has no address for a plain download\n{fetch_instructions(info.name)}")
    try:
        if address not in archives:
            with urllib.request.urlopen(address, timeout=TIMEOUT_S) as reply:
                archives[address] = reply.read()
        content = _member(archives[address], member) if member else archives.pop(address)
    except (urllib.error.URLError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{address} could not be downloaded: {error}\n{fetch_instructions(info.name)}") from error
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        try:
            rawfiles.verify(target.parent, replace(file, path=Path(scratch).name))
        except rawfiles.CorruptData as error:
            raise rawfiles.CorruptData(f"{address} gave another file, nothing was kept: {error}") from None
        os.replace(scratch, target)
    finally:
        Path(scratch).unlink(missing_ok=True)
    return target


def _member(archive: bytes, wanted: str) -> bytes:
    """A member by its full name, or by its last part where an archive has a folder of its own around it."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        found = [name for name in opened.namelist() if name == wanted] or [
            name for name in opened.namelist() if name.rsplit("/", 1)[-1] == wanted.rsplit("/", 1)[-1]
        ]
        if not found:
            raise KeyError(f"no member {wanted!r}")
        return opened.read(found[0])
