"""report.json: every figure of a run, in a published and versioned form."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from .values import MaybeFinite, Part, Values

SCHEMA_VERSION = "1.0"
AGREEMENT = "agreement"  # what judges the answers where nobody knows the truth

Where = Literal["device", "stand-in", "estimated"]
Interval = tuple[float, float]


class Run(Part):
    """Which run this is, and what it ran on."""

    id: str = Field(description="the last stage's key: equal for runs of the same work")
    command: str
    recipe: Values = Field(description="the resolved recipe, every default written out")
    seed: int
    started: str = Field(description="ISO 8601, UTC")
    seconds: float = Field(description="wall time of this command; reused stages cost none")
    versions: dict[str, str]
    machine: Values


class DataFacts(Part):
    """What the accuracy figures were taken on."""

    source: str
    classes: list[str]
    task: str = Field("classification", description="what the answers mean")
    metric: str = Field("accuracy", description="the figure that judges them, in per cent")
    samples: str = Field("images", description="what is counted below")
    train: int = Field(description="samples that trained")
    val: int = Field(description="samples that chose between epochs and variants")
    deciding: int = Field(0, description="real samples that chose between variants, where those of val were made")
    test: int = Field(description="samples that chose nothing: every reported accuracy is on these")
    notes: list[str] = Field(description="how the splits were made, what was skipped")


class Limit(Part):
    """One limit of the budget against what was measured."""

    limit: float
    value: float | None = Field(description="None: not measured")
    met: bool | None = Field(description="None: not known")
    why: str = Field(description="one sentence")


class StageFacts(Part):
    """What one stage did."""

    name: str
    settings: Values
    seconds: float
    metrics: Values = Field(description="what the stage says of itself, by name; curves apart")
    curves: Mapping[str, Sequence[MaybeFinite]] = Field(
        description="one value for each epoch, by series; null: none that is finite"
    )
    peak_memory_mb: float | None = Field(None, description="peak resident MiB of this process during the stage")
    reused: bool
    skipped: str | None = Field(description="why the stage did not run; None: it ran")


class Accuracy(Part):
    """The task's figure on the test samples through the session that was timed, in per cent.

    For classification the share that is answered rightly.
    """

    value: float
    n: int
    ci95: Interval = Field(description="Wilson's for a share, of a bootstrap over samples for any other figure")
    metric: str = Field("accuracy", description="what the figure is: accuracy, mAP, mIoU, macro F1, R²")
    also: dict[str, float] = Field(default_factory=dict, description="other figures of the same answers")
    where: Where
    drop: float | None = Field(None, description="points below the baseline on the same images")
    drop_ci95: Interval | None = Field(None, description="paired, so tighter than the two intervals apart")
    lost: int | None = Field(None, description="images that the baseline has right and this one wrong")
    gained: int | None = Field(None, description="images that this one has right and the baseline wrong")
    mcnemar_p: float | None = Field(None, description="exact and two-sided: chance alone would divide them so")


class Latency(Part):
    """Milliseconds of one inference, timed in turn with every other variant."""

    median: float
    p90: float
    p99: float
    mean: float
    minimum: float
    ci95: Interval = Field(description="of the median, bootstrap over rounds")
    samples: list[list[float]] = Field(description="every sample, by round, in the order taken")
    rounds_by_load: list[int] = Field(
        default_factory=list, description="how many of the rounds each load had, where it was loaded several times"
    )
    where: Where
    runtime: str
    threads: int


class Ratio(Part):
    """How many times faster than the baseline, from the same interleaved run."""

    value: float
    ci95: Interval


class Memory(Part):
    """Peak resident memory of a fresh process that only runs this model, in MiB."""

    peak_rss: float
    phases: dict[str, float] = Field(description="resident after each phase: start, runtime, load, first, steady")
    system_drop: float | None = Field(
        None, description="how much less the system had available, where CPU and GPU share one memory"
    )
    where: Where


class Throughput(Part):
    """Inferences per second of one caller that waits for each answer, pinned as the latency is."""

    batch: int
    per_second: float
    threads: int
    where: Where


class ColdStart(Part):
    """Milliseconds until the first answer, once, in a fresh process; the files lay in the system's cache."""

    runtime_ms: float = Field(description="to import the runtime")
    load_ms: float = Field(description="to load or build the engine")
    first_ms: float = Field(description="for the first inference")
    where: Where


class Energy(Part):
    """Of one inference, what the machine takes at rest subtracted."""

    per_inference_mj: float = Field(description="median of the rounds")
    rounds_mj: list[float]
    watts: float = Field(description="of the whole counter while the model ran")
    rest_watts: float = Field(description="the same at rest, measured in between")
    inferences: int
    meter: str
    where: Where


