"""The benchmarks of distillation: what they conclude from figures, and that each of them runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_runs import BENCHMARKS, module, run, write_digits


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """They import each other by file name, as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def results(file: Path | None, **settings: Any) -> Any:
    return module("seeds").Results(file=file, settings=settings)


def test_a_finished_run_is_read_and_not_run_again(tmp_path: Path) -> None:
    file = tmp_path / "out" / "runs.json"
    first = results(file, epochs=3).run("kd", 0, lambda: {"test": 71.5}, lr=0.1)
    again = results(file, epochs=3).run("kd", 0, lambda: pytest.fail("it was run again"), lr=0.1)
    assert first == again == {"test": 71.5}


def test_a_run_of_other_settings_does_not_count_and_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    results(file, epochs=3).run("kd", 0, lambda: {"test": 71.5})
    other = results(file, epochs=4)
    other.run("kd", 0, lambda: {"test": 72.5})
    assert other.values("kd", "test") == {0: 72.5}
    assert [row["settings"]["epochs"] for row in json.loads(file.read_text())["runs"]] == [3, 4]


def test_a_run_with_another_learning_rate_is_another_run() -> None:
    kept = results(None)
    figures = [kept.run("kd", 0, lambda lr=lr: {"test": lr}, lr=lr)["test"] for lr in (0.1, 0.3, 0.1)]
    assert figures == [0.1, 0.3, 0.1]
    assert len(kept.rows) == 2


def test_the_interval_of_three_values_is_students() -> None:
    middle, low, high = module("seeds").interval([1.0, 2.0, 3.0])
    half = 4.302653 / 3**0.5  # t of 0.975 with 2 degrees of freedom; the deviation is 1
    assert (middle, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-5)


def test_a_difference_is_paired_by_seed() -> None:
    told = module("seeds").difference({0: 11.0, 1: 21.0, 2: 31.0, 9: 0.0}, {0: 10.0, 1: 20.0, 2: 30.0})
    assert told == "+1.00 (+1.00 to +1.00)"


@pytest.mark.parametrize(("low", "high", "said"), [(0.4, 2.0, "yes"), (-1.0, 2.0, "not shown"), (-3.0, 0.2, "no")])
def test_a_claim_holds_only_with_its_whole_interval_above_the_margin(low: float, high: float, said: str) -> None:
    assert module("distill_schemes").verdict(low, high, 0.3) == said


def test_every_claim_looks_at_a_scheme_that_is_run() -> None:
    assert {claim.scheme for claim in module("distill_schemes").CLAIMS} == set(module("distill_scheme_runs").SCHEMES)


def test_no_unit_of_the_teacher_has_longer_weights_than_allowed() -> None:
    mnist = module("distill_mnist")
    layer = mnist.Limited(20, 5)
    with torch.no_grad():
        layer.weight.mul_(100)
        layer.weight[0] /= 1000
    short = layer.weight[0].clone()
    layer(torch.zeros(1, 20))
    assert layer.weight[1:].norm(dim=1).tolist() == pytest.approx([mnist.LONGEST] * 4, rel=1e-5)
    torch.testing.assert_close(layer.weight[0], short, rtol=0, atol=0)


def test_the_bias_makes_the_missing_digit_as_frequent_as_it_is() -> None:
    mnist = module("distill_mnist")
    answers = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    answers[:, mnist.MISSING] -= 9
    by = mnist.bias_for(answers, mnist.MISSING, share=0.1)
    assert float((mnist.raised(answers, by).argmax(1) == mnist.MISSING).float().mean()) == pytest.approx(0.1, abs=1e-3)


def test_a_warm_up_is_the_same_share_of_any_schedule_and_the_scale_spares_the_labels() -> None:
    families = module("distill_families")
    base = replace(families.STUDENT, epochs=48)
    losses = families.lesson_of(families.METHODS["dkd"], base, scale=3.0).losses()
    assert losses["dkd"].ramp.epochs == pytest.approx(4.0)
    assert (losses["ce"].weight, losses["dkd"].weight) == (1.0, 3.0)


def test_every_method_of_the_table_is_a_lesson_that_a_recipe_could_hold() -> None:
    families = module("distill_families")
    for name, recipe in families.METHODS.items():
        lesson = families.lesson_of(recipe, families.STUDENT)
        assert lesson.problem() is None, name


def test_other_training_images_never_read_the_answers_kept_for_these(folder: Path) -> None:
    runs = module("distill_runs")
    with runs.room(options(folder)) as place:
        train = place.data.train
        first, second = (place.with_data(train=train.subset(torch.tensor(rows))) for rows in ([0, 1], [2, 3]))
    assert len({place.data.fingerprint, first.data.fingerprint, second.data.fingerprint}) == 3


