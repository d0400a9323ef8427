"""The folder of one cell: hard links of the files that it is handed, and a place for what it writes.

    <cell>/view/             the training bundle, read-only
    <cell>/later/            graphs that may be read only after training, read-only; not below the view
    <cell>/teachers/<role>/  bank entries of its teachers, read-only
    <cell>/work/             scratch files, the outcome, and ``teacher`` where others need its model
    <cell>/printed.log       what it prints

A cell is told no path outside of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gkdbench.execute.failures import PRINTED
from gkdbench.protocol.view_io import LATER
from gkdbench.safe_files import read_json

_BANK_FILES = {"logits.npy", "hidden.npy", "state.npz", "meta.json"}


@dataclass(frozen=True, slots=True)
class CellFolder:
    """Paths of a cell's own folder.

    Args:
        path: absolute; nothing but this cell uses it.
    """

    path: Path

    @property
    def view(self) -> Path:
        return self.path / "view"

    @property
    def later(self) -> Path:
        return self.path / LATER

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def teacher(self) -> Path:
        """Where the cell leaves its model for the bank."""
        return self.work / "teacher"

    @property
    def printed(self) -> Path:
        return self.path / PRINTED

    def of_teacher(self, role: str) -> Path:
        """The bank entry of the teacher in `role`."""
        return self.path / "teachers" / role

    def remove(self) -> None:
        """Remove the folder; the files that it shares with others stay."""
        shutil.rmtree(self.path, ignore_errors=True)


def make_cell_folder(path: Path, view: Path, teachers: Mapping[str, Path]) -> CellFolder:
    """Make the folder `path` with links of `view` and of the bank entries in `teachers`.

    Args:
        view: folder of `gkdbench.protocol.view_io.write_bundle`.
        teachers: role -> folder of the bank.

    Raises:
        OSError: the disk refused, or a file is not there.
    """
    folder = CellFolder(path.resolve())
    folder.work.mkdir(parents=True)
    _link(view, folder.view, leave_out=LATER)
    if (view / LATER).is_dir():
        _link(view / LATER, folder.later)
    for role, entry in teachers.items():
        _link(entry, folder.of_teacher(role))
    return folder


def _link(source: Path, target: Path, leave_out: str = "") -> None:
    """Hard links of all files below `source`, without the entry `leave_out`; copies where links are refused."""
    target.mkdir(parents=True)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name == leave_out:
                continue
            to = target / entry.name
            if entry.is_dir():
                _link(Path(entry.path), to)
                continue
            try:
                os.link(entry.path, to)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(entry.path, to)
            os.chmod(to, 0o444)


def move_teacher(folder: CellFolder, bank: Path, weights_sha256: str) -> bool:
    """Move the model that a cell left to its place in the bank, in place of an earlier one.

    Args:
        weights_sha256: of the first model of the cell's row.

    Returns:
        Whether it was there and is the model of the row; otherwise nothing is moved.

    Raises:
        OSError: the disk refused.
    """
    if not folder.teacher.is_dir() or folder.teacher.is_symlink():
        return False
    with os.scandir(folder.teacher) as entries:
        files = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if not files.keys() <= _BANK_FILES or not all(files.values()) or _weights_of(folder.teacher) != weights_sha256:
        return False
    bank.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(bank, ignore_errors=True)
    os.rename(folder.teacher, bank)
    return True


def _weights_of(entry: Path) -> str | None:
    """The hash of weights that a bank entry names; None where its facts cannot be read."""
    try:
        facts = read_json(entry / "meta.json", links=False)
    except (OSError, ValueError):
        return None
    return facts.get("weights_sha256") if isinstance(facts, dict) else None
