"""One network on one target: what can be pruned, what it costs and how much it matters, measured or counted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...targets.errors import StageError, UnfitError
from ..artifact import Context
from ..data import loader
from ..probing import prober_of
from ..prune import ACCURACY, Prune
from ..structure import Gone
from . import tables
from .allocate import Importance
from .bench import Bench, Form, Seen
from .costs import Corrected, Counted, Given, Layer, Widths, layers_of
from .cutting import Group, Groups, Kept, slim
from .forms import FLOAT, bytes_of, forms
from .goals import MIB, RESOURCES, Resource
from .groups import find_groups
from .importance import Loss, by_batch_norm, by_curvature, by_gradients, by_weights
from .search import Journal, Outcome, search
from .sensitivity import MOST, calibrated

TRIAL_SECONDS = 5.0  # of timing, for a candidate and the baseline together
NOISY_SECONDS = 15.0  # once more, where the interval is wider than WIDE, for its upper end is what counts
WIDE = 0.03  # half of it, as a share
FORM_SECONDS = 3.0  # for each form of the unpruned network
IMAGES, BATCH = 512, 16  # that importance is averaged over: many small batches, since gradients of large ones cancel
BY_TABLE = 0.6  # of the progress


@dataclass(kw_only=True)
class Setup:
    """One network on one target. bench: None where nothing can be measured; then time is counted."""

    module: nn.Module
    example: Tensor
    groups: Groups
    layers: Sequence[Layer]
    form: Form
    whole: Seen
    bench: Bench | None
    context: Context
    goals: dict[str, float]
    forms: dict[str, float] = field(default_factory=dict)
    now: nn.Module = field(init=False)  # as far as it was pruned and recovered in earlier steps
    groups_now: Groups = field(init=False)

    def __post_init__(self) -> None:
        self.now, self.groups_now = self.module, self.groups

    @property
    def narrowed(self) -> dict[str, int]:
        """Widths of all groups as they are now."""
        parts = dict(self.now.named_modules())
        return {name: _width_now(group, self.groups_now, parts) for name, group in self.groups.found.items()}

    def counted(self, what: Any) -> Counted:
        return Counted(layers=self.layers, what=what, full=self.groups.full())


def reachable(goals: Mapping[str, float], context: Context) -> dict[str, float]:
    """Goals that can be told here; the others are noted."""
    if prober_of(context) is not None:
        return dict(goals)
    kept = {name: limit for name, limit in goals.items() if name in ("speedup", "size_mb", ACCURACY)}
    for name in goals.keys() - kept.keys():
        context.note(
            f"{name} cannot be measured on {context.profile.board} from here: pruning does not work towards it"
        )
    return kept


def prepare(
    settings: Prune,
    module: nn.Module,
    example: Tensor,
    context: Context,
    goals: Mapping[str, float],
    *,
    baseline: nn.Module | None = None,
) -> Setup:
    """What can be pruned, and what the unpruned network takes in the form that is shipped.

    baseline: the network as it was given, which times are compared with; none: this one.
    """
    context.progress.update(0.0, "looking for channels that can be removed")
    groups = groups_of(settings, module, example, context)
    if not groups.found:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(groups.refused.items())[:5]) or "it has no layers"
        raise UnfitError(f"no channel can be removed from this network ({why}). Leave the stage out (--set prune=off).")
    made = _writable(forms(context, module, example), module, context)
    prober = prober_of(context)
    layers = layers_of(module, groups, example)
    if prober is None:
        form = made["int8"] if "int8" in made else made[FLOAT]
        whole = _counted_seen(module, form, 1.0)
        return Setup(module=module, example=example, groups=groups, layers=layers, form=form, whole=whole, bench=None,
                     context=context, goals=dict(goals))  # fmt: skip
    bench = Bench(prober=prober, baseline=module if baseline is None else baseline, plain=made[FLOAT])
    seen = bench.measure(
        {name: (module, form) for name, form in made.items()},
        seconds=FORM_SECONDS * len(made),
        memory="memory_mb" in goals,
        told=lambda text, share: context.progress.update(0.05 * share, text),
    )
    faster = [name for name in seen if name in made and seen[name].high < 1]
    best = min(faster, key=lambda name: seen[name].share, default=FLOAT)
    whole = _with_size(seen[best], made[best], module, context)
    return Setup(
        module=module, example=example, groups=groups, layers=layers, form=made[best], whole=whole, bench=bench,
        context=context, goals=dict(goals), forms={name: one.share for name, one in seen.items() if name in made},
    )  # fmt: skip


def _writable(made: Mapping[str, Form], module: nn.Module, context: Context) -> dict[str, Form]:
    """Those forms that this network can be written in; the plain one must be."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        for name, form in made.items():
            try:
                form.write(module, Path(folder) / "trial.onnx")
            except StageError as error:
                if name == FLOAT:
                    raise
                context.note(f"pruning does not look at {name}: {error}")
                continue
            found[name] = form
    return found


