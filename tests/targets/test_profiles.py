from pathlib import Path

import pytest

from edgepress.targets import profiles
from edgepress.targets.errors import RecipeError
from edgepress.targets.operator_tables import opset_limit
from edgepress.targets.runtimes import TARGETS

GOOD = "{name: mine, board: b, runtime: onnxruntime, precisions: [fp32], qdq: none, opset: 17, device: local}"


@pytest.mark.parametrize("name", profiles.names())
def test_every_shipped_profile_loads_and_is_named_like_its_file(name: str) -> None:
    assert profiles.load(name).name == name


@pytest.mark.parametrize("name", profiles.names())
def test_every_shipped_profile_measures_with_a_known_runtime(name: str) -> None:
    profile = profiles.load(name)
    assert profile.measures_with in TARGETS
    assert profile.measures_with != "tensorrt"
    assert profile.where == ("device" if profile.device == "local" else "stand-in")


@pytest.mark.parametrize("name", profiles.names())
def test_every_shipped_profile_allows_one_point_of_accuracy(name: str) -> None:
    assert profiles.load(name).budget.limits() == {"accuracy_drop": 1.0}


@pytest.mark.parametrize("name", [name for name in profiles.names() if profiles.load(name).runtime == "tensorrt"])
def test_every_tensorrt_profile_exports_an_opset_that_its_version_reads(name: str) -> None:
    profile = profiles.load(name)
    assert profile.opset <= opset_limit(profile.runtime_version or "")


def test_the_jetson_nano_is_given_no_int8() -> None:
    nano = profiles.load("jetson-nano")
    assert (nano.precisions, nano.qdq) == (("fp32", "fp16"), "none")


def test_a_misspelt_profile_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="did you mean 'jetson-nano'"):
        profiles.load("jetsonnano")


def test_a_profile_of_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert profiles.load(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{name: [", "is not YAML"),
        (GOOD.replace("opset: 17", "opset: 99"), "opset: Input should be less than or equal to 24"),
        (GOOD.replace("precisions: [fp32]", "precisions: [fp32, int8]"), "qdq and precisions disagree"),
        (GOOD.replace("device: local", "device: none"), "needs a stand_in runtime"),
        (GOOD.replace("onnxruntime", "tensorrt"), "needs runtime_version"),
        (
            "{name: mine, board: b, runtime: tensorrt, runtime_version: 11.1.0, precisions: [fp32, fp16, int8], "
            "qdq: trt, opset: 18, device: none, stand_in: openvino}",
            "needs opset 19",
        ),
        (GOOD.replace("}", ", colour: red}"), "colour: Extra inputs are not permitted"),
    ],
)
def test_a_profile_that_does_not_hold_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match="profile x") as caught:
        profiles.parse(text, origin="profile x")
    assert words in str(caught.value)


def test_a_profile_file_that_is_missing_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no profile file nowhere\.yaml"):
        profiles.load("nowhere.yaml")
