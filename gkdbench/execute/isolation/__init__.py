"""How the process of a cell is started, kept apart from others, limited and ended."""
