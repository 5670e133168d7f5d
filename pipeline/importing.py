"""`compress import`: what a bundle found on a board comes into the report of its run, as measured on the device."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..targets.digests import sha256
from ..targets.errors import DeviceError, RecipeError, StageError
from ..targets.profiles import Budget, Profile
from ..targets.remote import carried
from ..targets.remote.carried import Carried
from ..targets.remote.work import Work
from . import sums
from .progress import result_console
from .report import render
from .report.schema import AGREEMENT, Report, Variant

if TYPE_CHECKING:
    from ..stages.artifact import ExportedFile
    from ..stages.carrying import Expected

RUNS = Path("compressed")  # where runs go that have no --out
IMPORTED = "imported.tar"  # in a run's folder: the archive whose figures its report has
STORE = "stages"  # of a run's folder: finished stages


def main(options: argparse.Namespace) -> int:
    """Import an archive, write the report again, and print it; the exit code is that of the run."""
    from .job import exit_code
    from .report.terminal import print_report

    archive = Path(options.archive)
    results = carried.open_archive(archive)
    out = Path(options.out) if options.out else find(results, archive)
    report = take(results, render.read(out), out, archive)
    _keep(archive, out)
    render.write(report, out)
    sums.write(out)
    if options.json:
        print(report.model_dump_json())
    elif not options.quiet:
        print_report(report, result_console())
        print(f"\nreport: {out / 'report.html'}   models: {out / 'models'}")
    return exit_code(report)


def find(results: Carried, archive: Path) -> Path:
    """The run that the bundle came from, among those without an --out. RecipeError: it is none of them."""
    fitting = [path.parent.parent for path in RUNS.glob("*/bundle/manifest.json") if _job(path) == _key(results)]
    if not fitting:
        raise RecipeError(f"no run in {RUNS}/ has the bundle that {archive} comes from: name its folder with --out")
    return fitting[0]


def take_again(report: Report, out: Path, *, note: Callable[[str], None]) -> Report:
    """A new report of a run that had results of a board: with these, as long as they are of the bundle that it has now.

    report: what the same command found again, on this machine. note: told what became of the board's figures.
    """
    archive = out / IMPORTED
    if report.bundle is None or not archive.is_file():
        return report
    try:
        results = carried.open_archive(archive)
        found = take(results, report, out, archive)
    except (RecipeError, StageError, DeviceError) as error:
        note(f"the board's figures that were imported before are not in this report, the stand-in's are: {error}")
        return report
    note(f"the figures are the board's again, from {archive}: the models are those that ran there")
    return found


def _keep(archive: Path, out: Path) -> None:
    """Beside the report, for the next time that the run's command is given."""
    kept = out / IMPORTED
    if not (kept.exists() and kept.samefile(archive)):
        part = kept.with_suffix(".part")
        shutil.copyfile(archive, part)
        part.replace(kept)


def take(results: Carried, report: Report, out: Path, archive: Path) -> Report:
    """The run's report with the figures of the board in place of those that stood in for them.

    RecipeError: the archive is of another bundle, or a model of the run is not the one that ran there.
    """
    from ..stages import carrying

    _refuse_another_run(results, out, archive)
    _refuse_other_models(results, out)
    profile = Profile.model_validate(report.profile).model_copy(update={"device": "carried"})
    figures = _figures(results, report, out, profile, carrying.read(out / STORE / f"profile-{report.run.id}"))
    if not any(facts.get("latency") for facts in figures["engines"].values()):
        reasons = [f"  {name}: {facts.get('failed')}" for name, facts in figures["engines"].items()]
        raise StageError("\n".join([f"{archive}: no engine was timed on the board:", *reasons]))
    return with_figures(report, figures, profile)


def _deciding(report: Report) -> str:
    """What the samples are that choose between variants."""
    if report.synthesis and not (report.data and report.data.deciding):
        return report.synthesis.kind
    return report.data.samples if report.data else "images"


def with_figures(report: Report, figures: Mapping[str, Any], profile: Profile) -> Report:
    """The report with all that was measured replaced, and the conclusions drawn again."""
    from .assemble import conclusion
    from .report import shaping

    variants, shaped = _variants(report, figures), shaping.found_in(report)
    budget = Budget.model_validate({name: limit.limit for name, limit in report.budget.items()})
    made = report.synthesis
    is_agreement = made is not None and made.evaluated_on is None
    concluded = conclusion(
        variants,
        figures,
        budget,
        profile,
        ship=report.chosen.name if report.chosen.forced else None,
        samples=_deciding(report),
        agreement=f"{AGREEMENT} with the given model on {made.kind}" if made and is_agreement else None,
        pruning=shaping.for_verdict(shaped) if shaped else None,
    )
    run = report.run.model_copy(
        update={"machine": figures["machine"], "versions": {**report.run.versions, **figures["versions"]}}
    )
    return report.model_copy(
        update={
            "run": run,
            "profile": profile.model_dump(mode="json"),
            "variants": variants,
            "caveats": [*figures["caveats"], *(shaping.notes(shaped) if shaped else ())],
            "sustained": None,
            "not_measured": figures["not_measured"],
            "incomplete": None,
            **concluded,
        }
    )


