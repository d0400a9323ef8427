"""Arrays in .npy and .npz files that others may have changed: declared sizes are looked at before anything is unpacked,
and nothing is unpickled."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gkdbench.errors import UserError
from gkdbench.safe_files import UnsafeFile, open_regular

FILE_BYTES = 2**28
ARRAY_BYTES = 2**29
"""All arrays of one file together, unpacked."""
MEMBERS = 1_000_000

ArraysByName = dict[str, NDArray[Any]]


def read_npz(
    path: Path,
    *,
    file_bytes: int = FILE_BYTES,
    array_bytes: int = ARRAY_BYTES,
    links: bool = True,
    only: Collection[str] | None = None,
) -> ArraysByName:
    """The arrays of an .npz, by name.

    Args:
        file_bytes, array_bytes: bounds of the file, and of its arrays together.
        links: whether a symbolic link is followed.
        only: names that are read where they are there; others are not unpacked.

    Raises:
        UnsafeFile: no regular file, or above a bound.
        ValueError: damaged bytes, or arrays that need pickle.
        OSError: it is absent, or may not be read.
    """
    with open_regular(path, links=links) as stream:
        _check_size(path, os.fstat(stream.fileno()).st_size, file_bytes)
        return unpack_npz(stream, path, array_bytes=array_bytes, only=only)


def unpack_npz(
    stream: BinaryIO | bytes, path: Path, *, array_bytes: int = ARRAY_BYTES, only: Collection[str] | None = None
) -> ArraysByName:
    """As `read_npz`, from an open file or its bytes; `path` is for messages."""
    try:
        with zipfile.ZipFile(io.BytesIO(stream) if isinstance(stream, bytes) else stream) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) != len(names) or len(names) > MEMBERS:
                raise ValueError(f"expected at most {MEMBERS} arrays, each name once, got {len(names)}")
            wanted = {name: member for name, member in zip(names, members, strict=True) if only is None or name in only}
            total = sum(member.file_size for member in wanted.values())
            _check_size(path, total, array_bytes, " of arrays")
            return {name: _member(archive, member) for name, member in wanted.items()}
    except (OSError, UserError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged bytes
        raise ValueError(f"expected a readable npz, got {type(error).__name__}: {error}") from None


def read_npy(path: Path, *, array_bytes: int = ARRAY_BYTES, links: bool = True) -> NDArray[Any]:
    """The array of an .npy file; errors as in `read_npz`."""
    with open_regular(path, links=links) as stream:
        size = os.fstat(stream.fileno()).st_size
        _check_size(path, size, array_bytes)
        try:
            return _array(stream, size)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"expected a readable npy, got {type(error).__name__}: {error}") from None


def npz_names(path: Path) -> Mapping[str, int]:
    """Name -> size in bytes of the members of an .npz, unread; errors as in `read_npz`."""
    with open_regular(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return {member.filename.removesuffix(".npy"): member.file_size for member in archive.infolist()}
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"expected a readable npz, got {type(error).__name__}: {error}") from None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as stream:
        array = _array(stream, member.file_size)
        if stream.read(1):  # to the end, where the checksum is compared
            raise ValueError(f"{member.filename}: expected the array alone, got bytes behind it")
    return array


def _array(stream: Any, size: int) -> NDArray[Any]:
    """The array that `stream`, of `size` bytes, holds: its header must declare what is there before it is read."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"expected npy format 1 or 2, got {version}")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"expected plain numbers or text, got objects ({dtype}), which are not unpickled")
    declared, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or declared != there:
        raise ValueError(f"expected {declared} bytes for {dtype}{list(shape)}, got {there}")
    content = bytearray(stream.read(declared))
    if len(content) != declared:
        raise ValueError(f"expected {declared} bytes, got {len(content)}")
    flat: NDArray[Any] = np.frombuffer(content, dtype=dtype) if declared else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C") if declared else np.empty(shape, dtype)


def _check_size(path: Path, size: int, limit: int, of: str = "") -> None:
    if size > limit:
        raise UnsafeFile(f"{path}: expected at most {limit:,} bytes{of}, got {size:,}; move it away")
