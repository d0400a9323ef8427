"""A user's own graph as a Task, every argument checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from gkdkernels.graph import CSRGraph

from gkdbench.data.build import NumpyArray, features_of, mask_ids
from gkdbench.data.consistency import check_task
from gkdbench.data.families import PARTS
from gkdbench.data.rawfiles import MAX_CLASSES
from gkdbench.data.task import StoredFeatures, Task, TaskKind
from gkdbench.errors import UserError


def task_from_arrays(
    name: str,
    edge_index: Any,
    features: Any,
    labels: Any,
    *,
    kind: TaskKind = "node",
    graph_ptr: Any = None,
    edge_features: Any = None,
    num_classes: int | None = None,
    metric: str | None = None,
    splits: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    note: str = "",
) -> Task:
    """See ``Task.from_arrays``."""
    if kind not in ("node", "graph"):
        raise UserError(f"{name}: kind: expected 'node' or 'graph', got {kind!r}")
    stored = _features(name, features)
    num_nodes = stored.shape[0]
    edges = _integers(name, "edge_index", edge_index)
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise UserError(f"{name}: edge_index: expected shape [2, E] (sources, destinations), got {list(edges.shape)}")
    if edges.size and (edges.min() < 0 or edges.max() >= num_nodes):
        raise UserError(
            f"{name}: edge_index: expected nodes in [0, {num_nodes}) (features have {num_nodes} rows), "
            f"got {edges.min()}..{edges.max()}"
        )
    borders = _borders(name, graph_ptr, num_nodes, edges)
    if kind == "graph" and borders is None:
        raise UserError(
            f"{name}: graph_ptr: expected [G + 1], the first node of each graph and the end, got None; or use "
            "kind='node'"
        )
    wanted = num_nodes if kind == "node" or borders is None else len(borders) - 1
    targets, classes, multi_label = _labels(name, labels, wanted, num_classes)
    order = np.lexsort((edges[0], edges[1]))
    edges = edges[:, order]
    repeats = int((np.diff(edges, axis=1) == 0).all(axis=0).sum())
    if repeats:
        raise UserError(f"{name}: edge_index: expected each edge once, got {repeats} edges twice; drop the repeats")
    graph = CSRGraph.from_edge_index(torch.from_numpy(edges), num_nodes, _is_symmetric(edges, num_nodes))
    family = "own" if kind == "node" else "own-graph"
    task = Task(
        name=name,
        kind=kind,
        graph=graph,
        features=stored,
        labels=targets,
        num_classes=classes,
        multi_label=multi_label,
        metric=metric or ("micro_f1" if multi_label else "accuracy"),
        graph_ptr=None if borders is None else torch.from_numpy(borders),
        edge_features=_edge_features(name, edge_features, order),
        official=_official(name, splits, wanted, family),
        note=note,
    )
    try:
        check_task(task)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return task


def task_from_pyg(data: Any, name: str, *, kind: TaskKind | None = None, **facts: Any) -> Task:
    """See ``Task.from_pyg``."""
    graphs, single = _pyg_graphs(data, name)
    kind = kind or ("node" if single else "graph")
    for field in ("x", "edge_index", "y"):
        lacking = sum(getattr(graph, field, None) is None for graph in graphs)
        if lacking:
            raise UserError(
                f"{name}: from_pyg: expected x [N, D], edge_index [2, E] and y, "
                f"got {lacking} of {len(graphs)} Data objects without {field!r}{_instead(graphs, field)}"
            )
    for field in ("x", "y", "edge_attr"):
        _check_widths(name, field, graphs, kind)
    sizes = [int(graph.x.shape[0]) for graph in graphs]
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    edges = np.concatenate([_array(graph.edge_index) + at for graph, at in zip(graphs, ptr, strict=False)], axis=1)
    attributes = [getattr(graph, "edge_attr", None) for graph in graphs]
    with_edges = all(attribute is not None for attribute in attributes)
    if single and "splits" not in facts:
        facts["splits"] = _pyg_masks(graphs[0], name)
    return task_from_arrays(
        name,
        edges,
        graphs[0].x if single else np.concatenate([_array(graph.x) for graph in graphs]),
        np.concatenate([_pyg_labels(_array(graph.y), kind) for graph in graphs]),
        kind=kind,
        graph_ptr=None if single and kind == "node" else ptr,
        edge_features=np.concatenate([_array(attribute) for attribute in attributes]) if with_edges else None,
        **facts,
    )


def _pyg_graphs(data: Any, name: str) -> tuple[list[Any], bool]:
    """The ``Data`` objects in `data`, and whether it is one alone: not a list, a dataset or a batch of them."""
    if hasattr(type(data), "to_homogeneous"):
        raise UserError(
            f"{name}: from_pyg: expected nodes and edges of one type, got a {type(data).__name__}; "
            "try data.to_homogeneous()"
        )
    if hasattr(type(data), "from_data_list"):  # a Batch: one Data that knows its parts
        graphs, single = list(data.to_data_list()), False
    elif isinstance(data, (list, tuple)) or not hasattr(data, "edge_index") or _is_sequence(data):
        graphs, single = list(data), False
    else:
        graphs, single = [data], True
    if not graphs:
        raise UserError(f"{name}: from_pyg: expected a Data object or a list of at least one, got no graphs")
    return graphs, single


def _is_sequence(data: Any) -> bool:
    """Whether `data`, which answers ``edge_index``, is a dataset of graphs: iterating a ``Data`` gives pairs."""
    try:
        return all(hasattr(item, "edge_index") for item in data)
    except TypeError:
        return False


def _instead(graphs: Sequence[Any], field: str) -> str:
    adjacent = field == "edge_index" and any(getattr(graph, "adj_t", None) is not None for graph in graphs)
    return "; it has adj_t: build the data set without ToSparseTensor()" if adjacent else ""


def _check_widths(name: str, field: str, graphs: Sequence[Any], kind: TaskKind) -> None:
    """Refuse graphs that have another number of columns than the first."""
    values: list[Any] = [getattr(graph, field, None) for graph in graphs]
    shapes = [tuple(value.shape) if hasattr(value, "shape") else () for value in values]
    widths = [shape[1:] for shape in shapes]
    if field == "y" and kind == "graph":
        widths = [(int(np.prod(shape)),) for shape in shapes]
    for number, width in enumerate(widths):
        if width != widths[0]:
            raise UserError(
                f"{name}: from_pyg: {field}: expected {list(widths[0])} columns in every graph, as in graph 0, got "
                f"{list(width)} in graph {number}"
            )


def _pyg_labels(labels: NumpyArray, kind: TaskKind) -> NumpyArray:
    """Rows of labels: one per node, or exactly one for the graph."""
    if kind == "graph":
        return labels.reshape(1, -1)[:, 0] if labels.size == 1 and labels.dtype.kind in "iu" else labels.reshape(1, -1)
    return labels


def _pyg_masks(data: Any, name: str) -> list[dict[str, NumpyArray]] | None:
    """``train_mask`` and its companions, [N] or [N, K], as K dictionaries of masks."""
    there = [part for part in PARTS if getattr(data, f"{part}_mask", None) is not None]
    if not there:
        return None
    if len(there) < len(PARTS):
        lacking = " and ".join(f"{part}_mask" for part in PARTS if part not in there)
        raise UserError(
            f"{name}: from_pyg: expected train_mask, val_mask and test_mask, or none of them, got none of {lacking}; "
            "make it, or give splits="
        )
    masks = {part: _array(getattr(data, f"{part}_mask")) for part in PARTS}
    columns = {part: mask.reshape(len(mask), -1) for part, mask in masks.items()}
    count = max(column.shape[1] for column in columns.values())
    return [{part: column[:, min(k, column.shape[1] - 1)] for part, column in columns.items()} for k in range(count)]


def _array(value: Any) -> NumpyArray:
    """numpy's form of a tensor or a nested list."""
    matrix = _matrix(value)
    return matrix.toarray() if isinstance(matrix, sp.csr_array) else matrix


