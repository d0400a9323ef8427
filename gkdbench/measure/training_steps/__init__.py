"""Training steps and inference of whole methods, timed beside other implementations of them."""
