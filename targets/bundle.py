"""A folder to carry to a board that cannot be reached: models, and one script that builds and times them."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import half, model_input
from .errors import RecipeError, StageError
from .operators import check
from .profiles import Profile
from .sessions import Array
from .tensorrt_tool.orders import as_read, orders
from .trt import is_strongly_typed, version_code

SCRIPT = Path(__file__).with_name("board.sh")
MANIFEST = "manifest.json"
SAMPLE = "inputs/sample.bin"
RANGE_SAMPLES = 16  # by which it is found what overflows float16
PARTS = ("models", "inputs", "expected")
TEXTS = ("run.sh", "README.txt", MANIFEST)
NOT_YET_RUN = (
    "Not yet run on hardware: this script was tested with a stand-in for trtexec, not on a board. "
    "If it fails there, send the log of the step that failed."
)


@dataclass(frozen=True, kw_only=True)
class _Build:
    """One engine: what trtexec is told to build it, and to time it."""

    name: str
    model: str  # relative to the bundle
    precision: str
    build: Sequence[str]
    time: Sequence[str]
    expected: str | None  # the answers to compare with, one number on each line


def write_bundle(
    folder: Path,
    onnx_files: Mapping[str, Path],
    *,
    profile: Profile,
    samples: Array,
    expected: Mapping[str, NDArray[np.float32]],
) -> Path:
    """Write the bundle into `folder`, new or an earlier bundle, and return it.

    onnx_files: by variant. A file with Q/DQ nodes becomes one INT8 engine, one with float16 tensors one FP16 engine,
    any other one engine for each of the profile's other precisions. samples: as the model takes them, the first is
    what the board runs.
    expected: what each variant answers to the samples. StageError: TensorRT there would refuse a file.
    """
    if profile.runtime != "tensorrt" or profile.runtime_version is None:
        raise RecipeError(f"profile {profile.name}: a bundle is for TensorRT, and this one runs {profile.runtime}")
    problems = [
        problem
        for path in onnx_files.values()
        for problem in check(path, version=profile.runtime_version, has_int8="int8" in profile.precisions)
    ]
    if problems:
        raise StageError("\n".join(["these files would not build on the board:", *problems]))
    _make_room(folder)
    (folder / SAMPLE).write_bytes(as_read(samples[:1], profile.runtime_version).tobytes())
    builds: list[_Build] = []
    for name, path in onnx_files.items():
        answers = expected.get(name)
        if answers is not None:
            lines = "\n".join(f"{value:.9g}" for value in np.asarray(answers[:1]).ravel())
            (folder / f"expected/{_safe(name)}.txt").write_text(lines + "\n", encoding="utf-8")
        for precision, model in _models(name, path, profile, samples, folder / "models").items():
            builds.append(_build(name, precision, model, profile, has_answers=answers is not None))
    _write_texts(folder, profile, builds)
    _write_checksums(folder)
    return folder


def _make_room(folder: Path) -> None:
    """Empty folders for what is written; results that came back from the board stay."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise RecipeError(f"{folder} holds other files than a bundle: name a folder that is new or empty")
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)


def _models(name: str, path: Path, profile: Profile, samples: Array, folder: Path) -> dict[str, Path]:
    """The file of each engine, by the precision of the engine: one file for all of them, where a flag decides."""
    model, copied = model_input.load(path), folder / f"{_safe(name)}.onnx"
    shutil.copyfile(path, copied)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return {"int8": copied}
    if half.is_half(model):
        return {"fp16": copied}  # TensorRT builds no engine without FP16 of float16 tensors
    plain = [precision for precision in profile.precisions if precision in {"fp32", "fp16"}]
    found: dict[str, Path] = dict.fromkeys(plain, copied)
    if "fp16" in found and is_strongly_typed(profile.runtime_version or ""):
        largest = half.largest_values(path.read_bytes(), samples[:RANGE_SAMPLES])
        found["fp16"] = folder / f"{_safe(name)}-fp16.onnx"
        found["fp16"].write_bytes(half.to_half(model, largest=largest).SerializeToString())
    return found


def _build(name: str, precision: str, model: Path, profile: Profile, *, has_answers: bool) -> _Build:
    taken = model_input.read(model)
    told = orders(taken, precision=precision, profile=profile, version=profile.runtime_version or "", sample=SAMPLE)
    return _Build(
        name=f"{_safe(name)}-{precision}",
        model=f"models/{model.name}",
        precision=precision,
        build=told.build,
        time=told.time,
        expected=f"expected/{_safe(name)}.txt" if has_answers else None,
    )


def _safe(name: str) -> str:
    """A name that is a file name everywhere. RecipeError: it is none."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RecipeError(f"variant {name!r} cannot name a file: use letters, digits, dots, dashes and underscores")
    return name


def _write_texts(folder: Path, profile: Profile, builds: list[_Build]) -> None:
    calls = "\n".join(
        " ".join(
            shlex.quote(word)
            for word in (
                "engine",
                build.name,
                build.model,
                build.expected or "-",
                *build.build,
                "--",
                *build.time,
            )
        )
        for build in builds
    )
    version = profile.runtime_version or ""
    board = " ".join(profile.board.split())  # it stands in a comment of the script: on one line
    script = SCRIPT.read_text(encoding="utf-8")
    for mark, text in {
        "@BOARD@": board,
        "@VERSION@": version,
        "@CODE@": version_code(version),
    }.items():
        script = script.replace(mark, text)
    run = folder / "run.sh"
    run.write_text(script.replace("@ENGINES@", calls), encoding="utf-8")
    run.chmod(0o755)
    manifest: dict[str, Any] = {
        "schema_version": "1",
        "profile": profile.name,
        "board": profile.board,
        "tensorrt": version,
        "note": NOT_YET_RUN,
        "engines": [asdict(build) for build in builds],
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(profile, builds), encoding="utf-8")


def _readme(profile: Profile, builds: list[_Build]) -> str:
    engines = "\n".join(f"  {build.name:<24} {build.precision:<5} {build.model}" for build in builds)
    return f"""Models for {profile.board} with TensorRT {profile.runtime_version}

{NOT_YET_RUN}

1. Copy this folder to the board:     scp -r {profile.name} USER@BOARD:
2. Set the board to its fastest mode: sudo nvpmodel -m 0 && sudo jetson_clocks   (look up the mode's number)
3. Run it there:                      sh run.sh
   It takes minutes for each engine. A run that was interrupted goes on where it stopped.
4. Read results/summary.txt, and keep results/: it has every sample, the answers and the logs.

Engines:
{engines}
"""


def _write_checksums(folder: Path) -> None:
    files = [
        *sorted(path for part in PARTS for path in (folder / part).iterdir()),
        *(folder / name for name in TEXTS),
    ]
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    text = "".join(f"{digest}  {path.relative_to(folder).as_posix()}\n" for path, digest in sums.items())
    (folder / "SHA256SUMS").write_text(text, encoding="utf-8")
