"""Import what a recipe names: a function in a file of the user's, with the right line blamed, or a package."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ..targets.errors import RecipeError, RuntimeMissingError, did_you_mean
from ..targets.installed import problem

CODE = "__edgepress_code__"  # what a module of a user's keeps of its file, which may change while we run


def load_function(source: str) -> Callable[..., Any]:
    """The function that `path/to/file.py:function` names.

    What goes wrong in the file, when it is imported or when the function is called, becomes a RecipeError
    that names the user's own line. The file's folder is importable meanwhile, so that a file may import its
    neighbours.
    """
    location, colon, name = source.rpartition(":")
    if not colon or location.rpartition(".")[2] != "py":
        location, name = source, ""
    path = Path(location).expanduser()
    if not path.is_file():
        raise RecipeError(f"{source}: there is no file {location} (looked in {Path.cwd()})")
    module = _import(path)
    known = _functions(module)
    if not name:
        example = f"; it has {', '.join(known)}" if known else ""
        raise RecipeError(f"{source} names no function: write {location}:FUNCTION{example}")
    function = getattr(module, name, None)
    if function is None:
        raise RecipeError(f"{location} has no function {name!r}{did_you_mean(name, known)}")
    if not callable(function):
        raise RecipeError(
            f"{source} is of type {type(function).__name__}, not a function: write a function that returns it"
        )

    def call(**arguments: Any) -> Any:
        with _blamed(path, f"{source} failed"):
            return function(**arguments)

    return call


def import_for(source: str, package: str) -> Any:
    """An optional package that `source` needs. RuntimeMissingError: it is not installed, or installed and broken."""
    trouble = problem(package, package=package)
    if trouble:
        raise RuntimeMissingError(f"{source}: {trouble}")
    return importlib.import_module(package)


def _import(path: Path) -> ModuleType:
    """The module of a file. One name for each content: a file that has changed is imported anew."""
    path = path.resolve()
    code = path.read_bytes()
    name = f"_edgepress_user_{path.stem}_{hashlib.sha256(str(path).encode() + code).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    vars(module)[CODE] = code
    sys.modules[name] = module  # before it runs, as import does: classes look their module up there
    try:
        with _blamed(path, f"{path.name} cannot be imported"):
            # Not by the spec's loader: it takes yesterday's bytecode for a file changed within a second.
            exec(compile(code, str(path), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _blamed(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into a RecipeError with its line."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        missing = isinstance(error, ModuleNotFoundError)
        advice = " Install it next to edgepress, or put it beside the file." if missing else ""
        raise RecipeError(f"{what} at {_line(error, path)}: {reason}.{advice}") from error
    finally:
        if folder in sys.path:  # the user's code may have taken it away
            sys.path.remove(folder)


def _line(error: BaseException, path: Path) -> str:
    """`file.py:12`, the innermost line of the user's own folder that took part."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    folder = path.resolve().parent
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if folder in Path(frame.filename).parents and "site-packages" not in Path(frame.filename).parts
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)


def _functions(module: ModuleType) -> list[str]:
    """What a user may have meant: the public callables that the file defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
