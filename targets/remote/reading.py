"""What a job on a board found, as the same figures that a measurement on this machine has."""

from __future__ import annotations

import json
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..caveats import CLOCK_SHARE, Caveat, caveats
from ..cpu import TELLING
from ..energy import Energy
from ..errors import DeviceError, StageError
from ..figures import Figures, Measurement
from ..layers import in_int8
from ..reliability import unreliable
from ..statistics import Latency
from ..surroundings import spread
from ..tensorrt_tool import advice, files, log
from . import counted
from .boards import BoardFacts
from .device import Left
from .unpacking import text_of, unpacked
from .work import Work

TELLING_POWER_SAMPLES = 20


def measurement(
    work: Work, results: Left, *, facts: BoardFacts, splits: Mapping[str, int], threads: int
) -> Measurement:
    """splits: how many of the inputs belong to each split, in their order.

    DeviceError: what came back is damaged. An engine that failed there keeps the reason in its `failed`.
    """
    reader = _Reader(work, results, splits=splits, threads=threads)
    tensorrt = work.manifest["runtime"] == "tensorrt"
    figures, told = reader.of_tensorrt() if tensorrt else reader.in_process()
    timed = {name: one.latency for name, one in figures.items() if one.latency}
    machine = describe(facts, held=bool(work.manifest["lock_clocks"])) | reader.during
    version = facts.tensorrt if tensorrt else facts.runtimes.get(work.manifest["runtime"])
    return Measurement(
        figures=figures,
        machine=machine,
        caveats=[*told, *_slowed(reader.watched, facts, machine), *caveats(timed, machine)],
        versions={work.manifest["runtime"]: version or "unknown"},
        layers=reader.layers,
        not_measured=reader.not_measured,
        unreliable=unreliable(timed),
    )


def describe(facts: BoardFacts, *, held: bool = False) -> dict[str, Any]:
    """The board as the report's machine section shows it. held: clocks were, for the measurement."""
    found: dict[str, Any] = {
        "cpu": facts.cpu or facts.model,
        "board": facts.model,
        "usable_cores": facts.cpus,
        "instruction_sets": [name for name in TELLING if name in facts.instruction_sets],
        "memory_mb": facts.memory_mb,
        "kernel": facts.kernel,
        "load_1m": facts.load,
        "governor": facts.clocks.get("governor"),
        "frequency_limit_mhz": _highest(facts.clocks.get("cpu")),
        "temperatures_c": facts.temperatures_c,
    }
    if facts.l4t:
        found["jetson"] = {
            "linux_for_tegra": facts.l4t,
            "jetpack": facts.jetpack,
            "power_mode": facts.power_mode,
            "clocks_held": held or facts.clocks_held,
        }
    return {key: value for key, value in found.items() if value is not None}


def _highest(clock: object) -> float | None:
    """Of a clock's three figures: now, least, most."""
    values = _list(clock)
    return _number(values[2]) if len(values) == 3 else None


