"""Which profile fits a board, and what is wrong with one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from edgepress.targets import profiles
from edgepress.targets.caveats import caveats
from edgepress.targets.remote import fitting, reading
from edgepress.targets.remote.boards import BoardFacts

NANO, ORIN, PI = (profiles.load(name) for name in ("jetson-nano", "jetson-orin-nano", "raspberry-pi-5"))
JETSON_NANO: dict[str, Any] = {
    "model": "NVIDIA Jetson Nano Developer Kit", "compatible": ["nvidia,tegra210"], "trtexec": "/usr/src/trtexec",
    "nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 1", "tensorrt_code": "8201",
}  # fmt: skip
JETSON_ORIN: dict[str, Any] = {
    "model": "NVIDIA Jetson Orin Nano Developer Kit", "compatible": ["nvidia,tegra234"], "trtexec": "/usr/src/trtexec",
    "nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1", "tensorrt_code": "100300",
}  # fmt: skip


def facts(**told: Any) -> BoardFacts:
    return BoardFacts(**{"python": "3.6.9", "home": "/h", "boot_id": "b", "disk_free_mb": 9000, **told})


def names(board: BoardFacts) -> list[str]:
    return [one.name for one in fitting.best([profiles.load(name) for name in profiles.names()], board)]


def test_a_board_is_known_by_what_it_calls_itself() -> None:
    assert names(facts(**JETSON_NANO))[0] == "jetson-nano"
    assert names(facts(**JETSON_ORIN))[0].startswith("jetson-orin-nano")
    pi = {"model": "Raspberry Pi 5 Model B Rev 1.0", "machine": "aarch64", "runtimes": {"onnxruntime": "1.20"}}
    assert names(facts(**pi)) == ["raspberry-pi-5"]


def test_another_number_is_another_board() -> None:
    pi = {"model": "Raspberry Pi 4 Model B Rev 1.4", "machine": "aarch64", "runtimes": {"onnxruntime": "1.20"}}
    assert "raspberry-pi-5" not in names(facts(**pi))


def test_a_board_that_no_profile_names_gets_those_of_its_runtimes() -> None:
    found = names(facts(cpu="Some other processor", machine="x86_64", runtimes={"openvino": "2026.4"}))
    assert "openvino-cpu" in found
    assert "onnxruntime-cpu" not in found
    assert names(facts(cpu="Some other processor")) == []


@pytest.mark.parametrize(
    ("cpu", "flags", "first"),
    [
        ("Intel(R) Xeon(R) Processor", "avx2 avx512_vnni amx_int8 amx_tile", "intel-xeon-amx"),
        ("Intel(R) Xeon(R) Processor", "avx2 avx512_vnni", "intel-xeon-vnni"),
        ("Intel(R) Xeon(R) Processor", "avx2", "openvino-cpu"),
        ("AMD Ryzen 7 7700 8-Core Processor", "avx2 avx512_vnni", "amd-zen4"),
        ("Intel(R) N100", "avx2 avx_vnni", "intel-n100"),
    ],
)
def test_cpus_of_one_name_are_told_apart_by_what_they_compute_with(cpu: str, flags: str, first: str) -> None:
    found = names(facts(cpu=cpu, cpu_flags=flags, machine="x86_64", runtimes={"openvino": "2026.4"}))
    assert found[0] == first


@pytest.mark.parametrize(
    ("profile", "told", "words"),
    [
        (ORIN, JETSON_NANO, "reads up to opset 13"),
        (ORIN, JETSON_NANO, "has no INT8 units"),
        (PI, {"disk_free_mb": 5}, "only 5 MiB are free"),
    ],
)
def test_what_does_not_fit_is_told(profile: profiles.Profile, told: dict[str, Any], words: str) -> None:
    assert any(words in text for text in fitting.problems(profile, facts(**told)))


@pytest.mark.parametrize(
    ("told", "words"),
    [({}, "this is none"), (JETSON_ORIN, "sudo without a password"), (JETSON_ORIN | {"has_sudo": True}, None)],
)
@pytest.mark.parametrize("asked", [{"lock_clocks": True}, {"power_mode": 0}])
def test_clocks_and_power_mode_are_changed_only_where_they_can_be(
    asked: dict[str, Any], told: dict[str, Any], words: str | None
) -> None:
    found = fitting.problems(PI, facts(**told), **asked)
    assert (words is None and not found) or any(words in text for text in found if words)


def test_a_newer_release_of_the_same_tensorrt_is_no_trouble_and_another_is_told() -> None:
    assert fitting.notes(ORIN, facts(**JETSON_ORIN)) == []
    (note,) = fitting.notes(ORIN, facts(**JETSON_ORIN | {"tensorrt_code": "101601"}))
    assert "10.16.1" in note
    assert fitting.problems(ORIN, facts(**JETSON_ORIN | {"tensorrt_code": "101601"})) == []
    assert fitting.adapted(ORIN, facts(**JETSON_ORIN | {"tensorrt_code": "101601"})).runtime_version == "10.16.1"


@pytest.mark.parametrize(("machine", "flags", "bits"), [
    ("aarch64", "asimd asimddp", 8), ("x86_64", "avx2", 7), ("x86_64", "avx2 avx_vnni", 8), ("x86_64", "", 7),
])  # fmt: skip
def test_the_board_s_own_processor_decides_how_many_bits_weights_have(machine: str, flags: str, bits: int) -> None:
    auto = profiles.load("openvino-cpu").model_copy(update={"weight_bits": "auto"})
    assert fitting.adapted(auto, facts(machine=machine, cpu_flags=flags)).weight_bits == bits


def test_a_runtime_that_is_missing_says_what_to_install() -> None:
    assert "install TensorRT with JetPack" in (fitting.missing(NANO, facts()) or "")
    assert "pip install onnxruntime" in (fitting.missing(PI, facts()) or "")
    assert fitting.missing(PI, facts(runtimes={"onnxruntime": "1.20"})) is None


HELD: dict[str, Any] = {"clocks": {"gpu": [1020.0, 1020.0, 1020.0]}}


@pytest.mark.parametrize(("slowest", "is_told"), [(1019.0, False), (600.0, True)])
def test_clocks_that_were_held_and_fell_are_a_caveat(slowest: float, is_told: bool) -> None:
    board = facts(**JETSON_ORIN, **HELD)
    watched = [{"slowest_mhz": {"gpu": 1020.0}}, {"slowest_mhz": {"gpu": slowest}, "hottest_c": {"gpu": 91.0}}]
    found = reading._slowed(watched, board, reading.describe(board))
    assert [("600 MHz of 1020 MHz at 91 °C" in one.sentence) for one in found] == [True] * is_told


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        ([(2400.0, 61.0, False)] * 3, []),
        ([(2400.0, 61.0, False)] * 2 + [(1500.0, 85.0, False)], ["throttling"]),
        ([(1500.0, 61.0, False)] * 3, ["clock below maximum"]),
        ([(2400.0, 61.0, True), (2400.0, 61.0, False)], ["throttling"]),
        ([(None, None, None)] * 3, []),
    ],
)
def test_a_cpu_that_slows_down_while_it_is_timed_is_flagged(
    seen: list[tuple[float | None, float | None, bool | None]], kinds: list[str]
) -> None:
    looks = [dict(zip(("mhz", "celsius", "held_back"), one, strict=True)) for one in seen]
    board = facts(cpus=4, clocks={"cpu": [1500.0, 1500.0, 2400.0], "governor": "performance"})
    found = [one.kind for one in caveats({}, reading.describe(board) | reading._during({"seen": looks}))]
    assert [kind for kind in found if kind in {"throttling", "clock below maximum"}] == kinds


def test_what_is_no_look_at_a_clock_is_no_clock() -> None:
    for told in ({}, {"seen": None}, {"seen": [7, {"mhz": "fast", "celsius": [], "held_back": "yes"}]}):
        assert reading._during(told)["during"] == {"frequency_mhz": None, "temperature_c": None, "throttle_events": 0}


def test_clocks_that_follow_the_load_are_told_by_another_caveat_alone() -> None:
    board = facts(**JETSON_ORIN, clocks={"gpu": [306.0, 306.0, 1020.0]})
    assert reading._slowed([{"slowest_mhz": {"gpu": 306.0}}], board, reading.describe(board)) == []
    assert reading.describe(board, held=True)["jetson"]["clocks_held"] is True
