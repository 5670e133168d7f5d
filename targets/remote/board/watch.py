"""What the board does while something runs: power of its rails, temperatures, clocks."""

import threading
import time

import probe
import system

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")
PERIOD_SECONDS = 0.05


class Watch(object):
    """Samples until it is left. mean_mw: of the whole board; None where there is no meter."""

    def __init__(self):
        self.meter = _meter()
        self.milliwatts = []
        self.hottest_c = {}
        self.slowest_mhz = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.daemon = True

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def facts(self):
        return {
            "mean_mw": sum(self.milliwatts) / len(self.milliwatts) if self.milliwatts else None,
            "power_samples": len(self.milliwatts),
            "hottest_c": self.hottest_c,
            "slowest_mhz": self.slowest_mhz,
        }

    def _sample(self):
        slow = 0.0
        while not self._stop.wait(PERIOD_SECONDS):
            if self.meter is not None:
                value = self.meter()
                if value is not None:
                    self.milliwatts.append(value)
            if time.time() - slow > 0.5:
                slow = time.time()
                for zone, value in probe.temperatures().items():
                    self.hottest_c[zone] = max(value, self.hottest_c.get(zone, value))
                for unit, values in probe.clocks().items():
                    if isinstance(values, list) and values[0] is not None:
                        self.slowest_mhz[unit] = min(values[0], self.slowest_mhz.get(unit, values[0]))


def _meter():
    """A function that tells the board's milliwatts now, from its INA3221; None where it has none."""
    for device in system.listed("/sys/bus/i2c/devices"):
        folder = "/sys/bus/i2c/devices/" + device
        if system.text(folder + "/name") != "ina3221":
            continue
        found = _jetpack4(folder) or _jetpack5(folder)
        if found is not None:
            return found
    return None


def _jetpack4(folder):
    for part in system.listed(folder):
        if not part.startswith("iio:device"):
            continue
        for channel in range(3):
            if system.text("%s/%s/rail_name_%d" % (folder, part, channel)) in TOTAL_RAILS:
                path = "%s/%s/in_power%d_input" % (folder, part, channel)
                return lambda: system.number(path)
    return None


def _jetpack5(folder):
    for part in system.listed(folder + "/hwmon"):
        for channel in range(1, 7):
            inside = "%s/hwmon/%s/" % (folder, part)
            if system.text("%sin%d_label" % (inside, channel)) in TOTAL_RAILS:
                volts, amperes = "%sin%d_input" % (inside, channel), "%scurr%d_input" % (inside, channel)
                return lambda: _product_mw(system.number(volts), system.number(amperes))
    return None


def _product_mw(millivolts, milliamperes):
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1000.0


def idle_mw(seconds):
    """Mean power while nothing of ours runs; None where there is no meter."""
    with Watch() as watch:
        if watch.meter is None:
            return None
        time.sleep(seconds)
    return watch.facts()["mean_mw"]


def exists():
    return _meter() is not None
