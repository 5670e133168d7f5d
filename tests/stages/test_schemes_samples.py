"""Which samples a scheme trains on: second views, classmates, attacked images, other images, two modalities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import context, data, net, stripes
from PIL import Image
from torch import Tensor, nn

from edgepress.stages.contract import Preprocessing
from edgepress.stages.crew import Crew
from edgepress.stages.data import open_memory
from edgepress.stages.distill.nouns import Player
from edgepress.stages.distill.players import learner
from edgepress.stages.distill.samples import Classmates, Loaded, second_of
from edgepress.stages.distill.settings import Attack
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.lesson import Lesson
from edgepress.stages.settings import DataSettings
from edgepress.stages.splits import in_memory
from edgepress.stages.teaching import teach
from edgepress.stages.transfer import open_transfer
from edgepress.targets.errors import RecipeError, StageError

PIXELS = Preprocessing(size=(8, 8), channels=1, mean=(0.3,), std=(0.25,))
ALONE = Crew(device=torch.device("cpu"))


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {"epochs": 2, "batch_size": 32, "lr": 3e-3, "ce": 0.0, "kd": 1.0}
    return Lesson(**(values | changes))


def loaded(**options: Any) -> Loaded:
    split = data().train
    assert split is not None
    return Loaded(split, PIXELS, batch_size=32, seed=0, crew=ALONE, **options)


def player(name: str, *, attack: Attack | None = None) -> Player:
    teachers = {"teacher": Frozen(net(seed=1))}
    batch = loaded().probe()
    return learner(net(), lesson(attack=attack), teachers=teachers, probe=batch, steps=1, name=name)


# Views


def test_the_second_view_is_another_variation_of_the_same_images() -> None:
    samples = loaded(augmentation=("shift",), second="view")
    samples.begin(0)
    batch = samples.next(player("a"))
    assert batch.view is not None
    assert batch.view.shape == batch.x.shape
    assert not torch.equal(batch.x, batch.view)
    plain = loaded(augmentation=("shift",))
    plain.begin(0)
    torch.testing.assert_close(plain.next(player("a")).x, batch.x, rtol=0, atol=0)


def test_a_classmate_is_another_image_of_the_class() -> None:
    labels = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(0))
    index, mates = torch.arange(200), Classmates(labels)
    drawn = [mates.draw(labels, index, torch.randint(2**62, (200,))) for _ in range(20)]
    assert all(torch.equal(labels[places], labels) for places in drawn)
    assert not any((places == index).any() for places in drawn)
    together = torch.stack(drawn)
    assert all(len(together[:, place].unique()) > 5 for place in range(10))


def test_an_image_that_is_alone_in_its_class_is_its_own_classmate() -> None:
    labels = torch.tensor([0, 1, 1])
    drawn = Classmates(labels).draw(labels, torch.arange(3), torch.arange(3))
    assert drawn.tolist() == [0, 2, 1]


def test_samples_bring_the_classmates_that_a_loss_asks_for() -> None:
    samples = loaded(second="classmate")
    samples.begin(0)
    batch = samples.next(player("a"))
    assert batch.view is not None
    assert not (batch.view == batch.x).flatten(1).all(1).any()


def test_a_second_view_without_augmentation_is_refused() -> None:
    split = in_memory(*stripes(8, seed=0))
    with pytest.raises(StageError, match="set data.augment"):
        second_of(frozenset({"view"}), split, ())
    with pytest.raises(StageError, match="keep one of the two"):
        second_of(frozenset({"view", "classmate"}), split, ("flip",))


def test_a_loss_over_two_views_trains(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    varied = replace(surroundings, data=replace(surroundings.data, augment=("shift",)))
    trained, _ = teach(net(), lesson(loss={"ce": 1, "ddgsd": 1, "kd": 1}), varied, teacher=net(seed=1))
    assert trained.curves["ddgsd"][0] > 0


def test_players_of_one_round_see_the_same_batch() -> None:
    samples = loaded()
    rounds = samples.begin(0)
    one, other = player("a"), player("b")
    for _ in range(rounds):
        torch.testing.assert_close(samples.next(one).index, samples.next(other).index)
    with pytest.raises(StopIteration):
        samples.next(one)


# Other images, and two modalities


def test_any_pictures_of_a_folder_can_be_imitated_on(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "pictures" / ("a" if number % 2 else "deeper/b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    split, digest = open_transfer(f"imagefolder:{tmp_path / 'pictures'}", data(), seed=0, cache=tmp_path / "cache")
    assert (len(split), split.shape, split.is_labelled) == (40, (1, 8, 8), False)
    assert len(digest) == 64
    student, teacher = net(), net(seed=1)
    trained, _ = teach(
        student, lesson(epochs=3), context(tmp_path / "work"), teacher=teacher, images=split,
        evaluate=iter(range(9)).__next__,
    )  # fmt: skip
    assert trained.curves["kd"][-1] < trained.curves["kd"][0]
    with pytest.raises(StageError, match="ce needs labels"):
        teach(net(), lesson(ce=1.0), context(tmp_path / "other"), teacher=teacher, images=split)


def test_a_folder_without_pictures_is_no_transfer_set(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="wanted are images"):
        open_transfer(f"imagefolder:{tmp_path}", data(), seed=0, cache=tmp_path)


def test_another_data_set_is_imitated_on_without_its_labels(tmp_path: Path) -> None:
    split, _ = open_transfer("builtin:digits", data(), seed=0, cache=tmp_path)
    assert split.shape == (1, 8, 8)
    assert not split.is_labelled


def paired(tmp_path: Path) -> Any:
    """The student sees the upper half of each picture alone, the teacher all of it and in colour."""
    parts: dict[str, Any] = {}
    for seed, (name, count) in enumerate({"train": 256, "val": 64, "test": 64}.items()):
        images, labels = stripes(count, seed=seed)
        half = images.clone()
        half[:, :, 4:] = 0
        parts[name] = (half, labels, images.repeat(1, 3, 1, 1))
    settings = DataSettings(source="python:data", mean=(0.3,), std=(0.25,))
    return open_memory(parts, settings, seed=0, cache=tmp_path, given_weights=True)


class InColour(nn.Module):
    """A teacher of another modality: three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net(seed=1)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3, "the teacher was shown what the student sees"
        result: Tensor = self.net(x.mean(dim=1, keepdim=True))
        return result


