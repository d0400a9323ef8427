"""Seeded synthetic graphs: for tests, and for scale."""

from __future__ import annotations

import math

import numpy as np
import torch

from gkdbench.data.build import NumpyArray, graph_of
from gkdbench.data.rawfiles import refuse_in_worker
from gkdbench.data.task import Task
from gkdbench.errors import UserError


def csbm(
    n: int = 600,
    classes: int = 4,
    d: int = 32,
    degree: float = 8.0,
    within: float = 0.8,
    signal: float = 1.0,
    seed: int = 0,
) -> Task:
    """Contextual stochastic block model (Deshpande et al. 2018): blocks in the edges, Gaussian means in the features.

    Args:
        n: nodes, in classes of equal size (up to one).
        degree: expected number of neighbours.
        within: share of edges that stay in a class, in [0, 1].
        signal: length of a class mean; the noise has unit variance in each of the `d` features.
    """
    refuse_in_worker("csbm")
    _check("csbm", {"n": n}, classes=classes, d=d, degree=degree, within=within, signal=signal, seed=seed)
    rng = np.random.default_rng([seed, n, classes, d])
    labels = rng.permutation(np.arange(n) % classes)
    src, dst = _block_edges(rng, labels, int(n * degree / 2), within)
    means = _directions(rng, classes, d) * signal
    features = means[labels] + rng.standard_normal((n, d))
    return Task(
        name="csbm",
        kind="node",
        graph=graph_of(src, dst, n, undirected=True),
        features=torch.from_numpy(features.astype(np.float32)),
        labels=torch.from_numpy(labels.astype(np.int64)),
        num_classes=classes,
        note="built in: synthetic",
    )


def csbm_multilabel(
    n: int = 400,
    classes: int = 5,
    d: int = 32,
    degree: float = 8.0,
    within: float = 0.8,
    signal: float = 1.0,
    seed: int = 0,
) -> Task:
    """As `csbm` with one to three labels a node: features sum the means of all of them, edges follow one of them."""
    refuse_in_worker("csbm-multilabel")
    _check("csbm-multilabel", {"n": n}, classes=classes, d=d, degree=degree, within=within, signal=signal, seed=seed)
    rng = np.random.default_rng([seed, n, classes, d, 2])
    block = rng.permutation(np.arange(n) % classes)
    labels = rng.random((n, classes)) < 1.0 / classes
    labels[np.arange(n), block] = True
    src, dst = _block_edges(rng, block, int(n * degree / 2), within)
    features = labels @ (_directions(rng, classes, d) * signal) + rng.standard_normal((n, d))
    return Task(
        name="csbm-multilabel",
        kind="node",
        graph=graph_of(src, dst, n, undirected=True),
        features=torch.from_numpy(features.astype(np.float32)),
        labels=torch.from_numpy(labels.astype(np.float32)),
        num_classes=classes,
        multi_label=True,
        metric="micro_f1",
        note="built in: synthetic",
    )


def ppi_shaped(
    graphs: int = 24,
    nodes: int = 200,
    classes: int = 121,
    d: int = 50,
    degree: float = 28.0,
    within: float = 0.8,
    signal: float = 2.0,
    seed: int = 0,
) -> Task:
    """Several graphs whose nodes carry many labels, split by graphs as PPI is: for tests and speed, never for claims.

    Nodes belong to one of 20 communities, the same ones in every graph; a community decides how likely each label is
    (a third of them, on average) and what the features' mean is. PPI's own size is ``nodes=2373``.

    Args:
        graphs: the last two are test, the two before them validation, the rest training graphs.
        nodes: of each graph.
        degree: expected number of neighbours; PPI has 28.
        within: share of edges that stay in a community.
        signal: length of a community's mean; the noise has unit variance in each of the `d` features.
    """
    refuse_in_worker("ppi-shaped")
    if graphs < 5:
        raise UserError(f"ppi-shaped: graphs: expected at least 5 (two of them test, two validation), got {graphs}")
    _check(
        "ppi-shaped",
        {"nodes": nodes},
        graphs=graphs,
        classes=classes,
        d=d,
        degree=degree,
        within=within,
        signal=signal,
        seed=seed,
    )
    rng = np.random.default_rng([seed, graphs, nodes, classes, d])
    groups, total = min(20, nodes), graphs * nodes
    member = np.concatenate([rng.permutation(np.arange(nodes) % groups) for _ in range(graphs)])
    likely = rng.beta(0.5, 1.0, (groups, classes))
    labels = rng.random((total, classes)) < likely[member]
    features = (_directions(rng, groups, d) * signal)[member] + rng.standard_normal((total, d))
    within_graph = [
        np.stack(_block_edges(rng, member[first : first + nodes], int(nodes * degree / 2), within)) + first
        for first in range(0, total, nodes)
    ]
    src, dst = np.concatenate(within_graph, axis=1)
    borders = np.arange(0, total + 1, nodes)
    cut = (borders[-5], borders[-3])
    return Task(
        name="ppi-shaped",
        kind="node",
        graph=graph_of(src, dst, total, undirected=True),
        features=torch.from_numpy(features.astype(np.float32)),
        labels=torch.from_numpy(labels.astype(np.float32)),
        num_classes=classes,
        multi_label=True,
        metric="micro_f1",
        graph_ptr=torch.from_numpy(borders),
        official={
            "ppi/0/train": np.arange(cut[0]),
            "ppi/0/val": np.arange(cut[0], cut[1]),
            "ppi/0/test": np.arange(cut[1], total),
        },
        note="built in: synthetic, of PPI's shape",
    )


