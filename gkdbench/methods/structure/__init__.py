"""GNN students that learn hidden features or local structure of a GNN teacher, or of their own layers."""
