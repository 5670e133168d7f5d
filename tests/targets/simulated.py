"""A machine that is made up, for tests of what is timed."""

import random
from collections.abc import Callable

MS = 1_000_000


class World:
    """A machine whose clock only moves when a call works; step_ns: what its clock can see."""

    def __init__(self, *, step_ns: int = 1, slowdown: Callable[[float], float] = lambda second: 1.0) -> None:
        self.now_ns = 0
        self._step_ns = step_ns
        self._slowdown = slowdown

    def clock(self) -> int:
        return self.now_ns // self._step_ns * self._step_ns

    def call(self, ms: float, *, noise: float = 0.0, seed: int = 0) -> Callable[[], None]:
        """A call that takes `ms` on a machine at rest."""
        rng = random.Random(seed)

        def work() -> None:
            factor = self._slowdown(self.now_ns / 1e9) * max(0.1, 1 + noise * rng.gauss(0, 1))
            self.now_ns += round(ms * MS * factor)

        return work
