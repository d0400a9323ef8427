"""The restricted unpickler, and Planetoid's layout on a tiny set written in it."""

import os
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gkdbench.data.datasets import load_task
from gkdbench.data.rawfiles import CorruptData
from gkdbench.data.readers.planetoid import restricted_load
from gkdbench.data.splits import prepare


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps(Payload()),
        pickle.dumps({"graph": [Payload()]}, protocol=2),
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
    ],
    ids=["os.system", "nested", "eval", "numpy.load", "reconstructor"],
)
def test_any_other_constructor_is_refused(payload: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ind.x").write_bytes(payload)
    with pytest.raises(CorruptData, match="refused"):
        restricted_load(tmp_path / "ind.x")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x80\x02]q\x00", b"no pickle at all", b"cscipy.sparse.csr\ncsr_matrix\n)\x81."],
    ids=["empty", "truncated", "text", "matrix without parts"],
)
def test_broken_pickles_are_named(payload: bytes, tmp_path: Path) -> None:
    (tmp_path / "ind.tx").write_bytes(payload)
    with pytest.raises(CorruptData, match=r"ind\.tx"):
        restricted_load(tmp_path / "ind.tx")


def test_layout_with_a_gap_in_the_test_ids(register: Callable[..., Path]) -> None:
    """502 listed nodes (2 to train, 500 to validate), test ids 504 and 502, a gap at 503: as CiteSeer has it."""
    seen = sp.csr_matrix(np.arange(1004, dtype=np.float32).reshape(502, 2))
    unseen = sp.csr_matrix(np.array([[60, 61], [40, 41]], np.float32))
    classes = np.eye(2, dtype=np.int32)
    lone: dict[int, list[int]] = {node: [] for node in range(505)}
    content = {
        "x": seen[:2], "y": classes[[0, 1]], "allx": seen, "ally": classes[np.arange(502) % 2], "tx": unseen,
        "ty": classes[[1, 0]], "graph": defaultdict(list, {**lone, 0: [1, 1, 0], 1: [0], 502: [504], 504: [502]}),
    }  # fmt: skip
    files = {f"P/ind.tiny.{end}": pickle.dumps(part, protocol=4) for end, part in content.items()}
    folder = register("tiny-planetoid", files | {"P/ind.tiny.test.index": b"504\n502\n"}, reader="planetoid")
    task = load_task("tiny-planetoid", data=folder)
    features = task.features if isinstance(task.features, torch.Tensor) else task.features.dense()
    assert torch.equal(features[:502], torch.arange(1004.0).view(502, 2))
    assert features[502:].tolist() == [[40, 41], [0, 0], [60, 61]]
    assert task.labels.tolist() == [0, 1] * 251 + [0, -1, 1]
    assert sorted(zip(task.graph.index.tolist(), task.graph.row.tolist(), strict=True)) == [
        (0, 1), (1, 0), (502, 504), (504, 502)
    ]  # fmt: skip
    assert task.official["planetoid-public/0/train"].tolist() == [0, 1]
    assert task.official["planetoid-public/0/val"].tolist() == list(range(2, 502))
    assert task.official["planetoid-public/0/test"].tolist() == [502, 504]


def test_public_and_inductive_masks_of_cora(real_data: Path) -> None:
    task = load_task("cora", data=real_data)
    public, inductive = prepare(task, "planetoid-public").split, prepare(task, "planetoid-ind").split
    assert public.train.tolist() == list(range(140)) and public.val.tolist() == list(range(140, 640))
    assert public.test.tolist() == list(range(1708, 2708)) and len(public.unseen) == 0
    assert (inductive.unseen == public.test).all() and (inductive.train == public.train).all()
    assert np.bincount(task.labels[torch.from_numpy(public.train)]).tolist() == [20] * 7


def test_planetoid_features_are_row_normalised_and_empty_rows_stay_empty(real_data: Path) -> None:
    problem = prepare(load_task("citeseer", data=real_data), "planetoid-public")
    features = problem.task.features
    assert not isinstance(features, torch.Tensor)
    total = torch.zeros(3327).index_add_(0, features.graph.row, features.value)
    assert set(total.round(decimals=4).tolist()) == {0.0, 1.0}
    assert int((total == 0).sum()) == 15
    assert problem.preprocessing["features"] == "row-normalised"
