"""Pruned until what is measured meets the budget, on devices whose times follow a law."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from nets import artifact, context, net
from probers import FakeProber
from test_pruning import EXAMPLE
from torch import Tensor, nn

from edgepress.stages.artifact import Artifact, Context
from edgepress.stages.export import Export
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import count_macs, count_parameters, prune
from edgepress.stages.quantize import Quantize
from edgepress.stages.slimming.allocate import Importance
from edgepress.stages.slimming.bench import Seen
from edgepress.stages.slimming.costs import Corrected, Layer, Tabled
from edgepress.stages.slimming.cutting import Group
from edgepress.stages.slimming.groups import find_groups
from edgepress.stages.slimming.importance import by_batch_norm, by_curvature, by_gradients, by_weights
from edgepress.stages.slimming.search import Journal, search
from edgepress.targets.errors import StageError, UnfitError

WIDTH = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture
def notes() -> list[str]:
    return []


def surroundings(
    work: Path, prober: FakeProber | None, notes: list[str] | None = None, *, target: str = "onnxruntime-cpu",
    later: dict[str, Any] | None = None, **goals: float,
) -> Context:  # fmt: skip
    told = notes if notes is not None else []
    work.mkdir(exist_ok=True)
    return replace(
        context(work, target=target), prober=prober, goals=goals, note=told.append, tables=work / "tables",
        later=later or {"export": Export()},
    )  # fmt: skip


def pruned(around: Context, **settings: Any) -> Artifact:
    return prune(Prune(epochs=0, **settings), artifact(net(width=WIDTH)), around)


def facts_of(found: Artifact) -> dict[str, Any]:
    facts: dict[str, Any] = found.records[-1].metrics["to_budget"]
    return facts


def law_of(module: nn.Module, prober: FakeProber, path: Path) -> float:
    """What the made-up device takes for a network."""
    from edgepress.stages.onnx_file import write_onnx

    return prober.law(write_onnx(module, path, example=EXAMPLE, opset=17, dynamic_batch=False, metadata={}))


@pytest.mark.parametrize("speedup", [1.3, 2.0, 4.0])
def test_the_measured_time_meets_the_target_and_lies_little_below(tmp_path: Path, speedup: float) -> None:
    prober = FakeProber()
    found = pruned(surroundings(tmp_path / "work", prober, speedup=speedup))
    before, after = (law_of(module, prober, tmp_path / "a.onnx") for module in (net(width=WIDTH), found.module))
    assert before / after >= speedup
    chosen = facts_of(found)
    finest = max(trial["seen"]["share"] for trial in chosen["trials"] if trial["met"])
    assert after / before == pytest.approx(finest), "of those that meet it, the one that keeps most"
    assert chosen["met"] is True
    assert chosen["reached"][0]["value"] == pytest.approx(before / after)


def test_a_latency_in_ms_is_met_too(tmp_path: Path) -> None:
    prober = FakeProber()
    whole = law_of(net(width=WIDTH), prober, tmp_path / "a.onnx")
    found = pruned(surroundings(tmp_path / "work", prober, latency_ms=0.6 * whole))
    assert law_of(found.module, prober, tmp_path / "a.onnx") <= 0.6 * whole


def test_what_the_tables_get_wrong_is_corrected_by_what_is_measured(tmp_path: Path) -> None:
    """On this device everything saves a third less than its table says."""
    width = 64
    group = Group(name="a", width=width, widths=tuple(range(width - 1, 7, -1)), edges=(), kind="a")
    layer = Layer(name="other", macs=1, parameters=1, into=(), out=())
    table = Tabled(layers=(layer,), full={"a": width}, saves={"a": lambda left: 0.9 * (1 - left / width)}, together=1.0)

    def seen(widths: dict[str, int], *, told: str = "") -> Seen:
        share = 1 - 0.6 * (1 - widths["a"] / width)
        return Seen(
            share=share, low=0.99 * share, high=1.01 * share, ms=share, most_ms=share, baseline_ms=1.0, size_bytes=1
        )

    found = search(
        {"a": group}, Importance(scores={"a": np.arange(width, dtype=np.float64)}), {"time": Corrected(cost=table)},
        {"speedup": 1.5}, measure=seen, whole=seen({"a": width}), journal=Journal(path=None),
    )  # fmt: skip
    first, *_, last = found.trials
    assert not first.is_met
    assert found.chosen is last
    assert last.is_met
    assert last.furthest > -0.04
    assert abs(last.predicted / last.seen.share - 1) < 0.01 < abs(first.predicted / first.seen.share - 1)


@pytest.mark.parametrize("law", [lambda saved: saved**3, lambda saved: 0.9 * saved + (0.35 if saved > 0.3 else 0.0)])
def test_between_a_trial_that_missed_and_one_that_went_too_far_there_are_others(law: Callable[[float], float]) -> None:
    """A device that saves little at first and much later, and one that saves a lot at one width."""
    width = 64
    group = Group(name="a", width=width, widths=tuple(range(width - 1, 7, -1)), edges=(), kind="a")
    layer = Layer(name="other", macs=1, parameters=1, into=(), out=())
    table = Tabled(layers=(layer,), full={"a": width}, saves={"a": lambda left: 1 - left / width}, together=1.0)

    def seen(widths: dict[str, int], *, told: str = "") -> Seen:
        share = 1 - law(1 - widths["a"] / width)
        return Seen(share=share, low=share, high=share, ms=share, most_ms=share, baseline_ms=1.0, size_bytes=1)

    found = search(
        {"a": group}, Importance(scores={"a": np.arange(width, dtype=np.float64)}), {"time": Corrected(cost=table)},
        {"speedup": 1.4}, measure=seen, whole=seen({"a": width}), journal=Journal(path=None),
    )  # fmt: skip
    wider = {"a": found.chosen.widths["a"] + 1}
    assert found.chosen.is_met
    assert found.chosen.furthest > -0.04 or seen(wider).share > 1 / 1.4, "nothing between met and missed is left"
    assert len({trial.widths["a"] for trial in found.trials}) == len(found.trials), "nothing is measured twice"


def test_a_budget_that_is_out_of_reach_ends_with_the_best_and_says_what_to_relax(
    tmp_path: Path, notes: list[str]
) -> None:
    found = pruned(surroundings(tmp_path / "work", FakeProber(), notes, speedup=500))
    facts = facts_of(found)
    assert facts["met"] is False
    assert facts["widths"]["stem"] == 8
    assert facts["widths"]["block"] == 0
    assert any("cannot meet the budget: speedup came to" in note and "Relax the limit" in note for note in notes)
    assert len(facts["front"]) > 3
    assert any(re.search(r"on the way \d+ % of the time kept \d+ % of the importance, ", note) for note in notes)


def test_a_budget_that_is_met_already_leaves_the_network_alone(tmp_path: Path) -> None:
    start = artifact(net(width=WIDTH))
    found = prune(Prune(), start, surroundings(tmp_path / "work", FakeProber(), latency_ms=1e6))
    record = found.records[-1]
    assert found.module is start.module
    assert record.skipped is not None
    assert "meets the budget already" in record.skipped
    assert record.metrics["to_budget"]["met"] is True


def test_size_and_memory_are_met_as_they_are_measured(tmp_path: Path) -> None:
    def memory(model: onnx.ModelProto) -> float:
        return 20 + 1e-4 * sum(np.prod(tensor.dims) for tensor in model.graph.initializer)

    before = law_of(net(width=WIDTH), FakeProber(), tmp_path / "a.onnx")
    size_mb = 0.5 * (tmp_path / "a.onnx").stat().st_size / 2**20
    whole = memory(onnx.load(str(tmp_path / "a.onnx")))
    around = surroundings(tmp_path / "work", FakeProber(memory=memory), size_mb=size_mb, memory_mb=0.8 * whole)
    found = pruned(around)
    after = law_of(found.module, FakeProber(), tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").stat().st_size / 2**20 <= size_mb
    assert memory(onnx.load(str(tmp_path / "b.onnx"))) <= 0.8 * whole
    assert after < before
    assert {one["goal"] for one in facts_of(found)["reached"]} == {"size_mb", "memory_mb"}


def test_tables_are_kept_and_those_of_another_version_measured_again(tmp_path: Path, notes: list[str]) -> None:
    first, second, newer = FakeProber(), FakeProber(), FakeProber(version="2")
    pruned(surroundings(tmp_path / "work", first, notes, speedup=2))
    (tmp_path / "work" / "trials.json").unlink()
    pruned(surroundings(tmp_path / "work", second, notes, speedup=3))
    assert not notes
    assert len(second.asked) < len(first.asked)
    (tmp_path / "work" / "trials.json").unlink()
    pruned(surroundings(tmp_path / "work", newer, notes, speedup=2))
    assert len(newer.asked) == len(first.asked)
    assert any("version 1" in note and "measured again" in note for note in notes)


def test_after_ctrl_c_nothing_is_measured_twice(tmp_path: Path) -> None:
    whole = FakeProber()
    expected = pruned(surroundings(tmp_path / "other", whole, speedup=2))
    stopped = FakeProber(stops_at=len(whole.asked) - 1)
    with pytest.raises(KeyboardInterrupt):
        pruned(surroundings(tmp_path / "work", stopped, speedup=2))
    again = FakeProber()
    found = pruned(surroundings(tmp_path / "work", again, speedup=2))
    assert len(again.asked) == 2, "the unpruned network, to see whether the device has changed, and what was missing"
    assert facts_of(found)["widths"] == facts_of(expected)["widths"]


def test_a_device_that_becomes_slower_is_noticed_and_ratios_hold(tmp_path: Path, notes: list[str]) -> None:
    prober = FakeProber(slower=0.1)
    found = pruned(surroundings(tmp_path / "work", prober, notes, speedup=2))
    assert any("became slower while candidates were timed" in note for note in notes)
    before, after = (law_of(module, prober, tmp_path / "a.onnx") for module in (net(width=WIDTH), found.module))
    assert before / after >= 2


def test_a_candidate_that_does_not_run_costs_its_row_alone(tmp_path: Path) -> None:
    def fails(engine: Any) -> str | None:
        return "it crashed" if engine.name.endswith(" 32") else None

    found = pruned(surroundings(tmp_path / "work", FakeProber(fails=fails), speedup=2))
    assert facts_of(found)["met"]


def test_a_baseline_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing can be pruned to a time: it crashed"):
        pruned(surroundings(tmp_path / "work", FakeProber(fails=lambda engine: "it crashed"), speedup=2))


def test_where_int8_is_faster_the_budget_is_about_int8(tmp_path: Path) -> None:
    def law(model: onnx.ModelProto) -> float:
        quantised = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
        weights = sum(np.prod(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4)
        return float(weights) * (0.4 if quantised else 1.0) + 100.0

    later = {"quantize": Quantize(), "export": Export()}
    found = pruned(surroundings(tmp_path / "work", FakeProber(law=law), later=later, speedup=5))
    facts = facts_of(found)
    assert facts["form"] == "int8"
    assert facts["forms"]["int8"] < facts["forms"]["fp32"]
    shares = count_macs(found.module, EXAMPLE) / count_macs(net(width=WIDTH), EXAMPLE)
    assert 0.3 < shares < 0.6, "INT8 does the rest"
    met = prune(Prune(), artifact(net(width=WIDTH)),
                surroundings(tmp_path / "w", FakeProber(law=law), later=later, speedup=2))  # fmt: skip
    assert "in int8 meets the budget already" in str(met.records[-1].skipped)


def test_a_device_that_is_not_here_is_pruned_for_by_counting(tmp_path: Path, notes: list[str]) -> None:
    around = surroundings(tmp_path / "work", None, notes, target="jetson-nano", speedup=2, latency_ms=1)
    found = pruned(around)
    assert count_macs(found.module, EXAMPLE) <= 0.5 * count_macs(net(width=WIDTH), EXAMPLE)
    assert "counted" in facts_of(found)["time_is"]
    assert any("latency_ms cannot be measured on NVIDIA Jetson Nano" in note for note in notes)


def test_a_network_without_channels_to_remove_is_refused_with_the_reasons(tmp_path: Path) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(UnfitError, match=r"outputs are the answers.*prune=off"):
        prune(Prune(), artifact(linear.eval()), surroundings(tmp_path / "work", FakeProber(), speedup=2))


def test_a_network_that_cannot_be_followed_is_left_as_it_is(tmp_path: Path) -> None:
    class Detached(nn.Module):
        """Its answers depend on its layers in a way that no gradient shows."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(64, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.head(self.layer(x.flatten(1)))

    with pytest.raises(UnfitError, match="which channels go together cannot be found out|no channel can be removed"):
        prune(Prune(), artifact(Detached().eval()), surroundings(tmp_path / "work", FakeProber(), speedup=2))


