"""Where work says how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Where a stage says how far it is."""

    def update(self, share: float, text: str) -> None:
        """share: 0 to 1 of this stage. text: a few words, such as `epoch 3/10  loss 0.21`."""


class Quiet:
    """Says nothing."""

    def update(self, share: float, text: str) -> None: ...
