"""The same comparison again and again, on ratios that are made up and on a real runtime."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgepress.targets import practice
from edgepress.targets.errors import StageError
from edgepress.targets.jobs import Engine
from edgepress.targets.repeating import Comparison, Repeated, compare_again
from edgepress.targets.runtimes import target
from edgepress.targets.statistics import Ratio


def comparison(value: float, half: float, *, unreliable: bool = False) -> Comparison:
    return Comparison(
        ratio=Ratio(value=value, low=value - half, high=value + half), median_ms=1.0, seconds=1.0, unreliable=unreliable
    )


def test_a_claim_is_an_interval_without_one_in_it() -> None:
    assert comparison(1.05, 0.04).claims
    assert comparison(0.95, 0.04).claims
    assert not comparison(1.05, 0.06).claims
    assert not comparison(1.05, 0.04, unreliable=True).claims


def test_claims_are_counted_with_an_interval() -> None:
    found = Repeated(comparisons=(*[comparison(1.0, 0.01)] * 19, comparison(1.05, 0.01)))
    assert found.claimed == 1
    low, high = found.claimed_ci95
    assert low < 5 < high


def test_a_machine_resolves_what_is_wider_than_its_intervals_and_their_scatter() -> None:
    assert Repeated(comparisons=(comparison(1.0, 0.02),) * 20).resolution == pytest.approx(0.02)
    assert Repeated(comparisons=(comparison(1.01, 0.02),) * 20).resolution == pytest.approx(0.03)


@pytest.mark.device
@pytest.mark.skipif(bool(target("onnxruntime").unavailable()), reason=str(target("onnxruntime").unavailable()))
def test_a_network_with_eight_times_the_blocks_is_found_slower_wherever_anything_is_claimed(tmp_path: Path) -> None:
    fewer, more = (
        Engine(
            name="n",
            path=practice.write(tmp_path / f"{blocks}.onnx", blocks=blocks, channels=16, side=8),
            runtime="onnxruntime",
            precision="fp32",
        )
        for blocks in (2, 16)
    )
    found = compare_again(more, fewer, image=np.ones((1, 3, 8, 8), np.float32), runs=2, seconds=0.1)
    assert all(one.ratio.value > 2 for one in found.comparisons)
    assert all(one.claims or one.unreliable for one in found.comparisons)  # a busy machine may refuse, and says so


def test_an_engine_that_cannot_be_timed_ends_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = Engine(name="n", path=tmp_path / "broken.onnx", runtime="onnxruntime", precision="fp32")
    with pytest.raises(StageError, match="could not be timed"):
        compare_again(broken, broken, image=np.ones((1, 3, 8, 8), np.float32), runs=1, seconds=0.1)


@pytest.mark.parametrize("blocks", [1, 5])
def test_a_practice_network_has_the_blocks_that_were_asked_for(tmp_path: Path, blocks: int) -> None:
    graph = onnx.load(practice.write(tmp_path / "net.onnx", blocks=blocks)).graph
    assert sum(node.op_type == "Conv" for node in graph.node) == 1 + blocks
    shapes = {tuple(tensor.dims) for tensor in graph.initializer if tensor.name.startswith("kernel")}
    assert len(shapes) == 1
