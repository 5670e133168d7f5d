"""The command line: one main job, and small commands around it. Imports nothing heavy before there is work for it."""

from __future__ import annotations

import argparse
import errno
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..targets.errors import EdgepressError

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
WRONG_USAGE = 2
STAGE_FAILED = 5

EPILOG = """\
other commands:
  compress targets                  the devices that are known, and whether they can be measured here
  compress check FILE...            validate recipes and profiles
  compress profile MODEL.onnx       measure an ONNX file that exists
  compress report DIR               render a finished run again
  compress schema recipe|profile|report
                                    JSON schema, for completion in editors
  compress COMMAND --help           more about one of them

exit codes: 0 done and no limit of the budget missed, 2 wrong recipe or arguments, 3 a runtime is missing,
4 budget missed, 5 a stage failed, 130 stopped with Ctrl-C (the same command goes on from there)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        return _command(words)
    except EdgepressError as error:
        return _fail(str(error), error.exit_code, as_json=as_json)
    except KeyboardInterrupt:
        text = "stopped. Finished stages and the last finished epoch are kept; the same command goes on from there."
        return _fail(text, INTERRUPTED, as_json=as_json)
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        place = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror}{place}. Make room or name another folder with --out; finished stages are kept."
        return _fail(text, STAGE_FAILED, as_json=as_json)


def _command(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    return _main_job(words)


def _fail(text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": text, "exit_code": code}))
    print(f"compress: {text}", file=sys.stderr)
    return code


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def job_parser() -> argparse.ArgumentParser:
    """The main job's options."""
    parser = argparse.ArgumentParser(
        prog="compress",
        description="Distil, prune, quantise and export a trained PyTorch model for one device, and measure it in the "
        "runtime that will run it. Without a recipe or --model, the built-in example runs.",
        epilog=EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", nargs="?", help="YAML file that describes the job; options override it")
    parser.add_argument(
        "--target", metavar="NAME", help="device: a profile's name or YAML file (default: openvino-cpu)"
    )
    parser.add_argument("--model", metavar="SOURCE", help="file.py:function, torchvision:NAME or timm:NAME")
    parser.add_argument("--weights", metavar="FILE", help="of the model: .pt, .pth or .safetensors")
    parser.add_argument(
        "--data", metavar="SOURCE", help="imagefolder:PATH, torchvision:NAME, mnist:PATH, file.py:function"
    )
    for role, meaning in (("teacher", "who is imitated"), ("student", "the network to ship")):
        parser.add_argument(f"--{role}", metavar="SOURCE", help=f"{meaning} (default: the model)")
        parser.add_argument(f"--{role}-weights", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--budget", metavar="LIMIT=VALUE", action="append", default=[], help="for example speedup=3")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any recipe key: prune.ratio=0.5"
    )
    parser.add_argument("--seed", metavar="N", help="of everything random (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="for the report and the models (default: compressed/...)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--fresh", action="store_true", help="ignore finished stages of earlier runs")
    _add_output_options(parser)
    parser.add_argument("--version", action="version", version=f"edgepress {__version__}")
    return parser


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="print only the result")


def _main_job(words: list[str]) -> int:
    options = job_parser().parse_args(words)
    from . import job

    return job.main(options, command=shlex.join(["compress", *words]))


def _targets(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compress targets", description="List the devices that are known.")
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    options = parser.parse_args(words)
    from . import listing

    return listing.targets(as_json=options.json)


def _check(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compress check", description="Validate recipes and profiles.")
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML files; a profile has a runtime, a recipe has not"
    )
    options = parser.parse_args(words)
    from . import listing

    return listing.check(options.files)


def _profile(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="compress profile",
        description="Measure ONNX files in a target's runtime, in turn.",
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL.onnx",
        help="several are timed in turn and compared with the first",
    )
    parser.add_argument("--target", metavar="NAME", default="openvino-cpu", help="device (default: openvino-cpu)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for all together (default: 10)")
    _add_output_options(parser)
    options = parser.parse_args(words)
    from . import measuring

    return measuring.main(options)


def _report(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compress report", description="Render a finished run again.")
    parser.add_argument("folder", metavar="DIR", help="folder with a report.json")
    _add_output_options(parser)
    options = parser.parse_args(words)
    from . import listing

    return listing.report(options.folder, as_json=options.json)


def _schema(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compress schema", description="Print a JSON schema.")
    parser.add_argument("kind", choices=["recipe", "profile", "report"])
    options = parser.parse_args(words)
    from . import listing

    print(json.dumps(listing.schema(options.kind), indent=2))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "targets": _targets,
    "check": _check,
    "profile": _profile,
    "report": _report,
    "schema": _schema,
}


def entry() -> Any:
    """For the console scripts."""
    sys.exit(main())
