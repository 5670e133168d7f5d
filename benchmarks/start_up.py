"""How long the commands take that do no work: whole processes, in turn."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from pairs import in_turn, machine, spread

COMMANDS = (["--help"], ["targets"], ["--dry-run"], ["schema", "recipe"])


def call(words: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-m", "edgepress", *words], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    where = machine()
    seconds = in_turn({" ".join(words): call(words) for words in COMMANDS}, rounds=2 if options.quick else 15)
    print(f"{where}\n\n| command | seconds, median (range) |\n|---|---|")
    for name, values in seconds.items():
        print(f"| `compress {name}` | {spread(values)} |")


if __name__ == "__main__":
    main()
