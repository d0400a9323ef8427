"""The one decoder of raw files: bounded text, tables, JSON and arrays, and numbers that are checked before they index.

Everything that is refused is a CorruptData that names the file, and the line where it has lines.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike

from gkdbench.data.build import MAX_IDS, NumpyArray
from gkdbench.data.rawfiles import MAX_CLASSES, MIN_TEXT_BYTES, CorruptData, refuse_in_worker
from gkdbench.safe_arrays import read_npy, read_npz
from gkdbench.safe_files import open_regular, read_json

MAX_CODES = 2**14
"""Different values of a column that becomes one-hot."""
MAX_COLUMNS = 10**7
"""Width of a feature matrix."""
ARRAY_BYTES = 2**33
"""Arrays of one raw file together."""


@contextmanager
def decoding(path: Path, wanted: str) -> Iterator[None]:
    """Whatever a damaged `path` raises inside is a CorruptData: expected `wanted`, got what was raised."""
    refuse_in_worker(path.name)
    try:
        yield
    except CorruptData:
        raise
    except MemoryError:
        raise CorruptData(
            f"{path}: expected {wanted} that fits into memory, got one that does not; fetch it again"
        ) from None
    except Exception as error:  # numpy, zipfile, json and zlib raise many types on damaged bytes
        text = _ROW.sub(lambda found: f"line {int(found[1]) + 1}, column", str(error))
        raise CorruptData(f"{path}: expected {wanted}, got: {text}; fetch it again") from error


_ROW = re.compile(r"row (\d+), column")  # numpy counts rows from 0


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes."""

    def __init__(self, stream: Any, path: Path, limit: int) -> None:
        self._stream, self._path, self._left, self._limit = stream, path, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise CorruptData(
                f"{self._path}: expected at most {self._limit:,} bytes of text for a set of its size, got more; "
                "fetch it again"
            )
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def text_of(
    path: Path, limit: int = MIN_TEXT_BYTES, encoding: str = "ascii", wanted: str = "readable text"
) -> Iterator[io.TextIOWrapper]:
    """The text of a file, unpacked where its name ends in ``.gz``, of at most `limit` bytes.

    Raises:
        CorruptData: longer text; no regular file, no gzip, truncated, other bytes than text.
    """
    with decoding(path, wanted), open_regular(path) as file:
        packed = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        with io.TextIOWrapper(io.BufferedReader(_Bounded(packed, path, limit), 2**18), encoding=encoding) as stream:
            yield stream


def table(
    path: Path, dtype: DTypeLike = np.int64, *, limit: int = MIN_TEXT_BYTES, delimiter: str | None = ",", skip: int = 0
) -> NumpyArray:
    """[rows, columns] of `dtype`; an empty field is NaN and needs a float dtype.

    Args:
        limit: bound of the text, unpacked (``RawFiles.text_bytes``).
        skip: lines before the first row.

    Raises:
        CorruptData: truncated, ragged rows, a field that is not a number of this type, or more text than `limit`.
    """
    convert: Callable[[str], float] | None = _number_or_nan if np.issubdtype(np.dtype(dtype), np.floating) else None
    with text_of(path, limit, wanted="a readable table") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a table without rows is a table
        return np.loadtxt(stream, dtype, delimiter=delimiter, ndmin=2, converters=convert, skiprows=skip)


def _number_or_nan(field: str) -> float:
    return float(field) if field.strip() else float("nan")


def integers(path: Path, *, limit: int = MIN_TEXT_BYTES) -> NumpyArray:
    """All integers of a text file, separated by commas, spaces and line ends, flat; errors as in `table`."""
    with text_of(path, limit, wanted="integers") as stream:
        words = stream.read().replace(",", " ").split()
        try:
            return np.array(words, dtype=np.int64)
        except (ValueError, OverflowError):
            at = next(at for at, word in enumerate(words) if not _is_int64(word))
            raise CorruptData(
                f"{path}, line {_line_of(path, at, limit)}: expected an integer of 64 bits, got {words[at]!r:.60}; "
                "fetch it again"
            ) from None


def _is_int64(word: str) -> bool:
    try:
        return -(2**63) <= int(word) < 2**63
    except ValueError:
        return False


def _line_of(path: Path, at: int, limit: int) -> int:
    """The line (from 1) of the `at`-th field of a text file."""
    seen = number = 0
    with text_of(path, limit) as stream:
        for line in stream:
            number += 1
            seen += len(line.replace(",", " ").split())
            if seen > at:
                break
    return number


def in_range(
    path: Path, values: NumpyArray, low: int, high: int | NumpyArray, what: str, *, limit: int = MIN_TEXT_BYTES
) -> NumpyArray:
    """`values`, as they are, when each is in ``[low, high)``.

    Args:
        path: the text file whose fields they are, in order (any shape), or another kind of file.
        high: one bound, or one for each value.
        what: what they are, for the message.

    Raises:
        CorruptData: names the file, the first such value, and its line in a text file.
    """
    bad = (values < low) | (values >= high)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        end = int(np.broadcast_to(high, values.shape).ravel()[at])
        line = f", line {_line_of(path, at, limit)}" if path.name.endswith(_TEXT) else f", entry {at}"
        raise CorruptData(
            f"{path}{line}: {what}: expected a value in [{low}, {end}), got {values.ravel()[at]}; fetch it again"
        )
    return values


