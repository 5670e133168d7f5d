"""Measure exported models in the runtime that will run them: latency in turn, answers, memory, energy.

result = measure([Engine(name="fp32", path=Path("model.onnx"), runtime="onnxruntime", precision="fp32")],
                 inputs={"test": images}, timeout_seconds=120)
result.figures["fp32"].latency.median_ms
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from . import machine, phases
from .caveats import caveats
from .errors import RecipeError
from .figures import Figures, Measurement
from .jobs import SAMPLE, Engine
from .phases import Progress, Run
from .reliability import unreliable
from .runtimes import target
from .sessions import Array, input_type

__all__ = ["Engine", "Figures", "Measurement", "measure"]

Phase = Callable[[Run, Sequence[Engine]], None]
BETWEEN = "stopped between two measurements"


def measure(
    engines: Sequence[Engine],
    *,
    inputs: Mapping[str, Array],
    seconds: float = 10.0,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 300.0,
    all_cores: bool = True,
    memory: bool = True,
    energy: bool = True,
    batch: int = 1,
    sustained_seconds: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measurement:
    """Compare engines on this machine, in fresh processes that die with this one.

    inputs: images, or numbers of tokens, as the model takes them, (n, ...), by split; the first sample of the
    first split is what is timed. seconds: of timing on pinned CPUs, warm-up not counted. environment: added to the
    processes' own.
    timeout_seconds: how long an engine may stay silent before it counts as hanging. energy: measure it where
    there is a counter. batch: above 1, whole batches are timed too. sustained_seconds: above 0, also time them
    for so long. progress: told a few words and a share, 0 to 1.

    An engine that fails, crashes, hangs, or answers with NaN or in another shape does not cost the others
    their figures: its own `failed` says why. Ctrl-C ends the measurement; what was measured is returned and
    marked incomplete, unless there is nothing: then it is KeyboardInterrupt.
    """
    _check(engines, inputs)
    here = machine.describe()
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        run = Run(
            folder=Path(folder),
            inputs=inputs,
            seconds=seconds,
            seed=seed,
            environment=environment or {},
            timeout_seconds=timeout_seconds,
            progress=progress or (lambda text, share: None),
            figures={engine.name: Figures() for engine in engines},
            batch=batch,
            sustained_seconds=sustained_seconds,
        )
        _write_inputs(run)
        parts: list[tuple[Phase, float]] = [(phases.pinned, 3 + 1.5 * seconds)]
        if all_cores and here["usable_cores"] > 1:
            parts.append((phases.all_cores, 2 + 0.6 * seconds))
        if batch > 1:
            parts.append((phases.batches, 2 + 0.6 * seconds))
        if memory:
            parts.append((phases.memory, 1.5 * len(engines)))
        if energy:
            parts.append((phases.energies, 0.1))
        if sustained_seconds:
            parts.append((phases.sustained, sustained_seconds))
        _do_all(run, engines, parts)
    return _result(run, engines, here | {"pinned_cpus": run.pinned_cpus, "during": run.during})


def _do_all(run: Run, engines: Sequence[Engine], parts: Sequence[tuple[Phase, float]]) -> None:
    """parts: what to measure, each with about how many seconds it takes."""
    whole, before = sum(seconds for _, seconds in parts), 0.0
    try:
        for phase, seconds in parts:
            left = run.alive(engines)
            if run.incomplete is None and left:
                run.span = before / whole, (before + seconds) / whole
                phase(run, left)
            before += seconds
    except KeyboardInterrupt:
        run.incomplete = BETWEEN
    if run.incomplete and not any(figures.latency for figures in run.figures.values()):
        raise KeyboardInterrupt


def _result(run: Run, engines: Sequence[Engine], here: dict[str, object]) -> Measurement:
    timed = {name: figures.latency for name, figures in run.figures.items() if figures.latency}
    return Measurement(
        figures=run.figures,
        machine=here,
        caveats=[*run.caveats, *caveats(timed, here)],
        versions={engine.runtime: target(engine.runtime).version() for engine in engines},
        batch=run.batch,
        sustained=run.sustained,
        not_measured=run.not_measured,
        unreliable=unreliable(timed),
        incomplete=run.incomplete,
    )


def _check(engines: Sequence[Engine], inputs: Mapping[str, Array]) -> None:
    names = [engine.name for engine in engines]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"engines need names of their own, and there must be one at least: {names}")
    if not inputs or any(len(images) == 0 for images in inputs.values()):
        raise RecipeError("there is nothing to measure with: every split needs one image at least")
    for engine in engines:
        target(engine.runtime)
        if engine.threads < 1:
            raise RecipeError(f"engine {engine.name}: threads is {engine.threads} and must be 1 or more")


def _write_inputs(run: Run) -> None:
    for index, images in enumerate(run.inputs.values()):
        np.save(run.folder / f"split-{index}.npy", np.asarray(images, dtype=input_type(images)))
    first = next(iter(run.inputs.values()))
    np.save(run.folder / SAMPLE, np.ascontiguousarray(first[:1], dtype=input_type(first)))
