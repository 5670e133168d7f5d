"""The statistics of batch norms: found in the teacher alone, 0 where images have them, and never changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import Net, net
from steps import noise
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Objective, Out, Step
from edgepress.stages.distill.places import PLACES
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.taps import outline, resolve
from edgepress.stages.synthesis.known import has_norms
from edgepress.stages.synthesis.priors import remember, wire_priors
from edgepress.stages.synthesis.through import Through
from edgepress.targets.errors import StageError

NORMS = ("bn:in", "block.bn1:in", "block.bn2:in")
IMAGES = noise(5, 1, 8, 8)


class Plain(nn.Module):
    """No batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean(dim=(2, 3)))


class FrozenBatchNorm(nn.Module):
    """As in detectors: the statistics are buffers, and the class is none of torch's batch norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))


def wired(
    teacher: nn.Module, *, learner: nn.Module | None = None, taps: Any = None, **options: Any
) -> tuple[Objective, Through]:
    source = Through(teacher)
    loss = Loss(taps=taps, options=options)
    objective = wire_priors(
        {"bnstats": loss},
        learner=Plain() if learner is None else learner,
        teachers={"t": source},
        probe=Batch(x=IMAGES),
    )
    return objective, source


def value(objective: Objective, source: Through, x: Tensor) -> Tensor:
    assert source.module is not None
    batch = Batch(x=x)
    total, _ = objective(
        Step(
            batch=batch, student=Out(logits=torch.zeros(len(x), 4)), teachers={"t": source.see(batch)}, progress=0.0,
            models={"t": source.module},
        )
    )  # fmt: skip
    return total


def given(teacher: nn.Module, x: Tensor) -> list[np.ndarray[Any, Any]]:
    """What each batch norm is given, by hooks of this test's own."""
    found: list[np.ndarray[Any, Any]] = []
    norms = [part for part in teacher.modules() if isinstance(part, nn.BatchNorm2d)]
    handles = [
        norm.register_forward_pre_hook(lambda _part, passed: found.append(passed[0].detach().double().numpy()))
        for norm in norms
    ]
    with torch.no_grad():
        teacher(x)
    for handle in handles:
        handle.remove()
    return found


def statistics(teacher: nn.Module, x: Tensor) -> list[tuple[Any, Any, Any, Any, float]]:
    norms = [part for part in teacher.modules() if isinstance(part, nn.BatchNorm2d)]
    return [
        (one.mean(axis=(0, 2, 3)), one.var(axis=(0, 2, 3)), norm.running_mean.double().numpy(), norm.running_var.double().numpy(), norm.eps)  # type: ignore[union-attr]
        for one, norm in zip(given(teacher, x), norms, strict=True)
    ]  # fmt: skip


def test_norms_are_a_place_whose_taps_are_inputs() -> None:
    assert "@norms" in PLACES
    found = outline(net(), IMAGES)
    assert resolve("@norms", student=None, teacher=found, loss="bnstats") == tuple(("", tap) for tap in NORMS)
    assert resolve("@norms", student=found, teacher=found, loss="hint") == tuple((tap, tap) for tap in NORMS)
    assert resolve("@norms#1", student=None, teacher=found, loss="bnstats") == (("", NORMS[1]),)
    assert resolve([("", "bn:in")], student=None, teacher=found, loss="bnstats") == (("", "bn:in"),)
    assert resolve("bn:in", student=None, teacher=found, loss="bnstats") == (("", "bn:in"),)


def test_only_the_teacher_is_tapped_and_the_student_need_not_have_such_layers() -> None:
    objective, source = wired(net(), learner=Plain())
    assert objective.taps() == ()
    assert source.taps == NORMS


@pytest.mark.parametrize("kind", ["norms", "mse", "std"])
def test_statistics_are_compared_as_the_papers_do(kind: str) -> None:
    teacher = net()
    seen = statistics(teacher, IMAGES)
    if kind == "norms":
        expected = sum(np.linalg.norm(m - mt) + np.linalg.norm(v - vt) for m, v, mt, vt, _ in seen)
    elif kind == "mse":
        expected = np.mean([((m - mt) ** 2).mean() + ((v - vt) ** 2).mean() for m, v, mt, vt, _ in seen])
    else:
        expected = sum(
            ((m - mt) ** 2).mean() + ((np.sqrt(v + eps) - np.sqrt(vt + eps)) ** 2).mean() for m, v, mt, vt, eps in seen
        )
    objective, source = wired(teacher, kind=kind)
    assert float(value(objective, source, IMAGES)) == pytest.approx(float(expected), rel=1e-4)


