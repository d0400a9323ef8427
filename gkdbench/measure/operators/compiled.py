"""The yardstick in C++: fused OpenMP loops, built when a bench asks for them, never at install."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from gkdbench.measure.operators.problem import CandidateUnavailable

SOURCE = Path(__file__).with_name("fused.cpp")
COMPILE = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC", "-std=c++17", "-c")
LINK = ("-shared", "-fopenmp")  # -ffast-math at this step would flush denormals in the whole process


class Library:
    """Functions of the shared object; tensors go in as pointers, None as a null pointer."""

    def __init__(self, path: Path) -> None:
        self._code = ctypes.CDLL(str(path))

    def __getattr__(self, name: str) -> Callable[..., None]:
        function = getattr(self._code, name)
        function.restype = None

        def call(*arguments: Tensor | int | float | None) -> None:
            function(*map(_plain, arguments))

        return call


def _plain(argument: Tensor | int | float | None) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return ctypes.c_void_p(None)
    return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int64(argument)


@cache
def library() -> Library:
    """The compiled `fused.cpp`; kept under ``$XDG_CACHE_HOME/gkdbench``, by the hash of source, flags and compiler.

    Raises:
        Missing: no C++ compiler, or one that cannot build it.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise CandidateUnavailable("no C++ compiler (g++ or $CXX)")
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        native = subprocess.run([compiler, "-march=native", "-Q", "--help=target"], capture_output=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise CandidateUnavailable(f"{compiler} does not run: {error}") from error
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gkdbench" / "bench"
    parts = (SOURCE.read_bytes(), " ".join((*COMPILE, *LINK)).encode(), version, native)
    path = root / f"fused-{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}.so"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            made, part = Path(folder) / path.name, str(Path(folder) / "fused.o")
            for words in ((*COMPILE, str(SOURCE), "-o", part), (*LINK, part, "-o", str(made))):
                done = subprocess.run([compiler, *words], capture_output=True, text=True)
                if done.returncode:
                    raise CandidateUnavailable(f"{compiler} cannot build {SOURCE.name}: {done.stderr.strip()[:200]}")
            made.replace(path)
    return Library(path)
