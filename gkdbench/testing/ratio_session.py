"""The ratios of one run of pytest: collected, compared with committed ones, written, summed up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.errors import UserError
from gkdbench.testing.committed_ratios import TOLERANCE, CommittedRatios, Verdict, entry

if TYPE_CHECKING:
    from gkdbench.measure.ratios import Ratio


class RatioSession:
    """What the options ``--gkd-ratios FILE`` and ``--gkd-save-ratios FILE`` do.

    Args:
        compare: the file that ratios are compared with, or None.
        save: the file that they are written to, or None.
        command: what ran, for the file.

    Raises:
        UserError: a file that cannot be read.
    """

    def __init__(self, compare: Path | None, save: Path | None, command: str = "") -> None:
        self._committed = None if compare is None else CommittedRatios.read(compare)
        self._compare, self._save, self._command = compare, save, command
        self._found: dict[str, dict[str, Any]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._device = ""

    def take(self, name: str, found: Ratio, reference: str, device: str, again: Callable[[], Ratio] | None) -> None:
        """Note a ratio, and compare it.

        Args:
            name: of what was timed; once a run.
            device: in words.
            again: measures it a second time, for one that seems slower: noise passes, a slower program does not.

        Raises:
            UserError: a name twice, or two devices in one run. AssertionError: slower than committed, both times.
        """
        if name in self._found:
            raise UserError(f"{name}: expected one time of that name a test, got a second one; try name=...")
        if self._device not in ("", device):
            raise UserError(
                f"{name}: expected ratios of one device a run, got {device} after {self._device}; try to set the "
                "number of threads once, before all tests"
            )
        self._device = device
        self._found[name] = entry(found, reference)
        known = self._committed
        if known is None or known.device != device:
            return
        verdict = known.judge(name, found, reference)
        if verdict == "slower" and again is not None:
            found = again()
            self._found[name] = entry(found, reference)
            verdict = known.judge(name, found, reference)
        self._verdicts[name] = verdict
        if verdict == "slower":
            raise AssertionError(
                f"{name}: expected at most {known.told(name)} of {reference} and {known.tolerance:.0%} more, got "
                f"{found}; if it is meant to be slower: {known.made_by}"
            )

    def finish(self) -> None:
        """Write what was found: into the file if it is of this device, else a new one."""
        if self._save is None or not self._found:
            return
        before = CommittedRatios.read(self._save) if self._save.exists() else None
        if before is None or before.device != self._device:
            before = CommittedRatios(self._device, TOLERANCE if before is None else before.tolerance)
        CommittedRatios(
            self._device, before.tolerance, self._command or before.made_by, before.ratios | self._found
        ).write(self._save)

    def summary(self) -> list[str]:
        """Lines for the end of a run; none without the options."""
        lines = []
        if self._save is not None:
            lines.append(f"{len(self._found)} ratios written to {self._save}")
        if self._committed is None or not self._found:
            return lines
        if self._committed.device != self._device:
            lines.append(
                f"{self._compare}: nothing compared, expected ratios of {self._device}, got those of "
                f"{self._committed.device}; try --gkd-save-ratios with a file for this device"
            )
            return lines
        for verdict in ("slower", "faster", "new"):
            names = sorted(name for name, said in self._verdicts.items() if said == verdict)
            if names:
                words = {"slower": "slower than committed", "faster": "faster than committed", "new": "not committed"}
                lines.append(f"{words[verdict]}: {', '.join(names)}")
        within = sum(said == "within" for said in self._verdicts.values())
        lines.append(f"{within} of {len(self._verdicts)} ratios are where {self._compare} has them")
        return lines
