"""`compress profile`: measure ONNX files that exist, in turn, in a target's runtime."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ..targets import profiles
from ..targets.errors import RecipeError, RuntimeMissingError
from ..targets.facts import latency_facts
from ..targets.measure import Engine, Measurement, measure
from ..targets.runtimes import target
from ..targets.statistics import ratio
from .progress import ConsoleReporter, result_console

SAMPLES = 4  # inputs of random numbers: no accuracy is measured, and latency does not depend on the image
INPUT_SEED = 0


def main(options: argparse.Namespace) -> int:
    """Measure the files that the options name, and print a table or JSON; returns the exit code."""
    profile = profiles.load(options.target)
    reason = target(profile.measures_with).unavailable()
    if reason:
        raise RuntimeMissingError(f"target {profile.name}: {reason}")
    paths = [Path(name) for name in options.models]
    shapes = {path: input_shape(path) for path in paths}
    if len(set(shapes.values())) > 1:
        words = ", ".join(f"{path.name} {'x'.join(map(str, shape))}" for path, shape in shapes.items())
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
    reporter = ConsoleReporter(Console(stderr=True), quiet=options.quiet)
    with reporter.showing():
        progress = reporter.stage("profile")
        found = measure(
            engines,
            inputs={"random": random_images(shapes[paths[0]])},
            seconds=options.seconds,
            environment=profile.environment,
            progress=lambda text, share: progress.update(share, text),
        )
    facts = result(engines, found, profile.where)
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        show(facts, profile.board)
    failed = [name for name, entry in facts["models"].items() if entry["failed"]]
    return 5 if failed else 0


def input_shape(path: Path) -> tuple[int, ...]:
    """Shape of the one input of an ONNX file, with a batch of 1. RecipeError: no such file, or another input."""
    import onnx

    if not path.is_file():
        raise RecipeError(f"no file {path}")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's errors have no common base that is public
        raise RecipeError(f"{path} is not an ONNX file: {error}") from None
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    if len(inputs) != 1:
        raise RecipeError(f"{path} has {len(inputs)} inputs; one is supported")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise RecipeError(f"{path}: the input is not float32; export it with float32 inputs")
    sizes = [dimension.dim_value for dimension in kind.shape.dim]
    if any(size <= 0 for size in sizes[1:]):
        raise RecipeError(f"{path}: the input's shape is open beyond the batch; export it with fixed sizes")
    return (1, *sizes[1:])


def is_quantized(path: Path) -> bool:
    """Whether the file has quantise or dequantise nodes."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv") for node in nodes)


def random_images(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal numbers: zeros would be faster than real images on some CPUs."""
    generator = np.random.default_rng(INPUT_SEED)
    return generator.standard_normal((SAMPLES, *shape[1:])).astype(np.float32)


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
            "memory_mb": figures.memory_mb,
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
        "caveats": found.caveats,
        "machine": found.machine,
        "versions": found.versions,
    }


def show(facts: dict[str, Any], board: str) -> None:
    """Print the figures as a table."""
    here = "measured on this device" if facts["where"] == "device" else f"stand-in, not {board}"
    console = result_console()
    table = Table(title=f"{facts['runtime']} on this machine ({here})", title_justify="left")
    for column in (
        "model",
        "precision",
        "median ms",
        "p90",
        "p99",
        "times faster",
        "all cores ms",
        "peak MiB",
        "INT8 layers",
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
            f"{entry['memory_mb']['peak']:.0f}" if entry["memory_mb"] else "not measured",
            f"{entry['int8']['int8_layers']} of {entry['int8']['weighted_layers']}" if entry["int8"] else "",
        )
    console.print(table)
    for name, entry in facts["models"].items():
        if entry["failed"]:
            console.print(f"{name}: {entry['failed']}", markup=False, highlight=False)
    for caveat in facts["caveats"]:
        console.print(f"note: {caveat}", markup=False, highlight=False)
