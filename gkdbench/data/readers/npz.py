"""Reading named arrays of an npz without pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gkdbench.data.build import NumpyArray
from gkdbench.data.rawfiles import CorruptData, refuse_in_worker


def open_npz(path: Path, keys: Iterable[str], optional: Iterable[str] = ()) -> dict[str, NumpyArray]:
    """The arrays `keys` of an npz, and those of `optional` that it has; others (object arrays) are never touched.

    Raises:
        CorruptData: not a readable npz, or a key is missing or needs pickle.
    """
    refuse_in_worker(path.name)
    try:
        with np.load(path, allow_pickle=False) as archive:
            here = set(archive.files)
            absent = [key for key in keys if key not in here]
            if absent:
                raise CorruptData(f"{path} lacks the arrays {absent}: expected them all, got {sorted(here)}")
            return {key: archive[key] for key in [*keys, *(key for key in optional if key in here)]}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if isinstance(error, CorruptData):
            raise
        raise CorruptData(f"{path}: expected a readable npz, got: {error}; fetch it again") from error
