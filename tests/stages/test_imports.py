"""A user's file is imported when it is named, and its mistakes are told with its own lines."""

import sys
from pathlib import Path

import pytest

from edgepress.stages.imports import import_for, load_function
from edgepress.targets.errors import RecipeError, RuntimeMissingError


def written(folder: Path, text: str, name: str = "user.py") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_function_is_called_with_its_arguments(tmp_path: Path) -> None:
    path = written(tmp_path, "def add(a, b=1):\n    return a + b\n")
    assert load_function(f"{path}:add")(a=2, b=3) == 5


def test_a_file_may_import_its_neighbours_also_when_it_is_called(tmp_path: Path) -> None:
    written(tmp_path, "VALUE = 7\n", "neighbour_of_user.py")
    written(tmp_path, "VALUE = 8\n", "late_neighbour_of_user.py")
    text = (
        "import neighbour_of_user as a\ndef f():\n    import late_neighbour_of_user as b\n    return a.VALUE, b.VALUE\n"
    )
    before = list(sys.path)
    assert load_function(f"{written(tmp_path, text)}:f")() == (7, 8)
    assert sys.path == before


def test_two_files_of_one_name_are_two_modules_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = written(tmp_path, "def f():\n    return 1\n")
    second = written(tmp_path / "other", "def f():\n    return 2\n")
    assert (load_function(f"{first}:f")(), load_function(f"{second}:f")()) == (1, 2)
    written(tmp_path, "def f():\n    return 3\n")
    assert load_function(f"{first}:f")() == 3


def test_nothing_is_written_beside_the_user_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load_function(f"{written(tmp_path, 'def f(): pass')}:f")
    assert [path.name for path in tmp_path.iterdir()] == ["user.py"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no file .*gone\.py"):
        load_function(f"{tmp_path}/gone.py:f")


def test_a_near_miss_of_a_function_is_suggested(tmp_path: Path) -> None:
    path = written(tmp_path, "from math import sqrt\ndef resnet20():\n    pass\n")
    with pytest.raises(RecipeError, match=r"has no function 'resnet2'; did you mean 'resnet20'\?"):
        load_function(f"{path}:resnet2")


def test_a_source_without_a_function_lists_what_the_file_defines(tmp_path: Path) -> None:
    path = written(tmp_path, "from math import sqrt\ndef one():\n    pass\ndef _two():\n    pass\n")
    with pytest.raises(RecipeError, match=r"names no function: write .*user\.py:FUNCTION; it has one$"):
        load_function(path)


def test_a_thing_that_is_no_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is of type int, not a function"):
        load_function(f"{written(tmp_path, 'value = 3')}:value")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\nraise ValueError('no luck')\n", 2, "ValueError: no luck"),
        ("def f(:\n", 1, "SyntaxError"),
        ("import math\nimport no_such_package_at_all\n", 2, "Install it next to edgepress"),
        ("\n\nimport sys\nsys.exit(4)\n", 4, "SystemExit: 4"),
        ("assert False\n", 1, "AssertionError"),
    ],
)
def test_an_error_at_import_names_the_user_s_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(RecipeError, match=rf"user\.py cannot be imported at .*user\.py:{line}: .*{words}"):
        load_function(f"{written(tmp_path, text)}:f")


def test_an_error_in_a_call_names_the_innermost_line_of_the_user(tmp_path: Path) -> None:
    text = "import json\ndef f():\n    return g()\ndef g():\n    return json.loads('{')\n"
    function = load_function(f"{written(tmp_path, text)}:f")
    with pytest.raises(RecipeError, match=r"user\.py:f failed at .*user\.py:5: JSONDecodeError"):
        function()


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    function = load_function(f"{written(tmp_path, 'def f(width): pass')}:f")
    with pytest.raises(RecipeError, match="unexpected keyword argument 'depth'"):
        function(depth=3)


def test_a_file_that_failed_is_tried_again(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    text = f"import pathlib\nassert pathlib.Path({str(flag)!r}).exists()\ndef f():\n    return 1\n"
    path = written(tmp_path, text)
    with pytest.raises(RecipeError):
        load_function(f"{path}:f")
    flag.touch()
    assert load_function(f"{path}:f")() == 1


def test_a_package_that_is_not_there_is_told_with_the_way_to_get_it() -> None:
    with pytest.raises(RuntimeMissingError, match=r"timm:x: no_such_package_at_all is not installed: pip install"):
        import_for("timm:x", "no_such_package_at_all")


def test_a_package_that_is_there_is_imported() -> None:
    assert import_for("x", "json").loads("3") == 3
