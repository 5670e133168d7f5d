"""Data as a user would hand them over: a function that returns arrays.

    data:
      source: examples/my_data.py:shapes
      augment: [flip, crop]

It returns "train" and "test", each a pair (images, labels). "val" may be given too; without it some training
images, or some test images, are set aside. Images are uint8 from 0 to 255 or floating point from 0 to 1, and
not normalised: that is data.mean and data.std in the recipe. Here they are drawn, so that the example runs
anywhere; yours will rather be

    images, labels = np.load("images.npy"), np.load("labels.npy")
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSES = ("disc", "square", "diamond", "cross")
SIDE = 32


def shapes() -> dict[str, Any]:
    """Four shapes of any size, place and colour on a noisy ground, 32 x 32 pixels, RGB."""
    return {"train": draw(1200, seed=1), "test": draw(400, seed=2), "classes": CLASSES}


def draw(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (count, height, width, channels) and labels (count,)."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(CLASSES), size=count)
    radius = random.uniform(5, 10, size=(count, 1, 1))
    centre = random.uniform(11, SIDE - 11, size=(2, count, 1, 1))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    down, right = np.abs(rows - centre[0]), np.abs(columns - centre[1])
    inside = np.stack(
        [
            np.hypot(down, right) < radius,
            np.maximum(down, right) < 0.85 * radius,
            down + right < 1.2 * radius,
            (np.minimum(down, right) < 0.3 * radius) & (np.maximum(down, right) < radius),
        ]
    )
    shape = inside[labels, np.arange(count)][..., None]
    ground = random.uniform(0, 110, size=(count, 1, 1, 3)) + random.normal(0, 12, size=(count, SIDE, SIDE, 3))
    colour = random.uniform(140, 255, size=(count, 1, 1, 3))
    return np.where(shape, colour, ground).clip(0, 255).astype(np.uint8), labels
