"""gkdkernels: fused operators for graph distillation."""

from gkdkernels.dispatch import Explanation, explain
from gkdkernels.dropout import keyed_dropout
from gkdkernels.edge_log_probs import edge_log_probs
from gkdkernels.gat import gat_aggregate
from gkdkernels.graph import CSRGraph, Features, MixedFeatures, SparseFeatures, feature_rows
from gkdkernels.readout import segment_max, segment_mean, segment_softmax, segment_sum
from gkdkernels.spmm import gcn_norm, gcn_weight, spmm
from gkdkernels.structure_kl import structure_kl

__all__ = [
    "CSRGraph",
    "Explanation",
    "Features",
    "MixedFeatures",
    "SparseFeatures",
    "edge_log_probs",
    "explain",
    "feature_rows",
    "gat_aggregate",
    "gcn_norm",
    "gcn_weight",
    "keyed_dropout",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "spmm",
    "structure_kl",
]
