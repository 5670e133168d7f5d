"""Keep the images that were made: on disk, checked, of limited size, and as they were when a run was killed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...targets.digests import sha256
from ...targets.errors import RecipeError, StageError
from ..splits import Split, in_memory
from ..tensors import CorruptStateError, save_state
from .manifest import Manifest, Shard, by, read_shard, refuse_another, refuse_strays
from .sheet import as_bytes

MB = 10**6
Shape = tuple[int, int, int]
Note = Callable[[str], None]


class Pool:
    """Images of uint8 in shards, with what the teacher answered to each; every `add` is a shard.

    Shards that were removed for room stay on disk until no checkpoint can ask for them: see `state_dict`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        shape: Shape,
        teacher: str,
        limit_mb: float | None = None,
        settings: Mapping[str, Any] | None = None,
        note: Note = lambda text: None,
    ) -> None:
        """Make a pool, or open the one that is there. shape: (channels, height, width).

        teacher: the fingerprint of the network that the images are made from. limit_mb: of pixels; the oldest go when
        it is reached. settings: of how the images are made, kept in a new manifest. note: told what was left out.
        RecipeError: the pool that is there is of another network or shape, or a shard is not whole: that one is set
        aside, and the next attempt goes on without it.
        """
        self.folder, self.shape, self._note = folder, shape, note
        self._limit = None if limit_mb is None else limit_mb * MB
        self._held: dict[str, dict[str, Tensor]] = {}  # what the shards hold, by name
        self._safe: set[str] = set()  # shards that the last checkpoint may ask for
        self._is_told = False
        found = Manifest.read(folder)
        if found is None:
            refuse_strays(folder)
            self.manifest = Manifest(teacher=teacher, shape=shape, settings=dict(settings or {}))
            self.manifest.write(folder)
            return
        self.manifest = found
        refuse_another(found, folder, teacher=teacher, shape=shape)
        self._refuse_broken()

    @classmethod
    def opened(
        cls,
        folder: Path,
        *,
        teacher: str,
        shape: Shape | None = None,
        limit_mb: float | None = None,
        note: Note = lambda text: None,
    ) -> Pool:
        """One that is there already. shape: None: whatever it is. RecipeError: there is none, or as above."""
        found = Manifest.opened(folder).shape
        return cls(folder, shape=shape or found, teacher=teacher, limit_mb=limit_mb, note=note)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.manifest.settings

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def add(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        confidence: Tensor | None = None,
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a shard. The pool is as it was, or has all of it.

        images: (n, channels, height, width), floating point 0 to 1 or uint8. labels: the classes that the teacher
        answered. confidence: the probabilities that it gave them, 0 to 1. note: facts for the manifest.
        StageError: the images are of another shape, or hold what is no number.
        """
        if not len(images):
            return
        pixels = self._as_bytes(images)
        sure = torch.full((len(labels),), torch.nan) if confidence is None else confidence.detach().float().cpu()
        held = {"images": pixels, "labels": labels.detach().to("cpu", torch.int64), "confidence": sure}
        assert len({len(value) for value in held.values()}) == 1, "one label for each image"
        held = {name: value[self._too_many(pixels) :].contiguous() for name, value in held.items()}
        name = f"shard-{self.manifest.next_number:06}.safetensors"
        save_state(held, self.folder / name)
        digest = sha256(self.folder / name)
        self._held[name] = held
        shards = [*self.manifest.shards, Shard(name, len(held["labels"]), digest, dict(note or {}))]
        self._keep(self._within_limit(shards), next_number=self.manifest.next_number + 1)

    def images(self) -> Tensor:
        """All of them, uint8, the oldest first."""
        return self._all("images", torch.zeros(0, *self.shape, dtype=torch.uint8))

    def labels(self) -> Tensor:
        """What the teacher answered to each, int64."""
        return self._all("labels", torch.zeros(0, dtype=torch.int64))

    def confidence(self) -> Tensor:
        """How sure the teacher was of each, 0 to 1; NaN where nobody said."""
        return self._all("confidence", torch.zeros(0))

    def split(self) -> Split:
        """The images to train on. Nobody knows what is on them, so that they count as unlabelled."""
        whole = in_memory(self.images(), self.labels())
        return Split(whole.pixels, whole.labels(), is_labelled=False)

    def forget(self) -> None:
        """Remove every image: another attempt begins."""
        self._keep([], next_number=self.manifest.next_number)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: which shards there are. Call it for every checkpoint that is written, once.

        Shards that neither this checkpoint nor the one before it knows are deleted now.
        """
        now = {shard.name for shard in self.manifest.shards}
        kept = now | self._safe
        self._delete([path.name for path in self.folder.glob("shard-*.safetensors") if path.name not in kept])
        self._safe = now
        return {"next_number": self.manifest.next_number, "shards": [shard.facts() for shard in self.manifest.shards]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The pool as it was at that checkpoint: newer shards are forgotten, those removed since are back."""
        wanted = [Shard.of(facts) for facts in state["shards"]]
        newer = {shard.name for shard in self.manifest.shards} - {shard.name for shard in wanted}
        whole, problems = self._load(wanted)
        if problems:
            self._note(f"the pool {self.folder} goes on without what is damaged: {'; '.join(problems)}")
        self._keep(whole, next_number=state["next_number"])
        self._delete(sorted(newer))
        self._safe = {shard.name for shard in whole}

    def _all(self, name: str, nothing: Tensor) -> Tensor:
        return torch.cat([nothing, *(self._held[shard.name][name] for shard in self.manifest.shards)])

    def _as_bytes(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            seen = f"{by(self.shape)}, not of {by(tuple(images.shape[1:]))}"
            raise StageError(f"the pool {self.folder} holds images of {seen}")
        if not bool(images.isfinite().all()):
            raise StageError("the images that were made hold values that are no numbers: lower the learning rate")
        return as_bytes(images)

    def _too_many(self, pixels: Tensor) -> int:
        """How many of one shard do not fit into an empty pool; one always does."""
        if self._limit is None:
            return 0
        return max(0, len(pixels) - max(1, int(self._limit // pixels[0].numel())))

    def _within_limit(self, shards: list[Shard]) -> list[Shard]:
        """The newest that fit; the very newest always does."""
        each, room = torch.Size(self.shape).numel(), self._limit
        if room is None:
            return shards
        first = 0
        while first < len(shards) - 1 and sum(shard.count for shard in shards[first:]) * each > room:
            first += 1
        if first and not self._is_told:
            self._is_told = True
            self._note(f"the pool of images is full ({room / MB:g} MB): the oldest go as new ones come")
        return shards[first:]

    def _keep(self, shards: list[Shard], *, next_number: int) -> None:
        """Make these the pool's: the manifest is what counts, other files are ignored."""
        gone = {shard.name for shard in self.manifest.shards} - {shard.name for shard in shards}
        self.manifest = self.manifest.with_shards(shards, next_number=next_number)
        self.manifest.write(self.folder)
        for name in gone:
            self._held.pop(name, None)
        self._delete([] if self._safe else sorted(gone))  # without a checkpoint nobody asks for them again

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _load(self, shards: Sequence[Shard]) -> tuple[list[Shard], list[str]]:
        """Those that are as they were written, and what is wrong with the others, which are set aside."""
        whole, problems = [], []
        for shard in shards:
            try:
                if shard.name not in self._held:
                    self._held[shard.name] = read_shard(self.folder, shard)
                whole.append(shard)
            except CorruptStateError as error:
                problems.append(str(error))
                path = self.folder / shard.name
                if path.exists():
                    path.replace(path.with_name(f"{path.name}.corrupt"))
        return whole, problems

    def _refuse_broken(self) -> None:
        whole, problems = self._load(self.manifest.shards)
        if not problems:
            return
        self._keep(whole, next_number=self.manifest.next_number)
        raise RecipeError(
            f"the pool {self.folder} is damaged: {'; '.join(problems)}. What is there of it was set aside as .corrupt, "
            f"and {len(self)} images are whole: run the same command again to go on with those, or remove the folder "
            "to make all of them anew."
        )
