"""A stand-in for trtexec, one version at a time: it takes that version's flags only and writes what that version writes.

It is no model of speed. Engines are ONNX files with a header, answers come from ONNX Runtime, times are drawn. What it
does is set by the environment: FAKE_TRT_CODE (8201, 8601, 100300, 101601, 110100), FAKE_TRT_SM (5.3, 8.7), FAKE_TRT_NEEDS_MB
(workspace that a build takes), FAKE_TRT_TROUBLE (hang, garbage, killed, none).
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

CODE = os.environ.get("FAKE_TRT_CODE", "8201")
NUMBER = int(CODE)
VERSION = (NUMBER // 10_000, NUMBER // 100 % 100) if NUMBER >= 100_000 else (NUMBER // 1000, NUMBER // 100 % 10)
SM = os.environ.get("FAKE_TRT_SM", "8.7")
NEEDS_MB = int(os.environ.get("FAKE_TRT_NEEDS_MB", "0"))
TROUBLE = os.environ.get("FAKE_TRT_TROUBLE", "none")
HEADER = f"fake engine {CODE} {SM}\n".encode()

EVERY = {
    "onnx", "saveEngine", "loadEngine", "shapes", "loadInputs", "exportTimes", "exportOutput", "exportProfile",
    "exportLayerInfo", "dumpProfile", "warmUp", "duration", "iterations", "avgRuns", "profilingVerbosity",
    "timingCacheFile", "separateProfileRun", "noDataTransfers", "useSpinWait", "useCudaGraph", "verbose", "help",
}  # fmt: skip


def known() -> set[str]:
    flags = set(EVERY)
    if VERSION < (11, 0):
        flags |= {"fp16", "int8", "best"}
    else:
        flags |= {"includeDataTransfers", "noCudaGraph", "noSpinWait"}
    flags |= {"workspace", "buildOnly"} if VERSION < (8, 6) else {"skipInference"}
    if VERSION >= (8, 4):
        flags |= {"memPoolSize"}
    if (8, 4) <= VERSION < (10, 0):
        flags |= {"workspace", "buildOnly"}
    return flags


def say(text: str, level: str = "I") -> None:
    print(f"[11/21/2026-12:00:00] [{level}] {text}", flush=True)


def end(word: str, code: int) -> None:
    print(f"&&&& {word} TensorRT.trtexec [TensorRT v{CODE}] # {' '.join(sys.argv)}")
    raise SystemExit(code)


def main() -> None:
    options: dict[str, str] = {}
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    build = " [b7]" if VERSION >= (10, 0) else ""
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{CODE}]{build} # {' '.join(sys.argv)}", flush=True)
    if "help" in options:
        end("PASSED", 0)
    for name, value in options.items():
        if name not in known():
            say(f"Unknown option: --{name} {value}", "E")
            end("FAILED", 1)
    say("=== Device Information ===")
    say(f"Selected Device: {'NVIDIA Tegra X1' if SM == '5.3' else 'Orin'}")
    say(f"Compute Capability: {SM}")
    say(f"TensorRT version: {VERSION[0]}.{VERSION[1]}.{NUMBER % 100}")
    if TROUBLE == "hang":
        time.sleep(600)
    if TROUBLE == "garbage":
        sys.stdout.buffer.write(bytes(range(256)) * 64)
        raise SystemExit(0)
    engine = build_engine(options) if "onnx" in options else load(options["loadEngine"])
    if "buildOnly" not in options and "skipInference" not in options:
        infer(engine, options)
    end("PASSED", 0)


def build_engine(options: dict[str, str]) -> bytes:
    model = Path(options["onnx"]).read_bytes()
    if b"QuantizeLinear" in model and SM in ("5.3", "6.2"):
        say(
            "[TRT] 2: [builder.cpp::buildSerializedNetwork::609] Error Code 9: Internal Error (Networks with "
            "QuantizeLayer/DequantizeLayer layers require hardware with Int8 support.)",
            "E",
        )
        end("FAILED", 1)
    pool = options.get("workspace") or options.get("memPoolSize", "workspace:16").partition(":")[2]
    if TROUBLE == "killed":
        os.kill(os.getpid(), 9)
    if NEEDS_MB and int(pool) > NEEDS_MB:
        say("[TRT] 1: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)", "E")
        end("FAILED", 1)
    if VERSION < (10, 0):
        say("[TRT] Total Activation Memory: 22118400")
    say("Engine built in 1.25 sec.")
    Path(options["saveEngine"]).write_bytes(HEADER + model)
    Path(options.get("timingCacheFile", os.devnull)).write_bytes(b"timings")
    return HEADER + model


def load(path: str) -> bytes:
    engine = Path(path).read_bytes()
    if not engine.startswith(HEADER):
        say(
            "[TRT] 1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization (Version tag does not match)",
            "E",
        )
        end("FAILED", 1)
    return engine


def infer(engine: bytes, options: dict[str, str]) -> None:
    quantized = b"QuantizeLinear" in engine
    warmup_ms, seconds = float(options.get("warmUp", "200")), float(options.get("duration", "3"))
    base = (1.0 if quantized else 2.0) * (1 + len(engine) / 1e7)
    rng, clock, times = random.Random(len(engine)), 0.0, []
    time.sleep(min(0.05, seconds))  # long enough to be watched
    while len(times) < 50 or clock < warmup_ms + min(seconds, 1.0) * 1000:
        compute = base * (1 + 0.01 * rng.random())
        entry = {
            "startComputeMs": clock,
            "endComputeMs": clock + compute,
            "h2dMs": 0.05,
            "computeMs": compute,
            "d2hMs": 0.01,
        }
        entry["latencyMs"] = compute + 0.06
        if VERSION < (8, 4):
            entry["endToEndMs"] = compute + 0.1
        times.append(entry)
        clock += compute
    if VERSION >= (8, 5):
        times = [entry for entry in times if entry["startComputeMs"] >= warmup_ms]
    profiled_only = "exportProfile" in options and "separateProfileRun" not in options
    if not (profiled_only and VERSION < (11, 0)):
        report(times)
    if "exportTimes" in options:
        lines = ("{ " + ", ".join(f'"{key}" : {value:g}' for key, value in entry.items()) + " }" for entry in times)
        Path(options["exportTimes"]).write_text("[\n  " + "\n, ".join(lines) + "\n]\n")
    if "exportProfile" in options or "exportLayerInfo" in options:
        layers = layers_of(engine)
        if "exportProfile" in options:
            write_profile(Path(options["exportProfile"]), layers, base)
        if "exportLayerInfo" in options:
            Path(options["exportLayerInfo"]).write_text(json.dumps({"Layers": layers, "Bindings": []}))
    if "exportOutput" in options:
        Path(options["exportOutput"]).write_text(json.dumps(answers(engine, options)))


def layers_of(engine: bytes) -> list[dict[str, Any]]:
    """One layer for each node that multiplies by weights, INT8 where what it reads was quantised."""
    import onnx

    graph = onnx.load_from_string(engine[len(HEADER) :]).graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    known = {tensor.name for tensor in graph.initializer} | rounded
    found = []
    for node in graph.node:
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[1] not in known:
            continue
        is_int8 = node.input[0] in rounded and node.input[1] in rounded
        kind = "Thirty-two wide channel vectorized row major Int8 format" if is_int8 else "Row major linear FP32"
        layer = {
            "Name": f"{node.name} + relu",
            "LayerType": "CaskConvolution",
            "ParameterType": "Convolution",
            "Inputs": [{"Name": "x", "Format/Datatype": kind}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP32"}],
        }
        if VERSION >= (10, 0):  # which calls layers by names of its own, and tells the nodes beside them
            layer |= {"Name": f"__myl_{len(found)}", "Metadata": f"[ONNX Layer: {node.name}]\u001e[ONNX Layer: relu]"}
        found.append(layer)
    return found


def write_profile(path: Path, layers: list[dict[str, Any]], base: float) -> None:
    """Of each layer, and of a copy that the engine does not list."""
    names = [str(layer["Name"]) for layer in layers]
    names.insert(0, f"Reformatting CopyNode for Input Tensor 0 to {names[0]}")
    median = "" if VERSION < (8, 4) else f', "medianMs" : {base}'
    lines = [
        f'{{ "name" : "{name}", "timeMs" : {9 * base}, "averageMs" : {base}{median}, "percentage" : {100 / len(names)} }}'
        for name in names
    ]
    path.write_text('[\n  { "count" : 9 }\n, ' + "\n, ".join(lines) + "\n]\n")


def report(times: list[dict[str, float]]) -> None:
    say("=== Performance summary ===")
    say(f"Throughput: {1000 / times[0]['latencyMs']:g} qps")
    for name, key in (
        ("Latency", "latencyMs"),
        ("H2D Latency", "h2dMs"),
        ("GPU Compute Time", "computeMs"),
        ("D2H Latency", "d2hMs"),
    ):
        values = sorted(entry[key] for entry in times)
        middle, high = values[len(values) // 2], values[-1]
        percentiles = "percentile(99%)" if VERSION < (8, 6) else "percentile(90%)"
        say(
            f"{name}: min = {values[0]:g} ms, max = {high:g} ms, mean = {middle:g} ms, median = {middle:g} ms, {percentiles} = {high:g} ms"
        )
    say(f"Total GPU Compute Time: {sum(entry['computeMs'] for entry in times) / 1000:g} s")


def answers(engine: bytes, options: dict[str, str]) -> list[dict[str, Any]]:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(engine[len(HEADER) :], providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    name, _, path = options["loadInputs"].partition(":")
    assert name == entry.name, f"no input {name}"
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    kind = "float32" if "float" in entry.type else "int32" if VERSION < (10, 0) else "int64"  # of what lies in the file
    sample = np.fromfile(path, dtype=kind).reshape(shape)
    found = session.run(None, {entry.name: sample.astype(np.int64) if "int" in kind else sample})
    return [
        {"name": output.name, "dimensions": "x".join(map(str, value.shape)), "values": value.ravel().tolist()}
        for output, value in zip(session.get_outputs(), found, strict=True)
    ]


if __name__ == "__main__":
    main()