def _matrix(value: Any) -> NumpyArray | sp.csr_array:
    """As `_array`; what is sparse stays sparse."""
    if bool(sp.issparse(value)):  # bool(): not a type guard, the stubs know too little of sparse inputs
        return sp.csr_array(value)
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    tensor: Any = value.detach().cpu()
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    if tensor.layout == torch.strided:
        return tensor.numpy()  # type: ignore[no-any-return]
    places = tensor.to_sparse_coo().coalesce()
    return sp.csr_array((places.values().numpy(), tuple(places.indices().numpy())), shape=tuple(tensor.shape))


def _integers(name: str, field: str, value: Any) -> NumpyArray:
    array = _array(value)
    if array.dtype.kind not in "iu" and array.size:
        raise UserError(f"{name}: {field}: expected integers, got {array.dtype}")
    if array.dtype.kind == "u" and array.size and int(array.max()) >= 2**63:  # would turn negative
        raise UserError(f"{name}: {field}: expected integers of 64 bits with a sign, got {array.max()}")
    return array.astype(np.int64)


def _features(name: str, value: Any) -> StoredFeatures:
    matrix = _matrix(value)
    if isinstance(matrix, sp.csr_array):
        try:
            matrix.check_format(full_check=True)  # scipy reads memory by these indices without a look
        except ValueError as error:
            raise UserError(f"{name}: features: expected a sparse matrix whose parts agree, got: {error}") from None
    if matrix.ndim != 2:
        raise UserError(f"{name}: features: expected shape [N, D], got {list(matrix.shape)}")
    if matrix.dtype.kind not in "fiub":
        raise UserError(f"{name}: features: expected numbers, got {matrix.dtype}")
    values: NumpyArray = matrix if isinstance(matrix, np.ndarray) else matrix.data
    if not np.isfinite(values).all():
        raise UserError(
            f"{name}: features: expected finite numbers, got {int((~np.isfinite(values)).sum())} NaN or infinite"
        )
    if np.abs(values).max(initial=0) > np.finfo(np.float32).max:
        raise UserError(
            f"{name}: features: expected numbers that float32 can hold, got {np.abs(values).max():.3g}; scale them"
        )
    return features_of(matrix)


