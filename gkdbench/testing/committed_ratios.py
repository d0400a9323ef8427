"""Ratios that a run is compared with: a small JSON file that is committed, and the command that makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gkdbench.errors import UserError

if TYPE_CHECKING:
    from gkdbench.measure.ratios import Ratio

FORMAT = 1
TOLERANCE = 0.25
"""How far beyond a committed interval a new one may lie: an interval is of one run, and runs differ by more."""

Verdict = Literal["within", "slower", "faster", "new"]


@dataclass(slots=True)
class CommittedRatios:
    """What one file holds.

    Attributes:
        device: of all its ratios, in words; ratios of another device are not compared.
        tolerance: share by which a whole interval may lie beyond the committed one.
        made_by: the command that makes the file again.
        ratios: name of a time -> ``{"value", "low", "high", "n", "reference"}``.
    """

    device: str
    tolerance: float = TOLERANCE
    made_by: str = ""
    ratios: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> CommittedRatios:
        """The file at `path`.

        Raises:
            UserError: no file, or one of another form.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path}: expected a file of committed ratios, got none; try --gkd-save-ratios {path} first"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: expected a file of committed ratios, got {error}; try to make it again") from None
        if not _well_formed(content):
            raise UserError(
                f"{path}: expected committed ratios of format {FORMAT} (device, tolerance, ratios with low and high), "
                "got other content; try to make it again with --gkd-save-ratios"
            )
        return cls(content["device"], content["tolerance"], content["made_by"], content["ratios"])

    def write(self, path: Path) -> None:
        """Write it to `path`, names in order."""
        content = {"format": FORMAT, **asdict(self), "ratios": dict(sorted(self.ratios.items()))}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def judge(self, name: str, found: Ratio, reference: str) -> Verdict:
        """Compare a ratio with the committed one of that name.

        "slower" or "faster" only if the whole interval lies beyond the committed one and its tolerance; "new" where
        there is none, or one of another reference.
        """
        known = self.ratios.get(name)
        if known is None or known["reference"] != reference:
            return "new"
        if found.low > known["high"] * (1 + self.tolerance):
            return "slower"
        return "faster" if found.high < known["low"] / (1 + self.tolerance) else "within"

    def told(self, name: str) -> str:
        """The committed ratio of `name`, as ``1.31 [1.27, 1.36] n=100``."""
        known = self.ratios[name]
        return f"{known['value']:.2f} [{known['low']:.2f}, {known['high']:.2f}] n={known['n']}"


def entry(found: Ratio, reference: str) -> dict[str, Any]:
    """A ratio as the file holds it: four digits are more than two runs agree on."""
    rounded = {name: round(getattr(found, name), 4) for name in ("value", "low", "high")}
    return {**rounded, "n": found.n, "reference": reference}


def _well_formed(content: object) -> bool:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return False
    ratios, tolerance = content.get("ratios"), content.get("tolerance")
    if not isinstance(ratios, dict) or not isinstance(tolerance, int | float) or not tolerance >= 0:
        return False
    words = isinstance(content.get("device"), str) and isinstance(content.get("made_by"), str)
    return words and all(isinstance(one, dict) and _has_interval(one) for one in ratios.values())


def _has_interval(one: Mapping[str, Any]) -> bool:
    numbers = all(isinstance(one.get(name), int | float) for name in ("value", "low", "high", "n"))
    return numbers and isinstance(one.get("reference"), str)
