"""Seeded mutations of files: of bytes, of text with hostile numbers, and of arrays inside an npz."""

from __future__ import annotations

import gzip
import io
import re
from random import Random
from typing import Any

import numpy as np

HOSTILE = (
    "0", "-1", "-7", "1.5", "1e308", "nan", "inf", "-Infinity", "true", "null", '"x"', "", " ", "[[[[]]]]", "{}", "1e9",
    str(2**31), str(2**63 - 1), str(-(2**63)), str(2**64), str(10**12), "9" * 400, "../../escaped",
    "\\u001b[2J", "\x00",
)  # fmt: skip
"""What takes the place of a number or a word."""
_WORD = re.compile(r"-?\d+(?:\.\d+)?|[A-Za-z_][\w.@-]*")


def mutated_bytes(draw: Random, content: bytes) -> bytes:
    """A bit turned, a slice removed, repeated, exchanged or cut off, or random bytes put in."""
    at = draw.randrange(len(content) + 1)
    to = min(len(content), at + draw.choice((1, 4, 40, 400)))
    kind = draw.randrange(6)
    if kind == 0 and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + content[to:]
    if kind == 2:
        return content[:to] + content[at:to] * draw.choice((1, 2, 50)) + content[to:]
    if kind == 3:
        return content[:at]
    if kind == 4:
        return content[:at] + draw.randbytes(draw.choice((1, 8, 64))) + content[at:]
    return content[to:] + content[:to]


def mutated_text(draw: Random, text: str) -> str:
    """One word or number becomes a hostile one, a line is repeated, removed or moved, or brackets are nested."""
    lines, words = text.splitlines(keepends=True), list(_WORD.finditer(text))
    kind = draw.randrange(8)
    if kind < 5 and words:
        found = draw.choice(words)
        return text[: found.start()] + draw.choice(HOSTILE) + text[found.end() :]
    if kind == 5 and lines:
        return "".join([*lines, draw.choice(lines)])
    if kind == 6 and len(lines) > 1:
        lines.pop(draw.randrange(len(lines)))
        return "".join(lines)
    if kind == 7 and words:
        found, depth = draw.choice(words), draw.choice((10, 100, 5000))
        return text[: found.start()] + "[" * depth + found[0] + "]" * depth + text[found.end() :]
    draw.shuffle(lines)
    return "".join(lines)


def mutated_file(draw: Random, name: str, content: bytes) -> bytes:
    """`content` of a file of this name, changed inside its format two times of three, else in its bytes."""
    if draw.randrange(3) == 0:
        return mutated_bytes(draw, content)
    if name.endswith(".npz"):
        return mutated_npz(draw, content)
    if name.endswith(".gz"):
        return gzip.compress(mutated_text(draw, gzip.decompress(content).decode()).encode(), mtime=0)
    try:
        return mutated_text(draw, content.decode()).encode()
    except UnicodeDecodeError:
        return mutated_bytes(draw, content)


def mutated_npz(draw: Random, content: bytes) -> bytes:
    """One array with a hostile value, another type or shape, absent, as objects, or under another name."""
    with np.load(io.BytesIO(content), allow_pickle=True) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    kind = draw.randrange(7)
    if kind < 2 and array.size and array.dtype.kind in "iuf":
        value = draw.choice((-1, -7, 2**31, 10**12, 2**63 - 1, -(2**63), 200))
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        array.flat[draw.randrange(array.size)] = draw.choice((np.nan, np.inf)) if array.dtype.kind == "f" else value
        arrays[name] = array
    elif kind == 2:
        arrays[name] = array.astype(draw.choice(("U3", "float32", "complex64", "bool", "object")))
    elif kind == 3:
        arrays[name] = draw.choice((array[:-1], array[None], array.ravel()[:0])) if array.ndim else array[None]
    elif kind == 4:
        del arrays[name]
    elif kind == 5:
        arrays["../../escaped"] = arrays.pop(name)
    else:
        arrays[name] = array[::-1].copy() if array.ndim else array
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()
