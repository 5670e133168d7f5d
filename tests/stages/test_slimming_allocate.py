"""Channels are taken where they are cheapest, and given back where they are not needed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from edgepress.stages.slimming.allocate import Importance, Limit, allocate
from edgepress.stages.slimming.costs import Corrected, Layer, Tabled
from edgepress.stages.slimming.cutting import Group
from edgepress.stages.slimming.tables import _rising


def group(name: str, width: int = 32, multiple: int = 8) -> Group:
    widths = tuple(range(width - multiple, 0, -multiple))
    return Group(name=name, width=width, widths=widths, edges=(), kind=name)


def tabled(saves: Mapping[str, Mapping[int, float]], *, layers: tuple[Layer, ...] = ()) -> Tabled:
    """Savings by width, as shares of the whole time."""
    full = {name: max(table) for name, table in saves.items()}
    return Tabled(
        layers=layers or (Layer(name="other", macs=1, parameters=1, into=(), out=()),), full=full, together=1.0,
        saves={name: table.__getitem__ for name, table in saves.items()},
    )  # fmt: skip


def linear(*, whole: float, width: int = 32, multiple: int = 8) -> dict[int, float]:
    return {left: whole * (width - left) / width for left in range(0, width + 1, multiple)}


def importance(**each: float) -> Importance:
    return Importance(scores={name: np.full(32, value) for name, value in each.items()})


def test_channels_go_where_a_millisecond_costs_least_importance() -> None:
    groups = {name: group(name) for name in ("dear", "cheap")}
    cost = tabled({"dear": linear(whole=0.4), "cheap": linear(whole=0.4)})
    found = allocate(groups, importance(dear=2.0, cheap=1.0), [Limit(cost=cost, share=0.8)])
    assert found.meets
    assert found.widths == {"dear": 32, "cheap": 16}


def test_a_width_at_which_the_runtime_is_no_faster_is_stepped_over() -> None:
    groups = {"a": group("a")}
    cost = tabled({"a": {32: 0.0, 24: 0.0, 16: 0.3, 8: 0.3}})
    found = allocate(groups, importance(a=1.0), [Limit(cost=cost, share=0.8)])
    assert found.widths == {"a": 16}


def test_what_turned_out_to_be_needless_is_given_back() -> None:
    groups = {"small": group("small"), "large": group("large")}
    cost = tabled({"small": linear(whole=0.05), "large": {32: 0.0, 24: 0.0, 16: 0.0, 8: 0.5}})
    scores = Importance(scores={"small": np.full(32, 0.001), "large": np.full(32, 1.0)})
    found = allocate(groups, scores, [Limit(cost=cost, share=0.5)])
    assert found.widths == {"small": 32, "large": 8}


def test_two_limits_hold_together() -> None:
    groups = {"slow": group("slow"), "big": group("big")}
    time, size = tabled({"slow": linear(whole=0.8), "big": linear(whole=0.1)}), tabled(
        {"slow": linear(whole=0.1), "big": linear(whole=0.8)}
    )  # fmt: skip
    found = allocate(groups, importance(slow=1.0, big=1.0), [Limit(cost=time, share=0.7), Limit(cost=size, share=0.7)])
    assert found.meets
    assert time.value(found.widths) <= 0.7
    assert size.value(found.widths) <= 0.7


def test_what_cannot_be_met_ends_as_narrow_as_it_can() -> None:
    found = allocate({"a": group("a")}, importance(a=1.0), [Limit(cost=tabled({"a": linear(whole=0.4)}), share=0.5)])
    assert not found.meets
    assert found.widths == {"a": 8}


@pytest.mark.parametrize("seed", range(6))
def test_greedy_comes_near_the_best_of_all_allocations(seed: int) -> None:
    """Against every combination of widths: at most a tenth more importance is lost, and the limit holds."""
    rng = np.random.default_rng(seed)
    names = ("a", "b", "c")
    groups = {name: group(name) for name in names}
    saves = {}
    for name in names:
        steps = np.sort(rng.uniform(0, 0.3, 3))
        saves[name] = {32: 0.0, 24: float(steps[0]), 16: float(steps[1]), 8: float(steps[2])}
    scores = Importance(scores={name: rng.uniform(0, 1, 32) for name in names})
    cost = tabled(saves)
    limit = 1 - 0.6 * sum(table[8] for table in saves.values())
    found = allocate(groups, scores, [Limit(cost=cost, share=limit)])
    assert found.meets
    assert cost.value(found.widths) <= limit

    def lost(widths: Mapping[str, int]) -> float:
        return sum(scores.lost(name, width) for name, width in widths.items())

    every = (dict(zip(names, widths, strict=True)) for widths in itertools.product((32, 24, 16, 8), repeat=3))
    best = min(lost(widths) for widths in every if cost.value(widths) <= limit)
    whole = sum(float(values.sum()) for values in scores.scores.values())
    assert lost(found.widths) <= best + 0.1 * whole


def test_the_best_channels_stay_in_their_order() -> None:
    found = Importance(scores={"a": np.array([3.0, 1.0, 2.0, 4.0])})
    assert found.best("a", 2) == [0, 3]
    assert found.lost("a", 2) == pytest.approx(3.0)
    assert found.kept({"a": 2}) == pytest.approx(0.7)


def test_two_sides_of_a_layer_do_not_save_it_twice() -> None:
    """One layer takes all the time: half of both sides leave a quarter of it, and not nothing."""
    layer = Layer(name="only", macs=100, parameters=100, into=(("a", 1 / 32),), out=(("b", 1 / 32),))
    cost = tabled({"a": linear(whole=1.0), "b": linear(whole=1.0)}, layers=(layer,))
    assert cost.value({"a": 16, "b": 16}) == pytest.approx(0.25)
    changed = cost.change({"a": 16, "b": 32}, {"b": 16})
    assert changed == pytest.approx(0.25 - 0.5)


def test_when_a_block_goes_nothing_else_has_to_go_from_it() -> None:
    inner = replace(group("block.conv"), inside="block")
    block = Group(name="block", width=1, widths=(0,), edges=(), kind="block", is_block=True)
    layer = Layer(name="block.conv", macs=60, parameters=1, into=(), out=(("block.conv", 1 / 32),), within=("block",))
    other = Layer(name="other", macs=40, parameters=1, into=(), out=())
    cost = tabled({"block.conv": linear(whole=0.6), "block": {1: 0.0, 0: 0.6}}, layers=(layer, other))
    assert cost.value({"block.conv": 16, "block": 0}) == pytest.approx(0.4), "what is gone cannot be saved again"
    scores = Importance(
        scores={"block.conv": np.linspace(0.1, 1, 32), "block": np.ones(1)}, harm={"block": [(0.0, 0.0), (1.0, 6.0)]}
    )
    for share, widths in ((0.8, {"block.conv": 16, "block": 1}), (0.42, {"block.conv": 32, "block": 0})):
        found = allocate({"block.conv": inner, "block": block}, scores, [Limit(cost=cost, share=share)])
        assert found.meets
        assert found.widths == widths


def test_measured_harm_replaces_the_scores_and_keeps_their_ranking() -> None:
    found = Importance(scores={"a": np.array([1.0, 2.0, 3.0, 4.0])}, harm={"a": [(0.0, 0.0), (3.0, 30.0), (6.0, 40.0)]})
    assert [found.lost("a", width) for width in (4, 3, 2, 1)] == pytest.approx([0, 10, 30, 40])
    assert found.best("a", 2) == [2, 3]


def test_a_correction_stretches_what_is_saved_and_leaves_the_start() -> None:
    cost = Corrected(cost=tabled({"a": linear(whole=0.5)}), start=0.4, factor=0.5)
    assert cost.value({"a": 32}) == pytest.approx(0.4)
    assert cost.value({"a": 16}) == pytest.approx(0.4 * (1 - 0.5 * 0.25))


def test_noise_that_would_make_fewer_channels_slower_is_evened_out() -> None:
    assert _rising([0.1, 0.3, 0.2, 0.4]) == pytest.approx([0.1, 0.25, 0.25, 0.4])
    assert _rising([-0.1, 0.05]) == pytest.approx([0.0, 0.05])
