"""Features as zeros and ones."""

from __future__ import annotations

from dataclasses import replace

from gkdkernels import Features, MixedFeatures, SparseFeatures
from torch import Tensor

from gkdbench.protocol.inputs import Inputs


def binarised(inputs: Inputs) -> Inputs:
    """`inputs` with features ``x != 0``."""

    def ones(x: Features) -> Features:
        if isinstance(x, Tensor):
            return (x != 0).to(x.dtype)
        if isinstance(x, SparseFeatures):
            return SparseFeatures(x.graph, (x.value != 0).to(x.value.dtype))
        sparse = SparseFeatures(x.sparse.graph, (x.sparse.value != 0).to(x.sparse.value.dtype))
        return MixedFeatures(sparse, (x.dense != 0).to(x.dense.dtype))

    return replace(inputs, features=ones(inputs.features))
