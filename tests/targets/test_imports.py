"""What importing targets/ costs: nothing heavy is loaded before there is work for it."""

import json
import subprocess
import sys
from pathlib import Path

import edgepress.targets

HEAVY = ("torch", "onnxruntime", "openvino", "onnx", "tensorrt", "matplotlib", "sklearn")
FOLDER = Path(edgepress.targets.__file__).parent
MODULES = sorted(f"edgepress.targets.{path.stem}" for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_importing_every_module_of_targets_loads_no_runtime() -> None:
    script = f"""
import importlib, json, sys
for name in {MODULES!r}:
    importlib.import_module(name)
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []


def test_the_measuring_process_loads_no_torch_and_no_pydantic() -> None:
    script = (
        "import sys, edgepress.targets.worker; print([name for name in ('torch', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_targets_imports_neither_stages_nor_pipeline() -> None:
    for path in FOLDER.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "..stages" not in text, path.name
        assert "..pipeline" not in text, path.name
        assert "import torch" not in text, path.name