class Series(Part):
    """One value over time."""

    at_s: list[float]
    values: list[float]


class SustainedLatency(Part):
    """One variant in a sustained run; each point is the median of neighbouring rounds."""

    at_s: list[float]
    median_ms: list[float]
    p90_ms: list[float]
    start_ms: float = Field(description="median of the first tenth of the rounds")
    end_ms: float = Field(description="median of the last tenth")
    slowdown: tuple[float, float, float] = Field(description="end against start: value, and its 95 % interval")


class Sustained(Part):
    """All variants timed in turn for so long that heat shows."""

    seconds: float
    sentence: str
    engines: dict[str, SustainedLatency]
    ranking_at_start: list[str] = Field(description="the fastest first")
    ranking_at_end: list[str]
    flips: list[tuple[str, str]] = Field(
        description="pairs of which the first was surely faster at the start, and the second at the end"
    )
    temperature_c: Series | None = Field(description="of the warmest sensor; None: there is none")
    frequency_mhz: Series | None = Field(description="of the slowest CPU that was pinned; None: not known")
    where: Where


class Parity(Part):
    """The exported file against torch on the same real samples."""

    argmax_agreement: float = Field(description="0 to 1")
    max_abs_diff: MaybeFinite = Field(description="over all outputs; null: not finite")
    n: int
    ok: bool
    sqnr_db: MaybeFinite = Field(None, description="power of the answers over that of their error, in decibels")


class LayerTime(Part):
    """One layer as the runtime ran it."""

    layer: str = Field(description="its name in the user's model, where it can be traced")
    type: str = Field(description="what the runtime calls it")
    precision: str = Field(description="that it really ran in")
    role: Literal["weighted", "conversion", "other"]
    ms: float
    share: float = Field(description="0 to 1, of the time of all layers")


class LayerTimes(Part):
    """Where the time goes, by the runtime's own counters, apart from the comparison of latencies."""

    total_ms: float = Field(description="of all layers; counting slows some down, so it is not the latency")
    runs: int
    int8_share: float = Field(description="0 to 1: of the time, computing in INT8")
    conversion_share: float = Field(description="0 to 1: of the time, between precisions and memory layouts")
    arena_mb: float | None = Field(None, description="MiB that the runtime's allocator held at most, where it tells")
    layers: list[LayerTime] = Field(description="the costliest first")


class DivergencePoint(Part):
    """One tensor of the quantised file against the same one of its float twin."""

    layer: str
    tensor: str
    sqnr_db: MaybeFinite
    lost_db: MaybeFinite = Field(description="against the worst of what goes into it")


class Divergence(Part):
    """Where a quantised file that answers wrongly leaves its float twin."""

    sentence: str
    layer: str | None = Field(description="the first that is wrong; None: no single one stands out")
    tensor: str | None
    points: list[DivergencePoint] = Field(description="every compared tensor, in the order of computation")


class Variant(Part):
    """One exported model with everything that was measured of it."""

    name: str
    precision: str
    description: str = Field(description="what was done to it, in a few words")
    parameters: int
    macs: int | None
    size_bytes: int
    file: str = Field(description="relative to the report's folder")
    accuracy: Accuracy | None
    val_accuracy: float | None = Field(description="on the images that choose, in per cent")
    torch_accuracy: float | None = Field(description="the same test images, in torch: simulated where quantised")
    latency_ms: Latency | None
    all_cores_ms: Latency | None = Field(description="the same with every core; None where not measured")
    speedup: Ratio | None = Field(description="over the baseline, one pinned thread")
    memory_mb: Memory | None
    parity: Parity | None
    int8: Values | None = Field(description="what the runtime really ran in INT8; None where not quantised")
    warnings: list[str]
    twin_of: str | None = Field(None, description="the variant that this is another precision of; no stage made it")
    exported_parity: Parity | None = Field(None, description="the ONNX file in ONNX Runtime, before the target's own")
    layers: LayerTimes | None = Field(None, description="None where not measured")
    causes: list[str] = Field(default_factory=list, description="why INT8 is not faster than float, by cost")
    divergence: Divergence | None = Field(None, description="only where the answers are wrong")
    throughput: list[Throughput] = Field(default_factory=list, description="at batch 1, and at the profile's")
    cold_start: ColdStart | None = Field(None, description="None: not measured")
    energy: Energy | None = Field(None, description="None: not measured, see the report's not_measured")


