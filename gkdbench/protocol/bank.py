"""The teacher bank: outputs and weights of a trained cell, kept once, shared by every student."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkdbench.data.nodes import NodeTable, Space
from gkdbench.errors import UserError
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor, State, state_sha256
from gkdbench.protocol.view import Teacher, TrainView


@torch.no_grad()
def write_teacher(folder: Path, predictor: Predictor, observed: Inputs, state: State) -> None:
    """Keep `predictor` in its selected `state`: logits and last hidden features on the observed items.

    Written under a temporary name and renamed; an existing folder is replaced by the same content.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    ready = predictor.prepared(observed)
    predictor.module.eval()
    trace = getattr(predictor.module, "trace", None)
    if trace is None:
        logits, hidden = predictor(observed), None
    else:
        result = trace(ready.features, ready.graph, ready.segments)
        logits, hidden = result.logits, (result.hidden[-1] if result.hidden else None)
    np.save(partial / "logits.npy", logits.cpu().numpy(), allow_pickle=False)
    if hidden is not None:
        np.save(partial / "hidden.npy", hidden.cpu().numpy(), allow_pickle=False)
    np.savez(partial / "state.npz", **{name: tensor.cpu().numpy() for name, tensor in state.items()})
    meta = {"space": observed.items.name, "weights_sha256": state_sha256(state)}
    (partial / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_teacher(folder: Path, view: TrainView, *, method: str, config: Mapping[str, Any], seed: int) -> Teacher:
    """The teacher kept in `folder`, for students on `view`.

    Raises:
        UserError: it was trained on another graph, or its weights do not match their hash.
    """
    meta = json.loads((folder / "meta.json").read_text())
    if meta["space"] != view.items.name:
        raise UserError(f"the teacher was trained on {meta['space']!r}, the student sees {view.items.name!r}")
    with np.load(folder / "state.npz", allow_pickle=False) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if state_sha256(state) != meta["weights_sha256"]:
        raise UserError(f"the teacher in {folder} does not match its hash; delete the folder, it is trained again")
    logits = torch.from_numpy(np.load(folder / "logits.npy", allow_pickle=False))
    hidden = None
    if (folder / "hidden.npy").exists() and logits.size(0) == len(view.inputs.space):
        array = np.load(folder / "hidden.npy", allow_pickle=False)
        hidden = NodeTable(view.inputs.space, torch.from_numpy(array))
    items: Space = view.items
    return Teacher(NodeTable(items, logits), hidden, state, method, config, seed, meta["weights_sha256"])
