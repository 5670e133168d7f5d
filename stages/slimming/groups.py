"""Which channels of a network can be removed together, found once and kept as plain places in plain tensors.

torch-pruning's dependency graph (Fang et al., 2023, arXiv:2301.12900) tells which sides of which modules lose what.
What it says is taken over as data, so that a network of any widths is cut from the original in one go, and it is
checked: a network without channels must answer exactly as the original does when nobody listens to them.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...targets.errors import UnfitError
from ..dependencies import TORCH_PRUNING_FAILS, followed
from ..pruning import attention_heads, excluded, output_layers
from .blocks import find_blocks
from .cutting import Edge, Group, Groups, Kept, slim
from .heads import find_attentions
from .rows import rows

LEAST_SHARE = 1 / 8  # of its channels that every group keeps: estimates of importance say nothing about empty layers
MOST_WIDTHS = 16  # of a group that are tried: wide groups lose several multiples at once
AGREES = 1e-3  # largest difference to the masked network, as a share of the largest answer: rounding stays far below
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def find_groups(
    module: nn.Module, example: Tensor, *, multiple: int, exclude: Sequence[str] = (), blocks: bool = True
) -> Groups:
    """The groups of a network in eval mode, each tried out. multiple: of channels that a group keeps. blocks: residual
    blocks that can be left out are groups too."""
    untried, refused = untried_groups(module, example, multiple=multiple, exclude=exclude)
    candidates = [group for group in untried if not group.counts]
    if candidates and trial(module, candidates, example) is None:
        untried = [group for group in untried if group.counts]
    else:
        candidates = []
    for group in untried:
        problem = trial(module, [group], example)
        if problem:
            refused[group.name] = problem
        else:
            candidates.append(group)
    if blocks:
        candidates = _with_blocks(module, candidates, example, exclude)
    return Groups(found={group.name: group for group in candidates}, refused=refused)


def untried_groups(
    module: nn.Module, example: Tensor, *, multiple: int, exclude: Sequence[str] = ()
) -> tuple[list[Group], dict[str, str]]:
    """Channels, and heads of attentions, that go together as far as the graph tells; and why others must stay."""
    refused: dict[str, str] = {}
    candidates: list[Group] = []
    fixed = _fixed(module, example, exclude)
    for group in _graph_groups(module, example, multiple=multiple):
        problem = _problem_with(group, module, fixed, multiple=multiple)
        if problem:
            refused[group.name] = problem
        else:
            candidates.append(group)
    return [*candidates, *_attention_groups(module, exclude)], refused


def _attention_groups(module: nn.Module, exclude: Sequence[str]) -> list[Group]:
    """The heads of each attention that holds all that its heads need."""
    import torch_pruning as tp

    found = []
    for one in find_attentions(module):
        if any(f"{one.name}.".startswith(f"{name}.") or name.startswith(f"{one.name}.") for name in exclude):
            continue
        sides: list[tuple[str, Literal["in", "out"], int, Callable[[Any, list[int]], Any]]] = [
            (name, "out", times, tp.prune_linear_out_channels) for name, times in one.makers
        ]
        sides.append((one.reader, "in", 1, tp.prune_linear_in_channels))
        edges = tuple(
            Edge(module=name, side=side, places=one.places(times)[0], channels=one.places(times)[1], cut=cut, dim=1)
            for name, side, times, cut in sides
        )
        found.append(
            Group(
                name=f"{one.name}.heads",
                width=one.heads,
                widths=tuple(range(one.heads - 1, 0, -1)),
                edges=edges,
                kind=one.kind,
                counts=tuple((one.name, attribute, each) for attribute, each in one.counts),
            )
        )
    return found


def _with_blocks(module: nn.Module, groups: Sequence[Group], example: Tensor, exclude: Sequence[str]) -> list[Group]:
    """The groups, each with the block that it lies in, and the blocks themselves."""
    found = find_blocks(module, _noise_like(example))
    shapes = _shapes(module, example)
    blocks = []
    for name in found:
        if any(one == name or one.startswith(f"{name}.") or name.startswith(f"{one}.") for one in exclude):
            continue
        facts = [(one, tuple(value.shape)) for one, value in module.get_submodule(name).state_dict().items()]
        kind = hashlib.sha256(repr((facts, shapes.get(name))).encode()).hexdigest()[:12]
        blocks.append(Group(name=name, width=1, widths=(0,), edges=(), kind=kind, is_block=True))
    if blocks:
        with torch.no_grad():
            answer = slim(module, blocks, {group.name: [] for group in blocks})(_noise_like(example))
        if not bool(torch.isfinite(answer).all()):
            return list(groups)
    names = [group.name for group in blocks]
    return [
        *(replace(group, inside=_around(group, names)) for group in groups),
        *blocks,
    ]


def _around(group: Group, blocks: Sequence[str]) -> str | None:
    return next((name for name in blocks if all(edge.module.startswith(f"{name}.") for edge in group.edges)), None)


def _graph_groups(module: nn.Module, example: Tensor, *, multiple: int) -> list[Group]:
    import torch_pruning as tp

    work = copy.deepcopy(module).eval().requires_grad_(True)
    names = {part: name for name, part in work.named_modules()}
    parameters = {id(parameter): name for name, parameter in work.named_parameters()}
    shapes = _shapes(work, example)
    with followed():
        try:
            graph = tp.DependencyGraph().build_dependency(work, example_inputs=example)
            raw = list(graph.get_all_groups())
        except TORCH_PRUNING_FAILS as error:
            if in_rows := _row_groups(module, example, multiple=multiple):  # `work` may hold what was traced
                return in_rows
            said = (str(error).strip().splitlines() or [""])[0]
            raise UnfitError(
                f"which channels go together cannot be found out ({type(error).__name__}: {said})"
            ) from error
    found = []
    for items in raw:
        edges: dict[tuple[str, str], Edge] = {}
        sound = True
        for item in items:
            dependency, places = item
            target = dependency.target.module
            name = names.get(target) if isinstance(target, nn.Module) else parameters.get(id(target))
            if name is None:
                continue  # an operation without weights
            if any(channel is None for channel in item.root_idxs):
                sound = False
                continue
            out, into = graph.is_out_channel_pruning_fn(dependency.handler), graph.is_in_channel_pruning_fn(
                dependency.handler
            )  # fmt: skip
            side: Literal["in", "out", "both"] = "both" if out and into else "out" if out else "in"
            edges[name, side] = Edge(
                module=name, side=side, places=tuple(places), channels=tuple(item.root_idxs),
                cut=dependency.handler, dim=dependency.target.pruning_dim,
            )  # fmt: skip
        makers = {name for name, side in edges if side == "out"} or {names[items[0].dep.target.module]}
        root = next(name for name, _ in work.named_modules() if name in makers)  # not where the graph began
        width = len(items[0].idxs)
        widths = _widths(width, multiple) if sound else ()
        kind = _kind(list(edges.values()), work, shapes)
        found.append(Group(name=root, width=width, widths=widths, edges=tuple(edges.values()), kind=kind))
    return found


def _widths(width: int, multiple: int) -> tuple[int, ...]:
    """What may be left of so many channels, the widest first."""
    step = multiple * max(1, math.ceil(width / multiple / MOST_WIDTHS))
    least = max(step, math.ceil(int(width * LEAST_SHARE) / step) * step)
    return tuple(range((width - 1) // step * step, least - 1, -step))


def _row_groups(module: nn.Module, example: Tensor, *, multiple: int) -> list[Group]:
    """Channels that go straight from one layer to the next: what is left where the graph is misread."""
    import torch_pruning as tp

    parts, shapes = dict(module.named_modules()), _shapes(module, example)
    found = []
    for row in rows(module, example):
        maker = parts[row.maker]
        linear = isinstance(maker, nn.Linear)
        width = int(maker.out_features if linear else maker.out_channels)
        ends = ((tp.prune_linear_out_channels, tp.prune_linear_in_channels) if linear
                else (tp.prune_conv_out_channels, tp.prune_conv_in_channels))  # fmt: skip
        sides: list[tuple[str, Literal["in", "out", "both"], Callable[[Any, list[int]], Any]]] = [
            (row.maker, "out", ends[0]), (row.reader, "in", ends[1])
        ]  # fmt: skip
        for name in row.passed:
            is_norm = isinstance(parts[name], BATCH_NORMS)
            cut = tp.prune_batchnorm_out_channels if is_norm else tp.prune_depthwise_conv_out_channels
            sides.append((name, "both", cut))
        every = tuple(range(width))
        edges = tuple(
            Edge(module=name, side=side, places=every, channels=every, cut=cut, dim=1) for name, side, cut in sides
        )
        kind = _kind(edges, module, shapes)
        found.append(Group(name=row.maker, width=width, widths=_widths(width, multiple), edges=edges, kind=kind))
    return found


def _fixed(module: nn.Module, example: Tensor, exclude: Sequence[str]) -> dict[str, str]:
    """Modules whose outputs must stay as they are, and why."""
    names = {part: name for name, part in module.named_modules()}
    reasons = {names[part]: "its outputs are the answers" for part in output_layers(module, example)}
    reasons |= {names[part]: "it is divided among the heads of an attention" for part in attention_heads(module)}
    for part in excluded(module, exclude):
        reasons |= {name: "it is named in prune.exclude" for one, name in names.items() if one in set(part.modules())}
    return reasons


def _problem_with(group: Group, module: nn.Module, fixed: Mapping[str, str], *, multiple: int) -> str | None:
    """Why a group is not to be pruned, as far as that can be seen."""
    parts: dict[str, Any] = dict(module.named_modules())
    for edge in group.edges:
        part = parts.get(edge.module)
        if edge.side != "in" and edge.module in fixed:
            return f"{edge.module}: {fixed[edge.module]}"
        if isinstance(part, CONVS) and part.groups > 1 and edge.side != "both":
            return f"{edge.module} is a grouped convolution"
        if isinstance(part, nn.GroupNorm):
            return f"{edge.module} normalises groups of channels"
    if not group.widths:
        return f"its {group.width} channels are too few for a multiple of {multiple}"
    return None


def trial(
    module: nn.Module, groups: Sequence[Group], example: Tensor, widths: Mapping[str, int] | None = None
) -> str | None:
    """What goes wrong when some channels of these groups go. widths: that are left; none: about half."""
    rng = torch.Generator().manual_seed(0)
    kept = {}
    for group in groups:
        order = torch.randperm(group.width, generator=rng).tolist()
        left = widths[group.name] if widths else group.widths[len(group.widths) // 2]
        kept[group.name] = sorted(order[:left])
    probe = _noise_like(example)
    try:
        with torch.no_grad():
            got, before = slim(module, groups, kept)(probe), module.eval()(probe)
            wanted = _masked(module, groups, kept)(probe)
    except Exception as error:  # whatever a network does when it is cut where it must not be
        said = str(error).strip().splitlines()
        return f"the network does not run without some of its channels ({(said or [type(error).__name__])[0][:120]})"
    if got.shape != before.shape:
        return f"the answers became {tuple(got.shape)} instead of {tuple(before.shape)}"
    if not bool(torch.isfinite(got).all()):
        return "the answers are not finite"
    if _is_exact(module, groups) and float((got - wanted).abs().max()) > AGREES * float(wanted.abs().max()) + 1e-6:
        return "channels are added to others than the dependency graph believes, as at padded shortcuts"
    return None


def _masked(module: nn.Module, groups: Sequence[Group], kept: Kept) -> nn.Module:
    """The whole network, in which nobody listens to the channels that would go."""
    whole = copy.deepcopy(module).eval()
    parts: dict[str, Any] = dict(whole.named_modules())
    for group in groups:
        away = set(range(group.width)) - set(kept[group.name])
        for edge in group.edges:
            part = parts.get(edge.module)
            if edge.side == "in" and isinstance(part, (nn.Linear, *CONVS)):
                dim = 0 if isinstance(part, CONVS) and part.transposed else 1
                part.weight.data.index_fill_(dim, torch.tensor(edge.lost(away), dtype=torch.long), 0.0)
    return whole


def _is_exact(module: nn.Module, groups: Sequence[Group]) -> bool:
    """Whether a channel touches others only where somebody listens to it: not where norms average over channels."""
    parts: dict[str, Any] = dict(module.named_modules())
    plain = (nn.Linear, nn.PReLU, nn.Embedding, *CONVS, *BATCH_NORMS)
    return all(isinstance(parts.get(edge.module, edge), (Edge, *plain)) for group in groups for edge in group.edges)


def _kind(edges: Sequence[Edge], module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """A digest of everything about a group that decides what its channels cost."""
    parts: dict[str, Any] = dict(module.named_modules())
    facts = sorted(
        (
            edge.side,
            type(parts.get(edge.module)).__name__,
            str([getattr(parts.get(edge.module), key, None) for key in ("kernel_size", "stride", "groups")]),
            str([tuple(value.shape) for value in _tensors(parts.get(edge.module))]),
            str(shapes.get(edge.module)),
            len(edge.places),
        )
        for edge in edges
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _tensors(part: nn.Module | None) -> list[Tensor]:
    return [] if part is None else list(part.parameters(recurse=False))


def _shapes(module: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Of what each module answers to one sample."""
    shapes: dict[str, tuple[int, ...]] = {}

    def hook(name: str) -> Callable[..., None]:
        def see(_part: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        return see

    handles = [part.register_forward_hook(hook(name)) for name, part in module.named_modules() if name]
    with torch.no_grad():
        module(example[:1])
    for handle in handles:
        handle.remove()
    return shapes


def _noise_like(example: Tensor) -> Tensor:
    if not example.is_floating_point():
        return example
    return torch.randn(example.shape, generator=torch.Generator().manual_seed(1))
