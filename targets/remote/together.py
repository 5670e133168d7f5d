"""Several boards at once: each in a thread of its own, all of which end with this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Found = TypeVar("Found")
LOOK_SECONDS = 0.2  # between two looks, so that Ctrl-C is heard


def on_all(calls: Sequence[Callable[[], Found]]) -> list[Found | BaseException]:
    """What each call returned or raised, in their order. KeyboardInterrupt: theirs go on and nobody waits for them."""
    if len(calls) == 1:
        try:
            return [calls[0]()]
        except Exception as error:
            return [error]
    found: list[Found | BaseException | None] = [None] * len(calls)

    def carry_out(place: int) -> None:
        try:
            found[place] = calls[place]()
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=carry_out, args=(place,), daemon=True) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(LOOK_SECONDS)
    assert all(one is not None for one in found), "a call returned nothing"
    return [one for one in found if one is not None]
