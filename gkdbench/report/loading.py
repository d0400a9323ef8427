"""Records from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from gkdbench.errors import UserError
from gkdbench.records.schema import Record


def load_records(path: str | Path) -> list[Record]:
    """Every record (``**/*.json``) under a folder, or the one of a file, in the order of their paths.

    Names that start with "." are skipped: those are caches, claims and scratch.

    Raises:
        UserError: no such path, or a file that is no record, by name.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(f"{root} does not exist; wanted a folder with records or one record (*.json)")
    return [_read(file) for file in _files(root)]


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for file in sorted(root.rglob("*.json")):
        if not any(part.startswith(".") for part in file.relative_to(root).parts):
            yield file


def _read(file: Path) -> Record:
    try:
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise UserError(
            f"{file} is no record: {where}: {first['msg']} ({error.error_count()} in all); "
            f"remove the file, or run its cells again"
        ) from None
