"""The sample report as a run without data would make it."""

from __future__ import annotations

import base64

import torch
from report_sample import sample_report

from edgepress.pipeline.report.schema import (
    AGREEMENT,
    Report,
    SynthesisFacts,
    SynthesisRestart,
    SynthesisStrip,
)
from edgepress.stages.synthesis.sheet import contact_sheet

COUNTS = [231, 198, 0, 214, 205, 187, 226, 241, 252, 294]


def without_data(*, evaluated_on: str | None = None, collapsed: str | None = None) -> Report:
    """evaluated_on: the source of real data that judged; None: what is reported is agreement with the model."""
    report = sample_report()
    assert report.data is not None
    metric = AGREEMENT if evaluated_on is None else "accuracy"
    for variant in report.variants:
        assert variant.accuracy is not None
        variant.accuracy.metric = metric
    data = report.data.model_copy(update={"source": "generated", "metric": metric})
    made = SynthesisFacts(
        source="generated",
        kind="images that were made",
        method="fastdfkd",
        reason="the model has batch norm, whose statistics tell what its images looked like",
        images=sum(COUNTS),
        seconds=74.2,
        teacher_confidence=0.9312,
        class_counts=COUNTS,
        class_confidence=[None if count == 0 else 0.88 + 0.0004 * count for count in COUNTS],
        balance=0.957,
        spread=0.183,
        score=0.871,
        collapsed=collapsed,
        restarts=[
            SynthesisRestart(seed=0, score=0.102, collapsed="the teacher takes 94 % of the images for class 3"),
            SynthesisRestart(seed=1, score=0.871),
        ],
        evaluated_on=evaluated_on,
        pool="a" * 64,
        sheet=_sheet(),
    )
    verdict = report.verdict.model_copy(update={"sentence": f"int8 is 6.0 times faster; {metric} 97.6 %."})
    chosen = report.chosen.model_copy(update={"why": "the fastest variant that keeps the budget"})
    stages = [
        stage.model_copy(
            update={
                key: {name.replace("accuracy", AGREEMENT): value for name, value in getattr(stage, key).items()}
                for key in ("metrics", "curves")
            }
        )
        for stage in report.stages
    ]
    return report.model_copy(
        update={"stages": stages, "data": data, "synthesis": made, "verdict": verdict, "chosen": chosen}
    )


def _sheet() -> list[SynthesisStrip]:
    """Stripes and rings, of which each class has its own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([label for label, count in enumerate(COUNTS) if count for _ in range(8)])
    at = torch.linspace(-1, 1, 28)
    x, y = torch.meshgrid(at, at, indexing="xy")
    images = [
        0.5 + 0.5 * torch.sin((4 + label) * (x**2 + y**2 if label % 2 else x * (label - 4) / 4 + y) + phase)
        for label, phase in zip(
            labels.tolist(), (6 * torch.rand(len(labels), generator=generator)).tolist(), strict=True
        )
    ]
    strips = contact_sheet(torch.stack(images)[:, None], labels, torch.ones(len(labels)), classes=len(COUNTS))
    return [
        SynthesisStrip(label=one.label, png=base64.b64encode(one.png).decode() if one.png else None) for one in strips
    ]
