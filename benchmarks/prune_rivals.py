"""Pruning to one measured time in several ways, and what each way costs: for benchmarks/prune_to_latency.py."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
import yaml
from torch import nn

from edgepress.pipeline import recipe
from edgepress.pipeline.plan import make
from edgepress.pipeline.run import Runner
from edgepress.pipeline.start import open_start
from edgepress.pipeline.store import STORE, Store
from edgepress.pipeline.teachers import fingerprint
from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.crew import Crew
from edgepress.stages.evaluation import quality
from edgepress.stages.progress import Quiet
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import loss_of, remove_channels
from edgepress.stages.slimming import setup as pruning
from edgepress.stages.slimming.by_share import by_share
from edgepress.stages.slimming.costs import Corrected, layers_of
from edgepress.stages.slimming.cutting import slim
from edgepress.stages.teaching import teach
from edgepress.stages.tracking import Untracked
from edgepress.targets import profiles

EXAMPLES = Path(__file__).parent.parent / "examples"
RATIOS = tuple(step / 20 for step in range(1, 19))
SAME = 1.02  # times the share that edgepress reached: what a rival may take
METHODS = ("edgepress", "without blocks", "macs", "global", "uniform")


def profile_file(runtime: str, folder: Path) -> Path:
    """The shipped profile of this CPU in float32 alone: bfloat16 by itself would meet half of the targets."""
    facts = profiles.load(f"{runtime}-cpu").model_dump(mode="json", exclude_none=True)
    path = folder / f"{runtime}.yaml"
    path.write_text(yaml.safe_dump({**facts, "name": runtime, "precisions": ["fp32", "int8"]}), encoding="utf-8")
    return path


class Silent:
    def stage(self, name: str) -> Quiet:
        return Quiet()

    def done(self, name: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Place:
    """A network with its data on one target, ready to be pruned in any way."""

    setup: pruning.Setup
    context: Context
    settings: Prune
    original: Artifact


def cifar_net(name: str, options: Any) -> dict[str, str]:
    """What a recipe says of a trained ResNet and its data."""
    weights = options.weights / f"resnet{name.removeprefix('resnet')}-cifar10jpeg.safetensors"
    return {
        "model": f"{EXAMPLES / 'my_model.py'}:{name}", "model.weights": str(weights), "data": options.data,
        "data.mean": "[0.485, 0.456, 0.406]", "data.std": "[0.229, 0.224, 0.225]", "data.augment": "[flip, crop]",
        "prune": f"{{epochs: {options.epochs}, lr: 0.02, optimizer: sgd, at: 0}}",
    }  # fmt: skip


def place_for(given: Mapping[str, str], runtime: str, options: Any, folder: Path, *, seed: int, percent: int) -> Place:
    """given: what a recipe says of the network, its data and its recovery."""
    pairs = {
        **given, "data.limit": str(options.images), "target": str(profile_file(runtime, folder)),
        "budget.speedup": str(100 / percent), "seed": str(seed), "stages": "[prune, export, profile]",
        "training_precision": options.precision,
    }  # fmt: skip
    plan = make(recipe.load(None, origin="benchmark", options=list(pairs.items())))
    start = open_start(plan, cache=folder / "cache", progress=Quiet())
    runner = Runner(start=start, store=Store(folder / STORE), reporter=Silent(), crew=Crew(device=torch.device("cpu")),
                    mlflow=False)  # fmt: skip
    entry = plan.stages[0]
    work = folder / "work"
    work.mkdir(exist_ok=True)
    context = replace(runner.context(entry, work=work, progress=Quiet(), tracker=Untracked()), tables=folder / "tables")
    settings: Prune = entry.stage  # type: ignore[assignment]
    module = start.original.module
    setup = pruning.prepare(
        settings, module, start.original.contract.preprocessing.example(1), context, {"speedup": 100 / percent}
    )
    return Place(setup=setup, context=context, settings=settings, original=start.original)


def share_of(place: Place, module: nn.Module) -> float:
    assert place.setup.bench is not None
    seen = place.setup.bench.measure({"candidate": (module, place.setup.form)}, seconds=2.5)
    return seen["candidate"].share


def by_search(place: Place, *, counted: bool = False) -> tuple[nn.Module, float, float]:
    """edgepress itself; counted: with multiply-accumulates instead of tables, corrected by measurements likewise."""
    setup = place.setup
    importance = pruning.score(place.settings, setup, loss_of(place.context.data.task))
    costs = pruning.costs_of(setup)
    if counted:
        costs["time"] = Corrected(cost=setup.counted("macs"), start=setup.whole.share)
    with contextlib.suppress(FileNotFoundError):
        (place.context.work / "trials.json").unlink()
    chosen = pruning.run(setup, importance, costs).chosen
    kept = pruning.kept_channels(setup.groups_now, importance, chosen.widths)
    return slim(setup.now, setup.groups_now.found.values(), kept), chosen.seen.share, float(chosen.is_met)


def by_ratio(
    place: Place, most: float, prune_by: Callable[[float, int], nn.Module | None]
) -> tuple[nn.Module, float, float]:
    """The network that keeps the most multiply-accumulates of those measured to take no more than `most`.

    Of all ratios, with channels in the profile's multiples and freely. met: 0 where none is fast enough; then the
    fastest.
    """
    candidates: dict[tuple[int, ...], tuple[float, nn.Module]] = {}
    for multiple in (place.context.profile.channel_multiple, 1):
        for ratio in RATIOS:
            try:
                module = prune_by(ratio, multiple)
            except Exception as error:  # a rival may break a network in any way, and then has no such ratio
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                print(f"ratio {ratio:.2f}, by {multiple}: {reason}", file=sys.stderr)
                continue
            if module is not None:
                macs, _ = tp.utils.count_ops_and_params(module, place.setup.example)
                shape = tuple(size for parameter in module.parameters() for size in parameter.shape)
                candidates[shape] = macs, module
    fastest: tuple[nn.Module, float] | None = None
    for _, module in sorted(candidates.values(), key=lambda one: -one[0]):
        share = share_of(place, module)
        if share <= most:
            return module, share, 1.0
        if fastest is None or share < fastest[1]:
            fastest = module, share
    assert fastest is not None, "some ratio removes something"
    return *fastest, 0.0


def ranked(place: Place, ratio: float, multiple: int) -> nn.Module:
    """torch-pruning's global ranking by magnitude."""
    settings = replace(place.settings, ratio=ratio, importance="magnitude")
    return remove_channels(place.setup.module, place.setup.example, settings, multiple=multiple)[0]


