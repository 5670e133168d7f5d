"""Small networks and honest synthetic data for every task besides one class for an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 12
VOCABULARY, LENGTH = 20, 10


def texts(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of two marks comes first: their order is the class, and everything else is noise and padding."""
    random = np.random.default_rng(seed)
    rows = random.integers(3, VOCABULARY, (count, LENGTH))
    labels = random.integers(2, size=count)
    for row, label in zip(rows, labels, strict=True):
        length = random.integers(5, LENGTH + 1)
        first, second = np.sort(random.choice(length, 2, replace=False))
        row[first], row[second] = (1, 2) if label == 0 else (2, 1)
        row[length:] = 0
    return rows, labels


def marked_texts(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What each token is: even, odd, or the one behind a mark."""
    rows, _ = texts(count, seed=seed)
    labels = rows % 2
    labels[:, 1:][rows[:, :-1] == 1] = 2
    return rows, labels


def squares(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark square on a grey noisy ground, as images and as maps of ground, bright and dark."""
    random = np.random.default_rng(seed)
    images = random.integers(90, 160, (count, SIDE, SIDE), dtype=np.uint8)
    masks = np.zeros(images.shape, dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for kind, value in ((1, 240), (2, 20)):
            top, left = random.integers(0, SIDE - 4, 2)
            image[top : top + 4, left : left + 4] = value
            mask[top : top + 4, left : left + 4] = kind
    masks[:, 0] = 255  # nobody labelled the first row
    return images, masks


def several(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the three corners are bright: none, some or all."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=(count, 3))
    images = random.integers(0, 150, (count, SIDE, SIDE), dtype=np.uint8)
    for image, row in zip(images, labels, strict=True):
        for corner, bright in zip((np.s_[:4, :4], np.s_[:4, 8:], np.s_[8:, :4]), row, strict=True):
            image[corner] += np.uint8(40 * bright)
    return images, labels


def gauges(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bar of a certain height and brightness: both are to be read."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 40, (count, SIDE, SIDE), dtype=np.uint8)
    heights, lights = random.integers(1, SIDE, count), random.integers(80, 250, count)
    for image, height, light in zip(images, heights, lights, strict=True):
        image[-height:, 4:8] = light
    return images, np.stack([heights / 10, lights / 100], axis=1).astype(np.float32)


class Reader(nn.Module):
    """A block of attention over embedded tokens; one answer, or one for each token."""

    def __init__(self, classes: int, *, every_token: bool, width: int = 16) -> None:
        super().__init__()
        self.every_token = every_token
        self.words = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.places = nn.Parameter(0.5 * torch.randn(LENGTH, width))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        blank = tokens == 0
        x = self.words(tokens) + self.places
        scores = torch.matmul(self.query(x), self.key(x).transpose(1, 2)) / 4
        x = self.norm(x + torch.matmul(scores.masked_fill(blank[:, None, :], -1e4).softmax(-1), self.value(x)))
        x = F.relu(self.grow(x))
        if self.every_token:
            return self.head(x)
        there = (~blank).float().unsqueeze(-1)
        return self.head((x * there).sum(dim=1) / there.sum(dim=1).clamp(min=1))


class Looker(nn.Module):
    """Three convolutions, and an answer for the image."""

    def __init__(self, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(*layer(1, width), *layer(width, width, stride=2), *layer(width, width, stride=2))
        self.head = nn.Linear(9 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Painter(nn.Module):
    """Two convolutions, and an answer for each pixel."""

    def __init__(self, classes: int = 3, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(*layer(1, width), *layer(width, width))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def layer(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


DATA: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "text": texts,
    "tokens": marked_texts,
    "segmentation": squares,
    "multilabel": several,
    "regression": gauges,
}
CLASSES = {
    "text": ("first", "second"),
    "tokens": ("even", "odd", "behind"),
    "segmentation": ("ground", "bright", "dark"),
    "multilabel": ("left", "right", "below"),
    "regression": ("height", "light"),
}


def network(task: str, *, seed: int = 0, width: int = 16) -> nn.Module:
    """Untrained, in eval mode."""
    torch.manual_seed(seed)
    if task in ("text", "tokens"):
        module: nn.Module = Reader(len(CLASSES[task]), every_token=task == "tokens", width=width)
    elif task == "segmentation":
        module = Painter(width=width)
    else:
        module = Looker(len(CLASSES[task]), width=width)
    return module.eval()


def told(task: str, *, train: int = 384, val: int = 96, test: int = 128) -> dict[str, Any]:
    """What a data function returns."""
    make = DATA[task]
    splits = {"train": make(train, seed=1), "val": make(val, seed=2), "test": make(test, seed=3)}
    texts_too = {"vocabulary": VOCABULARY, "pad": 0} if task in ("text", "tokens") else {}
    return {**splits, "task": task, "classes": CLASSES[task], **texts_too}
