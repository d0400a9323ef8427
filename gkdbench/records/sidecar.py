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

SidecarArrays = dict[str, NDArray[np.generic]]

CAP_BYTES = 2 * 2**20
"""A group's side-car above this size is not kept (docs/design.md, decision 5)."""

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
    """The arrays of a side-car; a damaged file raises UserError naming it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: expected the side-car of the record next to it, got no file") from None
    except Exception as error:  # zipfile and numpy raise many types on damaged bytes
        raise UserError(f"{path} is damaged: expected a readable npz, got {type(error).__name__}: {error}") from None


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