def _refuse_another_run(results: Carried, out: Path, archive: Path) -> None:
    path = out / "bundle" / "manifest.json"
    try:
        ours = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RecipeError(f"{out} has no bundle that is whole: name the folder of the run with --out") from None
    if ours != results.manifest:
        raise RecipeError(
            f"{archive} comes from another bundle (job {_key(results)}) than that of {out} (job {ours.get('job')}): "
            "name the folder of its own run with --out, or run the bundle of this one on the board"
        )


def _refuse_other_models(results: Carried, out: Path) -> None:
    """The files that ran there are the files that are shipped here."""
    listed = {entry["path"]: entry["sha256"] for entry in results.manifest["files"]}
    for name in dict.fromkeys(engine["model"] for engine in results.manifest["engines"]):
        shipped = out / name  # models/VARIANT.onnx, here as there
        if not shipped.exists():
            shipped = out / "bundle" / name  # a file in FP16 for a TensorRT that goes by types is made for boards only
        if not shipped.is_file() or sha256(shipped) != listed.get(name):
            raise RecipeError(f"{shipped} is not the file that ran on the board: it was changed or removed since")


def _figures(results: Carried, report: Report, out: Path, profile: Profile, expected: Expected) -> dict[str, Any]:
    from ..stages.explaining import explain
    from ..stages.measured import figures_of
    from ..stages.on_boards import sampled_words
    from ..stages.tasks import CLASSIFICATION, TASKS
    from ..targets.remote import reading

    manifest = results.manifest
    found = reading.measurement(
        Work(key=_key(results), manifest=manifest),
        results,
        facts=results.facts,
        splits={"test": len(expected.labels)},
        threads=int(manifest["threads"]),
    )
    task = TASKS.get(report.data.task, CLASSIFICATION) if report.data else CLASSIFICATION
    figures = figures_of(
        found,
        {variant.name: variant.precision for variant in report.variants},
        profile=profile,
        metric=task.judge(),
        answers={name: {"test": rows} for name, rows in expected.answers.items()},
        labels={"test": expected.labels},
    )
    more = explain(
        figures["engines"],
        figures["ratios"],
        found.layers,
        files=_files(results, report, out),
        images=None,
        machine=found.machine,
        profile=profile,
    )
    engines = {name: facts | more[name] for name, facts in figures["engines"].items()}
    said = sampled_words(len(expected.labels), by_tool=profile.runtime == "tensorrt")
    return figures | {"engines": engines, "caveats": [*figures["caveats"], said]}


def _files(results: Carried, report: Report, out: Path) -> list[ExportedFile]:
    """What was exported, as the report tells it, of the variants that ran there."""
    from ..stages.artifact import ExportedFile
    from ..stages.twins import variant_of

    models = {str(engine["name"]): out / str(engine["model"]) for engine in results.manifest["engines"]}
    return [
        ExportedFile(
            variant=variant.name,
            precision=variant.precision,
            path=models[variant.name],
            onnx=models[variant.name],
            description=variant.description,
            parameters=variant.parameters,
            macs=variant.macs,
            parity=variant.exported_parity.model_dump() if variant.exported_parity else {},
        )
        for variant in report.variants
        if variant.name in models and variant_of(variant.name) == variant.name
    ]


def _variants(report: Report, figures: Mapping[str, Any]) -> list[Variant]:
    from ..stages.twins import twin_precision, variant_of
    from .assemble import measured_of, twin_description

    found = []
    for variant in report.variants:
        for name in [name for name in figures["engines"] if variant_of(name) == variant.name]:
            facts = measured_of(name, figures["engines"][name], figures)
            facts["val_accuracy"] = variant.val_accuracy  # the board answered no validation samples
            facts["parity"] = facts["parity"] or variant.exported_parity
            if name != variant.name:
                facts |= {"name": name, "twin_of": variant.name, "precision": twin_precision(name)}
                facts |= {"description": twin_description(variant.description, name), "exported_parity": None}
            accuracy, metric = facts["accuracy"], variant.accuracy.metric if variant.accuracy else None
            if accuracy is not None and metric is not None:
                facts["accuracy"] = accuracy.model_copy(update={"metric": metric})
            found.append(variant.model_copy(update=facts))
    return found


def _key(results: Carried) -> str:
    return str(results.manifest.get("job"))


def _job(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("job"))
    except (OSError, ValueError, AttributeError):
        return None
