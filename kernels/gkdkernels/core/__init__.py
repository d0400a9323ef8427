"""What operators share: the choice of a backend, registration with torch, costs, dropout, tiles."""
