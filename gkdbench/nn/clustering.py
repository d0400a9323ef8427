"""k-means on the directions of rows, from features alone: no draw depends on the order of the rows."""

from __future__ import annotations

import torch
from gkdkernels import Features
from gkdkernels.experts.routing import cosines, memory_update, row_norms
from torch import Tensor

RESTARTS, ROUNDS = 4, 50


@torch.no_grad()
def direction_kmeans(x: Features, clusters: int, generator: torch.Generator) -> Tensor:
    """Lloyd's algorithm on the rows of `x` scaled to norm 1; the best of several starts by inertia.

    A start cuts the rows by their largest projection on random directions, after the mean direction is taken out:
    like k-means++ it is seeded, unlike it it does not change with the numbering of the rows.

    Args:
        x: [N, D] features, sparse ones too.
        clusters: E.
        generator: CPU; draws the directions.

    Returns:
        [E, D] float centroids, each the mean of its rows. A cluster that loses all rows keeps its centroid.
    """
    best, least, norms = None, float("inf"), row_norms(x)
    for _ in range(RESTARTS):
        directions = torch.randn(clusters, x.shape[1], generator=generator).to(x.device)
        centroids, inertia = _lloyd(x, norms, directions)
        if best is None or inertia < least * (1 - 1e-6):  # a tie within rounding keeps the first
            best, least = centroids, inertia
    if best is None:
        raise ValueError("RESTARTS: expected at least 1, got 0")
    return best


def _lloyd(x: Features, norms: Tensor, directions: Tensor) -> tuple[Tensor, float]:
    projection = cosines(x, directions, norms=norms)
    owner = (projection - projection.mean(0)).argmax(1)
    centroids = directions / directions.norm(dim=1, keepdim=True)
    for _ in range(ROUNDS):
        centroids = _means(x, norms, owner, centroids)
        size = centroids.norm(dim=1)
        # |xh - c|^2 = 1 - 2 xh.c + |c|^2, with xh.c a cosine times |c|
        distance = 1 - 2 * cosines(x, centroids, norms=norms) * size + size.square()
        nearest, moved = distance.min(1)
        if torch.equal(moved, owner):
            break
        owner = moved
    return centroids, float(nearest.sum())


def _means(x: Features, norms: Tensor, owner: Tensor, centroids: Tensor) -> Tensor:
    """[E, D] the mean unit row of each cluster."""
    index = owner[:, None]
    even = torch.ones_like(index, dtype=centroids.dtype)
    means = memory_update(centroids, x, index, even, decay=0.0, norms=norms)
    empty = torch.bincount(owner, minlength=centroids.size(0)) == 0
    return torch.where(empty[:, None], centroids, means)
