"""What each operator must move and compute: bytes and FLOPs as functions of shape.

The bytes are a floor: indices 4 bytes (`index_bytes`), edge and node scalars 4, a feature `b` (`feature_bytes`); each
operand is read once, each result written once. Gathered rows are counted once per edge, as if no cache held them
(``reuse=False``, honest for graphs whose features exceed the cache), or once per node (``reuse=True``, the compulsory
traffic). No [E, D] tensor appears anywhere: that is what the fused kernels are for.
"""

from __future__ import annotations

from dataclasses import dataclass

_SCALAR = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes to and from the memory, floating-point operations (one multiply-add is two)."""

    bytes: int
    flops: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.flops + other.flops)

    def seconds(self, bytes_per_s: float, flops_per_s: float) -> float:
        """The roofline: the slower of moving and computing."""
        return max(self.bytes / bytes_per_s, self.flops / flops_per_s)


def spmm_cost(
    num_dst: int,
    num_src: int,
    edges: int,
    width: int,
    *,
    stacked: int = 1,
    weighted: bool = True,
    reduce: str = "sum",
    backward: bool = False,
    feature_bytes: int = 4,
    index_bytes: int = 4,
    reuse: bool = False,
) -> Cost:
    """`spmm`, forward, or backward in x (the same sum over the transpose; "max": a pass over the winning edges).

    Args:
        width: D; `stacked`: K inputs that share one pass over the indices.
        weighted: a [E] weight is read (in backward its permutation too); False for none, or the norm of node vectors.
    """
    gathered, written = (num_dst, num_src) if backward else (num_src, num_dst)
    cells = stacked * width
    per_edge = index_bytes + (_SCALAR if weighted else 0) * (2 if backward else 1)
    structure = edges * per_edge + (written + 1) * index_bytes
    rows = gathered if reuse else edges
    moved = (rows + written) * cells * feature_bytes + structure
    if reduce == "max":
        moved += (rows if backward else num_dst) * cells * _SCALAR  # the winning edge, gathered with the gradient
        return Cost(moved, edges * cells)
    return Cost(moved, 2 * edges * cells)


def gat_cost(
    num_dst: int,
    num_src: int,
    edges: int,
    heads: int,
    width: int,
    *,
    backward: bool = False,
    feature_bytes: int = 4,
    index_bytes: int = 4,
    reuse: bool = False,
) -> Cost:
    """`gat_aggregate`; backward is the one-gather form, with its node-level products.

    Args:
        width: F, of one head.
    """
    cells = heads * width
    if not backward:
        rows = num_src if reuse else edges
        moved = edges * (index_bytes + heads * _SCALAR) + rows * cells * feature_bytes
        moved += num_dst * (2 * cells * feature_bytes + 3 * heads * _SCALAR)  # o and o_n; er, lse, q_n
        return Cost(moved, 4 * edges * cells)
    rows = num_dst if reuse else edges
    moved = edges * (2 * index_bytes + 3 * heads * _SCALAR) + rows * cells * feature_bytes  # er, lse and delta
    moved += num_dst * (3 * cells * feature_bytes + 4 * heads * _SCALAR)  # g, o and o_n for delta and d er
    moved += num_src * (2 * cells * feature_bytes + 2 * heads * _SCALAR)  # h, d h; el, d el
    return Cost(moved, 4 * edges * cells + 4 * num_dst * cells + 2 * num_src * cells)


def mutual_kl_cost(peers: int, nodes: int, classes: int, *, feature_bytes: int = 4) -> Cost:
    """`mutual_kl`, loss and gradient in one pass: one read and one write of the logits."""
    cells = peers * nodes * classes
    return Cost(2 * cells * feature_bytes, nodes * (8 * peers * classes + 4 * peers * peers * classes))


def experts_cost(
    nodes: int,
    width: int,
    out: int,
    experts: int,
    chosen: int,
    *,
    backward: bool = False,
    feature_bytes: int = 4,
) -> Cost:
    """Routing by memory and one linear layer per expert, `chosen` experts a node.

    Forward reads every feature once for the routing and once per chosen expert; backward takes the gradient of
    the features and of the weights, two products of the forward's size.
    """
    rows = nodes * chosen
    weights = experts * width * (out + 1)  # the memory is one vector per expert
    moved = (nodes * width + rows * width + weights + nodes * out) * feature_bytes + 12 * rows
    product = 2 * rows * width * out
    routing = 2 * nodes * width * experts
    if not backward:
        return Cost(moved, product + routing)
    moved = (2 * rows * width + nodes * width + 2 * weights + nodes * out) * feature_bytes + 12 * rows
    return Cost(moved, 2 * product + 2 * rows * width)


def route_by_memory_cost(
    nodes: int, width: int, experts: int, chosen: int, *, backward: bool = False, feature_bytes: int = 4
) -> Cost:
    """`route_by_memory`: rows and memory are read, index, alpha and cosine written; backward forms both gradients."""
    read = (nodes + experts) * width * feature_bytes
    product = 2 * nodes * width * experts
    if not backward:
        return Cost(read + 12 * nodes * chosen, product)
    return Cost(2 * read + 12 * nodes * chosen, 2 * product)


def expert_linear_cost(
    nodes: int, width: int, out: int, experts: int, chosen: int, *, backward: bool = False, feature_bytes: int = 4
) -> Cost:
    """`expert_linear` of given routes: each row once per chosen expert; backward as two products of this size."""
    rows = nodes * chosen
    weights = experts * (width + 1) * out  # with the bias
    moved = (rows * width + weights + nodes * out) * feature_bytes + 8 * rows  # index and alpha
    product = 2 * rows * width * out
    if not backward:
        return Cost(moved, product)
    return Cost((2 * rows * width + 2 * weights + nodes * out) * feature_bytes + 12 * rows, 2 * product)


def soft_kl_cost(nodes: int, classes: int, *, feature_bytes: int = 4) -> Cost:
    """`soft_kl` with a constant target: student and target are read, one gradient and the rows' divergences written."""
    cells = nodes * classes
    return Cost(3 * cells * feature_bytes + _SCALAR * nodes, 12 * cells)


