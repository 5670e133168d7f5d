"""Where work says how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Where a stage says how far it is."""

    def update(self, share: float, text: str) -> None:
        """share: 0 to 1 of this stage. text: a few words, such as `epoch 3/10  loss 0.21`."""


class Quiet:
    """Says nothing."""

    def update(self, share: float, text: str) -> None: ...


class Span:
    """A part of a stage: what it says of itself is told as a share of the whole. words: in front of it."""

    def __init__(self, whole: Progress, start: float, end: float, *, words: str = "") -> None:
        self.whole, self.start, self.end, self.words = whole, start, end, words

    def update(self, share: float, text: str) -> None:
        self.whole.update(self.start + (self.end - self.start) * share, self.words + text)
