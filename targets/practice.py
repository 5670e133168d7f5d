"""A network of identical blocks with random weights: something to measure when the measurement is what is tried."""

from pathlib import Path

import numpy as np

CLASSES = 10
SEED = 0


def write(path: Path, *, blocks: int = 4, channels: int = 32, side: int = 16, batch: int | str = "n") -> Path:
    """An ONNX file: a convolution, then `blocks` times the same convolution with ReLU, then pooling and a matrix.

    All blocks share their shape, so that the work of two networks is to each other as their numbers of blocks, but
    for the few operations before and after. batch: a name leaves it open.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(SEED)

    def weight(name: str, *shape: int) -> None:
        scale = (2 / np.prod(shape[1:])) ** 0.5  # keeps the size of activations from block to block (He et al., 2015)
        constants.append(numpy_helper.from_array(rng.normal(scale=scale, size=shape).astype(np.float32), name))

    constants: list[TensorProto] = []
    weight("stem", channels, 3, 3, 3)
    nodes = [helper.make_node("Conv", ["input", "stem"], ["block0"], name="stem", pads=[1] * 4)]
    for block in range(1, blocks + 1):
        weight(f"kernel{block}", channels, channels, 3, 3)
        nodes += [
            helper.make_node(
                "Conv", [f"block{block - 1}", f"kernel{block}"], [f"sum{block}"], name=f"conv{block}", pads=[1] * 4
            ),
            helper.make_node("Relu", [f"sum{block}"], [f"block{block}"], name=f"relu{block}"),
        ]
    weight("matrix", channels, CLASSES)
    nodes += [
        helper.make_node("GlobalAveragePool", [f"block{blocks}"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "matrix"], ["output"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "practice",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
