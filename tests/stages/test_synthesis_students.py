"""Students that learn from images which are made against them: who gets gradients, what is kept, what it comes to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from without_data import agreement, context, hurry, net, opened, settings, teacher

from edgepress.stages.crew import Crew
from edgepress.stages.data import open_data
from edgepress.stages.distill.nouns import Objective, Player, Weighted
from edgepress.stages.distill.response import KnowledgeDistillation
from edgepress.stages.distill.teachers import Staff, hire
from edgepress.stages.evaluation import accuracy
from edgepress.stages.lesson import Lesson
from edgepress.stages.settings import DataSettings
from edgepress.stages.synthesis import sources
from edgepress.stages.synthesis.against import Made, lesson_without_data, make_against
from edgepress.stages.synthesis.methods import METHODS
from edgepress.stages.synthesis.optimise import ByPixels
from edgepress.stages.synthesis.score import Score
from edgepress.stages.synthesis.settings import Synthesis
from edgepress.stages.synthesis.sources import Generated, Pooled
from edgepress.stages.teaching import teach
from edgepress.stages.training import see
from edgepress.targets.errors import StageError

PLAYED = [name for name, method in METHODS.items() if method.grows]


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 1e-2, "ce": 0.1, "kd": 0.9}
    return Lesson(**(values | changes))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def made(method: str, folder: Path, *, norms: bool = True, **changes: Any) -> tuple[Made, nn.Module, nn.Module]:
    """What a student without data is shown; the student; the copy of the teacher that it looks at."""
    known = net(seed=0, norms=norms)
    data = opened(settings(method=method, **changes), known, folder / "cache")
    student = net(seed=5, norms=norms, width=6)
    crew = Crew(device=torch.device("cpu"))
    staff = Staff(chosen={"teacher": known}, hired=hire({"teacher": known}, student, device=crew.device), examined={})
    found = make_against(student, lesson(), context(data, folder / "work"), staff=staff, crew=crew)
    (copied,) = (one.module for one in staff.hired.values())
    assert copied is not None
    return found, student, copied


def student_player(module: nn.Module) -> Player:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    objective = Objective([Weighted(name="kd", term=KnowledgeDistillation(), weight=1.0)])
    return Player(
        name="student", module=module, learner=module, objective=objective, optimizer=optimizer, schedule=schedule
    )


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_makes_images_and_a_student_learns_from_them(method: str, tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    before = copy.deepcopy(known.state_dict())
    data = opened(settings(method=method, steps=2), known, tmp_path / "cache")
    assert data.synthetic is not None
    assert data.synthetic.method == method
    assert data.train is not None
    student = net(seed=5, norms=True, width=6)
    start = copy.deepcopy(student.state_dict())
    trained, figures = teach(student, lesson(), context(data, tmp_path / "work"), teacher=known)
    assert len(trained.curves["validation"]) == 2
    assert figures["images_per_second"] > 0
    assert trained.best_epoch == 0 or any(
        not torch.equal(value, start[name]) for name, value in student.state_dict().items()
    )
    for name, value in known.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in (*known.modules(), *student.modules()))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("method", ["dafl", "dfad", "zskt", "dfq", "gdfq"])
def test_in_its_turn_a_generator_learns_through_student_and_teacher_and_they_do_not(
    method: str, tmp_path: Path
) -> None:
    found, student, copied = made(method, tmp_path)
    generator = found.generator
    assert generator is not None
    found.samples.begin(0)
    student.eval().requires_grad_(False)  # as the loop does while another plays
    total, _ = generator.objective(see(generator, found.samples.next(generator), progress=0.0, epoch=0.0))
    total.backward()
    assert all(one.grad is not None for one in generator.module.parameters())
    assert any(bool(one.grad.abs().sum() > 0) for one in generator.module.parameters() if one.grad is not None)
    assert all(one.grad is None for one in (*student.parameters(), *copied.parameters()))


@pytest.mark.usefixtures("hurried")
def test_the_batch_norms_of_a_teacher_have_a_say_where_it_has_some(tmp_path: Path) -> None:
    names = {}
    for norms in (True, False):
        generator = made("dfq", tmp_path / str(norms), norms=norms)[0].generator
        assert generator is not None
        names[norms] = {part.name for part in generator.objective.parts}
    assert names[False] == {"onehot", "balance", "disagreement"}
    assert names[True] == names[False] | {"bnstats"}


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("method", [name for name in PLAYED if METHODS[name].play != "pixels"])
def test_a_student_sees_images_that_lead_back_to_nobody(method: str, tmp_path: Path) -> None:
    found, student, _ = made(method, tmp_path)
    found.samples.begin(0)
    if found.generator is not None:
        found.samples.next(found.generator)
    batch = found.samples.next(student_player(student))
    assert not batch.x.requires_grad
    assert batch.y is None
    assert batch.index is None


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("reuse", [True, False])
def test_a_student_may_see_the_images_of_the_generators_turn_in_all_its_steps_or_others_in_each(
    reuse: bool, tmp_path: Path
) -> None:
    found, student, _ = made("dfad", tmp_path, reuse=reuse)
    assert found.generator is not None
    found.samples.begin(0)
    player = student_player(student)
    theirs = found.samples.next(found.generator).x.detach()
    mine = [found.samples.next(player).x for _ in range(2)]
    assert torch.equal(mine[0], theirs) is reuse
    assert torch.equal(mine[0], mine[1]) is reuse


@pytest.mark.usefixtures("hurried")
def test_the_teacher_answers_a_batch_once_that_a_student_learns_from_ten_times(tmp_path: Path) -> None:
    found, student, copied = made("zskt", tmp_path)
    assert found.generator is not None
    calls: list[int] = []
    copied.register_forward_hook(lambda *_: calls.append(1))
    found.samples.begin(0)
    found.samples.next(found.generator)
    (one,) = found.staff.hired.values()
    for _ in range(found.learns):
        one.see(found.samples.next(student_player(student)))
    assert found.learns == 10
    assert len(calls) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("method", PLAYED)
def test_a_training_that_was_killed_ends_as_one_that_was_not(method: str, tmp_path: Path) -> None:
    known = teacher(norms=True)
    data = opened(settings(method=method, steps=2), known, tmp_path / "cache")

    def train(folder: str, evaluate: Callable[[], float] = lambda: 0.0) -> dict[str, torch.Tensor]:
        """The last epoch is kept, since all are alike."""
        student = net(seed=5, norms=True, width=6)
        teach(student, lesson(epochs=3), context(data, tmp_path / folder), teacher=known, evaluate=evaluate)
        return student.state_dict()

    def killed(calls: Iterator[int] = iter(range(9))) -> float:  # noqa: B008
        if next(calls) == 2:  # the first is before training: the second epoch was played and not saved
            raise KeyboardInterrupt
        return 0.0

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", killed)
    for name, value in train("killed").items():
        assert torch.equal(value, whole[name]), name


@pytest.mark.usefixtures("hurried")
def test_images_of_an_epoch_that_was_not_finished_are_not_in_the_pool_of_the_next_run(tmp_path: Path) -> None:
    found, _, _ = made("fastdfkd", tmp_path)
    assert isinstance(found.samples, Pooled)
    found.samples.begin(0)
    state = copy.deepcopy(found.samples.state_dict())
    kept = found.samples.pool.images()
    found.samples.begin(1)
    again, _, _ = made("fastdfkd", tmp_path)
    assert isinstance(again.samples, Pooled)
    assert len(again.samples.pool.images()) > len(kept)
    again.samples.load_state_dict(state)
    assert torch.equal(again.samples.pool.images(), kept)


@pytest.mark.usefixtures("hurried")
def test_a_training_that_begins_anew_forgets_the_images_of_another(tmp_path: Path) -> None:
    found, _, _ = made("fastdfkd", tmp_path)
    assert isinstance(found.samples, Pooled)
    for epoch in range(2):
        found.samples.begin(epoch)
    again, _, _ = made("fastdfkd", tmp_path)
    assert isinstance(again.samples, Pooled)
    again.samples.begin(0)
    assert len(again.samples.pool) == 16


@pytest.mark.usefixtures("hurried")
def test_a_generator_that_makes_the_same_all_the_time_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _, _ = made("dfad", tmp_path)
    assert isinstance(found.samples, Generated)
    bad = Score(
        images=9, class_counts=(9, 0), class_confidence=(1.0, None), balance=0.0, confidence=1.0, information=0.0,
        spread=0.0, disagreement=0.0, collapsed="all of one class",
    )  # fmt: skip
    monkeypatch.setattr(sources, "examine", lambda *_: bad)
    before = copy.deepcopy(found.samples.generator.state_dict())
    found.samples.begin(0)
    found.samples.begin(1)
    assert found.samples.watch.restarts == 0  # once may happen in a game between two
    found.samples.begin(2)
    assert found.samples.watch.restarts == 1
    assert not torch.equal(before["first.weight"], found.samples.generator.state_dict()["first.weight"])


@pytest.mark.usefixtures("hurried")
def test_a_generator_whose_images_of_one_class_still_teach_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _, _ = made("dfad", tmp_path)
    assert isinstance(found.samples, Generated)
    useful = Score(
        images=9, class_counts=(9, 0), class_confidence=(1.0, None), balance=0.0, confidence=1.0, information=0.0,
        spread=0.2, disagreement=0.5, collapsed="all of one class",
    )  # fmt: skip
    monkeypatch.setattr(sources, "examine", lambda *_: useful)
    for epoch in range(4):
        found.samples.begin(epoch)
    assert found.samples.watch.restarts == 0


@pytest.mark.usefixtures("hurried")
def test_a_generator_of_a_pool_begins_anew_too_and_warms_up_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _, _ = made("fastdfkd", tmp_path)
    samples = found.samples
    assert isinstance(samples, Pooled)
    bad = Score(
        images=9, class_counts=(9, 0), class_confidence=(1.0, None), balance=0.0, confidence=1.0, information=0.0,
        spread=0.0, disagreement=0.0, collapsed="all of one class",
    )  # fmt: skip
    monkeypatch.setattr(sources, "examine", lambda *_: bad)
    notes: list[str] = []
    samples._note = notes.append
    samples.begin(0)
    before, batches = copy.deepcopy(samples.maker.state_dict()["module"]), samples.maker.made
    state = copy.deepcopy(samples.state_dict())
    samples.begin(1)
    assert samples.watch.restarts == 1
    assert samples.maker.made == batches + 1 + samples.order.method.warm_up + 1
    assert not torch.allclose(before["first.weight"], samples.maker.state_dict()["module"]["first.weight"], atol=0.05)
    assert notes == ["the generator of images collapsed and began anew in epoch 2: all of one class"]
    made_then = samples.pool.images()
    samples.load_state_dict(state)  # a run that was killed in between makes the same
    samples.begin(1)
    assert torch.equal(samples.pool.images(), made_then)


@pytest.mark.usefixtures("hurried")
def test_images_of_a_pool_are_made_against_the_student_as_it_is_now(tmp_path: Path) -> None:
    found, student, _ = made("deepinversion", tmp_path)
    assert isinstance(found.samples, Pooled)
    maker = found.samples.maker
    assert isinstance(maker, ByPixels)
    x = maker.noise(16, torch.Generator().manual_seed(0))
    costs = []
    for seed in (5, 9, 5):
        student.load_state_dict(net(seed=seed, norms=True, width=6).state_dict())
        costs.append(float(maker.cost(x).detach()))
    assert costs[0] == costs[2] != costs[1]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("method", ["dfad", "fastdfkd"])
def test_what_student_and_teacher_still_answer_differently_is_told(method: str, tmp_path: Path) -> None:
    found, student, copied = made(method, tmp_path)
    found.samples.begin(0)
    figures = found.figures()
    assert figures["generator_restarts"] == 0
    assert 0 <= figures["generator_score"] <= 1
    if isinstance(found.samples, Pooled):
        x = found.samples.order.preprocessing.normalize(found.samples.pool.images())
        with torch.no_grad():
            differs = student(x).argmax(dim=1) != copied(x).argmax(dim=1)
        assert figures["disagreement_left"] == pytest.approx(float(differs.float().mean()))


@pytest.mark.usefixtures("hurried")
def test_a_student_with_its_teachers_weights_is_refused_where_the_two_play_against_each_other(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    data = opened(settings(method="dfad"), known, tmp_path / "cache")
    with pytest.raises(StageError, match="a copy with the same weights"):
        teach(copy.deepcopy(known), lesson(), context(data, tmp_path / "work"), teacher=known)


@pytest.mark.usefixtures("hurried")
def test_a_student_that_is_its_teacher_is_refused(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    data = opened(settings(method="dfad"), known, tmp_path / "cache")
    with pytest.raises(StageError, match="the student itself"):
        teach(known, lesson(), context(data, tmp_path / "work"), teacher=known)


@pytest.mark.usefixtures("hurried")
def test_labels_that_are_the_teachers_answers_teach_nothing(tmp_path: Path) -> None:
    data = opened(settings(method="fastdfkd"), net(seed=0, norms=True), tmp_path / "cache")
    notes: list[str] = []
    kept = lesson_without_data(lesson(), data, are_made=True, note=notes.append)
    assert list(kept.losses()) == ["kd"]
    assert "ce is left out" in notes[0]
    with pytest.raises(StageError, match="labels alone"):
        lesson_without_data(lesson(ce=1.0, kd=0.0), data, are_made=True, note=notes.append)


@pytest.mark.usefixtures("hurried")
def test_a_method_brings_the_students_loss_unless_the_recipe_names_one(tmp_path: Path) -> None:
    data = opened(settings(method="dfad"), net(seed=0, norms=True), tmp_path / "cache")
    notes: list[str] = []
    assert list(lesson_without_data(lesson(), data, are_made=True, note=notes.append).losses()) == ["logits"]
    assert list(lesson_without_data(lesson(), data, are_made=False, note=notes.append).losses()) == ["kd"]
    named = lesson(loss={"dist": {"weight": 1.0}})
    assert list(lesson_without_data(named, data, are_made=True, note=notes.append).losses()) == ["dist"]


@pytest.mark.usefixtures("hurried")
def test_an_attack_has_nothing_to_change_where_images_are_made(tmp_path: Path) -> None:
    data = opened(settings(method="dfad"), net(seed=0, norms=True), tmp_path / "cache")
    with pytest.raises(StageError, match="attack"):
        teach(
            net(seed=5, norms=True, width=6), lesson(attack={"epsilon": 0.1}), context(data, tmp_path / "work"),
            teacher=net(seed=0, norms=True),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("method", "norms"), [("dfad", False), ("fastdfkd", True)])
def test_a_student_of_another_start_comes_to_agree_with_its_teacher_without_data(
    method: str, norms: bool, tmp_path: Path
) -> None:
    known = teacher(norms=norms)
    wanted = settings(method=method, images=256, batch=64, width=8, rounds=40, latent=None)
    data = opened(wanted, known, tmp_path / "cache")
    student = net(seed=5, norms=norms, width=6)
    assert agreement(student, known) < 70
    teach(student, lesson(epochs=5, batch_size=64), context(data, tmp_path / "work"), teacher=known)
    assert agreement(student, known) > 90


@pytest.mark.slow
def test_noise_teaches_far_less_than_images_that_were_made(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    known = digit_net(seed=0, width=16)
    real = open_data(DataSettings(source="builtin:digits"), seed=0, cache=tmp_path, given_weights=False)
    teach(known, lesson(epochs=8, batch_size=64, lr=3e-3, ce=1.0, kd=0.0), context(real, tmp_path / "t"), teacher=None)
    right = {}
    for source, epochs in (("generated", 12), ("noise", 60)):
        few = Synthesis(images=512, batch=64, width=8, rounds=40, restarts=1)
        wanted = DataSettings(source=source, eval="builtin:digits", synthesis=few)
        data = opened(wanted, known, tmp_path / "cache")
        student = digit_net(seed=5, width=8)
        work = tmp_path / source
        teach(student, lesson(epochs=epochs, batch_size=64), context(data, work), teacher=known)
        right[source] = accuracy(student, data.test, data.preprocessing)
    assert right["generated"] > right["noise"] + 15


def digit_net(*, seed: int, width: int) -> nn.Module:
    """With batch norms, for the digits of 8 x 8 pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * width, 10),
    ).eval()  # fmt: skip
