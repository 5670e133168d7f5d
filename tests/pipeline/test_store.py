"""What is stored comes back, and what is damaged is made again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nets import artifact, net
from torch import Tensor, nn

from edgepress.pipeline.store import Store, key_of
from edgepress.stages.artifact import Artifact, ExportedFile, Record
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import remove_channels
from edgepress.stages.quantization.prepare import prepare
from edgepress.stages.quantization.ranges import calibrate_
from edgepress.stages.quantization.scheme import Scheme

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BUILD: dict[str, Callable[[], nn.Module]] = {"model": lambda: net(seed=9)}  # other weights: the stored ones must win


def answer(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module.eval()(IMAGES)  # type: ignore[no-any-return]


def pruned() -> Artifact:
    module, _ = remove_channels(net(), IMAGES[:1], Prune(ratio=0.5), multiple=2)
    record = Record(
        stage="prune", settings={"ratio": 0.5}, seconds=1.5, metrics={"kept": 8}, curves={"kd": [0.5, 0.25]}
    )
    return replace(artifact().next(record=record, module=module), key="a" * 16)


def quantized(parent: Artifact) -> Artifact:
    scheme = Scheme(flavour="openvino", exclude=("head",))
    module = prepare(parent.module, scheme)
    calibrate_(module, [IMAGES])
    record = Record(stage="quantize", settings={}, seconds=1.0, metrics={})
    return replace(parent.next(record=record, module=module, form="quantized", scheme=scheme), key="b" * 16)


def test_a_pruned_network_comes_back_with_its_weights_and_its_record(tmp_path: Path) -> None:
    store, before = Store(tmp_path), pruned()
    store.save("prune", before)
    after = store.load("prune", before.key, artifact(), BUILD)
    assert after is not None
    assert torch.equal(answer(after.module), answer(before.module))
    assert after.records == before.records
    assert after.key == before.key


def test_a_quantized_network_comes_back_and_rounds_the_same(tmp_path: Path) -> None:
    store, parent = Store(tmp_path), pruned()
    before = quantized(parent)
    store.save("quantize", before)
    after = store.load("quantize", before.key, parent, BUILD)
    assert after is not None
    assert torch.equal(answer(after.module), answer(before.module))
    assert after.scheme == before.scheme


def test_exported_files_move_with_their_folder(tmp_path: Path) -> None:
    store, parent = Store(tmp_path), artifact()
    work = store.work("export", "c" * 16)
    (work / "baseline.onnx").write_bytes(b"onnx")
    file = ExportedFile(
        variant="baseline", precision="fp32", path=work / "baseline.onnx", onnx=work / "baseline.onnx",
        description="", parameters=1, macs=1, parity={"ok": True},
    )  # fmt: skip
    record = Record(stage="export", settings={}, seconds=0.0, metrics={})
    store.save("export", replace(parent.next(record=record, files=(file,)), key="c" * 16))
    after = store.load("export", "c" * 16, parent, BUILD)
    assert after is not None
    assert after.files[0].path.read_bytes() == b"onnx"
    assert after.module is parent.module  # nothing changed the model, nothing was stored twice


@pytest.mark.parametrize("name", ["weights.safetensors", "artifact.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damage_is_noticed_said_and_made_again(tmp_path: Path, name: str, damage: str) -> None:
    said: list[str] = []
    store, before = Store(tmp_path, note=said.append), pruned()
    store.save("prune", before)
    path = tmp_path / f"prune-{before.key}" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-5])
    assert store.load("prune", before.key, artifact(), BUILD) is None
    assert len(said) == 1
    assert "stage prune is made again" in said[0]
    store.save("prune", before)
    assert store.load("prune", before.key, artifact(), BUILD) is not None


def test_a_stage_of_a_version_that_rounded_elsewhere_is_made_again(tmp_path: Path) -> None:
    said: list[str] = []
    store, parent = Store(tmp_path, note=said.append), pruned()
    before = quantized(parent)
    assert before.scheme is not None
    other = replace(before, scheme=replace(before.scheme, flavour="ort-u8"))  # with more roundings than were stored
    store.save("quantize", replace(other, module=before.module))
    assert store.load("quantize", before.key, parent, BUILD) is None
    assert "its weights are of another network" in said[0]


def test_an_unfinished_stage_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    store, before = Store(tmp_path), pruned()
    work = store.work("prune", before.key)
    (work / "training.safetensors").write_bytes(b"half")
    assert store.load("prune", before.key, artifact(), BUILD) is None
    assert (work / "training.safetensors").exists()


def test_a_finished_stage_keeps_no_checkpoint(tmp_path: Path) -> None:
    store, before = Store(tmp_path), pruned()
    (store.work("prune", before.key) / "training.safetensors").write_bytes(b"last epoch")
    store.save("prune", before)
    assert not list(tmp_path.rglob("training.safetensors"))


def test_keys_differ_where_anything_differs_and_only_there() -> None:
    base = {"stage": "prune", "settings": {"ratio": 0.5, "epochs": 3}}
    assert key_of(base) == key_of({"settings": {"epochs": 3, "ratio": 0.5}, "stage": "prune"})
    assert key_of(base) != key_of({"stage": "prune", "settings": {"ratio": 0.5, "epochs": 4}})
