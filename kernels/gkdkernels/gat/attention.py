"""The coefficients of attention themselves, for a loss on them or to look at; `gat_aggregate` keeps them to itself."""

from __future__ import annotations

import torch
from torch import Tensor

from gkdkernels.core.autocast import autocast_off, promoted
from gkdkernels.gat.reference import gat_attention_reference
from gkdkernels.graph import CSRGraph, check_graph


def gat_attention(graph: CSRGraph, el: Tensor, er: Tensor, negative_slope: float = 0.2) -> Tensor:
    """[E, H] the coefficients by which `gat_aggregate` weighs the in-edges, before dropout: ``softmax`` over the
    in-edges of i of ``leaky_relu(el_j + er_i)``.

    Plain torch on any device, differentiable any number of times in `el` and `er`; for a layer whose coefficients
    enter a loss, call it beside `gat_aggregate` on the same scores: the gradients add up.

    Args:
        graph: num_dst x num_src, E edges.
        el: [num_src, H] float, the sources' part of the score; `er`: [num_dst, H], the destinations'. fp16 and bf16 are
            computed, and returned, in fp32.
        negative_slope: of the leaky ReLU, in [0, 1].

    Raises:
        ValueError: a value out of range, or a wrong shape, dtype or device.

    Example:
        >>> graph = CSRGraph.from_edge_index(torch.tensor([[1, 2], [0, 0]]), 3)  # 1 -> 0, 2 -> 0
        >>> gat_attention(graph, torch.tensor([[0.0], [0.0], [1.0]]), torch.zeros(3, 1)).flatten()
        tensor([0.2689, 0.7311])
    """
    check_graph(graph)
    el, er = promoted(el, er)
    for name, tensor, rows in (("el", el, graph.num_src), ("er", er, graph.num_dst)):
        if tensor.dim() != 2 or tensor.shape != (rows, el.size(-1)):
            raise ValueError(f"{name}: expected shape [{rows}, H], got {tuple(tensor.shape)}")
        if not torch.is_floating_point(tensor) or tensor.dtype != el.dtype or tensor.device != graph.device:
            raise ValueError(
                f"{name}: expected the float dtype of el on the graph's device {graph.device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    if not 0.0 <= negative_slope <= 1.0:
        raise ValueError(f"negative_slope: expected a value in [0, 1], got {negative_slope}")
    with autocast_off(el.device):
        return gat_attention_reference(graph, el, er, negative_slope)
