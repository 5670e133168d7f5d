"""Samples of two kinds: what the student is given, and what its teacher is given of the same thing.

Privileged information (Lopez-Paz et al., 2016, arXiv:1511.03643) and another modality (Gupta et al., 2016,
arXiv:1507.00448) are both this: the teacher sees more, or something else, and the student learns to do without.
"""

from __future__ import annotations

from .contract import Preprocessing, Tokens
from .splits import Split


def teachers_preprocessing(split: Split, preprocessing: Preprocessing | Tokens) -> Preprocessing | Tokens:
    """How a teacher's input becomes numbers: as the student's where the channels are as many, else from -1 to 1."""
    if split.teacher_pixels is None or isinstance(preprocessing, Tokens):
        return preprocessing
    channels, height, width = split.teacher_pixels.shape
    if channels == preprocessing.channels:
        mean, std = preprocessing.mean, preprocessing.std
    else:
        mean = std = (0.5,) * channels
    return Preprocessing(size=(height, width), channels=channels, mean=mean, std=std)
