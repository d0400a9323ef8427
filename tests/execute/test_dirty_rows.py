"""Rows of code that differs from its commit do not enter a folder that git tracks unless somebody asks for it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.one_run import arrays, record, row

from gkdbench.cli import main
from gkdbench.errors import UserError
from gkdbench.execute.api import plan_suite
from gkdbench.execute.provenance import is_tracked, refuse_dirty
from gkdbench.execute.runner import RunSummary
from gkdbench.records.schema import Provenance
from gkdbench.records.store import Store, load_record


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("records")
    for words in (["init", "-q"], ["add", "README.md"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return tmp_path


def test_dirty_rows_are_refused_where_git_tracks_files(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="--allow-dirty"):
        refuse_dirty(tracked, True, "rows")
    refuse_dirty(tracked, False, "rows")
    refuse_dirty(tmp_path_factory.mktemp("untracked"), True, "rows")


def test_collect_refuses_dirty_cells_and_keeps_their_mark_when_asked(tracked: Path) -> None:
    store = Store(tracked)
    dirty = record(row().model_copy(update={"provenance": 0}))
    store.write(dirty.model_copy(update={"provenances": [Provenance(git_dirty=True)]}), arrays(0))
    assert main(["collect", str(tracked)]) == 2
    assert len(store.dirty()) == 1
    assert main(["collect", str(tracked), "--allow-dirty"]) == 0
    (path,) = [path for path, _ in store.records()]
    found = load_record(path)
    assert found.provenance_of(found.rows[0]).git_dirty


def test_a_run_that_writes_no_row_is_not_refused(tracked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed code and every cell cached: nothing is written. A cell to run is refused (the control)."""
    words = ["run", "--method", "mlp", "--dataset", "csbm:n=300", "--seeds", "1", "--out", str(tracked)]
    monkeypatch.setattr("gkdbench.execute.provenance.code_is_dirty", lambda: True)
    ran: list[object] = []
    monkeypatch.setattr("gkdbench.execute.api.run_suite", lambda *a, **k: ran.append(a) or RunSummary())
    assert main(words) == 2 and not ran
    full = plan_suite
    monkeypatch.setattr("gkdbench.execute.api.plan_suite", lambda *a, **k: replace(full(*a, **k), todo=[]))
    assert main(words) == 0 and len(ran) == 1


def test_a_path_that_is_too_long_is_refused_and_not_tracked(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["b" * 200] * 21)
    assert not is_tracked(path)
    with pytest.raises(UserError, match=r"cannot write .*too long"):
        Store(path)
