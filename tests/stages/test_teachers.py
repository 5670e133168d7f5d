"""Teachers: what each kind says, what a checkpoint keeps of it, and who is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import CLASSES, artifact, context, net
from torch import Tensor, nn

from edgepress.stages.distill.examining import examine, rearranged
from edgepress.stages.distill.nouns import Batch
from edgepress.stages.distill.sources import Average, Frozen, PreviousEpoch, Snapshot
from edgepress.stages.distill.stage import Distill
from edgepress.stages.distill.teachers import choose
from edgepress.stages.improve import improve
from edgepress.stages.lesson import Lesson
from edgepress.stages.progress import Quiet
from edgepress.stages.teaching import teach
from edgepress.targets.errors import StageError

BATCH = Batch(x=torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))


def lesson(**changes: Any) -> Lesson:
    return Lesson(**({"epochs": 2, "batch_size": 32, "lr": 3e-3, "ce": 0.5, "kd": 0.5} | changes))


def moved_(module: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A network that is right on nearly every picture."""
    module = net(seed=3)
    teach(module, lesson(epochs=8, ce=1.0, kd=0.0), context(tmp_path_factory.mktemp("trained")), teacher=None)
    return module


def reordered(module: nn.Module, order: list[int]) -> nn.Module:
    """The same network with its classes in another order."""
    other = copy.deepcopy(module)
    head = other.head
    assert isinstance(head, nn.Linear)
    head.weight.data, head.bias.data = head.weight.data[order].clone(), head.bias.data[order].clone()
    return other


def test_the_average_follows_its_formula_and_its_warm_up() -> None:
    student = nn.Linear(3, 2)
    teacher = Average(student, decay=0.6)
    by_hand = student.weight.detach().clone()
    for step in range(1, 6):
        moved_(student, 1.0)
        teacher.stepped()
        decay = min(0.6, 1 - 1 / (step + 1))
        by_hand = decay * by_hand + (1 - decay) * student.weight.detach()
    assert teacher.module is not None
    torch.testing.assert_close(teacher.module.weight, by_hand)


def test_the_average_keeps_the_statistics_of_batch_norms_in_step_with_its_weights() -> None:
    student = nn.BatchNorm1d(3)
    teacher = Average(student)
    student.train()(torch.randn(16, 3) + 2)
    teacher.stepped()
    assert isinstance(teacher.module, nn.BatchNorm1d)
    assert teacher.module.running_mean is not None
    assert student.running_mean is not None
    torch.testing.assert_close(teacher.module.running_mean, student.running_mean / 2)  # the first step: decay 1/2
    assert teacher.module.num_batches_tracked == 1


def test_a_snapshot_stays_what_the_student_was_at_the_start() -> None:
    student = nn.Linear(3, 2)
    before = student(BATCH.x).detach()
    teacher = Snapshot(student)
    moved_(student, 1.0)
    teacher.stepped()
    teacher.after(0)
    torch.testing.assert_close(teacher.see(BATCH).logits, before, rtol=0, atol=0)


def test_the_previous_epoch_is_the_start_until_one_has_ended() -> None:
    student = nn.Linear(3, 2)
    teacher = PreviousEpoch(student)
    said = [student(BATCH.x).detach()]
    for epoch in range(2):
        torch.testing.assert_close(teacher.see(BATCH).logits, said[-1], rtol=0, atol=0)
        moved_(student, 1.0)
        said.append(student(BATCH.x).detach())
        torch.testing.assert_close(teacher.see(BATCH).logits, said[-2], rtol=0, atol=0)
        teacher.after(epoch)
    torch.testing.assert_close(teacher.see(BATCH).logits, said[-1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Average, Snapshot, PreviousEpoch])
def test_a_teacher_goes_on_from_its_checkpoint(kind: type[Snapshot]) -> None:
    student, other = nn.Linear(3, 2), nn.Linear(3, 2)
    teacher, resumed = kind(student), kind(other)
    moved_(student, 1.0)
    teacher.stepped()
    teacher.after(0)
    resumed.load_state_dict(teacher.state_dict())
    other.load_state_dict(student.state_dict())
    for module in (student, other):
        moved_(module, 0.5)
    for one in (teacher, resumed):
        one.stepped()
    torch.testing.assert_close(resumed.see(BATCH).logits, teacher.see(BATCH).logits, rtol=0, atol=0)


def test_a_teacher_that_somebody_switched_to_training_answers_as_in_eval_mode() -> None:
    module = nn.Sequential(nn.Linear(3, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 2)).eval()
    expected = module(BATCH.x).detach()
    teacher = Frozen(module)
    module.train()
    torch.testing.assert_close(teacher.see(BATCH).logits, expected)


@pytest.mark.parametrize("word", ["ema", "snapshot", "previous"])
def test_a_teacher_made_of_the_student_leaves_nothing_in_it_and_needs_no_network(tmp_path: Path, word: str) -> None:
    student = net()
    keys = list(student.state_dict())
    trained, _ = teach(student, lesson(teacher=word, epochs=2), context(tmp_path), teacher=None)
    assert list(student.state_dict()) == keys
    assert trained.curves["kd"][-1] > 0


class _Stop(Quiet):
    def update(self, share: float, text: str) -> None:
        if share >= 0.7:
            raise KeyboardInterrupt


@pytest.mark.parametrize("word", ["ema", "previous"])
def test_a_stopped_training_resumes_with_the_same_teacher(tmp_path: Path, word: str) -> None:
    told = lesson(teacher=[word, "snapshot"], epochs=3)
    whole, parts = net(), net()
    teach(whole, told, context(tmp_path / "a"), teacher=None)
    surroundings = context(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(parts), told, replace(surroundings, progress=_Stop()), teacher=None)
    resumed, _ = teach(parts, told, surroundings, teacher=None)
    assert resumed.resumed_at == 2
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0)


