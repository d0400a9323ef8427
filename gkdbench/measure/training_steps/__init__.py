"""Training steps and inference of whole methods, timed together with other implementations of them."""
