"""How well the time of a whole network follows from parts of it: for benchmarks/prune_to_latency.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from prune_rivals import Silent, profile_file
from torch import nn

from edgepress.pipeline import recipe
from edgepress.pipeline.plan import make
from edgepress.pipeline.run import Runner
from edgepress.pipeline.start import open_start
from edgepress.pipeline.store import STORE, Store
from edgepress.stages.artifact import Context
from edgepress.stages.crew import Crew
from edgepress.stages.data import open_memory
from edgepress.stages.progress import Quiet
from edgepress.stages.prune import Prune
from edgepress.stages.slimming import setup as pruning
from edgepress.stages.slimming.bench import Bench
from edgepress.stages.slimming.costs import macs_by_layer
from edgepress.stages.slimming.cutting import first_channels, slim
from edgepress.stages.slimming.forms import FLOAT, forms
from edgepress.stages.tracking import Untracked

NETWORKS = 6  # random ones, for each network and runtime


def tables_once(
    build: Callable[[], nn.Module], shape: tuple[int, ...], runtime: str, folder: Path, *, seed: int
) -> dict[str, float]:
    """Errors, in per cent, of what the tables and what the sum of layers alone say of random networks."""
    draw = torch.zeros(8, *shape, dtype=torch.uint8), torch.arange(8) % 4
    splits = {"train": draw, "test": draw}
    options = [("model", "python:net"), ("data", "python:memory"), ("target", str(profile_file(runtime, folder))),
               ("budget.speedup", "2"), ("stages", "[prune, export, profile]")]  # fmt: skip
    plan = make(recipe.load(None, origin="benchmark", options=options))
    data = open_memory(splits, plan.recipe.data, seed=0, given_weights=True, cache=folder / "cache", task=None)
    module = build()
    start = open_start(plan, cache=folder / "cache", progress=Quiet(), builders={"model": build}, data=data)
    runner = Runner(start=start, store=Store(folder / STORE), reporter=Silent(), crew=Crew(device=torch.device("cpu")),
                    mlflow=False)  # fmt: skip
    context = replace(runner.context(plan.stages[0], work=folder, progress=Quiet(), tracker=Untracked()),
                      tables=folder / "tables")  # fmt: skip
    settings: Prune = plan.stages[0].stage  # type: ignore[assignment]
    example = start.original.contract.preprocessing.example(1)
    setup = pruning.prepare(settings, module, example, context, {"speedup": 2.0})
    cost = pruning.costs_of(setup)["time"]
    assert setup.bench is not None
    rng = random.Random(seed)
    drawn = [
        {name: rng.choice((group.width, *group.widths)) for name, group in setup.groups.found.items()}
        for _ in range(NETWORKS)
    ]
    small = [slim(module, setup.groups.found.values(), first_channels(setup.groups, widths)) for widths in drawn]
    seen = setup.bench.measure(
        {f"net {place}": (one, setup.form) for place, one in enumerate(small)}, seconds=0.7 * (NETWORKS + 1)
    )
    whole = alone(module, example, setup, context)
    by_table = [100 * (cost.value(widths) / seen[f"net {place}"].share - 1) for place, widths in enumerate(drawn)]
    by_layer = [
        100 * (alone(one, example, setup, context) / whole / seen[f"net {place}"].share - 1)
        for place, one in enumerate(small)
    ]
    by_macs = [
        100 * (sum(macs_by_layer(one, example).values()) / sum(macs_by_layer(module, example).values())
               / seen[f"net {place}"].share - 1)
        for place, one in enumerate(small)
    ]  # fmt: skip

    def rms(values: list[float]) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    return {"tables": rms(by_table), "layers alone": rms(by_layer), "macs": rms(by_macs), "networks": float(NETWORKS)}


def alone(module: nn.Module, example: torch.Tensor, setup: pruning.Setup, context: Context) -> float:
    """Milliseconds of every convolution and linear layer, each exported and timed by itself, added up."""
    inputs: dict[str, torch.Tensor] = {}
    kinds = (nn.Conv2d, nn.Linear)
    handles = [
        part.register_forward_hook(lambda _part, given, _out, name=name: inputs.setdefault(name, given[0]))
        for name, part in module.named_modules() if isinstance(part, kinds)
    ]  # fmt: skip
    with torch.no_grad():
        module.eval()(example)
    for handle in handles:
        handle.remove()
    parts = dict(module.named_modules())
    kinds_seen: dict[str, list[str]] = {}
    for name, given in inputs.items():
        kinds_seen.setdefault(f"{parts[name]} {tuple(given.shape)}", []).append(name)
    total = 0.0
    assert setup.bench is not None
    for names in kinds_seen.values():
        layer, given = parts[names[0]], inputs[names[0]]
        sample = np.ascontiguousarray(given.detach().numpy())
        prober = replace(setup.bench.prober, sample=sample)  # type: ignore[type-var]
        form = forms(context, given)[FLOAT]
        bench = Bench(prober=prober, baseline=nn.Sequential(layer, nn.ReLU()).eval(), plain=form)
        total += len(names) * bench.measure({}, seconds=0.3)["baseline"].ms
    return total
