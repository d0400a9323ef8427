"""MoleculeNet tables of SMILES strings, turned into OGB's atom and bond codes (needs rdkit and ogb)."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import torch

from gkdbench.data.build import graph_of
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.rawfiles import RawFiles, refuse_in_worker
from gkdbench.data.readers.ogb_graphs import both_directions
from gkdbench.data.task import Task
from gkdbench.errors import UserError


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """One graph a row; every column but ``smiles`` is a task, an empty field an unknown label.

    Raises:
        UserError: rdkit or ogb is not installed.
    """
    refuse_in_worker(info.name)
    (path,) = raw.at.values()
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    tasks = [column for column in rows[0] if column != "smiles"]
    molecules = [_molecule(row["smiles"]) for row in rows]
    ptr = np.concatenate([[0], np.cumsum([len(molecule["node_feat"]) for molecule in molecules])])
    # OGB's function lists each bond twice in a row; graph_of and both_directions drop the repeats
    src, dst = np.concatenate(
        [molecule["edge_index"] + at for molecule, at in zip(molecules, ptr, strict=False)], axis=1
    )
    bonds = np.concatenate([molecule["edge_feat"] for molecule in molecules])
    labels = np.array([[float(row[task] or "nan") for task in tasks] for row in rows], np.float32)
    return Task(
        name=info.name,
        kind="graph",
        graph=graph_of(src, dst, int(ptr[-1]), undirected=True),
        features=torch.from_numpy(np.concatenate([molecule["node_feat"] for molecule in molecules]).astype(np.float32)),
        labels=torch.from_numpy(labels),
        num_classes=len(tasks),
        multi_label=True,
        metric=info.metric,
        graph_ptr=torch.from_numpy(ptr.astype(np.int64)),
        edge_features=torch.from_numpy(both_directions(src, dst, bonds, int(ptr[-1]))),
        note=info.note,
    )


def _molecule(text: str) -> dict[str, Any]:
    try:
        from ogb.utils.mol import smiles2graph  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError(f"reading SMILES needs rdkit and ogb ({error}); pip install 'gkdbench[chem]'") from None
    found: dict[str, Any] = smiles2graph(text)
    return found