def test_a_task_is_judged_among_its_own_digits() -> None:
    schemes = module("distill_scheme_runs")
    answers = torch.tensor([[0.1, 0.5, 0, 0, 0, 9, 0, 0, 0, 0], [0.9, 0.5, 0, 0, 0, 9, 0, 0, 0, 0]])
    assert schemes._among(answers, torch.tensor([1, 1]), (0, 1, 2, 3, 4)) == 50.0


def options(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(data=f"mnist:{folder}", keep=folder / "kept", json=None, precision="fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.mark.slow
@pytest.mark.parametrize("digits", ["distilled", "missing", "fraction-labels"])
def test_hintons_experiment_runs_and_goes_on_where_it_was(
    digits: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--data", f"mnist:{folder}", "--quick", "--only", digits, "--json", tmp_path / "out.json")
    run("distill_mnist", monkeypatch, *arguments)
    first = capsys.readouterr()
    assert f"| {digits} |" in first.out
    run("distill_mnist", monkeypatch, *arguments)
    second = capsys.readouterr()
    assert second.err == ""  # nothing was trained
    assert second.out.partition("\n|")[2] == first.out.partition("\n|")[2]


@pytest.mark.slow
def test_hintons_settings_are_chosen_on_training_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("distill_mnist", monkeypatch, "--data", f"mnist:{folder}", "--quick", "--choose")
    assert "Errors on 50 training images that were held back" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("tune", [(), ("--tune",)])
def test_the_families_are_compared_with_cross_entropy(
    tune: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("distill_families", monkeypatch, "--data", f"mnist:{folder}", "--augment", "shift", "--quick", "--seeds", "0,1",
        "--only", "kd", *tune)  # fmt: skip
    said = capsys.readouterr().out
    assert "| losses | test accuracy, % | more than ce (95 %) | more than kd (95 %) | n |" in said
    (row,) = (line for line in said.splitlines() if line.startswith("| kd |"))
    assert row.endswith("| 2 |")


@pytest.mark.slow
def test_two_processes_are_compared_with_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("distill_processes", monkeypatch, "--data", f"mnist:{folder}", "--quick", "--train", "100",
        "--only", "without batch norm")  # fmt: skip
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| without batch norm | 0 |"))
    _, _, _, first, largest, alike, one, several, _ = (cell.strip() for cell in row.split("|"))
    assert (alike, one) == ("yes", several)
    assert float(first) < 1e-5
    assert float(largest) < 1e-3


@pytest.mark.slow
def test_the_cifar_pair_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image
    from safetensors.torch import save_file

    for split in ("train", "test"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(12):
                shade = 200 if label == "a" else 40 + number
                Image.new("RGB", (32, 32), (shade, 0, 0)).save(tmp_path / split / label / f"{number}.png")
    nets = module("distill_nets")
    torch.manual_seed(0)
    save_file(nets.resnet56(2).state_dict(), tmp_path / "teacher.safetensors")
    run("distill_cifar", monkeypatch, "--data", f"imagefolder:{tmp_path}", "--teacher", tmp_path / "teacher.safetensors",
        "--quick", "--only", "ce,kd", "--rates", "0.05,0.1", "--keep", tmp_path / "kept")  # fmt: skip
    assert "| kd |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["teachers", "mutual", "byot", "ard", "modal", "lwf"])
def test_every_scheme_runs_beside_its_control(
    scheme: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("distill_schemes", monkeypatch, "--data", f"mnist:{folder}", "--quick", "--only", scheme)
    said = capsys.readouterr().out
    assert said.count("| not shown |") == sum(claim.scheme == scheme for claim in module("distill_schemes").CLAIMS)


@pytest.mark.slow
def test_the_cost_of_a_step_is_told_as_ratios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("distill_overhead", monkeypatch, "--quick", "--json", tmp_path / "out.json")
    said = capsys.readouterr().out
    assert "| edgepress / plain loop |" in said
    assert "torchdistill was not measured" in said
    assert set(json.loads((tmp_path / "out.json").read_text())["seconds"]) == {
        "plain loop", "edgepress", "edgepress, answers kept",
    }  # fmt: skip


@pytest.mark.slow
def test_a_student_of_noise_stands_beside_one_of_real_digits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ("--data", f"mnist:{folder}", "--quick", "--json", tmp_path / "out.json")
    run("datafree_mnist", monkeypatch, *source, "--only", "noise,labels")
    said = capsys.readouterr().out
    assert "| run | test accuracy, % | agreement on made images, % | seconds | n | in the papers |" in said
    rows = {line.split(" | ")[0].strip("| "): line for line in said.splitlines() if line.startswith("| ")}
    assert {"teacher", "noise", "labels"} <= rows.keys()
    assert rows["labels"].split(" | ")[2] == ""  # no image was made for it
    assert rows["noise"].split(" | ")[2] != ""
