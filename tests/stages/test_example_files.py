"""The example files do what they are there to show."""

from pathlib import Path

import pytest
import torch

from edgepress.stages.data import open_data
from edgepress.stages.models import build
from edgepress.stages.settings import DataSettings, ModelSettings

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("name", "parameters", "blocks"), [("resnet20", 269_722, 3), ("resnet56", 853_018, 9)])
def test_the_example_network_has_the_names_and_the_size_of_published_checkpoints(
    name: str, parameters: int, blocks: int
) -> None:
    module = build(ModelSettings(source=f"{EXAMPLES / 'my_model.py'}:{name}"), classes=10, shape=(3, 32, 32))
    keys = set(module.state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.bias"} <= keys
    assert not any("shortcut" in key for key in keys)
    assert sum(value.numel() for value in module.parameters()) == parameters
    assert len({key.split(".")[1] for key in keys if key.startswith("layer1")}) == blocks


def test_the_example_data_can_be_opened_and_are_the_same_every_time(tmp_path: Path) -> None:
    settings = DataSettings(source=f"{EXAMPLES / 'my_data.py'}:shapes")
    data, again = (open_data(settings, seed=0, cache=tmp_path, given_weights=False) for _ in range(2))
    assert data.shape == (3, 32, 32)
    assert data.classes == ("disc", "square", "diamond", "cross")
    assert data.fingerprint == again.fingerprint
    assert int(data.test.labels().bincount().min()) > 60


def test_the_example_network_takes_the_example_data(tmp_path: Path) -> None:
    data = open_data(
        DataSettings(source=f"{EXAMPLES / 'my_data.py'}:shapes", limit=8), seed=0, cache=tmp_path, given_weights=False
    )
    settings = ModelSettings(source=f"{EXAMPLES / 'my_model.py'}:resnet20", arguments={"num_classes": 4})
    module = build(settings, classes=len(data.classes), shape=data.shape)
    images, _, _ = data.test.__getitems__([0, 1])
    with torch.no_grad():
        assert module(data.preprocessing.normalize(images)).shape == (2, 4)
