"""Options that several commands share, and how every command explains itself."""

from __future__ import annotations

import argparse
from typing import Any

ON_BOARD = "measure on this board, ssh://user@board[:port]"


class Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def command_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Of one of the small commands."""
    return argparse.ArgumentParser(prog=f"compress {command}", description=description, formatter_class=Formatter)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="NAME", default="openvino-cpu", help="device (default: openvino-cpu)")


def add_board(parser: argparse.ArgumentParser, **device: Any) -> None:
    parser.add_argument("--device", metavar="ADDRESS", **device)
    parser.add_argument("--device-python", metavar="PATH", help="the Python on the board that has the runtime")
    parser.add_argument(
        "--lock-clocks", action="store_true", help="hold a Jetson's clocks while it is measured, and put them back"
    )
    parser.add_argument(
        "--power-mode", type=int, metavar="N", help="a Jetson's power mode while it is measured, as nvpmodel numbers it"
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="print only the result")