def structure_kl_cost(
    nodes: int,
    edges: int,
    width: int,
    *,
    teacher_width: int = 0,
    backward: bool = False,
    symmetric: bool = True,
    feature_bytes: int = 4,
    index_bytes: int = 4,
    reuse: bool = False,
) -> Cost:
    """`structure_kl`; `teacher_width` 0 stands for stored teacher log-probabilities [E]."""
    rows = nodes if reuse else edges
    if not backward:
        teacher = rows * teacher_width * feature_bytes if teacher_width else edges * _SCALAR
        moved = edges * index_bytes + rows * width * feature_bytes + teacher
        moved += nodes * ((width + teacher_width) * feature_bytes + 4 * _SCALAR)
        return Cost(moved, 2 * edges * (width + teacher_width))
    passes = 1 if symmetric else 2
    moved = passes * (edges * (index_bytes + 3 * _SCALAR) + rows * width * feature_bytes)
    moved += nodes * (2 * width * feature_bytes + 3 * _SCALAR)
    return Cost(moved, passes * 4 * edges * width)


def segment_cost(
    rows: int, segments: int, width: int, *, softmax: bool = False, backward: bool = False, feature_bytes: int = 4
) -> Cost:
    """The readouts: one read of the long side and one write of the short one, or the reverse; softmax: long to long."""
    if softmax:
        reads = 2 if backward else 1
        return Cost((reads + 1) * rows * width * feature_bytes + 4 * segments, 4 * rows * width)
    return Cost((rows + segments) * width * feature_bytes + 4 * segments, rows * width)


def edge_dot_cost(
    num_dst: int,
    num_src: int,
    edges: int,
    width: int,
    *,
    backward: bool = False,
    feature_bytes: int = 4,
    index_bytes: int = 4,
    reuse: bool = False,
) -> Cost:
    """`edge_dot`: the sources' rows gathered, the destinations' read once; backward: two weighted neighbour sums."""
    if backward:
        sizes = {"feature_bytes": feature_bytes, "index_bytes": index_bytes, "reuse": reuse}
        return spmm_cost(num_dst, num_src, edges, width, **sizes) + spmm_cost(  # type: ignore[arg-type]
            num_dst,
            num_src,
            edges,
            width,
            backward=True,
            **sizes,  # type: ignore[arg-type]
        )
    rows = (num_src if reuse else edges) + num_dst
    moved = rows * width * feature_bytes + edges * (index_bytes + feature_bytes) + (num_dst + 1) * index_bytes
    return Cost(moved, 2 * edges * width)


def edge_softmax_cost(edges: int, num_dst: int, heads: int, *, backward: bool = False, feature_bytes: int = 4) -> Cost:
    """`edge_softmax`: a segment for each destination."""
    return segment_cost(edges, num_dst, heads, softmax=True, backward=backward, feature_bytes=feature_bytes)
