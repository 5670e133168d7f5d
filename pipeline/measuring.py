"""`compress profile`: measure ONNX files that exist, in turn, in a target's runtime."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..stages.progress import Progress
from ..targets import model_input, profiles
from ..targets.durations import seconds
from ..targets.errors import RecipeError, RuntimeMissingError
from ..targets.facts import energy_facts, latency_facts, throughputs
from ..targets.measure import Engine, Measurement, measure
from ..targets.profiles import Profile
from ..targets.remote.address import Address
from ..targets.remote.fitting import adapted
from ..targets.remote.measuring import measure_on, meet
from ..targets.runtimes import target
from ..targets.sessions import Array
from ..targets.statistics import ratio
from ..targets.sustained import sentence
from .job import INTERRUPTED
from .progress import ConsoleReporter, result_console

STAGE_FAILED = 5


def main(options: argparse.Namespace) -> int:
    """Measure the files that the options name, and print a table or JSON; returns the exit code."""
    profile = profiles.load(options.target)
    if options.device:
        profile = profile.model_copy(update={"device": str(Address.parse(options.device))})
    reason = None if profile.is_remote else target(profile.measures_with).unavailable()
    if reason:
        raise RuntimeMissingError(f"target {profile.name}: {reason}")
    paths = [Path(name) for name in options.models]
    inputs = {path: model_input.read(path) for path in paths}
    if len(set(inputs.values())) > 1:
        words = ", ".join(f"{path.name} {entry.words()}" for path, entry in inputs.items())
        raise RecipeError(f"files that are compared must take the same input: {words}")
    engines = [
        Engine(
            name=path.stem if len({p.stem for p in paths}) == len(paths) else str(path),
            path=path,
            runtime=profile.measures_with,
            precision="int8" if is_quantized(path) else "fp32",
            threads=profile.threads,
        )
        for path in paths
    ]
    if not profile.is_remote and (options.lock_clocks or options.power_mode is not None):
        raise RecipeError("--lock-clocks and --power-mode are of a board: name it with --device, or leave them out")
    reporter = ConsoleReporter(Console(stderr=True), quiet=options.quiet)
    with reporter.showing():
        progress = reporter.stage("profile")
        if profile.is_remote:
            found = on_board(engines, inputs[paths[0]].random(), profile, options, progress)
        else:
            found = measure(
                engines,
                inputs={"random": inputs[paths[0]].random()},
                seconds=options.seconds,
                environment=profile.environment,
                batch=profile.batch,
                sustained_seconds=seconds(options.sustained) if options.sustained else 0.0,
                progress=lambda text, share: progress.update(share, text),
            )
    facts = result(engines, found, profile.where)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts, profile.board, device=profile.device if profile.is_remote else None)
    if found.incomplete:
        return INTERRUPTED
    failed = [name for name, entry in facts["models"].items() if entry["failed"]]
    return STAGE_FAILED if failed else 0


def on_board(
    engines: list[Engine], samples: Array, profile: Profile, options: argparse.Namespace, progress: Progress
) -> Measurement:
    """The same over ssh."""
    if options.sustained:
        raise RecipeError("--sustained: boards are not timed for long yet; leave it out, or run it on the board itself")
    address = Address.parse(profile.device)
    python, locks = options.device_python or "python3", options.lock_clocks
    board = meet(address, profile, python=python, lock_clocks=locks, power_mode=options.power_mode)
    return measure_on(
        board,
        engines,
        profile=adapted(profile, board.facts),
        inputs={"random": samples},
        seconds=options.seconds,
        lock_clocks=locks,
        progress=lambda text, share: progress.update(share, text),
    )


def is_quantized(path: Path) -> bool:
    """Whether the file has quantise or dequantise nodes."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in nodes)


