"""A report as a real run would make it, with latencies from a seeded generator."""

import numpy as np

from edgepress.pipeline.report.schema import (
    Accuracy,
    Chosen,
    DataFacts,
    Latency,
    Limit,
    Memory,
    Parity,
    Ratio,
    Report,
    Run,
    StageFacts,
    Variant,
    Verdict,
    Where,
)

ROUNDS, VISITS = 60, 10
# name: median ms, right answers of 449, parameters, MACs, bytes, peak MiB
NETS = {
    "baseline": (0.842, 443, 272_474, 12_900_000, 1_108_231, 71.4),
    "distilled": (0.331, 441, 78_042, 3_640_000, 322_410, 68.9),
    "pruned": (0.218, 439, 41_330, 1_910_000, 174_902, 68.1),
    "int8": (0.139, 438, 41_330, 1_910_000, 61_480, 67.2),
}
DONE = {
    "baseline": "the network as it was given",
    "distilled": "a smaller student, taught by the baseline",
    "pruned": "distilled, then 36 % of its channels removed and retrained",
    "int8": "pruned, then trained for INT8",
}


def sample_report(*, where: Where = "device") -> Report:
    """Four variants, budget met on the device; not known where the figures are stand-ins."""
    rng = np.random.default_rng(7)
    samples = {name: _samples(rng, net[0]) for name, net in NETS.items()}
    met = True if where == "device" else None
    variants = [_variant(name, samples=samples, where=where) for name in NETS]
    return Report(
        run=_run(),
        profile=_profile(where),
        data=DataFacts(
            source="builtin:digits",
            classes=[str(digit) for digit in range(10)],
            train=1078,
            val=270,
            test=449,
            notes=["The 1797 scans were divided 60/15/25, stratified by class, with seed 0."],
        ),
        budget={
            "accuracy_drop": Limit(limit=2.0, value=1.11, met=met, why="1.11 points below the baseline, on 449 images"),
            "latency_ms": Limit(limit=0.2, value=0.139, met=met, why="the whole interval is under the limit"),
            "size_mb": Limit(limit=0.1, value=0.0586, met=True, why="the exported file"),
        },
        stages=_stages(),
        variants=variants,
        bundle=None if where == "device" else "bundle",
        caveats=["The last half ran 1.4 % slower than the first: let the machine cool, or close other programs."],
        chosen=Chosen(name="int8", why="the fastest of the three variants that keep the accuracy budget"),
        verdict=Verdict(
            sentence=(
                "int8 is 6.0 times faster than the baseline (6.0 to 6.1) "
                "for 1.1 points of accuracy (0.2 to 2.1): "
                + (
                    "the budget is met."
                    if met
                    else "whether the budget is met is not known until it runs on the board."
                )
            ),
            met=met,
        ),
    )


def _samples(rng: np.random.Generator, median_ms: float) -> list[list[float]]:
    """A floor, a right tail, now and then an interruption: what a CPU gives."""
    steady = median_ms * (0.985 + rng.gamma(2.0, 0.009, size=(ROUNDS, VISITS)))
    late = rng.random((ROUNDS, VISITS)) < 0.02
    values = steady + late * median_ms * rng.uniform(0.1, 0.6, size=(ROUNDS, VISITS))
    return [[round(float(value), 6) for value in visit] for visit in values]


