"""Pairs (i, j) along edges, of which student node i learns the teacher's output for node j; which pairs to trust.

All pairs of one student node are summed before the student is looked at: ``sum_j KL(p_j || q_i)`` depends on the
teacher through ``sum_j p_j``, ``sum_j sum_c p_jc log p_jc`` and the number of pairs alone. So an epoch costs one
[N, C + 2] aggregation over the edges, and nothing of size [E, C] is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph, spmm
from torch import Tensor

from gkdbench.nn.model import Model
from gkdbench.protocol.inputs import Inputs
from gkdbench.training.blocks.adversarial import densified

LogProbabilities = Callable[[Tensor, float], Tensor]
"""(logits [M, C], tau) -> [M, C]."""


def tempered(logits: Tensor, tau: float) -> Tensor:
    """``log softmax(z / tau)`` of ``logits: [M, C]``."""
    return F.log_softmax(logits / tau, dim=1)


EDGES_AT_ONCE = 1 << 16
"""Edges whose [C] values are held at a time, where a term needs them edge by edge."""


def without_loops(graph: CSRGraph) -> CSRGraph:
    """`graph` [N x N] less the edges i -> i; the others in their order."""
    proper = graph.index != graph.row
    before = torch.zeros(graph.num_edges + 1, dtype=graph.indptr.dtype, device=graph.device)
    before[1:] = proper.cumsum(0)
    return CSRGraph.trusted(before[graph.indptr.long()], graph.index[proper], graph.num_src, graph.symmetric)


class PairTargets:
    """What the teacher asks of every student node over its pairs: the edges j -> i, and (i, i).

    Args:
        edges: [N x N] without self-loops.
        teacher_logits: [N, C], detached.
        tau: temperature of both sides. logs: how it is used.
    """

    def __init__(
        self, edges: CSRGraph, teacher_logits: Tensor, *, tau: float = 1.0, logs: LogProbabilities = tempered
    ) -> None:
        log_p = logs(teacher_logits.detach(), tau)
        p = log_p.exp()
        negentropy = (p * log_p).sum(dim=1, keepdim=True)
        self.edges, self.tau = edges, tau
        self.own = torch.cat([p, negentropy, torch.ones_like(negentropy)], dim=1)  # [N, C + 2]

    def over(self, weight: Tensor | None = None) -> Tensor:
        """[N, C + 2] for `pair_kl`: summed targets, their summed negative entropies, the number of pairs.

        Args:
            weight: [E] of each edge's pair, 0 for those left out (None: 1); self pairs have weight 1.
        """
        return self.own + spmm(self.edges, self.own, weight)


def pair_kl(student_logits: Tensor, target: Tensor, *, tau: float = 1.0, logs: LogProbabilities = tempered) -> Tensor:
    """``mean over pairs (i, j) of KL(softmax(z_T,j / tau) || softmax(z_S,i / tau))``, without a factor tau^2.

    Args:
        student_logits: [B, C], nodes in any number (a mini-batch has its pairs: those with i in it).
        target: [B, C + 2], the same rows of `PairTargets.over`.
        logs: as of `PairTargets`.
    """
    mass, negentropy, count = target[:, :-2], target[:, -2], target[:, -1]
    log_q = logs(student_logits, tau)
    return (negentropy.sum() - (mass * log_q).sum()) / count.sum()


def entropies(logits: Tensor) -> Tensor:
    """[N] entropy of ``softmax(logits)``, in nats; ``logits: [N, C]``."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


