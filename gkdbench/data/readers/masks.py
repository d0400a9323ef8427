"""Ten official masks in files ``*_split_0.6_0.2_<k>.npz`` (Pei et al. 2020, geom-gcn), as Task.official entries."""

from __future__ import annotations

import re

from gkdbench.data.build import NumpyArray
from gkdbench.data.decode import open_npz
from gkdbench.data.families import PARTS
from gkdbench.data.rawfiles import RawFiles


def numbered_mask_files(raw: RawFiles) -> dict[str, NumpyArray]:
    """``official-10/<k>/<part>`` -> [N] mask, for every split file that is there."""
    found: dict[str, NumpyArray] = {}
    for path in raw.matching("_split_0.6_0.2_"):
        number = re.search(r"_(\d+)\.npz$", path.name)
        arrays = open_npz(path, [f"{part}_mask" for part in PARTS])
        if number:
            found |= {f"official-10/{number[1]}/{part}": arrays[f"{part}_mask"] for part in PARTS}
    return found
