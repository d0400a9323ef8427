"""Text files that people write and that a verb writes for them: one reader, one writer, for every verb.

A byte order mark and the line ends of Windows are read as if they were not there. A folder that is not there is made.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from gkdbench.errors import UserError
from gkdbench.safe_files import UnsafeFile, read_bytes

LARGEST_FILE = 2**23
"""Bytes; a larger file is none that somebody wrote."""


def read_text(path: Path, what: str = "file") -> str:
    """The text of `path`, without a byte order mark, its lines ended by ``\\n``.

    Args:
        what: names the file in errors, such as "suite file".

    Raises:
        UserError: it is not there, is no regular file, is too large, may not be read, or is not UTF-8.
    """
    try:
        text = read_bytes(path, LARGEST_FILE).decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnsafeFile as error:
        raise UserError(f"{what} {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} {path}: expected text in UTF-8, got another encoding (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(
            f"{what} {path} cannot be read: expected a file, got: {error.strerror}; correct the path"
        ) from None


def read_toml(path: Path, what: str = "file") -> dict[str, Any]:
    """The tables of the TOML file at `path`.

    Raises:
        UserError: as `read_text`, and what is not TOML, with line and column.
    """
    try:
        return tomllib.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:  # no TOML, or nested too deep
        raise UserError(f"{path} is not valid TOML: {error}; correct it") from None


def write_text(path: Path, text: str) -> Path:
    """Write `text` to `path` in UTF-8, and make the folder that is to hold it.

    Returns:
        The absolute path.

    Raises:
        UserError: a folder stands there, a part of the path is a file, or it may not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from None
    return path.resolve()
