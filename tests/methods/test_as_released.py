"""``as_released`` reproduces each listed defect, and ``corrected`` does not have it (docs/protocol.md: H2)."""

from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gkdbench.methods.baselines import kd
from gkdbench.nn.model import Model
from gkdbench.nn.random import Randomness
from gkdbench.protocol.session import run_session
from gkdbench.protocol.view_io import read_bundle
from gkdbench.testing.method_case import identical
from gkdbench.training.registry import METHODS
from gkdbench.training.resolve import resolve
from gkdbench.training.steps import batches

STILL = {"hidden": 16, "layers": 2, "dropout": 0.0}


def soft_loss(bench: Any, monkeypatch: pytest.MonkeyPatch, setting: str, **overrides: Any) -> Any:
    """The `Transfer` that KD hands to the shared loop."""
    seen: list[Any] = []
    view = bench.given(setting).view
    method = resolve("kd", overrides)
    monkeypatch.setattr(kd, "train_student", lambda *arguments: seen.append(arguments[-1]))
    nothing = type("Teacher", (), {"logits": None})
    method.fit(view, type("Context", (), {"teachers": {"teacher": nothing}}))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_kd_as_released_is_smaller_by_the_number_of_classes(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tau: float
) -> None:
    student, teacher = torch.randn(50, 3).double(), torch.randn(50, 3).double()
    corrected = soft_loss(bench, monkeypatch, "tran", tau=tau).soft(student, teacher)
    released = soft_loss(bench, monkeypatch, "tran", tau=tau, variant="as_released").soft(student, teacher)
    p, q = (teacher / tau).softmax(1), (student / tau).softmax(1)
    assert corrected.item() == pytest.approx(tau**2 * (p * (p / q).log()).sum(1).mean().item())
    assert released.item() == pytest.approx(tau**2 * (p * (p / q).log()).mean().item())
    assert corrected.item() == pytest.approx(3 * released.item())


