"""The teacher bank: outputs and weights of a trained cell, kept once, shared by every student."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gkdbench.data.nodes import NodeTable
from gkdbench.errors import UserError
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.predictor import Predictor, State, state_sha256
from gkdbench.protocol.view import Teacher, TrainView
from gkdbench.safe_arrays import npz_names, read_npy, read_npz
from gkdbench.safe_files import read_json


@torch.no_grad()
def write_teacher(
    folder: Path, predictor: Predictor, observed: Inputs, state: State, train_ce_ratio: float | None = None
) -> None:
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
        result = trace(*predictor.arguments(ready))
        logits, hidden = result.logits, (result.hidden[-1] if result.hidden else None)
    outputs = {"logits": logits} | ({} if hidden is None else {"hidden": hidden})
    for name, tensor in outputs.items():
        np.save(partial / f"{name}.npy", tensor.cpu().numpy(), allow_pickle=False)
    write_state(partial / "state.npz", state)
    meta = {
        "space": observed.items.name,
        "train_ce_ratio": train_ce_ratio,
        "weights_sha256": state_sha256(state),
        "outputs_sha256": state_sha256(outputs),
    }
    (partial / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


@dataclass(frozen=True, slots=True)
class BankEntry:
    """Path of a trained cell's teacher, and what trained it.

    Args:
        folder: written by `write_teacher`.
        method, config, seed: the cell.
    """

    folder: Path
    method: str
    config: Mapping[str, Any]
    seed: int

    def read(self, view: TrainView) -> Teacher:
        """The teacher, for students on `view`.

        Raises:
            UserError: it was trained on another graph, or its weights or outputs do not match their hash.
        """
        try:
            meta = read_bank_facts(self.folder)
            state = read_state(self.folder / "state.npz")
            outputs = {name: _load(self.folder / f"{name}.npy") for name in meta["outputs"]}
        except (OSError, ValueError) as error:
            raise UserError(f"the teacher in {self.folder} is damaged: {error}; {_MEND}") from None
        if meta["space"] != view.items.name:
            raise UserError(
                f"expected a teacher trained on {view.items.name!r}, which the student sees, got one trained on "
                f"{meta['space']!r}"
            )
        if (state_sha256(state), state_sha256(outputs)) != (meta["weights_sha256"], meta.get("outputs_sha256")):
            raise UserError(f"the teacher in {self.folder}: expected weights of its hash, got others; {_MEND}")
        hidden = outputs.get("hidden")
        return Teacher(
            logits=NodeTable(view.items, outputs["logits"].to(view.device)),
            # Hidden features of graph tasks belong to nodes, those of node tasks to the items themselves.
            hidden=None if hidden is None else NodeTable(view.inputs.space, hidden.to(view.device)),
            state=state,
            method=self.method,
            config=self.config,
            seed=self.seed,
            weights_sha256=meta["weights_sha256"],
            train_ce_ratio=meta.get("train_ce_ratio"),
        )


def write_state(path: Path, state: State) -> None:
    """Write weights as an uncompressed ``.npz`` of plain arrays, one a name; `path` ends in ``.npz``."""
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    np.savez(path, **arrays)


def read_state(path: Path) -> State:
    """The weights that `write_state` wrote, on the CPU; nothing is unpickled."""
    found = read_npz(path, file_bytes=STATE_BYTES, array_bytes=STATE_BYTES)
    return {name: torch.from_numpy(array) for name, array in found.items()}


def _load(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_npy(path, array_bytes=STATE_BYTES))


def read_bank_facts(folder: Path) -> dict[str, Any]:
    """What ``meta.json`` of a bank entry holds, with the names of its ``outputs``; the arrays are there, and unread.

    Raises:
        ValueError, OSError: a file is absent or cannot be read.
    """
    facts = read_json(folder / "meta.json")
    if not isinstance(facts, dict) or not {"space", "weights_sha256"} <= facts.keys():
        raise ValueError(f"{folder / 'meta.json'}: expected space and weights_sha256 of a trained model, got others")
    npz_names(folder / "state.npz")
    outputs = [name for name in ("logits", "hidden") if (folder / f"{name}.npy").exists()]
    if "logits" not in outputs:
        raise ValueError(f"{folder}: expected logits.npy, got none")
    return facts | {"outputs": outputs}


_MEND = "delete the folder and give the command again with --retry, which trains it anew"
STATE_BYTES = 2**34
"""Largest weights or outputs of one model."""
