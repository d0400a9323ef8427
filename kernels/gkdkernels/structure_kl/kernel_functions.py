"""Kernels of an edge: how alike its two ends are (Guo et al. 2022; Yang et al. 2020;
docs/methods/mutual.md#alignahead).

A kernel is a score ``s = f(m)`` of one measure m of the pair ``(x_j, x_i)``. The measure is what costs: it reads D
features an edge. The score and its slope ``ds/dm`` are one number an edge.

    kernel        m                 s                    published
    laplace-exp   |x_j - x_i|_1     exp(-m / sigma)      sigma = 100
    laplace       |x_j - x_i|_1     -m / sigma
    rbf           |x_j - x_i|_2^2   -m / (2 sigma^2)
    rbf-exp       |x_j - x_i|_2^2   exp(-m / 2)
    l2            |x_j - x_i|_2^2   sqrt(m)              the farther neighbour weighs more
    cosine        cos(x_j, x_i)     m
    poly          cos(x_j, x_i)     m^2

``sigma="auto"`` is the mean distance over the edges, |.|_1 for laplace and laplace-exp and |.|_2 for rbf, taken as a
constant. A zero row has cosine 0 to every row, and gradient 0; l2 has slope 0 where two ends coincide.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Sigma = float | Literal["auto"]

MEASURE = {
    "laplace-exp": "l1",
    "laplace": "l1",
    "rbf": "square",
    "rbf-exp": "square",
    "l2": "square",
    "cosine": "cosine",
    "poly": "cosine",
}
KERNELS = tuple(MEASURE)
SCALED = ("laplace-exp", "laplace", "rbf")  # the kernels that read sigma


def check_kernel(kernel: str, sigma: Sigma) -> float | None:
    """The width as a number, None for "auto".

    Raises:
        ValueError: an unknown kernel, or a sigma that is neither positive and finite nor "auto".
    """
    if kernel not in MEASURE:
        raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}")
    if sigma == "auto":
        return None
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0.0 < sigma < float("inf"):
        raise ValueError(f"sigma: expected a positive number or 'auto', got {sigma!r}")
    return float(sigma)


def width_of(kernel: str, measure: Tensor, sigma: float | None) -> Tensor:
    """[] the width that `score` takes; the mean distance of ``measure: [E]`` if `sigma` is None, 1 where that is 0."""
    if sigma is not None or kernel not in SCALED:
        return measure.new_tensor(1.0 if sigma is None else sigma)
    if measure.numel() == 0:
        return measure.new_tensor(1.0)
    constant = measure.detach()
    mean = (constant.sqrt() if kernel == "rbf" else constant).mean()
    return torch.where(mean == 0, 1.0, mean)


def score(kernel: str, measure: Tensor, width: Tensor) -> Tensor:
    """[E] ``f(m)``; differentiable in ``measure: [E]``."""
    match kernel:
        case "laplace-exp":
            return (measure / -width).exp()
        case "laplace":
            return measure / -width
        case "rbf":
            return measure / (-2.0 * width * width)
        case "rbf-exp":
            return (measure * -0.5).exp()
        case "cosine":
            return measure
        case "poly":
            return measure * measure
    apart = ~(measure <= 0)  # l2: the square root has no slope at 0; NaN is apart, and shows
    return torch.where(apart, torch.where(apart, measure, 1.0).sqrt(), 0.0)


def slope(kernel: str, measure: Tensor, width: Tensor) -> Tensor:
    """[E] or [] ``ds/dm``, for the closed-form backward passes."""
    match kernel:
        case "laplace-exp":
            return (measure / -width).exp() / -width
        case "laplace":
            return -1.0 / width
        case "rbf":
            return -0.5 / (width * width)
        case "rbf-exp":
            return (measure * -0.5).exp() * -0.5
        case "cosine":
            return torch.ones_like(width)
        case "poly":
            return measure * 2.0
    return torch.where(measure <= 0, 0.0, 0.5 * measure.rsqrt())


def within_range(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """``x: [N, D]`` on the CPU with rows scaled whose norm overflows, and the factors [N, 1]; None if there is none.

    A cosine does not depend on the scale of a row; its gradient is to be multiplied by the factor.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x.size(1) == 0:
        return x, None
    norm = torch.linalg.vector_norm(x.detach(), dim=-1, keepdim=True)
    huge = norm.isinf()
    if not bool(huge.any()):
        return x, None
    factor = torch.where(huge, x.detach().abs().amax(-1, keepdim=True).reciprocal(), 1.0)
    return x * factor, factor
