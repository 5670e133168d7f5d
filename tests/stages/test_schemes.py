"""Who plays with whom: peers, opponents, teachers of the student's own making, and what is left of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import artifact, context, net
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Player
from edgepress.stages.distill.players import Jury, PeerAnswers, another_start, learner, opponents, peers_of
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.stage import Distill
from edgepress.stages.evaluation import accuracy
from edgepress.stages.improve import improve
from edgepress.stages.lesson import Lesson
from edgepress.stages.progress import Quiet
from edgepress.stages.teaching import teach
from edgepress.stages.training import fit, see

STAGES = [["stem", ""], ["block", ""]]  # of a network that keeps one resolution: named by hand


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {"epochs": 2, "batch_size": 32, "lr": 3e-3, "ce": 1.0, "kd": 1.0, "temperature": 1.0}
    return Lesson(**(values | changes))


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        x=torch.randn(16, 1, 8, 8, generator=generator), y=torch.arange(16) % 4, index=torch.arange(16), variant=None
    )


class OneBatch:
    """The same batch again and again."""

    def begin(self, epoch: int) -> int:
        return 2

    def next(self, player: Player) -> Batch:
        return batch()

    def probe(self) -> Batch:
        return batch()


def peers(count: int = 2, *, lag: int = 0) -> tuple[dict[str, nn.Module], list[Player]]:
    networks: dict[str, nn.Module] = {f"peer {seed}": net(seed=seed) for seed in range(count)}
    players = [
        learner(network, lesson(), teachers=peers_of(network, networks, lag=lag), probe=batch(), steps=4, name=name)
        for name, network in networks.items()
    ]
    return networks, players


def test_no_gradient_of_a_peer_reaches_the_other() -> None:
    networks, players = peers()
    first, second = networks.values()
    before = copy.deepcopy(second.state_dict())
    fit(first, players[:1], samples=OneBatch(), epochs=1, seed=0, evaluate=lambda: 0.0)
    assert all(parameter.grad is None for parameter in second.parameters())
    for name, value in second.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_loss_of_a_peer_is_that_towards_the_mean_of_the_others() -> None:
    networks, players = peers(3)
    first, *others = (network.eval() for network in networks.values())
    with torch.no_grad():
        wanted = [network(batch().x).log_softmax(1) for network in others]
        mine = first(batch().x).log_softmax(1)
    expected = sum((one.exp() * (one - mine)).sum(1).mean() for one in wanted) / 2
    step = see(players[0], batch(), progress=0.0, epoch=0.0)
    total, values = players[0].objective(step)
    torch.testing.assert_close(total - values["ce"], expected)


def test_peers_differ_although_they_are_built_alike() -> None:
    one = net()
    other, same = another_start(one, seed=1), another_start(one, seed=1)
    assert not torch.equal(one.stem.weight, other.stem.weight)
    torch.testing.assert_close(same.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert other.bn.running_mean.abs().sum() == 0


def test_networks_that_learn_together_all_learn_and_the_best_is_kept(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    student, others = net(), [another_start(net(), seed=1), another_start(net(), seed=2)]
    trained, figures = teach(student, lesson(epochs=4), surroundings, teacher=None, peers=others)
    series = {name: trained.curves[name] for name in trained.curves if name.endswith("validation")}
    assert set(series) == {
        "student validation", "peer 2 validation", "peer 3 validation", "ensemble validation", "validation"
    }  # fmt: skip
    best = trained.best_epoch - 1
    each = [series[f"{name} validation"][best] for name in ("student", "peer 2", "peer 3")]
    assert max(each) == series["validation"][best]
    assert accuracy(student, surroundings.data.val, surroundings.data.preprocessing) == max(each)
    assert min(each) > 25  # chance
    assert figures["ensemble_validation_accuracy"] == series["ensemble validation"][best]


class _Stop(Quiet):
    def update(self, share: float, text: str) -> None:
        if share >= 0.6:
            raise KeyboardInterrupt


@pytest.mark.parametrize("lag", [0, 5])
def test_mutual_learning_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, lag: int) -> None:
    def networks() -> list[nn.Module]:
        return [net(), another_start(net(), seed=1)]

    whole, parts = networks(), networks()
    wanted, _ = teach(
        whole[0], lesson(epochs=3), context(tmp_path / "a"), teacher=None, peers=whole[1:], peer_lag=lag
    )  # fmt: skip
    surroundings = context(tmp_path / "b")
    stopped = copy.copy(surroundings)
    object.__setattr__(stopped, "progress", _Stop())
    first = networks()
    with pytest.raises(KeyboardInterrupt):
        teach(first[0], lesson(epochs=3), stopped, teacher=None, peers=first[1:], peer_lag=lag)
    resumed, _ = teach(parts[0], lesson(epochs=3), surroundings, teacher=None, peers=parts[1:], peer_lag=lag)
    assert resumed.resumed_at == 1
    assert resumed.curves == wanted.curves


def test_a_peer_that_lags_says_what_it_said_some_updates_ago() -> None:
    network = net()
    now, late = PeerAnswers(network), PeerAnswers(network, lag=2)
    before = now.see(batch()).logits
    with torch.no_grad():
        network.head.weight.add_(1.0)
    late.stepped()
    torch.testing.assert_close(late.see(batch()).logits, before)
    assert not torch.allclose(now.see(batch()).logits, before)
    late.stepped()
    torch.testing.assert_close(late.see(batch()).logits, now.see(batch()).logits)


def test_a_jury_keeps_the_network_that_answers_best() -> None:
    good, bad = nn.Linear(2, 2), nn.Linear(2, 2)
    labels = torch.tensor([0, 1, 0, 1])
    answers = {id(good): torch.eye(2)[labels] * 3, id(bad): torch.eye(2)[1 - labels]}
    jury = Jury(
        networks={"student": bad, "peer 2": good},
        answer=lambda network: (answers[id(network)], labels),
        judge=lambda said, wanted: float((said.argmax(1) == wanted).float().mean()),
    )
    assert jury() == 1.0
    assert jury.series() == {"student validation": 0.0, "peer 2 validation": 1.0, "ensemble validation": 1.0}
    torch.testing.assert_close(jury.state()["weight"], good.weight.detach())


def test_a_discriminator_learns_in_its_own_turn_and_leaves_nothing(tmp_path: Path) -> None:
    student, teacher = net(), net(seed=1)
    keys, before = list(student.state_dict()), copy.deepcopy(teacher.state_dict())
    wanted = {
        "ce": {"weight": 1},
        "fool": {"weight": 0.1},
        "fool_features": {"weight": 0.1, "taps": [["block", "block"]]},
    }
    trained, _ = teach(student, lesson(loss=wanted), context(tmp_path), teacher=teacher)
    assert {"student ce", "student fool", "student's opponent in fool tell"} <= set(trained.curves)
    assert list(student.state_dict()) == keys
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_while_the_discriminator_plays_the_student_holds_still_and_the_other_way_round() -> None:
    student = net()
    wanted = lesson(loss={"fool": {"weight": 1}})
    player = learner(student, wanted, teachers={"teacher": Frozen(net(seed=1))}, probe=batch(), steps=4)
    (opponent,) = opponents(player)
    before = [copy.deepcopy(one.module.state_dict()) for one in (player, opponent)]

    def changed(one: Player, old: dict[str, Tensor]) -> bool:
        return any(not torch.equal(value, old[name]) for name, value in one.module.state_dict().items())

    turns: list[tuple[bool, bool]] = []

    class Watching(OneBatch):
        def next(self, player: Player) -> Batch:
            turns.append((changed(players[1], before[0]), changed(players[0], before[1])))
            return batch()

    players = [opponent, player]
    samples = Watching()
    fit(student, players, samples=samples, epochs=1, seed=0, evaluate=lambda: 0.0)
    assert turns[0] == (False, False)
    assert turns[1] == (False, True)  # the discriminator has played, the student has not
    assert turns[2] == (True, True)
    assert not any("parametrizations" in name for name in student.state_dict())


def test_a_discriminator_learns_to_tell_a_student_that_does_not_move() -> None:
    student = net()
    player = learner(
        student, lesson(loss={"fool": {"weight": 1, "lr": 1e-2}}), teachers={"teacher": Frozen(net(seed=1))},
        probe=batch(), steps=4,
    )  # fmt: skip
    trained = fit(student, opponents(player), samples=OneBatch(), epochs=20, seed=0, evaluate=lambda: 0.0)
    assert trained.curves["tell"][-1] < trained.curves["tell"][0] - 0.1


def test_exits_and_branches_are_gone_after_training(tmp_path: Path) -> None:
    student = net()
    keys = list(student.state_dict())
    wanted = {"ce": 1, "byot": {"weight": 1, "taps": STAGES}, "one": {"weight": 1, "taps": STAGES}}
    trained, _ = teach(student, lesson(loss=wanted), context(tmp_path), teacher=None)
    assert {"byot", "one"} <= set(trained.curves)
    assert list(student.state_dict()) == keys
    assert not any(part._forward_hooks for part in student.modules())


@pytest.mark.parametrize("name", ["pskd", "temporal", "cskd", "byot", "one"])
def test_a_training_that_remembers_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path, name: str) -> None:
    taps = {"taps": STAGES} if name in ("byot", "one") else {}
    wanted = lesson(epochs=3, loss={"ce": 1, name: {"weight": 1, **taps}})
    torch.manual_seed(0)
    expected, _ = teach(net(), wanted, context(tmp_path / "a"), teacher=None)
    stopped = context(tmp_path / "b")
    object.__setattr__(stopped, "progress", _Stop())
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        teach(net(), wanted, stopped, teacher=None)
    resumed, _ = teach(net(), wanted, context(tmp_path / "b"), teacher=None)
    assert resumed.resumed_at == 1
    assert resumed.curves == expected.curves


def test_learning_without_forgetting_holds_the_old_classes_where_they_were(tmp_path: Path) -> None:
    """A snapshot as teacher and kd over the old classes: training on two new ones alone forgets less."""
    surroundings = context(tmp_path)
    data = surroundings.data
    assert data.train is not None
    student = net()
    teach(student, lesson(epochs=6, kd=0.0), surroundings, teacher=None)
    new = data.train.subset((data.train.labels() >= 2).nonzero().flatten())
    old = data.val.subset((data.val.labels() < 2).nonzero().flatten())

    def left(losses: dict[str, Any], folder: str) -> float:
        pupil = copy.deepcopy(student)
        teach(
            pupil, lesson(epochs=2, loss=losses, teacher="snapshot"), context(tmp_path / folder), teacher=None, images=new,
            evaluate=iter(range(9)).__next__,
        )  # fmt: skip
        return accuracy(pupil, old, data.preprocessing)

    forgetful = left({"ce": 1}, "plain")
    held = left({"ce": 1, "kd": {"weight": 3, "temperature": 2, "classes": [0, 1]}}, "lwf")
    assert held > forgetful


def test_the_mean_teacher_is_an_average_of_the_student(tmp_path: Path) -> None:
    losses = {"ce": 1, "meanteacher": {"weight": 100, "ramp": {"epochs": 1, "kind": "sigmoid"}}}
    trained, _ = teach(net(), lesson(epochs=2, loss=losses, teacher="ema"), context(tmp_path), teacher=None)
    assert trained.curves["meanteacher"][-1] > 0


def test_a_distillation_of_peers_needs_no_teacher(tmp_path: Path) -> None:
    made = improve(
        artifact(), context(tmp_path), stage="distill", lesson=Distill(epochs=1, peers=2, ce=1, kd=1, temperature=1)
    )
    metrics = made.records[-1].metrics
    assert "ensemble_validation_accuracy" in metrics
    assert not any(name.startswith("teacher") for name in metrics)