def _borders(name: str, value: Any, num_nodes: int, edges: NumpyArray) -> NumpyArray | None:
    if value is None:
        return None
    ptr = _integers(name, "graph_ptr", value)
    if ptr.ndim != 1 or len(ptr) < 2 or ptr[0] != 0 or ptr[-1] != num_nodes or (np.diff(ptr) < 0).any():
        raise UserError(f"{name}: graph_ptr: expected values rising from 0 to N={num_nodes}, got {ptr.tolist()[:5]}...")
    owner = np.searchsorted(ptr, edges, side="right")
    across = int((owner[0] != owner[1]).sum())
    if across:
        raise UserError(
            f"{name}: edge_index: expected edges within graphs, got {across} edges that join nodes of different "
            "graphs; check graph_ptr"
        )
    return ptr


def _labels(name: str, value: Any, wanted: int, num_classes: int | None) -> tuple[torch.Tensor, int, bool]:
    labels = _array(value)
    if labels.ndim not in (1, 2) or len(labels) != wanted:
        raise UserError(
            f"{name}: labels: expected {wanted} rows ([{wanted}] classes or [{wanted}, L] of 0, 1, NaN), "
            f"got shape {list(labels.shape)}"
        )
    if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "iub":
        if not np.isin(labels, (0, 1)).all():
            raise UserError(
                f"{name}: labels: expected [{wanted}] classes, or [{wanted}, L] of 0, 1 and NaN for several labels, "
                f"got integers of shape {list(labels.shape)}; try labels[:, 0]"
            )
        labels = labels[:, 0].astype(np.int64)  # two classes; one label that may be unknown comes as floats
    if labels.ndim == 2:
        values = labels.astype(np.float32)
        if not (np.isnan(values) | (values == 0) | (values == 1)).all():
            raise UserError(f"{name}: labels of shape [M, L]: expected only 0, 1 and NaN (unknown), got other values")
        if num_classes not in (None, labels.shape[1]):
            raise UserError(
                f"{name}: num_classes: expected {labels.shape[1]}, the columns of labels, got {num_classes}"
            )
        return torch.from_numpy(values), labels.shape[1], True
    if labels.dtype.kind == "f":
        unknown = int(np.isnan(labels).sum())
        raise UserError(
            f"{name}: labels: expected integers, classes from 0 with -1 for unknown, got {labels.dtype}"
            f"{f' with {unknown} NaN' if unknown else ''}; try numpy.nan_to_num(labels, nan=-1).astype(int)"
        )
    classes = _integers(name, "labels", labels)
    seen = int(classes.max(initial=-1)) + 1
    if classes.min(initial=0) < -1 or seen == 0:
        raise UserError(
            f"{name}: labels: expected classes 0, 1, ... with -1 for unknown, one or more known, "
            f"got {classes.min()}..{classes.max()}"
        )
    if max(seen, num_classes or 0) > MAX_CLASSES:
        raise UserError(
            f"{name}: labels: expected at most {MAX_CLASSES} classes, numbered from 0, got "
            f"{max(seen, num_classes or 0)}; number those that there are: numpy.unique(labels, return_inverse=True)[1]"
        )
    if num_classes is not None and num_classes < seen:
        raise UserError(f"{name}: num_classes: expected {seen} or more for labels up to {seen - 1}, got {num_classes}")
    return torch.from_numpy(classes), num_classes or seen, False


