"""One torch module to one ONNX file, read back to see what the exporter really wrote."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from ..targets.errors import StageError
from ..targets.half import largest_values, to_half
from ..targets.rewriting import rewritten
from .pooling_export import any_adaptive_pooling
from .quantization.frozen import FrozenLayer

NEEDS_OPSET = re.compile(r"added in version (\d+)")  # torch's words for an operator that is too new (torch 2.13)
NEWEST_OPSET = 20  # of this exporter
RANGE_SAMPLES = 16
REWRITTEN = "edgepress.rewritten"  # in the file's metadata: what it says in other operators than torch did


def write_onnx(
    module: nn.Module,
    path: Path,
    *,
    example: Tensor,
    opset: int,
    dynamic_batch: bool,
    metadata: Mapping[str, str],
    half: bool = False,
    tensorrt: str | None = None,
    fold: bool = True,
) -> onnx.ModelProto:
    """Export in eval mode, with batch norm folded, one input `input` and one output `output`.

    example: samples; with the first one the network is traced, and by some of them what overflows float16 is found.
    half: weights and arithmetic in float16; input and output stay float32. tensorrt: the version that will read it;
    what torch cannot say in that operator set is exported in a newer one and said in older operators. fold: with
    batch norm folded; without, nodes keep the names of their modules. The file appears whole or not at all.
    StageError: the exporter cannot, or the file holds another operator set than was asked for.
    """
    wrapped = _Plain(_folded(module) if fold else copy.deepcopy(module))
    model = _exported(wrapped, example[:1], opset=opset, dynamic_batch=dynamic_batch, newer=tensorrt is not None)
    _inline_shared_initializers_(model)
    changes: Sequence[str] = ()
    if tensorrt is not None:
        found = rewritten(model, version=tensorrt)
        if found.problems:
            lines = "\n".join(f"  {problem}" for problem in found.problems)
            raise StageError(f"{path.name} cannot be said in what TensorRT {tensorrt} reads:\n{lines}")
        model, changes = found.model, found.changes
    written = {entry.domain: entry.version for entry in model.opset_import}.get("", 0)
    if written != opset and tensorrt is None:
        raise StageError(f"the exporter wrote opset {written} instead of {opset}")
    if half:
        model = to_half(model, largest=largest_values(model.SerializeToString(), example[:RANGE_SAMPLES].numpy()))
    onnx.helper.set_model_props(model, {**metadata, **({REWRITTEN: "; ".join(changes)} if changes else {})})
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(model.SerializeToString())
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    return model


def changes_of(path: Path) -> str:
    """What a file says in other operators than torch did; empty: nothing."""
    model = onnx.load(str(path), load_external_data=False)
    return next((entry.value for entry in model.metadata_props if entry.key == REWRITTEN), "")


def _exported(wrapped: nn.Module, example: Tensor, *, opset: int, dynamic_batch: bool, newer: bool) -> onnx.ModelProto:
    """newer: whether another operator set will do where torch needs one, the oldest that it can write."""
    buffer = io.BytesIO()
    try:
        with (
            warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _no_graph_on_the_terminal(),
            any_adaptive_pooling(),
        ):  # fmt: skip
            warnings.simplefilter("ignore")  # the exporter's own, about its age and about constants it folds
            torch.onnx.export(
                wrapped.eval(),
                (example,),
                buffer,  # type: ignore[arg-type]  # a file-like object is documented for this exporter
                opset_version=opset,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}} if dynamic_batch else None,
                dynamo=False,  # the only exporter that writes opsets below 18 (torch 2.13)
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        needed = NEEDS_OPSET.search(first)
        if newer and needed is not None and opset < int(needed[1]) <= NEWEST_OPSET:
            return _exported(wrapped, example, opset=int(needed[1]), dynamic_batch=dynamic_batch, newer=True)
        way_out = "" if needed is None else f" (`opset: {needed[1]}` in a profile of your own), or replace the operator"
        raise StageError(f"torch cannot export this model to ONNX opset {opset}: {first}{way_out}") from None
    return onnx.load_model_from_string(buffer.getvalue())


@contextlib.contextmanager
def _no_graph_on_the_terminal() -> Iterator[None]:
    """Where an operator is too new for the set, the exporter prints the whole network, from C++ and past sys.stdout.

    Its log is off by default, and switched on by a slip in its own code (torch 2.13, `setup_onnx_logging`).
    """
    library: Any = torch._C
    log = getattr(library, "_jit_onnx_log", None)
    if log is None:
        yield
        return
    library._jit_onnx_log = lambda *words: None
    try:
        yield
    finally:
        library._jit_onnx_log = log


class _Plain(nn.Module):
    """The exporter trips over a GraphModule with dynamic axes (torch 2.13), and not over what wraps it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


def _folded(module: nn.Module) -> nn.Module:
    """A copy with batch norm folded into the layer before it; where torch cannot trace, the exporter folds."""
    if isinstance(module, fx.GraphModule) or any(isinstance(part, FrozenLayer) for part in module.modules()):
        return module  # quantised: folded already
    try:
        return fuse(module.eval())
    except (fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, ValueError):
        return copy.deepcopy(module)


def _inline_shared_initializers_(model: onnx.ModelProto) -> None:
    """Undo the exporter's Identity nodes between equal constants: runtimes do not see a scale behind them."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    source: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Identity" and (node.input[0] in constants or node.input[0] in source):
            source[node.output[0]] = source.get(node.input[0], node.input[0])
    outputs = {output.name for output in graph.output}
    kept = [node for node in graph.node if not (node.op_type == "Identity" and node.output[0] in source)]
    if outputs & source.keys():
        return
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = source.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)
