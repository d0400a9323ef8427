"""Which items go where: one function per rule, on label arrays and index only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from gkdbench.data.build import NumpyArray
from gkdbench.errors import UserError

FOLD_SEED = 12345


class Parts(NamedTuple):
    """Item ids, [M] int64 each; the first `num_unseen` of `test` are absent from training."""

    train: NumpyArray
    val: NumpyArray
    test: NumpyArray
    num_unseen: int = 0

    @classmethod
    def of(cls, parts: Iterable[NumpyArray]) -> Parts:
        """Train, val and test ids as sorted int64."""
        train, val, test = (np.sort(np.asarray(part, np.int64)) for part in parts)
        return cls(train, val, test)


def per_class(
    labels: NumpyArray,
    train: int,
    val: int,
    rng: np.random.RandomState | np.random.Generator,
) -> Parts:
    """`train` items of each class, then `val` of each from what is left, the rest of the labelled items test.

    Classes in ascending order, training drawn for all of them before validation: with ``RandomState(seed)`` the
    rule (and the nodes) of CPF's official loaders, which GLNN, NOSMOG, VQGraph and CoHOp kept.

    Args:
        labels: [N] int64, -1 unknown.

    Raises:
        UserError: a class with fewer than ``train + val + 1`` items.
    """
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    for label, count in zip(classes, counts, strict=True):
        if count <= train + val:
            raise UserError(
                f"class {label}: expected more than {train} (training) + {val} (validation) items, got {count}; none "
                f"is left to test: take a set with more items of this class, or merge it with another"
            )

    def draw(free: NumpyArray, size: int) -> NumpyArray:
        chosen = [rng.choice(np.flatnonzero(free & (labels == label)), size, replace=False) for label in classes]
        return np.concatenate(chosen).astype(np.int64)

    free = labels >= 0
    first = draw(free, train)
    free[first] = False
    second = draw(free, val)
    free[second] = False
    return Parts(first, second, np.flatnonzero(free).astype(np.int64))


def cpf(labels: NumpyArray, seed: int) -> Parts:
    """`cpf-lcc-20-30`: 20 and 30 per class with numpy's legacy generator, as the official code does."""
    return per_class(labels, 20, 30, np.random.RandomState(seed))


def builtin_random(labels: NumpyArray, index: int) -> Parts:
    """20 and 30 per class, a new draw for every index."""
    return per_class(labels, 20, 30, np.random.default_rng([index, 20, 30]))


def unseen_fifth(parts: Parts, seed: int) -> Parts:
    """Permute the test items with the seed; the first ``floor(0.2 n)`` are unseen (rule of GLNN's official code)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(parts.test), generator=generator).numpy()
    return parts._replace(test=parts.test[order], num_unseen=int(len(parts.test) * 0.2))


def all_unseen(parts: Parts) -> Parts:
    """Every test item is unseen."""
    return parts._replace(num_unseen=len(parts.test))


def fold(labels: NumpyArray, index: int) -> Parts:
    """Stratified fold `index` of 10 (seed 12345) as test; a stratified tenth of the rest as validation.

    Raises:
        UserError: a class with fewer than ten items.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split  # type: ignore[import-untyped]

    known = np.flatnonzero(labels >= 0)
    counts = np.bincount(labels[known])
    if (counts[counts > 0] < 10).any():
        raise UserError(
            f"ten stratified folds: expected at least ten items in every class, got counts {counts.tolist()}"
        )
    splitter = StratifiedKFold(10, shuffle=True, random_state=FOLD_SEED)
    rest, test = list(splitter.split(np.zeros(len(known)), labels[known]))[index]
    train, val = train_test_split(
        rest,
        test_size=0.1,
        stratify=labels[known[rest]],
        random_state=FOLD_SEED + index,
    )
    return Parts.of(known[part] for part in (train, val, test))


def random_80_10_10(labels: NumpyArray, index: int) -> Parts:
    """A tenth validation and a tenth test (rounded up), within each class for class labels.

    Args:
        labels: [M] int64 classes with -1 unknown, or [M, L] float with NaN unknown (then not stratified, and
            items without any known label are left out).
    """
    rng = np.random.default_rng([index, 80, 10])
    if labels.ndim == 2:
        groups = [np.flatnonzero(~np.isnan(labels).all(axis=1))]
    else:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    if sum(map(len, groups)) < 3:
        raise UserError(f"a split: expected at least 3 labelled items, got {sum(map(len, groups))}")
    parts: tuple[list[NumpyArray], list[NumpyArray], list[NumpyArray]] = ([], [], [])
    for group in groups:
        order = rng.permutation(group)
        tenth = -(-len(order) // 10)
        for part, ids in zip(
            parts,
            (order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth]),
            strict=True,
        ):
            part.append(ids)
    return Parts.of(np.concatenate(part) for part in parts)


MAKERS: Mapping[str, Callable[[NumpyArray, int], Parts]] = {
    "cpf-lcc-20-30": cpf,
    "builtin-random": builtin_random,
    "random-80-10-10": random_80_10_10,
    "tu-10fold": fold,
}
"""Split id -> (labels of the prepared task, index) -> parts."""
