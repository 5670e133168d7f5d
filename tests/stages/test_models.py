"""A network is built as the recipe says, or the recipe's mistake is told."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from edgepress.stages.models import architecture_fingerprint, build, weights_fingerprint
from edgepress.stages.settings import ModelSettings
from edgepress.targets.errors import RecipeError, RuntimeMissingError
from edgepress.targets.installed import problem

HEAD = "import torch\nfrom torch import nn\n"


def from_file(folder: Path, body: str, **arguments: Any) -> ModelSettings:
    path = folder / "net.py"
    path.write_text(f"{HEAD}def make(classes=3):\n    return {body}\n", encoding="utf-8")
    return ModelSettings(source=f"{path}:make", arguments=arguments)


def flat(outputs: str = "classes") -> str:
    return f"nn.Sequential(nn.Flatten(), nn.Linear(8, {outputs}))"


def made(settings: ModelSettings, *, classes: int = 3, seed: int = 0) -> nn.Module:
    return build(settings, classes=classes, shape=(2, 2, 2), seed=seed)


def test_a_function_of_the_user_is_called_with_the_recipe_s_arguments(tmp_path: Path) -> None:
    module = made(from_file(tmp_path, flat(), classes=5), classes=5)
    assert module(torch.zeros(4, 2, 2, 2)).shape == (4, 5)


def test_a_network_comes_in_eval_mode_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    settings = from_file(tmp_path, flat())
    state = torch.get_rng_state()
    modules = [made(settings, seed=seed) for seed in (0, 0, 1)]
    first, again, other = map(weights_fingerprint, modules)
    assert first == again
    assert first != other
    assert not modules[0].training
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_loaded(tmp_path: Path) -> None:
    settings = from_file(tmp_path, flat())
    torch.save(made(settings, seed=7).state_dict(), tmp_path / "w.pt")
    loaded = made(settings.model_copy(update={"weights": str(tmp_path / "w.pt")}))
    assert weights_fingerprint(loaded) == weights_fingerprint(made(settings, seed=7))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (flat("4"), r"answers a tensor of shape \(2, 4\) to a batch of 2x2x2x2; wanted.*\(2, 3\).*num_classes: 3"),
        ("nn.Flatten()", "has no parameters: there is nothing to compress"),
        ("nn.Conv2d(2, 3, 1)", r"shape \(2, 3, 2, 2\).*task: segmentation"),
        ("nn.LSTM(2, 3)", "fails on a batch of 2x2x2x2: .*data.size"),
        ("nn.Conv2d(3, 3, 1)", "fails on a batch.*as many channels as the images have"),
        ("nn.Linear", "returned the class Linear; return an instance"),
        ("3", "returned a value of type int; wanted a torch.nn.Module"),
        (f"nn.Sequential({flat()}, Log())", "values that are not finite"),
        (f"nn.Sequential({flat()}, Pair())", "answers a value of type tuple.*Return the logits alone"),
    ],
)
def test_a_network_that_cannot_serve_is_refused(tmp_path: Path, body: str, words: str) -> None:
    settings = from_file(tmp_path, body)
    path = Path(settings.source.removesuffix(":make"))
    parts = (
        "class Log(nn.Module):\n    def forward(self, x):\n        return torch.log(x - x)\n"
        "class Pair(nn.Module):\n    def forward(self, x):\n        return x, x\n"
    )
    path.write_text(path.read_text(encoding="utf-8") + parts, encoding="utf-8")
    with pytest.raises(RecipeError, match=words):
        made(settings)


def test_a_built_in_network_is_found_by_name() -> None:
    module = build(ModelSettings(source="builtin:digits-student"), classes=10, shape=(1, 8, 8))
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("builtin:digits-techer", "did you mean 'digits-teacher'"),
        ("torchvison:resnet18", "of no known kind; did you mean 'torchvision'.*file.py:function"),
        ("resnet18", "'resnet18' is of no known kind. Write path"),
    ],
)
def test_an_unknown_source_is_refused(source: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        made(ModelSettings(source=source))


def test_arguments_that_a_built_in_network_does_not_take_are_refused() -> None:
    settings = ModelSettings(source="builtin:digits-student", arguments={"depth": 3})
    with pytest.raises(RecipeError, match=r"does not take model\.arguments: .*'depth'"):
        build(settings, classes=10, shape=(1, 8, 8))


def test_a_package_that_is_missing_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for source in ("torchvision:resnet18", "timm:resnet18"):
        package = source.partition(":")[0]
        with pytest.raises(RuntimeMissingError, match=f"{source}: {package} is not installed: pip install {package}"):
            made(ModelSettings(source=source))


class Zoo:
    """timm and torchvision.models, as far as they are documented."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def list_models(self, module: object = None) -> list[str]:
        return ["resnet18", "vit_small"]

    def get_model(self, name: str, *, weights: None, **arguments: Any) -> nn.Module:
        self.asked = {"name": name, **arguments}
        return nn.Sequential(nn.Flatten(), nn.Linear(8, arguments["num_classes"]))

    def create_model(self, name: str, *, pretrained: bool, **arguments: Any) -> nn.Module:
        assert not pretrained
        return self.get_model(name, weights=None, **arguments)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Zoo:
    zoo = Zoo()
    packages = {"timm": zoo, "torchvision": SimpleNamespace(models=zoo)}
    monkeypatch.setattr("edgepress.stages.models.import_for", lambda source, package: packages[package])
    return zoo


