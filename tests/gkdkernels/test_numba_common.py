"""Exponentials and logarithms of the compiled loops, against NumPy in fp64."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from gkdkernels.core import numba_tools as common


@common.part()
def _exponentials(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = common.exp(x[i])


@common.part()
def _logarithms(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = common.log(x[i])


@pytest.mark.parametrize(("low", "high"), [(-87, 88), (-1, 1), (-1e-3, 1e-3)])
@pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 1.0), (np.float64, 1.5)])
def test_exp(low: float, high: float, dtype: type, ulps: float) -> None:
    x = np.linspace(low, high, 100_003, dtype=dtype)
    out = np.empty_like(x)
    _exponentials(x, out)
    exact = np.exp(x.astype(np.longdouble))
    assert (np.abs(out - exact) <= ulps * np.spacing(exact.astype(dtype))).all()


@pytest.mark.parametrize(("low", "high"), [(1e-37, 1e-36), (0.5, 2), (1, 1000), (1e30, 1e38)])
@pytest.mark.parametrize(("dtype", "ulps"), [(np.float32, 1.0), (np.float64, 1.5)])
def test_log(low: float, high: float, dtype: type, ulps: float) -> None:
    x = np.linspace(low, high, 100_003, dtype=dtype)
    out = np.empty_like(x)
    _logarithms(x, out)
    exact = np.log(x.astype(np.longdouble))
    assert (np.abs(out - exact) <= ulps * np.spacing(np.abs(exact).astype(dtype))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_number_stays_visible(dtype: type) -> None:
    x = np.array([np.nan, -np.inf, np.inf, -800.0, 800.0, 0.0, -0.0] * 5, dtype=dtype)  # vectors and a rest
    out = np.empty_like(x)
    _exponentials(x, out)
    np.testing.assert_array_equal(out, [np.nan, 0, np.inf, 0, np.inf, 1, 1] * 5)
    x = np.array([np.nan, 1.0] * 17, dtype=dtype)
    out = np.empty_like(x)
    _logarithms(x, out)
    np.testing.assert_array_equal(out, [np.nan, 0] * 17)
