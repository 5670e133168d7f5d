"""What a person sees while a run goes on: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..targets.durations import duration

SECONDS_BETWEEN_LINES, MOST_SECONDS_BETWEEN_LINES = 5.0, 60.0  # where there is no terminal; rarer as time passes

COLUMNS_WITHOUT_TERMINAL = 120


def result_console() -> Console:
    """For results on standard output: as wide as the terminal, and wide enough for every table in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=COLUMNS_WITHOUT_TERMINAL)


class Bar:
    """One stage on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def update(self, share: float, text: str) -> None:
        self.progress.update(self.task, completed=share, text=text)


class Lines:
    """One stage in a log: a line now and then, with the time left."""

    def __init__(self, console: Console, name: str) -> None:
        self.console, self.name = console, name
        self.began = self.last = time.monotonic()

    def update(self, share: float, text: str) -> None:
        now = time.monotonic()
        spent = now - self.began
        if now - self.last < min(MOST_SECONDS_BETWEEN_LINES, max(SECONDS_BETWEEN_LINES, spent / 50)):
            return
        self.last = now
        left = f", {duration(round(spent * (1 - share) / share))} left" if share > 0 else ""
        self.console.print(
            f"  {self.name}: {100 * share:.0f} %{left}  {text}", markup=False, highlight=False, soft_wrap=True
        )


class ConsoleReporter:
    """Says how a run goes on a console; use it inside `showing()`."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.progress: Progress | None = None

    @contextmanager
    def showing(self) -> Iterator[ConsoleReporter]:
        """Draw the bar while the block runs."""
        if self.quiet or not self.console.is_terminal:
            yield self
            return
        columns = (
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=self.console, transient=True) as self.progress:
            yield self
        self.progress = None

    def stage(self, name: str) -> Bar | Lines:
        if self.progress is None:
            return Lines(Console(quiet=True) if self.quiet else self.console, name)
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        return Bar(self.progress, self.progress.add_task(name, total=1.0, text=""))

    def done(self, name: str, text: str) -> None:
        if not self.quiet:
            self.console.print(f"{name:>9}  {text}", markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        if not self.quiet:
            self.console.print(f"     note  {text}", markup=False, highlight=False, soft_wrap=True)
