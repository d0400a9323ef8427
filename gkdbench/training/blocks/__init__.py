"""Parts of methods: encodings, node pairs, local structure, projections, clusters, ..."""
