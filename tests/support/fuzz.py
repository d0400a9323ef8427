"""Seeded mutations of files, and the bounds within which a reader must accept a file or refuse it in words."""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gkdbench.errors import UserError

SECONDS, EXTRA_BYTES = 10, 1 << 30
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    1e308,
    -0.0,
    "",
    "x" * 100_000,
    "../../../etc/passwd",
    "/dev/zero",
    "a\x1b[31mb\x00c",
    "\ud800",
    "=1+1",
    [],
    {},
    [[]],
    {"a": {"b": {}}},
)
TEXTS = (
    b"-1",
    b"99999999999999999999",
    b"nan",
    b"inf",
    b"1e9",
    b"",
    b"\x00",
    b"\xff\xfe",
    b"0x10",
    b"1.5",
    b'"',
    b"\r\n",
)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """One change: a bit, a chunk removed, doubled, moved or overwritten, a number replaced, the end cut off."""
    found = bytearray(data)
    start, length = rng.randrange(len(found) + 1), rng.choice((1, 2, 7, 60))
    kind = rng.randrange(8)
    if kind == 0 and found:
        found[start % len(found)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del found[start : start + length]
    elif kind == 2:
        found[start:start] = found[start : start + length]
    elif kind == 3:
        found[start : start + length] = rng.randbytes(length)
    elif kind == 4:
        del found[start:]
    elif kind == 5:
        found[start:start] = rng.choice(TEXTS)
    elif kind == 6:
        cut = found[start : start + length]
        del found[start : start + length]
        found += cut
    else:
        digits = [at for at, byte in enumerate(found) if chr(byte).isdigit()]
        if digits:
            at = rng.choice(digits)
            found[at : at + 1] = rng.choice(TEXTS)
    return bytes(found)


def mutated_gzip(data: bytes, rng: random.Random) -> bytes:
    """The text inside changed and packed again, or the packed bytes changed."""
    if rng.random() < 0.3:
        return mutated_bytes(data, rng)
    return gzip.compress(mutated_bytes(gzip.decompress(data), rng), mtime=0)


def mutated_npz(data: bytes, rng: random.Random) -> bytes:
    """One array changed, missing or of another kind; or the packed bytes changed."""
    if rng.random() < 0.3:
        return mutated_bytes(data, rng)
    with np.load(io.BytesIO(data), allow_pickle=True) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = rng.choice(sorted(arrays))
    if rng.random() < 0.1:
        del arrays[name]
    else:
        arrays[name] = mutated_array(arrays[name], rng)
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    return packed.getvalue()


def mutated_array(array: Any, rng: random.Random) -> Any:
    """`array` with another value, length, rank or kind."""
    kind = rng.randrange(7)
    if kind == 0 or array.dtype == object:
        return np.array(["a", None], dtype=object)
    if kind == 1:
        return array[: array.shape[0] // 2] if array.ndim else array[None]
    if kind == 2:
        return array[..., None] if array.ndim < 3 else array[0]
    if kind == 3:
        return array.astype(rng.choice(("int8", "uint64", "float16", "float64", "complex128", "bool", "U3")))
    if kind == 4:
        return np.concatenate([array, array]) if array.ndim else array
    found = array.copy()
    if found.size and found.dtype.kind in "iuf":
        limits = np.finfo(found.dtype) if found.dtype.kind == "f" else np.iinfo(found.dtype)
        values = [limits.max, limits.min, 0, *([np.nan, np.inf] if found.dtype.kind == "f" else [])]
        found.flat[rng.randrange(found.size)] = rng.choice(values)
    return found


def mutated_json(facts: Any, rng: random.Random) -> bytes:
    """One leaf or part replaced, removed or renamed; a key given twice; values nested without end; or bytes changed."""
    kind = rng.randrange(6)
    if kind == 0:
        return mutated_bytes(json.dumps(facts).encode(), rng)
    if kind == 1:
        name = rng.choice(sorted(facts))
        twice = json.dumps({name: facts[name]})[1:-1]
        return ("{" + twice + ", " + json.dumps(facts)[1:]).encode()
    if kind == 2:
        name = rng.choice(sorted(facts))
        deep = "[" * 50_000 + "]" * 50_000
        return json.dumps(facts | {name: "DEEP"}).replace('"DEEP"', deep).encode()
    found = copy.deepcopy(facts)
    parent, place = _some_place(found, rng)
    if kind == 3:
        del parent[place]
    elif kind == 4 and isinstance(parent, dict):
        parent[f"{place}x"] = parent.pop(place)
    else:
        parent[place] = rng.choice(HOSTILE)
    return json.dumps(found).encode()


def _some_place(facts: Any, rng: random.Random) -> tuple[Any, Any]:
    """(container, key) of a part of `facts`, deep ones as likely as those at the top."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(facts)
    return rng.choice(places)


@dataclass(frozen=True)
class Outcome:
    """What a reader did with a file: a value, or a refusal in words."""

    value: Any
    refusal: str | None


class TooMuch(Exception):
    """A reader took longer than `SECONDS`."""


@contextmanager
def bounded(folder: Path) -> Iterator[None]:
    """Within: `SECONDS`, `EXTRA_BYTES` of further memory, and no file beside `folder`.

    Raises:
        TooMuch: the time is over.
        AssertionError: something appeared beside `folder`.
    """
    there = sorted(folder.parent.iterdir())
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _too_long)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + EXTRA_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)
    assert sorted(folder.parent.iterdir()) == there, "a file was made outside of the folder"


def _too_long(*_: object) -> None:
    raise TooMuch


def outcome_of(read: Callable[[], Any], folder: Path) -> Outcome:
    """What `read` does within bounds; every exception but a refusal is an error of the test."""
    with bounded(folder):
        try:
            return Outcome(read(), None)
        except UserError as error:
            text = str(error)
    assert len(text.split()) >= 3, f"a refusal is a sentence, got {text!r}"
    assert "Traceback" not in text and "\x1b" not in text, text
    return Outcome(None, text)
