"""Students for graph classification that read no edges."""
