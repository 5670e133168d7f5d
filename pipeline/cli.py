"""The command line: one main job, and small commands around it. Imports nothing heavy before there is work for it."""

from __future__ import annotations

import argparse
import errno
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..stages.launch import processes
from ..targets.errors import EdgepressError

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
WRONG_USAGE = 2
STAGE_FAILED = 5
SECONDS_TO_LET_MAIN_SPEAK = 5.0
ON_BOARD = "measure on this board, ssh://user@board[:port]"

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
    _add_board(parser, action="append", default=[], help=f"{ON_BOARD}; several: give it again")
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
    _add_output_options(parser)
    parser.add_argument("--version", action="version", version=f"edgepress {__version__}")
    return parser


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    """Of one of the small commands."""
    return argparse.ArgumentParser(prog=f"compress {command}", description=description, formatter_class=_Formatter)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="NAME", default="openvino-cpu", help="device (default: openvino-cpu)")


def _add_board(parser: argparse.ArgumentParser, **device: Any) -> None:
    parser.add_argument("--device", metavar="ADDRESS", **device)
    parser.add_argument("--device-python", metavar="PATH", help="the Python on the board that has the runtime")
    parser.add_argument(
        "--lock-clocks", action="store_true", help="hold a Jetson's clocks while it is measured, and put them back"
    )
    parser.add_argument(
        "--power-mode", type=int, metavar="N", help="a Jetson's power mode while it is measured, as nvpmodel numbers it"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    _add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="print only the result")


def _main_job(words: list[str]) -> int:
    options = job_parser().parse_args(words)
    from . import job

    return job.main(options, command=shlex.join(["compress", *words]))


def _targets(words: list[str]) -> int:
    parser = _parser("targets", "List the devices that are known.")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import listing

    return listing.targets(as_json=options.json)


def _check(words: list[str]) -> int:
    parser = _parser("check", "Validate recipes and profiles, and ONNX files for a board with TensorRT.")
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML files (a profile has a runtime, a recipe has not); ONNX files"
    )
    parser.add_argument("--target", metavar="NAME", help="the board that ONNX files are for")
    options = parser.parse_args(words)
    from . import listing

    return listing.check(options.files, target=options.target)


def _losses(words: list[str]) -> int:
    parser = _parser("losses", "List the losses of distillation, or explain one.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a loss")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import methods

    if options.name is None:
        return methods.list_methods(as_json=options.json)
    return methods.explain(options.name, as_json=options.json)


def _taps(words: list[str]) -> int:
    parser = _parser(
        "taps",
        "Print where a network can be tapped, with shapes, and the taps that each place stands for; with "
        "--student the pairs that a loss would compare.",
    )
    source = "file.py:function, torchvision:NAME, timm:NAME, transformers:FOLDER or builtin:NAME"
    parser.add_argument("model", metavar="MODEL", help=f"{source}; the teacher, where there is a student")
    parser.add_argument("--student", metavar="MODEL", help="the network that learns from it")
    parser.add_argument(
        "--input", metavar="SHAPE", help="of one image, 3x32x32, or the length of a text, 64 (default: 1x8x8, digits)"
    )
    parser.add_argument("--classes", metavar="N", default="10", help="of a network that is made for them (default: 10)")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import tapping

    return tapping.main(options)


def _search(words: list[str]) -> int:
    parser = _parser(
        "search",
        "Search the settings of a training stage, judged on the validation images, and those of "
        "plain training with the labels, with as many trials. The same command goes on where it was stopped.",
    )
    parser.add_argument("recipe", nargs="?", help="YAML file that describes the job (default: the built-in example)")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="trainings of each kind (default: 20)")
    parser.add_argument("--timeout", metavar="TIME", help="start no training after so long: 30min, 2h")
    parser.add_argument(
        "--over", metavar="KEY=LOW:HIGH", action="append", default=[],
        help="a setting to search, or KEY=ONE,OTHER (default: of distill the learning rate, weights and temperature)",
    )  # fmt: skip
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any recipe key, fixed")
    parser.add_argument("--target", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--seed", metavar="N", help="of everything random (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="for the trials and best.yaml (default: compressed/...)")
    _add_output_options(parser)
    parser.set_defaults(budget=[], device=[], lock_clocks=False, power_mode=None, device_python=None)
    parser.set_defaults(**dict.fromkeys(("model", "weights", "data", "eval_data", *_other_networks()), None))
    options = parser.parse_args(words)
    from . import search

    return search.main(options)


def _other_networks() -> tuple[str, ...]:
    parts = tuple(f"{role}{part}" for role in ("teacher", "student") for part in ("", "_weights"))
    return (*parts, "student_initialise")


def _profile(words: list[str]) -> int:
    parser = _parser("profile", "Measure ONNX files in a target's runtime, in turn.")
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL.onnx",
        help="several are timed in turn and compared with the first",
    )
    _add_device(parser)
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for all together (default: 10)")
    parser.add_argument(
        "--sustained", metavar="TIME", help="then time them for so long, to see what heat does: 10min, 90s"
    )
    _add_board(parser, help=ON_BOARD)
    _add_output_options(parser)
    options = parser.parse_args(words)
    from . import measuring

    return measuring.main(options)


