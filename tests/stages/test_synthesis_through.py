"""Who gets a gradient when images are made: the generator and the pixels, and never teacher or student."""

from __future__ import annotations

import torch
from nets import net
from steps import noise
from torch import Tensor, nn

from edgepress.stages.contract import Preprocessing
from edgepress.stages.distill.nouns import Batch, Out, Player
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.synthesis.generators import Generator
from edgepress.stages.synthesis.priors import wire_priors
from edgepress.stages.synthesis.through import Once, Through, held
from edgepress.stages.training import fit

PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,))
EVERYTHING = {
    "bnstats": Loss(weight=1.0),
    "onehot": Loss(weight=0.5),
    "activation": Loss(weight=0.1),
    "balance": Loss(weight=1.0),
    "disagreement": Loss(weight=-1.0, options={"kind": "kl"}),
}


class Fresh:
    """New images for each turn: with a gradient for a generator, and without one for a student."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.turns = generator, [0]

    def begin(self, epoch: int) -> int:
        return 3

    def next(self, player: Player) -> Batch:
        self.turns[0] += 1
        batch = self.drawn(self.turns[0])
        return batch if player.module is self.generator else Batch(x=batch.x.detach())

    def probe(self) -> Batch:
        return Batch(x=self.drawn(0).x.detach())

    def drawn(self, turn: int) -> Batch:
        z = torch.randn(8, 8, generator=torch.Generator().manual_seed(turn))
        return Batch(x=PIXELS.normalize(self.generator(z)))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def alike(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def generator_player(generator: Generator, teacher: nn.Module, student: nn.Module, samples: Fresh) -> Player:
    through = {"t": Through(teacher)}
    objective = wire_priors(EVERYTHING, learner=student, teachers=through, probe=samples.probe())
    optimizer = torch.optim.Adam([*generator.parameters(), *objective.learned()], lr=1e-2)
    return Player(
        name="generator", module=generator, learner=student, objective=objective, optimizer=optimizer, teachers=through,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
    )  # fmt: skip


def test_preprocessing_lets_gradients_through_to_pixels() -> None:
    pixels = torch.rand(2, 1, 8, 8).requires_grad_()
    PIXELS.normalize(pixels).sum().backward()
    torch.testing.assert_close(pixels.grad, torch.full((2, 1, 8, 8), 4.0))


def test_when_the_generator_plays_it_alone_learns() -> None:
    teacher, student = net(seed=0), net(seed=1, width=8).train()
    generator = Generator((1, 8, 8), latent=8, width=8)
    samples = Fresh(generator)
    player = generator_player(generator, teacher, student, samples)
    before = state(teacher), state(student), state(generator)
    idle = torch.optim.SGD(student.parameters(), lr=0.0)
    still = Player(
        name="student", module=student, learner=student, objective=player.objective, optimizer=idle, steps=0,
        schedule=torch.optim.lr_scheduler.LambdaLR(idle, lambda step: 1.0),
    )  # fmt: skip
    fit(student, [player, still], samples=samples, epochs=1, seed=0, evaluate=lambda: 0.0)
    assert alike(teacher, before[0]), "buffers too, bit by bit"
    assert alike(student, before[1])
    assert not alike(generator, before[2])
    assert all(one.grad is None for network in (teacher, student) for one in network.parameters())
    assert all(one.grad is not None for one in generator.parameters())
    assert all(one.requires_grad for one in teacher.parameters())


def test_a_teacher_that_is_passed_through_stays_in_eval_mode_with_its_batch_norms() -> None:
    teacher = net().train()
    source = Through(teacher, taps=("bn:in",))
    teacher.train()  # as a careless caller would
    before = state(teacher)
    x = noise(4, 1, 8, 8).requires_grad_()
    said = source.see(Batch(x=x))
    (said.logits.square().sum() + said.feats["bn:in"].square().sum()).backward()
    assert alike(teacher, before)
    assert x.grad is not None
    assert all(one.grad is None for one in teacher.parameters())
    assert teacher.bn.training, "modes are the caller's again afterwards"
    torch.testing.assert_close(said.logits, Frozen(teacher).see(Batch(x=x)).logits)


def test_a_frozen_teacher_lets_nothing_through() -> None:
    x = noise(4, 1, 8, 8).requires_grad_()
    assert not Frozen(net()).see(Batch(x=x)).logits.requires_grad


def test_both_views_of_a_batch_are_answered() -> None:
    x = noise(4, 1, 8, 8)
    said = Through(net(), taps=("bn:in",)).see(Batch(x=x, view=x.flip(3)))
    assert said.view is not None
    assert said.view.feats["bn:in"].shape == said.feats["bn:in"].shape
    assert not torch.equal(said.view.logits, said.logits)


def test_networks_that_were_held_are_as_they_were() -> None:
    one = net().train()
    one.block.eval()
    one.head.weight.requires_grad_(False)
    modes = [part.training for part in one.modules()]
    with held(one):
        assert not any(part.training for part in one.modules())
        assert not any(parameter.requires_grad for parameter in one.parameters())
    assert [part.training for part in one.modules()] == modes
    assert not one.head.weight.requires_grad
    assert one.stem.weight.requires_grad


class Counting(Frozen):
    calls = 0

    def see(self, batch: Batch) -> Out:
        self.calls += 1
        return super().see(batch)


def test_a_batch_is_answered_once_however_often_it_is_shown() -> None:
    teacher = Counting(net())
    once = Once(teacher)
    batch = Batch(x=noise(4, 1, 8, 8))
    said = [once.see(batch) for _ in range(10)]
    assert teacher.calls == 1
    assert all(one is said[0] for one in said)
    other = Batch(x=batch.x.clone())
    torch.testing.assert_close(once.see(other).logits, said[0].logits)
    assert teacher.calls == 2
    other.x.add_(1)
    assert not torch.equal(once.see(other).logits, said[0].logits)
    assert teacher.calls == 3


def test_an_answer_is_computed_again_when_other_features_are_asked_for_or_an_epoch_ends() -> None:
    teacher = Counting(net())
    once = Once(teacher)
    batch = Batch(x=noise(4, 1, 8, 8))
    once.see(batch)
    once.taps = ("bn",)
    assert set(once.see(batch).feats) == {"bn"}
    assert teacher.calls == 2
    once.stepped()
    once.see(batch)
    assert teacher.calls == 2
    once.after(0)
    once.see(batch)
    assert teacher.calls == 3
    assert once.module is teacher.module


def test_an_answer_that_a_gradient_passes_through_is_not_kept() -> None:
    once = Once(Through(net()))
    batch = Batch(x=noise(4, 1, 8, 8).requires_grad_())
    once.see(batch).logits.sum().backward()
    once.see(batch).logits.sum().backward()  # a graph can be gone through once