def test_a_ratio_by_the_user_is_a_ratio(tmp_path: Path) -> None:
    prober = FakeProber()
    found = pruned(surroundings(tmp_path / "work", prober, speedup=2), ratio=0.25)
    assert not prober.asked
    assert "to_budget" not in found.records[-1].metrics


def test_facts_are_plain_data(tmp_path: Path) -> None:
    found = pruned(surroundings(tmp_path / "work", FakeProber(), speedup=2))
    again = json.loads(json.dumps(found.records[-1].metrics))
    assert again["to_budget"]["trials"]
    assert count_parameters(found.module) < count_parameters(net(width=WIDTH))


def batches() -> Iterator[Any]:
    from nets import stripes

    images, labels = stripes(64, seed=0)
    for place in range(0, 64, 16):
        yield (images[place : place + 16].float() / 255 - 0.3) / 0.25, labels[place : place + 16]


@pytest.mark.parametrize("kind", ["taylor", "hessian", "magnitude", "bn-scale"])
def test_channels_that_nobody_listens_to_matter_least(kind: str) -> None:
    module = net(width=16)
    groups = find_groups(module, EXAMPLE, multiple=4, blocks=False)
    silent = [1, 5, 6]
    module.block.conv1.weight.data[silent] = 1e-6
    module.block.bn1.weight.data[silent] = 1e-6
    module.block.conv2.weight.data[:, silent] = 1e-6
    if kind in ("taylor", "hessian"):
        judge = by_gradients if kind == "taylor" else by_curvature
        found = judge(module, groups.found, batches(), F.cross_entropy)
    else:
        found = (by_weights if kind == "magnitude" else by_batch_norm)(module, groups.found)
    scores = found.scores["block.conv1"]
    assert sorted(np.argsort(scores)[:3].tolist()) == silent
    assert (scores >= 0).all()


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "bn-scale", "hessian"])
def test_every_importance_prunes_to_a_budget(tmp_path: Path, importance: str) -> None:
    around = surroundings(tmp_path / "work", FakeProber(), speedup=2)
    assert facts_of(pruned(around, importance=importance))["met"]


