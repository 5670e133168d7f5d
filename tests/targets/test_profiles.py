from importlib import resources
from pathlib import Path

import pytest

from edgepress.targets import profiles
from edgepress.targets.errors import RecipeError
from edgepress.targets.operator_tables import opset_limit
from edgepress.targets.remote.boards import GPUS, JETPACKS, WITHOUT_INT8
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


# Which TensorRT comes with which JetPack: its release notes, and jetson-containers.
TENSORRT_OF_JETPACK = {"4.6.": "8.2.1", "5.1": "8.5.2", "6.1": "10.3.0", "6.2": "10.3.0", "7.2": "10.16.2"}
JETSONS = [name for name in profiles.names() if name.startswith("jetson")]


@pytest.mark.parametrize("name", JETSONS)
def test_every_jetson_has_the_tensorrt_of_its_jetpacks(name: str) -> None:
    profile = profiles.load(name)
    assert profile.jetpack
    for jetpack in profile.jetpack:
        assert jetpack in JETPACKS.values()
        (version,) = (version for start, version in TENSORRT_OF_JETPACK.items() if jetpack.startswith(start))
        assert profile.runtime_version == version


@pytest.mark.parametrize("name", JETSONS)
def test_every_jetson_has_a_gpu_that_its_jetpack_runs_on_and_int8_where_it_has_units(name: str) -> None:
    profile = profiles.load(name)
    assert profile.compute_capability in GPUS.values()
    oldest = {"5.3": ("4",), "6.2": ("4",), "7.2": ("4", "5"), "8.7": ("5", "6", "7"), "11.0": ("7",)}
    assert {jetpack[0] for jetpack in profile.jetpack} <= set(oldest[str(profile.compute_capability)])
    assert ("int8" in profile.precisions) == (profile.compute_capability not in WITHOUT_INT8)
    assert ("int8" in profile.precisions) == (profile.qdq == "trt")


@pytest.mark.parametrize("name", JETSONS)
def test_peaks_are_of_precisions_that_the_board_has_and_grow_with_fewer_bits(name: str) -> None:
    profile = profiles.load(name)
    peaks = [profile.peak_gmacs[kind] for kind in profile.precisions if kind in profile.peak_gmacs]
    assert set(profile.peak_gmacs) in (set(), set(profile.precisions))
    assert peaks == sorted(peaks)
    assert bool(peaks) == (profile.bandwidth_gb_s is not None)


@pytest.mark.parametrize("name", profiles.names())
def test_every_fact_of_a_shipped_profile_is_near_its_source(name: str) -> None:
    """A comment right above it, or above the facts that share it."""
    text = (resources.files("edgepress") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for key in ("runtime_version", "compute_capability", "peak_gmacs", "bandwidth_gb_s", "memory_mb"):
        place = next((number for number, line in enumerate(lines) if line.startswith(f"{key}:")), None)
        if place is not None:
            assert lines[place - 1].startswith("#"), key


def test_int8_on_a_gpu_that_has_none_is_refused() -> None:
    text = (resources.files("edgepress") / "profiles" / "jetson-orin-nano.yaml").read_text(encoding="utf-8")
    with pytest.raises(RecipeError, match="capability 6.2 has no INT8 units"):
        profiles.parse(text.replace('"8.7"', '"6.2"'), origin="mine.yaml")


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
