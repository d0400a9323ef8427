"""What `gkdbench new method` copies: a method that works, with a step that is there to be replaced."""
