"""What the loop tells of every loss, how it weighs them, and how it updates."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from nets import context, net
from test_training import FixedSamples, _Stop, batches, lesson, player
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Objective, Out, Player, Step, Term, Weighted
from edgepress.stages.distill.ramps import Ramp
from edgepress.stages.distill.response import CrossEntropy
from edgepress.stages.teaching import teach
from edgepress.stages.training import fit
from edgepress.targets.errors import StageError


class Square(Term):
    """Half the squared size of the answers times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, step: Step) -> Tensor:
        return self.factor * step.student.logits.square().sum() / len(step.batch.x) / 2


def of(module: nn.Module, *parts: Weighted, lr: float = 0.1) -> Player:
    found = player(module, CrossEntropy(), lr=lr)
    found.objective = Objective(parts)
    return found


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def pull(module: nn.Linear, batch: Batch, term: Term) -> float:
    """The norm of a loss's gradient, by hand."""
    fresh = copy.deepcopy(module)
    term(Step(batch=batch, student=Out(logits=fresh(batch.x)), teachers={}, progress=0.0)).backward()
    return float(torch.cat([one.grad.reshape(-1) for one in fresh.parameters()]).norm())  # type: ignore[union-attr]


def test_the_share_of_each_loss_is_its_part_of_all_pull_at_the_first_batch_of_an_epoch() -> None:
    module, data = linear(), batches(3)
    pulls = {"ce": 0.2 * pull(module, data[0], CrossEntropy()), "square": 3 * pull(module, data[0], Square())}
    parts = Weighted(name="ce", term=CrossEntropy(), weight=0.2), Weighted(name="square", term=Square(), weight=3.0)
    trained = fit(module, [of(module, *parts)], samples=FixedSamples(data), epochs=2, seed=0, evaluate=lambda: 0.0)
    for name, value in pulls.items():
        assert trained.curves[f"share {name}"][0] == pytest.approx(value / sum(pulls.values()), rel=1e-5)
    assert trained.curves["share ce"][1] + trained.curves["share square"][1] == pytest.approx(1.0)


def test_looking_at_the_shares_does_not_change_what_is_learned() -> None:
    module, data = linear(), batches(4)
    plain = copy.deepcopy(module)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for batch in data:
        optimizer.zero_grad()
        logits = plain(batch.x)
        loss = 0.5 * nn.functional.cross_entropy(logits, batch.y) + 0.1 * logits.square().sum() / len(batch.x) / 2
        loss.backward()
        optimizer.step()
    parts = Weighted(name="ce", term=CrossEntropy(), weight=0.5), Weighted(name="square", term=Square(), weight=0.1)
    fit(module, [of(module, *parts)], samples=FixedSamples(data), epochs=1, seed=0, evaluate=lambda: 1.0)
    torch.testing.assert_close(module.weight, plain.weight)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 500.0])
def test_balanced_losses_pull_in_the_ratio_of_their_weights_whatever_their_scale(factor: float) -> None:
    module, data = linear(), batches(3)
    parts = (
        Weighted(name="ce", term=CrossEntropy(), weight=1.0),
        Weighted(name="square", term=Square(factor), weight=3.0),
    )
    before = pull(module, data[0], CrossEntropy()) + 3 * pull(module, data[0], Square(factor))
    trainee = of(module, *parts, lr=0.0)
    trained = fit(
        module, [trainee], samples=FixedSamples(data), epochs=1, seed=0, evaluate=lambda: 0.0, balance=True
    )  # fmt: skip
    assert trained.curves["share ce"] == [pytest.approx(0.25, rel=1e-4)]
    factors = trainee.objective.balance
    after = factors["ce"] * pull(module, data[0], CrossEntropy())
    after += 3 * factors["square"] * pull(module, data[0], Square(factor))
    assert after == pytest.approx(before, rel=1e-4)  # all pull together is as it was
    assert trained.curves["balance ce"] == [factors["ce"]]


def test_a_balanced_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = lesson(epochs=4, ce=1.0, kd=1.0, balance="gradients", accumulate=3)
    whole, parts = net(), net()
    expected, _ = teach(whole, settings, context(tmp_path / "a"), teacher=net(seed=1))
    surroundings = context(tmp_path / "b")
    stopped = copy.copy(surroundings)
    object.__setattr__(stopped, "progress", _Stop(0.6))
    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(parts), settings, stopped, teacher=net(seed=1))
    resumed, _ = teach(parts, settings, surroundings, teacher=net(seed=1))
    assert resumed.resumed_at == 2
    assert resumed.curves == expected.curves
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0)