def _edge_features(name: str, value: Any, order: NumpyArray) -> torch.Tensor | None:
    if value is None:
        return None
    rows = _array(value)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) != len(order):
        raise UserError(f"{name}: edge_features: expected {len(order)} rows, one for each edge, got {list(rows.shape)}")
    return torch.from_numpy(rows[order].astype(np.float32))


def _official(name: str, splits: Any, wanted: int, family: str) -> dict[str, NumpyArray]:
    """``<family>/<k>/<part>`` -> ids, from masks or ids."""
    listed: Iterable[Mapping[str, Any]] = [splits] if isinstance(splits, Mapping) else splits or []
    found: dict[str, NumpyArray] = {}
    for k, split in enumerate(listed):
        if set(split) != set(PARTS):
            raise UserError(f"{name}: splits: expected the keys {list(PARTS)}, got {sorted(split)}")
        ids = {part: _ids(name, part, split[part], wanted) for part in PARTS}
        found |= {f"{family}/{k}/{part}": part_ids for part, part_ids in ids.items()}
    return found


def _ids(name: str, part: str, value: Any, wanted: int) -> NumpyArray:
    array = _array(value)
    if array.dtype == bool:
        if array.shape != (wanted,):
            raise UserError(f"{name}: the {part} mask: expected {wanted} entries, got shape {list(array.shape)}")
        return mask_ids(array)
    if array.shape == (wanted,) and wanted > 2 and array.dtype.kind in "iu" and np.isin(array, (0, 1)).all():
        raise UserError(
            f"{name}: the {part} split: expected ids, or a mask of booleans, got {wanted} {array.dtype} of 0 and 1; "
            "try mask.astype(bool)"
        )
    ids = _integers(name, f"the {part} split", array)
    if ids.ndim != 1 or not len(ids) or ids.min() < 0 or ids.max() >= wanted:
        raise UserError(f"{name}: the {part} split: expected one or more ids in [0, {wanted}), got {ids.tolist()[:5]}")
    return ids


def _is_symmetric(edges: NumpyArray, num_nodes: int) -> bool:
    """Whether the edges ([2, E], sorted by destination, then source) equal their own reverse."""
    back = np.sort(edges[0] * num_nodes + edges[1])
    return bool((edges[1] * num_nodes + edges[0] == back).all())
