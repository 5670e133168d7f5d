"""What a measuring process says while it works, and how it hears that nobody wants more."""

import json
import os
import signal
from typing import Any

from .errors import EdgepressError


class Events:
    """Tells the parent what happens: each line also says that this process is alive.

    stopping: Ctrl-C was pressed; whoever measures ends as soon as it can and keeps what it has.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.stopping = False

    def listen(self) -> None:
        """From here on Ctrl-C asks this process to finish instead of ending it."""

        def stop(number: int, frame: object) -> None:
            self.stopping = True

        signal.signal(signal.SIGINT, stop)

    def at(self, engine: str, text: str, share: float) -> None:
        self._write({"event": "at", "engine": engine, "text": text, "share": round(share, 4)})

    def failed(self, engine: str, error: Exception) -> None:
        kind = "" if isinstance(error, EdgepressError) else f"{type(error).__name__}: "
        self._write({"event": "failed", "engine": engine, "why": f"{kind}{error}"})

    def _write(self, event: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(event) + "\n").encode())
