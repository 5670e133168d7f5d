"""Prune, quantise, export and profile architectures that people deploy, with random weights: what works, and why not.

python benchmarks/coverage.py [--target openvino-cpu] [--only NAME,...] [--json FILE] [--list]

Each in a process of its own, on small inputs. A network that a stage cannot treat goes on without it, as it does for a
user: `whole` went through every stage, `partly` ended with a file in spite of one that it did not suit, `failed` ended
with an error. What needs a package that is not installed is `not installed`, and counts neither way. Accuracy means
nothing here: the weights are random. Answers of the files are compared with torch's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from coverage_nets import CLASSES, NETS, Net
from pairs import machine
from seeds import table

TRAIN, TEST = 40, 24
COLOURS = 3
TIMEOUT_SECONDS = 600
SECONDS = 1.0  # of measurement: speed-ups of random networks, to see whether they go the right way
SETTINGS: dict[str, Any] = {
    "prune.epochs": 0, "prune.ratio": 0.3, "quantize.epochs": 0, "quantize.calibration": 32, "distill": "off",
    "profile.seconds": SECONDS, "profile.all_cores": False, "profile.memory": False, "profile.layers": False,
}  # fmt: skip
MARK = "COVERAGE "


def main() -> None:
    options = arguments()
    if options.one:
        print(MARK + json.dumps(measure(named(options.one), options.target)))
        return
    chosen = [net for net in NETS if not options.only or net.name in options.only]
    if options.list:
        print("\n".join(f"{net.family}: {net.name} ({net.source})" for net in chosen))
        return
    rows = read(options.json)
    for place, net in enumerate(chosen):
        done = next((row for row in rows if row["name"] == net.name and row["target"] == options.target), None)
        if done is None:
            done = in_a_process(net, options.target)
            rows.append(done)
            write(rows, options.json)
        print(f"{place + 1}/{len(chosen)} {net.name}: {done['status']} {done['reason']}", file=sys.stderr, flush=True)
    wanted = {net.name for net in chosen}
    report([row for row in rows if row["name"] in wanted and row["target"] == options.target])


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--target", default="openvino-cpu", help="a profile's name (default: openvino-cpu)")
    made.add_argument("--only", type=lambda text: tuple(text.split(",")), default=(), metavar="NAME,...")
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="written after every network; given again, gone on with"
    )
    made.add_argument("--list", action="store_true", help="print the names and end")
    made.add_argument("--one", help=argparse.SUPPRESS)  # what the process of a network is started with
    return made.parse_args()


def named(name: str) -> Net:
    found = next((net for net in NETS if net.name == name), None)
    if found is None:
        sys.exit(f"no network is called {name}; --list shows them")
    return found


def in_a_process(net: Net, target: str) -> dict[str, Any]:
    """What a process of its own says; why, where it ends without a word."""
    row: dict[str, Any] = {"name": net.name, "family": net.family, "source": net.source, "target": target}
    command = [sys.executable, __file__, "--one", net.name, "--target", target]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return {**row, "status": "failed", "reason": f"not done after {TIMEOUT_SECONDS} s", "machine": machine()}
    told = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    found = json.loads(told[-1].removeprefix(MARK)) if told else {"status": "failed", "reason": last_words(done)}
    return {**row, **found, "machine": machine()}


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return f"exit code {done.returncode}: {lines[-1] if lines else 'nothing was said'}"


def measure(net: Net, target: str) -> dict[str, Any]:
    """Run the whole chain on one network."""
    import edgepress
    from edgepress.targets.errors import EdgepressError

    try:
        module = net.module()
    except ModuleNotFoundError as error:
        return {"status": "not installed", "reason": str(error)}
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        try:
            found = edgepress.compress(
                model=module, data=splits(net, module), target=target, budget={"accuracy_drop": 100.0},
                settings={**SETTINGS, **as_they_are(net), "task": net.kind}, out=folder, quiet=True,
            )  # fmt: skip
        except EdgepressError as error:
            return {"status": "failed", "reason": first_line(str(error))}
        return figures(found.report)


def as_they_are(net: Net) -> dict[str, Any]:
    """Images as the batch norms saw them. Normalised ones lie outside, where random weights amplify rounding."""
    channels = 0 if net.kind == "text" else net.inputs(1).shape[1]
    return {"data.mean": [0.0] * channels, "data.std": [1.0] * channels} if channels == COLOURS else {}


def splits(net: Net, module: torch.nn.Module) -> dict[str, Any]:
    """Samples and labels of the shapes that the network takes and gives."""
    samples = net.inputs(TRAIN + TEST)
    count = len(samples)
    with torch.no_grad():
        answer = module(samples[:2])
    labels = {
        "classification": torch.arange(count) % CLASSES,
        "text": torch.arange(count) % CLASSES,
        "regression": torch.rand(count, *answer.shape[1:], generator=torch.Generator().manual_seed(2)),
        "segmentation": torch.randint(CLASSES, (count, net.size, net.size), generator=torch.Generator().manual_seed(2)),
    }[net.kind]
    both = {"train": (samples[:TRAIN], labels[:TRAIN]), "test": (samples[TRAIN:], labels[TRAIN:])}
    return {**both, "classes": [str(name) for name in range(CLASSES)]} if net.kind == "segmentation" else both


def figures(report: Any) -> dict[str, Any]:
    """From the report of a run."""
    left_out = {stage.name: stage.skipped for stage in report.stages if stage.skipped and stage.name != "distill"}
    exported = next((stage.metrics for stage in report.stages if stage.name == "export"), {})
    left_out |= exported.get("left_out", {})
    variants = {variant.name: variant for variant in report.variants}
    last = variants.get("int8") or variants.get("pruned") or report.variants[0]
    counted = exported.get("in_int8", {}).get("int8")
    return {
        "status": "partly" if left_out else "whole",
        "reason": "; ".join(f"{name}: {first_line(why)}" for name, why in left_out.items()),
        "pruned_macs": share(variants.get("pruned"), report.variants[0]),
        "agreement": last.parity.argmax_agreement if last.parity else None,
        "sqnr_db": last.parity.sqnr_db if last.parity else None,
        "speedup_pruned": speed(variants.get("pruned")),
        "speedup_int8": speed(variants.get("int8")),
        "in_int8": [counted["in_int8"], counted["rounded"]] if counted else None,
        "chosen": report.chosen.name,
        "seconds": report.run.seconds,
    }


def share(pruned: Any, baseline: Any) -> float | None:
    return pruned.macs / baseline.macs if pruned is not None and baseline.macs else None


def speed(variant: Any) -> float | None:
    return variant.speedup.value if variant is not None and variant.speedup else None


def first_line(text: str) -> str:
    return text.strip().splitlines()[0][:160] if text.strip() else ""


def read(file: Path | None) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))["networks"] if file is not None and file.is_file() else []


def write(rows: list[dict[str, Any]], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps({"networks": rows}, indent=1) + "\n", encoding="utf-8")
        part.replace(file)


def report(rows: list[dict[str, Any]]) -> None:
    head = ["network", "family", "status", "MACs left", "INT8 layers", "pruned", "INT8", "agreement", "why"]
    lines = [
        [
            row["name"],
            row["family"],
            row["status"],
            percent(row.get("pruned_macs")),
            "{} of {}".format(*row["in_int8"]) if row.get("in_int8") else "",
            times(row.get("speedup_pruned")),
            times(row.get("speedup_int8")),
            percent(row.get("agreement")),
            row["reason"].replace("|", "/"),
        ]
        for row in rows
    ]
    print(table(head, lines))
    tried = [row for row in rows if row["status"] != "not installed"]
    if not tried:
        print("\nNone could be tried: install torchvision and timm.")
        return
    counts = {status: sum(row["status"] == status for row in tried) for status in ("whole", "partly", "failed")}
    told = ", ".join(f"{count} {status} ({100 * count / len(tried):.0f} %)" for status, count in counts.items())
    print(f"\n{len(tried)} networks tried of {len(rows)}: {told}. Speed-ups are over the float original.")


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}×"


if __name__ == "__main__":
    main()
