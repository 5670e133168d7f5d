"""A folder to carry to a board that cannot be reached: a job, and the script that carries it out there.

It is the same job as over ssh, so its results are read in the same way: `compress import`.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import RecipeError, StageError
from .jobs import Engine
from .operators import check
from .profiles import Profile
from .remote.boards import BoardFacts
from .remote.package import packed
from .remote.ssh import chunks
from .remote.work import Work, plan
from .sessions import Array
from .trt import version_code

SCRIPT = Path(__file__).with_name("board.sh")
MANIFEST = "manifest.json"
BOARD_SCRIPT = "board.pyz"
PARTS = ("models", "inputs")
TEXTS = ("run.sh", "README.txt", MANIFEST, BOARD_SCRIPT)
NOT_YET_RUN = (
    "Not yet run on hardware: this was tested on a PC, with a stand-in for trtexec, and not on a board. "
    "If it fails there, send the log of the step that failed."
)


def write_bundle(
    folder: Path, engines: Sequence[Engine], *, profile: Profile, samples: Array, seconds: float = 60.0, seed: int = 0
) -> Work:
    """Write the bundle into `folder`, new or an earlier bundle, and return the job that it holds.

    samples: as the model takes them; the first is what is timed, all are answered. seconds: of timing, all engines
    together. StageError: TensorRT there would refuse a file.
    """
    for engine in engines:
        _refuse_strange(engine.name)
    problems = list(_unbuildable(engines, profile))
    if problems:
        raise StageError("\n".join(["these files would not build on the board:", *problems]))
    _make_room(folder)
    # What a board of that profile would tell of itself: flags depend on the version alone.
    code = version_code(profile.runtime_version) if profile.runtime == "tensorrt" and profile.runtime_version else None
    facts = BoardFacts(python="3", home="/", boot_id="carried", tensorrt_code=code)
    work = plan(engines, profile=profile, facts=facts, inputs=samples, seconds=seconds, seed=seed)
    for name, content in work.files.items():
        with (folder / name).open("wb") as file:
            file.writelines(chunks(content))
    _write_texts(folder, profile, work)
    _write_checksums(folder)
    return work


def _unbuildable(engines: Sequence[Engine], profile: Profile) -> Iterator[str]:
    """What TensorRT there would refuse; other runtimes read what was answered with them here."""
    if profile.runtime != "tensorrt":
        return
    for path in dict.fromkeys(engine.path for engine in engines):
        yield from check(path, version=profile.runtime_version or "", has_int8="int8" in profile.precisions)


def _make_room(folder: Path) -> None:
    """Empty folders for what is written; results that came back from the board stay."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise RecipeError(f"{folder} holds other files than a bundle: name a folder that is new or empty")
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)


def _refuse_strange(name: str) -> None:
    """RecipeError: the name is no file name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RecipeError(f"variant {name!r} cannot name a file: use letters, digits, dots, dashes and underscores")


def _write_texts(folder: Path, profile: Profile, work: Work) -> None:
    board = " ".join(profile.board.split())  # it stands in a comment of the script: on one line
    script = SCRIPT.read_text(encoding="utf-8")
    for mark, text in {"@BOARD@": board, "@RUNTIME@": _runtime(profile)}.items():
        script = script.replace(mark, text)
    (folder / "run.sh").write_text(script, encoding="utf-8")
    (folder / "run.sh").chmod(0o755)
    (folder / BOARD_SCRIPT).write_bytes(packed())
    (folder / MANIFEST).write_text(json.dumps(work.manifest, indent=1) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(profile, work), encoding="utf-8")


def _runtime(profile: Profile) -> str:
    name = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[profile.runtime]
    return " ".join(filter(None, (name, profile.runtime_version)))


def _steps(profile: Profile) -> str:
    """What is done on the board before run.sh, and how that is started."""
    if profile.runtime == "tensorrt":
        mode, start = "sudo nvpmodel -m 0 && sudo jetson_clocks   (look up the mode's number)", "sh bundle/run.sh"
        return f"2. Set the board to its fastest mode: {mode}\n3. Run it there:                      {start}"
    install = f"python3 -m venv env && env/bin/pip install {profile.runtime}"
    return (
        f"2. Give it a Python with the runtime: {install}\n3. Run it there:                      "
        'PYTHON="$PWD/env/bin/python" sh bundle/run.sh'
    )


def _readme(profile: Profile, work: Work) -> str:
    engines = "\n".join(
        f"  {engine['name']:<24} {engine['precision']:<5} {engine['model']}" for engine in work.manifest["engines"]
    )
    return f"""Models for {profile.board} with {_runtime(profile)}

{NOT_YET_RUN}

1. Copy this folder to the board:     scp -r bundle USER@BOARD:
{_steps(profile)}
   It takes minutes for each engine. A run that was interrupted goes on where it stopped.
4. Bring bundle/results.tar back, and put it into the run's report on the machine that made it:
                                      compress import results.tar --out FOLDER_OF_THE_RUN

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
