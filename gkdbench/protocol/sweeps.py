"""Sweeps: the selected models on corrupted inputs. Predicted in the worker after `fit`, scored by the parent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gkdbench.data.splits import SplitTask
from gkdbench.metrics.diagnostics import ece_of
from gkdbench.protocol.corruption import CLEAN, Corruption, corrupted, corruptions
from gkdbench.protocol.evaluation_graphs import EvaluationGraphs
from gkdbench.protocol.inputs import Inputs
from gkdbench.protocol.monitor import Monitor, ScoredSet
from gkdbench.protocol.predictor import Predictor, mean_logits
from gkdbench.protocol.scoring import Arrays, Scored, selected_scores, truth_of
from gkdbench.protocol.view_io import TrainingBundle
from gkdbench.records.schema import CorruptedResult, Row

Sweeps = Mapping[str, Sequence[float]]
ENSEMBLE = "ensemble"
FILE = "sweeps.npz"


class SweptPredictions:
    """What the worker notes of a sweep: predictions and confidences of the test items, never a score.

    Args:
        sweeps: kind -> levels; empty: nothing is done.
        seed: of the run; all its models read the same corrupted inputs, as does every other method's run of that seed.
    """

    def __init__(
        self, given: TrainingBundle, scored_sets: Sequence[ScoredSet], monitor: Monitor, sweeps: Sweeps, seed: int
    ) -> None:
        self._given, self._scored_sets, self._monitor, self._seed = given, scored_sets, monitor, seed
        self._wanted = corruptions(sweeps)
        self._arrays: Arrays = {}
        self._mean: dict[tuple[Corruption, str], Tensor] = defaultdict(lambda: torch.zeros(()))

    def add(self, name: str, predictor: Predictor, graphs: Mapping[str, Inputs], parts: int) -> None:
        """Try `predictor`, which is in its selected state and one of `parts`, on every corruption of the graphs in
        `scenes`."""
        for how in self._wanted:
            fresh = predictor if how == CLEAN else replace(predictor)  # what is prepared for a corruption is not kept
            logits: dict[str, Tensor] = {}
            for scored_set in self._scored_sets:
                if scored_set.graph_name not in logits:
                    inputs = corrupted(graphs[scored_set.graph_name], how, self._seed)
                    logits[scored_set.graph_name] = self._monitor.checked(name, fresh, inputs)
                chosen = logits[scored_set.graph_name][scored_set.items.position]
                several = self._given.view.multi_label
                probability = chosen.sigmoid() if several else chosen.softmax(dim=1)
                self._note(how, name, scored_set.column, chosen, probability)
                self._mean[how, scored_set.column] = self._mean[how, scored_set.column] + probability / parts

    def write(self, scratch: Path, *, ensemble: bool) -> None:
        """Leave the notes for the scorer; with those of the mean probability of all models, if `ensemble`."""
        if not self._wanted:
            return
        if ensemble:
            for (how, column), probability in self._mean.items():
                logits = mean_logits(probability, multi_label=self._given.view.multi_label)
                self._note(how, ENSEMBLE, column, logits, probability)
        np.savez(scratch / FILE, **self._arrays)  # type: ignore[arg-type]  # numpy's stub takes them for allow_pickle

    def _note(self, how: Corruption, name: str, column: str, logits: Tensor, probability: Tensor) -> None:
        if how != CLEAN:  # the side-car has the selected predictions already
            self._arrays[_array(how, name, column, "selected")] = self._monitor.encode(logits)
        if self._given.metric == "accuracy":
            confidence = probability.max(dim=1).values.to(torch.float16)
            self._arrays[_array(how, name, column, "confidence")] = confidence.numpy()


def with_sweeps(
    split_task: SplitTask, evaluation_graphs: EvaluationGraphs, scratch: Path, scored: Scored, sweeps: Sweeps
) -> Scored:
    """`scored` and what its models did on the corruptions that `sweeps` names, which `SweptPredictions` stored."""
    if not sweeps:
        return scored
    with np.load(scratch / FILE, allow_pickle=False) as stored:
        arrays = scored.arrays | {
            name: evaluation_graphs.in_order(name.split("/")[-2], stored[name]) for name in stored.files
        }
    names = [model.name for model in scored.models]
    found = score_sweeps(split_task, arrays, names, truth_of(split_task, evaluation_graphs), sweeps)
    return replace(scored, arrays=arrays, sweeps=found)


def score_sweeps(
    split_task: SplitTask, arrays: Arrays, models: Sequence[str], truth: Mapping[str, np.ndarray], sweeps: Sweeps
) -> list[CorruptedResult]:
    """Scores, calibration and disagreement per corruption, from a side-car's arrays.

    Args:
        arrays: of one row.
        models: names; pairs are formed of all but the ensemble.
        truth: labels per scored column; "val" is left out.
    """
    columns = {column: labels for column, labels in truth.items() if column != "val"}
    peers = [name for name in models if name != ENSEMBLE]
    found = []
    for how in corruptions(sweeps):
        answers = {(name, column): arrays[_answer(how, name, column)] for name in models for column in columns}
        named = {f"{name}/{column}/selected": answer for (name, column), answer in answers.items()}
        scores = {name: selected_scores(split_task, named, name, columns) for name in models}
        found.append(
            CorruptedResult(
                kind=how.kind,
                level=how.level,
                scores={name: {column: s.value for column, s in of.items()} for name, of in scores.items()},
                ece=_calibration(arrays, how, answers, columns),
                disagreement={
                    f"{a}-{b}": {column: _differ(answers[a, column], answers[b, column]) for column in columns}
                    for a, b in combinations(peers, 2)
                },
            )
        )
    return found


def resweep(
    split_task: SplitTask, evaluation_graphs: EvaluationGraphs, arrays: Arrays, row: Row, sweeps: Sweeps
) -> Iterator[str]:
    """What of a stored row's sweep its side-car does not confirm."""
    try:
        names = [model.name for model in row.models]
        again = score_sweeps(split_task, arrays, names, truth_of(split_task, evaluation_graphs), sweeps)
    except KeyError as error:
        yield f"its sweep has no predictions {error}"
        return
    if [(s.kind, s.level) for s in row.sweeps] != [(s.kind, s.level) for s in again]:
        yield f"its sweep: expected {len(again)} steps, got {len(row.sweeps)}: other kinds or levels than the record's"
        return
    for ours, theirs in zip(row.sweeps, again, strict=True):
        for what in ("scores", "ece", "disagreement"):
            one, two = _flat(getattr(ours, what)), _flat(getattr(theirs, what))
            if one.keys() != two.keys() or any(abs(one[at] - two[at]) > 1e-9 for at in one):
                yield f"{what} under {ours.kind} {ours.level:g} are not what the side-car gives"


def _calibration(
    arrays: Arrays,
    how: Corruption,
    answers: Mapping[tuple[str, str], np.ndarray],
    columns: Mapping[str, np.ndarray],
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, column), answer in answers.items():
        confidence = arrays.get(_array(how, name, column, "confidence"))
        if confidence is not None:
            found[name][column] = ece_of(confidence, answer == columns[column])
    return dict(found)


def _differ(one: np.ndarray, two: np.ndarray) -> float:
    """Share of differing predictions; ranked scores predict by their sign."""
    if one.dtype == np.float16:
        one, two = one >= 0, two >= 0
    return float((one != two).mean())


def _flat(values: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    return {(name, column): value for name, of in values.items() for column, value in of.items()}


def _answer(how: Corruption, name: str, column: str) -> str:
    return f"{name}/{column}/selected" if how == CLEAN else _array(how, name, column, "selected")


def _array(how: Corruption, name: str, column: str, what: str) -> str:
    return f"sweep/{how}/{name}/{column}/{what}"
