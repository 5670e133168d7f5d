"""The one loop: who learns, what is kept, and what happens when it is stopped or goes wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import context, net
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Objective, Player, Step, Term, Weighted
from edgepress.stages.distill.response import CrossEntropy, divergence
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.watching import watch
from edgepress.stages.evaluation import accuracy
from edgepress.stages.lesson import Lesson
from edgepress.stages.progress import Quiet
from edgepress.stages.teaching import teach
from edgepress.stages.training import fit
from edgepress.targets.errors import StageError


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {
        "epochs": 3, "batch_size": 32, "lr": 3e-3, "optimizer": "adamw", "weight_decay": 0.0,
        "ce": 1.0, "kd": 0.0, "temperature": 1.0,
    }  # fmt: skip
    return Lesson(**(values | changes))


class FixedSamples:
    """The same few batches in every epoch."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def begin(self, epoch: int) -> int:
        self.place = 0
        return len(self.batches)

    def next(self, player: Player) -> Batch:
        self.place += 1
        return self.batches[self.place - 1]

    def probe(self) -> Batch:
        return self.batches[0]


def player(module: nn.Module, term: Term, *, name: str = "student", steps: int = 1, lr: float = 0.1) -> Player:
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    return Player(
        name=name,
        module=module,
        learner=module,
        objective=Objective([Weighted(name="loss", term=term, weight=1.0)]),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        steps=steps,
    )


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [Batch(x=torch.randn(8, 4, generator=generator), y=torch.arange(8) % 3) for _ in range(count)]


def test_training_makes_a_network_better(tmp_path: Path) -> None:
    student, surroundings = net(), context(tmp_path)
    before = accuracy(student, surroundings.data.val, surroundings.data.preprocessing)
    teach(student, lesson(epochs=6), surroundings, teacher=None)
    assert accuracy(student, surroundings.data.val, surroundings.data.preprocessing) > before + 30


def test_a_training_of_one_player_does_the_arithmetic_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    student = nn.Linear(4, 3)
    plain = copy.deepcopy(student)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for batch in batches(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(batch.x), batch.y).backward()
        optimizer.step()
    fit(
        student, [player(student, CrossEntropy())], samples=FixedSamples(batches(5)),
        epochs=1, seed=0, evaluate=lambda: 0.0,
    )  # fmt: skip
    torch.testing.assert_close(student.weight, plain.weight, rtol=0, atol=0)


def test_a_teacher_never_changes_and_stays_in_eval_mode(tmp_path: Path) -> None:
    teacher = net(seed=1)
    before = copy.deepcopy(teacher.state_dict())
    teach(net(), lesson(ce=0.5, kd=0.5), context(tmp_path), teacher=teacher)
    assert not teacher.training
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_frozen_teacher_ignores_dropout_even_while_the_student_trains() -> None:
    module = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3)).train()
    teacher, batch = Frozen(module), batches(1)[0]
    torch.testing.assert_close(teacher.see(batch).logits, teacher.see(batch).logits, rtol=0, atol=0)


def test_the_teacher_leaves_nothing_in_the_student(tmp_path: Path) -> None:
    student = net()
    keys = list(student.state_dict())
    teach(student, lesson(ce=0.1, kd=0.9, epochs=1), context(tmp_path), teacher=net(seed=1))
    assert list(student.state_dict()) == keys
    assert not any(part._forward_hooks for part in student.modules())


