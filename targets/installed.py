"""Is a runtime here? Tells "not installed" from "installed but broken", each with the way out.

Some runtimes report their use to their makers as soon as they are imported. They are told not to before that.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from types import ModuleType

from .errors import RuntimeMissingError


def keep_quiet() -> None:
    """Let no runtime that is imported from now on, here or in a process begun from here, report its use.

    ONNX Runtime from 1.29 on sends names and hashes of models unless this variable is set. OpenVINO sends that it was
    imported wherever the package for that is found, and does without where it is not.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails from now on


def problem(module: str, *, package: str) -> str | None:
    """Why `module` cannot be used, in one sentence; None where it can. Imports it to know."""
    keep_quiet()
    if importlib.util.find_spec(module) is None:
        return f"{package} is not installed: pip install {package}"
    try:
        importlib.import_module(module)
    except Exception as error:  # a native library may fail in any way while it loads
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return (
            f"{package} is installed but broken: {type(error).__name__}: {reason}. "
            f"Reinstall it (pip install --force-reinstall {package}) or install the library that it names."
        )
    return None


def load(module: str, *, package: str) -> ModuleType:
    """Import a runtime. RuntimeMissingError: it is not there or broken."""
    trouble = problem(module, package=package)
    if trouble:
        raise RuntimeMissingError(trouble)
    return importlib.import_module(module)


def version(package: str) -> str:
    """The installed version, read without importing anything; "not installed" where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