def test_kd_as_released_imitates_on_the_labelled_items_only(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert soft_loss(bench, monkeypatch, "tran").nodes == "all"
    assert soft_loss(bench, monkeypatch, "tran", variant="as_released").nodes == "train"


def test_kd_weights_and_several_labels(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = soft_loss(bench, monkeypatch, "multilabel", alpha=0.9, tau=2.0)
    assert transfer.label_weight == pytest.approx(0.1)
    student, teacher = torch.randn(20, 3).double(), torch.randn(20, 3).double()
    target, answer = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    wanted = -(target * answer.log() + (1 - target) * (1 - answer).log()).mean()
    assert transfer.soft(student, teacher).item() == pytest.approx(wanted.item())


def test_glnn_as_released_steps_on_zero_gradients(bench: Any, adam_steps: Any) -> None:
    """With lambda = 0 the pass over labels has gradient zero, and still moves the weights through Adam's momentum."""
    options = {"label_weight": 0.0, "model": STILL, "batch_size": None, "weight_decay": 0.0}
    corrected = bench.final("glnn", **options)
    bench.final("glnn", variant="as_released", **options)  # trains its teacher, which the next one shares
    before = adam_steps()
    released = bench.final("glnn", variant="as_released", **options)
    assert adam_steps() - before == 2 * 4, "two passes in each of four epochs"
    assert not identical(corrected, released)


def test_the_zero_gradient_pass_alone_moves_weights(bench: Any) -> None:
    """The label pass comes first: in epoch 1 only weight decay moves it, afterwards momentum does too."""
    moved = {}
    verdict = type("Verdict", (), {"stop": False})
    for decay in (0.0, 0.01):
        method = resolve(
            "glnn",
            {
                "variant": "as_released",
                "label_weight": 0.0,
                "weight_decay": decay,
                "model": STILL,
                "batch_size": None,
                "epochs": 2,
            },
        )
        steps: list[list[torch.Tensor]] = []

        def noting(optimiser: Any, arguments: Any, keywords: Any, into: Any = steps) -> None:
            into.append([p.detach().clone() for group in optimiser.param_groups for p in group["params"]])

        view = bench.given("tran").view
        teachers = {r: e.read(view) for r, e in bench.workshop.teachers(method, bench.problem("tran")).items()}
        before = register_optimizer_step_pre_hook(noting)
        after = register_optimizer_step_post_hook(noting)
        monitor = type("Monitor", (), {"report": staticmethod(lambda *_, **__: verdict)})
        try:
            method.fit(view, type("Context", (), {"monitor": monitor, "seed": 0, "teachers": teachers}))  # type: ignore[arg-type]
        finally:
            before.remove()
            after.remove()
        pairs = list(zip(steps[0::2], steps[1::2], strict=True))
        moved[decay] = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairs]
    assert moved[0.0] == [False, True, True, True]
    assert moved[0.01] == [True, True, True, True]


@pytest.mark.parametrize("name", [n for n in METHODS.names() if "as_released" in METHODS.get(n).variants])
def test_some_releases_let_ties_win(name: str) -> None:
    later = {"mlp", "glnn", "nosmog", "krd", "ffg2m", "hgmd", "cohop", "adagmlp", "vqgraph", "vqgraph_teacher", "rod"}
    later.add("teacher")
    assert resolve(name, {"variant": "as_released"}).selection_rule() == ("later" if name in later else "first")
    assert resolve(name).selection_rule() == "loss"


def test_ties_change_what_is_selected(bench: Any, tmp_path: Any) -> None:
    """The same training, selected by either rule: a tie keeps the earlier epoch, or the later one."""
    view, _ = bench.workshop.view(bench.problem("tran"))
    epochs = {}
    for ties in ("first", "later"):
        (tmp_path / ties).mkdir()
        method = resolve("mlp", {"epochs": 30, "model": STILL})
        outcome = run_session(method, bundle=view, scratch=tmp_path / ties, seed=0, teachers={}, selection=ties)
        epochs[ties] = outcome.models[0]["selected_epoch"]
    assert epochs["first"] < epochs["later"]


class Batched(Model):
    """Only its randomness is used."""

    node_trace = None  # type: ignore[assignment]
    first_layer_parameters = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("count", "size", "kept", "dropped"),
    [(10, 4, [4, 4, 2], [4, 4]), (3, 4, [3], [3]), (8, 4, [4, 4], [4, 4]), (10, None, [10], [10]), (0, 4, [], [])],
)
def test_the_remainder_is_dropped_only_by_the_release(
    count: int, size: int | None, kept: list[int], dropped: list[int]
) -> None:
    Batched.__abstractmethods__ = frozenset()
    model = Batched(Randomness(0))
    for drop_last, sizes in ((False, kept), (True, dropped)):
        drawn = list(batches(model, count, size, drop_last=drop_last))
        assert [len(batch) for batch in drawn] == sizes
        everything = torch.cat(drawn).tolist() if drawn else []
        assert len(set(everything)) == len(everything)
        assert set(everything) <= set(range(count))


@pytest.mark.parametrize("name", ["mlp", "glnn"])
def test_the_release_takes_fewer_steps_where_batches_leave_a_remainder(bench: Any, adam_steps: Any, name: str) -> None:
    """60 labels and 210 nodes in batches of 40: 2 or 1 steps on labels, 6 or 5 on the teacher."""
    options = {"batch_size": 40, "model": STILL, "epochs": 1}
    bench.run(name, **options)
    before = adam_steps()
    bench.run(name, **options)
    corrected = adam_steps() - before
    bench.run(name, variant="as_released", **options)
    released = adam_steps() - before - corrected
    assert (corrected, released) == {"mlp": (2, 1), "glnn": (6, 1 + 5)}[name]


def test_bundle_of_the_bench_is_that_of_the_split_task(bench: Any) -> None:
    """The guard of the step counts above: 60 labels, 210 nodes."""
    view = read_bundle(bench.workshop.view(bench.problem("tran"))[0]).view
    assert (len(view.train), len(view.items)) == (60, 210)
