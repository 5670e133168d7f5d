"""What a node of a traced network does to values, as far as their rounding is concerned."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from .layers import ActivationRounding

NONNEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softmax)
# A runtime drops these before a rounding whose zero point is 0, so the rounding belongs behind them.
ABSORBED = (nn.ReLU, nn.ReLU6)
# What takes every value of its answer from its input, or is 0, and picks the same ones after a rounding.
PICKS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
PLACES = (*NOTHING, nn.ChannelShuffle, nn.PixelShuffle, nn.ZeroPad2d)
# What makes no negative value of others.
MOVES = (
    *PICKS, *PLACES, nn.Flatten, nn.Upsample, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
NONNEGATIVE_FUNCTIONS = {
    F.relu, F.relu6, torch.relu, F.sigmoid, torch.sigmoid, F.hardsigmoid, F.softmax, "relu", "relu_", "sigmoid",
}  # fmt: skip
ABSORBED_FUNCTIONS = {F.relu, F.relu6, torch.relu, "relu", "relu_"}
MOVING_FUNCTIONS = {
    F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.dropout, F.interpolate, torch.flatten,
    "flatten", "view", "reshape", "mean", torch.mean, "squeeze", torch.squeeze, "contiguous",
}  # fmt: skip
ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
PRODUCTS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
SIGMOIDS = (nn.Sigmoid, nn.Hardsigmoid)
SIGMOID_FUNCTIONS = {F.sigmoid, torch.sigmoid, "sigmoid", F.hardsigmoid}


def is_addition(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and node.target in ADDITIONS


def is_gate(node: fx.Node, graph_module: fx.GraphModule) -> bool:
    """Whether it multiplies a tensor by what a sigmoid has made of one."""
    is_product = node.op in ("call_function", "call_method") and node.target in PRODUCTS
    operands = node.args[:2]
    return (
        is_product
        and all(isinstance(operand, fx.Node) for operand in operands)
        and any(does(operand, graph_module, SIGMOIDS, SIGMOID_FUNCTIONS) for operand in node.all_input_nodes)
    )


def comes_of(layers: set[fx.Node], node: fx.Node) -> bool:
    """Whether what comes in at the left has come from a layer that is rounded, or from an addition."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        if node in layers or is_addition(node):
            return True
    return False


def behind_absorbed(node: fx.Node, graph_module: fx.GraphModule) -> fx.Node:
    """The ReLU that swallows this node's output, or the node."""
    follower = only_user(node)
    return follower if follower is not None and does(follower, graph_module, ABSORBED, ABSORBED_FUNCTIONS) else node


def is_nonnegative(node: fx.Node, graph_module: fx.GraphModule) -> bool:
    if does(node, graph_module, NONNEGATIVE, NONNEGATIVE_FUNCTIONS):
        return True
    if node.target in (*ADDITIONS, *PRODUCTS) and not all(isinstance(operand, fx.Node) for operand in node.args[:2]):
        return False  # by a number, whose sign nobody looks at
    if node.target in (torch.cat, *ADDITIONS, *PRODUCTS) or does(node, graph_module, MOVES, MOVING_FUNCTIONS):
        return bool(node.all_input_nodes) and all(
            is_nonnegative(source, graph_module) for source in node.all_input_nodes
        )
    if node.op == "call_module" and isinstance(graph_module.get_submodule(str(node.target)), ActivationRounding):
        return is_nonnegative(node.all_input_nodes[0], graph_module)
    return False


def only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def does(node: fx.Node, graph_module: fx.GraphModule, modules: tuple[type, ...], functions: set[object]) -> bool:
    """Whether it calls one of these kinds of modules, or one of these functions or methods."""
    if node.op == "call_module":
        return isinstance(graph_module.get_submodule(str(node.target)), modules)
    return node.op in ("call_function", "call_method") and node.target in functions
