"""32-bit products that end in addresses are found in triton's intermediate code, and nothing else is."""

from __future__ import annotations

import pytest
from gkdkernels.testing.addresses import narrow_addresses

KERNEL = """
tt.func public @k(%x: !tt.ptr<f32>, %index: !tt.ptr<i32>, %n: i32) {{
  %c128 = arith.constant 128 : i32 loc(#loc)
  %c128_wide = arith.constant 128 : i64 loc(#loc)
  %row = tt.get_program_id x : i32 loc(#loc)
  %tile = tt.get_program_id y : i32 loc(#loc)
  %row_wide = arith.extsi %row : i32 to i64 loc(#loc)
  %place = tt.addptr %index, %row : !tt.ptr<i32>, i32 loc(#loc)
  %j = tt.load %place : !tt.ptr<i32> loc(#loc)
  %j_wide = arith.extsi %j : i32 to i64 loc(#loc)
  %d = tt.make_range {{end = 16 : i32, start = 0 : i32}} : tensor<16xi32> loc(#loc)
  {product}
  %wide = tt.splat %offset : {kind} -> tensor<16x{kind}> loc(#loc)
  %x_wide = tt.splat %x : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>> loc(#loc)
  %there = tt.addptr %x_wide, %wide : tensor<16x!tt.ptr<f32>>, tensor<16x{kind}> loc(#loc)
  %here = tt.addptr %there, %d : tensor<16x!tt.ptr<f32>>, tensor<16xi32> loc(#loc)
  %value = tt.load %here : tensor<16x!tt.ptr<f32>> loc(#loc)
"""


@pytest.mark.parametrize(
    ("product", "kind", "found"),
    [
        ("%offset = arith.muli %row, %c128 : i32", "i32", ["%wide"]),
        ("%offset = arith.muli %j, %c128 : i32", "i32", ["%wide"]),
        ("%p = arith.muli %row, %c128 : i32\n  %offset = arith.extsi %p : i32 to i64", "i64", ["%wide"]),
        ("%offset = arith.muli %row_wide, %c128_wide : i64", "i64", []),
        ("%offset = arith.muli %j_wide, %c128_wide : i64", "i64", []),
        ("%offset = arith.muli %tile, %c128 : i32", "i32", []),
        ("%r = arith.remsi %row, %n : i32\n  %offset = arith.muli %r, %c128 : i32", "i32", []),
        ("%offset = arith.addi %row, %c128 : i32", "i32", []),
    ],
)
def test_products(product: str, kind: str, found: list[str]) -> None:
    assert narrow_addresses(KERNEL.format(product=product, kind=kind)) == found


def test_through_a_loop() -> None:
    code = """
  %row = tt.get_program_id x : i32
  %c2 = arith.constant 2 : i32
  %first = arith.muli %row, %c2 : i32
  %end = scf.for %start = %row to %c2 step %c2 iter_args(%at = %first) -> (i32)  : i32 {
    %a = tt.addptr %x, %at : !tt.ptr<f32>, i32
    %twice = arith.muli %start, %c2 : i32
    %b = tt.addptr %x, %twice : !tt.ptr<f32>, i32
  }
"""
    assert narrow_addresses(code) == ["%at", "%twice"]
