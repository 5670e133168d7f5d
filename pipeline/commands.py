"""The small commands around the main job: their options, and who carries each out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from .options import ON_BOARD, add_board, add_device, add_json, add_output_options, command_parser


def _targets(words: list[str]) -> int:
    parser = command_parser("targets", "List the devices that are known.")
    add_json(parser)
    options = parser.parse_args(words)
    from . import listing

    return listing.targets(as_json=options.json)


def _check(words: list[str]) -> int:
    parser = command_parser("check", "Validate recipes and profiles, and ONNX files for a board with TensorRT.")
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="YAML files (a profile has a runtime, a recipe has not); ONNX files"
    )
    parser.add_argument("--target", metavar="NAME", help="the board that ONNX files are for")
    options = parser.parse_args(words)
    from . import listing

    return listing.check(options.files, target=options.target)


def _losses(words: list[str]) -> int:
    parser = command_parser("losses", "List the losses of distillation, or explain one.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a loss")
    add_json(parser)
    options = parser.parse_args(words)
    from . import methods

    if options.name is None:
        return methods.list_methods(as_json=options.json)
    return methods.explain(options.name, as_json=options.json)


def _taps(words: list[str]) -> int:
    parser = command_parser(
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
    add_json(parser)
    options = parser.parse_args(words)
    from . import tapping

    return tapping.main(options)


def _search(words: list[str]) -> int:
    parser = command_parser(
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
    add_output_options(parser)
    parser.set_defaults(budget=[], device=[], lock_clocks=False, power_mode=None, device_python=None)
    parser.set_defaults(**dict.fromkeys(("model", "weights", "data", "eval_data", *_other_networks()), None))
    options = parser.parse_args(words)
    from . import search

    return search.main(options)


def _other_networks() -> tuple[str, ...]:
    parts = tuple(f"{role}{part}" for role in ("teacher", "student") for part in ("", "_weights"))
    return (*parts, "student_initialise")


def _profile(words: list[str]) -> int:
    parser = command_parser("profile", "Measure ONNX files in a target's runtime, in turn.")
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL.onnx",
        help="several are timed in turn and compared with the first",
    )
    add_device(parser)
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for all together (default: 10)")
    parser.add_argument(
        "--sustained", metavar="TIME", help="then time them for so long, to see what heat does: 10min, 90s"
    )
    add_board(parser, help=ON_BOARD)
    add_output_options(parser)
    options = parser.parse_args(words)
    from . import measuring

    return measuring.main(options)


def _selftest(words: list[str]) -> int:
    parser = command_parser(
        "selftest",
        "Compare one engine with itself again and again: how often a difference is claimed that is not "
        "there, and how small a difference this machine can resolve.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL.onnx", help="what to time (default: a small network)")
    add_device(parser)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each comparison (default: 2)")
    parser.add_argument("--runs", type=int, default=20, help="comparisons (default: 20)")
    add_output_options(parser)
    options = parser.parse_args(words)
    from . import selftest

    return selftest.main(options)


def _pool(words: list[str]) -> int:
    parser = command_parser("pool", "Look into the images that a run without data made, and check that they are whole.")
    parser.add_argument("folder", metavar="DIR", help="of a run, or of one pool (the one that cached:DIR takes)")
    parser.add_argument("--png", metavar="FOLDER", help="write the images there, in a folder for each class")
    add_json(parser)
    options = parser.parse_args(words)
    from . import pools

    return pools.main(options)


def _report(words: list[str]) -> int:
    parser = command_parser("report", "Render a finished run again.")
    parser.add_argument("folder", metavar="DIR", help="folder with a report.json")
    add_output_options(parser)
    options = parser.parse_args(words)
    from . import listing

    return listing.report(options.folder, as_json=options.json)


def _compare(words: list[str]) -> int:
    parser = command_parser(
        "compare", "Show finished runs side by side, if they were measured under the same conditions."
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="with a report.json; the first sets the conditions")
    parser.add_argument("--anyway", action="store_true", help="compare what differs too, and mark it")
    parser.add_argument("--html", metavar="FILE", help="write the table as a page too")
    add_json(parser)
    options = parser.parse_args(words)
    from . import comparing

    return comparing.main(options)


def _verify(words: list[str]) -> int:
    parser = command_parser(
        "verify",
        "Check a finished run: hashes, schema, that every figure follows from the samples, and a quick "
        "measurement of accuracy and speed-up where the runtime and the data are here.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder with a report.json")
    parser.add_argument("--no-measure", action="store_true", help="read only, run nothing")
    parser.add_argument("--data", metavar="SOURCE", help="where the data are, if not where the report says")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing (default: 3)")
    add_json(parser)
    options = parser.parse_args(words)
    from . import verifying

    return verifying.main(options)


def _device(words: list[str]) -> int:
    parser = command_parser(
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
    add_json(parser)
    options = parser.parse_args(words)
    from . import devices

    return devices.main(options)


def _import(words: list[str]) -> int:
    parser = command_parser(
        "import",
        "Put what a bundle found on a board into the report of its run, as measured on the device.",
    )
    parser.add_argument("archive", metavar="RESULTS.tar", help="what run.sh left on the board")
    parser.add_argument("--out", metavar="FOLDER", help="of the run (default: the one in compressed/ that it fits)")
    add_output_options(parser)
    options = parser.parse_args(words)
    from . import importing

    return importing.main(options)


def _schema(words: list[str]) -> int:
    parser = command_parser("schema", "Print a JSON schema.")
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
