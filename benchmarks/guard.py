"""Does the guard refuse INT8 where it is slower, and say why?

python benchmarks/guard.py [--quick] [--seconds S] [--json FILE]

Every case is a whole run of `compress` on a network with given weights: calibrate, export, measure, choose. The
first puts the Q/DQ layout of TensorRT before ONNX Runtime, which cannot fuse it. The others run networks of depthwise
convolutions in OpenVINO without VNNI: some are slower in INT8 there and some are not, and both must come out right.
Prints a Markdown table. Exit code 1: a slower INT8 model was chosen, a refusal was not explained, or the machine was
too noisy to tell.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import guard_nets as nets
import torch
import yaml
from torch import nn

from edgepress import compress
from edgepress.pipeline.report.schema import Report, Variant

IMAGE, CLASSES = (3, 96, 96), nets.CLASSES


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network on one target. explained_by: what the report must name where INT8 is refused."""

    name: str
    build: Callable[[], nn.Module]
    runtime: str
    qdq: str
    environment: dict[str, str]
    explained_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of it. speedup: of INT8 over the float network."""

    name: str
    runtime: str
    environment: str
    float_ms: float
    int8_ms: float
    speedup: tuple[float, float, float]
    chosen: str
    refused: bool
    outcome: Literal["right", "WRONG", "too noisy"]
    explanation: str


def no_vnni(limit: str) -> dict[str, str]:
    return {"ONEDNN_MAX_CPU_ISA": limit}


CASES = (
    Case(name="ResNet block stack, TensorRT layout", build=nets.ResNet, runtime="onnxruntime", qdq="trt",
         environment={}, explained_by=("run in float", "could not fuse")),
    Case(name="ResNet block stack, its own layout", build=nets.ResNet, runtime="onnxruntime", qdq="ort-u8",
         environment={}, explained_by=()),
    *(
        Case(name=name, build=build, runtime="openvino", qdq="openvino", environment=no_vnni(limit),
             explained_by=("depthwise", limit))
        for limit in ("AVX2", "SSE41")
        for name, build in (
            ("depthwise stack, 3x3", nets.DepthwiseStack),
            ("MobileNetV2, 3x3", nets.MobileNet),
            ("MobileNetV2, 5x5", lambda: nets.MobileNet(kernel=5)),
        )
    ),
)  # fmt: skip
QUICK = (CASES[0], CASES[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the two cases that must be refused, one second each")
    parser.add_argument("--seconds", type=float, help="of timing for each case (default: 8, quick: 1)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there too")
    options = parser.parse_args()
    seconds = options.seconds or (1.0 if options.quick else 8.0)
    rows = [run(case, seconds=seconds) for case in (QUICK if options.quick else CASES)]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.outcome == "right" for row in rows) else 1


def run(case: Case, *, seconds: float) -> Row:
    """Compress the network and read the report."""
    with tempfile.TemporaryDirectory(prefix="guard-") as name:
        result = compress(
            model=nets.seeded(case.build()),
            data={"train": images(64, seed=0), "test": images(64, seed=1)},
            target=str(write_profile(case, Path(name))),
            budget={"accuracy_drop": 100.0},  # the labels are random: only the speed is of interest
            settings={
                "stages": ["quantize", "export", "profile"],
                "quantize.epochs": 0,
                "quantize.calibration": 32,
                "profile.seconds": seconds,
                "profile.all_cores": False,
                "profile.memory": False,
            },
            out=Path(name) / "out",
            quiet=True,
        )
    return judge(case, result.report)


def judge(case: Case, report: Report) -> Row:
    """A refusal must be explained, and a variant that is not surely faster must be refused."""
    found = {variant.name: variant for variant in report.variants}
    before, after = found["baseline"], found["int8"]
    assert before.latency_ms is not None
    assert after.latency_ms is not None
    assert after.speedup is not None
    refused = report.chosen.name != "int8"
    explanation = sentence(after)
    explained = all(word in explanation for word in case.explained_by)
    surely_faster = after.speedup.ci95[0] > 1.0
    right = (explained and not surely_faster) if refused else surely_faster
    return Row(
        name=case.name,
        runtime=case.runtime,
        environment=" ".join(f"{key}={value}" for key, value in case.environment.items()),
        float_ms=before.latency_ms.median,
        int8_ms=after.latency_ms.median,
        speedup=(after.speedup.value, *after.speedup.ci95),
        chosen=report.chosen.name,
        refused=refused,
        outcome="too noisy" if report.verdict.unreliable else "right" if right else "WRONG",
        explanation=explanation,
    )


def sentence(variant: Variant) -> str:
    return next((text for text in variant.warnings if text.startswith("INT8 is not faster")), "")


def write_profile(case: Case, folder: Path) -> Path:
    """A profile of this machine with that layout and those instructions."""
    path = folder / "guard.yaml"
    facts = {
        "name": "guard", "board": "this machine", "runtime": case.runtime, "precisions": ["fp32", "int8"],
        "qdq": case.qdq, "weight_bits": 7 if case.environment else "auto", "opset": 17, "device": "local",
        "environment": case.environment,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(facts), encoding="utf-8")
    return path


def images(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *IMAGE), generator=generator, dtype=torch.uint8)
    return pixels, torch.arange(count) % CLASSES


def table(rows: list[Row]) -> str:
    lines = [
        "| network | runtime | instructions | float, ms | INT8, ms | times faster | chosen | |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    for row in rows:
        value, low, high = row.speedup
        cells = (
            row.name, row.runtime, row.environment.partition("=")[2] or "all",
            f"{row.float_ms:.3f}", f"{row.int8_ms:.3f}", f"{value:.2f} ({low:.2f} to {high:.2f})",
            row.chosen, row.outcome,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    told = [f"- {row.name}, {row.environment or row.runtime}: {row.explanation}" for row in rows if row.explanation]
    return "\n".join([*lines, "", *told])


if __name__ == "__main__":
    sys.exit(main())
