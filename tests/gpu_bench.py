"""``make gpu``: the gate on the GPU, then all benches, one JSON file each; a red gate stops it before any time."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(out: Path) -> list[list[str]]:
    """What runs, in order; the first is the gate."""
    gkdbench = [sys.executable, "-m", "gkdbench.cli", "profile", "kernels", "--device", "cuda:0"]
    gate = [sys.executable, "-m", "pytest", "-q", "-m", "full or not full", str(ROOT / "tests" / "gkdkernels")]
    benches = {
        "gpu-warm": ["--caches", "warm"],
        "gpu-cold": ["--caches", "cold"],
        "gpu-growth": ["--growth"],
        "gpu-steps": ["--steps"],
    }
    return [gate, *([*gkdbench, *words, "--json", str(out / f"{name}.json")] for name, words in benches.items())]


def main(argv: Sequence[str] | None = None) -> int:
    """Run all; 0 if the gate and every bench went through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "kernels", help="folder of the JSON files")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    args = parser.parse_args(argv)
    wanted = commands(args.out)
    if args.list:
        print("\n".join(" ".join(command) for command in wanted))
        return 0
    import torch

    if not torch.cuda.is_available():
        print(f"make gpu: torch {torch.__version__} of {sys.executable} sees no CUDA device", file=sys.stderr)
        return 3
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]))
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = path
    if code := subprocess.run(wanted[0], cwd=ROOT, env=environment).returncode:
        print("make gpu: the gate is red; nothing was timed", file=sys.stderr)
        return code
    codes = [subprocess.run(command, cwd=ROOT, env=environment).returncode for command in wanted[1:]]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
