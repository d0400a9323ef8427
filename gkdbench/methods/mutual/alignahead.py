"""Alignahead: students without a teacher, whose layers learn the local structure of another student's next layer.

Order: build the students, store how alike their layers are, train them in the loop of peers with local structures
computed once per step, then store the likeness and the share of the alignment again.

Files that `fit` enters, in order: training/method.py, training/fields.py, training/models.py, nn/gat.py, nn/model.py,
training/mutual.py, nn/parts.py, nn/linear.py, nn/random.py, gkdkernels/graph.py, training/steps.py,
training/blocks/structure.py, methods/mutual/_alignment.py, training/blocks/gradient_share.py, gkdkernels/gat/op.py,
gkdkernels/core/autocast.py, gkdkernels/core/dispatch.py, gkdkernels/core/derivatives.py, gkdkernels/gat/cpu.py,
gkdkernels/kept.py, gkdkernels/spmm/cpu.py, gkdkernels/spmm/op.py, gkdkernels/structure_kl/edge_log_probs.py,
gkdkernels/structure_kl/kernel_functions.py, gkdkernels/structure_kl/edge_rows.py, gkdkernels/core/registration.py,
gkdkernels/structure_kl/cpu.py, training/loop.py, gkdkernels/core/dropout.py, training/mutual_method.py,
training/losses.py, gkdkernels/structure_kl/op.py, nn/stats.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from gkdbench.errors import UserError
from gkdbench.methods.mutual._alignment import AlignmentLosses
from gkdbench.methods.mutual._deep_supervision import DeepSupervision, deep_supervision
from gkdbench.nn.model import Backbone
from gkdbench.protocol.view import Context, Fitted, TrainView
from gkdbench.training.blocks.gradient_share import log_gradient_shares
from gkdbench.training.blocks.logit_threshold import logit_threshold
from gkdbench.training.blocks.structure import StructureMethod, log_layers
from gkdbench.training.fields import GraphBatched
from gkdbench.training.mutual import MutualTrainingSettings, Peer, Update, build_peers, train_peers
from gkdbench.training.types import NonNegativeFloat, PositiveFloat, PositiveInt

LayerDirection = Literal["ahead", "behind", "one-to-one", "none"]


@dataclass(frozen=True, kw_only=True)
class Alignahead(StructureMethod, GraphBatched):
    """``L_m = CE_m + a / (M - 1) sum_{m' != m} sum_l KL(sg LS(m', pi(l)) || LS(m, l))`` (Guo et al. 2022).

    LS(m, l) is the local structure (`gkdkernels.structure_kl`) of hidden layer l of student m before its activation,
    KL a sum over edges and a mean over nodes. M students of one backbone; co-students are constants in the loss.

    ``as_released`` aligns with the layer behind, whatever the paper's figure shows; starts all students from the same
    weights, steps them in turn, clips nothing; compares exp(-|d|_1 / 100), whose softmax is almost uniform; predicts a
    label at logit 0.5; stores a state on a better validation score or a lower training loss; makes a GAT's residual
    an identity where its input is as wide as one head; and refuses one student, where it divides 0 by 0, and a GAT of
    two hidden layers, where it leaves one out.

    Args:
        students: M; one is the solo run. a: weight of the alignment; 0 is "none", bit for bit.
        direction: pi. "ahead": l + 1, the last layer the first; "behind": l - 1, the first layer the last;
            "one-to-one": l; "none": no alignment in the same loop, the schedule control.
        init: whether students draw their initial weights, or copy the first one's.
        update: each student in turn, who sees the new weights of those before it, or all at once.
        clip: largest norm of a student's gradient; None: any. eval_every: epochs between evaluations.
        deep_supervision: Alignahead++ (arXiv 2210.13743), reconstructed from its abstract: a classifier on each hidden
            layer, and ``b * MSE(map(h_l), sg h_pi(l) of m')``. b: weight of that feature transfer.
    """

    name: ClassVar[str] = "alignahead"
    paper: ClassVar[str] = (
        "Guo, Chen, Wang, Alignahead: Online Cross-Layer Knowledge Extraction on Graph Neural Networks"
    )
    year: ClassVar[int | None] = 2022
    arxiv: ClassVar[str] = "2205.02468"
    repository: ClassVar[str] = "GuoJY-eatsTG/Alignahead"
    licence: ClassVar[str] = "none stated"
    needs: ClassVar[str] = "graph"
    multi_label: ClassVar[bool] = True
    variants: ClassVar[tuple[str, ...]] = ("corrected", "as_released")
    deviations: ClassVar[tuple[str, ...]] = (
        "layer l follows layer l + 1 of a co-student, as the paper's figure has it; in the official code layer l - 1",
        "students start from independent weights; in the official code from copies",
        "the kernel is Laplacian with the mean distance as its width; the official code's, exp(-d/100), keeps the "
        "divergence below 0.474 and its gradient near nothing",
        "a label is predicted at probability 0.5; in the official code at logit 0.5",
        "an epoch is selected by strict improvement on validation; the official code stores on a lower training loss "
        "too, so that its best score may fall",
        "one student is the solo run; the official code divides 0 by 0, and a GAT of two hidden layers fails there",
        "gradients are clipped at norm 1; the official code clips none, and both its logs diverge late",
        "a GAT's residual is a linear map; in the official code an identity where the input is as wide as one head, "
        "that is with a single head",
        "a student's distances are measured once, for all co-students; the official code measures them for each, and "
        "moves a second batch to the device that it never reads: time only, so that no variant does it",
        "SAGE students average their neighbours; the official code's take the maximum of a learned map (pool)",
        "students take turns by batches; in the official code by epochs",
    )
    revision: ClassVar[int] = 2
    smoke: ClassVar[Mapping[str, Any]] = {
        "epochs": 5,
        "eval_every": 1,
        "model": {"head_width": 8, "heads": 2, "layers": 4},
    }
    control: ClassVar[str] = "no_transfer"
    control_when: ClassVar[Mapping[str, tuple[Any, ...]]] = {"direction": ("none",)}

    backbone: Literal["gat", "gcn", "sage"] = "gat"
    patience: PositiveInt | None = None
    students: PositiveInt = 2
    direction: LayerDirection = "ahead"
    a: NonNegativeFloat = 1.0
    init: Literal["independent", "copied"] = "independent"
    update: Update = "alternating"
    clip: PositiveFloat | None = 1.0
    eval_every: PositiveInt = 10
    deep_supervision: bool = False
    b: NonNegativeFloat = 1.0

    def fit(self, view: TrainView, ctx: Context) -> Fitted:
        self._refuse_what_the_release_cannot()
        config, settings = self._config(), self._settings()
        students = range(self.students if self.deep_supervision else 0)
        deep = [deep_supervision(config, view, ctx.seed, m) for m in students]
        copied = self.as_released or self.init == "copied"
        peers = build_peers(view, ctx.seed, [config] * self.students, settings, owned=deep, copied=copied)
        if self.as_released and view.multi_label:
            for peer in peers:
                peer.predictor = logit_threshold(peer.predictor)
        objective = self.alignment(peers, deep, multi_label=view.multi_label)
        models = [peer.model for peer in peers]
        log_layers(ctx, view.inputs, models, *self.structure(), when="before")
        fitted, _ = train_peers(view, ctx, peers, settings, objective)
        log_layers(ctx, view.inputs, models, *self.structure(), when="after")
        log_gradient_shares(ctx, objective.shares)
        ctx.extra["steps"] = float(models[0].randomness.step)
        return fitted

    @classmethod
    def figure(cls) -> Mapping[str, list[int]]:
        directions = get_args(LayerDirection)[:3]  # without "none"
        return {direction: cls(direction=direction).target_layers(4) for direction in directions}

    def alignment(self, peers: list[Peer], deep: list[DeepSupervision], *, multi_label: bool) -> AlignmentLosses:
        """The losses of the students `peers`."""
        followed = self.target_layers(int(self.model["layers"]) - 1)
        return AlignmentLosses(
            peers,
            deep,
            followed=followed,
            structure=self.structure(),
            a=self.a,
            b=self.b if deep else 0.0,
            multi_label=multi_label,
        )

    def target_layers(self, layers: int) -> list[int]:
        """Hidden layer (from 0) of a co-student that each hidden layer follows; empty where nothing is aligned."""
        direction = self._followed_direction
        if direction == "none" or self.students == 1:
            return []
        shift = {"ahead": 1, "behind": -1, "one-to-one": 0}[direction]
        return [(layer + shift) % layers for layer in range(layers)]

    @property
    def _followed_direction(self) -> LayerDirection:
        """What is computed: the official code's "alignahead" follows the layer behind."""
        return "behind" if self.as_released and self.direction == "ahead" else self.direction

    def _config(self) -> Backbone:
        model = dict(self.model)
        if self.as_released and self.backbone == "gat" and model.get("residual"):
            model["skips"] = "identity"
        return type(self.backbone_config())(**model)

    def _settings(self) -> MutualTrainingSettings:
        return MutualTrainingSettings(
            lr=self.lr,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_size=self.batch_size,
            graphs_per_step=self.graphs_per_step,
            update="alternating" if self.as_released else self.update,
            clip=None if self.as_released else self.clip,
            every=self.eval_every,
            store_on_loss=self.as_released,
        )

    def _refuse_what_the_release_cannot(self) -> None:
        hidden = int(self.model["layers"]) - 1
        if hidden < 1:
            raise UserError(
                "alignahead: model.layers: expected two or more, got model.layers=1, which has no hidden layer to align"
            )
        if self.as_released and self.students == 1:
            raise UserError(
                "students: expected two or more, got students=1: the official code divides by M - 1 = 0 and its loss "
                "is NaN; use variant=corrected, where one student is the solo run"
            )
        if self.as_released and self.backbone == "gat" and hidden == 2:
            raise UserError(
                "model.layers: expected other than 3, got model.layers=3: the official code fails for a GAT of two "
                "hidden layers; use variant=corrected, or model.layers=4"
            )

    @property
    def label(self) -> str:
        plus = "Alignahead++ (reconstruction)" if self.deep_supervision else "Alignahead"
        alone = self.students == 1 or self.direction == "none" or self.a == 0
        how = "no alignment" if alone else self._followed_direction
        unusual = [] if alone or self.as_released else self._unusual()
        return ", ".join([f"{plus} {how}", f"{self.students} x {self.model_label()}", *unusual])

    def _unusual(self) -> list[str]:
        """What of the alignment is not its default, for tables that hold several."""
        width = [] if self.sigma == "auto" else [f"sigma = {self.sigma:g}"]
        weight = [] if self.a == 1 else [f"a = {self.a:g}"]
        kernel = [] if self.kernel == "laplace" else [self.kernel]
        start = ["copied weights"] if self.init == "copied" else []
        return [*kernel, *width, *weight, *start, *(["all at once"] if self.update == "simultaneous" else [])]