@torch.no_grad()
def noise_sensitivity(teacher: Model, inputs: Inputs, teacher_logits: Tensor, key: int) -> Tensor:
    """rho [N] in [0, 1]: how far noise on the features moves each node's entropy, over the largest move
    (Wu et al. 2023, eq. 5), ``|H(p_T(A, X + delta)) - H(p_T(A, X))|`` with delta ~ N(0, 1).

    Noise fills every zero, so sparse features are made dense here: N * D floats, once a run.

    Args:
        teacher: in evaluation mode.
        teacher_logits: [N, C], its answer to `inputs` as they are.
        key: of the noise.
    """
    clean = densified(inputs.features)
    generator = torch.Generator(device=clean.device).manual_seed(key)
    noise = torch.empty_like(clean).normal_(generator=generator)
    noisy = teacher(noise.add_(clean), inputs.graph, inputs.segments)
    moved = (entropies(noisy) - entropies(teacher_logits)).abs()
    return moved / moved.max().clamp_min(torch.finfo(moved.dtype).tiny)


def drawn(probability: Tensor, key: int) -> Tensor:
    """[E] 1 with `probability` ([E]), else 0; drawn on the device of `probability`."""
    generator = torch.Generator(device=probability.device).manual_seed(key)
    return torch.bernoulli(probability, generator=generator)


class Reliability:
    """Which teacher nodes to learn from: node j's pairs are kept with ``1 - rho_j^a`` (Wu et al. 2023, eq. 6).

    The power a follows the student (eq. 8): ``a <- m a + (1 - m) a_fit``. A sampler that works from the first epoch
    calls `sample` at once, with the power it starts from, and `update` later.

    Args:
        rho: [N], `noise_sensitivity`.
        power: a at the start. momentum: m. bins: of rho, for the fit.
        empty_bins: bins without nodes count as bins without agreement, as in the official code.
    """

    def __init__(
        self, rho: Tensor, *, power: float = 1.0, momentum: float = 0.99, bins: int = 50, empty_bins: bool = False
    ) -> None:
        self.rho, self.power, self.momentum = rho, power, momentum
        self._bins, self._empty_bins = bins, empty_bins

    def keep(self) -> Tensor:
        """[N] the probability that a pair of this teacher node is kept."""
        return 1 - self.rho**self.power

    def sample(self, edges: CSRGraph, key: int) -> Tensor:
        """[E] 1 for edges j -> i whose pair is kept, else 0: a weight for `PairTargets.over`."""
        return drawn(self.keep()[edges.index.long()], key)

    def update(self, agree: Tensor) -> None:
        """Move the power towards the fit to where student and teacher `agree` ([N] bool)."""
        fitted = fitted_power(self.rho, agree, bins=self._bins, empty_bins=self._empty_bins)
        if fitted is not None:
            self.power = self.momentum * self.power + (1 - self.momentum) * fitted


POWERS = (1e-2, 1e2)


def fitted_power(rho: Tensor, agree: Tensor, *, bins: int, empty_bins: bool = False) -> float | None:
    """The a in [0.01, 100] for which ``1 - x^a`` is nearest, in squares, to the share of agreements in bins of rho.

    Shares are scaled to [0, 1] over the bins; x is a bin's left border + 0.05, whatever their number (the official
    code).

    Args:
        rho: [N] in [0, 1]. agree: [N] bool.
        empty_bins: give bins without nodes the share 0; otherwise they are left out.

    Returns:
        None where all shares are equal, so that no power is nearer than another.
    """
    place = (rho.double() * bins).long().clamp_max(bins - 1)
    count = torch.bincount(place, minlength=bins)
    share = (torch.bincount(place[agree], minlength=bins) / count.clamp_min(1)).cpu().numpy()
    x = np.arange(bins) / bins + 0.05
    if not empty_bins:
        filled = (count > 0).cpu().numpy()
        share, x = share[filled], x[filled]
    if share.max() == share.min():
        return None
    y = (share - share.min()) / (share.max() - share.min())
    low, high = np.log(POWERS)
    from scipy.optimize import minimize_scalar  # half a second, for the one method that fits a power

    found = minimize_scalar(lambda a: float(((1 - x ** np.exp(a) - y) ** 2).sum()), bounds=(low, high))
    return float(np.exp(found.x))
