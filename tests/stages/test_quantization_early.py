"""Values are rounded where the runtime can write them as bytes: before a pool or a concatenation, with equal answers."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgepress.stages.comparison import sqnr_db
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization import frozen
from edgepress.stages.quantization.layers import ActivationRounding, RoundedLayer
from edgepress.stages.quantization.prepare import prepare, rounding_before, roundings
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Flavour, Scheme

FLAVOURS: tuple[Flavour, ...] = ("openvino", "ort-u8")
IMAGES = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
OPENVINO = Scheme(flavour="openvino")


class Fire(nn.Module):
    """As in SqueezeNet: two convolutions side by side, concatenated and pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(3, 8, 1)
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        both = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        return self.last(self.pool(both))  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """As in single-stage detectors: a value, and three poolings of it, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool, self.last = nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 1, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        once = self.pool(x)
        twice = self.pool(once)
        return self.last(torch.cat((x, once, twice, self.pool(twice)), 1))  # type: ignore[no-any-return]


class Inception(nn.Module):
    """What is concatenated is read as it is, and pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.straight, self.pooled = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((F.relu(self.a(x)), F.relu(self.b(x))), 1)
        return self.straight(x) + self.pooled(F.max_pool2d(x, 3, 1, 1))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Dropout, flattening and a larger copy between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.head = nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Linear(4 * 28 * 28, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(torch.sigmoid(self.conv(x)), scale_factor=2, mode="nearest")
        return self.head(torch.flatten(self.drop(x), 1))  # type: ignore[no-any-return]


NETS = (Fire, Pyramid, Inception, Head)


def calibrated(module: nn.Module, scheme: Scheme) -> fx.GraphModule:
    prepared = prepare(module, scheme)
    calibrate_(prepared, [IMAGES])
    assert isinstance(prepared, fx.GraphModule)
    return prepared.eval()


def nodes(module: nn.Module, folder: Path, *, scheme: Scheme) -> tuple[onnx.GraphProto, dict[str, list[str]]]:
    """The exported graph, and of each value the kinds of nodes that read it."""
    path = folder / "net.onnx"
    write_onnx(
        frozen.freeze(module, scheme), path, example=IMAGES[:1], opset=17, dynamic_batch=False, metadata={}
    )  # fmt: skip
    graph = onnx.load(str(path)).graph
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    return graph, readers


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("make", NETS)
def test_answers_stay_the_same_to_the_last_bit(
    make: type[nn.Module], flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    scheme = Scheme(flavour=flavour)
    prepared = calibrated(make(), scheme)
    early = frozen.freeze(prepared, scheme)
    monkeypatch.setattr(frozen, "round_early_", lambda *_: None)
    late = frozen.freeze(prepared, scheme)
    with torch.no_grad():
        assert torch.equal(early(IMAGES), late(IMAGES))


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("make", NETS)
def test_what_a_layer_gives_is_rounded_at_once_and_once(
    make: type[nn.Module], flavour: Flavour, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = make()
    graph, readers = nodes(calibrated(module, Scheme(flavour=flavour)), tmp_path, scheme=Scheme(flavour=flavour))
    answers = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type in ("MaxPool", "Resize", "Flatten"):  # bytes in, bytes out
            (given,) = [one for one in graph.node if node.input[0] in one.output]
            assert given.op_type in ("DequantizeLinear", "MaxPool", "Resize", "Flatten", "Concat"), node.name
        if node.op_type == "Conv" and node.output[0] not in answers:
            name = node.output[0]
            while readers[name] in (["Relu"], ["Sigmoid"]):
                name = next(one.output[0] for one in graph.node if name in one.input)
            if readers[name] != ["Add"]:  # which OpenVINO adds to the sums
                assert readers[name] == ["QuantizeLinear"], node.name


def test_openvino_pools_and_concatenates_bytes(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    nodes(calibrated(Fire(), OPENVINO), tmp_path, scheme=OPENVINO)
    compiled = openvino.Core().compile_model(str(tmp_path / "net.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kinds[info["layerType"].astype(str)] = info["outputPrecisions"].astype(str)
    assert kinds["Pooling"] == kinds["Concatenation"] == "u8"


def test_the_rounding_before_a_layer_is_found_on_the_other_side_of_a_pool() -> None:
    for flavour in FLAVOURS:
        prepared = calibrated(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)),
                              Scheme(flavour=flavour))  # fmt: skip
        found = rounding_before(prepared)
        assert found.keys() == {"0", "3"}
        assert all(isinstance(part, ActivationRounding) for part in found.values())
        assert len(roundings(prepared)) == 2  # the image and the ReLU: none of its own for the pool


def test_tensorrt_finds_roundings_right_before_its_layers(tmp_path: Path) -> None:
    scheme = Scheme(flavour="trt")
    graph, _ = nodes(calibrated(Fire(), scheme), tmp_path, scheme=scheme)
    for node in graph.node:
        if node.op_type == "Conv":
            (given,) = [one for one in graph.node if node.input[0] in one.output]
            assert given.op_type == "DequantizeLinear"


class Read(nn.Module):
    """The pooled values are also the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        return x, self.second(x)


def test_what_somebody_else_reads_in_float_stays_in_float() -> None:
    prepared = calibrated(Read(), OPENVINO)
    with torch.no_grad():
        wanted, got = prepared(IMAGES)[0], frozen.freeze(prepared, OPENVINO)(IMAGES)[0]
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert len(got.unique()) > 256


class Stem(nn.Module):
    """As in ResNets: what is pooled goes into a convolution and around it. Two linear layers end it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.hidden, self.head = nn.Linear(8 * 8 * 8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = F.relu(self.body(x) + x)
        return self.head(F.dropout(F.relu(self.hidden(torch.flatten(x, 1))), training=self.training))  # type: ignore[no-any-return]


class Squeezed(nn.Module):
    """As in EfficientNet: SiLU, and channels weighed by what a sigmoid makes of their means."""

    def __init__(self, activation: nn.Module | None = None, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.activation = nn.Conv2d(3, 8, 3), nn.SiLU(inplace=True) if activation is None else activation
        self.squeeze, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.gate = nn.Sigmoid() if gate is None else gate
        self.last, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        share = self.expand(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        x = F.silu(self.last(self.gate(share) * x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


SQUEEZED = [
    "QLinearConv", "QLinearSigmoid", "QLinearMul", "QLinearGlobalAveragePool", "QLinearConv", "QLinearConv",
    "QLinearSigmoid", "QLinearMul", "QLinearConv", "QLinearSigmoid", "QLinearMul", "QLinearGlobalAveragePool", "QGemm",
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (Squeezed, SQUEEZED),
        (Stem, ["QLinearConv", "NhwcMaxPool", "QLinearConv", "QLinearAdd", "QGemm", "QGemm"]),
        (
            Fire,
            ["QLinearConv", "QLinearConv", "QLinearConv", "QLinearConcat", "NhwcMaxPool", "Conv"],
        ),  # the answer stays in float
    ],
)
def test_onnx_runtime_computes_everything_in_integers(make: type[nn.Module], wanted: list[str], tmp_path: Path) -> None:
    """A pool that two read and a matrix product with a bias stay in float unless they are spelled out for it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    scheme = Scheme(flavour="ort-u8")
    nodes(calibrated(make(), scheme), tmp_path, scheme=scheme)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), options, providers=["CPUExecutionProvider"])
    found = [node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    carrying = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Flatten", "Reshape"}
    assert [kind for kind in found if kind not in carrying] == wanted
    assert found.count("QuantizeLinear") == 1  # of the image


@pytest.mark.parametrize(("activation", "gate"), [(nn.SiLU(), nn.Sigmoid()), (nn.Hardswish(), nn.Hardsigmoid())])
@pytest.mark.parametrize("flavour", ["trt", *FLAVOURS])
def test_a_network_with_gates_answers_as_before(activation: nn.Module, gate: nn.Module, flavour: Flavour) -> None:
    torch.manual_seed(0)
    module = Squeezed(activation, gate).eval()
    prepared = calibrated(module, Scheme(flavour=flavour))
    with torch.no_grad():
        wanted = module(IMAGES)
        assert sqnr_db(prepared(IMAGES).numpy(), wanted.numpy()) > 25
        for part in prepared.modules():
            if isinstance(part, (ActivationRounding, RoundedLayer)):
                part.rounding = False
        torch.testing.assert_close(prepared(IMAGES), wanted, atol=1e-5, rtol=1e-5)


def test_a_gate_stays_where_a_loss_can_look_at_it() -> None:
    """One module that is called twice, too."""
    activation = nn.SiLU()
    module = nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 4, 1), activation, nn.Conv2d(4, 4, 1)).eval()
    prepared = calibrated(module, Scheme(flavour="ort-u8"))
    seen: list[Tensor] = []
    prepared.get_submodule("1").register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        prepared(IMAGES)
        wanted = activation(module[0](IMAGES))
    assert len(seen) == 2
    assert sqnr_db(seen[0].numpy(), wanted.numpy()) > 25
    assert not any(isinstance(part, nn.SiLU) for part in prepared.modules())


def test_gates_of_layers_that_stay_in_float_stay_there_too() -> None:
    module = Squeezed()
    every = {name for name, part in module.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))}
    prepared = prepare(module, Scheme(flavour="ort-u8", exclude=tuple(every - {"head"})))
    assert len(roundings(prepared)) == 1  # of what the head is given


def test_what_may_be_negative_is_not_rounded_as_if_it_could_not() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.b(F.relu(self.a(x)) * -0.5))
            return self.c(x + -1.0)  # type: ignore[no-any-return]

    for flavour in FLAVOURS:
        before = rounding_before(prepare(Shifted(), Scheme(flavour=flavour)))
        assert before["b"].grid != "unsigned"
        assert before["c"].grid != "unsigned"


@pytest.mark.parametrize(
    "between",
    [
        nn.AvgPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.GELU(),
        nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (14, 14))),
    ],
)
def test_what_makes_new_values_is_not_passed(between: nn.Module, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), between, nn.Conv2d(4, 4, 1))
    graph, readers = nodes(calibrated(module, OPENVINO), tmp_path, scheme=OPENVINO)
    first = next(node for node in graph.node if node.op_type == "Conv")
    assert readers[first.output[0]] != ["QuantizeLinear"]
