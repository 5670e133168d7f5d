"""Write a report as JSON, HTML and Markdown, and read the JSON back."""

import json
import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...targets.errors import RecipeError, StageError
from .html import html
from .markdown import markdown
from .schema import SCHEMA_VERSION, Report

SHOWN_PROBLEMS = 5  # a report of another shape has hundreds, and the first ones tell as much


def write(report: Report, folder: Path) -> None:
    """Put report.json, report.md and report.html into the folder, which is made if need be.

    Each file appears complete or not at all. The JSON comes first: it is the truth, the others are
    renderings of it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / "report.json", _json(report))
        _put(folder / "report.md", markdown(report))
        _put(folder / "report.html", html(report))
    except OSError as error:
        raise StageError(
            f"the report cannot be written to {folder}: {error.strerror or error}. "
            "Make room or name another folder with --out; finished stages are reused."
        ) from error


def read(folder: Path) -> Report:
    """The report in that folder. RecipeError: there is none, or it cannot be read."""
    path = folder / "report.json"
    again = "Run `compress` again with this folder as --out: finished stages are reused."
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no report at {path}. Name the --out folder of a finished run.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}. {again}") from None
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path} is not JSON (line {error.lineno}: {error.msg}). {again}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets a thousand deep
        raise RecipeError(f"{path} is no report: {str(error)[:100]}. {again}") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise RecipeError(f"{path} has schema version {version!r}; this program reads {SCHEMA_VERSION!r}. {again}")
    try:
        return Report.model_validate(values)
    except ValidationError as error:
        problems = [
            f"  {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()[:SHOWN_PROBLEMS]
        ]
        more = error.error_count() - len(problems)
        if more > 0:
            problems.append(f"  and {more} more")
        raise RecipeError("\n".join([f"{path} does not hold:", *problems, again])) from None


def json_schema() -> dict[str, Any]:
    """The published JSON schema of report.json."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _json(report: Report) -> str:
    """Indented, but with one line for each round of samples: there are thousands."""
    text = report.as_json(indent=1)
    # a string of JSON holds no line break, so this matches nothing but lists of numbers
    return re.sub(r"\[\n[-+\d.eE,\s]+\]", lambda match: " ".join(match[0].split()), text) + "\n"


def _put(path: Path, text: str) -> None:
    """Write under a temporary name, flush to the disk, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
