"""Teachers' answers on disk: computed once for each sample, read in every later epoch and run.

Answers are float16, in one file for each fixed variation of the samples, written whole at the end of the epoch in
which the last of them was computed, with a checksum. The folder's name is made of everything that determines the
answers, and the same stands inside each file: another teacher's are never taken.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..models import architecture_fingerprint, weights_fingerprint
from ..tensors import CorruptStateError, load_state, save_state
from .nouns import Batch, Lasting, Out, Teacher
from .sources import Frozen

AUTO_BYTES = 1_000_000_000  # where the user sets no limit: logits of a million samples with 500 classes
SHARE_OF_FREE = 0.25  # of the disk's free space, where the user sets no limit
MOST = 6e4  # float16 ends at 65504
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where answers are kept and how many bytes of them. note: told why something is not kept or not used."""

    folder: Path
    limit_bytes: int
    note: Note
    in_use: set[Path] = field(default_factory=set)

    @classmethod
    def at(cls, folder: Path, *, limit_gb: float | None, note: Note) -> Shelf:
        """limit_gb: None for a sensible one."""
        folder.mkdir(parents=True, exist_ok=True)
        free = int(shutil.disk_usage(folder).free * SHARE_OF_FREE)
        limit = min(AUTO_BYTES, free) if limit_gb is None else int(limit_gb * 1e9)
        return cls(folder=folder, limit_bytes=limit, note=note)

    def reserve(self, folder: Path, wanted_bytes: int) -> bool:
        """Make room by removing what was not used for longest; False: there is none."""
        self.in_use.add(folder)
        others = [path for path in self.folder.iterdir() if path.is_dir() and path not in self.in_use]
        others.sort(key=lambda path: path.stat().st_mtime)
        while self._bytes_beside(folder) + wanted_bytes > self.limit_bytes:
            if not others:
                return False
            shutil.rmtree(others.pop(0), ignore_errors=True)
        return True

    def _bytes_beside(self, folder: Path) -> int:
        files = (path for path in self.folder.rglob("*") if path.is_file() and folder not in path.parents)
        return sum(path.stat().st_size for path in files)


class Cached:
    """A teacher whose answers are kept. What it says is what the kept answers say, whether they were there or not.

    The folder is opened at the first batch of the training, when the losses have said which features they want.
    """

    def __init__(self, teacher: Frozen, *, shelf: Shelf, samples: Lasting, precision: str) -> None:
        self.module: nn.Module | None = teacher.module
        self._teacher, self._shelf, self._samples, self._precision = teacher, shelf, samples, precision
        self._pages: dict[int, _Page] = {}
        self._facts: dict[str, Any] | None = None
        self._device = torch.device("cpu")
        self.is_kept = True
        self.read = self.computed = 0  # samples

    @property
    def taps(self) -> tuple[str, ...]:
        return self._teacher.taps

    @taps.setter
    def taps(self, taps: tuple[str, ...]) -> None:
        self._teacher.taps = taps
        self._facts = None
        self._pages.clear()

    @property
    def folder(self) -> Path:
        """Of these answers and no others."""
        return self._shelf.folder / hashlib.sha256(json.dumps(self._known()).encode()).hexdigest()[:16]

    def see(self, batch: Batch) -> Out:
        if not self.is_kept or batch.index is None or batch.variant is None:
            return self._teacher.see(batch)
        rows, page = batch.index.cpu(), self._page(batch.variant)
        if page is not None and bool(page.there[rows].all()):
            self.read += len(rows)
            return _out({name: value[rows].to(self._device).float() for name, value in page.tensors.items()})
        said = self._teacher.see(batch)
        self.computed += len(rows)
        tensors = {name: value.half() for name, value in _tensors(said).items()}
        if not all(bool((value.abs() <= MOST).all()) for value in tensors.values()):
            self._give_up("some are larger than float16 can hold")
            return said
        if page is None and not self._has_room(tensors):
            return said
        if page is None:
            page = self._pages[batch.variant] = _Page.empty(self._samples.count, tensors)
        page.put(rows, tensors)
        return _out({name: value.float() for name, value in tensors.items()})

    def to(self, device: torch.device) -> None:
        self._device = device
        self._teacher.to(device)

    def after(self, epoch: int) -> None:
        """Write the variations whose last answer has come."""
        for variant, page in list(self._pages.items()):
            if page.is_written or not bool(page.there.all()):
                continue
            try:
                save_state({"facts": self._known(), "answers": page.tensors}, self._file(variant))
            except OSError as error:
                self._give_up(f"{self.folder} cannot be written ({error.strerror})")
                return
            page.is_written = True

    def stepped(self) -> None: ...

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def _page(self, variant: int) -> _Page | None:
        """What is there of a variation: in memory, or on disk; None: nothing yet."""
        if variant not in self._pages and self._file(variant).is_file():
            page = self._stored(variant)
            if page is not None:
                self._pages[variant] = page
        return self._pages.get(variant)

    def _stored(self, variant: int) -> _Page | None:
        file = self._file(variant)
        try:
            state = load_state(file)
            if state["facts"] != self._known():
                self._shelf.note("kept answers are of another teacher or of other samples: they are computed again")
                return None
            page = _Page(there=torch.ones(self._samples.count, dtype=torch.bool), tensors=state["answers"])
            if any(len(value) != self._samples.count for value in page.tensors.values()):
                raise CorruptStateError("rows are missing")
        except (CorruptStateError, KeyError, TypeError, AttributeError) as error:
            self._shelf.note(f"kept answers are damaged ({error}): they are computed again")
            file.unlink(missing_ok=True)
            return None
        page.is_written = True
        self.folder.touch()  # used now: others make room first
        return page

    def _file(self, variant: int) -> Path:
        return self.folder / f"variation-{variant}.safetensors"

    def _known(self) -> dict[str, Any]:
        """Everything that determines the answers, as JSON can hold it."""
        if self._facts is None:
            assert self.module is not None, "only a network's answers are kept"
            self._facts = {
                "architecture": architecture_fingerprint(self.module),
                "weights": weights_fingerprint(self.module),
                "samples": [self._samples.fingerprint, self._samples.count, self._samples.variants],
                "taps": list(self.taps),
                "precision": self._precision,
                "dtype": "float16",
            }
        return self._facts

    def _has_room(self, like: Mapping[str, Tensor]) -> bool:
        each = sum(value[0].numel() * value.element_size() for value in like.values())
        wanted = each * self._samples.count * self._samples.variants
        if not self._shelf.reserve(self.folder, wanted):
            self._give_up(
                f"they need {wanted / 1e9:.2g} GB and {self._shelf.limit_bytes / 1e9:.2g} GB are allowed; "
                "set cache to more GB"
            )
        return self.is_kept

    def _give_up(self, why: str) -> None:
        self.is_kept = False
        self._pages.clear()
        self._shelf.note(f"the teacher's answers are not kept: {why}")