def uniform(place: Place, ratio: float, multiple: int) -> nn.Module | None:
    """Every group keeps the same share of its best channels, by magnitude."""
    profile = place.context.profile.model_copy(update={"channel_multiple": multiple})
    settings, context = replace(place.settings, importance="magnitude"), replace(place.context, profile=profile)
    return by_share(settings, place.setup.module, place.setup.example, context, loss_of(context.data.task), ratio=ratio)


def accuracy(
    method: str, name: str, runtime: str, options: Any, folder: Path, *, seed: int, percent: int, most: float | None
) -> dict[str, float]:
    """One method on one network: the measured share of the float latency, and the accuracy before and after recovery.

    most: the share that a method with one ratio may take.
    """
    place = place_for(cifar_net(name, options), runtime, options, folder, seed=seed, percent=percent)
    data = place.context.data
    made: Mapping[str, Callable[[], tuple[nn.Module, float, float]]] = {
        "edgepress": lambda: by_search(place),
        "without blocks": lambda: by_search(place_for_channels(place)),
        "macs": lambda: by_search(place, counted=True),
        "global": lambda: by_ratio(place, most or 0.0, functools.partial(ranked, place)),
        "uniform": lambda: by_ratio(place, most or 0.0, functools.partial(uniform, place)),
    }
    module, share, met = made[method]()
    found = {"share": share, "met": met, "pruned": quality(module, data.test, data)}
    if options.epochs:
        row = f"{name} {runtime} {percent} {seed} {method} {fingerprint(module)}".replace(" ", "-")
        work = folder / "work" / row  # of this very network: another search may end at another one
        work.mkdir(parents=True, exist_ok=True)
        teacher = place.original.module
        around = replace(place.context, work=work)
        teach(module, place.settings, around, teacher=teacher, known={"model": teacher, "float": teacher})
    return {**found, "recovered": quality(module, data.test, data),
            "teacher": quality(place.original.module, data.test, data)}  # fmt: skip


def place_for_channels(place: Place) -> Place:
    """The same place, where blocks must stay."""
    settings = replace(place.settings, blocks=False)
    setup = place.setup
    groups = pruning.groups_of(settings, setup.module, setup.example, place.context)
    layers = layers_of(setup.module, groups, setup.example)
    return replace(place, settings=settings, setup=replace(setup, groups=groups, layers=layers))
