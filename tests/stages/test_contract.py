"""What a network takes survives the way through an exported file."""

import json
from dataclasses import replace

import pytest
import torch

from edgepress.stages.contract import InputContract, Preprocessing
from edgepress.targets.errors import RecipeError

PIXELS = Preprocessing(size=(5, 7), channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
CONTRACT = InputContract(shape=(3, 5, 7), dynamic_batch=True, preprocessing=PIXELS, classes=("cat", "Möwe", "2"))


def images() -> torch.Tensor:
    return torch.randint(256, (2, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_contract_comes_back_from_its_metadata() -> None:
    assert InputContract.from_metadata(CONTRACT.as_metadata()) == CONTRACT


def test_metadata_are_json_that_other_programs_can_read() -> None:
    metadata = CONTRACT.as_metadata()
    assert json.loads(metadata["classes"]) == ["cat", "Möwe", "2"]
    assert json.loads(metadata["preprocessing"])["mean"] == [0.1, 0.2, 0.3]
    assert json.loads(metadata["input"]) == {
        "name": "input",
        "shape": [3, 5, 7],
        "dtype": "float32",
        "dynamic_batch": True,
    }


def test_metadata_of_another_program_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"lack preprocessing, classes.*not exported by edgepress"):
        InputContract.from_metadata({"input": "{}"})


@pytest.mark.parametrize("broken", ["{", "3", '{"size": [1]}', '{"size": [5, 7]}'])
def test_metadata_that_were_changed_are_refused(broken: str) -> None:
    with pytest.raises(RecipeError, match="changed after the export"):
        InputContract.from_metadata({**CONTRACT.as_metadata(), "preprocessing": broken})


def test_bytes_and_units_normalise_to_the_same_numbers() -> None:
    torch.testing.assert_close(PIXELS.normalize(images()), PIXELS.normalize(images().double() / 255))


def test_normalising_can_be_undone() -> None:
    numbers = PIXELS.normalize(images())
    assert numbers.dtype == torch.float32
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PIXELS.mean, PIXELS.std))
    assert torch.equal(((numbers * std + mean) * 255).round().to(torch.uint8), images())


def test_one_moment_for_each_channel_is_demanded() -> None:
    with pytest.raises(AssertionError):
        replace(PIXELS, mean=(0.5,))
    with pytest.raises(AssertionError):
        replace(PIXELS, std=(1.0, 0.0, 1.0))
