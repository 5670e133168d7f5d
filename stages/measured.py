"""What the report needs of a measurement: plain figures, judged against the labels and against torch's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..targets.caveats import told
from ..targets.facts import energy_facts, latency_facts, ratios, throughputs
from ..targets.figures import Measurement
from ..targets.profiles import Profile
from .comparison import agrees, compare
from .metrics import Metric
from .twins import twin_precision, variant_of


def figures_of(
    found: Measurement,
    precisions: Mapping[str, str],
    *,
    profile: Profile,
    metric: Metric,
    answers: Mapping[str, Mapping[str, NDArray[np.float32]]],
    labels: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    """What the report needs of a measurement, as JSON can hold it.

    precisions: of each variant's file. answers: torch's, by variant and split.
    """
    return {
        "where": profile.where,
        "runtime": profile.measures_with,
        "engines": {
            name: facts_of(
                name,
                found,
                answers[variant_of(name)],
                labels,
                metric=metric,
                precision=precisions.get(name) or twin_precision(name),
            )
            for name in found.figures
        },
        "ratios": ratios({name: figures.latency for name, figures in found.figures.items()}),
        "machine": found.machine,
        "versions": found.versions,
        "caveats": told(found.caveats),
        "sustained": found.sustained,
        "not_measured": found.not_measured,
        "unreliable": found.unreliable,
        "incomplete": found.incomplete,
    }


def facts_of(
    name: str,
    found: Measurement,
    answers: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, NDArray[Any]],
    *,
    metric: Metric,
    precision: str,
) -> dict[str, Any]:
    """Everything that is reported of one engine, as JSON can hold it.

    Where a board answered a sample of the test images only, the validation figure is torch's own: nothing can be
    chosen by the few that it answered.
    """
    mine = found.figures[name]
    simulated = metric.value(answers["val"], labels["val"]) if "val" in labels else None
    if found.answered is not None:
        answers = {split: answers[split][rows] for split, rows in found.answered.items()}
        labels = {split: labels[split][rows] for split, rows in found.answered.items()}
    facts: dict[str, Any] = {
        "failed": mine.failed,
        "torch_accuracy": metric.value(answers["test"], labels["test"]),
        "latency": latency_facts(mine.latency),
        "all_cores": latency_facts(mine.all_cores),
        "throughput": throughputs(mine, batch=found.batch),
        "memory_mb": mine.memory_mb,
        "system_drop_mb": mine.system_drop_mb,
        "cold_start": mine.cold_start_ms,
        "energy": energy_facts(mine.energy),
        "int8": mine.int8 if precision == "int8" else None,
    }
    if mine.outputs is None:
        return facts
    baseline = found.figures["baseline"].outputs
    before = baseline["test"] if name != "baseline" and baseline is not None else None
    facts["val_accuracy"] = simulated if "val" not in mine.outputs else metric.value(mine.outputs["val"], labels["val"])
    facts["accuracy"] = metric.facts(mine.outputs["test"], labels["test"], before)
    parity = compare(mine.outputs["test"], answers["test"], metric=metric, labels=labels["test"])
    largest = float(np.abs(answers["test"]).max())
    facts["parity"] = parity | {"ok": agrees(parity, precision=precision, largest=largest)}
    return facts
