"""What a log of trtexec says, by key: versions add lines, percentiles and units, and none of them may shift the rest.

The formats are those of trtexec 8.2 to 11.1 (sampleReporting.cpp and sampleOptions.cpp of each release).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

MOST_BYTES = 64 * 2**20  # a verbose build of a large network has some megabytes
STAMP = re.compile(r"^\[(\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d)\] \[([IWEVF])\] ?(.*)$")
MARK = re.compile(
    r"^&&&& (RUNNING|PASSED|FAILED|SKIPPED|WAIVED) TensorRT\.trtexec \[TensorRT v(\d+)\](?: \[(b\d+)\])?(?: # (.*))?$"
)
SUMMARY = (
    "Latency",
    "End-to-End Host Latency",  # 8.2 only
    "Enqueue Time",
    "H2D Latency",
    "GPU Compute Time",
    "D2H Latency",
)
PAIR = re.compile(r"(min|max|mean|median|percentile\(([\d.]+)%\)) = (-?[\d.]+(?:e[+-]?\d+)?|nan|inf) ms")
FACTS = {
    "device": re.compile(r"Selected Device: (.+)"),
    "compute_capability": re.compile(r"Compute Capability: (\d+\.\d+)"),
    "multiprocessors": re.compile(r"SMs: (\d+)"),
    "clock_ghz": re.compile(r"(?:Application )?Compute Clock Rate: ([\d.]+) GHz"),
    "memory_mb": re.compile(r"Device Global Memory: (\d+) MiB"),
    "version": re.compile(r"TensorRT version: (\d+(?:\.\d+)+)"),
    "built_s": re.compile(r"Engine built in ([\d.]+) sec"),
    "engine_mb": re.compile(r"Created engine with size: ([\d.]+) MiB"),
    "context_mb": re.compile(r"Created execution context with device memory size: ([\d.]+) MiB"),
    "throughput_per_s": re.compile(r"Throughput: ([\d.]+) qps"),
    "walltime_s": re.compile(r"Total Host Walltime: ([\d.]+) s"),
    "activation_bytes": re.compile(r"\[TRT\] Total Activation Memory: (\d+)"),
    "weight_bytes": re.compile(r"\[TRT\] Total Weights Memory: (\d+)"),
    "persistent_bytes": re.compile(r"\[TRT\] Total Device Persistent Memory: (\d+)"),
    "scratch_bytes": re.compile(r"\[TRT\] (?:Total|Max) Scratch Memory: (\d+)"),
}
WORDS = ("device", "compute_capability", "version")

State = Literal["passed", "failed", "running", "other"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One line of the summary, in milliseconds. percentiles: by their number, 99.0 for p99."""

    minimum: float
    maximum: float
    mean: float
    median: float
    percentiles: dict[float, float]


@dataclass(frozen=True, kw_only=True)
class Log:
    """Everything that one run of the tool told; None, or nothing, where it did not.

    version: as printed, else from the version code of the first line. state: how it ended; "running": it did not.
    summary: by the tool's own names, such as "GPU Compute Time". warnings, errors: messages without time stamp, once
    each.
    """

    state: State
    command: str | None = None
    version: str | None = None
    build: str | None = None
    facts: dict[str, float | str] = field(default_factory=dict)
    summary: dict[str, Spread] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    is_truncated: bool = False


def read(text: str) -> Log:
    """Parse a log, whole or cut off. Whatever the text is, the answer is a Log."""
    is_truncated = len(text) > MOST_BYTES
    state: State = "running"
    command = code = build = None
    facts: dict[str, float | str] = {}
    summary: dict[str, Spread] = {}
    told: dict[str, dict[str, None]] = {"W": {}, "E": {}}
    for line in text[:MOST_BYTES].splitlines():
        mark = MARK.match(line)
        if mark:
            state = _state(mark[1])
            code, build, command = mark[2], mark[3], mark[4]
            continue
        stamped = STAMP.match(line)
        if stamped is None:
            continue
        level, message = stamped[2], stamped[3]
        if level in told or level == "F":
            told["E" if level == "F" else level].setdefault(message.strip())
        _note_fact(message, facts)
        _note_summary(message, summary)
    known = facts.pop("version", None)
    return Log(
        state=state,
        command=command,
        version=str(known) if known else version_of(code),
        build=build,
        facts=facts,
        summary=summary,
        warnings=tuple(told["W"]),
        errors=tuple(told["E"]),
        is_truncated=is_truncated,
    )


def version_of(code: str | None) -> str | None:
    """`8.2.5` of v8205 and `10.16.1` of v101601: the width of the major number changed with release 10."""
    if code is None or not 4 <= len(code) <= 7:
        return None
    number = int(code)
    if number >= 100_000:
        return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def _state(word: str) -> State:
    states: dict[str, State] = {"PASSED": "passed", "FAILED": "failed", "RUNNING": "running"}
    return states.get(word, "other")


def _note_fact(message: str, facts: dict[str, float | str]) -> None:
    for name, pattern in FACTS.items():
        found = pattern.match(message)
        if found:
            facts[name] = found[1].strip() if name in WORDS else float(found[1])


def _note_summary(message: str, summary: dict[str, Spread]) -> None:
    name, colon, rest = message.partition(": ")
    if not colon or name not in SUMMARY:
        return
    values: dict[str, float] = {}
    percentiles: dict[float, float] = {}
    for key, percentile, value in PAIR.findall(rest):
        if percentile:
            percentiles[float(percentile)] = float(value)
        else:
            values[key] = float(value)
    if {"min", "max", "mean", "median"} <= values.keys():
        summary[name] = Spread(
            minimum=values["min"],
            maximum=values["max"],
            mean=values["mean"],
            median=values["median"],
            percentiles=percentiles,
        )
