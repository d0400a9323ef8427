"""Plants one fault at a time in a copy of the kernels, and shows that the gate turns red.

``python tests/gkdkernels/mutations.py [NAME ...]`` runs all, or those whose names contain a word. A fault whose source
is not found exactly once, and tests that are red without any fault, are failures of this script too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fault import Fault
from faults_of_corners import FAULTS_OF_CORNERS
from faults_of_operators import FAULTS_OF_OPERATORS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "kernels" / "gkdkernels"
FAULTS = [*FAULTS_OF_OPERATORS, *FAULTS_OF_CORNERS]


def caught(fault: Fault | None, tests: tuple[str, ...], only: str = "") -> str:
    """What the tests say of a copy with the fault: "caught", "missed", or why nothing can be said."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(SOURCES, home / "gkdkernels", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "gkdkernels", home / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "support", home / "support", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests" / "conftest.py", home / "conftest.py")
        (home / "pytest.ini").write_text("[pytest]\nmarkers =\n    full: slow\n    data: files\n", encoding="utf-8")
        if fault is not None:
            path = home / "gkdkernels" / fault.file
            text = path.read_text(encoding="utf-8")
            if text.count(fault.right) != 1:
                return f"not planted: {fault.file} has its line {text.count(fault.right)} times"
            path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
        # The tests' own process says which package it loaded: a second process would import torch again.
        loaded = home / "loaded.txt"
        with (home / "conftest.py").open("a", encoding="utf-8") as conftest:
            conftest.write(f"\nimport gkdkernels\n\nopen({str(loaded)!r}, 'w').write(gkdkernels.__file__)\n")
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not full"]
        command += [*(f"tests/{name}" for name in tests), *(["-k", only] if only else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
        if not loaded.is_file() or not loaded.read_text(encoding="utf-8").startswith(folder):
            return f"not planted: the copy does not load: {(done.stderr or done.stdout).strip()[-200:]}"
    # 1 is a failed test; everything else but 0 is a run that was none
    return {0: "missed", 1: "caught"}.get(done.returncode, f"no run: {done.stdout.strip()[-300:]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each fault; 0 if all are caught and the tests are green without them."""
    asked = sys.argv[1:] if argv is None else argv
    faults = [fault for fault in FAULTS if not asked or any(word in fault.name for word in asked)]
    healthy: dict[tuple[tuple[str, ...], str], bool] = {}
    bad = 0
    for fault in faults:
        if not fault.possible:
            print(f"left out {fault.name}: {fault.needs} is not installed")
            continue
        run = (fault.tests, fault.only)
        if run not in healthy:
            healthy[run] = caught(None, *run) == "missed"
        verdict = caught(fault, *run) if healthy[run] else "nothing shown: the tests are red without a fault"
        bad += verdict != "caught"
        print(f"{verdict:8} {fault.name}", flush=True)
    print(f"{len(faults) - bad} of {len(faults)} caught")
    return 1 if bad or not faults else 0


if __name__ == "__main__":
    sys.exit(main())