class Board(Part):
    """A further board that the same variants were measured on; the first one's figures are the report's own."""

    device: str = Field(description="its address")
    machine: Values
    versions: dict[str, str]
    caveats: list[str]
    not_measured: dict[str, str]
    unreliable: str | None = Field(description="why no claim can rest on its timings; None: they hold")
    variants: list[Variant]


class Chosen(Part):
    """The variant to ship."""

    name: str
    why: str
    forced: bool = Field(False, description="named by the user, whatever the guard says")


class Verdict(Part):
    """The run in one sentence."""

    sentence: str
    met: bool | None = Field(description="the whole budget; None: not known")
    unreliable: str | None = Field(
        None, description="why no claim can rest on these timings; with a budget that is exit code 4"
    )


class SynthesisRestart(Part):
    """One attempt at making images."""

    seed: int
    score: float
    collapsed: str | None = Field(None, description="what went wrong; None: nothing")


class SynthesisStrip(Part):
    """Some images of one class, side by side, from the one that the given model is surest of to the least sure."""

    label: int = Field(description="place of the class in the data's classes")
    png: str | None = Field(description="base64; None: the given model answers this class to no image")


class SynthesisControl(Part):
    """The student of the distill stage, taught on one kind of images; in float32, in ONNX Runtime."""

    source: str = Field(description="of the images: as data.source has it")
    value: float = Field(description="per cent of the test images that it answers rightly")
    n: int
    ci95: Interval = Field(description="Wilson's")
    seconds: float = Field(description="of making the images and of teaching it")


class SynthesisFacts(Part):
    """The images that stood in for data of the task."""

    source: str = Field(description="as the recipe has it: generated, optimised, noise, images:FOLDER, cached:FOLDER")
    kind: str = Field(description="what they are, in words that follow a number: images that were made")
    method: str
    reason: str = Field(description="why this method, in a sentence")
    images: int = Field(description="how many there are")
    seconds: float
    teacher_confidence: float = Field(description="0 to 1: mean probability that the given model gives its answers")
    class_counts: list[int] = Field(description="by the given model's answer, in the order of the data's classes")
    class_confidence: list[float | None] = Field(description="the same; null: no image")
    balance: float = Field(description="0 to 1: entropy of the mean prediction; 1: every class alike")
    spread: float = Field(description="0 to 1: how much a pixel differs between images of one class")
    score: float = Field(description="0 to 1, higher is better: chose between attempts, without data")
    collapsed: str | None = Field(description="why nothing can be learned from the images; None: nothing was seen")
    restarts: list[SynthesisRestart] = Field(default_factory=list)
    evaluated_on: str | None = Field(description="source of the real data that only judge; None: there were none")
    pool: str | None = Field(None, description="equal for equal images")
    controls: list[SynthesisControl] = Field(
        default_factory=list, description="the student of the made images first, then one for each control"
    )
    sheet: list[SynthesisStrip] = Field(default_factory=list, description="of many classes the fullest and emptiest")


class Estimated(Part):
    """What one engine would take on a board that nothing was measured on. It decides nothing."""

    variant: str
    precision: str = Field(description="of the engine there")
    ms: float = Field(description="of one inference")
    interval: Interval = Field(description="90 %: published latencies of networks that the calibration had not seen")
    basis: str = Field(description="what it was reckoned from")
    where: Literal["estimated"] = "estimated"


class Report(Part):
    """Everything that was measured in one run, the baseline's variant first."""

    schema_version: str = SCHEMA_VERSION
    run: Run
    profile: Values
    data: DataFacts | None
    budget: dict[str, Limit]
    stages: list[StageFacts]
    variants: list[Variant]
    estimates: list[Estimated] = Field(default_factory=list, description="shown only where nothing was measured there")
    bundle: str | None = Field(None, description="folder to take to a board that could not be reached")
    caveats: list[str] = Field(default_factory=list, description="what weakens the timings, with advice")
    sustained: Sustained | None = Field(None, description="only where it was asked for")
    not_measured: dict[str, str] = Field(default_factory=dict, description="figures that no variant has, and why")
    incomplete: str | None = Field(None, description="where the measurement was stopped; None: it is complete")
    boards: list[Board] = Field(default_factory=list, description="further ones, where several were named")
    synthesis: SynthesisFacts | None = Field(
        None, description="only where no data of the task were there to learn from"
    )
    chosen: Chosen
    verdict: Verdict

    def as_json(self, *, indent: int | None = None) -> str:
        """The text of report.json; what a run without data, or on several boards, adds is not in other reports."""
        absent = {"synthesis"} if self.synthesis is None else set()
        return self.model_dump_json(indent=indent, exclude=absent | (set() if self.boards else {"boards"}))
