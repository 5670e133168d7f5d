"""How channels are removed: torch-pruning's dependency graph, with guards around it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..targets.errors import StageError, UnfitError, did_you_mean
from .artifact import Artifact, Context, Record
from .data import loader
from .dependencies import TORCH_PRUNING_FAILS, MisreadError, followed
from .distill.losses import make
from .distill.nouns import Batch, Out, Step
from .distill.taps import HEADS
from .evaluation import quality
from .prune import USUAL_RATIO, Prune
from .recovering import as_followed, recover
from .tasks import Task
from .tracking import Untracked
from .unpacking import unpacked

MOST_OF_A_LAYER = 0.8  # a global ranking would otherwise empty whole layers of small nets
QUERIES_AND_MORE = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin", "qkv")
TAYLOR_BATCHES = 8  # gradients averaged over this many training batches


def prune(settings: Prune, artifact: Artifact, context: Context) -> Artifact:
    """A smaller network that has recovered; its teacher was the original model. The same where nothing had to go."""
    data = context.data
    example = artifact.contract.preprocessing.example(1)
    module, how, skip = _smaller(settings, artifact, context, example)
    if module is None:
        record = Record(stage="prune", settings=asdict(settings), seconds=0.0, metrics=how, skipped=skip)
        return artifact.next(record=record)
    metrics: dict[str, Any] = {
        "macs_before": count_macs(artifact.module, example),
        "macs_after": count_macs(module, example),
        "parameters_before": count_parameters(artifact.module),
        "parameters_after": count_parameters(module),
        **how,
        "validation_before": quality(artifact.module, data.val, data),
        "validation_pruned": quality(module, data.val, data),
    }
    curves: dict[str, list[float]] = {}
    followed = as_followed(settings, module, artifact, context)
    if followed.at != settings.at:
        context.note("prune: at is left out; it wants real images, feature maps, and a teacher that is what was pruned")
    settings = followed
    last = settings.epochs - settings.epochs // settings.steps * (settings.steps - 1)
    if settings.epochs:
        trained, figures = recover(replace(settings, epochs=last), module, artifact, context)
        metrics.update(figures, best_epoch=trained.best_epoch)
        curves = trained.curves
    metrics["validation_accuracy"] = quality(module, data.val, data)
    record = Record(stage="prune", settings=asdict(settings), seconds=0.0, metrics=metrics, curves=curves)
    return artifact.next(record=record, module=module.eval())


def _smaller(
    settings: Prune, artifact: Artifact, context: Context, example: Tensor
) -> tuple[nn.Module | None, dict[str, Any], str | None]:
    """The pruned network that has still to recover, how it came about, and why there is none."""
    loss = loss_of(context.data.task)
    if settings.ratio is None and context.goals:
        from .slimming.setup import reachable
        from .slimming.to_budget import shape

        goals = reachable(context.goals, context)
        if goals:
            shaped = shape(settings, artifact, context, goals, loss, _recovery(settings, artifact, context))
            return shaped.module, {"to_budget": shaped.facts}, shaped.skip
    try:
        module, scope = remove_channels(
            artifact.module,
            example,
            settings,
            multiple=context.profile.channel_multiple,
            batches=_labelled_batches(context) if settings.importance in ("taylor", "hessian") else (),
            loss=loss,
        )
    except UnfitError:
        from .slimming.by_share import by_share

        found = by_share(settings, artifact.module, example, context, loss, ratio=_ratio(settings))
        if found is None:
            raise
        module, scope = found, "groups that can be cut, each by the same share"
        context.note(f"prune: channels cannot be ranked over the whole network; {scope}")
    return module, {"scope": scope}, None


def _recovery(settings: Prune, artifact: Artifact, context: Context) -> Callable[[nn.Module, int, str], None]:
    """How a network recovers while it is still being pruned."""

    def for_a_while(module: nn.Module, epochs: int, name: str) -> None:
        work = context.work / name.replace(" ", "-")
        work.mkdir(parents=True, exist_ok=True)
        around = replace(context, work=work, tracker=Untracked())
        recover(replace(settings, epochs=epochs), module, artifact, around)
        module.eval()

    return for_a_while


def remove_channels(
    module: nn.Module,
    example: Tensor,
    settings: Prune,
    *,
    multiple: int,
    batches: Sequence[tuple[Tensor, Tensor]] | Iterator[tuple[Tensor, Tensor]] = (),
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> tuple[nn.Module, str]:
    """A pruned copy, and which channels could be touched.

    All groups are tried first. Some networks couple channels in ways that the dependency graph misreads (padded
    shortcuts, for one); there only channels that live inside one branch are removed. Every result must still run.
    batches, loss: of answers and labels, whose gradients tell what is important, where that is asked for.
    """
    batches = list(batches)
    problems, is_endless = [], False
    for scope in ("all layers", "layers inside one branch"):
        candidate = copy.deepcopy(module)
        try:
            inside = scope != "all layers"
            _prune_(candidate, example, settings, multiple=multiple, batches=batches, loss=loss, inside=inside)
            problem = _problem_with(candidate, module, example)
        except TORCH_PRUNING_FAILS as error:
            is_endless = isinstance(error, MisreadError)
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            return candidate.eval().requires_grad_(True), scope
        problems.append(f"{scope}: {problem.splitlines()[0]}")
        if is_endless:
            break
    raise UnfitError(
        f"no channel could be removed with ratio {_ratio(settings)} and a multiple of {multiple}. "
        + " ".join(problems)
        + ". Name the modules that must stay in prune.exclude, or leave the stage out (--set prune=off)."
    )


def _prune_(
    module: nn.Module,
    example: Tensor,
    settings: Prune,
    *,
    multiple: int,
    batches: Sequence[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    inside: bool,
) -> None:
    import torch_pruning as tp

    ignored = [*excluded(module, settings.exclude), *output_layers(module, example)]
    if inside:
        ignored += _coupled(module, example, ignored)
    importance = _importance(module, settings.importance, batches, loss)
    with followed():
        pruner = _never_emptied(tp.pruner.BasePruner)(
            module,
            example,
            importance=importance,
            global_pruning=True,
            pruning_ratio=_ratio(settings),
            max_pruning_ratio=MOST_OF_A_LAYER,
            ignored_layers=ignored,
            round_to=multiple,
            num_heads=attention_heads(module),
        )
        pruner.step()
    module.zero_grad(set_to_none=True)


def _never_emptied(pruner: type[Any]) -> type[Any]:
    """torch-pruning's pruner, where the best channels of a layer stay however badly they rank.

    It (1.6) leaves a layer whole of which no channel, or none of the multiples, would stay, so that a higher ratio took
    less away: of ResNet-20, in multiples of eight, 0.6 left 44 % of the work and 0.8 left 63 %.
    """

    class NeverEmptied(pruner):  # type: ignore[misc]
        def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
            fewest = max(1, int((1 - MOST_OF_A_LAYER) * current_channels) // round_to) * round_to
            kept = max(fewest, (current_channels - n_pruned) // round_to * round_to)
            return max(0, current_channels - kept)

    return NeverEmptied


def _ratio(settings: Prune) -> float:
    return USUAL_RATIO if settings.ratio is None else settings.ratio


def _importance(
    module: nn.Module,
    kind: str,
    batches: Sequence[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Any:
    """torch-pruning's, with the gradients that it reads."""
    import torch_pruning as tp

    if kind == "bn-scale":
        return tp.importance.BNScaleImportance()
    if kind not in ("taylor", "hessian"):
        return tp.importance.GroupMagnitudeImportance(p=2)
    found = tp.importance.GroupTaylorImportance() if kind == "taylor" else tp.importance.GroupHessianImportance()
    module.zero_grad()
    for images, labels in batches:
        if kind == "hessian":
            module.zero_grad()  # it squares the gradients of each batch, and adds those up
        (loss(module(images), labels) / len(batches)).backward()  # type: ignore[no-untyped-call]
        if kind == "hessian":
            found.accumulate_grad(module)
    return found


