"""`edge_log_probs` and `structure_kl`: local structures and their divergence."""
