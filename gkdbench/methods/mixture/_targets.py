"""The distillation targets of a mixture student: the teacher's logits of each node, or of reliable neighbours too."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from gkdbench.data.nodes import NodeSet
from gkdbench.errors import UserError
from gkdbench.methods.mixture._fields import MixtureFields
from gkdbench.nn.random import Randomness
from gkdbench.protocol.view import Context, Teacher, TrainView
from gkdbench.training.blocks.pairs import PairTargets, Reliability, noise_sensitivity, pair_kl, tempered, without_loops
from gkdbench.training.losses import kl_to_teacher
from gkdbench.training.models import load_teacher_model


class TeacherLoss:
    """The transfer term at the method's temperature, over observed items.

    With ``reliable`` a node learns from itself and from those in-neighbours j of which ``1 - rho_j^a`` lets an epoch
    draw the edge (KRD's sampler), from the first epoch on; a follows the student from epoch `update_from` on.

    Raises:
        UserError: reliable sampling of a task with several labels per item.
    """

    def __init__(self, method: MixtureFields, view: TrainView, teacher: Teacher) -> None:
        if method.reliable and view.multi_label:
            raise UserError(f"{method.name}: expected one label per item, got several: {method.why_one_label()}")
        self._method, self._view, self._teacher = method, view, teacher
        self._logs = scaled if method.as_released else tempered
        self._reliability: Reliability | None = None

    def begin(self, epoch: int, randomness: Randomness, answer: Callable[[], Tensor]) -> None:
        """Draw the pairs of `epoch`.

        Args:
            answer: the student's logits [N, C] in evaluation mode.
        """
        method, view = self._method, self._view
        if not method.reliable:
            return
        logits = self._teacher.logits[view.inputs.everything]
        if self._reliability is None:
            rho = noise_sensitivity(
                load_teacher_model(self._teacher, view), view.inputs, logits, randomness.key("noise")
            )
            self._reliability = Reliability(
                rho,
                power=method.power,
                momentum=method.momentum,
                bins=method.bins,
                empty_bins=method.as_released,
            )
            edges = without_loops(view.inputs.graph)
            self._targets = PairTargets(edges, logits, tau=method.tau, logs=self._logs)
        if epoch >= method.update_from:
            self._reliability.update(answer().argmax(1) == logits.argmax(1))
        kept = self._reliability.sample(self._targets.edges, randomness.key("pairs"))
        self._asked = self._targets.over(kept)

    def __call__(self, items: Tensor, logits: Tensor) -> Tensor:
        """Scalar of the student's ``logits: [B, C]`` for ``items: [B]`` (positions)."""
        tau, several = self._method.tau, self._view.multi_label
        if self._reliability is not None:
            return pair_kl(logits, self._asked[items], tau=tau, logs=self._logs)
        target = self._teacher.logits[NodeSet(self._view.items, items)]
        if self._method.as_released and not several:
            return scaled_log_probabilities(logits, target, tau=tau)
        return kl_to_teacher(logits, target, tau=tau, multi_label=several)

    def note(self, ctx: Context) -> None:
        """Put the last power and the mean of rho into ``ctx.extra``."""
        if self._reliability is not None:
            ctx.extra |= {"power": self._reliability.power, "mean_rho": float(self._reliability.rho.mean())}


def scaled(logits: Tensor, tau: float) -> Tensor:
    """The official code's ``log softmax(z) / tau`` of ``logits: [M, C]``: the exponentials do not sum to 1."""
    return F.log_softmax(logits, dim=1) / tau


def scaled_log_probabilities(student_logits: Tensor, teacher_logits: Tensor, *, tau: float) -> Tensor:
    """The official code's "KL": ``mean over rows of sum_c exp(a_c) (a_c - b_c)``, a and b `scaled`.

    Not a divergence: it can be negative.

    Args:
        student_logits, teacher_logits: [M, C].
    """
    target = scaled(teacher_logits.detach(), tau)
    return F.kl_div(scaled(student_logits, tau), target, reduction="batchmean", log_target=True)
