"""Files that others may have changed, read so that none can harm the reader: regular files only, up to a size; JSON up
to a depth, with each key once; names that stay inside their folder. Imports no package of gkdbench but the errors."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import Any

from gkdbench.errors import UserError

JSON_BYTES = 16 * 2**20
"""Largest JSON file that is read: a hundred times the largest published record."""
JSON_DEPTH = 40
NAME_BYTES = 180
"""Longest name of a method, a data set, ... as a part of a path; 255 is the limit of most file systems."""

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class UnsafeFile(UserError):
    """A path that is no plain file, a file above its bound, or a name that would lead out of its folder."""


def safe_name(text: str, what: str) -> str:
    """`text` as one component of a path: returned as it is, or refused.

    Args:
        what: what the text names, for the message.

    Raises:
        UnsafeFile: empty, hidden, with a slash or a control character, or too long.
    """
    fault = (
        "none" if not text
        else "one that begins with a dot" if text.startswith(".")
        else "one with '/'" if "/" in text
        else "one with control characters" if any(unicodedata.category(c) in _CONTROL for c in text)
        else f"one of {len(text.encode())} bytes" if len(text.encode()) > NAME_BYTES
        else ""
    )  # fmt: skip
    if fault:
        raise UnsafeFile(
            f"{what}: expected a name that can be part of a path (no '/', no leading dot, no control characters, at "
            f"most {NAME_BYTES} bytes), got {fault}: {text!r:.60}; give it another name"
        )
    return text


_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")


def inside(root: Path, relative: Path) -> Path:
    """``root / relative``, no part of which below `root` is a symbolic link, so that it lies inside.

    Raises:
        UnsafeFile: names the link.
    """
    place = root
    for part in relative.parts:
        if part in ("..", "/"):
            raise UnsafeFile(f"{root}: expected a path below it, got {relative}; give it another name")
        place = place / part
        if place.is_symlink():
            raise UnsafeFile(
                f"{place}: expected a folder or file of its own, got a symbolic link to {os.readlink(place)!r}; links "
                f"are not followed out of {root}: put the content itself there, or choose another folder with --out"
            )
    return place


def open_regular(path: Path, *, links: bool = True) -> io.BufferedReader:
    """`path` opened for reading, when it is a regular file; a pipe or a device does not block, and is not read.

    Args:
        links: whether a symbolic link is followed.

    Raises:
        UnsafeFile: it is something else.
        OSError: it is absent, or may not be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeFile(f"{path}: expected a file, got a symbolic link; put the file itself there") from None
        if error.errno == errno.ENXIO:
            raise UnsafeFile(f"{path}: expected a file, got a socket or a device; remove it") from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        raise UnsafeFile(f"{path}: expected a file, got {kind}; move it away")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int, *, links: bool = True) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        UnsafeFile: no regular file, or a larger one.
        OSError: it is absent, or may not be read.
    """
    with open_regular(path, links=links) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = b"" if size > limit else stream.read(limit + 1)
    if max(size, len(content)) > limit:
        raise UnsafeFile(f"{path}: expected at most {limit:,} bytes, got {max(size, len(content)):,}; move it away")
    return content


def read_json(path: Path, limit: int = JSON_BYTES, *, links: bool = True) -> Any:
    """The value in a JSON file; numbers are finite, keys of an object differ, nesting is at most `JSON_DEPTH`.

    Raises:
        UnsafeFile: no regular file, or a larger one.
        ValueError: no such JSON; the message does not name the file.
        OSError: it is absent, or may not be read.
    """
    return parse_json(read_bytes(path, limit, links=links))


def parse_json(content: bytes) -> Any:
    """The value of a JSON text in UTF-8, with the bounds of `read_json`."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"expected at most {JSON_DEPTH} levels of JSON, got more") from None
    level = [value]
    for _ in range(JSON_DEPTH + 1):
        inner = [one.values() if type(one) is dict else one for one in level if type(one) in (dict, list)]
        level = [item for items in inner for item in items if type(item) in (dict, list)]
        if not level:
            break
    else:
        raise ValueError(f"expected at most {JSON_DEPTH} levels of JSON, got more")
    if _LONE_SURROGATE.search(content):
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError: text that nobody could print
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"expected each key once, got {twice!r:.60} twice in one object")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"expected finite numbers, got {text}")
