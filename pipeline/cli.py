"""The command line: one main job, and small commands around it. Imports nothing heavy before there is work for it."""

from __future__ import annotations

import argparse
import errno
import json
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..stages.launch import processes
from ..targets.errors import EdgepressError
from .commands import COMMANDS
from .options import ON_BOARD, Formatter, add_board, add_output_options

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
WRONG_USAGE = 2
STAGE_FAILED = 5
SECONDS_TO_LET_MAIN_SPEAK = 5.0

EPILOG = """\
other commands:
  compress targets                  the devices that are known, and whether they can be measured here
  compress check FILE...            validate recipes and profiles
  compress losses [NAME]            the losses of distillation, or one of them explained
  compress search RECIPE            find good settings for a training, judged on validation images
  compress taps MODEL               where a network can be tapped, and which taps of two belong together
  compress profile MODEL.onnx       measure an ONNX file that exists
  compress selftest                 what differences this machine can resolve, and whether it claims false ones
  compress device check ssh://...   what a board is, what is missing there, which profile fits (also clean, unlock)
  compress pool DIR                 images that were made for want of data: how many of what, and as files (--png)
  compress import RESULTS.tar       put what a bundle found on a board into the run's report
  compress report DIR               render a finished run again
  compress compare DIR DIR...       finished runs side by side
  compress verify DIR               check a finished run: files, figures, and a quick measurement
  compress schema recipe|profile|report
                                    JSON schema, for completion in editors
  compress COMMAND --help           more about one of them

exit codes: 0 done and no limit of the budget missed, 2 wrong recipe or arguments, 3 a runtime is missing,
4 budget missed or the machine too noisy to tell, 5 a stage failed, 130 stopped with Ctrl-C (the same command goes on
from there)
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
    rank, count = processes()
    if rank > 0:
        # What went wrong everywhere, the main process says, and the launcher ends this one in the meantime.
        time.sleep(SECONDS_TO_LET_MAIN_SPEAK)
        text = f"process {rank} of {count}: {text}"
    if as_json and rank == 0:
        print(json.dumps({"error": text, "exit_code": code}))
    print(f"compress: {text}", file=sys.stderr)
    return code


def job_parser() -> argparse.ArgumentParser:
    """The main job's options."""
    parser = argparse.ArgumentParser(
        prog="compress",
        description="Distil, prune, quantise and export a trained PyTorch model for one device, and measure it in the "
        "runtime that will run it. Without a recipe or --model, the built-in example runs.",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", nargs="?", help="YAML file that describes the job; options override it")
    parser.add_argument(
        "--target", metavar="NAME", help="device: a profile's name or YAML file (default: openvino-cpu)"
    )
    add_board(parser, action="append", default=[], help=f"{ON_BOARD}; several: give it again")
    parser.add_argument(
        "--model", metavar="SOURCE", help="file.py:function, torchvision:NAME, timm:NAME or transformers:FOLDER"
    )
    parser.add_argument("--weights", metavar="FILE", help="of the model: .pt, .pth or .safetensors")
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="imagefolder:PATH, torchvision:NAME, mnist:PATH, file.py:function; none: "
        "images are made from the model alone (also images:FOLDER of any pictures)",
    )
    parser.add_argument(
        "--eval-data", metavar="SOURCE", help="with --data none: real data that judge, and teach nothing"
    )
    for role, meaning in (("teacher", "who is imitated"), ("student", "the network to ship")):
        parser.add_argument(f"--{role}", metavar="SOURCE", help=f"{meaning} (default: the model)")
        parser.add_argument(f"--{role}-weights", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument(
        "--student-initialise",
        metavar="WHO",
        help="whose weights the student starts from, where it is slimmer or shallower: teacher",
    )
    parser.add_argument("--budget", metavar="LIMIT=VALUE", action="append", default=[], help="for example speedup=3")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any recipe key: prune.ratio=0.5"
    )
    parser.add_argument("--seed", metavar="N", help="of everything random (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="for the report and the models (default: compressed/...)")
    parser.add_argument("--ship", metavar="VARIANT", help="choose this variant, even where the guard refuses it")
    parser.add_argument(
        "--track",
        metavar="WHOM",
        choices=["mlflow"],
        help="tell mlflow the curves too (TensorBoard's are in OUT/tensorboard)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--fresh", action="store_true", help="ignore finished stages of earlier runs")
    add_output_options(parser)
    parser.add_argument("--version", action="version", version=f"edgepress {__version__}")
    return parser


def _main_job(words: list[str]) -> int:
    options = job_parser().parse_args(words)
    from . import job

    return job.main(options, command=shlex.join(["compress", *words]))


def entry() -> Any:
    """For the console scripts."""
    sys.exit(main())
