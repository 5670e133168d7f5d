"""Which method makes images, from what a recipe says and what the teacher is, and how much there is to compute."""

from __future__ import annotations

from typing import Any

import pytest

from edgepress.stages.settings import DataSettings
from edgepress.stages.synthesis.methods import METHODS, asked_of, choose
from edgepress.stages.synthesis.settings import Synthesis, kind_of
from edgepress.stages.synthesis.work import Costs, work_of

COSTS = Costs(teacher=40.0, student=10.0, generator=20.0)


@pytest.mark.parametrize(
    ("name", "has_norms", "only_calibrates", "chosen"),
    [
        ("auto", True, False, "fastdfkd"),
        ("auto", False, False, "dfq"),
        ("auto", True, True, "zeroq"),
        ("auto", False, True, "dfq"),
        ("nayer", True, False, "nayer"),
        ("nayer", False, False, "dfq"),
        ("zeroq", False, True, "dfq"),
        ("dafl", False, False, "dafl"),
    ],
)
def test_the_method_fits_the_teacher(name: Any, has_norms: bool, only_calibrates: bool, chosen: str) -> None:
    method, reason = choose(name, has_norms=has_norms, only_calibrates=only_calibrates)
    assert method.name == chosen
    assert name in ("auto", chosen) or f"{name} needs" in reason


def test_a_method_that_can_do_nothing_alone_has_another_before_it() -> None:
    for method in METHODS.values():
        assert method.first.priors or method.play == "noise"


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("generated", ("generated", "")), ("optimised", ("optimised", "")), ("noise", ("noise", "")),
        ("images:a/b", ("images", "a/b")), ("cached:C:x", ("cached", "C:x")), ("images", None), ("generated:x", None),
        ("imagefolder:x", None), ("a.py:f", None),
    ],
)  # fmt: skip
def test_sources_that_are_not_data(source: str, kind: tuple[str, str] | None) -> None:
    assert kind_of(source) == kind
    assert DataSettings(source=source).is_real is (kind is None)


def test_a_source_may_ask_for_a_method() -> None:
    assert asked_of(Synthesis(), "noise") == "noise"
    assert asked_of(Synthesis(), "optimised") == "zeroq"
    assert asked_of(Synthesis(method="deepinversion"), "optimised") == "deepinversion"
    assert asked_of(Synthesis(method="nayer"), "generated") == "nayer"


@pytest.mark.parametrize(("source", "method"), [("optimised", "nayer"), ("noise", "dfad"), ("images:some", "zeroq")])
def test_a_method_that_a_source_has_no_use_for_is_refused(source: str, method: Any) -> None:
    with pytest.raises(ValueError, match=f"synthesis.method {method} makes nothing where source is {source}"):
        DataSettings(source=source, synthesis=Synthesis(method=method))


def test_a_round_of_two_networks_and_a_generator_is_what_they_do_in_it() -> None:
    """DFAD: one step of the generator through all three, the teacher's answers once, ten steps of the student."""
    found = work_of(METHODS["dfad"], Synthesis(rounds=1, batch=8), costs=COSTS, batch_size=128)
    generator = 3 * 20 + 2 * (40 + 10)  # forwards, back to its input and to its weights; theirs forwards and back
    assert found.epoch == 8 * (generator + 40 + 10 * 3 * 10)


def test_images_that_are_there_need_not_be_made() -> None:
    given: dict[str, Any] = {"costs": COSTS, "batch_size": 128}
    for method in METHODS.values():
        there = work_of(method, Synthesis(), there=512, **given)
        assert there.pool == 0
        assert there.epoch == work_of(method, Synthesis(images=512), **given).epoch


def test_more_images_and_longer_epochs_are_more_work() -> None:
    def work(method: str, **changes: Any) -> tuple[float, float]:
        found = work_of(METHODS[method], Synthesis(**changes), costs=COSTS, batch_size=128)
        return found.pool, found.epoch

    for method in METHODS:
        few, many = work(method, images=512), work(method, images=4096)
        assert many[0] >= few[0]
        assert min(few[1], many[1]) > 0
    assert 6 * work("dfad", rounds=10)[1] == pytest.approx(work("dfad", rounds=60)[1])
    assert work("dfad", rounds=60) == work("dfad")
    assert work("dfad", reuse=True)[1] < work("dfad", reuse=False)[1]