def _selftest(words: list[str]) -> int:
    parser = _parser(
        "selftest",
        "Compare one engine with itself again and again: how often a difference is claimed that is not "
        "there, and how small a difference this machine can resolve.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL.onnx", help="what to time (default: a small network)")
    _add_device(parser)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each comparison (default: 2)")
    parser.add_argument("--runs", type=int, default=20, help="comparisons (default: 20)")
    _add_output_options(parser)
    options = parser.parse_args(words)
    from . import selftest

    return selftest.main(options)


def _pool(words: list[str]) -> int:
    parser = _parser("pool", "Look into the images that a run without data made, and check that they are whole.")
    parser.add_argument("folder", metavar="DIR", help="of a run, or of one pool (the one that cached:DIR takes)")
    parser.add_argument("--png", metavar="FOLDER", help="write the images there, in a folder for each class")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import pools

    return pools.main(options)


def _report(words: list[str]) -> int:
    parser = _parser("report", "Render a finished run again.")
    parser.add_argument("folder", metavar="DIR", help="folder with a report.json")
    _add_output_options(parser)
    options = parser.parse_args(words)
    from . import listing

    return listing.report(options.folder, as_json=options.json)


def _compare(words: list[str]) -> int:
    parser = _parser("compare", "Show finished runs side by side, if they were measured under the same conditions.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="with a report.json; the first sets the conditions")
    parser.add_argument("--anyway", action="store_true", help="compare what differs too, and mark it")
    parser.add_argument("--html", metavar="FILE", help="write the table as a page too")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import comparing

    return comparing.main(options)


def _verify(words: list[str]) -> int:
    parser = _parser(
        "verify",
        "Check a finished run: hashes, schema, that every figure follows from the samples, and a quick "
        "measurement of accuracy and speed-up where the runtime and the data are here.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder with a report.json")
    parser.add_argument("--no-measure", action="store_true", help="read only, run nothing")
    parser.add_argument("--data", metavar="SOURCE", help="where the data are, if not where the report says")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing (default: 3)")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import verifying

    return verifying.main(options)


def _device(words: list[str]) -> int:
    parser = _parser(
        "device",
        "check: what a board is, what is missing there, and which profile fits. clean: end what runs there and remove "
        "everything of ours. unlock: put clocks back that an interrupted measurement left held.",
    )
    parser.add_argument("what", choices=["check", "clean", "unlock"])
    parser.add_argument(
        "address", metavar="ADDRESS", help="ssh://user@board[:port]; the host may be one of ~/.ssh/config"
    )
    parser.add_argument("--target", metavar="NAME", help="check: does this profile fit?")
    parser.add_argument("--device-python", metavar="PATH", help="the Python on the board that has the runtime")
    _add_json(parser)
    options = parser.parse_args(words)
    from . import devices

    return devices.main(options)


def _import(words: list[str]) -> int:
    parser = _parser(
        "import",
        "Put what a bundle found on a board into the report of its run, as measured on the device.",
    )
    parser.add_argument("archive", metavar="RESULTS.tar", help="what run.sh left on the board")
    parser.add_argument("--out", metavar="FOLDER", help="of the run (default: the one in compressed/ that it fits)")
    _add_output_options(parser)
    options = parser.parse_args(words)
    from . import importing

    return importing.main(options)


def _schema(words: list[str]) -> int:
    parser = _parser("schema", "Print a JSON schema.")
    parser.add_argument("kind", choices=["recipe", "profile", "report"])
    options = parser.parse_args(words)
    from . import listing

    print(json.dumps(listing.schema(options.kind), indent=2))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "targets": _targets,
    "check": _check,
    "losses": _losses,
    "search": _search,
    "taps": _taps,
    "profile": _profile,
    "selftest": _selftest,
    "device": _device,
    "pool": _pool,
    "import": _import,
    "report": _report,
    "compare": _compare,
    "verify": _verify,
    "schema": _schema,
}


def entry() -> Any:
    """For the console scripts."""
    sys.exit(main())
