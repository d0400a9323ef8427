"""`spmm`: neighbour aggregation."""
