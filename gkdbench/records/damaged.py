"""Files that a run cannot read: moved to ``<out>/.damaged``, with a sentence on how to mend it, and the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gkdbench.safe_files import inside

FOLDER = ".damaged"


class DamagedFiles:
    """What one process has set aside below a folder of records.

    Attributes:
        told: one sentence for each file (a record together with its side-car).
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.told: list[str] = []

    def put_aside(self, paths: Sequence[Path], error: Exception) -> None:
        """Move those of `paths` that are there; `error` is what was wrong with the first."""
        moved = {path: place for path in paths if (place := self._moved(path)) is not None}
        if moved:
            where = ", ".join(f"{path.name} to {place}" for path, place in moved.items())
            self.told.append(
                f"set aside: {error} (moved {where}). Its rows count as missing: this command trains those that it "
                "covers; give the same command again when it ends with cells missing. To keep the old rows, "
                "restore both files from a copy before that; delete what was moved when it is not needed"
            )

    def put_aside_lock(self, path: Path) -> None:
        """Move what stands in the place of a cell's lock and is no file."""
        if (place := self._moved(path)) is not None:
            self.told.append(f"set aside: {path}: expected the lock of a cell, got no file; moved to {place}")

    def _moved(self, path: Path) -> Path | None:
        folder = inside(self._out, Path(FOLDER))
        folder.mkdir(exist_ok=True)
        name = "~".join(path.relative_to(self._out).parts).lstrip(".")
        place = next(found for n in range(10**6) if not (found := folder / f"{name}.damaged{n or ''}").exists())
        try:
            path.rename(place)
        except FileNotFoundError:  # not there, or another process was first
            return None
        return place
