"""Checkpoints are loaded as tensors only, however they were saved, and a misfit is explained."""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgepress.stages.weights import load_weights_
from edgepress.targets.errors import RecipeError


def network(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, classes)))


def weights(seed: int = 1) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network().state_dict()


def saved(folder: Path, value: Any, name: str = "w.pt") -> Path:
    path = folder / name
    if name.endswith(".safetensors"):
        save_file(value, path)
    else:
        torch.save(value, path)
    return path


def assert_loads(path: Path) -> None:
    module = network()
    load_weights_(module, path)
    for key, value in weights().items():
        assert torch.equal(module.state_dict()[key], value), key


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights().items()}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.th", "w.bin"])
def test_weights_are_loaded_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    assert_loads(saved(tmp_path, weights(), name))


def test_weights_in_the_format_of_old_torch_are_loaded(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_loads(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 91.2, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": state, "ema": {"conv.weight": torch.zeros(1)}},
        lambda state: {"net": state, "acc": 1},
        lambda state: {"ema": state},
        lambda state: {"model": {"state_dict": state}},
        OrderedDict,
    ],
)
def test_weights_are_found_inside_what_training_scripts_save(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    assert_loads(saved(tmp_path, wrap(weights())))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "module.model."])
def test_what_a_wrapper_put_before_every_name_is_taken_off(tmp_path: Path, prefix: str) -> None:
    assert_loads(saved(tmp_path, prefixed(prefix)))


def test_an_average_of_models_is_loaded(tmp_path: Path) -> None:
    assert_loads(saved(tmp_path, {"n_averaged": torch.tensor(3), **prefixed("module.")}))


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    module = nn.ModuleDict({"model": network()})
    load_weights_(module, saved(tmp_path, prefixed("model.")))
    assert torch.equal(module["model"].get_parameter("head.weight"), weights()["head.weight"])


def test_missing_batch_counters_are_no_problem(tmp_path: Path) -> None:
    state = {key: value for key, value in weights().items() if not key.endswith("num_batches_tracked")}
    assert_loads(saved(tmp_path, state))


def test_half_precision_weights_fill_a_float_network(tmp_path: Path) -> None:
    module = network()
    load_weights_(module, saved(tmp_path, {key: value.half() for key, value in weights().items()}))
    head = module.get_parameter("head.weight")
    assert head.dtype == torch.float32
    assert torch.equal(head, weights()["head.weight"].half().float())


def refusal(path: Path, module: nn.Module | None = None) -> str:
    """What is said, after a look that nothing was loaded."""
    module = module or network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(RecipeError) as caught:
        load_weights_(module, path)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    return str(caught.value)


def test_a_misfit_lists_what_is_missing_unexpected_and_of_another_shape(tmp_path: Path) -> None:
    state = weights()
    state.update({f"extra.{index}": torch.zeros(1) for index in range(7)})
    del state["norm.weight"]
    state["conv.weight"] = torch.zeros(4, 1, 5, 5)
    words = refusal(saved(tmp_path, state))
    assert "1 missing in the file: norm.weight" in words
    assert "7 not in the network: extra.0, extra.1, extra.2, extra.3, extra.4, ..." in words
    assert "extra.5" not in words
    assert "conv.weight 4x1x5x5 in the file, 4x1x3x3 here" in words
    assert "model.arguments" in words


def test_another_number_of_classes_is_recognised(tmp_path: Path) -> None:
    words = refusal(saved(tmp_path, network(classes=1000).state_dict()))
    assert "The last layer has 1000 classes in the file and 3 here" in words
    assert "num_classes: 1000" in words


def test_a_checkpoint_of_another_network_is_recognised(tmp_path: Path) -> None:
    assert "Is it the checkpoint of this network?" in refusal(saved(tmp_path, {"fc.weight": torch.zeros(2)}))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = weights()
    state["head.bias"][0] = float("nan")
    assert re.search(r"not finite, in head\.bias", refusal(saved(tmp_path, state)))


def test_a_whole_pickled_model_is_refused_with_the_way_to_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, nn.Linear(2, 2), "whole.pt")
    words = refusal(path)
    assert "an object of torch.nn.modules.linear.Linear" in words
    assert "would run code" in words
    snippet = "\n".join(line[4:] for line in words.splitlines() if line.startswith("    "))
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})  # the advice itself
    module = nn.Linear(2, 2)
    load_weights_(module, tmp_path / "weights.pt")
    assert torch.equal(module.weight, torch.load(path, weights_only=False).weight)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    class Mine:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was-run",))

    words = refusal(saved(tmp_path, {"state_dict": weights(), "callback": Mine()}))
    assert "would run code" in words
    assert not (tmp_path / "was-run").exists()


def test_arguments_saved_beside_the_weights_are_refused_and_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": weights(), "args": argparse.Namespace(lr=1)})
    assert "an object of argparse.Namespace" in refusal(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_recognised(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    assert "is a TorchScript archive" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert re.search(r"is damaged or no|holds something else", refusal(path))


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, weights(), name)
    path.write_bytes(path.read_bytes()[:-200])
    assert "is damaged or no" in refusal(path)


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "Run `git lfs pull`" in refusal(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / 'gone.pt'}" in refusal(tmp_path / "gone.pt")


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.onnx").touch()
    assert "ends in none of .safetensors, .pt" in refusal(tmp_path / "w.onnx")


@pytest.mark.parametrize(
    ("value", "words"),
    [({"epoch": 3, "lr": 0.1}, "holds the keys epoch, lr"), ({}, "holds nothing"), (3, "holds a value of type int")],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path: Path, value: Any, words: str) -> None:
    assert words in refusal(saved(tmp_path, value))
