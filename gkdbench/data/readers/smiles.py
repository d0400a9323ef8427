"""MoleculeNet tables of SMILES strings, turned into OGB's atom and bond codes (needs rdkit and ogb)."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gkdbench.data.build import features_of, graph_of, multi_hot
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.decode import text_of
from gkdbench.data.rawfiles import RawFiles, refuse_in_worker
from gkdbench.data.readers.ogb_graphs import bond_columns
from gkdbench.data.task import Task
from gkdbench.errors import UserError

Molecule = dict[str, Any]


def read(info: DatasetInfo, raw: RawFiles) -> Task:
    """One graph a row; every column but ``smiles`` is a task, an empty field an unknown label.

    Which strings are valid molecules depends on RDKit's version: rows it refuses are left out, and the note states
    how many.

    Raises:
        UserError: rdkit or ogb is not installed.
    """
    refuse_in_worker(info.name)
    parse, version = _parser()
    (path,) = raw.at.values()
    with text_of(path, raw.text_bytes, "utf-8", "a table of molecules") as stream:
        rows = [(row, parse(row["smiles"])) for row in csv.DictReader(stream)]
    kept = [(row, molecule) for row, molecule in rows if molecule is not None]
    tasks = [column for column in kept[0][0] if column != "smiles"]
    molecules = [molecule for _, molecule in kept]
    ptr = np.concatenate([[0], np.cumsum([len(molecule["node_feat"]) for molecule in molecules])]).astype(np.int64)
    # each bond is listed in both directions; graph_of and bond_columns drop the repeats they make of that
    ends = [molecule["edge_index"] + at for molecule, at in zip(molecules, ptr, strict=False)]
    src, dst = np.concatenate(ends, axis=1)
    bonds = np.concatenate([molecule["edge_feat"] for molecule in molecules])
    labels = np.array([[float(row[task] or "nan") for task in tasks] for row, _ in kept], np.float32)
    return Task(
        name=info.name,
        kind="graph",
        graph=graph_of(src, dst, int(ptr[-1]), undirected=True),
        features=features_of(multi_hot(np.concatenate([molecule["node_feat"] for molecule in molecules]))),
        labels=torch.from_numpy(labels),
        num_classes=len(tasks),
        multi_label=True,
        metric=info.metric,
        graph_ptr=torch.from_numpy(ptr),
        edge_features=bond_columns(src, dst, bonds, int(ptr[-1])),
        note=f"{len(rows) - len(kept)} of {len(rows)} molecules left out: not readable by RDKit {version}",
    )


def _parser() -> tuple[Callable[[str], Molecule | None], str]:
    """SMILES -> OGB's graph dictionary (None for an invalid string), and RDKit's version."""
    try:
        import rdkit  # type: ignore[import-not-found]
        from ogb.utils.mol import smiles2graph
        from rdkit import Chem, RDLogger
    except ImportError as error:
        raise UserError(
            f"reading SMILES: expected rdkit and ogb, got {error}; try pip install 'gkdbench[chem]'"
        ) from None

    def parse(text: str) -> Molecule | None:
        if Chem.MolFromSmiles(text) is None:
            return None
        found: Molecule = smiles2graph(text)
        return found if len(found["node_feat"]) else None

    RDLogger.DisableLog("rdApp.*")  # invalid strings are counted here, not printed one by one
    return parse, str(rdkit.__version__)