def test_a_loss_whose_ramp_begins_late_has_no_value_before_and_nothing_is_learned_from_it() -> None:
    module = linear()
    before = module.weight.detach().clone()
    late = Weighted(name="square", term=Square(), weight=1.0, ramp=Ramp(after=2, start=0.0))
    trained = fit(
        module, [of(module, late)], samples=FixedSamples(batches(3)), epochs=2, seed=0, evaluate=lambda: 0.0
    )  # fmt: skip
    torch.testing.assert_close(module.weight.detach(), before, rtol=0, atol=0)
    assert "square" not in trained.curves
    again = fit(module, [of(module, late)], samples=FixedSamples(batches(3)), epochs=3, seed=0, evaluate=lambda: 0.0)
    assert [math.isnan(value) for value in again.curves["square"]] == [True, True, False]


class Spoilt(Term):
    """Turns nan after so many calls; `then` is what it does later."""

    def __init__(self, after: int, *, fails: bool = False) -> None:
        super().__init__()
        self.left, self.fails = after, fails

    def forward(self, step: Step) -> Tensor:
        self.left -= 1
        if self.left < -1 and self.fails:
            raise RuntimeError("linalg.eigh: the input is not finite")
        return step.student.logits.sum() * 0 + (float("nan") if self.left < 0 else 2.5)


@pytest.mark.parametrize("fails", [False, True])
def test_one_loss_among_several_that_turns_nan_is_named_with_its_last_good_value(fails: bool) -> None:
    module = linear()
    parts = (
        Weighted(name="ce", term=CrossEntropy(), weight=1.0),
        Weighted(name="odd", term=Spoilt(after=5, fails=fails), weight=1.0),
    )
    with pytest.raises(StageError) as caught:
        fit(module, [of(module, *parts)], samples=FixedSamples(batches(12)), epochs=1, seed=0, evaluate=lambda: 0.0)
    assert "odd is nan at epoch 1, batch 6; before it was 2.5 at epoch 1, batch 5" in str(caught.value)
    assert "ce is" not in str(caught.value)


def test_an_error_that_has_nothing_to_do_with_nan_is_not_hidden() -> None:
    module = linear()
    fails = Weighted(name="odd", term=Spoilt(after=-1, fails=True), weight=1.0)
    with pytest.raises(RuntimeError, match="eigh"):
        fit(module, [of(module, fails)], samples=FixedSamples(batches(2)), epochs=1, seed=0, evaluate=lambda: 0.0)


def test_finite_losses_whose_sum_overflows_are_told_apart() -> None:
    module = linear()
    parts = [Weighted(name=name, term=Square(1e37), weight=1e10) for name in ("one", "two")]
    with pytest.raises(
        StageError, match="each of one, two is finite and their weighted sum is not, at epoch 1, batch 1"
    ):
        fit(module, [of(module, *parts)], samples=FixedSamples(batches(2)), epochs=1, seed=0, evaluate=lambda: 0.0)


def joined(data: Sequence[Batch], size: int) -> list[Batch]:
    """The same samples in batches of so many of these."""
    groups = [data[start : start + size] for start in range(0, len(data), size)]
    return [Batch(x=torch.cat([b.x for b in one]), y=torch.cat([b.y for b in one])) for one in groups]  # type: ignore[misc]


@pytest.mark.parametrize(("count", "size"), [(6, 2), (6, 3), (7, 3), (2, 4)])
def test_accumulating_batches_is_training_on_larger_ones(count: int, size: int) -> None:
    small, large = linear(), linear()
    fit(
        small, [player(small, CrossEntropy())], samples=FixedSamples(batches(count)), epochs=2, seed=0,
        evaluate=lambda: 0.0, accumulate=size,
    )  # fmt: skip
    fit(
        large, [player(large, CrossEntropy())], samples=FixedSamples(joined(batches(count), size)), epochs=2, seed=0,
        evaluate=lambda: 0.0,
    )  # fmt: skip
    torch.testing.assert_close(small.weight, large.weight)


def test_the_learning_rate_ends_where_it_should_when_batches_are_accumulated(tmp_path: Path) -> None:
    ends = []

    class Told:
        def note(self, epoch: int, figures: dict[str, float]) -> None:
            ends.append(figures["learning rate"])

    surroundings = context(tmp_path)
    object.__setattr__(surroundings, "tracker", Told())
    teach(net(), lesson(epochs=3, accumulate=3), surroundings, teacher=None)
    assert ends[-1] == pytest.approx(3e-3 * 0.01)


def test_a_training_without_clipping_takes_the_whole_gradient(tmp_path: Path) -> None:
    curves = []
    for clip_norm in (None, 1e6, 1e-6):
        trained, _ = teach(
            net(), lesson(epochs=2, optimizer="sgd", clip_norm=clip_norm), context(tmp_path / str(clip_norm)), teacher=None
        )  # fmt: skip
        curves.append(trained.curves["ce"])
    assert curves[0] == curves[1]
    assert curves[2][1] > curves[0][1]