def test_a_teacher_may_see_another_modality_than_its_student(tmp_path: Path) -> None:
    surroundings = replace(context(tmp_path), data=paired(tmp_path))
    both = surroundings.data.train
    assert both.teacher_pixels.shape == (3, 8, 8)
    assert both.for_teacher().shape == (3, 8, 8)
    trained, _ = teach(
        net(), lesson(ce=1.0, epochs=1), surroundings, teacher=InColour(), evaluate=iter(range(9)).__next__
    )
    assert trained.curves["kd"][0] > 0


def test_a_named_teacher_is_examined_on_what_it_sees(tmp_path: Path) -> None:
    surroundings = replace(context(tmp_path), data=paired(tmp_path))
    _, figures = teach(
        net(), lesson(ce=1.0, epochs=1, check_teacher=False), surroundings, teacher={"colour": InColour()}
    )
    assert "teacher_colour" in figures


def test_both_modalities_are_varied_alike(tmp_path: Path) -> None:
    images, labels = stripes(64, seed=0)
    split = in_memory(images, labels, for_teacher=images)
    samples = Loaded(split, PIXELS, batch_size=32, seed=0, crew=ALONE, augmentation=("flip", "shift"))
    samples.begin(0)
    batch = samples.next(player("a"))
    assert batch.teacher_x is not None
    torch.testing.assert_close(batch.x, batch.teacher_x, rtol=0, atol=0)


def test_splits_of_which_some_have_two_modalities_are_refused(tmp_path: Path) -> None:
    images, labels = stripes(8, seed=0)
    parts = {"train": (images, labels, images), "test": (images, labels)}
    with pytest.raises(RecipeError, match="test has none"):
        open_memory(parts, DataSettings(source="python:data"), seed=0, cache=tmp_path, given_weights=True)


def test_other_samples_bring_what_teachers_are_shown_where_the_data_have_it(tmp_path: Path) -> None:
    source = tmp_path / "more.py"
    source.write_text(
        "import torch\n"
        "images = torch.rand(32, 1, 8, 8)\n"
        "labels = torch.zeros(32, dtype=torch.int64)\n"
        "both = lambda: {'train': (images, labels, images.repeat(1, 3, 1, 1)), 'classes': 'ab'}\n"
        "small = lambda: {'train': (images, labels, images[:, :, :4, :4]), 'classes': 'ab'}\n"
        "alone = lambda: {'train': (images, labels), 'classes': 'ab'}\n"
    )
    split, _ = open_transfer(f"{source}:both", paired(tmp_path), seed=0, cache=tmp_path)
    assert (split.shape, split.for_teacher().shape, split.is_labelled) == ((1, 8, 8), (3, 8, 8), False)
    surroundings = replace(context(tmp_path / "work"), data=paired(tmp_path))
    trained, _ = teach(net(), lesson(epochs=1), surroundings, teacher=InColour(), images=split)
    assert trained.curves["kd"][0] > 0
    with pytest.raises(RecipeError, match="no third part for teachers"):
        open_transfer(f"{source}:alone", paired(tmp_path), seed=0, cache=tmp_path)
    with pytest.raises(RecipeError, match=r"for teachers is \(1, 4, 4\), and in the data \(3, 8, 8\)"):
        open_transfer(f"{source}:small", paired(tmp_path), seed=0, cache=tmp_path)


def test_two_modalities_learn_from_each_other(tmp_path: Path) -> None:
    """Each network keeps its own kind of sample, and is told what the other says of the other kind."""
    images, labels = stripes(64, seed=0)
    seen: dict[str, list[Tensor]] = {"a": [], "b": []}

    class Watched(nn.Module):
        def __init__(self, name: str, seed: int) -> None:
            super().__init__()
            self.inner, self.name = net(seed=seed), name

        def forward(self, x: Tensor) -> Tensor:
            seen[self.name].append(x)
            result: Tensor = self.inner(x)
            return result

    surroundings = context(tmp_path)
    both = in_memory(images, labels, for_teacher=255 - images)
    trained, _ = teach(
        Watched("a", 0), lesson(ce=1.0, epochs=1), surroundings, teacher=None, peers=[Watched("b", 1)], images=both,
        are_crossed=True, evaluate=iter(range(9)).__next__,
    )  # fmt: skip
    assert {"student kd", "peer 2 kd"} <= set(trained.curves)
    bright = PIXELS.normalize(torch.full((1, 1, 1, 1), 0.5)).item()
    assert all(x.mean() < bright for x in seen["a"])  # the pictures are dark, and their negatives are not
    assert all(x.mean() > bright for x in seen["b"])


def test_crossed_peers_need_two_kinds_of_samples(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="these data have one"):
        teach(net(), lesson(), context(tmp_path), teacher=None, peers=[net(seed=1)], are_crossed=True)


def test_a_teacher_made_of_the_student_cannot_see_another_modality(tmp_path: Path) -> None:
    surroundings = replace(context(tmp_path), data=paired(tmp_path))
    with pytest.raises(StageError, match="are the student itself"):
        teach(net(), lesson(teacher="ema"), surroundings, teacher=None)