def _problem_with(candidate: nn.Module, module: nn.Module, example: Tensor) -> str | None:
    """What is wrong with a pruned network: torch-pruning (1.6) notices none of it itself."""
    with torch.no_grad():
        out, wanted = candidate.eval()(example), module.eval()(example)
    if out.shape != wanted.shape:
        return f"the output became {tuple(out.shape)} instead of {tuple(wanted.shape)}"
    if not bool(torch.isfinite(out).all()):
        return "the output is not finite"
    if count_parameters(candidate) >= count_parameters(module):
        return "nothing was removed"
    return None


def excluded(module: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    parts = dict(module.named_modules())
    for name in names:
        if name not in parts:
            raise StageError(f"prune.exclude: the model has no module {name!r}{did_you_mean(name, parts)}")
    return [parts[name] for name in names]


def output_layers(module: nn.Module, example: Tensor) -> list[nn.Module]:
    """Layers whose outputs are the network's answers: a channel less would change the task."""
    ran: list[tuple[nn.Module, int]] = []

    def hook(part: nn.Module, _inputs: Any, output: Tensor) -> None:
        ran.append((part, output.shape[1] if isinstance(part, nn.modules.conv._ConvNd) else output.shape[-1]))

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    handles = [part.register_forward_hook(hook) for part in module.modules() if isinstance(part, kinds)]
    with torch.no_grad():
        answer = module.eval()(example)
    for handle in handles:
        handle.remove()
    classes = answer.shape[1 if answer.ndim in (2, 4) else -1]
    heads = [part for part, width in ran if width == classes]
    return heads[-1:]


def attention_heads(module: nn.Module) -> dict[nn.Module, int]:
    """Layers whose outputs are divided among the heads of an attention, which must stay alike, and among how many."""
    found: dict[nn.Module, int] = {}
    for part in module.modules():
        heads = next((count for name in HEADS if isinstance(count := getattr(part, name, None), int)), None)
        layers = [layer for name in QUERIES_AND_MORE if isinstance(layer := getattr(part, name, None), nn.Linear)]
        found |= dict.fromkeys(layers, heads) if heads else {}
    return found


def _coupled(module: nn.Module, example: Tensor, ignored: list[nn.Module]) -> list[nn.Module]:
    """Layers whose output channels are added to another layer's: those outside a single branch."""
    import torch_pruning as tp

    with followed():
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
        groups = list(graph.get_all_groups(ignored_layers=ignored))
    coupled: list[nn.Module] = []
    for group in groups:
        producers = {
            dependency.target.module
            for dependency, _ in group
            if graph.is_out_channel_pruning_fn(dependency.handler) and _makes_channels(dependency.target.module)
        }
        if len(producers) > 1:
            coupled += producers
    return coupled


def _makes_channels(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.conv._ConvNd):
        return part.groups == 1  # a depthwise convolution passes its input's channels on
    return isinstance(part, nn.Linear)


def loss_of(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a recipe calls ce."""
    term = make(task.ce, {})

    def loss(answers: Tensor, labels: Tensor) -> Tensor:
        step = Step(batch=Batch(x=answers, y=labels), student=Out(logits=answers), teachers={}, progress=0.0)
        value: Tensor = term(step)
        return value

    return loss


def _labelled_batches(context: Context) -> Iterator[tuple[Tensor, Tensor]]:
    split = context.data.train
    if split is None:
        raise StageError("prune.importance: taylor needs training images; use magnitude")
    batches = loader(split, batch_size=64, shuffle=True, seed=context.seed, epoch=0)
    for _, (images, labels, _index) in zip(range(TAYLOR_BATCHES), batches, strict=False):
        yield context.data.preprocessing.normalize(images), labels


def count_parameters(module: nn.Module) -> int:
    """Numbers that the network learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for one input."""
    module, total = unpacked(module, example[:1]), 0

    def hook(part: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        weight = part.weight
        assert isinstance(weight, Tensor)
        places = output.numel() // output.shape[0]
        per_place = weight[0].numel() if weight.ndim > 1 else 1
        total += places * per_place

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    handles = [part.register_forward_hook(hook) for part in module.modules() if isinstance(part, kinds)]
    with torch.no_grad():
        module.eval()(example[:1])
    for handle in handles:
        handle.remove()
    return total
