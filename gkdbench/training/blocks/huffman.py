"""Huffman trees as arrays: the paths that the hierarchical softmax of word2vec walks (Mikolov et al. 2013)."""

from __future__ import annotations

import heapq

import torch
from torch import Tensor


def huffman_paths(frequency: Tensor) -> tuple[Tensor, Tensor]:
    """Path of every leaf from the root of the Huffman tree of `frequency`.

    Args:
        frequency: [N] int, how often each leaf occurs.

    Returns:
        node: [N, depth] int64, the inner nodes (0 .. N - 2, the root is N - 2) on the way; 0 behind the end.
        turn: [N, depth] float32, -1 or 1 for the branch taken there, 0 behind the path's end.
    """
    leaves = frequency.numel()
    heap = [(count, leaf) for leaf, count in enumerate(frequency.tolist())]
    heapq.heapify(heap)
    parent, side = [0] * (2 * leaves - 1), [0.0] * (2 * leaves - 1)
    for inner in range(leaves, 2 * leaves - 1):
        (first, a), (second, b) = heapq.heappop(heap), heapq.heappop(heap)
        parent[a], parent[b], side[a], side[b] = inner, inner, -1.0, 1.0
        heapq.heappush(heap, (first + second, inner))
    paths = []
    for leaf in range(leaves):
        at, path = leaf, []
        while at != 2 * leaves - 2:
            path.append((parent[at] - leaves, side[at]))
            at = parent[at]
        paths.append(path[::-1])
    depth = max(map(len, paths), default=0)
    padded = [path + [(0, 0.0)] * (depth - len(path)) for path in paths]
    table = torch.tensor(padded, dtype=torch.float64).reshape(leaves, depth, 2)
    return table[..., 0].long(), table[..., 1].float()
