"""Finished stages on disk, each under a key made of everything that determines it.

A stage works in `<key>.part`; when it is done the manifest with every file's checksum is written there last, and the
folder gets its final name. What is half-written or changed since is noticed and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..stages.artifact import Artifact, ExportedFile, Record
from ..stages.cutting import Cut, cut_at
from ..stages.quantization.prepare import prepare
from ..stages.quantization.scheme import Scheme
from ..stages.structure import resize_, structure
from ..stages.tensors import CorruptStateError, fill_, load_state, save_state
from ..targets.digests import sha256
from ..targets.errors import StageError

Builders = Mapping[str, Callable[[], nn.Module]]
STORE = "stages"  # folder of finished stages in a run's folder
FORMAT = 1
CHECKPOINTS = ("training.safetensors", "training.safetensors.part")  # a finished stage needs no checkpoint


def key_of(parts: Mapping[str, Any]) -> str:
    """Sixteen hex digits of the SHA-256 of plain data."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Store:
    """The folder that a run keeps its finished stages in."""

    folder: Path
    note: Callable[[str], None] = lambda text: None  # told when something had to be thrown away

    def work(self, stage: str, key: str) -> Path:
        """Where a stage works until it is done; what a killed run left there is still there."""
        path = self.folder / f"{stage}-{key}.part"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def forget(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, stage: str, artifact: Artifact) -> None:
        """Finish a stage: write what it made, then give its folder the final name."""
        work = self.work(stage, artifact.key)
        for path in [path for name in CHECKPOINTS for path in work.rglob(name)]:
            path.unlink()
            if path.parent != work and not any(path.parent.iterdir()):  # of a training in phases
                path.parent.rmdir()
        facts = {
            "format": FORMAT,
            "record": asdict(artifact.records[-1]),
            "base": artifact.base,
            "form": artifact.form,
            "scheme": asdict(artifact.scheme) if artifact.scheme else None,
            "cut": artifact.cut.facts() if artifact.cut else None,
            "files": [_file_facts(file, work) for file in artifact.files],
        }
        if _changes_the_model(artifact):
            facts["structure"] = structure(_float_version(artifact).module)
            save_state(dict(artifact.module.state_dict()), work / "weights.safetensors")
        _write_durably(work / "artifact.json", json.dumps(facts, indent=1))
        sums = {str(path.relative_to(work)): sha256(path) for path in sorted(work.rglob("*")) if path.is_file()}
        _write_durably(work / "manifest.json", json.dumps(sums, indent=1))
        final = self.folder / work.name.removesuffix(".part")
        shutil.rmtree(final, ignore_errors=True)
        work.replace(final)

    def load(self, stage: str, key: str, parent: Artifact, builders: Builders) -> Artifact | None:
        """The artifact of a finished stage, or None; what does not match its checksums is removed."""
        folder = self.folder / f"{stage}-{key}"
        if not folder.is_dir():
            return None
        try:
            self._verify(folder)
            return self._read(folder, key, parent, builders)
        except (CorruptStateError, OSError, ValueError, KeyError, TypeError) as error:
            self.note(f"stage {stage} is made again: what was stored cannot be used ({error})")
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def best_float(self, builders: Builders) -> nn.Module | None:
        """The float network that answered best on its validation images: of the student, where one was distilled.

        None: no stage made one that these builders can build.
        """
        made = [entry for entry in self._manifests() if entry[1]["form"] == "float" and "structure" in entry[1]]
        students = [entry for entry in made if entry[1]["base"] == "student"]
        by_figure = sorted(students or made, key=lambda entry: _figure(entry[1]), reverse=True)
        for folder, facts in by_figure:
            try:
                self._verify(folder)
                module = _built(facts, builders)
                fill_(module, load_state(folder / "weights.safetensors"))
            except (CorruptStateError, StageError, RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
                self.note(f"{folder} is passed over: {str(error).splitlines()[0]}")
                continue
            return module.eval()
        return None

    def _manifests(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Folders of finished stages, and what is written there."""
        for path in sorted(self.folder.glob("*/artifact.json")):
            if path.parent.suffix == ".part":
                continue
            try:
                facts = json.loads(path.read_text(encoding="utf-8"))
                if facts["format"] == FORMAT:
                    yield path.parent, facts
            except (OSError, ValueError, KeyError, TypeError):
                self.note(f"{path} cannot be read")

    @staticmethod
    def _verify(folder: Path) -> None:
        sums = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, wanted in sums.items():
            if sha256(folder / name) != wanted:
                raise CorruptStateError(f"{name} has changed since it was written")

    @staticmethod
    def _read(folder: Path, key: str, parent: Artifact, builders: Builders) -> Artifact:
        facts = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        scheme = (
            Scheme(**{**facts["scheme"], "exclude": tuple(facts["scheme"]["exclude"])}) if facts["scheme"] else None
        )
        module = parent.module
        if "structure" in facts:
            module = _built(facts, builders)
            if scheme is not None:
                module = prepare(module, scheme)
            state = load_state(folder / "weights.safetensors")
            try:
                fill_(module, state)
            except RuntimeError as error:  # another version of this tool rounds elsewhere
                reason = " ".join(str(error).split())
                raise CorruptStateError(f"its weights are of another network: {reason}") from error
        return replace(
            parent.next(record=Record(**facts["record"])),
            module=module.eval(),
            base=facts["base"],
            form=facts["form"],
            scheme=scheme,
            cut=_cut(facts),
            files=tuple(_read_file(entry, folder) for entry in facts["files"]),
            key=key,
        )


def _figure(facts: Mapping[str, Any]) -> float:
    return float(facts["record"]["metrics"].get("validation_accuracy", -1.0))


def _built(facts: Mapping[str, Any], builders: Builders) -> nn.Module:
    """The original of a stored network, with the widths that it was left with; its weights are to be loaded."""
    module, cut = builders[facts["base"]](), _cut(facts)
    if cut is not None:
        module = cut_at(module, cut)
    resize_(module, facts["structure"])
    return module


def _cut(facts: Mapping[str, Any]) -> Cut | None:
    return Cut.from_facts(facts["cut"]) if facts.get("cut") else None


def _changes_the_model(artifact: Artifact) -> bool:
    return artifact.parent is None or artifact.module is not artifact.parent.module


def _float_version(artifact: Artifact) -> Artifact:
    return next(version for version in reversed(artifact.lineage()) if version.form == "float")


def _file_facts(file: ExportedFile, work: Path) -> dict[str, Any]:
    facts = asdict(file)
    for name in ("path", "onnx"):
        facts[name] = os.path.relpath(facts[name], work)
    return facts


def _read_file(facts: Mapping[str, Any], folder: Path) -> ExportedFile:
    paths = {name: (folder / facts[name]).resolve() for name in ("path", "onnx")}
    return ExportedFile(**{**facts, **paths, "warnings": tuple(facts["warnings"])})


def _write_durably(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".writing")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
