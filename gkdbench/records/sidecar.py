"""Side-cars: named arrays as one .npz whose bytes depend on the arrays alone."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError
from gkdbench.safe_arrays import read_npz as read_arrays
from gkdbench.safe_arrays import unpack_npz
from gkdbench.safe_files import UnsafeFile, read_bytes

SidecarArrays = dict[str, NDArray[np.generic]]

CAP_BYTES = 2 * 2**20
"""A group's side-car above this size is not kept (docs/design.md, decision 5)."""
UNPACKED_BYTES = 2**28
"""All arrays of a side-car, or of a cell, together: what a reader unpacks at most."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def npz_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """`arrays` as a compressed .npz: sorted names, fixed timestamps, so equal arrays give equal bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.compress_type, member.create_system, member.external_attr = zipfile.ZIP_DEFLATED, 3, 0o600 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    return target.getvalue()


def read_npz(path: Path) -> SidecarArrays:
    """The arrays of a side-car, or of a finished cell.

    Raises:
        UserError: no such file, a link, a damaged one, or one that unpacks to more than `UNPACKED_BYTES`.
    """
    try:
        return read_arrays(path, array_bytes=UNPACKED_BYTES, links=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def sidecar_bytes(path: Path) -> bytes:
    """The bytes of a record's side-car, unread; errors as in `read_npz`."""
    try:
        return read_bytes(path, CAP_BYTES, links=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def arrays_of(data: bytes, path: Path) -> SidecarArrays:
    """The arrays in the bytes of the side-car `path`; errors as in `read_npz`."""
    try:
        return unpack_npz(data, path, array_bytes=UNPACKED_BYTES)
    except ValueError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: expected the side-car of the record next to it, got no file; {_MEND}")
    if isinstance(error, UnsafeFile):
        return error
    return UserError(f"{path} is damaged: {error}; {_MEND}")


_MEND = (
    "restore it from a copy, or move the record and its side-car away and give the run's command again, which trains "
    "these runs anew"
)


def row_prefix(index: int, seed: int) -> str:
    """What the names of one row's arrays begin with, inside a group's side-car."""
    return f"{index}-{seed}/"


def row_arrays(arrays: Mapping[str, NDArray[np.generic]], index: int, seed: int) -> SidecarArrays:
    """One row's arrays, their names without its prefix."""
    prefix = row_prefix(index, seed)
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def bytes_sha256(data: bytes) -> str:
    """Hex sha256 of a side-car's bytes."""
    return hashlib.sha256(data).hexdigest()
