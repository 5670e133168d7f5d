"""Losses on answers that also look at features: cells, stepping stones, embeddings."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from answers import kl
from hand_made import built, gradient, noise, seen
from nets import CLASSES, Net, context, net
from torch import Tensor, nn

from edgepress.stages.distill.blockwise import BlockWise, continued
from edgepress.stages.distill.embeddings import NormAndDirection, PrimeAware, Triplet
from edgepress.stages.distill.nouns import Batch, Objective, Step
from edgepress.stages.distill.response import each_divergence
from edgepress.stages.distill.scales import classified
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.watching import answer
from edgepress.stages.distill.wiring import wire
from edgepress.stages.lesson import Lesson
from edgepress.stages.teaching import teach
from edgepress.targets.errors import StageError

LABELS = torch.arange(6) % CLASSES


def wired(name: str, *, student: nn.Module, teacher: nn.Module, **options: object) -> tuple[Objective, Step]:
    """A loss on real networks, and a step in which they saw a batch."""
    batch = Batch(x=noise(6, 1, 8, 8), y=LABELS)
    source = Frozen(teacher)
    objective = wire({name: Loss(options=options)}, learner=student, teachers={"teacher": source}, probe=batch)
    said = source.see(batch)
    mine = answer(student, batch.x, objective.taps())
    step = Step(
        batch=batch, student=mine, teachers={"teacher": said}, progress=0.0, learner=student,
        models={"teacher": teacher},
    )  # fmt: skip
    return objective, step


def test_one_cell_of_a_network_that_pools_says_what_the_network_says() -> None:
    module = net()
    objective, step = wired("sdd", student=module, teacher=net(seed=1))
    feature = next(iter(step.student.feats.values()))
    cells = classified(feature, module, step.student.logits, (1,))
    torch.testing.assert_close(cells[:, 0], step.student.logits)
    assert next(iter(objective.terms.values())).pairs == (("block", "block"),)


def test_sdd_doubles_the_cells_that_disagree_with_the_whole_image() -> None:
    student, teacher = net(), net(seed=1)
    with torch.no_grad():  # a teacher without a favourite class
        teacher.head.bias -= teacher(noise(6, 1, 8, 8)).mean(0)
    objective, step = wired("sdd", student=student, teacher=teacher, scales=[1, 2], base="kd")
    loss, _ = objective(step)
    mine, theirs = (next(iter(out.feats.values())) for out in (step.student, step.teacher()))
    values, agreed = [], []
    for rows in ([slice(0, 8)], [slice(0, 4), slice(4, 8)]):
        for row in rows:
            for column in rows:
                s, t = (
                    part.head(said[:, :, row, column].mean((2, 3)))
                    for part, said in ((student, mine), (teacher, theirs))
                )
                agrees = (t.argmax(1) == LABELS) == (step.teacher().logits.argmax(1) == LABELS)
                agreed.append(agrees)
                values.append(torch.where(agrees, 1.0, 2.0) * each_divergence(s, t, temperature=4.0))
    torch.testing.assert_close(loss, torch.stack(values).mean())
    assert 0 < int(torch.stack(agreed).sum()) < 30  # some of 6 x 5 cells disagree with their image


def test_sdd_of_a_network_that_flattens_its_map_is_refused() -> None:
    flat = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(192, CLASSES))
    with pytest.raises(StageError, match="from 3 channels to 4 classes, and its last one goes from 192 to 4"):
        wired("sdd", student=flat, teacher=net())


def test_sdd_refuses_more_cells_than_the_map_has() -> None:
    with pytest.raises(StageError, match="16 x 16 cells"):
        wired("sdd", student=net(), teacher=net(seed=1), scales=[1, 16])


def test_a_network_continues_from_what_is_put_in_place_of_a_feature() -> None:
    teacher, x = net(), noise(2, 1, 8, 8)
    value = noise(2, 16, 8, 8, seed=3).requires_grad_()
    said = continued(teacher, "block", value, x)
    torch.testing.assert_close(said, teacher.head(value.mean((2, 3))))
    said.sum().backward()
    assert value.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.block._forward_hooks
    torch.testing.assert_close(teacher(x), net()(x))


def test_blockwise_with_the_teacher_s_own_features_is_nothing() -> None:
    teacher = net(seed=1)
    objective, step = wired("blockwise", student=copy.deepcopy(teacher), teacher=teacher)
    torch.testing.assert_close(objective(step)[0], torch.tensor(0.0), atol=1e-6, rtol=0)


def test_blockwise_is_the_divergences_to_and_from_the_stepping_stone() -> None:
    student, teacher = net(), net(seed=1)  # of one width: no adapter in between
    objective, step = wired("blockwise", student=student, teacher=teacher)
    stone = teacher.head(step.student.feats["block"].mean((2, 3)))
    p, q, r = ((z / 4).softmax(1) for z in (step.teacher().logits, stone, step.student.logits))
    torch.testing.assert_close(objective(step)[0], 16 * (kl(p, q) + kl(q, r)).mean())


def test_blockwise_joins_other_widths_and_teaches_the_student_s_blocks_through_the_teacher() -> None:
    student, teacher = net(width=8), net(seed=1)
    objective, step = wired("blockwise", student=student, teacher=teacher)
    objective(step)[0].backward()
    assert student.stem.weight.grad is not None
    assert student.stem.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert [tuple(parameter.shape) for parameter in objective.learned()] == [(16, 8, 1, 1), (16,), (16,)]


def test_blockwise_survives_an_in_place_activation_behind_the_tap() -> None:
    def small() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(4, CLASSES),
        )  # fmt: skip

    torch.manual_seed(0)
    student, teacher = small(), small().eval()
    step = seen(noise(6, 4, 8, 8), noise(6, 4, 8, 8, seed=1), logits=(noise(6, 4), noise(6, 4, seed=1)))
    leaf = step.student.feats["0"].requires_grad_()
    step = replace(step, batch=Batch(x=noise(6, 1, 8, 8)), learner=student, models={"teacher": teacher})
    term = BlockWise()
    term.pairs = (("0", "1"),)
    step = replace(step, teachers={"teacher": replace(step.teacher(), feats={"1": step.teacher().feats["0"]})})
    term.build(step)
    before = leaf.detach().clone()
    term(step).backward()
    torch.testing.assert_close(leaf.detach(), before, rtol=0, atol=0)
    assert leaf.grad is not None


def test_blockwise_refuses_a_tap_that_it_cannot_replace() -> None:
    term = BlockWise()
    term.pairs = (("0", "0:in"),)
    with pytest.raises(StageError, match="0:in is no output to replace"):
        term.build(seen(noise(2, 4), noise(2, 4)))


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_pad_weighs_squares_by_predicted_variances() -> None:
    mine, theirs = noise(6, 5), noise(6, 5, seed=1)
    term = built(PrimeAware(), seen(mine, theirs)).train()
    raw = term.variance[0](mine)
    log_v = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt()
    expected = ((mine - theirs) ** 2 / (1e-6 + log_v.exp()) + log_v).mean()
    torch.testing.assert_close(term(seen(mine, theirs)), expected)


def test_pad_learns_to_doubt_what_the_student_cannot_follow() -> None:
    mine, theirs = noise(32, 3), noise(32, 3, seed=1) * torch.tensor([0.0, 1.0, 30.0]) + 0.0
    theirs[:, 0] = mine[:, 0]
    term = built(PrimeAware(), seen(mine, theirs)).train()
    optimizer = torch.optim.Adam(term.learned(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        term(seen(mine, theirs)).backward()
        optimizer.step()
    doubt = term.variance(mine).mean(0)
    assert doubt[0] < doubt[1] < doubt[2]


def test_triplet_pushes_from_teachers_of_other_classes() -> None:
    mine, theirs, labels = noise(4, 5), noise(4, 5, seed=1), torch.tensor([0, 0, 1, 2])
    s, t = unit(mine), unit(theirs)
    losses = [
        max(0.0, float((s[a] - t[a]).norm() - (s[a] - t[n]).norm()) + 0.5)
        for a in range(4)
        for n in range(4)
        if labels[a] != labels[n]
    ]
    term = built(Triplet(margin=0.5), seen(mine, theirs, y=labels, logits=(noise(4, 3), noise(4, 3))))
    assert float(term(seen(mine, theirs, y=labels))) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_triplet_of_a_batch_of_one_class_is_nothing() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    term = built(Triplet(), seen(noise(4, 5), noise(4, 5), y=labels, logits=(noise(4, 3), noise(4, 3))))
    assert term(seen(noise(4, 5), noise(4, 5, seed=1), y=labels)) == 0


def nd_step(mine: Tensor, theirs: Tensor, labels: Tensor) -> Step:
    return seen(mine, theirs, y=labels, logits=(noise(len(mine), 3), noise(len(mine), 3)))


def test_nd_compares_with_the_mean_of_all_that_the_teacher_said_of_a_class() -> None:
    labels = torch.tensor([0, 0, 1, 2, 1, 0])
    mine = [noise(6, 5, seed=i) for i in range(3)]
    theirs = [noise(6, 5, seed=10 + i) for i in range(3)]
    term = built(NormAndDirection(), nd_step(mine[0], theirs[0], labels)).train()
    for i in range(3):
        loss = term(nd_step(mine[i], theirs[i], labels))
    everything, classes = torch.cat(theirs), labels.repeat(3)
    means = torch.stack([everything[classes == c].mean(0) for c in range(3)])
    expected = [
        1 - float(mine[2][b] @ unit(means)[labels[b]]) / max(float(mine[2][b].norm()), float(theirs[2][b].norm()))
        for b in range(6)
    ]
    assert float(loss) == pytest.approx(sum(expected) / 6, rel=1e-4)


def test_nd_is_least_where_the_student_points_to_the_class_as_far_as_the_teacher() -> None:
    labels, theirs = torch.tensor([0, 1, 2]), noise(3, 5)
    term = built(NormAndDirection(), nd_step(theirs, theirs, labels)).train()
    torch.testing.assert_close(term(nd_step(theirs, theirs, labels)), torch.tensor(0.0), atol=1e-6, rtol=0)
    half = term(nd_step(theirs / 2, theirs, labels))
    torch.testing.assert_close(half, torch.tensor(0.5))


def test_nd_learns_nothing_while_it_is_only_evaluated() -> None:
    labels = torch.tensor([0, 1, 2])
    term = built(NormAndDirection(), nd_step(noise(3, 5), noise(3, 5), labels)).eval()
    term(nd_step(noise(3, 5), noise(3, 5, seed=1), labels))
    assert term.seen.sum() == 0


@pytest.mark.parametrize("term", [Triplet(), NormAndDirection()], ids=["triplet", "nd"])
def test_labels_that_are_no_class_of_a_sample_are_refused(term: Triplet | NormAndDirection) -> None:
    with pytest.raises(StageError, match="one class for each sample"):
        built(term, seen(noise(3, 5), noise(3, 5), y=torch.rand(3, 4), logits=(noise(3, 4), noise(3, 4))))


@pytest.mark.parametrize("term", [PrimeAware(), Triplet(), NormAndDirection()], ids=["pad", "triplet", "nd"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_on_embeddings_join_other_widths_and_stay_finite(
    term: PrimeAware | Triplet | NormAndDirection, scale: float
) -> None:
    labels, said = torch.tensor([0, 1, 2, 0]), (noise(4, 3), noise(4, 3))
    mine, theirs = scale * noise(4, 7), scale * noise(4, 5, seed=1)
    built(term, seen(mine, theirs, y=labels, logits=said)).train()
    assert gradient(term, mine, theirs, y=labels, logits=said).abs().sum() > 0


@pytest.mark.parametrize("name", ["sdd", "blockwise", "pad", "triplet", "nd", "ctkd", "skd"])
def test_a_loss_with_parts_of_its_own_teaches_and_leaves_nothing_in_the_student(name: str, tmp_path: Path) -> None:
    student = Net(8)
    keys = list(student.state_dict())
    options = {"scales": [1, 2]} if name == "sdd" else {}
    lesson = Lesson(epochs=1, batch_size=64, loss={"ce": {"weight": 0.5}, name: {"options": options}})  # type: ignore[dict-item]
    trained, _ = teach(student, lesson, context(tmp_path), teacher=net(seed=1))
    assert math.isfinite(trained.curves[name][0])
    assert list(student.state_dict()) == keys
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in student.modules())
