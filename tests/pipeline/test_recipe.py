"""Recipes: what is understood, and that every problem is reported with its place and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgepress.pipeline import plan, recipe
from edgepress.pipeline.recipe import STAGES, Recipe
from edgepress.targets.errors import RecipeError

GOOD = "model: net.py:make\ndata: imagefolder:pictures\n"


def load(text: str, *options: tuple[str, str]) -> Recipe:
    return recipe.load(text, origin="job.yaml", options=options)


def problems(text: str, *options: tuple[str, str]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        plan.make(load(text, *options))
    return str(caught.value).splitlines()


def test_a_model_and_data_are_enough() -> None:
    found = load(GOOD)
    assert (found.model.source, found.data.source, found.target) == (
        "net.py:make",
        "imagefolder:pictures",
        "openvino-cpu",
    )


def test_options_override_the_file() -> None:
    found = load(
        GOOD + "prune: {ratio: 0.2}\n", ("prune.ratio", "0.5"), ("target", "jetson-nano"), ("model.weights", "w.pt")
    )
    assert found.prune is not None
    assert (found.prune.ratio, found.target, found.model.weights) == (0.5, "jetson-nano", "w.pt")


def test_every_setting_of_every_stage_can_be_set_by_option() -> None:
    for name, stage in STAGES.items():
        for key, value in vars(stage()).items():
            text = "[a]" if isinstance(value, tuple) else yaml.safe_dump(value)
            assert getattr(load(GOOD, (f"{name}.{key}", text)), name) is not None


def test_all_problems_of_a_file_come_together_each_with_its_line() -> None:
    text = "model: net.py:make\ndata: imagefolder:x\nprune:\n  ratio: 1.5\n  importnce: taylor\nsedd: 3\nbudget: {latency_ms: -1}\n"
    found = problems(text)
    assert len(found) == 4
    assert any(line.startswith("job.yaml:4: prune.ratio") and "1.5" in line for line in found)
    assert any(line.startswith("job.yaml:5:") and "did you mean 'importance'" in line for line in found)
    assert any(line.startswith("job.yaml:6:") and "did you mean 'seed'" in line for line in found)
    assert any(line.startswith("job.yaml:7: budget.latency_ms") for line in found)


def test_a_problem_in_an_option_names_the_option() -> None:
    assert problems(GOOD, ("prune.ratio", "2"))[0].startswith("option prune.ratio=2: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: imagefolder:x\n", "--model"),
        ("model: net.py:make\n", "--data"),
        (GOOD + "target: jetson-nan\n", "did you mean 'jetson-nano'"),
        (GOOD + "prnue: {}\n", "did you mean 'prune'"),
        (GOOD + "prune: {importance: tailor}\n", "did you mean 'taylor'"),
        (GOOD + "stages: [prune, quantise]\n", "did you mean 'quantize'"),
        (GOOD + "distill: {ce: 0, kd: 0}\n", "nothing is learned"),
        (GOOD + "prune: {epochs: -1}\n", "greater than or equal to 0"),
        (GOOD + "prune: 0.5\n", "a section of keys"),
        (GOOD + "data: {}\n", "twice"),
        ("- a\n- b\n", "a mapping"),
        ("model: [unclosed\n", "not YAML"),
        (GOOD + "prune: !!python/object/apply:os.system ['true']\n", "not YAML"),
        (GOOD + "stages: [quantize, prune, export, profile]\n", "prune takes a float model, and quantize gives"),
        (GOOD + "stages: [prune, profile]\n", "profile takes exported files"),
        (GOOD + "stages: [prune, prune, export]\n", "prune stands twice"),
    ],
)
def test_a_wrong_recipe_says_what_to_write(text: str, words: str) -> None:
    assert words in "\n".join(problems(text))


def test_a_stage_is_left_out_by_off() -> None:
    names = [entry.name for entry in plan.make(load(GOOD + "prune: off\n")).stages]
    assert names == ["distill", "quantize", "export", "profile"]
    assert [entry.name for entry in plan.make(load(GOOD, ("prune", "off"))).stages] == names


def test_a_section_for_a_stage_adds_it() -> None:
    assert next(entry.name for entry in plan.make(load(GOOD + "train:\n")).stages) == "train"


def test_relative_paths_start_from_the_recipes_folder() -> None:
    found = recipe.load(GOOD, origin="job.yaml", folder=Path("/jobs/one"))
    assert found.model.source == "/jobs/one/net.py:make"
    assert found.data.source == "imagefolder:/jobs/one/pictures"


def test_a_device_without_int8_skips_quantisation_and_says_why() -> None:
    found = {entry.name: entry.skip for entry in plan.make(load(GOOD + "target: jetson-nano\n")).stages}
    assert found["quantize"] is not None
    assert "no INT8 units" in found["quantize"]
    assert "FP16" in found["quantize"]
    assert found["prune"] is None


def test_distillation_is_skipped_where_the_student_is_its_own_teacher() -> None:
    alone = {entry.name: entry.skip for entry in plan.make(load(GOOD)).stages}
    assert "the student is the model itself" in str(alone["distill"])
    taught = {entry.name: entry.skip for entry in plan.make(load(GOOD + "teacher: big.py:make\n")).stages}
    assert taught["distill"] is None


def test_the_budget_is_the_profiles_unless_the_recipe_has_one() -> None:
    assert plan.make(load(GOOD)).budget.limits() == {"accuracy_drop": 1.0}
    assert plan.make(load(GOOD + "budget: {speedup: 3}\n")).budget.limits() == {"speedup": 3.0}