@dataclass(kw_only=True)
class _Page:
    """Answers to one variation of all samples. there: which of them have been computed."""

    there: Tensor
    tensors: Mapping[str, Tensor]
    is_written: bool = False

    @classmethod
    def empty(cls, count: int, like: Mapping[str, Tensor]) -> _Page:
        tensors = {name: torch.zeros((count, *value.shape[1:]), dtype=torch.float16) for name, value in like.items()}
        return cls(there=torch.zeros(count, dtype=torch.bool), tensors=tensors)

    def put(self, rows: Tensor, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.tensors[name][rows] = value.cpu()
        self.there[rows] = True


def keep_answers(
    teachers: Mapping[str, Teacher],
    cache: Literal["auto", "off"] | float,
    *,
    folder: Path | None,
    samples: Lasting | None,
    precision: str,
    note: Note,
) -> dict[str, Teacher]:
    """The same teachers, those whose answers last with a cache in front.

    folder: where it lies; None: nowhere. samples: None where they differ from epoch to epoch. precision: the networks'.
    """
    frozen = {name: teacher for name, teacher in teachers.items() if type(teacher) is Frozen}
    if cache == "off" or folder is None or not frozen:
        return dict(teachers)
    if samples is None:
        if cache != "auto":
            note("the teacher's answers are not kept: its inputs differ from epoch to epoch; set views to fix them")
        return dict(teachers)
    try:
        shelf = Shelf.at(folder, limit_gb=None if cache == "auto" else float(cache), note=note)
    except OSError as error:
        note(f"the teacher's answers are not kept: {folder} cannot be written ({error.strerror})")
        return dict(teachers)
    kept: dict[str, Teacher] = {
        name: Cached(one, shelf=shelf, samples=samples, precision=precision) for name, one in frozen.items()
    }
    return {**teachers, **kept}


def read_share(teachers: Mapping[str, Teacher]) -> float | None:
    """The share of answers that were read and not computed, 0 to 1; None: no teacher has a cache."""
    kept = [teacher for teacher in teachers.values() if isinstance(teacher, Cached)]
    seen = sum(teacher.read + teacher.computed for teacher in kept)
    return sum(teacher.read for teacher in kept) / seen if seen else None


def _tensors(out: Out) -> dict[str, Tensor]:
    return {"logits": out.logits, **{f"tap {tap}": value for tap, value in out.feats.items()}}


def _out(tensors: Mapping[str, Tensor]) -> Out:
    return Out(logits=tensors["logits"], feats=dict(_feats(tensors)))


def _feats(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if name != "logits":
            yield name.removeprefix("tap "), value
