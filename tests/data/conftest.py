"""A cache of its own for these tests, tiny catalogued sets, and access to real raw files where there are any."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gkdbench.data import catalogue


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded sets go to a folder of this test session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real raw files, or a skip."""
    folder = os.environ.get("GKDBENCH_DATA")
    if not folder:
        pytest.skip("GKDBENCH_DATA is not set: no raw files to read")
    return Path(folder)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """register(name, {path: bytes}, **facts): a catalogue of one set, and the data folder that holds its files."""

    def make(name: str, content: dict[str, bytes], **facts: object) -> Path:
        folder = tmp_path / "raw"
        listed = []
        for path, payload in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(payload)
            listed.append({"path": path, "sha256": hashlib.sha256(payload).hexdigest()})
        entry = {"kind": "node", "source": "a test", "licence": "none", "splits": [], "files": listed} | facts
        monkeypatch.setattr(catalogue, "_document", lambda: {"aliases": {}, "datasets": {name: entry}})
        return folder

    return make


@pytest.fixture
def npz_bytes(tmp_path: Path) -> Callable[..., bytes]:
    """npz_bytes(key=array, ...): the bytes of an npz."""

    def make(**arrays: np.ndarray) -> bytes:
        np.savez_compressed(tmp_path / "made.npz", **arrays)
        return (tmp_path / "made.npz").read_bytes()

    return make


@pytest.fixture
def tiny_npz(npz_bytes: Callable[..., bytes]) -> bytes:
    """A CPF-format npz: a path of 6 nodes with a doubled edge and a loop, 3 features, 2 classes, one object array."""
    rows, columns = np.array([0, 1, 1, 2, 3, 4, 4]), np.array([1, 0, 2, 3, 4, 4, 5])
    indptr = np.searchsorted(rows, np.arange(7))
    return npz_bytes(
        adj_data=np.ones(7, np.float32),
        adj_indices=columns,
        adj_indptr=indptr,
        adj_shape=np.array([6, 6]),
        attr_data=np.array([1, 2, 3], np.float32),
        attr_indices=np.array([0, 2, 1]),
        attr_indptr=np.array([0, 1, 1, 2, 3, 3, 3]),
        attr_shape=np.array([6, 3]),
        labels=np.array([0, 1, 0, 1, 0, 1]),
        idx_to_class=np.array([{"0": "a"}], dtype=object),
    )
