"""Synthetic records for the tests of the report: small, complete, and different only where a test says so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gkdbench.records.schema import Audit, DataInfo, ModelResult, Provenance, Record, Row, Score, TeacherInfo

Runs = Sequence[tuple[int, int]]
TEN: Runs = tuple((i, i) for i in range(10))

# The fields of real configurations that published numbers are tied to.
MLP_SETTINGS: dict[str, Any] = {"epochs": 500, "patience": 50, "model": {"hidden": 128, "layers": 2}}
BACKBONES: dict[str, dict[str, Any]] = {
    "sage": {
        "epochs": 500,
        "patience": 50,
        "fanouts": [5, 5],
        "model": {"hidden": 128, "layers": 2, "aggregator": "gcn"},
    },
    "gcn": {"epochs": 500, "patience": 50, "model": {"hidden": 64, "layers": 2}},
    "gat": {"model": {"head_width": 16, "heads": 8}},
    "appnp": {"model": {"hidden": 128, "layers": 2}},
}
KIPF: dict[str, Any] = {"lr": 0.01, "weight_decay": 5e-4, "epochs": 200, "patience": 200,
                        "model": {"hidden": 16, "layers": 2}}  # fmt: skip
SGC: dict[str, Any] = {"lr": 0.2, "model": {"hops": 2}}


def sha(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def model(
    name: str,
    scores: Mapping[str, float],
    *,
    needs: str = "features",
    macs: int | None = 1000,
    val: float = 0.8,
    gap: float = 0.01,
) -> ModelResult:
    return ModelResult(
        name=name,
        needs=needs,  # type: ignore[arg-type]
        selected_epoch=3,
        val=val,
        scores={setting: Score(value=value, n=1000) for setting, value in scores.items()},
        audit={
            setting: Audit(peak=min(1.0, value + gap), epoch=5, gap=gap, final=value)
            for setting, value in scores.items()
        },
        parameters=23_063,
        macs=macs,
        weights_sha256=sha(name, dict(scores)),
    )


def row(index: int, seed: int, models: Sequence[ModelResult], *, split: str, status: str = "ok", **fields: Any) -> Row:
    return Row(
        index=index,
        seed=seed,
        status=status,  # type: ignore[arg-type]
        command=f"gkdbench run --only {index}:{seed}",
        split_sha256=sha(split, index),
        models=list(models),
        epochs=20,
        **fields,
    )


def teacher_of(record: Record) -> dict[str, TeacherInfo]:
    return {"teacher": TeacherInfo(key=record.key, method=record.method, label=record.label, config=record.config)}


def record(
    method: str = "mlp",
    label: str = "MLP 2x128",
    *,
    mean: float = 0.6,
    std: float = 0.01,
    shift: float = 0.0,
    runs: Runs = TEN,
    dataset: str = "cora",
    split: str = "planetoid-public",
    setting: str = "tran",
    columns: Sequence[str] = ("tran",),
    needs: str = "features",
    macs: int | None = 1000,
    config: Mapping[str, Any] | None = None,
    teachers: Mapping[str, TeacherInfo] | None = None,
    variant: str = "corrected",
    failed: Mapping[tuple[int, int], str] | None = None,
    peers: int = 1,
    ensemble: bool = False,
    rows: Sequence[Row] | None = None,
    threads: int = 1,
    tier: str = "published",
    data_sha256: str = "d" * 64,
    metric: str = "accuracy",
    **fields: Any,
) -> Record:
    """A group whose scores have exactly `mean` and ddof=1 `std`, plus `shift` in every run."""
    wave = np.cos(np.arange(len(runs)) * 2.4 + 1)
    if len(runs) > 1:
        wave = (wave - wave.mean()) / wave.std(ddof=1)
    made = []
    for (index, seed), swing in zip(runs, wave if len(runs) > 1 else [0.0], strict=True):
        status = (failed or {}).get((index, seed), "ok")
        value = mean + shift + std * float(swing)
        names = ["student"] if peers == 1 else [f"peer{k}" for k in range(peers)]
        models = [
            model(n, dict.fromkeys(columns, value), needs=needs, macs=macs, val=0.8 + 0.001 * k)
            for k, n in enumerate(names)
        ]
        if ensemble:
            models.append(model("ensemble", dict.fromkeys(columns, value + 0.01), needs=needs, macs=macs))
        taught = {role: sha(info.key, index, seed) for role, info in (teachers or {}).items()}
        ok = status == "ok"
        made.append(
            row(
                index,
                seed,
                models if ok else [],
                split=split,
                status=status,
                teachers=taught,
                phase=None if ok else "fit",
                reason=None if ok else f"{status} in epoch 3",
            )
        )
    identity = (
        method,
        label,
        dataset,
        split,
        setting,
        variant,
        dict(config or {}),
        threads,
        tier,
        data_sha256,
        sorted(teachers or {}),
        [info.key for info in (teachers or {}).values()],
        fields.get("device"),
    )
    return Record(
        key=sha(identity),
        method=method,
        label=label,
        variant=variant,  # type: ignore[arg-type]
        tier=tier,  # type: ignore[arg-type]
        revision=1,
        revisions={method: 1},
        config=dict(MLP_SETTINGS if config is None else config),
        dataset=dataset,
        split=split,
        setting=setting,  # type: ignore[arg-type]
        columns=list(columns),
        data=DataInfo(
            name=dataset,
            sha256=data_sha256,
            preprocessing={"self_loops": True},
            nodes=2708,
            edges=13264,
            features=1433,
            classes=7,
            metric=metric,
        ),
        teachers=dict(teachers or {}),
        rows=list(made if rows is None else rows),
        threads=threads,
        provenances=[Provenance(gkdbench="0.1.0", git_commit="abc1234", python="3.11.9", torch="2.13.0", cpu="EPYC")],
        **{"device": "cpu"} | fields,
    )


def teacher(backbone: str = "sage", label: str = "SAGE 2x128", recipe: str | None = None, **fields: Any) -> Record:
    defaults: dict[str, Any] = {"mean": 0.8, "needs": "graph", "macs": 9000}
    settings = KIPF if recipe == "kipf2017_gcn" else BACKBONES[backbone]
    return record("teacher", label, config={"backbone": backbone, "recipe": recipe} | settings, **defaults | fields)
