"""Every loss against its formula in double precision, values and gradients (docs/protocol.md, traps 4, 5, 6)."""

import math

import pytest
import torch
from torch import Tensor

from gkdbench.training.losses import entropy, kl_to_teacher, supervised

SIZES = [1, 7, 40]
TAUS = [0.1, 1.0, 4.0, 10.0]


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    exps = [math.exp(value - top) for value in row]
    return [value / math.fsum(exps) for value in exps]


def kl_by_hand(student: Tensor, teacher: Tensor, tau: float) -> float:
    rows = []
    for s, t in zip((student / tau).tolist(), (teacher / tau).tolist(), strict=True):
        p, q = softmax(t), softmax(s)
        rows.append(math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return math.fsum(rows) / len(rows)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("c", SIZES)
@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_kl_is_the_mean_over_rows_of_the_sum_over_classes(n: int, c: int, tau: float) -> None:
    student, teacher = draw(n, c), draw(n, c, seed=1)
    wanted = kl_by_hand(student, teacher, tau)
    assert kl_to_teacher(student, teacher, tau=tau).item() == pytest.approx(wanted, rel=1e-12, abs=1e-14)
    single = kl_to_teacher(student.float(), teacher.float(), tau=tau).item()
    assert single == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_kl_of_equal_logits_is_zero_and_never_negative(tau: float, multi_label: bool) -> None:
    for seed in range(20):
        student, teacher = draw(7, 5, seed=seed, scale=10), draw(7, 5, seed=seed + 100, scale=10)
        assert abs(kl_to_teacher(teacher, teacher, tau=tau, multi_label=multi_label).item()) < 1e-12
        assert kl_to_teacher(student, teacher, tau=tau, multi_label=multi_label).item() >= 0


@pytest.mark.parametrize("tau", TAUS)
def test_kl_does_not_change_when_logits_are_shifted(tau: float) -> None:
    """Tempered softmax, not log-probabilities divided by tau without a new normalisation."""
    student, teacher = draw(7, 5), draw(7, 5, seed=1)
    shifted = kl_to_teacher(student + 3, teacher.log_softmax(1), tau=tau)
    assert shifted.item() == pytest.approx(kl_to_teacher(student, teacher, tau=tau).item(), rel=1e-10)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("c", SIZES)
def test_multi_label_kl_is_the_mean_bernoulli_kl(n: int, c: int) -> None:
    student, teacher, tau = draw(n, c), draw(n, c, seed=1), 2.0
    terms = []
    for s, t in zip((student / tau).flatten().tolist(), (teacher / tau).flatten().tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(-s))
        terms.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    wanted = math.fsum(terms) / len(terms)
    assert kl_to_teacher(student, teacher, tau=tau, multi_label=True).item() == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("multi_label", [False, True])
def test_kl_stays_finite_where_softmax_saturates(multi_label: bool) -> None:
    student = torch.tensor([[1e4, 0.0], [-1e4, 0.0]], requires_grad=True)
    value = kl_to_teacher(student, -student.detach(), multi_label=multi_label)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("tau", [0.5, 4.0])
def test_kl_gradient(multi_label: bool, tau: float) -> None:
    student, teacher = draw(20, 4, scale=1).requires_grad_(), draw(20, 4, seed=1, scale=1)
    assert torch.autograd.gradcheck(lambda z: kl_to_teacher(z, teacher, tau=tau, multi_label=multi_label), student)


def test_kl_gradient_is_the_difference_of_probabilities() -> None:
    student, teacher, tau = draw(20, 4).requires_grad_(), draw(20, 4, seed=1), 4.0
    kl_to_teacher(student, teacher, tau=tau).backward()
    wanted = ((student / tau).softmax(1) - (teacher / tau).softmax(1)).detach() / tau / 20
    torch.testing.assert_close(student.grad, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_teacher_gets_no_gradient(multi_label: bool) -> None:
    student, teacher = draw(7, 3).requires_grad_(), draw(7, 3, seed=1).requires_grad_()
    kl_to_teacher(student, teacher, multi_label=multi_label).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("c", [2, 7, 40])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothed_cross_entropy(c: int, smoothing: float) -> None:
    logits, labels = draw(7, c), torch.arange(7) % c
    rows = []
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        logs = [math.log(p) for p in softmax(row)]
        rows.append(-(1 - smoothing) * logs[y] - smoothing / c * math.fsum(logs))
    wanted = math.fsum(rows) / 7
    assert supervised(logits, labels, smoothing=smoothing).item() == pytest.approx(wanted, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: supervised(z, labels, smoothing=smoothing), draw(7, c).requires_grad_())


def test_multi_label_cross_entropy_is_a_mean_over_known_entries() -> None:
    logits = draw(6, 3)
    labels = (draw(6, 3, seed=1) > 0).float()
    labels[0, 0] = labels[3] = math.nan
    terms = [
        -math.log(1 / (1 + math.exp(-z if y else z)))
        for z, y in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True)
        if not math.isnan(y)
    ]
    assert len(terms) == 14
    value = supervised(logits.float(), labels, multi_label=True)
    assert value.item() == pytest.approx(math.fsum(terms) / 14, rel=1e-5)


@pytest.mark.parametrize("c", SIZES)
def test_entropy(c: int) -> None:
    logits = draw(7, c)
    rows = [-math.fsum(p * math.log(p) for p in softmax(row)) for row in logits.tolist()]
    assert entropy(logits).item() == pytest.approx(math.fsum(rows) / 7, rel=1e-12, abs=1e-14)
    assert entropy(torch.zeros(3, c)).item() == pytest.approx(math.log(c), abs=1e-6)
    assert torch.autograd.gradcheck(entropy, draw(7, c).requires_grad_())


def test_several_labels_are_smoothed_towards_a_half_and_holes_left_out() -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    labels = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    z, y = logits[~labels.isnan()], torch.tensor([1.0, 0.0, 1.0]) * 0.8 + 0.1
    by_hand = -(y * z.sigmoid().log() + (1 - y) * (1 - z.sigmoid()).log()).mean()
    torch.testing.assert_close(supervised(logits, labels, multi_label=True, smoothing=0.2), by_hand)


def test_entropy_of_known_labels_is_the_mean_of_their_bernoulli_entropies() -> None:
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]])
    known = torch.tensor([[True, False], [True, True]])
    p = logits[known].sigmoid()
    torch.testing.assert_close(entropy(logits, known), -(p * p.log() + (1 - p) * (1 - p).log()).mean())
    assert entropy(logits, torch.zeros(2, 2, dtype=torch.bool)) == 0
