"""A slimmer or shallower student starts as a part of its teacher, and not from nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from nets import Block, artifact, context
from test_pruning import EXAMPLE, PaddedShortcut, answer
from test_slimming_attention import Pictures
from torch import Tensor, nn
from transformers_nets import ViT

from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.distill.stage import Distill
from edgepress.stages.evaluation import quality
from edgepress.stages.improve import improve
from edgepress.stages.pruning import loss_of
from edgepress.stages.slimming.inherit import fit, forebear, inherit_
from edgepress.stages.train import Train
from edgepress.targets.errors import StageError


class Deep(nn.Module):
    """Stem, residual blocks, a pool that keeps the quarters, a head."""

    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


def fresh(width: int, depth: int, *, seed: int = 1) -> Deep:
    torch.manual_seed(seed)
    return Deep(width, depth).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    around = context(tmp_path_factory.mktemp("teacher"))
    return improve(
        artifact(fresh(16, 3, seed=0)), around, stage="train", lesson=Train(epochs=2, lr=0.01, batch_size=32)
    )


def start(student: nn.Module, teacher: nn.Module, around: Context) -> dict[str, object]:
    return inherit_(student, teacher, around, loss_of(around.data.task))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), [(8, 3), (16, 1), (8, 1)], ids=["slimmer", "shallower", "both"])
def test_before_any_training_a_student_answers_better_than_by_chance(
    trained: Artifact, tmp_path: Path, width: int, depth: int
) -> None:
    around, student = context(tmp_path), fresh(width, depth)
    untaught = quality(student, around.data.val, around.data)
    facts = start(student, trained.module, around)
    assert quality(student, around.data.val, around.data) == facts["validation_accuracy"]
    assert facts["validation_accuracy"] > max(40.0, untaught)


@pytest.mark.slow
def test_distillation_begins_where_the_teacher_left_off(trained: Artifact, tmp_path: Path) -> None:
    around = context(tmp_path, build={"model": lambda: trained.module, "student": lambda: fresh(8, 3)})
    lesson = Distill(epochs=1, lr=1e-9, batch_size=64)
    (tmp_path / "plain").mkdir()
    taught = improve(trained, replace(around, student_from="teacher"), stage="distill", lesson=lesson)
    plain = improve(trained, replace(around, work=tmp_path / "plain"), stage="distill", lesson=lesson)
    assert taught.records[-1].metrics["inherited"]["channels"]["stem"] == [8, 16]
    assert "inherited" not in plain.records[-1].metrics
    assert taught.records[-1].metrics["validation_accuracy"] > plain.records[-1].metrics["validation_accuracy"]


def test_a_student_like_its_teacher_answers_like_it(tmp_path: Path) -> None:
    teacher, student = fresh(16, 2), fresh(16, 2, seed=5)
    start(student, teacher, context(tmp_path))
    torch.testing.assert_close(answer(student), answer(teacher), rtol=0, atol=0)


def test_channels_that_nobody_listens_to_are_left_behind(tmp_path: Path) -> None:
    teacher, student = fresh(16, 1), fresh(12, 1, seed=5)
    silent = [0, 3, 7, 15]
    with torch.no_grad():
        teacher.blocks[0].conv1.weight[:, silent] = 0
        teacher.blocks[0].conv2.weight[:, silent] = 0
        teacher.blocks[0].conv2.weight[silent] = 0
        teacher.head.weight.view(4, 16, 4)[:, silent] = 0
    start(student, teacher, context(tmp_path))
    torch.testing.assert_close(answer(student), answer(teacher), rtol=1e-5, atol=1e-5)


def test_the_block_that_does_least_is_left_behind(tmp_path: Path) -> None:
    teacher, student = fresh(16, 3), fresh(16, 2, seed=5)
    with torch.no_grad():
        teacher.blocks[1].bn2.weight.zero_()
        teacher.blocks[1].bn2.bias.zero_()
    facts = start(student, teacher, context(tmp_path))
    assert facts["blocks"] == {"blocks": ["0", "2"]}
    torch.testing.assert_close(answer(student), answer(teacher), rtol=1e-5, atol=1e-5)


def test_heads_width_and_layers_of_a_transformer_are_inherited(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, student = ViT(width=16, depth=3, heads=4).eval(), ViT(width=8, depth=2, heads=2).eval()
    facts = start(student, teacher, context(tmp_path))
    assert facts["channels"]["patch"] == [8, 16]
    assert facts["channels"]["blocks.0.attn.heads"] == [2, 4]
    found, whole = (one.blocks[0].attn.proj.weight.detach() for one in (student, teacher))
    assert set(found.flatten().tolist()) <= set(whole.flatten().tolist())


def test_torch_s_own_attention_is_inherited_and_stays_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, student = Pictures(32, heads=4).eval(), Pictures(16, heads=2).eval()
    facts = start(student, teacher, context(tmp_path))
    assert facts["channels"]["layer.self_attn.heads"] == [2, 4]
    assert facts["channels"]["embed"] == [16, 32]
    found, whole = (one.layer.self_attn.in_proj_weight.detach() for one in (student, teacher))
    assert set(found.flatten().tolist()) <= set(whole.flatten().tolist())
    assert found.shape == (48, 16)


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        (lambda: fresh(24, 2), lambda: fresh(16, 2), r"stem.weight is 24x1x3x3 in the student and 16x1x3x3"),
        (lambda: fresh(16, 4), lambda: fresh(16, 3), "blocks has 4 blocks in the student and 3 in the teacher"),
        (PaddedShortcut, lambda: fresh(16, 3), "is in the (student|teacher) alone"),
        (
            lambda: ViT(width=6, heads=3),
            lambda: ViT(width=16, heads=4),
            "makes 18 channels in the student, and the teacher's 48 are 12 for each of 4 heads",
        ),
    ],
    ids=["wider", "deeper", "another network", "narrower heads"],
)
def test_a_student_that_is_no_part_of_its_teacher_is_told_why(student: type, teacher: type, words: str) -> None:
    with pytest.raises(StageError, match=words) as caught:
        fit(student().eval(), teacher().eval(), EXAMPLE)
    assert "fewer channels or blocks, or leave out student.initialise" in str(caught.value)


def test_channels_that_must_stay_are_the_reason() -> None:
    slim = PaddedShortcut()
    slim.stem, slim.conv1 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 32, 3, padding=1, stride=2)
    with pytest.raises(StageError, match="Channels that cannot go: stem "):
        fit(slim, PaddedShortcut(), EXAMPLE)


def test_a_student_with_another_activation_is_noted(tmp_path: Path) -> None:
    class Bent(Deep):
        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks(F.gelu(self.bn(self.stem(x))))
            return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))

    notes: list[str] = []
    start(Bent(16, 2).eval(), fresh(16, 2), replace(context(tmp_path), note=notes.append))
    assert any("computes something else" in note for note in notes)


def test_whose_weights_is_said_by_name_where_there_are_several_teachers() -> None:
    model, big, small = (nn.Linear(1, 1) for _ in range(3))
    known = {"model": model, "float": model}
    assert forebear("teacher", {"big": big}, known=known) is big
    assert forebear("teacher", {"teacher": "model"}, known=known) is model
    assert forebear("small", {"big": big, "small": small}, known=known) is small
    assert forebear("model", {"big": big}, known=known) is model
    with pytest.raises(StageError, match=r"2 teachers have weights. Name one of big, small, model"):
        forebear("teacher", {"big": big, "small": small}, known=known)
    with pytest.raises(StageError, match="no teacher is called so. Name one of teacher, big, model"):
        forebear("bigger", {"big": big}, known=known)
    with pytest.raises(StageError, match="0 teachers have weights"):
        forebear("teacher", {"mean": "ema"}, known=known)
