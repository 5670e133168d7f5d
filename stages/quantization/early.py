"""Round before what only picks or places values, where a runtime can: a rounding commutes with them.

A runtime writes a convolution's sums as bytes where the rounding follows at once. With a max-pool or a concatenation
between, the convolution writes floats, these are pooled or copied as floats, and a pass of its own rounds them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import fx, nn

from .nodes import NOTHING, PICKS, PLACES, does

# A transposition or another shape is left out: OpenVINO finds attention by them.
FUNCTIONS = {
    F.max_pool1d, F.max_pool2d, F.max_pool3d, F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d,
    F.dropout, F.dropout2d, F.pixel_shuffle, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d,
    torch.channel_shuffle, "contiguous",
}  # fmt: skip
FLATTENING = {torch.flatten, "flatten"}
CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}
NEAREST = ("nearest", "nearest-exact")
MODE_PLACE = 3  # among the arguments of F.interpolate


def share_(prepared: fx.GraphModule, kind: type[nn.Module]) -> None:
    """Drop the roundings of what was picked from values that are rounded already, or are for another reader.

    kind: of the modules that round. Without it, a convolution before a pool would be written out once for each reader.
    """
    for node in _roundings(prepared, kind):
        last, passed = node, node.all_input_nodes[0]
        while set(passed.users) == {last} and len(found := sources(passed, prepared)) == 1:
            last, passed = passed, found[0]
            known = passed if _rounds(passed, prepared, kind) else _rounded(passed, prepared, kind)
            if known is not None:
                last.replace_input_with(passed, known)
                node.replace_all_uses_with(node.all_input_nodes[0])
                prepared.graph.erase_node(node)
                prepared.delete_submodule(str(node.target))
                break


def round_early_(frozen: nn.Module, kind: type[nn.Module]) -> None:
    """Move roundings in front of what nobody else reads; the answers stay the same to the last bit.

    frozen: in eval mode, with the scales that are exported. kind: of the modules that round. All parts of a
    concatenation are rounded by its one scale.
    """
    if not isinstance(frozen, fx.GraphModule):
        return
    waiting = dict.fromkeys(_roundings(frozen, kind))
    while waiting:
        node, _ = waiting.popitem()
        passed = node.all_input_nodes[0]
        found = sources(passed, frozen) if set(passed.users) == {node} else ()
        if not found or any(_rounds(source, frozen, kind) for source in found):
            continue
        for source in dict.fromkeys(found):
            rounded = _rounded(source, frozen, kind, by=str(node.target))
            if rounded is None:
                with frozen.graph.inserting_after(source):
                    rounded = frozen.graph.call_module(str(node.target), (source,))
            passed.replace_input_with(source, rounded)
            waiting[rounded] = None
        node.replace_all_uses_with(passed)
        frozen.graph.erase_node(node)
    frozen.graph.lint()
    frozen.recompile()


def round_on_both_sides_(frozen: nn.Module, kind: type[nn.Module]) -> None:
    """Repeat a rounding behind what only picks or places values: the answers stay the same.

    ONNX Runtime takes a node for one of bytes where it stands between a dequantisation and a quantisation.
    """
    if not isinstance(frozen, fx.GraphModule):
        return
    for node in frozen.graph.nodes:
        found = sources(node, frozen)
        if len(found) != 1 or not _rounds(found[0], frozen, kind) or _is_nothing(node, frozen):
            continue
        users = [user for user in node.users if not _rounds(user, frozen, kind)]
        with frozen.graph.inserting_after(node):
            again = frozen.graph.call_module(str(found[0].target), (node,))
        for user in users:
            user.replace_input_with(node, again)
    frozen.graph.lint()
    frozen.recompile()


def sources(node: fx.Node, graph_module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """What a node takes its values from, where rounding these first gives the same answer; else nothing."""
    first = node.args[0] if node.args else None
    if node.op == "call_function" and node.target in CONCATENATIONS:
        parts = first if isinstance(first, Iterable) else ()
        nodes = tuple(part for part in parts if isinstance(part, fx.Node))
        return nodes if len(nodes) == len(tuple(parts)) else ()
    return (first,) if isinstance(first, fx.Node) and _commutes(node, graph_module) else ()


def _commutes(node: fx.Node, graph_module: fx.GraphModule) -> bool:
    if node.op == "call_module":
        part = graph_module.get_submodule(str(node.target))
        if isinstance(part, nn.Upsample):
            return part.mode in NEAREST
        if isinstance(part, nn.Flatten):
            return part.start_dim == 1
        return isinstance(part, PLACES) or (isinstance(part, PICKS) and not part.return_indices)
    if node.op not in ("call_function", "call_method"):
        return False
    if node.target is F.interpolate:
        return len(node.args) <= MODE_PLACE and node.kwargs.get("mode", NEAREST[0]) in NEAREST
    if node.target in FLATTENING:
        return (*node.args[1:2], *node.kwargs.values()) == (1,)  # into vectors; another one may belong to attention
    return node.target in FUNCTIONS and not node.kwargs.get("return_indices", False)


def _is_nothing(node: fx.Node, graph_module: fx.GraphModule) -> bool:
    """Whether nothing of it is left in the exported file."""
    return does(node, graph_module, NOTHING, {F.dropout, F.dropout2d, "contiguous"})


def _roundings(graph_module: fx.GraphModule, kind: type[nn.Module]) -> list[fx.Node]:
    return [node for node in graph_module.graph.nodes if _rounds(node, graph_module, kind)]


def _rounds(node: fx.Node, graph_module: fx.GraphModule, kind: type[nn.Module]) -> bool:
    return does(node, graph_module, (kind,), set())


def _rounded(
    node: fx.Node, graph_module: fx.GraphModule, kind: type[nn.Module], *, by: str | None = None
) -> fx.Node | None:
    """The rounding of a node's values that there is already. by: only the one by this module."""
    return next((user for user in node.users if _rounds(user, graph_module, kind) and by in (None, user.target)), None)
