"""Kept models (``--keep-models``): the selected weights of every trained model, as plain arrays next to the records.

``<out>/models/<method>-<first 12 digits of the key>/<index>-<seed>/<model>.npz`` holds the weights, ``<model>.json``
what they are. Neither is read as a record.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gkdbench.errors import UserError
from gkdbench.execute.cell import Cell
from gkdbench.nn.random import Randomness
from gkdbench.protocol.bank import read_state
from gkdbench.protocol.predictor import State, state_sha256
from gkdbench.records.files import StorageError
from gkdbench.records.schema import ModelResult, Row
from gkdbench.records.store import Store
from gkdbench.safe_files import read_json, safe_name
from gkdbench.training.models import backbone_config, build_module

ENSEMBLE = "ensemble"
"""The peers' mean answer: it has no weights of its own."""


@dataclass(frozen=True, eq=False)
class KeptModel:
    """A model that a run kept.

    Args:
        state: its selected weights by name, on the CPU.
        method, config: what trained it, every hyper-parameter decided.
        backbone, settings: of its module; None and empty where the module is the method's own.
        facts: all that ``<model>.json`` holds: data set, split, index, seed, ``weights_sha256``, ...
    """

    state: State
    method: str
    config: Mapping[str, Any]
    backbone: str | None
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def module(self) -> torch.nn.Module:
        """A new module with these weights, in evaluation mode; called as ``module(features, graph)`` -> logits [N, C].

        Raises:
            UserError: the module is the method's own class; build it and give it `state`.
        """
        if self.backbone is None:
            raise UserError(
                f"expected a model of a registered backbone, got one of method {self.method!r}'s own class; build that "
                f"module and call module.load_state_dict(kept.state)"
            )
        inputs, classes, edge_width = (self.facts[name] for name in ("inputs", "classes", "edge_width"))
        config = backbone_config(self.backbone, self.settings)
        module = build_module(config, inputs, classes, edge_width, Randomness(0))
        module.several_labels = bool(self.facts.get("several_labels"))
        module.load_state_dict(self.state)
        return module.eval()


def load_model(path: str | Path) -> KeptModel:
    """A kept model: ``load_model("gkdbench-runs/models/glnn-0123456789ab/0-0/model.npz").module``.

    Args:
        path: the ``.npz`` or ``.json`` of a model, or its folder where that holds one model.

    Raises:
        UserError: no such file, several models in the folder, or weights that do not match their hash.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.npz"))
        if len(found) != 1:
            names = ", ".join(one.name for one in found) or "none"
            raise UserError(f"expected a folder of one model, got {path} with {names}; give the path of one .npz file")
        path = found[0]
    try:
        facts = _read_facts(path.with_suffix(".json"))
        state = read_state(path.with_suffix(".npz"))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected a kept model, got {error}; `gkdbench run SUITE --keep-models` keeps them"
        ) from None
    if state_sha256(state) != facts["weights_sha256"]:
        raise UserError(
            f"{path}: expected weights of the hash in its .json, got others; run the cell again with --rerun"
        )
    return KeptModel(state, facts["method"], facts["config"], facts["backbone"], facts["settings"], facts)


def model_folder(store: Store, cell: Cell) -> Path:
    """Where the models of a cell are kept."""
    of = cell.group.identity
    return store.place(Path("models", f"{safe_name(of.method, 'method')}-{of.key[:12]}", f"{cell.index}-{cell.seed}"))


_FACTS = ("method", "config", "backbone", "settings", "inputs", "classes", "edge_width", "weights_sha256")


def _read_facts(path: Path) -> dict[str, Any]:
    """What ``<model>.json`` holds.

    Raises:
        ValueError, OSError: it cannot be read, or lacks a fact.
    """
    facts = read_json(path)
    absent = [name for name in _FACTS if not isinstance(facts, dict) or name not in facts]
    if absent:
        raise ValueError(f"{path.name} without {', '.join(absent)}")
    found: dict[str, Any] = facts
    return found


def keep_models(store: Store, cell: Cell, row: Row, scratch: Path, edge_width: int, several_labels: bool) -> None:
    """Keep what the worker left in `scratch` as the models of `row`; an earlier folder of the cell is replaced.

    Raises:
        StorageError: the output folder refused.
    """
    folder = model_folder(store, cell)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for model in row.models:
            if model.name != ENSEMBLE:
                weights = scratch / f"{model.name}.weights.npz"
                facts = _facts(cell, model, read_state(weights), edge_width) | {"several_labels": several_labels}
                shutil.move(weights, partial / f"{model.name}.npz")
                text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
                (partial / f"{model.name}.json").write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(folder, error) from error


def drop_other_models(store: Store, cell: Cell, row: Row) -> None:
    """Remove kept models that are not those of the cell's stored `row`."""
    folder = model_folder(store, cell)
    if not folder.is_dir():
        return
    stored = {model.name: model.weights_sha256 for model in row.models if model.name != ENSEMBLE}
    try:
        kept = {path.stem: _read_facts(path)["weights_sha256"] for path in folder.glob("*.json")}
    except (OSError, ValueError):  # damaged: none is kept
        kept = {}
    if kept != stored:
        shutil.rmtree(folder, ignore_errors=True)


def _facts(cell: Cell, model: ModelResult, state: State, edge_width: int) -> dict[str, Any]:
    of, data = cell.group.identity, cell.group.data
    backbone, settings, inputs = _backbone(of.config, model.name, state, data.features, data.classes, edge_width)
    return {
        "method": of.method,
        "model": model.name,
        "key": cell.group.key,
        "cell": cell.key,
        "dataset": of.dataset,
        "split": of.split,
        "index": cell.index,
        "seed": cell.seed,
        "backbone": backbone,
        "settings": settings,
        "config": of.config,
        "inputs": inputs,
        "classes": data.classes,
        "edge_width": edge_width,
        "needs": model.needs,
        "hops": model.hops,
        "selected_epoch": model.selected_epoch,
        "weights_sha256": model.weights_sha256,
    }


def _backbone(
    config: Mapping[str, Any], model: str, state: State, features: int, classes: int, edge_width: int
) -> tuple[str | None, Mapping[str, Any], int]:
    """(backbone, settings, columns that it reads) of the module whose weights `state` are: the first backbone of the
    method's configuration with weights of these names and shapes; (None, {}, features) when none has."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, settings in _candidates(config, model):
        for inputs in dict.fromkeys((features, features + int(config.get("dim", 0)))):  # with encodings next to them
            try:
                config_of_module = backbone_config(name, settings)
                module = build_module(config_of_module, inputs, classes, edge_width, Randomness(0))
            except (UserError, ValueError, TypeError):
                continue
            if {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()} == shapes:
                return name, settings, inputs
    return None, {}, features


def _candidates(config: Mapping[str, Any], model: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Backbones that a configuration names: of peers first the one of the peer that is called `model`."""
    if isinstance(config.get("backbone"), str):
        yield config["backbone"], config.get("model", {})
    peers = list(config.get("peers") or ())
    numbered = re.search(r"(\d+)$", model)
    if numbered and int(numbered[1]) < len(peers):
        peers.insert(0, peers[int(numbered[1])])
    for name in dict.fromkeys(peer for peer in peers if isinstance(peer, str)):
        yield name, config.get("models", {}).get(name, {})
