"""manifest.json of a pool of images: which network they were made from, and which files belong to it, unharmed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...targets.digests import sha256
from ...targets.errors import RecipeError
from ..tensors import CorruptStateError, load_state
from .methods import METHODS, Method

FILE = "manifest.json"
SCHEMA = 1  # goes up when a pool is written otherwise


@dataclass(frozen=True)
class Shard:
    """One file. note: what its maker wanted to be known of it."""

    name: str
    count: int
    sha256: str
    note: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """As JSON, and a checkpoint, can hold it."""
        return {"name": self.name, "count": self.count, "sha256": self.sha256, "note": dict(self.note)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Shard:
        name = str(facts["name"])
        if Path(name).name != name:  # a manifest may come from anybody, and files are deleted by it
            raise ValueError(f"{name!r} is no name of a file")
        return cls(name, int(facts["count"]), str(facts["sha256"]), dict(facts["note"]))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """shards: the oldest first. next_number: of the shard that comes; numbers are never given twice."""

    teacher: str
    shape: tuple[int, int, int]
    settings: Mapping[str, Any]
    shards: Sequence[Shard] = ()
    next_number: int = 1

    @property
    def fingerprint(self) -> str:
        """Equal for equal images in equal order."""
        contents = [list(self.shape), [shard.sha256 for shard in self.shards]]
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()

    def with_shards(self, shards: Sequence[Shard], *, next_number: int) -> Manifest:
        return replace(self, shards=tuple(shards), next_number=next_number)

    def write(self, folder: Path) -> None:
        """All of it or nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{FILE}.part"
        facts = {
            "schema": SCHEMA,
            "teacher": self.teacher,
            "shape": list(self.shape),
            "settings": dict(self.settings),
            "next_number": self.next_number,
            "shards": [shard.facts() for shard in self.shards],
        }
        with part.open("w", encoding="utf-8") as file:
            json.dump(facts, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / FILE)

    @property
    def count(self) -> int:
        """Images."""
        return sum(shard.count for shard in self.shards)

    @classmethod
    def opened(cls, folder: Path) -> Manifest:
        """RecipeError: there is none, or it cannot be understood."""
        found = cls.read(folder)
        if found is None:
            raise RecipeError(f"there is no pool in {folder}: it has no manifest.json. Name the folder of a pool.")
        return found

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """None: there is none. RecipeError: it cannot be understood."""
        path = folder / FILE
        again = "Remove the folder to make the images anew."
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["schema"] != SCHEMA:
                raise RecipeError(f"{path} is of version {facts['schema']!r}; this program reads {SCHEMA}. {again}")
            channels, height, width = map(int, facts["shape"])
            return cls(
                teacher=str(facts["teacher"]),
                shape=(channels, height, width),
                settings=dict(facts["settings"]),
                shards=tuple(Shard.of(one) for one in facts["shards"]),
                next_number=int(facts["next_number"]),
            )
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise RecipeError(f"{folder} is a file; a pool is a folder") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecipeError(f"{path} cannot be read ({type(error).__name__}: {error}). {again}") from None


def refuse_another(manifest: Manifest, folder: Path, *, teacher: str, shape: tuple[int, ...]) -> None:
    """RecipeError: the pool in this folder is of another network, or its images have another shape."""
    other = "Name another folder, or remove this one to make the images anew."
    if manifest.teacher != teacher:
        raise RecipeError(
            f"the pool {folder} was made from another network (fingerprint {manifest.teacher[:12]}, this one has "
            f"{teacher[:12]}): its images say nothing of this one. {other}"
        )
    if manifest.shape != shape:
        raise RecipeError(
            f"the pool {folder} holds images of {by(manifest.shape)} (channels x height x width), and the network "
            f"takes {by(shape)}. {other}"
        )


def refuse_empty(manifest: Manifest, folder: Path) -> None:
    """RecipeError: there is nothing to learn from."""
    if not manifest.count:
        raise RecipeError(f"the pool {folder} is empty: name another, or make images with data.source generated")


def maker_of(manifest: Manifest) -> tuple[Method, str] | None:
    """The method that made the images, as a reason to go on with it; None: the manifest does not say."""
    name = str(manifest.settings.get("method"))
    return (METHODS[name], f"{name} made the images of this pool") if name in METHODS else None


def by(shape: tuple[int, ...]) -> str:
    """`3x32x32`."""
    return "x".join(map(str, shape))


def read_shard(folder: Path, shard: Shard) -> dict[str, Tensor]:
    """What was put into a shard. CorruptStateError: the file is not what was written then."""
    path = folder / shard.name
    if not path.is_file():
        raise CorruptStateError(f"{shard.name} is not there")
    if sha256(path) != shard.sha256:
        raise CorruptStateError(f"{shard.name} does not match its checksum, so it was cut off or changed")
    held: dict[str, Tensor] = load_state(path)
    return held


def refuse_strays(folder: Path) -> None:
    """RecipeError: there are shards without a manifest, and nobody knows whose they are."""
    if any(folder.glob("shard-*.safetensors")):
        raise RecipeError(
            f"the pool {folder} has shards and no manifest.json, which says what network they were made from. "
            "Put the file back, or remove the folder to make the images anew."
        )
