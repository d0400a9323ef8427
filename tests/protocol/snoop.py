"""A planted method in a worker of its own: ``python snoop.py HANDOVER SCRATCH DECOYS OUT``.

It searches what it was given, all that is alive, what the run wrote and what the loaders give. DECOYS holds label
vectors that are no test labels; it hides each in another way first, and the search must find those.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.label_search import collect
from support.toy_predictors import Linear

from gkdbench.errors import UserError
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.session import run_session
from gkdbench.protocol.view import Context, Fitted, TrainView

KEPT: dict[str, Any] = {}


def hide(vectors: dict[str, np.ndarray], view: TrainView, folder: Path) -> None:
    """Put each decoy where a careless harness could have left test labels."""
    tensor = torch.from_numpy(vectors["closure"])
    KEPT["closure"] = lambda: tensor
    KEPT["slice"] = torch.from_numpy(vectors["slice"])[:1]
    object.__setattr__(view, "note", vectors["one hot"])
    KEPT["one hot"] = np.eye(3, dtype=np.float32)[vectors["one hot"]]
    KEPT["list"] = [[int(v) for v in vectors["list"]]]
    KEPT["by id"] = {int(i): int(v) for i, v in enumerate(vectors["by id"])}
    KEPT["bytes"] = vectors["bytes"].astype(np.uint8).tobytes()
    KEPT["renamed"] = 2.5 - torch.from_numpy(vectors["renamed"]).half()
    view.inputs.features.harmless = vectors["attribute"].astype(np.int16)
    np.save(folder / "left.npy", vectors["saved array"].astype(np.int32))
    (folder / "left.json").write_text(json.dumps({"y": vectors["json"].tolist()}))


def ask_loaders(dataset: str, split: str) -> list[str]:
    """What the data package gives out in a worker: names of calls that were not refused."""
    from gkdbench.data import builtin, cache, datasets, splits

    calls = {
        "load_task": lambda: datasets.load_task(dataset),
        "load_task(digits-knn)": lambda: datasets.load_task("digits-knn"),
        "load_task(cora)": lambda: datasets.load_task("cora"),
        "prepare_named": lambda: splits.prepare_named(dataset, split),
        "builtin.loader": lambda: (builtin.loader(dataset) or KEPT.pop)(),
        "DATASETS.get(csbm)": lambda: datasets.DATASETS.get("csbm")(),
        "DATASETS.get(digits-grid)": lambda: datasets.DATASETS.get("digits-grid")(),
        "DATASETS.get(cora)": lambda: datasets.DATASETS.get("cora")(),
        "cache.load": lambda: cache.load(Path(".")),
    }
    given = []
    for name, call in calls.items():
        try:
            KEPT[name] = call()
            given.append(name)
        except UserError as error:
            if "worker" not in str(error):
                given.append(f"{name} ({error})")
    return given


class Snoop:
    """Reports one epoch, then searches."""

    def __init__(self, folders: list[Path], decoys: dict[str, np.ndarray], least: int, out: Path) -> None:
        self.folders, self.decoys, self.least, self.out = folders, decoys, least, out

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        model = Predictor(Linear(view, ctx.seed))
        ctx.monitor.report(1, {"model": model})
        split = view.dataset and view.inputs.space.name.split("/")[1]
        report = {"given": ask_loaders(view.dataset, split), "data": os.environ.get("GKDBENCH_DATA")}
        hide(self.decoys, view, self.folders[0])
        decoys, self.decoys = self.decoys, {}
        names = list(decoys)
        del decoys
        report["decoys"] = names
        arrays = collect([view, ctx, self], self.folders, self.least)
        np.savez(self.out.with_suffix(".npz"), **arrays)
        self.out.write_text(json.dumps(report))
        return Fitted({"model": model})


def main(bundle: str, scratch: str, decoys: str, out: str) -> None:
    with np.load(decoys) as stored:
        vectors = {name: stored[name] for name in stored.files}
    least = min(len(vector) for vector in vectors.values())
    method = Snoop([Path(scratch), Path(bundle), Path.cwd()], vectors, least, Path(out))
    del vectors
    outcome = run_session(method, bundle=Path(bundle), scratch=Path(scratch), seed=0, teachers={})
    if outcome.status != "ok":
        sys.exit(outcome.traceback or outcome.reason)


if __name__ == "__main__":
    main(*sys.argv[1:])
