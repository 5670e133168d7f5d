"""Measuring in processes of their own: the figures that come back, and how they fit each other."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from measured import NEEDS_ONNXRUNTIME, Images, engine, is_whole, quick

from edgepress.targets import energy
from edgepress.targets.errors import RecipeError
from edgepress.targets.measure import Engine, measure
from edgepress.targets.runtimes import target
from edgepress.targets.statistics import ratio

pytestmark = NEEDS_ONNXRUNTIME

Builder = Callable[..., Path]


def test_the_answers_are_those_of_the_session_for_every_split(images: Images, good: Engine) -> None:
    found = measure(
        [good],
        inputs={"val": images[:3], "test": images},
        seconds=0.05,
        all_cores=False,
        memory=False,
        timeout_seconds=60,
    ).figures["good"]
    assert found.outputs is not None
    (expected,) = target("onnxruntime").load(good.path, precision="fp32")(images)
    np.testing.assert_allclose(found.outputs["test"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.outputs["val"], expected[:3], rtol=1e-5)
    assert found.memory_mb is None
    assert found.all_cores is None


def test_a_model_with_a_fixed_batch_answers_one_by_one(network: Builder, images: Images) -> None:
    found = quick([engine("fixed", network("fixed", batch=1))], images).figures["fixed"]
    assert found.outputs is not None
    assert found.outputs["test"].shape == (70, 10)


@pytest.mark.slow
def test_every_figure_is_there_and_fits_the_others(network: Builder, images: Images) -> None:
    engines = [
        engine("fp32", network("fp32", channels=32)),
        engine("int8", network("int8", channels=32, activations=np.uint8), precision="int8"),
    ]
    told: list[float] = []
    found = measure(
        engines, inputs={"test": images}, seconds=1, timeout_seconds=60, progress=lambda text, share: told.append(share)
    )
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1
    assert found.versions == {"onnxruntime": target("onnxruntime").version()}
    for name, figures in found.figures.items():
        assert figures.failed is None
        assert figures.latency is not None
        assert figures.latency.threads == 1
        assert figures.memory_mb is not None
        assert set(figures.memory_mb) == {"start", "runtime", "load", "first", "steady", "peak"}
        assert figures.memory_mb["start"] < figures.memory_mb["runtime"] < figures.memory_mb["load"]
        assert figures.memory_mb["peak"] >= max(figures.memory_mb.values()) - 0.01
        assert figures.cold_start_ms is not None
        assert set(figures.cold_start_ms) == {"runtime_ms", "load_ms", "first_ms"}
        assert figures.cold_start_ms["load_ms"] > figures.latency.median_ms
        assert (figures.int8 is not None) == (name == "int8")
    if found.machine["usable_cores"] > 1:
        assert found.figures["fp32"].all_cores is not None
        assert found.figures["fp32"].all_cores.threads == found.machine["usable_cores"]
    if sys.platform == "linux":
        assert len(found.machine["pinned_cpus"]) == 1


@pytest.mark.slow
def test_a_model_against_its_copy_shows_no_difference_and_a_larger_one_is_slower(
    network: Builder, images: Images
) -> None:
    engines = [
        engine("small", network("small", channels=8)),
        engine("copy", network("copy", channels=8)),
        engine("large", network("large", channels=512)),
    ]
    found = quick(engines, images, seconds=3.0).figures
    small, copy, large = (found[one.name].latency for one in engines)
    assert small is not None
    assert copy is not None
    assert large is not None
    same = ratio(small, copy)
    assert same.low < 1.1  # noise makes the interval wider: it still reaches what is true
    assert same.high > 0.9
    assert ratio(large, small).value > 2


def test_a_comparison_of_nothing_is_refused(images: Images, good: Engine) -> None:
    with pytest.raises(RecipeError, match="one at least"):
        quick([], images)
    with pytest.raises(RecipeError, match="names of their own"):
        quick([good, good], images)
    with pytest.raises(RecipeError, match="one image at least"):
        quick([good], images[:0])
    with pytest.raises(RecipeError, match="no runtime 'onnxruntim'"):
        quick([engine("a", good.path, runtime="onnxruntim")], images)
    with pytest.raises(RecipeError, match="threads is 0"):
        quick([Engine(name="a", path=good.path, runtime="onnxruntime", precision="fp32", threads=0)], images)


def test_batches_are_timed_where_the_batch_is_open_and_missed_elsewhere(network: Builder, images: Images) -> None:
    engines = [engine("open", network("open", channels=256)), engine("fixed", network("fixed", batch=1))]
    found = quick(engines, images, batch=16)
    batched, single = found.figures["open"].batched, found.figures["open"].latency
    assert batched is not None
    assert single is not None
    assert batched.median_ms > 2 * single.median_ms  # sixteen times the work
    assert found.figures["fixed"].batched is None
    assert is_whole(found.figures["fixed"])
    missed = [str(caveat) for caveat in found.caveats if caveat.kind == "missing"]
    assert any(text.startswith("fixed was not timed with batches of 16: the model takes 1x3x8x8") for text in missed)


def test_a_sustained_run_has_curves_and_is_kept_apart_from_the_comparison(images: Images, good: Engine) -> None:
    found = quick([good], images, sustained_seconds=0.5)
    assert found.sustained is not None
    curve = found.sustained["engines"]["good"]
    assert len(curve["at_s"]) == len(curve["median_ms"]) >= 3
    assert found.sustained["seconds"] >= curve["at_s"][-1] > 0
    assert found.sustained["ranking_at_end"] == ["good"]
    assert is_whole(found.figures["good"])


def test_energy_is_measured_or_the_reason_is_told(images: Images, good: Engine) -> None:
    found = quick([good], images, energy=True)
    meter, why = energy.find()
    assert (found.figures["good"].energy is None) == ("energy" in found.not_measured)
    if meter is None:
        assert found.not_measured["energy"] == why


def test_the_work_of_others_is_watched_while_it_measures(images: Images, good: Engine) -> None:
    during = quick([good], images).machine["during"]
    assert during["seconds"] > 0
    if sys.platform == "linux":
        assert during["others_cpus"] >= 0
