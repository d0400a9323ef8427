"""``gkdbench profile``: how fast operators, steps and whole methods are here, and what bounds them."""
