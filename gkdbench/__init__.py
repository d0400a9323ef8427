"""gkdbench: graph knowledge distillation under one leak-proof protocol."""

__version__ = "0.1.0"
