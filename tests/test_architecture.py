"""The arrows between the layers run one way, and starting up costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgepress

ROOT = Path(edgepress.__file__).parent
LAYERS = {"targets": {"targets"}, "stages": {"targets", "stages"}, "pipeline": {"targets", "stages", "pipeline"}}
FILES = [(layer, path) for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
HEAVY = ("torch", "onnxruntime", "openvino", "onnx", "matplotlib", "sklearn", "accelerate", "tensorrt", "torch_pruning")


def imported_layers(layer: str, path: Path) -> set[str]:
    """Layers that a file imports from, wherever in the file it does."""
    found = set()
    depth = len(path.relative_to(ROOT).parts) - 1  # folders below the package
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = depth - node.level + 1
            if above == 0:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {str(name).split(".")[0] for name in names}
            else:
                found.add(layer)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgepress"):
            raise AssertionError(f"{path}: import {node.module} relatively inside the package")
    return found & LAYERS.keys()


@pytest.mark.parametrize(("layer", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_imports_run_from_pipeline_to_stages_to_targets(layer: str, path: Path) -> None:
    assert imported_layers(layer, path) <= LAYERS[layer]


def test_the_four_folders_stand_at_the_top_of_the_repository() -> None:
    for name in (*LAYERS, "profiles"):
        link = ROOT / name
        if link.is_symlink():  # a checkout; an installed wheel has plain folders
            assert link.readlink() == Path("..") / ".." / name


def loaded_after(code: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after running `code`."""
    probe = f"import sys; {code}; print(*sorted(set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) & set(HEAVY)


@pytest.mark.parametrize(
    "code",
    [
        "import edgepress",
        "import edgepress.pipeline.cli",
        "import edgepress.targets, edgepress.targets.measure, edgepress.targets.profiles",
        "import edgepress.pipeline.plan",
        "from edgepress.pipeline import cli; cli.main(['targets', '--json'])",
        "from edgepress.pipeline import cli; cli.main(['schema', 'recipe'])",
        "from edgepress.pipeline import cli; cli.main(['--dry-run', '--json'])",
    ],
)
def test_nothing_heavy_is_imported_before_there_is_work_for_it(code: str) -> None:
    assert not loaded_after(code)


def test_the_version_is_told_without_importing_anything() -> None:
    done = subprocess.run([sys.executable, "-m", "edgepress", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["edgepress", edgepress.__version__]


def test_every_file_that_is_not_python_is_installed() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    settings = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["edgepress"]
    listed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    there = {path for layer in (*LAYERS, "profiles") for path in (ROOT / layer).rglob("*") if path.is_file()}
    assert not {path for path in there if path.suffix not in (".py", ".pyc")} - listed
