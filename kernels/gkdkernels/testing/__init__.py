"""What only tests use: ahead-of-time compilation, and a check of address arithmetic."""