_TEXT = (".txt", ".csv.gz", ".csv", ".index")


def codes(path: Path, listed: NumpyArray, column: int, what: str, *, limit: int = MIN_TEXT_BYTES) -> NumpyArray:
    """One column of ``listed: [rows, columns]`` minus its smallest value, so that values number columns from 0: at most
    `MAX_CODES` of them.

    Raises:
        CorruptData: they lie further apart; names file and line of the one furthest from the median.
    """
    values = listed[:, column]
    if not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    if high - low >= MAX_CODES:
        middle = int(np.median(values))
        furthest = low if middle - low > high - middle else high
        start = middle - MAX_CODES // 2
        at = int(np.flatnonzero(values == furthest)[0]) * listed.shape[1] + column
        raise CorruptData(
            f"{path}, line {_line_of(path, at, limit)}: {what}: expected at most {MAX_CODES} consecutive values (about "
            f"{start} to {start + MAX_CODES}), got {furthest}; fetch it again"
        )
    return values - low


def open_json(path: Path, limit: int = MIN_TEXT_BYTES) -> Any:
    """The value in a JSON file of at most `limit` bytes."""
    with decoding(path, "readable JSON"):
        return read_json(path, limit)


def open_npy(path: Path, ndim: int, kinds: str) -> NumpyArray:
    """The array in an .npy file: of `ndim` dimensions, its dtype of one of `kinds` (numpy's letters)."""
    with decoding(path, "a readable npy"):
        return _shaped(read_npy(path, array_bytes=ARRAY_BYTES), ndim, kinds, "the array")


def open_npz(path: Path, keys: Iterable[str], optional: Iterable[str] = ()) -> dict[str, NumpyArray]:
    """The arrays `keys` of an npz, and those of `optional` that it has; others (object arrays) are never touched.

    Raises:
        CorruptData: not a readable npz, or a key is missing or needs pickle.
    """
    keys = list(keys)
    with decoding(path, "a readable npz"):
        found = read_npz(path, file_bytes=ARRAY_BYTES, array_bytes=ARRAY_BYTES, only={*keys, *optional})
        absent = [key for key in keys if key not in found]
        if absent:
            raise CorruptData(f"{path} lacks the arrays {absent}: expected them all, got {sorted(found)}")
        return found


def _shaped(array: NumpyArray, ndim: int, kinds: str, what: str) -> NumpyArray:
    if array.ndim != ndim or array.dtype.kind not in kinds:
        raise ValueError(f"{what} of shape {list(array.shape)} and type {array.dtype}, where {ndim} dimensions belong")
    return array


def int64(path: Path, array: NumpyArray, ndim: int, what: str) -> NumpyArray:
    """`array` as int64; no other numbers, and none that wraps."""
    with decoding(path, f"{what} as integers"):
        _shaped(array, ndim, "iu", what)
        if array.size and int(array.max()) >= 2**63:
            raise ValueError(f"{array.max()}, which has no 64 bits")
        return array.astype(np.int64)


def class_labels(path: Path, labels: NumpyArray, *, low: int = 0, limit: int = MIN_TEXT_BYTES) -> NumpyArray:
    """[M] int64 classes in ``[low, MAX_CLASSES)``."""
    return in_range(path, int64(path, labels, 1, "labels"), low, MAX_CLASSES, "labels", limit=limit)


def sparse_matrix(
    path: Path, data: NumpyArray, indices: NumpyArray, indptr: NumpyArray, shape: Any, what: str
) -> sp.csr_array:
    """A CSR matrix whose parts agree: scipy indexes memory by them without a look."""
    indices, indptr = int64(path, indices, 1, f"{what}: indices"), int64(path, indptr, 1, f"{what}: indptr")
    with decoding(path, f"{what}: a sparse matrix whose parts agree"):
        _shaped(data, 1, "fiub", "data")
        rows, columns = (int(side) for side in shape)
        if not (0 <= rows < MAX_IDS and 0 <= columns < MAX_COLUMNS):
            raise ValueError(f"shape {rows} x {columns}")
        if len(indptr) != rows + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or len(data) != len(indices):
            raise ValueError(f"{rows} rows, {len(indptr)} borders, {len(indices)} indices and {len(data)} values")
        if (np.diff(indptr) < 0).any():
            raise ValueError("borders of rows that fall")
    return sp.csr_array((data, in_range(path, indices, 0, columns, f"{what}: indices"), indptr), shape=(rows, columns))


def unpacked_lines(path: Path, limit: int) -> tuple[str, int]:
    """(first line, lines) of a text file, read to its end: a truncated gzip is refused."""
    first, count = "", 0
    with text_of(path, limit) as stream:
        for count, line in enumerate(stream, 1):
            first = line if count == 1 else first
    return first.strip(), count
