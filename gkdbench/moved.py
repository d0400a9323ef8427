"""Module paths of version 0.1 that have moved: they import for one release, with a warning that names the new place.

`MOVED` is the one table, an import hook the one mechanism. An old path gives a view of the new module, so that setting
an attribute there (as a test does to replace a function) changes the module that the package uses.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a module went.

    Args:
        to: the module that holds its names now.
        names: old name -> new one, or "module:name" for a name that went to another module.
    """

    to: str
    names: Mapping[str, str] = field(default_factory=dict)


MOVED: dict[str, Moved] = {
    "gkdbench.methods.mlp": Moved("gkdbench.methods.baselines.mlp"),
    "gkdbench.methods.sgc": Moved("gkdbench.methods.baselines.sgc"),
    "gkdbench.methods.sign": Moved("gkdbench.methods.baselines.sign"),
    "gkdbench.methods.teacher": Moved("gkdbench.methods.baselines.teacher", {"Teacher": "TeacherMethod"}),
    "gkdbench.methods.kd": Moved("gkdbench.methods.baselines.kd"),
    "gkdbench.methods.label_smoothing": Moved("gkdbench.methods.baselines.label_smoothing"),
    "gkdbench.methods.confidence_penalty": Moved("gkdbench.methods.baselines.confidence_penalty"),
    "gkdbench.methods.ensemble": Moved("gkdbench.methods.baselines.ensemble"),
    "gkdbench.methods.mlp_params": Moved("gkdbench.methods.baselines.mlp_params"),
    "gkdbench.methods.mlp_macs": Moved("gkdbench.methods.baselines.mlp_macs"),
    "gkdbench.methods._matched": Moved("gkdbench.methods.baselines._matched"),
    "gkdbench.methods.mlp_encodings": Moved("gkdbench.methods.baselines.mlp_encodings"),
    "gkdbench.methods.glnn": Moved("gkdbench.methods.gnn_to_mlp.glnn"),
    "gkdbench.methods.krd": Moved("gkdbench.methods.gnn_to_mlp.krd"),
    "gkdbench.methods.nosmog": Moved("gkdbench.methods.gnn_to_mlp.nosmog"),
    "gkdbench.methods.ffg2m": Moved("gkdbench.methods.gnn_to_mlp.ffg2m"),
    "gkdbench.methods.hgmd": Moved("gkdbench.methods.gnn_to_mlp.hgmd"),
    "gkdbench.methods.adagmlp": Moved("gkdbench.methods.gnn_to_mlp.adagmlp"),
    "gkdbench.methods.vqgraph": Moved("gkdbench.methods.gnn_to_mlp.vqgraph"),
    "gkdbench.methods.vqgraph_teacher": Moved("gkdbench.methods.gnn_to_mlp.vqgraph_teacher"),
    "gkdbench.methods.cohop": Moved("gkdbench.methods.gnn_to_mlp.cohop"),
    "gkdbench.methods.cpf": Moved("gkdbench.methods.gnn_to_mlp.cpf"),
    "gkdbench.methods.glnn_graph": Moved("gkdbench.methods.graph_tasks.glnn_graph"),
    "gkdbench.methods.mugsi": Moved("gkdbench.methods.graph_tasks.mugsi"),
    "gkdbench.methods._multi_granularity": Moved("gkdbench.methods.graph_tasks._granularities"),
    "gkdbench.methods.moe": Moved("gkdbench.methods.mixture.moe"),
    "gkdbench.methods.rbm": Moved("gkdbench.methods.mixture.rbm"),
    "gkdbench.methods._mixture": Moved("gkdbench.methods.mixture._student"),
    "gkdbench.methods._mixture_loss": Moved(
        "gkdbench.methods.mixture._objective",
        {
            "Objective": "MixtureObjective",
            "Batch": "gkdbench.methods.mixture._types:MixtureBatch",
            "Terms": "gkdbench.methods.mixture._types:LossTerms",
        },
    ),
    "gkdbench.methods._mixture_lessons": Moved("gkdbench.methods.mixture._targets", {"Lessons": "TeacherLoss"}),
    "gkdbench.methods._routing": Moved("gkdbench.methods.mixture._losses", {"pushed_apart": "repelled_memory"}),
    "gkdbench.methods._routing_report": Moved("gkdbench.methods.mixture._diagnostics"),
    "gkdbench.methods.gml": Moved("gkdbench.methods.mutual.gml"),
    "gkdbench.methods.dml": Moved("gkdbench.methods.mutual.dml"),
    "gkdbench.methods.bgnn": Moved("gkdbench.methods.mutual.bgnn"),
    "gkdbench.methods.kdcl": Moved("gkdbench.methods.mutual.kdcl"),
    "gkdbench.methods.one": Moved("gkdbench.methods.mutual.one", {"Gate": "BranchGate", "Gated": "BranchMixture"}),
    "gkdbench.methods.okddip": Moved("gkdbench.methods.mutual.okddip", {"Gate": "PeerAttention"}),
    "gkdbench.methods.oad": Moved("gkdbench.methods.mutual.oad"),
    "gkdbench.methods.rod": Moved("gkdbench.methods.mutual.rod"),
    "gkdbench.methods.lower_ce": Moved("gkdbench.methods.mutual.lower_ce"),
    "gkdbench.methods.alignahead": Moved("gkdbench.methods.mutual.alignahead", {"Direction": "LayerDirection"}),
    "gkdbench.methods._weighting": Moved(
        "gkdbench.methods.mutual._logit_weighting",
        {
            "Weighting": "LogitWeighting",
            "Kind": "WeightingKind",
            "Weighted": "WeightedModel",
            "weighting_readings": "weighting_diagnostics",
        },
    ),
    "gkdbench.methods._deep_supervision": Moved("gkdbench.methods.mutual._deep_supervision"),
    "gkdbench.methods.lsp": Moved("gkdbench.methods.structure.lsp"),
    "gkdbench.methods.at": Moved("gkdbench.methods.structure.at"),
    "gkdbench.methods.fitnet": Moved("gkdbench.methods.structure.fitnet"),
    "gkdbench.methods.gcrd": Moved("gkdbench.methods.structure.gcrd"),
    "gkdbench.methods.gsp": Moved("gkdbench.methods.structure.gsp", {"Pairs": "PairwiseSimilarityTerm"}),
    "gkdbench.methods.aekd": Moved("gkdbench.methods.structure.aekd"),
    "gkdbench.methods.gnnsd": Moved("gkdbench.methods.structure.gnnsd"),
    "gkdbench.methods._feature_student": Moved("gkdbench.methods.structure._feature_student"),
    "gkdbench.methods._base": Moved("gkdbench.training.method"),
    "gkdbench.methods._config": Moved("gkdbench.training.resolve", {"over": "deep_merge"}),
    "gkdbench.methods._settings": Moved(
        "gkdbench.training.fields",
        {
            "Trained": "SingleModelMethod",
            "Taught": "DistilledStudent",
            "Rate": "gkdbench.training.types:PositiveFloat",
            "Weight": "gkdbench.training.types:NonNegativeFloat",
            "Share": "gkdbench.training.types:UnitFloat",
            "Count": "gkdbench.training.types:PositiveInt",
            "Encoded": "gkdbench.training.blocks.encoded_method:EncodedMethod",
            "SoloRecipe": "gkdbench.training.solo:TrainingSettings",
        },
    ),
    "gkdbench.methods._models": Moved(
        "gkdbench.training.models", {"strictly": "validate_dataclass", "rebuild": "load_teacher_model"}
    ),
    "gkdbench.methods._loop": Moved("gkdbench.training.loop", {"Step": "EpochStep"}),
    "gkdbench.methods._steps": Moved("gkdbench.training.steps", {"Keyed": "HasRandomness"}),
    "gkdbench.methods._schedules": Moved(
        "gkdbench.training.schedules", {"Schedule": "LRSchedule", "After": "AfterEpoch"}
    ),
    "gkdbench.methods._losses": Moved("gkdbench.training.losses"),
    "gkdbench.methods._solo": Moved(
        "gkdbench.training.solo", {"SoloRecipe": "TrainingSettings", "Loss": "LabelLoss", "Forward": "ItemForward"}
    ),
    "gkdbench.methods._distil": Moved("gkdbench.training.distil", {"Soft": "SoftLoss"}),
    "gkdbench.methods._imitation": Moved(
        "gkdbench.training.hidden_features",
        {
            "Answer": "StudentForward",
            "Objective": "HiddenFeatureObjective",
            "Schedule": "HiddenFeatureSchedule",
            "answer_of": "student_forward",
        },
    ),
    "gkdbench.methods._pair_student": Moved(
        "gkdbench.training.node_pairs", {"Terms": "PairTermsFunction", "Begin": "BeginEpoch"}
    ),
    "gkdbench.methods._graph_student": Moved("gkdbench.training.graph_student", {"Structure": "GraphStructureTerm"}),
    "gkdbench.methods._peers": Moved(
        "gkdbench.training.mutual",
        {"PeersRecipe": "MutualTrainingSettings", "Joint": "JointForward", "Losses": "PeerLossFunction"},
    ),
    "gkdbench.methods._peered": Moved(
        "gkdbench.training.mutual_method",
        {"Peered": "MutualMethod", "Mutual": "LogitMutualMethod", "pair_readings": "pair_diagnostics"},
    ),
    "gkdbench.methods._adversarial": Moved("gkdbench.training.blocks.adversarial", {"Objective": "InputLoss"}),
    "gkdbench.methods._branches": Moved("gkdbench.training.blocks.branches"),
    "gkdbench.methods._capped_simplex": Moved("gkdbench.training.blocks.capped_simplex", {"Array": "FloatVector"}),
    "gkdbench.methods._deepwalk": Moved("gkdbench.training.blocks.deepwalk"),
    "gkdbench.methods._huffman": Moved("gkdbench.training.blocks.huffman"),
    "gkdbench.methods._encodings": Moved(
        "gkdbench.training.blocks.encodings", {"Encodes": "InputEncoder", "Encoder": "EncodingTable"}
    ),
    "gkdbench.methods._gradient_share": Moved(
        "gkdbench.training.blocks.gradient_share", {"note_shares": "log_gradient_shares"}
    ),
    "gkdbench.methods._histograms": Moved("gkdbench.training.blocks.label_histogram"),
    "gkdbench.methods._laplacian": Moved("gkdbench.training.blocks.laplacian"),
    "gkdbench.methods._louvain": Moved("gkdbench.training.blocks.louvain"),
    "gkdbench.methods._pairs": Moved("gkdbench.training.blocks.pairs"),
    "gkdbench.methods._projections": Moved("gkdbench.training.blocks.projections"),
    "gkdbench.methods._released": Moved(
        "gkdbench.training.blocks.logit_threshold",
        {"LateThreshold": "LogitThreshold", "late_threshold": "logit_threshold"},
    ),
    "gkdbench.methods._similarity": Moved("gkdbench.training.blocks.similarity"),
    "gkdbench.methods._structure": Moved(
        "gkdbench.training.blocks.structure", {"Structured": "StructureMethod", "note_layers": "log_layers"}
    ),
    "gkdbench.methods._online": Moved("gkdbench.training.blocks.ramp_up"),
    "gkdbench.protocol.handover": Moved(
        "gkdbench.protocol.view_io",
        {"Handover": "TrainingBundle", "write_handover": "write_bundle", "read_handover": "read_bundle"},
    ),
    "gkdbench.protocol.scenes": Moved(
        "gkdbench.protocol.evaluation_graphs", {"Staging": "EvaluationGraphs", "stage": "make_evaluation_graphs"}
    ),
    "gkdbench.protocol.disturb": Moved("gkdbench.protocol.corruption", {"Disturbance": "Corruption"}),
    "gkdbench.execute.problems": Moved(
        "gkdbench.execute.prefetch", {"Desk": "DataPrefetcher", "Ready": "PreparedData", "ProblemName": "SplitTaskId"}
    ),
    "gkdbench.execute.frame": Moved("gkdbench.records.frame"),
    "gkdbench.report.courses": Moved(
        "gkdbench.report.learning_curves", {"courses": "learning_curves", "Run": "CurveRun"}
    ),
}
"""Old module -> where it went."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `MOVED`, after everything that exists was looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _View(spec.name, MOVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        moved = MOVED[module.__name__]
        importlib.import_module(moved.to)
        warnings.warn(
            f"{module.__name__} has moved to {moved.to} and will not import in the next release",
            DeprecationWarning,
            stacklevel=2,
        )


class _View(ModuleType):
    """A module under its old path: every name is looked up, set and deleted where it is now."""

    def __init__(self, name: str, moved: Moved) -> None:
        super().__init__(name, f"Moved to {moved.to}.")
        self.__dict__["_moved"] = moved
        self.__dict__["_replaced"] = {}

    def _home(self, name: str) -> tuple[ModuleType, str]:
        moved: Moved = self.__dict__["_moved"]
        module, _, now = moved.names.get(name, name).rpartition(":")
        return importlib.import_module(module or moved.to), now

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        module, now = self._home(name)
        return getattr(module, now)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
            return
        module, now = self._home(name)
        if hasattr(module, now):
            self.__dict__["_replaced"].setdefault(name, getattr(module, now))
        setattr(module, now, value)

    def __delattr__(self, name: str) -> None:
        """Undo a replacement: the name gets what it had before it was set here, as `monkeypatch` of pytest expects."""
        replaced: dict[str, Any] = self.__dict__["_replaced"]
        if name in replaced:
            setattr(*self._home(name), replaced.pop(name))
        else:
            delattr(*self._home(name))

    def __dir__(self) -> list[str]:
        moved: Moved = self.__dict__["_moved"]
        return sorted({*dir(importlib.import_module(moved.to)), *moved.names})


def install() -> None:
    """Let the old paths import. Called once, when `gkdbench` is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
