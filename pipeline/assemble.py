"""Put the figures of all stages together into one report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from ..stages import twins
from ..stages.artifact import Artifact, ExportedFile, Record
from ..stages.data import Data
from ..stages.exporting import INT8_TWIN
from ..stages.twins import twin_precision, variant_of
from ..targets import machine
from ..targets.profiles import Budget, Profile
from ..targets.sustained import sentence
from .choose import choose, conclude, doubt_of, judge, reasons_in
from .estimates import estimates_of
from .made import agreement_of, judged_by, renamed, synthesis_of
from .plan import Plan
from .report import shaping
from .report.schema import (
    AGREEMENT,
    Accuracy,
    Board,
    ColdStart,
    DataFacts,
    Divergence,
    Energy,
    Latency,
    LayerTimes,
    Memory,
    Parity,
    Ratio,
    Report,
    Run,
    StageFacts,
    Sustained,
    SynthesisControl,
    Throughput,
    Variant,
)

PACKAGES = ("edgepress", "torch", "torch-pruning", "onnx", "onnxruntime", "openvino", "numpy", "accelerate")


def versions() -> dict[str, str]:
    """What this run was made with."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def assemble(
    plan: Plan,
    artifact: Artifact,
    data: Data,
    *,
    command: str,
    started: str,
    seconds: float,
    reused: Sequence[str],
    ship: str | None = None,
    controls: Sequence[SynthesisControl] = (),
) -> Report:
    """The report of a finished run.

    ship: a variant that is chosen whatever the guard says. controls: students of other images than were made.
    """
    figures = _figures_of(artifact)
    agreement = agreement_of(data)
    variants = [judged_by(agreement, variant) for variant in _variants(artifact, figures)]
    samples = data.synthetic.images if data.synthetic and data.decides is None else data.task.samples
    boards = [_board(one, artifact, agreement) for one in figures.get("boards", [])]
    shaped = _shaped(artifact)
    concluded = conclusion(
        variants,
        figures,
        plan.budget,
        plan.profile,
        ship=ship,
        samples=samples,
        agreement=agreement,
        boards=boards,
        pruning=shaping.for_verdict(shaped) if shaped else None,
    )
    sustained = figures.get("sustained")
    estimates, no_estimate = estimates_of(artifact.files, variants, plan.profile)
    return Report(
        run=Run(
            id=artifact.key,
            command=command,
            recipe=plan.recipe.model_dump(mode="json"),
            seed=plan.recipe.seed,
            started=started,
            seconds=seconds,
            versions=versions(),
            machine=figures.get("machine") or machine.describe(),
        ),
        profile=plan.profile.model_dump(mode="json"),
        data=_data_facts(plan, data),
        stages=[renamed(_stage_facts(record, reused), data) for record in artifact.records],
        variants=variants,
        estimates=estimates,
        bundle=figures.get("bundle"),
        caveats=[*_caveats(figures, plan.profile), *(shaping.notes(shaped) if shaped else ())],
        sustained=Sustained(**sustained, sentence=sentence(sustained), where=figures["where"]) if sustained else None,
        not_measured={**figures.get("not_measured", {}), **no_estimate},
        incomplete=figures.get("incomplete"),
        boards=boards,
        synthesis=synthesis_of(data, controls),
        **concluded,
    )


def conclusion(
    variants: Sequence[Variant],
    figures: Mapping[str, Any],
    budget: Budget,
    profile: Profile,
    *,
    ship: str | None,
    samples: str,
    agreement: str | None,
    boards: Sequence[Board] = (),
    pruning: str | None = None,
) -> dict[str, Any]:
    """Which variant ships and whether the budget is met: the report's `chosen`, `budget` and `verdict`.

    boards: further ones, on which it must be faster and within the budget, too. pruning: how far it came, in words.
    """
    unreliable = figures.get("unreliable") or next(
        (f"{board.unreliable} (on {board.device})" for board in boards if board.unreliable), None
    )
    doubt = doubt_of(figures.get("incomplete"), unreliable, profile)
    chosen = choose(
        variants,
        figures.get("ratios", {}),
        budget,
        profile,
        ship=ship,
        doubt=doubt,
        samples=samples,
        elsewhere={one["device"]: one["ratios"] for one in figures.get("boards", [])},
    )
    variant = next(variant for variant in variants if variant.name == chosen.name)
    elsewhere = {board.device: one for board in boards for one in board.variants if one.name == chosen.name}
    limits = judge(variant, budget, profile, doubt=doubt, elsewhere=elsewhere)
    verdict = conclude(
        variant, variants[0], limits, profile,
        forced=chosen.forced, doubt=doubt, agreement=agreement, pruning=pruning,
    )  # fmt: skip
    if doubt:
        verdict = verdict.model_copy(update={"unreliable": unreliable})
    return {"chosen": chosen, "budget": limits, "verdict": verdict}


def _caveats(figures: Mapping[str, Any], profile: Profile) -> list[str]:
    found = list(figures.get("caveats", []))
    if figures.get("unreliable") and profile.where == "stand-in":  # no verdict rests on them, and still
        found.append(f"The timings here are unreliable: {figures['unreliable']}; measure again on a quieter machine.")
    return found


def _shaped(artifact: Artifact) -> Mapping[str, Any] | None:
    """What the prune stage found on its way to the budget, where it went there."""
    return next((one.metrics[shaping.KEY] for one in artifact.records if shaping.KEY in one.metrics), None)