def _latency(samples: list[list[float]], *, where: Where, threads: int) -> Latency:
    flat = np.sort(np.concatenate([np.asarray(visit) for visit in samples]))
    medians = [float(np.median(visit)) for visit in samples]
    spread = float(np.std(medians)) / len(medians) ** 0.5
    median = float(flat[len(flat) // 2])
    return Latency(
        median=median,
        p90=float(flat[int(0.9 * len(flat))]),
        p99=float(flat[int(0.99 * len(flat))]),
        mean=float(flat.mean()),
        minimum=float(flat[0]),
        ci95=(median - 1.96 * spread, median + 1.96 * spread),
        samples=samples,
        where=where,
        runtime="openvino",
        threads=threads,
    )


def _variant(name: str, *, samples: dict[str, list[list[float]]], where: Where) -> Variant:
    _, right, parameters, macs, size_bytes, peak = NETS[name]
    latency = _latency(samples[name], where=where, threads=1)
    baseline = _latency(samples["baseline"], where=where, threads=1)
    ratio = baseline.median / latency.median
    drop = 100 * (NETS["baseline"][1] - right) / 449
    return Variant(
        name=name,
        precision="int8" if name == "int8" else "fp32",
        description=DONE[name],
        parameters=parameters,
        macs=macs,
        size_bytes=size_bytes,
        file=f"models/{name}.onnx",
        accuracy=_accuracy(right, where=where, drop=None if name == "baseline" else drop),
        val_accuracy=100 * (right - 180) / 270,
        torch_accuracy=100 * right / 449,
        latency_ms=latency,
        all_cores_ms=_latency([[x * 0.7 for x in visit] for visit in samples[name][:20]], where=where, threads=2),
        speedup=None if name == "baseline" else Ratio(value=ratio, ci95=(ratio * 0.994, ratio * 1.006)),
        memory_mb=Memory(
            peak_rss=peak,
            phases={"start": 12.1, "runtime": 41.8, "load": peak - 6, "first": peak - 1, "steady": peak},
            where=where,
        ),
        parity=Parity(argmax_agreement=1.0 if name != "int8" else 0.9978, max_abs_diff=3.1e-6, n=449, ok=True),
        int8={"weighted_layers": 10, "int8_layers": 9} if name == "int8" else None,
        warnings=["only 9 of 10 layers run in INT8"] if name == "int8" else [],
    )


def _accuracy(right: int, *, where: Where, drop: float | None) -> Accuracy:
    share, n, z = right / 449, 449, 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return Accuracy(
        value=100 * share,
        n=n,
        ci95=(100 * (centre - half), 100 * (centre + half)),
        where=where,
        drop=drop,
        drop_ci95=None if drop is None else (drop - 0.95, drop + 0.95),
    )


def _stages() -> list[StageFacts]:
    def falling(epochs: int, first: float, last: float) -> list[float]:
        return [float(x) for x in last + (first - last) * np.exp(-np.arange(epochs) / (epochs / 4))]

    return [
        StageFacts(
            name="train",
            settings={"epochs": 12, "optimizer": "adam", "learning_rate": 0.01},
            seconds=11.2,
            metrics={"best_epoch": 11},
            curves={"loss": falling(12, 1.9, 0.02), "val_accuracy": [100 - x for x in falling(12, 40, 1.2)]},
            reused=True,
            skipped=None,
        ),
        StageFacts(
            name="distill",
            settings={"losses": {"kd": {"temperature": 4.0, "weight": 0.9}}, "epochs": 20},
            seconds=14.6,
            metrics={"teacher_accuracy": 98.9, "best_epoch": 18},
            curves={"loss": falling(20, 4.1, 0.21), "val_accuracy": [100 - x for x in falling(20, 55, 1.7)]},
            reused=False,
            skipped=None,
        ),
        StageFacts(
            name="prune",
            settings={"ratio": 0.36, "importance": "taylor", "channel_multiple": 8},
            seconds=9.8,
            metrics={"channels_removed": 92, "macs_kept": 0.525},
            curves={"loss": falling(8, 0.9, 0.24), "val_accuracy": [100 - x for x in falling(8, 9, 2.1)]},
            reused=False,
            skipped=None,
        ),
        StageFacts(
            name="quantize",
            settings={"weight_bits": 8, "qdq": "openvino", "epochs": 5},
            seconds=7.1,
            metrics={"quantizers": 31},
            curves={"loss": falling(5, 0.4, 0.25), "val_accuracy": [100 - x for x in falling(5, 4, 2.3)]},
            reused=False,
            skipped=None,
        ),
        StageFacts(
            name="export",
            settings={"opset": 17},
            seconds=1.3,
            metrics={},
            curves={},
            reused=False,
            skipped=None,
        ),
    ]


def _run() -> Run:
    return Run(
        id="3f9a1c2d7e5b",
        command="compress --target openvino-cpu",
        recipe={
            "model": {"source": "builtin:digits-teacher", "weights": None},
            "data": {"source": "builtin:digits"},
            "budget": {"accuracy_drop": 2.0, "latency_ms": 0.2, "size_mb": 0.1},
            "stages": ["train", "distill", "prune", "quantize", "export", "profile"],
        },
        seed=0,
        started="2026-03-02T09:14:07Z",
        seconds=58.4,
        versions={"edgepress": "0.1.0", "torch": "2.13.0", "openvino": "2026.4.1", "onnx": "1.23.2"},
        machine={
            "cpu": "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
            "instruction_sets": ["avx2", "avx512_vnni"],
            "cores": 2,
            "governor": None,
            "memory_mb": 7968,
            "python": "3.11.2",
        },
    )


def _profile(where: Where) -> dict[str, object]:
    if where == "device":
        return {
            "name": "openvino-cpu",
            "board": "a CPU with OpenVINO",
            "runtime": "openvino",
            "precisions": ["fp32", "int8"],
            "device": "local",
        }
    return {
        "name": "jetson-nano",
        "board": "NVIDIA Jetson Nano",
        "runtime": "tensorrt",
        "precisions": ["fp32", "fp16"],
        "device": "none",
        "stand_in": "openvino",
    }
