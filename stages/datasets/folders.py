"""Look through a tree of image folders: which splits, which classes, which files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...targets.errors import RecipeError

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of one split. names: relative to root, by class in alphabetical order, with labels."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    ignored: int  # files that do not end like an image


def list_splits(root: Path, *, source: str) -> dict[str, Listing]:
    """Every split that the folder has; "train" alone where it holds class folders itself.

    RecipeError: the folder does not hold what it should, or the splits have different classes.
    """
    folders = {name: path for name, path in _folders(root, source).items() if name in SPLIT_FOLDERS}
    splits: dict[str, Listing] = {}
    for name, path in folders.items():
        split = SPLIT_FOLDERS[name]
        if split in splits:
            raise RecipeError(f"data.source {source}: {splits[split].root} and {path} are both {split}; keep one")
        splits[split] = list_classes(path, source=source)
    if not splits:
        return {"train": list_classes(root, source=source)}
    splits = {name: splits[name] for name in ("train", "val", "test") if name in splits}
    _same_classes(splits, source)
    return splits


def list_classes(root: Path, *, source: str) -> Listing:
    """Every image under the class folders of `root`; classes in alphabetical order, as in torchvision."""
    folders = _folders(root, source)
    found = {name: _files(path, source) for name, path in folders.items()}
    classes = tuple(name for name in sorted(found) if found[name][0])
    if not classes:
        raise RecipeError(
            f"data.source {source}: {root} holds {_contents(root, folders)}. Wanted is one folder for each "
            f"class with images in it, such as {root / 'cat' / '001.jpg'}."
        )
    return Listing(
        root=root,
        classes=classes,
        names=tuple(f"{name}/{file}" for name in classes for file in found[name][0]),
        labels=tuple(label for label, name in enumerate(classes) for _ in found[name][0]),
        ignored=sum(ignored for _, ignored in found.values()),
    )


def list_images(root: Path, *, source: str) -> tuple[str, ...]:
    """Every image under a folder at any depth, relative to it. RecipeError: there is none."""
    folders = _folders(root, source)
    names, _ = _files(root, source)
    if not names:
        raise RecipeError(f"data.source {source}: {root} holds {_contents(root, folders)}; wanted are images")
    return tuple(names)


def _folders(root: Path, source: str) -> dict[str, Path]:
    if not root.exists():
        raise RecipeError(f"data.source {source}: there is no folder {root} (looked from {Path.cwd()})")
    if not root.is_dir():
        raise RecipeError(f"data.source {source}: {root} is a file; wanted a folder with a folder for each class")
    try:
        with os.scandir(root) as entries:
            return {
                entry.name: Path(entry.path)
                for entry in sorted(entries, key=lambda entry: entry.name)
                if entry.is_dir() and not entry.name.startswith((".", "__"))
            }
    except OSError as error:
        raise RecipeError(f"data.source {source}: {root} cannot be read: {error.strerror}") from error


def _files(folder: Path, source: str) -> tuple[list[str], int]:
    """Images at any depth, relative to the class folder, and how many other files there are."""

    def refuse(error: OSError) -> None:
        raise RecipeError(f"data.source {source}: {error.filename} cannot be read: {error.strerror}") from error

    images, others = [], 0
    for place, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        inside = os.path.relpath(place, folder)
        for name in names:
            if Path(name).suffix.lower() in IMAGE_ENDINGS and not name.startswith("."):
                images.append(name if inside == "." else f"{inside}/{name}".replace(os.sep, "/"))
            elif not name.startswith("."):
                others += 1
    return sorted(images), others


def _contents(root: Path, folders: Mapping[str, Path]) -> str:
    files = sum(1 for path in root.iterdir() if path.is_file())
    if not files and not folders:
        return "nothing"
    return (
        f"{files} files and {len(folders)} folders, none of them with images"
        if folders
        else (f"{files} files and no folders")
    )


def _same_classes(splits: Mapping[str, Listing], source: str) -> None:
    (first, reference), *others = splits.items()
    for name, listing in others:
        here, there = set(reference.classes), set(listing.classes)
        if here == there:
            continue
        sides = [
            f"{side} has {len(extra)} that {opposite} lacks ({', '.join(sorted(extra)[:5])})"
            for side, opposite, extra in ((first, name, here - there), (name, first, there - here))
            if extra
        ]
        raise RecipeError(
            f"data.source {source}: the splits have different classes: {'; '.join(sides)}. Every split needs "
            "a folder with images for every class."
        )
