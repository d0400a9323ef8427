"""gkdkernels: fused operators for graph distillation."""

from gkdkernels.conversions import from_pyg, from_torch_sparse, with_self_loops
from gkdkernels.core.dispatch import Explanation, explain
from gkdkernels.core.dropout import keyed_dropout
from gkdkernels.core.indices import check_indices
from gkdkernels.core.matmul_cpu import matrix_product
from gkdkernels.experts.folded import fold_experts, rbm_layer
from gkdkernels.experts.folded_types import BatchNormStatistics, FoldedExperts
from gkdkernels.experts.op import expert_linear
from gkdkernels.experts.routing import memory_update, route_by_memory, route_by_scores
from gkdkernels.gat.attention import gat_attention
from gkdkernels.gat.op import gat_aggregate
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures, feature_rows
from gkdkernels.mutual_kl.op import mutual_kl
from gkdkernels.segment.edge_softmax import edge_softmax
from gkdkernels.segment.op import segment_max, segment_mean, segment_softmax, segment_sum
from gkdkernels.soft_kl.op import soft_kl
from gkdkernels.soft_kl.targets import Logits, LogProbs, Probs
from gkdkernels.spmm.edge_dot import edge_dot
from gkdkernels.spmm.op import gcn_norm, gcn_weight, spmm
from gkdkernels.structure_kl.edge_log_probs import edge_log_probs
from gkdkernels.structure_kl.op import structure_kl

__all__ = [
    "BatchNormStatistics",
    "CSRGraph",
    "Explanation",
    "Features",
    "FoldedExperts",
    "LogProbs",
    "Logits",
    "MixedFeatures",
    "Probs",
    "SparseFeatures",
    "check_indices",
    "edge_dot",
    "edge_log_probs",
    "edge_softmax",
    "expert_linear",
    "explain",
    "feature_rows",
    "fold_experts",
    "from_pyg",
    "from_torch_sparse",
    "gat_aggregate",
    "gat_attention",
    "gcn_norm",
    "gcn_weight",
    "keyed_dropout",
    "matrix_product",
    "memory_update",
    "mutual_kl",
    "rbm_layer",
    "route_by_memory",
    "route_by_scores",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "soft_kl",
    "spmm",
    "structure_kl",
    "with_self_loops",
]
