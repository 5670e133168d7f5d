"""`compress pool`: what images were made from a network, whether they are whole, and the images as files to look at."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from ..stages.synthesis.manifest import FILE, Manifest, by, read_shard
from ..stages.synthesis.sheet import write_pngs
from ..stages.tensors import CorruptStateError
from ..targets.errors import RecipeError, StageError
from .progress import result_console
from .report.words import size

MOST_CLASSES = 20  # in the table; JSON has all


@dataclass(kw_only=True)
class Found:
    """One pool. counts, confidence (summed): by the network's answer. problems: shards that are not whole."""

    folder: Path
    manifest: Manifest
    bytes: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    confidence: dict[int, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    written: int = 0

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "folder": str(self.folder),
            "method": self.manifest.settings.get("method"),
            "teacher": self.manifest.teacher,
            "shape": list(self.manifest.shape),
            "images": sum(self.counts.values()),
            "bytes": self.bytes,
            "classes": {
                str(label): {"images": count, "confidence": _known(self.confidence[label] / count)}
                for label, count in sorted(self.counts.items())
            },
            "problems": self.problems,
        }


def main(options: argparse.Namespace) -> int:
    """Print every pool in a folder; returns 0, or 5 where a shard is not what was written. Nothing is changed."""
    folders = list(_pools(Path(options.folder).expanduser()))
    png = Path(options.png).expanduser() if options.png else None
    if png is not None and len(folders) > 1:
        raise RecipeError(f"--png is for one pool, and here are {', '.join(map(str, folders))}: name one")
    found = [look(folder, png=png) for folder in folders]
    if options.json:
        print(json.dumps([one.facts() for one in found], indent=2))
    else:
        for one in found:
            _show(one.facts(), png=png, written=one.written)
    return StageError.exit_code if any(one.problems for one in found) else 0


def look(folder: Path, *, png: Path | None = None) -> Found:
    """Read every shard. png: a folder for the images, in one for each class that the network answered."""
    found = Found(folder=folder, manifest=Manifest.opened(folder))
    for shard in found.manifest.shards:
        try:
            held = read_shard(folder, shard)
        except CorruptStateError as error:
            found.problems.append(str(error))
            continue
        labels = held["labels"].tolist()
        found.counts.update(labels)
        for label, sure in zip(labels, held["confidence"].tolist(), strict=True):
            found.confidence[label] = found.confidence.get(label, 0.0) + sure
        found.bytes += (folder / shard.name).stat().st_size
        if png is not None:
            found.written = write_pngs(held["images"], labels, png, first=found.written)
    return found


def _known(confidence: float) -> float | None:
    """None: a pool of elsewhere need not know it."""
    return None if math.isnan(confidence) else confidence


def _pools(folder: Path) -> Iterator[Path]:
    """The folder itself, or all below it, such as a run's. RecipeError: there is none."""
    places = sorted({path.parent for path in folder.rglob("shard-*.safetensors*")})  # a stage has a manifest.json too
    if not places:
        raise RecipeError(
            f"there is no pool of images in {folder}: name the --out folder of a run without data, or a pool's own, "
            f"which has {FILE} and shards"
        )
    yield from places


def _show(facts: Mapping[str, Any], *, png: Path | None, written: int) -> None:
    console = result_console()
    said = f"{facts['images']} images of {by(facts['shape'])}, {size(facts['bytes'])}"
    how = f"for {facts['method'] or 'an unknown method'}, from the network {facts['teacher'][:12]}"
    console.print(f"{facts['folder']}\n{said}, {how}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("class", "images", "share", "confidence"):
        table.add_column(column, justify="right")
    order = sorted(facts["classes"].items(), key=lambda one: -one[1]["images"])
    for label, one in order[:MOST_CLASSES]:
        share = f"{100 * one['images'] / facts['images']:.1f} %"
        sure = "not known" if one["confidence"] is None else f"{100 * one['confidence']:.1f} %"
        table.add_row(label, str(one["images"]), share, sure)
    console.print(table)
    if len(order) > MOST_CLASSES:
        console.print(f"and {len(order) - MOST_CLASSES} classes with fewer images")
    for problem in facts["problems"]:
        console.print(f"! {problem}", markup=False, soft_wrap=True)
    if png is not None:
        console.print(f"{written} files in {png}", markup=False, highlight=False, soft_wrap=True)
