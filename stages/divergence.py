"""Where a quantised file leaves its float twin: the first layer whose answers are wrong beyond rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets import installed
from ..targets.tracing import ROUNDING, constants_of, is_weighted, layer_name
from .comparison import sqnr_db

GOOD_DB = 30.0  # as faithful as 8 bits are: what goes in better than this does not make a layer look worse
LOUD_DB = 6.0  # lost in one layer, in which the error gets twice as large: more than rounding does
BROKEN_DB = 15.0  # an output below it carries an error of a sixth of the signal and more

MOVING = frozenset(
    {"MaxPool", "Flatten", "Concat", "Resize", "Pad", "Reshape", "DepthToSpace"}
)  # may follow a rounding


@dataclass(frozen=True, kw_only=True)
class Point:
    """One tensor that both files compute. layer: in the user's model, whose output it is or whose input it rounds."""

    tensor: str
    layer: str
    rounds_input: bool
    sqnr_db: float
    lost_db: float  # against the worst of what goes in

    def words(self) -> str:
        what = f"the rounded input of {self.layer}" if self.rounds_input else self.layer
        return (
            f"{what} (tensor {self.tensor}: {self.sqnr_db:.1f} dB of signal to noise, {self.lost_db:.1f} dB lost there)"
        )


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """points: every compared tensor, in the order of computation. first: where it goes wrong, if one stands out."""

    points: tuple[Point, ...]
    first: Point | None

    def sentence(self) -> str:
        if not self.points:
            return "no tensor of the quantised file could be matched with one of its float twin"
        if self.first is None:
            worst = min(self.points, key=lambda point: point.sqnr_db)
            return f"no layer stands out: the error grows evenly, and is largest at {worst.words()}"
        return f"it diverges from its float twin first at {self.first.words()}"

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "layer": self.first.layer if self.first else None,
            "tensor": self.first.tensor if self.first else None,
            "sentence": self.sentence(),
            "points": [
                {"layer": point.layer, "tensor": point.tensor, "sqnr_db": point.sqnr_db, "lost_db": point.lost_db}
                for point in self.points
            ],
        }


def find_divergence(float_file: Path, quantized_file: Path, images: NDArray[Any]) -> Divergence:
    """Compare what both ONNX files compute in between, on the same images, with every optimisation off.

    A layer is blamed for what it adds: the signal-to-noise ratio that is lost between its inputs and its output.
    Behind a broken layer all are bad, but none of them loses more.
    """
    import onnx

    twin, graph = onnx.load(str(float_file)), onnx.load(str(quantized_file))
    pairs = list(_pairs(twin.graph, graph.graph))
    wanted = _run(twin, {pair.twin for pair in pairs}, images)
    got = _run(graph, {pair.tensor for pair in pairs}, images)
    ratios: dict[str, float] = {}
    points = []
    for pair in pairs:
        if wanted[pair.twin].shape != got[pair.tensor].shape:
            continue
        ratios[pair.tensor] = sqnr_db(got[pair.tensor], wanted[pair.twin])
        points.append(pair)
    upstream = _upstream(graph.graph, set(ratios))
    compared = tuple(
        Point(
            tensor=pair.tensor,
            layer=pair.layer,
            rounds_input=pair.rounds_input,
            sqnr_db=ratios[pair.tensor],
            lost_db=min([GOOD_DB, *(ratios[name] for name in upstream[pair.tensor])]) - ratios[pair.tensor],
        )
        for pair in points
    )
    return Divergence(points=compared, first=_first(compared))


def _first(points: tuple[Point, ...]) -> Point | None:
    """The place that loses most, where its output is bad and the loss is more than that of rounding."""
    bad = [point for point in points if point.sqnr_db < BROKEN_DB and point.lost_db >= LOUD_DB]
    return max(bad, key=lambda point: point.lost_db) if bad else None


@dataclass(frozen=True, kw_only=True)
class _Pair:
    tensor: str  # in the quantised file
    twin: str  # in the float file
    layer: str
    rounds_input: bool


def _pairs(twin: Any, graph: Any) -> Iterator[_Pair]:
    """Tensors of the quantised graph with the same ones of the float graph, in the order of computation."""
    twin_constants, constants = constants_of(twin), constants_of(graph)
    by_layer = {layer_name(node, twin_constants): node for node in twin.node if is_weighted(node, twin_constants)}
    by_name = {(node.op_type, node.output[0]): node for node in twin.node}
    twin_of = {entry.name: entry.name for entry in graph.input}
    consumers = _layer_behind(graph, constants)
    for node in graph.node:
        output = node.output[0]
        if output in constants:
            continue
        if node.op_type in ROUNDING:
            if node.input[0] in twin_of:
                twin_of[output] = twin_of[node.input[0]]
                if node.op_type == "DequantizeLinear" and output in consumers:
                    yield _Pair(tensor=output, twin=twin_of[output], layer=consumers[output], rounds_input=True)
            continue
        name = layer_name(node, constants)
        match = by_layer.get(name) if is_weighted(node, constants) else by_name.get((node.op_type, output))
        if match is not None and match.op_type == node.op_type:
            twin_of[output] = match.output[0]
            if is_weighted(node, constants):
                yield _Pair(tensor=output, twin=match.output[0], layer=name, rounds_input=False)


def _layer_behind(graph: Any, constants: Mapping[str, str]) -> dict[str, str]:
    """The weighted layer, or else the node, that takes each rounded tensor."""
    found: dict[str, str] = {}
    for node in reversed(graph.node):  # the first consumer wins
        found.update({name: layer_name(node, constants) for name in node.input if name not in constants})
    weighted: dict[str, str] = {}
    for node in reversed(graph.node):
        if is_weighted(node, constants):
            weighted[node.input[0]] = layer_name(node, constants)
        elif node.op_type in MOVING | ROUNDING and node.output[0] in weighted:
            weighted.update(dict.fromkeys(node.input, weighted[node.output[0]]))
    return found | weighted


def _upstream(graph: Any, compared: set[str]) -> dict[str, set[str]]:
    """For each tensor the nearest compared ones that it is computed from."""
    nearest: dict[str, set[str]] = {}
    for node in graph.node:
        sources = set().union(*({name} if name in compared else nearest.get(name, set()) for name in node.input))
        nearest.update(dict.fromkeys(node.output, sources))
    return nearest


def _run(model: Any, tensors: set[str], images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """What a model computes at those tensors, image by image where its batch is fixed."""
    import onnx

    ort = installed.load("onnxruntime", package="onnxruntime")
    del model.graph.value_info[:]
    known = {entry.name for entry in model.graph.output}
    inputs = {entry.name for entry in model.graph.input}
    extra = sorted(tensors - known - inputs)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in extra)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    wanted = [tensor for tensor in tensors if tensor not in inputs]
    rows = [session.run(wanted, {name: image[None]}) for image in images]
    found = {tensor: np.concatenate(values) for tensor, values in zip(wanted, zip(*rows, strict=True), strict=True)}
    return found | dict.fromkeys(tensors & inputs, images)
