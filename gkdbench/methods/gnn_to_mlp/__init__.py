"""Students that read features alone and learn from a GNN teacher."""
