"""What made images are held to, against the same formulas in numpy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from nets import Net, net
from numpy.typing import NDArray
from steps import noise, step_of
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Out, Step
from edgepress.stages.distill.settings import Loss
from edgepress.stages.synthesis.priors import PRIORS, make_prior, prior_class, prior_defaults, remember, wire_priors
from edgepress.stages.synthesis.through import Through
from edgepress.targets.errors import RecipeError, StageError

Array = NDArray[np.float64]


def step(
    *, teacher: Tensor | None = None, student: Tensor | None = None, x: Tensor | None = None, y: Tensor | None = None
) -> Step:
    said = noise(6, 4, seed=1) if teacher is None else teacher
    return Step(
        batch=Batch(x=noise(6, 3, 5, 7, seed=3) if x is None else x, y=y),
        student=Out(logits=noise(6, 4, seed=2) if student is None else student),
        teachers={"t": Out(logits=said)},
        progress=0.0,
    )


def value(name: str, seen: Step, **options: Any) -> float:
    return float(make_prior(name, options)(seen))


def softmax(logits: Tensor, temperature: float = 1.0) -> Array:
    powers = np.exp(logits.double().numpy() / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_names_its_paper_and_its_options_have_defaults(name: str) -> None:
    assert "arXiv:" in (prior_class(name).__doc__ or "")
    assert make_prior(name, prior_defaults(name)) is not None


def test_a_clear_image_of_the_wanted_class_is_worth_more() -> None:
    teacher, y = noise(6, 4, seed=1), torch.tensor([0, 1, 2, 3, 0, 1])
    p = softmax(teacher)
    assert value("onehot", step(teacher=teacher, y=y)) == pytest.approx(-np.log(p[np.arange(6), y.numpy()]).mean())
    assert value("onehot", step(teacher=teacher)) == pytest.approx(-np.log(p.max(axis=1)).mean())
    assert value("onehot", step(teacher=10 * teacher)) < value("onehot", step(teacher=teacher))


def test_balance_is_the_entropy_of_the_mean_answer_to_base_ten() -> None:
    teacher = 3 * noise(6, 4, seed=1)
    mean = softmax(teacher).mean(axis=0)
    assert value("balance", step(teacher=teacher)) == pytest.approx((mean * np.log10(mean)).sum(), rel=1e-5)
    every_class = 50 * torch.eye(4)
    assert value("balance", step(teacher=every_class)) == pytest.approx(-np.log10(4))
    one_class = every_class[:1].repeat(4, 1)
    assert value("balance", step(teacher=one_class)) == pytest.approx(0.0, abs=1e-6)


def test_balance_has_a_gradient_where_a_class_is_never_answered() -> None:
    teacher = torch.tensor([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]], requires_grad=True)
    make_prior("balance", {})(step(teacher=teacher)).backward()
    assert teacher.grad is not None
    assert torch.isfinite(teacher.grad).all()


def test_activation_is_what_the_teachers_classifier_is_given() -> None:
    feats = noise(6, 5)
    seen = step_of([(torch.zeros(6, 1), feats)])
    prior = make_prior("activation", {})
    prior.pairs = (("", "0"),)
    assert float(prior(seen)) == pytest.approx(-np.abs(feats.numpy()).mean(), rel=1e-5)


@pytest.mark.parametrize("where_equal", [False, True])
@pytest.mark.parametrize("kind", ["l1", "kl", "js"])
def test_disagreement_is_how_far_two_answers_are_apart(kind: str, where_equal: bool) -> None:
    teacher, student = noise(6, 4, seed=1), noise(6, 4, seed=2)
    if kind == "l1":
        each = np.abs((student - teacher).double().numpy()).mean(axis=1)
    elif kind == "kl":
        s, t = softmax(student), softmax(teacher)
        each = (t * np.log(t / s)).sum(axis=1)
    else:
        s, t = softmax(student, 3.0), softmax(teacher, 3.0)
        middle = (s + t) / 2
        each = ((t * np.log(t / middle)).sum(axis=1) + (s * np.log(s / middle)).sum(axis=1)) / 2
    counts = (student.argmax(1) == teacher.argmax(1)).double().numpy() if where_equal else np.ones(6)
    assert 0 < counts.sum() <= 6
    found = value("disagreement", step(teacher=teacher, student=student), kind=kind, where_equal=where_equal)
    assert found == pytest.approx((each * counts).mean(), rel=1e-4)
    assert value("disagreement", step(teacher=teacher, student=teacher), kind=kind) == pytest.approx(0.0, abs=1e-6)


def test_repeating_a_class_that_nobody_believes_in_does_not_rescale_the_divergence() -> None:
    teacher, student = noise(6, 4, seed=1), noise(6, 4, seed=2)
    never = torch.full((6, 40), -1e4)
    wider = step(teacher=torch.cat([teacher, never], dim=1), student=torch.cat([student, never], dim=1))
    assert value("disagreement", wider, kind="kl") == pytest.approx(
        value("disagreement", step(teacher=teacher, student=student), kind="kl"), rel=1e-5
    )


def test_total_variation_is_over_neighbours_to_the_right_below_and_across() -> None:
    x = noise(6, 3, 5, 7, seed=3)
    a = x.double().numpy()
    moved = [
        a[..., 1:] - a[..., :-1], a[..., 1:, :] - a[..., :-1, :],
        a[..., 1:, :-1] - a[..., :-1, 1:], a[..., 1:, 1:] - a[..., :-1, :-1],
    ]  # fmt: skip
    assert value("tv", step(x=x), kind="l1") == pytest.approx(sum(np.abs(one).mean() for one in moved), rel=1e-5)
    lengths = sum(np.sqrt((one**2).reshape(6, -1).sum(axis=1)).mean() for one in moved)
    assert value("tv", step(x=x)) == pytest.approx(lengths, rel=1e-5)
    assert value("tv", step(x=torch.cat([x, x]))) == pytest.approx(lengths, rel=1e-5)
    assert value("tv", step(x=torch.ones(2, 3, 5, 7))) == 0


def test_the_norm_is_that_of_each_image() -> None:
    x = noise(6, 3, 5, 7, seed=3)
    expected = np.sqrt((x.double().numpy() ** 2).reshape(6, -1).sum(axis=1)).mean()
    assert value("norm", step(x=x)) == pytest.approx(expected, rel=1e-5)


def viewed(whole: Tensor, part: Tensor) -> Step:
    return Step(
        batch=Batch(x=torch.zeros(len(whole), 1)),
        student=Out(logits=torch.zeros(len(whole), 2)),
        teachers={"t": Out(logits=torch.zeros(len(whole), 2), feats={"a": whole}, view=Out(logits=torch.zeros(len(part), 2), feats={"a": part}))},
        progress=0.0,
    )  # fmt: skip


def contrast(seen: Step, **options: Any) -> Any:
    prior = make_prior("contrast", options)
    prior.pairs = (("", "a"),)
    torch.manual_seed(0)
    prior.build(seen)
    return prior


def test_contrast_picks_each_image_out_of_the_batch_and_of_those_that_were_kept() -> None:
    whole, part = noise(4, 3, 2, 2, seed=1), noise(4, 3, 2, 2, seed=2)
    seen = viewed(whole, part)
    prior = contrast(seen, temperature=0.5)
    prior.head = nn.Identity()

    def expected(u: Array, v: Array) -> Array:
        u, v = (one / np.sqrt((one**2).sum(axis=1, keepdims=True)) for one in (u, v))
        powers = np.exp(v @ u.T / 0.5)
        return np.asarray(-np.log(np.diag(powers) / powers.sum(axis=1)))

    u, v = (one.double().mean(dim=(2, 3)).numpy() for one in (whole, part))
    assert float(prior(seen)) == pytest.approx(expected(u, v).mean(), rel=1e-4)
    prior.remember()
    each = expected(np.concatenate([u, u]), np.concatenate([v, v]))
    assert float(prior(seen)) == pytest.approx(each[:4].mean() + each[4:].mean(), rel=1e-4)


def test_the_memory_of_the_contrast_is_a_ring_and_comes_back_from_a_checkpoint() -> None:
    seen = [viewed(noise(4, 3, seed=one), noise(4, 3, seed=one + 9)) for one in range(3)]
    prior = contrast(seen[0], bank=6)
    for one in seen:
        prior(one)
        prior.remember()
    assert len(prior.bank) == 6
    torch.testing.assert_close(prior.bank[-4:, :3], seen[2].teacher().feats["a"])
    fresh = contrast(seen[0], bank=6)
    fresh.load_state_dict(prior.state_dict())
    torch.testing.assert_close(fresh(seen[1]), prior(seen[1]))


def wired(name: str, teacher: nn.Module, student: nn.Module, *, weight: float = 1.0, **options: Any) -> Any:
    probe = Batch(x=noise(4, 1, 8, 8), view=noise(4, 1, 8, 8, seed=1))
    source = Through(teacher)
    objective = wire_priors(
        {name: Loss(weight=weight, options=options)}, learner=student, teachers={"t": source}, probe=probe
    )
    return objective, source


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_is_wired_to_two_networks_and_has_a_gradient_for_the_images(name: str) -> None:
    teacher, student = net(seed=0), net(seed=1, width=8)
    objective, source = wired(name, teacher, student)
    x = noise(4, 1, 8, 8, seed=5).requires_grad_()
    batch = Batch(x=x, view=x.flip(3))
    seen = Step(
        batch=batch, student=Out(logits=student(x)), teachers={"t": source.see(batch)}, progress=0.0, learner=student,
        models={"t": teacher},
    )  # fmt: skip
    total, _ = objective(seen)
    total.backward()
    remember(objective)
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0


def test_a_student_that_is_its_own_teacher_is_refused_by_disagreement() -> None:
    teacher = net()
    with pytest.raises(StageError, match=r"the student is its own teacher \(t\)"):
        wired("disagreement", teacher, teacher, weight=-1.0)
    with pytest.raises(StageError, match="a copy with the same weights"):
        wired("disagreement", teacher, copy.deepcopy(teacher), weight=-1.0)
    tied = net(seed=1)
    tied.head.weight = teacher.head.weight
    with pytest.raises(StageError, match="never disagree"):
        wired("disagreement", teacher, tied, weight=-1.0)


def test_answers_of_other_classes_are_refused_only_where_they_are_compared() -> None:
    other = Net(8, classes=3).eval()
    with pytest.raises(StageError, match="the teacher t tells 4 classes apart and the student 3"):
        wired("disagreement", net(), other)
    assert wired("onehot", net(), other) is not None


def test_wrong_names_and_options_are_refused_with_their_neighbours() -> None:
    with pytest.raises(RecipeError, match="no prior of made images is called 'balanse'; did you mean 'balance'"):
        make_prior("balanse", {})
    with pytest.raises(RecipeError, match="the prior disagreement has no option 'kinds'; did you mean 'kind'"):
        make_prior("disagreement", {"kinds": "l1"})
    with pytest.raises(RecipeError, match="kind is 'l3'; it can be l1, kl, js"):
        make_prior("disagreement", {"kind": "l3"})
    with pytest.raises(RecipeError, match="momentum is 1.0; it is at least 0 and less than 1"):
        make_prior("bnstats", {"momentum": 1.0})


def test_a_teacher_that_tells_one_number_has_no_clear_images() -> None:
    with pytest.raises(StageError, match="the loss onehot: the teacher tells one number and no classes"):
        wired("onehot", Net(8, classes=1).eval(), Net(8, classes=1).eval())
