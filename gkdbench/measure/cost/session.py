"""One measurement in a process of its own: a short training with timed epochs, then timed answers.

Order: the clock is checked, the references are built, ``fit`` runs under an `EpochTimer`, the selected state is
restored, and the deployed model answers in turns with the reference.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gkdbench.measure.cost.inference import Deployed, InferenceBudget, measure_inference, timed_ratio
from gkdbench.measure.cost.noise import ProcessorTimes, noise_flags
from gkdbench.measure.cost.process_memory import peak_memory
from gkdbench.measure.cost.references import References, references
from gkdbench.measure.cost.timed_epochs import EpochTimer, EpochTimes
from gkdbench.measure.timers import check_clock, clock_for
from gkdbench.protocol.bank import BankEntry
from gkdbench.protocol.predictor import Predictor
from gkdbench.protocol.session import RunOutcome, Trainable, monitor_of, outcome_of
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.protocol.view_io import read_bundle

FILE = "measurement.json"


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """How long a measurement may take.

    Args:
        training_s: of timed epochs.
        inference: rounds and seconds of the answers.
        audit_every: so large that no test prediction is kept.
    """

    training_s: float = 2.5
    inference: InferenceBudget = field(default_factory=InferenceBudget)
    audit_every: int = 1 << 30

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def parse(cls, facts: Mapping[str, Any]) -> MeasureSettings:
        """The inverse of `facts`."""
        return cls(**{**facts, "inference": InferenceBudget(**facts["inference"])})


def measure_session(
    method: Trainable,
    *,
    bundle: Path,
    scratch: Path,
    seed: int,
    teachers: Mapping[str, BankEntry],
    settings: MeasureSettings,
    device: str = "cpu",
    time_limit_s: float | None = None,
    energy: Callable[[], float | None] | None = None,
) -> RunOutcome:
    """Measure `method`; `FILE` in `scratch` has what was found. Never raises for a failure of the method.

    Args:
        bundle, scratch, seed, teachers: see `gkdbench.protocol.session.run_session`; `method` is set to few epochs.
    """

    def run(outcome: RunOutcome) -> None:
        outcome.phase = "prepare"
        given = read_bundle(bundle, device)
        clock, before = clock_for(torch.device(device)), ProcessorTimes.now()
        check_clock(clock, torch.device(device))
        beside = references(given.view)
        deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
        monitor = monitor_of(given, scratch, audit_every=settings.audit_every, deadline=deadline, kind=EpochTimer)
        assert isinstance(monitor, EpochTimer)  # as asked for
        known = {role: entry.read(given.view) for role, entry in teachers.items()}
        outcome.phase = "fit"
        ctx = Context(monitor, known, seed, torch.device(device), outcome.extra, outcome.flags)
        times, fitted = _timed_fit(method, given.view, ctx, monitor, beside, settings.training_s)
        outcome.phase = "predict"
        for name, predictor in fitted.predictors.items():
            if monitor.epochs:
                predictor.module.load_state_dict(monitor.selected(name)[1])
        found: dict[str, Any] = {"training": training_facts(times, given.view) if monitor.epochs else None}
        models = list(fitted.predictors.values())
        for what, chosen in (("inference", models[:1]), ("ensemble", models if fitted.ensemble else [])):
            if chosen and (what == "inference" or len(chosen) > 1):
                model = Deployed(chosen, given.view.multi_label)
                found[what] = measure_inference(model, beside.answers, given.view.inputs, clock, settings.inference)
        found |= size_facts(models[0], given.view) | {"models": len(models)}
        found |= {"reference": beside.answers_name, "training_reference": beside.epoch_name}
        found["flags"] = noise_flags(before, ProcessorTimes.now())
        found["energy_j"] = energy() if energy else None
        (scratch / FILE).write_text(json.dumps(found))
        outcome.epochs, outcome.phase = monitor.epochs, None

    return outcome_of(run)


def _timed_fit(
    method: Trainable, view: TrainView, ctx: Context, monitor: EpochTimer, beside: References, budget_s: float
) -> tuple[EpochTimes, Fitted]:
    wait = partial(torch.cuda.synchronize, view.device) if view.device.type == "cuda" else _nothing
    memory = peak_memory(view.device)
    monitor.begin(beside.epoch, now=time.perf_counter, wait=wait, memory=memory, budget_s=budget_s)
    try:
        fitted = method.fit(view, ctx)
    finally:
        monitor.close()
    return monitor.finish(), fitted


def training_facts(times: EpochTimes, view: TrainView) -> dict[str, Any]:
    """The fields of `gkdbench.records.measurement.TrainingCost`."""
    earlier = sorted(times.earlier)
    return {
        "epoch": timed_ratio(times.ours, times.theirs) if len(times.ours) > 1 else None,
        "items": len(view.items),
        "setup_s": times.setup_s,
        "earlier_epoch_s": earlier[len(earlier) // 2] if earlier else None,
        "peak_bytes": times.peak_bytes,
        "loss_terms": sorted(times.terms),
    }


def size_facts(model: Predictor, view: TrainView) -> dict[str, Any]:
    """Needs, hops, parameters and active multiply-adds an item of one deployed model."""
    return {
        "needs": model.needs,
        "hops": model.hops,
        "parameters": model.parameters,
        "macs": model.macs(view.inputs) // max(len(view.items), 1) if model.macs else None,
    }


def _nothing() -> None:
    """The CPU is idle when a call returns."""
