"""The parts of `gkdbench verify`: each file checks one thing that a record says against what can contradict it."""