class _Reader:
    def __init__(self, work: Work, results: Left, *, splits: Mapping[str, int], threads: int) -> None:
        self.work, self.results, self.splits, self.threads = work, results, splits, threads
        self.names = [engine["name"] for engine in work.manifest["engines"]]
        self.not_measured: dict[str, str] = {}
        self.during: dict[str, Any] = {}  # of the machine, while it was timed
        self.layers = counted.layers_in(work, results)
        self.watched: list[Mapping[str, Any]] = []  # what the board did in each round of each engine

    def in_process(self) -> tuple[dict[str, Figures], list[Caveat]]:
        timing = _mapping(self.results.json("timing-all.json"))
        self.during = _during(timing)
        self.not_measured["energy"] = "the board's script measures energy only with TensorRT"
        return {name: self._one_in_process(name, timing) for name in self.names}, []

    def _one_in_process(self, name: str, timing: Mapping[str, Any]) -> Figures:
        memory = _mapping(self.results.json(f"memory-{name}.json"))
        answers = _mapping(self.results.json(f"answers-{name}.json"))
        if "why" in memory or "why" in answers:
            return Figures(failed=str(memory.get("why") or answers["why"])[:500])
        phases = _mapping(memory.get("phases"))
        resident = {phase: _number(_mapping(seen).get("resident")) for phase, seen in phases.items()}
        peak = _number(_mapping(phases.get("steady")).get("peak"))
        known = {phase: value for phase, value in resident.items() if value is not None}
        return Figures(
            latency=_latency(timing, name, threads=self.threads),
            memory_mb={**known, "peak": peak} if peak is not None else None,
            cold_start_ms={str(key): float(value) for key, value in _mapping(memory.get("cold_start")).items()} or None,
            outputs=self._plain_outputs(name),
            int8=self._counted(name),
        )

    def _counted(self, name: str) -> dict[str, Any] | None:
        times = self.layers.times.get(name)
        if times is None:
            return None
        weighted = [layer for layer in times.layers if layer.role == "weighted"]
        return in_int8([(layer.node, layer.kind, layer.precision) for layer in weighted])

    def _plain_outputs(self, name: str) -> dict[str, NDArray[np.float32]] | None:
        told = _mapping(self.results.json(f"answers-{name}.json"))
        data = self.results.read(str(told.get("file", "")))
        if data is None:
            return None
        shape = tuple(int(size) for size in told.get("shape", ()))
        if not shape or 4 * int(np.prod(shape)) != len(data):
            raise DeviceError(f"the answers of {name} came back with {len(data)} bytes, which do not fit {shape}")
        return self._by_split(np.frombuffer(data, dtype=np.float32).reshape(shape).copy(), name)

    def of_tensorrt(self) -> tuple[dict[str, Figures], list[Caveat]]:
        rounds = _mapping(self.results.json("rounds.json"))
        told: list[Caveat] = []
        found = {}
        for name in self.names:
            build = _mapping(self.results.json(f"build-{name}.json"))
            said = log.read(text_of(self.results.read(f"build-{name}.log")))
            if not build.get("ok"):
                found[name] = Figures(failed=_build_failure(build, said))
                continue
            try:
                found[name] = self._one_of_tensorrt(name, rounds)
            except StageError as error:
                found[name] = Figures(failed=str(error))
            told += self._silence(name)
            told += [
                Caveat(kind="tensorrt", about=name, sentence=warning[:200], advice=text)
                for warning in said.warnings
                for text in advice.advise([warning])
            ]
        if not any(one.energy for one in found.values()):
            self.not_measured["energy"] = "the board has no power meter that can be read"
        return found, told

    def _one_of_tensorrt(self, name: str, rounds: Mapping[str, Any]) -> Figures:
        timed = [_mapping(_mapping(one).get(name)) for one in _list(rounds.get("rounds"))]
        visits, visited, started = [], [], 0.0
        for number, one in enumerate(timed):
            text = unpacked(self.results.read(f"times-{name}-{number}.json.gz"))
            if one.get("why") or text is None:
                said = log.read(unpacked(self.results.read(f"time-{name}-{number}.log.gz")) or "")
                raise StageError(_sentence("it could not be timed", str(one.get("why")), said))
            warmup = next(flag for flag in self._engine(name)["time"] if flag.startswith("--warmUp="))
            samples = files.samples(text, warmup_ms=float(warmup.partition("=")[2]))
            visits.append(samples.latency_ms)
            visited.append(started)
            started += samples.started_ms[-1] / 1000
        if not visits:
            raise StageError("no round of its timing came back")
        self.watched += [_mapping(one.get("watched")) for one in timed]
        peaks = [peak for one in timed if (peak := _number(one.get("peak_mb"))) is not None]
        return Figures(
            latency=Latency(samples_ms=tuple(visits), visited_s=tuple(visited), threads=self.threads),
            memory_mb={"peak": max(peaks)} if peaks else None,
            system_drop_mb=_drop(timed),
            outputs=self._plain_outputs(name) if self._is_asked_at_once() else self._tool_outputs(name),
            int8=self._precisions(name),
            energy=_energy(timed, visits, idle_mw=_number(rounds.get("idle_mw"))),
        )

    def _silence(self, name: str) -> list[Caveat]:
        """Why an engine that runs did not answer the samples."""
        why = _mapping(self.results.json(f"answers-{name}.json")).get("why")
        if not why:
            return []
        advice = (
            "look at the logs"
            if not self._is_asked_at_once()
            else ("set `trtexec: {python: false}` in a profile of your own, and trtexec answers a sample")
        )
        return [
            Caveat(
                kind="no answers",
                about=name,
                sentence=f"it did not answer the samples ({str(why)[:300]})",
                advice=advice,
            )
        ]

    def _is_asked_at_once(self) -> bool:
        return bool((self.work.manifest["evaluation"] or {}).get("at_once"))

    def _tool_outputs(self, name: str) -> dict[str, NDArray[np.float32]] | None:
        told = _mapping(self.results.json(f"answers-{name}.json"))
        if not told or told.get("why"):
            return None
        rows = []
        for file in _list(told.get("outputs")):
            text = unpacked(self.results.read(str(file)))
            if text is None:
                return None
            rows.append(_first_output(text))
        return self._by_split(np.concatenate(rows), name) if rows else None

    def _precisions(self, name: str) -> dict[str, Any] | None:
        data = self.results.read(f"layerinfo-{name}.json")
        try:
            layers = files.engine_layers(text_of(data)) if data is not None else ()
        except StageError:
            return None  # the engine runs all the same; what is wrong with its layers is told with their times
        weighted = [layer for layer in layers if layer.is_weighted]
        return in_int8([(layer.name, layer.kind, layer.reads) for layer in weighted]) if layers else None

    def _engine(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = next(one for one in self.work.manifest["engines"] if one["name"] == name)
        return found

    def _by_split(self, outputs: NDArray[np.float32], name: str) -> dict[str, NDArray[np.float32]]:
        wanted = sum(self.splits.values())
        if len(outputs) != wanted:
            raise DeviceError(f"{name} answered {len(outputs)} samples where {wanted} were asked")
        ends = np.cumsum(list(self.splits.values()))[:-1]
        return dict(zip(self.splits, np.split(outputs, ends), strict=True))


def _during(timing: Mapping[str, Any]) -> dict[str, Any]:
    """What the board's CPU did while it was timed, in the words of `surroundings.Watch`."""
    seen = [_mapping(one) for one in _list(timing.get("seen"))]
    return {
        "during": {
            "frequency_mhz": spread([_number(one.get("mhz")) for one in seen]),
            "temperature_c": spread([_number(one.get("celsius")) for one in seen]),
            "throttle_events": sum(one.get("held_back") is True for one in seen),
        }
    }


def _latency(timing: Mapping[str, Any], name: str, *, threads: int) -> Latency | None:
    visits = [tuple(_numbers(visit)) for visit in _list(_mapping(timing.get("samples_ms")).get(name))]
    if not visits or not all(visits):
        return None
    visited = tuple(_numbers(_mapping(timing.get("visited_s")).get(name)))
    loads = tuple(round(rounds) for rounds in _numbers(timing.get("rounds_by_load")))
    return Latency(
        samples_ms=tuple(visits), visited_s=visited, threads=threads,
        rounds_by_load=loads if sum(loads) == len(visits) and min(loads) > 0 else (),
    )  # fmt: skip


def _energy(
    timed: Sequence[Mapping[str, Any]], visits: Sequence[Sequence[float]], *, idle_mw: float | None
) -> Energy | None:
    watched = [_mapping(one.get("watched")) for one in timed]
    means = [_number(one.get("mean_mw")) for one in watched]
    if idle_mw is None or any(mean is None for mean in means) or not means:
        return None
    known = [mean for mean in means if mean is not None]
    rounds_mj = [(mean - idle_mw) * plain.mean(visit) / 1000 for mean, visit in zip(known, visits, strict=True)]
    few = min(int(_number(one.get("power_samples")) or 0) for one in watched) < TELLING_POWER_SAMPLES
    why = "too few readings of the power meter in a round" if few else None
    if why is None and plain.median(rounds_mj) <= 0:
        why = "not to be told from what the board draws at rest"
    return Energy(
        rounds_mj=tuple(rounds_mj),
        watts=plain.mean(known) / 1000,
        rest_watts=idle_mw / 1000,
        inferences=sum(map(len, visits)),
        meter="INA3221 of the board",
        why_not=why,
    )


def _slowed(watched: Sequence[Mapping[str, Any]], facts: BoardFacts, machine: Mapping[str, Any]) -> list[Caveat]:
    """Clocks that were held and fell all the same, as they do from heat or want of power."""
    if not (machine.get("jetson") or {}).get("clocks_held"):
        return []
    limit = _highest(facts.clocks.get("gpu"))
    seen = [clock for one in watched if (clock := _number(_mapping(one.get("slowest_mhz")).get("gpu"))) is not None]
    if limit is None or not seen or min(seen) >= CLOCK_SHARE * limit:
        return []
    heat = [value for one in watched for value in map(_number, _mapping(one.get("hottest_c")).values()) if value]
    at = f" at {max(heat):.0f} °C" if heat else ""
    return [
        Caveat(
            kind="throttling",
            sentence=f"The GPU's clock fell to {min(seen):.0f} MHz of {limit:.0f} MHz{at} though it was held",
            advice="cool the board or give it more power, and measure again",
        )
    ]


def _drop(timed: Sequence[Mapping[str, Any]]) -> float | None:
    drops = []
    for one in timed:
        before, least = _number(one.get("available_before_mb")), _number(one.get("least_available_mb"))
        if before is not None and least is not None:
            drops.append(before - least)
    return max(drops) if drops else None


def _build_failure(build: Mapping[str, Any], said: log.Log) -> str:
    return _sentence("its engine could not be built", str(build.get("why") or "no result came back"), said)


def _sentence(what: str, why: str, said: log.Log) -> str:
    """What failed, what the tool said last, and what helps."""
    parts = [f"{what} ({why[:200]})", *said.errors[-1:]]
    return ": ".join(parts)[:600] + "".join(f". {text[0].upper()}{text[1:]}" for text in advice.advise(said.errors))


def _first_output(text: str) -> NDArray[np.float32]:
    """`--exportOutput` of one sample: a list of tensors, each with its dimensions and values."""
    try:
        first = _mapping(_list(json.loads(text))[0])
        shape = tuple(int(size) for size in str(first["dimensions"]).split("x"))
        values = np.array(_numbers(first["values"]), dtype=np.float32)
        return values.reshape(shape)
    except (ValueError, KeyError, IndexError, RecursionError) as error:
        raise DeviceError(f"an answer of the engine is damaged ({type(error).__name__}: {error})") from None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _numbers(value: object) -> list[float]:
    found = [_number(one) for one in _list(value)]
    if any(one is None for one in found):
        raise DeviceError("a figure of the board is no number")
    return [one for one in found if one is not None]
