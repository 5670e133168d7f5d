"""The variants as rows of text, which every rendering lays out in its own way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from . import words
from .schema import Accuracy, Board, Latency, Memory, Report, Variant, Where

Figure = TypeVar("Figure", Accuracy, Latency, Memory)
ORDER: tuple[Where, ...] = ("device", "stand-in", "estimated")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant, every figure written out."""

    name: str
    is_chosen: bool
    description: str
    precision: str
    accuracy: str
    change: str
    latency: str
    tail: str
    faster: str
    size: str
    parameters: str
    macs: str
    memory: str
    parity: str


def rows(report: Report, *, where: Where) -> list[Row]:
    """Every variant with the figures that were taken there; others never share their column."""
    return [
        _row(variant, where=where, is_chosen=variant.name == report.chosen.name, is_baseline=index == 0)
        for index, variant in enumerate(report.variants)
    ]


def places(report: Report) -> tuple[Where, ...]:
    """Where figures were taken, the most trustworthy place first; none without any figure."""
    seen = {figure.where for variant in report.variants for figure in _figures(variant)}
    return tuple(where for where in ORDER if where in seen)


def on_board(report: Report, board: Board) -> Report:
    """The report as that further board's: every rendering of variants shows it as it shows the first one's."""
    figures = {"variants": board.variants, "caveats": board.caveats, "not_measured": board.not_measured}
    return report.model_copy(
        update={**figures, "profile": {**report.profile, "device": board.device}, "boards": [], "budget": {}}
    )


def main_place(report: Report) -> Where:
    """Where the figures of a one-table rendering come from."""
    seen = places(report)
    if seen:
        return seen[0]
    return "stand-in" if report.profile.get("device") == "none" else "device"


def chosen(report: Report) -> Variant | None:
    return next((variant for variant in report.variants if variant.name == report.chosen.name), None)


def warnings(report: Report) -> list[str]:
    """What weakens the figures of the run, then of each variant, each as a sentence."""
    of_variants = [f"{variant.name}: {text}" for variant in report.variants for text in variant.warnings]
    of_boards = [f"{board.device}: {text}" for board in report.boards for text in warnings(on_board(report, board))]
    return [*report.caveats, *of_variants, *of_boards]


def _row(variant: Variant, *, where: Where, is_chosen: bool, is_baseline: bool) -> Row:
    accuracy = here(variant.accuracy, where)
    latency = here(variant.latency_ms, where)
    memory = here(variant.memory_mb, where)
    return Row(
        name=variant.name,
        is_chosen=is_chosen,
        description=variant.description,
        precision=variant.precision,
        accuracy=words.accuracy(accuracy),
        change="baseline" if is_baseline else words.change(accuracy),
        latency=words.latency(latency),
        tail=words.NOT_MEASURED if latency is None else f"{words.number(latency.p90)} / {words.number(latency.p99)}",
        faster="baseline" if is_baseline else words.ratio(variant.speedup if latency else None),
        size=words.size(variant.size_bytes),
        parameters=words.count(variant.parameters),
        macs=words.count(variant.macs),
        memory=words.mib(memory.peak_rss if memory else None),
        parity=words.parity(variant.parity),
    )


def here(figure: Figure | None, where: Where) -> Figure | None:
    """The figure if it was taken there."""
    return figure if figure is not None and figure.where == where else None


def _figures(variant: Variant) -> Iterator[Accuracy | Latency | Memory]:
    for figure in (variant.latency_ms, variant.accuracy, variant.memory_mb, variant.all_cores_ms):
        if figure is not None:
            yield figure