def test_the_images_themselves_may_have_to_be_like_data() -> None:
    alone, source = wired(net(), kind="std")
    both, other = wired(net(), kind="std", inputs=True)
    a = IMAGES.double().numpy()
    expected = a.mean() ** 2 + (a.std() - 1) ** 2
    apart = float(value(both, other, IMAGES) - value(alone, source, IMAGES))
    assert apart == pytest.approx(expected, rel=1e-3)


def test_the_first_layer_can_count_more() -> None:
    (mean, var, kept_mean, kept_var, _), *_ = statistics(net(), IMAGES)
    first = np.linalg.norm(mean - kept_mean) + np.linalg.norm(var - kept_var)
    one, ten = wired(net()), wired(net(), first=10.0)
    assert float(value(*ten, IMAGES) - value(*one, IMAGES)) == pytest.approx(9 * first, rel=1e-4)


def exact(x: Tensor) -> Net:
    """A network whose batch norms have kept exactly the statistics of these images."""
    teacher = net()
    norms = [part for part in teacher.modules() if isinstance(part, nn.BatchNorm2d)]
    for place, norm in enumerate(norms):  # one after the other: each changes what the next is given
        mean, var, *_ = statistics(teacher, x)[place]
        norm.running_mean, norm.running_var = torch.tensor(mean).float(), torch.tensor(var).float()
    return teacher


@pytest.mark.parametrize("kind", ["norms", "mse", "std"])
def test_images_with_exactly_the_kept_statistics_are_worth_nothing_and_have_a_finite_gradient(kind: str) -> None:
    objective, source = wired(exact(IMAGES), kind=kind)
    x = IMAGES.clone().requires_grad_()
    total = value(objective, source, x)
    total.backward()
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-5)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert float(value(objective, source, 2 * IMAGES)) > 1e-3


def test_statistics_are_those_of_the_batch_and_not_of_each_image() -> None:
    objective, source = wired(exact(IMAGES))
    assert float(value(objective, source, IMAGES[:1])) > 1e-2
    assert float(value(objective, source, IMAGES.flip(0))) == pytest.approx(0.0, abs=1e-5)


def test_images_that_were_kept_count_in_the_statistics_of_the_next() -> None:
    teacher, other = net(), noise(5, 1, 8, 8, seed=7)
    objective, source = wired(teacher, momentum=0.9)
    plain, its_source = wired(teacher)
    assert torch.equal(value(objective, source, IMAGES), value(plain, its_source, IMAGES))
    remember(objective)
    seen, kept = statistics(teacher, other), statistics(teacher, IMAGES)
    expected = sum(
        np.linalg.norm(0.1 * m + 0.9 * km - mt) + np.linalg.norm(0.1 * v + 0.9 * kv - vt)
        for (m, v, mt, vt, _), (km, kv, *_) in zip(seen, kept, strict=True)
    )
    assert float(value(objective, source, other)) == pytest.approx(float(expected), rel=1e-4)
    fresh, fresh_source = wired(teacher, momentum=0.9)
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(value(fresh, fresh_source, other), value(objective, source, other))


def test_a_teacher_without_batch_norm_is_refused_with_the_methods_that_need_none() -> None:
    with pytest.raises(
        StageError,
        match=r"bnstats looks at the statistics .* keep of their data, and there are none. Take the method dafl",
    ):
        wired(Plain())
    with pytest.raises(StageError, match="the loss bnstats: @norms: the teacher has no batch norms: name taps"):
        resolve("@norms", student=None, teacher=outline(Plain(), IMAGES), loss="bnstats")


def test_batch_norms_that_keep_nothing_are_left_out_and_a_teacher_of_only_such_is_refused() -> None:
    teacher = net()
    teacher.bn = nn.BatchNorm2d(16, track_running_stats=False).eval()
    objective, _ = wired(teacher)
    assert [theirs for _, theirs in objective.parts[0].term.pairs] == list(NORMS[1:])
    for name in ("bn1", "bn2"):
        setattr(teacher.block, name, nn.BatchNorm2d(16, track_running_stats=False).eval())
    with pytest.raises(StageError, match=r"keep of their data, and there are none. Take the method dafl or dfq"):
        wired(teacher)
    with pytest.raises(StageError, match=r"keeps statistics of its data.*dafl or dfq"):
        wired(teacher, taps="bn")


@pytest.mark.parametrize(
    ("norm", "is_one"),
    [
        (nn.BatchNorm2d(8), True),
        (nn.SyncBatchNorm(8), True),
        (FrozenBatchNorm(8), True),
        (nn.BatchNorm2d(8, track_running_stats=False), False),
        (nn.GroupNorm(2, 8), False),
    ],
)
def test_what_counts_as_a_batch_norm_that_remembers_its_data(norm: nn.Module, is_one: bool) -> None:
    assert has_norms(nn.Sequential(nn.Conv2d(3, 8, 1), norm)) is is_one
