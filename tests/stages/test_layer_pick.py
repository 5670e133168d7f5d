"""Students that begin with layers of their teacher."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgepress.stages.distill.layer_pick import evenly, layers_of, pick_layers_
from edgepress.targets.errors import StageError


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)


class OtherLayer(nn.Module):
    """The same parts by other names, as DistilBERT names BERT's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_lin = nn.Linear(width, width)
        self.sa_layer_norm = nn.LayerNorm(width)


def encoder(layers: int, *, width: int = 4, classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    inner = OrderedDict(words=nn.Embedding(9, width), layer=nn.ModuleList(Layer(width) for _ in range(layers)))
    return nn.ModuleDict({"bert": nn.ModuleDict(inner), "classifier": nn.Linear(width, classes)})


def other(layers: int, *, width: int = 4) -> nn.Module:
    torch.manual_seed(9)
    inner = OrderedDict(words=nn.Embedding(9, width), blocks=nn.Sequential(*(OtherLayer(width) for _ in range(layers))))
    return nn.ModuleDict({"distilbert": nn.ModuleDict(inner), "classifier": nn.Linear(width, 3)})


def test_six_of_twelve_are_those_of_distilbert() -> None:
    assert evenly(12, 6) == (0, 2, 4, 7, 9, 11)


@given(st.integers(1, 48), st.integers(1, 48))
def test_picked_layers_are_in_order_from_the_first_to_the_last(one: int, two: int) -> None:
    few, many = sorted((one, two))
    picked = evenly(many, few)
    assert len(picked) == few
    assert list(picked) == sorted(set(picked))
    assert picked[0] == 0
    assert few == 1 or picked[-1] == many - 1


def test_a_student_begins_with_its_teachers_layers() -> None:
    teacher, student = encoder(5), encoder(3, seed=1)
    pick_layers_(teacher, student)
    mine, theirs = student.state_dict(), teacher.state_dict()
    for layer, picked in enumerate((0, 2, 4)):
        for part in ("query.weight", "query.bias", "norm.weight"):
            torch.testing.assert_close(mine[f"bert.layer.{layer}.{part}"], theirs[f"bert.layer.{picked}.{part}"])
    for name in ("bert.words.weight", "classifier.weight", "classifier.bias"):
        torch.testing.assert_close(mine[name], theirs[name])


def test_a_student_with_every_layer_becomes_its_teacher() -> None:
    teacher, student = encoder(4), encoder(4, seed=1)
    pick_layers_(teacher, student)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(student.state_dict()[name], value)


def test_layers_can_be_named() -> None:
    teacher, student = encoder(5), encoder(2, seed=1)
    pick_layers_(teacher, student, layers=[3, 1])
    mine, theirs = student.state_dict(), teacher.state_dict()
    torch.testing.assert_close(mine["bert.layer.0.query.weight"], theirs["bert.layer.3.query.weight"])
    torch.testing.assert_close(mine["bert.layer.1.query.weight"], theirs["bert.layer.1.query.weight"])


def test_layers_of_another_family_are_matched_in_order() -> None:
    teacher, student = encoder(4), other(2)
    pick_layers_(teacher, student)
    mine, theirs = student.state_dict(), teacher.state_dict()
    torch.testing.assert_close(mine["distilbert.blocks.1.q_lin.weight"], theirs["bert.layer.3.query.weight"])
    torch.testing.assert_close(mine["distilbert.words.weight"], theirs["bert.words.weight"])


def test_the_student_learns_and_the_teacher_does_not_change() -> None:
    teacher, student = encoder(3), encoder(2, seed=1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    pick_layers_(teacher, student)
    weight: Tensor = student.get_parameter("bert.layer.0.query.weight")
    assert weight.requires_grad
    with torch.no_grad():
        weight.add_(1.0)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_classifier_of_other_classes_stays_as_it_is() -> None:
    teacher, student = encoder(3), encoder(2, classes=5, seed=1)
    before = student.get_parameter("classifier.weight").detach().clone()
    pick_layers_(teacher, student)
    torch.testing.assert_close(student.get_parameter("classifier.weight").detach(), before)


def test_the_layers_are_the_longest_list_of_one_kind() -> None:
    network = nn.ModuleDict(
        {"head": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "blocks": nn.ModuleList(Layer(8) for _ in range(3))}
    )
    assert layers_of(network, "teacher")[0] == "blocks"


def test_what_does_not_fit_is_refused_before_anything_is_copied() -> None:
    student = encoder(3, seed=1)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    for teacher, message in (
        (encoder(2), "the student has 3 layers and the teacher only 2"),
        (encoder(4, width=8), r"bert\.layer\.0\.query\.weight is of the shape \(8, 8\) and the student has \(4, 4\)"),
        (other(4, width=8), "the layers do not match"),
        (nn.Linear(4, 4), "the teacher has no list of layers"),
    ):
        with pytest.raises(StageError, match=message):
            pick_layers_(teacher, student)
    with pytest.raises(StageError, match="name 3 of the teacher's layers"):
        pick_layers_(encoder(4), student, layers=[0, 4, 1])
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, before[name])
