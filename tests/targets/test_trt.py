import pytest

from edgepress.targets.errors import RecipeError
from edgepress.targets.trt import build_flags, is_strongly_typed, timing_flags, version_code


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("8.2.1", {"--workspace=512", "--fp16", "--buildOnly"}),
        ("8.5.2", {"--memPoolSize=workspace:512", "--fp16", "--buildOnly"}),
        ("8.6.2", {"--memPoolSize=workspace:512", "--fp16", "--skipInference"}),
        ("10.3.0", {"--memPoolSize=workspace:512", "--fp16", "--skipInference"}),
    ],
)
def test_every_version_is_told_to_build_in_its_own_words(version: str, expected: set[str]) -> None:
    flags = build_flags(version, precisions=["fp16"], workspace_mb=512)
    assert set(flags) == expected | {"--profilingVerbosity=detailed"}


def test_float_needs_no_flag_and_int8_may_fall_back_to_fp16() -> None:
    assert not {"--fp16", "--int8"} & set(build_flags("8.2.1", precisions=["fp32"], workspace_mb=512))
    assert {"--fp16", "--int8"} <= set(build_flags("10.3.0", precisions=["int8", "fp16"], workspace_mb=512))


def test_eleven_takes_precisions_from_the_graph_alone() -> None:
    told = [
        build_flags("11.1.0", precisions=names, workspace_mb=512) for names in (["int8", "fp16"], ["fp16"], ["fp32"])
    ]
    assert told[0] == told[1] == told[2]
    assert not {"--fp16", "--int8", "--best"} & set(told[0])
    assert is_strongly_typed("11.0.0")
    assert not is_strongly_typed("10.16.2")


def test_eleven_is_told_to_time_as_the_versions_before_it_do() -> None:
    extra = set(timing_flags("11.1.0")) - set(timing_flags("10.3.0"))
    assert extra == {"--includeDataTransfers", "--noCudaGraph", "--noSpinWait"}


def test_a_precision_without_a_flag_is_refused() -> None:
    with pytest.raises(RecipeError, match="no flag of trtexec for bf16"):
        build_flags("10.3.0", precisions=["bf16"], workspace_mb=512)


@pytest.mark.parametrize("version", ["latest", "8", "8.2; reboot", ""])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(RecipeError, match="is no version of TensorRT"):
        timing_flags(version)


@pytest.mark.parametrize(
    ("version", "code"),
    [("8.2.1", "8201"), ("8.2.5.1", "8205"), ("8.5.2", "8502"), ("10.3.0", "100300"), ("10.16.1", "101601")],
)
def test_versions_are_written_as_trtexec_prints_them(version: str, code: str) -> None:
    assert version_code(version) == code
