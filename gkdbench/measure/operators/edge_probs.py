"""`edge_log_probs`: the truth in fp64, and what else computes the structure of a neighbourhood."""

from __future__ import annotations

import torch
from gkdkernels import CSRGraph, edge_log_probs
from gkdkernels.core.cost import Cost, structure_kl_cost
from torch import Tensor

from gkdbench.measure.operators.problem import (
    Case,
    OperatorCall,
    OperatorProblem,
    Tensors,
    by_blocks,
    competitor,
    compiled,
    edge_blocks,
    normal,
    ours,
)
from gkdbench.measure.operators.structure import BLOCK_ELEMENTS, SIGMA, edge_score, row_log_softmax


def problem(case: Case, graph: CSRGraph) -> OperatorProblem:
    """Log-probabilities [E] of the edges. Sizes: width; options: the kernels of `structure_kl`."""
    width, kernel, device, dtype = case.sizes["width"], case.option, graph.device, case.torch_dtype
    x = normal(graph.num_dst, width, seed=5, dtype=dtype, device=device)
    wide = torch.promote_types(dtype, torch.float32)
    upstream = normal(graph.num_edges, seed=17, dtype=wide, device=device)
    row, col = graph.row.long(), graph.index.long()

    def log_probs(x: Tensor, rows: slice, edges: slice) -> Tensor:
        score = edge_score(x, col[edges], row[edges], kernel)
        return row_log_softmax(score, row[edges] - rows.start, rows.stop - rows.start)

    def oracle(inputs: Tensors, g: Tensor) -> dict[str, Tensor]:
        blocks = [(edges, rows) for rows, edges in edge_blocks(graph, max(1, BLOCK_ELEMENTS // width))]
        return by_blocks(inputs, g, blocks, lambda leaves, edges, rows: log_probs(leaves["x"], rows, edges))

    def call(backend: str) -> OperatorCall:
        graph.prepare()
        return lambda t: edge_log_probs(graph, t["x"], kernel, SIGMA, backend=backend)

    def plain(t: Tensors) -> Tensor:
        return log_probs(t["x"].to(wide), slice(0, graph.num_dst), slice(0, graph.num_edges))

    def cost(*, reuse: bool) -> Cost:
        # log-probabilities [E] are written here where structure_kl reads those of a stored teacher
        forth, back = (
            structure_kl_cost(
                graph.num_dst,
                graph.num_edges,
                width,
                backward=backward,
                symmetric=bool(graph.symmetric),
                feature_bytes=dtype.itemsize,
                index_bytes=graph.index.element_size(),
                reuse=reuse,
            )
            for backward in (False, True)
        )
        return forth + back if case.direction == "fwd+bwd" else forth

    others = [competitor("torch index_select", lambda: plain), compiled("torch.compile(index_select)", plain)]
    candidates = [*ours("edge_log_probs", device, call), *others]
    return OperatorProblem({"x": x}, upstream, oracle, candidates, cost(reuse=False), cost(reuse=True))
