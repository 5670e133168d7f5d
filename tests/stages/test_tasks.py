"""Every task is opened, learned, distilled and pruned by the same stages as the classification of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from other_tasks import CLASSES, DATA, LENGTH, SIDE, VOCABULARY, network, told

from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.contract import InputContract, Tokens
from edgepress.stages.crew import Crew
from edgepress.stages.data import Data, open_memory
from edgepress.stages.distill.samples import Loaded
from edgepress.stages.distill.stage import Distill
from edgepress.stages.evaluation import logits, quality
from edgepress.stages.lesson import Lesson
from edgepress.stages.models import build
from edgepress.stages.prune import Prune
from edgepress.stages.quantize import Quantize
from edgepress.stages.settings import DataSettings, ModelSettings
from edgepress.stages.tasks import IGNORED, TASKS
from edgepress.stages.teaching import teach
from edgepress.stages.train import Train
from edgepress.targets import profiles
from edgepress.targets.errors import RecipeError

OTHERS = list(DATA)
ALONE = Crew(device=torch.device("cpu"))
REACHED = {"text": 75, "tokens": 60, "segmentation": 80, "multilabel": 75, "regression": 60}  # in a second or two


def opened(value: dict[str, Any], *, task: str | None = None, **settings: Any) -> Data:
    return open_memory(
        value, DataSettings(source="mine", **settings), seed=0, cache=Path("unused"), given_weights=True, task=task
    )


def context(data: Data, work: Path) -> Context:
    return Context(data=data, profile=profiles.load("onnxruntime-cpu"), work=work, seed=0, build={})


def artifact(task: str, data: Data) -> Artifact:
    contract = InputContract(
        shape=data.shape, dtype=data.preprocessing.dtype, dynamic_batch=False, preprocessing=data.preprocessing,
        classes=data.classes, task=task,
    )  # fmt: skip
    return Artifact(module=network(task), contract=contract, base="model", key="0" * 16)


def taught(task: str, data: Data, work: Path, *, epochs: int = 12) -> Artifact:
    start = artifact(task, data)
    teach(start.module, Train(epochs=epochs, lr=0.01, batch_size=32), context(data, work), teacher=None)
    return start


@pytest.mark.parametrize("task", OTHERS)
def test_the_data_say_their_task_and_everything_follows_from_it(task: str) -> None:
    data = opened(told(task))
    assert (data.task.name, data.classes) == (task, CLASSES[task])
    assert data.shape == ((LENGTH,) if data.task.takes == "tokens" else (1, SIDE, SIDE))
    answers, labels = logits(network(task), data.test, data.preprocessing)
    assert tuple(answers.shape) == data.task.answer_shape(128, classes=len(data.classes), shape=data.shape)
    assert labels.is_floating_point() == (task in ("multilabel", "regression"))


@pytest.mark.parametrize("task", OTHERS)
def test_training_raises_the_task_s_own_figure(task: str, tmp_path: Path) -> None:
    data = opened(told(task))
    before = quality(network(task), data.test, data)
    module = taught(task, data, tmp_path).module
    assert quality(module, data.test, data) > max(before, REACHED[task])


@pytest.mark.parametrize("task", OTHERS)
def test_a_student_that_sees_no_label_learns_from_its_teacher(task: str, tmp_path: Path) -> None:
    data = opened(told(task))
    teacher = taught(task, data, tmp_path / "teacher")
    student = network(task, seed=7)
    before = quality(student, data.test, data)
    lesson = Distill(ce=0.0, kd=1.0, epochs=10, lr=0.01, batch_size=32)
    teach(student, lesson, context(data, tmp_path / "student"), teacher=teacher.module)
    assert quality(student, data.test, data) > before + 10


@pytest.mark.parametrize("task", OTHERS)
@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_pruning_leaves_the_answers_their_shape(task: str, importance: str, tmp_path: Path) -> None:
    data = opened(told(task, train=64))
    settings = Prune(ratio=0.4, importance=importance, epochs=0)  # type: ignore[arg-type]
    surroundings = replace(context(data, tmp_path), profile=profiles.load("onnxruntime-cpu"))
    version = artifact(task, data)
    pruned = settings.run(version, surroundings)
    assert pruned.records[-1].metrics["macs_after"] < pruned.records[-1].metrics["macs_before"]
    assert (
        logits(pruned.module, data.test, data.preprocessing)[0].shape[1:]
        == version.module(data.preprocessing.example(1)).shape[1:]
    )


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
@pytest.mark.parametrize("task", OTHERS)
def test_quantising_keeps_the_figure(task: str, target: str, tmp_path: Path) -> None:
    data = opened(told(task))
    trained = taught(task, data, tmp_path / "train")
    surroundings = replace(context(data, tmp_path / "quantize"), profile=profiles.load(target))
    rounded = Quantize(epochs=0).run(trained, surroundings)
    figures = rounded.records[-1].metrics
    assert figures["validation_calibrated"] > figures["validation_float"] - 5


def test_the_short_form_takes_the_task_s_own_losses() -> None:
    lesson = Lesson(ce=0.3, kd=0.7, temperature=2.0)
    named = {task: TASKS[task].lesson(lesson).losses() for task in TASKS}
    assert set(named["segmentation"]) == set(named["text"]) == {"ce", "kd"}
    assert {name: loss.weight for name, loss in named["multilabel"].items()} == {"bce": 0.3, "bkd": 0.7}
    assert named["multilabel"]["bkd"].options == {"temperature": 2.0}
    assert {name: loss.weight for name, loss in named["regression"].items()} == {"mse": 0.3, "logits": 0.7}
    assert named["regression"]["logits"].options == {}


def test_losses_that_the_recipe_names_are_left_as_they_are() -> None:
    lesson = Lesson(loss={"huber": 1.0})  # type: ignore[dict-item]
    assert TASKS["regression"].lesson(lesson) is lesson


def test_padding_and_unlabelled_pixels_have_no_label() -> None:
    data = opened(told("tokens"))
    rows, labels, _ = data.test.__getitems__([0, 1, 2])
    assert torch.equal(labels == IGNORED, rows == 0)
    masks = opened(told("segmentation")).test.labels()
    assert bool((masks[:, 0] == IGNORED).all())
    assert bool((masks[:, 1:] != IGNORED).all())


def test_a_map_of_labels_moves_as_its_image_does() -> None:
    data = opened(told("segmentation"), augment=("flip", "crop", "shift"))
    assert data.train is not None
    samples = Loaded(data.train, data.preprocessing, batch_size=32, seed=0, crew=ALONE, augmentation=data.augment)
    batch = samples.probe()
    assert batch.y is not None
    assert batch.mask is not None
    plain = Loaded(data.train, data.preprocessing, batch_size=32, seed=0, crew=ALONE).probe()
    assert not torch.equal(batch.x, plain.x)
    pixels = ((batch.x[:, 0] * 0.5 + 0.5) * 255).round()  # grey images are normalised with a mean and std of 0.5
    assert torch.equal(batch.mask, batch.y != IGNORED)
    assert bool((pixels[batch.y == 1] == 240).all())
    assert bool((pixels[batch.y == 2] == 20).all())
    assert bool((batch.y[pixels == 0] == IGNORED).all())


def test_padding_is_masked_also_where_a_text_has_one_answer() -> None:
    data = opened(told("text"))
    assert data.train is not None
    batch = Loaded(data.train, data.preprocessing, batch_size=32, seed=0, crew=ALONE).probe()
    assert batch.mask is not None
    assert torch.equal(batch.mask, batch.x != 0)
    assert not batch.mask.all()


def test_a_text_s_example_is_full_and_the_next_one_is_padded() -> None:
    found = Tokens(length=5, vocabulary=9, pad=3).example(3)
    assert found.dtype == torch.int64
    assert (found == 3).sum(dim=1).tolist() == [0, 1, 2]
    assert int(found.max()) < 9


def test_a_contract_of_texts_comes_back_from_its_metadata() -> None:
    contract = InputContract(
        shape=(5,), dtype="int64", dynamic_batch=False, preprocessing=Tokens(length=5, vocabulary=9, pad=3),
        classes=("a", "b"), task="text",
    )  # fmt: skip
    assert InputContract.from_metadata(contract.as_metadata()) == contract


def test_equal_texts_with_another_padding_are_other_data() -> None:
    value = told("text")
    assert opened(value).fingerprint != opened({**value, "pad": 3}).fingerprint


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("text", {"task": "txt"}, "no task is called 'txt'; did you mean 'text'"),
        ("text", {"vocabulary": 5}, r"a token is 19, and the vocabulary has 5 \(0 to 4\)"),
        ("text", {"pad": 99}, "pad is 99, which is no token"),
        ("text", {"vocabulary": "many"}, "vocabulary is 'many'; wanted a whole number"),
        ("text", {"train": (np.ones((4, 3)), [0, 1, 0, 1])}, "wanted numbers of tokens"),
        ("text", {"train": (np.ones((4, 3), int), [0, 1, 0, 1])}, "differ in length"),
        ("text", {"train": (-np.ones((4, LENGTH), int), [0, 1, 0, 1])}, "a token is -1"),
        ("tokens", {"train": (np.ones((4, LENGTH), int), np.zeros((4, 3), int))}, "every place needs a class index"),
        ("tokens", {"classes": ("even",)}, "there are 3 classes and 1 names"),
        ("segmentation", {"train": (np.zeros((4, SIDE, SIDE), np.uint8), np.zeros(4, int))}, "every place needs"),
        ("segmentation", {"train": (np.zeros((4, SIDE, SIDE), np.uint8), np.full((4, SIDE, SIDE), -1))}, "a label is -1"),
        ("segmentation", {"train": (np.zeros((4, SIDE, SIDE), np.uint8), np.zeros((3, SIDE, SIDE)))}, "4 images and 3"),
        ("multilabel", {"train": (np.zeros((2, SIDE, SIDE), np.uint8), [[0, 2, 1], [0, 0, 0]])}, "of 0 and 1"),
        ("multilabel", {"train": (np.zeros((2, SIDE, SIDE), np.uint8), [[0, 1], [0, 0]])}, r"splits have \[2, 3\] numbers"),
        ("regression", {"train": (np.zeros((2, SIDE, SIDE), np.uint8), [[1.0, np.nan], [0, 0]])}, "all finite"),
        ("regression", {"classes": ("height",)}, "2 classes and 1 names"),
        ("segmentation", {"train": np.zeros((4, SIDE, SIDE), np.uint8)}, r"wanted a pair \(images, labels\)"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_the_task_are_refused(task: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        opened({**told(task, train=8, val=4, test=8), **changes})


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("text", {"size": 8}, "data.size is for images, and these are texts"),
        ("text", {"augment": ("flip",)}, "data.augment is for images"),
        ("tokens", {"mean": (0.5,)}, "data.mean is for images"),
        ("segmentation", {"size": 8}, "data.size would resize the images and not their masks"),
    ],
)
def test_settings_that_these_data_cannot_follow_are_refused(task: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        opened(told(task, train=8, val=4, test=8), **settings)


def test_a_recipe_and_data_that_disagree_on_the_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="these data are for text, and the recipe says task: tokens"):
        opened(told("text"), task="tokens")


def test_a_network_that_answers_for_another_task_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def words():\n    return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(40, 2))\n"
        "def each():\n    return nn.Sequential(nn.Embedding(20, 4), nn.Linear(4, 2))\n"
    )
    data = opened(told("text"))
    with pytest.raises(RecipeError, match=r"numbers of tokens up to 10, 10 for each text: see that its embedding"):
        build(ModelSettings(source=f"{file}:words"), **data.network)
    with pytest.raises(RecipeError, match=r"answers a tensor of shape \(2, 10, 2\).*See that the recipe's task"):
        build(ModelSettings(source=f"{file}:each"), **data.network)


def test_a_vocabulary_larger_than_the_length_is_probed_to_its_end() -> None:
    assert VOCABULARY > LENGTH
    assert int(Tokens(length=LENGTH, vocabulary=VOCABULARY).example(1).max()) < VOCABULARY
