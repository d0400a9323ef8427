"""What the operators should give, by plain loops in fp64: nothing here is shared with the kernels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

Edges = tuple[list[int], list[int], int, int]
"""(destinations, sources, number of destinations, number of sources); edges sorted by destination."""


def rows_of(edges: Edges) -> list[list[int]]:
    """The edges of each destination."""
    found: list[list[int]] = [[] for _ in range(edges[2])]
    for e, destination in enumerate(edges[0]):
        found[destination].append(e)
    return found


def first_of_the_largest(values: Tensor, dim: int) -> Tensor:
    """Maxima over `dim`, whose gradient goes to the first of equal ones."""
    largest = values.detach() == values.detach().amax(dim, keepdim=True)
    first = largest & (largest.cumsum(dim) == 1)
    return values.where(first, 0).sum(dim)


def neighbour_reduction(edges: Edges, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """[..., num_dst, D] of ``x: [..., num_src, D]``."""
    out = []
    for row in rows_of(edges):
        if not row:
            out.append(x[..., :1, :].sum(-2) * 0 if x.size(-2) else x.sum(-2))
            continue
        messages = x[..., [edges[1][e] for e in row], :]
        if weight is not None:
            messages = messages * weight[row, None]
        if reduce == "max":
            out.append(first_of_the_largest(messages, -2))
        else:
            out.append(messages.sum(-2) / (len(row) if reduce == "mean" else 1))
    return torch.stack(out, -2) if out else x[..., :0, :]


def gcn_weights(edges: Edges) -> Tensor:
    """[E] ``(in-degree of i)^-1/2 (out-degree of j)^-1/2``."""
    into, out_of = ([ends.count(node) for node in range(size)] for ends, size in zip(edges[:2], edges[2:], strict=True))
    roots = [(into[i] * out_of[j]) ** -0.5 for i, j in zip(*edges[:2], strict=True)]
    return torch.tensor(roots, dtype=torch.float64)


def attention(edges: Edges, h: Tensor, el: Tensor, er: Tensor, slope: float, mask: Tensor | None) -> Tensor:
    """[num_dst, H, F]; ``mask: [H, E]`` of the dropout."""
    out = []
    for i, row in enumerate(rows_of(edges)):
        sources = [edges[1][e] for e in row]
        raw = el[sources] + er[i]
        p = torch.where(raw > 0, raw, slope * raw).softmax(0) if row else raw
        if mask is not None:
            p = p * mask[:, row].t()
        out.append((p[:, :, None] * h[sources]).sum(0))
    return torch.stack(out) if out else h[:0]


def edge_distribution(edges: Edges, x: Tensor, kernel: str, sigma: float) -> Tensor:
    """[E] log-softmax over the in-edges of the kernel of both ends."""
    scores = []
    for i, j in zip(*edges[:2], strict=True):
        a, b = x[j], x[i]
        if kernel in ("laplace", "laplace-exp"):
            distance = -(a - b).abs().sum() / sigma
            scores.append(distance.exp() if kernel == "laplace-exp" else distance)
        elif kernel == "rbf":
            scores.append(-(a - b).square().sum() / (2 * sigma**2))
        elif kernel == "rbf-exp":
            scores.append((-(a - b).square().sum() / 2).exp())
        else:
            cosine = (a * b).sum() / (a.norm() * b.norm())
            scores.append(cosine if kernel == "cosine" else cosine.square())
    if not scores:
        return x.flatten()[:0]
    score = torch.stack(scores)
    parts = [score[row].log_softmax(0) for row in rows_of(edges) if row]
    return torch.cat(parts)


def readout(ptr: Sequence[int], x: Tensor, reduce: str) -> Tensor:
    """[G, D], or [N, D] for "softmax"."""
    out = []
    for start, stop in itertools.pairwise(ptr):
        rows = x[start:stop]
        if reduce == "softmax":
            out.append(rows.softmax(0) if stop > start else rows)
        elif stop == start:
            out.append(x.sum(0, keepdim=True) * 0)
        elif reduce == "max":
            out.append(first_of_the_largest(rows, 0)[None])
        else:
            out.append(rows.sum(0, keepdim=True) / (stop - start if reduce == "mean" else 1))
    return torch.cat(out) if out else x[:0]


def distillation(student: Tensor, teacher: Tensor, kind: str, tau: float, mask: Tensor | None) -> Tensor:
    """The mean over rows of KL(teacher || student), rows outside `mask` left out."""
    rows = [i for i in range(student.size(0)) if mask is None or bool(mask[i])]
    total = student.sum() * 0
    for i in rows:
        log_q = (student[i] / tau).log_softmax(-1)
        log_p = {"Logits": (teacher[i] / tau).log_softmax(-1), "Probs": teacher[i].log(), "LogProbs": teacher[i]}[kind]
        total = total + (log_p.exp() * (log_p - log_q)).sum()
    return total / max(1, len(rows))


def mutual(logits: Tensor, weight: Tensor, mask: Tensor | None, targets: Tensor | None, entropy: float) -> Tensor:
    """[K] the loss of every peer; the teacher's side is a constant."""
    log_p = logits.log_softmax(-1)  # [K, N, C]
    peers, nodes = logits.shape[:2]
    rows = [n for n in range(nodes) if mask is None or bool(mask[n])]
    known = [] if targets is None else [n for n in range(nodes) if int(targets[n]) >= 0]
    losses = []
    for j in range(peers):
        loss = logits[j].sum() * 0
        for i in range(peers):
            if i != j:
                gaps = [log_p[i, n].detach() - log_p[j, n] for n in rows]
                kl = [(log_p[i, n].detach().exp() * gap).sum() for n, gap in zip(rows, gaps, strict=True)]
                loss = loss + weight[i, j] * sum(kl) / max(1, len(rows))
        if targets is not None and known:
            loss = loss - sum(log_p[j, n, int(targets[n])] for n in known) / len(known)
        if entropy and nodes:
            loss = loss + entropy * (log_p[j].exp() * log_p[j]).sum() / nodes
        losses.append(loss)
    return torch.stack(losses)


def experts(x: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, alpha: Tensor) -> Tensor:
    """[N, H] the weighted sum of each row's experts."""
    out = []
    for n, chosen in enumerate(index.tolist()):
        total = x.new_zeros(weight.size(2)) + x[n].sum() * 0
        for slot, expert in enumerate(chosen):
            y = x[n] @ weight[expert]
            total = total + alpha[n, slot] * (y if bias is None else y + bias[expert])
        out.append(total)
    return torch.stack(out) if out else x.new_zeros(0, weight.size(2))
