"""`gat_aggregate`: attention over in-edges."""
