"""What went on beside a measurement, on machines made of files."""

from pathlib import Path

import pytest

from edgepress.targets.surroundings import PERIOD_S, Watch


class Machine:
    """Files that a test changes while somebody watches. Times in seconds, CPU 1 is the pinned one."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.own = root, 0.0, 0.0
        self.busy, self.stolen = [0.0, 0.0], 0.0
        self.write()

    def write(self, *, khz: int = 3_000_000, millidegrees: int = 50_000, throttled: int = 0, swapped: int = 0) -> None:
        ticks = [round(100 * seconds) for seconds in self.busy]
        steal = round(100 * self.stolen)
        texts = {
            "proc/stat": f"cpu  {sum(ticks)} 0 0 9 9 0 0 {steal} 0 0\n"
            f"cpu0 {ticks[0]} 0 0 9 9 0 0 0 0 0\ncpu1 {ticks[1]} 0 0 9 9 0 0 {steal} 0 0\nintr 1 2 3\n",
            "proc/vmstat": f"pgfault 9\npswpin {swapped}\npswpout 0\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": str(khz),
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": str(throttled),
            "sys/class/thermal/thermal_zone0/type": "CPU-therm",
            "sys/class/thermal/thermal_zone0/temp": str(millidegrees),
        }
        for name, text in texts.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def watch(self) -> Watch:
        return Watch(cpus=[1], root=self.root, clock=lambda: self.now, own_seconds=lambda: self.own)


def test_its_own_work_is_no_load_of_others(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    watch = machine.watch()
    machine.now, machine.own, machine.busy = 10.0, 9.9, [0.0, 9.9]
    machine.write()
    found = watch.end()
    assert (found["others_on_pinned"], found["others_cpus"], found["stolen"]) == (0, 0, 0)


def test_work_of_others_is_told_apart_by_where_it_ran(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    watch = machine.watch()
    machine.now, machine.own, machine.busy, machine.stolen = 10.0, 7.0, [6.0, 9.0], 1.0
    machine.write()
    found = watch.end()
    assert found["others_on_pinned"] == pytest.approx(0.2)  # 9 s busy, 7 of them its own, in 10 s
    assert found["others_cpus"] == pytest.approx(0.8)
    assert found["stolen"] == pytest.approx(0.1)


def test_the_clock_the_heat_and_the_counters_are_followed(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    watch = machine.watch()
    for second, (khz, millidegrees) in enumerate([(3_000_000, 60_000), (2_500_000, 90_000), (2_000_000, 80_000)], 1):
        machine.now = float(second)
        machine.write(khz=khz, millidegrees=millidegrees, throttled=4, swapped=7)
        watch.look()
    found = watch.end()
    assert found["frequency_mhz"] == {"start": 3000, "lowest": 2000, "median": 2500, "highest": 3000, "end": 2000}
    assert (found["temperature_c"]["start"], found["temperature_c"]["highest"]) == (50, 90)
    assert (found["throttle_events"], found["swapped_pages"]) == (4, 7)


def test_it_looks_only_now_and_then(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    watch = machine.watch()
    for step in range(1, 1001):
        machine.now = step / 1000
        watch.look()
    assert len(watch.seen) <= 1 + 1 / PERIOD_S
    assert len(watch.seen) >= 3


def test_a_machine_that_tells_nothing_is_watched_all_the_same(tmp_path: Path) -> None:
    found = Watch(cpus=[0], root=tmp_path).end()
    assert {name for name, value in found.items() if value is not None} == {"seconds"}