def _figures_of(artifact: Artifact) -> Mapping[str, Any]:
    """What the profile stage measured, or nothing where it did not run."""
    found = [record.metrics for record in artifact.records if record.stage == "profile" and not record.skipped]
    return found[-1] if found else {}


def _data_facts(plan: Plan, data: Data) -> DataFacts:
    return DataFacts(
        source=plan.recipe.data.source,
        classes=list(data.classes),
        task=data.task.name,
        metric=data.task.metric if agreement_of(data) is None else AGREEMENT,
        samples=data.task.samples,
        train=len(data.train) if data.train is not None else 0,
        val=len(data.val),
        deciding=len(data.decides) if data.decides is not None else 0,
        test=len(data.test),
        notes=list(data.notes),
    )


def _stage_facts(record: Record, reused: Sequence[str]) -> StageFacts:
    hidden = (  # they have places of their own
        *("engines", "ratios", "machine", "versions", "caveats"),
        *("sustained", "not_measured", "unreliable", "incomplete", "boards"),
    )
    return StageFacts(
        name=record.stage,
        settings=dict(record.settings),
        seconds=record.seconds,
        metrics={key: value for key, value in record.metrics.items() if key not in hidden},
        curves={name: list(values) for name, values in record.curves.items()},
        peak_memory_mb=record.peak_memory_mb,
        reused=record.stage in reused,
        skipped=record.skipped,
    )


def _board(figures: Mapping[str, Any], artifact: Artifact, agreement: str | None) -> Board:
    return Board(
        device=figures["device"],
        machine=figures["machine"],
        versions=figures["versions"],
        caveats=figures["caveats"],
        not_measured=figures["not_measured"],
        unreliable=figures["unreliable"],
        variants=[judged_by(agreement, variant) for variant in _variants(artifact, figures)],
    )


def _variants(artifact: Artifact, figures: Mapping[str, Any]) -> list[Variant]:
    engines: Mapping[str, Any] = figures.get("engines", {})
    found = []
    for file in artifact.files:
        names = [name for name in engines if variant_of(name) == file.variant] or [file.variant]
        found += [_variant(name, file, engines.get(name, {}), figures) for name in names]
    return found


def _variant(name: str, file: ExportedFile, facts: Mapping[str, Any], figures: Mapping[str, Any]) -> Variant:
    twin = twin_precision(name) if name != file.variant else None
    found = measured_of(name, facts, figures)
    is_int8 = file.precision == "int8"
    parity = Parity(**{"ok": True, **file.parity}) if file.parity else None
    return Variant(
        name=name,
        precision=twin or file.precision,
        description=twin_description(file.description, name) if twin else file.description,
        parameters=file.parameters,
        macs=file.macs,
        size_bytes=file.size_bytes,
        file=f"models/{file.path.name}",
        exported_parity=None if twin else parity,
        twin_of=file.variant if twin else _calibrated_from(name),
        **found
        | {"parity": found["parity"] or parity, "int8": found["int8"] if is_int8 else None}
        | {"warnings": [*file.warnings, *found["warnings"]]},
    )


def twin_description(description: str, name: str) -> str:
    """Of an engine that computes its file in fewer bits."""
    return f"{description}, computed in {twins.WORDS[twin_precision(name)]}"


def measured_of(name: str, facts: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a variant that was measured, by the report's names; None or nothing where it was not."""
    where = figures.get("where", "stand-in")
    accuracy, memory, parity = facts.get("accuracy"), facts.get("memory_mb"), facts.get("parity")
    ratio = figures.get("ratios", {}).get("baseline", {}).get(name)
    return {
        "accuracy": Accuracy(**accuracy, where=where) if accuracy else None,
        "val_accuracy": facts.get("val_accuracy"),
        "torch_accuracy": facts.get("torch_accuracy"),
        "latency_ms": _latency(facts.get("latency"), figures),
        "all_cores_ms": _latency(facts.get("all_cores"), figures),
        "speedup": Ratio(value=ratio[0], ci95=(ratio[1], ratio[2])) if ratio else None,
        "memory_mb": Memory(
            peak_rss=memory["peak"],
            phases={phase: value for phase, value in memory.items() if phase != "peak"},
            system_drop=facts.get("system_drop_mb"),
            where=where,
        )
        if memory
        else None,
        "parity": Parity(**{"ok": True, **parity}) if parity else None,
        "layers": LayerTimes(**facts["layers"]) if facts.get("layers") else None,
        "causes": facts.get("causes", []),
        "divergence": Divergence(**facts["divergence"]) if facts.get("divergence") else None,
        "throughput": [Throughput(**found, where=where) for found in facts.get("throughput", [])],
        "cold_start": ColdStart(**facts["cold_start"], where=where) if facts.get("cold_start") else None,
        "energy": Energy(**facts["energy"], where=where) if facts.get("energy") else None,
        "int8": facts.get("int8"),
        "warnings": reasons_in(facts),
    }


def _calibrated_from(name: str) -> str | None:
    """The float variant that was calibrated and nothing more, by the name of what came out."""
    return name.removesuffix(INT8_TWIN) if name.endswith(INT8_TWIN) else None


def _latency(facts: Mapping[str, Any] | None, figures: Mapping[str, Any]) -> Latency | None:
    return Latency(**facts, where=figures["where"], runtime=figures["runtime"]) if facts else None
