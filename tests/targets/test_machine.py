"""What is known of a machine, read from files of machines that are not here."""

from pathlib import Path
from typing import Any

import pytest

from edgepress.targets import container, heat, jetson
from edgepress.targets.machine import describe, swap_used_mb

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\ncpu MHz\t\t: 1999.5\nflags\t\t: {flags}\n"
MEMINFO = (
    "MemTotal:       4051248 kB\nMemFree: 1 kB\nMemAvailable: 2048000 kB\nSwapTotal: 1024000 kB\nSwapFree: 1000000 kB\n"
)
FREQUENCY = "sys/devices/system/cpu/cpu0/cpufreq"
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
)
# What the tools print, on JetPack 4.6 and 6.2.
NVPMODEL_4 = "NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n"
NVPMODEL_6 = "NV Power Mode: MAXN_SUPER\n2\n"
NVPMODEL_CONF = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=5W >\n"


def tree(root: Path, texts: dict[str, str]) -> Path:
    """A file system with these files."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_is_described_from_its_own_files(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": CPUINFO.format(flags="avx2 avx512_vnni hypervisor"),
            "proc/meminfo": MEMINFO,
            f"{FREQUENCY}/scaling_governor": "powersave\n",
            f"{FREQUENCY}/scaling_cur_freq": "1800000\n",
            f"{FREQUENCY}/cpuinfo_max_freq": "3600000\n",
            "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,4\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "51500\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": "1073741824\n",
        },
    )
    found = describe(root=root)
    expected: dict[str, Any] = {
        "cpu": "Some CPU @ 2.00GHz",
        "instruction_sets": ["avx2", "avx512_vnni"],
        "virtual": True,
        "governor": "powersave",
        "frequency_mhz": 1800.0,
        "frequency_limit_mhz": 3600.0,
        "turbo": True,
        "threads_per_core": 2,
        "memory_mb": 3956,
        "memory_available_mb": 2000,
        "swap_used_mb": 24,
        "temperatures_c": {"x86_pkg_temp": 51.5},
        "container": {"inside": False, "cores": 1.5, "memory_mb": 1024},
        "jetson": None,
    }
    assert {name: found[name] for name in expected} == expected


def test_what_a_machine_does_not_tell_is_none(tmp_path: Path) -> None:
    found = describe(root=tmp_path)
    unknown = (
        *("governor", "frequency_mhz", "frequency_limit_mhz", "turbo", "threads_per_core", "memory_mb"),
        *("memory_available_mb", "swap_used_mb", "temperatures_c", "jetson"),
    )
    assert {name: found[name] for name in unknown} == dict.fromkeys(unknown)
    assert found["container"] == {"inside": False, "cores": None, "memory_mb": None}


def test_a_file_of_nonsense_is_as_good_as_none(tmp_path: Path) -> None:
    root = tree(tmp_path, {f"{FREQUENCY}/cpuinfo_max_freq": "<unsupported>", "sys/fs/cgroup/cpu.max": "max 100000"})
    assert describe(root=root)["frequency_limit_mhz"] is None
    assert describe(root=root)["container"]["cores"] is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("intel_pstate/no_turbo", "1", False),
        ("intel_pstate/no_turbo", "0", True),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
    ],
)
def test_turbo_is_read_from_intel_and_from_all_others(tmp_path: Path, name: str, text: str, expected: bool) -> None:
    assert describe(root=tree(tmp_path, {f"sys/devices/system/cpu/{name}": text}))["turbo"] is expected


@pytest.mark.parametrize(("siblings", "threads"), [("0", 1), ("0,4", 2), ("0-1", 2), ("0-3", 4)])
def test_threads_of_one_core_are_counted(tmp_path: Path, siblings: str, threads: int) -> None:
    root = tree(tmp_path, {"sys/devices/system/cpu/cpu0/topology/thread_siblings_list": siblings})
    assert describe(root=root)["threads_per_core"] == threads


def test_a_board_is_named_by_its_device_tree(tmp_path: Path) -> None:
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert describe(root=tmp_path)["cpu"] == "Raspberry Pi 5 Model B Rev 1.0"


def test_this_machine_has_a_cpu_to_run_on() -> None:
    found = describe()
    assert 1 <= found["usable_cores"] <= found["cores"]
    assert len(found["usable_cpus"]) == found["usable_cores"]
    assert found["cpu"]


def test_a_machine_without_swap_uses_none_of_it(tmp_path: Path) -> None:
    assert swap_used_mb(root=tree(tmp_path, {"proc/meminfo": "SwapTotal: 0 kB\nSwapFree: 0 kB\n"})) == 0


@pytest.mark.parametrize("controller", ["cpu", "cpu,cpuacct"])
def test_old_control_groups_limit_cores_too(tmp_path: Path, controller: str) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": f"4:memory:/job\n3:{controller}:/job/inner\n",
            f"sys/fs/cgroup/{controller}/job/cpu.cfs_quota_us": "50000",
            f"sys/fs/cgroup/{controller}/job/cpu.cfs_period_us": "100000",
            f"sys/fs/cgroup/{controller}/job/inner/cpu.cfs_quota_us": "-1",
            f"sys/fs/cgroup/{controller}/job/cpu.stat": "nr_periods 10\nnr_throttled 7\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2147483648",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert container.limits(root=root) == {"inside": False, "cores": 0.5, "memory_mb": 2048}
    assert container.throttled(root=root) == 7


def test_the_tightest_limit_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/cpu.max": "100000 100000",
            "sys/fs/cgroup/outer/inner/cpu.max": "400000 100000",
            "sys/fs/cgroup/outer/memory.max": "max",
            "sys/fs/cgroup/outer/inner/memory.max": "536870912",
            "sys/fs/cgroup/outer/inner/cpu.stat": "usage_usec 5\nnr_throttled 2\n",
            ".dockerenv": "",
        },
    )
    assert container.limits(root=root) == {"inside": True, "cores": 1.0, "memory_mb": 512}
    assert container.throttled(root=root) == 2


def test_a_group_that_climbs_out_of_its_tree_is_not_followed(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/../../etc\n", "etc/cpu.max": "1 100000", "sys/fs/cgroup/x": ""})
    assert container.limits(root=root)["cores"] is None


def test_a_sensor_that_always_says_the_same_is_left_out(tmp_path: Path) -> None:
    zones = {"PMIC-Die": 100_000, "CPU-therm": 42_500, "GPU-therm": 39_000}
    texts = {}
    for number, (name, value) in enumerate(zones.items()):
        texts[f"sys/class/thermal/thermal_zone{number}/type"] = name
        texts[f"sys/class/thermal/thermal_zone{number}/temp"] = str(value)
    assert heat.temperatures_c(root=tree(tmp_path, texts)) == {"CPU-therm": 42.5, "GPU-therm": 39.0}


def test_throttling_of_all_cores_is_added_up(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    root = tree(
        tmp_path,
        {
            f"{cpus}/cpu0/thermal_throttle/core_throttle_count": "2",
            f"{cpus}/cpu1/thermal_throttle/core_throttle_count": "3",
        },
    )
    assert heat.throttle_count(root=root) == 5
    assert heat.throttle_count(root=root / "nowhere") is None


def jetson_root(root: Path, *, cpu_low: int, gpu_low: int) -> Path:
    return tree(
        root,
        {
            "etc/nv_tegra_release": RELEASE,
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": str(cpu_low),
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1510400",
            "sys/class/devfreq/17000000.gpu/min_freq": str(gpu_low),
            "sys/class/devfreq/17000000.gpu/max_freq": "624750000",
            "sys/class/devfreq/some.other.bus/min_freq": "1",
            "sys/class/devfreq/some.other.bus/max_freq": "2",
        },
    )


@pytest.mark.parametrize(("said", "mode"), [(NVPMODEL_4, "MAXN (0)"), (NVPMODEL_6, "MAXN_SUPER (2)"), ("", None)])
def test_the_power_mode_is_read_from_what_the_tool_prints(said: str, mode: str | None) -> None:
    assert jetson.power_mode(said) == mode


@pytest.mark.parametrize(
    ("cpu_low", "gpu_low", "held"),
    [(1_510_400, 624_750_000, True), (729_600, 624_750_000, False), (1_510_400, 306_000_000, False)],
)
def test_clocks_are_held_when_lowest_and_highest_are_the_same(
    tmp_path: Path, cpu_low: int, gpu_low: int, held: bool
) -> None:
    root = jetson_root(tmp_path, cpu_low=cpu_low, gpu_low=gpu_low)
    assert jetson.describe(root=root, run=lambda words: NVPMODEL_6) == {
        "linux_for_tegra": "36.4.3",
        "power_mode": "MAXN_SUPER (2)",
        "clocks_held": held,
    }


def test_without_its_tool_the_power_mode_is_read_from_what_it_saved(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "etc/nv_tegra_release": RELEASE,
            "var/lib/nvpmodel/status": "pmode:0001\n",
            "etc/nvpmodel.conf": NVPMODEL_CONF,
        },
    )
    found = jetson.describe(root=root, run=lambda words: None)
    assert found == {"linux_for_tegra": "36.4.3", "power_mode": "5W (1)", "clocks_held": None}


def test_a_tool_that_is_not_there_says_nothing() -> None:
    assert jetson.run(["no-such-tool-here"]) is None
