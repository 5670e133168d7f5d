"""The networks of published latencies, as ONNX graphs of shapes without weights: enough to count what a GPU does.

Layer by layer as in torchvision, YOLO11 as ultralytics has it, MobileNet v1 as in its paper; a test compares their
multiply-accumulates and parameters with the published ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper


class Net:
    """A graph that grows; every method takes and returns names of tensors."""

    def __init__(self, side: int) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.side, self.channels = side, {"input": 3}

    def op(self, kind: str, *inputs: str, channels: int, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        self.channels[name] = channels
        return name

    def _weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)  # nothing reads its values
        self.weights.append(tensor)
        return name

    def constant(self, values: Sequence[int], *, kind: int = TensorProto.INT64) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(helper.make_tensor(name, kind, [len(values)], values))
        return name

    def conv(self, x: str, out: int, size: int, *, stride: int = 1, pad: int | None = None, groups: int = 1) -> str:
        inputs, pad = self.channels[x], size // 2 if pad is None else pad
        weight = self._weight(out, inputs // groups, size, size)
        return self.op("Conv", x, weight, channels=out, kernel_shape=[size] * 2, strides=[stride] * 2,
                       pads=[pad] * 4, group=groups)  # fmt: skip

    def relu(self, x: str) -> str:
        return self.op("Relu", x, channels=self.channels[x])

    def conv_relu(self, x: str, out: int, size: int, **settings: Any) -> str:
        return self.relu(self.conv(x, out, size, **settings))

    def norm_relu(self, x: str) -> str:
        count = self.channels[x]
        return self.relu(self.op("BatchNormalization", x, *(self._weight(count) for _ in range(4)), channels=count))

    def pool(self, x: str, size: int, stride: int, pad: int = 0, *, kind: str = "MaxPool", up: int = 0) -> str:
        return self.op(kind, x, channels=self.channels[x], kernel_shape=[size] * 2, strides=[stride] * 2,
                       pads=[pad] * 4, ceil_mode=up)  # fmt: skip

    def add(self, x: str, y: str) -> str:
        return self.op("Add", x, y, channels=self.channels[x])

    def cat(self, *parts: str) -> str:
        return self.op("Concat", *parts, channels=sum(self.channels[part] for part in parts), axis=1)

    def linear(self, x: str, inputs: int, out: int) -> str:
        return self.op("Gemm", x, self._weight(out, inputs), channels=out, transB=1)

    def flat(self, x: str) -> str:
        return self.op("Flatten", x, channels=self.channels[x])

    def head(self, x: str, classes: int = 1000) -> str:
        pooled = self.op("GlobalAveragePool", x, channels=self.channels[x])
        return self.linear(self.flat(pooled), self.channels[x], classes)

    def model(self, output: str) -> Any:
        taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, self.side, self.side])
        given = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [taken], [given], self.weights)
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def resnet(net: Net, blocks: Sequence[int], *, bottleneck: bool) -> str:
    x = net.pool(net.conv_relu("input", 64, 7, stride=2), 3, 2, 1)
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        out = 4 * width if bottleneck else width
        for index in range(count):
            stride = 2 if stage and not index else 1
            skip = x if net.channels[x] == out and stride == 1 else net.conv(x, out, 1, stride=stride)
            if bottleneck:
                y = net.conv(net.conv_relu(net.conv_relu(x, width, 1), width, 3, stride=stride), out, 1)
            else:
                y = net.conv(net.conv_relu(x, width, 3, stride=stride), out, 3)
            x = net.relu(net.add(y, skip))
    return net.head(x)


def vgg(net: Net, counts: Sequence[int]) -> str:
    x = "input"
    for width, count in zip((64, 128, 256, 512, 512), counts, strict=True):
        for _ in range(count):
            x = net.conv_relu(x, width, 3)
        x = net.pool(x, 2, 2)
    x = net.relu(net.linear(net.flat(x), 512 * 7 * 7, 4096))
    return net.linear(net.relu(net.linear(x, 4096, 4096)), 4096, 1000)


def alexnet(net: Net) -> str:
    x = net.pool(net.conv_relu("input", 64, 11, stride=4, pad=2), 3, 2)
    x = net.pool(net.conv_relu(x, 192, 5), 3, 2)
    x = net.conv_relu(net.conv_relu(net.conv_relu(x, 384, 3), 256, 3), 256, 3)
    x = net.relu(net.linear(net.flat(net.pool(x, 3, 2)), 256 * 6 * 6, 4096))
    return net.linear(net.relu(net.linear(x, 4096, 4096)), 4096, 1000)


def squeezenet(net: Net, *, older: bool) -> str:
    def fire(x: str, squeeze: int, expand: int) -> str:
        x = net.conv_relu(x, squeeze, 1)
        return net.cat(net.conv_relu(x, expand, 1), net.conv_relu(x, expand, 3))

    first = net.conv_relu("input", 96, 7, stride=2, pad=0) if older else net.conv_relu("input", 64, 3, stride=2, pad=0)
    x = net.pool(first, 3, 2, up=1)
    pools = (2, 6) if older else (1, 3)
    for place, (squeeze, expand) in enumerate(
        ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
    ):
        x = fire(x, squeeze, expand)
        if place in pools:
            x = net.pool(x, 3, 2, up=1)
    return net.flat(net.op("GlobalAveragePool", net.conv_relu(x, 1000, 1), channels=1000))


def densenet(net: Net, blocks: Sequence[int], *, growth: int = 32, first: int = 64) -> str:
    x = net.pool(net.conv_relu("input", first, 7, stride=2), 3, 2, 1)
    for stage, count in enumerate(blocks):
        for _ in range(count):
            y = net.conv_relu(net.norm_relu(x), 4 * growth, 1)
            x = net.cat(x, net.conv(y, growth, 3))
        if stage < len(blocks) - 1:
            x = net.pool(net.conv(net.norm_relu(x), net.channels[x] // 2, 1), 2, 2, kind="AveragePool")
    return net.head(net.norm_relu(x))


def inverted(net: Net, x: str, out: int, *, size: int, stride: int, expand: int) -> str:
    """An inverted residual block, as in MobileNet v2 and MnasNet."""
    inputs = net.channels[x]
    y = x if expand == 1 else net.conv_relu(x, inputs * expand, 1)
    y = net.conv_relu(y, net.channels[y], size, stride=stride, groups=net.channels[y])
    y = net.conv(y, out, 1)
    return net.add(y, x) if stride == 1 and inputs == out else y


def mobilenet_v2(net: Net) -> str:
    x = net.conv_relu("input", 32, 3, stride=2)
    for expand, out, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for index in range(count):
            x = inverted(net, x, out, size=3, stride=stride if not index else 1, expand=expand)
    return net.head(net.conv_relu(x, 1280, 1))


def mobilenet_v1(net: Net) -> str:
    x = net.conv_relu("input", 32, 3, stride=2)
    for out, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ):
        x = net.conv_relu(x, net.channels[x], 3, stride=stride, groups=net.channels[x])
        x = net.conv_relu(x, out, 1)
    return net.head(x)


def mnasnet(net: Net, alpha: float) -> str:
    def wide(channels: int) -> int:
        scaled = max(8, int(channels * alpha + 4) // 8 * 8)
        return scaled + 8 if scaled < 0.9 * channels * alpha else scaled

    x = net.conv_relu("input", wide(32), 3, stride=2)
    x = net.conv(net.conv_relu(x, wide(32), 3, groups=wide(32)), wide(16), 1)
    for size, stride, expand, out, count in (
        (3, 2, 3, 24, 3), (5, 2, 3, 40, 3), (5, 2, 6, 80, 3), (3, 1, 6, 96, 2), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
    ):  # fmt: skip
        for index in range(count):
            x = inverted(net, x, wide(out), size=size, stride=stride if not index else 1, expand=expand)
    return net.head(net.conv_relu(x, 1280, 1))


def swish(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", x, channels=net.channels[x]), channels=net.channels[x])


class Yolo11:
    """YOLO11 for 80 classes (ultralytics, cfg/models/11/yolo11.yaml), up to the answers of its three heads."""

    def __init__(self, net: Net, *, depth: float, width: float, most: int, heavy: bool) -> None:
        self.net, self.depth, self.width, self.most, self.heavy = net, depth, width, most, heavy

    def wide(self, channels: int) -> int:
        return math.ceil(min(channels, self.most) * self.width / 8) * 8

    def conv(self, x: str, out: int, size: int = 1, *, stride: int = 1, groups: int = 1) -> str:
        return swish(self.net, self.net.conv(x, out, size, stride=stride, groups=groups))

    def halves(self, x: str, out: int) -> tuple[str, str]:
        made = self.conv(x, 2 * out)
        names = [f"{made}_{half}" for half in "ab"]
        self.net.nodes.append(helper.make_node("Split", [made], names, name=f"split_{made}", axis=1))
        self.net.channels.update(dict.fromkeys(names, out))
        return names[0], names[1]

    def bottleneck(self, x: str, *, shrink: float) -> str:
        count = self.net.channels[x]
        return self.net.add(self.conv(self.conv(x, int(count * shrink), 3), count, 3), x)

    def c3k(self, x: str) -> str:
        count = self.net.channels[x]
        y = self.conv(x, count // 2)
        for _ in range(2):
            y = self.bottleneck(y, shrink=1.0)
        return self.conv(self.net.cat(y, self.conv(x, count // 2)), count)

    def c3k2(self, x: str, out: int, *, deep: bool, share: float = 0.5) -> str:
        out = self.wide(out)
        parts = list(self.halves(x, int(out * share)))
        for _ in range(max(round(2 * self.depth), 1)):
            last = parts[-1]
            parts.append(self.c3k(last) if deep or self.heavy else self.bottleneck(last, shrink=0.5))
        return self.conv(self.net.cat(*parts), out)

    def pooled(self, x: str) -> str:
        count = self.net.channels[x]
        parts = [self.conv(x, count // 2)]
        for _ in range(3):
            parts.append(self.net.pool(parts[-1], 5, 1, 2))
        return self.conv(self.net.cat(*parts), count)

    def attended(self, x: str) -> str:
        """C2PSA."""
        net, count = self.net, self.net.channels[x]
        left, right = self.halves(x, count // 2)
        dim, pixels = count // 2, (net.side // 32) ** 2
        for _ in range(max(round(2 * self.depth), 1)):
            mixed = net.conv(right, 2 * dim, 1)  # queries and keys of half the size of values
            heads = dim // 64
            shape = net.constant([1, heads, 128, pixels])
            cut = net.op("Reshape", mixed, shape, channels=2 * dim)
            names = [f"{mixed}_{part}" for part in "qkv"]
            sizes = net.constant([32, 32, 64])
            net.nodes.append(helper.make_node("Split", [cut, sizes], names, name=f"split_{mixed}", axis=2))
            turned = net.op("Transpose", names[0], channels=dim, perm=[0, 1, 3, 2])
            weights = net.op("Softmax", net.op("MatMul", turned, names[1], channels=dim), channels=dim, axis=-1)
            back = net.op("Transpose", weights, channels=dim, perm=[0, 1, 3, 2])
            found = net.op("MatMul", names[2], back, channels=dim)
            plane = net.constant([1, dim, net.side // 32, net.side // 32])
            values = net.op("Reshape", names[2], plane, channels=dim)
            found = net.add(net.op("Reshape", found, plane, channels=dim), net.conv(values, dim, 3, groups=dim))
            right = net.add(right, net.conv(found, dim, 1))
            right = net.add(right, net.conv(self.conv(right, 2 * dim), dim, 1))
        return self.conv(net.cat(left, right), count)

    def head(self, x: str, first: int) -> str:
        boxes, classes = max(16, first // 4, 64), max(first, 80)
        y = self.net.conv(self.conv(self.conv(x, boxes, 3), boxes, 3), 64, 1)
        count = self.net.channels[x]
        z = self.conv(self.conv(x, count, 3, groups=count), classes)
        z = self.conv(self.conv(z, classes, 3, groups=classes), classes)
        return self.net.cat(y, self.net.conv(z, 80, 1))

    def larger(self, x: str) -> str:
        scales = self.net.constant([1, 1, 2, 2], kind=TensorProto.FLOAT)
        return self.net.op("Resize", x, "", scales, channels=self.net.channels[x])

    def all(self) -> str:
        net, wide = self.net, self.wide
        x = self.conv(self.conv("input", wide(64), 3, stride=2), wide(128), 3, stride=2)
        x = self.conv(self.c3k2(x, 256, deep=False, share=0.25), wide(256), 3, stride=2)
        eighth = self.c3k2(x, 512, deep=False, share=0.25)
        sixteenth = self.c3k2(self.conv(eighth, wide(512), 3, stride=2), 512, deep=True)
        x = self.c3k2(self.conv(sixteenth, wide(1024), 3, stride=2), 1024, deep=True)
        deepest = self.attended(self.pooled(x))
        middle = self.c3k2(net.cat(self.larger(deepest), sixteenth), 512, deep=False)
        fine = self.c3k2(net.cat(self.larger(middle), eighth), 256, deep=False)
        down = self.conv(fine, wide(256), 3, stride=2)
        half = self.c3k2(net.cat(down, middle), 512, deep=False)
        down = self.conv(half, wide(512), 3, stride=2)
        coarse = self.c3k2(net.cat(down, deepest), 1024, deep=True)
        heads = [self.head(x, net.channels[fine]) for x in (fine, half, coarse)]
        return net.cat(*(net.op("Reshape", x, net.constant([1, 144, -1]), channels=144) for x in heads))


def yolo11(depth: float, width: float, most: int, *, heavy: bool) -> Callable[[Net], str]:
    return lambda net: Yolo11(net, depth=depth, width=width, most=most, heavy=heavy).all()


NETS: dict[str, Callable[[Net], str]] = {
    "alexnet": alexnet,
    "densenet121": lambda net: densenet(net, (6, 12, 24, 16)),
    "densenet161": lambda net: densenet(net, (6, 12, 36, 24), growth=48, first=96),
    "densenet169": lambda net: densenet(net, (6, 12, 32, 32)),
    "densenet201": lambda net: densenet(net, (6, 12, 48, 32)),
    "mnasnet0_5": lambda net: mnasnet(net, 0.5),
    "mnasnet0_75": lambda net: mnasnet(net, 0.75),
    "mnasnet1_0": lambda net: mnasnet(net, 1.0),
    "mnasnet1_3": lambda net: mnasnet(net, 1.3),
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": lambda net: resnet(net, (2, 2, 2, 2), bottleneck=False),
    "resnet34": lambda net: resnet(net, (3, 4, 6, 3), bottleneck=False),
    "resnet50": lambda net: resnet(net, (3, 4, 6, 3), bottleneck=True),
    "resnet101": lambda net: resnet(net, (3, 4, 23, 3), bottleneck=True),
    "resnet152": lambda net: resnet(net, (3, 8, 36, 3), bottleneck=True),
    "squeezenet1_0": lambda net: squeezenet(net, older=True),
    "squeezenet1_1": lambda net: squeezenet(net, older=False),
    "vgg11": lambda net: vgg(net, (1, 1, 2, 2, 2)),
    "vgg13": lambda net: vgg(net, (2, 2, 2, 2, 2)),
    "vgg16": lambda net: vgg(net, (2, 2, 3, 3, 3)),
    "vgg19": lambda net: vgg(net, (2, 2, 4, 4, 4)),
    "yolo11n": yolo11(0.5, 0.25, 1024, heavy=False),
    "yolo11s": yolo11(0.5, 0.5, 1024, heavy=False),
    "yolo11m": yolo11(0.5, 1.0, 512, heavy=True),
    "yolo11l": yolo11(1.0, 1.0, 512, heavy=True),
    "yolo11x": yolo11(1.0, 1.5, 512, heavy=True),
}
# Names of the same networks elsewhere; batch norm behind a convolution is folded.
SAME = {f"{name}_bn": name for name in ("vgg11", "vgg13", "vgg16", "vgg19")} | {
    **{f"YOLO11{size}": f"yolo11{size}" for size in "nsmlx"},
    "ResNet50-v1.5": "resnet50",
    "resnet_v1_50": "resnet50",
    "resnet_v1_101": "resnet101",
    "resnet_v1_152": "resnet152",
    "mobilenet_v1_1.0": "mobilenet_v1",
    "mobilenet_v1_1p0_224": "mobilenet_v1",
}


def build(name: str) -> Any:
    net = Net(640 if name.startswith("yolo") else 224)
    return net.model(NETS[name](net))
