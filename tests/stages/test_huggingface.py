"""Networks of transformers' are built without a download, take one input, and can be quantised and exported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgepress.stages.contract import Tokens
from edgepress.stages.models import build
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.quantization.frozen import freeze
from edgepress.stages.quantization.prepare import prepare, rounded_layers
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Scheme
from edgepress.stages.settings import ModelSettings
from edgepress.stages.tasks import TASKS
from edgepress.targets.errors import RecipeError, RuntimeMissingError
from edgepress.targets.runtimes import target

HERE = importlib.util.find_spec("transformers") is not None
needed = pytest.mark.skipif(not HERE, reason="transformers is not installed (the extra `transformers`)")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

TEXTS = Tokens(length=12, vocabulary=40)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
KINDS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
}


def made(source: str, *, classes: int = 3, task: str = "text", **arguments: Any) -> torch.nn.Module:
    settings = ModelSettings(source=f"transformers:{source}", arguments=arguments)
    return build(settings, classes=classes, shape=(12,), task=TASKS[task], tokens=TEXTS)


def texts(count: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 40, (count, 12), generator=generator)
    lengths = torch.randint(4, 13, (count, 1), generator=generator)
    return torch.where(torch.arange(12) < lengths, rows, 0)


@needed
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("task", "shape"), [("text", (16, 3)), ("tokens", (16, 12, 3))])
def test_a_kind_of_network_is_made_for_the_data_and_the_task(kind: str, task: str, shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert made(kind, task=task, **KINDS[kind])(texts()).shape == shape


@needed
def test_padding_says_nothing() -> None:
    module = made("bert", **SMALL)
    row = texts(1)
    length = int((row != 0).sum())
    with torch.no_grad():
        alone = module.network(input_ids=row[:, :length]).logits  # type: ignore[operator]
        torch.testing.assert_close(module(row), alone, atol=1e-5, rtol=1e-5)


@needed
def test_a_folder_brings_its_weights_and_gets_a_head_for_other_classes(tmp_path: Path) -> None:
    module = made("bert", **SMALL)
    module.network.save_pretrained(str(tmp_path))  # type: ignore[operator]
    with torch.no_grad():
        torch.testing.assert_close(made(str(tmp_path))(texts()), module(texts()))
    other = made(str(tmp_path), classes=5).state_dict()
    assert other["network.classifier.weight"].shape == (5, 32)
    for key, value in module.state_dict().items():
        if "classifier" not in key:
            assert torch.equal(other[key], value)


@needed
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("brt", "no kind of network 'brt'; did you mean"),
        ("google-bert/bert-base-uncased", "Nothing is fetched: get the network once with `hf download"),
    ],
)
def test_what_is_not_here_is_refused_and_not_fetched(source: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        made(source)


@needed
def test_a_folder_of_other_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    made("bert", **SMALL).network.save_pretrained(str(tmp_path))  # type: ignore[operator]
    save_file({"other": torch.zeros(2)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(RecipeError, match="none of the 1 tensors"):
        made(str(tmp_path))


@needed
@pytest.mark.device
@pytest.mark.parametrize(("runtime", "flavour"), [("onnxruntime", "ort-u8"), ("openvino", "openvino")])
def test_it_is_rounded_exported_and_answers_as_torch_does(runtime: str, flavour: Any, tmp_path: Path) -> None:
    scheme = Scheme(flavour=flavour)
    module = made("distilbert", **KINDS["distilbert"])
    prepared = prepare(module, scheme)
    calibrate_(prepared, [texts(64)])
    assert len(rounded_layers(prepared)) == 2 * 6 + 2
    rows, path = texts(), tmp_path / "int8.onnx"
    write_onnx(freeze(prepared, scheme), path, example=rows[:1], opset=17, dynamic_batch=False, metadata={})
    session = target(runtime).load(path, precision="int8")
    got = np.concatenate([session(row[None].numpy())[0] for row in rows])
    with torch.no_grad():
        wanted = prepared(rows).numpy()
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
    assert target(runtime).int8_layers(path)["int8_layers"] >= 12


@pytest.mark.skipif(HERE, reason="transformers is installed")
def test_without_the_package_the_extra_is_named() -> None:
    with pytest.raises(RuntimeMissingError, match="transformers"):
        made("bert")
