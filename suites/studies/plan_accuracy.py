"""``python suites/studies/plan_accuracy.py [--write]``: how far off the plan's estimates are, printed.

Every (method, data set) pair of ``results`` is estimated from all the others, and compared with its own rows. With
``--write`` the timings that `gkdbench plan` starts from (`gkdbench/execute/planning/timings.json`) are made again.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from gkdbench.execute.planning.estimates import Timing, error_factors, left_out, timing_of, write_timings
from gkdbench.records.store import Store

RESULTS = Path(__file__).parents[2] / "results"


def measured() -> list[Timing]:
    """The timing of every record below ``results``, studies included."""
    folders = [RESULTS, *(folder for folder in (RESULTS / "studies").iterdir() if folder.is_dir())]
    found = {}
    for folder in folders:
        for _, record in Store(folder).records():
            if (timing := timing_of(record)) is not None:
                found[timing.key] = timing
    return list(found.values())


def main() -> None:
    """Print the factors, the worst pairs last; or write the timings."""
    timings = measured()
    if "--write" in sys.argv[1:]:
        write_timings(timings)
    ratios = left_out(timings)
    middle, high = error_factors(ratios.values())
    print(f"{len(timings)} groups, {len(ratios)} pairs, each left out of its own estimate:")
    print(f"error factor: median {middle:.2f}, 90% {high:.2f}")
    worst = sorted(ratios.items(), key=lambda item: -abs(math.log(item[1])))[:10]
    for (method, dataset), ratio in worst:
        print(f"  {method} on {dataset}: estimated {ratio:.2f} times its seconds")


if __name__ == "__main__":
    main()
