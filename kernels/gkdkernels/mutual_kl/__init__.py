"""`mutual_kl`: K peers that learn from each other."""
