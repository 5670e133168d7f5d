"""What trtexec wrote on real machines is read completely; what is cut off or mangled never raises a surprise."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from data_folders import needed
from hypothesis import given
from hypothesis import strategies as st

from edgepress.targets.errors import StageError
from edgepress.targets.tensorrt_tool import advice, files, log, tegrastats

LINE = (
    "[07/25/2022-16:43:25] [I] GPU Compute Time: min = 5.87982 ms, max = 6.47681 ms, mean = 6.00728 ms, "
    "median = 5.94946 ms, percentile(99%) = 6.47375 ms"
)


@pytest.fixture(scope="module")
def logs() -> Path:
    return needed("trtexec")


def test_a_log_of_8_2_is_read_completely(logs: Path) -> None:
    found = log.read((logs / "trt8205_qat-ptq-workflow_1.log").read_text())
    assert (found.state, found.version, found.build) == ("passed", "8.2.5", None)
    assert found.command == "trtexec --onnx=models/mobilenetv2_base.onnx --saveEngine=models/mobilenetv2_base.trt"
    assert found.facts["device"] == "NVIDIA Graphics Device"
    assert (found.facts["compute_capability"], found.facts["multiprocessors"]) == ("8.0", 124)
    assert found.facts["clock_ghz"] == 1.005
    assert found.facts["memory_mb"] == 47681
    assert found.facts["built_s"] == 59.1433
    assert found.facts["activation_bytes"] == 449576960
    assert found.facts["throughput_per_s"] == 166.041
    assert found.facts["walltime_s"] == 3.01732
    assert set(found.summary) == set(log.SUMMARY)
    compute = found.summary["GPU Compute Time"]
    assert (compute.minimum, compute.maximum, compute.mean, compute.median) == (5.87982, 6.47681, 6.00728, 5.94946)
    assert compute.percentiles == {99.0: 6.47375}


def test_a_log_of_10_16_has_three_percentiles_and_its_warnings(logs: Path) -> None:
    found = log.read((logs / "cookbook_trt10x_result-01.log").read_text())
    assert (found.state, found.version, found.build) == ("passed", "10.16.1", "b11")
    assert found.facts["device"] == "NVIDIA H100 PCIe"
    assert found.facts["engine_mb"] == 12.5744
    assert found.facts["context_mb"] == 0.119629
    assert found.facts["weight_bytes"] == 13100672
    assert found.facts["clock_ghz"] == 1.755
    assert set(found.summary) == set(log.SUMMARY) - {"End-to-End Host Latency"}
    assert all(sorted(spread.percentiles) == [90.0, 95.0, 99.0] for spread in found.summary.values())
    assert any("GPU compute time is unstable" in warning for warning in found.warnings)
    assert any("lock-clocks" in text for text in advice.advise(found.warnings))


def test_every_log_there_is_passes_and_has_figures_and_a_device(logs: Path) -> None:
    texts = {path.name: log.read(path.read_text(errors="replace")) for path in logs.glob("*.log")}
    assert len(texts) >= 4
    for name, found in texts.items():
        assert found.state == "passed", name
        assert found.summary["GPU Compute Time"].median > 0, name
        assert found.facts["throughput_per_s"] > 0, name  # type: ignore[operator]
        assert found.facts["device"], name
        assert found.version in {"8.2.5", "10.16.1"}, name
        lines = (logs / name).read_text(errors="replace").splitlines()
        assert len(found.warnings) == len({line.split("] [W] ")[1].strip() for line in lines if "] [W] " in line}), name


def test_samples_profile_and_layers_of_a_real_engine_are_read(logs: Path) -> None:
    stem = "trex84_A100_fp32_resnet.onnx.engine"
    text = (logs / f"{stem}.timing.json").read_text()
    every, measured = files.samples(text, warmup_ms=0), files.samples(text, warmup_ms=200)
    assert len(every.compute_ms) == len(json.loads(text))
    assert len(measured.compute_ms) < len(every.compute_ms)
    assert min(measured.started_ms) >= 200
    told = json.loads((logs / f"{stem}.profile.metadata.json").read_text())["performance_summary"]["GPU Compute Time"]
    ordered = sorted(measured.compute_ms)
    assert ordered[len(ordered) // 2] == pytest.approx(told[3], rel=0.01)
    layers = files.layer_times((logs / f"{stem}.profile.json").read_text())
    assert layers[0] == files.LayerTime(name="Conv_0 + Relu_1", ms=0.52224)
    assert len(layers) == len(json.loads((logs / f"{stem}.profile.json").read_text())) - 1


def test_every_line_of_real_tegrastats_is_read(logs: Path) -> None:
    lines = (logs / "orin_nano_jp62_tegrastats.txt").read_text().splitlines()
    found = [tegrastats.read(line) for line in lines if "RAM" in line]
    assert len(found) >= 30
    for reading in found:
        assert reading is not None
        assert reading.ram_mb == 7607
        assert 4000 < (reading.total_power_mw or 0) < 30000
        assert 20 < reading.temperatures_c["gpu"] < 90
        assert reading.gpu_mhz is not None


@pytest.mark.parametrize(
    ("line", "gpu", "watts"),
    [
        ("RAM 2448/3964MB (lfb 2x1MB) SWAP 0/1982MB CPU [5%@102] GR3D_FREQ 99%@921 GPU@22.5C POM_5V_IN 4933/4933", (99, 921), 4933),
        ("01-01-2026 RAM 1/2MB GR3D_FREQ @[1000,1000,1000] gpu@40C VDD_GPU 900mW/900mW", (None, 1000), None),
    ],
)  # fmt: skip
def test_tegrastats_of_other_releases_are_read(line: str, gpu: tuple[int | None, int], watts: int | None) -> None:
    found = tegrastats.read(line)
    assert found is not None
    assert (found.gpu_percent, found.gpu_mhz) == gpu
    assert found.total_power_mw == watts


def test_the_total_is_not_taken_for_the_time_of_an_inference() -> None:
    found = log.read(LINE + "\n[07/25/2022-16:43:25] [I] Total GPU Compute Time: 3.01 s\n")
    assert list(found.summary) == ["GPU Compute Time"]
    assert found.summary["GPU Compute Time"].median == 5.94946


@pytest.mark.parametrize(
    ("code", "version"),
    [("8201", "8.2.1"), ("8502", "8.5.2"), ("8601", "8.6.1"), ("100300", "10.3.0"), ("101601", "10.16.1"), ("110100", "11.1.0")],
)  # fmt: skip
def test_version_codes_of_both_widths_are_read(code: str, version: str) -> None:
    assert log.read(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{code}] # trtexec").version == version


def test_a_run_that_never_ended_is_running() -> None:
    assert log.read("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec\n" + LINE).state == "running"


@given(st.text())
def test_any_text_is_a_log(text: str) -> None:
    log.read(text)
    tegrastats.read(text)


@pytest.mark.parametrize("seed", range(40))
def test_truncated_and_mangled_output_is_an_error_or_a_result(logs: Path, seed: int) -> None:
    rng = random.Random(seed)
    for path in sorted(logs.glob("*")):
        text = path.read_text(errors="replace")[: rng.randrange(1, 60_000)]
        letters = list(text)
        for _ in range(rng.randrange(30)):
            letters[rng.randrange(len(letters))] = rng.choice('{}[]",:\\\n\0é0-')
        mangled = "".join(letters)
        log.read(mangled)
        for reader in (lambda text: files.samples(text, warmup_ms=1), files.layer_times, files.engine_layers):
            try:
                reader(mangled)
            except StageError as error:
                assert str(error)  # noqa: PT017


def test_a_profile_with_unescaped_names_and_no_time_is_read() -> None:
    text = '[\n  { "count" : 2 }\n, { "name" : "a "b" \\c", "timeMs" : 1.0, "averageMs" : 0.5, "percentage" : nan }\n]'
    assert files.layer_times(text) == (files.LayerTime(name='a "b" \\c', ms=0.5),)


def test_an_engine_tells_what_its_layers_compute_in() -> None:
    def layer(name: str, entry: str, leaving: str) -> dict[str, object]:
        return {
            "Name": name, "LayerType": "CaskConvolution", "ParameterType": "Convolution", "TacticValue": "0x1",
            "Inputs": [{"Name": "x", "Format/Datatype": entry}], "Outputs": [{"Name": "y", "Format/Datatype": leaving}],
        }  # fmt: skip

    vectorized = "Thirty-two wide channel vectorized row major Int8 format"
    found = files.engine_layers(
        json.dumps(
            {"Layers": [layer("a", vectorized, vectorized), layer("b", vectorized, "Row major linear FP32"), "c"]}
        )
    )
    assert [one.precision for one in found] == ["int8", "mixed", "not told"]
    assert found[0].kind == "Convolution"


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("Error Code 9: Internal Error (Networks with QuantizeLayer/DequantizeLayer layers require hardware with Int8 support.)", "FP16"),
        ("[TRT] Int8 support requested on hardware without native Int8 support, performance will be negatively affected.", "no INT8 units"),
        ("Unknown option: --fp16", "TensorRT 11"),
        ("Cuda Runtime (out of memory)", "swap file"),
        ("TRT only supports symmetric quantization - zeroPt must be all zeros", "symmetric"),
        ("Scale coefficients must all be positive", "floor"),
        ("Could not find any implementation for node Conv_3.", "workspace"),
    ],
)  # fmt: skip
def test_known_messages_are_met_with_advice(message: str, word: str) -> None:
    (text,) = advice.advise([message])
    assert word in text