def score(settings: Prune, setup: Setup, loss: Loss) -> Importance:
    """How much each channel matters, and what it does to the answers when groups are pruned."""
    context, module, groups = setup.context, setup.now, setup.groups_now
    found = ranked(settings, module, groups, context, loss)
    blocks = {name: np.ones(1) for name, group in groups.found.items() if group.is_block}
    split = context.data.train or context.data.val
    batch = next(iter(loader(split, batch_size=MOST, shuffle=True, seed=context.seed, epoch=0)))[0]
    return calibrated(
        module, groups, replace(found, scores={**found.scores, **blocks}), context.data.preprocessing.normalize(batch),
        macs=sum(layer.macs for layer in setup.layers),
        told=lambda text, share: context.progress.update(0.02 + 0.03 * share, text),
    )  # fmt: skip


def ranked(settings: Prune, module: nn.Module, every: Groups, context: Context, loss: Loss) -> Importance:
    """How much each channel matters among those of its group."""
    groups = {name: group for name, group in every.found.items() if not group.is_block}
    kind = settings.importance
    if kind == "auto":
        kind = "taylor" if context.data.train is not None else "magnitude"
    if kind == "magnitude":
        return by_weights(module, groups)
    if kind == "bn-scale":
        return by_batch_norm(module, groups)
    if context.data.train is None:
        raise StageError(f"prune.importance: {kind} needs training images; use magnitude")
    judge = by_gradients if kind == "taylor" else by_curvature
    return judge(module, groups, _batches(context), loss)


def groups_of(settings: Prune, module: nn.Module, example: Tensor, context: Context) -> Groups:
    multiple = context.profile.channel_multiple
    return find_groups(module, example, multiple=multiple, exclude=settings.exclude, blocks=settings.blocks)


def given(costs: Mapping[Resource, Corrected], setup: Setup) -> dict[Resource, Corrected]:
    """Costs of what is left to decide, where some of it was decided in earlier steps."""
    rest = {name: width for name, width in setup.narrowed.items() if name not in setup.groups_now.found}
    return {
        resource: replace(cost, cost=Given(cost=cost.cost, widths=rest)) if rest else cost
        for resource, cost in costs.items()
    }


def _width_now(group: Group, now: Groups, parts: Mapping[str, Any]) -> int:
    if group.name in now.found:
        return now.found[group.name].width
    if group.is_block:
        return int(not isinstance(parts[group.name], Gone))
    part = parts.get(group.name)  # none: it lies in a block that is gone, and costs nothing
    return int(getattr(part, "out_channels", getattr(part, "out_features", group.width)))


def costs_of(setup: Setup) -> dict[Resource, Corrected]:
    """What widths cost: time by the table of this target, size and memory by parameters."""
    context, whole = setup.context, setup.whole
    parameters = setup.counted("parameters")
    costs: dict[Resource, Corrected] = {"size": Corrected(cost=parameters)}
    if whole.memory_mb:
        share = min(1.0, 2 * whole.size_bytes / MIB / whole.memory_mb)  # runtimes keep weights twice, as a first guess
        costs["memory"] = Corrected(cost=parameters, factor=share)
    if setup.bench is None:
        costs["time"] = Corrected(cost=setup.counted("macs"))
    elif any(RESOURCES.get(goal, "time") == "time" for goal in setup.goals):
        table, path = _table(setup)
        tables.fill_(
            table, path, bench=setup.bench, module=setup.module, groups=setup.groups, form=setup.form,
            note=context.note, told=lambda text, share: context.progress.update(0.05 + BY_TABLE * share, text),
        )  # fmt: skip
        costs["time"] = Corrected(cost=tables.cost_of(table, setup.groups, setup.layers), start=whole.share)
    return costs


