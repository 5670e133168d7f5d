"""Every task's figure is scikit-learn's, and its interval says how far another sample would have led."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, r2_score

from edgepress.stages.metrics import METRICS
from edgepress.stages.resampling import class_counts, weighted_precision
from edgepress.stages.tasks import IGNORED, TASKS
from edgepress.targets.statistics import wilson

CLASSES = 4
ONCE = slice(None)


def answers(task: str, *, count: int = 60, seed: int = 0, skill: float = 1.5) -> tuple[NDArray[np.float32], NDArray]:
    """Answers that are often right, and labels."""
    random = np.random.default_rng(seed)
    if task == "regression":
        labels = random.normal(50, 10, (count, 2)).astype(np.float32)
        return (labels + random.normal(0, 5, labels.shape)).astype(np.float32), labels
    if task == "multilabel":
        labels = (random.random((count, CLASSES)) < 0.4).astype(np.float32)
        return (random.normal(size=labels.shape) + skill * (labels - 0.5)).astype(np.float32), labels
    places = {"segmentation": (6, 5), "tokens": (7,)}.get(task, ())
    labels = random.integers(CLASSES, size=(count, *places))
    told = random.normal(size=(*labels.shape, CLASSES)) + skill * np.eye(CLASSES)[labels]
    if places:
        labels[:, 0] = IGNORED
    told = np.moveaxis(told, -1, 1) if task == "segmentation" else told
    return told.astype(np.float32), labels


def by_hand(task: str, told: NDArray[np.float32], labels: NDArray) -> float:
    """What scikit-learn says of every labelled place, one by one."""
    if task == "regression":
        return 100 * r2_score(labels, told)
    if task == "multilabel":
        return 100 * average_precision_score(labels, told)
    counts = labels != IGNORED
    decided = told.argmax(axis=-1 if task == "tokens" else 1)
    if task == "segmentation":
        return 100 * jaccard_score(labels[counts], decided[counts], average="macro")
    if task == "tokens":
        return 100 * f1_score(labels[counts], decided[counts], average="macro")
    return 100 * float((decided == labels).mean())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_task_s_figure_is_that_of_scikit_learn(task: str, seed: int) -> None:
    told, labels = answers(task, seed=seed)
    assert METRICS[task].value(told, labels) == pytest.approx(by_hand(task, told, labels), abs=1e-4)


@pytest.mark.parametrize("task", ["segmentation", "tokens", "multilabel", "regression"])
def test_a_resample_that_draws_every_sample_once_has_the_figure_itself(task: str) -> None:
    told, labels = answers(task)
    figure = METRICS[task].resampler(told, labels)  # type: ignore[attr-defined]
    assert figure(np.ones((1, len(labels)))) == pytest.approx([METRICS[task].value(told, labels)], abs=1e-3)


@pytest.mark.parametrize("task", ["segmentation", "tokens", "multilabel", "regression"])
def test_a_resample_that_draws_a_sample_twice_has_the_figure_of_both_copies(task: str) -> None:
    told, labels = answers(task, count=12)
    drawn = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=5)
    found = METRICS[task].resampler(told, labels)(drawn.astype(np.float64))  # type: ignore[attr-defined]
    for row, value in zip(drawn, found, strict=True):
        places = np.repeat(np.arange(12), row)
        assert value == pytest.approx(METRICS[task].value(told[places], labels[places]), abs=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_the_interval_holds_the_figure_and_is_narrower_with_more_samples(task: str) -> None:
    widths = []
    for count in (40, 640):
        facts = METRICS[task].facts(*answers(task, count=count))
        low, high = facts["ci95"]
        assert low <= facts["value"] <= high
        assert facts["n"] == count
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


@pytest.mark.parametrize("task", TASKS)
def test_the_change_from_worse_answers_is_a_gain_beyond_doubt(task: str) -> None:
    told, labels = answers(task, count=300)
    blurred = (told + np.random.default_rng(1).normal(0, 20, told.shape)).astype(np.float32)
    facts = METRICS[task].facts(told, labels, blurred)
    assert facts["drop"] == pytest.approx(METRICS[task].value(blurred, labels) - facts["value"])
    assert facts["drop_ci95"][1] < 0


@pytest.mark.parametrize("task", TASKS)
def test_equal_answers_agree_wholly_and_change_nothing(task: str) -> None:
    told, labels = answers(task)
    assert METRICS[task].agreement(told, told.copy(), labels) == 1.0
    assert METRICS[task].facts(told, labels, told)["drop"] == 0.0


def test_the_interval_of_an_accuracy_is_wilson_s() -> None:
    told, labels = answers("classification")
    right = int((told.argmax(axis=1) == labels).sum())
    assert METRICS["classification"].facts(told, labels)["ci95"] == wilson(right, len(labels))


def test_what_stands_where_no_label_is_changes_nothing() -> None:
    for task, nowhere in (("segmentation", (ONCE, ONCE, 0)), ("tokens", (ONCE, 0))):
        told, labels = answers(task)
        other = told.copy()
        other[nowhere] = -other[nowhere]
        assert METRICS[task].facts(other, labels) == METRICS[task].facts(told, labels)
        assert METRICS[task].agreement(other, told, labels) == 1.0
        assert METRICS[task].agreement(other, told) < 1.0


def test_classes_that_nobody_told_and_nobody_has_do_not_count() -> None:
    labels = np.array([[0, 0, 1, 1]])
    told = np.zeros((1, 4, 9), dtype=np.float32)
    told[0, range(4), [0, 0, 1, 0]] = 1
    assert METRICS["tokens"].value(told, labels) == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)


@settings(max_examples=60)
@given(st.integers(2, 30), st.integers(0, 1000), st.integers(1, 4))
def test_weighted_precision_is_scikit_learn_s_also_where_scores_are_equal(count: int, seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(steps + 1, size=count).astype(np.float32)
    truth, weights = random.integers(2, size=count), random.integers(3, size=(2, count)).astype(np.float64)
    for row, found in zip(weights, weighted_precision(scores, truth, weights), strict=True):
        if (row * truth).sum() == 0:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(average_precision_score(truth, scores, sample_weight=row))


@settings(max_examples=30)
@given(st.integers(1, 150), st.integers(0, 1000))
def test_counts_of_classes_are_those_of_each_sample(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    told, true = random.integers(3, size=(2, count, 4))
    true[random.random(true.shape) < 0.3] = IGNORED
    counts = class_counts(told, true, classes=3)
    for place in range(count):
        valid = true[place] != IGNORED
        hits, said, are = np.split(counts[place], 3)
        assert are.tolist() == np.bincount(true[place][valid], minlength=3).tolist()
        assert said.tolist() == np.bincount(told[place][valid], minlength=3).tolist()
        assert hits.tolist() == np.bincount(true[place][valid & (told[place] == true[place])], minlength=3).tolist()


def test_large_numbers_far_from_zero_keep_their_spread_in_a_resample() -> None:
    told, labels = answers("regression")
    near = METRICS["regression"].facts(told, labels)["ci95"]
    far = METRICS["regression"].facts(told + 4096, labels + 4096)["ci95"]
    assert near == pytest.approx(far, abs=0.1)
