"""States on disk: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgepress.stages.tensors import CorruptStateError, fill_, load_state, save_state

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(state=NESTED)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_data_comes_back_as_it_went(tmp_path: Path, state: object) -> None:
    save_state(state, tmp_path / "state")
    assert load_state(tmp_path / "state") == state


def test_an_optimisers_state_comes_back_with_whole_numbers_as_keys(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    save_state(optimizer.state_dict(), tmp_path / "state")
    again = torch.optim.AdamW(module.parameters())
    again.load_state_dict(load_state(tmp_path / "state"))
    assert list(again.state_dict()["state"]) == [0, 1]
    torch.testing.assert_close(again.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    save_state({"a": whole[:3], "b": whole}, tmp_path / "state")
    loaded = load_state(tmp_path / "state")
    torch.testing.assert_close(loaded["a"], whole[:3])
    torch.testing.assert_close(loaded["b"], whole)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    save_state({"weights": torch.randn(100)}, path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes({"flip": content, "truncate": content[:-10], "empty": b""}[damage])
    with pytest.raises(CorruptStateError):
        load_state(path)


def test_an_object_without_a_plain_form_is_refused_instead_of_pickled(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="without pickle"):
        save_state({"x": object()}, tmp_path / "state")


def test_a_failed_write_leaves_the_old_state(tmp_path: Path) -> None:
    save_state({"x": 1}, tmp_path / "state")
    with pytest.raises(TypeError):
        save_state({"x": object()}, tmp_path / "state")
    assert load_state(tmp_path / "state") == {"x": 1}


def test_equal_states_make_equal_files(tmp_path: Path) -> None:
    files = [tmp_path / f"state-{number}" for number in range(12)]
    for file in files:
        save_state({"weights": torch.ones(3), "count": 1}, file)
    assert len({file.read_bytes() for file in files}) == 1


class Versioned(nn.Linear):
    """Like torchvision's MNASNet: it wants to know which version of itself was saved."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, local_metadata: Any, *more: Any) -> None:
        if local_metadata.get("version") != self._version:
            raise ValueError(f"version {local_metadata.get('version')} is not known")
        super()._load_from_state_dict(state, prefix, local_metadata, *more)


def test_a_module_that_asks_for_its_version_can_be_filled_from_a_file(tmp_path: Path) -> None:
    saved, fresh = nn.Sequential(Versioned(2, 3)), nn.Sequential(Versioned(2, 3))
    save_state(dict(saved.state_dict()), tmp_path / "x.safetensors")
    fill_(fresh, load_state(tmp_path / "x.safetensors"))
    assert torch.equal(fresh[0].weight, saved[0].weight)


def test_a_state_that_knows_its_versions_keeps_them() -> None:
    old = Versioned(2, 3).state_dict()
    old._metadata[""]["version"] = 1
    with pytest.raises(ValueError, match="version 1"):
        fill_(Versioned(2, 3), old)
