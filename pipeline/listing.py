"""Small commands that look things up: targets, check, report, schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..targets import installed, profiles
from ..targets.digests import sha256
from ..targets.errors import RecipeError
from ..targets.profiles import Profile
from .progress import result_console


def targets(*, as_json: bool) -> int:
    """Print every profile, and what can be done with it here."""
    found = [profiles.load(name) for name in profiles.names()]
    if as_json:
        facts = [{**profile.model_dump(mode="json"), "here": here(profile)} for profile in found]
        print(json.dumps(facts, indent=2))
        return 0
    table = Table(title="targets", title_justify="left")
    table.add_column("name", no_wrap=True)
    for column in ("board", "runtime", "precisions", "built and timed here"):
        table.add_column(column)
    family = ""
    for profile in found:
        if family and profile.name.partition("-")[0] != family:
            table.add_section()
        family = profile.name.partition("-")[0]
        table.add_row(profile.name, profile.board, _runtime(profile), ", ".join(profile.precisions), here(profile))
    result_console().print(table)
    return 0


def _runtime(profile: Profile) -> str:
    """`tensorrt 8.2.1, JetPack 4.6.1 to 4.6.6`."""
    words = f"{profile.runtime} {profile.runtime_version or ''}".strip()
    ends = list(dict.fromkeys((*profile.jetpack[:1], *profile.jetpack[-1:])))
    return f"{words}, JetPack {' to '.join(ends)}" if ends else words


def here(profile: Profile) -> str:
    """Whether this machine can build and time for a device, in words."""
    runtime = profile.measures_with
    if installed.version(runtime) == "not installed":
        return f"no: {runtime} is not installed"
    if profile.device == "local":
        return "yes"
    return f"no: exported here, timed with {runtime} as a stand-in"


def check(files: Sequence[str], *, target: str | None = None) -> int:
    """Validate each file; every problem of every file is printed. target: of ONNX files."""
    wrong = 0
    console = Console(stderr=True)
    for name in files:
        try:
            kind = check_onnx(Path(name), target) if name.endswith(".onnx") else check_one(Path(name))
        except RecipeError as error:
            wrong += 1
            console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        else:
            print(f"{name}: a good {kind}")
    return RecipeError.exit_code if wrong else 0


def check_one(path: Path) -> str:
    """`recipe` or `profile`, after a full check. RecipeError: it does not hold."""
    from . import plan, recipe, yaml_lines

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    data, _ = yaml_lines.read(text, origin=str(path))
    if isinstance(data, dict) and {"runtime", "board"} & data.keys():
        profiles.parse(text, origin=str(path))
        return "profile"
    plan.make(recipe.load(text, origin=str(path), folder=path.parent))
    return "recipe"


def check_onnx(path: Path, target: str | None) -> str:
    """What the file is for that board, in words. RecipeError: its TensorRT would refuse it, with every reason."""
    from ..targets import model_input, operators, rewriting

    if target is None:
        raise RecipeError(f"{path}: which board is it for? Name it: compress check {path.name} --target jetson-nano")
    profile = profiles.load(target)
    if profile.runtime != "tensorrt" or profile.runtime_version is None:
        raise RecipeError(f"{path}: ONNX files are checked for TensorRT, and {target} runs {profile.runtime}")
    version, has_int8 = profile.runtime_version, "int8" in profile.precisions
    found = rewriting.rewritten(model_input.load(path), version=version)
    problems = [*found.problems, *operators.check_model(found.model, version=version, has_int8=has_int8)]
    if problems:
        raise RecipeError("\n".join([f"{path}: TensorRT {version} on {profile.board} refuses it:", *problems]))
    said = f", once it is rewritten as the export stage does: {', '.join(found.changes)}" if found.changes else ""
    return f"ONNX file for TensorRT {version}{said}"


def report(folder: str, *, as_json: bool) -> int:
    """Render report.json of a folder again, and print it."""
    from . import sums
    from .report import render
    from .report.terminal import print_report

    found = render.read(Path(folder))
    before = sha256(Path(folder) / "report.json")
    render.write(found, Path(folder))
    sums.renew(Path(folder), "report.json", before=before)
    if as_json:
        print(found.model_dump_json())
    else:
        print_report(found, result_console())
    return 0


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of what a user writes or reads."""
    if kind == "profile":
        return Profile.model_json_schema()
    if kind == "report":
        from .report import render

        return render.json_schema()
    from .recipe import Recipe

    return Recipe.model_json_schema()
