"""What TensorRT's known messages mean, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Iterable

ADVICE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (
            r"Quantize(Layer|Linear)?/Dequantize.* require hardware with Int8 support",
            "this GPU has no INT8 units and refuses quantised graphs: use a profile with FP16, such as jetson-nano",
        ),
        (
            r"Int8 support requested on hardware without native Int8",
            "this GPU has no INT8 units: the engine runs in FP32 or FP16, however it was asked for",
        ),
        (
            r"half.*support requested on hardware without native|FP16 support requested on hardware without",
            "this GPU has no fast FP16: leave fp16 out of the profile's precisions",
        ),
        (
            r"Unknown option: --(fp16|int8|best|bf16|fp8)",
            "this trtexec takes precisions from the graph alone (TensorRT 11): its version is newer than the profile's",
        ),
        (r"Unknown option", "this trtexec has another version than the profile says: run `compress device check`"),
        (
            r"out of memory|Cuda Runtime \(out of memory\)|CUDA_ERROR_OUT_OF_MEMORY|Insufficient memory|Killed",
            "not enough memory to build: close the desktop (sudo systemctl isolate multi-user.target), "
            "add a swap file, or give a smaller workspace",
        ),
        (
            r"Could not find any implementation for node",
            "no kernel for that layer within the workspace: give a larger one, or the layer another precision",
        ),
        (
            r"TRT only supports symmetric quantization|zeroPt must be all zeros|zero.?point.* must be",
            "TensorRT takes symmetric quantisation only: export with the Q/DQ flavour trt",
        ),
        (
            r"Scale coefficients must all be positive",
            "a channel has the scale 0, as dead channels do: export it again with edgepress, which keeps a floor",
        ),
        (
            r"(No importer registered for op|Unsupported operator|Plugin not found).*?:? ?(\w+)",
            "this TensorRT's parser does not know the operator: `compress check FILE.onnx --target NAME` names the "
            "layer and the way around it",
        ),
        (
            r"Your ONNX model has been generated with INT64 weights",
            "harmless: INT64 is cast down to INT32",
        ),
        (
            r"serialized engine.*(version|tag)|Version tag does not match|incompatible.*(engine|plan)|magic tag",
            "the engine was built by another TensorRT or for another GPU: delete it, it is built again",
        ),
        (
            r"Throughput may be bound by Enqueue Time",
            "the GPU waits for the CPU: the network is small, or the CPU's clocks are low",
        ),
        (
            r"Throughput may be bound by host-to-device transfers",
            "copying the input takes longer than computing: compare GPU compute time as well",
        ),
        (
            r"GPU compute time is unstable",
            "hold the clocks with --lock-clocks, and see that nothing else uses the GPU",
        ),
        (
            r"No CUDA-capable device|CUDA initialization failure|no CUDA device",
            "the GPU cannot be reached: is the user in the group video?",
        ),
        (r"libnv\w+\.so[.\d]*: cannot open shared object", "TensorRT is not fully installed: install it with JetPack"),
        (r"No space left on device|ENOSPC", "the board's disk is full: free some space there"),
        (
            r"Networks? (with|using) dynamic|no optimization profile",
            "the file has an open batch size: export with dynamic_batch off",
        ),
    )
)  # fmt: skip


def advise(messages: Iterable[str]) -> list[str]:
    """Advice for every message that is known, once each, in the order of the messages."""
    found: dict[str, None] = {}
    for message in messages:
        for pattern, advice in ADVICE:
            if pattern.search(message):
                found.setdefault(advice)
                break
    return list(found)