def test_one_channel_alone_is_worth_what_the_loss_says(tmp_path: Path) -> None:
    """First order: the score of a channel is about the squared change of the loss when its readers ignore it."""
    module = net(width=16)
    groups = find_groups(module, EXAMPLE, multiple=4, blocks=False)
    images, labels = next(batches())
    scores = by_gradients(module, groups.found, [(images, labels)], F.cross_entropy).scores["block.conv1"]
    before = F.cross_entropy(module(images), labels).item()
    for channel in range(4):
        other = net(width=16)
        other.block.conv2.weight.data[:, channel] *= 0.99
        change = 100 * (F.cross_entropy(other(images), labels).item() - before)
        assert change**2 == pytest.approx(scores[channel], rel=0.2, abs=1e-6)


@pytest.mark.slow
def test_towards_a_drop_of_accuracy_alone_the_network_is_pruned_as_far_as_that_allows(tmp_path: Path) -> None:
    around = surroundings(tmp_path / "work", FakeProber(), accuracy_drop=100.0)
    facts = facts_of(pruned(around, lr=1e-4, batch_size=64))
    assert facts["met"]
    assert len(facts["trials"]) == 5
    assert all(trial["met"] for trial in facts["trials"])
    shares = [trial["predicted"] for trial in facts["trials"]]
    assert shares == sorted(shares, reverse=True), "whatever is allowed, more is tried"
    tight = facts_of(pruned(surroundings(tmp_path / "w", FakeProber(), accuracy_drop=0.0), lr=1e-9, batch_size=64))
    assert tight["reached"][0]["value"] <= 0.0
    assert tight["met"]


