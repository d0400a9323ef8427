"""What `mutual_kl` is given: the logits of K peers, the weights between them, rows and labels; checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_on, promoted
from gkdkernels.core.indices import check_indices_of

PeerLogits = Tensor | Sequence[Tensor]


class Peers:
    """K logits [N, C] of one dtype and device, from a stack or a sequence.

    Attributes:
        given: what autograd sees, ``[stack]`` or the K tensors; `stacked` is true for the first.
        each: the K tensors [N, C], views of the stack.
        wide: the dtype of the computation.
    """

    count: int
    rows: int
    classes: int
    device: torch.device
    wide: torch.dtype

    def __init__(self, logits: PeerLogits, name: str = "logits", like: Peers | None = None) -> None:
        self.stacked = isinstance(logits, Tensor)
        self.given: list[Tensor] = [logits] if isinstance(logits, Tensor) else list(logits)
        if isinstance(logits, Tensor) and logits.dim() != 3:
            raise ValueError(f"{name}: expected shape [K, N, C] or a sequence of K [N, C], got {tuple(logits.shape)}")
        if not self.stacked and self.given and autocast_on(self.given[0].device):
            self.given = [z for z in promoted(*self.given) if z is not None]
        self.each = list(logits.unbind(0)) if isinstance(logits, Tensor) else self.given
        if not self.each:
            raise ValueError(f"{name}: expected at least one peer, got none")
        first = self.each[0]
        self.count, self.device = len(self.each), first.device if like is None else like.device
        self.wide = torch.promote_types(first.dtype, torch.float32)
        if not first.is_floating_point():
            raise ValueError(f"{name}: expected a float dtype, got {first.dtype}")
        if first.dim() != 2:
            raise ValueError(f"{name}[0]: expected shape [N, C], got {tuple(first.shape)}")
        self.rows, self.classes = first.shape if like is None else (like.rows, like.classes)
        if like is not None and self.count != like.count:
            raise ValueError(f"{name}: expected {like.count} peers, as many as logits, got {self.count}")
        for k, z in enumerate(self.each):
            if z.shape != (self.rows, self.classes):
                raise ValueError(f"{name}[{k}]: expected shape {[self.rows, self.classes]}, got {tuple(z.shape)}")
            if z.dtype != first.dtype or z.device != self.device:
                raise ValueError(f"{name}[{k}]: expected {first.dtype} on {self.device}, got {z.dtype} on {z.device}")


@dataclass(eq=False, slots=True)
class LogitTerms:
    """What is asked of one set of logits: the KL (a weight), the cross-entropy (targets), the entropy (a flag).

    Attributes:
        weight: [K, K], or [N, K, 1] per node and teacher, in the dtype of the computation.
    """

    peers: Peers
    weight: Tensor | None = None
    kl_mask: Tensor | None = None
    targets: Tensor | None = None
    entropy: bool = False
    entropy_mask: Tensor | None = None

    def scale(self, ce_weight: float, entropy_weight: float, multi_label: bool) -> Tensor:
        """[3] what one row (one label, with several) counts in KL, cross-entropy and entropy: weights over row counts.

        A tensor, so that a GPU is not waited for.
        """
        labels = self.peers.classes if multi_label else 1
        one = torch.ones((), dtype=self.peers.wide, device=self.peers.device)
        every = one * (self.peers.rows * labels)
        kl, entropy = (
            every if mask is None else mask.sum() * (one * labels) for mask in (self.kl_mask, self.entropy_mask)
        )
        ce = every if self.targets is None else self._labelled(self.targets).sum() * one
        return torch.stack([one, one * ce_weight, one * entropy_weight]) / torch.stack([kl, ce, entropy]).clamp(min=1)

    def _labelled(self, targets: Tensor) -> Tensor:
        """`known`, without the classes out of range that a GPU leaves out."""
        there = known(targets)
        return there if targets.is_floating_point() else there & (targets < self.peers.classes)


def known(targets: Tensor) -> Tensor:
    """Where there is a label: classes >= 0, or labels that are not NaN."""
    return ~targets.isnan() if targets.is_floating_point() else targets >= 0


def pair_weight_of(weight: Tensor, peers: Peers) -> Tensor:
    """`weight` as [K, K] or [N, K, 1], in the dtype of the computation."""
    count, rows, shape = peers.count, peers.rows, tuple(weight.shape)
    if shape not in ((count,), (count, count), (rows, count), (rows, count, 1)):
        raise ValueError(
            f"pair_weight: expected shape [{count}, {count}], [{count}] or [{rows}, {count}] (pairs, teachers, or "
            f"nodes x teachers), got {shape}"
        )
    if not weight.is_floating_point() or weight.device != peers.device:
        raise ValueError(
            f"pair_weight: expected a float dtype on {peers.device}, got {weight.dtype} on {weight.device}"
        )
    weight = weight.to(peers.wide)
    if weight.dim() == 1:
        return weight[:, None].expand(count, count)
    return weight if weight.dim() == 3 or shape == (count, count) else weight[..., None]


def check_mask(mask: Tensor | None, name: str, peers: Peers) -> None:
    """Refuse a mask that is not [N] bool."""
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != (peers.rows,) or mask.device != peers.device:
        raise ValueError(
            f"{name}: expected bool of shape [{peers.rows}] on {peers.device}, got {mask.dtype} of {tuple(mask.shape)} "
            f"on {mask.device}"
        )


def check_range(targets: Tensor | None, classes: int) -> None:
    """Refuse a class outside [0, C) on the CPU; on a GPU the kernels leave it out, see `gkdkernels.check_indices`.

    Raises:
        ValueError: a class of C or more.
    """
    if targets is not None and not targets.is_floating_point():
        check_indices_of("targets", targets, classes, negative=True)


def check_targets(targets: Tensor | None, multi_label: bool, peers: Peers) -> None:
    """Refuse targets that are not [N] classes, or [N, C] labels where there are several."""
    if targets is None:
        return
    wanted = (peers.rows, peers.classes) if multi_label else (peers.rows,)
    kind = "float" if multi_label else "int32 or int64"
    fits = targets.is_floating_point() if multi_label else targets.dtype in (torch.int32, torch.int64)
    if targets.shape != wanted or not fits or targets.device != peers.device:
        hint = "; use multi_label=True for several labels per item" if targets.is_floating_point() and not fits else ""
        raise ValueError(
            f"targets: expected {kind} of shape {list(wanted)} on {peers.device}, got {targets.dtype} of "
            f"{tuple(targets.shape)} on {targets.device}{hint}"
        )
