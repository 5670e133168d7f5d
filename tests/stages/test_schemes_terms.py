"""Losses of self-, adversarial and robust distillation against their formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgepress.stages.distill.adversarial import FoolFeatures, fooled, told
from edgepress.stages.distill.exits import BeYourOwnTeacher, Exit, ExitShape, OnTheFlyEnsemble, pooled
from edgepress.stages.distill.losses import make
from edgepress.stages.distill.nouns import Batch, Out, Step, Term
from edgepress.stages.distill.selfteaching import Memory
from edgepress.targets.errors import StageError

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def logits(seed: int, *, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))


def step(
    student: Tensor, *, teacher: Tensor | None = None, view: Tensor | None = None, progress: float = 0.0,
    index: Tensor | None = None, feats: dict[str, Tensor] | None = None,
) -> Step:  # fmt: skip
    return Step(
        batch=Batch(x=torch.zeros(6), y=LABELS, index=torch.arange(6) if index is None else index),
        student=Out(logits=student, feats=feats or {}, view=None if view is None else Out(logits=view)),
        teachers={} if teacher is None else {"teacher": Out(logits=teacher)},
        progress=progress,
    )


def built(name: str, probe: Step, **options: object) -> Term:
    term = make(name, options)
    term.build(probe)
    return term


def probabilities(z: Tensor, temperature: float = 1.0) -> np.ndarray:
    scaled = z.detach().double().numpy() / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum() / len(p))


def test_progressive_self_distillation_mixes_the_label_with_the_answer_of_an_epoch_ago() -> None:
    term = built("pskd", step(logits(0)))
    first = term(step(logits(0), progress=0.0))
    torch.testing.assert_close(first, F.cross_entropy(logits(0), LABELS))  # nothing is remembered yet
    second = term(step(logits(1), progress=0.5))
    target = 0.6 * np.eye(3)[LABELS] + 0.4 * probabilities(logits(0))  # 0.8 x 0.5 of what was said before
    expected = -(target * np.log(probabilities(logits(1)))).sum(axis=1).mean()
    assert second.item() == pytest.approx(expected, rel=1e-5)


def test_a_sample_that_is_new_learns_from_its_label_alone_whatever_others_remember() -> None:
    term = built("pskd", step(logits(0)))
    term(step(logits(0), progress=0.0))
    later = term(step(logits(1), progress=1.0, index=torch.arange(6) + 6))
    torch.testing.assert_close(later, F.cross_entropy(logits(1), LABELS))


def test_temporal_ensembling_averages_with_its_start_corrected() -> None:
    term = built("temporal", step(logits(0)))
    said = [probabilities(logits(seed)) for seed in range(3)]
    assert float(term(step(logits(0)))) == 0.0
    second, third = float(term(step(logits(1)))), float(term(step(logits(2))))
    assert second == pytest.approx(((said[1] - said[0]) ** 2).mean(), rel=1e-4)
    average = (0.6 * 0.4 * said[0] + 0.4 * said[1]) / (1 - 0.6**2)
    assert third == pytest.approx(((said[2] - average) ** 2).mean(), rel=1e-4)


def test_a_memory_survives_a_checkpoint_although_it_has_grown() -> None:
    memory = Memory(width=2)
    memory.write(torch.tensor([5, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    fresh = Memory(width=2)
    fresh.load_state_dict(memory.state_dict())
    rows, written = fresh.recall(torch.tensor([0, 1, 5]))
    torch.testing.assert_close(rows, torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]))
    assert written.tolist() == [1, 0, 1]


def test_the_classmate_is_imitated_and_gets_no_gradient() -> None:
    student, other = logits(0).requires_grad_(), logits(1).requires_grad_()
    value = make("cskd", {})(step(student, view=other))
    assert value.item() == pytest.approx(16 * kl(probabilities(logits(1), 4), probabilities(logits(0), 4)), rel=1e-4)
    value.backward()
    assert student.grad is not None
    assert other.grad is None


def test_two_variations_are_drawn_to_each_other_alike() -> None:
    one, other = logits(0).requires_grad_(), logits(1).requires_grad_()
    value = make("ddgsd", {})(step(one, view=other))
    torch.testing.assert_close(value, make("ddgsd", {})(step(other, view=one)))
    p, q = probabilities(logits(0)), probabilities(logits(1))
    assert value.item() == pytest.approx(kl(p, q) + kl(q, p), rel=1e-4)
    value.backward()
    assert one.grad is not None
    assert other.grad is not None


def test_the_mean_teacher_is_followed_in_probabilities() -> None:
    value = make("meanteacher", {})(step(logits(0), teacher=logits(1)))
    expected = ((probabilities(logits(0)) - probabilities(logits(1))) ** 2).mean()
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_ard_compares_the_attacked_student_with_the_teacher_on_the_clean_image() -> None:
    said = step(logits(0), teacher=logits(1), view=logits(2))
    imitated = 900 * kl(probabilities(logits(1), 30), probabilities(logits(0), 30))
    assert float(make("ard", {})(said)) == pytest.approx(imitated, rel=1e-3)
    half = make("ard", {"share": 0.5})(said)
    assert half.item() == pytest.approx(0.5 * imitated + 0.5 * float(F.cross_entropy(logits(2), LABELS)), rel=1e-3)


def test_rslad_weighs_the_attacked_and_the_clean_answer() -> None:
    value = make("rslad", {})(step(logits(0), teacher=logits(1), view=logits(2)))
    p = probabilities(logits(1))
    expected = 5 / 6 * kl(p, probabilities(logits(0))) + 1 / 6 * kl(p, probabilities(logits(2)))
    assert value.item() == pytest.approx(expected, rel=1e-4)


def features(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(6, 4, 8, 8, generator=generator),
        "b": torch.randn(6, 6, 4, 4, generator=generator),
        "c": torch.randn(6, 8, 2, 2, generator=generator),
    }


def with_exits(term: Term, probe: Step) -> Term:
    term.pairs = (("a", ""), ("b", ""), ("c", ""))
    torch.manual_seed(0)
    term.build(probe)
    return term.eval()


def test_byot_adds_up_over_its_exits() -> None:
    said = step(logits(0), feats=features(0))
    term = with_exits(BeYourOwnTeacher(hint=0.01), said)
    expected = 0.0
    for tap, head in zip("ab", term.exits, strict=True):
        assert isinstance(head, Exit)
        embedding, answer = head.embedding(said.student.feats[tap]), head(said.student.feats[tap])
        wanted = pooled(said.student.feats["c"])
        counts = ((embedding > 0) | (wanted > 0)).float()
        expected += 0.9 * F.cross_entropy(answer, LABELS).item()
        expected += 0.1 * 9 * kl(probabilities(logits(0), 3), probabilities(answer, 3))
        expected += 0.01 * ((counts * (embedding - wanted) ** 2).sum() / 6).item()
    assert term(said).item() == pytest.approx(expected, rel=1e-4)


def test_an_exit_teaches_what_lies_before_it_and_not_the_end_that_teaches_it() -> None:
    feats = {name: value.requires_grad_() for name, value in features(0).items()}
    end = logits(0).requires_grad_()
    said = step(end, feats=feats)
    with_exits(BeYourOwnTeacher(), said)(said).backward()
    assert feats["a"].grad is not None
    assert feats["b"].grad is not None
    assert feats["c"].grad is None
    assert end.grad is None


def test_an_exit_comes_down_to_the_last_map_and_takes_tokens_too() -> None:
    feats = features(0)
    shape = ExitShape.between(feats["a"], feats["c"], 3)
    assert (shape.channels, shape.width, shape.halvings) == (4, 8, 2)
    assert Exit(shape).body(feats["a"]).shape == (6, 8, 2, 2)
    tokens = ExitShape.between(torch.zeros(6, 5, 4), torch.zeros(6, 5, 7), 3)
    assert Exit(tokens)(torch.zeros(6, 5, 4)).shape == (6, 3)


def test_exits_of_a_network_with_one_stage_ask_for_taps() -> None:
    term = BeYourOwnTeacher()
    term.pairs = (("c", ""),)
    with pytest.raises(StageError, match="one was found: name the taps"):
        term.build(step(logits(0), feats=features(0)))


def test_one_lets_the_gated_ensemble_teach_every_branch() -> None:
    said = step(logits(0), feats=features(0), progress=1.0)
    term = with_exits(OnTheFlyEnsemble(), said)
    assert isinstance(term, OnTheFlyEnsemble)
    answers = torch.stack([logits(0), *(head(features(0)["b"]) for head in term.exits)])
    gates = term.gate(pooled(features(0)["b"]))
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(6))
    ensemble = (gates.T.unsqueeze(2) * answers).sum(dim=0)
    expected = sum(F.cross_entropy(one, LABELS).item() for one in [ensemble, *answers[1:]])
    expected += sum(9 * kl(probabilities(ensemble, 3), probabilities(one, 3)) for one in answers)
    assert term(said).item() == pytest.approx(expected, rel=1e-4)


def test_one_begins_without_the_ensemble_as_a_teacher() -> None:
    said = step(logits(0), feats=features(0))
    term = with_exits(OnTheFlyEnsemble(), said)
    late = term(replace(said, progress=80 / 300)).item()
    early = term(said).item()
    middle = term(replace(said, progress=40 / 300)).item()
    assert middle - early == pytest.approx((late - early) * (np.exp(-1.25) - np.exp(-5)) / (1 - np.exp(-5)), rel=1e-3)


@pytest.mark.parametrize("game", ["bce", "ls", "hinge"])
def test_the_games_have_their_published_losses(game: str) -> None:
    real, fake = np.array([0.3, -1.2, 2.0]), np.array([0.5, 1.5, -0.7])
    sigmoid = lambda d: 1 / (1 + np.exp(-d))  # noqa: E731
    wanted = {
        "bce": (-np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean(), -np.log(sigmoid(fake)).mean()),
        "ls": (((real - 1) ** 2).mean() + (fake**2).mean(), ((fake - 1) ** 2).mean()),
        "hinge": (np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(), -fake.mean()),
    }[game]
    d_real, d_fake = torch.tensor(real), torch.tensor(fake)
    assert float(told(d_real, d_fake, game)) == pytest.approx(wanted[0])  # type: ignore[arg-type]
    assert float(fooled(d_fake, game)) == pytest.approx(wanted[1])  # type: ignore[arg-type]


def test_who_tells_gives_no_gradient_to_whom_it_looks_at() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    said = step(student, teacher=teacher)
    term = built("fool", said)
    opponent = term.opponent()
    assert opponent is not None
    opponent.term(said).backward()
    assert student.grad is None
    assert teacher.grad is None
    assert all(parameter.grad is not None for parameter in opponent.module.parameters())
    term(said).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_discriminator_is_no_parameter_of_the_student_s_loss() -> None:
    term = built("fool", step(logits(0), teacher=logits(1)))
    assert not list(term.learned())
    assert not term.state_dict()


def test_features_are_judged_in_the_teacher_s_shape() -> None:
    said = step(logits(0), teacher=logits(1), feats={"mine": torch.randn(6, 4, 8, 8)})
    said = replace(said, teachers={"teacher": Out(logits=logits(1), feats={"theirs": torch.randn(6, 7, 4, 4)})})
    term = FoolFeatures()
    term.pairs = (("mine", "theirs"),)
    term.build(said)
    student, teacher = term.look(said)
    assert student.shape == teacher.shape == (6, 7, 4, 4)
    assert len(list(term.learned())) == 3  # the adapter's convolution and batch norm
    opponent = term.opponent()
    assert opponent is not None
    assert opponent.term.pairs == term.pairs


@pytest.mark.parametrize("name", ["pskd", "temporal", "cskd", "ddgsd", "meanteacher", "ard", "rslad", "fool"])
def test_extreme_logits_leave_losses_and_gradients_finite(name: str) -> None:
    student = logits(0, scale=1e4).requires_grad_()
    said = step(student, teacher=logits(1, scale=1e4), view=logits(2, scale=1e4), progress=0.5)
    term = built(name, said)
    term(said)
    value = term(said)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
