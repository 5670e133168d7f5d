"""What an ONNX file takes, read from the file, and random samples of it: latency does not depend on what they show."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import RecipeError
from .sessions import Array

SAMPLES = 4
SEED = 0


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """shape: with a batch of 1. vocabulary: how many tokens there are; None: the input are no tokens, but numbers.

    Two files take the same input whatever they call it and whichever batches they take.
    """

    shape: tuple[int, ...]
    vocabulary: int | None = None
    name: str = field(compare=False)
    has_open_batch: bool = field(compare=False)

    def random(self) -> Array:
        """A few samples: tokens, or normally distributed numbers, since zeros are faster than images on some CPUs."""
        generator = np.random.default_rng(SEED)
        shape = (SAMPLES, *self.shape[1:])
        if self.vocabulary is None:
            return generator.standard_normal(shape).astype(np.float32)
        return generator.integers(min(1, self.vocabulary - 1), self.vocabulary, shape)  # 0 is the padding, mostly

    def words(self) -> str:
        """For errors: `1x3x32x32 float32`."""
        return f"{'x'.join(map(str, self.shape))} {'float32' if self.vocabulary is None else 'int64'}"


def read(path: Path) -> ModelInput:
    """The one input of an ONNX file. RecipeError: no such file, or another input than edgepress can feed."""
    return of(load(path), path)


def load(path: Path) -> Any:
    """An ONNX file without the weights that lie beside it. RecipeError: it is none."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise RecipeError(f"no file {path}")
    try:
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except (OSError, DecodeError) as error:
        raise RecipeError(f"{path} is not an ONNX file: {error}") from None


def of(model: Any, path: Path) -> ModelInput:
    """The one input of a loaded model. path: for errors. RecipeError: as `read`."""
    import onnx

    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1:
        raise RecipeError(f"{path} has {len(inputs)} inputs; one is supported")
    name, kind = inputs[0].name, inputs[0].type.tensor_type
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64):
        raise RecipeError(f"{path}: the input is neither float32 nor int64 (tokens); export it with one of them")
    sizes = [dimension.dim_value for dimension in kind.shape.dim]
    if any(size <= 0 for size in sizes[1:]):
        raise RecipeError(f"{path}: the input's shape is open beyond the batch; export it with fixed sizes")
    return ModelInput(
        shape=(1, *sizes[1:]),
        vocabulary=_vocabulary(model, name) if kind.elem_type == onnx.TensorProto.INT64 else None,
        name=name,
        has_open_batch=not kind.shape.dim[0].HasField("dim_value"),
    )


def _vocabulary(model: Any, name: str) -> int:
    """What the exporter wrote into the file, or else the rows of the embedding that the input picks from."""
    told = {entry.key: entry.value for entry in model.metadata_props}.get("preprocessing")
    if told is not None and isinstance(facts := json.loads(told), dict) and "vocabulary" in facts:
        return int(facts["vocabulary"])
    rows = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    picked = [rows[node.input[0]] for node in model.graph.node if node.op_type == "Gather" and node.input[1] == name
              and node.input[0] in rows]  # fmt: skip
    return min(picked, default=1)
