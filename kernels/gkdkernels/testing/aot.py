"""Compile triton kernels for GPUs that are not here, and read off what they would use.

Triton brings the assembler, so that registers, spills and wide loads of a kernel are known on any machine::

    kernel = "gkdkernels.spmm.triton:spmm_fwd_row_sum"
    (usage,) = compile_ahead(Request(kernel, {"x": "*bf16", ...}, {"BLOCK_D": 128, ...}))

All requests of a call compile in one child process, since a process that runs triton's interpreter cannot compile.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from gkdkernels.testing.addresses import narrow_addresses

Constant = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Request:
    """One kernel, its argument types and where it shall run.

    Attributes:
        kernel: "module:name" of a `triton.jit` function.
        types: argument -> triton type, e.g. "*bf16", "i32", or several for a tuple; pointers are taken as aligned to
            16 bytes.
        constants: `constexpr` arguments, and arguments that are None.
        num_warps: per program.
        arch: 80 (A100), 90 (H100, H200), 100 (B200).
    """

    kernel: str
    types: Mapping[str, str | Sequence[str]]
    constants: Mapping[str, Constant]
    num_warps: int = 4
    arch: int = 90


@dataclass(frozen=True, slots=True)
class Resources:
    """What a compiled kernel uses.

    Attributes:
        registers: per thread.
        stack_bytes: per thread; spilled registers live there.
        local_bytes: per thread, static local memory.
        shared_bytes: per program.
        wide_loads: 128-bit loads from global memory in the code (LDG.128, and LDGSTS.128 straight into shared memory).
        loads: all loads from global memory in the code.
        narrow_addresses: offsets that wrap beyond 2^31 elements, see `addresses`.
        compile_s: CPU time of the compiler and the assembler, which a busy machine does not stretch.
    """

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    wide_loads: int
    loads: int
    narrow_addresses: list[str]
    compile_s: float


def compile_ahead(*requests: Request) -> list[Resources]:
    """The resources of each request, in order.

    Raises:
        RuntimeError: a kernel does not compile; the message ends with the compiler's.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    child = subprocess.run(
        [sys.executable, "-m", "gkdkernels.testing.aot"],
        input=json.dumps([asdict(request) for request in requests]),
        capture_output=True,
        text=True,
        env=environment,
    )
    if child.returncode:
        raise RuntimeError(f"ahead-of-time compilation failed:\n{child.stderr[-4000:]}")
    return [Resources(**found) for found in json.loads(child.stdout.splitlines()[-1])]


def _compile(request: Request) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, name = request.kernel.partition(":")
    kernel: Any = getattr(import_module(module), name)
    signature: dict[str, Any] = {
        argument: "constexpr" if argument in request.constants else request.types[argument]
        for argument in kernel.arg_names
    }
    aligned: dict[tuple[int, ...], list[list[str | int]]] = {}
    for i, argument in enumerate(kernel.arg_names):
        kind = signature[argument]
        if isinstance(kind, str):
            places: dict[tuple[int, ...], str] = {(i,): kind}
        else:
            signature[argument] = tuple(kind)
            places = {(i, j): part for j, part in enumerate(kind)}
        aligned |= {at: [["tt.divisibility", 16]] for at, part in places.items() if part.startswith("*")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(request.constants), attrs=aligned)
    before = sum(os.times()[:4])
    compiled: Any = triton.compile(
        source, target=GPUTarget("cuda", request.arch, 32), options={"num_warps": request.num_warps}
    )
    seconds = sum(os.times()[:4]) - before
    usage, code = _inspect(compiled.asm["cubin"])

    def number(key: str) -> int:
        found = re.search(rf"{key}:(\d+)", usage)
        if found is None:
            raise RuntimeError(f"no {key} in the output of cuobjdump: {usage}")
        return int(found[1])

    return Resources(
        registers=number("REG"),
        stack_bytes=number("STACK"),
        local_bytes=number("LOCAL"),
        shared_bytes=int(compiled.metadata.shared),
        wide_loads=len(re.findall(r"LDG(?:STS)?\.E\S*\.128", code)),
        loads=len(re.findall(r"LDG(?:STS)?\.E", code)),
        narrow_addresses=narrow_addresses(compiled.asm["ttir"]),
        compile_s=seconds,
    )


def _inspect(cubin: bytes) -> tuple[str, str]:
    """Resource usage and machine code, as the `cuobjdump` of triton's wheel prints them."""
    import triton

    tool = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    return usage, code


def _main() -> None:
    requests = [Request(**entry) for entry in json.load(sys.stdin)]
    with tempfile.TemporaryDirectory() as cache:  # a cached kernel would make compile_s meaningless
        os.environ["TRITON_CACHE_DIR"] = cache
        print(json.dumps([asdict(_compile(request)) for request in requests]))


if __name__ == "__main__":
    _main()
