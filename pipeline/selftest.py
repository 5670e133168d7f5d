"""`compress selftest`: one engine under two names, to see what a comparison on this machine is worth."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from ..targets import machine, model_input, practice, profiles
from ..targets.errors import RecipeError, RuntimeMissingError
from ..targets.jobs import Engine
from ..targets.profiles import Profile
from ..targets.repeating import Comparison, compare_again
from ..targets.runtimes import target
from .measuring import is_quantized
from .progress import ConsoleReporter, result_console

MOST_FALSE_CLAIMS = 5.0  # per cent: what intervals of 95 % allow


def main(options: argparse.Namespace) -> int:
    """Compare, and print what came of it; returns the exit code."""
    if options.runs < 1 or not options.seconds > 0:
        raise RecipeError(f"--runs {options.runs} --seconds {options.seconds:g}: give at least one run and some time")
    profile = profiles.load(options.target)
    reason = target(profile.measures_with).unavailable()
    if reason:
        raise RuntimeMissingError(f"target {profile.name}: {reason}")
    reporter = ConsoleReporter(Console(stderr=True), quiet=options.quiet)
    with tempfile.TemporaryDirectory() as folder, reporter.showing():
        path = Path(options.model) if options.model else practice.write(Path(folder) / "practice.onnx")
        image = model_input.read(path).random()[:1]
        progress = reporter.stage("selftest")

        def told(number: int, found: Comparison) -> None:
            progress.update(number / options.runs, f"{number} of {options.runs}: {found.ratio.value:.4f}")

        repeated = compare_again(
            _engine(path, profile),
            _engine(path, profile),
            image=image,
            runs=options.runs,
            seconds=options.seconds,
            environment=profile.environment,
            told=told,
        )
    facts = {
        "model": options.model or "practice network",
        "runtime": profile.measures_with,
        "threads": profile.threads,
        "seconds": options.seconds,
        **repeated.facts(),
        "machine": machine.describe(),
    }
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        for line in lines(facts):
            result_console().print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def lines(facts: dict[str, Any]) -> list[str]:
    """The result in words."""
    low, high = facts["claimed_percent_ci95"]
    found = [
        f"{facts['model']} against itself, {facts['runtime']}, {facts['threads']} pinned thread(s), "
        f"median {facts['median_ms']:.3f} ms, {facts['seconds_each']:.1f} s of timing each:",
        f"a difference was claimed in {facts['claimed']} of {facts['runs']} comparisons "
        f"({low:.1f} to {high:.1f} %, 95 % interval); there is none, and up to 5 % are to be expected.",
        f"The smallest difference that this machine resolves in that time: {facts['resolution_percent']:.1f} %.",
    ]
    if facts["unreliable"]:
        found.append(f"{facts['unreliable']} comparisons were too noisy for any claim.")
    if low > MOST_FALSE_CLAIMS:
        found.append("That is too often: close other programs, fix the clock, or measure for longer.")
    return found


def _engine(path: Path, profile: Profile) -> Engine:
    return Engine(
        name="itself",
        path=path,
        runtime=profile.measures_with,
        precision="int8" if is_quantized(path) else "fp32",
        threads=profile.threads,
    )
