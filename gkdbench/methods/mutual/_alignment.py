"""The losses of aligned students: each one's task, and the divergence of its layers from those that they follow."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from gkdkernels import edge_log_probs
from gkdkernels.structure_kl.kernel_functions import Sigma
from gkdkernels.structure_kl.op import divergence
from torch import Tensor

from gkdbench.methods.mutual._deep_supervision import DeepSupervision
from gkdbench.training.blocks.gradient_share import GradientShare
from gkdbench.training.mutual import JointForward, Peer
from gkdbench.training.mutual_method import label_losses


class AlignmentLosses:
    """The losses of all students (`PeerLossFunction`), and the share of the alignment in each one's gradient.

    Args:
        deep: the auxiliary parts of each student; empty without deep supervision.
        followed: the hidden layer of a co-student that each hidden layer follows; empty: nothing is aligned.
        structure: kernel and width of the local structure.
        a, b: weights of the alignment and of the feature transfer.
    """

    def __init__(
        self,
        peers: list[Peer],
        deep: list[DeepSupervision],
        *,
        followed: list[int],
        structure: tuple[str, Sigma],
        a: float,
        b: float,
        multi_label: bool,
    ) -> None:
        self._deep, self._followed, self._structure = deep, followed, structure
        self._a, self._b, self._multi_label = a, b, multi_label
        aligned = followed and (a or deep)
        self.shares = [GradientShare(peer.model.parameters()) for peer in peers] if aligned else []

    def __call__(self, joint: JointForward) -> tuple[Tensor, Mapping[str, Tensor]]:
        tasks = label_losses(joint, joint.logits, multi_label=self._multi_label)
        turns = range(len(joint.traces)) if joint.turn is None else [joint.turn]
        if self._deep:
            auxiliary = [deep.loss(joint, m, self._multi_label) for m, deep in enumerate(self._deep)]
            tasks = tasks + torch.stack(auxiliary)
        if not self.shares:
            return tasks, {}
        maps = self._maps(joint) if self._a else []
        losses, diagnostics = list(tasks), dict[str, Tensor]()
        for m in turns:
            transfer = tasks.new_zeros(())
            if maps:
                layers = self._divergences(joint, maps, m)
                diagnostics |= {
                    f"structure.peer{m}.layer{i}": value for i, value in enumerate(layers.detach(), start=1)
                }
                transfer = transfer + self._a * layers.sum()
            if self._deep:
                transfer = transfer + self._b * self._features(joint, m)
            self.shares[m].look(joint.epoch, tasks[m], transfer)
            diagnostics[f"gradient_share.peer{m}"] = tasks.new_tensor(self.shares[m].value)
            losses[m] = tasks[m] + transfer
        return torch.stack(losses), diagnostics

    def _maps(self, joint: JointForward) -> list[list[Tensor]]:
        """Per student and hidden layer its local structure [E], once."""
        graph, (kernel, sigma) = joint.inputs.graph, self._structure
        return [[edge_log_probs(graph, h, kernel, sigma) for h in trace.hidden] for trace in joint.traces]

    def _divergences(self, joint: JointForward, maps: list[list[Tensor]], m: int) -> Tensor:
        """[L] of student m's layers from those that they follow, a mean over co-students."""
        others, nodes = [other for other in range(len(maps)) if other != m], joint.inputs.graph.num_dst
        return torch.stack(
            [
                torch.stack([divergence(maps[o][followed].detach(), own, nodes) for o in others]).mean()
                for followed, own in zip(self._followed, maps[m], strict=True)
            ]
        )

    def _features(self, joint: JointForward, m: int) -> Tensor:
        """The feature transfer into student m, a mean over co-students."""
        own = joint.traces[m].hidden
        followed = [[t.hidden[layer] for layer in self._followed] for o, t in enumerate(joint.traces) if o != m]
        return torch.stack([self._deep[m].transfer(own, targets) for targets in followed]).mean()
