"""Records of one run, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from gkdbench.records.key import GroupIdentity
from gkdbench.records.schema import DataInfo, ModelResult, Record, Row, Score
from gkdbench.records.sidecar import SidecarArrays
from gkdbench.records.store import CellAddress, GroupAddress

DATA = DataInfo(name="cora", sha256="d" * 64, preprocessing={}, nodes=5, edges=8, features=3, classes=2)


def identity(**changes: Any) -> GroupIdentity:
    fields: dict[str, Any] = {
        "method": "mlp",
        "config": {"lr": 0.01},
        "revisions": {"mlp": 1},
        "dataset": "cora",
        "data_sha256": DATA.sha256,
        "preprocessing": {},
        "split": "cpf-lcc-20-30/seed0",
        "setting": "tran",
        "teachers": {},
        "device": "cpu",
    }
    return GroupIdentity(**fields | changes)


def row(index: int = 0, seed: int = 0, **changes: Any) -> Row:
    score = Score(value=0.5, n=4, confusion=[1, 1, 1, 1])
    model = ModelResult(
        name="model",
        needs="features",
        selected_epoch=3,
        val=0.5,
        scores={"tran": score},
        audit={},
        parameters=6,
        macs=None,
        weights_sha256="a" * 64,
    )
    fields: dict[str, Any] = {
        "index": index,
        "seed": seed,
        "status": "ok",
        "command": "gkdbench run toys",
        "split_sha256": "b" * 64,
        "models": [model],
        "predictions_sha256": "c" * 64,
        "finished": f"2026-01-01T00:00:{seed:02d}",
    }
    return Row(**fields | changes)


def record(run: Row, *, threads: int = 1, **changes: Any) -> Record:
    of = identity(**changes)
    return Record(
        key=of.key,
        method=of.method,
        label="MLP",
        variant="corrected",
        tier="published",
        revision=1,
        revisions=of.revisions,
        config=of.config,
        dataset=of.dataset,
        split=of.split,
        setting="tran",
        columns=["tran"],
        data=DATA,
        device="cpu",
        threads=threads,
        selection=of.selection,
        protocol_version=of.protocol_version,
        rows=[run],
    )


def arrays(seed: int, size: int = 4) -> SidecarArrays:
    draw = np.random.default_rng(seed)
    return {"model/tran/selected": draw.integers(0, 2, size).astype(np.uint8)}


def cell(index: int = 0, seed: int = 0) -> CellAddress:
    return CellAddress(GroupAddress.of(record(row())), index, seed)