def test_the_student_itself_is_no_teacher(tmp_path: Path) -> None:
    student = net()
    with pytest.raises(StageError, match="teacher is the student itself"):
        teach(student, lesson(), context(tmp_path), teacher=student)
    sharing = net(seed=1)
    sharing.head = student.head
    with pytest.raises(StageError, match="shares weights with it"):
        teach(student, lesson(), context(tmp_path), teacher=sharing)


def test_several_teachers_keep_their_order_and_their_names(tmp_path: Path, trained: nn.Module) -> None:
    network = net(seed=1)
    told = lesson(teacher=["ema", "model", {"source": "snapshot", "name": "old one"}])
    found = choose(told, context(tmp_path), default=None, known={"model": network})
    assert found == {"ema": "ema", "model": network, "old-one": "snapshot"}


def test_a_teacher_that_nobody_opened_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"the teacher big: 'big.pt' is not opened here"):
        teach(net(), lesson(teacher="big.pt"), context(tmp_path), teacher=None)


def test_what_was_opened_for_the_stage_comes_before_its_default(tmp_path: Path) -> None:
    mine, default = net(seed=1), net(seed=2)
    surroundings = replace(context(tmp_path), teachers={"mine": mine})
    assert choose(lesson(), surroundings, default=default, known={}) == {"mine": mine}
    assert choose(lesson(), context(tmp_path), default=default, known={}) == {"teacher": default}


def test_a_named_teacher_is_examined_and_its_figure_recorded(tmp_path: Path, trained: nn.Module) -> None:
    _, figures = teach(net(), lesson(epochs=1), context(tmp_path), teacher={"good": trained})
    assert figures["teacher_good"] > 90
    assert figures["student_before"] < 60


def test_a_teacher_worse_than_its_student_is_refused_unless_told_otherwise(tmp_path: Path, trained: nn.Module) -> None:
    good = copy.deepcopy(trained)
    with pytest.raises(StageError, match=r"the teacher bad reaches .* check_teacher: false"):
        teach(good, lesson(epochs=1), context(tmp_path), teacher={"bad": net(seed=5)})
    _, figures = teach(good, lesson(epochs=1, check_teacher=False), context(tmp_path), teacher={"bad": net(seed=5)})
    assert figures["teacher_bad"] < figures["student_before"]


def test_the_distill_stage_examines_the_teacher_that_its_context_names(tmp_path: Path, trained: nn.Module) -> None:
    surroundings = replace(context(tmp_path), teachers={"bad": net(seed=5)})
    with pytest.raises(StageError, match="the teacher bad reaches"):
        improve(artifact(trained), surroundings, stage="distill", lesson=Distill(epochs=1))


def test_a_teacher_a_little_below_its_student_may_be_chance(tmp_path: Path, trained: nn.Module) -> None:
    surroundings = context(tmp_path)
    student = _Says(surroundings.data.val.labels(), wrong=0)
    teacher = _Says(surroundings.data.val.labels(), wrong=3)  # of 64
    found = examine({"teacher": teacher}, student, surroundings.data)
    assert found["teacher_teacher"] < found["student_before"]
    with pytest.raises(StageError, match="reaches"):
        examine({"teacher": _Says(surroundings.data.val.labels(), wrong=9)}, student, surroundings.data)


class _Says(nn.Module):
    """Answers a split in its order, and wrongly for the first few."""

    def __init__(self, labels: Tensor, *, wrong: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        said = labels.clone()
        said[:wrong] = (said[:wrong] + torch.randint(1, CLASSES, (wrong,))) % CLASSES
        self.register_buffer("said", nn.functional.one_hot(said, CLASSES).float())
        self.place = 0

    def forward(self, x: Tensor) -> Tensor:
        rows = slice(self.place, self.place + len(x))
        self.place = (self.place + len(x)) % len(self.said)
        return self.said[rows]


def test_classes_in_another_order_are_noticed_and_named(tmp_path: Path, trained: nn.Module) -> None:
    shuffled = reordered(trained, [0, 2, 1, 3])
    with pytest.raises(StageError, match=r"another order.*its 1 is 2 here \(c\), its 2 is 1 here \(b\)"):
        examine({"shuffled": shuffled}, net(), context(tmp_path).data)


def test_a_good_teacher_and_a_random_one_have_their_classes_in_order(tmp_path: Path, trained: nn.Module) -> None:
    surroundings = context(tmp_path)
    assert examine({"good": trained}, net(), surroundings.data)["teacher_good"] > 90
    generator = torch.Generator().manual_seed(0)
    said = torch.randint(500, (2000,), generator=generator).numpy()
    labels = torch.randint(500, (2000,), generator=generator).numpy()
    assert rearranged(said, labels, classes=500)[0] < 5  # although some order fits the first half very well


def test_a_teacher_of_other_classes_is_refused_with_both_numbers(tmp_path: Path) -> None:
    other = net(seed=1)
    other.head = nn.Linear(16, 7)
    with pytest.raises(StageError, match=r"the loss kd: the teacher other tells 7 classes apart and the student 4"):
        teach(net(), lesson(epochs=1), context(tmp_path), teacher={"other": other})
    trained, _ = teach(
        net(), lesson(epochs=1, loss={"ce": 1.0, "uld": 1.0}), context(tmp_path / "b"), teacher={"other": other}
    )
    assert trained.curves["uld"][0] > 0
