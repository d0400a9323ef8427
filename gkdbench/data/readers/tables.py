"""OGB's comma-separated tables (gzip), without a header."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from gkdbench.data.build import NumpyArray
from gkdbench.data.rawfiles import CorruptData, RawFiles, refuse_in_worker

OFFICIAL_PARTS = {"train": "train", "val": "valid", "test": "test"}


def table(path: Path, dtype: DTypeLike = np.int64) -> NumpyArray:
    """[rows, columns] of `dtype`; an empty field is NaN and needs a float dtype.

    Raises:
        CorruptData: truncated, not gzip, ragged rows, or a field that is not a number.
    """
    refuse_in_worker(path.name)
    holes = np.issubdtype(np.dtype(dtype), np.floating)
    try:
        with gzip.open(path, "rt", encoding="ascii") as stream:
            if holes:
                return np.loadtxt(stream, delimiter=",", dtype=dtype, ndmin=2, converters=_number_or_nan)
            return np.loadtxt(stream, delimiter=",", dtype=dtype, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CorruptData(f"{path}: expected a readable table, got: {error}; fetch it again") from error


def official_split(raw: RawFiles, family: str) -> dict[str, NumpyArray]:
    """``<family>/0/<part>`` -> [M] int64 ids, from the ``split/<rule>/<part>.csv.gz`` files."""
    return {f"{family}/0/{part}": table(raw.ending(f"/{name}.csv.gz")).ravel() for part, name in OFFICIAL_PARTS.items()}


def _number_or_nan(field: str) -> float:
    return float(field) if field.strip() else float("nan")