def result(engines: list[Engine], found: Measurement, where: str) -> dict[str, Any]:
    """The figures as plain data, the first model being the baseline of the ratios."""
    first = found.figures[engines[0].name].latency
    models = {}
    for engine in engines:
        figures = found.figures[engine.name]
        entry: dict[str, Any] = {
            "precision": engine.precision,
            "failed": figures.failed,
            "size_bytes": engine.path.stat().st_size,
            "latency_ms": latency_facts(figures.latency),
            "all_cores_ms": latency_facts(figures.all_cores),
            "throughput": throughputs(figures, batch=found.batch),
            "memory_mb": figures.memory_mb,
            "cold_start_ms": figures.cold_start_ms,
            "energy": energy_facts(figures.energy),
            "int8": figures.int8,
        }
        if first is not None and figures.latency is not None and engine is not engines[0]:
            speedup = ratio(first, figures.latency)
            entry["speedup"] = {"value": speedup.value, "ci95": [speedup.low, speedup.high]}
        models[engine.name] = entry
    return {
        "where": where,
        "runtime": engines[0].runtime,
        "models": models,
        "sustained": found.sustained,
        "not_measured": found.not_measured,
        "unreliable": found.unreliable,
        "incomplete": found.incomplete,
        "caveats": [
            {**{name: getattr(caveat, name) for name in ("kind", "sentence", "advice", "about")}, "text": str(caveat)}
            for caveat in found.caveats
        ],
        "machine": found.machine,
        "versions": found.versions,
    }


def show(facts: dict[str, Any], board: str, *, device: str | None = None) -> None:
    """Print the figures as a table. device: the board's address; None: this machine."""
    here = "measured on this device" if facts["where"] == "device" else f"stand-in, not {board}"
    place = f"{device} (measured on the device)" if device else f"this machine ({here})"
    console = result_console()
    table = Table(title=f"{facts['runtime']} on {place}", title_justify="left")
    for column in (
        "model",
        "precision",
        "median ms",
        "p90",
        "p99",
        "times faster",
        "all cores",
        "per second",
        "start ms",
        "MiB",
        "INT8",
    ):
        table.add_column(column, justify="left" if column in ("model", "precision") else "right")
    for name, entry in facts["models"].items():
        latency, cores, speedup = entry["latency_ms"], entry["all_cores_ms"], entry.get("speedup")
        half = (latency["ci95"][1] - latency["ci95"][0]) / 2 if latency else 0.0
        table.add_row(
            name,
            entry["precision"],
            f"{latency['median']:.3f} ±{half:.3f}" if latency else "not measured",
            f"{latency['p90']:.3f}" if latency else "",
            f"{latency['p99']:.3f}" if latency else "",
            f"{speedup['value']:.2f} ({speedup['ci95'][0]:.2f} to {speedup['ci95'][1]:.2f})" if speedup else "",
            f"{cores['median']:.3f}" if cores else "not measured",
            "\n".join(_per_second(one) for one in entry["throughput"]),
            _start(entry["cold_start_ms"]),
            f"{entry['memory_mb']['peak']:.0f}" if entry["memory_mb"] else "not measured",
            f"{entry['int8']['int8_layers']} of {entry['int8']['weighted_layers']}" if entry["int8"] else "",
        )
    console.print(table)
    for line in _lines(facts):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, entry in facts["models"].items():
        if entry["failed"]:
            console.print(f"{name}: {entry['failed']}", markup=False, highlight=False)
    for caveat in facts["caveats"]:
        console.print(f"note: {caveat['text']}", markup=False, highlight=False)


def _per_second(throughput: dict[str, Any]) -> str:
    batch = f" (batch {throughput['batch']})" if throughput["batch"] > 1 else ""
    return f"{throughput['per_second']:.0f}{batch}"


def _start(cold_start_ms: dict[str, float] | None) -> str:
    """Load and first answer."""
    if cold_start_ms is None:
        return "not measured"
    return f"{cold_start_ms['load_ms'] + cold_start_ms['first_ms']:.0f}"


def _lines(facts: dict[str, Any]) -> list[str]:
    """What stands under the table."""
    lines = [f"{what}: not measured, {why}" for what, why in facts["not_measured"].items()]
    lines += [
        f"{name}: {entry['energy']['per_inference_mj']:.3g} mJ for each inference ({entry['energy']['meter']})"
        for name, entry in facts["models"].items()
        if entry["energy"]
    ]
    if facts["sustained"]:
        lines.append(f"sustained: {sentence(facts['sustained'])}")
    if facts["unreliable"]:
        lines.append(f"unreliable, no claim can be made: {facts['unreliable']}")
    if facts["incomplete"]:
        lines.append(f"incomplete: {facts['incomplete']}")
    return lines
