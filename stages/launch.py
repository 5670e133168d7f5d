"""Which of several processes this one is, as their launcher says. No torch here."""

import os


def processes() -> tuple[int, int]:
    """This process's rank, and how many there are: (0, 1) without a launcher such as `torchrun`."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
