import platform
from pathlib import Path
from typing import Any

import pytest

from edgepress.targets import cpu, profiles

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\ncpu MHz\t\t: 1999.5\nflags\t\t: {flags}\n"


def machine(root: Path, *, flags: str = "", files: dict[str, str] | None = None) -> Path:
    """A file system of a machine with these CPU flags."""
    for name, text in {"proc/cpuinfo": CPUINFO.format(flags=flags), **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_2 avx2 fma", True),
        ("avx2 avx512f avx512bw", True),
        ("avx2 avx512f avx512_vnni", False),
        ("avx2 avx_vnni", False),
        ("avx2 avx512f amx_int8", False),
        ("", True),
    ],
)
def test_x86_saturates_unless_it_adds_byte_products_in_32_bits(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert cpu.saturates(root=machine(tmp_path, flags=flags)) is expected


def test_arm_does_not_saturate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not cpu.saturates(root=tmp_path)


@pytest.mark.parametrize(("saturates", "bits"), [(True, 7), (False, 8)])
def test_automatic_weight_bits_follow_the_cpu(saturates: bool, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "saturates", lambda: saturates)
    assert cpu.weight_bits(profiles.load("openvino-cpu")) == bits


@pytest.mark.parametrize(("profile", "bits"), [("x86-avx2", 7), ("raspberry-pi-5", 8)])
def test_weight_bits_that_a_profile_names_hold_on_every_cpu(profile: str, bits: int) -> None:
    assert cpu.weight_bits(profiles.load(profile)) == bits


def test_a_machine_is_described_from_its_own_files(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
        "proc/meminfo": "MemTotal:       4051248 kB\nMemFree: 1 kB\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/memory.max": "1073741824\n",
    }
    found = cpu.describe(root=machine(tmp_path, flags="avx2 avx512_vnni hypervisor", files=files))
    expected: dict[str, Any] = {
        "cpu": "Some CPU @ 2.00GHz",
        "instruction_sets": ["avx2", "avx512_vnni"],
        "governor": "powersave",
        "frequency_mhz": 1800.0,
        "memory_mb": 3956,
        "container": {"inside": False, "cores": 1.5, "memory_mb": 1024},
    }
    assert {name: found[name] for name in expected} == expected


def test_what_a_machine_does_not_tell_is_none(tmp_path: Path) -> None:
    found = cpu.describe(root=tmp_path)
    assert (found["governor"], found["frequency_mhz"], found["memory_mb"]) == (None, None, None)
    assert found["container"] == {"inside": False, "cores": None, "memory_mb": None}


def test_a_board_is_named_by_its_device_tree(tmp_path: Path) -> None:
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert cpu.describe(root=tmp_path)["cpu"] == "Raspberry Pi 5 Model B Rev 1.0"


def test_old_control_groups_limit_cores_too(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert cpu.describe(root=machine(tmp_path, files=files))["container"]["cores"] == 0.5


def test_this_machine_has_a_cpu_to_run_on() -> None:
    found = cpu.describe()
    assert 1 <= found["usable_cores"] <= found["cores"]
    assert found["cpu"]