def test_a_network_of_a_package_has_as_many_outputs_as_there_are_classes(zoo: Zoo) -> None:
    made(ModelSettings(source="torchvision:resnet18", arguments={"width": 2}))
    assert zoo.asked == {"name": "resnet18", "num_classes": 3, "width": 2}
    made(ModelSettings(source="timm:vit_small.augreg_in1k"))
    assert zoo.asked == {"name": "vit_small.augreg_in1k", "num_classes": 3, "in_chans": 2}


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_near_miss_of_a_network_s_name_is_suggested(zoo: Zoo, package: str) -> None:
    with pytest.raises(RecipeError, match=f"{package} has no .*; did you mean 'resnet18'"):
        made(ModelSettings(source=f"{package}:resnt18"))


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_the_real_package_builds_a_network(package: str) -> None:
    name = {"torchvision": "mobilenet_v3_small", "timm": "mobilenetv3_small_100"}[package]
    trouble = problem(package, package=package)
    if trouble:
        pytest.skip(trouble)
    module = build(ModelSettings(source=f"{package}:{name}"), classes=7, shape=(3, 64, 64))
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_the_architecture_s_fingerprint_sees_structure_and_code_but_no_weights(tmp_path: Path) -> None:
    def own(forward: str) -> nn.Module:
        path = tmp_path / "own.py"
        path.write_text(
            f"{HEAD}class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.layer = nn.Linear(8, 3)\n        self.hook = lambda: 3\n"
            f"    def forward(self, x):\n        return {forward}\n",
            encoding="utf-8",
        )
        return made(ModelSettings(source=f"{path}:Net"))

    plain = "self.layer(x.flatten(1))"
    one, same, other = own(plain), own(plain), own(f"2 * {plain}")
    nn.init.zeros_(same.get_parameter("layer.weight"))
    assert architecture_fingerprint(one) == architecture_fingerprint(same)
    assert architecture_fingerprint(one) != architecture_fingerprint(other)
    assert architecture_fingerprint(nn.Linear(2, 3)) != architecture_fingerprint(nn.Linear(2, 4))


class Printed(nn.Module):
    """Prints where a function of its own lies in memory, as modules that keep a lambda do."""

    def __init__(self) -> None:
        super().__init__()
        self.activation = lambda value: value

    def extra_repr(self) -> str:
        return str(self.activation)


def test_an_address_in_what_a_network_prints_does_not_change_its_fingerprint() -> None:
    one, other = Printed(), Printed()
    assert repr(one) != repr(other)
    assert architecture_fingerprint(one) == architecture_fingerprint(other)


def test_the_weights_fingerprint_sees_every_value_and_buffer() -> None:
    module = nn.BatchNorm1d(2)
    before = weights_fingerprint(module)
    assert weights_fingerprint(nn.BatchNorm1d(2)) == before
    module.get_buffer("running_mean")[1] = 1e-6
    assert weights_fingerprint(module) != before
    assert weights_fingerprint(nn.BatchNorm1d(2).to(torch.bfloat16)) != before