def run(setup: Setup, importance: Importance, costs: Mapping[Resource, Corrected]) -> Outcome:
    """The search, each candidate built from the best channels."""
    context = setup.context

    def measure(widths: Widths, *, told: str) -> Seen:
        kept = kept_channels(setup.groups_now, importance, widths)
        small = slim(setup.now, setup.groups_now.found.values(), kept)
        if setup.bench is None:
            macs = given({"time": Corrected(cost=setup.counted("macs"))}, setup)["time"]
            return _counted_seen(small, setup.form, macs.value(widths))
        seen = timed(small, TRIAL_SECONDS, told)
        if seen.half_width > WIDE:
            seen = timed(small, NOISY_SECONDS, told)
        return _with_size(seen, setup.form, small, context)

    def timed(small: nn.Module, seconds: float, told: str) -> Seen:
        assert setup.bench is not None
        found = setup.bench.measure(
            {"candidate": (small, setup.form)}, seconds=seconds, memory="memory_mb" in setup.goals
        )  # fmt: skip
        if "candidate" not in found:
            raise StageError(f"{told}: the pruned network does not run in the target's runtime")
        return found["candidate"]

    start = 0.05 + BY_TABLE
    journal = context.work / "trials.json" if context.work.is_dir() else None
    return search(
        setup.groups_now.found, importance, given(costs, setup), setup.goals, measure=measure, whole=setup.whole,
        journal=Journal(path=journal, identity=_identity(setup)),
        told=lambda text, share: context.progress.update(start + (1 - start) * share, text),
    )  # fmt: skip


def kept_channels(groups: Groups, importance: Importance, widths: Widths) -> Kept:
    """The best channels of each group that loses some."""
    return {name: importance.best(name, width) for name, width in widths.items() if width < groups.found[name].width}


def _table(setup: Setup) -> tuple[tables.Table, Path]:
    assert setup.bench is not None
    identity = setup.bench.prober.identity
    folder = setup.context.tables or setup.context.work
    name = tables.name_of(
        setup.module, form=setup.form.name, shape=setup.example.shape, runtime=str(identity["runtime"])
    )
    return tables.Table.read(folder / name, identity, note=setup.context.note), folder / name


def _identity(setup: Setup) -> str:
    """Of what trials depend on beside their widths."""
    told = dict(setup.bench.prober.identity) if setup.bench else {}
    return str(sorted({**told, "form": setup.form.name, "memory": "memory_mb" in setup.goals}.items()))


def _with_size(seen: Seen, form: Form, module: nn.Module, context: Context) -> Seen:
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        return replace(seen, size_bytes=bytes_of(form, module, Path(folder), runtime=context.profile.runtime))


def _counted_seen(module: nn.Module, form: Form, share: float) -> Seen:
    """Where nothing can be measured but the file."""
    with tempfile.TemporaryDirectory(prefix="edgepress-") as folder:
        size = bytes_of(form, module, Path(folder), runtime="")
    return Seen(share=share, low=share, high=share, ms=0.0, most_ms=0.0, baseline_ms=1.0, size_bytes=size)


def _batches(context: Context) -> list[tuple[Tensor, Tensor]]:
    """Small batches of normalised training images, the same for the same seed."""
    split = context.data.train
    assert split is not None
    found: list[tuple[Tensor, Tensor]] = []
    for images, labels, _ in loader(split, batch_size=BATCH, shuffle=True, seed=context.seed, epoch=0):
        found.append((context.data.preprocessing.normalize(images), labels))
        if len(found) * BATCH >= IMAGES:
            break
    return found
