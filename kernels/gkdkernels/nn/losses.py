"""Distillation losses as modules: `mutual_kl` and `structure_kl` with the arguments of most uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gkdkernels.mutual_kl.op import mutual_kl
from gkdkernels.nn.edges import Edges, as_graph
from gkdkernels.structure_kl.kernel_functions import Sigma, check_kernel
from gkdkernels.structure_kl.op import structure_kl


class MutualKL(nn.Module):
    """What each of K peers learns from the others (Zhang et al. 2018).

    ``loss_j = CE_j + tau^2 mean_{i != j} KL(p_i || p_j)``, p the softmax of logits over the temperature `tau`; KL is
    torch's ``kl_div(log p_j, p_i, reduction="batchmean")``.

    Args:
        tau: above 0.
        detach_target: the teacher's side is a constant.

    Raises:
        ValueError: a `tau` that is not a positive number.
    """

    def __init__(self, tau: float = 1.0, *, detach_target: bool = True) -> None:
        super().__init__()
        if not 0.0 < tau < float("inf"):
            raise ValueError(f"tau: expected a positive number, got {tau!r}")
        self.tau, self.detach_target = float(tau), detach_target

    def forward(
        self, logits: Tensor | Sequence[Tensor], targets: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """[K] one loss for each peer.

        Args:
            logits: [K, N, C] float, K at least 2, or K tensors [N, C].
            targets: [N] int labels, negative for none; None leaves out the cross-entropy.
            mask: [N] bool, the rows of the KL; None for all.

        Raises:
            ValueError: fewer than two peers, or shapes that do not fit.
        """
        peers = list(logits)
        if len(peers) < 2:
            raise ValueError(f"logits: expected at least 2 peers, got {len(peers)}")
        soft = peers if self.tau == 1.0 else [one / self.tau for one in peers]
        share = self.tau**2 / (len(peers) - 1)
        losses, _ = mutual_kl(
            soft,
            pair_weight=torch.full((len(peers), len(peers)), share, device=peers[0].device),
            kl_mask=mask,
            targets=targets,
            ce_logits=None if targets is None else peers,
            detach_target=self.detach_target,
        )
        return losses

    def extra_repr(self) -> str:
        return f"tau={self.tau}"


class StructureKL(nn.Module):
    """How far a student's local structure is from a teacher's (Yang et al. 2020): `structure_kl`.

    Args:
        kernel: the similarity of two nodes: "rbf", "cosine", "poly", "laplace", ...
        sigma: its width, or "auto".

    Raises:
        ValueError: an unknown kernel, or a bad width.
    """

    def __init__(self, kernel: str = "rbf", sigma: Sigma = "auto") -> None:
        super().__init__()
        check_kernel(kernel, sigma)
        self.kernel, self.sigma = kernel, sigma

    def forward(self, student: Tensor, teacher: Tensor, edge_index: Edges) -> Tensor:
        """[] the divergence, differentiable in `student`.

        Args:
            student: [N, F] float.
            teacher: [N, F'], or, with a `CSRGraph`, the [E] log-probabilities of `edge_log_probs`.
            edge_index: [2, E], or a square `CSRGraph`.

        Raises:
            ValueError: shapes that do not fit.
        """
        if teacher.dim() == 1 and isinstance(edge_index, Tensor):
            raise ValueError("edge_index: expected the CSRGraph of the teacher's log-probabilities, got a tensor")
        graph, _ = as_graph(edge_index, student.size(0), student.size(0))
        return structure_kl(graph, student, teacher, kernel=self.kernel, sigma=self.sigma)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, sigma={self.sigma}"
