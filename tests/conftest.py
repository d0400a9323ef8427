"""Before any test module is imported: without a GPU, triton kernels run under triton's interpreter.

Triton reads the variable when it is first imported, which torch does for reasons of its own; hence here, and not
beside the kernels' tests.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
