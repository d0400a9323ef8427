"""`soft_kl`: KL of a student to a target, row by row."""
