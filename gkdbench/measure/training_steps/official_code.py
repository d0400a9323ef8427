"""Structures of released codes, re-written plainly on torch: what whole training steps are compared with.

Each is built from a model of ours and has the same weights, so that logits, losses and gradients can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gkdkernels import CSRGraph
from torch import Tensor, nn

from gkdbench.nn.gat import GAT, GATLayer
from gkdbench.nn.model import Trace
from gkdbench.nn.rbm import RbMLayer, RbMModel


@dataclass(frozen=True, slots=True)
class Routed:
    """Experts [N, k] of each row, their weights, and the cosines that chose them."""

    index: Tensor
    alpha: Tensor
    score: Tensor


class PlainExperts(nn.Module):
    """One layer: pairs sorted by expert, all inputs gathered, one product and one out-of-place addition per expert."""

    memory: Tensor

    def __init__(self, layer: RbMLayer) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weight.detach().clone() for weight in layer.weight)
        self.biases = nn.ParameterList(bias.detach().clone() for bias in layer.bias)
        self.gates = None if layer.gate is None else nn.ParameterList(gate.detach().clone() for gate in layer.gate)
        self.log_temperature = nn.Parameter(layer.log_temperature.detach().clone())
        self.register_buffer("memory", layer.memory.clone())
        self.k, self.decay, self.p = layer.k, layer.decay, layer.dropout.p

    def forward(self, x: Tensor) -> tuple[Tensor, Routed]:
        """[N, H] from ``x: [N, D]``; every forward in training moves the memory."""
        unit, directions = F.normalize(x, dim=1), F.normalize(self.memory, dim=1)
        score, index = (unit @ directions.t()).topk(self.k, dim=1)
        alpha = score.softmax(1)
        flat, order = index.flatten().sort(stable=True)
        row = order // self.k
        inputs = torch.split(x[row], torch.bincount(flat, minlength=len(self.weights)).tolist())
        share = alpha.detach().flatten()[order]
        out, first = x.new_zeros(x.size(0), self.biases[0].size(0)), 0
        for expert, part in enumerate(inputs):
            last = first + part.size(0)
            if self.gates is not None:
                part = part * self.gates[expert].exp()
            y = torch.addmm(self.biases[expert], F.dropout(part, self.p, self.training), self.weights[expert])
            out = out.index_add(0, row[first:last], y * share[first:last, None])
            first = last
        if self.training:
            self._move(unit.detach(), index, alpha.detach(), directions)
        return out * self.log_temperature.exp(), Routed(index, alpha, score)

    @torch.no_grad()
    def _move(self, unit: Tensor, index: Tensor, alpha: Tensor, directions: Tensor) -> None:
        for expert in range(directions.size(0)):
            row, slot = (index == expert).nonzero(as_tuple=True)
            pull = (alpha[row, slot].softmax(0)[:, None] * unit[row]).sum(0)
            self.memory[expert] = self.decay * directions[expert] + (1 - self.decay) * pull


class PlainRbM(nn.Module):
    """Layers of experts with a ReLU between them."""

    def __init__(self, model: RbMModel) -> None:
        super().__init__()
        self.experts = [PlainExperts(layer) for layer in model.memories]
        self.layers = nn.ModuleList(self.experts)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Routed]]:
        """Logits [N, C] of ``x: [N, D]``, and the routing of each layer."""
        routings = []
        for depth, layer in enumerate(self.experts):
            x, routed = layer(F.relu(x) if depth else x)
            routings.append(routed)
        return x, routings

    def gradients(self) -> list[Tensor]:
        """Of weights, biases and gates, in the order and the shape of our layers' own."""
        kinds = [kind for layer in self.experts for kind in (layer.weights, layer.biases, layer.gates)]
        found = [
            [torch.zeros_like(p) if p.grad is None else p.grad for p in kind] for kind in kinds if kind is not None
        ]
        return [torch.stack(each) for each in found]


def plain_gat(model: GAT, x: Tensor, row: Tensor, col: Tensor) -> Trace:
    """Attention with a tensor of edges x features per layer, on the weights of `model` (no dropout, no skips).

    Args:
        x: [N, D]. row, col: [E] int64, targets and sources of the edges.
    """
    hidden = []
    for depth, (conv, bias) in enumerate(zip(model.convs, model.biases, strict=True)):
        heads = _plain_attention(conv, x, row, col)
        last = depth == model.depth - 1
        out = (heads.mean(1) if last else heads.flatten(1)) + bias
        if not last:
            hidden.append(out)
            x = model.activation(out)
    return Trace(out, tuple(hidden))


def _plain_attention(conv: nn.Module, x: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """[N, H, F]"""
    if not isinstance(conv, GATLayer):
        raise TypeError(f"plain_gat: expected layers of GAT, got {type(conv).__name__}")
    h = (x @ conv.linear.weight).view(-1, conv.heads, conv.features)
    el, er = (h * conv.source).sum(-1), (h * conv.target).sum(-1)
    score = F.leaky_relu(el.index_select(0, col) + er.index_select(0, row), conv.negative_slope)
    p = edge_log_softmax(score, row, h.size(0)).exp()
    return torch.zeros_like(h).index_add(0, row, p[..., None] * h.index_select(0, col))


def edge_log_softmax(score: Tensor, row: Tensor, nodes: int) -> Tensor:
    """[E, ...] log-softmax of ``score`` over the edges of each row."""
    where = row.view(-1, *[1] * (score.dim() - 1)).expand_as(score)
    shape = (nodes, *score.shape[1:])
    peak = score.new_full(shape, -torch.inf).scatter_reduce(0, where, score.detach(), "amax")
    shifted = score - peak.index_select(0, row)
    return shifted - score.new_zeros(shape).index_add(0, row, shifted.exp()).log().index_select(0, row)


def plain_structure_kl(graph: CSRGraph, student: Tensor, teacher: Tensor, sigma: float) -> Tensor:
    """Divergence of local structures (laplace-exp) with the difference of every edge's ends held: [E, F], twice."""
    row, col = graph.row.long(), graph.index.long()

    def log_probs(x: Tensor) -> Tensor:
        apart = x.index_select(0, col) - x.index_select(0, row)
        return edge_log_softmax((-apart.abs().sum(1) / sigma).exp(), row, graph.num_dst)

    with torch.no_grad():
        log_t = log_probs(teacher)
    return (log_t.exp() * (log_t - log_probs(student))).sum() / graph.num_dst
