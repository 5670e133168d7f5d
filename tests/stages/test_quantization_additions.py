"""Which operands of residual additions are rounded follows from what is timed on the target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from nets import artifact, context, net, with_float_biases
from probers import FakeProber, Law
from torch import Tensor, nn

from edgepress.stages.comparison import sqnr_db
from edgepress.stages.quantization import frozen
from edgepress.stages.quantization.additions import KEPT, Additions, with_faster_additions
from edgepress.stages.quantization.prepare import prepare, roundings
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Scheme
from edgepress.stages.quantize import Quantize
from edgepress.stages.slimming.forms import forms
from edgepress.targets.errors import UnreachableError
from edgepress.targets.runtimes import target

OPENVINO = Scheme(flavour="openvino")
BOTH = replace(OPENVINO, additions="both")
IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def rounded_values(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


def faster_with(more: float) -> Law:
    """Each rounding of a value changes the time by so much, as a share."""
    return lambda model: (1 + more) ** rounded_values(model)


def chosen(work: Path, prober: FakeProber, *, module: nn.Module | None = None, scheme: Scheme = OPENVINO) -> Additions:
    around = replace(context(work), prober=prober)
    return with_faster_additions(net() if module is None else module, scheme, around, [IMAGES])


@pytest.mark.parametrize(("more", "wanted"), [(-0.1, "both"), (0.1, "skip"), (0.001, "skip"), (-0.001, "skip")])
def test_both_operands_are_rounded_where_that_is_surely_faster(tmp_path: Path, more: float, wanted: str) -> None:
    found = chosen(tmp_path, FakeProber(law=faster_with(more)))
    assert found.scheme == replace(OPENVINO, additions=wanted)
    assert found.seen is not None
    assert (found.seen.value > 1) == (more < 0)


def test_the_choice_is_timed_once_for_a_network(tmp_path: Path) -> None:
    first, other = FakeProber(law=faster_with(-0.1)), FakeProber(law=faster_with(0.1))
    assert chosen(tmp_path, first) == chosen(tmp_path, other)
    assert (len(first.asked), len(other.asked)) == (1, 0)
    assert chosen(tmp_path, other, module=net(width=8)).scheme == OPENVINO
    assert chosen(tmp_path, other, scheme=replace(OPENVINO, exclude=("head",))).scheme.additions == "skip"
    assert len(other.asked) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"network": 1}', '{"network": "a", "seen": {"value": "b"}}'])
def test_a_broken_file_of_the_choice_is_no_choice(tmp_path: Path, text: str) -> None:
    chosen(tmp_path, FakeProber(law=faster_with(0.1)))
    key = json.loads((tmp_path / KEPT).read_text(encoding="utf-8"))["network"]
    (tmp_path / KEPT).write_text(text.replace('"a"', f'"{key}"'), encoding="utf-8")
    prober = FakeProber(law=faster_with(-0.1))
    assert chosen(tmp_path, prober).scheme == BOTH
    assert len(prober.asked) == 1


def test_nothing_is_timed_where_there_is_nothing_to_choose(tmp_path: Path) -> None:
    prober = FakeProber()
    plain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    assert chosen(tmp_path, prober, module=plain) == Additions(scheme=OPENVINO)
    assert chosen(tmp_path, prober, scheme=replace(OPENVINO, exclude=("stem", "block", "head"))).seen is None
    for flavour in ("ort-u8", "trt"):
        scheme = Scheme(flavour=flavour)  # type: ignore[arg-type]
        assert chosen(tmp_path, prober, scheme=scheme) == Additions(scheme=scheme)
    assert not prober.asked


def test_a_layout_that_does_not_run_is_not_chosen(tmp_path: Path) -> None:
    prober = FakeProber(law=faster_with(-0.1), fails=lambda engine: "no kernel" if engine.name == "both" else None)
    found = chosen(tmp_path, prober)
    assert found.scheme == OPENVINO
    assert "no kernel" in str(found.sentence())
    assert not (tmp_path / KEPT).exists()


def test_a_board_that_is_lost_is_told_of_as_ever(tmp_path: Path) -> None:
    def lost(_engine: object) -> str:
        raise UnreachableError("no answer")

    with pytest.raises(UnreachableError):
        chosen(tmp_path, FakeProber(fails=lost))


def test_ctrl_c_while_layouts_are_timed_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path, FakeProber(stops_at=0))
    assert not (tmp_path / KEPT).exists()


class Added(nn.Module):
    """Sums of two layers, of a layer and what goes around it, and of two values that no layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(width, 8, 3, padding=1) for width in (1, 8, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        both = self.second(x) + self.third(x)
        skip = torch.relu(both) + self.third(torch.relu(both))
        none = torch.tanh(skip) + torch.sigmoid(skip)
        return self.head(none.mean((2, 3)))  # type: ignore[no-any-return]


def test_additions_that_no_layer_feeds_stay_as_they_are() -> None:
    torch.manual_seed(0)
    module = Added().eval()
    # one more in each of the first two sums; the third gets none either way
    assert len(roundings(prepare(module, BOTH))) == len(roundings(prepare(module, OPENVINO))) + 2


def test_with_both_operands_rounded_the_file_computes_what_was_trained() -> None:
    module = net()
    prepared = prepare(module, BOTH).eval()
    calibrate_(prepared, [IMAGES])
    with torch.no_grad():
        simulated, integers = prepared(IMAGES), with_float_biases(frozen.freeze(prepared, BOTH))(IMAGES)
        plain = module(IMAGES)
    assert sqnr_db(integers.numpy(), simulated.numpy()) > 60
    assert sqnr_db(integers.numpy(), plain.numpy()) > 15


def quantized(work: Path, prober: FakeProber | None) -> tuple[Any, list[str]]:
    notes: list[str] = []
    around = replace(context(work), prober=prober, note=notes.append)
    return quantize(Quantize(mode="ptq", fallback=False), artifact(), around), notes


def test_the_stage_trains_and_exports_the_layout_that_was_chosen(tmp_path: Path) -> None:
    found, notes = quantized(tmp_path, FakeProber(law=faster_with(-0.1)))
    assert found.scheme.additions == "both"
    assert len(roundings(found.module)) == len(roundings(prepare(net(), BOTH)))
    told = found.records[-1].metrics["additions"]
    assert told["rounded"] == "both"
    assert told["both_are_faster"]["low"] > 1
    assert any("both operands of residual additions are rounded, which is" in note for note in notes)


def test_the_record_says_both_where_every_value_is_rounded(tmp_path: Path) -> None:
    assert Additions(scheme=Scheme(flavour="ort-u8")).facts()["rounded"] == "both"
    assert Additions(scheme=Scheme(flavour="trt")).sentence() is None
    slower = chosen(tmp_path, FakeProber(law=faster_with(0.1)))
    assert "one operand of residual additions is rounded; with both it would be 0." in str(slower.sentence())


def test_pruning_times_candidates_in_the_layout_that_was_chosen(tmp_path: Path) -> None:
    written: dict[float, int] = {}
    for more in (-0.1, 0.1):
        work = tmp_path / str(more)
        work.mkdir()
        around = replace(context(work), prober=FakeProber(law=faster_with(more)), later={"quantize": Quantize()})
        form = forms(around, net(), IMAGES[:1])["int8"]
        form.write(net(), work / "int8.onnx")
        written[more] = rounded_values(onnx.load(str(work / "int8.onnx")))
    assert written[-0.1] > written[0.1]


@pytest.mark.device
def test_openvino_is_asked_which_layout_is_faster(tmp_path: Path) -> None:
    if missing := target("openvino").unavailable():
        pytest.skip(str(missing))
    found, _ = quantized(tmp_path, None)
    told = found.records[-1].metrics["additions"]
    assert told["failed"] is None
    assert told["both_are_faster"]["low"] <= told["both_are_faster"]["value"] <= told["both_are_faster"]["high"]
    assert (told["rounded"] == "both") == (told["both_are_faster"]["low"] > 1)