def power_law(
    n: int = 10_000,
    degree: float = 10.0,
    d: int = 32,
    classes: int = 8,
    exponent: float = 2.5,
    within: float = 0.7,
    signal: float = 1.0,
    seed: int = 0,
) -> Task:
    """Chung-Lu graph of any size whose degrees follow a power law, with classes, built in O(edges).

    Args:
        n: nodes.
        degree: requested mean number of neighbours; repeats and loops are dropped, so a little fewer come out.
        exponent: of the degree distribution, above 2.
        within: share of edges that stay in a class.
    """
    refuse_in_worker("powerlaw")
    _check("powerlaw", {"n": n}, classes=classes, d=d, degree=degree, within=within, signal=signal, seed=seed)
    if not 2 < exponent < math.inf:
        raise UserError(f"powerlaw: exponent: expected a number above 2 (a finite mean degree), got {exponent}")
    rng = np.random.default_rng([seed, n, d, classes, 3])
    labels = rng.permutation(np.arange(n) % classes)
    weight = rng.permutation((np.arange(n) + 1.0) ** (-1.0 / (exponent - 1.0)))
    src, dst = _block_edges(rng, labels, int(n * degree / 2), within, weight)
    features = rng.standard_normal((n, d), dtype=np.float32)
    features += (_directions(rng, classes, d) * signal).astype(np.float32)[labels]
    return Task(
        name="powerlaw",
        kind="node",
        graph=graph_of(src, dst, n, undirected=True),
        features=torch.from_numpy(features),
        labels=torch.from_numpy(labels.astype(np.int64)),
        num_classes=classes,
        note="built in: synthetic",
    )


def _block_edges(
    rng: np.random.Generator,
    labels: NumpyArray,
    count: int,
    within: float,
    weight: NumpyArray | None = None,
) -> tuple[NumpyArray, NumpyArray]:
    """`count` edges, repeats possible; ends drawn by `weight` ([N], None for equal), inside a class or anywhere."""
    mass = np.ones(len(labels)) if weight is None else weight
    order = np.argsort(labels, kind="stable")
    cumulative = np.concatenate([[0.0], np.cumsum(mass[order])])
    src = _draw(rng, cumulative, np.zeros(count), np.full(count, cumulative[-1]))
    first = np.searchsorted(labels[order], np.arange(int(labels.max()) + 2))
    own = labels[order][src]
    stays = rng.random(count) < within
    low = np.where(stays, cumulative[first[own]], 0.0)
    high = np.where(stays, cumulative[first[own + 1]], cumulative[-1])
    return order[src], order[_draw(rng, cumulative, low, high)]


def _draw(rng: np.random.Generator, cumulative: NumpyArray, low: NumpyArray, high: NumpyArray) -> NumpyArray:
    at = low + rng.random(len(low)) * (high - low)
    drawn: NumpyArray = np.clip(np.searchsorted(cumulative, at, side="right") - 1, 0, len(cumulative) - 2)
    return drawn


def _directions(rng: np.random.Generator, classes: int, d: int) -> NumpyArray:
    """[classes, d] random vectors of unit length."""
    drawn = rng.standard_normal((classes, d))
    unit: NumpyArray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


LARGEST = 2**30
"""Numbers that a generated set may have: nodes times (features, classes, neighbours), 8 GiB while it is made."""


def _check(
    name: str,
    nodes: dict[str, int],
    *,
    graphs: int = 1,
    classes: int,
    d: int,
    degree: float,
    within: float,
    signal: float,
    seed: int,
) -> None:
    """Raises UserError for arguments outside their range, before anything is made; `nodes` is one, by its name."""
    for what, value in (nodes | {"classes": classes, "d": d}).items():
        if value < 1:
            raise UserError(f"{name}: {what}: expected a positive number, got {value}")
    for what, number in {"degree": degree, "seed": seed}.items():
        if not 0 <= number < math.inf:
            raise UserError(f"{name}: {what}: expected 0 or more, got {number}")
    if not 0 <= within <= 1:
        raise UserError(f"{name}: within: expected a share in [0, 1], got {within}")
    if not math.isfinite(signal):
        raise UserError(f"{name}: signal: expected a finite number, got {signal}")
    for what, count in nodes.items():
        if (size := count * graphs * (d + classes + degree)) > LARGEST:
            raise UserError(
                f"{name}: {what}: expected nodes times (features + classes + neighbours) of at most {LARGEST:,}, got "
                f"{size:,.0f}; give a smaller set"
            )
