"""Relations, contrasts, dense and language losses on whole networks: found, wired, trained, and gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from nets import context, net
from torch import Tensor, nn

from edgepress.stages.distill.nouns import Batch, Objective, Step
from edgepress.stages.distill.settings import Loss
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.distill.watching import answer
from edgepress.stages.distill.wiring import wire
from edgepress.stages.lesson import Lesson
from edgepress.stages.teaching import teach
from edgepress.targets.errors import StageError

ON_IMAGES = ("affinity", "cc", "pkt", "rkd", "sp", "crd", "crd_inbatch", "wcord", "pkd", "skd_pair")
ON_PIXELS = ("cwd", "skd_pixel", "ifvd", "focal_global")
ON_TEXT = ("cosine", "hidden", "embeddings", "attention", "attention_relation", "sequence", "hybrid")


class Segmenter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, width, 3, padding=1, stride=2)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.classes = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(F.relu(self.two(F.relu(self.one(x)))))


class Attention(nn.Module):
    num_heads = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + F.gelu(self.mlp(x))


class Reader(nn.Module):
    """A tagger: an answer for each word."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(20, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.classes = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x)
        for layer in self.layers:
            x = layer(x)
        return self.classes(x)


def seeded(module: type[nn.Module], *sizes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return module(*sizes)


SEED = torch.Generator().manual_seed(0)
PIXELS = Batch(
    x=torch.randn(4, 1, 8, 8, generator=SEED), y=torch.randint(0, 3, (4, 4, 4), generator=SEED), index=torch.arange(4)
)
TEXT = Batch(
    x=torch.randint(0, 20, (4, 6), generator=SEED), y=torch.randint(0, 5, (4, 6), generator=SEED),
    index=torch.arange(4), mask=torch.arange(6) < torch.tensor([[6], [3], [5], [2]]),
)  # fmt: skip


def networks(name: str) -> tuple[nn.Module, nn.Module, Batch]:
    if name in ON_TEXT:
        return seeded(Reader, 2, 4, seed=0), seeded(Reader, 4, 8, seed=1), TEXT
    return seeded(Segmenter, 4, seed=0), seeded(Segmenter, 6, seed=1), PIXELS


def look(objective: Objective, student: nn.Module, teacher: Frozen, batch: Batch) -> Tensor:
    total, _ = objective(
        Step(
            batch=batch, student=answer(student, batch.x, objective.taps()), teachers={"teacher": teacher.see(batch)},
            progress=0.0,
        )
    )  # fmt: skip
    return total


@pytest.mark.parametrize("name", [*ON_PIXELS, *ON_TEXT])
def test_a_loss_finds_its_taps_and_teaches_the_student_alone(name: str) -> None:
    student, teacher, batch = networks(name)
    keys = list(student.state_dict())
    frozen = Frozen(teacher)
    objective = wire({name: Loss()}, learner=student, teachers={"teacher": frozen}, probe=batch)
    optimizer = torch.optim.Adam([*student.parameters(), *objective.learned()], lr=1e-2)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        total = look(objective, student, frozen, batch)
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    assert values[-1] < values[0]
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert list(student.state_dict()) == keys


@pytest.mark.parametrize("name", ON_IMAGES)
def test_a_student_is_taught_by_one_loss_alone(name: str, tmp_path: Path) -> None:
    student = net(seed=1, width=4)
    lesson = Lesson(epochs=2, batch_size=64, lr=3e-3, loss={name: Loss()})
    trained, _ = teach(student, lesson, context(tmp_path), teacher=net(seed=2, width=8))
    assert trained.curves[name][1] < trained.curves[name][0]
    assert list(student.state_dict()) == list(net().state_dict())


def test_a_memory_of_the_data_survives_an_interruption(tmp_path: Path) -> None:
    lesson = Lesson(epochs=3, batch_size=64, lr=3e-3, loss={"crd": Loss(options={"dim": 8})})

    def run(folder: str, *, stop_at: int | None) -> nn.Module:
        def before(epoch: int) -> None:
            if epoch == stop_at:
                raise KeyboardInterrupt

        student = net(seed=1, width=4)
        teach(student, lesson, context(tmp_path / folder), teacher=net(seed=2, width=8), before_epoch=before)
        return student

    whole = run("whole", stop_at=None)
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop_at=2)
    resumed = run("stopped", stop_at=None)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)


def test_attention_of_other_heads_is_refused_and_related_instead() -> None:
    student, teacher, batch = networks("attention")
    for part in teacher.modules():
        if isinstance(part, Attention):
            part.num_heads = 4
    frozen = Frozen(teacher)
    with pytest.raises(StageError, match="2 heads at layers.0.attention.query and the teacher 4"):
        wire({"attention": Loss()}, learner=student, teachers={"teacher": frozen}, probe=batch)
    objective = wire({"attention_relation": Loss()}, learner=student, teachers={"teacher": frozen}, probe=batch)
    assert look(objective, student, frozen, batch) > 0
