"""Read YAML as plain data, and remember the line of every key."""

from __future__ import annotations

from typing import Any

import yaml

from ..targets.errors import RecipeError

Path = tuple[str | int, ...]


def read(text: str, *, origin: str) -> tuple[Any, dict[Path, int]]:
    """The data, and the line (from 1) of each key and item by its path.

    RecipeError: it is not YAML, a key stands twice, or it asks for more than plain data.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Path, int] = {}
        twice: list[str] = []
        if node is not None:
            _walk(node, (), lines, twice)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}:{mark.line + 1}" if mark else origin
        raise RecipeError(f"{place}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{origin}: not YAML: {error}") from None
    if twice:
        raise RecipeError("\n".join(f"{origin}:{problem}" for problem in twice))
    return data, lines


def line_of(path: Path, lines: dict[Path, int]) -> int | None:
    """The line of a path, or of the nearest one that contains it."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], twice: list[str]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                twice.append(f"{line}: the key {name!r} stands twice; remove one")
            seen.add(name)
            inner = (*path, name)
            lines[inner] = line
            _walk(value, inner, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, twice)
