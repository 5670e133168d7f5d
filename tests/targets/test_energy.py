"""Energy counters made of files, and a machine whose power is known."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepress.targets import energy
from edgepress.targets.energy import Energy, Ina3221, Rapl, find, measure_in_turn


def tree(root: Path, texts: dict[str, object]) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root


def rapl(root: Path, *readings: int) -> Path:
    """A machine with so many packages, each with a core domain that its package counts too."""
    for number, reading in enumerate(readings):
        zone = f"sys/class/powercap/intel-rapl:{number}"
        tree(
            root,
            {
                f"{zone}/name": f"package-{number}\n",
                f"{zone}/energy_uj": reading,
                f"{zone}/max_energy_range_uj": 999_999,
                f"sys/class/powercap/intel-rapl:{number}:0/name": "core",
                f"sys/class/powercap/intel-rapl:{number}:0/energy_uj": 5,
            },
        )
    return root


def test_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    meter, _ = find(root=rapl(tmp_path, 100, 200))
    assert isinstance(meter, Rapl)
    rapl(tmp_path, 500_100, 300_200)
    assert meter.joules() == pytest.approx(0.8)


def test_a_counter_that_starts_again_goes_on_counting(tmp_path: Path) -> None:
    meter, _ = find(root=rapl(tmp_path, 900_000))
    assert meter is not None
    rapl(tmp_path, 100_000)
    assert meter.joules() == pytest.approx(0.2)
    rapl(tmp_path, 300_000)
    assert meter.joules() == pytest.approx(0.4)


def test_a_counter_that_only_root_may_read_is_not_measured_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapl(tmp_path, 100)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(stat.S_IWUSR)
    read = Path.read_text

    def refuse(self: Path, *args: object, **settings: object) -> str:  # the tests may run as root, who may read all
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    meter, why = find(root=tmp_path)
    assert meter is None
    assert "only root may read the energy counter" in why


def test_a_machine_without_a_counter_says_so(tmp_path: Path) -> None:
    assert find(root=tmp_path) == (None, energy.NO_COUNTER)


def test_the_rails_of_jetpack_4_are_read_from_iio(tmp_path: Path) -> None:
    chip = "sys/bus/i2c/devices/6-0040"
    tree(
        tmp_path,
        {
            f"{chip}/name": "ina3221",
            f"{chip}/iio:device0/rail_name_0": "POM_5V_IN",
            f"{chip}/iio:device0/in_power0_input": 4000,
            f"{chip}/iio:device0/rail_name_1": "POM_5V_GPU",
            f"{chip}/iio:device0/in_power1_input": 900,
            "sys/bus/i2c/devices/6-0041/name": "something-else",
        },
    )
    now = [0.0]
    meter, _ = find(root=tmp_path, clock=lambda: now[0])
    assert isinstance(meter, Ina3221)
    now[0] = 2.0
    assert meter.joules() == pytest.approx(8.0), "the board's input counts the GPU already"


def test_the_rails_of_later_jetpacks_are_read_from_hwmon_without_the_sum_of_shunts(tmp_path: Path) -> None:
    chip = "sys/bus/i2c/devices/1-0040"
    tree(
        tmp_path,
        {
            f"{chip}/name": "ina3221",
            **{f"{chip}/hwmon/hwmon3/in{n}_label": label for n, label in ((1, "VDD_SOC"), (2, "NC"), (3, "VDD_CPU"))},
            **{f"{chip}/hwmon/hwmon3/in{n}_input": 5000 for n in (1, 2, 3)},
            **{f"{chip}/hwmon/hwmon3/curr{n}_input": 200 * n for n in (1, 2, 3)},
            f"{chip}/hwmon/hwmon3/in7_label": "sum of shunt voltages",
            f"{chip}/hwmon/hwmon3/in7_input": 77,
        },
    )
    now = [0.0]
    meter, _ = find(root=tmp_path, clock=lambda: now[0])
    assert meter is not None
    now[0] = 1.0
    assert meter.joules() == pytest.approx(5 * 0.2 + 5 * 0.6)


def test_power_that_changes_is_added_up_over_time(tmp_path: Path) -> None:
    chip = "sys/bus/i2c/devices/1-0040"
    tree(tmp_path, {f"{chip}/name": "ina3221", f"{chip}/iio:device0/rail_name_0": "VDD_IN"})
    power, now = tmp_path / chip / "iio:device0/in_power0_input", [0.0]
    power.write_text("1000")
    meter, _ = find(root=tmp_path, clock=lambda: now[0])
    assert meter is not None
    for second, milliwatts in enumerate((3000, 5000), 1):
        now[0] = float(second)
        power.write_text(str(milliwatts))
        total = meter.joules()
    assert total == pytest.approx(2 + 4)


class World:
    """A machine that takes 3 W at rest, whose clock only moves when something works or sleeps."""

    name, visit_seconds = "test", 1.0

    def __init__(self, *, rest_watts: float = 3.0) -> None:
        self.now, self.total, self.rest_watts = 0.0, 0.0, rest_watts

    def joules(self) -> float:
        return self.total

    def pass_time(self, seconds: float, *, watts: float = 0.0) -> None:
        self.now += seconds
        self.total += seconds * (self.rest_watts + watts)

    def call(self, *, ms: float, watts: float) -> Callable[[], None]:
        return lambda: self.pass_time(ms / 1e3, watts=watts)

    def measure(self, calls: dict[str, Callable[[], None]]) -> dict[str, Energy]:
        return measure_in_turn(calls, self, clock=lambda: self.now, sleep=self.pass_time)


def test_the_energy_of_an_inference_is_what_it_adds_to_the_machine_at_rest() -> None:
    world = World()
    found = world.measure({"slow": world.call(ms=4, watts=5), "fast": world.call(ms=1, watts=8)})
    assert found["slow"].per_inference_mj == pytest.approx(20, rel=0.01)
    assert found["fast"].per_inference_mj == pytest.approx(8, rel=0.01)
    assert found["slow"].rest_watts == pytest.approx(3)
    assert found["slow"].watts == pytest.approx(8, rel=0.01)
    assert len(found["slow"].rounds_mj) == energy.ROUNDS


def test_what_cannot_be_told_from_rest_is_not_measured_instead_of_zero() -> None:
    world = World()
    found = world.measure({"a": world.call(ms=1, watts=0)})["a"]
    assert found.per_inference_mj is None
    assert "cannot tell work (3.00 W) from rest" in str(found.why_not)


def test_an_energy_travels_as_plain_data() -> None:
    world = World()
    found = world.measure({"a": world.call(ms=2, watts=1)})["a"]
    assert energy.unpack(energy.pack(found)) == found
