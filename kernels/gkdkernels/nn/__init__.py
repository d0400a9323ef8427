"""Layers and losses as modules, with the parameters, names and values of PyG's: drop-in modules."""

from gkdkernels.nn.gat import GATConv
from gkdkernels.nn.gcn import GCNConv
from gkdkernels.nn.losses import MutualKL, StructureKL
from gkdkernels.nn.sage import SAGEConv

__all__ = ["GATConv", "GCNConv", "MutualKL", "SAGEConv", "StructureKL"]