@pytest.mark.slow
def test_in_steps_the_network_recovers_in_between_and_ends_at_the_target(tmp_path: Path) -> None:
    prober = FakeProber()
    around = surroundings(tmp_path / "work", prober, speedup=3)
    settings = Prune(epochs=3, steps=3, lr=1e-3, batch_size=64)
    found = prune(settings, artifact(net(width=WIDTH)), around)
    before, after = (law_of(module, prober, tmp_path / "a.onnx") for module in (net(width=WIDTH), found.module))
    assert before / after >= 3
    assert (tmp_path / "work" / "step-2").is_dir()
    assert len(found.records[-1].curves["kd"]) == 1, "the last of three epochs"


def test_steps_need_a_budget() -> None:
    with pytest.raises(ValueError, match="leave ratio out"):
        Prune(ratio=0.3, steps=2)


def test_blocks_stay_where_that_is_wished(tmp_path: Path) -> None:
    found = pruned(surroundings(tmp_path / "work", FakeProber(), speedup=500), blocks=False)
    assert "block" not in facts_of(found)["widths"]
    assert found.module.get_submodule("block.conv1").weight.shape[0] == 8


def test_where_noise_makes_intervals_wide_it_is_measured_longer_and_said(tmp_path: Path, notes: list[str]) -> None:
    prober = FakeProber(noise=0.1)
    found = pruned(surroundings(tmp_path / "work", prober, notes, speedup=2))
    candidates = [asked for asked in prober.asked if "candidate" in asked]
    assert len(candidates) == 2 * len(facts_of(found)["trials"])
    assert any("too noisy while candidates were timed" in note for note in notes)


def test_a_form_that_the_network_cannot_take_is_left_out_with_the_reason(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise StageError("it branches on values")

    monkeypatch.setattr("edgepress.stages.quantization.trial.prepare", refuse)
    later = {"quantize": Quantize(), "export": Export()}
    found = pruned(surroundings(tmp_path / "work", FakeProber(), notes, later=later, speedup=2))
    assert facts_of(found)["form"] == "fp32"
    assert any("does not look at int8: it branches on values" in note for note in notes)
