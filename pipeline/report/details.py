"""The second half of the page: everything that a reader needs to check the first."""

from collections.abc import Callable, Sequence

import yaml

from ...targets.durations import duration
from . import shaping, synthesis, words
from .elements import Markup, details, element, facts, figure, join, section, table
from .schema import Report, StageFacts

Draw = Callable[..., Markup]


def training(report: Report, *, draw: Draw) -> Markup:
    """One small drawing for each series of each stage that trained."""
    trained = [(number, stage) for number, stage in enumerate(report.stages) if stage.curves]
    if not trained:
        return section("training", "Training", element("p", "No stage of this run trained."))
    shown = [drawn for number, stage in trained for drawn in _curves(stage, number=number, draw=draw)]
    note = "One value for each epoch, from left to right."
    return section(
        "training", "Training", element("div", *shown, class_="grid four"), element("p", note, class_="note")
    )


def stages(report: Report) -> Markup:
    if not report.stages:
        return section("stages", "Stages", element("p", "None ran."))
    return section("stages", "Stages", *(_stage(stage) for stage in report.stages))


def data(report: Report) -> Markup:
    if report.data is None:
        return section("data", "Data", element("p", "There was none: accuracy was not measured.", class_="missing"))
    known = report.data
    splits = table(
        "splits",
        synthesis.caption(report),
        ("Split", known.samples.capitalize(), "What they did"),
        [
            ("train", str(known.train), "trained"),
            *synthesis.roles(report),
            ("test", str(known.test), synthesis.role_of_test(report)),
        ],
        words=9,
    )
    notes = element("ul", *(element("li", note) for note in known.notes)) if known.notes else Markup("")
    classes = details(f"{len(known.classes)} classes", element("p", ", ".join(known.classes)))
    return section("data", "Data", splits, notes, classes)


def machine(report: Report) -> Markup:
    """Where and with what it ran."""
    run = report.run
    this = {"command": run.command, "run": run.id, "seed": run.seed, "started": run.started,
            "took": duration(run.seconds)}  # fmt: skip
    return section(
        "machine",
        "Machine and versions",
        element("h3", "This run"),
        facts(this),
        element("h3", "Machine"),
        facts(run.machine),
        element("h3", "Versions"),
        facts(run.versions),
        details(f"Profile {report.profile.get('name', '')}", facts(report.profile)),
    )


def recipe(report: Report) -> Markup:
    text = yaml.safe_dump(report.run.recipe, sort_keys=False, allow_unicode=True)
    body = details("The recipe with every default written out", element("pre", element("code", text), tabindex="0"))
    return section("recipe", "Recipe", body)


def raw() -> Markup:
    """Where every sample is."""
    code = (
        "import json, re, pathlib\n"
        "page = pathlib.Path('report.html').read_text(encoding='utf-8')\n"
        "report = json.loads(re.search(r'id=\"report\">(.*?)</script>', page, re.S)[1])\n"
        "report['variants'][0]['latency_ms']['samples']  # milliseconds, by round"
    )
    return section(
        "raw",
        "Raw samples",
        element("p", "This page carries the whole of report.json, every latency sample by round. In Python:"),
        element("pre", element("code", code), tabindex="0"),
    )


BESIDE = {"share": "of the gradient", "balance": "times its weight"}  # series that are told beside a loss's own


def _curves(stage: StageFacts, *, number: int, draw: Draw) -> list[Markup]:
    """A drawing for each series; how much a loss counted is told in the words under its drawing."""
    alone = {name: values for name, values in stage.curves.items() if not _is_beside(name, stage)}
    return [
        figure(
            draw(values, key=f"curve-{number}-{place}", label=_curve_label(stage.name, series, values)),
            "; ".join([_last(values).removeprefix(": "), *_beside(series, stage)]),
            title=f"{stage.name}: {series.replace('_', ' ')}",
        )
        for place, (series, values) in enumerate(alone.items())
    ]


def _is_beside(name: str, stage: StageFacts) -> bool:
    kind, _, loss = name.partition(" ")
    return kind in BESIDE and loss in stage.curves


def _beside(series: str, stage: StageFacts) -> list[str]:
    """`62 % of the gradient at first, 40 % at the end`."""
    told = []
    for kind, what in BESIDE.items():
        known = [value for value in stage.curves.get(f"{kind} {series}", []) if value is not None]
        if known:
            first, last = (_amount(kind, value) for value in (known[0], known[-1]))
            told.append(f"{first} {what} at first, {last} at the end")
    return told


def _amount(kind: str, value: float) -> str:
    return f"{100 * value:.0f} %" if kind == "share" else f"{value:.2g}"


def _curve_label(stage: str, series: str, values: Sequence[float | None]) -> str:
    return f"{series.replace('_', ' ')} of {stage} over {len(values)} epochs{_last(values)}"


def _last(values: Sequence[float | None]) -> str:
    if not values:
        return ""
    return ": not finite at the end" if values[-1] is None else f": {words.number(values[-1])} at the end"


def _stage(stage: StageFacts) -> Markup:
    if stage.skipped is not None:
        state = f"skipped: {stage.skipped}"
    else:
        state = "reused from an earlier run" if stage.reused else duration(stage.seconds)
    parts = []
    metrics = {key: value for key, value in stage.metrics.items() if key not in (shaping.KEY, synthesis.STARTS)}
    if metrics:
        parts += [element("h3", "What it found"), facts(metrics)]
    if stage.settings:
        parts += [element("h3", "Settings"), facts(stage.settings)]
    summary = join(element("strong", stage.name), " ", element("span", state, class_="about"))
    return details(summary, *(parts or [element("p", "No settings.")]))