class _OtherPlayersFrozen(Term):
    """Notes what the others look like while one plays."""

    def __init__(self, module: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.pair = [module, other]
        self.seen: list[tuple[bool, bool, bool]] = []

    def forward(self, step: Step) -> Tensor:
        module, other = self.pair
        self.seen.append((module.training, other.training, any(p.requires_grad for p in other.parameters())))
        return module(step.batch.x).square().mean()


def test_while_one_player_plays_the_others_are_frozen_and_in_eval_mode() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    terms = [_OtherPlayersFrozen(first, second), _OtherPlayersFrozen(second, first)]
    players = [player(first, terms[0], name="a", steps=2), player(second, terms[1], name="b")]
    fit(first, players, samples=FixedSamples(batches(6)), epochs=0, seed=0, evaluate=lambda: 0.0)
    samples = FixedSamples(batches(6))
    samples.begin = lambda epoch: setattr(samples, "place", 0) or 2  # type: ignore[method-assign,func-returns-value]
    fit(first, players, samples=samples, epochs=1, seed=0, evaluate=lambda: 0.0)
    assert len(terms[0].seen) == 4  # two rounds of two steps
    assert len(terms[1].seen) == 2
    assert set(terms[0].seen + terms[1].seen) == {(True, False, False)}
    assert all(p.requires_grad for p in (*first.parameters(), *second.parameters()))


def test_the_best_epoch_is_kept_and_not_the_last() -> None:
    torch.manual_seed(0)
    student = nn.Linear(4, 3)
    figures = iter([1.0, 5.0, 2.0])
    states: list[Tensor] = []

    def evaluate() -> float:
        states.append(student.weight.detach().clone())
        return next(figures)

    trained = fit(
        student, [player(student, CrossEntropy())], samples=FixedSamples(batches(2)),
        epochs=2, seed=0, evaluate=evaluate,
    )  # fmt: skip
    assert trained.best_epoch == 1
    torch.testing.assert_close(student.weight.detach(), states[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ([1.0, 60.0, 59.0, 57.5], 3),  # both later ones could be as good as the best
        ([1.0, 60.0, 59.0, 56.0], 2),  # the last is surely worse
        ([1.0, 58.0, 61.0, 59.5, 58.5], 4),  # compared with the best and not with the one that is kept
        ([1.0, 60.0, 57.5, 55.0], 2),
    ],
)
def test_of_epochs_that_differ_by_chance_the_last_is_kept(tmp_path: Path, figures: list[float], kept: int) -> None:
    epochs = len(figures) - 1

    def run(file: str, until: int | None = None) -> tuple[int, Tensor]:
        torch.manual_seed(0)
        student, told = nn.Linear(4, 3), iter(figures if until or not (tmp_path / file).exists() else figures[3:])
        trained = fit(
            student, [player(student, CrossEntropy())], samples=FixedSamples(batches(2)), epochs=epochs, seed=0,
            evaluate=lambda: next(told), alike=3.0, checkpoint=tmp_path / file, until=until,
        )  # fmt: skip
        return trained.best_epoch, student.weight.detach().clone()

    best, weight = run("whole")
    assert best == kept
    run("parts", until=2)
    again, resumed = run("parts")
    assert again == kept
    torch.testing.assert_close(resumed, weight, rtol=0, atol=0)


class _Stop(Quiet):
    """Stops a training from outside, as Ctrl-C does."""

    def __init__(self, at: float) -> None:
        self.at = at

    def update(self, share: float, text: str) -> None:
        if share >= self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop_at", [0.3, 0.65, 0.95])
def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, stop_at: float) -> None:
    whole, parts = net(), net()
    expected, _ = teach(whole, lesson(epochs=5, ce=0.5, kd=0.5), context(tmp_path / "a"), teacher=net(seed=1))
    surroundings = context(tmp_path / "b")
    stopped = copy.copy(surroundings)
    object.__setattr__(stopped, "progress", _Stop(stop_at))
    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(parts), lesson(epochs=5, ce=0.5, kd=0.5), stopped, teacher=net(seed=1))
    resumed, _ = teach(parts, lesson(epochs=5, ce=0.5, kd=0.5), surroundings, teacher=net(seed=1))
    assert resumed.resumed_at == int(stop_at * 5)
    assert resumed.curves == expected.curves
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0)


def test_a_damaged_checkpoint_starts_the_training_over(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    teach(net(), lesson(epochs=2), surroundings, teacher=None)
    checkpoint = tmp_path / "training.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-20] ^= 0xFF
    checkpoint.write_bytes(content)
    trained, _ = teach(net(), lesson(epochs=2), surroundings, teacher=None)
    assert trained.resumed_at == 0


class _TurnsNan(Term):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, step: Step) -> Tensor:
        self.left -= 1
        return step.student.logits.square().mean() * (float("nan") if self.left < 0 else 1.0)


def test_a_loss_that_is_not_finite_stops_says_where_and_keeps_the_last_good_epoch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, checkpoint = nn.Linear(4, 3), tmp_path / "training.safetensors"
    with pytest.raises(StageError, match=r"loss is nan at epoch 3, batch 2; before it was 0\.\d+ at epoch 3, batch 1"):
        fit(
            student, [player(student, _TurnsNan(after=9))], samples=FixedSamples(batches(4)),
            epochs=5, seed=0, evaluate=lambda: 0.0, checkpoint=checkpoint,
        )  # fmt: skip
    fresh = nn.Linear(4, 3)
    trained = fit(
        fresh, [player(fresh, _TurnsNan(after=99))], samples=FixedSamples(batches(4)),
        epochs=2, seed=0, evaluate=lambda: 0.0, checkpoint=checkpoint,
    )  # fmt: skip
    assert trained.resumed_at == 2
    assert torch.isfinite(fresh.weight).all()


def test_kd_without_a_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="needs a teacher, and there is none"):
        teach(net(), lesson(kd=1.0), context(tmp_path), teacher=None)


def test_an_unknown_tap_names_its_neighbour() -> None:
    with pytest.raises(StageError, match="did you mean 'block.conv1'"), watch(net(), ["block.konv1"]):
        pass


def test_a_tap_that_is_changed_in_place_is_noticed() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    with pytest.raises(StageError, match="changed in place"), watch(module, ["0"]), torch.no_grad():
        module(torch.randn(2, 4))


def test_a_tap_sees_what_the_module_said_and_its_hook_is_gone_afterwards() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    x = torch.randn(2, 4)
    with watch(module, ["0"]) as seen:
        module(x)
    torch.testing.assert_close(seen["0"], module[0](x))
    assert not module[0]._forward_hooks


def test_distillation_pulls_the_student_towards_its_teacher(tmp_path: Path) -> None:
    surroundings, teacher, student = context(tmp_path), net(seed=1), net()
    images, _, _ = surroundings.data.val.__getitems__(list(range(64)))
    x = surroundings.data.preprocessing.normalize(images)

    def distance() -> float:
        with torch.no_grad():
            return float(divergence(student.eval()(x), teacher(x), temperature=2.0))

    before = distance()
    teach(
        student, lesson(ce=0.0, kd=1.0, temperature=2.0, epochs=8, lr=2e-2), surroundings, teacher=teacher,
        evaluate=lambda: -distance(),
    )  # fmt: skip
    assert distance() < before / 2
