"""``python run_toys.py OUT JOBS [FILE_SIZE_LIMIT]``: a toy run in a process of its own, to be killed or starved."""

from __future__ import annotations

import resource
import sys

from support.toy_plugin import taught_suite

from gkdbench.errors import UserError
from gkdbench.execute.api import run_suite
from gkdbench.execute.runner import Interrupted


def main(out: str, jobs: str, limit: str = "") -> int:
    """0: complete, 2: bad input or disk, 130: interrupted."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    try:
        run_suite(taught_suite(), out=out, jobs=int(jobs), device="cpu")
    except UserError as error:
        print(error)
        return 2
    except Interrupted as stop:
        print(stop)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
