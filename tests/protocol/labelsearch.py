"""Looking for labels: everything a process can reach, and whether label vectors hide in it.

`collect` runs in the suspect process and knows no label; `found` runs where labels are known.
"""

from __future__ import annotations

import array
import gc
import mmap
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch

CODES = ("u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_SKIPPED = (types.ModuleType, types.CodeType)
_BORDER = b"\xff\xfe"
_AS_BYTES = (bytes, bytearray, memoryview, mmap.mmap, array.array)


def reachable(roots: Iterable[Any]) -> Iterator[Any]:
    """Every object that can be reached from `roots`, from the collector's own list and from the running frames."""
    waiting = [*roots, *gc.get_objects(), *(module.__dict__ for module in list(sys.modules.values()))]
    for frame in sys._current_frames().values():
        while frame is not None:
            waiting.append(dict(frame.f_locals))
            frame = frame.f_back
    seen: set[int] = set()
    keep: list[Any] = []  # ids stay unique only while the objects live
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or thing is seen or thing is waiting or thing is keep:
            continue
        seen.add(id(thing))
        keep.append(thing)
        yield thing
        if isinstance(thing, np.ndarray) and thing.base is not None:
            waiting.append(thing.base)
        if isinstance(thing, Mapping) and not isinstance(thing, dict):
            continue
        if not isinstance(thing, _SKIPPED):
            waiting.extend(gc.get_referents(thing))


def collect(roots: Iterable[Any], folders: Iterable[Path], least: int) -> dict[str, np.ndarray]:
    """All numbers and bytes of at least `least` entries that the process holds or that lie in `folders`.

    Tensors are taken with their whole storage, so that a slice cannot hide what it was cut from.

    Returns:
        Name -> array: [n] or [n, k]; under "blob" all bytes, text and files, one after the other.
    """
    out: dict[str, np.ndarray] = {}
    blob: list[bytes] = []

    def add(kind: str, values: np.ndarray) -> None:
        if values.size >= least:
            out[f"{len(out)}.{kind}"] = values

    def add_bytes(data: bytes) -> None:
        if len(data) >= least:
            blob.append(data)

    for thing in reachable(roots):
        if isinstance(thing, torch.Tensor):
            if thing.layout is torch.strided and thing.device.type == "cpu":
                plain = thing.detach()
                add("tensor", np.array(plain.float().numpy() if plain.dtype is torch.bfloat16 else plain.numpy()))
                storage = plain.untyped_storage()
                whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),))
                add_bytes(whole.numpy().tobytes())
        elif isinstance(thing, np.ndarray):
            if thing.dtype.kind in "buif":
                add("ndarray", np.array(thing))
        elif isinstance(thing, _AS_BYTES):
            add_bytes(bytes(thing))
        elif isinstance(thing, str):
            add_bytes(thing.encode("utf-8", "replace"))
        elif isinstance(thing, dict):
            for part in (list(thing.values()), list(thing)):
                _add_numbers(part, add)
        elif isinstance(thing, list | tuple | set | frozenset):
            _add_numbers(list(thing), add)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                add_bytes(path.read_bytes())
    return out | {"blob": np.frombuffer(_BORDER.join(blob), np.uint8)}


def _add_numbers(values: list[Any], add: Any) -> None:
    if values and all(isinstance(value, Number | np.generic | torch.Tensor) for value in values[:3]):
        try:
            add("numbers", np.asarray([float(value) for value in values]))
        except (TypeError, ValueError, RuntimeError):
            return


def found(collected: Mapping[str, np.ndarray], orders: Mapping[str, np.ndarray], labels: np.ndarray) -> list[str]:
    """Where label vectors hide in `collected`.

    Args:
        orders: name -> [n] ids: a numbering in which someone may have kept labels (the whole task's, a scene's, the test
            items in their order, ...).
        labels: [N] int64 of the ids that are secret, -1 for all others.
    """
    hits = []
    blob = _BORDER.join(values.tobytes() for values in collected.values())
    for order, ids in orders.items():
        secret = labels[ids]
        if (secret >= 0).all():
            for code in CODES:
                if secret.astype(code).tobytes() in blob:
                    hits.append(f"{order} as {code}")
            for between in (", ", ",", " ", "\n", ""):
                if between.join(map(str, secret.tolist())).encode() in blob:
                    hits.append(f"{order} as text with {between!r}")
        known = secret >= 0
        for name, values in collected.items():
            for candidate in _columns(values, len(ids)):
                if _tells(candidate[known], secret[known]):
                    hits.append(f"{order} in {name}, {values.dtype}{values.shape}")
    return hits


def _columns(values: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """[length] vectors that `values` offers: itself, its columns, and the arg-max of its rows."""
    if values.shape[:1] != (length,):
        return
    if values.ndim == 1:
        yield values
    elif values.ndim == 2 and values.shape[1] <= 64:
        yield values.argmax(axis=1)
        yield from values.T


def _tells(candidate: np.ndarray, secret: np.ndarray) -> bool:
    """Whether a vector of few values fixes the label of 95 % of the items: also a renamed, shifted or scaled copy."""
    values, which = np.unique(candidate, return_inverse=True)
    if len(values) > 2 * (secret.max() + 1):
        return False
    table = np.zeros((len(values), secret.max() + 1))
    np.add.at(table, (which, secret), 1)
    return bool(table.max(axis=1).sum() >= 0.95 * len(secret))
