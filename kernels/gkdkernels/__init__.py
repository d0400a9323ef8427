"""gkdkernels: fused operators for graph distillation."""

from gkdkernels.dispatch import Explanation, explain
from gkdkernels.dropout import keyed_dropout
from gkdkernels.edge_log_probs import edge_log_probs
from gkdkernels.experts import expert_linear
from gkdkernels.gat import gat_aggregate
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures, feature_rows
from gkdkernels.mutual_kl import mutual_kl
from gkdkernels.products import matrix_product
from gkdkernels.rbm_layer import BatchNormStatistics, FoldedExperts, fold_experts, rbm_layer
from gkdkernels.readout import segment_max, segment_mean, segment_softmax, segment_sum
from gkdkernels.route import memory_update, route_by_memory, route_by_scores
from gkdkernels.soft_kl import Logits, LogProbs, Probs, soft_kl
from gkdkernels.spmm import gcn_norm, gcn_weight, spmm
from gkdkernels.structure_kl import structure_kl

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
    "edge_log_probs",
    "expert_linear",
    "explain",
    "feature_rows",
    "fold_experts",
    "gat_aggregate",
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
]
